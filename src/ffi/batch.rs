//! Passes of several sessions in the same sweeps.

use super::boundary::{caller, versioned};
use super::error::{LAYERLINE_OK, layerline_error, layerline_status};
use super::model::layerline_model;
use super::session::{layerline_session, outputs};
use crate::error::{Error, Result};
use crate::model::Outputs;
use crate::session::{BatchInput, forward_batch};

/// What a session takes in within a batch, and how that ended.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct layerline_batch_input {
    /// Set by the caller to sizeof(layerline_batch_input), the same in all inputs of an array.
    pub struct_size: u32,
    /// One of LAYERLINE_LOGITS_: as for `layerline_session_forward`, like the following ones.
    pub logits: i32,
    /// One of LAYERLINE_EMBEDDINGS_.
    pub embeddings: i32,
    /// Set by the call: how the pass of this input ended.
    pub status: layerline_status,
    /// A session of the model, in no other input.
    pub session: *mut layerline_session,
    /// At least one token.
    pub tokens: *const i32,
    /// How many there are.
    pub count: usize,
    /// Set by the call: NULL, or the error of this input, which the caller frees.
    pub error: *mut layerline_error,
}

versioned!(layerline_batch_input as "inputs", up to error: *mut layerline_error);

/// Runs a pass of several sessions at once: every page of the weights is read, and fetched from memory, once for all of
/// them. As many tokens share a sweep as a chunk has (`layerline_options_set_chunk_length`); where there are more, all go on
/// in further sweeps. Each session has the results of `layerline_session_forward`, to the bit, whoever else takes part.
///
/// Each input succeeds or fails by itself. A full context, an unknown token, a session that is busy, interrupted
/// (`layerline_session_interrupt`), NULL, of another model or in the array twice fails its own input, and the others run;
/// storage that fails fails all inputs of the sweep. The session of an input that failed is as it was before.
///
/// `inputs`, `count`: the inputs; the call sets `status` and `error` of each. NULL goes with `count` 0, which does nothing.
///
/// Returns LAYERLINE_OK when all inputs have succeeded; else the status of the first that has not, and `err` is its error
/// with its number in front. Where the array itself is refused, because it is NULL or a `struct_size` is wrong, that is
/// LAYERLINE_ERROR_INVALID_ARGUMENT, and no input is written.
///
/// Errors: those of `layerline_session_forward`. One thread at a time for each of the sessions; other calls on the model may
/// run at once.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_model_forward_batch(
    model: *const layerline_model,
    inputs: *mut layerline_batch_input,
    count: usize,
    err: *mut *mut layerline_error,
) -> layerline_status {
    caller!().run(err, |c| {
        let model = c.handle(model)?;
        let inputs = c.structs(inputs, count)?;
        let mut values: Vec<layerline_batch_input> = (0..count).map(|i| inputs.get(i)).collect();
        let entered: Vec<_> = values.iter().map(|value| c.handle(value.session)).collect();
        let open = |i: usize| {
            let value = &values[i];
            let session = entered[i].as_ref().map_err(Clone::clone)?;
            if let Some(other) = values[..i].iter().position(|other| other.session == value.session) {
                return Err(Error::invalid(format!("its session is that of input {other} too")));
            }
            let tokens = c.array(value.tokens, value.count, "tokens")?;
            let outputs = outputs(value.logits, value.embeddings)?;
            let session = session.write()?;
            if !std::sync::Arc::ptr_eq(session.model(), &model.model) {
                return Err(Error::invalid("its session is one of another model"));
            }
            Ok((session, tokens, outputs))
        };
        let mut opened: Vec<Result<(_, &[i32], Outputs)>> = (0..count).map(open).collect();
        let able = opened.iter_mut().filter_map(|input| input.as_mut().ok());
        let mut batch: Vec<BatchInput> =
            able.map(|(session, tokens, outputs)| BatchInput { session, tokens, outputs: *outputs }).collect();
        let mut results = forward_batch(&mut batch).into_iter();
        drop(batch);
        let ended = opened.into_iter().map(|input| input.and_then(|_| results.next().unwrap_or(Ok(()))));
        let mut first = Ok(());
        for (i, (result, value)) in ended.zip(&mut values).enumerate() {
            (value.status, value.error) = match result {
                Ok(()) => (LAYERLINE_OK, std::ptr::null_mut()),
                Err(e) => {
                    if first.is_ok() {
                        first = Err(e.clone().context(format!("input {i}")));
                    }
                    (e.status() as layerline_status, layerline_error::boxed(e))
                }
            };
            inputs.set(i, *value);
        }
        first
    })
}
