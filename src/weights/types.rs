//! What a host tells the engine and is told by it: how to read, events, states of layers, counters.

use crate::error::Status;

/// How weights are read from storage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Io {
    /// Direct where the file system takes it, else buffered; [`Stats::io`] says which.
    #[default]
    Auto,
    Direct,
    Buffered,
    Mmap,
    /// By a host's own source: what [`Stats::io`] says of one. Files cannot be read so.
    Source,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// One layer of a prefetch is ready, or failed.
    Layer,
    /// A ticket is finished.
    Done,
}

/// A completion, polled or waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    pub ticket: u64,
    pub kind: EventKind,
    /// `None`: success.
    pub failure: Option<Status>,
    /// For [`EventKind::Layer`].
    pub layer: u32,
    /// Read from storage for it.
    pub bytes: u64,
    /// Since the request.
    pub elapsed_ns: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LayerState {
    Absent,
    Loading,
    Ready,
    /// Ready, and stays.
    Pinned,
}

/// Counters since the model was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// The mode in use, never [`Io::Auto`].
    pub io: Io,
    pub budget_bytes: u64,
    pub used_bytes: u64,
    pub peak_bytes: u64,
    pub pinned_bytes: u64,
    pub passes: u64,
    pub tokens: u64,
    /// Accesses of a layer that found every page pinned and there.
    pub layers_resident: u64,
    /// Accesses of a layer with streamed pages, all there in time.
    pub layers_prefetched: u64,
    /// Accesses of a layer that had to wait.
    pub layers_stalled: u64,
    pub stall_ns: u64,
    pub compute_ns: u64,
    /// Summed over all reads; reads overlap.
    pub read_ns: u64,
    pub read_bytes: u64,
    pub prefetch_requests: u64,
    pub prefetch_failures: u64,
    /// Pages evicted to make room for others.
    pub evictions: u64,
    /// Experts that passes were routed to and found in memory; one that several tokens of a chunk use counts once.
    pub expert_hits: u64,
    /// Those of which pages had to be read.
    pub expert_misses: u64,
    /// Bytes of these pages.
    pub expert_missed_bytes: u64,
    /// Of the misses those that were foreseen: which were being read, or had been, when their layer chose them.
    pub expert_misses_foreseen: u64,
    /// Experts whose frames others took, or that a smaller budget evicted.
    pub expert_evictions: u64,
    /// Bytes of the experts that one token uses.
    pub expert_working_set_bytes: u64,
}
