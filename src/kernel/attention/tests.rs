use super::*;
use crate::kernel::testing::noise;
use crate::kernel::vector::{f16_to_f32, f32_to_f16};

const PLAIN: AttentionParameters = AttentionParameters::PLAIN;

fn half_noise(seed: u64, count: usize) -> Vec<u16> {
    let mut out = vec![0; count];
    f32_to_f16(Isa::SCALAR, &noise(seed, count), &mut out);
    out
}

/// The elements of rows that lie end to end.
fn wide(rows: &CacheRows) -> Vec<f64> {
    let out = match rows.elements {
        Elements::F16(halves) => {
            let mut out = vec![0.0; halves.len()];
            f16_to_f32(Isa::SCALAR, halves, &mut out);
            out
        }
        Elements::Q8_0(bytes) => {
            let mut out = vec![0.0; bytes.len() / Q8_0_BYTES * Q8_0_BLOCK];
            crate::quant::decode_row(crate::quant::Format::Q8_0, bytes, &mut out);
            out
        }
    };
    out.into_iter().map(f64::from).collect()
}

/// One query, in f64, the plain way: the result and, per element, the sum of the magnitudes that were added.
fn direct(
    cache: &HeadCache,
    parameters: &AttentionParameters,
    sink: Option<f32>,
    position: usize,
    q: &[f32],
) -> Vec<(f64, f64)> {
    let (keys, values) = (wide(&cache.keys), wide(&cache.values));
    let seen: Vec<usize> = (cache.first..parameters.until.unwrap_or(position + 1))
        .filter(|&p| match (parameters.window, parameters.until) {
            (None, _) => true,
            (Some(w), None) => position - p < w,
            (Some(w), Some(_)) => position.abs_diff(p) <= w / 2,
        })
        .filter(|&p| parameters.section.is_none_or(|s| p / s == position / s))
        .map(|p| p - cache.first)
        .collect();
    let scores: Vec<f64> = seen
        .iter()
        .map(|&p| {
            let key = &keys[p * cache.keys.dim..][..cache.keys.dim];
            let score = q.iter().zip(key).map(|(&q, k)| f64::from(q) * k).sum::<f64>() * f64::from(parameters.scale);
            let score = parameters
                .slopes
                .map_or(score, |slopes| score - f64::from(slopes[0]) * (p + cache.first).abs_diff(position) as f64);
            parameters.softcap.map_or(score, |cap| f64::from(cap) * (score / f64::from(cap)).tanh())
        })
        .collect();
    let sink = sink.map_or(f64::NEG_INFINITY, f64::from);
    let max = scores.iter().fold(sink, |m, &s| m.max(s));
    let total: f64 = scores.iter().map(|s| (s - max).exp()).sum::<f64>() + (sink - max).exp();
    (0..cache.values.dim)
        .map(|d| {
            let terms =
                seen.iter().zip(&scores).map(|(&p, s)| (s - max).exp() / total * values[p * cache.values.dim + d]);
            terms.fold((0.0, 0.0), |(sum, size), term| (sum + term, size + term.abs()))
        })
        .collect()
}

struct Case {
    q: Vec<f32>,
    keys: Vec<u16>,
    values: Vec<u16>,
    sinks: Vec<f32>,
    first: usize,
    key_dim: usize,
    value_dim: usize,
    group: usize,
}

impl Case {
    /// `n` cached positions from `first` on, queries for the last `tokens` of them.
    fn new(first: usize, n: usize, tokens: usize, group: usize, key_dim: usize, value_dim: usize) -> Case {
        let seed = (n * 31 + key_dim * 7 + group) as u64;
        Case {
            q: noise(seed, tokens * group * key_dim).iter().map(|x| x * 3.0).collect(),
            keys: half_noise(seed + 1, n * key_dim),
            values: half_noise(seed + 2, n * value_dim),
            sinks: noise(seed + 3, group).iter().map(|x| x * 4.0).collect(),
            first,
            key_dim,
            value_dim,
            group,
        }
    }

