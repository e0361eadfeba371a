//! Experts: the router's choice, and the blocks that it leads to.

use super::{Run, Work};
use crate::arch::{Experts, Gating, Groups, RouterConfig, VectorId};
use crate::elementary;
use crate::error::Result;
use crate::exec::program::{Buffer, Step};
use crate::exec::scratch::{APART_TOKENS, Arena, Lists, Route};
use crate::kernel::{Isa, rows, vector};
use crate::order;
use crate::weights::frames::Memory;
use crate::weights::{RoutedExpert, Sweep};

/// The expert that the steps of a body are for.
#[derive(Clone, Copy)]
pub(super) struct Chosen<'a> {
    pub experts: &'a Experts,
    pub number: usize,
    /// Its tokens, ascending.
    pub routes: &'a [Route],
    /// Where these begin among all routes.
    pub start: usize,
}

impl Run<'_> {
    /// Chooses the experts of each token, and announces their pages.
    pub(super) fn route(&self, e: &Experts, scores: Buffer, w: &mut Work, sweep: &mut Sweep) {
        let bias = e.router_config.bias.map(|bias| self.loaded.vector(bias));
        let [scores] = w.arena.slices(self.rows, [scores]);
        let Lists { routes, ranking, order, .. } = &mut *w.lists;
        choose(self.isa, e, bias, scores, ranking, routes);
        // The expert's number in the schedule, and where its routes begin.
        let schedule = self.loaded.engine.schedule();
        let mut start = 0;
        order.clear();
        order.extend(routes.chunk_by(same_expert).map(|routes| {
            let matrix = e.matrices(routes[0].expert as usize)[0];
            let expert = schedule.expert_of(matrix).expect("an expert's matrices are in the schedule as such");
            start += routes.len() as u32;
            RoutedExpert { expert: expert as u32, tag: start - routes.len() as u32 }
        }));
        sweep.route(order, self.rows <= APART_TOKENS);
    }

    /// Runs the router of the layer that follows on what `body` makes, where experts of it may be missing, and announces what
    /// it would choose.
    pub(super) fn foresee(
        &self,
        e: &Experts,
        (input, scores): (Buffer, Buffer),
        body: &[Step],
        w: &mut Work,
        sweep: &mut Sweep,
    ) -> Result<()> {
        if self.rows > APART_TOKENS {
            return Ok(());
        }
        let schedule = self.loaded.engine.schedule();
        let number = |expert: usize| schedule.expert_of(e.matrices(expert)[0]).expect("an expert is in the schedule");
        let Some(held) = sweep.foresees(number(0), self.matrix(e.router.weight).pages()) else { return Ok(()) };
        self.steps(body, w, sweep)?;
        let contents = w.arena.contents(input);
        let [input, scores] = w.arena.slices(self.rows, [input, scores]);
        self.multiply_held(e.router, &self.made(contents, input), scores, &held);
        drop(held);
        let bias = e.router_config.bias.map(|bias| self.loaded.vector(bias));
        let Lists { foreseen, ranking, .. } = &mut *w.lists;
        choose(self.isa, e, bias, scores, ranking, foreseen);
        ranking.clear();
        ranking.extend(0..foreseen.len() as u32);
        order::sort(ranking, &mut |a, b| {
            let [a, b] = [a, b].map(|i| &foreseen[i as usize]);
            b.weight.total_cmp(&a.weight).then(a.expert.cmp(&b.expert))
        });
        ranking.iter_mut().for_each(|i| *i = number(foreseen[*i as usize].expert as usize) as u32);
        sweep.foresee(ranking);
        Ok(())
    }

    /// rows ·= σ(gate·from).
    pub(super) fn scale_by_gate(&self, gate: VectorId, from: Buffer, rows: Buffer, arena: &mut Arena) {
        let gate = self.loaded.vector(gate);
        let width = arena.width(rows);
        let [from, rows] = arena.slices(self.rows, [from, rows]);
        rows::for_rows(self.pool, rows, width, |t, row| {
            let score = vector::dot_f32(self.isa, &from[t * width..][..width], gate);
            vector::scale(self.isa, row, sigmoid(score));
        });
    }

    /// Runs `body` for each chosen expert. Sums are made in the ascending order of experts, whichever comes first.
    pub(super) fn for_each_expert(&self, e: &Experts, body: &[Step], w: &mut Work, sweep: &mut Sweep) -> Result<()> {
        // Beside the other lists, which the steps of the body may use.
        let (routes, order) = (std::mem::take(&mut w.lists.routes), std::mem::take(&mut w.lists.order));
        let result = order.iter().try_for_each(|&RoutedExpert { tag: start, .. }| {
            let rest = &routes[start as usize..];
            let routes = rest.chunk_by(same_expert).next().unwrap_or(rest);
            let chosen = Chosen { experts: e, number: routes[0].expert as usize, routes, start: start as usize };
            Run { rows: routes.len(), expert: Some(chosen), ..*self }.steps(body, w, sweep)
        });
        if result.is_ok()
            && self.rows <= APART_TOKENS
            && let Some((to, weighted)) = body.iter().find_map(Step::scattered)
        {
            let width = w.arena.width(to);
            let [to] = w.arena.slices(self.rows, [to]);
            for (route, row) in routes.iter().zip(w.lists.apart.as_slice::<f32>().chunks_exact(width)) {
                let weight = if weighted { route.weight } else { 1.0 };
                vector::add_scaled(self.isa, &mut to[route.token as usize * width..][..width], row, weight);
            }
        }
        (w.lists.routes, w.lists.order) = (routes, order);
        result
    }

    fn routes(&self) -> &[Route] {
        self.expert.map_or(&[], |chosen| chosen.routes)
    }

    /// The rows of the expert's tokens, weighted or not.
    pub(super) fn gather(&self, from: Buffer, to: Buffer, weighted: bool, arena: &mut Arena) {
        let width = arena.width(to);
        let [from, to] = arena.slices(self.batch.tokens.len(), [from, to]);
        for (route, row) in self.routes().iter().zip(to.chunks_exact_mut(width)) {
            row.copy_from_slice(&from[route.token as usize * width..][..width]);
            if weighted {
                vector::scale(self.isa, row, route.weight);
            }
        }
    }

    /// Adds the expert's rows, weighted or not, to those of its tokens; of few tokens it keeps them apart, to be added when
    /// those of all experts are there.
    pub(super) fn scatter(&self, from: Buffer, to: Buffer, weighted: bool, arena: &mut Arena, apart: &mut Memory) {
        let width = arena.width(to);
        if self.batch.tokens.len() <= APART_TOKENS {
            let [from] = arena.slices(self.rows, [from]);
            let start = self.expert.map_or(0, |chosen| chosen.start) * width;
            apart.as_slice_mut::<f32>()[start..][..from.len()].copy_from_slice(from);
            return;
        }
        let [from, to] = arena.slices(self.batch.tokens.len(), [from, to]);
        for (route, row) in self.routes().iter().zip(from.chunks_exact(width)) {
            let weight = if weighted { route.weight } else { 1.0 };
            vector::add_scaled(self.isa, &mut to[route.token as usize * width..][..width], row, weight);
        }
    }
}

