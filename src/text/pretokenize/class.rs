//! Sets of characters as the expressions of pre-tokenisers name them.

use std::cell::Cell;

use unicode_properties::{GeneralCategory as Category, UnicodeGeneralCategory};
use unicode_script::{Script, UnicodeScript};

use crate::text::work::step;

/// What is known of a character: a bit for its general category, and these.
type Traits = u32;
const WHITE_SPACE: Traits = 1 << 30;
const HAN: Traits = 1 << 31;

const fn bit(category: Category) -> Traits {
    1 << category as u32
}

const MARKS: Traits = bit(Category::NonspacingMark) | bit(Category::SpacingMark) | bit(Category::EnclosingMark);
const LETTERS: Traits = bit(Category::UppercaseLetter)
    | bit(Category::LowercaseLetter)
    | bit(Category::TitlecaseLetter)
    | bit(Category::ModifierLetter)
    | bit(Category::OtherLetter);
const NUMBERS: Traits = bit(Category::DecimalNumber) | bit(Category::LetterNumber) | bit(Category::OtherNumber);
const PUNCTUATION: Traits = bit(Category::ConnectorPunctuation)
    | bit(Category::DashPunctuation)
    | bit(Category::OpenPunctuation)
    | bit(Category::ClosePunctuation)
    | bit(Category::InitialPunctuation)
    | bit(Category::FinalPunctuation)
    | bit(Category::OtherPunctuation);
const SYMBOLS: Traits = bit(Category::MathSymbol)
    | bit(Category::CurrencySymbol)
    | bit(Category::ModifierSymbol)
    | bit(Category::OtherSymbol);

fn traits(c: char) -> Traits {
    let space = if c.is_whitespace() { WHITE_SPACE } else { 0 };
    let han = if c.script() == Script::Han { HAN } else { 0 };
    bit(c.general_category()) | space | han
}

/// Looks traits up, and once only for each character in turn, which several sets are asked about.
pub(super) struct Lookup {
    last: Cell<(char, Traits)>,
}

impl Lookup {
    pub fn new() -> Lookup {
        Lookup { last: Cell::new(('\0', bit(Category::Control))) }
    }

    fn traits(&self, c: char) -> Traits {
        let (last, found) = self.last.get();
        if last == c {
            return found;
        }
        let found = traits(c);
        self.last.set((c, found));
        found
    }
}

/// A set of characters, such as `[^\s\p{L}a-z]`.
#[derive(Clone, Debug, Default)]
pub(super) struct Set {
    /// The answer for each ASCII character, which most are.
    ascii: u128,
    traits: Traits,
    /// Characters with one of these traits are not in the set, whatever else they are.
    except: Traits,
    ranges: Box<[(char, char)]>,
    negated: bool,
}

impl Set {
    pub fn contains(&self, c: char, lookup: &Lookup) -> bool {
        step();
        if c.is_ascii() { self.ascii >> c as u32 & 1 == 1 } else { self.holds(c, lookup) }
    }

    fn holds(&self, c: char, lookup: &Lookup) -> bool {
        let listed = || self.ranges.iter().any(|&(from, to)| from <= c && c <= to);
        let traits = if self.traits | self.except == 0 { 0 } else { lookup.traits(c) };
        ((traits & self.traits != 0 || listed()) && traits & self.except == 0) != self.negated
    }

    pub fn memory_bytes(&self) -> u64 {
        size_of_val(&*self.ranges) as u64
    }
}

/// Collects what a set is made of.
#[derive(Default)]
pub(super) struct SetBuilder {
    set: Set,
    ranges: Vec<(char, char)>,
}

impl SetBuilder {
    pub fn range(&mut self, from: char, to: char) {
        self.ranges.push((from, to));
    }

    /// A character, or with `any_case` each that is the same but for its case.
    pub fn character(&mut self, c: char, any_case: bool) {
        self.range(c, c);
        if any_case {
            self.range(c.to_ascii_uppercase(), c.to_ascii_uppercase());
            // The long s is an s but for its case.
            if c == 's' {
                self.range('ſ', 'ſ');
            }
        }
    }

    /// `\s`, or a property such as `L`, `Lu`, `Han`; false if it is not known.
    pub fn property(&mut self, name: &str) -> bool {
        let traits = property(name);
        self.set.traits |= traits.unwrap_or(0);
        traits.is_some()
    }

    pub fn except(&mut self, name: &str) -> bool {
        let traits = property(name);
        self.set.except |= traits.unwrap_or(0);
        traits.is_some()
    }

    pub fn negate(&mut self) {
        self.set.negated = true;
    }

    pub fn build(self) -> Set {
        let mut set = Set { ranges: self.ranges.into(), ..self.set };
        let lookup = Lookup::new();
        set.ascii = (0..128u8).filter(|&c| set.holds(c.into(), &lookup)).map(|c| 1 << c).sum();
        set
    }
}

fn property(name: &str) -> Option<Traits> {
    Some(match name {
        "s" => WHITE_SPACE,
        "L" => LETTERS,
        "M" => MARKS,
        "N" => NUMBERS,
        "P" => PUNCTUATION,
        "S" => SYMBOLS,
        "Lu" => bit(Category::UppercaseLetter),
        "Ll" => bit(Category::LowercaseLetter),
        "Lt" => bit(Category::TitlecaseLetter),
        "Lm" => bit(Category::ModifierLetter),
        "Lo" => bit(Category::OtherLetter),
        "Nd" => bit(Category::DecimalNumber),
        "Han" => HAN,
        _ => return None,
    })
}

/// `\d`
pub(super) fn is_digit(c: char) -> bool {
    step();
    c.is_ascii_digit() || !c.is_ascii() && c.general_category() == Category::DecimalNumber
}

/// `\p{N}`
pub(super) fn is_number(c: char) -> bool {
    step();
    c.is_ascii_digit() || !c.is_ascii() && bit(c.general_category()) & NUMBERS != 0
}

/// `\w`, which with the engine in question has the numbers of Latin-1 but no others of their kind.
pub(super) fn is_word(c: char) -> bool {
    c.is_alphabetic()
        || matches!(c, '²' | '³' | '¹' | '¼'..='¾')
        || bit(c.general_category()) & (MARKS | bit(Category::DecimalNumber) | bit(Category::ConnectorPunctuation)) != 0
}
