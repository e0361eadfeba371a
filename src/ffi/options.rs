//! How a model is opened.

use std::ffi::c_char;
use std::path::Path;

use parking_lot::Mutex;

use super::boundary::{Caller, Handle, Poison, busy, caller, owned};
use super::error::{LAYERLINE_ERROR_INVALID_ARGUMENT, layerline_status};
use crate::error::Result;
use crate::model::{Io, KvType, Options};

/// Direct reads where the file system supports them, else buffered ones; `layerline_stats.io` says which.
pub const LAYERLINE_IO_AUTO: i32 = 0;
/// Direct reads, past the page cache.
pub const LAYERLINE_IO_DIRECT: i32 = 1;
/// Reads through the page cache.
pub const LAYERLINE_IO_BUFFERED: i32 = 2;
/// A mapping of the file. A file that is truncated while it is mapped can kill the process.
pub const LAYERLINE_IO_MMAP: i32 = 3;
/// By the callback of a source: `layerline_stats.io` says so. It cannot be set.
pub const LAYERLINE_IO_SOURCE: i32 = 4;

/// Keys and values are half floats.
pub const LAYERLINE_KV_F16: i32 = 0;
/// Keys and values are signed bytes with a scale for every 32 of them: 17/32 of the memory of half floats. Results differ
/// a little.
pub const LAYERLINE_KV_Q8_0: i32 = 1;

/// Settings for opening a model. The model takes a copy: options may be changed, used again and freed at any time. Where
/// a function takes options, NULL stands for the defaults.
pub struct layerline_options {
    poison: Poison,
    options: Mutex<Options>,
}

impl Handle for layerline_options {
    const NAME: &'static str = "options";
    fn poison(&self) -> &Poison {
        &self.poison
    }
}

/// A copy of the settings; the defaults for NULL.
pub(super) fn copy(c: &Caller, options: *const layerline_options) -> Result<Options> {
    Ok(c.optional(options)?.map(|options| options.options.lock().clone()).unwrap_or_default())
}

/// Changes one setting.
#[inline(never)] // Compiled once for all setters.
pub(super) fn change(c: &Caller, options: *const layerline_options, apply: &mut dyn FnMut(&mut Options)) -> Result<()> {
    let options = c.handle(options)?;
    apply(&mut *options.options.try_lock().ok_or_else(busy::<layerline_options>)?);
    Ok(())
}

/// Changes one setting, as a whole call.
fn set(c: &Caller, options: *const layerline_options, mut apply: impl FnMut(&mut Options)) -> layerline_status {
    c.status(|c| change(c, options, &mut apply))
}

pub(super) fn io_number(io: Io) -> i32 {
    match io {
        Io::Auto => LAYERLINE_IO_AUTO,
        Io::Direct => LAYERLINE_IO_DIRECT,
        Io::Buffered => LAYERLINE_IO_BUFFERED,
        Io::Mmap => LAYERLINE_IO_MMAP,
        Io::Source => LAYERLINE_IO_SOURCE,
    }
}

pub(super) fn kv_number(kv_type: KvType) -> i32 {
    match kv_type {
        KvType::F16 => LAYERLINE_KV_F16,
        KvType::Q8_0 => LAYERLINE_KV_Q8_0,
    }
}

/// Makes options with every setting at its default. The caller owns them: `layerline_options_free`. NULL when there is
/// no memory. Any thread.
#[unsafe(no_mangle)]
pub extern "C" fn layerline_options_new() -> *mut layerline_options {
    caller!()
        .or(std::ptr::null_mut(), |_| owned(layerline_options { poison: Poison::default(), options: Mutex::default() }))
}

/// Frees options; NULL is a no-op. Models that were opened with them are not affected. Any thread, once.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_options_free(options: *mut layerline_options) {
    caller!().free(options);
}

/// Sets the bytes that the library may allocate for a model and all its sessions: weights, KV caches, scratch, vocabulary,
/// metadata. 0, the default: derived from the cgroup's limit and the free memory. Opening a model refuses a budget that is
/// too small with LAYERLINE_ERROR_MEMORY_BUDGET; `layerline_options_plan` says beforehand what is needed.
///
/// Errors: LAYERLINE_ERROR_INVALID_ARGUMENT. One thread at a time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_options_set_memory_budget(
    options: *mut layerline_options,
    bytes: u64,
) -> layerline_status {
    set(&caller!(), options, |options| options.memory_budget = bytes)
}

/// Sets how many tokens a new session can hold where `layerline_session_new` is given 0. Its KV cache grows with them.
/// 0, the default: the lesser of 4096 and what the model was trained for.
///
/// Errors: LAYERLINE_ERROR_INVALID_ARGUMENT. One thread at a time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_options_set_context_length(
    options: *mut layerline_options,
    tokens: u32,
) -> layerline_status {
    set(&caller!(), options, |options| options.context_length = tokens)
}

