use super::*;
use crate::Status;

fn drawing(seed: u64) -> Sampler {
    let mut sampler = Sampler::new();
    sampler.set_temperature(1.0).unwrap();
    sampler.set_seed(seed);
    sampler
}

/// The tokens that ever come up in 2000 draws.
fn drawn(sampler: &mut Sampler, logits: &[f32]) -> Vec<i32> {
    let mut tokens: Vec<i32> = (0..2000).map(|_| sampler.sample(logits).unwrap()).collect();
    tokens.sort_unstable();
    tokens.dedup();
    tokens
}

#[test]
fn a_new_sampler_takes_the_likeliest_and_of_equals_the_lowest() {
    let mut sampler = Sampler::new();
    assert_eq!(sampler.sample(&[0.5, 2.0, -1.0, 2.0]).unwrap(), 1);
    assert_eq!(sampler.sample(&[f32::NEG_INFINITY, f32::NEG_INFINITY]).unwrap(), 0);
    assert_eq!(sampler.sample(&[-0.0, 0.0]).unwrap(), 0);
}

#[test]
fn a_logit_that_is_not_a_number_is_never_chosen() {
    assert_eq!(Sampler::new().sample(&[f32::NAN, -5.0, f32::NAN, -4.0]).unwrap(), 3);
    assert_eq!(drawn(&mut drawing(3), &[f32::NAN, 0.0, f32::NAN, 0.0]), [1, 3]);
    let mut nucleus = drawing(3);
    nucleus.set_top_p(0.9).unwrap();
    nucleus.set_top_k(3);
    assert_eq!(drawn(&mut nucleus, &[f32::NAN, 0.0, f32::NAN, 0.0]), [1, 3]);
}

#[test]
fn logits_without_a_number_are_an_error_not_a_token() {
    for sampler in [&mut Sampler::new(), &mut drawing(1)] {
        assert_eq!(sampler.sample(&[f32::NAN; 4]).unwrap_err().status(), Status::Format);
        assert_eq!(sampler.sample(&[]).unwrap_err().status(), Status::Format);
    }
}

#[test]
fn an_infinite_logit_is_always_drawn() {
    assert_eq!(drawn(&mut drawing(1), &[0.0, f32::INFINITY, 3.0]), [1]);
    assert_eq!(drawn(&mut drawing(1), &[f32::NEG_INFINITY, 1.0, f32::NEG_INFINITY]), [1]);
    assert_eq!(drawn(&mut drawing(1), &[f32::NEG_INFINITY; 2]), [0, 1]);
}

#[test]
fn draws_follow_the_softmax() {
    // Probabilities 1/2, 1/3, 1/6 at temperature 1; at 0.5 they are squared: 9/14, 4/14, 1/14.
    let logits = [3f32.ln(), 2f32.ln(), 1f32.ln()];
    for (temperature, expected) in [(1.0, [0.5, 0.3333, 0.1667]), (0.5, [0.6429, 0.2857, 0.0714])] {
        let mut sampler = drawing(42);
        sampler.set_temperature(temperature).unwrap();
        let mut counts = [0u32; 3];
        for _ in 0..60_000 {
            counts[sampler.sample(&logits).unwrap() as usize] += 1;
        }
        for (count, expected) in counts.iter().zip(expected) {
            let share = f64::from(*count) / 60_000.0;
            assert!((share - expected).abs() < 0.008, "{counts:?} at temperature {temperature}");
        }
    }
}

