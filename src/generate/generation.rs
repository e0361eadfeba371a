//! How a text is generated: its length, what ends it, and who drafts tokens of it. Drafts change no token: a pass takes
//! in several of them at once and leaves the logits of each, the sampler chooses by these in order as it would by those
//! of single passes, and what follows a wrong draft is taken back.

use std::ops::ControlFlow;

use super::draft_model::DraftModel;
use super::guided::{Guided, MAX_FORCED};
use super::logprobs::Logprobs;
use super::pace::Pace;
use super::predictor::DraftPredictor;
use super::stop::Stops;
use super::{Constraint, Sampler, Sequence, Vocabulary};
use crate::error::{Error, Result, Status};
use crate::text::Utf8Stream;

/// Drafts of a pass that a host can ask for, at most.
pub const MAX_DRAFTS: usize = 64;

/// Why a generation ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum End {
    /// It has not ended, or by an error.
    #[default]
    None,
    /// The model chose an end token.
    EndToken,
    /// The most tokens that were asked for are there.
    Length,
    /// A stop string came.
    StopString,
    /// The callback asked for it.
    Callback,
    /// The context was full. The generation ended with `CONTEXT_FULL`.
    Context,
    /// The text is complete by its constraint, which lets nothing follow.
    Constraint,
}

/// What the last generation was.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct GenerationStats {
    pub end: End,
    /// Tokens chosen.
    pub tokens: u64,
    /// Passes after the prompt's.
    pub passes: u64,
    /// Tokens drafted, and those of them that were chosen.
    pub drafted: u64,
    pub accepted: u64,
    /// Tokens dropped to make room.
    pub dropped: u64,
    /// Seconds that drafts have saved by estimate, less those they have cost.
    pub gained_seconds: f64,
}

/// A token that was chosen, as callbacks get it.
#[derive(Clone, Copy)]
pub struct Generated<'a> {
    pub token: i32,
    /// The text that became whole with it.
    pub piece: &'a str,
    /// Where [`Generation::set_logprobs`] asks for them.
    pub logprobs: Option<&'a Logprobs>,
}

/// Who drafts.
#[derive(Default)]
enum Drafter {
    #[default]
    None,
    /// The text itself: what followed its last tokens before.
    Text,
    Model(Box<DraftModel>),
    /// The layer of the model's own file that predicts further tokens.
    Predictor(Box<DraftPredictor>),
}

impl Drafter {
    /// The layer that drafts, where there is one and the model has room for the hidden states that it reads.
    fn active_predictor(&mut self) -> Option<&mut DraftPredictor> {
        match self {
            Drafter::Predictor(predictor) if predictor.is_active() => Some(predictor),
            _ => None,
        }
    }
}

/// The settings of generations, and what the last one was. One can be used for many generations, one after the other.
pub struct Generation {
    max_tokens: usize,
    stops: Stops,
    /// The likeliest tokens to tell of, where log-probabilities are asked for.
    logprobs: Option<usize>,
    /// Where the context is full, tokens after so many are dropped; None: it ends.
    kept_first: Option<usize>,
    constraint: Option<Constraint>,
    drafter: Drafter,
    max_drafts: usize,
    /// What passes of the model cost, and how many drafts were right: kept over generations.
    pace: Pace,
    /// Tokens of the sequence as far as they are known: prompts and what was chosen.
    text: Vec<i32>,
    /// Where the sequence stood when the last generation ended.
    position: usize,
    stats: GenerationStats,
}

impl Default for Generation {
    fn default() -> Self {
        Generation {
            max_tokens: usize::MAX,
            stops: Stops::default(),
            logprobs: None,
            kept_first: None,
            constraint: None,
            drafter: Drafter::None,
            max_drafts: 0,
            pace: Pace::default(),
            text: Vec::new(),
            position: 0,
            stats: GenerationStats::default(),
        }
    }
}

/// A run: what changes from token to token.
struct Run<'a, V, F> {
    vocabulary: &'a V,
    on_token: F,
    stops: &'a mut Stops,
    stream: Utf8Stream,
    control: bool,
    left: usize,
    bytes: Vec<u8>,
    whole: String,
    piece: String,
    logprobs: Option<Logprobs>,
    guided: Option<Guided>,
}

