use super::*;
use crate::kernel::Isa;
use crate::kernel::pool::Pool;
use crate::kernel::testing::noise;
use crate::operations::StateHeads;

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

fn close(got: &[f32], want: &[f64], what: &str) {
    let norm = want.iter().map(|x| x * x).sum::<f64>().sqrt();
    let off = got.iter().zip(want).map(|(a, b)| (f64::from(*a) - b).powi(2)).sum::<f64>().sqrt();
    assert!(off <= 2e-6 * norm, "{what}: {off} of {norm}");
}

const TOKENS: usize = 29;

#[test]
fn a_convolution_is_the_sum_over_the_last_tokens_however_they_are_cut() {
    for (channels, kernel, silu) in [(5, 3, false), (64, 4, true), (200, 4, true), (131, 2, false), (9, 1, true)] {
        let (width, first) = (channels + 3, 2);
        let (weights, bias) = (noise(1, channels * kernel), noise(2, channels));
        let x = noise(3, TOKENS * width);
        let mut want = Vec::new();
        for t in 0..TOKENS {
            for c in 0..channels {
                let tap = |j: usize| match (t + j + 1).checked_sub(kernel) {
                    Some(at) => f64::from(x[at * width + first + c]) * f64::from(weights[c * kernel + j]),
                    None => 0.0,
                };
                let y = (0..kernel).map(tap).sum::<f64>() + f64::from(bias[c]);
                want.push(if silu { y / (1.0 + (-y).exp()) } else { y });
            }
        }
        for isa in Isa::available() {
            let c = Convolution { weights: &weights, bias: Some(&bias), kernel, silu };
            let run = |threads: usize, step: usize| {
                let pool = Pool::new(threads).unwrap();
                let mut rows = x.clone();
                let mut state = vec![f32::NAN; (kernel - 1) * channels];
                for (i, rows) in rows.chunks_mut(step * width).enumerate() {
                    let before = if i == 0 { Before::Empty } else { Before::InPlace };
                    convolve(&pool, isa, &c, (before, &mut state), (rows, width, first));
                }
                let inside = |row: &[f32]| row[first..first + channels].to_vec();
                for (row, old) in rows.chunks(width).zip(x.chunks(width)) {
                    assert_eq!((row[0], row[1], row[width - 1]), (old[0], old[1], old[width - 1]), "other columns");
                }
                (rows.chunks(width).flat_map(inside).collect::<Vec<f32>>(), state)
            };
            let (got, state) = run(1, TOKENS);
            close(&got, &want, &format!("{isa:?}, {channels} channels"));
            for (threads, step) in [(2, TOKENS), (2, 7), (1, 1), (3, 2)] {
                let (other, other_state) = run(threads, step);
                assert_eq!((bits(&other), bits(&other_state)), (bits(&got), bits(&state)), "{threads} threads, {step}");
            }
        }
    }
}

struct Case {
    heads: StateHeads,
    rows: Vec<f32>,
    inputs: Vec<f32>,
    bias: Vec<f32>,
    factors: Vec<f32>,
    strengths: Option<Vec<f32>>,
    skip: Vec<f32>,
    width: usize,
}

const EPS: f32 = 1e-4;
const MARGIN: usize = 3;

impl Case {
    fn new(heads: StateHeads, delta: bool, by_element: bool) -> Case {
        let width = MARGIN + 2 * heads.key_heads * heads.key + heads.count * heads.value;
        let per_head = if by_element { heads.key } else { 1 };
        Case {
            rows: noise(1, TOKENS * width),
            inputs: noise(2, TOKENS * heads.count * per_head),
            bias: noise(3, heads.count * per_head),
            factors: noise(4, heads.count).iter().map(|x| -x.abs()).collect(),
            strengths: delta.then(|| noise(5, TOKENS * heads.count)),
            skip: noise(6, heads.count),
            heads,
            width,
        }
    }

    fn places(&self) -> [usize; 3] {
        let keys = self.heads.key_heads * self.heads.key;
        [MARGIN, MARGIN + keys, MARGIN + 2 * keys]
    }