    fn cache(&self) -> HeadCache<'_> {
        let Case { first, key_dim, value_dim, .. } = *self;
        HeadCache {
            first,
            keys: CacheRows::half(&self.keys, key_dim),
            values: CacheRows::half(&self.values, value_dim),
        }
    }

    fn tokens(&self) -> usize {
        self.q.len() / (self.group * self.key_dim)
    }

    /// The position of the first query.
    fn position(&self) -> usize {
        self.first + self.keys.len() / self.key_dim - self.tokens()
    }

    fn run(&self, isa: Isa, parameters: &AttentionParameters) -> Vec<f32> {
        let mut out = vec![f32::NAN; self.tokens() * self.group * self.value_dim];
        attend(isa, &self.cache(), parameters, self.group, self.position(), &self.q, &mut out);
        out
    }

    /// One call per token and head.
    fn run_singly(&self, isa: Isa, parameters: &AttentionParameters) -> Vec<f32> {
        let mut out = vec![f32::NAN; self.tokens() * self.group * self.value_dim];
        for (i, out) in out.chunks_exact_mut(self.value_dim).enumerate() {
            let head = i % self.group;
            let parameters = AttentionParameters { sinks: parameters.sinks.map(|s| &s[head..head + 1]), ..*parameters };
            let q = &self.q[i * self.key_dim..][..self.key_dim];
            attend(isa, &self.cache(), &parameters, 1, self.position() + i / self.group, q, out);
        }
        out
    }

    fn check(&self, parameters: &AttentionParameters) {
        for isa in Isa::available() {
            let got = self.run(isa, parameters);
            for (i, got) in got.chunks_exact(self.value_dim).enumerate() {
                let q = &self.q[i * self.key_dim..][..self.key_dim];
                let sink = parameters.sinks.map(|s| s[i % self.group]);
                let exact = direct(&self.cache(), parameters, sink, self.position() + i / self.group, q);
                for (got, (exact, size)) in got.iter().zip(exact) {
                    assert!(
                        (f64::from(*got) - exact).abs() <= 1e-5 * size,
                        "{isa:?}, {} positions from {}, head {} x {}, row {i}: {got} is not {exact}",
                        self.keys.len() / self.key_dim,
                        self.first,
                        self.key_dim,
                        self.value_dim,
                    );
                }
            }
        }
    }
}

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

#[test]
fn tokens_of_an_encoder_see_those_after_them_too() {
    for (n, group, dim) in [(1, 1, 8), (7, 2, 32), (64, 1, 16), (65, 4, 32), (200, 1, 24)] {
        let case = Case::new(0, n, n, group, dim, dim);
        case.check(&AttentionParameters { scale: 0.3, until: Some(n), ..PLAIN });
        case.check(&AttentionParameters { scale: 0.3, until: Some(n), window: Some(9), ..PLAIN });
        case.check(&AttentionParameters { scale: 0.3, section: Some(7), ..PLAIN });
        let slopes = vec![0.25; group];
        case.check(&AttentionParameters { scale: 0.3, until: Some(n), slopes: Some(&slopes), ..PLAIN });
    }
}

#[test]
fn one_token_agrees_with_f64_at_every_length() {
    for n in 1..=300 {
        Case::new(0, n, 1, 3, 32, 32).check(&AttentionParameters { scale: 0.2, ..PLAIN });
    }
}

#[test]
fn all_head_sizes_agree_with_f64() {
    for (key_dim, value_dim) in [
        (16, 16),
        (32, 32),
        (64, 64),
        (80, 80),
        (96, 96),
        (128, 128),
        (256, 256),
        (512, 512),
        (20, 20),
        (1, 3),
        (83, 45),
        (192, 128),
    ] {
        for group in [1, 4, 7, 16] {
            Case::new(0, 150, 2, group, key_dim, value_dim)
                .check(&AttentionParameters { scale: 1.0 / (key_dim as f32).sqrt(), ..PLAIN });
        }
    }
}

#[test]
fn softcap_sinks_and_windows_agree_with_f64() {
    for (n, tokens) in [(1, 1), (65, 3), (200, 40)] {
        let case = Case::new(0, n, tokens, 5, 64, 64);
        for scale in [0.125, 2.0] {
            for softcap in [None, Some(5.0)] {
                for sinks in [None, Some(case.sinks.as_slice())] {
                    for window in [None, Some(1), Some(7), Some(64), Some(100), Some(4096)] {
                        case.check(&AttentionParameters {
                            scale,
                            softcap,
                            sinks,
                            window,
                            section: None,
                            slopes: None,
                            until: None,
                        });
                    }
                }
            }
        }
    }
}

#[test]
fn a_sink_far_above_all_scores_leaves_nothing_and_one_far_below_changes_nothing() {
    let case = Case::new(0, 90, 1, 2, 16, 16);
    for isa in Isa::available() {
        assert_eq!(case.run(isa, &AttentionParameters { sinks: Some(&[500.0, 500.0]), ..PLAIN }), vec![0.0; 32]);
        let without = case.run(isa, &PLAIN);
        assert_eq!(case.run(isa, &AttentionParameters { sinks: Some(&[-500.0, -500.0]), ..PLAIN }), without);
    }
}

