//! Finds the tokens that a parser allows: groups of them at once where its lexer decides about those, the others one by one.

use std::sync::Arc;

use llguidance::earley::{BiasComputer, ParserRecognizer};
use llguidance::toktrie::{SimpleVob, TokTrie, TokenizerEnv};

use super::Words;
use super::groups::{ALL_KINDS, Groups, MOST_CHARS, MOST_KNOWN, Verdict};
use super::reach::{Look, Reach};
use crate::sys::sync::Mutex;

/// Where fewer tokens would be allowed at once, all are looked for in the trie, where many are refused at once.
const WORTHWHILE: usize = 2000;

/// The same for tokens that begin with given bytes, in nodes of the trie.
const WORTHWHILE_NODES: usize = 8000;

/// For one parser and those forked from it, which share a lexer.
pub struct Computer {
    groups: Arc<Groups>,
    words: Arc<Words>,
    reach: Mutex<Reach>,
}

impl Computer {
    pub fn new(groups: Arc<Groups>, words: Arc<Words>) -> Computer {
        Computer { groups, words, reach: Mutex::new(Reach::default()) }
    }

    /// For a copy of the parser.
    pub fn copy(&self) -> Computer {
        let reach = self.reach.lock().clone();
        Computer { groups: self.groups.clone(), words: self.words.clone(), reach: Mutex::new(reach) }
    }

    /// Returns whether it was worthwhile; otherwise nothing was done.
    fn by_groups(&self, recognizer: &mut ParserRecognizer<'_>, start: &[u8], allowed: &mut SimpleVob) -> bool {
        let trie = self.trie();
        let Ok(text) = std::str::from_utf8(start) else { return false };
        let (state, start_chars) = (recognizer.lexer_state(), text.chars().count());
        if state.is_dead() || state.has_lowest_match() || start_chars + MOST_CHARS > MOST_KNOWN {
            return false;
        }
        let after = trie.child_at_bytes(trie.root(), start).map_or(0, |node| node.subtree_size());
        if !start.is_empty() && after < WORTHWHILE_NODES {
            return false;
        }
        let mut reach = self.reach.lock();
        let mut look = Look::new(&mut reach, recognizer);
        let all = look.verdict(ALL_KINDS);
        if !all.open && all.allowed == 0 {
            return false;
        }
        let mut worth = 0;
        let mut verdicts = Vec::new();
        for group in self.groups.iter() {
            let verdict = match group.kinds() {
                0 => Verdict { allowed: 0, open: true },
                _ if !all.open || all.allowed == MOST_CHARS => all,
                kinds => {
                    let mut verdict = look.verdict(kinds);
                    if verdict.open && verdict.allowed == 0 && start.is_empty() {
                        let refused = look.refused(kinds);
                        verdict.open = refused < MOST_CHARS || group.is_long() && refused < usize::MAX;
                    }
                    verdict
                }
            };
            worth += group.count(verdict.allowed);
            verdicts.push(verdict);
        }
        if worth < WORTHWHILE {
            return false;
        }
        // What is left then are tokens of no kind, and long ones.
        let at_once = start.is_empty() && (!all.open || all.allowed == MOST_CHARS);
        if at_once {
            allowed.or(self.groups.mask(all.allowed));
        }
        trie.all_prefixes(start).into_iter().for_each(|token| allowed.allow_token(token));
        for (group, verdict) in self.groups.iter().zip(verdicts) {
            if !at_once || group.kinds() == 0 || group.is_long() && verdict.open {
                group.allow(verdict, (start, start_chars), (recognizer, trie), allowed);
            }
        }
        true
    }
}

impl BiasComputer for Computer {
    fn compute_bias(&self, recognizer: &mut ParserRecognizer<'_>, start: &[u8]) -> SimpleVob {
        let mut allowed = self.trie().alloc_token_set();
        if !self.by_groups(recognizer, start, &mut allowed) {
            self.trie().add_bias(recognizer, &mut allowed, start);
        }
        allowed
    }

    fn trie(&self) -> &TokTrie {
        self.words.tok_trie()
    }
}

/// Finds none.
pub struct Nothing<'a>(pub &'a Computer);

impl BiasComputer for Nothing<'_> {
    fn compute_bias(&self, _: &mut ParserRecognizer<'_>, _: &[u8]) -> SimpleVob {
        self.trie().alloc_token_set()
    }

    fn trie(&self) -> &TokTrie {
        self.0.trie()
    }
}

/// Looks for each token.
#[cfg(test)]
pub struct Plain<'a>(pub &'a Computer);

#[cfg(test)]
impl BiasComputer for Plain<'_> {
    fn compute_bias(&self, recognizer: &mut ParserRecognizer<'_>, start: &[u8]) -> SimpleVob {
        let mut allowed = self.trie().alloc_token_set();
        self.trie().add_bias(recognizer, &mut allowed, start);
        allowed
    }

    fn trie(&self) -> &TokTrie {
        self.0.trie()
    }
}
