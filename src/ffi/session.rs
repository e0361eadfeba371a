//! One sequence: its passes, their results, its position.

use std::ffi::c_char;
use std::ops::{Deref, DerefMut};

use super::boundary::{self, Handle, Out, Poison, array, enter};
use super::error::{layerline_error, layerline_status};
use super::model::layerline_model;
use super::plan::path as path_of;
use crate::error::{Error, Result};
use crate::model::{Embeddings, Logits, Outputs};
use crate::session::{Session, SharedSession};

/// Logits for the last token of a pass.
pub const LAYERLINE_LOGITS_LAST: i32 = 0;
/// Logits for every token of a pass.
pub const LAYERLINE_LOGITS_ALL: i32 = 1;
/// No logits: the output head is not read.
pub const LAYERLINE_LOGITS_NONE: i32 = 2;
/// Or-ed to one of LAYERLINE_LOGITS_: an embedding of every token of a pass, its hidden state after the final norm.
pub const LAYERLINE_EMBEDDINGS_ALL: i32 = 16;
/// The embedding of the last token of a pass.
pub const LAYERLINE_EMBEDDINGS_LAST: i32 = 32;
/// The mean of the embeddings of all tokens of a pass, summed in their order in f32, then divided.
pub const LAYERLINE_EMBEDDINGS_MEAN: i32 = 48;
/// The embedding of the first token of a pass: the classification token of models like BERT.
pub const LAYERLINE_EMBEDDINGS_FIRST: i32 = 64;

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
    /// One that the caller owns.
    fn boxed(session: Session) -> *mut layerline_session {
        let session = SharedSession::new(session);
        Box::into_raw(Box::new(layerline_session { poison: Poison::default(), session }))
    }

    /// The session for functions that do not change it. Never waits: a pass may take long.
    pub(super) fn read(&self) -> Result<impl Deref<Target = Session> + use<'_>> {
        self.session.read()
    }

    /// The session for functions that change it.
    pub(super) fn write(&self) -> Result<impl DerefMut<Target = Session> + use<'_>> {
        self.session.write()
    }
}

/// The bits of a mode that are one of LAYERLINE_LOGITS_; the others are one of LAYERLINE_EMBEDDINGS_.
const LOGITS_BITS: i32 = 15;

fn outputs(mode: i32) -> Result<Outputs> {
    let logits = match mode & LOGITS_BITS {
        LAYERLINE_LOGITS_LAST => Logits::Last,
        LAYERLINE_LOGITS_ALL => Logits::All,
        LAYERLINE_LOGITS_NONE => Logits::None,
        _ => return Err(Error::invalid(format!("{mode} is no LAYERLINE_LOGITS_ mode"))),
    };
    let embeddings = match mode & !LOGITS_BITS {
        0 => Embeddings::None,
        LAYERLINE_EMBEDDINGS_ALL => Embeddings::All,
        LAYERLINE_EMBEDDINGS_LAST => Embeddings::Last,
        LAYERLINE_EMBEDDINGS_MEAN => Embeddings::Mean,
        LAYERLINE_EMBEDDINGS_FIRST => Embeddings::First,
        _ => {
            return Err(Error::invalid(format!(
                "{mode} is no LAYERLINE_LOGITS_ mode with a LAYERLINE_EMBEDDINGS_ one"
            )));
        }
    };
    Ok(Outputs { logits, embeddings })
}

/// Begins a sequence on a model. Its KV cache is taken from the model's budget, and given back when it is freed.
///
/// `context_length`: tokens it can hold; 0: what the model's options say. For an encoder no more than that.
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
            out.set(layerline_session::boxed(Session::new(&model.model, context_length)?));
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
/// `logits`: one of LAYERLINE_LOGITS_, for which of the tokens `layerline_logits` will have a row; or-ed with one of
/// LAYERLINE_EMBEDDINGS_ for what `layerline_embeddings` will have. Memory for one row of each is part of what every
/// session takes; more rows are taken from the budget until the next pass or truncation.
///
/// In an encoder, such as BERT, tokens see those after them: each pass is a sequence of its own, whole, from position 0,
/// whatever the session has taken in before. Encoders have no output head, so `logits` must hold LAYERLINE_LOGITS_NONE.
///
/// After an error the session is as it was before the pass.
///
/// Errors: LAYERLINE_ERROR_INVALID_ARGUMENT, also for a token the model does not have; LAYERLINE_ERROR_UNSUPPORTED for
/// logits of a model without an output head; LAYERLINE_ERROR_CONTEXT_FULL;
/// LAYERLINE_ERROR_MEMORY_BUDGET when the budget has no room for the rows of LAYERLINE_LOGITS_ALL or
/// LAYERLINE_EMBEDDINGS_ALL;
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
            let outputs = outputs(logits)?;
            session.write()?.forward(tokens, outputs)
        })
    }
}

