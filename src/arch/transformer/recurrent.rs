//! Which layers are recurrent, and what they are made of.

use super::Maker;
use crate::arch::hybrids::{RecurrentKind, Which};
use crate::arch::metadata::Keys;
use crate::arch::table::{Architecture, Positions};
use crate::arch::{
    Convolution, Delta, DeltaRows, DeltaStrength, Linear, Mixer, Norm, Recurrent, SpanNorm, StateSpace, VectorId,
};
use crate::error::{Error, Result};
use crate::operations::{MAX_KERNEL, MAX_KEY, StateHeads};

/// Sizes that say nothing in a model none of whose layers is recurrent.
pub(super) const SIZE_KEYS: &[&str] =
    &["ssm.conv_kernel", "ssm.inner_size", "ssm.state_size", "ssm.time_step_rank", "ssm.group_count"];

/// Whether any layer has attention.
pub(super) fn attends(architecture: &Architecture) -> bool {
    architecture.recurrent.is_none_or(|rule| rule.which != Which::All)
}

/// Heads of queries, and of keys and values, of a layer. Layers without attention may have none; where there are such, the
/// others are all alike.
pub(super) fn heads(architecture: &Architecture, keys: &Keys, layer: usize) -> Result<(usize, usize)> {
    const NAMES: [&str; 2] = ["attention.head_count", "attention.head_count_kv"];
    if !attends(architecture) {
        keys.ignore(&NAMES);
        return Ok((1, 1));
    }
    if architecture.recurrent.is_none() {
        let heads = keys.count_at(NAMES[0], layer)?;
        return Ok((heads, if keys.has(NAMES[1]) { keys.count_at(NAMES[1], layer)? } else { heads }));
    }
    let heads = keys.count_but_zeros(NAMES[0], None)?;
    let kv_heads = keys.count_but_zeros(NAMES[1], Some(heads))?;
    // Some files count the heads of the keys that the latent ones stand for.
    Ok((heads, if architecture.latent { 1 } else { kv_heads }))
}

/// The blocks that a layer has.
#[derive(Clone, Copy)]
pub(super) struct Blocks {
    pub attention: bool,
    pub recurrent: Option<RecurrentKind>,
    pub feed_forward: bool,
}

/// The sizes of a layer with a matrix for each head.
struct Sizes {
    kernel: usize,
    /// Elements of all values.
    inner: usize,
    /// Elements of all keys.
    keys: usize,
    groups: usize,
    heads: StateHeads,
}

