//! The architectures with recurrent layers: what sets them apart, beside what `table` has for all.

use super::NormKind;
use super::table::{
    Architecture, DENSE, GRANITE, NEOX, Norms, PRE_NORMS, Positions, QueryKeyNorm, RENORMALISED, SIGMOID,
    SIGMOID_RENORMALISED, WINDOWS, Windows,
};
use crate::operations::Activation;

/// The recurrent layers of an architecture.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct RecurrentLayers {
    pub which: Which,
    pub kind: RecurrentKind,
}

/// Which layers are recurrent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Which {
    /// As `attention.recurrent_layers` says, or all but every fourth or `full_attention_interval`-th.
    ByKey,
    /// Those without heads of keys and values.
    WithoutHeads,
    /// The same; layers have one block alone, and are a feed-forward block where this has a length.
    Alone,
    /// All, and there is no attention and no feed-forward block.
    All,
    /// All, beside their attention.
    Beside,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum RecurrentKind {
    ShortConvolution,
    /// `tiled`: the heads that share a key head lie apart.
    Delta {
        tiled: bool,
    },
    KimiDelta,
    StateSpace,
}

pub(super) const QWEN35: Architecture = Architecture {
    name: "qwen35",
    models: "Qwen 3.5 and 3.6, dense, text",
    norms: Norms { feed_forward: &["post_attention_norm"], ..PRE_NORMS },
    query_key_norm: QueryKeyNorm::Heads,
    gated_attention: true,
    sections_interleave: true,
    recurrent: Some(RecurrentLayers { which: Which::ByKey, kind: RecurrentKind::Delta { tiled: true } }),
    predictor: true,
    ..NEOX
};

pub(super) const LFM2: Architecture = Architecture {
    name: "lfm2",
    models: "LFM2",
    norms: Norms { output: Some("token_embd_norm"), ..PRE_NORMS },
    query_key_norm: QueryKeyNorm::Heads,
    // All layers with attention have a window, where a file has the key.
    windows: Some(Windows { pattern: usize::MAX, length: Some(0), ..WINDOWS }),
    recurrent: Some(RecurrentLayers { which: Which::WithoutHeads, kind: RecurrentKind::ShortConvolution }),
    ..NEOX
};

pub(super) const NEMOTRON_H: Architecture = Architecture {
    name: "nemotron_h",
    models: "Nemotron H, Nemotron Nano 2",
    positions: Positions::None,
    norm: NormKind::Rms,
    norm_by_key: true,
    norms: Norms { feed_forward: &["attn_norm"], ..PRE_NORMS },
    activation: Activation::SquaredRelu,
    gated: false,
    recurrent: Some(RecurrentLayers { which: Which::Alone, kind: RecurrentKind::StateSpace }),
    ..DENSE
};

pub(super) const QWEN35_MOE: Architecture =
    Architecture { name: "qwen35moe", models: "Qwen 3.5 and 3.6 with experts, text", experts: RENORMALISED, ..QWEN35 };

pub(super) const QWEN3_NEXT: Architecture = Architecture {
    name: "qwen3next",
    models: "Qwen 3 Next",
    experts: RENORMALISED,
    recurrent: Some(RecurrentLayers { which: Which::ByKey, kind: RecurrentKind::Delta { tiled: false } }),
    ..QWEN35
};

pub(super) const LFM2_MOE: Architecture =
    Architecture { name: "lfm2moe", models: "LFM2 with experts", experts: SIGMOID_RENORMALISED, windows: None, ..LFM2 };

pub(super) const MAMBA2: Architecture = Architecture {
    name: "mamba2",
    models: "Mamba 2, Codestral Mamba",
    positions: Positions::None,
    recurrent: Some(RecurrentLayers { which: Which::All, kind: RecurrentKind::StateSpace }),
    ..DENSE
};

pub(super) const GRANITE_HYBRID: Architecture = Architecture {
    name: "granitehybrid",
    models: "Granite 4",
    experts: RENORMALISED,
    experts_as_wide_as_blocks: true,
    recurrent: Some(RecurrentLayers { which: Which::WithoutHeads, kind: RecurrentKind::StateSpace }),
    ..GRANITE
};

pub(super) const NEMOTRON_H_MOE: Architecture =
    Architecture { name: "nemotron_h_moe", models: "Nemotron 3", experts: SIGMOID, ..NEMOTRON_H };

pub(super) const FALCON_H1: Architecture = Architecture {
    name: "falcon-h1",
    models: "Falcon H1",
    recurrent: Some(RecurrentLayers { which: Which::Beside, kind: RecurrentKind::StateSpace }),
    ..NEOX
};

pub(super) const KIMI_LINEAR: Architecture = Architecture {
    name: "kimi-linear",
    models: "Kimi Linear",
    positions: Positions::None,
    latent: true,
    experts: SIGMOID_RENORMALISED,
    recurrent: Some(RecurrentLayers { which: Which::WithoutHeads, kind: RecurrentKind::KimiDelta }),
    ..DENSE
};
