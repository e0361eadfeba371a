//! One sequence: its passes, their results, its position.

use std::ops::{Deref, DerefMut};

use super::boundary::{Caller, Handle, Poison, caller, owned, versioned};
use super::error::{layerline_error, layerline_status};
use super::model::layerline_model;
use super::options::kv_number;
use crate::error::{Error, Result};
use crate::model::{Embeddings, Logits, Outputs};
use crate::session::{Session, SharedSession};

/// Logits for the last token of a pass.
pub const LAYERLINE_LOGITS_LAST: i32 = 0;
/// Logits for every token of a pass.
pub const LAYERLINE_LOGITS_ALL: i32 = 1;
/// No logits: the output head is not read.
pub const LAYERLINE_LOGITS_NONE: i32 = 2;
/// No embeddings.
pub const LAYERLINE_EMBEDDINGS_NONE: i32 = 0;
/// An embedding of every token of a pass: its hidden state after the final norm.
pub const LAYERLINE_EMBEDDINGS_ALL: i32 = 1;
/// The embedding of the last token of a pass.
pub const LAYERLINE_EMBEDDINGS_LAST: i32 = 2;
/// The mean of the embeddings of all tokens of a pass, summed in their order in f32, then divided.
pub const LAYERLINE_EMBEDDINGS_MEAN: i32 = 3;
/// The embedding of the first token of a pass: the classification token of models like BERT.
pub const LAYERLINE_EMBEDDINGS_FIRST: i32 = 4;
/// In place of an embedding the outputs of the model's classifier for a pass: one, the score, of a reranker.
pub const LAYERLINE_EMBEDDINGS_SCORE: i32 = 5;

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
    pub(super) fn boxed(session: Session) -> Result<*mut layerline_session> {
        let session = SharedSession::new(session);
        owned(layerline_session { poison: Poison::default(), session })
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

pub(super) fn outputs(logits: i32, embeddings: i32) -> Result<Outputs> {
    let logits = match logits {
        LAYERLINE_LOGITS_LAST => Logits::Last,
        LAYERLINE_LOGITS_ALL => Logits::All,
        LAYERLINE_LOGITS_NONE => Logits::None,
        _ => return Err(Error::invalid(format!("logits is {logits}, which is not one of LAYERLINE_LOGITS_"))),
    };
    let embeddings = match embeddings {
        LAYERLINE_EMBEDDINGS_NONE => Embeddings::None,
        LAYERLINE_EMBEDDINGS_ALL => Embeddings::All,
        LAYERLINE_EMBEDDINGS_LAST => Embeddings::Last,
        LAYERLINE_EMBEDDINGS_MEAN => Embeddings::Mean,
        LAYERLINE_EMBEDDINGS_FIRST => Embeddings::First,
        LAYERLINE_EMBEDDINGS_SCORE => Embeddings::Score,
        _ => {
            return Err(Error::invalid(format!(
                "embeddings is {embeddings}, which is not one of LAYERLINE_EMBEDDINGS_"
            )));
        }
    };
    Ok(Outputs { logits, embeddings })
}

/// Begins a sequence on a model. Its KV cache is taken from the model's budget, and given back when the session is freed.
///
/// `context_length`: tokens it can hold; 0: what the model's options say. An encoder can hold no more than that.
/// `session`: set to a session that the caller owns: `layerline_session_free`. It keeps the model alive.
///
/// Errors: LAYERLINE_ERROR_INVALID_ARGUMENT, LAYERLINE_ERROR_MEMORY_BUDGET when the budget has no room for its cache,
/// LAYERLINE_ERROR_OUT_OF_MEMORY. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_session_new(
    model: *const layerline_model,
    context_length: u32,
    session: *mut *mut layerline_session,
    err: *mut *mut layerline_error,
) -> layerline_status {
    caller!().run(err, |c| {
        let (model, out) = (c.handle(model)?, c.out(session, "session")?);
        out.set(layerline_session::boxed(Session::new(&model.model, context_length)?)?);
        Ok(())
    })
}