#[test]
fn scores_of_any_size_do_not_overflow() {
    let mut case = Case::new(0, 130, 1, 2, 64, 64);
    case.q.iter_mut().for_each(|q| *q *= 1e6);
    for isa in Isa::available() {
        assert!(case.run(isa, &PLAIN).iter().all(|x| x.abs() <= 1.0));
    }
}

#[test]
fn rows_computed_together_have_the_bits_of_rows_computed_singly() {
    for isa in Isa::available() {
        for (n, tokens, group, dim) in
            [(1, 1, 16, 64), (64, 64, 1, 32), (300, 70, 4, 64), (200, 33, 16, 20), (129, 9, 7, 80), (100, 3, 20, 16)]
        {
            let case = Case::new(0, n, tokens, group, dim, dim);
            for window in [None, Some(5), Some(64), Some(90)] {
                let parameters = AttentionParameters {
                    scale: 0.3,
                    softcap: window.map(|_| 30.0),
                    sinks: Some(&case.sinks),
                    window,
                    section: None,
                    slopes: None,
                    until: None,
                };
                assert_eq!(bits(&case.run(isa, &parameters)), bits(&case.run_singly(isa, &parameters)));
            }
        }
    }
}

#[test]
fn keys_and_values_after_a_token_leave_no_trace_in_it() {
    for isa in Isa::available() {
        let mut case = Case::new(0, 100, 20, 2, 16, 16);
        let clean = case.run(isa, &PLAIN);
        // The last ten tokens' keys and values become NaN and infinity.
        case.keys[90 * 16..].fill(0x7e00);
        case.values[90 * 16..].fill(0x7c00);
        let marked = case.run(isa, &PLAIN);
        let seen = 10 * 2 * 16;
        assert_eq!(bits(&marked[..seen]), bits(&clean[..seen]));
        assert!(marked[seen..].iter().all(|x| !x.is_finite()));
    }
}

#[test]
fn a_cache_that_starts_at_the_window_gives_the_bits_of_the_whole_cache() {
    for isa in Isa::available() {
        let whole = Case::new(0, 260, 3, 4, 32, 32);
        let parameters = AttentionParameters { window: Some(100), scale: 0.5, ..PLAIN };
        let expected = bits(&whole.run(isa, &parameters));
        for first in [1, 63, 64, 100, 158] {
            let cache = HeadCache {
                first,
                keys: CacheRows::half(&whole.keys[first * 32..], 32),
                values: CacheRows::half(&whole.values[first * 32..], 32),
            };
            let mut out = vec![0.0; 3 * 4 * 32];
            attend(isa, &cache, &parameters, 4, 257, &whole.q, &mut out);
            assert_eq!(bits(&out), expected);
        }
    }
}

#[test]
fn a_layer_has_the_bits_of_its_heads_whatever_the_threads() {
    let (kv_heads, context, key_dim, value_dim) = (3, 150, 24, 16);
    let keys = half_noise(1, kv_heads * context * key_dim);
    let values = half_noise(2, kv_heads * context * value_dim);
    let (key_rows, value_rows) = (CacheRows::half(&keys, key_dim), CacheRows::half(&values, value_dim));
    let cache = LayerCache { first: 0, keys: key_rows, values: value_rows, kv_heads, capacity: context };
    for isa in Isa::available() {
        for (heads, tokens, position) in [(3, 1, 149), (12, 1, 70), (12, 50, 100), (6, 150, 0), (24, 5, 3), (60, 2, 40)]
        {
            let sinks = noise(3, heads);
            let parameters = AttentionParameters {
                scale: 0.4,
                softcap: None,
                sinks: Some(&sinks),
                window: Some(120),
                section: None,
                slopes: None,
                until: None,
            };
            let q = noise(4, tokens * heads * key_dim);
            let mut expected = vec![0u32; tokens * heads * value_dim];
            for (row, expected) in expected.chunks_exact_mut(value_dim).enumerate() {
                let (token, head) = (row / heads, row % heads);
                let kv_head = head / (heads / kv_heads);
                let head_cache = HeadCache {
                    first: 0,
                    keys: CacheRows::half(&keys[kv_head * context * key_dim..][..context * key_dim], key_dim),
                    values: CacheRows::half(&values[kv_head * context * value_dim..][..context * value_dim], value_dim),
                };
                let parameters = AttentionParameters { sinks: Some(&sinks[head..=head]), ..parameters };
                let mut out = vec![0.0; value_dim];
                attend(isa, &head_cache, &parameters, 1, position + token, &q[row * key_dim..][..key_dim], &mut out);
                expected.copy_from_slice(&bits(&out));
            }
            for threads in 1..=4 {
                let pool = Pool::new(threads).unwrap();
                let mut out = vec![f32::NAN; tokens * heads * value_dim];
                attend_layer(&pool, isa, &cache, &parameters, heads, position, &q, &mut out);
                assert_eq!(bits(&out), expected, "{heads} heads, {tokens} tokens, {threads} threads");
            }
        }
    }
}

