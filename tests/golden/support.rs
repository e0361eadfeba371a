//! Data files, arrays, and the measures by which logits are compared.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use layerline::model::{Io, Logits, Model, Options, Plan};
use layerline::session::Session;
use ndarray::{ArrayD, OwnedRepr};
use ndarray_npy::{NpzReader, ReadableElement};

pub use crate::drawn::golden;

/// The GGUF files of a folder of the golden data, sorted.
pub fn models_in(folder: &str) -> Vec<PathBuf> {
    crate::drawn::models(folder).iter().map(|name| golden(name)).collect()
}

/// What stands before the ending of a path's last part.
pub fn stem(path: &Path) -> &str {
    path.file_stem().unwrap().to_str().unwrap()
}

/// The small real model where it has been fetched. Without it the test named `test` cannot run; that is written past
/// the harness, which keeps the output of passing tests to itself, for `scripts/test.sh` to count.
pub fn small_model(test: &str) -> Option<PathBuf> {
    model_file("SmolLM2-135M-Instruct.Q4_1.gguf", test)
}

/// A model of `scripts/fetch_model.py` by its file, as [`small_model`].
pub fn model_file(name: &str, test: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("models").join(name);
    if path.is_file() {
        return Some(path);
    }
    skipped(test, "the model is not fetched");
    None
}

/// Says that `test`, or a part of it, could not run.
pub fn skipped(test: &str, why: &str) {
    // A line of its own, whatever the harness has begun to write; one call, so that nothing comes between.
    let _ = std::io::stderr().write_all(format!("\nskipped: {test} ({why})\n").as_bytes());
}

/// The arrays of an `.npz` file.
pub struct Arrays(NpzReader<File>);

impl Arrays {
    /// Those beside a model of the golden data, which itself may have been written elsewhere.
    pub fn of(model: &Path) -> Arrays {
        let folder = model.parent().unwrap().file_name().unwrap().to_str().unwrap();
        Arrays::open(&golden(&format!("{folder}/{}.npz", stem(model))))
    }

    pub fn open(path: &Path) -> Arrays {
        Arrays(NpzReader::new(File::open(path).unwrap()).unwrap())
    }

    /// The elements of an array, row by row.
    pub fn get<T: ReadableElement + Clone>(&mut self, name: &str) -> Vec<T> {
        let array: ArrayD<T> = self.0.by_name::<OwnedRepr<T>, _>(name).unwrap_or_else(|e| panic!("{name}: {e}"));
        array.iter().cloned().collect()
    }

    pub fn has(&mut self, name: &str) -> bool {
        let with_ending = format!("{name}.npy");
        self.0.names().unwrap().iter().any(|n| *n == name || *n == with_ending)
    }
}

/// A small context, and otherwise the defaults; no figure of the machine goes in.
pub fn options() -> Options {
    Options { memory_budget: 1 << 30, context_length: 64, threads: 2, ..Options::default() }
}

/// For long tests of what lies above the threads and the reading, both of which others vary: no more than they need.
pub fn light() -> Options {
    Options { threads: 1, io: Io::Buffered, ..options() }
}

pub fn plan(path: &Path, options: &Options) -> Plan {
    Model::plan(path, options).unwrap_or_else(|e| panic!("{e}"))
}

pub fn open(path: &Path, options: &Options) -> Arc<Model> {
    Model::open(path, options).unwrap_or_else(|e| panic!("{e}"))
}

/// Logits of every position of `tokens`, taken in by one new session in passes of `per_pass` tokens.
pub fn logits_of(model: &Arc<Model>, tokens: &[i32], per_pass: usize) -> Vec<f32> {
    let mut session = Session::new(model, 0).unwrap_or_else(|e| panic!("{e}"));
    let mut all = Vec::new();
    for part in tokens.chunks(per_pass) {
        session.forward(part, Logits::All).unwrap_or_else(|e| panic!("{e}"));
        for row in 0..session.logit_rows() {
            all.extend_from_slice(session.logits(row).unwrap());
        }
    }
    all
}

/// The index of the greatest logit, the first of equals.
pub fn greedy(logits: &[f32]) -> i32 {
    (0..logits.len()).rev().max_by(|&a, &b| logits[a].total_cmp(&logits[b])).unwrap() as i32
}

/// Fails unless both are the same numbers bit for bit; NaN is equal to itself here.
#[track_caller]
pub fn assert_same_bits(got: &[f32], want: &[f32], what: &str) {
    assert_eq!(got.len(), want.len(), "{what}: numbers of logits");
    let differ = got.iter().zip(want).filter(|(a, b)| a.to_bits() != b.to_bits()).count();
    if differ > 0 {
        let at = got.iter().zip(want).position(|(a, b)| a.to_bits() != b.to_bits()).unwrap();
        panic!("{what}: {differ} of {} logits differ, the first is {at}: {} and {}", got.len(), got[at], want[at]);
    }
}

/// ‖got − want‖ / ‖want‖.
pub fn relative_error(got: &[f32], want: &[f32]) -> f64 {
    assert_eq!(got.len(), want.len());
    let square = |x: f64| x * x;
    let difference: f64 = got.iter().zip(want).map(|(a, b)| square(f64::from(*a) - f64::from(*b))).sum();
    let norm: f64 = want.iter().map(|b| square(f64::from(*b))).sum();
    (difference / norm).sqrt()
}

/// KL(softmax(exact) ‖ softmax(other)) in nats. Log-probabilities are logits as good as any others.
pub fn divergence(exact: &[f32], other: &[f32]) -> f64 {
    assert_eq!(exact.len(), other.len());
    let (p, q) = (log_softmax(exact), log_softmax(other));
    p.iter().zip(&q).map(|(p, q)| p.exp() * (p - q)).sum()
}

/// The same where of the exact distribution some tokens' log-probabilities are known, and of the others what they have
/// together.
pub fn divergence_of_top(tokens: &[i32], exact: &[f32], other: &[f32]) -> f64 {
    let q = log_softmax(other);
    let (mut sum, mut rest_p, mut rest_q) = (0.0, 1.0, 1.0);
    for (&token, &p) in tokens.iter().zip(exact) {
        let (p, q) = (f64::from(p), q[token as usize]);
        sum += p.exp() * (p - q);
        rest_p -= p.exp();
        rest_q -= q.exp();
    }
    let rest = if rest_p > 0.0 && rest_q > 0.0 { rest_p * (rest_p / rest_q).ln() } else { 0.0 };
    sum + rest
}

/// Mean of [`divergence`] over rows of `vocab` logits.
pub fn mean_divergence(exact: &[f32], other: &[f32], vocab: usize) -> f64 {
    assert_eq!(exact.len(), other.len());
    let rows = exact.chunks_exact(vocab).zip(other.chunks_exact(vocab));
    rows.clone().map(|(e, o)| divergence(e, o)).sum::<f64>() / rows.len() as f64
}

fn log_softmax(logits: &[f32]) -> Vec<f64> {
    let top = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|x| f64::from(x - top).exp()).sum();
    logits.iter().map(|x| f64::from(*x) - f64::from(top) - sum.ln()).collect()
}
