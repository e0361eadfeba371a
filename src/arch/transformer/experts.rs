//! Experts: the router, the matrices of each, and the block that all tokens share.

use super::Maker;
use crate::arch::table::RouterDefaults;
use crate::arch::{Experts, Gating, Groups, RouterConfig, RouterInput, Shared};
use crate::error::{Error, Result};

/// Bounds the tables of a hostile file; real models have a few hundred.
const MAX_EXPERTS: usize = 1024;

impl Maker<'_> {
    pub(super) fn experts(&mut self, i: u32, count: usize, rule: RouterDefaults) -> Result<Experts> {
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
        let apart = if self.architecture.experts_apart { Some(self.apart(i)?) } else { None };
        let usual = if self.architecture.routed_early { RouterInput::Layer } else { RouterInput::Same };
        let (router, router_input) = match apart {
            None => (self.tensors.linear(&name("ffn_gate_inp"), width, count)?, usual),
            Some(_) => self.apart_router(i, count)?,
        };
        let shared = match apart {
            Some(_) => Some(self.apart_shared(i)?),
            None if self.tensors.has(&name("ffn_up_shexp.weight")) => Some(self.shared(i, length)?),
            None => None,
        };
        let [gate, up, down] = ["ffn_gate_exps", "ffn_up_exps", "ffn_down_exps"].map(name);
        let (latent, inner) = self.latent_experts(i)?;
        if latent.is_some() && apart.is_some() {
            return Err(Error::unsupported("latent experts beside the block that every layer has are not built in"));
        }
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
        let weighs_inputs = self.architecture.experts_weigh_inputs;
        let router_config = RouterConfig { gating, renormalised, scale, weighs_inputs, groups, bias };
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
            router_input,
            apart,
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
        let length = if self.architecture.experts_weigh_inputs {
            expert
        } else if self.keys.has("expert_shared_feed_forward_length") {
            self.keys.count("expert_shared_feed_forward_length")?
        } else if self.keys.has("expert_shared_count") {
            self.keys.count("expert_shared_count")?.saturating_mul(expert)
        } else {
            self.keys.count_at("feed_forward_length", i as usize)?
        };
        let gate = self.tensors.optional_vector(&name("ffn_gate_inp_shexp.weight"), self.shape.embedding)?;
        let mlp = self.mlp(["ffn_gate_shexp", "ffn_up_shexp", "ffn_down_shexp"].map(name), length)?;
        Ok(Shared { mlp, gate })
    }
}
