//! Cutting text into the words inside which a byte-level BPE merges.
//!
//! The cuts are defined by regular expressions with a lookahead (`\s+(?!\S)`). They are written out by hand here: each
//! alternative of the expressions is a run of one class of characters with at most one character before it, so that a
//! scan with one table of general categories does the same in linear time, without backtracking and without the
//! compiled automata and growing caches of an engine.

use unicode_properties::{GeneralCategory as Category, GeneralCategoryGroup as Group, UnicodeGeneralCategory};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pretokenizer {
    /// `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`
    Gpt2,
    /// Every `\p{N}` a word of its own; between them as `Gpt2`.
    SingleDigits,
    /// `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,DIGITS}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`
    Llama3 { digits: usize },
    /// Runs of ``[\p{P}$+<=>^~|]``; between them as `Gpt2`; in all of those runs of `\p{N}`, in them `[0-9]{3}`.
    Default,
    /// As `Llama3` with three digits, but letters come with their marks and a change from lower to upper case cuts:
    /// `[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?`
    /// and the same with `+` and `*` exchanged, ` ?[^\s\p{L}\p{N}]+[\r\n/]*`.
    Gpt4o,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Letter,
    Number,
    /// `\r` or `\n`.
    Newline,
    /// Any other `\s`.
    Space,
    Other,
}

fn class(c: char) -> Class {
    match c {
        'a'..='z' | 'A'..='Z' => Class::Letter,
        '0'..='9' => Class::Number,
        '\r' | '\n' => Class::Newline,
        _ if c.is_whitespace() => Class::Space,
        _ if c.is_ascii() => Class::Other,
        _ => match c.general_category_group() {
            Group::Letter => Class::Letter,
            Group::Number => Class::Number,
            _ => Class::Other,
        },
    }
}

fn is_space(c: char) -> bool {
    matches!(class(c), Class::Space | Class::Newline)
}

fn is_number(c: char) -> bool {
    class(c) == Class::Number
}

impl Pretokenizer {
    /// Hands out the words of a text in order; end to end they are the text.
    pub fn split<'a>(self, text: &'a str, word: &mut impl FnMut(&'a str)) {
        match self {
            Pretokenizer::Gpt2 => each(text, gpt2, word),
            Pretokenizer::Llama3 { digits } => each(text, |rest| llama3(rest, digits), word),
            Pretokenizer::Gpt4o => each(text, gpt4o, word),
            Pretokenizer::SingleDigits => runs(text, is_number, &mut |part, number| {
                if number {
                    each(part, |rest| rest.chars().next().map_or(rest.len(), char::len_utf8), word);
                } else {
                    each(part, gpt2, word);
                }
            }),
            Pretokenizer::Default => runs(text, is_default_mark, &mut |part, _| {
                each(part, gpt2, &mut |part| {
                    runs(part, is_number, &mut |part, _| triples(part, word));
                });
            }),
        }
    }
}

/// Cuts by a function that gives the length of the first word of a text that is not empty.
fn each<'a>(mut text: &'a str, first: impl Fn(&str) -> usize, word: &mut impl FnMut(&'a str)) {
    while !text.is_empty() {
        let (head, rest) = text.split_at(first(text));
        word(head);
        text = rest;
    }
}

/// Cuts into runs of characters that are, and that are not, of a class.
fn runs<'a>(text: &'a str, is: impl Fn(char) -> bool, part: &mut impl FnMut(&'a str, bool)) {
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let inside = is(c);
        let (head, tail) = rest.split_at(run(rest, |c| is(c) == inside));
        part(head, inside);
        rest = tail;
    }
}

/// Cuts out each three ASCII digits in a row.
fn triples<'a>(text: &'a str, word: &mut impl FnMut(&'a str)) {
    runs(text, |c| c.is_ascii_digit(), &mut |part, digits| {
        if !digits {
            return word(part);
        }
        let (threes, rest) = part.split_at(part.len() - part.len() % 3);
        (0..threes.len()).step_by(3).for_each(|at| word(&threes[at..at + 3]));
        if !rest.is_empty() {
            word(rest);
        }
    });
}

