//! The Gemma family.

use super::{
    Activation, Architecture, EmbeddingScale, NEOX, QueryKeyNorm, RENORMALISED, SANDWICH, Sharing, WINDOWS,
    WindowRotation, Windows,
};

pub const GEMMA: Architecture = Architecture {
    name: "gemma",
    models: "Gemma 1",
    activation: Activation::GeluTanh,
    embedding_scale: EmbeddingScale::RootOfWidth,
    ..NEOX
};

pub const GEMMA_2: Architecture = Architecture {
    name: "gemma2",
    models: "Gemma 2",
    norms: SANDWICH,
    windows: Some(Windows { pattern: 2, length: Some(4096), rotation: WindowRotation::Same, ..WINDOWS }),
    softcaps: [Some(50.0), Some(30.0)],
    scaled_by_width: Some(46),
    ..GEMMA
};

pub const GEMMA_3: Architecture = Architecture {
    name: "gemma3",
    models: "Gemma 3",
    norms: SANDWICH,
    query_key_norm: QueryKeyNorm::Heads,
    windows: Some(Windows { pattern: 6, length: Some(0), rotation: WindowRotation::Base(10_000.0), ..WINDOWS }),
    scaled_by_width: Some(62),
    ..GEMMA
};

/// As Gemma 3, with normed values that the last layers share, and inputs of each layer's own.
pub const GEMMA_3N: Architecture = Architecture {
    name: "gemma3n",
    models: "Gemma 3n, text",
    norms: SANDWICH,
    query_key_norm: QueryKeyNorm::Heads,
    value_norm: true,
    attention_scale: Some(1.0),
    sharing: Sharing::ByKeyOrFrom(20),
    layer_inputs: Some(256),
    streams: true,
    windows: Some(Windows { pattern: 5, rotation: WindowRotation::Base(10_000.0), ..WINDOWS }),
    softcaps: [None, Some(30.0)],
    ..GEMMA
};

pub const GEMMA_4: Architecture = Architecture {
    name: "gemma4",
    models: "Gemma 4, text",
    sharing: Sharing::ByKey,
    layer_inputs: Some(0),
    streams: false,
    windows: Some(Windows { pattern: 6, rotation: WindowRotation::Base(10_000.0), ..WINDOWS }),
    softcaps: [None, None],
    experts: RENORMALISED,
    experts_apart: true,
    ..GEMMA_3N
};
