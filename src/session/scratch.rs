//! The memory of a running sweep: activations of one chunk. Buffers that are never in use together share their place.

use std::io;

use crate::arch::{Description, Linear};
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
}

impl Layout {
    pub fn new(d: &Description, schedule: &Schedule, chunk: usize) -> Layout {
        let s = d.shape;
        let attention = s.heads * (s.key_dim + s.value_dim) + s.kv_heads * (s.key_dim + s.value_dim);
        let work = attention.max(2 * s.feed_forward).max(s.embedding);
        let stage = |linears: &[Linear]| forms_bytes(schedule, linears, chunk);
        let forms = d
            .layers
            .iter()
            .flat_map(|l| {
                let (a, mlp) = (&l.attention, &l.feed_forward.mlp);
                [stage(&[a.query, a.key, a.value]), stage(&[a.output]), stage(&mlp.ways_up()), stage(&[mlp.down])]
            })
            .chain([stage(&[d.head])])
            .max()
            .unwrap_or(0);
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
        }
    }

    pub fn bytes(&self) -> u64 {
        [self.residual, self.before, self.work, self.forms, self.angles, self.positions, self.row]
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
        })
    }
}
