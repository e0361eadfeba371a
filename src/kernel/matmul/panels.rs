//! The loop over rows, columns and tokens of a prompt: a stretch of rows is taken apart once for a panel of tokens.
//! Instruction sets and formats share it.

use super::Job;
use super::activations::{Activations, Codes32, Codes256};

/// Rows of a tile.
pub(super) const ROWS: usize = 32;

/// Tokens whose results are kept at hand while the columns go by: 64 KB. Were they summed in the output, whose rows lie
/// whole multiples of 4 KB apart in most models, few of them would stay in a cache. Each panel takes the blocks apart anew.
pub(super) const PANEL: usize = 512;

/// Results so far: of each token, all rows of a tile.
#[repr(C, align(64))]
pub(super) struct Results(pub [[f32; ROWS]; PANEL]);

impl Results {
    /// Copies those of the tokens `from..from + count` to the output of `job`.
    ///
    /// # Safety
    /// As `super::multiply`; `job` has no more than [`ROWS`] rows.
    pub(super) unsafe fn store(&self, job: &Job, from: usize, count: usize) {
        for (i, y) in self.0[..count].iter().enumerate() {
            // SAFETY: the caller lets this thread write its rows of every token.
            unsafe {
                let to = job.out.ptr.add((from + i) * job.out.stride + job.start);
                to.copy_from_nonoverlapping(y.as_ptr(), job.end - job.start);
            }
        }
    }
}

/// 256 columns of up to [`ROWS`] rows, taken apart.
pub(super) trait Tile: Sized {
    const EMPTY: Self;
    /// As many activations of a token.
    type X: Columns;
}

/// 256 activations of a token, or as many as are left.
pub(super) trait Columns: Sized {
    fn of<'a>(acts: &'a Activations) -> &'a [Self];
}

impl Columns for Codes32 {
    fn of<'a>(acts: &'a Activations) -> &'a [Codes32] {
        acts.codes32()
    }
}

impl Columns for Codes256 {
    fn of<'a>(acts: &'a Activations) -> &'a [Codes256] {
        acts.codes256()
    }
}

/// Takes blocks apart for a tile.
pub(super) type Fill<T> = unsafe fn(&mut T, &Job, usize);
/// Multiplies a tile with so many tokens.
pub(super) type Multiply<T> = unsafe fn(&Step<T>, usize, *mut [f32; ROWS]);

/// A tile of so many rows, and the activations of a panel's tokens that belong to its columns.
pub(super) struct Step<'a, T: Tile> {
    pub tile: &'a T,
    pub x: &'a [T::X],
    pub columns: usize,
    pub rows: usize,
}

impl<T: Tile> Step<'_, T> {
    /// The groups of `of` rows, the first of every `count`.
    #[inline(always)]
    pub fn groups(&self, of: usize, count: usize) -> impl Iterator<Item = usize> + use<T> {
        (0..self.rows.div_ceil(of)).step_by(count)
    }
}

/// Multiplies the rows of `job` with all tokens. It is given what takes the format's blocks apart, and what multiplies a tile
/// with one token, and with more and more of them. Each may write results of further tokens, up to a whole number of fours
/// from the first one: they hold nothing yet.
///
/// # Safety
/// As `super::multiply`; `fill` is that of the rows' format, and the processor has the instruction set of `fill` and
/// `steps`.
#[inline(never)]
pub(super) unsafe fn panels<T: Tile>(job: &Job, fill: Fill<T>, steps: &[(usize, Multiply<T>)]) {
    const { assert!(PANEL.is_multiple_of(4)) };
    let (x, tokens) = (T::X::of(job.acts), job.acts.tokens());
    let mut tile = T::EMPTY;
    let mut results = Results([[0.0; ROWS]; PANEL]);
    for start in (job.start..job.end).step_by(ROWS) {
        let part = Job { start, end: job.end.min(start + ROWS), ..*job };
        for from in (0..tokens).step_by(PANEL) {
            let count = PANEL.min(tokens - from);
            results.0[..count].fill([0.0; ROWS]);
            for block in 0..job.k.div_ceil(256) {
                // SAFETY: the caller's promises.
                unsafe {
                    fill(&mut tile, &part, block);
                    let x = &x[block * tokens + from..][..count];
                    let columns = (job.k - 256 * block).min(256);
                    let step = Step { tile: &tile, x, columns, rows: part.end - part.start };
                    let mut t = 0;
                    for &(tokens, multiply) in steps.iter().rev() {
                        while count - t >= tokens {
                            multiply(&step, t, results.0[t..].as_mut_ptr());
                            t += tokens;
                        }
                    }
                }
            }
            // SAFETY: the caller's promises.
            unsafe { results.store(&part, from, count) };
        }
    }
}
