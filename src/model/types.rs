//! What a host sets and what it is told: options, plan, facts of a model, what a pass yields.

use std::path::PathBuf;
use std::sync::Arc;

use crate::weights::{Io, KeptExperts, SharedBudget};

pub use crate::exec::memory::KvType;

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
    /// Which experts stay in memory where not all fit.
    pub kept_experts: KeptExperts,
    /// Whether passes of several sessions that wait for their turn share a sweep, so that the weights are read once for all
    /// of them. Results are the same.
    pub share_sweeps: bool,
    /// What [`Model::save_profile`](super::Model::save_profile) wrote: the loader fills the cache of experts with the
    /// likeliest ones before passes use them. Plans do not read it.
    pub profile: Option<PathBuf>,
    pub io: Io,
    /// How sessions keep keys and values. The budget never changes it.
    pub kv_type: KvType,
    /// Opens the layer of the file that predicts further tokens ("nextn") in place of the model: one that drafts for the
    /// model. It reads, and accounts for, that layer, an embedding and a head alone, and has no tokeniser.
    pub predictor: bool,
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
            kept_experts: KeptExperts::Cached,
            share_sweeps: true,
            profile: None,
            io: Io::Auto,
            kv_type: KvType::F16,
            predictor: false,
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
    /// Weights read from storage in each forward pass, at these options; experts as for one token, if those in memory were
    /// the same ones for good: their cache is to read less.
    pub streamed_bytes: u64,
    /// Weights of the experts that one token is routed to.
    pub expert_working_set_bytes: u64,
    /// Tensors of the file that belong to parts a pass over text does not run (vision and audio towers, blocks that predict
    /// further tokens), and their bytes: they are never read.
    pub unread_tensors: u32,
    pub unread_bytes: u64,
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
