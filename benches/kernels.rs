//! Speed of the products: `make bench-kernels`, or `cargo bench --bench kernels -- [OPTIONS] [format names]`.
//!
//! One matrix with rows of 4096 elements, larger than any cache, in huge pages as weights are. For one token the figures are
//! bytes and weights per second, to be held against the rate at which the same memory can be read at all; for more,
//! multiply-adds per second, to be held against what the processor's eight-bit products allow when they and the additions
//! of their results are all it does. Each is the median of several runs of all threads at once. With `--peer` llama.cpp's
//! own kernels are measured beside ours instead.

#[path = "streaming/machine.rs"]
mod machine;
#[path = "kernels/peer.rs"]
mod peer;
#[allow(dead_code)] // What only tests need.
#[path = "../tests/matmul/support.rs"]
mod support;

use layerline::kernel::Isa;
use layerline::kernel::matmul::{Activations, Form, Output, activation_bytes, multiply};
use layerline::quant::Format;
use layerline::weights::frames::Memory;
use serde_json::{Value, json};
use std::hint::black_box;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Barrier;
use support::{Blocks, Random};

const ROWS: usize = 14336;
const K: usize = 4096;
/// Rows that are multiplied with many tokens.
const FEWER_ROWS: usize = 2048;
const TOKENS: [usize; 3] = [8, 64, 512];

/// Seconds of processor time this thread has had: unlike a clock's, not lengthened by other work on the machine.
fn processor_time() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a place for the result.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}

/// Median seconds of `repeats` runs in which each of `threads` threads does its part at once; a run takes as
/// long as its slowest thread.
fn seconds(threads: usize, repeats: usize, part: impl Fn(usize) + Sync) -> f64 {
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
    times[repeats / 2]
}

/// The part of `0..len` that thread `i` of `n` does.
fn share(len: usize, i: usize, n: usize) -> std::ops::Range<usize> {
    len * i / n..len * (i + 1) / n
}

/// Rows with random codes, and scales of a size that models have: subnormal numbers take longer.
fn filled(format: Format) -> Memory {
    const DIFFERENT: usize = 64;
    let rows = support::weights(&mut Random::new(1), format, K, DIFFERENT, Blocks::Ordinary);
    let bytes = rows.len() / DIFFERENT * ROWS;
    let mut memory = Memory::new(bytes).expect("memory for the weights");
    memory.bytes_mut().chunks_mut(rows.len()).for_each(|to| to.copy_from_slice(&rows[..to.len()]));
    memory
}

/// Reads all of `bytes` and nothing else.
fn read(bytes: &[u8]) -> u64 {
    let mut sums = [0u64; 32];
    for words in bytes.as_chunks::<8>().0.as_chunks::<32>().0 {
        for (sum, word) in sums.iter_mut().zip(words) {
            *sum ^= u64::from_ne_bytes(*word);
        }
    }
    sums.iter().fold(0, |a, b| a ^ b)
}

/// Bytes per second of `threads` threads that read.
fn reading(memory: &Memory, threads: usize) -> f64 {
    let bytes = memory.bytes();
    let time = seconds(threads, 15, |i| {
        black_box(read(&bytes[share(bytes.len(), i, threads)]));
    });
    bytes.len() as f64 / time
}

/// Multiply-adds per second of `threads` threads that multiply eight-bit codes in registers and add the results in 16 bits.
#[cfg_attr(not(target_arch = "x86_64"), allow(unused_variables))]
fn multiplying(isa: Isa, threads: usize) -> Option<f64> {
    const TURNS: usize = 1 << 20;
    #[cfg(target_arch = "x86_64")]
    if isa != Isa::SCALAR {
        // SAFETY: the processor has `isa`, and on x86-64 every one but the scalar has AVX2.
        let time = seconds(threads, 9, |_| unsafe { products(TURNS) });
        return Some((threads * TURNS * CHAINS * 32) as f64 / time);
    }
    None
}

/// Sums that are made side by side, so that none waits for its last addition.
#[cfg(target_arch = "x86_64")]
const CHAINS: usize = 8;

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn products(turns: usize) {
    use std::arch::x86_64::*;
    let codes: [__m256i; 2] = black_box([_mm256_set1_epi8(3), _mm256_set1_epi8(5)]);
    let mut x = black_box(_mm256_set1_epi8(-7));
    let mut sums = [_mm256_setzero_si256(); CHAINS];
    for _ in 0..turns {
        for (i, sum) in sums.iter_mut().enumerate() {
            *sum = _mm256_add_epi16(*sum, _mm256_maddubs_epi16(codes[i % 2], x));
            // SAFETY: no instruction at all: keeps the compiler from taking the product out of the loop.
            unsafe { std::arch::asm!("/* {0} {1} */", inout(ymm_reg) *sum, inout(ymm_reg) x) };
        }
    }
    black_box(sums);
}

const USAGE: &str = "\
usage: cargo bench --bench kernels -- [OPTIONS] [FORMAT...]      (or make bench-kernels ARGS='OPTIONS')
  FORMAT...         measure these; default: every format
  --peer FOLDER     instead: the same products by llama.cpp, whose libggml-base and libggml-cpu lie in that folder, in turns
                    with ours
  --threads LIST    of the comparison; default: 1 and the CPUs this process may use, two at most
  --tokens LIST     of the comparison; default: 1,512
  --isa NAME        the kernels of this instruction set; default: the best one this processor has
  --json FILE       the figures";