/// Frees a session; NULL is a no-op. A submitted pass may be running or waiting: it is ended as by
/// `layerline_session_interrupt`, but not waited for. When it has ended, what the session holds goes back to the budget, and
/// then its LAYERLINE_EVENT_DONE is posted. Any thread, once, with no call on the session running.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_session_free(session: *mut layerline_session) {
    caller!().free(session);
}

/// Facts of a session.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct layerline_session_info {
    /// Set by the caller to sizeof(layerline_session_info) before the call.
    pub struct_size: u32,
    /// Tokens that the session can hold.
    pub context_length: u32,
    /// Tokens that it holds now: the next pass begins at this position.
    pub position: u64,
    /// Bytes that it takes from the model's budget: its KV cache, room to choose a token in, and the results of a pass, but
    /// for rows of all tokens. Checkpoints are not part of it.
    pub memory_bytes: u64,
    /// Part of `memory_bytes`: keys and values, of as many tokens as the session can hold.
    pub cache_bytes: u64,
    /// How keys and values are kept: one of LAYERLINE_KV_.
    pub kv_type: i32,
    /// The fewest tokens, beside 0, to which `layerline_session_truncate` can go back now.
    pub fewest_tokens: u32,
}

versioned!(layerline_session_info as "info", up to fewest_tokens: u32);

/// Fills `info` with facts of the session; set `info->struct_size` before the call.
///
/// Errors: LAYERLINE_ERROR_INVALID_ARGUMENT; LAYERLINE_ERROR_BUSY while a pass runs or is submitted. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_session_get_info(
    session: *const layerline_session,
    info: *mut layerline_session_info,
    err: *mut *mut layerline_error,
) -> layerline_status {
    caller!().run(err, |c| {
        let (session, info) = (c.handle(session)?, c.out_struct(info)?);
        let session = session.read()?;
        info.set(layerline_session_info {
            struct_size: size_of::<layerline_session_info>() as u32,
            context_length: session.context_length() as u32,
            position: session.position() as u64,
            memory_bytes: session.memory_bytes(),
            cache_bytes: session.cache_bytes(),
            kv_type: kv_number(session.kv_type()),
            fewest_tokens: session.fewest_tokens() as u32,
        });
        Ok(())
    })
}

/// Runs tokens through the model, after those that the session holds already. Layers that are not in memory are waited
/// for.
///
/// `tokens`, `count`: at least one.
/// `logits`: one of LAYERLINE_LOGITS_: for which of the tokens `layerline_session_logits` will have a row.
/// `embeddings`: one of LAYERLINE_EMBEDDINGS_: what `layerline_session_embeddings` will have.
///
/// Memory for one row of logits and one embedding is part of what every session takes; more rows are taken from the budget
/// until the next pass or truncation.
///
/// In an encoder, such as BERT, tokens see those after them: each pass is a sequence of its own, whole, from position 0,
/// whatever the session has taken in before. Encoders have no output head, so `logits` must be LAYERLINE_LOGITS_NONE.
///
/// After an error the session is as it was before the pass.
///
/// Errors: LAYERLINE_ERROR_INVALID_ARGUMENT, also for a token the model does not have; LAYERLINE_ERROR_UNSUPPORTED for
/// logits of a model without an output head; LAYERLINE_ERROR_CONTEXT_FULL; LAYERLINE_ERROR_MEMORY_BUDGET when the budget
/// has no room for the rows of LAYERLINE_LOGITS_ALL or LAYERLINE_EMBEDDINGS_ALL; LAYERLINE_ERROR_CANCELLED by
/// `layerline_session_interrupt`; LAYERLINE_ERROR_IO; LAYERLINE_ERROR_BUSY when another call on the session is running or a
/// pass is submitted; LAYERLINE_ERROR_OUT_OF_MEMORY. One thread at a time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_session_forward(
    session: *mut layerline_session,
    tokens: *const i32,
    count: usize,
    logits: i32,
    embeddings: i32,
    err: *mut *mut layerline_error,
) -> layerline_status {
    caller!().run(err, |c| {
        let (session, tokens) = (c.handle(session)?, c.array(tokens, count, "tokens")?);
        if tokens.is_empty() {
            return Err(Error::invalid("a pass needs at least one token"));
        }
        let outputs = outputs(logits, embeddings)?;
        session.write()?.forward(tokens, outputs)
    })
}