impl Maker<'_> {
    pub(super) fn blocks(&self, i: u32) -> Result<Blocks> {
        let all = Blocks { attention: true, recurrent: None, feed_forward: true };
        let Some(rule) = self.architecture.recurrent else { return Ok(all) };
        let recurrent = Some(rule.kind);
        let instead = Blocks { attention: false, recurrent, ..all };
        let layer = i as usize;
        if layer >= self.layers {
            // One that predicts further tokens.
            return Ok(all);
        }
        let heads = || self.keys.number_at("attention.head_count_kv", layer, 1);
        Ok(match rule.which {
            Which::ByKey => {
                let flags = self.keys.flags("attention.recurrent_layers", self.layers)?;
                let interval = self.keys.count_or("full_attention_interval", 4)?;
                let is_recurrent = flags.map_or(!(layer + 1).is_multiple_of(interval), |flags| flags[layer]);
                if is_recurrent { instead } else { all }
            }
            Which::WithoutHeads => {
                if heads()? == 0 {
                    instead
                } else {
                    all
                }
            }
            Which::Alone => {
                if self.keys.number_at("feed_forward_length", layer, 0)? > 0 {
                    Blocks { attention: false, ..all }
                } else if heads()? == 0 {
                    Blocks { feed_forward: false, ..instead }
                } else {
                    Blocks { feed_forward: false, ..all }
                }
            }
            Which::All => Blocks { feed_forward: false, ..instead },
            Which::Beside => Blocks { recurrent, ..all },
        })
    }

    pub(super) fn recurrent(&mut self, i: u32, kind: RecurrentKind) -> Result<Recurrent> {
        let norm = self.layer_norm(i, self.first_of(i, self.architecture.norms.attention))?;
        let name = |part: &str| format!("blk.{i}.{part}");
        let width = self.shape.embedding;
        let (mixer, output, inner) = match kind {
            RecurrentKind::ShortConvolution => {
                let kernel = self.kernel("shortconv.l_cache")?;
                let parts = self.tensors.fused(&name("shortconv.in_proj"), width, [width; 3])?;
                let convolution = self.convolution(&name("shortconv.conv"), width, kernel)?;
                (Mixer::ShortConvolution { parts, convolution }, "shortconv.out_proj", width)
            }
            RecurrentKind::Delta { tiled } => {
                let sizes = self.sizes(tiled)?;
                (Mixer::Delta(self.delta(i, &sizes)?), "ssm_out", sizes.inner)
            }
            RecurrentKind::KimiDelta => {
                let delta = self.kimi_delta(i)?;
                let inner = delta.heads.count.saturating_mul(delta.heads.value);
                (Mixer::Delta(delta), "attn_output", inner)
            }
            RecurrentKind::StateSpace => {
                let sizes = self.sizes(false)?;
                (Mixer::StateSpace(self.state_space(i, &sizes)?), "ssm_out", sizes.inner)
            }
        };
        Ok(Recurrent { norm, mixer, output: self.tensors.linear(&name(output), inner, width)? })
    }

    fn kernel(&self, key: &str) -> Result<usize> {
        match self.keys.count(key)? {
            kernel if kernel <= MAX_KERNEL => Ok(kernel),
            kernel => {
                Err(Error::unsupported(format!("convolutions over {kernel} tokens; at most {MAX_KERNEL} are built in")))
            }
        }
    }

    fn sizes(&self, tiled: bool) -> Result<Sizes> {
        let kernel = self.kernel("ssm.conv_kernel")?;
        let [inner, key, count, groups] = ["ssm.inner_size", "ssm.state_size", "ssm.time_step_rank", "ssm.group_count"]
            .map(|key| self.keys.count(key));
        let (inner, key, count, groups) = (inner?, key?, count?, groups?);
        if !inner.is_multiple_of(count) || !count.is_multiple_of(groups) {
            return Err(Error::format(format!(
                "{inner} elements of values in {count} heads and {groups} groups of keys"
            )));
        }
        let heads = StateHeads { count, key_heads: groups, key, value: inner / count, tiled };
        Ok(Sizes { kernel, inner, keys: groups.saturating_mul(bounded(key)?), groups, heads })
    }

    /// `NAME.weight`, and `NAME.bias` where there is one.
    fn convolution(&mut self, name: &str, channels: usize, kernel: usize) -> Result<Convolution> {
        let (k, c) = (kernel as u64, channels as u64);
        let weights = self.tensors.vector_in(&format!("{name}.weight"), &[&[k, c], &[k, 1, c]])?;
        let bias = self.tensors.optional_vector(&format!("{name}.bias"), channels)?;
        Ok(Convolution { weights, bias, channels, kernel })
    }

    /// One number for each head.
    fn per_head(&mut self, name: &str, heads: usize) -> Result<VectorId> {
        self.tensors.vector_in(name, &[&[heads as u64], &[1, heads as u64]])
    }

    fn delta(&mut self, i: u32, sizes: &Sizes) -> Result<Delta> {
        let Sizes { kernel, inner, keys, heads, .. } = *sizes;
        let name = |part: &str| format!("blk.{i}.{part}");
        let width = self.shape.embedding;
        let channels = inner.saturating_add(keys.saturating_mul(2));
        let rows = if self.tensors.has(&name("attn_qkv.weight")) {
            let rows = self.tensors.linear(&name("attn_qkv"), width, channels)?;
            DeltaRows::Together { rows, gate: self.tensors.linear(&name("attn_gate"), width, inner)? }
        } else {
            DeltaRows::Grouped(self.tensors.linear(&name("ssm_in"), width, channels.saturating_add(inner))?)
        };
        let strength = if self.tensors.has(&name("ssm_ba.weight")) {
            DeltaStrength::Grouped(self.tensors.linear(&name("ssm_ba"), width, heads.count.saturating_mul(2))?)
        } else {
            let strength = self.tensors.linear(&name("ssm_beta"), width, heads.count)?;
            DeltaStrength::ByHead { strength, decay: self.tensors.linear(&name("ssm_alpha"), width, heads.count)? }
        };
        Ok(Delta {
            heads,
            rows,
            convolutions: [Some(self.convolution(&name("ssm_conv1d"), channels, kernel)?), None, None],
            strength,
            bias: self.tensors.vector(&name("ssm_dt.bias"), heads.count)?,
            factors: self.per_head(&name("ssm_a"), heads.count)?,
            norm: self.result_norm(i, heads.value)?,
        })
    }

    fn kimi_delta(&mut self, i: u32) -> Result<Delta> {
        let name = |part: &str| format!("blk.{i}.{part}");
        let (width, count) = (self.shape.embedding, self.shape.heads);
        let kernel = self.kernel("ssm.conv_kernel")?;
        let length = bounded(self.keys.count("kda.head_dim")?)?;
        let inner = count.saturating_mul(length);
        let parts = if self.tensors.has(&name("attn_qkv.weight")) {
            self.tensors.fused(&name("attn_qkv"), width, [inner; 3])?
        } else {
            let t = &mut self.tensors;
            let [q, k, v] = ["attn_q", "attn_k", "attn_v"].map(|part| t.linear(&name(part), width, inner));
            [q?, k?, v?]
        };
        let [q, k, v] = ["ssm_conv1d_q", "ssm_conv1d_k", "ssm_conv1d_v"]
            .map(|part| self.convolution(&name(part), inner, kernel).map(Some));
        let convolutions = [q?, k?, v?];
        let gate = self.low_rank([name("ssm_g_a"), name("ssm_g_b")], [width, length, inner])?;
        let decay = self.low_rank([name("ssm_f_a"), name("ssm_f_b")], [width, length, inner])?;
        let strength = self.tensors.linear(&name("ssm_beta"), width, count)?;
        Ok(Delta {
            heads: StateHeads { count, key_heads: count, key: length, value: length, tiled: false },
            rows: DeltaRows::Apart { parts, gate },
            convolutions,
            strength: DeltaStrength::ByElement { strength, decay },
            bias: self.tensors.vector(&name("ssm_dt.bias"), inner)?,
            factors: self.per_head(&name("ssm_a"), count)?,
            norm: self.result_norm(i, length)?,
        })
    }

    fn state_space(&mut self, i: u32, sizes: &Sizes) -> Result<StateSpace> {
        let Sizes { kernel, inner, keys, groups, heads } = *sizes;
        let name = |part: &str| format!("blk.{i}.{part}");
        let channels = inner.saturating_add(keys.saturating_mul(2));
        let norm = if self.tensors.has(&name("ssm_norm.weight")) {
            if !inner.is_multiple_of(groups) {
                return Err(Error::format(format!("{inner} elements of values in {groups} groups")));
            }
            let span = inner / groups;
            let weight = self.tensors.vector_of(&name("ssm_norm.weight"), &[span as u64, groups as u64])?;
            Some(SpanNorm { norm: Some(Norm { weight, bias: None }), span })
        } else {
            None
        };
        Ok(StateSpace {
            heads,
            parts: self.tensors.fused(&name("ssm_in"), self.shape.embedding, [inner, channels, heads.count])?,
            convolution: self.convolution(&name("ssm_conv1d"), channels, kernel)?,
            bias: self.tensors.vector(&name("ssm_dt.bias"), heads.count)?,
            factors: self.per_head(&name("ssm_a"), heads.count)?,
            skip: self.per_head(&name("ssm_d"), heads.count)?,
            norm,
        })
    }

    fn result_norm(&mut self, i: u32, span: usize) -> Result<SpanNorm> {
        let weight = self.tensors.vector(&format!("blk.{i}.ssm_norm.weight"), span)?;
        Ok(SpanNorm { norm: Some(Norm { weight, bias: None }), span })
    }

    fn low_rank(&mut self, [down, up]: [String; 2], [columns, rank, rows]: [usize; 3]) -> Result<[Linear; 2]> {
        Ok([self.tensors.linear(&down, columns, rank)?, self.tensors.linear(&up, rank, rows)?])
    }

    /// What compresses the input of a layer's experts and takes their sum back, and the width between.
    pub(super) fn latent_experts(&mut self, i: u32) -> Result<(Option<[Linear; 2]>, usize)> {
        let width = self.shape.embedding;
        let name = |part: &str| format!("blk.{i}.{part}");
        let rank = self.keys.number("moe_latent_size")?;
        if rank == 0 {
            return Ok((None, width));
        }
        let latent = self.low_rank([name("ffn_latent_down"), name("ffn_latent_up")], [width, rank, width])?;
        Ok((Some(latent), rank))
    }

    /// Elements of the part of a latent key that rotates where the model has a rotation.
    pub(super) fn rotated_elements(&self) -> Result<usize> {
        match (self.ropes.first(), self.architecture.positions) {
            (None, Positions::None) => self.keys.number("rope.dimension_count"),
            (rope, _) => Ok(rope.map_or(0, |rope| rope.dims)),
        }
    }
}

fn bounded(key: usize) -> Result<usize> {
    if key <= MAX_KEY {
        return Ok(key);
    }
    Err(Error::unsupported(format!("states of keys with {key} elements; at most {MAX_KEY} are built in")))
}