/// Not a test: `cargo test --release attention_speed -- --ignored --nocapture` measures one layer.
#[test]
#[ignore = "a measurement"]
fn attention_speed() {
    for (heads, kv_heads, dim) in [(32, 4, 64), (32, 8, 128), (32, 32, 64)] {
        let context = 4096;
        let (keys, values) = (half_noise(1, kv_heads * context * dim), half_noise(2, kv_heads * context * dim));
        let (key_rows, value_rows) = (CacheRows::half(&keys, dim), CacheRows::half(&values, dim));
        let cache = LayerCache { first: 0, keys: key_rows, values: value_rows, kv_heads, capacity: context };
        let parameters = AttentionParameters { scale: 0.125, ..PLAIN };
        for threads in [1, 2] {
            let pool = Pool::new(threads).unwrap();
            for tokens in [1, 64] {
                let q = noise(3, tokens * heads * dim);
                let mut out = vec![0.0; q.len()];
                let best = (0..if tokens == 1 { 50 } else { 3 })
                    .map(|_| {
                        let start = std::time::Instant::now();
                        attend_layer(&pool, Isa::detect(), &cache, &parameters, heads, context - tokens, &q, &mut out);
                        start.elapsed()
                    })
                    .min()
                    .unwrap();
                let macs = (tokens * heads * context * dim * 2) as f64;
                println!(
                    "{heads} heads, {kv_heads} key heads of {dim}, {threads} threads, {tokens} tokens at 4096: \
                     {best:?}, {:.1} GMAC/s",
                    macs / best.as_secs_f64() / 1e9
                );
            }
        }
    }
}

fn quantized(isa: Isa, x: &[f32], dim: usize) -> Vec<u8> {
    let mut out = vec![0; x.len() / Q8_0_BLOCK * Q8_0_BYTES];
    assert!(dim.is_multiple_of(Q8_0_BLOCK));
    f32_to_q8_0(isa, x, &mut out);
    out
}

#[test]
fn quantized_blocks_are_within_half_a_step_and_the_same_with_every_instruction_set() {
    for size in [1e-3, 1.0, 300.0] {
        let x: Vec<f32> = noise(5, 64 * 32).iter().map(|x| x * size).collect();
        let want = quantized(Isa::SCALAR, &x, 32);
        for isa in Isa::available() {
            assert_eq!(quantized(isa, &x, 32), want);
        }
        let mut back = vec![0.0; x.len()];
        crate::quant::decode_row(crate::quant::Format::Q8_0, &want, &mut back);
        for (block, back) in x.chunks(32).zip(back.chunks(32)) {
            let step = block.iter().fold(0.0f32, |m, x| m.max(x.abs())) / 127.0;
            // The scale itself is a half float: 1/2048 of 127 steps, and its last place where it is denormal.
            let bound = 0.5 * step + 127.0 * (step / 2048.0).max(3e-8) + 1e-9;
            assert!(block.iter().zip(back).all(|(x, y)| (x - y).abs() <= bound), "{block:?} {back:?}");
        }
    }
    let odd = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY];
    for odd in odd {
        let mut x = noise(1, 32);
        x[7] = odd;
        let mut back = vec![0.0; 32];
        crate::quant::decode_row(crate::quant::Format::Q8_0, &quantized(Isa::SCALAR, &x, 32), &mut back);
        assert!(back[7].is_nan(), "{odd} became {}", back[7]);
    }
    assert!(quantized(Isa::SCALAR, &[0.0; 32], 32).iter().all(|&byte| byte == 0));
}

