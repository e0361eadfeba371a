//! The work itself: some rows of queries against the keys and values of one head.

use super::{AttentionParameters, BLOCK, CacheRows, Elements, HeadCache, Q8_0_BLOCK, Q8_0_BYTES};
use crate::kernel::Isa;
use crate::kernel::vector::simd::{Chunk, Kernel, LANES, Simd, dispatch};
use crate::kernel::vector::{math, max_of};
use crate::operations::MAX_HEAD_DIM;

/// Rows worked on together. More would widen a key less often, but queries, scores and results then leave the first
/// cache: 64 rows of a prompt run at little more than half the speed of 16.
pub(super) const MAX_ROWS: usize = 16;

/// Positions widened to f32 at a time; a strip of the longest heads fits in 16 KiB.
const STRIP: usize = 8;

/// One query and where its result goes.
#[derive(Default)]
pub(super) struct Row<'a> {
    pub q: &'a [f32],
    pub out: &'a mut [f32],
    /// The absolute positions it sees: from `start` to before `end`.
    pub start: usize,
    pub end: usize,
    pub sink: Option<f32>,
    position: usize,
    /// What is taken from a score for each position between the key and `position`.
    slope: Option<f32>,
}

impl<'a> Row<'a> {
    /// A query of `head` at `position`.
    pub fn new(
        q: &'a [f32],
        out: &'a mut [f32],
        (start, end): (usize, usize),
        position: usize,
        parameters: &AttentionParameters,
        head: usize,
    ) -> Row<'a> {
        let [sink, slope] = [parameters.sinks, parameters.slopes].map(|of_heads| of_heads.map(|values| values[head]));
        Row { q, out, start, end, sink, position, slope }
    }

    /// The places, within a run of `len` positions from `from` on, that the row sees.
    #[inline(always)]
    fn within(&self, from: usize, len: usize) -> std::ops::Range<usize> {
        self.start.saturating_sub(from).min(len)..self.end.saturating_sub(from).min(len)
    }
}

/// A strip of keys or values in f32: [chunk of the vector][position][lane], missing lanes 0.
type Strip = [[Chunk; STRIP]; MAX_HEAD_DIM / LANES];

/// The rows of a cache as the kernel reads them: one implementation for each way to hold elements.
trait Stored: Copy {
    type Element;

    fn row(&self, at: usize) -> &[Self::Element];

    /// Puts a row in its place in the strip.
    fn widen<S: Simd>(s: S, row: &[Self::Element], strip: &mut Strip, place: usize);
}

#[derive(Clone, Copy)]
struct Half<'a> {
    halves: &'a [u16],
    dim: usize,
    stride: usize,
}

impl Stored for Half<'_> {
    type Element = u16;

    #[inline(always)]
    fn row(&self, at: usize) -> &[u16] {
        &self.halves[at * self.stride..][..self.dim]
    }

    #[inline(always)]
    fn widen<S: Simd>(s: S, row: &[u16], strip: &mut Strip, place: usize) {
        let (chunks, tail) = row.as_chunks::<LANES>();
        for (from, to) in chunks.iter().zip(strip.iter_mut()) {
            s.store(s.load_f16(from), &mut to[place]);
        }
        if !tail.is_empty() {
            let mut last = [0; LANES];
            last[..tail.len()].copy_from_slice(tail);
            s.store(s.load_f16(&last), &mut strip[chunks.len()][place]);
        }
    }
}

#[derive(Clone, Copy)]
struct Quantized<'a> {
    bytes: &'a [u8],
    row_bytes: usize,
    stride: usize,
}

impl Stored for Quantized<'_> {
    type Element = u8;

    #[inline(always)]
    fn row(&self, at: usize) -> &[u8] {
        &self.bytes[at * self.stride..][..self.row_bytes]
    }

    /// One product of scale and element, so that every instruction set has the same bits.
    #[inline(always)]
    fn widen<S: Simd>(s: S, row: &[u8], strip: &mut Strip, place: usize) {
        let blocks = row.as_chunks::<Q8_0_BYTES>().0;
        for (block, to) in blocks.iter().zip(strip.as_chunks_mut::<{ Q8_0_BLOCK / LANES }>().0) {
            let scale = s.splat(half_to_f32(s, u16::from_le_bytes([block[0], block[1]])));
            let codes = block[2..].as_chunks::<LANES>().0;
            for (codes, to) in codes.iter().zip(to) {
                s.store(s.mul(s.load_i8(codes), scale), &mut to[place]);
            }
        }
    }
}

#[inline(always)]
fn half_to_f32<S: Simd>(s: S, half: u16) -> f32 {
    s.array(s.load_f16(&[half; LANES]))[0]
}

