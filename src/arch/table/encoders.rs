//! Encoders: all tokens see each other, and what comes out are embeddings.

use super::gemma::GEMMA;
use super::{
    Activation, Architecture, NormKind, Norms, PLAIN, PRE_NORMS, Pairing, Positions, QueryKeyNorm, SANDWICH, WINDOWS,
    WindowRotation, Windows,
};

const SUM_NORMS: Norms = Norms {
    attention: &[],
    feed_forward: &[],
    sums: [&["attn_output_norm"], &["layer_output_norm"]],
    embedding: Some("token_embd_norm"),
    output: None,
    ..PRE_NORMS
};

pub const BERT: Architecture = Architecture {
    name: "bert",
    models: "BERT and its like, MiniLM, BGE, E5 (embeddings)",
    positions: Positions::Learned,
    causal: false,
    head: false,
    norms: SUM_NORMS,
    activation: Activation::Gelu,
    ..PLAIN
};

const ROTATED: Architecture = Architecture { positions: Positions::Rotary(Pairing::Neox), ..BERT };

pub const NOMIC_BERT: Architecture = Architecture {
    name: "nomic-bert",
    models: "Nomic Embed 1 and 1.5 (embeddings)",
    activation: Activation::Silu,
    gated: true,
    ..ROTATED
};

pub const JINA_BERT_V2: Architecture = Architecture {
    name: "jina-bert-v2",
    models: "Jina Embeddings 2 (embeddings)",
    positions: Positions::Slopes,
    query_key_norm: QueryKeyNorm::WholeWhereGiven,
    gated: true,
    gate_by_rows: true,
    ..BERT
};

pub const JINA_BERT_V3: Architecture =
    Architecture { name: "jina-bert-v3", models: "Jina Embeddings 3 (embeddings)", ..ROTATED };

const BOTH_WAYS: Windows =
    Windows { length: Some(0), both_ways: true, rotation: WindowRotation::Base(10_000.0), ..WINDOWS };

pub const MODERN_BERT: Architecture = Architecture {
    name: "modern-bert",
    models: "ModernBERT, Granite Embedding R2 (embeddings)",
    norm: NormKind::Layer,
    norms: Norms { embedding: Some("token_embd_norm"), ..PRE_NORMS },
    first_unnormed: true,
    own_classifier: true,
    activation_by_key: true,
    gated: true,
    windows: Some(Windows { pattern: 3, full_first: true, ..BOTH_WAYS }),
    ..ROTATED
};

pub const GEMMA_EMBEDDING: Architecture = Architecture {
    name: "gemma-embedding",
    models: "EmbeddingGemma (embeddings)",
    causal: false,
    head: false,
    dense: true,
    norms: SANDWICH,
    query_key_norm: QueryKeyNorm::Heads,
    windows: Some(Windows { pattern: 6, ..BOTH_WAYS }),
    ..GEMMA
};
