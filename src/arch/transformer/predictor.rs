//! The layer of a file that predicts further tokens ("nextn").

use super::{Maker, PREDICTING};
use crate::arch::table::Positions;
use crate::arch::{Described, Description, Linear, Predictor};
use crate::error::{Error, Result};

impl Maker<'_> {
    /// Describes the first of the layers that predict further tokens. Embedding, head and final norm are the layer's own
    /// where it has them, else the model's.
    pub(super) fn describe_predictor(mut self) -> Result<Described> {
        let architecture = self.architecture.name;
        if self.keys.number(PREDICTING)? == 0 {
            return Err(Error::unsupported(format!(
                "the file has no layer that predicts further tokens: metadata key \"{architecture}.{PREDICTING}\" is 0 or missing"
            )));
        }
        let (true, Positions::Rotary(pairing)) = (self.architecture.predictor, self.architecture.positions) else {
            return Err(Error::unsupported(format!(
                "the layer that predicts further tokens of architecture {architecture:?} is not built in"
            )));
        };
        let embedding = self.shape.embedding;
        let block = self.layers as u32;
        let name = |part: &str| format!("blk.{block}.nextn.{part}");
        let predictor = Predictor {
            embedding_norm: self.norm(&name("enorm"), embedding)?,
            hidden_norm: self.norm(&name("hnorm"), embedding)?,
            projection: self.tensors.linear(&name("eh_proj"), embedding.saturating_mul(2), embedding)?,
        };
        self.ropes(pairing)?;
        self.windowed = self.windows(self.layers + 1)?;
        // It has keys and values of its own.
        self.own_memory = self.layers + 1;
        let layer = self.layer(block, 0)?;
        let norm = self.first_with_weight([name("shared_head_norm"), "output_norm".into()]);
        let output_norm = Some(self.norm(&norm, embedding)?);
        let table = self.first_with_weight([name("embed_tokens"), "token_embd".into()]);
        let own_head = self.first_with_weight([name("shared_head_head"), "output".into()]);
        let tied = !self.tensors.has(&format!("{own_head}.weight"));
        let head = match tied {
            true => Linear::plain(self.tensors.matrix("token_embd.weight", embedding, self.shape.vocab)?),
            false => self.tensors.linear(&own_head, embedding, self.shape.vocab)?,
        };
        let embedding = match tied && table == "token_embd" {
            true => head.weight,
            false => self.tensors.table(&format!("{table}.weight"), embedding, self.shape.vocab)?,
        };
        let [_, logit_softcap] = self.softcaps()?;
        let description = Description {
            shape: self.shape,
            ropes: std::mem::take(&mut self.ropes),
            embedding,
            embedding_scale: 1.0,
            token_type: None,
            predictor: Some(predictor),
            positions: None,
            embedding_norm: None,
            layer_inputs: None,
            streams: None,
            layers: vec![layer],
            residual_scale: 1.0,
            causal: true,
            output_norm,
            dense: None,
            classifier: None,
            labels: None,
            head: Some(head),
            logit_scale: self.logit_scale()?,
            logit_softcap,
        };
        let own = format!("blk.{block}.");
        self.tensors.finish(description, |name| !name.starts_with(&own))
    }

    /// The first of these names that the file has weights of, else the last.
    fn first_with_weight(&self, [own, other]: [String; 2]) -> String {
        if self.tensors.has(&format!("{own}.weight")) { own } else { other }
    }
}
