//! The description of a model, from what its architecture, its metadata and its tensors say.

use super::build::Tensors;
use super::metadata::Keys;
use super::table::{Architecture, EmbeddingScale, LogitScale, Positions, QueryKeyNorm, WindowRotation};
use super::{
    Attention, Described, Description, FeedForward, Layer, Linear, Mlp, Norm, NormKind, Rope, Shape, SpanNorm,
};
use crate::error::{Error, Result};
use crate::gguf::Directory;
use crate::kernel::attention::MAX_HEAD_DIM;
use crate::kernel::rope::{Pairing, Scaling};

pub fn describe(
    architecture: &Architecture,
    directory: &Directory,
    starts: Vec<u64>,
    alignment: u64,
) -> Result<Described> {
    let keys = Keys { metadata: &directory.metadata, family: architecture.name };
    let shape = shape(architecture, &keys, directory)?;
    let tensors = Tensors::new(directory, starts);
    let maker = Maker { architecture, keys, shape, window: 0, ropes: Vec::new(), tensors };
    maker.describe(alignment)
}

fn shape(architecture: &Architecture, keys: &Keys, directory: &Directory) -> Result<Shape> {
    if let experts @ 1.. = keys.number("expert_count")? {
        let name = architecture.name;
        return Err(Error::unsupported(format!("architecture {name:?} with {experts} experts is not built in")));
    }
    let embedding = keys.count("embedding_length")?;
    let heads = keys.count("attention.head_count")?;
    let kv_heads = keys.count_or("attention.head_count_kv", heads)?;
    if !heads.is_multiple_of(kv_heads) {
        return Err(Error::format(format!("{heads} query heads are no multiple of {kv_heads} key heads")));
    }
    let key_dim = keys.count_or("attention.key_length", embedding / heads)?;
    let value_dim = keys.count_or("attention.value_length", embedding / heads)?;
    for dim in [key_dim, value_dim] {
        if dim == 0 || dim > MAX_HEAD_DIM {
            return Err(Error::unsupported(format!("heads of {dim} elements; 1 to {MAX_HEAD_DIM} are built in")));
        }
    }
    let vocab = directory.tensor("token_embd.weight").map_or(0, |t| t.dims[1]);
    let vocab = i32::try_from(vocab).map_err(|_| Error::format(format!("a vocabulary of {vocab} tokens")))? as usize;
    Ok(Shape {
        embedding,
        heads,
        kv_heads,
        key_dim,
        value_dim,
        feed_forward: keys.count("feed_forward_length")?,
        vocab,
        context: keys.count_or("context_length", 4096)? as u32,
        norm: architecture.norm,
        norm_eps: keys.require_float(match architecture.norm {
            NormKind::Rms => "attention.layer_norm_rms_epsilon",
            NormKind::Layer => "attention.layer_norm_epsilon",
        })?,
    })
}

struct Maker<'a> {
    architecture: &'a Architecture,
    keys: Keys<'a>,
    shape: Shape,
    /// Positions that a layer with a window sees; 0: no layer has one.
    window: usize,
    ropes: Vec<Rope>,
    tensors: Tensors<'a>,
}

