//! Cutting text into the words inside which a BPE merges.

mod class;
mod definitions;
mod pattern;

use class::{is_digit, is_number, is_word};
pub(super) use definitions::{Definition, Spelling};
use definitions::{Numbers, Stage};
use pattern::Pattern;

use crate::error::{Error, Result, Status};

/// Every pre-tokeniser: its names, and the expressions that cut one after the other.
pub fn pretokenizers() -> impl Iterator<Item = (&'static [&'static str], Vec<&'static str>)> {
    Definition::all().iter().map(|definition| {
        let expression = |stage: &Stage| match stage {
            Stage::Split(expression) => expression,
            Stage::Numbers(numbers) => numbers.expression(),
        };
        (definition.names, definition.stages.iter().map(expression).collect())
    })
}

/// The words of a text by the pre-tokeniser of a name, if there is one.
pub fn pretokenize<'a>(name: &str, text: &'a str) -> Option<Vec<&'a [u8]>> {
    let pretokenizer = Pretokenizer::new(Definition::of(name)?).ok()?;
    let mut words = Vec::new();
    pretokenizer.split(text, &mut |word| words.push(word));
    Some(words)
}

/// What cuts the text of one tokeniser, ready to use.
pub(super) struct Pretokenizer {
    cuts: Box<[Cut]>,
}

enum Cut {
    Pattern(Pattern),
    Numbers(Numbers),
}

impl Pretokenizer {
    pub fn new(definition: &Definition) -> Result<Pretokenizer> {
        let cut = |stage: &Stage| match stage {
            Stage::Split(expression) => Pattern::parse(expression)
                .map(Cut::Pattern)
                .ok_or_else(|| Error::new(Status::Internal, format!("pre-tokeniser {expression:?} cannot be read"))),
            Stage::Numbers(numbers) => Ok(Cut::Numbers(*numbers)),
        };
        Ok(Pretokenizer { cuts: definition.stages.iter().map(cut).collect::<Result<_>>()? })
    }

    /// Hands out the words of a text in order; end to end they are the text. A word may end inside a character.
    pub fn split<'a>(&self, text: &'a str, word: &mut dyn FnMut(&'a [u8])) {
        split(&self.cuts, text, word);
    }

    pub fn memory_bytes(&self) -> u64 {
        let patterns = self.cuts.iter().map(|cut| match cut {
            Cut::Pattern(pattern) => pattern.memory_bytes(),
            Cut::Numbers(_) => 0,
        });
        size_of_val(&*self.cuts) as u64 + patterns.sum::<u64>()
    }
}

/// Each stage cuts what the one before it has left.
fn split<'a>(cuts: &[Cut], text: &'a str, word: &mut dyn FnMut(&'a [u8])) {
    let Some((cut, rest)) = cuts.split_first() else { return word(text.as_bytes()) };
    let mut next = |piece: &'a str| {
        if !piece.is_empty() {
            split(rest, piece, word);
        }
    };
    match cut {
        Cut::Pattern(pattern) => pattern.split(text, &mut next),
        Cut::Numbers(Numbers::Thousands) => runs(text, is_number, &mut |run, numbers, _| {
            if numbers { thousands(run, &mut next) } else { next(run) }
        }),
        Cut::Numbers(Numbers::ThousandsBeforeBoundary) => thousands_before_boundary(text, &mut next),
        Cut::Numbers(Numbers::CutThousands) => cut_thousands(text, &mut next),
        Cut::Numbers(Numbers::Bytes) => digit_bytes(text.as_bytes(), word),
    }
}

/// Cuts into runs of characters that are, and that are not, of a class, and tells which character follows each.
fn runs<'a>(text: &'a str, is: fn(char) -> bool, piece: &mut dyn FnMut(&'a str, bool, Option<char>)) {
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let inside = is(c);
        let end = rest.find(|c| is(c) != inside).unwrap_or(rest.len());
        let (run, tail) = rest.split_at(end);
        piece(run, inside, tail.chars().next());
        rest = tail;
    }
}

/// Cuts a run into threes from its end: `1|234|567`.
fn thousands<'a>(run: &'a str, piece: &mut dyn FnMut(&'a str)) {
    let mut rest = run;
    let mut left = run.chars().count();
    while left > 0 {
        let take = if left.is_multiple_of(3) { 3 } else { left % 3 };
        let end = rest.char_indices().nth(take).map_or(rest.len(), |(at, _)| at);
        let (head, tail) = rest.split_at(end);
        piece(head);
        rest = tail;
        left -= take;
    }
}

/// Cuts runs of digits into threes, but those before a letter or the like, which stay with what is around them.
fn thousands_before_boundary<'a>(text: &'a str, piece: &mut dyn FnMut(&'a str)) {
    let (mut from, mut at) = (0, 0);
    runs(text, is_digit, &mut |run, digits, after| {
        if digits && !after.is_some_and(is_word) {
            piece(&text[from..at]);
            thousands(run, piece);
            from = at + run.len();
        }
        at += run.len();
    });
    piece(&text[from..]);
}

