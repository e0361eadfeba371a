//! An atomic whose stores other threads may see late. Shuttle by itself lets every thread see every store at once, so that
//! no test would miss a fence. Here a store that is not sequentially consistent waits in a buffer of its thread, as on x86,
//! until the thread's next fence, lock, store or read-modify-write; meanwhile the thread may read other atomics.

use std::cell::RefCell;
use std::sync::Arc;

use shuttle::sync::atomic;
pub use shuttle::sync::atomic::Ordering;

pub struct AtomicU64(Arc<atomic::AtomicU64>);

shuttle::thread_local! {
    /// The store of this thread that the others have not seen.
    static PENDING: RefCell<Option<(Arc<atomic::AtomicU64>, u64)>> = RefCell::new(None);
}

/// Lets the others see the store that waits.
pub fn write_out() {
    if let Some((to, value)) = PENDING.with(|pending| pending.borrow_mut().take()) {
        to.store(value, Ordering::SeqCst);
    }
}

pub fn fence(_: Ordering) {
    write_out();
}

impl AtomicU64 {
    pub fn new(value: u64) -> AtomicU64 {
        AtomicU64(Arc::new(atomic::AtomicU64::new(value)))
    }

    pub fn load(&self, _: Ordering) -> u64 {
        // A thread sees its own stores.
        let own = PENDING.with(|pending| match &*pending.borrow() {
            Some((to, value)) if Arc::ptr_eq(to, &self.0) => Some(*value),
            _ => None,
        });
        own.unwrap_or_else(|| self.0.load(Ordering::SeqCst))
    }

    pub fn store(&self, value: u64, order: Ordering) {
        write_out();
        match order {
            Ordering::SeqCst => self.0.store(value, order),
            _ => PENDING.with(|pending| *pending.borrow_mut() = Some((self.0.clone(), value))),
        }
    }

    pub fn fetch_add(&self, value: u64, _: Ordering) -> u64 {
        write_out();
        self.0.fetch_add(value, Ordering::SeqCst)
    }

    pub fn fetch_sub(&self, value: u64, _: Ordering) -> u64 {
        write_out();
        self.0.fetch_sub(value, Ordering::SeqCst)
    }

    pub fn fetch_and(&self, value: u64, _: Ordering) -> u64 {
        write_out();
        self.0.fetch_and(value, Ordering::SeqCst)
    }

    pub fn fetch_or(&self, value: u64, _: Ordering) -> u64 {
        write_out();
        self.0.fetch_or(value, Ordering::SeqCst)
    }

    pub fn fetch_update(&self, _: Ordering, _: Ordering, f: impl FnMut(u64) -> Option<u64>) -> Result<u64, u64> {
        write_out();
        self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, f)
    }

    pub fn compare_exchange_weak(&self, now: u64, new: u64, _: Ordering, _: Ordering) -> Result<u64, u64> {
        write_out();
        self.0.compare_exchange_weak(now, new, Ordering::SeqCst, Ordering::SeqCst)
    }
}