impl Maker<'_> {
    fn describe(mut self, alignment: u64) -> Result<Described> {
        let Shape { embedding, vocab, .. } = self.shape;
        let layer_count = self.keys.count("block_count")?;
        let tied = !self.tensors.has("output.weight");
        let table = if tied { None } else { Some(self.tensors.table("token_embd.weight", embedding, vocab)?) };
        let positions = match self.architecture.positions {
            Positions::Rotary(pairing) => {
                self.ropes(pairing)?;
                None
            }
            Positions::Learned => {
                let context = self.shape.context as usize;
                Some(self.tensors.table("position_embd.weight", embedding, context)?)
            }
        };
        let windows = self.architecture.windows;
        if windows.is_some() {
            self.window = self.keys.number("attention.sliding_window")?;
        }
        let pattern = windows.map_or(1, |w| w.pattern);
        let pattern = self.keys.count_or("attention.sliding_window_pattern", pattern)?;
        let mut layers = Vec::new();
        for i in 0..layer_count {
            layers.push(self.layer(i as u32, i % pattern < pattern - 1)?);
        }
        let output_norm = self.norm("output_norm", embedding)?;
        let last = layer_count as u32 - 1;
        let head = if tied { "token_embd" } else { "output" };
        let weight = self.tensors.matrix(last, &format!("{head}.weight"), embedding, vocab)?;
        let head = Linear { weight, bias: self.tensors.optional_vector("output.bias", vocab)? };
        let [_, logit_softcap] = self.softcaps()?;
        let description = Description {
            shape: self.shape,
            ropes: self.ropes,
            embedding: table.unwrap_or(weight),
            embedding_scale: match self.architecture.embedding_scale {
                EmbeddingScale::Key => self.keys.factor("embedding_scale")?.unwrap_or(1.0),
                EmbeddingScale::RootOfWidth => (embedding as f32).sqrt(),
            },
            positions,
            layers,
            residual_scale: self.keys.factor("residual_scale")?.unwrap_or(1.0),
            output_norm,
            head,
            logit_scale: match (self.architecture.logit_scale, self.keys.factor("logit_scale")?) {
                (LogitScale::None, _) | (_, None) => 1.0,
                (LogitScale::Divisor, Some(scale)) => 1.0 / scale,
            },
            logit_softcap,
        };
        self.tensors.finish(description, alignment)
    }

    fn softcaps(&self) -> Result<[Option<f32>; 2]> {
        let cap = |key, default: Option<f32>| match self.keys.float(key)?.or(default) {
            Some(cap) if cap < 0.0 => Err(Error::format(format!("{key} is {cap}: no cap of magnitudes"))),
            cap => Ok(cap.filter(|&c| c != 0.0)),
        };
        let [scores, logits] = self.architecture.softcaps;
        Ok([cap("attn_logit_softcapping", scores)?, cap("final_logit_softcapping", logits)?])
    }

    /// The rotations of the model: that of all layers, then that of layers with windows where they have their own.
    fn ropes(&mut self, pairing: Pairing) -> Result<()> {
        let Shape { key_dim, context, .. } = self.shape;
        let dims = self.keys.count_or("rope.dimension_count", key_dim)?;
        if dims > key_dim {
            return Err(Error::format(format!("{dims} rotated elements of heads of {key_dim}")));
        }
        let base = self.keys.float("rope.freq_base")?.map_or(10_000.0, f64::from);
        let divisors = self.tensors.optional_vector("rope_freqs.weight", dims / 2)?;
        let short = self.tensors.optional_vector("rope_factors_short.weight", dims / 2)?;
        let long = self.tensors.optional_vector("rope_factors_long.weight", dims / 2)?;
        let beyond = match long {
            Some(long) => {
                let original = self.keys.count_or("rope.scaling.original_context_length", context as usize)?;
                Some((original as u32, long))
            }
            None => None,
        };
        let scaling = self.keys.scaling(context)?;
        self.ropes.push(Rope { pairing, dims, base, scaling, divisors: divisors.or(short), beyond });
        if let Some(WindowRotation::Base(base)) = self.architecture.windows.map(|w| w.rotation) {
            let base = self.keys.float("rope.freq_base_swa")?.map_or(base, f64::from);
            self.ropes.push(Rope { pairing, dims, base, scaling: Scaling::None, divisors: None, beyond: None });
        }
        Ok(())
    }

    fn layer(&mut self, i: u32, windowed: bool) -> Result<Layer> {
        let norms = self.architecture.norms;
        let feed_forward_norm = self.first_of(i, norms.feed_forward);
        Ok(Layer {
            attention: self.attention(i, windowed)?,
            feed_forward: self.feed_forward(i, feed_forward_norm)?,
            parallel: feed_forward_norm.is_some_and(|name| norms.attention.contains(&name)),
        })
    }

    /// Of the names of a layer's tensors the first that the file has, else the last.
    fn first_of(&self, i: u32, names: &[&'static str]) -> Option<&'static str> {
        let found = names.iter().find(|name| self.tensors.has(&format!("blk.{i}.{name}.weight")));
        found.or(names.last()).copied()
    }

    fn layer_norm(&mut self, i: u32, name: Option<&str>) -> Result<Option<Norm>> {
        name.map(|name| self.norm(&format!("blk.{i}.{name}"), self.shape.embedding)).transpose()
    }

    fn norm(&mut self, name: &str, elements: usize) -> Result<Norm> {
        let weight = self.tensors.vector(&format!("{name}.weight"), elements)?;
        let bias = match self.shape.norm {
            NormKind::Rms => None,
            NormKind::Layer => self.tensors.optional_vector(&format!("{name}.bias"), elements)?,
        };
        Ok(Norm { weight, bias })
    }

    fn attention(&mut self, i: u32, windowed: bool) -> Result<Attention> {
        let Shape { embedding, heads, kv_heads, key_dim, value_dim, .. } = self.shape;
        let a = self.architecture;
        let name = |part: &str| format!("blk.{i}.{part}");
        let norm = self.layer_norm(i, self.first_of(i, a.norms.attention))?;
        let rows = [heads * key_dim, kv_heads * key_dim, kv_heads * value_dim];
        let [query, key, value] = if self.tensors.has(&name("attn_qkv.weight")) {
            self.tensors.fused(i, &name("attn_qkv"), embedding, rows)?
        } else {
            let [q, k, v] = ["attn_q", "attn_k", "attn_v"].map(name);
            let t = &mut self.tensors;
            [
                t.linear(i, &q, embedding, rows[0])?,
                t.linear(i, &k, embedding, rows[1])?,
                t.linear(i, &v, embedding, rows[2])?,
            ]
        };
        let query_norm = self.span_norm(&name("attn_q_norm"), heads)?;
        let key_norm = self.span_norm(&name("attn_k_norm"), kv_heads)?;
        let output = self.tensors.linear(i, &name("attn_output"), heads * value_dim, embedding)?;
        let layers = self.keys.count("block_count")?;
        let default_scale = match a.scaled_by_width {
            Some(count) if count == layers => 1.0 / (embedding as f32 / heads as f32).sqrt(),
            _ => 1.0 / (key_dim as f32).sqrt(),
        };
        let windowed = windowed && self.window > 0;
        let skipped = a.rotation_skips.is_some_and(|n| (i as usize + 1).is_multiple_of(n));
        let rope = match a.windows.map(|w| w.rotation) {
            _ if self.ropes.is_empty() || skipped => None,
            Some(WindowRotation::Base(_)) if windowed => Some(1),
            _ => Some(0),
        };
        Ok(Attention {
            norm,
            query,
            key,
            value,
            query_norm,
            key_norm,
            rope,
            scale: self.keys.factor("attention.scale")?.unwrap_or(default_scale),
            softcap: self.softcaps()?[0],
            sinks: self.tensors.optional_vector(&name("attn_sinks.weight"), heads)?,
            window: windowed.then_some(self.window),
            output,
            post_norm: self.layer_norm(i, self.first_of(i, a.norms.after_attention))?,
        })
    }

    fn span_norm(&mut self, name: &str, heads: usize) -> Result<Option<SpanNorm>> {
        let dim = self.shape.key_dim;
        let (span, dims): (usize, &[u64]) = match self.architecture.query_key_norm {
            QueryKeyNorm::None => return Ok(None),
            QueryKeyNorm::Heads => (dim, &[dim as u64]),
            QueryKeyNorm::Whole => (heads * dim, &[(heads * dim) as u64]),
            QueryKeyNorm::EachHead if !self.tensors.has(&format!("{name}.weight")) => return Ok(None),
            QueryKeyNorm::EachHead => (dim, &[dim as u64, heads as u64]),
        };
        let weight = self.tensors.vector_of(&format!("{name}.weight"), dims)?;
        Ok(Some(SpanNorm { norm: Norm { weight, bias: None }, span }))
    }

    fn feed_forward(&mut self, i: u32, norm: Option<&'static str>) -> Result<FeedForward> {
        let name = |part: &str| format!("blk.{i}.{part}");
        let norm = self.layer_norm(i, norm)?;
        let length = self.shape.feed_forward;
        let mlp = self.mlp(i, [&name("ffn_gate"), &name("ffn_up"), &name("ffn_down")], length)?;
        let post_norm = self.layer_norm(i, self.first_of(i, self.architecture.norms.after_feed_forward))?;
        Ok(FeedForward { norm, mlp, post_norm })
    }

    /// A block by the names of its matrices; without one for the gate, that is the first half of the way up.
    fn mlp(&mut self, i: u32, [gate, up, down]: [&str; 3], length: usize) -> Result<Mlp> {
        let width = self.shape.embedding;
        let t = &mut self.tensors;
        let (gate, up) = match self.architecture.gated {
            false => (None, t.linear(i, up, width, length)?),
            true if t.has(&format!("{gate}.weight")) => {
                (Some(t.linear(i, gate, width, length)?), t.linear(i, up, width, length)?)
            }
            true => {
                let [gate, up] = t.fused(i, up, width, [length; 2])?;
                (Some(gate), up)
            }
        };
        let down = t.linear(i, down, length, width)?;
        Ok(Mlp { gate, up, down, activation: self.architecture.activation })
    }
}
