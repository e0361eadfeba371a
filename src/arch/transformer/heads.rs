//! The heads of each layer, and whose keys and values they read.

use super::{Maker, recurrent};
use crate::arch::metadata::Keys;
use crate::arch::table::{Architecture, Sharing};
use crate::arch::{Heads, Interleaved, Projection};
use crate::error::{Error, Result};
use crate::operations::MAX_HEAD_DIM;

/// The heads of a layer by the keys, which may have a number for each layer, and other lengths for windows.
pub fn of_layer(
    architecture: &Architecture,
    keys: &Keys,
    embedding: usize,
    layer: usize,
    windowed: bool,
) -> Result<Heads> {
    let (count, kv_count) = recurrent::heads(architecture, keys, layer)?;
    if !count.is_multiple_of(kv_count) {
        return Err(Error::format(format!("{count} query heads are no multiple of {kv_count} key heads")));
    }
    let default = match recurrent::attends(architecture) {
        true => embedding / recurrent::heads(architecture, keys, 0)?.0,
        false => 1,
    };
    let length = |part: &str| {
        let full = keys.count_or(&format!("attention.{part}_length"), default)?;
        let dim = if windowed { keys.count_or(&format!("attention.{part}_length_swa"), full)? } else { full };
        match dim {
            1..=MAX_HEAD_DIM => Ok(dim),
            _ => Err(Error::unsupported(format!("heads of {dim} elements; 1 to {MAX_HEAD_DIM} are built in"))),
        }
    };
    Ok(Heads { count, kv_count, key_dim: length("key")?, value_dim: length("value")? })
}

impl Maker<'_> {
    /// How often pairs of a rotation follow each coordinate of a picture, where they do in turn.
    pub(super) fn interleaved(&self) -> Result<Option<Interleaved>> {
        const KEY: &str = "rope.dimension_sections";
        if !self.architecture.sections_interleave || !self.keys.has(KEY) {
            return Ok(None);
        }
        let section = |i| self.keys.number_at(KEY, i, 0);
        Ok(Some(Interleaved([section(0)?, section(1)?, section(2)?])))
    }

    /// Whether a layer has a sliding window.
    pub(super) fn has_window(&self, layer: u32) -> bool {
        self.window > 0 && self.windowed[layer as usize]
    }

    /// The heads of a layer; without one, those of the first layer, were it one with a window.
    pub(super) fn heads(&self, layer: Option<u32>) -> Result<Heads> {
        let windowed = layer.is_none_or(|i| self.has_window(i));
        of_layer(self.architecture, &self.keys, self.shape.embedding, layer.unwrap_or(0) as usize, windowed)
    }

    /// How many layers, from the first on, have keys and values of their own.
    pub(super) fn own_memory(&self) -> Result<usize> {
        const KEY: &str = "attention.shared_kv_layers";
        let own = match self.architecture.sharing {
            Sharing::None => return Ok(self.layers),
            Sharing::ByKeyOrFrom(first) if !self.keys.has(KEY) => first.min(self.layers),
            _ => {
                let shared = self.keys.number(KEY)?;
                let refused = || Error::format(format!("{shared} of {} layers share keys and values", self.layers));
                self.layers.checked_sub(shared).ok_or_else(refused)?
            }
        };
        let missing = |i: usize| own == 0 || self.source(i as u32, own).is_none();
        match (own..self.layers).find(|&i| missing(i)) {
            None => Ok(own),
            Some(i) => Err(Error::format(format!(
                "layer {i} shares the keys and values of an earlier layer, which none of the first {own} has of its kind"
            ))),
        }
    }

    /// The layer whose keys and values a sharing one reads: the last of its kind among the first `own`.
    fn source(&self, layer: u32, own: usize) -> Option<usize> {
        (0..own).rev().find(|&i| self.has_window(i as u32) == self.has_window(layer))
    }

    pub(super) fn projection(&mut self, i: u32, heads: Heads) -> Result<Projection> {
        let Heads { count, kv_count, key_dim, value_dim } = heads;
        let width = self.shape.embedding;
        let name = |part: &str| format!("blk.{i}.{part}");
        // Where attention is gated, each query is followed by its gate.
        let per_query = if self.architecture.gated_attention { 2 } else { 1 };
        let rows = [count * key_dim * per_query, kv_count * key_dim, kv_count * value_dim];
        let shared = if (i as usize) < self.own_memory { None } else { self.source(i, self.own_memory) };
        if self.tensors.has(&name("attn_qkv.weight")) {
            let [query, key, value] = self.tensors.fused(&name("attn_qkv"), width, rows)?;
            return Ok(Projection::Direct { query, key, value });
        }
        let [q, k, v] = ["attn_q", "attn_k", "attn_v"].map(name);
        let query = self.tensors.linear(&q, width, rows[0])?;
        if let Some(layer) = shared {
            let source = self.heads(Some(layer as u32))?;
            if (source.kv_count, source.key_dim, source.value_dim) != (kv_count, key_dim, value_dim) {
                return Err(Error::format(format!(
                    "layer {i} reads keys and values of layer {layer}, whose heads differ"
                )));
            }
            // Files have them, though nothing reads them.
            self.tensors.leave(&["attn_k.weight", "attn_v.weight", "attn_k_norm.weight"].map(name));
            return Ok(Projection::Shared { query, layer });
        }
        let key = self.tensors.linear(&k, width, rows[1])?;
        if self.architecture.value_norm && key_dim == value_dim && !self.tensors.has(&format!("{v}.weight")) {
            return Ok(Projection::Tied { query, key });
        }
        Ok(Projection::Direct { query, key, value: self.tensors.linear(&v, width, rows[2])? })
    }
}
