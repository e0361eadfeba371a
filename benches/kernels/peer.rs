//! The products of llama.cpp's own kernels beside ours: the same bytes, the same activations, in turns within one run.
//!
//! Its libraries are loaded at run time from a folder the user names, so nothing of it is needed to build or run the rest.
//! Both sides round the activations and multiply. Two threads are two halves of the rows: none of them waits for another,
//! and a thread's processor time is all that counts.

use super::support::{self, Blocks, Random};
use super::{K, processor_time, share};
use layerline::kernel::Isa;
use layerline::kernel::matmul::{Activations, Form, Output, activation_bytes, multiply};
use layerline::quant::Format;
use layerline::weights::frames::Memory;
use serde_json::{Value, json};
use std::ffi::{CString, c_int, c_void};
use std::path::Path;
use std::sync::Barrier;

/// Rows and turns of a comparison at so many tokens: enough of both for times that can be told apart from noise.
fn shape(tokens: usize) -> (usize, usize) {
    if tokens < 4 { (14336, 41) } else { (4096, 15) }
}

// Functions of ggml's, as its header has them.
type Start = unsafe extern "C" fn();
type Init = unsafe extern "C" fn(InitParams) -> *mut c_void;
type Free = unsafe extern "C" fn(*mut c_void);
type NewTensor = unsafe extern "C" fn(*mut c_void, c_int, i64, i64) -> *mut c_void;
type MulMat = unsafe extern "C" fn(*mut c_void, *mut c_void, *mut c_void) -> *mut c_void;
type Data = unsafe extern "C" fn(*const c_void) -> *mut u8;
type NewGraph = unsafe extern "C" fn(*mut c_void) -> *mut c_void;
type Expand = unsafe extern "C" fn(*mut c_void, *mut c_void);
type MakePlan = unsafe extern "C" fn(*const c_void, c_int, *mut c_void) -> Plan;
type Compute = unsafe extern "C" fn(*mut c_void, *mut Plan) -> c_int;

/// What is used of ggml's interface. Layouts that its versions may change are avoided: plans and parameters lie in
/// places larger than they need, and tensors are known by their addresses alone.
struct Ggml {
    init: Init,
    free: Free,
    new_tensor: NewTensor,
    mul_mat: MulMat,
    data: Data,
    new_graph: NewGraph,
    expand: Expand,
    plan: MakePlan,
    compute: Compute,
}

#[repr(C)]
struct InitParams {
    size: usize,
    buffer: *mut u8,
    no_alloc: bool,
}

/// How much room a graph needs, where it is, and more than the rest takes.
#[repr(C)]
struct Plan {
    size: usize,
    data: *mut u8,
    rest: [usize; 30],
}

impl Ggml {
    fn load(folder: &Path) -> Result<Ggml, String> {
        let suffix = if cfg!(target_os = "macos") { "dylib" } else { "so" };
        let open = |name: &str| {
            let path = folder.join(format!("lib{name}.{suffix}"));
            let name = CString::new(path.as_os_str().as_encoded_bytes()).map_err(|e| e.to_string())?;
            // SAFETY: a path that ends with a zero. What the library does when it is loaded is the user's choice.
            let library = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_GLOBAL) };
            if library.is_null() { Err(format!("{} could not be loaded", path.display())) } else { Ok(library) }
        };
        let libraries = [open("ggml-base")?, open("ggml-cpu")?];
        let symbol = |name: &str| {
            let symbol = CString::new(name).expect("a name");
            // SAFETY: libraries that were loaded, and a name that ends with a zero.
            let found = libraries.map(|library| unsafe { libc::dlsym(library, symbol.as_ptr()) });
            found.into_iter().find(|symbol| !symbol.is_null()).ok_or(format!("ggml has no {name}"))
        };
        macro_rules! function {
            ($name:literal as $kind:ty) => {
                // SAFETY: the type is that of ggml's header.
                unsafe { std::mem::transmute::<*mut c_void, $kind>(symbol($name)?) }
            };
        }
        let start = function!("ggml_cpu_init" as Start);
        // SAFETY: it fills in tables.
        unsafe { start() };
        Ok(Ggml {
            init: function!("ggml_init" as Init),
            free: function!("ggml_free" as Free),
            new_tensor: function!("ggml_new_tensor_2d" as NewTensor),
            mul_mat: function!("ggml_mul_mat" as MulMat),
            data: function!("ggml_get_data" as Data),
            new_graph: function!("ggml_new_graph" as NewGraph),
            expand: function!("ggml_build_forward_expand" as Expand),
            plan: function!("ggml_graph_plan" as MakePlan),
            compute: function!("ggml_graph_compute" as Compute),
        })
    }
}

