//! Attention of query heads to the keys and values of earlier tokens, kept as half floats or as quantised blocks.
//!
//! The query heads that share a key head, and several tokens of a prompt, are worked on together as *rows*, so that a
//! key or value is widened to f32 once for all of them. The softmax is taken online over blocks of [`BLOCK`] positions.
//! Blocks begin at multiples of [`BLOCK`] of the *absolute* position, whatever part of the cache is at hand, and within
//! a block every row goes through the same operations in the same order, masked positions left out. So the bits of
//! a row depend on its query, its position, the window and the instruction set: not on which rows are computed with
//! it, on how a prompt is cut into chunks, or on the number of threads.

mod quantize;
mod rows;
#[cfg(test)]
mod tests;

use super::Isa;
use super::pool::Pool;
use crate::operations::MAX_HEAD_DIM;
use rows::{MAX_ROWS, Row};
use std::array;

pub use quantize::{f32_to_q8_0, rotate, rotate_back};

/// Positions whose scores are taken into the softmax at once.
pub const BLOCK: usize = 64;

/// What scores are and which of them count.
#[derive(Clone, Copy, Debug)]
pub struct AttentionParameters<'a> {
    /// Multiplies q·k.
    pub scale: f32,
    /// Scores become cap·tanh(score / cap).
    pub softcap: Option<f32>,
    /// One extra logit per query head that takes part in the softmax's denominator only.
    pub sinks: Option<&'a [f32]>,
    /// A token sees itself and the `window - 1` positions before it, or with `until` those at most `window / 2` before or
    /// after it; None: all. Not 0.
    pub window: Option<usize>,
    /// A token sees those from the last multiple of this up to its own position; None: all. Not 0, and not with a window.
    pub section: Option<usize>,
    /// For each query head a slope: what is taken from a score for each position that the key is away (ALiBi).
    pub slopes: Option<&'a [f32]>,
    /// A token sees all positions before this one, those after its own too; None: those up to its own.
    pub until: Option<usize>,
}

impl AttentionParameters<'_> {
    /// Scores as they are, of all positions up to the token's own.
    pub const PLAIN: AttentionParameters<'static> = AttentionParameters {
        scale: 1.0,
        softcap: None,
        sinks: None,
        window: None,
        section: None,
        slopes: None,
        until: None,
    };
}

/// Elements of a quantised block, which share a scale.
pub const Q8_0_BLOCK: usize = 32;

/// Bytes of a quantised block: its scale, a half float, then the elements as signed bytes.
pub const Q8_0_BYTES: usize = 34;

/// How the rows of a cache hold their elements.
#[derive(Clone, Copy, Debug)]
pub enum Elements<'a> {
    /// Half floats, as bits.
    F16(&'a [u16]),
    /// Blocks of [`Q8_0_BLOCK`] elements in [`Q8_0_BYTES`] bytes.
    Q8_0(&'a [u8]),
}

impl<'a> Elements<'a> {
    /// From an index on, so many; in half floats or in bytes.
    fn part(self, from: usize, len: usize) -> Elements<'a> {
        match self {
            Elements::F16(halves) => Elements::F16(&halves[from..][..len]),
            Elements::Q8_0(bytes) => Elements::Q8_0(&bytes[from..][..len]),
        }
    }

    fn len(self) -> usize {
        match self {
            Elements::F16(halves) => halves.len(),
            Elements::Q8_0(bytes) => bytes.len(),
        }
    }
}

/// The keys, or the values, of consecutive positions.
#[derive(Clone, Copy, Debug)]
pub struct CacheRows<'a> {
    pub elements: Elements<'a>,
    /// Elements of a row.
    pub dim: usize,
    /// From the beginning of a row to that of the next, in half floats or in bytes. More than a row takes where rows are
    /// parts of longer ones.
    pub stride: usize,
}