/// Cuts before each digit from which on a multiple of three digits follow, and nowhere else: `x1|234|567x`.
fn cut_thousands<'a>(text: &'a str, piece: &mut dyn FnMut(&'a str)) {
    // A run's first one or two digits, and what is not a digit, go with what comes after or before them.
    let mut from = 0;
    let mut at = 0;
    runs(text, is_digit, &mut |run, digits, _| {
        let end = at + run.len();
        if digits {
            thousands(run, &mut |group| {
                if group.chars().count() == 3 {
                    piece(&text[from..at]);
                    from = at;
                }
                at += group.len();
            });
        }
        at = end;
    });
    piece(&text[from..]);
}

/// Cuts as `Digits` and then `[0-9][0-9][0-9]` do behind a byte-level stage, which hands on each byte as the character
/// it is spelt with: the bytes of `²³¹¼½¾` in Latin-1 are numbers wherever they stand.
fn digit_bytes<'a>(text: &'a [u8], word: &mut dyn FnMut(&'a [u8])) {
    let is_number = |byte: &u8| matches!(byte, b'0'..=b'9' | 0xb2 | 0xb3 | 0xb9 | 0xbc..=0xbe);
    for run in text.chunk_by(|left, right| is_number(left) == is_number(right)) {
        let (mut from, mut at) = (0, 0);
        while at < run.len() {
            let three = run.get(at..at + 3).filter(|three| three.iter().all(u8::is_ascii_digit));
            let Some(three) = three else {
                at += 1;
                continue;
            };
            if from < at {
                word(&run[from..at]);
            }
            word(three);
            at += 3;
            from = at;
        }
        if from < run.len() {
            word(&run[from..]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(name: &str, text: &str) -> Vec<String> {
        let pretokenizer = Pretokenizer::new(Definition::of(name).unwrap()).unwrap();
        let mut bytes = Vec::new();
        let mut words = Vec::new();
        pretokenizer.split(text, &mut |word| {
            bytes.extend_from_slice(word);
            words.push(String::from_utf8_lossy(word).into_owned());
        });
        assert_eq!(bytes, text.as_bytes(), "the words are the text");
        words
    }

    #[test]
    fn every_definition_can_be_read() {
        for definition in Definition::all() {
            assert!(Pretokenizer::new(definition).is_ok(), "{:?}", definition.names);
        }
    }

    #[test]
    fn no_name_is_defined_twice() {
        let mut names: Vec<&str> = Definition::all().iter().flat_map(|definition| definition.names).copied().collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
        assert!(Definition::of("no such name").is_none());
    }

    #[test]
    fn gpt2_gives_the_last_space_to_the_word_after_it() {
        assert_eq!(words("gpt-2", "a  b"), ["a", " ", " b"]);
        assert_eq!(words("gpt-2", "a \t\nb\n\n"), ["a", " \t", "\n", "b", "\n\n"]);
        assert_eq!(words("gpt-2", "I'll 'LL x1.5"), ["I", "'ll", " '", "LL", " x", "1", ".", "5"]);
    }

    #[test]
    fn single_digits_are_words_and_end_what_is_before_them() {
        assert_eq!(words("smollm", "a  12½ b"), ["a", "  ", "1", "2", "½", " b"]);
    }

    #[test]
    fn llama3_takes_one_mark_with_a_word_and_newlines_with_marks() {
        assert_eq!(words("llama-bpe", "(ab\tc  d12345!\n\nx"), ["(ab", "\tc", " ", " d", "123", "45", "!\n\n", "x"]);
        assert_eq!(words("llama-bpe", " \n \n  x'RE"), [" \n \n", " ", " x", "'RE"]);
        assert_eq!(words("qwen2", "12"), ["1", "2"]);
    }

    #[test]
    fn the_default_cuts_marks_numbers_and_triples_apart() {
        assert_eq!(words("default", "a=b, 12345½"), ["a", "=", "b", ",", " ", "123", "45½"]);
    }

    #[test]
    fn gpt4o_cuts_where_lower_case_turns_to_upper() {
        assert_eq!(words("gpt-4o", "HelloWorld's HTTPServer"), ["Hello", "World's", " HTTPServer"]);
        assert_eq!(words("gpt-4o", "a//\nªAB"), ["a", "//\n", "ª", "AB"]);
    }

    #[test]
    fn thousands_are_counted_from_the_end_of_a_number() {
        assert_eq!(words("superbpe", "a1234567b½1234"), ["a", "1", "234", "567", "b", "½1", "234"]);
        assert_eq!(words("tiny_aya", "1234567,1234a"), ["1", "234", "567", ",", "123", "4", "a"]);
        assert_eq!(words("afmoe", "1234a"), ["1", "234", "a"]);
    }

    #[test]
    fn falcon_finds_numbers_inside_characters() {
        assert_eq!(words("falcon", " 12345"), [" ", "123", "45"]);
        assert_eq!(words("falcon", "ü").len(), 2);
    }
}
