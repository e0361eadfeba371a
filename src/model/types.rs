//! What a host sets and what it is told: options, plan, facts of a model, events, statistics.

use std::sync::Arc;

use crate::weights::SharedBudget;

/// How weights are read from storage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Io {
    /// Direct where the file system takes it, else buffered; [`Stats::io`] says which.
    #[default]
    Auto,
    Direct,
    Buffered,
    Mmap,
}

/// How a model is opened. Zero means "the default" everywhere.
#[derive(Clone, Debug)]
pub struct Options {
    /// Bytes the library may allocate for this model and its sessions; 0: from the cgroup limit and free memory.
    pub memory_budget: u64,
    /// Tokens a new session can hold; 0: 4096 or what the model was trained for, the lesser.
    pub context_length: u32,
    /// Tokens of a prompt that share one sweep over the weights; 0: 256. In an encoder all of a sequence do, whatever this
    /// says: there the context length sizes the scratch memory.
    pub chunk_length: u32,
    /// Threads that compute; 0: the CPUs this process may use.
    pub threads: u32,
    /// Whether a background loader reads ahead; without it every load is on demand, with the same results.
    pub prefetch: bool,
    /// How many layers ahead of the sweep the loader reads; 0: as far as the budget allows.
    pub prefetch_distance: u32,
    /// At most this many layers held in memory; 0: by budget alone.
    pub cache_layers: u32,
    pub io: Io,
    /// A budget shared with other models, in place of `memory_budget`.
    pub shared_budget: Option<Arc<SharedBudget>>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            memory_budget: 0,
            context_length: 0,
            chunk_length: 0,
            threads: 0,
            prefetch: true,
            prefetch_distance: 0,
            cache_layers: 0,
            io: Io::Auto,
            shared_budget: None,
        }
    }
}

/// What a model needs at given options. All sizes in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    pub layer_count: u32,
    pub file_bytes: u64,
    pub weight_bytes: u64,
    /// The least budget that works.
    pub floor_bytes: u64,
    /// The budget at which nothing is streamed.
    pub full_bytes: u64,
    /// Key-value cache of one session.
    pub kv_bytes: u64,
    /// Activations, logits and the compute threads' stacks.
    pub scratch_bytes: u64,
    /// Vocabulary, metadata, directory and the small tensors that always stay.
    pub tables_bytes: u64,
    /// Weights that stay, at these options.
    pub pinned_bytes: u64,
    /// Weights read from storage in each forward pass, at these options; experts as for one token.
    pub streamed_bytes: u64,
}

/// Facts of a model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Info {
    pub layer_count: u32,
    pub embedding_length: u32,
    pub head_count: u32,
    pub head_count_kv: u32,
    pub vocab_size: u32,
    pub context_length: u32,
    pub expert_count: u32,
    pub expert_used_count: u32,
    pub bos_token: Option<i32>,
    pub eos_token: Option<i32>,
    pub parameter_count: u64,
    /// It has an output head: passes can leave logits.
    pub has_head: bool,
    /// A token sees those before it only; in an encoder all see each other.
    pub causal: bool,
    pub has_chat_template: bool,
    /// It keeps state that is not per token, so that not every truncation is possible.
    pub has_recurrent_memory: bool,
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
    pub failure: Option<crate::Status>,
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
    /// Layer visits that found every page pinned and there.
    pub layers_resident: u64,
    /// Layer visits with streamed pages, all there in time.
    pub layers_prefetched: u64,
    /// Layer visits that had to wait.
    pub layers_stalled: u64,
    pub stall_ns: u64,
    pub compute_ns: u64,
    /// Summed over all reads; reads overlap.
    pub read_ns: u64,
    pub read_bytes: u64,
    pub prefetch_requests: u64,
    pub prefetch_failures: u64,
    /// Pages given up to make room for others.
    pub evictions: u64,
}

/// Which positions of a pass yield logits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Logits {
    Last,
    All,
    None,
}

/// Which embeddings a pass yields: hidden states after the final norm, not normalised to a length of 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Embeddings {
    None,
    /// One of each token.
    All,
    /// That of the pass's last token.
    Last,
    /// The mean over the pass's tokens: summed in f32 in their order, then divided.
    Mean,
    /// That of the pass's first token.
    First,
}

/// What a pass yields. Logits alone are an `Outputs` too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outputs {
    pub logits: Logits,
    pub embeddings: Embeddings,
}

impl From<Logits> for Outputs {
    fn from(logits: Logits) -> Outputs {
        Outputs { logits, embeddings: Embeddings::None }
    }
}

/// Embeddings without logits: the output head is not read.
impl From<Embeddings> for Outputs {
    fn from(embeddings: Embeddings) -> Outputs {
        Outputs { logits: Logits::None, embeddings }
    }
}
