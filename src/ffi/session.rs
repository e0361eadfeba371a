//! One sequence: its passes, its logits, its position.

use std::ops::{Deref, DerefMut};

use super::boundary::{self, Handle, Out, Poison, array, enter};
use super::error::{layerline_error, layerline_status};
use super::model::layerline_model;
use crate::error::{Error, Result};
use crate::model::Logits;
use crate::session::{Session, SharedSession};

/// Logits for the last token of a pass.
pub const LAYERLINE_LOGITS_LAST: i32 = 0;
/// Logits for every token of a pass.
pub const LAYERLINE_LOGITS_ALL: i32 = 1;
/// No logits.
pub const LAYERLINE_LOGITS_NONE: i32 = 2;

/// One sequence of tokens on a model: its KV cache and its passes. Several sessions of one model may run at once, each
/// by one thread at a time.
pub struct layerline_session {
    poison: Poison,
    session: SharedSession,
}

impl Handle for layerline_session {
    const NAME: &'static str = "session";
    fn poison(&self) -> &Poison {
        &self.poison
    }
}

// Functions on a const session run on several threads at once, and those of other handles are moved between threads.
const _: () = {
    const fn shared<T: Send + Sync>() {}
    shared::<layerline_session>();
    shared::<layerline_model>();
};

impl layerline_session {
    /// The session for functions that do not change it. Never waits: a pass may take long.
    pub(super) fn read(&self) -> Result<impl Deref<Target = Session> + use<'_>> {
        self.session.read()
    }

    /// The session for functions that change it.
    pub(super) fn write(&self) -> Result<impl DerefMut<Target = Session> + use<'_>> {
        self.session.write()
    }
}

fn logits_mode(logits: i32) -> Result<Logits> {
    match logits {
        LAYERLINE_LOGITS_LAST => Ok(Logits::Last),
        LAYERLINE_LOGITS_ALL => Ok(Logits::All),
        LAYERLINE_LOGITS_NONE => Ok(Logits::None),
        _ => Err(Error::invalid(format!("{logits} is no LAYERLINE_LOGITS_ mode"))),
    }
}

/// Begins a sequence on a model. Its KV cache is taken from the model's budget, and given back when it is freed.
///
/// `context_length`: tokens it can hold; 0: what the model's options say.
/// `session`: set to a session that the caller owns: `layerline_session_free`. It keeps the model alive.
///
/// Errors: LAYERLINE_ERROR_INVALID_ARGUMENT, LAYERLINE_ERROR_MEMORY_BUDGET when the budget has no room for its cache,
/// LAYERLINE_ERROR_OUT_OF_MEMORY. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_session_new(
    model: *mut layerline_model,
    context_length: u32,
    session: *mut *mut layerline_session,
    err: *mut *mut layerline_error,
) -> layerline_status {
    // SAFETY: each pointer is NULL or what the header asks for.
    unsafe {
        boundary::with_error(err, || {
            let (model, out) = (enter(model)?, Out::new(session, "session")?);
            let session = SharedSession::new(Session::new(&model.model, context_length)?);
            out.set(Box::into_raw(Box::new(layerline_session { poison: Poison::default(), session })));
            Ok(())
        })
    }
}

/// Frees a session; NULL is a no-op. A submitted pass may be running or waiting: it is ended as by
/// `layerline_session_interrupt`, but not waited for; what the session holds goes back to the budget when it has ended,
/// and then its LAYERLINE_EVENT_DONE comes. Any thread, once, with no call on the session running.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_session_free(session: *mut layerline_session) {
    // SAFETY: NULL, or a session of ours that is freed here alone.
    unsafe { boundary::free(session) };
}

/// Runs tokens through the model, after those the session holds already. Layers that are not in memory are waited for.
///
/// `tokens`, `count`: at least one.
/// `logits`: one of LAYERLINE_LOGITS_, for which of the tokens `layerline_logits` will have a row. Memory for one row is
/// part of what every session takes; more rows are taken from the budget until the next pass or truncation.
///
/// After an error the session is as it was before the pass.
///
/// Errors: LAYERLINE_ERROR_INVALID_ARGUMENT, also for a token the model does not have; LAYERLINE_ERROR_CONTEXT_FULL;
/// LAYERLINE_ERROR_MEMORY_BUDGET when the budget has no room for the rows of LAYERLINE_LOGITS_ALL;
/// LAYERLINE_ERROR_CANCELLED by `layerline_session_interrupt`; LAYERLINE_ERROR_IO; LAYERLINE_ERROR_BUSY when another
/// call on the session is running or a pass is submitted; LAYERLINE_ERROR_OUT_OF_MEMORY. One thread at a time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_forward(
    session: *mut layerline_session,
    tokens: *const i32,
    count: usize,
    logits: i32,
    err: *mut *mut layerline_error,
) -> layerline_status {
    // SAFETY: each pointer is NULL or what the header asks for.
    unsafe {
        boundary::with_error(err, || {
            let (session, tokens) = (enter(session)?, array(tokens, count, "tokens")?);
            if tokens.is_empty() {
                return Err(Error::invalid("a pass needs at least one token"));
            }
            let logits = logits_mode(logits)?;
            session.write()?.forward(tokens, logits)
        })
    }
}

