//! A model: opened, described, its budget changed.

use std::ffi::{c_char, c_int};
use std::fs::File;
use std::io::ErrorKind;
use std::sync::Arc;

use super::boundary::{Handle, Poison, caller, owned, versioned};
use super::error::{layerline_error, layerline_status};
use super::options::{self, layerline_options};
use super::source::{self, layerline_source};
use crate::error::{Error, Result};
use crate::model::{Info, Model};

/// An open model. It is reference-counted inside: sessions keep what they need of it, so that it may be freed before
/// them. All its functions may be called from several threads at once.
pub struct layerline_model {
    poison: Poison,
    pub(super) model: Arc<Model>,
}

impl Handle for layerline_model {
    const NAME: &'static str = "model";
    fn poison(&self) -> &Poison {
        &self.poison
    }
}

impl layerline_model {
    fn boxed(model: Arc<Model>) -> Result<*mut layerline_model> {
        owned(layerline_model { poison: Poison::default(), model })
    }
}

/// Opens a model. Returns as soon as the file's directory is read and checked; weights arrive in the background.
///
/// `path`: NUL-terminated, bytes as the file system has them (UTF-8 on Windows). Of a model in several files, the first.
/// `options`: copied; NULL: the defaults.
/// `model`: set to a model that the caller owns: `layerline_model_free`.
///
/// Errors: LAYERLINE_ERROR_INVALID_ARGUMENT, LAYERLINE_ERROR_IO, LAYERLINE_ERROR_FORMAT, LAYERLINE_ERROR_UNSUPPORTED,
/// LAYERLINE_ERROR_MEMORY_BUDGET, LAYERLINE_ERROR_OUT_OF_MEMORY. Any thread; it waits for storage.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_model_open(
    path: *const c_char,
    options: *const layerline_options,
    model: *mut *mut layerline_model,
    err: *mut *mut layerline_error,
) -> layerline_status {
    caller!().run(err, |c| {
        let (path, options, model) = (c.path(path)?, options::copy(c, options)?, c.out(model, "model")?);
        model.set(layerline_model::boxed(Model::open(path, &options)?)?);
        Ok(())
    })
}

/// Opens a model from a file descriptor, for hosts that get files without paths or keep a model inside an archive.
///
/// `fd`: a regular file open for reading. It is duplicated: the caller keeps and closes its own. Its file position is
/// neither used nor changed.
/// `offset`, `length`: where in the file the model lies, in bytes; length 0: to the end of the file.
/// `options`, `model`: as for `layerline_model_open`.
///
/// Errors: those of `layerline_model_open`; LAYERLINE_ERROR_UNSUPPORTED where the system has no such descriptors.
/// Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_model_open_fd(
    fd: c_int,
    offset: u64,
    length: u64,
    options: *const layerline_options,
    model: *mut *mut layerline_model,
    err: *mut *mut layerline_error,
) -> layerline_status {
    caller!().run(err, |c| {
        let (options, model) = (options::copy(c, options)?, c.out(model, "model")?);
        model.set(layerline_model::boxed(Model::open_file(duplicate(fd)?, offset, length, &options)?)?);
        Ok(())
    })
}

/// Opens a model from storage of the host's own.
///
/// `source`: of a model in several files that of the first one, which has the others: `layerline_source_add_file`.
/// `options`, `model`: as for `layerline_model_open`.
///
/// Errors: those of `layerline_model_open`; LAYERLINE_ERROR_UNSUPPORTED also where the options ask for direct reads or a
/// mapping. Any thread; it waits for the source.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_model_open_source(
    source: *const layerline_source,
    options: *const layerline_options,
    model: *mut *mut layerline_model,
    err: *mut *mut layerline_error,
) -> layerline_status {
    caller!().run(err, |c| {
        let (sources, options, model) =
            (source::sources(c, source)?, options::copy(c, options)?, c.out(model, "model")?);
        model.set(layerline_model::boxed(Model::open_source(&sources, &options)?)?);
        Ok(())
    })
}