    /// The results of the tokens, and the state after them.
    fn run(&self, isa: Isa, pool: &Pool, step: usize) -> (Vec<u32>, Vec<u32>, Vec<f32>) {
        let [queries, keys, values] = self.places();
        let h = self.heads;
        let mut states = [vec![f32::NAN; h.state_len()], vec![f32::NAN; h.state_len()]];
        let mut out = vec![f32::NAN; TOKENS * h.count * h.value];
        let per_token = self.inputs.len() / TOKENS;
        for (i, out) in out.chunks_mut(step * h.count * h.value).enumerate() {
            let tokens = i * step..TOKENS.min((i + 1) * step);
            let of = |x: &'_ [f32], per: usize| x[tokens.start * per..tokens.end * per].to_vec();
            let (rows, inputs) = (of(&self.rows, self.width), of(&self.inputs, per_token));
            let strengths = self.strengths.as_ref().map(|strengths| of(strengths, h.count));
            let rule = match &strengths {
                Some(strengths) => Rule::Delta { strengths, eps: EPS },
                None => Rule::Plain { skip: Some(&self.skip) },
            };
            let decay = Decay { inputs: &inputs, bias: &self.bias, factors: &self.factors };
            let r = Recurrence { heads: h, decay, rule, rows: &rows, width: self.width, queries, keys, values };
            // The second call finds the state elsewhere, the later ones where it is.
            let [first, second] = &mut states;
            match i {
                0 => recur(pool, isa, &r, (Before::Empty, first), out),
                1 => recur(pool, isa, &r, (Before::Elsewhere(first), second), out),
                _ => recur(pool, isa, &r, (Before::InPlace, second), out),
            }
        }
        let [first, second] = states;
        (bits(&out), bits(if step < TOKENS { &second } else { &first }), out)
    }

    /// The same in f64, by the formulas of the papers.
    fn exact(&self) -> Vec<f64> {
        let [queries, keys, values] = self.places();
        let h = self.heads;
        let per_head = self.bias.len() / h.count;
        let mut states = vec![vec![0f64; h.key * h.value]; h.count];
        let mut out = Vec::new();
        for t in 0..TOKENS {
            let row: Vec<f64> = self.rows[t * self.width..][..self.width].iter().map(|x| f64::from(*x)).collect();
            for (head, s) in states.iter_mut().enumerate() {
                let shared = h.count / h.key_heads;
                let key_head = if h.tiled { head % h.key_heads } else { head / shared } * h.key;
                let (mut q, mut k) =
                    (row[queries + key_head..][..h.key].to_vec(), row[keys + key_head..][..h.key].to_vec());
                let v = &row[values + head * h.value..][..h.value];
                let delta = |i: usize| {
                    let at = head * per_head + i % per_head;
                    (f64::from(self.inputs[t * self.bias.len() + at]) + f64::from(self.bias[at])).exp().ln_1p()
                };
                let mut strength = delta(0);
                if let Some(strengths) = &self.strengths {
                    for (x, extra) in [(&mut q, (h.key as f64).sqrt()), (&mut k, 1.0)] {
                        let length = (x.iter().map(|x| x * x).sum::<f64>() + f64::from(EPS)).sqrt() * extra;
                        x.iter_mut().for_each(|x| *x /= length);
                    }
                    strength = 1.0 / (1.0 + (-f64::from(strengths[t * h.count + head])).exp());
                }
                for (i, s) in s.chunks_mut(h.value).enumerate() {
                    let decay = (f64::from(self.factors[head]) * delta(i)).exp();
                    s.iter_mut().for_each(|s| *s *= decay);
                }
                for j in 0..h.value {
                    let column = |s: &[f64], x: &[f64]| (0..h.key).map(|i| s[i * h.value + j] * x[i]).sum::<f64>();
                    let there = if self.strengths.is_some() { column(s, &k) } else { 0.0 };
                    let d = strength * (v[j] - there);
                    (0..h.key).for_each(|i| s[i * h.value + j] += k[i] * d);
                    let skipped = if self.strengths.is_some() { 0.0 } else { f64::from(self.skip[head]) * v[j] };
                    out.push(column(s, &q) + skipped);
                }
            }
        }
        out
    }
}

#[test]
fn a_state_follows_its_formula_with_the_same_bits_in_every_way_to_run_it() {
    let heads = |count, key_heads, key, value, tiled| StateHeads { count, key_heads, key, value, tiled };
    for (heads, delta, by_element) in [
        (heads(4, 2, 16, 16, true), true, false),
        (heads(4, 2, 16, 16, false), true, false),
        (heads(3, 3, 128, 128, false), true, true),
        (heads(6, 2, 16, 16, false), false, false),
        (heads(2, 1, 7, 45, false), false, false),
        (heads(2, 2, 256, 5, false), true, true),
    ] {
        let case = Case::new(heads, delta, by_element);
        let pools = [1, 2, 3].map(|threads| Pool::new(threads).unwrap());
        let (out, state, numbers) = case.run(Isa::SCALAR, &pools[0], TOKENS);
        close(&numbers, &case.exact(), &format!("{heads:?}"));
        for isa in Isa::available() {
            for (pool, step) in [(&pools[0], 1), (&pools[1], TOKENS), (&pools[1], 7), (&pools[2], 9)] {
                let (other, other_state, _) = case.run(isa, pool, step);
                assert!(other == out && other_state == state, "{heads:?}, {isa:?}, {step} at once");
            }
        }
    }
}
