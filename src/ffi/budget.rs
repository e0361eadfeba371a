//! One memory budget for several models.

use std::sync::Arc;

use super::boundary::{Handle, Poison, caller, owned};
use super::error::{layerline_error, layerline_status};
use super::options::{self, layerline_options};
use crate::weights::SharedBudget;

/// A memory budget that several models share. Each gets what it cannot do without, and the rest is divided in proportion
/// to what each would need to stream nothing. Shares are adapted when models and sessions are opened and freed; the sum of
/// what the models use never exceeds the total. Models keep the budget alive: the handle may be freed at any time.
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

/// Makes a budget of `bytes` that models can share. The caller owns it: `layerline_budget_free`. NULL when there is no memory.
/// Any thread.
#[unsafe(no_mangle)]
pub extern "C" fn layerline_budget_new(bytes: u64) -> *mut layerline_budget {
    caller!().or(std::ptr::null_mut(), |_| {
        let budget = SharedBudget::new(bytes);
        owned(layerline_budget { poison: Poison::default(), budget })
    })
}

/// Frees the handle; NULL is a no-op. Models opened with the budget go on sharing it. Any thread, once.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_budget_free(budget: *mut layerline_budget) {
    caller!().free(budget);
}

/// Changes the total, also while passes run. When it returns, the models use no more than that; this may take the time
/// of one page of a running pass.
///
/// Errors: LAYERLINE_ERROR_INVALID_ARGUMENT; LAYERLINE_ERROR_MEMORY_BUDGET when the open models need more: the message
/// gives both figures, and nothing has changed. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_budget_set_bytes(
    budget: *mut layerline_budget,
    bytes: u64,
    err: *mut *mut layerline_error,
) -> layerline_status {
    caller!().run(err, |c| c.handle(budget)?.budget.set_total(bytes))
}

/// Lets models that are opened with these options share `budget` with all others opened with it, in place of a memory
/// budget of their own. NULL: each has a budget of its own again. `layerline_model_set_memory_budget` is refused for models
/// on a shared budget.
///
/// Errors: LAYERLINE_ERROR_INVALID_ARGUMENT. One thread at a time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_options_set_shared_budget(
    options: *mut layerline_options,
    budget: *const layerline_budget,
) -> layerline_status {
    caller!().status(|c| {
        let shared = c.optional(budget)?.map(|budget| budget.budget.clone());
        options::change(c, options, &mut |options| options.shared_budget = shared.clone())
    })
}