/// Sets how many tokens of a prompt share one sweep over the weights: more make a long prompt faster and scratch memory
/// larger. 0, the default: 256. Results do not depend on it, and the budget never changes it. In an encoder all tokens of a
/// sequence share one sweep, whatever this says: there the context length determines the scratch memory.
///
/// Errors: LAYERLINE_ERROR_INVALID_ARGUMENT. One thread at a time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_options_set_chunk_length(
    options: *mut layerline_options,
    tokens: u32,
) -> layerline_status {
    set(&caller!(), options, |options| options.chunk_length = tokens)
}

/// Sets whether passes of several sessions of the model that wait for their turn share a sweep by themselves: threads that
/// generate at once then read the weights once for each step, not once each. Results do not depend on it. A prompt leaves
/// room for those who generate, and holds them up for no longer than a chunk. After a sweep the next one waits for those
/// who took part and usually come back at once, for a quarter of the time that a sweep takes and 100 ms at most. Passes of
/// `layerline_model_forward_batch` share sweeps in any case. Default: true.
///
/// Errors: LAYERLINE_ERROR_INVALID_ARGUMENT. One thread at a time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_options_set_share_sweeps(
    options: *mut layerline_options,
    enabled: bool,
) -> layerline_status {
    set(&caller!(), options, |options| options.share_sweeps = enabled)
}

/// Sets whether the layer of a file that predicts further tokens is opened in place of the model ("nextn",
/// "multi-token prediction"): a model that drafts for the other one, see `layerline_generation_set_draft_model`. Its budget
/// holds that layer, an embedding and a head. It has no tokeniser, and sessions of it run no passes of their own. Default:
/// false; a model without it neither reads that layer nor has memory for it. Opening and plans refuse a file that has none,
/// and an architecture whose layer is not built in, with LAYERLINE_ERROR_UNSUPPORTED.
///
/// Errors: LAYERLINE_ERROR_INVALID_ARGUMENT. One thread at a time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_options_set_predictor(
    options: *mut layerline_options,
    enabled: bool,
) -> layerline_status {
    set(&caller!(), options, |options| options.predictor = enabled)
}

/// Sets the number of compute threads. 0, the default: the CPUs that this process may use. Results do not depend on it.
///
/// Errors: LAYERLINE_ERROR_INVALID_ARGUMENT. One thread at a time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_options_set_threads(
    options: *mut layerline_options,
    threads: u32,
) -> layerline_status {
    set(&caller!(), options, |options| options.threads = threads)
}

/// Sets whether a background loader reads ahead of the pass. True is the default; false: every load is on demand, with
/// the same results.
///
/// Errors: LAYERLINE_ERROR_INVALID_ARGUMENT. One thread at a time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_options_set_prefetch(
    options: *mut layerline_options,
    enabled: bool,
) -> layerline_status {
    set(&caller!(), options, |options| options.prefetch = enabled)
}

/// Sets how many layers ahead of the pass the loader reads. 0, the default: as far as the budget allows.
///
/// Errors: LAYERLINE_ERROR_INVALID_ARGUMENT. One thread at a time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_options_set_prefetch_distance(
    options: *mut layerline_options,
    layers: u32,
) -> layerline_status {
    set(&caller!(), options, |options| options.prefetch_distance = layers)
}

/// Sets the most layers that are kept in memory, regardless of the budget. 0, the default: as many as the budget allows.
///
/// Errors: LAYERLINE_ERROR_INVALID_ARGUMENT. One thread at a time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_options_set_cache_layers(
    options: *mut layerline_options,
    layers: u32,
) -> layerline_status {
    set(&caller!(), options, |options| options.cache_layers = layers)
}

/// Sets how weights are read from storage: one of LAYERLINE_IO_. LAYERLINE_IO_AUTO is the default. For a model that is read
/// from a `layerline_source`, opening takes LAYERLINE_IO_AUTO and LAYERLINE_IO_BUFFERED, and refuses the others with
/// LAYERLINE_ERROR_UNSUPPORTED.
///
/// Errors: LAYERLINE_ERROR_INVALID_ARGUMENT, also for a number that is not one of them. One thread at a time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_options_set_io(options: *mut layerline_options, io: i32) -> layerline_status {
    let Some(io) = [Io::Auto, Io::Direct, Io::Buffered, Io::Mmap].into_iter().find(|&mode| io_number(mode) == io)
    else {
        return LAYERLINE_ERROR_INVALID_ARGUMENT;
    };
    set(&caller!(), options, |options| options.io = io)
}

