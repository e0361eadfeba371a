//! The steps that leave results.

use super::{Run, Work};
use crate::arch::Norm;
use crate::error::Result;
use crate::exec::Embeddings;
use crate::exec::program::{Buffer, Head};
use crate::exec::scratch::Place;
use crate::kernel::matmul::Activations;
use crate::kernel::page::{self, Epilogue, Product, Rows};
use crate::kernel::{rows, vector};
use crate::weights::Sweep;

impl Run<'_> {
    /// The sequences that a score is wanted of.
    pub(super) fn scored(&self) -> impl Iterator<Item = &Place> {
        self.batch.places.iter().filter(|place| place.wanted.which == Embeddings::Score)
    }

    /// Norms the hidden states that results are made of, in their rows of the norm's buffer, and puts embeddings where they
    /// belong.
    pub(super) fn hidden(&self, norm: Option<(Norm, Buffer)>, from: Buffer, w: &mut Work) {
        let width = w.arena.width(from);
        let [from, to] = w.arena.slices_of(self.rows, [Some(from), norm.map(|(_, to)| to)]);
        for (place, seat) in self.batch.places.iter().zip(self.seats) {
            let rows = place.result_rows();
            if rows.is_empty() {
                continue;
            }
            let rows = rows.start * width..rows.end * width;
            let hidden = match norm {
                None => &from[rows],
                Some((norm, _)) => {
                    self.norm(norm, &from[rows.clone()], &mut to[rows.clone()]);
                    &to[rows]
                }
            };
            seat.with(|loan| {
                let out = loan.embeddings.rows_mut(place.wanted.embeddings.clone());
                match place.wanted.which {
                    Embeddings::None | Embeddings::Score => {}
                    Embeddings::All | Embeddings::Chunk => out.copy_from_slice(hidden),
                    Embeddings::Last => out.copy_from_slice(&hidden[hidden.len() - width..]),
                    Embeddings::First => out.copy_from_slice(&hidden[..width]),
                    Embeddings::Mean => {
                        hidden.chunks_exact(width).for_each(|row| vector::add_assign(self.isa, out, row));
                    }
                }
            });
        }
    }

    /// The logits that are wanted.
    pub(super) fn head(&self, head: &Head, w: &mut Work, sweep: &mut Sweep) -> Result<()> {
        let places = &self.batch.places;
        let count = places.iter().map(|place| place.wanted.logits.len()).sum();
        if count == 0 {
            return Ok(());
        }
        let run = Run { rows: count, ..*self };
        let width = w.arena.width(head.from);
        let contents = w.arena.contents(head.input);
        let [from, input, products] = w.arena.slices(self.rows, [head.from, head.input, head.products]);
        // The rows that are wanted come to lie one after the other, at the front.
        let mut next = 0;
        for place in places {
            let logits = place.wanted.logits.len();
            from.copy_within((place.rows.end - logits) * width..place.rows.end * width, next * width);
            next += logits;
        }
        let acts = run.quantize_rows(contents, &from[..count * width], input);
        match (self.seats, &places[..]) {
            // The session's own thread runs the sweep: nobody else looks at what it has lent.
            ([seat], [place]) => {
                let multiply = |loan: &mut super::Loan| {
                    let logits = loan.logits.rows_mut(place.wanted.logits.clone());
                    run.multiply(head.linear, &acts, logits, sweep)
                };
                seat.with(multiply).unwrap_or(Ok(()))?;
            }
            _ => run.head_of_several(head, &acts, products, sweep)?,
        }
        if self.adapts(head.linear.weight) {
            let mut first = 0;
            self.for_each_sequence(|place, loan| {
                let rows = first..first + place.wanted.logits.len();
                if let Some(set) = &place.adapters {
                    let logits = loan.logits.rows_mut(place.wanted.logits.clone());
                    run.adapt_rows(set, head.linear.weight, (&acts, rows.clone()), logits);
                }
                first = rows.end;
            });
        }
        if head.scale != 1.0 || head.softcap.is_some() {
            self.for_each_sequence(|place, loan| {
                let logits = loan.logits.rows_mut(place.wanted.logits.clone());
                rows::for_rows(self.pool, logits, self.shape().vocab, |_, row| {
                    vector::scale(self.isa, row, head.scale);
                    if let Some(cap) = head.softcap {
                        vector::softcap(self.isa, row, cap);
                    }
                });
            });
        }
        Ok(())
    }

    /// The products of the head for several sequences: `products` holds those of some rows of the matrix, before each
    /// sequence gets its own.
    fn head_of_several(&self, head: &Head, acts: &Activations, products: &mut [f32], sweep: &mut Sweep) -> Result<()> {
        let (weight, vocab) = (self.biased(head.linear), self.shape().vocab);
        let matrix = weight.matrix;
        let most = products.len() / self.rows;
        for p in matrix.pages() {
            let held = sweep.page(p)?;
            let (mut row, end) = (held.page().first_row as usize, (held.page().first_row + held.page().rows) as usize);
            let mut bytes = held.bytes();
            while row < end {
                let count = most.min(end - row);
                let (here, rest) = bytes.split_at(count * matrix.row_bytes);
                let pages = &[Rows { bytes: here, format: matrix.format, k: matrix.columns, count }];
                let bias = weight.bias.map(|bias| &bias[row..row + count]);
                let out = &mut products[..self.rows * count];
                let (scale, epilogue) = (weight.scale, Epilogue::Keep);
                let product = Product { pages, acts, scale, bias, out, stride: count, column: 0, epilogue };
                page::multiply(self.pool, self.isa, [product]);
                let mut made = out.chunks_exact(count);
                for (place, seat) in self.batch.places.iter().zip(self.seats) {
                    let mut mine = made.by_ref().take(place.wanted.logits.len());
                    seat.with(|loan| {
                        let logits = loan.logits.rows_mut(place.wanted.logits.clone());
                        for (to, from) in logits.chunks_exact_mut(vocab).zip(mine.by_ref()) {
                            to[row..row + count].copy_from_slice(from);
                        }
                    });
                    // Those of a session that has left.
                    mine.for_each(drop);
                }
                (row, bytes) = (row + count, rest);
            }
        }
        Ok(())
    }
}
