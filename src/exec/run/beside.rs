//! The steps of what some models have beside the blocks of their layers. See [`Beside`].

use super::{Run, Work};
use crate::arch::{LayerStreams, VectorId};
use crate::elementary;
use crate::error::Result;
use crate::exec::Embeddings;
use crate::exec::program::{Beside, Buffer};
use crate::exec::scratch::{Arena, Lists};
use crate::kernel::{rows, vector};
use crate::quant;
use crate::weights::{MatrixId, Sweep};

/// No model has more streams than this.
const MAX_STREAMS: usize = crate::arch::MAX_STREAMS;

impl Run<'_> {
    pub(super) fn beside(&self, step: &Beside, w: &mut Work, sweep: &Sweep) -> Result<()> {
        match *step {
            Beside::TakeHidden { to } => self.take_hidden(to, &mut w.arena),
            Beside::AddTableRows { table, scale, row, to } => {
                return self.add_table_rows((table, scale), row, to, w, sweep);
            }
            Beside::GateStretch { activation, gates, from, first, to } => {
                let (width, stride) = (w.arena.width(to), w.arena.width(from));
                let [gates, from, to] = w.arena.slices(self.rows, [gates, from, to]);
                rows::for_rows(self.pool, to, width, |t, row| {
                    row.copy_from_slice(&from[t * stride + first..][..width]);
                    vector::gate_assign(self.isa, activation, &gates[t * width..][..width], row);
                });
            }
            Beside::Pool { from, mean, to } => {
                let width = w.arena.width(to);
                let [from, to] = w.arena.slices(self.batch.tokens.len(), [from, to]);
                for (place, pooled) in self.scored().zip(to.chunks_exact_mut(width)) {
                    let from = place.of(from, width);
                    pooled.copy_from_slice(&from[..width]);
                    if mean {
                        from.chunks_exact(width).skip(1).for_each(|row| vector::add_assign(self.isa, pooled, row));
                        vector::scale(self.isa, pooled, 1.0 / place.rows.len() as f32);
                    }
                }
            }
            Beside::Tanh { rows } => {
                let [rows] = w.arena.slices(self.rows, [rows]);
                // The cap of a softcap of 1.
                vector::softcap(self.isa, rows, 1.0);
            }
            Beside::Score { from } => {
                let width = w.arena.width(from);
                let [from] = w.arena.slices(self.rows, [from]);
                let mut scores = from.chunks_exact(width);
                for (place, seat) in self.batch.places.iter().zip(self.seats) {
                    if place.wanted.which == Embeddings::Score {
                        let score = scores.next().expect("a row for each sequence that a score is wanted of");
                        let rows = place.wanted.embeddings.clone();
                        seat.with(|loan| loan.embeddings.rows_mut(rows).copy_from_slice(score));
                    }
                }
            }
            Beside::Labels { labels, from } => {
                let width = w.arena.width(from);
                let [from] = w.arena.slices(self.rows, [from]);
                for (place, seat) in self.batch.places.iter().zip(self.seats) {
                    if place.wanted.which != Embeddings::Score {
                        continue;
                    }
                    let last = &from[(place.rows.end - 1) * width..][..width];
                    let rows = self.loaded.vector(labels.weights).chunks_exact(width);
                    seat.with(|loan| {
                        let out = loan.embeddings.rows_mut(place.wanted.embeddings.clone());
                        out.iter_mut().zip(rows).for_each(|(out, row)| *out = vector::dot_f32(self.isa, row, last));
                        vector::softmax_in_place(self.isa, out);
                    });
                }
            }
            Beside::Sparsify { factor, rows } => {
                let width = w.arena.width(rows);
                let [rows] = w.arena.slices(self.rows, [rows]);
                rows::for_rows(self.pool, rows, width, |_, row| vector::sparsify(self.isa, row, factor));
            }
            Beside::ScaleByNumber { number, rows } => {
                let [rows] = w.arena.slices(self.rows, [rows]);
                vector::scale(self.isa, rows, self.loaded.vector(number)[0]);
            }
            Beside::Spread { from, others, to } => self.spread(from, others, to, &mut w.arena),
            Beside::Predict { streams, from, to } => self.predict(streams, from, to, &mut w.arena),
            Beside::First { from, to } => self.first(from, None, to, &mut w.arena),
            Beside::Correct { streams, predictions, computed, to } => {
                self.correct(streams, [predictions, computed], to, &mut w.arena);
            }
            Beside::FirstWeighted { weights, from, to } => self.first(from, Some(weights), to, &mut w.arena),
            Beside::AddToOthers { from, streams } => {
                let (width, stride) = (w.arena.width(from), w.arena.width(streams));
                let [from, streams] = w.arena.slices(self.rows, [from, streams]);
                rows::for_rows(self.pool, streams, stride, |t, row| {
                    let others = row.chunks_exact_mut(width).skip(1);
                    others.for_each(|stream| vector::add_assign(self.isa, stream, &from[t * width..][..width]));
                });
            }
            Beside::Merge { streams, others, to } => self.merge([streams, others], to, &mut w.arena),
        }
        Ok(())
    }

    fn take_hidden(&self, to: Buffer, arena: &mut Arena) {
        let width = arena.width(to);
        let [to] = arena.slices(self.rows, [to]);
        // Of a session that has left, any rows will do.
        to.fill(0.0);
        self.for_each_sequence(|place, loan| {
            let given = &loan.hidden.all()[loan.taken * width..][..place.rows.len() * width];
            place.of_mut(to, width).copy_from_slice(given);
        });
    }

    fn add_table_rows(
        &self,
        (table, scale): (MatrixId, f32),
        decoded: Buffer,
        to: Buffer,
        w: &mut Work,
        sweep: &Sweep,
    ) -> Result<()> {
        let engine = &self.loaded.engine;
        let format = engine.schedule().matrix(table).format;
        let Work { arena, lists: Lists { row: buffer, .. } } = w;
        let width = arena.width(to);
        let [decoded, to] = arena.slices(self.rows, [decoded, to]);
        for (&token, row) in self.batch.tokens.iter().zip(to.chunks_exact_mut(width)) {
            sweep.check()?;
            engine.with_row(table, token as usize, buffer, |bytes| quant::decode_row(format, bytes, decoded))?;
            vector::add_scaled(self.isa, row, decoded, scale);
        }
        Ok(())
    }

    /// The first stream, times weights.
    fn first(&self, from: Buffer, weights: Option<VectorId>, to: Buffer, arena: &mut Arena) {
        let (width, stride) = (arena.width(to), arena.width(from));
        let [from, to] = arena.slices(self.rows, [from, to]);
        rows::for_rows(self.pool, to, width, |t, row| {
            row.copy_from_slice(&from[t * stride..][..width]);
            if let Some(weights) = weights {
                vector::multiply_assign(self.isa, row, self.loaded.vector(weights));
            }
        });
    }

    fn spread(&self, from: Buffer, others: Buffer, to: Buffer, arena: &mut Arena) {
        let (width, stride) = (arena.width(from), arena.width(to));
        let [from, others, to] = arena.slices(self.rows, [from, others, to]);
        rows::for_rows(self.pool, to, stride, |t, row| {
            let (first, rest) = row.split_at_mut(width);
            first.copy_from_slice(&from[t * width..][..width]);
            rest.copy_from_slice(&others[t * (stride - width)..][..stride - width]);
            let length = self.length(first);
            for stream in rest.chunks_exact_mut(width) {
                let factor = length / self.length(stream);
                vector::scale(self.isa, stream, factor);
            }
        });
    }

    fn merge(&self, [streams, others]: [Buffer; 2], to: Buffer, arena: &mut Arena) {
        let (width, stride) = (arena.width(to), arena.width(streams));
        let [streams, others, to] = arena.slices(self.rows, [streams, others, to]);
        rows::for_rows(self.pool, to, width, |t, row| {
            row.copy_from_slice(&streams[t * stride..][..width]);
            let length = self.length(row);
            for stream in others[t * (stride - width)..][..stride - width].chunks_exact(width) {
                vector::add_scaled(self.isa, row, stream, length / self.length(stream));
            }
            vector::scale(self.isa, row, width as f32 / stride as f32);
        });
    }

    /// √(Σx²), not 0.
    fn length(&self, x: &[f32]) -> f32 {
        vector::dot_f32(self.isa, x, x).sqrt().max(f32::MIN_POSITIVE)
    }

    /// tanh(router·norm(y) / width) of a row y, which changes.
    fn mix(&self, layer: LayerStreams, y: &mut [f32]) -> [f32; MAX_STREAMS] {
        self.norm_row(layer.norm, 0, y);
        let mut mix = [0.0; MAX_STREAMS];
        let router = self.loaded.vector(layer.router).chunks_exact(y.len());
        for (m, router) in mix.iter_mut().zip(router) {
            *m = elementary::tanh(vector::dot_f32(self.isa, router, y) / y.len() as f32);
        }
        mix
    }

    fn predict(&self, layer: LayerStreams, from: Buffer, to: Buffer, arena: &mut Arena) {
        let (stride, width) = (arena.width(to), self.shape().embedding);
        let count = stride / width;
        let coefficients = self.loaded.vector(layer.predict);
        let [from, to] = arena.slices(self.rows, [from, to]);
        rows::for_rows(self.pool, to, stride, |t, row| {
            let streams = &from[t * stride..][..stride];
            row[..width].copy_from_slice(&streams[..width]);
            let mix = self.mix(layer, &mut row[..width]);
            row.copy_from_slice(streams);
            for (j, prediction) in row.chunks_exact_mut(width).enumerate() {
                for (k, stream) in streams.chunks_exact(width).enumerate() {
                    let weights = &coefficients[(j * count + k) * count..][..count];
                    vector::add_scaled(self.isa, prediction, stream, weighted(weights, &mix));
                }
            }
        });
    }

    fn correct(&self, layer: LayerStreams, [predictions, computed]: [Buffer; 2], to: Buffer, arena: &mut Arena) {
        let (stride, width) = (arena.width(to), arena.width(computed));
        let count = stride / width;
        let coefficients = self.loaded.vector(layer.correct);
        let [predictions, computed, to] = arena.slices(self.rows, [predictions, computed, to]);
        rows::for_rows(self.pool, to, stride, |t, row| {
            let predictions = &predictions[t * stride..][..stride];
            let computed = &computed[t * width..][..width];
            row[..width].copy_from_slice(computed);
            let mix = self.mix(layer, &mut row[..width]);
            row.copy_from_slice(predictions);
            for (stream, weights) in row.chunks_exact_mut(width).zip(coefficients.chunks_exact(count)) {
                let factor = 1.0 + weighted(weights, &mix);
                vector::add_scaled(self.isa, stream, computed, factor);
                vector::add_scaled(self.isa, stream, &predictions[..width], -factor);
            }
        });
    }
}

/// Σ weights·mix.
fn weighted(weights: &[f32], mix: &[f32]) -> f32 {
    weights.iter().zip(mix).map(|(weight, m)| weight * m).sum()
}
