//! States that are a matrix S of keys and values for each head, changed by each token:
//!
//! S ← diag(g)·S, then S ← S + k·dᵀ, and the result is Sᵀ·q.
//!
//! g is how much of each key stays. The delta rule (arXiv 2412.06464, and 2510.26692 with a g for each element of the
//! key) has d = β·(v − Sᵀ·k), which replaces what S has under the key; Mamba 2 (arXiv 2405.21060) has d = δ·v.
//!
//! The sums over the key's elements are taken before S changes: Sᵀ·q is Σ g·q·S + d·(k·q). The columns of S, one for each
//! element of the values, are apart from each other, so a few of them are taken through several tokens at a time: they
//! stay in the first cache.

use super::{Before, Shared};
use crate::elementary;
use crate::kernel::Isa;
use crate::kernel::pool::Pool;
use crate::kernel::vector::simd::{Chunk, Kernel, LANES, Simd, dispatch, sum_lanes};
use crate::operations::{MAX_KEY, STATE_PADDING, StateHeads};

/// Tokens that a few columns are taken through at a time.
const TILE: usize = 8;

/// Vectors of columns that are taken together; the rest is taken vector by vector.
const VECTORS: usize = 4;

// States are padded for these vectors.
const _: () = assert!(STATE_PADDING == LANES);

/// Where g comes from: exp(factor · δ) of each head, with δ = ln(1 + exp(input + bias)).
#[derive(Clone, Copy)]
pub struct Decay<'a> {
    /// [tokens][heads], or [tokens][heads][key] where each element of the key has its own.
    pub inputs: &'a [f32],
    /// [heads], or [heads][key].
    pub bias: &'a [f32],
    /// [heads]
    pub factors: &'a [f32],
}

/// How a token changes the state.
#[derive(Clone, Copy)]
pub enum Rule<'a> {
    /// Queries and keys are divided by their lengths, √(Σx² + eps), queries by √key as well; β is the sigmoid of
    /// `strengths`, [tokens][heads].
    Delta { strengths: &'a [f32], eps: f32 },
    /// With one g for each head. Where there is a `skip`, [heads], skip·v is added to the result.
    Plain { skip: Option<&'a [f32]> },
}

/// The tokens that change a state.
#[derive(Clone, Copy)]
pub struct Recurrence<'a> {
    pub heads: StateHeads,
    pub decay: Decay<'a>,
    pub rule: Rule<'a>,
    /// [tokens][width]: somewhere in it the queries, [key_heads][key], the keys, the same, and the values, [count][value].
    pub rows: &'a [f32],
    pub width: usize,
    /// Where these three begin in a row.
    pub queries: usize,
    pub keys: usize,
    pub values: usize,
}

/// Takes tokens into the states of all heads, and writes their results to `out`, [tokens][heads][value]. `state` has
/// [`state_len`] elements, whose order is this module's own.
///
/// # Panics
/// If the shapes do not agree.
pub fn recur(pool: &Pool, isa: Isa, r: &Recurrence, (before, state): (Before, &mut [f32]), out: &mut [f32]) {
    let h = &r.heads;
    assert!(h.count > 0 && h.key_heads > 0 && h.count.is_multiple_of(h.key_heads) && (1..=MAX_KEY).contains(&h.key));
    assert!(h.value > 0 && r.width > 0 && r.rows.len().is_multiple_of(r.width));
    let keys_end = r.queries.max(r.keys) + h.key_heads * h.key;
    assert!(keys_end.max(r.values + h.count * h.value) <= r.width);
    let tokens = r.rows.len() / r.width;
    let per_head = r.decay.bias.len() / h.count;
    assert!(r.decay.factors.len() == h.count && r.decay.bias.len() == per_head * h.count);
    assert!(per_head == 1 || per_head == h.key && matches!(r.rule, Rule::Delta { .. }));
    assert_eq!(r.decay.inputs.len(), tokens * r.decay.bias.len());
    match r.rule {
        Rule::Delta { strengths, .. } => assert_eq!(strengths.len(), tokens * h.count),
        Rule::Plain { skip } => assert!(skip.is_none_or(|skip| skip.len() == h.count)),
    }
    assert_eq!(out.len(), tokens * h.count * h.value);
    assert_eq!(state.len(), h.state_len());
    let (state, out) = (&Shared(state.as_mut_ptr()), &Shared(out.as_mut_ptr()));
    let len = h.head_state_len();
    pool.for_ranges(h.count, 1, &|heads| {
        for head in heads {
            // SAFETY: each head has a stretch of the state, and is handed out once.
            let state = unsafe { state.slice(head * len, len) };
            before.part(head * len..(head + 1) * len).put(state);
            dispatch(isa, Head { r, head, tokens, state, out });
        }
    });
}

