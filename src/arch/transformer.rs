//! The description of a model, from what its architecture, its metadata and its tensors say.

mod beside;
mod classifier;
mod experts;
mod heads;
mod latent;
mod predictor;
mod recurrent;

use super::build::{Tensors, is_of_another_part};
use super::metadata::Keys;
use super::table::{
    Architecture, EmbeddingScale, LogitScale, Positions, QueryKeyNorm, TemperatureKeys, WindowRotation, YarnMultiplier,
};
use super::{
    Attention, Block, Described, Description, FeedForward, Heads, Layer, Linear, Mlp, Norm, NormKind, Part, Projection,
    Rope, Shape, SpanNorm, Temperature,
};
use crate::elementary::wide;
use crate::error::{Error, Result};
use crate::gguf::Directory;
use crate::operations::{Pairing, Scaling};

const LOG_MULTIPLIER: &str = "rope.scaling.yarn_log_multiplier";

/// How many of the blocks, which come last, predict further tokens.
const PREDICTING: &str = "nextn_predict_layers";

/// Lengths that not every kind of block needs; the tensors have to agree with those that are needed.
const LENGTH_KEYS: &[&str] =
    &["expert_feed_forward_length", "expert_shared_count", "expert_shared_feed_forward_length", "feed_forward_length"];

/// Keys that say nothing in a model without experts.
const EXPERT_KEYS: &[&str] = &[
    "expert_gating_func",
    "expert_group_count",
    "expert_group_used_count",
    "expert_used_count",
    "expert_weights_norm",
    "expert_weights_scale",
    "leading_dense_block_count",
];

pub fn describe(architecture: &Architecture, directory: &Directory, starts: Vec<u64>, part: Part) -> Result<Described> {
    let keys = Keys::new(&directory.metadata, architecture.name);
    let shape = shape(architecture, &keys, directory)?;
    let tensors = Tensors::new(directory, starts);
    let layers = layer_count(&keys)?;
    let maker = Maker {
        architecture,
        keys,
        shape,
        layers,
        window: 0,
        windowed: Vec::new(),
        own_memory: layers,
        ropes: Vec::new(),
        tensors,
    };
    match part {
        Part::Model => maker.describe(),
        Part::Predictor => maker.describe_predictor(),
    }
}

fn shape(architecture: &Architecture, keys: &Keys, directory: &Directory) -> Result<Shape> {
    let embedding = keys.count("embedding_length")?;
    let first = heads::of_layer(architecture, keys, embedding, 0, false)?;
    let Heads { count: heads, kv_count: kv_heads, key_dim, value_dim } = first;
    let by_key = architecture.norm_by_key && keys.has("attention.layer_norm_rms_epsilon");
    let norm = if by_key { NormKind::Rms } else { architecture.norm };
    if by_key {
        keys.ignore(&["attention.layer_norm_epsilon"]);
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
        norm,
        norm_eps: keys.require_float(match norm {
            NormKind::Rms if by_key || !architecture.norm_by_key => "attention.layer_norm_rms_epsilon",
            NormKind::Rms | NormKind::Layer => "attention.layer_norm_epsilon",
        })?,
    })
}

/// Layers that a pass runs. The file counts those that predict further tokens among its blocks; they come last, and no
/// pass runs them.
fn layer_count(keys: &Keys) -> Result<usize> {
    let (blocks, predicting) = (keys.count("block_count")?, keys.number(PREDICTING)?);
    match blocks.checked_sub(predicting) {
        None | Some(0) => Err(Error::format(format!("{predicting} of {blocks} blocks predict further tokens"))),
        Some(layers) => Ok(layers),
    }
}

struct Maker<'a> {
    architecture: &'a Architecture,
    keys: Keys<'a>,
    shape: Shape,
    layers: usize,
    /// Positions that a layer with a window sees; 0: no layer has one.
    window: usize,
    /// Which layers have one.
    windowed: Vec<bool>,
    /// The first layers, which have keys and values of their own.
    own_memory: usize,
    ropes: Vec<Rope>,
    tensors: Tensors<'a>,
}

