//! The description of a model, from what its architecture, its metadata and its tensors say.

mod latent;
mod recurrent;

use super::build::Tensors;
use super::metadata::Keys;
use super::table::{
    Architecture, EmbeddingScale, LogitScale, Positions, QueryKeyNorm, RouterDefaults, TemperatureKeys, WindowRotation,
    YarnMultiplier,
};
use super::{
    Attention, Block, Described, Description, Experts, FeedForward, Gating, Groups, Layer, Linear, Mlp, Norm, NormKind,
    Projection, Rope, RouterConfig, Shape, Shared, SpanNorm, Temperature,
};
use crate::error::{Error, Result};
use crate::gguf::Directory;
use crate::kernel::attention::MAX_HEAD_DIM;
use crate::kernel::rope::{Pairing, Scaling};

const LOG_MULTIPLIER: &str = "rope.scaling.yarn_log_multiplier";

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

/// Bounds the tables of a hostile file; real models have a few hundred.
const MAX_EXPERTS: usize = 1024;

pub fn describe(architecture: &Architecture, directory: &Directory, starts: Vec<u64>) -> Result<Described> {
    let keys = Keys::new(&directory.metadata, architecture.name);
    let shape = shape(architecture, &keys, directory)?;
    let tensors = Tensors::new(directory, starts);
    let layers = layer_count(&keys)?;
    let maker = Maker { architecture, keys, shape, layers, window: 0, ropes: Vec::new(), tensors };
    maker.describe()
}

