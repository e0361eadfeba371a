//! Latent attention.

use super::{LOG_MULTIPLIER, Maker};
use crate::arch::{Latent, Shape};
use crate::error::{Error, Result};
use crate::kernel::rope::Scaling;

impl Maker<'_> {
    pub(super) fn latent(&mut self, i: u32) -> Result<Latent> {
        let Shape { embedding, heads, kv_heads, key_dim, value_dim: latent, .. } = self.shape;
        let name = |part: &str| format!("blk.{i}.{part}");
        let whole = self.latent_head()?;
        let head_value = self.keys.count("attention.value_length_mla")?;
        let rotated = self.rotated_elements()?;
        if kv_heads != 1 || key_dim != latent + rotated || whole <= rotated {
            return Err(Error::format(format!(
                "latent attention with {kv_heads} key heads of {key_dim} elements, {rotated} of them rotated, and values of {latent}; heads of {whole}"
            )));
        }
        let rank = self.keys.number("attention.q_lora_rank")?;
        let direct = self.tensors.has(&name("attn_q.weight"));
        let queries = heads.saturating_mul(whole);
        let (part, rows) = if direct { ("attn_q", queries) } else { ("attn_q_a", rank) };
        let first = self.tensors.linear(&name(part), embedding, rows)?;
        let key_value = self.tensors.linear(&name("attn_kv_a_mqa"), embedding, key_dim)?;
        let (query, query_down) = if direct {
            (first, None)
        } else {
            let query = self.tensors.linear(&name("attn_q_b"), rank, queries)?;
            (query, Some((first, self.norm(&name("attn_q_a_norm"), rank)?)))
        };
        let plain = whole - rotated;
        Ok(Latent {
            query_down,
            query,
            key_value,
            norm: self.norm(&name("attn_kv_a_norm"), latent)?,
            key: self.tensors.heads(&name("attn_k_b.weight"), plain, latent, heads)?,
            value: self.tensors.heads(&name("attn_v_b.weight"), latent, head_value, heads)?,
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
    pub(super) fn latent_scale(&self) -> Result<f32> {
        let scale = 1.0 / (self.latent_head()? as f32).sqrt();
        let multiplier = self.keys.float(LOG_MULTIPLIER)?.unwrap_or(0.0);
        Ok(match self.ropes.first().map(|rope| rope.scaling) {
            Some(Scaling::Yarn { factor, .. }) => scale * (1.0 + multiplier * factor.ln() as f32).powi(2),
            _ => scale,
        })
    }
}