/// The attention of `rows`, at most [`MAX_ROWS`], with a position each at least.
pub(super) fn attend(isa: Isa, cache: &HeadCache, parameters: &AttentionParameters, rows: &mut [Row]) {
    let first_position = cache.first;
    match (cache.keys.elements, cache.values.elements) {
        (Elements::F16(keys), Elements::F16(values)) => {
            let half = |halves, of: &CacheRows| Half { halves, dim: of.dim, stride: of.stride };
            let (keys, values) = (half(keys, &cache.keys), half(values, &cache.values));
            dispatch(isa, AttendRows { first_position, keys, values, parameters, rows });
        }
        (Elements::Q8_0(keys), Elements::Q8_0(values)) => {
            let quantized = |bytes, of: &CacheRows| Quantized { bytes, row_bytes: of.row_len(), stride: of.stride };
            let (keys, values) = (quantized(keys, &cache.keys), quantized(values, &cache.values));
            dispatch(isa, AttendRows { first_position, keys, values, parameters, rows });
        }
        _ => unreachable!("keys and values are held alike, as was checked"),
    }
}

struct AttendRows<'a, 'r, C> {
    /// The absolute position of the first key and value.
    first_position: usize,
    keys: C,
    values: C,
    parameters: &'a AttentionParameters<'a>,
    rows: &'a mut [Row<'r>],
}

impl<C: Stored> Kernel for AttendRows<'_, '_, C> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let AttendRows { first_position, keys, values, parameters, rows } = self;
        let mut scores = [[0.0f32; BLOCK]; MAX_ROWS];
        let mut max = [f32::NEG_INFINITY; MAX_ROWS];
        let mut total = [0.0f32; MAX_ROWS];
        let mut strip: Strip = [[[0.0; LANES]; STRIP]; MAX_HEAD_DIM / LANES];
        let first = rows.iter().map(|row| row.start).min().unwrap_or(0);
        let last = rows.iter().map(|row| row.end).max().unwrap_or(0);
        for row in rows.iter_mut() {
            row.out.fill(0.0);
        }
        let mut block = first - first % BLOCK;
        while block < last {
            for at in (0..BLOCK).step_by(STRIP) {
                let positions = (block + at).max(first)..(block + at + STRIP).min(last);
                if positions.is_empty() {
                    continue;
                }
                for position in positions {
                    C::widen(s, keys.row(position - first_position), &mut strip, position % STRIP);
                    s.prefetch(values.row(position - first_position));
                }
                for (row, scores) in rows.iter().zip(&mut scores) {
                    if !row.within(block + at, STRIP).is_empty() {
                        let dots = dots(s, row.q, &strip);
                        scores[at..at + STRIP].copy_from_slice(&s.array(dots));
                    }
                }
            }
            for (i, row) in rows.iter_mut().enumerate() {
                let seen = row.within(block, BLOCK);
                if !seen.is_empty() {
                    let far = row.slope.map(|slope| (slope, block, row.position));
                    shares(s, parameters, seen, far, &mut scores[i], &mut max[i], &mut total[i], row.out);
                }
            }
            for at in (0..BLOCK).step_by(STRIP) {
                let positions = (block + at).max(first)..(block + at + STRIP).min(last);
                if positions.is_empty() {
                    continue;
                }
                for position in positions {
                    C::widen(s, values.row(position - first_position), &mut strip, position % STRIP);
                    if position + BLOCK < last {
                        s.prefetch(keys.row(position + BLOCK - first_position));
                    }
                }
                for (row, shares) in rows.iter_mut().zip(&scores) {
                    let seen = row.within(block + at, STRIP);
                    if !seen.is_empty() {
                        add_values(s, &shares[at..at + STRIP][seen.clone()], seen.start, &strip, row.out);
                    }
                }
            }
            block += BLOCK;
        }
        for (i, row) in rows.iter_mut().enumerate() {
            let mut factor = 1.0;
            if let Some(sink) = row.sink {
                let with_sink = if sink > max[i] { sink } else { max[i] };
                factor = exp_one(s, max[i] - with_sink);
                total[i] = total[i] * factor + exp_one(s, sink - with_sink);
            }
            multiply(s, row.out, factor / total[i]);
        }
    }
}

#[inline(always)]
fn exp_one<S: Simd>(s: S, x: f32) -> f32 {
    s.array(s.exp(s.splat(x)))[0]
}

#[inline(always)]
fn multiply<S: Simd>(s: S, x: &mut [f32], factor: f32) {
    let factor = s.splat(factor);
    let (chunks, tail) = x.as_chunks_mut::<LANES>();
    for x in chunks {
        s.store(s.mul(s.load(x), factor), x);
    }
    if !tail.is_empty() {
        s.store_part(s.mul(s.load_part(tail, 0.0), factor), tail);
    }
}

