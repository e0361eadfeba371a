//! Memory that is refused: whichever large allocation fails, the call ends with OUT_OF_MEMORY, and the process goes on.
//! A process of its own, for its allocator.

use std::alloc::{GlobalAlloc, Layout, System};
use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};

use layerline::gguf::Strings;
use layerline::gguf::write::Writer;
use layerline::quant::Format;
use layerline::{Adapter, Logits, Model, Options, Result, Sampler, Session, Status};

/// Smaller allocations always succeed: what is small and of a fixed size may end the process.
const LARGE: usize = 64 << 10;

/// Allocations of no more bytes than this always succeed.
static SMALL: AtomicUsize = AtomicUsize::new(LARGE);

/// How many large allocations go before the one that fails; below 0: it has failed.
static BEFORE_FAILURE: AtomicI64 = AtomicI64::new(i64::MAX);

/// How large the one was that failed.
static REFUSED_BYTES: AtomicUsize = AtomicUsize::new(0);

/// The rows and activations on which kernels prove themselves when the first model is opened. Without memory for them slower
/// kernels are used, which give the same bits: the only large allocations that a call can do without.
const COMPARED: [usize; 2] = [37 * 768 * size_of::<f32>(), 66 * 256 * size_of::<f32>()];

struct Failing;

impl Failing {
    fn refuses(bytes: usize) -> bool {
        let refuses = bytes > SMALL.load(Ordering::Relaxed) && BEFORE_FAILURE.fetch_sub(1, Ordering::Relaxed) == 0;
        if refuses {
            REFUSED_BYTES.store(bytes, Ordering::Relaxed);
        }
        refuses
    }
}

// SAFETY: what is not refused is the system's allocator.
unsafe impl GlobalAlloc for Failing {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if Failing::refuses(layout.size()) {
            return std::ptr::null_mut();
        }
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if Failing::refuses(layout.size()) {
            return std::ptr::null_mut();
        }
        // SAFETY: the caller's promise.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise; every block is the system's.
        unsafe { System.dealloc(ptr, layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // To make a block smaller needs no memory.
        if new_size > layout.size() && Failing::refuses(new_size) {
            return std::ptr::null_mut();
        }
        // SAFETY: the caller's promise; every block is the system's.
        unsafe { System.realloc(ptr, layout, new_size) }
    }
}

#[global_allocator]
static ALLOCATOR: Failing = Failing;

const WIDTH: u64 = 32;

/// All texts of one to three letters: as many tokens as a small real vocabulary.
fn texts() -> Vec<String> {
    let letters = || (b'a'..=b'z').map(char::from);
    let longer = |texts: &[String]| -> Vec<String> {
        texts.iter().flat_map(|text| letters().map(move |letter| format!("{text}{letter}"))).collect()
    };
    let one: Vec<String> = letters().map(String::from).collect();
    let two = longer(&one);
    let three = longer(&two);
    [one, two, three].concat()
}

/// A model of one layer whose metadata and vocabulary are large.
fn write_model(path: &Path, tokenizer: &str) {
    let texts = texts();
    let count = texts.len();
    let mut file = Writer::new();
    file.set("general.architecture", "llama").set("llama.block_count", 1u32).set("llama.context_length", 64u32);
    file.set("llama.embedding_length", WIDTH as u32).set("llama.feed_forward_length", WIDTH as u32);
    file.set("llama.attention.head_count", 1u32).set("llama.attention.layer_norm_rms_epsilon", 1e-5f32);
    file.set("test.text", "long ".repeat(LARGE / 4).as_str()).set("test.numbers", vec![1.0f64; LARGE / 4]);
    file.set("tokenizer.ggml.model", tokenizer).set("tokenizer.ggml.pre", "default");
    file.set("tokenizer.ggml.bos_token_id", 0u32).set("tokenizer.ggml.eos_token_id", 1u32);
    file.set("tokenizer.ggml.tokens", texts.iter().collect::<Strings>());
    file.set("tokenizer.ggml.token_type", vec![1i32; count]);
    match tokenizer {
        "gpt2" => {
            let pairs = texts[26..].iter().map(|text| text.split_at(text.len() - 1));
            let merges = pairs.map(|(left, right)| format!("{left} {right}")).collect::<Strings>();
            file.set("tokenizer.ggml.merges", merges);
        }
        _ => {
            file.set("tokenizer.ggml.scores", (0..count).map(|i| -(i as f32)).collect::<Vec<f32>>());
        }
    }
    let mut tensor = |name: &str, dims: &[u64]| {
        file.tensor(name, dims, Format::F32).unwrap();
    };
    tensor("token_embd.weight", &[WIDTH, count as u64]);
    tensor("output_norm.weight", &[WIDTH]);
    for name in ["attn_norm", "ffn_norm"] {
        tensor(&format!("blk.0.{name}.weight"), &[WIDTH]);
    }
    for name in ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"] {
        tensor(&format!("blk.0.{name}.weight"), &[WIDTH, WIDTH]);
    }
    let out = BufWriter::new(File::create(path).unwrap());
    file.write(out, |tensor, out| (0..tensor.bytes / 4).try_for_each(|i| out.write_all(&number(i).to_le_bytes())))
        .unwrap();
}

