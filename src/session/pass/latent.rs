//! The steps that latent attention has beside the common ones. See [`Latent`].

use super::Step;
use crate::arch::Latent;
use crate::error::Result;
use crate::kernel::matmul::{Activations, Form};
use crate::kernel::page::{self, Product, Rows, Then};
use crate::kernel::rows;
use crate::weights::{MatrixId, Sweep};

/// Where the elements of heads lie in the rows of a buffer: those of head h of token t from `t·row + first + h·step`.
#[derive(Clone, Copy)]
struct Stretches {
    row: usize,
    first: usize,
    step: usize,
}

/// The queries of all heads, [tokens][heads][plain + rotated]; c and k, [tokens][latent + rotated]; and room for a copy.
pub struct Made<'a> {
    queries: &'a mut [f32],
    shared: &'a mut [f32],
    copy: &'a mut [f32],
}

impl Step<'_> {
    /// What depends on h alone, of which `acts` are made.
    pub fn latent_start<'b>(
        &self,
        l: &Latent,
        acts: &[Activations],
        work: &'b mut [f32],
        sweep: &mut Sweep,
    ) -> Result<Made<'b>> {
        let s = self.model.description().shape;
        let (queries, rest) = work.split_at_mut(self.tokens * s.heads * (l.plain + l.rotated));
        let (shared, copy) = rest.split_at_mut(self.tokens * s.key_dim);
        let query = match l.query_down {
            None => (l.query, &mut *queries),
            Some((down, _)) => (down, &mut copy[..self.tokens * self.rows_of(down.weight)]),
        };
        self.multiply(query.0, acts, query.1, Then::Keep, sweep)?;
        self.multiply(l.key_value, acts, shared, Then::Keep, sweep)?;
        Ok(Made { queries, shared, copy })
    }

    /// The queries in the space of the latents, the one key and the one value.
    pub fn latent_heads(
        &self,
        l: &Latent,
        made: Made,
        (q, k, v): (&mut [f32], &mut [f32], &mut [f32]),
        forms: &mut [u8],
        sweep: &mut Sweep,
    ) -> Result<()> {
        let s = self.model.description().shape;
        let Made { queries, shared, copy } = made;
        if let Some((down, norm)) = l.query_down {
            let rank = self.rows_of(down.weight);
            let copy = &mut copy[..self.tokens * rank];
            rows::for_rows(self.pool, copy, rank, |_, row| self.norm_row(norm, 0, row));
            let acts = self.quantize(&[l.query], copy, forms);
            self.multiply(l.query, &acts, queries, Then::Keep, sweep)?;
        }
        rows::for_rows(self.pool, v, s.value_dim, |t, row| {
            row.copy_from_slice(&shared[t * s.key_dim..][..s.value_dim]);
            self.norm_row(l.norm, 0, row);
        });
        for ((k, v), shared) in
            k.chunks_exact_mut(s.key_dim).zip(v.chunks_exact(s.value_dim)).zip(shared.chunks_exact(s.key_dim))
        {
            k[..l.rotated].copy_from_slice(&shared[s.value_dim..]);
            k[l.rotated..].copy_from_slice(v);
        }
        let whole = l.plain + l.rotated;
        for (q, from) in q.chunks_exact_mut(s.key_dim).zip(queries.chunks_exact(whole)) {
            q[..l.rotated].copy_from_slice(&from[l.plain..]);
        }
        let from = Stretches { row: s.heads * whole, first: 0, step: whole };
        let to = Stretches { row: s.heads * s.key_dim, first: l.rotated, step: s.key_dim };
        self.multiply_heads(l.key, (queries, from), (q, to), copy, forms, sweep)
    }

    /// The heads' results of what they see, [tokens][heads][latent], in `work`.
    pub fn latent_result<'b>(
        &self,
        l: &Latent,
        seen: &[f32],
        work: &'b mut [f32],
        forms: &mut [u8],
        sweep: &mut Sweep,
    ) -> Result<&'b [f32]> {
        let s = self.model.description().shape;
        let (results, copy) = work.split_at_mut(self.tokens * s.heads * l.head_value);
        let from = Stretches { row: s.heads * s.value_dim, first: 0, step: s.value_dim };
        let to = Stretches { row: s.heads * l.head_value, first: 0, step: l.head_value };
        self.multiply_heads(l.value, (seen, from), (results, to), copy, forms, sweep)?;
        Ok(results)
    }

    /// A matrix for each head, end to end, times the stretches of the heads.
    fn multiply_heads(
        &self,
        matrix: MatrixId,
        (from, source): (&[f32], Stretches),
        (to, target): (&mut [f32], Stretches),
        copy: &mut [f32],
        mut forms: &mut [u8],
        sweep: &mut Sweep,
    ) -> Result<()> {
        let heads = self.model.description().shape.heads;
        let matrix = self.model.engine().schedule().matrix(matrix);
        let (k, per_head) = (matrix.columns, matrix.rows / heads);
        let copy = &mut copy[..self.tokens * k];
        let mut acts = Vec::with_capacity(heads);
        for head in 0..heads {
            for (t, row) in copy.chunks_exact_mut(k).enumerate() {
                row.copy_from_slice(&from[t * source.row + source.first + head * source.step..][..k]);
            }
            let (made, rest) = self.quantize_to(Form::of(matrix.format), k, copy, forms);
            acts.push(made);
            forms = rest;
        }
        for p in matrix.pages() {
            let held = sweep.page(p)?;
            let (mut row, end) = (held.page().first_row as usize, (held.page().first_row + held.page().rows) as usize);
            let mut bytes = held.bytes();
            while row < end {
                let head = row / per_head;
                let count = end.min((head + 1) * per_head) - row;
                let (here, rest) = bytes.split_at(count * matrix.row_bytes);
                let rows = Rows { bytes: here, format: matrix.format, k, count };
                let column = target.first + head * target.step + row % per_head;
                let (out, stride, acts) = (&mut *to, target.row, &acts[head]);
                let product =
                    Product { pages: &[rows], acts, scale: None, bias: None, out, stride, column, then: Then::Keep };
                page::multiply(self.pool, self.isa, [product]);
                (row, bytes) = (row + count, rest);
            }
        }
        Ok(())
    }
}
