//! What sets the architectures apart. What a file may have or not have (biases, fused matrices, norms of queries and keys,
//! divisors of angles) is found by its tensors; what no tensor tells is here.

use super::NormKind;
use crate::kernel::rope::Pairing;
use crate::kernel::vector::Activation;

/// A kind of model that is built in.
#[derive(Clone, Copy, Debug)]
pub struct Architecture {
    /// As `general.architecture` says.
    pub name: &'static str,
    /// Models of it, for people.
    pub models: &'static str,
    /// How positions get in: which elements are turned, or a table of learned ones.
    pub(super) positions: Positions,
    pub(super) norm: NormKind,
    pub(super) norms: Norms,
    pub(super) query_key_norm: QueryKeyNorm,
    pub(super) activation: Activation,
    /// Whether a feed-forward block has a gate beside the way up.
    pub(super) gated: bool,
    pub(super) windows: Option<Windows>,
    /// Of so many layers the last is not rotated.
    pub(super) rotation_skips: Option<usize>,
    pub(super) embedding_scale: EmbeddingScale,
    pub(super) logit_scale: LogitScale,
    /// Caps of attention scores and of logits where the file has no key for them.
    pub(super) softcaps: [Option<f32>; 2],
    /// With so many layers heads are scaled by 1/√(width/heads) in place of 1/√(their length).
    pub(super) scaled_by_width: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Positions {
    Rotary(Pairing),
    Learned,
}

/// The names of a layer's norms. Of several the first that the file has is taken; an empty list means none. A
/// feed-forward block that has the attention's norm stands beside it, not after it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Norms {
    pub attention: &'static [&'static str],
    pub after_attention: &'static [&'static str],
    pub feed_forward: &'static [&'static str],
    pub after_feed_forward: &'static [&'static str],
}

/// The norms of queries and keys.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum QueryKeyNorm {
    None,
    /// Of each head, all with the same weights.
    Heads,
    /// Of each head with weights of its own, in files that have them.
    EachHead,
    /// Of all heads together.
    Whole,
}

/// Of so many layers the last sees everything, the others a window.
#[derive(Clone, Copy, Debug)]
pub(super) struct Windows {
    pub pattern: usize,
    pub rotation: WindowRotation,
}

/// How the layers with windows are rotated.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum WindowRotation {
    Same,
    /// With this base unless the file has another, unscaled.
    Base(f64),
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum EmbeddingScale {
    /// As the key `embedding_scale` says, if there is one.
    Key,
    /// √width.
    RootOfWidth,
}

/// What the key `logit_scale` means.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum LogitScale {
    None,
    Divisor,
}

const PRE_NORMS: Norms =
    Norms { attention: &["attn_norm"], after_attention: &[], feed_forward: &["ffn_norm"], after_feed_forward: &[] };
const POST_NORMS: Norms = Norms {
    attention: &[],
    after_attention: &["post_attention_norm"],
    feed_forward: &[],
    after_feed_forward: &["post_ffw_norm"],
};
const SANDWICH: Norms = Norms { attention: &["attn_norm"], feed_forward: &["ffn_norm"], ..POST_NORMS };

const LLAMA: Architecture = Architecture {
    name: "llama",
    models: "Llama 1 to 3, Mistral, SmolLM 1 and 2, TinyLlama",
    positions: Positions::Rotary(Pairing::Norm),
    norm: NormKind::Rms,
    norms: PRE_NORMS,
    query_key_norm: QueryKeyNorm::None,
    activation: Activation::Silu,
    gated: true,
    windows: None,
    rotation_skips: None,
    embedding_scale: EmbeddingScale::Key,
    logit_scale: LogitScale::None,
    softcaps: [None, None],
    scaled_by_width: None,
};

/// As LLAMA, with the halves of a head as pairs.
const NEOX: Architecture = Architecture { positions: Positions::Rotary(Pairing::Neox), ..LLAMA };

const GEMMA2: Architecture = Architecture {
    name: "gemma2",
    models: "Gemma 2",
    norms: SANDWICH,
    activation: Activation::GeluTanh,
    embedding_scale: EmbeddingScale::RootOfWidth,
    windows: Some(Windows { pattern: 2, rotation: WindowRotation::Same }),
    softcaps: [Some(50.0), Some(30.0)],
    scaled_by_width: Some(46),
    ..NEOX
};

/// All that is built in, in the order of the README's table.
pub const ARCHITECTURES: &[Architecture] = &[
    LLAMA,
    Architecture { name: "qwen2", models: "Qwen 2 and 2.5", ..NEOX },
    Architecture { name: "qwen3", models: "Qwen 3", query_key_norm: QueryKeyNorm::Heads, ..NEOX },
    GEMMA2,
    Architecture {
        name: "gemma3",
        models: "Gemma 3",
        query_key_norm: QueryKeyNorm::Heads,
        windows: Some(Windows { pattern: 6, rotation: WindowRotation::Base(10_000.0) }),
        softcaps: [None, None],
        scaled_by_width: Some(62),
        ..GEMMA2
    },
    Architecture { name: "phi3", models: "Phi 3 and 4", ..NEOX },
    Architecture { name: "granite", models: "Granite 3 and 4, dense", logit_scale: LogitScale::Divisor, ..LLAMA },
    Architecture {
        name: "olmo2",
        models: "OLMo 2",
        norms: POST_NORMS,
        query_key_norm: QueryKeyNorm::Whole,
        ..NEOX
    },
];