struct Wanted {
    isa: Isa,
    formats: Vec<Format>,
    peer: Option<PathBuf>,
    threads: Vec<usize>,
    tokens: Vec<usize>,
    json: Option<PathBuf>,
}

fn counts(list: &str) -> Result<Vec<usize>, String> {
    let count = |n: &str| n.parse().ok().filter(|n| *n > 0).ok_or(format!("{n} is no count"));
    list.split(',').map(count).collect()
}

fn instructions(name: &str) -> Result<Isa, String> {
    let all = Isa::available();
    let names = || all.iter().map(|isa| isa.name()).collect::<Vec<_>>().join(", ");
    all.iter().find(|isa| isa.name() == name).copied().ok_or_else(|| format!("{name} is none of {}", names()))
}

impl Wanted {
    fn parse(arguments: impl IntoIterator<Item = String>, cores: usize) -> Result<Wanted, String> {
        let (threads, tokens) = ((1..=cores).collect(), vec![1, 512]);
        let mut wanted = Wanted { isa: Isa::detect(), formats: Vec::new(), peer: None, threads, tokens, json: None };
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or(format!("{argument} needs a value"));
            match argument.as_str() {
                "--peer" => wanted.peer = Some(value()?.into()),
                "--isa" => wanted.isa = instructions(&value()?)?,
                "--json" => wanted.json = Some(value()?.into()),
                "--threads" => wanted.threads = counts(&value()?)?,
                "--tokens" => wanted.tokens = counts(&value()?)?,
                name => match Format::ALL.into_iter().find(|format| format.name() == name) {
                    Some(format) => wanted.formats.push(format),
                    None => return Err(format!("no format or option {name}\n{USAGE}")),
                },
            }
        }
        if wanted.formats.is_empty() {
            wanted.formats = Format::ALL.into();
        }
        Ok(wanted)
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.is_empty() || arguments.iter().any(|argument| argument == "--help") {
        // `cargo test` over all targets starts benches without arguments; a bench is not a test.
        println!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    match run(arguments.into_iter().filter(|argument| argument != "--bench")) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: impl IntoIterator<Item = String>) -> Result<(), String> {
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get()).min(2);
    let wanted = Wanted::parse(arguments, cores)?;
    let isa = wanted.isa;
    let formats = match &wanted.peer {
        Some(folder) => peer::compare(folder, isa, &wanted.formats, &wanted.tokens, &wanted.threads)?,
        None => alone(isa, &wanted.formats, cores),
    };
    if let Some(path) = wanted.json {
        let record = json!({
            "date": machine::today(), "machine": machine::describe(), "threads": cores,
            "rows": ROWS, "columns": K, "formats": formats,
        });
        std::fs::write(&path, format!("{record:#}\n")).map_err(|e| format!("{}: {e}", path.display()))?;
    }
    Ok(())
}

/// Prints the speed of our kernels for each of `formats`.
fn alone(isa: Isa, formats: &[Format], cores: usize) -> Vec<Value> {
    let memory = filled(Format::Q4_0);
    let one = [reading(&memory, 1), reading(&memory, cores)];
    drop(memory);
    println!(
        "{}, {cores} threads; memory read: {:.1} GB/s by one, {:.1} by all",
        isa.name(),
        one[0] * 1e-9,
        one[1] * 1e-9
    );
    println!(
        "| | decode GB/s (of reading) | Gweights/s | GMAC/s of {TOKENS:?} tokens | of the products |\n|---|--:|--:|--:|--:|"
    );
    formats.iter().map(|&format| measure(isa, format, cores)).collect()
}

fn measure(isa: Isa, format: Format, threads: usize) -> Value {
    let memory = filled(format);
    let weights = memory.bytes();
    let form = Form::of(format);
    // The ceilings drift with the machine's other tenants: beside every format.
    let (read, most) = (reading(&memory, threads), multiplying(isa, threads));
    let run = |tokens: usize, rows: usize, repeats: usize| {
        let x: Vec<f32> = (0..tokens * K).map(|i| (i * 7919 % 2003) as f32 / 1000.0 - 1.0).collect();
        let mut buf = Memory::new(activation_bytes(form, K, tokens)).expect("memory for the activations");
        let acts = Activations::quantize(isa, form, K, &x, tokens, buf.bytes_mut());
        let mut y = vec![0f32; tokens * rows];
        let out = Output { ptr: y.as_mut_ptr(), stride: rows };
        // SAFETY: the threads write different rows of `y`, which holds them all.
        seconds(threads, repeats, |i| unsafe { multiply(isa, format, weights, K, share(rows, i, threads), &acts, out) })
    };
    let time = run(1, ROWS, 15);
    let (bytes, rate) = (weights.len() as f64 / time, (ROWS * K) as f64 / time);
    let macs = TOKENS.map(|tokens| (FEWER_ROWS * K * tokens) as f64 / run(tokens, FEWER_ROWS, 5));
    println!(
        "| {} | {:.1} ({:.2}) | {:.1} | {} | {} |",
        format.name(),
        bytes * 1e-9,
        bytes / read,
        rate * 1e-9,
        macs.map(|m| format!("{:.0}", m * 1e-9)).join(" / "),
        most.map_or("–".into(), |most| format!("{:.2}", macs[TOKENS.len() - 1] / most)),
    );
    json!({
        "format": format.name(), "read_bytes_per_second": read, "products_per_second": most,
        "decode_bytes_per_second": bytes, "decode_weights_per_second": rate,
        "tokens": TOKENS, "multiply_adds_per_second": macs,
    })
}