/// Begins the same pass as `layerline_forward` on a thread of the library, and returns at once. How it ended is the
/// status of a LAYERLINE_EVENT_DONE of the model: take it by `layerline_poll` or `layerline_wait`, or be told by
/// `layerline_event_fd`. Until then the session is the pass's: functions on it return LAYERLINE_ERROR_BUSY, but for
/// `layerline_session_interrupt` and `layerline_session_free`. When the event is there the session is free again, with
/// the rows asked for; after a failure it is as it was before the pass.
///
/// Submitted passes of one model run one after another, in the order in which they were submitted. The first one starts
/// the thread, whose stack is part of every plan. On a budget that several models share, rows for all tokens may have to
/// wait here for one page's time of another model; nothing else ever waits.
///
/// `tokens`, `count`, `logits`: as for `layerline_forward`; the tokens are copied.
/// `ticket`: set to a number that the event and `layerline_cancel` use; never 0. Another thread that polls may see the
/// event before this returns.
///
/// Errors, all before anything is begun: LAYERLINE_ERROR_INVALID_ARGUMENT; LAYERLINE_ERROR_CONTEXT_FULL;
/// LAYERLINE_ERROR_MEMORY_BUDGET when the budget has no room for rows of all tokens; LAYERLINE_ERROR_BUSY when
/// another call or a submitted pass has the session, or too many events wait to be taken;
/// LAYERLINE_ERROR_OUT_OF_MEMORY; LAYERLINE_ERROR_UNSUPPORTED as for `layerline_forward`, and in a library built without
/// threads of its own. Statuses of the event: LAYERLINE_OK, LAYERLINE_ERROR_CANCELLED, LAYERLINE_ERROR_IO, LAYERLINE_ERROR_OUT_OF_MEMORY,
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
            ticket.set(session.session.submit(tokens, outputs(logits)?)?);
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

/// Lets the host look at a row that the last pass left. Out-parameters come with their names.
///
/// # Safety
/// The pointers are NULL or what the header asks for.
unsafe fn show_row(
    session: *const layerline_session,
    (values, values_name): (*mut *const f32, &str),
    (count, count_name): (*mut usize, &str),
    find: impl FnOnce(&Session) -> Result<&[f32]>,
) -> layerline_status {
    // SAFETY: the caller vouches for it.
    boundary::status(|| unsafe {
        let session = enter(session)?;
        let (values, count) = (Out::new(values, values_name)?, Out::new(count, count_name)?);
        let session = session.read()?;
        let row = find(&session)?;
        values.set(row.as_ptr());
        count.set(row.len());
        Ok(())
    })
}

/// The logits of one position of the last pass, before any softmax.
///
/// `row`: 0 after a pass with LAYERLINE_LOGITS_LAST; the token's index in the pass after one with LAYERLINE_LOGITS_ALL.
/// `logits`: set to `*vocab_size` values that belong to the session and are valid until its next pass, truncation,
/// load or free.
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
    unsafe { show_row(session, (logits, "logits"), (vocab_size, "vocab_size"), |session| session.logits(row)) }
}

