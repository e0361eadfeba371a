//! Follows a text token by token by a parser of llguidance. It does what that crate's `TokenParser` and `Matcher` do, but for
//! two things: no panic hook is set, and masks are those of `Computer`.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use llguidance::Logger;
use llguidance::api::{GrammarInit, TopLevelGrammar};
use llguidance::earley::Parser;
use llguidance::earley::perf::ParserPerfCounters;
use llguidance::toktrie::{SimpleVob, TokEnv, TokTrie, TokenId, TokenizerEnv};

use super::computer::{Computer, Nothing};
use super::{Guide, limits};
use crate::error::{Error, Result, Status};

/// The tokens of a text as far as it is, and what may follow.
pub struct Reader {
    parser: Parser,
    computer: Arc<Computer>,
    guide: Arc<Guide>,
    /// The last token, which forced text may change the cut of.
    last: Option<TokenId>,
    /// What is forced now, if that was asked for: tokens, and bytes that the next one begins with.
    forced: Option<(Vec<TokenId>, Vec<u8>)>,
    complete: bool,
    /// From then on all calls fail.
    failed: Option<Error>,
}

impl Reader {
    /// A reader of a grammar at its beginning.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT`: the grammar cannot be read, asks for what is not built in, or goes beyond its bounds.
    pub fn new(guide: &Arc<Guide>, grammar: TopLevelGrammar) -> Result<Reader> {
        let env: TokEnv = guide.words.clone();
        let computer = Arc::new(Computer::new(guide.groups.clone(), guide.words.clone()));
        let refused = |message: String| Error::invalid(plain(&message));
        let parser = caught(|| {
            let grammar = GrammarInit::Serialized(grammar);
            let grammar = grammar.to_cgrammar(Some(env.clone()), &mut Logger::new(0, 0), limits(), Vec::new());
            let grammar = grammar.map_err(|e| refused(format!("{e:#}")))?;
            let parser = Parser::new(env, grammar, limits(), Arc::new(ParserPerfCounters::default()));
            let mut parser = parser.map_err(|e| refused(format!("{e:#}")))?;
            // The bounds of states and steps hold from the first mask on. What is forced before that has none, and may be
            // without end: so there is a first mask of nothing.
            parser.compute_bias(&Nothing(&computer), b" ");
            Ok(parser)
        })?;
        let guide = guide.clone();
        Ok(Reader { parser, computer, guide, last: None, forced: None, complete: false, failed: None })
    }

    /// The tokens that may come next, with those that end the text where it may end: a bit for each.
    ///
    /// # Errors
    /// `UNSUPPORTED`: the constraint became too complex, or no token goes on with the text. All further calls fail then.
    pub fn mask(&mut self) -> Result<Vec<u32>> {
        self.run(|reader| {
            let mut mask = if reader.complete { reader.trie().alloc_token_set() } else { reader.next_tokens()? };
            let ends = reader.complete || reader.may_end_now();
            reader.guide.ends.iter().for_each(|&end| mask.set(end as usize, ends));
            if mask.is_zero() && !reader.complete {
                return Err(Error::unsupported("no token of the vocabulary goes on as the constraint asks"));
            }
            let mut words: Vec<u32> = mask.into();
            words.resize(reader.guide.vocabulary().div_ceil(32), 0);
            Ok(words)
        })
    }

    /// How many of `tokens` the text may go on with.
    ///
    /// # Errors
    /// As [`Reader::mask`].
    pub fn allowed(&mut self, tokens: &[i32]) -> Result<usize> {
        self.run(|reader| {
            let ends = tokens.first().is_some_and(|&token| reader.guide.is_end(token));
            if ends || reader.complete {
                return Ok(usize::from(ends && (reader.complete || reader.may_end_now())));
            }
            let is_text = |token: &i32| (0..reader.guide.vocabulary() as i32).contains(token);
            let text = tokens.iter().take_while(|token| is_text(token) && !reader.guide.is_end(**token));
            let text: Vec<TokenId> = text.map(|&token| token as TokenId).collect();
            let allowed = reader.parser.validate_tokens(&text);
            reader.check()?;
            Ok(allowed)
        })
    }

    /// The text goes on with `token`. Returns false where it may not; nothing has changed then.
    ///
    /// # Errors
    /// As [`Reader::mask`].
    pub fn accept(&mut self, token: i32) -> Result<bool> {
        if self.allowed(&[token])? == 0 {
            return Ok(false);
        }
        self.run(|reader| {
            if reader.guide.is_end(token) {
                reader.complete = true;
                return Ok(true);
            }
            let token = token as TokenId;
            reader.forced = None;
            let bytes = reader.trie().decode_raw(&[token]);
            let back = reader.parser.apply_token(&bytes, token).map_err(|e| complex(&format!("{e:#}")))?;
            reader.last = (back == 0).then_some(token);
            reader.check()?;
            reader.complete = reader.may_end_now() && !reader.parser.can_advance();
            Ok(true)
        })
    }

    /// The tokens that the text goes on with in any case.
    ///
    /// # Errors
    /// As [`Reader::mask`].
    pub fn forced(&mut self) -> Result<Vec<i32>> {
        self.run(|reader| {
            if reader.complete {
                return Ok(Vec::new());
            }
            let (tokens, _) = reader.find_forced();
            let tokens = tokens.iter().map(|&token| token as i32).collect();
            reader.check()?;
            Ok(tokens)
        })
    }

    /// Whether the text may end here.
    ///
    /// # Errors
    /// As [`Reader::mask`].
    pub fn may_end(&mut self) -> Result<bool> {
        self.run(|reader| {
            let may_end = reader.complete || reader.may_end_now();
            reader.check()?;
            Ok(may_end)
        })
    }