/// One product of ggml's, with all its memory.
struct Product<'a> {
    ggml: &'a Ggml,
    context: *mut c_void,
    graph: *mut c_void,
    plan: Plan,
    weights: *mut u8,
    x: *mut u8,
    y: *mut u8,
    _memory: [Memory; 2],
}

// SAFETY: addresses of memory that is its own; ggml keeps nothing that belongs to a thread.
unsafe impl Send for Product<'_> {}

impl<'a> Product<'a> {
    fn new(ggml: &'a Ggml, format: Format, rows: &[u8], count: usize, x: &[f32]) -> Product<'a> {
        let tokens = x.len() / K;
        // Beside the data: headers and the graph.
        let size = rows.len() + 4 * x.len() + 4 * count * tokens + (4 << 20);
        let mut memory = Memory::new(size).expect("memory for the weights");
        // SAFETY: functions of ggml's as its header has them; what they return lives as long as the context, whose memory
        // is kept. Tensors of these shapes have data of these lengths.
        unsafe {
            let buffer = memory.bytes_mut().as_mut_ptr();
            let context = (ggml.init)(InitParams { size, buffer, no_alloc: false });
            let weights = (ggml.new_tensor)(context, format.id() as c_int, K as i64, count as i64);
            let activations = (ggml.new_tensor)(context, Format::F32.id() as c_int, K as i64, tokens as i64);
            let product = (ggml.mul_mat)(context, weights, activations);
            let graph = (ggml.new_graph)(context);
            (ggml.expand)(graph, product);
            let mut plan = (ggml.plan)(graph, 1, std::ptr::null_mut());
            let mut work = Memory::new(plan.size.max(1)).expect("memory for the plan");
            plan.data = work.bytes_mut().as_mut_ptr();
            let [weights, x_to, y] = [weights, activations, product].map(|tensor| (ggml.data)(tensor));
            weights.copy_from_nonoverlapping(rows.as_ptr(), rows.len());
            x_to.cast::<f32>().copy_from_nonoverlapping(x.as_ptr(), x.len());
            Product { ggml, context, graph, plan, weights, x: x_to, y, _memory: [memory, work] }
        }
    }

    fn run(&mut self) {
        // SAFETY: a graph and its plan.
        let status = unsafe { (self.ggml.compute)(self.graph, &mut self.plan) };
        assert_eq!(status, 0, "ggml could not multiply");
    }
}

impl Drop for Product<'_> {
    fn drop(&mut self) {
        // SAFETY: the context that `new` made; its memory is freed after it.
        unsafe { (self.ggml.free)(self.context) };
    }
}

/// A thread's part of the rows, multiplied by either side from the same bytes.
struct Part<'a> {
    theirs: Product<'a>,
    rows: usize,
    row_bytes: usize,
    tokens: usize,
    buf: Memory,
    y: Vec<f32>,
}

impl Part<'_> {
    fn ours(&mut self, isa: Isa, format: Format) {
        let form = Form::of(format);
        // SAFETY: the tensors' data, which nobody writes meanwhile; `isa` is what this processor has; `y` holds all
        // results.
        unsafe {
            let weights = std::slice::from_raw_parts(self.theirs.weights, self.rows * self.row_bytes);
            let x = std::slice::from_raw_parts(self.theirs.x.cast(), self.tokens * K);
            let acts = Activations::quantize(isa, form, K, x, self.tokens, self.buf.bytes_mut());
            let out = Output { ptr: self.y.as_mut_ptr(), stride: self.rows };
            multiply(isa, format, weights, K, 0..self.rows, &acts, out);
        }
    }

    /// How far both results are apart, as a part of their size.
    fn distance(&self) -> f64 {
        // SAFETY: the product's data.
        let theirs = unsafe { std::slice::from_raw_parts(self.theirs.y.cast::<f32>(), self.y.len()) };
        let of =
            |f: fn(f64, f64) -> f64| -> f64 { self.y.iter().zip(theirs).map(|(a, b)| f(*a as f64, *b as f64)).sum() };
        (of(|a, b| (a - b) * (a - b)) / of(|a, _| a * a)).sqrt()
    }
}

