//! Short causal convolutions of channels.

use super::{Before, Shared};
use crate::kernel::Isa;
use crate::kernel::pool::Pool;
use crate::kernel::vector::math;
use crate::kernel::vector::simd::{Kernel, LANES, Simd, dispatch};

/// Weights that a channel may have.
pub const MAX_KERNEL: usize = 8;

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
        let Convolution { weights, bias, kernel, silu } = *self.c;
        for channel in self.range.clone().step_by(LANES) {
            let len = LANES.min(self.range.end - channel);
            let of = |j: usize| -> S::V {
                let at = |i: usize| if i < len { weights[(channel + i) * kernel + j] } else { 0.0 };
                s.load(&std::array::from_fn(at))
            };
            let bias = bias.map(|bias| s.load_part(&bias[channel..channel + len], 0.0));
            // SAFETY: channels lie within the rows of the state, and each is handed out once.
            let past = |row: usize| unsafe { self.state.slice(row * self.channels + channel, len) };
            let mut w = [s.splat(0.0); MAX_KERNEL];
            let mut x = [s.splat(0.0); MAX_KERNEL];
            for j in 0..kernel {
                w[j] = of(j);
                if j + 1 < kernel {
                    x[j] = s.load_part(past(j), 0.0);
                }
            }
            for t in 0..self.tokens {
                // SAFETY: the columns lie within the row, and each is handed out once.
                let here = unsafe { self.rows.slice(t * self.width + self.first + channel, len) };
                x[kernel - 1] = s.load_part(here, 0.0);
                let mut sum = s.mul(w[0], x[0]);
                for j in 1..kernel {
                    sum = s.add(sum, s.mul(w[j], x[j]));
                }
                if let Some(bias) = bias {
                    sum = s.add(sum, bias);
                }
                if silu {
                    sum = math::swish(s, sum, 1.0);
                }
                s.store_part(sum, here);
                for j in 1..kernel {
                    x[j - 1] = x[j];
                }
            }
            for (row, x) in x[..kernel - 1].iter().enumerate() {
                s.store_part(*x, past(row));
            }
        }
    }
}
