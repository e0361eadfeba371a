//! What sets the architectures apart. What a file may have or not have (biases, fused matrices, norms of queries and keys,
//! divisors of angles) is found by its tensors; what no tensor tells is here.

mod encoders;
mod gemma;

use super::hybrids::{self, RecurrentLayers};
use super::{Gating, NormKind};
use crate::operations::{Activation, Pairing};

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
    /// Whether embeddings may go through two matrices more.
    pub(super) dense: bool,
    /// Whether a classifier has a mean and a GELU, where others have the first hidden state and a tanh.
    pub(super) own_classifier: bool,
    /// Whether a file may have a few rows of the head apart, whose probabilities are a score.
    pub(super) labels: bool,
    /// Whether the first layer may be without the norm before attention.
    pub(super) first_unnormed: bool,
    pub(super) norm: NormKind,
    /// Whether a file whose epsilon is that of RMS norms has these, whatever `norm` says.
    pub(super) norm_by_key: bool,
    pub(super) norms: Norms,
    pub(super) query_key_norm: QueryKeyNorm,
    /// Whether values are normed by head, without weights.
    pub(super) value_norm: bool,
    pub(super) norm_after_rotation: bool,
    /// Whether each head's query is followed by as many numbers, whose sigmoid multiplies its result.
    pub(super) gated_attention: bool,
    pub(super) recurrent: Option<RecurrentLayers>,
    /// What q·k is multiplied by, where that is not 1/√(length of a head).
    pub(super) attention_scale: Option<f32>,
    /// Whether the last layers read the keys and values of earlier ones.
    pub(super) sharing: Sharing,
    /// Elements of the inputs that each layer has of its own, where no key tells. `None`: layers have none.
    pub(super) layer_inputs: Option<usize>,
    /// Whether there are several residual streams, a block of low rank beside attention, and sparse gates.
    pub(super) streams: bool,
    /// Whether keys and values are compressed.
    pub(super) latent: bool,
    pub(super) activation: Activation,
    /// Whether the key `hidden_activation` may name another.
    pub(super) activation_by_key: bool,
    /// Whether a feed-forward block has a gate beside the up projection.
    pub(super) gated: bool,
    /// Whether an up projection without a second half of rows means that a file has no gates.
    pub(super) gate_by_rows: bool,
    /// Whether its layers may have experts, and how they are chosen.
    pub(super) experts: Option<RouterDefaults>,
    /// Whether an expert is as wide as `feed_forward_length` says, whatever the key for experts does.
    pub(super) experts_as_wide_as_blocks: bool,
    /// Whether experts and the block beside them are averaged, not added.
    pub(super) experts_averaged: bool,
    /// Whether the weights of experts multiply their inputs, and the block beside them is as wide as one of them.
    pub(super) experts_weigh_inputs: bool,
    /// Whether the router reads what its layer begins with.
    pub(super) routed_early: bool,
    /// Whether experts stand beside the block that every layer has, with norms of their own.
    pub(super) experts_apart: bool,
    pub(super) windows: Option<Windows>,
    /// Whether the layers before the first with experts are rotated like those with windows.
    pub(super) leading_rotated: bool,
    /// Whether `rope.scaling.alpha` stretches the base.
    pub(super) stretched_base: bool,
    pub(super) temperature: TemperatureKeys,
    /// How the key `rope.scaling.yarn_log_multiplier` is understood, where it is.
    pub(super) yarn_multiplier: YarnMultiplier,
    /// Of so many layers the last is not rotated.
    pub(super) rotation_skips: Option<usize>,
    pub(super) embedding_scale: EmbeddingScale,
    pub(super) logit_scale: LogitScale,
    /// Caps of attention scores and of logits where the file has no key for them.
    pub(super) softcaps: [Option<f32>; 2],
    /// Whether `rope.scaling.finetuned` false means that nothing is rotated.
    pub(super) unrotated_by_key: bool,
    /// Whether `rope.dimension_sections` says how often pairs follow each coordinate of a picture in turn.
    pub(super) sections_interleave: bool,
    /// Whether a file with `rope.dimension_sections` rotates halves as pairs, whatever `positions` says.
    pub(super) sections_pair_halves: bool,
    /// With so many layers heads are scaled by 1/√(width/heads) in place of 1/√(their length).
    pub(super) scaled_by_width: Option<usize>,
    /// Whether the layer of a file that predicts further tokens can be opened: see [`super::Predictor`].
    pub(super) predictor: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Positions {
    Rotary(Pairing),
    Learned,
    /// Recurrent layers tell the order of tokens alone.
    None,
    /// By slopes: see [`super::Slopes`].
    Slopes,
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
    /// The same without weights, in rotated layers of models with other than 128 experts.
    HeadsUnweighted,
    /// As `Heads`, in files that have them.
    HeadsWhereGiven,
    /// Of each head with weights of its own, in files that have them.
    EachHead,
    /// Of all heads together.
    Whole,
    /// The same, with a bias, in files that have them.
    WholeWhereGiven,
}