/// What `threads` threads take for each turn, ours and theirs.
fn turns(ggml: &Ggml, isa: Isa, format: Format, threads: usize, tokens: usize) -> Vec<[f64; 2]> {
    let (rows, repeats) = shape(tokens);
    const DIFFERENT: usize = 64;
    let row_bytes = format.row_bytes(K).expect("whole blocks");
    let some = support::weights(&mut Random::new(1), format, K, DIFFERENT, Blocks::Ordinary);
    let x = support::activations(&mut Random::new(2), tokens * K);
    let barrier = Barrier::new(threads);
    let run = |thread: usize| {
        let rows = share(rows, thread, threads).len();
        let mut all = some.repeat(rows.div_ceil(DIFFERENT));
        all.truncate(rows * row_bytes);
        let mut part = Part {
            theirs: Product::new(ggml, format, &all, rows, &x),
            rows,
            row_bytes,
            tokens,
            buf: Memory::new(activation_bytes(Form::of(format), K, tokens)).expect("memory for the activations"),
            y: vec![0.0; rows * tokens],
        };
        drop(all);
        let mut times = Vec::new();
        // The first turn warms up.
        for turn in 0..=repeats {
            let mut both = [0.0; 2];
            for side in [turn % 2, 1 - turn % 2] {
                barrier.wait();
                let start = processor_time();
                match side {
                    0 => part.ours(isa, format),
                    _ => part.theirs.run(),
                }
                both[side] = processor_time() - start;
            }
            times.push(both);
        }
        let distance = part.distance();
        assert!(distance < 0.02, "{}: the results are {distance:.3} of their size apart", format.name());
        times.split_off(1)
    };
    std::thread::scope(|scope| {
        let run = &run;
        let others: Vec<_> = (1..threads).map(|thread| scope.spawn(move || run(thread))).collect();
        let mut times = run(0);
        for other in others {
            for (time, other) in times.iter_mut().zip(other.join().expect("a thread's times")) {
                *time = [time[0].max(other[0]), time[1].max(other[1])];
            }
        }
        times
    })
}

/// The value that `part` of the others are below.
fn quantile(mut values: Vec<f64>, part: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    values[(part * (values.len() - 1) as f64).round() as usize]
}

/// Prints both sides' speed at each of `tokens` and of `threads`, for each format.
pub fn compare(
    folder: &Path,
    isa: Isa,
    formats: &[Format],
    tokens: &[usize],
    threads: &[usize],
) -> Result<Vec<Value>, String> {
    let ggml = Ggml::load(folder)?;
    println!(
        "{}, beside ggml; medians, and the ratio's quartiles\n\
         | | tokens | threads | ours GB/s | G/s | ggml's G/s | ratio |\n|---|--:|--:|--:|--:|--:|--:|",
        isa.name()
    );
    let mut records = Vec::new();
    for &format in formats {
        for &tokens in tokens {
            for &threads in threads {
                let times = turns(&ggml, isa, format, threads, tokens);
                let (rows, _) = shape(tokens);
                let products = (rows * K * tokens) as f64;
                let [ours, theirs] = [0, 1].map(|side| quantile(times.iter().map(|t| t[side]).collect(), 0.5));
                let ratio = |part| quantile(times.iter().map(|t| t[1] / t[0]).collect(), part);
                let bytes = (rows * format.row_bytes(K).expect("whole blocks")) as f64;
                let of_memory = if tokens == 1 { format!("{:.1}", bytes / ours * 1e-9) } else { "–".into() };
                println!(
                    "| {} | {tokens} | {threads} | {of_memory} | {:.1} | {:.1} | **{:.2}** ({:.2}–{:.2}) |",
                    format.name(),
                    products / ours * 1e-9,
                    products / theirs * 1e-9,
                    ratio(0.5),
                    ratio(0.25),
                    ratio(0.75),
                );
                records.push(json!({
                    "format": format.name(), "tokens": tokens, "threads": threads, "rows": rows, "columns": K,
                    "ours_per_second": products / ours, "theirs_per_second": products / theirs,
                    "ratio": ratio(0.5), "ratio_quartiles": [ratio(0.25), ratio(0.75)],
                }));
            }
        }
    }
    Ok(records)
}