    /// Whether nothing can follow.
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// A reader that is as far, and has nothing in common with this one.
    pub fn copy(&self) -> Reader {
        // A lexer that a panic left behind cannot be copied; nor is it used any more.
        let parser = caught(|| Ok(self.parser.deep_clone()));
        let failed = self.failed.clone().or_else(|| parser.as_ref().err().cloned());
        let parser = parser.unwrap_or_else(|_| self.parser.clone());
        Reader { failed, ..self.with(parser, Arc::new(self.computer.copy())) }
    }

    /// As [`Reader::copy`]; what was computed for one serves the other. They are used one at a time.
    pub fn fork(&self) -> Reader {
        self.with(self.parser.clone(), self.computer.clone())
    }

    fn with(&self, parser: Parser, computer: Arc<Computer>) -> Reader {
        Reader {
            parser,
            computer,
            guide: self.guide.clone(),
            last: self.last,
            forced: self.forced.clone(),
            complete: self.complete,
            failed: self.failed.clone(),
        }
    }

    fn trie(&self) -> &TokTrie {
        self.guide.words.tok_trie()
    }

    fn may_end_now(&mut self) -> bool {
        self.parser.currently_forced_bytes().is_empty() && self.parser.is_accepting()
    }

    /// The tokens that may come next but for those that end the text.
    fn next_tokens(&mut self) -> Result<SimpleVob> {
        let (tokens, begin) = self.find_forced();
        if let Some(&first) = tokens.first() {
            return Ok(self.trie().singleton_token_set(first));
        }
        let begin = begin.clone();
        let mask = self.parser.compute_bias(&*self.computer, &begin);
        self.check()?;
        Ok(mask)
    }

    /// The tokens that may come next but for those that end the text, each of them looked for in the trie.
    #[cfg(test)]
    pub(super) fn mask_by_trie(&mut self) -> Option<Vec<u32>> {
        let (tokens, begin) = self.find_forced();
        if !tokens.is_empty() {
            return None;
        }
        let begin = begin.clone();
        self.parser.invalidate_bias_cache();
        let mask = self.parser.compute_bias(&super::computer::Plain(&self.computer), &begin);
        self.parser.invalidate_bias_cache();
        Some(mask.into())
    }

    /// A panic inside the parser.
    #[cfg(test)]
    pub(super) fn panic_inside(&mut self) -> Result<()> {
        self.run(|reader| {
            let _ = reader.parser.test_trigger_lexer_error();
            Ok(())
        })
    }

    /// The tokens that are forced, and the bytes after them that are forced too, but may be parts of several tokens.
    fn find_forced(&mut self) -> &(Vec<TokenId>, Vec<u8>) {
        let found = match self.forced.take() {
            Some(found) => found,
            None if self.parser.grammar().lexer_spec().no_forcing => {
                (Vec::new(), self.parser.currently_forced_bytes().to_vec())
            }
            None => {
                self.parser.force_bytes();
                match self.parser.currently_forced_bytes() {
                    [] => (Vec::new(), Vec::new()),
                    bytes => self.cut(bytes.to_vec()),
                }
            }
        };
        self.forced.insert(found)
    }

    /// Cuts text that is forced into tokens, as far as its cut does not depend on what follows.
    fn cut(&mut self, bytes: Vec<u8>) -> (Vec<TokenId>, Vec<u8>) {
        let guide = self.guide.clone();
        let trie = guide.words.tok_trie();
        // The text is cut together with the last token. Where that changes the token, which stays, it is cut by itself.
        let before: Vec<TokenId> = self.last.into_iter().collect();
        let with_last = [trie.decode_raw(&before), bytes.clone()].concat();
        let (mut tokens, mut fixed) = guide.words.tokenize_bytes_marker(&with_last);
        if tokens.starts_with(&before) {
            tokens.drain(..before.len());
            fixed = fixed.saturating_sub(before.len());
        } else {
            (tokens, fixed) = guide.words.tokenize_bytes_marker(&bytes);
        }
        let (loose, _) = self.parser.with_recognizer(|parser| trie.chop_tokens(parser, &tokens[fixed..]));
        tokens.truncate(tokens.len() - loose);
        // Some vocabularies cannot say every text: what they make of it does not count.
        let mut spelt = 0;
        let says = |token: &&TokenId| {
            let word = trie.decode_raw(&[**token]);
            let right = bytes[spelt..].starts_with(&word);
            spelt += if right { word.len() } else { 0 };
            right
        };
        let right = tokens.iter().take_while(says).count();
        tokens.truncate(right);
        (tokens, bytes[spelt..].to_vec())
    }

    /// Whether a bound was reached.
    fn check(&self) -> Result<()> {
        self.parser.get_error().map_or(Ok(()), |error| Err(complex(&error.message())))
    }

    fn run<T>(&mut self, ask: impl FnOnce(&mut Reader) -> Result<T>) -> Result<T> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        caught(|| ask(self)).inspect_err(|error| self.failed = Some(error.clone()))
    }
}

fn complex(message: &str) -> Error {
    Error::unsupported(format!("the constraint became too complex: {}", plain(message)))
}

/// The message of an error of the parser's, without what is meant for those who work on it.
fn plain(message: &str) -> String {
    let end = ["\n<backtrace>", "\n<state>", "\n<non-verbose/>"].iter().filter_map(|mark| message.find(mark)).min();
    message[..end.unwrap_or(message.len())].trim().to_string()
}

/// A panic of the parser is an error.
fn caught<T>(ask: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(ask)).unwrap_or_else(|cause| {
        let message = cause.downcast_ref::<String>().map(String::as_str);
        let message = message.or_else(|| cause.downcast_ref::<&str>().copied()).unwrap_or("a panic");
        Err(Error::new(Status::Internal, format!("a fault in a constraint: {message}")))
    })
}