/// Begins the same pass as `layerline_session_forward` on a thread of the library, and returns at once. How it ended is
/// the status of a LAYERLINE_EVENT_DONE of the model: take it by `layerline_model_poll` or `layerline_model_wait`, or watch
/// `layerline_model_event_handle`; `layerline_model_ticket_error` gives the error of one that failed. Until then the
/// session belongs to the pass: functions on it return LAYERLINE_ERROR_BUSY, except `layerline_session_interrupt`,
/// `layerline_session_clear_interrupt` and `layerline_session_free`. When the event is posted the session is free again,
/// with the rows asked for; after a failure it is as it was before the pass.
///
/// Submitted passes of one model take turns in the order in which they were submitted, or share sweeps
/// (`layerline_options_set_share_sweeps`). The first one starts the thread, whose stack is part of every plan. On a budget
/// that several models share, rows for all tokens may have to wait here for one page's time of another model; nothing else
/// ever waits.
///
/// `tokens`, `count`, `logits`, `embeddings`: as for `layerline_session_forward`; the tokens are copied.
/// `ticket`: set to a number that the event and `layerline_model_cancel` use; never 0. Another thread that polls may see
/// the event before this returns.
///
/// Errors, all before anything is begun: LAYERLINE_ERROR_INVALID_ARGUMENT; LAYERLINE_ERROR_CONTEXT_FULL;
/// LAYERLINE_ERROR_MEMORY_BUDGET when the budget has no room for rows of all tokens; LAYERLINE_ERROR_BUSY when another call
/// or a submitted pass has the session, or too many events wait to be taken; LAYERLINE_ERROR_OUT_OF_MEMORY;
/// LAYERLINE_ERROR_UNSUPPORTED as for `layerline_session_forward`, and in a library built without threads of its own.
/// Statuses of the event: LAYERLINE_OK, LAYERLINE_ERROR_CANCELLED, LAYERLINE_ERROR_IO, LAYERLINE_ERROR_OUT_OF_MEMORY,
/// LAYERLINE_ERROR_INTERNAL. One thread at a time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_session_submit(
    session: *mut layerline_session,
    tokens: *const i32,
    count: usize,
    logits: i32,
    embeddings: i32,
    ticket: *mut u64,
    err: *mut *mut layerline_error,
) -> layerline_status {
    caller!().run(err, |c| {
        let (session, tokens) = (c.handle(session)?, c.array(tokens, count, "tokens")?);
        let ticket = c.out(ticket, "ticket")?;
        ticket.set(session.session.submit(tokens, outputs(logits, embeddings)?)?);
        Ok(())
    })
}

/// Ends the pass or generation of the session with LAYERLINE_ERROR_CANCELLED: one that runs within the time of one page,
/// a submitted one that waits for its turn at once. The session is then as before that pass. Where the thread of the pass
/// runs a sweep for passes of other sessions too, it returns when that sweep has ended.
///
/// An interrupt is not lost: where no pass or generation is there, it ends the next one as soon as that begins
/// (`layerline_session_forward`, `layerline_session_submit` or `layerline_session_generate`). A call uses up all interrupts
/// that are raised before it ends, also one that came too late to end it. `layerline_session_clear_interrupt` takes back
/// those that no call has used up.
///
/// NULL is a no-op. Any thread, also while another call on the session is running and from a `layerline_token_callback`.
/// Do not call it from a signal handler, because it takes a lock: let the handler wake a thread through a pipe.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_session_interrupt(session: *const layerline_session) {
    caller!().or((), |c| {
        c.handle(session)?.session.interrupt();
        Ok(())
    });
}