fn number(i: u64) -> f32 {
    (i * 7919 % 2003) as f32 / 1000.0 - 1.0
}

/// An adapter of the model with much metadata.
fn write_adapter(path: &Path) {
    let mut file = Writer::new();
    file.set("general.architecture", "llama").set("general.type", "adapter").set("adapter.type", "lora");
    file.set("adapter.lora.alpha", 1.0f32).set("test.text", "long ".repeat(LARGE / 4).as_str());
    file.tensor("blk.0.attn_q.weight.lora_a", &[WIDTH, 1024], Format::F32).unwrap();
    file.tensor("blk.0.attn_q.weight.lora_b", &[1024, WIDTH], Format::F32).unwrap();
    let out = BufWriter::new(File::create(path).unwrap());
    file.write(out, |tensor, out| (0..tensor.bytes / 4).try_for_each(|i| out.write_all(&number(i).to_le_bytes())))
        .unwrap();
}

/// What a host does, up to a state that is saved and loaded again.
fn run(model: &Path, adapter: &Path, state: &Path, history: &[i32]) -> Result<()> {
    let model = Model::open(model, &Options { context_length: 16, ..Options::default() })?;
    let mut session = Session::new(&model, 16)?;
    let adapter = Adapter::open(&model, adapter)?;
    session.set_adapters(&[(&adapter, 1.0)])?;
    session.forward(&[3, 700, 5000], Logits::All)?;
    let mut sampler = Sampler::new();
    sampler.set_temperature(0.8)?;
    sampler.set_top_p(0.9)?;
    sampler.set_repeat_penalty(1.1, history.len() as u32)?;
    sampler.accept(history)?;
    let token = sampler.sample(session.logits(2)?)?;
    let checkpoint = session.checkpoint()?;
    session.forward(&[token], Logits::Last)?;
    session.restore(&checkpoint)?;
    session.save(state)?;
    session.load(state)
}

#[test]
fn whichever_large_allocation_fails_the_call_says_so_and_the_process_goes_on() {
    let folder: PathBuf = std::env::temp_dir().join(format!("layerline-allocation-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let [model, adapter, state] = ["model.gguf", "adapter.gguf", "state"].map(|name| folder.join(name));
    write_adapter(&adapter);
    let history: Vec<i32> = (0..40_000).map(|i| i % 1000).collect();
    for tokenizer in ["llama", "gpt2", "t5", "bert"] {
        write_model(&model, tokenizer);
        let mut refused = 0;
        loop {
            BEFORE_FAILURE.store(refused, Ordering::Relaxed);
            let result = run(&model, &adapter, &state, &history);
            let failed = BEFORE_FAILURE.swap(i64::MAX, Ordering::Relaxed) < 0;
            match result {
                Ok(()) if !failed => break,
                Ok(()) => {
                    let bytes = REFUSED_BYTES.load(Ordering::Relaxed);
                    assert!(
                        COMPARED.contains(&bytes),
                        "{tokenizer}: allocation {refused}, of {bytes}, failed, and no call said so"
                    );
                }
                Err(error) => {
                    assert!(failed, "{tokenizer}: {error}");
                    assert_eq!(error.status(), Status::OutOfMemory, "{tokenizer}, allocation {refused}: {error}");
                }
            }
            refused += 1;
        }
        // As many as there must be: long arrays of the file, the vocabulary's tables, the sampler's lists.
        assert!(refused >= 10, "{tokenizer}: {refused} large allocations");
    }
    std::fs::remove_dir_all(&folder).unwrap();
    handles_are_null_where_there_is_no_memory_for_them();
}

/// No other thread allocates meanwhile, so that the first allocation of all is the handle's.
fn handles_are_null_where_there_is_no_memory_for_them() {
    use layerline::ffi::options::{layerline_options_free, layerline_options_new};
    use layerline::ffi::sampler::{layerline_sampler_free, layerline_sampler_new};
    fn refused<T>(make: extern "C" fn() -> *mut T, free: unsafe extern "C" fn(*mut T)) {
        // What a first call sets up is there.
        let made = make();
        assert!(!made.is_null());
        SMALL.store(0, Ordering::Relaxed);
        BEFORE_FAILURE.store(0, Ordering::Relaxed);
        let none = make();
        let failed = BEFORE_FAILURE.swap(i64::MAX, Ordering::Relaxed) < 0;
        SMALL.store(LARGE, Ordering::Relaxed);
        assert!(failed && none.is_null());
        // SAFETY: the library has made it, and nothing else has it.
        unsafe { free(made) };
    }
    refused(layerline_options_new, layerline_options_free);
    refused(layerline_sampler_new, layerline_sampler_free);
}
