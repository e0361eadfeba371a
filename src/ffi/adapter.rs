//! Adapters: low-rank changes of a model's matrices.

use std::ffi::c_char;
use std::sync::Arc;

use super::boundary::{Handle, Poison, caller, owned};
use super::error::{layerline_error, layerline_status};
use super::model::layerline_model;
use super::session::layerline_session;
use super::source::{self, layerline_source};
use crate::error::{Error, Result};
use crate::model::Adapter;

/// A low-rank adapter (LoRA) of a model, in memory. It keeps the model alive. Sessions that have it keep what they need of
/// it, so that it may be freed before them; its memory is given back when the last one is gone.
pub struct layerline_adapter {
    poison: Poison,
    adapter: Arc<Adapter>,
}

impl Handle for layerline_adapter {
    const NAME: &'static str = "adapter";
    fn poison(&self) -> &Poison {
        &self.poison
    }
}

/// Reads an adapter of a model from a GGUF file, as llama.cpp's convert_lora_to_gguf.py makes it: `general.type` is
/// "adapter", `adapter.type` "lora", and each matrix X of the model that it changes has tensors X.lora_a and X.lora_b. They
/// stay in the file's formats.
///
/// Adapted can be the matrices of attention, feed-forward and recurrent blocks, the output head, and the embeddings where
/// they are not the head as well; not experts, latent attention and norms: the error names the tensor.
///
/// `path`: NUL-terminated; one file.
/// `adapter`: set to an adapter that the caller owns: `layerline_adapter_free`. Its memory is taken from the model's budget:
/// `layerline_adapter_memory_bytes`. The plan of a model does not know of it: leave so much more.
///
/// It waits for storage, and for frames that must go for it, at most one page's time of a running pass.
///
/// Errors: LAYERLINE_ERROR_INVALID_ARGUMENT: no adapter, or one of another model or architecture, or of other shapes;
/// LAYERLINE_ERROR_NOT_FOUND: the model has no such matrix; LAYERLINE_ERROR_UNSUPPORTED; LAYERLINE_ERROR_FORMAT: malformed,
/// half of a pair is missing, or alpha is not a number; LAYERLINE_ERROR_MEMORY_BUDGET: it does not fit;
/// LAYERLINE_ERROR_IO; LAYERLINE_ERROR_OUT_OF_MEMORY. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_adapter_open(
    model: *const layerline_model,
    path: *const c_char,
    adapter: *mut *mut layerline_adapter,
    err: *mut *mut layerline_error,
) -> layerline_status {
    caller!().run(err, |c| {
        let (model, path, out) = (c.handle(model)?, c.path(path)?, c.out(adapter, "adapter")?);
        let adapter = Adapter::open(&model.model, path)?;
        out.set(owned(layerline_adapter { poison: Poison::default(), adapter })?);
        Ok(())
    })
}

/// Reads an adapter of a model from storage of the host's own, as `layerline_adapter_open` does from a file.
///
/// `source`: one file. It is not used any more when this returns.
/// `adapter`: as for `layerline_adapter_open`.
///
/// Errors: those of `layerline_adapter_open`. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_adapter_open_source(
    model: *const layerline_model,
    source: *const layerline_source,
    adapter: *mut *mut layerline_adapter,
    err: *mut *mut layerline_error,
) -> layerline_status {
    caller!().run(err, |c| {
        let (model, sources, out) = (c.handle(model)?, source::sources(c, source)?, c.out(adapter, "adapter")?);
        let adapter = Adapter::open_source(&model.model, &sources)?;
        out.set(owned(layerline_adapter { poison: Poison::default(), adapter })?);
        Ok(())
    })
}

/// Frees an adapter; NULL is a no-op. Sessions that have it go on with it. Any thread, once.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_adapter_free(adapter: *mut layerline_adapter) {
    caller!().free(adapter);
}

/// Returns the bytes that an adapter takes from the model's budget; 0 for NULL. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_adapter_memory_bytes(adapter: *const layerline_adapter) -> u64 {
    caller!().or(0, |c| Ok(c.handle(adapter)?.adapter.memory_bytes()))
}

/// Sets the adapters of a session, in place of those that it has. In all further passes the product of a matrix W that an
/// adapter changes becomes W·x + scale·(alpha / rank)·B·(A·x), x being what the product of W sees of its input, one adapter
/// after the other. Sessions that share a sweep may have different ones. The results are the same, bit for bit, whatever
/// the budget, the threads, the chunks and the company; without adapters they are those of the model alone.
///
/// What the session holds stays as it was computed: tokens taken in before keep their keys and values. To have them anew,
/// `layerline_session_truncate` to 0. A copy of the session has the same adapters. A state does not contain them: set them
/// again after loading it.
///
/// `adapters`: of the session's model. They may be freed afterwards.
/// `scales`: of each; 1 is what it was trained for, 0 leaves it out.
/// `count`: 0 takes all away.
///
/// The products are made in memory from the model's budget, a few hundred KiB to a few MiB, for as long as the session has
/// adapters. Drafts of a model of their own come from that model, without adapters.
///
/// Errors: LAYERLINE_ERROR_INVALID_ARGUMENT: an adapter of another model, or a scale that is not a number;
/// LAYERLINE_ERROR_MEMORY_BUDGET; LAYERLINE_ERROR_OUT_OF_MEMORY; LAYERLINE_ERROR_BUSY while a pass runs or is submitted. The
/// session then has the adapters that it had. One thread at a time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_session_set_adapters(
    session: *mut layerline_session,
    adapters: *const *const layerline_adapter,
    scales: *const f32,
    count: usize,
    err: *mut *mut layerline_error,
) -> layerline_status {
    caller!().run(err, |c| {
        let (session, adapters) = (c.handle(session)?, c.array(adapters, count, "adapters")?);
        let scales = c.array(scales, count, "scales")?;
        let entered = |(i, &adapter): (usize, &*const layerline_adapter)| {
            c.handle(adapter).map_err(|_| Error::invalid(format!("adapter {i} is NULL or has failed")))
        };
        let entered = adapters.iter().enumerate().map(entered).collect::<Result<Vec<_>>>()?;
        let pairs: Vec<_> = entered.iter().map(|entered| &entered.adapter).zip(scales.iter().copied()).collect();
        session.write()?.set_adapters(&pairs)
    })
}