/// Begins the same pass as `layerline_forward` on a thread of the library, and returns at once. How it ended is the
/// status of a LAYERLINE_EVENT_DONE of the model: take it by `layerline_poll` or `layerline_wait`, or be told by
/// `layerline_event_fd`. Until then the session is the pass's: functions on it return LAYERLINE_ERROR_BUSY, but for
/// `layerline_session_interrupt` and `layerline_session_free`. When the event is there the session is free again, with
/// the logits asked for; after a failure it is as it was before the pass.
///
/// Submitted passes of one model run one after another, in the order in which they were submitted. The first one starts
/// the thread, whose stack is part of every plan. On a budget that several models share, logits
/// of all tokens may have to wait here for one page's time of another model; nothing else ever waits.
///
/// `tokens`, `count`, `logits`: as for `layerline_forward`; the tokens are copied.
/// `ticket`: set to a number that the event and `layerline_cancel` use; never 0. Another thread that polls may see the
/// event before this returns.
///
/// Errors, all before anything is begun: LAYERLINE_ERROR_INVALID_ARGUMENT; LAYERLINE_ERROR_CONTEXT_FULL;
/// LAYERLINE_ERROR_MEMORY_BUDGET when the budget has no room for the logits of all tokens; LAYERLINE_ERROR_BUSY when
/// another call or a submitted pass has the session, or too many events wait to be taken;
/// LAYERLINE_ERROR_OUT_OF_MEMORY; LAYERLINE_ERROR_UNSUPPORTED in a library built without threads of its own. Statuses of
/// the event: LAYERLINE_OK, LAYERLINE_ERROR_CANCELLED, LAYERLINE_ERROR_IO, LAYERLINE_ERROR_OUT_OF_MEMORY,
/// LAYERLINE_ERROR_INTERNAL. One thread at a time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_forward_submit(
    session: *mut layerline_session,
    tokens: *const i32,
    count: usize,
    logits: i32,
    ticket: *mut u64,
    err: *mut *mut layerline_error,
) -> layerline_status {
    // SAFETY: each pointer is NULL or what the header asks for.
    unsafe {
        boundary::with_error(err, || {
            let (session, tokens) = (enter(session)?, array(tokens, count, "tokens")?);
            let ticket = Out::new(ticket, "ticket")?;
            ticket.set(session.session.submit(tokens, logits_mode(logits)?)?);
            Ok(())
        })
    }
}

/// Ends the pass or generation of the session with LAYERLINE_ERROR_CANCELLED: one that runs within the time of one page,
/// a submitted one that waits for its turn at once. The session is then as before that pass. Does nothing when there is
/// none. NULL is a no-op. Any thread, and the one function that may be called while another call on the session is
/// running; also from a `layerline_token_callback`. It takes a lock, so never from a signal handler: let that one wake a
/// thread, by a pipe.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_session_interrupt(session: *const layerline_session) {
    // SAFETY: NULL, or a session of ours.
    boundary::or((), || unsafe {
        enter(session)?.session.interrupt();
        Ok(())
    });
}

/// The logits of one position of the last pass, before any softmax.
///
/// `row`: 0 after a pass with LAYERLINE_LOGITS_LAST; the token's index in the pass after one with LAYERLINE_LOGITS_ALL.
/// `logits`: set to `*vocab_size` values that belong to the session and are valid until its next pass, truncation or
/// free.
///
/// Errors: LAYERLINE_ERROR_INVALID_ARGUMENT when the last pass has no such row; LAYERLINE_ERROR_BUSY while a pass runs or
/// is submitted.
/// Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_logits(
    session: *const layerline_session,
    row: usize,
    logits: *mut *const f32,
    vocab_size: *mut usize,
) -> layerline_status {
    // SAFETY: each pointer is NULL or what the header asks for.
    boundary::status(|| unsafe {
        let session = enter(session)?;
        let (logits, vocab_size) = (Out::new(logits, "logits")?, Out::new(vocab_size, "vocab_size")?);
        let session = session.read()?;
        let values = session.logits(row)?;
        logits.set(values.as_ptr());
        vocab_size.set(values.len());
        Ok(())
    })
}

/// Sets `tokens` to how many tokens the session holds.
///
/// Errors: LAYERLINE_ERROR_INVALID_ARGUMENT; LAYERLINE_ERROR_BUSY while a pass runs or is submitted. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_session_position(
    session: *const layerline_session,
    tokens: *mut usize,
) -> layerline_status {
    // SAFETY: each pointer is NULL or what the header asks for.
    boundary::status(|| unsafe {
        let (session, tokens) = (enter(session)?, Out::new(tokens, "tokens")?);
        tokens.set(session.read()?.position());
        Ok(())
    })
}

/// Forgets all tokens after the first `tokens`, so that the sequence can go on differently from there.
///
/// Errors: LAYERLINE_ERROR_INVALID_ARGUMENT when the session holds fewer; LAYERLINE_ERROR_BUSY while a pass runs or is
/// submitted. One thread at a time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_session_truncate(
    session: *mut layerline_session,
    tokens: usize,
) -> layerline_status {
    // SAFETY: NULL, or a session of ours.
    boundary::status(|| unsafe { enter(session)?.write()?.truncate(tokens) })
}