/// Takes back interrupts that no call has used up, so that the next pass or generation runs: for a host that begins something
/// new and may have interrupted what was over already. Call it while no pass of the session runs or is submitted. NULL is a
/// no-op. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_session_clear_interrupt(session: *const layerline_session) {
    caller!().or((), |c| {
        c.handle(session)?.session.clear_interrupt();
        Ok(())
    });
}

/// How far a session's call has come.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct layerline_progress {
    /// Set by the caller to sizeof(layerline_progress) before the call.
    pub struct_size: u32,
    /// Always 0.
    pub reserved: u32,
    /// Bytes of weights that the pass is done with, from memory or from storage. Experts that no token chose count with
    /// their layer.
    pub bytes_done: u64,
    /// Bytes of weights that it needs in all: those of the model for each chunk of tokens.
    pub bytes: u64,
    /// Tokens whose chunk is done.
    pub tokens_done: u64,
    /// Tokens of the pass.
    pub tokens: u64,
}

versioned!(layerline_progress as "progress", up to tokens: u64);

/// Tells how far the running pass of the session has come; set `progress->struct_size` before the call. Where none runs,
/// it tells of the last one; before the first, all is 0. Never waits.
///
/// Errors: LAYERLINE_ERROR_INVALID_ARGUMENT. Any thread, also while another call on the session is running.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_session_get_progress(
    session: *const layerline_session,
    progress: *mut layerline_progress,
    err: *mut *mut layerline_error,
) -> layerline_status {
    caller!().run(err, |c| {
        let (session, progress) = (c.handle(session)?, c.out_struct(progress)?);
        let now = session.session.progress();
        progress.set(layerline_progress {
            struct_size: size_of::<layerline_progress>() as u32,
            reserved: 0,
            bytes_done: now.bytes_done,
            bytes: now.bytes,
            tokens_done: now.tokens_done,
            tokens: now.tokens,
        });
        Ok(())
    })
}

/// Lets the host look at a row that the last pass left. Out-parameters come with their names.
fn show_row(
    c: &Caller,
    session: *const layerline_session,
    (values, values_name): (*mut *const f32, &str),
    (count, count_name): (*mut usize, &str),
    find: impl FnOnce(&Session) -> Result<&[f32]>,
) -> Result<()> {
    let session = c.handle(session)?;
    let (values, count) = (c.out(values, values_name)?, c.out(count, count_name)?);
    let session = session.read()?;
    let row = find(&session)?;
    values.set(row.as_ptr());
    count.set(row.len());
    Ok(())
}

/// Gives the logits of one position of the last pass, before any softmax.
///
/// `row`: 0 after a pass with LAYERLINE_LOGITS_LAST; the token's index in the pass after one with LAYERLINE_LOGITS_ALL.
/// `logits`: set to `*vocab_size` values that belong to the session and are valid until its next pass, truncation,
/// load or free.
///
/// Errors: LAYERLINE_ERROR_INVALID_ARGUMENT when the last pass has no such row; LAYERLINE_ERROR_BUSY while a pass runs or
/// is submitted. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_session_logits(
    session: *const layerline_session,
    row: usize,
    logits: *mut *const f32,
    vocab_size: *mut usize,
    err: *mut *mut layerline_error,
) -> layerline_status {
    caller!().run(err, |c| {
        show_row(c, session, (logits, "logits"), (vocab_size, "vocab_size"), |session| session.logits(row))
    })
}

/// Gives an embedding that the last pass left: a hidden state after the final norm, or a mean of some. It is not
/// normalised: divide it by its length where the model asks for that. Which pooling a file asks for is the metadata
/// `{architecture}.pooling_type`, for `layerline_model_metadata`: 0 none, 1 mean, 2 the first token, 3 the last one.
///
/// `row`: the token's index in the pass after one with LAYERLINE_EMBEDDINGS_ALL; else 0.
/// `embedding`: set to `*length` values that belong to the session and are valid until its next pass, truncation, load
/// or free. The length is the `embedding_length` of `layerline_model_info`, or after LAYERLINE_EMBEDDINGS_SCORE the
/// number of the classifier's outputs.
///
/// Errors: LAYERLINE_ERROR_INVALID_ARGUMENT when the last pass has no such row; LAYERLINE_ERROR_BUSY while a pass runs or
/// is submitted. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_session_embeddings(
    session: *const layerline_session,
    row: usize,
    embedding: *mut *const f32,
    length: *mut usize,
    err: *mut *mut layerline_error,
) -> layerline_status {
    caller!().run(err, |c| {
        show_row(c, session, (embedding, "embedding"), (length, "length"), |session| session.embeddings(row))
    })
}