fn duplicate(fd: c_int) -> Result<File> {
    crate::sys::file::duplicate(fd).map_err(|cause| match cause.kind() {
        ErrorKind::InvalidInput => Error::invalid(format!("file descriptor {fd} cannot be duplicated: {cause}")),
        ErrorKind::Unsupported => {
            Error::unsupported("this system has no file descriptors to open a model from; open it by its path")
        }
        _ => Error::io(format!("file descriptor {fd} cannot be duplicated: {cause}")),
    })
}

/// Frees a model; NULL is a no-op. Sessions of it go on until they are freed themselves. Loads in flight are abandoned.
/// Any thread, once, with no call on this handle running.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_model_free(model: *mut layerline_model) {
    caller!().free(model);
}

/// Facts of a model.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct layerline_model_info {
    /// Set by the caller to sizeof(layerline_model_info) before the call.
    pub struct_size: u32,
    /// Layers, counted from 0 wherever one is named.
    pub layer_count: u32,
    /// Numbers in the hidden state of a token.
    pub embedding_length: u32,
    /// Attention heads of a layer.
    pub head_count: u32,
    /// Heads of keys and values, which attention heads share.
    pub head_count_kv: u32,
    /// Tokens of the vocabulary, which are numbered from 0.
    pub vocab_size: u32,
    /// Tokens of context the model was trained for.
    pub context_length: u32,
    /// 0: the model has no experts.
    pub expert_count: u32,
    /// Experts that a token is routed to.
    pub expert_used_count: u32,
    /// The token that begins a text; -1: none.
    pub bos_token: i32,
    /// The token that ends a text; -1: none.
    pub eos_token: i32,
    /// The model has an output head, so that passes can leave logits. Encoders have none.
    pub has_head: bool,
    /// A token sees only those before it. False in encoders, where all tokens of a pass see each other.
    pub causal: bool,
    /// `layerline_model_format_chat` and the like have a template.
    pub has_chat_template: bool,
    /// Layers of the model keep one state in place of keys and values for each token. Truncation cannot take such a state
    /// back; a checkpoint can.
    pub has_recurrent_memory: bool,
    /// Weights, each counted as one whatever its format.
    pub parameter_count: u64,
}

versioned!(layerline_model_info as "info", up to parameter_count: u64);

impl From<Info> for layerline_model_info {
    fn from(info: Info) -> layerline_model_info {
        layerline_model_info {
            struct_size: size_of::<layerline_model_info>() as u32,
            layer_count: info.layer_count,
            embedding_length: info.embedding_length,
            head_count: info.head_count,
            head_count_kv: info.head_count_kv,
            vocab_size: info.vocab_size,
            context_length: info.context_length,
            expert_count: info.expert_count,
            expert_used_count: info.expert_used_count,
            bos_token: info.bos_token.unwrap_or(-1),
            eos_token: info.eos_token.unwrap_or(-1),
            has_head: info.has_head,
            causal: info.causal,
            has_chat_template: info.has_chat_template,
            has_recurrent_memory: info.has_recurrent_memory,
            parameter_count: info.parameter_count,
        }
    }
}

/// Fills `info` with facts of the model; set `info->struct_size` before the call.
///
/// Errors: LAYERLINE_ERROR_INVALID_ARGUMENT. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_model_get_info(
    model: *const layerline_model,
    info: *mut layerline_model_info,
    err: *mut *mut layerline_error,
) -> layerline_status {
    caller!().run(err, |c| {
        let (model, info) = (c.handle(model)?, c.out_struct(info)?);
        info.set(model.model.info().into());
        Ok(())
    })
}

/// Gives one value of the file's metadata as text: any scalar or string.
///
/// `key`: NUL-terminated, such as "general.name".
/// `buf`, `cap`, `needed`: the text, as described for strings at the top.
///
/// Errors: LAYERLINE_ERROR_NOT_FOUND when the file has no such key, or when it is one of the vocabulary's arrays, which the
/// tokeniser has taken over; LAYERLINE_ERROR_UNSUPPORTED when its value is another array; LAYERLINE_ERROR_INVALID_ARGUMENT;
/// LAYERLINE_ERROR_BUFFER_TOO_SMALL. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_model_metadata(
    model: *const layerline_model,
    key: *const c_char,
    buf: *mut c_char,
    cap: usize,
    needed: *mut usize,
    err: *mut *mut layerline_error,
) -> layerline_status {
    caller!().run(err, |c| {
        let (model, key) = (c.handle(model)?, c.c_text(key, "key")?);
        let (buf, needed) = c.out_buffer((buf, cap, needed))?;
        let model = &model.model;
        let value = model.metadata(key).ok_or_else(|| match model.metadata_keys().any(|k| k == key) {
            true => Error::unsupported(format!(
                "{key} is an array in the model's metadata: only scalars and strings are given"
            )),
            false => Error::not_found(format!("the model's metadata has no {key}")),
        })?;
        needed.set(value.len());
        buf.set_text(value.as_bytes())
    })
}