fn is_default_mark(c: char) -> bool {
    match c {
        '$' | '+' | '<' | '=' | '>' | '^' | '~' | '|' => true,
        _ => c.general_category_group() == Group::Punctuation,
    }
}

/// Length of the run of such characters at the start of a text.
fn run(text: &str, is: impl Fn(char) -> bool) -> usize {
    text.find(|c| !is(c)).unwrap_or(text.len())
}

fn first_class(text: &str) -> Option<Class> {
    text.chars().next().map(class)
}

/// `'s|'t|'re|'ve|'m|'ll|'d`, in either case if asked: the length, or 0.
fn contraction(text: &str, any_case: bool) -> usize {
    let Some(rest) = text.strip_prefix('\'') else { return 0 };
    let mut letters = rest.chars().map(|c| match c {
        // The long s is an s but for its case.
        'ſ' if any_case => 's',
        _ if any_case => c.to_ascii_lowercase(),
        _ => c,
    });
    let length = match (letters.next(), letters.next()) {
        (Some('s' | 't' | 'm' | 'd'), _) => 1,
        (Some('r' | 'v'), Some('e')) | (Some('l'), Some('l')) => 2,
        _ => return 0,
    };
    1 + rest.chars().take(length).map(char::len_utf8).sum::<usize>()
}

/// `\s+(?!\S)|\s+`: all spaces at the end of the text, else all but the last, which goes with what follows it.
fn spaces(text: &str) -> usize {
    let end = run(text, is_space);
    if end == text.len() {
        return end;
    }
    match text[..end].char_indices().next_back() {
        Some((last, _)) if last > 0 => last,
        _ => end,
    }
}

/// `\s*[\r\n]+|\s+(?!\S)|\s+`
fn lines_or_spaces(text: &str) -> usize {
    let end = run(text, is_space);
    match text[..end].rfind(['\r', '\n']) {
        Some(newline) => newline + 1,
        None => spaces(text),
    }
}

fn gpt2(text: &str) -> usize {
    let length = contraction(text, false);
    if length > 0 {
        return length;
    }
    let body = text.strip_prefix(' ').unwrap_or(text);
    match first_class(body) {
        Some(kind @ (Class::Letter | Class::Number | Class::Other)) => {
            text.len() - body.len() + run(body, |c| class(c) == kind)
        }
        _ => spaces(text),
    }
}

fn llama3(text: &str, digits: usize) -> usize {
    let length = contraction(text, true);
    if length > 0 {
        return length;
    }
    let prefix = prefix(text);
    if first_class(&text[prefix..]) == Some(Class::Letter) {
        return prefix + run(&text[prefix..], |c| class(c) == Class::Letter);
    }
    numbers(text, digits).or_else(|| marks(text, &['\r', '\n'])).unwrap_or_else(|| lines_or_spaces(text))
}

/// `[^\r\n\p{L}\p{N}]?`
fn prefix(text: &str) -> usize {
    match text.chars().next() {
        Some(c) if matches!(class(c), Class::Space | Class::Other) => c.len_utf8(),
        _ => 0,
    }
}

/// `\p{N}{1,most}`
fn numbers(text: &str, most: usize) -> Option<usize> {
    let length = text.chars().take(most).take_while(|&c| is_number(c)).map(char::len_utf8).sum();
    (length > 0).then_some(length)
}

/// ` ?[^\s\p{L}\p{N}]+` and then any of the characters of `after`.
fn marks(text: &str, after: &[char]) -> Option<usize> {
    let body = text.strip_prefix(' ').unwrap_or(text);
    let length = run(body, |c| class(c) == Class::Other);
    (length > 0).then(|| text.len() - body.len() + length + run(&body[length..], |c| after.contains(&c)))
}