/// A quantised cache is the half-float one of the elements it stands for, where those are half floats: powers of two and
/// small whole numbers are.
#[test]
fn a_quantized_cache_gives_the_bits_of_the_half_floats_it_stands_for() {
    for isa in Isa::available() {
        for (n, tokens, group, dim) in [(1, 1, 1, 32), (70, 3, 4, 64), (300, 40, 7, 96), (150, 150, 2, 256)] {
            let whole = |seed, count| -> Vec<f32> {
                let mut x: Vec<f32> = noise(seed, count).iter().map(|x| (x * 127.0).round() / 128.0).collect();
                x.iter_mut().step_by(Q8_0_BLOCK).for_each(|x| *x = 127.0 / 128.0);
                x
            };
            let (keys, values) = (whole(1, n * dim), whole(2, n * dim));
            let halves = |x: &[f32]| {
                let mut out = vec![0; x.len()];
                f32_to_f16(isa, x, &mut out);
                out
            };
            let q = noise(3, tokens * group * dim);
            let sinks = noise(4, group);
            let parameters = AttentionParameters {
                scale: 0.2,
                softcap: Some(20.0),
                sinks: Some(&sinks),
                window: Some(100),
                section: None,
                slopes: None,
                until: None,
            };
            let run = |keys, values| {
                let cache = HeadCache { first: 0, keys, values };
                let mut out = vec![f32::NAN; q.len()];
                attend(isa, &cache, &parameters, group, n - tokens, &q, &mut out);
                bits(&out)
            };
            let (half_keys, half_values) = (halves(&keys), halves(&values));
            let want = run(CacheRows::half(&half_keys, dim), CacheRows::half(&half_values, dim));
            let (keys, values) = (quantized(isa, &keys, dim), quantized(isa, &values, dim));
            assert_eq!(run(CacheRows::q8_0(&keys, dim), CacheRows::q8_0(&values, dim)), want);
        }
    }
}

#[test]
fn a_quantized_cache_agrees_with_f64_and_its_rows_may_be_parts_of_longer_ones() {
    let (n, dim) = (150, 64);
    let rows = noise(9, n * 2 * dim);
    let bytes = quantized(Isa::SCALAR, &rows, dim);
    let stride = 2 * dim / Q8_0_BLOCK * Q8_0_BYTES;
    let keys: Vec<f32> = rows.chunks(2 * dim).flat_map(|row| row[..dim].to_vec()).collect();
    let values: Vec<f32> = rows.chunks(2 * dim).flat_map(|row| row[dim..].to_vec()).collect();
    let (keys, values) = (quantized(Isa::SCALAR, &keys, dim), quantized(Isa::SCALAR, &values, dim));
    let apart = HeadCache { first: 0, keys: CacheRows::q8_0(&keys, dim), values: CacheRows::q8_0(&values, dim) };
    let part = |from| CacheRows { elements: Elements::Q8_0(&bytes[from..]), dim, stride };
    let together = HeadCache { first: 0, keys: part(0), values: part(stride / 2) };
    let q = noise(2, dim);
    let exact = direct(&apart, &AttentionParameters { scale: 0.3, ..PLAIN }, None, n - 1, &q);
    for isa in Isa::available() {
        let run = |cache: &HeadCache| {
            let mut out = vec![f32::NAN; dim];
            attend(isa, cache, &AttentionParameters { scale: 0.3, ..PLAIN }, 1, n - 1, &q, &mut out);
            out
        };
        let got = run(&apart);
        assert_eq!(bits(&run(&together)), bits(&got));
        for (got, (exact, size)) in got.iter().zip(&exact) {
            assert!((f64::from(*got) - exact).abs() <= 1e-5 * size, "{isa:?}: {got} is not {exact}");
        }
    }
}

#[test]
fn rotation_is_undone_keeps_products_and_spreads_what_is_large() {
    let (mut key, query) = (noise(1, 96), noise(2, 96));
    key[5] = 40.0;
    let (mut rotated, mut turned) = (key.clone(), query.clone());
    rotate(&mut rotated);
    rotate_back(&mut turned);
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    assert!((dot(&rotated, &turned) - dot(&key, &query)).abs() < 1e-3);

    let stored = |x: &[f32]| {
        let mut values = vec![0.0; x.len()];
        crate::quant::decode_row(crate::quant::Format::Q8_0, &quantized(Isa::SCALAR, x, 32), &mut values);
        values
    };
    let mut back = stored(&rotated);
    rotate_back(&mut back);
    let error = |x: &[f32]| x.iter().zip(&key).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>().sqrt();
    assert!(error(&back) < 0.5 * error(&stored(&key)), "{} and {}", error(&back), error(&stored(&key)));
}
