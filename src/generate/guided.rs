//! A generation that follows a constraint. Which tokens may come next is computed while the pass runs whose logits they are
//! chosen by: on a thread of its own, where the library may start threads.

use super::{Constraint, ConstraintState};
use crate::error::{Error, Result};

#[cfg(feature = "prefetch")]
use crossbeam_channel::{Receiver, Sender, bounded};

/// Tokens that are put into a pass because the constraint leaves no choice, at most.
pub const MAX_FORCED: usize = 16;

/// The parser's own recursion is bounded; this is what its tests take, several times over. Memory comes as it is used.
#[cfg(feature = "prefetch")]
const STACK_BYTES: usize = 2 << 20;

/// The constraint of a text that is being generated, after all tokens that were chosen.
pub struct Guided {
    /// Lent to the thread while a pass runs.
    state: Option<State>,
    /// Of the last pass: what is allowed after the tokens that were certain, and after each draft.
    masks: Vec<Vec<u32>>,
    /// Logits of what is allowed.
    row: Vec<f32>,
    #[cfg(feature = "prefetch")]
    helper: Option<Helper>,
    /// What is to be computed where there is no thread.
    waiting: Option<Vec<i32>>,
}

struct State(Constraint);

impl State {
    /// What is allowed now, and after each of `drafts`, as far as they are allowed.
    fn masks(&mut self, drafts: &[i32]) -> Result<Vec<Vec<u32>>> {
        let mut masks = vec![self.0.mask()?];
        if drafts.is_empty() {
            return Ok(masks);
        }
        let mut ahead = self.0.fork();
        for &draft in drafts {
            if !masks.last().is_some_and(|mask| allows(mask, draft)) {
                break;
            }
            ahead.accept(draft)?;
            // Nothing is chosen after a text that is complete.
            if ahead.progress()? == ConstraintState::Complete {
                break;
            }
            masks.push(ahead.mask()?);
        }
        Ok(masks)
    }
}

fn allows(mask: &[u32], token: i32) -> bool {
    usize::try_from(token).is_ok_and(|token| mask.get(token / 32).is_some_and(|word| word >> (token % 32) & 1 == 1))
}

impl Guided {
    /// A text that begins where `constraint` is.
    pub fn begin(constraint: &Constraint) -> Guided {
        Guided {
            state: Some(State(constraint.fork())),
            masks: Vec::new(),
            row: Vec::new(),
            #[cfg(feature = "prefetch")]
            helper: Helper::start(),
            waiting: None,
        }
    }

    /// Begins to compute what may follow the text, and each of `drafts` after it. [`Guided::end_pass`] waits for it.
    pub fn begin_pass(&mut self, drafts: &[i32]) {
        let drafts = drafts.to_vec();
        #[cfg(feature = "prefetch")]
        if let Some(work) = self.helper.as_ref().and_then(|helper| helper.work.as_ref()) {
            // A thread that is gone leaves nothing behind: the end of the pass tells.
            if let Some(state) = self.state.take() {
                let _ = work.send((state, drafts));
            }
            return;
        }
        self.waiting = Some(drafts);
    }

    /// The pass is over.
    ///
    /// # Errors
    /// As [`Constraint::mask`].
    pub fn end_pass(&mut self) -> Result<()> {
        if let Some(drafts) = self.waiting.take() {
            self.masks = self.state()?.masks(&drafts)?;
            return Ok(());
        }
        #[cfg(feature = "prefetch")]
        if let Some((state, masks)) = self.helper.as_ref().and_then(|helper| helper.done.recv().ok()) {
            self.state = Some(state);
            self.masks = masks?;
            return Ok(());
        }
        Err(fault())
    }

    /// Logits without those of tokens that are not allowed after the text and the first `drafts` drafts of the pass.
    ///
    /// # Errors
    /// `OUT_OF_MEMORY`.
    pub fn allowed(&mut self, logits: &[f32], drafts: usize) -> Result<&[f32]> {
        let mask = self.masks.get(drafts).ok_or_else(fault)?;
        let more = logits.len().saturating_sub(self.row.len());
        self.row.try_reserve_exact(more).map_err(|_| Error::out_of_memory("logits of a constraint"))?;
        self.row.clear();
        // A logit that is no number is never chosen.
        self.row.resize(logits.len(), f32::NAN);
        for (at, &word) in mask.iter().enumerate() {
            let mut bits = word;
            while bits != 0 {
                let token = at * 32 + bits.trailing_zeros() as usize;
                bits &= bits - 1;
                if let (Some(place), Some(logit)) = (self.row.get_mut(token), logits.get(token)) {
                    *place = *logit;
                }
            }
        }
        Ok(&self.row)
    }

    /// A token was chosen. Returns whether the text is complete.
    ///
    /// # Errors
    /// As [`Constraint::accept`].
    pub fn accept(&mut self, token: i32) -> Result<bool> {
        self.state()?.0.accept(token)?;
        self.is_complete()
    }

    /// Whether nothing can follow.
    ///
    /// # Errors
    /// As [`Constraint::mask`].
    pub fn is_complete(&mut self) -> Result<bool> {
        Ok(self.state()?.0.progress()? == ConstraintState::Complete)
    }

    /// Puts up to `most` tokens that the text goes on with in any case into `out`.
    ///
    /// # Errors
    /// As [`Constraint::mask`].
    pub fn forced(&mut self, most: usize, out: &mut Vec<i32>) -> Result<()> {
        out.clear();
        if most > 0 {
            out.extend(self.state()?.0.forced()?.into_iter().take(most.min(MAX_FORCED)));
        }
        Ok(())
    }

    /// Keeps the first of `drafts`, as far as the text may go on with them.
    ///
    /// # Errors
    /// As [`Constraint::mask`].
    pub fn keep_allowed(&mut self, drafts: &mut Vec<i32>) -> Result<()> {
        if !drafts.is_empty() {
            let allowed = self.state()?.0.allowed(drafts)?;
            drafts.truncate(allowed);
        }
        Ok(())
    }

    fn state(&mut self) -> Result<&mut State> {
        self.state.as_mut().ok_or_else(fault)
    }
}

fn fault() -> Error {
    Error::new(crate::error::Status::Internal, "a constraint was lost by an earlier fault")
}

/// The thread. It ends when the generation does.
#[cfg(feature = "prefetch")]
struct Helper {
    /// None when it is to end.
    work: Option<Sender<Job>>,
    done: Receiver<(State, Result<Vec<Vec<u32>>>)>,
    thread: Option<std::thread::JoinHandle<()>>,
}

/// A state, and the drafts that may follow it.
#[cfg(feature = "prefetch")]
type Job = (State, Vec<i32>);

#[cfg(feature = "prefetch")]
impl Helper {
    /// None where the system gives no thread: then everything is computed after the pass.
    fn start() -> Option<Helper> {
        let (work, jobs) = bounded::<Job>(1);
        let (results, done) = bounded(1);
        let body = move || {
            for (mut state, drafts) in jobs {
                let masks = state.masks(&drafts);
                if results.send((state, masks)).is_err() {
                    return;
                }
            }
        };
        let builder = std::thread::Builder::new().name("layerline-mask".into()).stack_size(STACK_BYTES);
        let thread = builder.spawn(body).ok()?;
        Some(Helper { work: Some(work), done, thread: Some(thread) })
    }
}

#[cfg(feature = "prefetch")]
impl Drop for Helper {
    fn drop(&mut self) {
        self.work = None;
        // It has caught its own panics: there is nothing to learn.
        let _ = self.thread.take().map(std::thread::JoinHandle::join);
    }
}

#[cfg(all(test, feature = "constraints"))]
mod tests;
