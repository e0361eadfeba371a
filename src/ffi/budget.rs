//! One memory budget for several models.

use std::sync::Arc;

use super::boundary::{self, Handle, Poison, enter};
use super::error::{layerline_error, layerline_status};
use super::options::{self, layerline_options};
use crate::weights::SharedBudget;

/// A memory budget that several models share. Each gets what it cannot do without, and the rest is divided in proportion
/// to what each would need to stream nothing. Shares follow as models and sessions come and go; the sum of what the
/// models use never exceeds the total. Models keep the budget alive: the handle may be freed at any time.
pub struct layerline_budget {
    poison: Poison,
    budget: Arc<SharedBudget>,
}

impl Handle for layerline_budget {
    const NAME: &'static str = "budget";
    fn poison(&self) -> &Poison {
        &self.poison
    }
}

/// Makes a budget of `bytes` to be shared. The caller owns it: `layerline_budget_free`. NULL when there is no memory.
/// Any thread.
#[unsafe(no_mangle)]
pub extern "C" fn layerline_budget_new(bytes: u64) -> *mut layerline_budget {
    boundary::or(std::ptr::null_mut(), || {
        let budget = SharedBudget::new(bytes);
        Ok(Box::into_raw(Box::new(layerline_budget { poison: Poison::default(), budget })))
    })
}

/// Frees the handle; NULL is a no-op. Models opened with the budget go on sharing it. Any thread, once.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_budget_free(budget: *mut layerline_budget) {
    // SAFETY: NULL, or a budget of ours that is freed here alone.
    unsafe { boundary::free(budget) };
}

/// Changes the total, while passes run. When it returns, the models use no more than that; this may take one page's
/// time of their running passes.
///
/// Errors: LAYERLINE_ERROR_INVALID_ARGUMENT; LAYERLINE_ERROR_MEMORY_BUDGET when the open models need more: the message
/// gives both figures, and nothing has changed. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_budget_set_bytes(
    budget: *const layerline_budget,
    bytes: u64,
    err: *mut *mut layerline_error,
) -> layerline_status {
    // SAFETY: `err` is NULL or the caller's to write.
    unsafe { boundary::with_error(err, || enter(budget)?.budget.set_total(bytes)) }
}

/// Models opened with these options live on `budget`, together with all others opened with it, in place of a memory
/// budget of their own; NULL: of their own again. `layerline_model_set_memory_budget` is refused for such models.
///
/// Errors: LAYERLINE_ERROR_INVALID_ARGUMENT. One thread at a time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_options_set_shared_budget(
    options: *mut layerline_options,
    budget: *const layerline_budget,
) -> layerline_status {
    boundary::status(|| {
        // SAFETY: NULL, or a budget of ours that is not freed during the call.
        let shared = if budget.is_null() { None } else { Some(unsafe { enter(budget) }?.budget.clone()) };
        // SAFETY: NULL, or options of ours.
        unsafe { options::change(options, |options| options.shared_budget = shared) }
    })
}
