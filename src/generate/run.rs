//! The generation loop.

use std::ops::ControlFlow;

use super::Sampler;
use crate::error::{Error, Result};
use crate::exec::Candidates;
use crate::model::Logits;
use crate::session::Session;
use crate::text::{Tokenizer, Utf8Stream};

/// What generation needs of a session.
pub trait Sequence {
    /// One pass over `tokens`. Ends with `Cancelled` when [`Sequence::interrupts`] is, or becomes, other than `since`.
    fn forward(&mut self, tokens: &[i32], logits: Logits, since: u64) -> Result<()>;
    /// Logits of the last position of the last pass.
    fn last_logits(&self) -> Result<&[f32]>;
    /// Lends memory to choose by them in.
    fn with_candidates<R>(&self, choose: impl FnOnce(&mut Candidates) -> R) -> R;
    /// How often the sequence had been interrupted when its last call ended: what came since is meant for this one.
    fn interrupts(&self) -> u64;
    /// The run has ended: interrupts that came until now are used up.
    fn settle(&self);
}

impl Sequence for Session {
    fn forward(&mut self, tokens: &[i32], logits: Logits, since: u64) -> Result<()> {
        if !self.model().description().causal {
            return Err(Error::unsupported("tokens of this model see those after them: it generates no text"));
        }
        self.forward_since(tokens, logits, since)
    }

    fn last_logits(&self) -> Result<&[f32]> {
        let rows = self.logit_rows();
        let last = rows.checked_sub(1).ok_or_else(|| Error::invalid("the session has no logits: run a pass first"))?;
        let row = self.logits(last)?;
        // Rows of the embedding beyond the vocabulary are padding: they are no tokens, and never chosen.
        let tokens = self.model().tokenizer().map_or(row.len(), Tokenizer::vocab_size);
        Ok(&row[..tokens.min(row.len())])
    }

    fn with_candidates<R>(&self, choose: impl FnOnce(&mut Candidates) -> R) -> R {
        choose(&mut self.candidates().lock())
    }

    fn interrupts(&self) -> u64 {
        self.interrupt_handle().settled()
    }

    fn settle(&self) {
        self.interrupt_handle().settle();
        self.pause();
    }
}

/// What generation needs of a tokeniser.
pub trait Vocabulary {
    fn is_end(&self, token: i32) -> Result<bool>;
    /// Appends the bytes of `token` in a text that goes on, which may be part of a character. Control tokens have bytes
    /// only with `control`.
    fn append_bytes(&self, token: i32, control: bool, out: &mut Vec<u8>) -> Result<()>;
}

impl Vocabulary for Tokenizer {
    fn is_end(&self, token: i32) -> Result<bool> {
        Tokenizer::is_end(self, token)
    }

    fn append_bytes(&self, token: i32, control: bool, out: &mut Vec<u8>) -> Result<()> {
        self.piece(token, control, out)
    }
}

/// Runs `prompt`, then samples up to `max_tokens` tokens, feeding each back. An empty prompt goes on from the logits of
/// the last pass, which must have left some.
///
/// `on_token` gets each sampled token and the text that became whole with it: whole UTF-8 characters, empty where the
/// token ends inside one. It ends, with success, after an end token, after `max_tokens`, or when `on_token` breaks. An
/// end token is not passed on, except with the replacement character where it cuts a character short.
///
/// The last token sampled has not been fed to the sequence; all before it have. To go on where it stopped, make that
/// token the first of the next prompt.
///
/// The prompt and the sampled tokens are added to what the sampler's repeat penalty looks at.
///
/// # Errors
/// Those of the passes: `ContextFull` leaves the sequence as far as it got, `Cancelled` as it was before the pass it
/// ended. `Cancelled` also when the interrupt came between two passes, or before the call and after the one before it.
pub fn generate<S: Sequence, V: Vocabulary>(
    sequence: &mut S,
    vocabulary: &V,
    sampler: &mut Sampler,
    prompt: &[i32],
    max_tokens: usize,
    on_token: impl FnMut(i32, &str) -> ControlFlow<()>,
) -> Result<()> {
    let result = run(sequence, vocabulary, sampler, prompt, max_tokens, on_token);
    sequence.settle();
    result
}