impl<'a> CacheRows<'a> {
    /// Rows of half floats, end to end.
    pub fn half(halves: &'a [u16], dim: usize) -> CacheRows<'a> {
        CacheRows { elements: Elements::F16(halves), dim, stride: dim }
    }

    /// Rows of quantised blocks, end to end.
    pub fn q8_0(bytes: &'a [u8], dim: usize) -> CacheRows<'a> {
        CacheRows { elements: Elements::Q8_0(bytes), dim, stride: dim / Q8_0_BLOCK * Q8_0_BYTES }
    }

    /// What a row takes, in half floats or in bytes.
    fn row_len(&self) -> usize {
        match self.elements {
            Elements::F16(_) => self.dim,
            Elements::Q8_0(_) => self.dim / Q8_0_BLOCK * Q8_0_BYTES,
        }
    }

    /// How many rows are there.
    fn len(&self) -> usize {
        self.elements.len().checked_sub(self.row_len()).map_or(0, |rest| rest / self.stride + 1)
    }

    fn check(&self) {
        assert!((1..=MAX_HEAD_DIM).contains(&self.dim), "head dimension out of range");
        assert!(self.stride >= self.row_len(), "rows of a cache overlap");
        if let Elements::Q8_0(_) = self.elements {
            assert!(self.dim.is_multiple_of(Q8_0_BLOCK), "a quantised row is not whole blocks");
        }
    }
}

/// The keys and values of one key head for consecutive positions.
#[derive(Clone, Copy, Debug)]
pub struct HeadCache<'a> {
    /// The absolute position of the first row.
    pub first: usize,
    pub keys: CacheRows<'a>,
    /// Held as the keys are.
    pub values: CacheRows<'a>,
}

/// The keys and values of all key heads of a layer.
#[derive(Clone, Copy, Debug)]
pub struct LayerCache<'a> {
    /// The absolute position of the first row of each head.
    pub first: usize,
    /// [kv_heads][capacity] rows.
    pub keys: CacheRows<'a>,
    /// [kv_heads][capacity] rows, held as the keys are.
    pub values: CacheRows<'a>,
    pub kv_heads: usize,
    /// Positions that each head has room for.
    pub capacity: usize,
}

impl<'a> LayerCache<'a> {
    /// One head.
    pub fn head(&self, head: usize) -> HeadCache<'a> {
        let rows = |rows: &CacheRows<'a>| {
            let len = (self.capacity - 1) * rows.stride + rows.row_len();
            let elements = rows.elements.part(head * self.capacity * rows.stride, len);
            CacheRows { elements, ..*rows }
        };
        HeadCache { first: self.first, keys: rows(&self.keys), values: rows(&self.values) }
    }
}

impl HeadCache<'_> {
    fn check(&self) {
        self.keys.check();
        self.values.check();
        let alike = matches!(
            (self.keys.elements, self.values.elements),
            (Elements::F16(_), Elements::F16(_)) | (Elements::Q8_0(_), Elements::Q8_0(_))
        );
        assert!(alike, "keys and values are held in different ways");
    }

    /// How many positions are there.
    fn len(&self) -> usize {
        self.keys.len().min(self.values.len())
    }

    /// The positions that the token at `position` sees: within the window and not before the first row.
    fn seen(&self, position: usize, parameters: &AttentionParameters) -> (usize, usize) {
        let (start, end) = match (parameters.window, parameters.until) {
            (None, until) => (0, until.unwrap_or(position + 1)),
            (Some(w), None) => ((position + 1).saturating_sub(w), position + 1),
            (Some(w), Some(until)) => (position.saturating_sub(w / 2), until.min(position + w / 2 + 1)),
        };
        let start = start.max(self.first);
        let start = parameters.section.map_or(start, |length| start.max(position / length * length));
        assert!(
            start <= position && position < end && end - self.first <= self.len(),
            "position {position} is not in the cache"
        );
        (start, end)
    }
}

/// The attention of the query heads of one key head, for consecutive tokens of which the first stands at `position`.
/// Token i sees the positions up to its own, `position + i`, within the window, or what `parameters.until` says. Sequential, allocates nothing.
///
/// `q` is [tokens][group][key_dim], after RoPE, unscaled; `out` is [tokens][group][value_dim].
///
/// # Panics
/// If the shapes do not agree, a head has more than [`MAX_HEAD_DIM`] elements, or a position is not in the cache.
pub fn attend(
    isa: Isa,
    cache: &HeadCache,
    parameters: &AttentionParameters,
    group: usize,
    position: usize,
    q: &[f32],
    out: &mut [f32],
) {
    cache.check();
    assert!(group > 0 && q.len().is_multiple_of(group * cache.keys.dim));
    let rows = q.len() / cache.keys.dim;
    assert_eq!(out.len(), rows * cache.values.dim);
    assert!([parameters.sinks, parameters.slopes].iter().flatten().all(|of_heads| of_heads.len() == group));
    let mut q = q.chunks_exact(cache.keys.dim);
    let mut out = out.chunks_exact_mut(cache.values.dim);
    for first in (0..rows).step_by(MAX_ROWS) {
        let count = MAX_ROWS.min(rows - first);
        let mut tile: [Row; MAX_ROWS] = array::from_fn(|i| {
            let (Some(q), Some(out), true) = (q.next(), out.next(), i < count) else { return Row::default() };
            let position = position + (first + i) / group;
            let (start, end) = cache.seen(position, parameters);
            Row::new(q, out, (start, end), position, parameters, (first + i) % group)
        });
        rows::attend(isa, cache, parameters, &mut tile[..count]);
    }
}

