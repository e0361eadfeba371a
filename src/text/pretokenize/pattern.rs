//! The regular expressions of pre-tokenisers, and a matcher for them that takes linear time.
//!
//! Tokenisers are defined by expressions for engines that backtrack, with a lookahead (`\s+(?!\S)`) that automata have
//! not. All of them are alternatives of runs of classes of characters; for these a few rules give what a backtracking
//! engine finds, in time linear in the text for every expression of the table (see [`Pattern::split`]), without
//! compiled automata and growing caches.

use super::class::{Lookup, Set, SetBuilder};

/// Repeated without limit.
const ANY: u32 = u32::MAX;

/// The most alternatives an expression may have.
const MOST: usize = 20;

#[derive(Debug)]
enum Item {
    /// At least `min` and at most `max` characters of a set: as many as there are, and as many fewer as what follows
    /// needs, unless it is possessive.
    Run { set: Set, min: u32, max: u32, possessive: bool },
    /// One of several sequences, repeated. Never gives back what it has taken: no expression of ours needs that.
    Group { alternatives: Box<[Sequence]>, min: u32, max: u32 },
    /// `(?!…)`: the next character, if there is one, is not in the set.
    NotBefore(Set),
    /// `$`: here the text ends.
    End,
}

type Sequence = Box<[Item]>;

/// An expression: the first alternative that matches, counts.
#[derive(Debug)]
pub(super) struct Pattern {
    alternatives: Box<[Sequence]>,
}

impl Pattern {
    /// Reads an expression of the kind that pre-tokenisers are defined by. `None` for what is not known here.
    ///
    /// Known are characters, `[…]` with ranges, `\s`, `\d`, `\p{…}` and an intersection `&&[^\p{…}]`, groups, `(?i:…)`
    /// on ASCII letters, `(?!\S)` and other sets, `$`, and the quantifiers `?`, `*`, `+`, `{m}`, `{m,n}`, `?+`, `++`.
    pub fn parse(expression: &str) -> Option<Pattern> {
        let mut parser = Parser { rest: expression };
        let alternatives = parser.alternatives(false)?;
        (parser.rest.is_empty() && alternatives.len() <= MOST).then_some(Pattern { alternatives })
    }

    /// Cuts a text: each match is a piece, and so is what lies between two matches. End to end the pieces are the text.
    ///
    /// An alternative that begins with an unlimited run, such as `\s*[\r\n]+`, and fails after it, fails everywhere in
    /// that run: it is not tried there again. Every other alternative that fails has looked at a bounded number of
    /// characters, or the next one takes all that it looked at.
    pub fn split<'a>(&self, text: &'a str, piece: &mut dyn FnMut(&'a str)) {
        let matcher = Matcher { text, lookup: Lookup::new() };
        let mut fails_until = [0; MOST];
        let (mut done, mut at) = (0, 0);
        while at < text.len() {
            match matcher.first(&self.alternatives, at, &mut fails_until) {
                Some(end) => {
                    if done < at {
                        piece(&text[done..at]);
                    }
                    piece(&text[at..end]);
                    (done, at) = (end, end);
                }
                None => at += matcher.next(at).map_or(1, char::len_utf8),
            }
        }
        if done < at {
            piece(&text[done..]);
        }
    }

    pub fn memory_bytes(&self) -> u64 {
        alternatives_bytes(&self.alternatives)
    }
}

fn alternatives_bytes(alternatives: &[Sequence]) -> u64 {
    let items = |sequence: &Sequence| {
        let inside = sequence.iter().map(|item| match item {
            Item::Run { set, .. } | Item::NotBefore(set) => set.memory_bytes(),
            Item::Group { alternatives, .. } => alternatives_bytes(alternatives),
            Item::End => 0,
        });
        size_of_val(&**sequence) as u64 + inside.sum::<u64>()
    };
    size_of_val(alternatives) as u64 + alternatives.iter().map(items).sum::<u64>()
}

struct Matcher<'a> {
    text: &'a str,
    lookup: Lookup,
}

