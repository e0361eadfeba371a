//! Texts that end a generation. They may begin and end anywhere in tokens, so text that may become one is kept back.

use crate::error::{Error, Result};

#[derive(Clone, Debug, Default)]
pub struct Stops {
    texts: Vec<String>,
    /// Text that may be the beginning of one of them.
    held: String,
}

impl Stops {
    /// # Errors
    /// `INVALID_ARGUMENT`: no text; `OUT_OF_MEMORY`.
    pub fn add(&mut self, text: &str) -> Result<()> {
        if text.is_empty() {
            return Err(Error::invalid("a stop string has no bytes"));
        }
        let refused = |_| Error::out_of_memory(format!("a stop string of {} bytes", text.len()));
        let mut own = String::new();
        own.try_reserve_exact(text.len()).map_err(refused)?;
        own.push_str(text);
        self.texts.try_reserve(1).map_err(refused)?;
        self.texts.push(own);
        Ok(())
    }

    pub fn clear(&mut self) {
        *self = Stops::default();
    }

    /// A new text begins.
    pub fn begin(&mut self) {
        self.held.clear();
    }

    /// Takes text, and puts into `out` what of it and of what was kept back is no part of a stop string. True where one
    /// has come: `out` has what was before it, and what comes after it is forgotten.
    pub fn push(&mut self, text: &str, out: &mut String) -> bool {
        if self.texts.is_empty() {
            out.push_str(text);
            return false;
        }
        self.held.push_str(text);
        if let Some(at) = self.texts.iter().filter_map(|stop| self.held.find(stop.as_str())).min() {
            out.push_str(&self.held[..at]);
            self.held.clear();
            return true;
        }
        let begun = |i: usize| self.texts.iter().any(|stop| stop.as_bytes().starts_with(&self.held.as_bytes()[i..]));
        let from = (0..self.held.len()).find(|&i| begun(i)).unwrap_or(self.held.len());
        out.extend(self.held.drain(..from));
        false
    }

    /// No more text comes: what was kept back is text after all.
    pub fn finish(&mut self, out: &mut String) {
        out.push_str(&std::mem::take(&mut self.held));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What comes out of `pieces`, each by itself, and whether a stop string came.
    fn pushed(stops: &[&str], pieces: &[&str]) -> (Vec<String>, bool) {
        let mut all = Stops::default();
        stops.iter().for_each(|stop| all.add(stop).unwrap());
        let mut outs = Vec::new();
        for piece in pieces {
            let mut out = String::new();
            let stopped = all.push(piece, &mut out);
            outs.push(out);
            if stopped {
                return (outs, true);
            }
        }
        let mut rest = String::new();
        all.finish(&mut rest);
        outs.push(rest);
        (outs, false)
    }

    #[test]
    fn a_stop_string_over_pieces_is_found_and_no_part_of_it_comes_out() {
        assert_eq!(pushed(&["END"], &["one E", "N", "D two"]), (vec!["one ".into(), "".into(), "".into()], true));
        assert_eq!(pushed(&["\n\n"], &["a\n", "b\n", "\nc"]).0, ["a", "\nb", ""]);
        assert_eq!(pushed(&["é!"], &["caf", "é", "!"]).0, ["caf", "", ""]);
    }

    #[test]
    fn what_only_begins_like_one_comes_out_when_it_goes_on_otherwise() {
        assert_eq!(pushed(&["aab"], &["a", "a", "a", "c"]).0, ["", "", "a", "aac", ""]);
        assert_eq!(pushed(&["END"], &["EN"]), (vec!["".into(), "EN".into()], false));
    }

    #[test]
    fn of_several_the_one_that_comes_first_counts() {
        assert_eq!(pushed(&["yz", "b"], &["abcxyz"]), (vec!["a".into()], true));
    }

    #[test]
    fn without_any_text_passes_as_it_comes() {
        assert_eq!(pushed(&[], &["a", "b"]).0, ["a", "b", ""]);
        assert!(Stops::default().add("").is_err());
    }
}
