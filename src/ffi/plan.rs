//! What a model needs, before anything is loaded.

use std::ffi::c_char;

use super::boundary::{caller, versioned};
use super::error::{layerline_error, layerline_status};
use super::options::{self, layerline_options};
use super::source::{self, layerline_source};
use crate::model::{Model, Plan};

/// What a model needs at given options. All sizes in bytes.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct layerline_plan {
    /// Set by the caller to sizeof(layerline_plan) before the call.
    pub struct_size: u32,
    /// Layers of the model.
    pub layer_count: u32,
    /// The file, or all files of a model in several.
    pub file_bytes: u64,
    /// All weights, as they are in the file.
    pub weight_bytes: u64,
    /// The least budget that works.
    pub floor_bytes: u64,
    /// The budget at which nothing is streamed.
    pub full_bytes: u64,
    /// Part of the floor and of full: what one session takes, its KV cache and room for the results of a pass.
    pub kv_bytes: u64,
    /// Part of both: the activations of a running pass, and the stacks of threads.
    pub scratch_bytes: u64,
    /// Part of both: vocabulary, metadata, and small tensors that always stay.
    pub tables_bytes: u64,
    /// Weights that stay, at these options: the memory they take, in whole pages of the system.
    pub pinned_bytes: u64,
    /// Weights read from storage in each forward pass, at these options; experts as if the same ones always stayed.
    pub streamed_bytes: u64,
    /// Tensors of parts that a pass over text does not run, such as vision and audio towers: they are never read.
    pub unread_tensors: u64,
    /// Part of the weights: what those tensors take in the file.
    pub unread_bytes: u64,
    /// Weights of the experts that one token uses, which are part of streamed_bytes as far as they do not stay.
    pub expert_working_set_bytes: u64,
}

versioned!(layerline_plan as "plan", up to unread_bytes: u64);

impl From<Plan> for layerline_plan {
    fn from(plan: Plan) -> layerline_plan {
        layerline_plan {
            struct_size: size_of::<layerline_plan>() as u32,
            layer_count: plan.layer_count,
            file_bytes: plan.file_bytes,
            weight_bytes: plan.weight_bytes,
            floor_bytes: plan.floor_bytes,
            full_bytes: plan.full_bytes,
            kv_bytes: plan.kv_bytes,
            scratch_bytes: plan.scratch_bytes,
            tables_bytes: plan.tables_bytes,
            pinned_bytes: plan.pinned_bytes,
            streamed_bytes: plan.streamed_bytes,
            unread_tensors: u64::from(plan.unread_tensors),
            unread_bytes: plan.unread_bytes,
            expert_working_set_bytes: plan.expert_working_set_bytes,
        }
    }
}

/// Tells what a model would need at these options. Reads the directory of the file and no weights; a budget below the
/// floor is not an error here.
///
/// `options`: as for `layerline_model_open`; NULL: the defaults.
/// `path`: NUL-terminated, bytes as the file system has them (UTF-8 on Windows).
/// `plan`: filled; set `plan->struct_size` before the call.
///
/// Errors: LAYERLINE_ERROR_INVALID_ARGUMENT, LAYERLINE_ERROR_IO, LAYERLINE_ERROR_FORMAT, LAYERLINE_ERROR_UNSUPPORTED,
/// LAYERLINE_ERROR_OUT_OF_MEMORY. Any thread; it waits for storage.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_options_plan(
    options: *const layerline_options,
    path: *const c_char,
    plan: *mut layerline_plan,
    err: *mut *mut layerline_error,
) -> layerline_status {
    caller!().run(err, |c| {
        let (options, path, plan) = (options::copy(c, options)?, c.path(path)?, c.out_struct(plan)?);
        plan.set(Model::plan(path, &options)?.into());
        Ok(())
    })
}

/// Tells what a model in storage of the host's own would need, as `layerline_options_plan` does for a file.
///
/// `source`: as for `layerline_model_open_source`.
///
/// Errors: those of `layerline_options_plan`. Any thread; it waits for the source.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_options_plan_source(
    options: *const layerline_options,
    source: *const layerline_source,
    plan: *mut layerline_plan,
    err: *mut *mut layerline_error,
) -> layerline_status {
    caller!().run(err, |c| {
        let (options, sources, plan) = (options::copy(c, options)?, source::sources(c, source)?, c.out_struct(plan)?);
        plan.set(Model::plan_source(&sources, &options)?.into());
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plan_tells_what_is_never_read() {
        let plan = layerline_plan::from(Plan { unread_tensors: 3, unread_bytes: 384, ..Plan::default() });
        assert_eq!((plan.unread_tensors, plan.unread_bytes), (3, 384));
    }
}
