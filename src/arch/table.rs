//! What sets the architectures apart. What a file may have or not have (biases, fused matrices, norms of queries and keys,
//! divisors of angles) is found by its tensors; what no tensor tells is here.

use super::{Gating, NormKind};
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
    /// Whether a token sees those before it alone, unless the file says otherwise.
    pub(super) causal: bool,
    /// Whether passes can leave logits.
    pub(super) head: bool,
    pub(super) norm: NormKind,
    pub(super) norms: Norms,
    pub(super) query_key_norm: QueryKeyNorm,
    /// Whether keys and values are compressed.
    pub(super) latent: bool,
    pub(super) activation: Activation,
    /// Whether a feed-forward block has a gate beside the way up.
    pub(super) gated: bool,
    /// Whether its layers may have experts, and how they are chosen.
    pub(super) experts: Option<RouterDefaults>,
    pub(super) windows: Option<Windows>,
    /// Of so many layers the last is not rotated.
    pub(super) rotation_skips: Option<usize>,
    pub(super) embedding_scale: EmbeddingScale,
    pub(super) logit_scale: LogitScale,
    /// Caps of attention scores and of logits where the file has no key for them.
    pub(super) softcaps: [Option<f32>; 2],
    /// Whether `rope.scaling.finetuned` false means that nothing is rotated.
    pub(super) unrotated_by_key: bool,
    /// Whether a file with `rope.dimension_sections` rotates halves as pairs, whatever `positions` says.
    pub(super) sections_pair_halves: bool,
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
    /// Of what the residual stream is after the attention, and after the feed-forward block.
    pub sums: [&'static [&'static str]; 2],
    /// Of the embeddings, before the first layer.
    pub embedding: Option<&'static str>,
    /// After the last layer.
    pub output: Option<&'static str>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct RouterDefaults {
    pub gating: Gating,
    pub renormalised: bool,
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
    /// How long they are where no key tells, 0: there are none. `None`: a key must tell.
    pub length: Option<usize>,
    pub rotation: WindowRotation,
}

/// How the layers with windows are rotated.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum WindowRotation {
    Same,
    /// They alone are.
    Alone,
    /// As the others, without their scaling.
    Unscaled,
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
    Factor,
}

const PRE_NORMS: Norms = Norms {
    attention: &["attn_norm"],
    after_attention: &[],
    feed_forward: &["ffn_norm"],
    after_feed_forward: &[],
    sums: [&[], &[]],
    embedding: None,
    output: Some("output_norm"),
};
const POST_NORMS: Norms = Norms {
    attention: &[],
    after_attention: &["post_attention_norm"],
    feed_forward: &[],
    after_feed_forward: &["post_ffw_norm"],
    ..PRE_NORMS
};
const SUM_NORMS: Norms = Norms {
    attention: &[],
    feed_forward: &[],
    sums: [&["attn_output_norm"], &["layer_output_norm"]],
    embedding: Some("token_embd_norm"),
    output: None,
    ..PRE_NORMS
};
const SANDWICH: Norms = Norms { attention: &["attn_norm"], feed_forward: &["ffn_norm"], ..POST_NORMS };

/// Both blocks read the same normed rows.
const SHARED_NORM: Norms = Norms { feed_forward: &["attn_norm"], ..PRE_NORMS };

const SOFTMAX: Option<RouterDefaults> = Some(RouterDefaults { gating: Gating::Softmax, renormalised: false });
const RENORMALISED: Option<RouterDefaults> = Some(RouterDefaults { gating: Gating::Softmax, renormalised: true });

const LLAMA: Architecture = Architecture {
    name: "llama",
    models: "Llama 1 to 3, Mistral, Mixtral, SmolLM 1 and 2, TinyLlama",
    positions: Positions::Rotary(Pairing::Norm),
    causal: true,
    head: true,
    norm: NormKind::Rms,
    norms: PRE_NORMS,
    query_key_norm: QueryKeyNorm::None,
    latent: false,
    activation: Activation::Silu,
    gated: true,
    experts: RENORMALISED,
    windows: None,
    rotation_skips: None,
    embedding_scale: EmbeddingScale::Key,
    logit_scale: LogitScale::None,
    softcaps: [None, None],
    unrotated_by_key: false,
    sections_pair_halves: false,
    scaled_by_width: None,
};

/// As LLAMA without experts.
const DENSE: Architecture = Architecture { experts: None, ..LLAMA };

/// As DENSE, with the halves of a head as pairs.
const NEOX: Architecture = Architecture { positions: Positions::Rotary(Pairing::Neox), ..DENSE };

/// As NEOX, with layer norms and blocks without a gate.
const PLAIN: Architecture =
    Architecture { norm: NormKind::Layer, activation: Activation::GeluTanh, gated: false, ..NEOX };

/// An encoder: all tokens see each other, and what comes out are embeddings.
const BERT: Architecture = Architecture {
    name: "bert",
    models: "BERT and its like, MiniLM, BGE, E5 (embeddings)",
    positions: Positions::Learned,
    causal: false,
    head: false,
    norms: SUM_NORMS,
    activation: Activation::Gelu,
    ..PLAIN
};

const GEMMA: Architecture = Architecture {
    name: "gemma",
    models: "Gemma 1",
    activation: Activation::GeluTanh,
    embedding_scale: EmbeddingScale::RootOfWidth,
    ..NEOX
};

