//! Speed of the products: `cargo bench --bench matmul [format names]`.
//!
//! One matrix of 14336 rows of 4096 elements, larger than any cache in every format but the smallest. For one token the
//! figures are bytes and weights per second, to be held against the rate at which the same memory can be read at all;
//! for more, multiply-adds per second. Each is the median and the best of several runs.

use layerline::kernel::Isa;
use layerline::kernel::matmul::{Activations, Form, Output, activation_bytes, multiply};
use layerline::quant::Format;
use std::sync::Barrier;

const ROWS: usize = 14336;
const K: usize = 4096;
const FORMATS: [Format; 16] = [
    Format::Q4_0,
    Format::Q4_1,
    Format::Q8_0,
    Format::Q4_K,
    Format::Q6_K,
    Format::Q5_0,
    Format::Q5_1,
    Format::Q2_K,
    Format::Q3_K,
    Format::Q5_K,
    Format::IQ4_NL,
    Format::IQ4_XS,
    Format::MXFP4,
    Format::F16,
    Format::BF16,
    Format::F32,
];

/// Seconds of processor time this thread has had: unlike a clock's, not lengthened by other work on the machine.
fn processor_time() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a place for the result.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}

/// Median and least seconds of `repeats` runs in which each of `threads` threads does its part at once; a run takes as
/// long as its slowest thread.
fn seconds(threads: usize, repeats: usize, part: impl Fn(usize) + Sync) -> [f64; 2] {
    let barrier = Barrier::new(threads);
    let mut times = std::thread::scope(|scope| {
        let run = |thread: usize| {
            let (barrier, part) = (&barrier, &part);
            move || {
                let mut times = Vec::new();
                for _ in 0..repeats {
                    barrier.wait();
                    let start = processor_time();
                    part(thread);
                    times.push(processor_time() - start);
                }
                times
            }
        };
        let others: Vec<_> = (1..threads).map(|thread| scope.spawn(run(thread))).collect();
        let mut times = run(0)();
        for other in others {
            times.iter_mut().zip(other.join().unwrap()).for_each(|(time, other)| *time = time.max(other));
        }
        times
    });
    times.sort_by(f64::total_cmp);
    [times[repeats / 2], times[0]]
}

/// The part of `0..len` that thread `i` of `n` does.
fn share(len: usize, i: usize, n: usize) -> std::ops::Range<usize> {
    len * i / n..len * (i + 1) / n
}

/// Reads all of `words` and nothing else.
fn read(words: &[u64]) -> u64 {
    let mut sums = [0u64; 16];
    for words in words.as_chunks::<16>().0 {
        for (sum, word) in sums.iter_mut().zip(words) {
            *sum ^= word;
        }
    }
    sums.iter().fold(0, |a, b| a ^ b)
}

#[repr(C, align(64))]
#[derive(Clone, Copy)]
struct Line([u8; 64]);

fn bytes(lines: &mut [Line]) -> &mut [u8] {
    // SAFETY: the lines are that many bytes, end to end.
    unsafe { std::slice::from_raw_parts_mut(lines.as_mut_ptr().cast(), 64 * lines.len()) }
}

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let isa = Isa::detect();
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get()).min(2);
    let words = vec![3u64; 24 << 20];
    for threads in 1..=cores {
        let times = seconds(threads, 7, |i| {
            std::hint::black_box(read(&words[share(words.len(), i, threads)]));
        });
        let [median, best] = times.map(|time| words.len() as f64 * 8e-9 / time);
        println!("memory read, {threads} threads: {median:.1} GB/s, best {best:.1}");
    }
    drop(words);
    println!("{}; 1 token: GB/s (Gweights/s) by threads; then GMAC/s by tokens, {cores} threads", isa.name());
    for format in FORMATS {
        if wanted.is_empty() || wanted.iter().any(|name| name == format.name()) {
            measure(isa, format, cores);
        }
    }
}

fn measure(isa: Isa, format: Format, cores: usize) {
    let row_bytes = format.row_bytes(K).unwrap();
    let mut seed = 1u64;
    // Bytes with the top bits of scales clear: ordinary numbers in every format.
    let weights: Vec<u8> = (0..ROWS * row_bytes)
        .map(|_| {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (seed >> 56) as u8 & 0x3f
        })
        .collect();
    let form = Form::of(format);
    let mut line = format!("{:7}", format.name());
    for tokens in [1, 2, 4, 8, 256] {
        let x: Vec<f32> = (0..tokens * K).map(|i| (i * 7919 % 2003) as f32 / 1000.0 - 1.0).collect();
        let mut buf = vec![Line([0; 64]); activation_bytes(form, K, tokens).div_ceil(64)];
        // SAFETY: `isa` is what this processor has.
        let acts = unsafe { Activations::quantize(isa, form, K, &x, tokens, bytes(&mut buf)) };
        let mut y = vec![0f32; tokens * ROWS];
        let out = Output { ptr: y.as_mut_ptr(), stride: ROWS };
        for threads in if tokens == 1 { 1..=cores } else { cores..=cores } {
            let repeats = if tokens == 1 { 15 } else { 3 };
            // SAFETY: the threads write different rows of `y`, which holds them all.
            let times = seconds(threads, repeats, |i| unsafe {
                multiply(isa, format, &weights, K, share(ROWS, i, threads), &acts, out)
            });
            let [rate, best] = times.map(|time| (ROWS * K * tokens) as f64 * 1e-9 / time);
            let [bytes, best_bytes] = times.map(|time| weights.len() as f64 * 1e-9 / time);
            match tokens {
                1 => line += &format!(" | {bytes:4.1} ({rate:4.1}) best {best_bytes:4.1}"),
                _ => line += &format!(" | {tokens}: {rate:5.1} best {best:5.1}"),
            }
        }
    }
    println!("{line}");
}