#[test]
fn a_seed_repeats_its_tokens_and_another_gives_others() {
    let logits: Vec<f32> = (0..100).map(|i| (i as f32 * 0.7).sin()).collect();
    let run = |seed| {
        let mut sampler = drawing(seed);
        (0..40).map(|_| sampler.sample(&logits).unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(run(7), run(7));
    assert_ne!(run(7), run(8));
    let mut sampler = drawing(7);
    let first: Vec<i32> = (0..40).map(|_| sampler.sample(&logits).unwrap()).collect();
    sampler.set_seed(7);
    assert_eq!(first, (0..40).map(|_| sampler.sample(&logits).unwrap()).collect::<Vec<_>>());
}

#[test]
fn the_generator_is_splitmix64() {
    // The published sequence for seed 1234567.
    let mut random = SplitMix64(1_234_567);
    let expected = [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423];
    assert_eq!([random.next(), random.next(), random.next()], expected);
}

#[test]
fn top_k_keeps_the_k_likeliest_and_of_equals_the_lowest() {
    let mut sampler = drawing(1);
    sampler.set_top_k(2);
    assert_eq!(drawn(&mut sampler, &[1.0, 0.9, 1.1, 0.95]), [0, 2]);
    assert_eq!(drawn(&mut sampler, &[1.0; 5]), [0, 1]);
    sampler.set_top_k(0);
    assert_eq!(drawn(&mut sampler, &[1.0; 5]), [0, 1, 2, 3, 4]);
    sampler.set_top_k(9);
    assert_eq!(drawn(&mut sampler, &[1.0; 5]), [0, 1, 2, 3, 4]);
}

#[test]
fn top_p_keeps_the_fewest_likeliest_that_reach_it() {
    // Probabilities 0.2, 0.5, 0.3.
    let logits = [0.2f32.ln(), 0.5f32.ln(), 0.3f32.ln()];
    for (p, expected) in [(0.0, &[1][..]), (0.45, &[1]), (0.55, &[1, 2]), (0.79, &[1, 2]), (0.85, &[0, 1, 2])] {
        let mut sampler = drawing(1);
        sampler.set_top_p(p).unwrap();
        assert_eq!(drawn(&mut sampler, &logits), expected, "top-p {p}");
    }
}

#[test]
fn top_p_reaches_beyond_the_head_it_sorts_first() {
    // 1000 equal tokens: 0.9 of them stay, the lowest, whatever order the selection leaves behind.
    let mut sampler = drawing(1);
    sampler.set_top_p(0.9).unwrap();
    let mut memory = Candidates::default();
    let (candidates, keys) = memory.numbers(1000).unwrap();
    let kept = sampler.narrow(candidates, keys, &[0.0; 1000]).unwrap().0;
    let kept: Vec<u32> = kept.iter().copied().map(token_of).collect();
    assert_eq!(kept, (0..900).collect::<Vec<_>>());
}

#[test]
fn min_p_is_relative_to_the_likeliest() {
    // Probabilities 0.2, 0.5, 0.3: relative to the likeliest 0.4, 1, 0.6.
    let logits = [0.2f32.ln(), 0.5f32.ln(), 0.3f32.ln()];
    for (p, expected) in [(0.35, &[0, 1, 2][..]), (0.5, &[1, 2]), (0.7, &[1]), (1.0, &[1])] {
        let mut sampler = drawing(1);
        sampler.set_min_p(p).unwrap();
        assert_eq!(drawn(&mut sampler, &logits), expected, "min-p {p}");
    }
}

#[test]
fn narrowing_looks_at_probabilities_before_temperature() {
    // Hot enough to flatten everything; yet top-p and min-p see the unheated 0.5, 0.3, 0.2.
    let logits = [0.5f32.ln(), 0.3f32.ln(), 0.2f32.ln()];
    let mut sampler = drawing(1);
    sampler.set_temperature(100.0).unwrap();
    sampler.set_top_p(0.55).unwrap();
    assert_eq!(drawn(&mut sampler, &logits), [0, 1]);
    sampler.set_top_p(1.0).unwrap();
    sampler.set_min_p(0.7).unwrap();
    assert_eq!(drawn(&mut sampler, &logits), [0]);
}

#[test]
fn top_p_looks_at_what_top_k_left() {
    // Of 0.4, 0.3, 0.3 the two likeliest are renormalised to 0.571 and 0.429: 0.55 is reached by the first alone.
    let logits = [0.4f32.ln(), 0.3f32.ln(), 0.3f32.ln()];
    let mut sampler = drawing(1);
    sampler.set_top_p(0.55).unwrap();
    assert_eq!(drawn(&mut sampler, &logits), [0, 1]);
    sampler.set_top_k(2);
    assert_eq!(drawn(&mut sampler, &logits), [0]);
}

#[test]
fn candidates_are_ordered_as_their_logits_and_then_as_their_tokens() {
    let logits = [f32::INFINITY, f32::MAX, 2.5, 1.0, f32::MIN_POSITIVE, 0.0, -1e-40, -1.0, -3.0, f32::NEG_INFINITY];
    let candidates: Vec<Candidate> = logits.into_iter().map(|logit| candidate((7, logit))).collect();
    assert!(candidates.is_sorted_by(|a, b| a < b), "{candidates:x?}");
    for (candidate, logit) in candidates.iter().zip(logits) {
        assert_eq!((token_of(*candidate), logit_of(*candidate).to_bits()), (7, logit.to_bits()));
    }
    assert!(candidate((3, 1.0)) < candidate((4, 1.0)));
    assert_eq!(candidate((3, -0.0)), candidate((3, 0.0)));
}

#[test]
fn a_choice_in_memory_that_is_lent_is_the_same_and_takes_none_of_its_own() {
    let logits: Vec<f32> = (0..5000).map(|i| (i as f32).cos()).collect();
    let (mut own, mut lent, mut memory) = (drawing(9), drawing(9), Candidates::default());
    for _ in 0..20 {
        assert_eq!(own.sample(&logits).unwrap(), lent.sample_in(&mut memory, &logits).unwrap());
    }
    assert!(lent.candidates.is_empty() && !own.candidates.is_empty() && own.copy().unwrap().candidates.is_empty());
}

#[test]
fn the_penalty_divides_positive_logits_and_multiplies_the_others_once() {
    let mut sampler = Sampler::new();
    sampler.set_repeat_penalty(2.0, 8).unwrap();
    sampler.accept(&[0, 0, 0, 1]).unwrap();
    let mut memory = Candidates::default();
    let (candidates, keys) = memory.numbers(3).unwrap();
    let left = sampler.narrow(candidates, keys, &[3.0, -1.0, 0.5]).unwrap().0;
    let logits: Vec<f32> = left.iter().copied().map(logit_of).collect();
    assert_eq!(logits, [1.5, -2.0, 0.5]);
}

#[test]
fn the_penalty_looks_back_last_n_tokens() {
    let mut sampler = Sampler::new();
    sampler.set_repeat_penalty(10.0, 2).unwrap();
    // Greedy over three near-equal tokens: with two remembered, the third is free again each time.
    let tokens: Vec<i32> = (0..6).map(|_| sampler.sample(&[3.0, 2.0, 1.0]).unwrap()).collect();
    assert_eq!(tokens, [0, 1, 2, 0, 1, 2]);
    sampler.accept(&[2, 2]).unwrap();
    assert_eq!(sampler.sample(&[1.0, 2.0, 3.0]).unwrap(), 1);
    sampler.set_repeat_penalty(10.0, 0).unwrap();
    assert_eq!([sampler.sample(&[2.0, 1.0]).unwrap(), sampler.sample(&[2.0, 1.0]).unwrap()], [0, 0]);
}

#[test]
fn the_penalty_counts_earlier_tokens_and_forgets_them_when_it_is_set() {
    let mut sampler = Sampler::new();
    sampler.accept(&[-1, 7, 1]).unwrap();
    assert_eq!(sampler.history, [7, 1]);
    sampler.set_repeat_penalty(5.0, 4).unwrap();
    assert_eq!(sampler.sample(&[1.0, 2.0]).unwrap(), 1);
    assert_eq!(sampler.sample(&[1.0, 2.0]).unwrap(), 0);
}

#[test]
fn a_reset_sampler_begins_as_it_did_and_a_copy_goes_on_alike() {
    let logits: Vec<f32> = (0..50).map(|i| (i as f32 * 0.3).cos()).collect();
    let mut sampler = drawing(9);
    sampler.set_repeat_penalty(1.5, 4).unwrap();
    let first: Vec<i32> = (0..20).map(|_| sampler.sample(&logits).unwrap()).collect();
    let mut copy = sampler.copy().unwrap();
    let next: Vec<i32> = (0..20).map(|_| sampler.sample(&logits).unwrap()).collect();
    assert_eq!(next, (0..20).map(|_| copy.sample(&logits).unwrap()).collect::<Vec<_>>());
    assert_ne!(first, next);
    sampler.reset();
    assert_eq!(first, (0..20).map(|_| sampler.sample(&logits).unwrap()).collect::<Vec<_>>());
}

#[test]
fn a_figure_out_of_range_is_refused_and_changes_nothing() {
    let mut sampler = Sampler::new();
    for bad in [f32::NAN, f32::INFINITY, -0.1] {
        assert_eq!(sampler.set_temperature(bad).unwrap_err().status(), Status::InvalidArgument);
        assert!(sampler.set_top_p(bad).is_err());
        assert!(sampler.set_min_p(bad).is_err());
        assert!(sampler.set_repeat_penalty(bad, 1).is_err());
        assert!(sampler.set_top_n_sigma(bad).is_err() && sampler.set_typical_p(bad).is_err());
        assert!(sampler.set_xtc(bad, 0.1).is_err() && sampler.set_xtc(0.1, bad).is_err());
        assert!(
            sampler.set_dynamic_temperature(bad, 1.0).is_err() && sampler.set_dynamic_temperature(1.0, bad).is_err()
        );
        assert!(sampler.set_mirostat(bad, 0.1).is_err() && sampler.set_mirostat(5.0, bad).is_err());
        assert!(sampler.set_dry(bad, 1.75, 2, 64).is_err() && sampler.set_dry(0.8, bad, 2, 64).is_err());
    }
    for bad in [f32::NAN, f32::INFINITY] {
        assert!(sampler.set_frequency_penalty(bad).is_err() && sampler.set_presence_penalty(bad).is_err());
        assert!(sampler.set_logit_biases([(1, bad)].into_iter()).is_err());
    }
    assert!(sampler.set_logit_biases([(-1, 0.5)].into_iter()).is_err());
    assert!(sampler.set_steps(&[Step::TopK, Step::MinP, Step::TopK]).is_err() && sampler.add_dry_breaker(&[]).is_err());
    assert!(sampler.set_top_p(1.01).is_err() && sampler.set_min_p(1.01).is_err());
    assert!(sampler.set_repeat_penalty(0.0, 1).is_err());
    let fresh = Sampler::new();
    assert_eq!((sampler.temperature, sampler.top_p, sampler.min_p), (fresh.temperature, fresh.top_p, fresh.min_p));
    let penalties = |of: &Sampler| (of.penalties.repeat, of.penalties.frequency, of.penalties.last_n);
    assert_eq!(penalties(&sampler), penalties(&fresh));
    assert_eq!((sampler.top_n_sigma, sampler.typical_p), (fresh.top_n_sigma, fresh.typical_p));
    assert_eq!((sampler.xtc_probability, sampler.xtc_threshold), (fresh.xtc_probability, fresh.xtc_threshold));
    assert_eq!((sampler.temperature_range, sampler.dry.multiplier), (0.0, 0.0));
    assert!(
        sampler.mirostat.is_none()
            && sampler.biases.is_empty()
            && sampler.order == fresh.order
            && sampler.steps == fresh.steps
    );
}

#[test]
fn no_memory_is_taken_for_a_second_token() {
    let logits: Vec<f32> = (0..5000).map(|i| (i as f32).cos()).collect();
    let mut sampler = drawing(1);
    sampler.set_top_p(0.95).unwrap();
    sampler.set_repeat_penalty(1.1, 4).unwrap();
    for _ in 0..8 {
        sampler.sample(&logits).unwrap();
    }
    let before = (sampler.candidates.len(), sampler.history.capacity());
    for _ in 0..100 {
        sampler.sample(&logits).unwrap();
    }
    assert_eq!(before, (sampler.candidates.len(), sampler.history.capacity()));
    assert_eq!(before.0 as u64, Candidates::bytes(logits.len()));
}

/// What is left of the tokens and how probable each is, by name of the figure that an independent program has computed.
mod cases {
    use super::*;
    use serde_json::Value;

    const CASES: &str = include_str!("../../../tests/data/samplers.json");

    fn number(value: &Value, key: &str, fallback: f32) -> f32 {
        value.get(key).map_or(fallback, |v| v.as_f64().unwrap() as f32)
    }

    fn numbers(value: &Value) -> Vec<f64> {
        value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
    }

    fn made(case: &Value) -> Sampler {
        let mut sampler = Sampler::new();
        let set = &case["settings"];
        sampler.set_temperature(number(set, "temperature", 1.0)).unwrap();
        sampler.set_dynamic_temperature(number(set, "range", 0.0), number(set, "exponent", 1.0)).unwrap();
        sampler.set_top_k(number(set, "top_k", 0.0) as u32);
        sampler.set_top_p(number(set, "top_p", 1.0)).unwrap();
        sampler.set_min_p(number(set, "min_p", 0.0)).unwrap();
        sampler.set_typical_p(number(set, "typical_p", 1.0)).unwrap();
        sampler.set_top_n_sigma(number(set, "top_n_sigma", 0.0)).unwrap();
        sampler.set_xtc(number(set, "xtc_probability", 0.0), number(set, "xtc_threshold", 0.1)).unwrap();
        sampler.set_repeat_penalty(number(set, "repeat", 1.0), number(set, "last_n", 64.0) as u32).unwrap();
        sampler.set_frequency_penalty(number(set, "frequency", 0.0)).unwrap();
        sampler.set_presence_penalty(number(set, "presence", 0.0)).unwrap();
        let (base, allowed) = (number(set, "dry_base", 1.75), number(set, "dry_allowed", 2.0) as u32);
        sampler
            .set_dry(number(set, "dry_multiplier", 0.0), base, allowed, number(set, "dry_last_n", 64.0) as u32)
            .unwrap();
        for breaker in set.get("breakers").and_then(Value::as_array).into_iter().flatten() {
            let tokens: Vec<u32> = numbers(breaker).into_iter().map(|t| t as u32).collect();
            sampler.add_dry_breaker(&tokens).unwrap();
        }
        if let Some(biases) = set.get("biases").and_then(Value::as_array) {
            let pairs: Vec<(i32, f32)> = biases.iter().map(|b| (numbers(b)[0] as i32, numbers(b)[1] as f32)).collect();
            sampler.set_logit_biases(pairs.into_iter()).unwrap();
        }
        if let Some(order) = set.get("order") {
            let order: Vec<Step> = numbers(order).into_iter().map(|step| Step::ALL[step as usize]).collect();
            sampler.set_steps(&order).unwrap();
        }
        sampler.set_mirostat(number(set, "tau", 0.0), number(set, "eta", 0.1)).unwrap();
        if let (Some(mirostat), Some(mu)) = (&mut sampler.mirostat, set.get("mu")) {
            mirostat.mu = mu.as_f64().unwrap();
        }
        sampler.accept(&numbers(&case["history"]).into_iter().map(|t| t as i32).collect::<Vec<_>>()).unwrap();
        sampler
    }

    #[test]
    fn every_step_leaves_what_an_independent_program_leaves() {
        let cases: Value = serde_json::from_str(CASES).unwrap();
        let cases = cases.as_array().unwrap();
        assert!(cases.len() > 60);
        for case in cases {
            let name = case["name"].as_str().unwrap();
            let logits: Vec<f32> = numbers(&case["logits"]).into_iter().map(|logit| logit as f32).collect();
            let mut sampler = made(case);
            let (mut memory, mut random) = (Candidates::default(), SplitMix64(1));
            let (all, weights) = memory.numbers(logits.len()).unwrap();
            let (mut left, temperature) = sampler.narrow(all, weights, &logits).unwrap();
            if let Some(mirostat) = &sampler.mirostat {
                left = mirostat.narrow(left, temperature).unwrap();
            }
            steps::draw(left, weights, temperature, &mut random).unwrap();
            let weights = &weights[..left.len()];
            let total: f64 = weights.iter().map(|&w| f64::from_bits(w)).sum();
            let mut got: Vec<(u32, f64)> =
                left.iter().zip(weights).map(|(&c, &w)| (token_of(c), f64::from_bits(w) / total)).collect();
            got.retain(|&(_, p)| p > 0.0);
            got.sort_unstable_by_key(|&(token, _)| token);
            let want: Vec<(u32, f64)> =
                case["expected"].as_array().unwrap().iter().map(|e| (numbers(e)[0] as u32, numbers(e)[1])).collect();
            let same = got.len() == want.len()
                && got.iter().zip(&want).all(|(a, b)| a.0 == b.0 && (a.1 - b.1).abs() <= 1e-5 * b.1.max(1e-3));
            assert!(same, "{name}:\n{got:?}, not\n{want:?}");
            for step in case.get("moved").and_then(Value::as_array).into_iter().flatten().map(numbers) {
                let mut mirostat = sampler.mirostat.unwrap();
                mirostat.moved_by(left, weights, candidate((step[0] as usize, 0.0)));
                assert!(
                    (mirostat.mu - step[1]).abs() < 1e-5,
                    "{name}: {} after token {}, not {}",
                    mirostat.mu,
                    step[0],
                    step[1]
                );
            }
        }
    }
}

#[test]
fn xtc_comes_as_often_as_its_probability() {
    // One draw in four leaves the likeliest out, in which case the other one is certain.
    let mut sampler = drawing(5);
    sampler.set_xtc(0.25, 0.2).unwrap();
    let logits = [20.0, 19.9];
    let second = (0..20_000).filter(|_| sampler.sample(&logits).unwrap() == 1).count();
    // 1/4 + 3/4 of the second's own probability.
    let p = 0.25 + 0.75 / (1.0 + 0.1f64.exp());
    assert!((second as f64 / 20_000.0 - p).abs() < 0.01, "{second}");
}

#[test]
fn mirostat_keeps_the_surprise_near_what_is_asked_for() {
    // Powers of a half: of 2, 4 and 6 bits of surprise all can be had.
    let logits: Vec<f32> = (0..64).map(|i| -0.35 * i as f32).collect();
    let total: f64 = logits.iter().map(|&l| f64::from(l).exp()).sum();
    let mut before = 0.0;
    for tau in [1.0, 2.0, 3.0] {
        let mut sampler = drawing(5);
        sampler.set_mirostat(tau, 0.1).unwrap();
        let tokens: Vec<i32> = (0..4000).map(|_| sampler.sample(&logits).unwrap()).collect();
        let surprise = |t: &i32| -(f64::from(logits[*t as usize]).exp() / total).log2();
        let mean = tokens.iter().map(surprise).sum::<f64>() / 4000.0;
        assert!(mean > before + 0.3, "a surprise of {mean} bits for {tau}");
        before = mean;
        let again: Vec<i32> = {
            sampler.reset();
            (0..4000).map(|_| sampler.sample(&logits).unwrap()).collect()
        };
        assert_eq!(tokens, again);
    }
}

#[test]
fn a_banned_token_is_never_chosen_and_dry_ends_a_loop() {
    let mut sampler = Sampler::new();
    sampler.set_logit_biases([(1, f32::NEG_INFINITY), (2, 1.5)].into_iter()).unwrap();
    assert_eq!(sampler.sample(&[0.0, 9.0, -1.0]).unwrap(), 2);
    // Without DRY: always the same.
    let mut sampler = Sampler::new();
    sampler.set_dry(1.0, 2.0, 2, 100).unwrap();
    let tokens: Vec<i32> = (0..40).map(|_| sampler.sample(&[3.0, 2.0, 1.0]).unwrap()).collect();
    assert!(tokens.contains(&1) && tokens.contains(&2), "{tokens:?}");
}
