//! What some models have beside the two blocks of a layer: inputs of each layer's own, several residual streams, and
//! experts beside the block that every layer has.

use super::Maker;
use crate::arch::table::Positions;
use crate::arch::{
    Apart, LayerInput, LayerInputs, LayerStreams, Linear, LowRank, MAX_STREAMS, Norm, RouterInput, Shared, Slopes,
    Streams, VectorId,
};
use crate::error::{Error, Result};
use crate::operations::Activation;

/// Of the first layers of models with streams, gates are sparse: what exceeds the 95th percentile of a normal
/// distribution is left.
const SPARSE: (usize, f32) = (10, 1.644_853_6);

impl Maker<'_> {
    pub(super) fn layer_inputs(&mut self) -> Result<Option<LayerInputs>> {
        let Some(default) = self.architecture.layer_inputs else { return Ok(None) };
        const KEY: &str = "embedding_length_per_layer_input";
        let width = if self.keys.has(KEY) { self.keys.number(KEY)? } else { default };
        if width == 0 {
            return Ok(None);
        }
        let (embedding, vocab) = (self.shape.embedding, self.shape.vocab);
        let all = width.saturating_mul(self.layers);
        let t = &mut self.tensors;
        let projection = Linear::plain(t.matrix("per_layer_model_proj.weight", embedding, all)?);
        let norm = self.norm("per_layer_proj_norm", width)?;
        Ok(Some(LayerInputs {
            table: self.tensors.table("per_layer_token_embd.weight", all, vocab)?,
            table_scale: (width as f32).sqrt(),
            projection,
            projection_scale: 1.0 / (embedding as f32).sqrt(),
            norm,
            width,
        }))
    }

    pub(super) fn layer_input(&mut self, i: u32, width: usize) -> Result<LayerInput> {
        let name = |part: &str| format!("blk.{i}.{part}");
        let embedding = self.shape.embedding;
        Ok(LayerInput {
            gate: self.tensors.linear(&name("inp_gate"), embedding, width)?,
            activation: self.architecture.activation,
            output: self.tensors.linear(&name("proj"), width, embedding)?,
            norm: self.norm(&name("post_norm"), embedding)?,
        })
    }

    pub(super) fn streams(&mut self) -> Result<Option<Streams>> {
        if !self.architecture.streams {
            return Ok(None);
        }
        let (count, active) = (self.stream_count()?, self.keys.number("altup.active_idx")?);
        if !(2..=MAX_STREAMS).contains(&count) || active != 0 {
            return Err(Error::unsupported(format!(
                "{count} residual streams of which layers compute number {active}: 2 to {MAX_STREAMS} of which they compute the first are built in"
            )));
        }
        let embedding = self.shape.embedding;
        Ok(Some(Streams {
            count,
            spread: self.tensors.heads("altup_proj.weight", embedding, embedding, count - 1)?,
            merge: self.tensors.heads("altup_unembd_proj.weight", embedding, embedding, count - 1)?,
        }))
    }

    fn stream_count(&self) -> Result<usize> {
        self.keys.count_or("altup.num_inputs", 4)
    }

    pub(super) fn layer_streams(&mut self, i: u32) -> Result<LayerStreams> {
        let name = |part: &str| format!("blk.{i}.altup_{part}");
        let (embedding, n) = (self.shape.embedding, self.stream_count()? as u64);
        let norm = self.norm(&name("router_norm"), embedding)?;
        let mut vector = |part: &str, dims: &[u64]| -> Result<VectorId> {
            self.tensors.vector_of(&format!("{}.weight", name(part)), dims)
        };
        Ok(LayerStreams {
            norm,
            router: vector("router", &[embedding as u64, n])?,
            predict: vector("predict_coef", &[n, n * n])?,
            correct: vector("correct_coef", &[n, n])?,
            correct_scale: vector("correct_scale", &[embedding as u64])?,
        })
    }

    pub(super) fn low_rank_block(&mut self, i: u32) -> Result<LowRank> {
        let name = |part: &str| format!("blk.{i}.laurel_{part}");
        let embedding = self.shape.embedding;
        let rank = self.tensors.rows(&format!("{}.weight", name("l")));
        Ok(LowRank {
            down: self.tensors.linear(&name("l"), embedding, rank)?,
            up: self.tensors.linear(&name("r"), rank, embedding)?,
            norm: self.norm(&name("post_norm"), embedding)?,
        })
    }

    /// How sparse the gate of a layer is; see [`crate::arch::Mlp::sparsity`].
    pub(super) fn sparsity(&self, i: u32) -> Result<Option<f32>> {
        if !self.architecture.streams {
            return Ok(None);
        }
        let (layers, factor) = SPARSE;
        let default = if (i as usize) < layers { factor } else { f32::NEG_INFINITY };
        let factor = self.keys.float_at("activation_sparsity_scale", i as usize)?.unwrap_or(default);
        Ok(Some(factor).filter(|&factor| factor > f32::NEG_INFINITY))
    }

    /// Two matrices that embeddings go through, in files that have them.
    pub(super) fn dense(&mut self) -> Result<Option<[Linear; 2]>> {
        let embedding = self.shape.embedding;
        if !self.architecture.dense {
            return Ok(None);
        }
        self.keys.ignore(&["dense_2_feat_in", "dense_2_feat_out", "dense_3_feat_in", "dense_3_feat_out"]);
        if !self.tensors.has("dense_2.weight") {
            return Ok(None);
        }
        let inner = self.tensors.rows("dense_2.weight");
        Ok(Some([self.tensors.linear("dense_2", embedding, inner)?, self.tensors.linear("dense_3", inner, embedding)?]))
    }

    /// How scores are lessened by distance, where positions get in by that.
    pub(super) fn slopes(&self) -> Result<Option<Slopes>> {
        if self.architecture.positions != Positions::Slopes {
            return Ok(None);
        }
        let max_bias = self.keys.factor("attention.max_alibi_bias")?.unwrap_or(8.0);
        Ok(Some(Slopes { max_bias }))
    }

    /// The function of feed-forward blocks.
    pub(super) fn activation(&self) -> Result<Activation> {
        if !self.architecture.activation_by_key {
            return Ok(self.architecture.activation);
        }
        match self.keys.text("hidden_activation")? {
            None => Ok(self.architecture.activation),
            Some("gelu") => Ok(Activation::Gelu),
            Some("gelu_pytorch_tanh" | "gelu_new") => Ok(Activation::GeluTanh),
            Some("silu" | "swish") => Ok(Activation::Silu),
            Some(other) => Err(Error::unsupported(format!("hidden_activation {other:?} is not built in"))),
        }
    }

    /// The norms of experts beside the block that every layer has.
    pub(super) fn apart(&mut self, i: u32) -> Result<Apart> {
        let embedding = self.shape.embedding;
        let mut norm = |part: &str| self.norm(&format!("blk.{i}.{part}"), embedding);
        Ok(Apart {
            input: norm("pre_ffw_norm_2")?,
            post: norm("post_ffw_norm_2")?,
            shared_post: norm("post_ffw_norm_1")?,
        })
    }

    /// Their router, whose input is x normed and multiplied by `ffn_gate_inp.scale` / √width.
    pub(super) fn apart_router(&mut self, i: u32, count: usize) -> Result<(Linear, RouterInput)> {
        let embedding = self.shape.embedding;
        let weight = self.tensors.matrix(&format!("blk.{i}.ffn_gate_inp.weight"), embedding, count)?;
        let norm = self.tensors.vector(&format!("blk.{i}.ffn_gate_inp.scale"), embedding)?;
        let norm = Norm { weight: norm, bias: None };
        Ok((Linear::plain(weight), RouterInput::Normed { norm, scale: 1.0 / (embedding as f32).sqrt() }))
    }

    /// The block that stands beside them.
    pub(super) fn apart_shared(&mut self, i: u32) -> Result<Shared> {
        let length = self.keys.count_at("feed_forward_length", i as usize)?;
        let names = ["ffn_gate", "ffn_up", "ffn_down"].map(|part| format!("blk.{i}.{part}"));
        Ok(Shared { mlp: self.mlp(names, length)?, gate: None })
    }
}