impl Maker<'_> {
    fn describe(mut self) -> Result<Described> {
        let Shape { embedding, vocab, .. } = self.shape;
        let layer_count = self.layers;
        let causal = self.keys.flag("attention.causal", self.architecture.causal)?;
        let tied = self.architecture.head && !self.tensors.has("output.weight");
        let table = if tied { None } else { Some(self.tensors.table("token_embd.weight", embedding, vocab)?) };
        let positions = match self.architecture.positions {
            Positions::Rotary(pairing) => {
                self.ropes(pairing)?;
                None
            }
            Positions::Slopes => None,
            Positions::Learned => {
                let context = self.shape.context as usize;
                Some(self.tensors.table("position_embd.weight", embedding, context)?)
            }
            Positions::None => {
                self.keys.ignore(&["rope.dimension_count", "rope.freq_base", "rope.scaling.type"]);
                None
            }
        };
        let token_type = self.tensors.optional_first_row("token_types.weight", embedding)?;
        let norms = self.architecture.norms;
        let embedding_norm = norms.embedding.map(|name| self.norm(name, embedding)).transpose()?;
        self.windowed = self.windows(self.layers)?;
        if self.window > 0 && !causal && !self.architecture.windows.is_some_and(|windows| windows.both_ways) {
            return Err(Error::unsupported("windows that look both ways are not built in"));
        }
        self.own_memory = self.own_memory()?;
        let layer_inputs = self.layer_inputs()?;
        let streams = self.streams()?;
        let input_width = layer_inputs.map_or(0, |inputs| inputs.width);
        let mut layers = Vec::new();
        for i in 0..self.layers as u32 {
            layers.push(self.layer(i, input_width)?);
        }
        let output_norm = norms.output.map(|name| self.norm(name, embedding)).transpose()?;
        self.keys.ignore(LENGTH_KEYS);
        if self.architecture.recurrent.is_some() {
            self.keys.ignore(recurrent::SIZE_KEYS);
        }
        if !causal && layers.iter().any(|l: &Layer| l.recurrent.is_some()) {
            return Err(Error::unsupported("recurrent layers that look both ways are not built in"));
        }
        let has_experts = |l: &Layer| matches!(l.feed_forward.map(|f| f.block), Some(Block::Experts(_)));
        if !layers.iter().any(has_experts) {
            self.keys.ignore(EXPERT_KEYS);
        }
        let name = if tied { "token_embd.weight" } else { "output.weight" };
        let head = match self.architecture.head {
            false => None,
            true => {
                let weight = self.tensors.matrix(name, embedding, vocab)?;
                let scale = if tied { None } else { self.tensors.optional_vector("output.scale", 1)? };
                Some(Linear { weight, scale, bias: self.tensors.optional_vector("output.bias", vocab)? })
            }
        };
        let dense = self.dense()?;
        let classifier = self.classifier()?;
        let labels = self.labels()?;
        let [_, logit_softcap] = self.softcaps()?;
        let logit_scale = self.logit_scale()?;
        let embedding_scale = self.keys.factor("embedding_scale")?;
        let residual_scale = self.keys.factor("residual_scale")?.unwrap_or(1.0);
        self.keys.check_unread()?;
        let description = Description {
            shape: self.shape,
            ropes: self.ropes,
            embedding: table.or(head.map(|head| head.weight)).expect("a tied embedding is the head"),
            embedding_scale: match self.architecture.embedding_scale {
                EmbeddingScale::Key => embedding_scale.unwrap_or(1.0),
                EmbeddingScale::RootOfWidth => (embedding as f32).sqrt(),
            },
            token_type,
            predictor: None,
            positions,
            embedding_norm,
            layer_inputs,
            streams,
            layers,
            residual_scale,
            causal,
            output_norm,
            dense,
            classifier,
            labels,
            head,
            logit_scale,
            logit_softcap,
        };
        let predicting = layer_count..layer_count + self.keys.number(PREDICTING)?;
        self.tensors.finish(description, |name| is_of_another_part(name, &predicting))
    }

    /// For each of so many layers whether it has a sliding window, which those that predict further tokens have by an array of
    /// flags alone; sets the windows' length.
    fn windows(&mut self, count: usize) -> Result<Vec<bool>> {
        let Some(windows) = self.architecture.windows else { return Ok(vec![false; count]) };
        if windows.only_with_layers.is_some_and(|layers| layers != self.layers) {
            self.keys.ignore(&["attention.sliding_window", "attention.sliding_window_pattern", "rope.freq_base_swa"]);
            return Ok(vec![false; count]);
        }
        self.window = match windows.length {
            Some(length) if !self.keys.has("attention.sliding_window") => length,
            Some(_) => self.keys.number("attention.sliding_window")?,
            None => self.keys.count("attention.sliding_window")?,
        };
        if windows.sections && self.window == 0 {
            return Err(Error::unsupported(
                "llama4 without chunks of attention (attention.sliding_window 0) is not built in",
            ));
        }
        if self.window > 0 {
            self.window = windows.fixed.unwrap_or(self.window);
        }
        const PATTERN: &str = "attention.sliding_window_pattern";
        if let Some(flags) = self.keys.flags(PATTERN, count)? {
            return Ok(flags);
        }
        let pattern = self.keys.count_or(PATTERN, windows.pattern)?;
        let is_full = |i: usize| i % pattern == if windows.full_first { 0 } else { pattern - 1 };
        Ok((0..count).map(|i| i < self.layers && !is_full(i)).collect())
    }

    fn logit_scale(&self) -> Result<f32> {
        let scale = self.keys.factor("logit_scale")?;
        Ok(match (self.architecture.logit_scale, scale) {
            (LogitScale::None, _) | (_, None) => 1.0,
            (LogitScale::Divisor, Some(scale)) => 1.0 / scale,
            (LogitScale::Factor, Some(scale)) => scale,
        })
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
    fn ropes(&mut self, mut pairing: Pairing) -> Result<()> {
        let Shape { key_dim, context, .. } = self.shape;
        if self.architecture.unrotated_by_key && !self.keys.flag("rope.scaling.finetuned", true)? {
            self.keys.ignore(&["rope.dimension_count", "rope.freq_base"]);
            return Ok(());
        }
        // Sections are for positions of pictures. A text's positions are the same in all of them, so that what is left of
        // it are pairs of halves.
        let sections = self.keys.has("rope.dimension_sections");
        if sections && pairing == Pairing::Norm && !self.architecture.sections_pair_halves {
            return Err(Error::unsupported(format!(
                "rope.dimension_sections in architecture {:?} is not built in",
                self.architecture.name
            )));
        }
        if sections {
            pairing = Pairing::Neox;
        }
        let dims = self.keys.count_or("rope.dimension_count", key_dim)?;
        if dims > key_dim {
            return Err(Error::format(format!("{dims} rotated elements of heads of {key_dim}")));
        }
        let mut base = self.keys.float("rope.freq_base")?.map_or(10_000.0, f64::from);
        if self.architecture.stretched_base
            && let Some(alpha) = self.keys.factor("rope.scaling.alpha")?
        {
            base *= wide::power(f64::from(alpha), dims as f64 / (dims as f64 - 2.0));
        }
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
        if let Scaling::Yarn { factor, attn_factor, log_multiplier, .. } = &mut scaling
            && self.architecture.yarn_multiplier != YarnMultiplier::None
            && let Some(multiplier) = self.keys.factor(LOG_MULTIPLIER)?
        {
            match self.architecture.yarn_multiplier {
                // See `latent_scale`.
                YarnMultiplier::OfScores => *log_multiplier = 0.0,
                _ => *attn_factor /= 1.0 + 0.1 * f64::from(multiplier) * wide::ln(*factor),
            }
        }
        let interleaved = self.interleaved()?.filter(|_| sections);
        self.ropes.push(Rope { pairing, dims, base, scaling, divisors: divisors.or(short), beyond, interleaved });
        let Some(windows) = self.architecture.windows else { return Ok(()) };
        let given = self.keys.float("rope.freq_base_swa")?.map(f64::from);
        let own = given.unwrap_or(base);
        match windows.rotation {
            WindowRotation::Base(default) => self.own_rope(given.unwrap_or(default), Scaling::None)?,
            WindowRotation::Unscaled => self.own_rope(own, Scaling::None)?,
            WindowRotation::Same if own != base => self.own_rope(own, scaling)?,
            WindowRotation::Same => {}
            WindowRotation::Alone => self.ropes[0].base = own,
        }
        Ok(())
    }

    /// Adds a rotation for the layers with windows alone.
    fn own_rope(&mut self, base: f64, scaling: Scaling) -> Result<()> {
        let Rope { pairing, dims, divisors, beyond, interleaved, .. } = self.ropes[0];
        let (divisors, beyond) = if scaling == Scaling::None { (None, None) } else { (divisors, beyond) };
        let dims = self.keys.count_or("rope.dimension_count_swa", dims)?;
        if dims > self.heads(None)?.key_dim {
            return Err(Error::format(format!("{dims} rotated elements of heads of {}", self.heads(None)?.key_dim)));
        }
        self.ropes.push(Rope { pairing, dims, base, scaling, divisors, beyond, interleaved });
        Ok(())
    }

    fn layer(&mut self, i: u32, input_width: usize) -> Result<Layer> {
        let norms = self.architecture.norms;
        let blocks = self.blocks(i)?;
        let attention = if blocks.attention { Some(self.attention(i)?) } else { None };
        let recurrent = blocks.recurrent.map(|kind| self.recurrent(i, kind)).transpose()?;
        let feed_forward_norm = self.first_of(i, norms.feed_forward);
        let same_norm = feed_forward_norm.is_some_and(|name| norms.attention.contains(&name));
        let feed_forward = if blocks.feed_forward { Some(self.feed_forward(i, feed_forward_norm)?) } else { None };
        let beside = same_norm || self.keys.flag("use_parallel_residual", false)?;
        let parallel = beside && attention.is_some() && feed_forward.is_some();
        Ok(Layer {
            attention,
            recurrent,
            feed_forward,
            input: if input_width > 0 { Some(self.layer_input(i, input_width)?) } else { None },
            streams: if self.architecture.streams { Some(self.layer_streams(i)?) } else { None },
            output_scale: self.tensors.optional_vector(&format!("blk.{i}.layer_output_scale.weight"), 1)?,
            parallel,
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
        let mut weight = format!("{name}.weight");
        if !self.tensors.has(&weight) && self.tensors.has(name) {
            weight = name.to_string();
        }
        let weight = self.tensors.vector(&weight, elements)?;
        let bias = match self.shape.norm {
            NormKind::Rms => None,
            NormKind::Layer => self.tensors.optional_vector(&format!("{name}.bias"), elements)?,
        };
        Ok(Norm { weight, bias })
    }

    fn attention(&mut self, i: u32) -> Result<Attention> {
        let heads = self.heads(Some(i))?;
        let (embedding, Heads { count, kv_count, key_dim, value_dim }) = (self.shape.embedding, heads);
        let a = self.architecture;
        let name = |part: &str| format!("blk.{i}.{part}");
        let unnormed = a.first_unnormed && i == 0 && !self.tensors.has(&name("attn_norm.weight"));
        let norm = self.layer_norm(i, self.first_of(i, a.norms.attention).filter(|_| !unnormed))?;
        if a.gated_attention && key_dim != value_dim {
            return Err(Error::format(format!("gates of {key_dim} elements for results of {value_dim}")));
        }
        let mut seen = value_dim;
        let projection = if a.latent {
            let (latent, head_value) = self.latent(i, heads)?;
            seen = head_value;
            latent
        } else {
            self.projection(i, heads)?
        };
        let windowed = self.has_window(i);
        let skipped = a.rotation_skips.is_some_and(|n| (i as usize + 1).is_multiple_of(n));
        let rope = match a.windows.map(|w| w.rotation) {
            _ if self.ropes.is_empty() || skipped => None,
            Some(WindowRotation::Alone) if !windowed && !self.is_rotated_whole(i)? => None,
            Some(_) if windowed => Some(self.ropes.len() - 1),
            _ => Some(0),
        };
        let [query_norm, key_norm] = if a.query_key_norm == QueryKeyNorm::HeadsUnweighted {
            let normed = rope.is_some() && self.keys.number("expert_count")? != 128;
            [normed.then_some(SpanNorm { norm: None, span: key_dim }); 2]
        } else {
            let query_norm = self.span_norm(&name("attn_q_norm"), count, key_dim)?;
            let has_keys = !matches!(projection, Projection::Shared { .. });
            [query_norm, if has_keys { self.span_norm(&name("attn_k_norm"), kv_count, key_dim)? } else { None }]
        };
        let has_values = a.value_norm && !matches!(projection, Projection::Shared { .. });
        let output = self.tensors.linear(&name("attn_output"), count * seen, embedding)?;
        let default_scale = match a.scaled_by_width {
            _ if a.latent => self.latent_scale()?,
            Some(layers) if layers == self.layers => 1.0 / (embedding as f32 / count as f32).sqrt(),
            _ => a.attention_scale.unwrap_or(1.0 / (key_dim as f32).sqrt()),
        };
        let sections = a.windows.is_some_and(|windows| windows.sections);
        Ok(Attention {
            norm,
            heads,
            projection,
            query_norm,
            key_norm,
            value_norm: has_values.then_some(SpanNorm { norm: None, span: value_dim }),
            norm_after_rotation: a.norm_after_rotation,
            rope,
            scale: self.keys.factor("attention.scale")?.unwrap_or(default_scale),
            softcap: self.softcaps()?[0],
            temperature: self.temperature(rope.is_some())?,
            sinks: self.tensors.optional_vector(&name("attn_sinks.weight"), count)?,
            gated: a.gated_attention,
            window: (windowed && !sections).then_some(self.window),
            section: (windowed && sections).then_some(self.window),
            slopes: self.slopes()?,
            output,
            post_norm: self.layer_norm(i, self.first_of(i, a.norms.after_attention))?,
            sum_norm: self.layer_norm(i, self.first_of(i, a.norms.sums[0]))?,
            low_rank: if a.streams { Some(self.low_rank_block(i)?) } else { None },
        })
    }

    /// Whether a layer without a window is rotated where the others with windows alone are.
    fn is_rotated_whole(&self, layer: u32) -> Result<bool> {
        let leading = self.keys.number("leading_dense_block_count")?;
        let predicts = layer as usize >= self.layers;
        Ok(self.window == 0 || predicts || self.architecture.leading_rotated && (layer as usize) < leading)
    }

    /// How queries grow with their position, in the architectures that have it.
    fn temperature(&self, rotated: bool) -> Result<Option<Temperature>> {
        let length = match self.architecture.temperature {
            TemperatureKeys::None => return Ok(None),
            TemperatureKeys::Unrotated { scale, length } => {
                return Ok((!rotated).then_some(Temperature { scale, offset: 1, length }));
            }
            TemperatureKeys::Own => "attention.temperature_length",
            TemperatureKeys::OriginalContext => "rope.scaling.original_context_length",
        };
        let Some(scale) = self.keys.factor("attention.temperature_scale")? else { return Ok(None) };
        Ok(Some(Temperature { scale, offset: 0, length: self.keys.count(length)? }))
    }

    fn span_norm(&mut self, name: &str, heads: usize, dim: usize) -> Result<Option<SpanNorm>> {
        let (span, dims): (usize, &[u64]) = match self.architecture.query_key_norm {
            QueryKeyNorm::None | QueryKeyNorm::HeadsUnweighted => return Ok(None),
            QueryKeyNorm::HeadsWhereGiven if !self.tensors.has(&format!("{name}.weight")) => return Ok(None),
            QueryKeyNorm::Heads | QueryKeyNorm::HeadsWhereGiven => (dim, &[dim as u64]),
            QueryKeyNorm::Whole => (heads * dim, &[(heads * dim) as u64]),
            QueryKeyNorm::EachHead if !self.tensors.has(&format!("{name}.weight")) => return Ok(None),
            QueryKeyNorm::EachHead => (dim, &[dim as u64, heads as u64]),
            QueryKeyNorm::WholeWhereGiven if !self.tensors.has(&format!("{name}.weight")) => return Ok(None),
            QueryKeyNorm::WholeWhereGiven => {
                return Ok(Some(SpanNorm { norm: Some(self.norm(name, heads * dim)?), span: heads * dim }));
            }
        };
        let weight = self.tensors.vector_of(&format!("{name}.weight"), dims)?;
        Ok(Some(SpanNorm { norm: Some(Norm { weight, bias: None }), span }))
    }

    fn feed_forward(&mut self, i: u32, norm: Option<&'static str>) -> Result<FeedForward> {
        let name = |part: &str| format!("blk.{i}.{part}");
        let norm = self.layer_norm(i, norm)?;
        let dense = self.is_dense(i)?;
        let block = match (self.keys.number("expert_count")?, self.architecture.experts) {
            (count, _) if count == 0 || dense => {
                let length = self.keys.count_at("feed_forward_length", i as usize)?;
                let sparsity = self.sparsity(i)?;
                Block::Dense(Mlp { sparsity, ..self.mlp(["ffn_gate", "ffn_up", "ffn_down"].map(name), length)? })
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

    /// Whether a layer of a model with experts has none.
    fn is_dense(&self, i: u32) -> Result<bool> {
        let step = self.keys.number("interleave_moe_layer_step")?.max(1);
        let leading = (i as usize) < self.keys.number("leading_dense_block_count")?;
        let has = |part: &str| self.tensors.has(&format!("blk.{i}.{part}.weight"));
        Ok(leading || !(i as usize + 1).is_multiple_of(step) || !has("ffn_gate_inp") && has("ffn_up"))
    }

    /// A block by the names of its matrices; without one for the gate, that is the first half of the up projection.
    fn mlp(&mut self, [gate, up, down]: [String; 3], length: usize) -> Result<Mlp> {
        let width = self.shape.embedding;
        let t = &mut self.tensors;
        let (gate, up) = match self.architecture.gated {
            false => (None, t.linear(&up, width, length)?),
            true if self.architecture.gate_by_rows
                && t.rows(&format!("{up}.weight")) == length
                && !t.has(&format!("{gate}.weight")) =>
            {
                (None, t.linear(&up, width, length)?)
            }
            true if t.has(&format!("{gate}.weight")) => {
                (Some(t.linear(&gate, width, length)?), t.linear(&up, width, length)?)
            }
            true => {
                let [gate, up] = t.fused(&up, width, [length; 2])?;
                (Some(gate), up)
            }
        };
        let down = t.linear(&down, length, width)?;
        Ok(Mlp { gate, up, down, activation: self.activation()?, sparsity: None })
    }
}
