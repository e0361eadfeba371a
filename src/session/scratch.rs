//! The memory of a running sweep: activations of one chunk. Buffers that are never in use together share their place.

use std::io;

use crate::arch::{Block, Description, Experts, Layer, Linear, Mlp, Projection};
use crate::kernel::matmul::{Form, activation_bytes};
use crate::weights::Schedule;
use crate::weights::engine::Engine;
use crate::weights::frames::Memory;

/// How many bytes each part of the scratch memory takes, for chunks of a given length.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    /// Residual stream: [tokens][embedding], f32.
    residual: usize,
    /// A copy of it, where blocks stand side by side.
    before: usize,
    /// Queries, keys, values and attention's result; or gate and up; or a normed or projected copy of the residual.
    work: usize,
    /// Activations in the forms that the weights want.
    forms: usize,
    /// Cosines and sines, [tokens][pairs] each.
    angles: usize,
    positions: usize,
    row: usize,
    /// [tokens][experts used], and the order of all experts.
    routes: [usize; 2],
}

/// A token's way to one of its experts.
#[derive(Clone, Copy, Debug)]
pub struct Route {
    pub expert: u32,
    pub token: u32,
    pub weight: f32,
}

impl Layout {
    pub fn new(d: &Description, schedule: &Schedule, chunk: usize) -> Layout {
        let s = d.shape;
        let attention = s.heads * (s.key_dim + s.value_dim) + s.kv_heads * (s.key_dim + s.value_dim);
        let rows = |m| schedule.matrix(m).rows;
        let latent = |l: &Layer| match &l.attention.projection {
            Projection::Direct { .. } => 0,
            Projection::Latent(l) => l.work(s.heads, s.value_dim, l.query_down.map_or(0, |(d, _)| rows(d.weight))),
        };
        let attention = attention + d.layers.iter().map(latent).max().unwrap_or(0);
        let inner = |mlp: &Mlp| 2 * rows(mlp.up.weight);
        // Beside the inner rows: normed, mixed and gathered ones, and the router's scores.
        let routed = |e: &Experts| {
            let shared = e.shared.map_or(0, |shared| inner(&shared.mlp));
            2 * s.embedding + e.count + shared.max(s.embedding + 2 * rows(e.matrices(0)[1]))
        };
        let blocks = d.layers.iter().map(|l| match &l.feed_forward.block {
            Block::Dense(mlp) => inner(mlp),
            Block::Experts(experts) => routed(experts),
        });
        let work = blocks.max().unwrap_or(0).max(attention).max(s.embedding);
        let stage = |linears: &[Linear]| forms_bytes(schedule, linears, chunk);
        let forms = d
            .layers
            .iter()
            .flat_map(|l| {
                let a = &l.attention;
                let mut sizes = vec![stage(&[a.output])];
                match &a.projection {
                    Projection::Direct { query, key, value } => sizes.push(stage(&[*query, *key, *value])),
                    Projection::Latent(l) => {
                        sizes.extend([stage(&l.first_stage()), stage(&[l.query])]);
                        sizes.extend([l.key, l.value].map(|m| s.heads * stage(&[Linear::plain(m)])));
                    }
                }
                match &l.feed_forward.block {
                    Block::Dense(mlp) => sizes.extend([stage(&mlp.up_projections()), stage(&[mlp.down])]),
                    Block::Experts(e) => {
                        let [gate, up, down] = e.matrices(0).map(Linear::plain);
                        sizes.extend([stage(&e.first_stage()), stage(&[gate, up]), stage(&[down])]);
                        sizes.extend(e.shared.map(|shared| stage(&[shared.mlp.down])));
                    }
                }
                sizes
            })
            .chain(d.head.map(|head| stage(&[head])))
            .max()
            .unwrap_or(0);
        let routes = d.experts().map_or([0; 2], |e| [e.used.saturating_mul(chunk), e.count]);
        let row_bytes = [Some(d.embedding), d.positions].into_iter().flatten().map(|m| schedule.matrix(m).row_bytes);
        let floats = |per_token: usize| per_token.saturating_mul(chunk).saturating_mul(4);
        Layout {
            residual: floats(s.embedding),
            before: if d.layers.iter().any(|l| l.parallel) { floats(s.embedding) } else { 0 },
            work: floats(work),
            forms,
            angles: floats(d.ropes.iter().map(|r| r.dims / 2 * 2).sum()),
            positions: floats(1),
            row: Engine::row_buffer_bytes(row_bytes.max().unwrap_or(0)),
            routes,
        }
    }

    pub fn bytes(&self) -> u64 {
        let [routes, experts] = self.routes;
        let routes = routes.saturating_mul(size_of::<Route>()) + experts * size_of::<u32>();
        [routes, self.residual, self.before, self.work, self.forms, self.angles, self.positions, self.row]
            .iter()
            .map(|&n| n as u64 + 4096)
            .sum()
    }
}

/// The distinct forms that the matrices of a stage want their common input in.
pub fn forms_of(schedule: &Schedule, linears: &[Linear]) -> Vec<Form> {
    let mut forms: Vec<Form> = Vec::with_capacity(3);
    for l in linears {
        let form = Form::of(schedule.matrix(l.weight).format);
        if !forms.contains(&form) {
            forms.push(form);
        }
    }
    forms
}

/// Buffers of forms begin at multiples of this.
pub const FORM_ALIGNMENT: usize = 64;

fn forms_bytes(schedule: &Schedule, linears: &[Linear], chunk: usize) -> usize {
    let k = schedule.matrix(linears[0].weight).columns;
    let forms = forms_of(schedule, linears);
    forms.into_iter().map(|f| activation_bytes(f, k, chunk).next_multiple_of(FORM_ALIGNMENT)).sum()
}

/// The buffers of a running sweep; a model has one set, which the sweep whose turn it is uses.
pub struct Scratch {
    pub residual: Memory,
    pub before: Memory,
    pub work: Memory,
    pub forms: Memory,
    pub angles: Memory,
    pub positions: Vec<u32>,
    pub row: Memory,
    pub routes: Vec<Route>,
    pub ranking: Vec<u32>,
}

impl Scratch {
    pub fn new(layout: &Layout) -> io::Result<Scratch> {
        Ok(Scratch {
            residual: Memory::new(layout.residual)?,
            before: Memory::new(layout.before)?,
            work: Memory::new(layout.work)?,
            forms: Memory::new(layout.forms)?,
            angles: Memory::new(layout.angles)?,
            positions: Vec::with_capacity(layout.positions / 4),
            row: Memory::new(layout.row)?,
            routes: Vec::with_capacity(layout.routes[0]),
            ranking: Vec::with_capacity(layout.routes[1]),
        })
    }
}