/// Sets `count` to the number of metadata keys that `layerline_model_metadata_key_at` gives.
///
/// Errors: LAYERLINE_ERROR_INVALID_ARGUMENT. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_model_metadata_count(
    model: *const layerline_model,
    count: *mut usize,
    err: *mut *mut layerline_error,
) -> layerline_status {
    caller!().run(err, |c| {
        let (model, count) = (c.handle(model)?, c.out(count, "count")?);
        count.set(model.model.metadata_keys().len());
        Ok(())
    })
}

/// Gives one key of the file's metadata. The keys are in the file's order; those of the vocabulary's arrays, which the
/// tokeniser has taken over, are left out.
///
/// `index`: from 0, below the count that `layerline_model_metadata_count` gives.
/// `buf`, `cap`, `needed`: the key, as described for strings at the top.
///
/// Errors: LAYERLINE_ERROR_NOT_FOUND when `index` is not below the count; LAYERLINE_ERROR_INVALID_ARGUMENT;
/// LAYERLINE_ERROR_BUFFER_TOO_SMALL. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_model_metadata_key_at(
    model: *const layerline_model,
    index: usize,
    buf: *mut c_char,
    cap: usize,
    needed: *mut usize,
    err: *mut *mut layerline_error,
) -> layerline_status {
    caller!().run(err, |c| {
        let (model, (buf, needed)) = (c.handle(model)?, c.out_buffer((buf, cap, needed))?);
        let mut keys = model.model.metadata_keys();
        let count = keys.len();
        let refusal = || Error::not_found(format!("metadata key {index} of {count}"));
        let key = keys.nth(index).ok_or_else(refusal)?;
        needed.set(key.len());
        buf.set_text(key.as_bytes())
    })
}

/// Changes the memory budget, also while passes run, and returns at once. With a smaller one, memory goes back to the
/// system now, except for what a running pass or read uses: that follows within the time of one page, and `used_bytes` of
/// the stats tells it. With a larger one, more pages are kept from the next pass on. `bytes` 0: derived from the cgroup's
/// limit and the free memory.
///
/// Errors: LAYERLINE_ERROR_MEMORY_BUDGET when it is below what the open sessions need, and nothing changes;
/// LAYERLINE_ERROR_INVALID_ARGUMENT. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_model_set_memory_budget(
    model: *mut layerline_model,
    bytes: u64,
    err: *mut *mut layerline_error,
) -> layerline_status {
    caller!().run(err, |c| c.handle(model)?.model.set_memory_budget(bytes))
}

/// Writes how likely each expert of a model is to be used, by all passes so far and by the profile that the model was opened
/// with, to a file for `layerline_options_set_profile`. It takes a byte for each expert, and 48.
///
/// The file is written as `.layerline-*.tmp` beside its place, and gets its name when it is complete and on storage: what
/// had the name before is replaced whole, or stays. Only its owner can read it.
///
/// `path`: NUL-terminated, bytes as the file system has them (UTF-8 on Windows).
///
/// Errors: LAYERLINE_ERROR_UNSUPPORTED when the model has no experts; LAYERLINE_ERROR_IO, also where the name belongs to
/// something other than a regular file; LAYERLINE_ERROR_INVALID_ARGUMENT; LAYERLINE_ERROR_OUT_OF_MEMORY. Any thread; it waits
/// for storage.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_model_profile_save(
    model: *const layerline_model,
    path: *const c_char,
    err: *mut *mut layerline_error,
) -> layerline_status {
    caller!().run(err, |c| {
        let (model, path) = (c.handle(model)?, c.path(path)?);
        model.model.save_profile(path)
    })
}