impl<V: Vocabulary, F: FnMut(Generated) -> ControlFlow<()>> Run<'_, V, F> {
    /// Passes a token that was chosen on, with which the text may be `complete`. What it says ends the generation.
    fn token(&mut self, token: i32, complete: bool) -> Result<Option<End>> {
        self.whole.clear();
        self.piece.clear();
        let end = self.vocabulary.is_end(token)?;
        if end {
            self.stream.finish(&mut self.whole);
        } else {
            self.left -= 1;
            self.bytes.clear();
            self.vocabulary.append_bytes(token, self.control, &mut self.bytes)?;
            self.stream.push(&self.bytes, &mut self.whole);
            if self.left == 0 || complete {
                self.stream.finish(&mut self.whole);
            }
        }
        let stopped = self.stops.push(&self.whole, &mut self.piece);
        if !stopped && (end || complete || self.left == 0) {
            self.stops.finish(&mut self.piece);
        }
        if end || stopped {
            if !self.piece.is_empty() {
                let _ = self.pass_on(token);
            }
            return Ok(Some(if stopped { End::StopString } else { End::EndToken }));
        }
        Ok(match self.pass_on(token) {
            ControlFlow::Break(()) => Some(End::Callback),
            ControlFlow::Continue(()) if complete => Some(End::Constraint),
            ControlFlow::Continue(()) if self.left == 0 => Some(End::Length),
            ControlFlow::Continue(()) => None,
        })
    }

    fn pass_on(&mut self, token: i32) -> ControlFlow<()> {
        (self.on_token)(Generated { token, piece: &self.piece, logprobs: self.logprobs.as_ref() })
    }
}

impl Generation {
    pub fn new() -> Generation {
        Generation::default()
    }

    /// Tokens that are generated at most; without it, until the context is full.
    pub fn set_max_tokens(&mut self, tokens: usize) {
        self.max_tokens = tokens;
    }

    /// Adds a text that ends a generation where it comes; neither it nor a part of it is given to the callback.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT`: it is empty; `OUT_OF_MEMORY`.
    pub fn add_stop(&mut self, text: &str) -> Result<()> {
        self.stops.add(text)
    }

    /// Removes all stop strings.
    pub fn clear_stops(&mut self) {
        self.stops.clear();
    }

    /// Lets texts follow a constraint, from where it is now: each generation begins there. None: they are free.
    ///
    /// What the constraint leaves no choice about is put into a pass as drafts are, up to 16 tokens at once, so that it costs
    /// no passes of its own.
    pub fn set_constraint(&mut self, constraint: Option<&Constraint>) {
        self.constraint = constraint.map(Constraint::copy);
    }

    /// No drafts: the default.
    pub fn clear_drafter(&mut self) {
        (self.drafter, self.max_drafts, self.pace) = (Drafter::None, 0, Pace::default());
    }

    /// Drafts what followed the last tokens of the text where they stood before, at most `max_drafts` tokens for a pass.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT`: `max_drafts` is 0 or more than [`MAX_DRAFTS`].
    pub fn draft_from_text(&mut self, max_drafts: usize) -> Result<()> {
        check_drafts(max_drafts)?;
        (self.drafter, self.max_drafts, self.pace) = (Drafter::Text, max_drafts, Pace::default());
        Ok(())
    }

    /// Lets another model draft, at most `max_drafts` tokens for a pass.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT`: `max_drafts` is 0 or more than [`MAX_DRAFTS`].
    pub fn draft_with(&mut self, model: DraftModel, max_drafts: usize) -> Result<()> {
        check_drafts(max_drafts)?;
        (self.drafter, self.max_drafts, self.pace) = (Drafter::Model(Box::new(model)), max_drafts, Pace::default());
        Ok(())
    }

    /// Lets the layer of the model's own file that predicts further tokens draft, at most `max_drafts` tokens for a pass.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT`: `max_drafts` is 0 or more than [`MAX_DRAFTS`].
    pub fn draft_with_predictor(&mut self, predictor: DraftPredictor, max_drafts: usize) -> Result<()> {
        check_drafts(max_drafts)?;
        let drafter = Drafter::Predictor(Box::new(predictor));
        (self.drafter, self.max_drafts, self.pace) = (drafter, max_drafts, Pace::default());
        Ok(())
    }

    /// Of the last generation.
    pub fn stats(&self) -> GenerationStats {
        self.stats
    }

    /// As [`generate`](super::generate), with these settings.
    ///
    /// With drafts the tokens, the sampler and what is left in the sequence are as without. An error may leave a sequence
    /// with recurrent layers without tokens at its end that were passed on already, and any without those that were to be
    /// taken in again after others were dropped: its position tells.
    ///
    /// # Errors
    /// As [`generate`](super::generate); those of the passes of a model that drafts; `INVALID_ARGUMENT`: it, or the
    /// constraint, has another vocabulary; those of [`Constraint::mask`].
    pub fn run<S: Sequence, V: Vocabulary>(
        &mut self,
        sequence: &mut S,
        vocabulary: &V,
        sampler: &mut Sampler,
        prompt: &[i32],
        mut on_token: impl FnMut(i32, &str) -> ControlFlow<()>,
    ) -> Result<()> {
        self.run_detailed(sequence, vocabulary, sampler, prompt, |made| on_token(made.token, made.piece))
    }

