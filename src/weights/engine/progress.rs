//! How far a call has come, for threads that do not run it.

use std::sync::atomic::{AtomicU64, Ordering};

/// The progress of a session's running call, or of its last one where none runs. Written by the thread that runs it,
/// read by any; what is read together may be a page apart.
#[derive(Default)]
pub struct Progress {
    /// Bytes of the sweeps that have ended.
    ended: AtomicU64,
    /// Bytes of the running sweep.
    running: AtomicU64,
    bytes: AtomicU64,
    tokens: AtomicU64,
    all_tokens: AtomicU64,
}

/// What [`Progress`] was at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProgressReport {
    /// Bytes of weights that the call has gone past, wherever they came from. Experts that were not chosen count with
    /// their layer.
    pub bytes_done: u64,
    /// Bytes that it goes past in all.
    pub bytes: u64,
    /// Tokens whose sweeps have ended.
    pub tokens_done: u64,
    pub tokens: u64,
}

impl Progress {
    /// A call over `tokens` tokens and `bytes` bytes begins.
    pub fn begin(&self, tokens: u64, bytes: u64) {
        // Relaxed: each is a figure of its own, and nothing else is published with it.
        for (place, value) in
            [(&self.ended, 0), (&self.running, 0), (&self.tokens, 0), (&self.bytes, bytes), (&self.all_tokens, tokens)]
        {
            place.store(value, Ordering::Relaxed);
        }
    }

    /// The running sweep has gone past `bytes` more.
    pub(super) fn passed(&self, bytes: u64) {
        self.running.fetch_add(bytes, Ordering::Relaxed);
    }

    /// A sweep over `tokens` tokens and `bytes` bytes has ended; `left` bytes of sweeps follow it, more than was said where
    /// the tokens shared it with those of other sessions.
    pub fn swept(&self, tokens: u64, bytes: u64, left: u64) {
        self.running.store(0, Ordering::Relaxed);
        let ended = self.ended.fetch_add(bytes, Ordering::Relaxed) + bytes;
        self.bytes.store(ended.saturating_add(left), Ordering::Relaxed);
        self.tokens.fetch_add(tokens, Ordering::Relaxed);
    }

    pub fn report(&self) -> ProgressReport {
        let bytes = self.bytes.load(Ordering::Relaxed);
        let done = self.ended.load(Ordering::Relaxed) + self.running.load(Ordering::Relaxed);
        ProgressReport {
            bytes_done: done.min(bytes),
            bytes,
            tokens_done: self.tokens.load(Ordering::Relaxed),
            tokens: self.all_tokens.load(Ordering::Relaxed),
        }
    }
}