/// Forgets all tokens after the first `tokens`, so that the sequence can go on differently from there.
///
/// A layer with a sliding window keeps little more than the window, and what it has dropped cannot be brought back. The
/// tokens of the last chunk (`layerline_options_set_chunk_length`) can always be forgotten, and so can all tokens. How far
/// back truncation goes otherwise is `fewest_tokens` of `layerline_session_info`. To go back farther, make a checkpoint
/// there: `layerline_session_checkpoint`.
///
/// Errors: LAYERLINE_ERROR_INVALID_ARGUMENT when the session holds fewer, or a layer has dropped what the next token would
/// see, and nothing changes; LAYERLINE_ERROR_BUSY while a pass runs or is submitted. One thread at a time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_session_truncate(
    session: *mut layerline_session,
    tokens: usize,
    err: *mut *mut layerline_error,
) -> layerline_status {
    caller!().run(err, |c| c.handle(session)?.write()?.truncate(tokens))
}

/// Keeps what the session has in common with the beginning of a list of tokens, and forgets the rest, so that the next turn
/// of a conversation costs its new tokens alone.
///
/// `tokens`, `count`: all tokens of the conversation, of which the session may hold some.
/// `kept`: set to how many stay; the next pass, or the prompt of a generation, is to take in those after them. It is less than
/// `count`, so that a pass can leave the logits of the last one, unless the session holds just these tokens and the logits of
/// the last: then nothing is left to take in, and an empty prompt goes on from there.
///
/// A session keeps what its layers can go back to, as `layerline_session_truncate` does: where that is less than what is
/// common, nothing stays and `kept` is 0. So a model with recurrent layers keeps all that it holds, or nothing: to go back to
/// a part, make a checkpoint there and restore it where `layerline_session_common_prefix` is not less than its position.
/// After loading a state that an earlier release has saved the session does not know its tokens, and nothing stays.
///
/// Errors: LAYERLINE_ERROR_INVALID_ARGUMENT; LAYERLINE_ERROR_UNSUPPORTED: each pass of the model is a sequence of its own;
/// LAYERLINE_ERROR_BUSY while a pass runs or is submitted. One thread at a time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_session_reuse_prefix(
    session: *mut layerline_session,
    tokens: *const i32,
    count: usize,
    kept: *mut usize,
    err: *mut *mut layerline_error,
) -> layerline_status {
    caller!().run(err, |c| {
        let (session, tokens) = (c.handle(session)?, c.array(tokens, count, "tokens")?);
        let kept = c.out(kept, "kept")?;
        kept.set(session.write()?.reuse_prefix(tokens)?);
        Ok(())
    })
}

/// Tells how many tokens at the beginning of a list the session holds, whether or not it could go back to them: to choose
/// among sessions, or a checkpoint. 0 where the session does not know its tokens.
///
/// `tokens`, `count`: may be none.
/// `common`: set to how many.
///
/// Errors: LAYERLINE_ERROR_INVALID_ARGUMENT; LAYERLINE_ERROR_BUSY while a pass runs or is submitted. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_session_common_prefix(
    session: *const layerline_session,
    tokens: *const i32,
    count: usize,
    common: *mut usize,
    err: *mut *mut layerline_error,
) -> layerline_status {
    caller!().run(err, |c| {
        let (session, tokens) = (c.handle(session)?, c.array(tokens, count, "tokens")?);
        let common = c.out(common, "common")?;
        common.set(session.read()?.common_prefix(tokens));
        Ok(())
    })
}
