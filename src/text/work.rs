//! The steps that tokenising takes, counted in tests: unlike time they are the same on every run.

#[cfg(test)]
thread_local! {
    static STEPS: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

/// A step: a look at a character, at a place in a tree, at a pair, or at a table.
#[inline(always)]
pub(super) fn step() {
    #[cfg(test)]
    STEPS.with(|steps| steps.set(steps.get() + 1));
}

/// The steps that a task takes on this thread.
#[cfg(test)]
pub(super) fn steps(task: impl FnOnce()) -> u64 {
    let before = STEPS.get();
    task();
    STEPS.get() - before
}
