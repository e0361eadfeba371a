//! Points of a session that it can go back to.

use super::boundary::{Handle, Poison, caller, owned};
use super::error::{layerline_error, layerline_status};
use super::session::layerline_session;
use crate::session::Checkpoint;

/// A point of a session that `layerline_session_restore` can go back to where `layerline_session_truncate` cannot. It keeps
/// the model alive, not the session, which may be freed before it.
pub struct layerline_checkpoint {
    poison: Poison,
    checkpoint: Checkpoint,
}

impl Handle for layerline_checkpoint {
    const NAME: &'static str = "checkpoint";
    fn poison(&self) -> &Poison {
        &self.poison
    }
}

/// Keeps the point where a session is now, so that it can go on from there again. It holds a copy of what layers with a
/// sliding window will have dropped later. For a model without such layers it holds next to nothing, and restoring is
/// truncation.
///
/// `checkpoint`: set to a checkpoint that the caller owns: `layerline_checkpoint_free`. Its memory is taken from the model's
/// budget until it is freed: of each layer with a window at most the window.
///
/// Errors: LAYERLINE_ERROR_MEMORY_BUDGET; LAYERLINE_ERROR_UNSUPPORTED for an encoder, which keeps nothing between passes;
/// LAYERLINE_ERROR_BUSY while a pass runs or is submitted; LAYERLINE_ERROR_OUT_OF_MEMORY; LAYERLINE_ERROR_INVALID_ARGUMENT.
/// One thread at a time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_session_checkpoint(
    session: *mut layerline_session,
    checkpoint: *mut *mut layerline_checkpoint,
    err: *mut *mut layerline_error,
) -> layerline_status {
    caller!().run(err, |c| {
        let (session, out) = (c.handle(session)?, c.out(checkpoint, "checkpoint")?);
        let checkpoint = session.write()?.checkpoint()?;
        out.set(owned(layerline_checkpoint { poison: Poison::default(), checkpoint })?);
        Ok(())
    })
}

/// Frees a checkpoint, and gives its memory back to the model's budget; NULL is a no-op. The session is not affected. Any
/// thread, once, with no call on the checkpoint running.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_checkpoint_free(checkpoint: *mut layerline_checkpoint) {
    caller!().free(checkpoint);
}

/// Returns how many tokens the session held when the checkpoint was made; 0 for NULL. Cannot fail; any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_checkpoint_position(checkpoint: *const layerline_checkpoint) -> u64 {
    caller!().or(0, |c| Ok(c.handle(checkpoint)?.checkpoint.position() as u64))
}

/// Returns the bytes that the checkpoint takes from the model's budget; 0 for NULL. Cannot fail; any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_checkpoint_memory_bytes(checkpoint: *const layerline_checkpoint) -> u64 {
    caller!().or(0, |c| Ok(c.handle(checkpoint)?.checkpoint.bytes()))
}

/// Goes back to a checkpoint of this session. It can be done any number of times. Where the session holds more tokens, they
/// are forgotten, and the rows of the last pass with them; checkpoints of later positions are then lost: they can only be
/// freed.
///
/// Errors: LAYERLINE_ERROR_INVALID_ARGUMENT when the checkpoint is of another session, or lost, because the session was
/// truncated to fewer tokens, restored to an earlier checkpoint or loaded since; nothing changes then.
/// LAYERLINE_ERROR_BUSY while a pass runs or is submitted. One thread at a time for the session; any for the checkpoint.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_session_restore(
    session: *mut layerline_session,
    checkpoint: *const layerline_checkpoint,
    err: *mut *mut layerline_error,
) -> layerline_status {
    caller!().run(err, |c| {
        let (session, checkpoint) = (c.handle(session)?, c.handle(checkpoint)?);
        session.write()?.restore(&checkpoint.checkpoint)
    })
}