/// Sets how sessions keep keys and values: one of LAYERLINE_KV_. LAYERLINE_KV_F16 is the default. The budget never changes
/// it. An encoder keeps half floats, whatever this says. Opening refuses LAYERLINE_KV_Q8_0 with
/// LAYERLINE_ERROR_UNSUPPORTED for a model whose heads are not a multiple of 32 wide.
///
/// Errors: LAYERLINE_ERROR_INVALID_ARGUMENT, also for a number that is not one of them. One thread at a time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_options_set_kv_type(
    options: *mut layerline_options,
    kv_type: i32,
) -> layerline_status {
    let Some(kv_type) = [KvType::F16, KvType::Q8_0].into_iter().find(|&kind| kv_number(kind) == kv_type) else {
        return LAYERLINE_ERROR_INVALID_ARGUMENT;
    };
    set(&caller!(), options, |options| options.kv_type = kv_type)
}

/// Sets a profile of use, which `layerline_model_profile_save` wrote: where not all experts of the model fit, the background
/// loader then reads the likeliest ones before passes use them, instead of passes filling memory with those that they use.
/// Results do not depend on it. Opening reads the file, and fails where it cannot be used: with LAYERLINE_ERROR_IO,
/// LAYERLINE_ERROR_FORMAT when it is not a profile, cut short or damaged, LAYERLINE_ERROR_UNSUPPORTED when another version of
/// the library wrote it in a form that this one does not know, LAYERLINE_ERROR_INVALID_ARGUMENT when it is of another model.
///
/// `path`: NUL-terminated, bytes as the file system has them (UTF-8 on Windows); copied. NULL, the default: none.
///
/// Errors: LAYERLINE_ERROR_INVALID_ARGUMENT. One thread at a time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_options_set_profile(
    options: *mut layerline_options,
    path: *const c_char,
) -> layerline_status {
    caller!().status(|c| {
        let path = if path.is_null() { None } else { Some(c.path(path)?) };
        change(c, options, &mut |options| options.profile = path.map(Path::to_path_buf))
    })
}

#[cfg(test)]
mod tests {
    use super::super::error::LAYERLINE_OK;
    use super::*;

    #[test]
    fn each_setter_sets_its_own_field() {
        let options = layerline_options_new();
        // SAFETY: options of ours, freed once at the end.
        unsafe {
            let statuses = [
                layerline_options_set_memory_budget(options, 1),
                layerline_options_set_context_length(options, 2),
                layerline_options_set_chunk_length(options, 3),
                layerline_options_set_threads(options, 4),
                layerline_options_set_prefetch(options, false),
                layerline_options_set_prefetch_distance(options, 5),
                layerline_options_set_cache_layers(options, 6),
                layerline_options_set_io(options, LAYERLINE_IO_MMAP),
                layerline_options_set_kv_type(options, LAYERLINE_KV_Q8_0),
                layerline_options_set_share_sweeps(options, false),
                layerline_options_set_predictor(options, true),
                layerline_options_set_profile(options, c"a profile".as_ptr()),
            ];
            assert_eq!(statuses, [LAYERLINE_OK; 12]);
            let set = copy(&caller!(), options).unwrap();
            assert_eq!((set.memory_budget, set.context_length, set.chunk_length, set.threads), (1, 2, 3, 4));
            assert_eq!((set.prefetch, set.prefetch_distance, set.cache_layers, set.io), (false, 5, 6, Io::Mmap));
            assert!(!set.share_sweeps && set.predictor);
            for bad in [-1, 4] {
                assert_eq!(layerline_options_set_io(options, bad), LAYERLINE_ERROR_INVALID_ARGUMENT);
                assert_eq!(layerline_options_set_kv_type(options, bad), LAYERLINE_ERROR_INVALID_ARGUMENT);
            }
            let set = copy(&caller!(), options).unwrap();
            assert_eq!((set.io, set.kv_type), (Io::Mmap, KvType::Q8_0));
            assert_eq!(set.profile.as_deref(), Some(std::path::Path::new("a profile")));
            assert_eq!(layerline_options_set_profile(options, std::ptr::null()), LAYERLINE_OK);
            assert_eq!(copy(&caller!(), options).unwrap().profile, None);
            layerline_options_free(options);
        }
    }

    #[test]
    fn options_that_are_null_are_the_defaults_and_cannot_be_changed() {
        let null = std::ptr::null_mut();
        // SAFETY: NULL is allowed.
        unsafe {
            assert_eq!(layerline_options_set_threads(null, 1), LAYERLINE_ERROR_INVALID_ARGUMENT);
            assert!(copy(&caller!(), null).unwrap().prefetch);
            layerline_options_free(null);
        }
    }
}