struct Head<'a> {
    r: &'a Recurrence<'a>,
    head: usize,
    tokens: usize,
    state: &'a mut [f32],
    out: &'a Shared,
}

/// What a token does to the state, by the elements of its key.
#[derive(Clone, Copy)]
struct Change {
    /// g.
    decays: [f32; MAX_KEY],
    keys: [f32; MAX_KEY],
    /// g·k, to see what the state has under the key.
    seen: [f32; MAX_KEY],
    /// g·q.
    queried: [f32; MAX_KEY],
    /// k·q.
    overlap: f32,
    /// β or δ.
    strength: f32,
}

const NOTHING: Change = Change {
    decays: [0.0; MAX_KEY],
    keys: [0.0; MAX_KEY],
    seen: [0.0; MAX_KEY],
    queried: [0.0; MAX_KEY],
    overlap: 0.0,
    strength: 0.0,
};

impl Kernel for Head<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        // To clear room for a tile takes as long as half a token.
        match self.tokens {
            1 => self.take_all(s, &mut [NOTHING; 1]),
            _ => self.take_all(s, &mut [NOTHING; TILE]),
        }
    }
}

impl Head<'_> {
    #[inline(always)]
    fn take_all<S: Simd>(mut self, s: S, changes: &mut [Change]) {
        for first in (0..self.tokens).step_by(changes.len()) {
            let count = changes.len().min(self.tokens - first);
            for (i, change) in changes[..count].iter_mut().enumerate() {
                self.prepare(s, first + i, change);
            }
            let mut column = 0;
            while column + VECTORS * LANES <= self.r.heads.value {
                self.take::<S, VECTORS>(s, first, &changes[..count], column);
                column += VECTORS * LANES;
            }
            while column < self.r.heads.value {
                self.take::<S, 1>(s, first, &changes[..count], column);
                column += LANES;
            }
        }
    }

    #[inline(always)]
    fn prepare<S: Simd>(&self, s: S, token: usize, c: &mut Change) {
        let Recurrence { heads: h, decay, rule, rows, width, queries, keys, .. } = *self.r;
        let row = &rows[token * width..][..width];
        let key_head = h.key_head(self.head) * h.key;
        let (q, k) = (&row[queries + key_head..][..h.key], &row[keys + key_head..][..h.key]);
        let per_head = decay.bias.len() / h.count;
        let inputs = &decay.inputs[token * decay.bias.len() + self.head * per_head..][..per_head];
        let bias = &decay.bias[self.head * per_head..][..per_head];
        let factor = decay.factors[self.head];
        let amount = |i: usize| softplus(inputs[i] + bias[i]);
        if per_head == 1 {
            c.decays[..h.key].fill(elementary::exp(factor * amount(0)));
        } else {
            (0..h.key).for_each(|i| c.decays[i] = elementary::exp(factor * amount(i)));
        }
        let [mut of_query, mut of_key] = [1.0; 2];
        match rule {
            Rule::Delta { strengths, eps } => {
                of_query = 1.0 / ((dot(s, q, q) + eps).sqrt() * (h.key as f32).sqrt());
                of_key = 1.0 / (dot(s, k, k) + eps).sqrt();
                c.strength = 1.0 / (1.0 + elementary::exp(-strengths[token * h.count + self.head]));
            }
            Rule::Plain { .. } => c.strength = amount(0),
        }
        for i in 0..h.key {
            let query = q[i] * of_query;
            c.keys[i] = k[i] * of_key;
            c.seen[i] = c.decays[i] * c.keys[i];
            c.queried[i] = c.decays[i] * query;
        }
        c.overlap = dot(s, k, q) * (of_key * of_query);
    }

    /// Takes tokens from the `first` on into N vectors of columns.
    #[inline(always)]
    fn take<S: Simd, const N: usize>(&mut self, s: S, first: usize, changes: &[Change], column: usize) {
        let Recurrence { heads: h, rule, rows, width, values, .. } = *self.r;
        let state = self.state[column * h.key..][..N * LANES * h.key].as_chunks_mut::<LANES>().0;
        let state = state.as_chunks_mut::<N>().0;
        let len = (N * LANES).min(h.value - column);
        for (i, c) in changes.iter().enumerate() {
            let token = first + i;
            let (seen, queried) = (&c.seen[..state.len()], &c.queried[..state.len()]);
            let mut under_key = [s.splat(0.0); N];
            let mut result = [s.splat(0.0); N];
            for ((x, &seen), &queried) in state.iter().zip(seen).zip(queried) {
                let (seen, queried) = (s.splat(seen), s.splat(queried));
                for n in 0..N {
                    let x = s.load(&x[n]);
                    under_key[n] = s.add(under_key[n], s.mul(x, seen));
                    result[n] = s.add(result[n], s.mul(x, queried));
                }
            }
            let value = &rows[token * width + values + self.head * h.value + column..][..len];
            // SAFETY: the columns of the head are this thread's own, and lie within the token's row.
            let out = unsafe { self.out.slice((token * h.count + self.head) * h.value + column, len) };
            let mut added = [s.splat(0.0); N];
            for (n, (value, out)) in value.chunks(LANES).zip(out.chunks_mut(LANES)).enumerate() {
                let value = s.load_part(value, 0.0);
                let strength = s.splat(c.strength);
                added[n] = match rule {
                    Rule::Delta { .. } => s.mul(strength, s.sub(value, under_key[n])),
                    Rule::Plain { .. } => s.mul(strength, value),
                };
                let mut y = s.add(result[n], s.mul(added[n], s.splat(c.overlap)));
                if let Rule::Plain { skip: Some(skip) } = rule {
                    y = s.add(y, s.mul(s.splat(skip[self.head]), value));
                }
                s.store_part(y, out);
            }
            let (decays, keys) = (&c.decays[..state.len()], &c.keys[..state.len()]);
            for ((x, &decay), &key) in state.iter_mut().zip(decays).zip(keys) {
                let (decay, key) = (s.splat(decay), s.splat(key));
                for n in 0..N {
                    let new = s.add(s.mul(s.load(&x[n]), decay), s.mul(key, added[n]));
                    s.store(new, &mut x[n]);
                }
            }
        }
    }
}

/// Σ a·b: eight sums, added up as everywhere. Rounded after each product, with every instruction set.
#[inline(always)]
fn dot<S: Simd>(s: S, a: &[f32], b: &[f32]) -> f32 {
    let mut sum = s.splat(0.0);
    for (a, b) in a.chunks(LANES).zip(b.chunks(LANES)) {
        sum = s.add(sum, s.mul(s.load_part(a, 0.0), s.load_part(b, 0.0)));
    }
    let lanes: Chunk = s.array(sum);
    sum_lanes(&lanes)
}

/// ln(1 + e^x); beyond 20 that is x.
fn softplus(x: f32) -> f32 {
    if x > 20.0 { x } else { elementary::ln_1p(elementary::exp(x)) }
}