/// Of so many layers the last, or the first, sees everything, the others a window.
#[derive(Clone, Copy, Debug)]
pub(super) struct Windows {
    pub pattern: usize,
    pub full_first: bool,
    /// Only a model of so many layers has windows.
    pub only_with_layers: Option<usize>,
    /// How long they are where no key tells, 0: there are none. `None`: a key must tell.
    pub length: Option<usize>,
    /// How long they are where there are some, whatever the key says.
    pub fixed: Option<usize>,
    /// Whether what a token sees begins at a multiple of the length.
    pub sections: bool,
    /// Whether a token sees those of half a window before and after it.
    pub both_ways: bool,
    pub rotation: WindowRotation,
}

/// Every second layer, of a length that a key tells, rotated as the others are.
pub(super) const WINDOWS: Windows = Windows {
    pattern: 2,
    full_first: false,
    only_with_layers: None,
    length: None,
    fixed: None,
    sections: false,
    both_ways: false,
    rotation: WindowRotation::Same,
};

/// Which keys say that queries grow with their position.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum TemperatureKeys {
    None,
    /// `attention.temperature_scale` and `_length`.
    Own,
    /// `attention.temperature_scale`; the length is the context before scaling.
    OriginalContext,
    /// None: those of layers that are not rotated, by this scale and length, position 0 counting as 1.
    Unrotated {
        scale: f32,
        length: usize,
    },
}

/// What the key m of YaRN's scaling means.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum YarnMultiplier {
    /// It is not known.
    None,
    /// Scores are multiplied by (1 + m·ln(factor))², cosines and sines by nothing.
    OfScores,
    /// Cosines and sines are divided by 1 + 0.1·m·ln(factor).
    OfAngles,
}

/// Which of the last layers read the keys and values of the last layer of their kind (with or without a window) that has
/// its own. The key `attention.shared_kv_layers` says how many.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Sharing {
    None,
    ByKey,
    /// Where there is no key, all but so many.
    ByKeyOrFrom(usize),
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