/// The attention of a whole layer, shared out to the pool by key heads, tiles of tokens and, where those are too few,
/// parts of the heads that share a key head.
///
/// `q` is [tokens][heads][key_dim], after RoPE, unscaled; `out` is [tokens][heads][value_dim]; query heads
/// `h·heads/kv_heads ..` belong to key head h. The first token stands at `position`; the cache holds its keys and
/// values and those of the tokens after it. Sinks and slopes have one entry per query head.
///
/// # Panics
/// If the shapes do not agree, a head has more than [`MAX_HEAD_DIM`] elements, or a position is not in the cache.
#[allow(clippy::too_many_arguments)]
pub fn attend_layer(
    pool: &Pool,
    isa: Isa,
    cache: &LayerCache,
    parameters: &AttentionParameters,
    heads: usize,
    position: usize,
    q: &[f32],
    out: &mut [f32],
) {
    let (kv_heads, key_dim, value_dim) = (cache.kv_heads, cache.keys.dim, cache.values.dim);
    assert!(kv_heads > 0 && heads > 0 && heads.is_multiple_of(kv_heads) && key_dim > 0 && value_dim > 0);
    assert!(q.len().is_multiple_of(heads * key_dim));
    let tokens = q.len() / (heads * key_dim);
    assert_eq!(out.len(), tokens * heads * value_dim);
    assert!([parameters.sinks, parameters.slopes].iter().flatten().all(|of_heads| of_heads.len() == heads));
    let end = position.checked_add(tokens).and_then(|end| end.checked_sub(cache.first));
    assert!(end.is_some_and(|end| end <= cache.capacity), "positions beyond the cache");

    let group = heads / kv_heads;
    let mut share = group.min(MAX_ROWS);
    let tile = MAX_ROWS / share;
    let tiles = tokens.div_ceil(tile);
    while share > 1 && kv_heads * group.div_ceil(share) * tiles < pool.threads() {
        share = share.div_ceil(2);
    }
    let shares = group.div_ceil(share);
    let out_rows = OutRows { base: out.as_mut_ptr(), dim: value_dim };
    let out_rows = &out_rows;

    pool.for_ranges(kv_heads * shares * tiles, 1, &|items| {
        for item in items {
            let (kv_head, share_index, tile_index) = (item / (shares * tiles), item / tiles % shares, item % tiles);
            let head_cache = cache.head(kv_head);
            head_cache.check();
            let first_head = kv_head * group + share_index * share;
            let item_heads = share.min(group - share_index * share);
            let first_token = tile_index * tile;
            let count = item_heads * tile.min(tokens - first_token);
            let mut rows: [Row; MAX_ROWS] = array::from_fn(|i| {
                if i >= count {
                    return Row::default();
                }
                let (token, head) = (first_token + i / item_heads, first_head + i % item_heads);
                let (start, end) = head_cache.seen(position + token, parameters);
                let row = token * heads + head;
                // SAFETY: row < tokens · heads, the rows of `out`; an item has its own tokens or its own heads, so
                // that no other item, and no other i of this one, has the same row.
                let out = unsafe { out_rows.row(row) };
                let q = &q[row * key_dim..][..key_dim];
                Row::new(q, out, (start, end), position + token, parameters, head)
            });
            rows::attend(isa, &head_cache, parameters, &mut rows[..count]);
        }
    });
}

/// The rows of an output that several threads write, each other rows.
struct OutRows {
    base: *mut f32,
    dim: usize,
}

// SAFETY: threads only get at the memory through `row`, whose contract keeps the rows apart.
unsafe impl Sync for OutRows {}

impl OutRows {
    /// # Safety
    /// The row exists, and nobody else holds it; the slice is not used after the call that made `self` has returned.
    #[allow(clippy::mut_from_ref)]
    unsafe fn row<'a>(&self, row: usize) -> &'a mut [f32] {
        // SAFETY: as promised by the caller, the row lies within the output and is not held by another.
        unsafe { std::slice::from_raw_parts_mut(self.base.add(row * self.dim), self.dim) }
    }
}
