//! Executes the steps of a program for a chunk of tokens.

mod attention;
mod beside;
mod experts;
mod latent;
mod matrix;
mod recurrent;

use super::Loaded;
use super::memory::SequenceMemory;
use super::program::{Buffer, Embed, Head, Step, Turn};
use super::results::{Embeddings, Wanted};
use super::scratch::{Arena, Lists};
use crate::arch::{Norm, NormKind, Shape};
use crate::error::Result;
use crate::kernel::pool::Pool;
use crate::kernel::{Isa, rows, vector};
use crate::quant;
use crate::weights::{Interrupt, MatrixId, Sweep};
use experts::Chosen;

/// The keys and values of a sequence, and where a chunk stands in it.
pub struct KeyValues<'a> {
    pub memory: &'a mut SequenceMemory,
    /// Of the chunk's first token.
    pub position: usize,
    /// Tokens that there is room for.
    pub context: usize,
}

impl Loaded {
    /// Begins a sweep over the weights; one that leaves no logits and no classifier's score ends before the head.
    ///
    /// # Errors
    /// `CANCELLED`: `interrupt` was raised since its count was `since`.
    pub fn sweep<'a>(&'a self, interrupt: &'a Interrupt, since: u64, wanted: &Wanted) -> Result<Sweep<'a>> {
        let schedule = self.engine.schedule();
        // A classifier's matrices come after all layers, as the head's does.
        let classified = wanted.which == Embeddings::Score
            && self.program.steps.iter().any(|step| matches!(step, Step::Classify { .. }));
        let headless = wanted.logits.is_empty() && !classified;
        let end = if headless { schedule.head_start } else { schedule.sweep_len };
        self.engine.sweep(interrupt, since, end)
    }

    /// Takes a chunk of tokens in, in a sweep that has begun, and writes what is wanted of it. `memory` beyond the chunk's
    /// position may be written even when this fails.
    ///
    /// # Errors
    /// `IO`; `CANCELLED`.
    pub fn run(&self, tokens: &[i32], memory: KeyValues, wanted: Wanted, sweep: &mut Sweep) -> Result<()> {
        let mut scratch = self.scratch.lock();
        let (arena, lists) = scratch.parts(&self.program);
        lists.positions.clear();
        lists.positions.extend((0..tokens.len()).map(|i| (memory.position + i) as u32));
        let run =
            Run { loaded: self, pool: &self.pool, isa: self.isa, chunk: tokens, rows: tokens.len(), expert: None };
        let mut work = Work { arena, lists, memory, wanted };
        run.steps(&self.program.steps, &mut work, sweep)
    }
}

/// What steps read.
#[derive(Clone, Copy)]
struct Run<'a> {
    loaded: &'a Loaded,
    pool: &'a Pool,
    isa: Isa,
    chunk: &'a [i32],
    /// Rows of the buffers: the chunk's tokens, or those that are routed to the expert at hand.
    rows: usize,
    expert: Option<Chosen<'a>>,
}

/// What steps write.
struct Work<'a> {
    arena: Arena<'a>,
    lists: &'a mut Lists,
    memory: KeyValues<'a>,
    wanted: Wanted<'a>,
}

