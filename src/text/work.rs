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

#[cfg(test)]
thread_local! {
    static SMALL: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// A length from which on a word is worked on in another way: `small` inside [`with_small_limits`].
#[inline(always)]
pub(super) fn limit(usual: usize, small: usize) -> usize {
    #[cfg(test)]
    return if SMALL.get() { small } else { usual };
    #[cfg(not(test))]
    {
        let _ = small;
        usual
    }
}

/// Runs a task in which short words count as long ones.
#[cfg(test)]
pub(super) fn with_small_limits<R>(task: impl FnOnce() -> R) -> R {
    SMALL.set(true);
    let result = task();
    SMALL.set(false);
    result
}