    /// As [`Generation::run`], with all that is known of each token.
    ///
    /// # Errors
    /// As [`Generation::run`].
    pub fn run_detailed<S: Sequence, V: Vocabulary>(
        &mut self,
        sequence: &mut S,
        vocabulary: &V,
        sampler: &mut Sampler,
        prompt: &[i32],
        on_token: impl FnMut(Generated) -> ControlFlow<()>,
    ) -> Result<()> {
        self.stats = GenerationStats::default();
        let gained = self.pace.gained();
        let result = self.run_from(sequence, vocabulary, sampler, prompt, on_token);
        if result.as_ref().is_err_and(|e| e.status() == Status::ContextFull) {
            self.stats.end = End::Context;
        }
        self.stats.gained_seconds = self.pace.gained() - gained;
        self.position = sequence.position();
        sequence.end_drafts();
        sequence.end_hidden();
        sequence.settle();
        result
    }

    fn run_from<S: Sequence, V: Vocabulary>(
        &mut self,
        sequence: &mut S,
        vocabulary: &V,
        sampler: &mut Sampler,
        prompt: &[i32],
        on_token: impl FnMut(Generated) -> ControlFlow<()>,
    ) -> Result<()> {
        // One reading for the whole run: an interrupt between two passes then ends the next one before it begins.
        let since = sequence.interrupts();
        if let Drafter::Model(model) = &self.drafter {
            vocabulary.check_same(model.vocabulary()?)?;
        }
        if let Drafter::Predictor(predictor) = &mut self.drafter {
            let tokens = sequence.begin_hidden(predictor.model(), since)?;
            predictor.begin(sequence.position(), tokens)?;
        }
        let logprobs = self.logprobs.map(Logprobs::new).transpose()?;
        let mut guided = None;
        if let Some(constraint) = &self.constraint {
            let same = vocabulary.check_same(constraint.model().tokenizer()?);
            same.map_err(|_| Error::invalid("the constraint is about the tokens of another model"))?;
            guided = Some(Guided::begin(constraint));
        }
        if sequence.position() != self.position {
            // Another sequence, or one that went elsewhere meanwhile.
            self.text.clear();
        }
        let mut complete = false;
        if let Some(guided) = &mut guided {
            complete = guided.is_complete()?;
            guided.begin_pass(&[]);
        }
        if !prompt.is_empty() {
            match self.make_room(sequence, prompt)? {
                Some(all) => self.forward(sequence, &all, since, true)?,
                None => self.forward(sequence, prompt, since, true)?,
            }
            sampler.accept(prompt)?;
            self.remember(prompt)?;
        }
        if self.max_tokens == 0 || complete {
            self.stats.end = if complete { End::Constraint } else { End::Length };
            return Ok(());
        }
        let mut stops = std::mem::take(&mut self.stops);
        stops.begin();
        let mut run = Run {
            vocabulary,
            on_token,
            stream: Utf8Stream::default(),
            control: sampler.shows_control(),
            left: self.max_tokens,
            bytes: Vec::new(),
            whole: String::new(),
            piece: String::new(),
            logprobs,
            stops: &mut stops,
            guided,
        };
        let result = self.tokens(sequence, sampler, &mut run, since);
        self.stops = stops;
        self.stats.end = result?;
        Ok(())
    }

