//! Short causal convolutions of channels.

use super::{Before, Shared};
use crate::kernel::Isa;
use crate::kernel::pool::Pool;
use crate::kernel::vector::math;
use crate::kernel::vector::simd::{Kernel, LANES, Simd, dispatch};
use crate::operations::MAX_KERNEL;

/// Channels that are handed to a thread at once.
const SHARE: usize = 8 * LANES;

/// y\[t\]\[c\] = f(Σ_j weights\[c\]\[j\] · x\[t − (kernel − 1) + j\]\[c\] + bias\[c\]), summed from j = 0 on.
#[derive(Clone, Copy)]
pub struct Convolution<'a> {
    /// \[channels\]\[kernel\]
    pub weights: &'a [f32],
    pub bias: Option<&'a [f32]>,
    pub kernel: usize,
    /// Whether f is SiLU; else there is none.
    pub silu: bool,
}

/// Convolves the columns from `first` on of `rows`, \[tokens\]\[width\], in place, as many as there are channels. `state`
/// is the last rows of what came in, \[kernel − 1\]\[channels\].
///
/// # Panics
/// If the shapes do not agree, or a channel has more than [`MAX_KERNEL`] weights.
pub fn convolve(
    pool: &Pool,
    isa: Isa,
    c: &Convolution,
    (before, state): (Before, &mut [f32]),
    (rows, width, first): (&mut [f32], usize, usize),
) {
    assert!((1..=MAX_KERNEL).contains(&c.kernel) && c.weights.len().is_multiple_of(c.kernel));
    let channels = c.weights.len() / c.kernel;
    assert!(first + channels <= width && rows.len().is_multiple_of(width));
    assert!(c.bias.is_none_or(|bias| bias.len() == channels));
    assert_eq!(state.len(), (c.kernel - 1) * channels);
    before.put(state);
    let tokens = rows.len() / width;
    let (rows, state) = (&Shared(rows.as_mut_ptr()), &Shared(state.as_mut_ptr()));
    pool.for_ranges(channels.div_ceil(SHARE), 1, &|shares| {
        let range = shares.start * SHARE..channels.min(shares.end * SHARE);
        dispatch(isa, Columns { c, channels, range, tokens, width, first, rows, state });
    });
}

struct Columns<'a> {
    c: &'a Convolution<'a>,
    channels: usize,
    range: std::ops::Range<usize>,
    tokens: usize,
    width: usize,
    first: usize,
    rows: &'a Shared,
    state: &'a Shared,
}

impl Kernel for Columns<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for first in self.range.clone().step_by(SHARE) {
            self.share(s, first, SHARE.min(self.range.end - first));
        }
    }
}

impl Columns<'_> {
    /// Convolves `len` channels, from the last token to the first: what a token needs is then still there.
    #[inline(always)]
    fn share<S: Simd>(&self, s: S, channel: usize, len: usize) {
        let Convolution { weights, bias, kernel, silu } = *self.c;
        let mut w = [[0.0; SHARE]; MAX_KERNEL];
        let mut b = [0.0; SHARE];
        let mut past = [[0.0; SHARE]; MAX_KERNEL];
        for (i, weights) in weights[channel * kernel..][..len * kernel].chunks_exact(kernel).enumerate() {
            (0..kernel).for_each(|j| w[j][i] = weights[j]);
        }
        if let Some(bias) = bias {
            b[..len].copy_from_slice(&bias[channel..][..len]);
        }
        // SAFETY: the columns lie within the rows, and each is handed out once.
        let row = |t: usize| unsafe { self.rows.slice(t * self.width + self.first + channel, len) };
        // SAFETY: channels lie within the rows of the state, and each is handed out once.
        let state = |row: usize| unsafe { self.state.slice(row * self.channels + channel, len) };
        let before = kernel - 1;
        (0..before).for_each(|i| past[i][..len].copy_from_slice(state(i)));
        for i in 0..before {
            // The last of all rows, those of the state counted.
            match (self.tokens + i).checked_sub(before) {
                Some(t) => state(i).copy_from_slice(row(t)),
                None => state(i).copy_from_slice(&past[self.tokens + i][..len]),
            }
        }
        for t in (0..self.tokens).rev() {
            let here = row(t);
            for (v, here) in here.chunks_mut(LANES).enumerate() {
                let at = v * LANES;
                let vector = |x: &[f32; SHARE]| s.load(x[at..].first_chunk().expect("a share is whole vectors"));
                let mut sum = s.splat(0.0);
                for j in 0..before {
                    let x = match (t + j).checked_sub(before) {
                        Some(t) => load(s, &row(t)[at..at + here.len()]),
                        None => vector(&past[t + j]),
                    };
                    sum = s.add(sum, s.mul(vector(&w[j]), x));
                }
                sum = s.add(sum, s.mul(vector(&w[before]), load(s, here)));
                if bias.is_some() {
                    sum = s.add(sum, vector(&b));
                }
                if silu {
                    sum = math::swish(s, sum, 1.0);
                }
                match here.first_chunk_mut() {
                    Some(here) => s.store(sum, here),
                    None => s.store_part(sum, here),
                }
            }
        }
    }
}

/// A vector or what there is of one.
#[inline(always)]
fn load<S: Simd>(s: S, x: &[f32]) -> S::V {
    match x.first_chunk() {
        Some(x) => s.load(x),
        None => s.load_part(x, 0.0),
    }
}
