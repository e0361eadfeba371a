//! A feed-forward block of experts: the router's choice, and the blocks that it leads to.
//!
//! Experts are computed in ascending order, each once for all tokens that are routed to it, so that a token's sum is taken
//! in the same order whatever other tokens share the sweep.

use super::{Buffers, Step};
use crate::arch::{Choice, Experts, FeedForward, Gating, Linear, Shared};
use crate::error::Result;
use crate::kernel::page::Then;
use crate::kernel::{Isa, rows, vector};
use crate::session::scratch::Route;
use crate::weights::Sweep;

impl Step<'_> {
    pub fn experts(
        &self,
        e: &Experts,
        f: &FeedForward,
        parallel: bool,
        b: &mut Buffers,
        sweep: &mut Sweep,
    ) -> Result<()> {
        let width = self.model.description().shape.embedding;
        let n = self.tokens;
        let from = if parallel { &b.before[..b.x.len()] } else { &*b.x };
        let (normed, rest) = b.work.split_at_mut(n * width);
        let (mixed, rest) = rest.split_at_mut(n * width);
        let (scores, work) = rest.split_at_mut(n * e.count);
        let input = self.normed(f.norm, from, normed);

        let stage = e.first_stage();
        let acts = self.quantize(&stage, input, b.forms);
        self.multiply(e.router, &acts, scores, Then::Keep, sweep)?;
        let bias = e.choice.bias.map(|bias| self.model.vector(bias));
        choose(self.isa, e, bias, scores, b.ranking, b.routes);
        let schedule = self.model.engine().schedule();
        let chosen = b.routes.chunk_by(|a, b| a.expert == b.expert).map(|routes| routes[0].expert as usize);
        sweep.route(chosen.flat_map(|expert| e.matrices(expert)).flat_map(|m| schedule.matrix(m).pages()));

        match &e.shared {
            None => mixed.fill(0.0),
            Some(Shared { mlp, gate }) => {
                let inner = self.inner(mlp, &acts, work, sweep)?;
                let acts = self.quantize(&[mlp.down], inner, b.forms);
                self.multiply(mlp.down, &acts, mixed, Then::Keep, sweep)?;
                if let Some(gate) = gate.map(|gate| self.model.vector(gate)) {
                    rows::for_rows(self.pool, mixed, width, |t, row| {
                        let score = vector::dot_f32(self.isa, &input[t * width..][..width], gate);
                        vector::scale(self.isa, row, sigmoid(score));
                    });
                }
            }
        }
        for routes in b.routes.chunk_by(|a, b| a.expert == b.expert) {
            self.expert(e, routes, input, mixed, work, b.forms, sweep)?;
        }
        self.add_normed([f.post_norm, f.sum_norm], mixed, b.x);
        Ok(())
    }

    /// Adds what one expert makes of the rows of `input` that are routed to it to those rows of `mixed`.
    #[allow(clippy::too_many_arguments)]
    fn expert(
        &self,
        e: &Experts,
        routes: &[Route],
        input: &[f32],
        mixed: &mut [f32],
        work: &mut [f32],
        forms: &mut [u8],
        sweep: &mut Sweep,
    ) -> Result<()> {
        let width = self.model.description().shape.embedding;
        let step = Step { tokens: routes.len(), ..*self };
        let expert = routes[0].expert as usize;
        let [gate, up, down] = e.matrices(expert);
        let after = |part: usize, length: usize| {
            let scale = e.scales[part].map(|s| self.model.vector(s)[expert]);
            (scale, e.biases[part].map(|b| &self.model.vector(b)[expert * length..][..length]))
        };
        let length = self.rows_of(up);
        let (gathered, rest) = work.split_at_mut(routes.len() * width);
        let (ups, rest) = rest.split_at_mut(routes.len() * length);
        let gates = &mut rest[..routes.len() * length];
        for (route, row) in routes.iter().zip(gathered.chunks_exact_mut(width)) {
            row.copy_from_slice(&input[route.token as usize * width..][..width]);
        }
        let acts = step.quantize(&[gate, up].map(Linear::plain), gathered, forms);
        step.multiply_with(gate, after(0, length), &acts, gates, Then::Keep, sweep)?;
        step.multiply_with(up, after(1, length), &acts, ups, Then::Gate(e.activation, gates), sweep)?;
        let acts = step.quantize(&[Linear::plain(down)], ups, forms);
        step.multiply_with(down, after(2, width), &acts, gathered, Then::Keep, sweep)?;
        for (route, row) in routes.iter().zip(gathered.chunks_exact(width)) {
            vector::add_scaled(self.isa, &mut mixed[route.token as usize * width..][..width], row, route.weight);
        }
        Ok(())
    }
}

/// The experts of each token by its row of `scores`, which change, and `bias`, in ascending order of experts, then of tokens.
fn choose(
    isa: Isa,
    e: &Experts,
    bias: Option<&[f32]>,
    scores: &mut [f32],
    ranking: &mut Vec<u32>,
    routes: &mut Vec<Route>,
) {
    routes.clear();
    for (token, scores) in scores.chunks_exact_mut(e.count).enumerate() {
        match e.choice.gating {
            Gating::Softmax => vector::softmax_in_place(isa, scores),
            Gating::Sigmoid => scores.iter_mut().for_each(|score| *score = sigmoid(*score)),
            Gating::SoftmaxOfChosen => {}
        }
        ranking.clear();
        ranking.extend(0..e.count as u32);
        // Of equals the first. A total order, so that the choice does not depend on how it is found.
        let rank = |expert: u32| scores[expert as usize] + bias.map_or(0.0, |bias| bias[expert as usize]);
        let order = |a: &u32, b: &u32| rank(*b).total_cmp(&rank(*a)).then(a.cmp(b));
        ranking.select_nth_unstable_by(e.used - 1, order);
        let chosen = &mut ranking[..e.used];
        chosen.sort_unstable();
        let first = routes.len();
        routes.extend(chosen.iter().map(|&expert| Route {
            expert,
            token: token as u32,
            weight: scores[expert as usize],
        }));
        weigh(&e.choice, &mut routes[first..]);
    }
    routes.sort_unstable_by_key(|r| (r.expert, r.token));
}

/// Weights are not divided by less than this, the least half float that is normal: as models are trained and run elsewhere.
const LEAST_SUM: f32 = 6.103_515_6e-5;

/// Makes weights of a token's chosen scores.
fn weigh(choice: &Choice, routes: &mut [Route]) {
    if choice.gating == Gating::SoftmaxOfChosen {
        let max = routes.iter().fold(f32::NEG_INFINITY, |max, r| max.max(r.weight));
        routes.iter_mut().for_each(|r| r.weight = (r.weight - max).exp());
    }
    let sum: f32 = routes.iter().map(|r| r.weight).sum();
    let divided = choice.renormalised || choice.gating == Gating::SoftmaxOfChosen;
    let factor = if divided { choice.scale / sum.max(LEAST_SUM) } else { choice.scale };
    routes.iter_mut().for_each(|r| r.weight *= factor);
}

fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}