    /// Chooses token after token, until one ends the generation.
    fn tokens<S: Sequence, V: Vocabulary, F: FnMut(Generated) -> ControlFlow<()>>(
        &mut self,
        sequence: &mut S,
        sampler: &mut Sampler,
        run: &mut Run<V, F>,
        since: u64,
    ) -> Result<End> {
        self.pace.set_with_experts(sequence.has_experts());
        let forced = if run.guided.is_some() { MAX_FORCED } else { 0 };
        let rows = match self.max_drafts.max(forced) {
            0 => 0,
            drafts => sequence.begin_drafts(drafts + 1, since),
        };
        if let (0, Drafter::Predictor(predictor)) = (rows, &mut self.drafter) {
            predictor.stop();
        }
        // Tokens that were chosen, or accepted and taken back, and are not in the sequence: the last one chosen at least.
        let mut unfed = Vec::new();
        let mut drafts = Vec::new();
        let memory = |_| Error::out_of_memory("tokens of a pass");
        unfed.try_reserve_exact(2 * rows + 2).map_err(memory)?;
        drafts.try_reserve_exact(2 * rows + 2).map_err(memory)?;
        let token = run.sample_last(sampler, sequence)?;
        if let Some(end) = self.chosen(run, token)? {
            return Ok(end);
        }
        unfed.push(token);
        loop {
            if unfed.len() > sequence.room() && unfed.len() > 1 {
                // As far as single passes would have come.
                let last = unfed.len() - 1;
                self.forward(sequence, &unfed[..last], since, false)?;
                unfed.drain(..last);
            }
            let roomier = self.make_room(sequence, &unfed)?;
            let refilled = roomier.is_some();
            if let Some(all) = roomier {
                unfed.try_reserve(all.len()).map_err(memory)?;
                unfed.clear();
                unfed.extend_from_slice(&all);
            }
            let most = if refilled { 0 } else { rows.saturating_sub(unfed.len()).min(run.left.saturating_sub(1)) };
            let most = most.min(sequence.room().saturating_sub(unfed.len()));
            let (certainty, asked) = self.draft(sequence, run, most, &unfed, &mut drafts)?;
            let drafted = sequence.now();
            let drafting = drafted - asked.unwrap_or(drafted);
            self.stats.passes += 1;
            if let Some(guided) = &mut run.guided {
                guided.begin_pass(&drafts);
            }
            if drafts.is_empty() {
                self.forward(sequence, &unfed, since, false)?;
                if !refilled {
                    self.pace.plain(unfed.len(), sequence.now() - drafted, sequence.pass_bytes());
                    self.pace.abstained(drafting);
                }
                unfed.clear();
                let token = run.sample_last(sampler, sequence)?;
                if let Some(end) = self.chosen(run, token)? {
                    return Ok(end);
                }
                unfed.push(token);
                continue;
            }
            let (start, fed) = (sequence.position(), unfed.len());
            unfed.extend_from_slice(&drafts);
            sequence.forward_drafts(&unfed, since)?;
            let took = sequence.now() - drafted;
            let guided = run.guided.as_mut().map_or(Ok(()), Guided::end_pass);
            let mut pass = DraftedPass { sequence, kept: fed, settled: false };
            guided?;
            let end = loop {
                let logits = pass.sequence.draft_logits(pass.kept - 1)?;
                let token = run.sample(sampler, pass.sequence, logits, pass.kept - fed)?;
                let right = unfed.get(pass.kept) == Some(&token);
                let end = self.chosen(run, token)?;
                if end.is_some() || !right {
                    break end.ok_or(token);
                }
                pass.kept += 1;
            };
            let kept = pass.kept;
            self.see_drafts(&*pass.sequence, start, &unfed[..kept])?;
            let stays = pass.settle()?;
            let accepted = kept - fed;
            self.stats.drafted += drafts.len() as u64;
            self.stats.accepted += accepted as u64;
            if let Some(certainty) = certainty {
                self.pace.drafted((fed, drafts.len(), accepted), certainty, took, drafting);
            }
            unfed.truncate(kept);
            if stays == kept {
                unfed.clear();
            }
            match end {
                Ok(end) => {
                    // The sequence is to have all but the last token.
                    if !unfed.is_empty() {
                        self.stats.passes += 1;
                        self.forward(sequence, &unfed, since, false)?;
                    }
                    return Ok(end);
                }
                Err(token) => unfed.push(token),
            }
        }
    }

    /// A token was chosen.
    fn chosen<V: Vocabulary, F: FnMut(Generated) -> ControlFlow<()>>(
        &mut self,
        run: &mut Run<V, F>,
        token: i32,
    ) -> Result<Option<End>> {
        self.stats.tokens += 1;
        self.remember(&[token])?;
        let complete = run.guided.as_mut().map_or(Ok(false), |guided| guided.accept(token))?;
        run.token(token, complete)
    }
}

fn check_drafts(max_drafts: usize) -> Result<()> {
    if (1..=MAX_DRAFTS).contains(&max_drafts) {
        return Ok(());
    }
    Err(Error::invalid(format!("{max_drafts} drafts for a pass: 1 to {MAX_DRAFTS} can be asked for")))
}

/// A pass of drafts whose right ones are being counted. However that ends, only they stay in the sequence.
struct DraftedPass<'a, S: Sequence> {
    sequence: &'a mut S,
    kept: usize,
    settled: bool,
}

impl<S: Sequence> DraftedPass<'_, S> {
    /// How many tokens of the pass the sequence has now.
    fn settle(mut self) -> Result<usize> {
        self.settled = true;
        self.sequence.keep_drafts(self.kept)
    }
}

impl<S: Sequence> Drop for DraftedPass<'_, S> {
    fn drop(&mut self) {
        if !self.settled {
            // A callback has panicked, or the sampler failed: that is the error that counts.
            let _ = self.sequence.keep_drafts(self.kept);
        }
    }
}

mod drafting;
mod likely;
mod room;
#[cfg(test)]
mod tests;
