//! The steps of latent attention. See [`Latent`].

use super::Run;
use super::matrix::form_of;
use crate::arch::Latent;
use crate::error::Result;
use crate::exec::program::{Buffer, Stretches};
use crate::exec::scratch::Arena;
use crate::kernel::page::{self, Epilogue, Product, Rows};
use crate::kernel::rows;
use crate::weights::{MatrixId, Sweep};

impl Run<'_> {
    /// The rotated part of each head's query.
    pub(super) fn latent_queries(&self, l: &Latent, from: Buffer, queries: Buffer, arena: &mut Arena) {
        let s = self.shape();
        let [from, queries] = arena.slices(self.rows, [from, queries]);
        let whole = l.plain + l.rotated;
        for (q, from) in queries.chunks_exact_mut(s.key_dim).zip(from.chunks_exact(whole)) {
            q[..l.rotated].copy_from_slice(&from[l.plain..]);
        }
    }

    /// The one key and the one value of c and k.
    pub(super) fn latent_key_values(&self, l: &Latent, from: Buffer, to: [Buffer; 2], arena: &mut Arena) {
        let s = self.shape();
        let [from, keys, values] = arena.slices(self.rows, [from, to[0], to[1]]);
        rows::for_rows(self.pool, values, s.value_dim, |t, row| {
            row.copy_from_slice(&from[t * s.key_dim..][..s.value_dim]);
            self.norm_row(l.norm, 0, row);
        });
        let rows = keys.chunks_exact_mut(s.key_dim).zip(values.chunks_exact(s.value_dim));
        for ((k, v), from) in rows.zip(from.chunks_exact(s.key_dim)) {
            k[..l.rotated].copy_from_slice(&from[s.value_dim..]);
            k[l.rotated..].copy_from_slice(v);
        }
    }

    /// Stretches of rows as activations, those of each head on their own.
    pub(super) fn quantize_heads(
        &self,
        (from, source): (Buffer, Stretches),
        copy: Buffer,
        to: Buffer,
        arena: &mut Arena,
    ) {
        let (contents, width) = (arena.contents(to), arena.width(from));
        let k = form_of(contents).1;
        let [from, copy, to] = arena.slices(self.rows, [from, copy, to]);
        for (head, to) in to.chunks_exact_mut(contents.activations_len(self.rows)).enumerate() {
            for (row, from) in copy.chunks_exact_mut(k).zip(from.chunks_exact(width)) {
                row.copy_from_slice(&from[source.first + head * source.stride..][..k]);
            }
            self.quantize_rows(contents, copy, to);
        }
    }

    /// A matrix for each head, end to end, times what is the head's.
    pub(super) fn multiply_heads(
        &self,
        matrix: MatrixId,
        input: Buffer,
        (to, target): (Buffer, Stretches),
        arena: &mut Arena,
        sweep: &mut Sweep,
    ) -> Result<()> {
        let matrix = self.matrix(matrix);
        let (contents, stride) = (arena.contents(input), arena.width(to));
        let [input, to] = arena.slices(self.rows, [input, to]);
        let heads = input.chunks_exact_mut(contents.activations_len(self.rows));
        let acts: Vec<_> = heads.map(|head| self.made(contents, head)).collect();
        let (k, per_head) = (matrix.columns, matrix.rows / acts.len());
        for p in matrix.pages() {
            let held = sweep.page(p)?;
            let (mut row, end) = (held.page().first_row as usize, (held.page().first_row + held.page().rows) as usize);
            let mut bytes = held.bytes();
            while row < end {
                let head = row / per_head;
                let count = end.min((head + 1) * per_head) - row;
                let (here, rest) = bytes.split_at(count * matrix.row_bytes);
                let rows = Rows { bytes: here, format: matrix.format, k, count };
                let column = target.first + head * target.stride + row % per_head;
                let (out, acts) = (&mut *to, &acts[head]);
                let product = Product {
                    pages: &[rows],
                    acts,
                    scale: None,
                    bias: None,
                    out,
                    stride,
                    column,
                    epilogue: Epilogue::Keep,
                };
                page::multiply(self.pool, self.isa, [product]);
                (row, bytes) = (row + count, rest);
            }
        }
        Ok(())
    }
}