fn same_expert(a: &Route, b: &Route) -> bool {
    a.expert == b.expert
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
        match e.router_config.gating {
            Gating::Softmax => vector::softmax_in_place(isa, scores),
            Gating::Sigmoid => scores.iter_mut().for_each(|score| *score = sigmoid(*score)),
            Gating::SoftmaxOfChosen | Gating::SigmoidOfChosen => {}
        }
        ranking.clear();
        ranking.extend(0..e.count as u32);
        // Of equals the first. A total order, so that the choice does not depend on how it is found.
        let rank = |expert: u32| scores[expert as usize] + bias.map_or(0.0, |bias| bias[expert as usize]);
        if let Some(groups) = e.router_config.groups {
            keep_best_groups(groups, e.count, &rank, ranking);
        }
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
        weigh(&e.router_config, &mut routes[first..]);
    }
    routes.sort_unstable_by_key(|r| (r.expert, r.token));
}

/// Leaves the experts of the groups with the greatest sums of their two best ranks in `ranking`, of equals the first.
fn keep_best_groups(groups: Groups, experts: usize, rank: &impl Fn(u32) -> f32, ranking: &mut Vec<u32>) {
    let size = experts / groups.count;
    let score = |group: usize| {
        let mut best = [f32::NEG_INFINITY; 2];
        for score in (group * size..(group + 1) * size).map(|expert| rank(expert as u32)) {
            if score > best[0] {
                best = [score, best[0]];
            } else if score > best[1] {
                best[1] = score;
            }
        }
        best[0] + best[1]
    };
    let before = |a: usize, b: usize| score(a).total_cmp(&score(b)).then(b.cmp(&a)).is_gt();
    let mut kept = 0;
    for group in 0..groups.count {
        if (0..groups.count).filter(|&other| before(other, group)).count() < groups.used {
            ranking.copy_within(group * size..(group + 1) * size, kept);
            kept += size;
        }
    }
    ranking.truncate(kept);
}

/// Weights are not divided by less than this, the least half float that is normal: as models are trained and run elsewhere.
const MIN_WEIGHT_SUM: f32 = 6.103_515_6e-5;

/// Makes weights of a token's chosen scores.
fn weigh(router_config: &RouterConfig, routes: &mut [Route]) {
    if router_config.gating == Gating::SoftmaxOfChosen {
        let max = routes.iter().fold(f32::NEG_INFINITY, |max, r| max.max(r.weight));
        routes.iter_mut().for_each(|r| r.weight = elementary::exp(r.weight - max));
    }
    if router_config.gating == Gating::SigmoidOfChosen {
        routes.iter_mut().for_each(|r| r.weight = sigmoid(r.weight));
    }
    let sum: f32 = routes.iter().map(|r| r.weight).sum();
    let divided = router_config.renormalised || router_config.gating == Gating::SoftmaxOfChosen;
    let factor = if divided { router_config.scale / sum.max(MIN_WEIGHT_SUM) } else { router_config.scale };
    routes.iter_mut().for_each(|r| r.weight *= factor);
}

fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + elementary::exp(-x))
}