fn shape(architecture: &Architecture, keys: &Keys, directory: &Directory) -> Result<Shape> {
    let embedding = keys.count("embedding_length")?;
    let (heads, kv_heads) = recurrent::heads(architecture, keys)?;
    if !heads.is_multiple_of(kv_heads) {
        return Err(Error::format(format!("{heads} query heads are no multiple of {kv_heads} key heads")));
    }
    let default = if recurrent::attends(architecture) { embedding / heads } else { 1 };
    let key_dim = keys.count_or("attention.key_length", default)?;
    let value_dim = keys.count_or("attention.value_length", default)?;
    for dim in [key_dim, value_dim] {
        if dim == 0 || dim > MAX_HEAD_DIM {
            return Err(Error::unsupported(format!("heads of {dim} elements; 1 to {MAX_HEAD_DIM} are built in")));
        }
    }
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
    let (blocks, predicting) = (keys.count("block_count")?, keys.number("nextn_predict_layers")?);
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
        let windowed = self.windows()?;
        if self.window > 0 && !causal {
            return Err(Error::unsupported("windows that look both ways are not built in"));
        }
        let mut layers = Vec::new();
        for (i, windowed) in windowed.into_iter().enumerate() {
            layers.push(self.layer(i as u32, windowed)?);
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
        let [_, logit_softcap] = self.softcaps()?;
        let logit_scale = self.keys.factor("logit_scale")?;
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
            positions,
            embedding_norm,
            layers,
            residual_scale,
            causal,
            output_norm,
            head,
            logit_scale: match (self.architecture.logit_scale, logit_scale) {
                (LogitScale::None, _) | (_, None) => 1.0,
                (LogitScale::Divisor, Some(scale)) => 1.0 / scale,
                (LogitScale::Factor, Some(scale)) => scale,
            },
            logit_softcap,
        };
        let blocks = layer_count + self.keys.number("nextn_predict_layers")?;
        self.tensors.finish(description, layer_count..blocks)
    }

    /// For each layer whether it has a sliding window; sets the windows' length.
    fn windows(&mut self) -> Result<Vec<bool>> {
        let Some(windows) = self.architecture.windows else { return Ok(vec![false; self.layers]) };
        if windows.only_with_layers.is_some_and(|layers| layers != self.layers) {
            self.keys.ignore(&["attention.sliding_window", "attention.sliding_window_pattern", "rope.freq_base_swa"]);
            return Ok(vec![false; self.layers]);
        }
        self.window = match windows.length {
            Some(length) if !self.keys.has("attention.sliding_window") => length,
            Some(_) => self.keys.number("attention.sliding_window")?,
            None => self.keys.count("attention.sliding_window")?,
        };
        const PATTERN: &str = "attention.sliding_window_pattern";
        if let Some(flags) = self.keys.flags(PATTERN, self.layers)? {
            return Ok(flags);
        }
        let pattern = self.keys.count_or(PATTERN, windows.pattern)?;
        let is_full = |i: usize| i % pattern == if windows.full_first { 0 } else { pattern - 1 };
        Ok((0..self.layers).map(|i| !is_full(i)).collect())
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
            base *= f64::from(alpha).powf(dims as f64 / (dims as f64 - 2.0));
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
                _ => *attn_factor /= 1.0 + 0.1 * f64::from(multiplier) * factor.ln(),
            }
        }
        self.ropes.push(Rope { pairing, dims, base, scaling, divisors: divisors.or(short), beyond });
        let Some(windows) = self.architecture.windows else { return Ok(()) };
        let given = self.keys.float("rope.freq_base_swa")?.map(f64::from);
        let own = given.unwrap_or(base);
        match windows.rotation {
            WindowRotation::Base(default) => self.own_rope(given.unwrap_or(default), Scaling::None),
            WindowRotation::Unscaled => self.own_rope(own, Scaling::None),
            WindowRotation::Same if own != base => self.own_rope(own, scaling),
            WindowRotation::Same => {}
            WindowRotation::Alone => self.ropes[0].base = own,
        }
        Ok(())
    }

    /// Adds a rotation for the layers with windows alone.
    fn own_rope(&mut self, base: f64, scaling: Scaling) {
        let Rope { pairing, dims, divisors, beyond, .. } = self.ropes[0];
        let (divisors, beyond) = if scaling == Scaling::None { (None, None) } else { (divisors, beyond) };
        self.ropes.push(Rope { pairing, dims, base, scaling, divisors, beyond });
    }

    fn layer(&mut self, i: u32, windowed: bool) -> Result<Layer> {
        let norms = self.architecture.norms;
        let blocks = self.blocks(i)?;
        let attention = if blocks.attention { Some(self.attention(i, windowed)?) } else { None };
        let recurrent = blocks.recurrent.map(|kind| self.recurrent(i, kind)).transpose()?;
        let feed_forward_norm = self.first_of(i, norms.feed_forward);
        let same_norm = feed_forward_norm.is_some_and(|name| norms.attention.contains(&name));
        let feed_forward = if blocks.feed_forward { Some(self.feed_forward(i, feed_forward_norm)?) } else { None };
        let beside = same_norm || self.keys.flag("use_parallel_residual", false)?;
        let parallel = beside && attention.is_some() && feed_forward.is_some();
        Ok(Layer { attention, recurrent, feed_forward, parallel })
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

    fn attention(&mut self, i: u32, windowed: bool) -> Result<Attention> {
        let Shape { embedding, heads, kv_heads, key_dim, value_dim, .. } = self.shape;
        let a = self.architecture;
        let name = |part: &str| format!("blk.{i}.{part}");
        let norm = self.layer_norm(i, self.first_of(i, a.norms.attention))?;
        let per_query = if a.gated_attention { 2 } else { 1 };
        if per_query > 1 && key_dim != value_dim {
            return Err(Error::format(format!("gates of {key_dim} elements for results of {value_dim}")));
        }
        let rows = [heads * key_dim * per_query, kv_heads * key_dim, kv_heads * value_dim];
        let mut seen = value_dim;
        let projection = if a.latent {
            let latent = self.latent(i)?;
            seen = latent.head_value;
            Projection::Latent(latent)
        } else if self.tensors.has(&name("attn_qkv.weight")) {
            let [query, key, value] = self.tensors.fused(&name("attn_qkv"), embedding, rows)?;
            Projection::Direct { query, key, value }
        } else {
            let [q, k, v] = ["attn_q", "attn_k", "attn_v"].map(name);
            let t = &mut self.tensors;
            Projection::Direct {
                query: t.linear(&q, embedding, rows[0])?,
                key: t.linear(&k, embedding, rows[1])?,
                value: t.linear(&v, embedding, rows[2])?,
            }
        };
        let query_norm = self.span_norm(&name("attn_q_norm"), heads)?;
        let key_norm = self.span_norm(&name("attn_k_norm"), kv_heads)?;
        let output = self.tensors.linear(&name("attn_output"), heads * seen, embedding)?;
        let layers = self.layers;
        let default_scale = match a.scaled_by_width {
            _ if a.latent => self.latent_scale()?,
            Some(count) if count == layers => 1.0 / (embedding as f32 / heads as f32).sqrt(),
            _ => 1.0 / (key_dim as f32).sqrt(),
        };
        let windowed = windowed && self.window > 0;
        let skipped = a.rotation_skips.is_some_and(|n| (i as usize + 1).is_multiple_of(n));
        let rope = match a.windows.map(|w| w.rotation) {
            _ if self.ropes.is_empty() || skipped => None,
            Some(WindowRotation::Alone) if !windowed && !self.is_rotated_whole(i)? => None,
            Some(_) if windowed => Some(self.ropes.len() - 1),
            _ => Some(0),
        };
        Ok(Attention {
            norm,
            projection,
            query_norm,
            key_norm,
            norm_after_rotation: a.norm_after_rotation,
            rope,
            scale: self.keys.factor("attention.scale")?.unwrap_or(default_scale),
            softcap: self.softcaps()?[0],
            temperature: self.temperature()?,
            sinks: self.tensors.optional_vector(&name("attn_sinks.weight"), heads)?,
            gated: a.gated_attention,
            window: windowed.then_some(self.window),
            output,
            post_norm: self.layer_norm(i, self.first_of(i, a.norms.after_attention))?,
            sum_norm: self.layer_norm(i, self.first_of(i, a.norms.sums[0]))?,
        })
    }

    /// Whether a layer without a window is rotated where the others with windows alone are.
    fn is_rotated_whole(&self, layer: u32) -> Result<bool> {
        let leading = self.keys.number("leading_dense_block_count")?;
        Ok(self.window == 0 || self.architecture.leading_rotated && (layer as usize) < leading)
    }

    /// How queries grow with their position, in the architectures that have it.
    fn temperature(&self) -> Result<Option<Temperature>> {
        let length = match self.architecture.temperature {
            TemperatureKeys::None => return Ok(None),
            TemperatureKeys::Own => "attention.temperature_length",
            TemperatureKeys::OriginalContext => "rope.scaling.original_context_length",
        };
        let Some(scale) = self.keys.factor("attention.temperature_scale")? else { return Ok(None) };
        Ok(Some(Temperature { scale, length: self.keys.count(length)? }))
    }

    fn span_norm(&mut self, name: &str, heads: usize) -> Result<Option<SpanNorm>> {
        let dim = self.shape.key_dim;
        let (span, dims): (usize, &[u64]) = match self.architecture.query_key_norm {
            QueryKeyNorm::None => return Ok(None),
            QueryKeyNorm::HeadsWhereGiven if !self.tensors.has(&format!("{name}.weight")) => return Ok(None),
            QueryKeyNorm::Heads | QueryKeyNorm::HeadsWhereGiven => (dim, &[dim as u64]),
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
        let dense = self.is_dense(i)?;
        let block = match (self.keys.number("expert_count")?, self.architecture.experts) {
            (count, _) if count == 0 || dense => {
                let length = self.keys.count_at("feed_forward_length", i as usize)?;
                Block::Dense(self.mlp(["ffn_gate", "ffn_up", "ffn_down"].map(name), length)?)
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

    fn experts(&mut self, i: u32, count: usize, rule: RouterDefaults) -> Result<Experts> {
        let width = self.shape.embedding;
        let name = |part: &str| format!("blk.{i}.{part}");
        let used = self.keys.count_at("expert_used_count", i as usize)?;
        if used > count || count > MAX_EXPERTS {
            return Err(Error::format(format!("{used} of {count} experts; at most {MAX_EXPERTS} are built in")));
        }
        let mut length = "feed_forward_length";
        if self.keys.has("expert_feed_forward_length") && !self.architecture.experts_as_wide_as_blocks {
            length = "expert_feed_forward_length";
        }
        let length = self.keys.count_at(length, i as usize)?;
        let router = self.tensors.linear(&name("ffn_gate_inp"), width, count)?;
        let shared = if self.tensors.has(&name("ffn_up_shexp.weight")) { Some(self.shared(i, length)?) } else { None };
        let [gate, up, down] = ["ffn_gate_exps", "ffn_up_exps", "ffn_down_exps"].map(name);
        let (latent, inner) = self.latent_experts(i)?;
        let parts = [(gate.as_str(), inner, length), (&up, inner, length), (&down, length, inner)];
        let gated = self.architecture.gated;
        let (first, scales, biases) = match gated && self.tensors.has(&name("ffn_gate_up_exps.weight")) {
            true => self.tensors.fused_experts(i, count, [inner, length], [name("ffn_gate_up_exps"), down])?,
            false => self.tensors.experts(i, count, &parts[usize::from(!gated)..])?,
        };
        let scale = self.keys.factor("expert_weights_scale")?.unwrap_or(1.0);
        let gating = match self.keys.number("expert_gating_func")? {
            0 if self.is_glm_lite()? => Gating::Sigmoid,
            0 => rule.gating,
            1 => Gating::Softmax,
            2 => Gating::Sigmoid,
            3 => Gating::SoftmaxOfChosen,
            other => return Err(Error::unsupported(format!("expert gating function {other} is not built in"))),
        };
        let renormalised = self.keys.flag("expert_weights_norm", rule.renormalised)?;
        let bias = match self.tensors.optional_vector(&name("exp_probs_b.bias"), count)? {
            // The name in some families.
            None => self.tensors.optional_vector(&name("exp_probs_b"), count)?,
            bias => bias,
        };
        let groups = self.groups(count, used)?;
        let router_config = RouterConfig { gating, renormalised, scale, groups, bias };
        let activation = self.architecture.activation;
        let output_scale = if self.architecture.experts_averaged && shared.is_some() { 0.5 } else { 1.0 };
        Ok(Experts {
            router,
            router_config,
            count,
            used,
            first,
            gated,
            latent,
            scales,
            biases,
            activation,
            shared,
            output_scale,
        })
    }

    fn groups(&self, experts: usize, used_experts: usize) -> Result<Option<Groups>> {
        let count = self.keys.number("expert_group_count")?;
        let used = self.keys.number("expert_group_used_count")?;
        if count < 2 {
            return Ok(None);
        }
        let fits = experts.is_multiple_of(count) && experts / count >= 2 && (1..=count).contains(&used);
        if !fits || used_experts > experts / count * used {
            return Err(Error::format(format!(
                "{used_experts} experts used of {experts} in {used} of {count} groups: groups have at least two experts each, all the same number"
            )));
        }
        Ok(Some(Groups { count, used }))
    }

    /// GLM 4.7 Flash: its files from before the key `expert_gating_func` are told by their sizes.
    fn is_glm_lite(&self) -> Result<bool> {
        let blocks = self.keys.count("block_count")?;
        Ok(self.architecture.latent && matches!(blocks, 47 | 48) && self.shape.vocab == 154_880)
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
        let mlp = self.mlp(["ffn_gate_shexp", "ffn_up_shexp", "ffn_down_shexp"].map(name), length)?;
        Ok(Shared { mlp, gate })
    }

    /// A block by the names of its matrices; without one for the gate, that is the first half of the up projection.
    fn mlp(&mut self, [gate, up, down]: [String; 3], length: usize) -> Result<Mlp> {
        let width = self.shape.embedding;
        let t = &mut self.tensors;
        let (gate, up) = match self.architecture.gated {
            false => (None, t.linear(&up, width, length)?),
            true if t.has(&format!("{gate}.weight")) => {
                (Some(t.linear(&gate, width, length)?), t.linear(&up, width, length)?)
            }
            true => {
                let [gate, up] = t.fused(&up, width, [length; 2])?;
                (Some(gate), up)
            }
        };
        let down = t.linear(&down, length, width)?;
        Ok(Mlp { gate, up, down, activation: self.architecture.activation })
    }
}