/// An embedding that the last pass left: a hidden state after the final norm, or a mean of some. It is not normalised:
/// divide it by its length where the model asks for that. Which pooling a file asks for is the metadata
/// `{architecture}.pooling_type`, for `layerline_model_metadata`: 0 none, 1 mean, 2 the first token, 3 the last one.
///
/// `row`: the token's index in the pass after one with LAYERLINE_EMBEDDINGS_ALL; else 0.
/// `embedding`: set to `*length` values that belong to the session and are valid until its next pass, truncation, load
/// or free. The length is the `embedding_length` of `layerline_model_info`.
///
/// Errors: LAYERLINE_ERROR_INVALID_ARGUMENT when the last pass has no such row; LAYERLINE_ERROR_BUSY while a pass runs or
/// is submitted.
/// Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_embeddings(
    session: *const layerline_session,
    row: usize,
    embedding: *mut *const f32,
    length: *mut usize,
) -> layerline_status {
    // SAFETY: each pointer is NULL or what the header asks for.
    unsafe { show_row(session, (embedding, "embedding"), (length, "length"), |session| session.embeddings(row)) }
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

/// Begins a second sequence with the tokens of a first one, so that a prompt is run once and continued in many ways. The
/// two have nothing in common from then on: each may be changed and freed by itself. What the first one holds is copied,
/// the logits of its last token with it where its last pass left some; they are row 0.
///
/// `context_length`: tokens the copy can hold; 0: as many as the first one.
/// `copy`: set to a session that the caller owns: `layerline_session_free`. Its KV cache is taken from the model's budget.
///
/// Errors: LAYERLINE_ERROR_CONTEXT_FULL when the first session holds more tokens than the copy could;
/// LAYERLINE_ERROR_MEMORY_BUDGET when the budget has no room for its cache; LAYERLINE_ERROR_INVALID_ARGUMENT, also for a
/// context length at which the model rotates its keys by other angles; LAYERLINE_ERROR_UNSUPPORTED for an encoder, which
/// remembers nothing; LAYERLINE_ERROR_BUSY while a pass of the first session runs or is submitted;
/// LAYERLINE_ERROR_OUT_OF_MEMORY. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_session_copy(
    session: *const layerline_session,
    context_length: u32,
    copy: *mut *mut layerline_session,
    err: *mut *mut layerline_error,
) -> layerline_status {
    // SAFETY: each pointer is NULL or what the header asks for.
    unsafe {
        boundary::with_error(err, || {
            let (session, out) = (enter(session)?, Out::new(copy, "copy")?);
            let copy = session.read()?.copy(context_length)?;
            out.set(layerline_session::boxed(copy));
            Ok(())
        })
    }
}

/// Writes what a session holds to a file, so that `layerline_session_load` can go on from there at another time, in
/// another process: keys and values of its tokens, and the logits of the last one where the last pass left some. The
/// tokens themselves are not in it, nor embeddings, nor what samplers have seen.
///
/// The file is written as `.layerline-*.tmp` beside its place, and gets its name when it is complete and on storage: what
/// had the name before is replaced whole, or stays. Only its owner can read it. It does not depend on the context length,
/// the budget, threads or the kind of machine.
///
/// `path`: NUL-terminated, taken as bytes.
///
/// Errors: LAYERLINE_ERROR_IO, also where the name belongs to something else than a regular file;
/// LAYERLINE_ERROR_INVALID_ARGUMENT; LAYERLINE_ERROR_UNSUPPORTED for an encoder, which remembers nothing;
/// LAYERLINE_ERROR_BUSY while a pass runs or is submitted; LAYERLINE_ERROR_OUT_OF_MEMORY. Any thread; it waits for storage.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_session_save(
    session: *const layerline_session,
    path: *const c_char,
    err: *mut *mut layerline_error,
) -> layerline_status {
    // SAFETY: each pointer is NULL or what the header asks for.
    unsafe {
        boundary::with_error(err, || {
            let (session, path) = (enter(session)?, path_of(path)?);
            session.read()?.save(path)
        })
    }
}

/// Replaces what a session holds by what `layerline_session_save` wrote. Going on from there gives the same bits as going
/// on in the session that was saved. The two may have different context lengths.
///
/// The file must be of the same model: the same architecture and hyper-parameters, vocabulary, tensors and quantisation,
/// and the same bytes in a sample of the weights; which files hold the model does not matter. A model that differs from
/// it in a few tensors only may be taken for the same.
///
/// `path`: NUL-terminated, taken as bytes.
///
/// After an error the session is as it was before. The file is read twice for that, once to check it all. Only when it
/// changes between the two, which is LAYERLINE_ERROR_IO, the session is left without tokens.
///
/// Errors: LAYERLINE_ERROR_IO; LAYERLINE_ERROR_FORMAT when it is no such file, cut short or damaged;
/// LAYERLINE_ERROR_UNSUPPORTED when another version of the library wrote it in a form that this one does not know,
/// and for an encoder;
/// LAYERLINE_ERROR_INVALID_ARGUMENT when it is of another model, or of a context length at which the model rotates its
/// keys by other angles; LAYERLINE_ERROR_CONTEXT_FULL when it holds more tokens than the session can;
/// LAYERLINE_ERROR_BUSY when another call on the session is running or a pass is submitted;
/// LAYERLINE_ERROR_OUT_OF_MEMORY. One thread at a time; it waits for storage.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_session_load(
    session: *mut layerline_session,
    path: *const c_char,
    err: *mut *mut layerline_error,
) -> layerline_status {
    // SAFETY: each pointer is NULL or what the header asks for.
    unsafe {
        boundary::with_error(err, || {
            let (session, path) = (enter(session)?, path_of(path)?);
            session.write()?.load(path)
        })
    }
}