/// Which of the two classes of cased words a character is in: upper (`[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]`), lower
/// (`[\p{Ll}\p{Lm}\p{Lo}\p{M}]`).
fn cases(c: char) -> (bool, bool) {
    match c {
        'a'..='z' => (false, true),
        'A'..='Z' => (true, false),
        _ if c.is_ascii() => (false, false),
        _ => match c.general_category() {
            Category::UppercaseLetter | Category::TitlecaseLetter => (true, false),
            Category::LowercaseLetter => (false, true),
            Category::ModifierLetter | Category::OtherLetter => (true, true),
            Category::NonspacingMark | Category::SpacingMark | Category::EnclosingMark => (true, true),
            _ => (false, false),
        },
    }
}

/// `UPPER*LOWER+`: greedy, so that UPPER* gives back the least it must.
fn ends_lower(text: &str) -> Option<usize> {
    let upper = run(text, |c| cases(c).0);
    let lower = run(&text[upper..], |c| cases(c).1);
    if lower > 0 {
        return Some(upper + lower);
    }
    // What follows a character that is in both classes, inside the run, is in the upper one only: LOWER+ ends there.
    text[..upper].char_indices().rev().find(|&(_, c)| cases(c).1).map(|(at, c)| at + c.len_utf8())
}

/// `UPPER+LOWER*`
fn starts_upper(text: &str) -> Option<usize> {
    let upper = run(text, |c| cases(c).0);
    (upper > 0).then(|| upper + run(&text[upper..], |c| cases(c).1))
}

fn gpt4o(text: &str) -> usize {
    let prefix = prefix(text);
    // A mark may be the optional first character or part of the word: the expression tries the first before it.
    let word = |body: fn(&str) -> Option<usize>| {
        body(&text[prefix..]).map(|length| prefix + length).or_else(|| if prefix > 0 { body(text) } else { None })
    };
    if let Some(length) = word(ends_lower).or_else(|| word(starts_upper)) {
        return length + contraction(&text[length..], true);
    }
    numbers(text, 3).or_else(|| marks(text, &['\r', '\n', '/'])).unwrap_or_else(|| lines_or_spaces(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(pretokenizer: Pretokenizer, text: &str) -> Vec<&str> {
        let mut words = Vec::new();
        pretokenizer.split(text, &mut |word| words.push(word));
        assert_eq!(words.concat(), text, "the words are the text");
        words
    }

    #[test]
    fn gpt2_gives_the_last_space_to_the_word_after_it() {
        assert_eq!(words(Pretokenizer::Gpt2, "a  b"), ["a", " ", " b"]);
        assert_eq!(words(Pretokenizer::Gpt2, "a \t\nb\n\n"), ["a", " \t", "\n", "b", "\n\n"]);
        assert_eq!(words(Pretokenizer::Gpt2, "I'll 'LL x1.5"), ["I", "'ll", " '", "LL", " x", "1", ".", "5"]);
    }

    #[test]
    fn single_digits_are_words_and_end_what_is_before_them() {
        assert_eq!(words(Pretokenizer::SingleDigits, "a  12½ b"), ["a", "  ", "1", "2", "½", " b"]);
    }

    #[test]
    fn llama3_takes_one_mark_with_a_word_and_newlines_with_marks() {
        let llama3 = Pretokenizer::Llama3 { digits: 3 };
        assert_eq!(words(llama3, "(ab\tc  d12345!\n\nx"), ["(ab", "\tc", " ", " d", "123", "45", "!\n\n", "x"]);
        assert_eq!(words(llama3, " \n \n  x'RE"), [" \n \n", " ", " x", "'RE"]);
        assert_eq!(words(Pretokenizer::Llama3 { digits: 1 }, "12"), ["1", "2"]);
    }

    #[test]
    fn the_default_cuts_marks_numbers_and_triples_apart() {
        assert_eq!(words(Pretokenizer::Default, "a=b, 12345½"), ["a", "=", "b", ",", " ", "123", "45", "½"]);
    }

    #[test]
    fn gpt4o_cuts_where_lower_case_turns_to_upper() {
        assert_eq!(words(Pretokenizer::Gpt4o, "HelloWorld's HTTPServer"), ["Hello", "World's", " HTTPServer"]);
        assert_eq!(words(Pretokenizer::Gpt4o, "a//\nªAB"), ["a", "//\n", "ª", "AB"]);
    }
}
