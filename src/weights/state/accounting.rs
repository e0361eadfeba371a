//! What the budget is spent on.

/// The budget's book-keeping, in bytes.
pub struct Accounting {
    pub budget: u64,
    /// Tables, scratch memory, threads: what does not change while the model is open.
    pub fixed: u64,
    /// Sessions' caches.
    pub sessions: u64,
    /// Kept free for one session of the default length, so that the plan does not change when it is opened.
    pub session_reserve: u64,
    /// Frames of their own.
    pub(super) own: u64,
    pub(super) peak: u64,
}

impl Accounting {
    pub fn new(budget: u64, fixed: u64, session_reserve: u64) -> Accounting {
        Accounting { budget, fixed, sessions: 0, session_reserve, own: 0, peak: fixed }
    }
}
