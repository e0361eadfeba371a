//! What the budget is spent on.

/// The budget's book-keeping, in bytes.
pub struct Accounting {
    pub(super) budget: u64,
    /// Tables, scratch memory, threads: what does not change while the model is open.
    pub(super) fixed: u64,
    /// Sessions' memory.
    pub(super) sessions: u64,
    /// Kept free for one session of the default length, so that the plan does not change when it is opened.
    pub(super) session_reserve: u64,
    /// Pages that stay, in frames of their own.
    pub(super) own: u64,
    /// Frames of evicted pages that the system does not have back yet.
    pub(super) returning: u64,
    pub(super) peak: u64,
}

impl Accounting {
    pub fn new(budget: u64, fixed: u64, session_reserve: u64) -> Accounting {
        Accounting { budget, fixed, sessions: 0, session_reserve, own: 0, returning: 0, peak: fixed }
    }

    /// All but the ring.
    pub(super) fn beside_ring(&self) -> u64 {
        self.fixed + self.sessions + self.own + self.returning
    }

    /// What frames cannot have: `more` bytes for sessions included.
    pub(super) fn without_frames(&self, more: u64) -> u64 {
        self.fixed.saturating_add(self.sessions.saturating_add(more).max(self.session_reserve))
    }
}
