use super::*;
use crate::error::Status;

const DIMS: [usize; 8] = [2, 6, 16, 32, 64, 80, 96, 128];

fn scalings() -> Vec<Scaling> {
    vec![
        Scaling::None,
        Scaling::Linear { factor: 8.0, magnitude: 1.0 },
        Scaling::Linear { factor: 1.0, magnitude: 1.19 },
        Scaling::yarn(32.0, 4096),
        Scaling::yarn(4.0, 131_072),
        Scaling::yarn(4.0, 64), // few turns: the correction range is clamped at both ends
        Scaling::Yarn {
            factor: 40.0,
            original_context: 4096,
            beta_fast: 32.0,
            beta_slow: 1.0,
            ext_factor: 0.5,
            attn_factor: 1.25,
            log_multiplier: 0.7,
        },
    ]
}

/// Angle of pair i at a position and the magnitude, straight from the formulae.
fn direct(n: usize, base: f64, scaling: Scaling, divisor: f64, i: usize, position: f64) -> (f64, f64) {
    let plain = position / (base.powf(2.0 * i as f64 / n as f64) * divisor);
    match scaling {
        Scaling::None => (plain, 1.0),
        Scaling::Linear { factor, magnitude } => (plain / factor, magnitude),
        Scaling::Yarn { factor, original_context, ext_factor, attn_factor, log_multiplier, .. } => {
            let at =
                |turns: f64| n as f64 * (f64::from(original_context) / (turns * 2.0 * PI)).ln() / (2.0 * base.ln());
            let low = f64::max(0.0, at(32.0).floor());
            let high = f64::min(n as f64 - 1.0, at(1.0).ceil());
            let mut ramp = (i as f64 - low) / f64::max(0.001, high - low);
            ramp = 1.0 - ramp.clamp(0.0, 1.0);
            ramp *= ext_factor;
            let angle = plain / factor * (1.0 - ramp) + plain * ramp;
            (angle, attn_factor * (1.0 + 0.1 * log_multiplier * factor.ln()))
        }
    }
}

#[test]
fn tables_agree_with_the_formulae_in_f64() {
    let positions = [0, 1, 2, 63, 1000, 4095, 131_071, 1_000_000];
    for n in DIMS {
        let divisors: Vec<f32> = (0..n / 2).map(|i| 1.0 + i as f32 * 0.37).collect();
        for base in [10_000.0, 500_000.0, 1_000_000.0] {
            for scaling in scalings() {
                for divisors in [None, Some(divisors.as_slice())] {
                    let table = RopeTable::new(n, base, scaling, divisors).unwrap();
                    assert_eq!(table.pairs(), n / 2);
                    let [mut cos, mut sin] = std::array::from_fn(|_| vec![f32::NAN; positions.len() * n / 2]);
                    table.fill(&positions, &mut cos, &mut sin);
                    for (t, &position) in positions.iter().enumerate() {
                        for i in 0..n / 2 {
                            let divisor = divisors.map_or(1.0, |d| f64::from(d[i]));
                            let (angle, size) = direct(n, base, scaling, divisor, i, f64::from(position));
                            let (c, s) = (f64::from(cos[t * n / 2 + i]), f64::from(sin[t * n / 2 + i]));
                            assert!((c - size * angle.cos()).abs() < 2e-7, "n {n}, pair {i}, position {position}");
                            assert!((s - size * angle.sin()).abs() < 2e-7, "n {n}, pair {i}, position {position}");
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn yarn_leaves_fast_pairs_and_divides_slow_ones() {
    let plain = RopeTable::new(64, 150_000.0, Scaling::None, None).unwrap();
    let yarn = RopeTable::new(64, 150_000.0, Scaling::yarn(32.0, 4096), None).unwrap();
    assert_eq!(yarn.inv_freq[0], plain.inv_freq[0]);
    assert_eq!(yarn.inv_freq[31], plain.inv_freq[31] / 32.0);
    assert!(yarn.inv_freq[13] < plain.inv_freq[13] && yarn.inv_freq[13] > plain.inv_freq[13] / 32.0);
    assert!((yarn.magnitude - 1.346_573_590_279_972_6).abs() < 1e-12);
}

#[test]
fn both_pairings_turn_their_pairs_and_leave_the_rest() {
    for isa in Isa::available() {
        for n in DIMS {
            for extra in [0, 5] {
                let table = RopeTable::new(n, 10_000.0, Scaling::None, None).unwrap();
                let [mut cos, mut sin] = std::array::from_fn(|_| vec![0.0; n / 2]);
                table.fill(&[77], &mut cos, &mut sin);
                let head: Vec<f32> = (0..n + extra).map(|i| (i as f32 * 0.7).sin() * 3.0).collect();
                for pairing in [Pairing::Norm, Pairing::Neox] {
                    let mut got = head.clone();
                    apply(isa, pairing, &mut got, &cos, &sin);
                    for i in 0..n / 2 {
                        let (a, b) = if pairing == Pairing::Norm { (2 * i, 2 * i + 1) } else { (i, i + n / 2) };
                        let (x, y) = (f64::from(head[a]), f64::from(head[b]));
                        let angle = 77.0 * 10_000f64.powf(-2.0 * i as f64 / n as f64);
                        let (s, c) = angle.sin_cos();
                        assert!((f64::from(got[a]) - (x * c - y * s)).abs() < 1e-6, "{isa:?} {pairing:?} n {n}");
                        assert!((f64::from(got[b]) - (x * s + y * c)).abs() < 1e-6, "{isa:?} {pairing:?} n {n}");
                    }
                    assert_eq!(got[n..], head[n..]);
                }
            }
        }
    }
}

#[test]
fn figures_that_make_no_angle_are_refused() {
    let bad = |dims, base, scaling, divisors: Option<&[f32]>| {
        assert_eq!(RopeTable::new(dims, base, scaling, divisors).unwrap_err().status(), Status::Format);
    };
    bad(0, 1e4, Scaling::None, None);
    bad(7, 1e4, Scaling::None, None);
    bad(8, 0.0, Scaling::None, None);
    bad(8, f64::NAN, Scaling::None, None);
    bad(8, 1e4, Scaling::Linear { factor: 0.0, magnitude: 1.0 }, None);
    bad(8, 1e4, Scaling::Linear { factor: f64::INFINITY, magnitude: 1.0 }, None);
    bad(8, 1e4, Scaling::Linear { factor: 8.0, magnitude: f64::NAN }, None);
    bad(8, 1e4, Scaling::yarn(-1.0, 4096), None);
    bad(8, 1e4, Scaling::yarn(4.0, 0), None);
    bad(8, 1.0, Scaling::yarn(4.0, 4096), None);
    bad(8, 1e4, Scaling::None, Some(&[1.0; 3]));
    bad(8, 1e4, Scaling::None, Some(&[1.0, 1.0, 0.0, 1.0]));
}
