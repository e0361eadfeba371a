//! The adapters of a session.

use std::sync::Arc;

use super::Session;
use crate::error::{Error, Result};
use crate::exec::adapter::AdapterSet;
use crate::model::Adapter;
use crate::sys::heap;

/// What a session has set, and what it took from the budget for it.
pub(super) struct Adapted {
    adapters: Vec<(Arc<Adapter>, f32)>,
    reserved: u64,
}

impl Adapted {
    pub fn reserved(&self) -> u64 {
        self.reserved
    }
}

impl Session {
    /// Adds what adapters make of their inputs to the products of all further passes: y = W·x + scale·(alpha / rank)·B·(A·x),
    /// one adapter after the other. None: the model alone, with the bits of a session that never had any.
    ///
    /// What the session has taken in stays as it was made; to have it made anew, truncate. The adapters are kept as long as
    /// the session has them, and take part in what copies of it compute; states do not have them.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT`: an adapter of another model, or a scale that is not finite; `MEMORY_BUDGET`, `OUT_OF_MEMORY`: no
    /// room to make the products in. The session has the adapters that it had then.
    pub fn set_adapters(&mut self, adapters: &[(&Arc<Adapter>, f32)]) -> Result<()> {
        for (i, (adapter, scale)) in adapters.iter().enumerate() {
            if !Arc::ptr_eq(adapter.model(), &self.model) {
                return Err(Error::invalid(format!("adapter {i} was opened for another model")));
            }
            if !scale.is_finite() {
                return Err(Error::invalid(format!("the scale of adapter {i} is {scale}")));
            }
        }
        let none = adapters.iter().all(|(_, scale)| *scale == 0.0);
        let used = adapters.iter().filter(|(_, scale)| *scale != 0.0);
        let weights = heap::collected(used.map(|(adapter, scale)| (adapter.weights().clone(), *scale)), "adapters")?;
        let kept = heap::collected(adapters.iter().map(|&(adapter, scale)| (adapter.clone(), scale)), "adapters")?;
        let reserved = if none { 0 } else { AdapterSet::memory_bytes(&weights) };
        let engine = self.model.engine();
        if reserved > 0 {
            engine.reserve(reserved).map_err(|e| e.context("the products of the session's adapters"))?;
        }
        let set = match none {
            true => None,
            false => Some(AdapterSet::new(&weights).inspect_err(|_| engine.release(reserved))?),
        };
        self.drop_adapters();
        self.member.prepare(|loan| loan.adapters = set);
        self.adapted = Some(Adapted { adapters: kept, reserved });
        Ok(())
    }

    /// The adapters of another session of the model.
    pub(super) fn copy_adapters(&mut self, from: &Session) -> Result<()> {
        let Some(adapted) = &from.adapted else { return Ok(()) };
        let adapters = heap::collected(adapted.adapters.iter().map(|(adapter, scale)| (adapter, *scale)), "adapters")?;
        self.set_adapters(&adapters)
    }

    pub(super) fn drop_adapters(&mut self) {
        self.member.prepare(|loan| loan.adapters = None);
        if let Some(adapted) = self.adapted.take() {
            self.model.engine().release(adapted.reserved);
        }
    }
}