fn run<S: Sequence, V: Vocabulary>(
    sequence: &mut S,
    vocabulary: &V,
    sampler: &mut Sampler,
    prompt: &[i32],
    max_tokens: usize,
    mut on_token: impl FnMut(i32, &str) -> ControlFlow<()>,
) -> Result<()> {
    // One reading for the whole run: an interrupt between two passes then ends the next one before it begins.
    let since = sequence.interrupts();
    if !prompt.is_empty() {
        sequence.forward(prompt, Logits::Last, since)?;
        sampler.accept(prompt)?;
    }
    let mut stream = Utf8Stream::default();
    let mut bytes = Vec::new();
    let mut piece = String::new();
    for left in (0..max_tokens).rev() {
        let token = sampler.sample_last(sequence)?;
        piece.clear();
        if vocabulary.is_end(token)? {
            stream.finish(&mut piece);
            if !piece.is_empty() {
                let _ = on_token(token, &piece);
            }
            return Ok(());
        }
        bytes.clear();
        vocabulary.append_bytes(token, sampler.shows_control(), &mut bytes)?;
        stream.push(&bytes, &mut piece);
        if left == 0 {
            stream.finish(&mut piece);
        }
        if on_token(token, &piece).is_break() || left == 0 {
            return Ok(());
        }
        sequence.forward(&[token], Logits::Last, since)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Status;
    use std::cell::Cell;

    /// Says `script` whatever it is fed: token i of it follows the i-th pass.
    struct Script {
        script: Vec<i32>,
        fed: Vec<Vec<i32>>,
        room: usize,
        logits: Vec<f32>,
        interrupts: Cell<u64>,
        settled: Cell<u64>,
    }

    impl Script {
        fn new(script: &[i32]) -> Script {
            Script {
                script: script.to_vec(),
                fed: vec![],
                room: 1000,
                logits: vec![],
                interrupts: Cell::new(0),
                settled: Cell::new(0),
            }
        }
    }

    impl Sequence for &mut Script {
        fn forward(&mut self, tokens: &[i32], logits: Logits, since: u64) -> Result<()> {
            assert_eq!(logits, Logits::Last);
            if self.interrupts.get() != since {
                return Err(Error::cancelled());
            }
            if tokens.len() > self.room {
                return Err(Error::new(Status::ContextFull, "full"));
            }
            self.room -= tokens.len();
            let next = self.script[self.fed.len()];
            self.fed.push(tokens.to_vec());
            self.logits = vec![0.0; 300];
            self.logits[next as usize] = 1.0;
            Ok(())
        }
        fn last_logits(&self) -> Result<&[f32]> {
            if self.logits.is_empty() { Err(Error::invalid("no logits")) } else { Ok(&self.logits) }
        }
        fn with_candidates<R>(&self, choose: impl FnOnce(&mut Candidates) -> R) -> R {
            choose(&mut Candidates::default())
        }
        fn interrupts(&self) -> u64 {
            self.settled.get()
        }
        fn settle(&self) {
            self.settled.set(self.interrupts.get());
        }
    }

    /// Token n is the byte n; 256 is the end.
    struct Bytes;

    impl Vocabulary for Bytes {
        fn is_end(&self, token: i32) -> Result<bool> {
            Ok(token == 256)
        }
        fn append_bytes(&self, token: i32, _: bool, out: &mut Vec<u8>) -> Result<()> {
            out.push(token as u8);
            Ok(())
        }
    }

    /// What the callback saw, and how it ended.
    fn generated(script: &mut Script, prompt: &[i32], max_tokens: usize) -> (Vec<(i32, String)>, Result<()>) {
        let mut seen = vec![];
        let mut script = script;
        let result = generate(&mut script, &Bytes, &mut Sampler::new(), prompt, max_tokens, |token, piece| {
            seen.push((token, piece.to_string()));
            ControlFlow::Continue(())
        });
        (seen, result)
    }

    fn text(seen: &[(i32, String)]) -> String {
        seen.iter().map(|(_, piece)| piece.as_str()).collect()
    }

    #[test]
    fn it_stops_at_an_end_token_which_is_not_passed_on() {
        let mut script = Script::new(&[104, 105, 256, 33]);
        let (seen, result) = generated(&mut script, &[1, 2, 3], 100);
        result.unwrap();
        assert_eq!(seen, [(104, "h".into()), (105, "i".into())]);
        assert_eq!(script.fed, [vec![1, 2, 3], vec![104], vec![105]]);
    }

    #[test]
    fn it_stops_at_max_tokens_with_the_last_token_not_fed() {
        let mut script = Script::new(&[104, 105, 33]);
        let (seen, result) = generated(&mut script, &[1], 2);
        result.unwrap();
        assert_eq!(text(&seen), "hi");
        assert_eq!(script.fed, [vec![1], vec![104]]);
        // The last token as the next prompt goes on where it stopped.
        assert_eq!(text(&generated(&mut script, &[105], 1).0), "!");
    }

    #[test]
    fn no_tokens_wanted_still_runs_the_prompt() {
        let mut script = Script::new(&[104]);
        let (seen, result) = generated(&mut script, &[1, 2], 0);
        result.unwrap();
        assert!(seen.is_empty());
        assert_eq!(script.fed, [vec![1, 2]]);
        assert_eq!(text(&generated(&mut script, &[], 1).0), "h");
    }

    #[test]
    fn an_empty_prompt_without_logits_is_refused() {
        let (seen, result) = generated(&mut Script::new(&[104]), &[], 5);
        assert!(seen.is_empty());
        assert_eq!(result.unwrap_err().status(), Status::InvalidArgument);
    }

    #[test]
    fn pieces_are_whole_characters() {
        let mut script = Script::new(&[0x41, 0xc3, 0xa9, 0xe2, 0x82, 0xac, 256]);
        let (seen, result) = generated(&mut script, &[1], 100);
        result.unwrap();
        let pieces: Vec<&str> = seen.iter().map(|(_, piece)| piece.as_str()).collect();
        assert_eq!(pieces, ["A", "", "é", "", "", "€"]);
    }

    #[test]
    fn a_character_cut_short_becomes_the_replacement_character() {
        let (seen, result) = generated(&mut Script::new(&[0x41, 0xe2, 0x82, 0xac]), &[1], 3);
        result.unwrap();
        assert_eq!(text(&seen), "A\u{fffd}");
        assert_eq!(seen.len(), 3);
        let (seen, result) = generated(&mut Script::new(&[0x41, 0xe2, 256]), &[1], 100);
        result.unwrap();
        assert_eq!(seen.last().unwrap(), &(256, "\u{fffd}".to_string()));
    }

    #[test]
    fn the_callback_can_stop_it() {
        let mut script = &mut Script::new(&[104, 105, 33]);
        let mut calls = 0;
        generate(&mut script, &Bytes, &mut Sampler::new(), &[1], 100, |_, _| {
            calls += 1;
            if calls == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })
        .unwrap();
        assert_eq!(calls, 2);
        assert_eq!(script.fed, [vec![1], vec![104]]);
    }

    #[test]
    fn a_full_context_is_told_after_the_tokens_that_fitted() {
        let mut script = Script::new(&[104, 105, 33]);
        script.room = 2;
        let (seen, result) = generated(&mut script, &[1], 100);
        assert_eq!(result.unwrap_err().status(), Status::ContextFull);
        assert_eq!(text(&seen), "hi");
        assert_eq!(script.fed, [vec![1], vec![104]]);
    }

    /// Its own interrupter: raises while the sampled token is being looked at, between two passes.
    struct Interrupting<'a>(&'a Cell<u64>);

    impl Vocabulary for Interrupting<'_> {
        fn is_end(&self, _token: i32) -> Result<bool> {
            self.0.set(self.0.get() + 1);
            Ok(false)
        }
        fn append_bytes(&self, token: i32, control: bool, out: &mut Vec<u8>) -> Result<()> {
            Bytes.append_bytes(token, control, out)
        }
    }

    #[test]
    fn an_interrupt_between_two_passes_is_not_lost() {
        struct Shared<'a>(&'a Cell<u64>, usize);
        impl Sequence for Shared<'_> {
            fn forward(&mut self, _tokens: &[i32], _logits: Logits, since: u64) -> Result<()> {
                self.1 += 1;
                if self.0.get() == since { Ok(()) } else { Err(Error::cancelled()) }
            }
            fn last_logits(&self) -> Result<&[f32]> {
                Ok(&[0.0, 1.0])
            }
            fn with_candidates<R>(&self, choose: impl FnOnce(&mut Candidates) -> R) -> R {
                choose(&mut Candidates::default())
            }
            fn interrupts(&self) -> u64 {
                7
            }
            fn settle(&self) {}
        }
        let raised = Cell::new(7);
        let mut sequence = Shared(&raised, 0);
        let vocabulary = Interrupting(&raised);
        let go_on = |_: i32, _: &str| ControlFlow::Continue(());
        let result = generate(&mut sequence, &vocabulary, &mut Sampler::new(), &[1], 100, go_on);
        assert_eq!(result.unwrap_err().status(), Status::Cancelled);
        assert_eq!(sequence.1, 2);
    }

    #[test]
    fn an_interrupt_before_a_call_ends_that_call_alone() {
        let mut script = Script::new(&[104, 105, 256]);
        script.interrupts.set(1);
        let (seen, result) = generated(&mut script, &[1], 100);
        assert_eq!((seen.len(), result.unwrap_err().status()), (0, Status::Cancelled));
        assert_eq!(text(&generated(&mut script, &[1], 100).0), "hi");
        // One that comes while a call runs is used up by it, even where the call ends well.
        let mut script = &mut Script::new(&[104, 256]);
        generate(&mut script, &Bytes, &mut Sampler::new(), &[1], 1, |_, _| ControlFlow::Continue(())).unwrap();
        script.interrupts.set(5);
        script.settle();
        generate(&mut script, &Bytes, &mut Sampler::new(), &[104], 1, |_, _| ControlFlow::Continue(())).unwrap();
    }

    #[test]
    fn the_repeat_penalty_sees_the_prompt_and_the_sampled_tokens() {
        struct Flat;
        impl Sequence for Flat {
            fn forward(&mut self, _tokens: &[i32], _logits: Logits, _since: u64) -> Result<()> {
                Ok(())
            }
            fn last_logits(&self) -> Result<&[f32]> {
                Ok(&[1.3, 1.2, 1.1, 1.0])
            }
            fn with_candidates<R>(&self, choose: impl FnOnce(&mut Candidates) -> R) -> R {
                choose(&mut Candidates::default())
            }
            fn interrupts(&self) -> u64 {
                0
            }
            fn settle(&self) {}
        }
        let mut sampler = Sampler::new();
        sampler.set_repeat_penalty(2.0, 10).unwrap();
        let mut tokens = vec![];
        generate(&mut Flat, &Bytes, &mut sampler, &[0, 2], 2, |token, _| {
            tokens.push(token);
            ControlFlow::Continue(())
        })
        .unwrap();
        assert_eq!(tokens, [1, 3]);
    }
}
