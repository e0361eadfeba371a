//! Executes the steps of a program in a sweep: for the tokens of one sequence or of several, which lie one after the other
//! in the buffers. Most steps work on rows and do not know whose they are. Those that need what a sequence remembers, or
//! leave its results, go from sequence to sequence. No row depends on the others' number, so a sequence has the bits that it
//! has alone.

mod attention;
mod beside;
mod experts;
mod latent;
mod matrix;
mod recurrent;
mod results;

use super::program::{Embed, Step, Turn};
use super::scratch::{Arena, Batch, Lists, Place};
use super::turns::Seat;
use super::{Loaded, Loan};
use crate::arch::{Norm, NormKind, Shape};
use crate::error::Result;
use crate::kernel::pool::Pool;
use crate::kernel::{Isa, rows, vector};
use crate::quant;
use crate::weights::{MatrixId, Sweep};
use experts::Chosen;

impl Loaded {
    /// Runs a sweep that has begun for its members, and writes what is wanted of each. Their memory beyond their positions may
    /// be written even when this fails.
    ///
    /// # Errors
    /// `IO`; `CANCELLED`.
    pub(super) fn run(&self, seats: &[Seat], sweep: &mut Sweep) -> Result<()> {
        let mut scratch = self.scratch.lock();
        let (arena, lists, batch) = scratch.parts(&self.program);
        batch.fill(seats);
        let batch = &*batch;
        let rows = batch.tokens.len();
        let run = Run { loaded: self, pool: &self.pool, isa: self.isa, batch, seats, rows, expert: None };
        run.steps(&self.program.steps, &mut Work { arena, lists }, sweep)
    }
}

impl Batch {
    fn fill(&mut self, seats: &[Seat]) {
        let Batch { tokens, positions, places } = self;
        tokens.clear();
        positions.clear();
        places.clear();
        for seat in seats {
            let rows = tokens.len()..tokens.len() + seat.tokens;
            let lent = seat.with(|loan| {
                tokens.extend_from_slice(&loan.tokens[loan.taken..][..seat.tokens]);
                (loan.position, loan.context)
            });
            // Of one that has left before the sweep began, any tokens will do.
            tokens.resize(rows.end, 0);
            let (position, context) = lent.unwrap_or_default();
            positions.extend((position..position + seat.tokens).map(|position| position as u32));
            places.push(Place { rows, position, context, wanted: seat.wanted.clone() });
        }
    }
}

/// What steps read.
#[derive(Clone, Copy)]
struct Run<'a> {
    loaded: &'a Loaded,
    pool: &'a Pool,
    isa: Isa,
    /// The sequences of the sweep, and the same with what they have lent to it.
    batch: &'a Batch,
    seats: &'a [Seat],
    /// Rows of the buffers: the chunk's tokens, or those that are routed to the expert at hand.
    rows: usize,
    expert: Option<Chosen<'a>>,
}

/// What steps write.
struct Work<'a> {
    arena: Arena<'a>,
    lists: &'a mut Lists,
}

impl Run<'_> {
    /// Does what each sequence needs for itself, as long as its session takes part.
    fn for_each_sequence(&self, mut work: impl FnMut(&Place, &mut Loan)) {
        for (place, seat) in self.batch.places.iter().zip(self.seats) {
            seat.with(|loan| work(place, loan));
        }
    }

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
                rows::for_rows(self.pool, rows, width, |t, row| {
                    vector::scale(self.isa, row, temperature.factor(self.batch.positions[t] as usize));
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
            Step::Foresee { experts, input, scores, body } => {
                return self.foresee(experts, (*input, *scores), body, w, sweep);
            }
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
            Step::Classify { body } => {
                let rows = self.scored().count();
                if rows > 0 {
                    return Run { rows, ..*self }.steps(body, w, sweep);
                }
            }
        }
        Ok(())
    }

    fn shape(&self) -> Shape {
        self.loaded.program.shape
    }

    /// The embeddings of the chunk's tokens.
    fn embed(&self, e: &Embed, w: &mut Work, sweep: &Sweep) -> Result<()> {
        let engine = &self.loaded.engine;
        let Work { arena, lists: Lists { row: buffer, .. } } = w;
        let Batch { tokens, positions: at, .. } = self.batch;
        let mut take = |matrix: MatrixId, at, row: &mut [f32]| {
            sweep.check()?;
            let format = engine.schedule().matrix(matrix).format;
            engine.with_row(matrix, at, buffer, |bytes| quant::decode_row(format, bytes, row))
        };
        let width = arena.width(e.to);
        let [to, learned] = arena.slices_of(self.rows, [Some(e.to), e.positions.map(|(_, row)| row)]);
        for ((&token, &at), row) in tokens.iter().zip(at).zip(to.chunks_exact_mut(width)) {
            take(e.table, token as usize, row)?;
            if e.scale != 1.0 {
                vector::scale(self.isa, row, e.scale);
            }
            if let Some(kind) = e.token_type {
                vector::add_assign(self.isa, row, self.loaded.vector(kind));
            }
            if let Some((positions, _)) = e.positions {
                take(positions, at as usize, learned)?;
                vector::add_assign(self.isa, row, learned);
            }
            if let Some(norm) = e.norm {
                self.norm_row(norm, 0, row);
            }
        }
        Ok(())
    }

    fn angles(&self, turn: &Turn, w: &mut Work) {
        let width = w.arena.width(turn.cos);
        let [cos, sin] = w.arena.slices(self.rows, [turn.cos, turn.sin]);
        for place in &self.batch.places {
            let table = self.loaded.rotations[turn.rope].table(place.context);
            let positions = &self.batch.positions[place.rows.clone()];
            table.fill(positions, place.of_mut(cos, width), place.of_mut(sin, width));
        }
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
}
