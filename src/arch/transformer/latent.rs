//! Latent attention.

use super::{LOG_MULTIPLIER, Maker};
use crate::arch::{Expanded, Heads, Latent, Linear, Norm, Projection, Shape};
use crate::elementary::{self, wide};
use crate::error::{Error, Result};
use crate::operations::Scaling;

impl Maker<'_> {
    /// The projection of a layer, and the elements of a head's result.
    pub(super) fn latent(&mut self, i: u32, heads: Heads) -> Result<(Projection, usize)> {
        if self.is_expanded() {
            return self.expanded(i, heads);
        }
        let Shape { heads, kv_heads, key_dim, value_dim: latent, .. } = self.shape;
        let name = |part: &str| format!("blk.{i}.{part}");
        let whole = self.latent_head()?;
        let head_value = self.keys.count("attention.value_length_mla")?;
        let rotated = self.rotated_elements()?;
        if kv_heads != 1 || key_dim != latent + rotated || whole <= rotated {
            return Err(Error::format(format!(
                "latent attention with {kv_heads} key heads of {key_dim} elements, {rotated} of them rotated, and values of {latent}; heads of {whole}"
            )));
        }
        let (query_down, query, key_value) = self.first_stage(i, heads.saturating_mul(whole), key_dim)?;
        let plain = whole - rotated;
        let latent = Latent {
            query_down,
            query,
            key_value,
            norm: self.norm(&name("attn_kv_a_norm"), latent)?,
            key: self.tensors.heads(&name("attn_k_b.weight"), plain, latent, heads)?,
            value: self.tensors.heads(&name("attn_v_b.weight"), latent, head_value, heads)?,
            plain,
            rotated,
            head_value,
        };
        Ok((Projection::Latent(latent), head_value))
    }

    /// What compresses the input before the queries, the queries, and what makes latent and rotated key.
    #[allow(clippy::type_complexity)] // Taken apart where it goes.
    fn first_stage(&mut self, i: u32, queries: usize, keys: usize) -> Result<(Option<(Linear, Norm)>, Linear, Linear)> {
        let name = |part: &str| format!("blk.{i}.{part}");
        let embedding = self.shape.embedding;
        let rank = self.keys.number("attention.q_lora_rank")?;
        let direct = self.tensors.has(&name("attn_q.weight"));
        let (part, rows) = if direct { ("attn_q", queries) } else { ("attn_q_a", rank) };
        let first = self.tensors.linear(&name(part), embedding, rows)?;
        let key_value = self.tensors.linear(&name("attn_kv_a_mqa"), embedding, keys)?;
        if direct {
            return Ok((None, first, key_value));
        }
        let query = self.tensors.linear(&name("attn_q_b"), rank, queries)?;
        Ok((Some((first, self.norm(&name("attn_q_a_norm"), rank)?)), query, key_value))
    }

    /// Whether the file has one matrix for keys and values of each head, as files from before `key_length_mla` do.
    fn is_expanded(&self) -> bool {
        !self.keys.has("attention.key_length_mla")
    }

    fn expanded(&mut self, i: u32, heads: Heads) -> Result<(Projection, usize)> {
        let Heads { count, kv_count, key_dim, value_dim } = heads;
        let name = |part: &str| format!("blk.{i}.{part}");
        let rotated = self.rotated_elements()?;
        if kv_count != count || key_dim <= rotated {
            return Err(Error::format(format!(
                "latent attention with {kv_count} key heads for {count} query heads of {key_dim} elements, {rotated} of them rotated"
            )));
        }
        let (latent, plain) = (self.keys.count("attention.kv_lora_rank")?, key_dim - rotated);
        let (query_down, query, key_value) = self.first_stage(i, count * key_dim, latent.saturating_add(rotated))?;
        let norm = self.norm(&name("attn_kv_a_norm"), latent)?;
        let expand = self.tensors.linear(&name("attn_kv_b"), latent, count * (plain + value_dim))?;
        let expanded = Expanded { query_down, query, key_value, norm, expand, latent, plain, rotated };
        Ok((Projection::Expanded(expanded), value_dim))
    }

    /// Elements of a head's query before it is taken into the space of the latents.
    fn latent_head(&self) -> Result<usize> {
        self.keys.count(if self.is_expanded() { "attention.key_length" } else { "attention.key_length_mla" })
    }

    /// 1/√(length of a head), and with YaRN (1 + m·ln(factor))² more, m being `yarn_log_multiplier`.
    pub(super) fn latent_scale(&self) -> Result<f32> {
        let scale = 1.0 / (self.latent_head()? as f32).sqrt();
        let multiplier = self.keys.float(LOG_MULTIPLIER)?.unwrap_or(0.0);
        Ok(match self.ropes.first().map(|rope| rope.scaling) {
            Some(Scaling::Yarn { factor, .. }) => {
                scale * elementary::power(1.0 + multiplier * wide::ln(factor) as f32, 2)
            }
            _ => scale,
        })
    }
}