impl Run<'_> {
    fn steps(&self, steps: &[Step], w: &mut Work, sweep: &mut Sweep) -> Result<()> {
        steps.iter().try_for_each(|step| self.step(step, w, sweep))
    }

    fn step(&self, step: &Step, w: &mut Work, sweep: &mut Sweep) -> Result<()> {
        match step {
            Step::Embed(embed) => return self.embed(embed, w, sweep),
            Step::Angles(turn) => self.angles(turn, w),
            Step::Copy { from, to } => {
                let [from, to] = w.arena.slices(self.rows, [*from, *to]);
                to.copy_from_slice(from);
            }
            Step::Clear { to } => {
                let [to] = w.arena.slices(self.rows, [*to]);
                to.fill(0.0);
            }
            Step::Norm { norm, from, to } => {
                let [from, to] = w.arena.slices(self.rows, [*from, *to]);
                self.norm(*norm, from, to);
            }
            Step::NormInPlace { norm, rows } => {
                let width = w.arena.width(*rows);
                let [rows] = w.arena.slices(self.rows, [*rows]);
                rows::for_rows(self.pool, rows, width, |_, row| self.norm_row(*norm, 0, row));
            }
            Step::Add { from, to, scale } => {
                let width = w.arena.width(*to);
                let [from, to] = w.arena.slices(self.rows, [*from, *to]);
                rows::for_rows(self.pool, to, width, |t, row| {
                    vector::add_scaled(self.isa, row, &from[t * width..][..width], *scale);
                });
            }
            Step::Quantize { from, to } => self.quantize(*from, to, &mut w.arena),
            Step::QuantizeHeads { from, source, copy, to } => {
                self.quantize_heads((*from, *source), *copy, *to, &mut w.arena);
            }
            Step::Multiply { weight, input, to, finish } => {
                return self.multiply_step(*weight, *input, *to, *finish, &mut w.arena, sweep);
            }
            Step::MultiplyThree { linears, input, to } => {
                return self.multiply_three(*linears, input, *to, &mut w.arena, sweep);
            }
            Step::MultiplyGated { activation, gate, up, input, gates, to } => {
                let to = (*gates, *to);
                return self.multiply_gated(*activation, [*gate, *up], input, to, &mut w.arena, sweep);
            }
            Step::MultiplyHeads { matrix, input, to, target } => {
                return self.multiply_heads(*matrix, *input, (*to, *target), &mut w.arena, sweep);
            }
            Step::PrepareHeads { heads, dim, norm, turn } => {
                self.prepare_heads((*heads, *dim), *norm, turn.as_ref(), &mut w.arena);
            }
            Step::ScaleByPosition { temperature, rows } => {
                let width = w.arena.width(*rows);
                let [rows] = w.arena.slices(self.rows, [*rows]);
                let first = w.memory.position;
                rows::for_rows(self.pool, rows, width, |t, row| {
                    vector::scale(self.isa, row, temperature.factor(first + t));
                });
            }
            Step::LatentQueries { latent, from, queries } => {
                self.latent_queries(latent, *from, *queries, &mut w.arena);
            }
            Step::LatentKeyValues { latent, from, keys, values } => {
                self.latent_key_values(latent, *from, [*keys, *values], &mut w.arena);
            }
            Step::WriteKeyValues { layer, keys, values } => self.write_key_values(*layer, *keys, *values, w),
            Step::Attend(attend) => self.attend(attend, w),
            Step::CopyStretches { from, source, to, target, length, count } => {
                self.copy_stretches((*from, *source), (*to, *target), [*length, *count], &mut w.arena);
            }
            Step::GateRows { function, from, rows } => self.gate_rows(*function, *from, *rows, &mut w.arena),
            Step::Convolve(convolve) => self.convolve(convolve, w),
            Step::Recur(recur) => self.recur(recur, w),
            Step::Route { experts, scores } => self.route(experts, *scores, w, sweep),
            Step::Scale { scale, rows } => {
                let [rows] = w.arena.slices(self.rows, [*rows]);
                vector::scale(self.isa, rows, *scale);
            }
            Step::ScaleByGate { gate, from, rows } => self.scale_by_gate(*gate, *from, *rows, &mut w.arena),
            Step::ForEachExpert { experts, body } => return self.for_each_expert(experts, body, w, sweep),
            Step::Gather { from, to, weighted } => self.gather(*from, *to, *weighted, &mut w.arena),
            Step::Scatter { from, to, weighted } => {
                self.scatter(*from, *to, *weighted, &mut w.arena, &mut w.lists.apart);
            }
            Step::Hidden { norm, from } => self.hidden(*norm, *from, w),
            Step::Head(head) => return self.head(head, w, sweep),
            Step::Beside(step) => return self.beside(step, w, sweep),
            Step::Classify { body } if w.wanted.which == Embeddings::Score => {
                return Run { rows: 1, ..*self }.steps(body, w, sweep);
            }
            Step::Classify { .. } => {}
        }
        Ok(())
    }

    fn shape(&self) -> Shape {
        self.loaded.program.shape
    }

    /// The embeddings of the chunk's tokens.
    fn embed(&self, e: &Embed, w: &mut Work, sweep: &Sweep) -> Result<()> {
        let engine = &self.loaded.engine;
        let Work { arena, lists: Lists { row: buffer, .. }, memory, .. } = w;
        let mut take = |matrix: MatrixId, at, row: &mut [f32]| {
            sweep.check()?;
            let format = engine.schedule().matrix(matrix).format;
            engine.with_row(matrix, at, buffer, |bytes| quant::decode_row(format, bytes, row))
        };
        let width = arena.width(e.to);
        let [to, learned] = arena.slices_of(self.rows, [Some(e.to), e.positions.map(|(_, row)| row)]);
        for (i, (&token, row)) in self.chunk.iter().zip(to.chunks_exact_mut(width)).enumerate() {
            take(e.table, token as usize, row)?;
            if e.scale != 1.0 {
                vector::scale(self.isa, row, e.scale);
            }
            if let Some(kind) = e.token_type {
                vector::add_assign(self.isa, row, self.loaded.vector(kind));
            }
            if let Some((positions, _)) = e.positions {
                take(positions, memory.position + i, learned)?;
                vector::add_assign(self.isa, row, learned);
            }
            if let Some(norm) = e.norm {
                self.norm_row(norm, 0, row);
            }
        }
        Ok(())
    }

    fn angles(&self, turn: &Turn, w: &mut Work) {
        let table = self.loaded.rotations[turn.rope].table(w.memory.context);
        let [cos, sin] = w.arena.slices(self.rows, [turn.cos, turn.sin]);
        table.fill(&w.lists.positions, cos, sin);
    }

    /// The normed rows of `from`, rows of the residual stream.
    fn norm(&self, norm: Norm, from: &[f32], to: &mut [f32]) {
        let s = self.shape();
        rows::for_rows(self.pool, to, s.embedding, |t, to| {
            let x = &from[t * s.embedding..][..s.embedding];
            match s.norm {
                NormKind::Rms => vector::rms_norm(self.isa, x, self.loaded.vector(norm.weight), s.norm_eps, to),
                NormKind::Layer => {
                    to.copy_from_slice(x);
                    self.norm_row(norm, 0, to);
                }
            }
        });
    }

    /// Norms a row in place, with the weights from the `first` on.
    fn norm_row(&self, norm: Norm, first: usize, row: &mut [f32]) {
        let s = self.shape();
        let weight = &self.loaded.vector(norm.weight)[first..][..row.len()];
        let bias = norm.bias.map(|b| &self.loaded.vector(b)[first..][..row.len()]);
        match s.norm {
            NormKind::Rms => vector::rms_norm_in_place(self.isa, row, weight, s.norm_eps),
            NormKind::Layer => vector::layer_norm_in_place(self.isa, row, weight, bias, s.norm_eps),
        }
    }

    /// How many of the chunk's last positions leave logits.
    fn logit_positions(&self, wanted: &Wanted) -> usize {
        wanted.logits.len() / self.shape().vocab
    }

    /// Norms the hidden states of the last positions, in the last rows of the norm's buffer, and puts embeddings where they
    /// belong.
    fn hidden(&self, norm: Option<(Norm, Buffer)>, from: Buffer, w: &mut Work) {
        let count = self.logit_positions(&w.wanted).max(w.wanted.embedding_positions(self.rows));
        if count == 0 {
            return;
        }
        let width = w.arena.width(from);
        let first = (self.rows - count) * width;
        let [from, to] = w.arena.slices_of(self.rows, [Some(from), norm.map(|(_, to)| to)]);
        let hidden = match norm {
            None => &from[first..],
            Some((norm, _)) => {
                self.norm(norm, &from[first..], &mut to[first..]);
                &to[first..]
            }
        };
        let out = &mut *w.wanted.embeddings;
        match w.wanted.which {
            Embeddings::None | Embeddings::Score => {}
            Embeddings::All => out.copy_from_slice(hidden),
            Embeddings::Last => out.copy_from_slice(&hidden[hidden.len() - width..]),
            Embeddings::First => out.copy_from_slice(&hidden[..width]),
            Embeddings::Mean => hidden.chunks_exact(width).for_each(|row| vector::add_assign(self.isa, out, row)),
        }
    }

    /// The logits of the last positions.
    fn head(&self, head: &Head, w: &mut Work, sweep: &mut Sweep) -> Result<()> {
        let count = self.logit_positions(&w.wanted);
        if count == 0 {
            return Ok(());
        }
        let run = Run { rows: count, ..*self };
        let first = (self.rows - count) * w.arena.width(head.from);
        let contents = w.arena.contents(head.input);
        let [from, input] = w.arena.slices(self.rows, [head.from, head.input]);
        let acts = run.quantize_rows(contents, &from[first..], input);
        let logits = &mut *w.wanted.logits;
        run.multiply(head.linear, &acts, logits, sweep)?;
        if head.scale != 1.0 || head.softcap.is_some() {
            rows::for_rows(self.pool, logits, self.shape().vocab, |_, row| {
                vector::scale(self.isa, row, head.scale);
                if let Some(cap) = head.softcap {
                    vector::softcap(self.isa, row, cap);
                }
            });
        }
        Ok(())
    }
}
