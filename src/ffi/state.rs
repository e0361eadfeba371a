//! What a session holds, copied to another one, to a file or to memory of the host, and back.

use std::ffi::c_char;

use super::boundary::caller;
use super::error::{layerline_error, layerline_status};
use super::session::layerline_session;
use crate::error::{Error, Result};

/// Begins a second sequence with the tokens of a first one, so that a prompt is run once and continued in many ways. The
/// two have nothing in common from then on: each may be changed and freed by itself. What the first one holds is copied,
/// and with it the logits of its last token where its last pass left some; they are row 0.
///
/// `context_length`: tokens the copy can hold; 0: as many as the first one.
/// `copy`: set to a session that the caller owns: `layerline_session_free`. Its KV cache is taken from the model's budget.
///
/// Errors: LAYERLINE_ERROR_CONTEXT_FULL when the first session holds more tokens than the copy could;
/// LAYERLINE_ERROR_MEMORY_BUDGET when the budget has no room for its cache; LAYERLINE_ERROR_INVALID_ARGUMENT, also for a
/// context length at which the model rotates its keys by other angles; LAYERLINE_ERROR_UNSUPPORTED for an encoder, which
/// keeps nothing between passes; LAYERLINE_ERROR_BUSY while a pass of the first session runs or is submitted;
/// LAYERLINE_ERROR_OUT_OF_MEMORY. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_session_copy(
    session: *const layerline_session,
    context_length: u32,
    copy: *mut *mut layerline_session,
    err: *mut *mut layerline_error,
) -> layerline_status {
    caller!().run(err, |c| {
        let (session, out) = (c.handle(session)?, c.out(copy, "copy")?);
        let copy = session.read()?.copy(context_length)?;
        out.set(layerline_session::boxed(copy)?);
        Ok(())
    })
}

/// Writes what a session holds to a file, so that `layerline_session_load` can go on from there at another time, in
/// another process: keys and values of its tokens, and the logits of the last one where the last pass left some. The
/// tokens themselves come along, embeddings do not, nor what samplers have seen.
///
/// The file is written as `.layerline-*.tmp` beside its place, and gets its name when it is complete and on storage: what
/// had the name before is replaced whole, or stays. Only its owner can read it. It does not depend on the context length,
/// the budget, threads or the kind of machine.
///
/// `path`: NUL-terminated, taken as bytes.
///
/// Errors: LAYERLINE_ERROR_IO, also where the name belongs to something other than a regular file;
/// LAYERLINE_ERROR_INVALID_ARGUMENT; LAYERLINE_ERROR_UNSUPPORTED for an encoder, which keeps nothing between passes;
/// LAYERLINE_ERROR_BUSY while a pass runs or is submitted; LAYERLINE_ERROR_OUT_OF_MEMORY. Any thread; it waits for storage.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_session_save(
    session: *const layerline_session,
    path: *const c_char,
    err: *mut *mut layerline_error,
) -> layerline_status {
    caller!().run(err, |c| {
        let (session, path) = (c.handle(session)?, c.path(path)?);
        session.read()?.save(path)
    })
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
/// After an error the session is as it was before. For that the file is read twice, first to check it all, and what the
/// session holds is copied meanwhile, into memory of the model's budget. An empty session needs none. Checkpoints of what
/// the session held are lost.
///
/// Errors: LAYERLINE_ERROR_IO, also when the file changes while it is read; LAYERLINE_ERROR_FORMAT when it is not a state,
/// cut short or damaged; LAYERLINE_ERROR_UNSUPPORTED when another version of the library wrote it in a form that this one
/// does not know, and for an encoder; LAYERLINE_ERROR_INVALID_ARGUMENT when it is of another model, of another LAYERLINE_KV_
/// type, or of a context length at which the model rotates its keys by other angles; LAYERLINE_ERROR_CONTEXT_FULL when it
/// holds more tokens than the session can; LAYERLINE_ERROR_MEMORY_BUDGET when the budget has no room for the copy;
/// LAYERLINE_ERROR_BUSY when another call on the session is running or a pass is submitted; LAYERLINE_ERROR_OUT_OF_MEMORY.
/// One thread at a time; it waits for storage.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_session_load(
    session: *mut layerline_session,
    path: *const c_char,
    err: *mut *mut layerline_error,
) -> layerline_status {
    caller!().run(err, |c| {
        let (session, path) = (c.handle(session)?, c.path(path)?);
        session.write()?.load(path)
    })
}

/// Writes what a session holds to memory of the caller, for `layerline_session_load_buffer`: the bytes that a file of
/// `layerline_session_save` would have.
///
/// `buf`, `cap`: where the bytes are written; NULL with 0 asks for their count.
/// `needed`: set to the count of bytes, also when there is no room for them. It changes with the position of the session.
///
/// Errors: LAYERLINE_ERROR_BUFFER_TOO_SMALL; LAYERLINE_ERROR_INVALID_ARGUMENT; LAYERLINE_ERROR_UNSUPPORTED for an encoder;
/// LAYERLINE_ERROR_BUSY while a pass runs or is submitted; LAYERLINE_ERROR_IO when the model's own file cannot be read, of
/// which the first state saved or loaded reads a sample; LAYERLINE_ERROR_OUT_OF_MEMORY. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_session_save_buffer(
    session: *const layerline_session,
    buf: *mut u8,
    cap: usize,
    needed: *mut usize,
    err: *mut *mut layerline_error,
) -> layerline_status {
    caller!().run(err, |c| {
        let (session, (buf, needed)) = (c.handle(session)?, c.out_buffer((buf, cap, needed))?);
        let session = session.read()?;
        let size = addressable(session.state_size()?)?;
        needed.set(size);
        session.save_to(&mut buf.writer(size)?)
    })
}

/// Replaces what a session holds by a state in memory, which `layerline_session_save_buffer` or `layerline_session_save`
/// wrote. What is said of `layerline_session_load` holds here, but that nothing is copied.
///
/// `state`, `length`: all bytes of the state. They must not change during the call.
///
/// Errors: those of `layerline_session_load`, but LAYERLINE_ERROR_MEMORY_BUDGET; LAYERLINE_ERROR_IO is for the model's own
/// file, of which the first state saved or loaded reads a sample. One thread at a time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_session_load_buffer(
    session: *mut layerline_session,
    state: *const u8,
    length: usize,
    err: *mut *mut layerline_error,
) -> layerline_status {
    caller!().run(err, |c| {
        let (session, state) = (c.handle(session)?, c.array(state, length, "state")?);
        session.write()?.load_from(state)
    })
}

fn addressable(bytes: u64) -> Result<usize> {
    usize::try_from(bytes).map_err(|_| Error::out_of_memory(format!("a state of {bytes} bytes in memory")))
}