impl Matcher<'_> {
    fn next(&self, at: usize) -> Option<char> {
        self.text[at..].chars().next()
    }

    /// Where the first alternative that matches at a place ends; matches of nothing do not count. `fails_until` says of
    /// each alternative before which place it is known to fail.
    fn first(&self, alternatives: &[Sequence], at: usize, fails_until: &mut [usize]) -> Option<usize> {
        alternatives
            .iter()
            .zip(fails_until)
            .find_map(|(sequence, fails_until)| {
                if at < *fails_until {
                    return None;
                }
                if let [Item::Run { set, max: ANY, .. }, rest @ ..] = &**sequence
                    && !rest.is_empty()
                {
                    let found = self.sequence(sequence, at);
                    if found.is_none() {
                        *fails_until = self.run(set, at, ANY).0;
                    }
                    return found;
                }
                self.sequence(sequence, at)
            })
            .filter(|&end| end > at)
    }

    /// Where the run of characters of a set that starts at a place ends, and how many they are.
    fn run(&self, set: &Set, at: usize, max: u32) -> (usize, u32) {
        let mut count = 0;
        let mut end = at;
        for c in self.text[at..].chars() {
            if count == max || !set.contains(c, &self.lookup) {
                break;
            }
            end += c.len_utf8();
            count = count.saturating_add(1);
        }
        (end, count)
    }

    fn sequence(&self, items: &[Item], at: usize) -> Option<usize> {
        let Some((item, rest)) = items.split_first() else { return Some(at) };
        match item {
            Item::Run { set, min, max, possessive } => {
                let (mut end, mut count) = self.run(set, at, *max);
                if count < *min {
                    return None;
                }
                if rest.is_empty() || *possessive {
                    return self.sequence(rest, end);
                }
                loop {
                    let found = self.sequence(rest, end);
                    if found.is_some() || count == *min {
                        return found;
                    }
                    end -= self.text[..end].chars().next_back().map_or(0, char::len_utf8);
                    count -= 1;
                }
            }
            Item::Group { alternatives, min, max } => {
                let (mut end, mut count) = (at, 0);
                while count < *max {
                    let matched = alternatives.iter().find_map(|sequence| self.sequence(sequence, end));
                    let Some(next) = matched.filter(|&next| next > end) else { break };
                    end = next;
                    count += 1;
                }
                if count < *min { None } else { self.sequence(rest, end) }
            }
            Item::NotBefore(set) => match self.next(at) {
                Some(c) if set.contains(c, &self.lookup) => None,
                _ => self.sequence(rest, at),
            },
            Item::End => {
                if at == self.text.len() {
                    self.sequence(rest, at)
                } else {
                    None
                }
            }
        }
    }
}

struct Parser<'a> {
    rest: &'a str,
}