const COMMAND_R: Architecture = Architecture {
    name: "command-r",
    models: "Command R and R+",
    norm: NormKind::Layer,
    norms: SHARED_NORM,
    query_key_norm: QueryKeyNorm::EachHead,
    logit_scale: LogitScale::Factor,
    ..DENSE
};

const GRANITE: Architecture = Architecture {
    name: "granite",
    models: "Granite 3, dense",
    logit_scale: LogitScale::Divisor,
    unrotated_by_key: true,
    ..DENSE
};

/// All that is built in, in the order of the README's table.
pub const ARCHITECTURES: &[Architecture] = &[
    LLAMA,
    Architecture { name: "qwen2", models: "Qwen 2 and 2.5", ..NEOX },
    Architecture { name: "qwen2moe", models: "Qwen 1.5 and 2 with experts", experts: SOFTMAX, ..NEOX },
    Architecture { name: "qwen3", models: "Qwen 3", query_key_norm: QueryKeyNorm::Heads, ..NEOX },
    Architecture {
        name: "qwen3moe",
        models: "Qwen 3 with experts",
        query_key_norm: QueryKeyNorm::Heads,
        experts: RENORMALISED,
        ..NEOX
    },
    GEMMA,
    Architecture {
        name: "gemma2",
        models: "Gemma 2",
        norms: SANDWICH,
        windows: Some(Windows { pattern: 2, length: Some(4096), rotation: WindowRotation::Same }),
        softcaps: [Some(50.0), Some(30.0)],
        scaled_by_width: Some(46),
        ..GEMMA
    },
    Architecture {
        name: "gemma3",
        models: "Gemma 3",
        norms: SANDWICH,
        query_key_norm: QueryKeyNorm::Heads,
        windows: Some(Windows { pattern: 6, length: Some(0), rotation: WindowRotation::Base(10_000.0) }),
        scaled_by_width: Some(62),
        ..GEMMA
    },
    Architecture {
        name: "gpt-oss",
        models: "gpt-oss",
        norms: Norms { feed_forward: &["post_attention_norm"], ..PRE_NORMS },
        activation: Activation::ClampedSwiglu { slope: 1.702, limit: 7.0 },
        experts: Some(RouterDefaults { gating: Gating::SoftmaxOfChosen, renormalised: false }),
        windows: Some(Windows { pattern: 2, length: None, rotation: WindowRotation::Same }),
        ..NEOX
    },
    Architecture { name: "phi2", models: "Phi 1, 1.5 and 2", norms: SHARED_NORM, ..PLAIN },
    Architecture { name: "phi3", models: "Phi 3 and 4", ..NEOX },
    GRANITE,
    Architecture { name: "granitemoe", models: "Granite 3 with experts", experts: RENORMALISED, ..GRANITE },
    Architecture {
        name: "olmo2",
        models: "OLMo 2 and 3",
        norms: POST_NORMS,
        query_key_norm: QueryKeyNorm::Whole,
        windows: Some(Windows { pattern: 4, length: Some(0), rotation: WindowRotation::Unscaled }),
        ..NEOX
    },
    Architecture { name: "olmoe", models: "OLMoE", query_key_norm: QueryKeyNorm::Whole, experts: SOFTMAX, ..NEOX },
    Architecture {
        name: "deepseek2",
        models: "DeepSeek V2 Lite and others without groups of experts",
        latent: true,
        experts: SOFTMAX,
        ..DENSE
    },
    Architecture { name: "smollm3", models: "SmolLM 3", rotation_skips: Some(4), ..DENSE },
    Architecture { name: "exaone", models: "EXAONE 3", ..NEOX },
    Architecture { name: "glm4", models: "GLM 4 of 2025", norms: SANDWICH, sections_pair_halves: true, ..DENSE },
    Architecture { name: "chatglm", models: "ChatGLM 3, GLM 4 of 2024", ..DENSE },
    Architecture { name: "internlm2", models: "InternLM 2", ..DENSE },
    COMMAND_R,
    Architecture {
        name: "cohere2",
        models: "Command R7B and A",
        query_key_norm: QueryKeyNorm::None,
        windows: Some(Windows { pattern: 4, length: None, rotation: WindowRotation::Alone }),
        ..COMMAND_R
    },
    Architecture {
        name: "stablelm",
        models: "StableLM 2, StableLM 3B",
        norm: NormKind::Layer,
        norms: Norms { feed_forward: &["ffn_norm", "attn_norm"], ..PRE_NORMS },
        query_key_norm: QueryKeyNorm::EachHead,
        ..NEOX
    },
    Architecture { name: "starcoder2", models: "StarCoder 2", ..PLAIN },
    Architecture {
        name: "falcon",
        models: "Falcon 7B and 40B",
        norms: Norms { attention: &["attn_norm_2", "attn_norm"], ..SHARED_NORM },
        ..PLAIN
    },
    Architecture { name: "gptneox", models: "GPT-NeoX, Pythia", ..PLAIN },
    Architecture { name: "gpt2", models: "GPT-2", positions: Positions::Learned, ..PLAIN },
    BERT,
    Architecture {
        name: "nomic-bert",
        models: "Nomic Embed 1 and 1.5 (embeddings)",
        positions: Positions::Rotary(Pairing::Neox),
        activation: Activation::Silu,
        gated: true,
        ..BERT
    },
];
