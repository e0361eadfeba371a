//! The family of Llama: also Mistral, SmolLM, TinyLlama. Keys and tensors as the GGUF files of these models have them.

use super::build::Tensors;
use super::{Attention, Described, Description, FeedForward, Layer, Rope, Shape};
use crate::error::{Error, Result};
use crate::gguf::{Directory, Metadata};
use crate::kernel::attention::MAX_HEAD_DIM;
use crate::kernel::rope::{Pairing, Scaling};

pub fn describe(directory: &Directory, starts: Vec<u64>, alignment: u64) -> Result<Described> {
    let m = &directory.metadata;
    let count = |key: &str| -> Result<usize> {
        let key = format!("llama.{key}");
        match m.require_u32(&key)? {
            0 => Err(Error::format(format!("metadata key {key:?} is 0"))),
            n => Ok(n as usize),
        }
    };
    let count_or = |key: &str, default: usize| -> Result<usize> {
        if m.get(&format!("llama.{key}")).is_some() { count(key) } else { Ok(default) }
    };
    if let Some(experts @ 1..) = m.get_u32("llama.expert_count")? {
        return Err(Error::unsupported(format!("architecture \"llama\" with {experts} experts is not built in")));
    }
    let layer_count = count("block_count")?;
    let embedding = count("embedding_length")?;
    let heads = count("attention.head_count")?;
    let kv_heads = count_or("attention.head_count_kv", heads)?;
    if !heads.is_multiple_of(kv_heads) {
        return Err(Error::format(format!("{heads} query heads are no multiple of {kv_heads} key heads")));
    }
    let key_dim = count_or("attention.key_length", embedding / heads)?;
    let value_dim = count_or("attention.value_length", embedding / heads)?;
    for dim in [key_dim, value_dim] {
        if dim == 0 || dim > MAX_HEAD_DIM {
            return Err(Error::unsupported(format!("heads of {dim} elements; 1 to {MAX_HEAD_DIM} are built in")));
        }
    }
    let token_embedding = directory.tensor("token_embd.weight");
    let vocab = token_embedding.map_or(0, |t| t.dims[1]);
    let vocab = i32::try_from(vocab).map_err(|_| Error::format(format!("a vocabulary of {vocab} tokens")))? as usize;
    let shape = Shape {
        embedding,
        heads,
        kv_heads,
        key_dim,
        value_dim,
        feed_forward: count("feed_forward_length")?,
        vocab,
        context: count_or("context_length", 4096)? as u32,
        norm_eps: m.require_f32("llama.attention.layer_norm_rms_epsilon")?,
    };

    let mut t = Tensors::new(directory, starts);
    let tied = !t.has("output.weight");
    let table = if tied { None } else { Some(t.table("token_embd.weight", embedding, vocab)?) };
    let mut layers = Vec::new();
    let (q_rows, k_rows, v_rows) = (heads * key_dim, kv_heads * key_dim, kv_heads * value_dim);
    for i in 0..layer_count {
        let (layer, name) = (i as u32, |part: &str| format!("blk.{i}.{part}"));
        layers.push(Layer {
            attention: Attention {
                norm: t.vector(&name("attn_norm.weight"), embedding)?,
                query: t.linear(layer, &name("attn_q"), embedding, q_rows)?,
                key: t.linear(layer, &name("attn_k"), embedding, k_rows)?,
                value: t.linear(layer, &name("attn_v"), embedding, v_rows)?,
                output: t.linear(layer, &name("attn_output"), heads * value_dim, embedding)?,
                scale: 1.0 / (key_dim as f32).sqrt(),
            },
            feed_forward: FeedForward {
                norm: t.vector(&name("ffn_norm.weight"), embedding)?,
                gate: t.linear(layer, &name("ffn_gate"), embedding, shape.feed_forward)?,
                up: t.linear(layer, &name("ffn_up"), embedding, shape.feed_forward)?,
                down: t.linear(layer, &name("ffn_down"), shape.feed_forward, embedding)?,
            },
        });
    }
    let output_norm = t.vector("output_norm.weight", embedding)?;
    let head_name = if tied { "token_embd.weight" } else { "output.weight" };
    let head = t.matrix(layer_count as u32 - 1, head_name, embedding, vocab)?;
    let dims = count_or("rope.dimension_count", key_dim)?;
    if dims > key_dim {
        return Err(Error::format(format!("{dims} rotated elements of heads of {key_dim}")));
    }
    let rope = Rope {
        pairing: Pairing::Norm,
        dims,
        base: f64::from(m.get_f32("llama.rope.freq_base")?.unwrap_or(10_000.0)),
        scaling: scaling(m, "llama", shape.context)?,
        divisors: t.optional_vector("rope_freqs.weight", dims / 2)?,
    };
    let embedding = table.unwrap_or(head);
    t.finish(Description { shape, rope, embedding, layers, output_norm, head }, alignment)
}

/// How a file says that its angles are scaled; a factor without a type means linear.
fn scaling(m: &Metadata, family: &str, context: u32) -> Result<Scaling> {
    let key = |part: &str| format!("{family}.rope.scaling.{part}");
    let factor = match m.get_f32(&key("factor"))? {
        Some(factor) => Some(factor),
        // The name of older files.
        None => m.get_f32(&format!("{family}.rope.scale_linear"))?,
    };
    // A factor of 0 stands for none.
    let factor = factor.filter(|&f| f != 0.0).map(f64::from);
    match (m.get_str(&key("type"))?, factor) {
        (Some("none"), _) => Ok(Scaling::None),
        (None | Some("linear"), None) => Ok(Scaling::None),
        (None | Some("linear"), Some(factor)) => Ok(Scaling::Linear { factor }),
        (Some("yarn"), factor) => {
            let original = m.get_u32(&key("original_context_length"))?.unwrap_or(context);
            let mut scaling = Scaling::yarn(factor.unwrap_or(1.0), original);
            if let (Scaling::Yarn { attn_factor, .. }, Some(given)) = (&mut scaling, m.get_f32(&key("attn_factor"))?) {
                *attn_factor = f64::from(given);
            }
            Ok(scaling)
        }
        (Some(other), _) => Err(Error::unsupported(format!("RoPE scaling {other:?} is not built in"))),
    }
}