impl Parser<'_> {
    fn eat(&mut self, text: &str) -> bool {
        let rest = self.rest.strip_prefix(text);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn take(&mut self) -> Option<char> {
        let mut chars = self.rest.chars();
        let c = chars.next();
        self.rest = chars.as_str();
        c
    }

    fn alternatives(&mut self, any_case: bool) -> Option<Box<[Sequence]>> {
        let mut alternatives = vec![];
        loop {
            let mut sequence = vec![];
            while !self.rest.is_empty() && !self.rest.starts_with(['|', ')']) {
                sequence.push(self.item(any_case)?);
            }
            alternatives.push(sequence.into());
            if !self.eat("|") {
                return Some(alternatives.into());
            }
        }
    }

    fn item(&mut self, any_case: bool) -> Option<Item> {
        if self.eat("(?!") {
            let set = self.set(false)?;
            return self.eat(")").then_some(Item::NotBefore(set));
        }
        if self.eat("(") {
            let any_case = self.eat("?i:") || !self.eat("?:") && any_case;
            let alternatives = self.alternatives(any_case)?;
            if !self.eat(")") {
                return None;
            }
            let (min, max, _) = self.quantifier()?;
            return Some(Item::Group { alternatives, min, max });
        }
        if self.eat("$") {
            return Some(Item::End);
        }
        let set = self.set(any_case)?;
        let (min, max, possessive) = self.quantifier()?;
        Some(Item::Run { set, min, max, possessive })
    }

    /// How often at least and at most, and whether possessive.
    fn quantifier(&mut self) -> Option<(u32, u32, bool)> {
        let (min, max) = if self.eat("?") {
            (0, 1)
        } else if self.eat("*") {
            (0, ANY)
        } else if self.eat("+") {
            (1, ANY)
        } else if self.eat("{") {
            let (counts, rest) = self.rest.split_once('}')?;
            self.rest = rest;
            let (min, max) = counts.split_once(',').unwrap_or((counts, counts));
            return Some((min.parse().ok()?, max.parse().ok()?, false));
        } else {
            return Some((1, 1, false));
        };
        Some((min, max, self.eat("+")))
    }

    /// A set of characters: in brackets, by a property, or a single one.
    fn set(&mut self, any_case: bool) -> Option<Set> {
        let mut set = SetBuilder::default();
        if !self.eat("[") {
            if self.rest.starts_with(['(', ')', '?', '*', '+', '{', '^', '.']) {
                return None;
            }
            if self.eat("\\S") {
                set.negate();
                set.property("s");
            } else {
                self.member(&mut set, any_case)?;
            }
            return Some(set.build());
        }
        if self.eat("^") {
            set.negate();
        }
        while !self.eat("]") {
            if self.eat("&&[^\\p{") {
                let (name, rest) = self.rest.split_once("}]")?;
                self.rest = rest;
                if !set.except(name) {
                    return None;
                }
            } else {
                self.member(&mut set, any_case)?;
            }
        }
        Some(set.build())
    }

    /// One member of a set: a property, a range or a character.
    fn member(&mut self, set: &mut SetBuilder, any_case: bool) -> Option<()> {
        let from = match self.take()? {
            '\\' => match self.take()? {
                's' => return set.property("s").then_some(()),
                'd' => return set.property("Nd").then_some(()),
                'p' => {
                    let (name, rest) = self.rest.strip_prefix('{')?.split_once('}')?;
                    self.rest = rest;
                    return set.property(name).then_some(());
                }
                'r' => '\r',
                'n' => '\n',
                't' => '\t',
                c if c.is_ascii_punctuation() => c,
                _ => return None,
            },
            c => c,
        };
        let range = self.rest.strip_prefix('-').filter(|rest| !rest.starts_with(']'));
        match range {
            Some(rest) => {
                self.rest = rest;
                let to = match self.take()? {
                    '\\' => self.take()?,
                    c => c,
                };
                set.range(from, to);
            }
            None => set.character(from, any_case),
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split<'a>(expression: &str, text: &'a str) -> Vec<&'a str> {
        let mut pieces = Vec::new();
        Pattern::parse(expression).unwrap().split(text, &mut |piece| pieces.push(piece));
        assert_eq!(pieces.concat(), text);
        pieces
    }

    #[test]
    fn matches_and_what_lies_between_are_pieces() {
        assert_eq!(split("a+", "xxaayab"), ["xx", "aa", "y", "a", "b"]);
        assert_eq!(split("[0-9]{2}", "1234567"), ["12", "34", "56", "7"]);
        assert_eq!(split("a", ""), [""; 0]);
    }

    #[test]
    fn a_run_gives_back_what_the_rest_needs_unless_it_is_possessive() {
        assert_eq!(split(r"\s+(?!\S)|\s+", "a   b "), ["a", "  ", " ", "b", " "]);
        assert_eq!(split("[ab]*[bc]+", "abba"), ["abb", "a"]);
        assert_eq!(split("[ab]++b", "abb"), ["abb"]);
        assert_eq!(split("[ab]?+b", "abb"), ["ab", "b"]);
        assert_eq!(split(r"\s+$", "a  b  "), ["a  b", "  "]);
    }

    #[test]
    fn the_first_alternative_that_matches_counts() {
        assert_eq!(split("ab|abc", "abc"), ["ab", "c"]);
        assert_eq!(split("a(?:bc|b)?d", "abcdabdad"), ["abcd", "abd", "ad"]);
        assert_eq!(split("(?i:'s|'t)", "x'S'ſ't"), ["x", "'S", "'ſ", "'t"]);
    }

    #[test]
    fn sets_are_read() {
        assert_eq!(split(r"[^\s\p{L}]+", "a1é²\u{a0}"), ["a", "1", "é", "²", "\u{a0}"]);
        assert_eq!(split(r"[!-/\]\-]+", "a-]!b"), ["a", "-]!", "b"]);
        assert_eq!(split(r"[\p{L}&&[^\p{Han}]]+", "ab漢c"), ["ab", "漢", "c"]);
        assert_eq!(split("[a-]+", "a-b"), ["a-", "b"]);
    }

    #[test]
    fn steps_are_linear_in_the_text() {
        use super::super::definitions::{Definition, Stage};
        let parts = [
            "a",
            "A",
            " ",
            "\n",
            "1",
            "é",
            "漢",
            "🦊",
            "\u{301}",
            "'",
            "'s",
            " a",
            "a ",
            "\n ",
            " \n",
            "aA",
            "Aa",
            "!\n",
            "! ",
            "<sentinel:1",
            "IMGIMGAB",
            "\t",
            "\u{a0}",
            "한a",
            "ªA",
            "\u{301}!",
            "1a",
            "½1",
            "/\n/",
            "\u{1}",
            "\u{1} ",
        ];
        let expressions =
            Definition::all().iter().flat_map(|definition| definition.stages).filter_map(|stage| match stage {
                Stage::Split(expression) => Some(*expression),
                Stage::Numbers(_) => None,
            });
        for expression in expressions {
            let pattern = Pattern::parse(expression).unwrap();
            for end in ["", "a", "!", "\n"] {
                for part in parts {
                    let steps = |times: usize| {
                        let text = part.repeat(times) + end;
                        crate::text::work::steps(|| pattern.split(&text, &mut |_| ()))
                    };
                    let (few, many) = (steps(500), steps(4_000));
                    assert!(many < 9 * few + 1_000, "{expression} on {part:?}…{end:?}: {few} steps, then {many}");
                }
            }
        }
    }

    #[test]
    fn what_is_not_known_is_not_read() {
        for expression in ["(a", "a)", "[a", r"\p{Greek}", r"\w", "a{x}", r"[a&&[^\p{X}]]", "(?<=a)b", "(?=a)"] {
            assert!(Pattern::parse(expression).is_none(), "{expression}");
        }
    }
}