pub(super) const PRE_NORMS: Norms = Norms {
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
const SANDWICH: Norms = Norms { attention: &["attn_norm"], feed_forward: &["ffn_norm"], ..POST_NORMS };

/// Both blocks read the same normed rows.
const SHARED_NORM: Norms = Norms { feed_forward: &["attn_norm"], ..PRE_NORMS };

pub(super) const SIGMOID: Option<RouterDefaults> =
    Some(RouterDefaults { gating: Gating::Sigmoid, renormalised: false });
pub(super) const SIGMOID_RENORMALISED: Option<RouterDefaults> =
    Some(RouterDefaults { gating: Gating::Sigmoid, renormalised: true });
const SOFTMAX: Option<RouterDefaults> = Some(RouterDefaults { gating: Gating::Softmax, renormalised: false });
pub(super) const RENORMALISED: Option<RouterDefaults> =
    Some(RouterDefaults { gating: Gating::Softmax, renormalised: true });

const LLAMA: Architecture = Architecture {
    name: "llama",
    models: "Llama 1 to 3, Mistral, Mixtral, SmolLM 1 and 2, TinyLlama",
    positions: Positions::Rotary(Pairing::Norm),
    causal: true,
    head: true,
    dense: false,
    own_classifier: false,
    labels: false,
    first_unnormed: false,
    norm: NormKind::Rms,
    norm_by_key: false,
    norms: PRE_NORMS,
    query_key_norm: QueryKeyNorm::None,
    value_norm: false,
    norm_after_rotation: false,
    gated_attention: false,
    recurrent: None,
    attention_scale: None,
    sharing: Sharing::None,
    layer_inputs: None,
    streams: false,
    latent: false,
    activation: Activation::Silu,
    activation_by_key: false,
    gated: true,
    gate_by_rows: false,
    experts: RENORMALISED,
    experts_as_wide_as_blocks: false,
    experts_averaged: false,
    experts_weigh_inputs: false,
    routed_early: false,
    experts_apart: false,
    windows: None,
    leading_rotated: false,
    stretched_base: false,
    temperature: TemperatureKeys::None,
    yarn_multiplier: YarnMultiplier::None,
    rotation_skips: None,
    embedding_scale: EmbeddingScale::Key,
    logit_scale: LogitScale::None,
    softcaps: [None, None],
    unrotated_by_key: false,
    sections_interleave: false,
    sections_pair_halves: false,
    scaled_by_width: None,
    predictor: false,
};

/// As LLAMA without experts.
pub(super) const DENSE: Architecture = Architecture { experts: None, ..LLAMA };

/// As DENSE, with the halves of a head as pairs.
pub(super) const NEOX: Architecture = Architecture { positions: Positions::Rotary(Pairing::Neox), ..DENSE };

/// As NEOX, with layer norms and blocks without a gate.
const PLAIN: Architecture =
    Architecture { norm: NormKind::Layer, activation: Activation::GeluTanh, gated: false, ..NEOX };

/// Layers see the tokens since the last multiple of 8192, and every fourth, which is not rotated, all.
const LLAMA_4: Architecture = Architecture {
    name: "llama4",
    models: "Llama 4, text",
    query_key_norm: QueryKeyNorm::HeadsUnweighted,
    norm_after_rotation: true,
    experts: Some(RouterDefaults { gating: Gating::SigmoidOfChosen, renormalised: false }),
    experts_weigh_inputs: true,
    windows: Some(Windows {
        pattern: 4,
        length: Some(8192),
        fixed: Some(8192),
        sections: true,
        rotation: WindowRotation::Alone,
        ..WINDOWS
    }),
    temperature: TemperatureKeys::Unrotated { scale: 0.1, length: 8192 },
    ..LLAMA
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

pub(super) const GRANITE: Architecture = Architecture {
    name: "granite",
    models: "Granite 3, dense",
    logit_scale: LogitScale::Divisor,
    unrotated_by_key: true,
    ..DENSE
};

const QWEN_3: Architecture = Architecture {
    name: "qwen3",
    models: "Qwen 3, its embedders and rerankers",
    query_key_norm: QueryKeyNorm::Heads,
    labels: true,
    ..NEOX
};

const HUNYUAN: Architecture = Architecture {
    name: "hunyuan-dense",
    models: "Hunyuan, dense",
    query_key_norm: QueryKeyNorm::Heads,
    norm_after_rotation: true,
    stretched_base: true,
    ..NEOX
};

/// All that is built in, in the order of the README's table.
pub const ARCHITECTURES: &[Architecture] = &[
    LLAMA,
    LLAMA_4,
    Architecture { name: "qwen2", models: "Qwen 2 and 2.5", ..NEOX },
    Architecture { name: "qwen2moe", models: "Qwen 1.5 and 2 with experts", experts: SOFTMAX, ..NEOX },
    QWEN_3,
    Architecture {
        name: "qwen3moe",
        models: "Qwen 3 with experts",
        query_key_norm: QueryKeyNorm::Heads,
        experts: RENORMALISED,
        ..NEOX
    },
    gemma::GEMMA,
    gemma::GEMMA_2,
    gemma::GEMMA_3,
    gemma::GEMMA_3N,
    gemma::GEMMA_4,
    Architecture {
        name: "gpt-oss",
        models: "gpt-oss",
        norms: Norms { feed_forward: &["post_attention_norm"], ..PRE_NORMS },
        activation: Activation::ClampedSwiglu { slope: 1.702, limit: 7.0 },
        experts: Some(RouterDefaults { gating: Gating::SoftmaxOfChosen, renormalised: false }),
        windows: Some(Windows { pattern: 2, length: None, rotation: WindowRotation::Same, ..WINDOWS }),
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
        windows: Some(Windows { pattern: 4, length: Some(0), rotation: WindowRotation::Unscaled, ..WINDOWS }),
        ..NEOX
    },
    Architecture { name: "olmoe", models: "OLMoE", query_key_norm: QueryKeyNorm::Whole, experts: SOFTMAX, ..NEOX },
    Architecture {
        name: "deepseek2",
        models: "DeepSeek V2, V3, R1, Kimi K2, GLM 4.7 Flash, Mistral Large 3",
        latent: true,
        experts: SOFTMAX,
        temperature: TemperatureKeys::Own,
        yarn_multiplier: YarnMultiplier::OfScores,
        predictor: true,
        ..DENSE
    },
    Architecture {
        name: "smallthinker",
        models: "SmallThinker",
        activation: Activation::Relu,
        experts: RENORMALISED,
        routed_early: true,
        windows: Some(Windows {
            pattern: 4,
            full_first: true,
            length: Some(0),
            fixed: Some(4096),
            rotation: WindowRotation::Alone,
            ..WINDOWS
        }),
        ..NEOX
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
        windows: Some(Windows { pattern: 4, length: None, rotation: WindowRotation::Alone, ..WINDOWS }),
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
    Architecture {
        name: "seed_oss",
        models: "Seed OSS",
        norms: Norms { feed_forward: &["post_attention_norm"], ..PRE_NORMS },
        ..NEOX
    },
    Architecture { name: "ernie4_5", models: "ERNIE 4.5, dense", ..DENSE },
    Architecture { name: "ernie4_5-moe", models: "ERNIE 4.5 with experts", experts: RENORMALISED, ..DENSE },
    Architecture {
        name: "exaone4",
        models: "EXAONE 4",
        norms: POST_NORMS,
        query_key_norm: QueryKeyNorm::Heads,
        windows: Some(Windows {
            pattern: 4,
            only_with_layers: Some(64),
            length: Some(4096),
            rotation: WindowRotation::Alone,
            ..WINDOWS
        }),
        ..NEOX
    },
    HUNYUAN,
    Architecture {
        name: "hunyuan-moe",
        models: "Hunyuan A13B",
        experts: RENORMALISED,
        experts_as_wide_as_blocks: true,
        stretched_base: false,
        ..HUNYUAN
    },
    Architecture {
        name: "mistral3",
        models: "Ministral 3",
        experts: RENORMALISED,
        experts_as_wide_as_blocks: true,
        temperature: TemperatureKeys::OriginalContext,
        yarn_multiplier: YarnMultiplier::OfAngles,
        ..DENSE
    },
    Architecture { name: "qwen3vl", models: "Qwen 3 VL, text", sections_interleave: true, ..QWEN_3 },
    Architecture {
        name: "qwen3vlmoe",
        models: "Qwen 3 VL with experts, text",
        sections_interleave: true,
        query_key_norm: QueryKeyNorm::Heads,
        experts: RENORMALISED,
        ..NEOX
    },
    Architecture { name: "dots1", models: "dots.llm1", query_key_norm: QueryKeyNorm::Heads, experts: SOFTMAX, ..NEOX },
    Architecture {
        name: "bailingmoe2",
        models: "Ling 2, Ring 2",
        query_key_norm: QueryKeyNorm::Heads,
        experts: SIGMOID,
        ..NEOX
    },
    Architecture {
        name: "glm4moe",
        models: "GLM 4.5, 4.6 and 4.7",
        norms: Norms { feed_forward: &["post_attention_norm"], ..PRE_NORMS },
        query_key_norm: QueryKeyNorm::HeadsWhereGiven,
        experts: SIGMOID,
        predictor: true,
        ..NEOX
    },
    Architecture {
        name: "minimax-m2",
        models: "MiniMax M2",
        query_key_norm: QueryKeyNorm::Whole,
        experts: SIGMOID_RENORMALISED,
        experts_as_wide_as_blocks: true,
        ..NEOX
    },
    Architecture {
        name: "hy_v3",
        models: "Hunyuan 3",
        query_key_norm: QueryKeyNorm::Heads,
        experts: SIGMOID,
        predictor: true,
        ..NEOX
    },
    Architecture {
        name: "cohere2moe",
        models: "Command A with experts",
        norm_by_key: true,
        query_key_norm: QueryKeyNorm::None,
        windows: Some(Windows { pattern: 4, full_first: true, rotation: WindowRotation::Alone, ..WINDOWS }),
        leading_rotated: true,
        experts: SIGMOID,
        experts_averaged: true,
        predictor: true,
        ..COMMAND_R
    },
    hybrids::QWEN35,
    hybrids::QWEN35_MOE,
    hybrids::QWEN3_NEXT,
    hybrids::LFM2,
    hybrids::LFM2_MOE,
    hybrids::MAMBA2,
    hybrids::GRANITE_HYBRID,
    hybrids::NEMOTRON_H,
    hybrids::NEMOTRON_H_MOE,
    hybrids::FALCON_H1,
    hybrids::KIMI_LINEAR,
    Architecture { name: "starcoder2", models: "StarCoder 2", ..PLAIN },
    Architecture {
        name: "falcon",
        models: "Falcon 7B and 40B",
        norms: Norms { attention: &["attn_norm_2", "attn_norm"], ..SHARED_NORM },
        ..PLAIN
    },
    Architecture { name: "gptneox", models: "GPT-NeoX, Pythia", ..PLAIN },
    Architecture { name: "gpt2", models: "GPT-2", positions: Positions::Learned, ..PLAIN },
    encoders::BERT,
    encoders::NOMIC_BERT,
    encoders::JINA_BERT_V2,
    encoders::JINA_BERT_V3,
    encoders::MODERN_BERT,
    encoders::GEMMA_EMBEDDING,
];
