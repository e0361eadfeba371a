//! What may follow in a lexeme, followed through the states of the lexer: all texts of some kinds of characters at once.

use std::collections::{HashMap, HashSet};

use llguidance::derivre::StateID;
use llguidance::earley::ParserRecognizer;

use super::groups::{KIND_COUNT, Kinds, MOST_CHARS, Verdict, WIDE, WIDE_BYTES, kind_of};

/// States that are looked at for one mask, at most. What they cost is once for a constraint.
const MAX_NEW_STATES: usize = 48;

/// What one character of a kind does in a state.
#[derive(Clone, Debug)]
enum Step {
    /// Any of them leads on, to one of these states.
    All(Box<[StateID]>),
    /// None of them does.
    None,
    /// Some do, or they end the lexeme.
    Mixed,
}

/// The states of one lexer, as far as they were looked at.
#[derive(Clone, Default)]
pub struct Reach {
    steps: HashMap<u32, [Step; KIND_COUNT]>,
}

/// Looks at the lexer of a parser where that is now.
pub struct Look<'a, 'b, 'c> {
    pub reach: &'a mut Reach,
    pub recognizer: &'b mut ParserRecognizer<'c>,
    new: usize,
}

impl<'a, 'b, 'c> Look<'a, 'b, 'c> {
    pub fn new(reach: &'a mut Reach, recognizer: &'b mut ParserRecognizer<'c>) -> Self {
        Look { reach, recognizer, new: 0 }
    }

    /// How long texts of these kinds may be: all of them are allowed up to a length, and longer ones perhaps.
    pub fn verdict(&mut self, kinds: Kinds) -> Verdict {
        let start = self.recognizer.lexer_state();
        // At which length.
        let mut seen = HashMap::from([(start.as_u32(), 0)]);
        let (mut level, mut next) = (vec![start], Vec::new());
        // Whether a state of a level was seen in an earlier one: it leads on then.
        let mut returns = false;
        for length in 0..MOST_CHARS {
            let (mut refused, mut open) = (false, false);
            for &state in &level {
                let Some(steps) = self.steps(state) else { return Verdict { allowed: length, open: true } };
                for (_, step) in chosen(steps, kinds) {
                    match step {
                        Step::All(states) => {
                            open = true;
                            for state in states {
                                let first_seen = *seen.entry(state.as_u32()).or_insert_with(|| {
                                    next.push(*state);
                                    length + 1
                                });
                                returns |= first_seen <= length;
                            }
                        }
                        Step::None => refused = true,
                        Step::Mixed => (refused, open) = (true, true),
                    }
                }
            }
            if refused {
                return Verdict { allowed: length, open: open || returns };
            }
            if next.is_empty() {
                return Verdict { allowed: usize::MAX, open: false };
            }
            level = std::mem::take(&mut next);
        }
        Verdict { allowed: MOST_CHARS, open: true }
    }

    /// Up to which length texts that have characters of each of these kinds are refused, because those of one of them are
    /// wherever they come.
    pub fn refused(&mut self, kinds: Kinds) -> usize {
        let start = self.recognizer.lexer_state();
        let mut seen = HashSet::from([start.as_u32()]);
        let (mut level, mut next) = (vec![start], Vec::new());
        let mut possible = 0;
        for _ in 0..MOST_CHARS {
            for &state in &level {
                let Some(steps) = self.steps(state) else { return 0 };
                for (kind, step) in chosen(steps, kinds) {
                    match step {
                        Step::All(states) => {
                            possible |= kind;
                            next.extend(states.iter().filter(|state| seen.insert(state.as_u32())));
                        }
                        Step::None => (),
                        Step::Mixed => return 0,
                    }
                }
            }
            if possible == kinds {
                return 0;
            }
            if next.is_empty() {
                return usize::MAX;
            }
            level = std::mem::take(&mut next);
        }
        MOST_CHARS
    }

    /// The steps of a state; None where too much was looked at.
    fn steps(&mut self, state: StateID) -> Option<&[Step; KIND_COUNT]> {
        if !self.reach.steps.contains_key(&state.as_u32()) {
            if self.new == MAX_NEW_STATES {
                return None;
            }
            self.new += 1;
            let steps = std::array::from_fn(|kind| self.step(state, 1 << kind));
            self.reach.steps.insert(state.as_u32(), steps);
        }
        self.reach.steps.get(&state.as_u32())
    }

    fn step(&mut self, state: StateID, kind: Kinds) -> Step {
        let mut path = Path { to: Vec::new(), refused: false, ended: false };
        if kind == WIDE {
            for bytes in WIDE_BYTES {
                let mut states = vec![state];
                for &(from, to) in &bytes[..bytes.len() - 1] {
                    let mut reached = Path { to: Vec::new(), ..path };
                    states.iter().for_each(|&state| self.bytes(state, from..=to, &mut reached));
                    (states, path.refused, path.ended) = (reached.to, reached.refused, reached.ended);
                }
                let (from, to) = bytes[bytes.len() - 1];
                states.iter().for_each(|&state| self.bytes(state, from..=to, &mut path));
            }
        } else {
            let of_kind = |byte: &u8| kind_of(*byte as char) == Some(kind);
            self.bytes(state, (0..0x80).filter(of_kind), &mut path);
        }
        match path {
            Path { ended: true, .. } => Step::Mixed,
            Path { refused: true, to, .. } if to.is_empty() => Step::None,
            Path { refused: true, .. } => Step::Mixed,
            Path { to, .. } => Step::All(to.into()),
        }
    }

    fn bytes(&mut self, state: StateID, bytes: impl Iterator<Item = u8>, path: &mut Path) {
        let lexer = self.recognizer.lexer_mut();
        let mut may_end = None;
        for byte in bytes {
            let to = lexer.transition_start_state(state, Some(byte), &None);
            if to.is_dead() {
                path.refused = true;
                // What ends a lexeme may begin the next one.
                path.ended |= *may_end.get_or_insert_with(|| !lexer.try_lexeme_end(state).is_error());
            } else if to.has_lowest_match() {
                path.ended = true;
            } else if path.to.last() != Some(&to) && !path.to.contains(&to) {
                path.to.push(to);
            }
        }
    }
}

fn chosen(steps: &[Step; KIND_COUNT], kinds: Kinds) -> impl Iterator<Item = (Kinds, &Step)> {
    steps.iter().enumerate().map(|(kind, step)| (1 << kind, step)).filter(move |(kind, _)| kinds & kind != 0)
}

/// Where some bytes lead to.
struct Path {
    to: Vec<StateID>,
    refused: bool,
    ended: bool,
}
