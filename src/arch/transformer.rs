//! The description of a model, from what its architecture, its metadata and its tensors say.

use super::build::Tensors;
use super::metadata::Keys;
use super::table::{Architecture, EmbeddingScale, ExpertRule, LogitScale, Positions, QueryKeyNorm, WindowRotation};
use super::{
    Attention, Block, Choice, Described, Description, Experts, FeedForward, Gating, Latent, Layer, Linear, Mlp, Norm,
    NormKind, Projection, Rope, Shape, Shared, SpanNorm,
};
use crate::error::{Error, Result};
use crate::gguf::Directory;
use crate::kernel::attention::MAX_HEAD_DIM;
use crate::kernel::rope::{Pairing, Scaling};

const LOG_MULTIPLIER: &str = "rope.scaling.yarn_log_multiplier";

/// Bounds the tables of a hostile file; real models have a few hundred.
const MOST_EXPERTS: usize = 1024;

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
        let causal = self.keys.flag("attention.causal", self.architecture.causal)?;
        let tied = self.architecture.head && !self.tensors.has("output.weight");
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
        let token_type = self.tensors.optional_first_row("token_types.weight", embedding)?;
        let norms = self.architecture.norms;
        let embedding_norm = norms.embedding.map(|name| self.norm(name, embedding)).transpose()?;
        let mut pattern = 1;
        if let Some(windows) = self.architecture.windows {
            self.window = match windows.length {
                Some(length) if !self.keys.has("attention.sliding_window") => length,
                Some(_) => self.keys.number("attention.sliding_window")?,
                None => self.keys.count("attention.sliding_window")?,
            };
            pattern = self.keys.count_or("attention.sliding_window_pattern", windows.pattern)?;
        }
        if self.window > 0 && !causal {
            return Err(Error::unsupported("windows that look both ways are not built in"));
        }
        let mut layers = Vec::new();
        for i in 0..layer_count {
            layers.push(self.layer(i as u32, i % pattern < pattern - 1)?);
        }
        let output_norm = norms.output.map(|name| self.norm(name, embedding)).transpose()?;
        let last = layer_count as u32 - 1;
        let name = if tied { "token_embd.weight" } else { "output.weight" };
        let head = match self.architecture.head {
            false => None,
            true => {
                let weight = self.tensors.matrix(last, name, embedding, vocab)?;
                let scale = if tied { None } else { self.tensors.optional_vector("output.scale", 1)? };
                Some(Linear { weight, scale, bias: self.tensors.optional_vector("output.bias", vocab)? })
            }
        };
        let [_, logit_softcap] = self.softcaps()?;
        let description = Description {
            shape: self.shape,
            ropes: self.ropes,
            embedding: table.or(head.map(|head| head.weight)).expect("a tied embedding is the head"),
            embedding_scale: match self.architecture.embedding_scale {
                EmbeddingScale::Key => self.keys.factor("embedding_scale")?.unwrap_or(1.0),
                EmbeddingScale::RootOfWidth => (embedding as f32).sqrt(),
            },
            token_type,
            positions,
            embedding_norm,
            layers,
            residual_scale: self.keys.factor("residual_scale")?.unwrap_or(1.0),
            causal,
            output_norm,
            head,
            logit_scale: match (self.architecture.logit_scale, self.keys.factor("logit_scale")?) {
                (LogitScale::None, _) | (_, None) => 1.0,
                (LogitScale::Divisor, Some(scale)) => 1.0 / scale,
                (LogitScale::Factor, Some(scale)) => scale,
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
        let mut scaling = self.keys.scaling(context)?;
        if let Scaling::Yarn { log_multiplier, .. } = &mut scaling
            && self.architecture.latent
            && self.keys.has(LOG_MULTIPLIER)
        {
            // The scores are scaled in place of the angles' magnitude: see `latent_scale`.
            *log_multiplier = 0.0;
        }
        self.ropes.push(Rope { pairing, dims, base, scaling, divisors: divisors.or(short), beyond });
        let own = match self.architecture.windows.map(|w| w.rotation) {
            Some(WindowRotation::Base(base)) => Some(self.keys.float("rope.freq_base_swa")?.map_or(base, f64::from)),
            Some(WindowRotation::Unscaled) => Some(base),
            Some(WindowRotation::Same | WindowRotation::Alone) | None => None,
        };
        if let Some(base) = own {
            self.ropes.push(Rope { pairing, dims, base, scaling: Scaling::None, divisors: None, beyond: None });
        }
        Ok(())
    }

    fn layer(&mut self, i: u32, windowed: bool) -> Result<Layer> {
        let norms = self.architecture.norms;
        let feed_forward_norm = self.first_of(i, norms.feed_forward);
        let same_norm = feed_forward_norm.is_some_and(|name| norms.attention.contains(&name));
        Ok(Layer {
            attention: self.attention(i, windowed)?,
            feed_forward: self.feed_forward(i, feed_forward_norm)?,
            parallel: same_norm || self.keys.flag("use_parallel_residual", false)?,
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
        let mut seen = value_dim;
        let projection = if a.latent {
            let latent = self.latent(i)?;
            seen = latent.head_value;
            Projection::Latent(latent)
        } else if self.tensors.has(&name("attn_qkv.weight")) {
            let [query, key, value] = self.tensors.fused(i, &name("attn_qkv"), embedding, rows)?;
            Projection::Direct { query, key, value }
        } else {
            let [q, k, v] = ["attn_q", "attn_k", "attn_v"].map(name);
            let t = &mut self.tensors;
            Projection::Direct {
                query: t.linear(i, &q, embedding, rows[0])?,
                key: t.linear(i, &k, embedding, rows[1])?,
                value: t.linear(i, &v, embedding, rows[2])?,
            }
        };
        let query_norm = self.span_norm(&name("attn_q_norm"), heads)?;
        let key_norm = self.span_norm(&name("attn_k_norm"), kv_heads)?;
        let output = self.tensors.linear(i, &name("attn_output"), heads * seen, embedding)?;
        let layers = self.keys.count("block_count")?;
        let default_scale = match a.scaled_by_width {
            _ if a.latent => self.latent_scale()?,
            Some(count) if count == layers => 1.0 / (embedding as f32 / heads as f32).sqrt(),
            _ => 1.0 / (key_dim as f32).sqrt(),
        };
        let windowed = windowed && self.window > 0;
        let skipped = a.rotation_skips.is_some_and(|n| (i as usize + 1).is_multiple_of(n));
        let rope = match a.windows.map(|w| w.rotation) {
            _ if self.ropes.is_empty() || skipped => None,
            Some(WindowRotation::Base(_) | WindowRotation::Unscaled) if windowed => Some(1),
            Some(WindowRotation::Alone) if !windowed => None,
            _ => Some(0),
        };
        Ok(Attention {
            norm,
            projection,
            query_norm,
            key_norm,
            rope,
            scale: self.keys.factor("attention.scale")?.unwrap_or(default_scale),
            softcap: self.softcaps()?[0],
            sinks: self.tensors.optional_vector(&name("attn_sinks.weight"), heads)?,
            window: windowed.then_some(self.window),
            output,
            post_norm: self.layer_norm(i, self.first_of(i, a.norms.after_attention))?,
            sum_norm: self.layer_norm(i, self.first_of(i, a.norms.sums[0]))?,
        })
    }

    fn latent(&mut self, i: u32) -> Result<Latent> {
        let Shape { embedding, heads, kv_heads, key_dim, value_dim: latent, .. } = self.shape;
        let name = |part: &str| format!("blk.{i}.{part}");
        let whole = self.latent_head()?;
        let head_value = self.keys.count("attention.value_length_mla")?;
        let rotated = self.ropes.first().map_or(0, |rope| rope.dims);
        if kv_heads != 1 || key_dim != latent + rotated || whole <= rotated {
            return Err(Error::format(format!(
                "latent attention with {kv_heads} key heads of {key_dim} elements, {rotated} of them rotated, and values of {latent}; heads of {whole}"
            )));
        }
        let rank = self.keys.number("attention.q_lora_rank")?;
        let direct = self.tensors.has(&name("attn_q.weight"));
        let queries = heads.saturating_mul(whole);
        // In the order of their use: what shares the input h comes first.
        let (part, rows) = if direct { ("attn_q", queries) } else { ("attn_q_a", rank) };
        let first = self.tensors.linear(i, &name(part), embedding, rows)?;
        let key_value = self.tensors.linear(i, &name("attn_kv_a_mqa"), embedding, key_dim)?;
        let (query, query_down) = if direct {
            (first, None)
        } else {
            let query = self.tensors.linear(i, &name("attn_q_b"), rank, queries)?;
            (query, Some((first, self.norm(&name("attn_q_a_norm"), rank)?)))
        };
        let plain = whole - rotated;
        Ok(Latent {
            query_down,
            query,
            key_value,
            norm: self.norm(&name("attn_kv_a_norm"), latent)?,
            key: self.tensors.heads(i, &name("attn_k_b.weight"), plain, latent, heads)?,
            value: self.tensors.heads(i, &name("attn_v_b.weight"), latent, head_value, heads)?,
            plain,
            rotated,
            head_value,
        })
    }

    /// Elements of a head's query before it is taken into the space of the latents.
    fn latent_head(&self) -> Result<usize> {
        if !self.keys.has("attention.key_length_mla") {
            return Err(Error::unsupported(
                "latent attention in a file from before key_length_mla is not built in: convert the model anew",
            ));
        }
        self.keys.count("attention.key_length_mla")
    }

    /// 1/√(length of a head), and with YaRN (1 + m·ln(factor))² more, m being `yarn_log_multiplier`.
    fn latent_scale(&self) -> Result<f32> {
        let scale = 1.0 / (self.latent_head()? as f32).sqrt();
        let multiplier = self.keys.float(LOG_MULTIPLIER)?.unwrap_or(0.0);
        Ok(match self.ropes.first().map(|rope| rope.scaling) {
            Some(Scaling::Yarn { factor, .. }) => scale * (1.0 + multiplier * factor.ln() as f32).powi(2),
            _ => scale,
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
        let dense = (i as usize) < self.keys.number("leading_dense_block_count")?;
        let block = match (self.keys.number("expert_count")?, self.architecture.experts) {
            (count, _) if count == 0 || dense => {
                let length = self.keys.count("feed_forward_length")?;
                Block::Dense(self.mlp(i, ["ffn_gate", "ffn_up", "ffn_down"].map(name), length)?)
            }
            (count, Some(rule)) => Block::Experts(self.experts(i, count, rule)?),
            (count, None) => {
                let name = self.architecture.name;
                return Err(Error::unsupported(format!("architecture {name:?} with {count} experts is not built in")));
            }
        };
        let post_norm = self.layer_norm(i, self.first_of(i, self.architecture.norms.after_feed_forward))?;
        let sum_norm = self.layer_norm(i, self.first_of(i, self.architecture.norms.sums[1]))?;
        Ok(FeedForward { norm, block, post_norm, sum_norm })
    }

    fn experts(&mut self, i: u32, count: usize, rule: ExpertRule) -> Result<Experts> {
        let width = self.shape.embedding;
        let name = |part: &str| format!("blk.{i}.{part}");
        let used = self.keys.count("expert_used_count")?;
        if used > count || count > MOST_EXPERTS {
            return Err(Error::format(format!("{used} of {count} experts; at most {MOST_EXPERTS} are built in")));
        }
        let mut length = "feed_forward_length";
        if self.keys.has("expert_feed_forward_length") {
            length = "expert_feed_forward_length";
        }
        let length = self.keys.count(length)?;
        let router = self.tensors.linear(i, &name("ffn_gate_inp"), width, count)?;
        // Before the experts, so that they are read while it is computed.
        let shared = if self.tensors.has(&name("ffn_up_shexp.weight")) { Some(self.shared(i, length)?) } else { None };
        let [gate, up, down] = ["ffn_gate_exps", "ffn_up_exps", "ffn_down_exps"].map(name);
        let parts = [(gate.as_str(), width, length), (&up, width, length), (&down, length, width)];
        let (first, scales, biases) = self.tensors.experts(i, count, parts)?;
        let scale = self.keys.factor("expert_weights_scale")?.unwrap_or(1.0);
        if let groups @ 2.. = self.keys.number("expert_group_count")? {
            return Err(Error::unsupported(format!("experts in {groups} groups are not built in")));
        }
        let gating = match self.keys.number("expert_gating_func")? {
            0 => rule.gating,
            1 => Gating::Softmax,
            2 => Gating::Sigmoid,
            3 => Gating::SoftmaxOfChosen,
            other => return Err(Error::unsupported(format!("expert gating function {other} is not built in"))),
        };
        let renormalised = self.keys.flag("expert_weights_norm", rule.renormalised)?;
        let bias = self.tensors.optional_vector(&name("exp_probs_b.bias"), count)?;
        let choice = Choice { gating, renormalised, scale, bias };
        let activation = self.architecture.activation;
        Ok(Experts { router, choice, count, used, first, scales, biases, activation, shared })
    }

    /// `expert`: the length of an expert.
    fn shared(&mut self, i: u32, expert: usize) -> Result<Shared> {
        let name = |part: &str| format!("blk.{i}.{part}");
        let length = if self.keys.has("expert_shared_feed_forward_length") {
            self.keys.count("expert_shared_feed_forward_length")?
        } else if self.keys.has("expert_shared_count") {
            self.keys.count("expert_shared_count")?.saturating_mul(expert)
        } else {
            self.keys.count("feed_forward_length")?
        };
        let gate = self.tensors.optional_vector(&name("ffn_gate_inp_shexp.weight"), self.shape.embedding)?;
        let mlp = self.mlp(i, ["ffn_gate_shexp", "ffn_up_shexp", "ffn_down_shexp"].map(name), length)?;
        Ok(Shared { mlp, gate })
    }

    /// A block by the names of its matrices; without one for the gate, that is the first half of the way up.
    fn mlp(&mut self, i: u32, [gate, up, down]: [String; 3], length: usize) -> Result<Mlp> {
        let width = self.shape.embedding;
        let t = &mut self.tensors;
        let (gate, up) = match self.architecture.gated {
            false => (None, t.linear(i, &up, width, length)?),
            true if t.has(&format!("{gate}.weight")) => {
                (Some(t.linear(i, &gate, width, length)?), t.linear(i, &up, width, length)?)
            }
            true => {
                let [gate, up] = t.fused(i, &up, width, [length; 2])?;
                (Some(gate), up)
            }
        };
        let down = t.linear(i, &down, length, width)?;
        Ok(Mlp { gate, up, down, activation: self.architecture.activation })
    }
}