/// q·k for the eight positions of the strip: one chain of additions each, so that every dot has the same order.
/// Places that hold no key of this row's give something meaningless, which `shares` overwrites.
#[inline(always)]
fn dots<S: Simd>(s: S, q: &[f32], strip: &Strip) -> S::V {
    let mut sums = [s.splat(0.0); STRIP];
    let (chunks, tail) = q.as_chunks::<LANES>();
    for (q, keys) in chunks.iter().zip(strip) {
        let q = s.load(q);
        for i in 0..STRIP {
            sums[i] = s.mul_add(q, s.load(&keys[i]), sums[i]);
        }
    }
    if !tail.is_empty() {
        let q = s.load_part(tail, 0.0);
        for i in 0..STRIP {
            sums[i] = s.mul_add(q, s.load(&strip[chunks.len()][i]), sums[i]);
        }
    }
    s.sums(sums)
}

/// Turns a block of products q·k into shares e^(score − max), 0 outside `seen`; raises the row's maximum and scales
/// what it has gathered so far accordingly. `far`: a slope, the block's first position, and the row's.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
fn shares<S: Simd>(
    s: S,
    parameters: &AttentionParameters,
    seen: std::ops::Range<usize>,
    far: Option<(f32, usize, usize)>,
    scores: &mut [f32; BLOCK],
    max: &mut f32,
    total: &mut f32,
    out: &mut [f32],
) {
    let scale = s.splat(parameters.scale);
    for x in scores.as_chunks_mut::<LANES>().0 {
        s.store(s.mul(s.load(x), scale), x);
    }
    if let Some(cap) = parameters.softcap {
        let cap = s.splat(cap);
        for x in scores.as_chunks_mut::<LANES>().0 {
            s.store(s.mul(cap, math::tanh(s, s.div(s.load(x), cap))), x);
        }
    }
    if let Some((slope, first, position)) = far {
        for (i, score) in scores.iter_mut().enumerate() {
            *score -= slope * (first + i).abs_diff(position) as f32;
        }
    }
    scores[..seen.start].fill(f32::NEG_INFINITY);
    scores[seen.end..].fill(f32::NEG_INFINITY);
    let block_max = max_of(s, scores);
    if block_max > *max {
        let factor = exp_one(s, *max - block_max);
        *total *= factor;
        multiply(s, out, factor);
        *max = block_max;
    }
    let max = s.splat(*max);
    let mut sum = s.splat(0.0);
    for x in scores.as_chunks_mut::<LANES>().0 {
        let share = s.exp(s.sub(s.load(x), max));
        sum = s.add(sum, share);
        s.store(share, x);
    }
    *total += s.sum(sum);
}

/// out += Σ share · value over the positions from place `from` of the strip on, in ascending order.
#[inline(always)]
fn add_values<S: Simd>(s: S, shares: &[f32], from: usize, strip: &Strip, out: &mut [f32]) {
    let (chunks, tail) = out.as_chunks_mut::<LANES>();
    let full = chunks.len();
    let (wide, rest) = chunks.as_chunks_mut::<8>();
    let mut place = 0;
    for out in wide {
        add_tile(s, shares, from, &strip[place..place + 8], out);
        place += 8;
    }
    let (wide, rest) = rest.as_chunks_mut::<2>();
    for out in wide {
        add_tile(s, shares, from, &strip[place..place + 2], out);
        place += 2;
    }
    for out in rest {
        add_tile(s, shares, from, &strip[place..place + 1], std::array::from_mut(out));
        place += 1;
    }
    if !tail.is_empty() {
        let mut last = [[0.0; LANES]];
        last[0][..tail.len()].copy_from_slice(tail);
        add_tile(s, shares, from, &strip[full..full + 1], &mut last);
        tail.copy_from_slice(&last[0][..tail.len()]);
    }
}

/// The same for `N` chunks at once, kept in registers.
#[inline(always)]
fn add_tile<S: Simd, const N: usize>(
    s: S,
    shares: &[f32],
    from: usize,
    strip: &[[Chunk; STRIP]],
    out: &mut [Chunk; N],
) {
    let mut sums: [S::V; N] = out.map(
        #[inline(always)]
        |out| s.load(&out),
    );
    let strip: &[[Chunk; STRIP]; N] = strip.try_into().expect("one strip per chunk");
    if let Ok(shares) = <&[f32; STRIP]>::try_from(shares) {
        // Nearly all strips are whole: without a loop and its checks.
        for i in 0..STRIP {
            let share = s.splat(shares[i]);
            for n in 0..N {
                sums[n] = s.mul_add(share, s.load(&strip[n][i]), sums[n]);
            }
        }
    } else {
        for (i, &share) in shares.iter().enumerate() {
            let share = s.splat(share);
            for n in 0..N {
                sums[n] = s.mul_add(share, s.load(&strip[n][(from + i) % STRIP]), sums[n]);
            }
        }
    }
    for n in 0..N {
        s.store(sums[n], &mut out[n]);
    }
}
