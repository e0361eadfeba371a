//! One tiny model per weight format. Every fast path rounds; the measure is how far that moves the next-token
//! distribution from the one of the same weights computed in float32, and the bar is what llama.cpp does with the file.

use crate::support::*;

/// Ours may be this many times the peer's divergence.
const FACTOR: f64 = 1.1;

#[test]
fn every_format_is_as_near_to_its_exact_distribution_as_the_peer() {
    let models = models_in("quant");
    assert!(models.len() >= 14, "{models:?}");
    let mut failures = Vec::new();
    for path in models {
        let name = stem(&path);
        let mut arrays = Arrays::of(&path);
        let (exact, peer) = (arrays.get::<f32>("exact"), arrays.get::<f32>("peer"));
        let tokens = arrays.get::<i32>("tokens");
        let vocab = exact.len() / tokens.len();
        let model = open(&path, &options());
        let ours = logits_of(&model, &tokens, tokens.len());
        let (ours, peer) = (mean_divergence(&exact, &ours, vocab), mean_divergence(&exact, &peer, vocab));
        // The bar is above the noise of float32 sums for every format here: the least is F16's, 1.7e-7 to our 1.4e-8.
        // NaN must not pass.
        if ours.is_nan() || ours > FACTOR * peer {
            failures.push(format!("{name}: {ours:.3e}, the peer {peer:.3e}"));
        }
    }
    assert!(failures.is_empty(), "mean divergence from the exact distribution:\n{}", failures.join("\n"));
}

/// As above for formats of three bits and less, whose data has the peer's divergence itself. Weights with scales of their
/// own for whole matrices are among them.
#[test]
fn the_smallest_formats_are_as_near_to_their_exact_distributions_as_the_peer() {
    let models = models_in("quant2");
    assert_eq!(models.len(), 13, "{models:?}");
    let mut failures = Vec::new();
    for path in models {
        let name = stem(&path);
        let mut arrays = Arrays::of(&path);
        let (exact, peer) = (arrays.get::<f32>("exact"), arrays.get::<f64>("peer_divergence")[0]);
        let tokens = arrays.get::<i32>("tokens");
        let model = open(&path, &options());
        let ours = mean_divergence(&exact, &logits_of(&model, &tokens, tokens.len()), exact.len() / tokens.len());
        println!("{name}: {ours:.3e}, the peer {peer:.3e}");
        // NaN must not pass.
        if ours.is_nan() || ours > FACTOR * peer {
            failures.push(format!("{name}: {ours:.3e}, the peer {peer:.3e}"));
        }
    }
    assert!(failures.is_empty(), "mean divergence from the exact distribution:\n{}", failures.join("\n"));
}
