//! Adapters: what they add, against merged weights; bits; memory; errors.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use half::f16;
use layerline::gguf::write::Writer;
use layerline::gguf::{Value, read_file};
use layerline::quant::{Format, decode_row};
use layerline::session::{BatchInput, forward_batch};
use layerline::{Adapter, Error, Logits, Model, Options, Session, Status};

const TOKENS: [i32; 7] = [1, 17, 300, 42, 7, 99, 260];

/// A folder that is removed in the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("layerline-adapters-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[allow(dead_code)]
#[path = "data/drawn.rs"]
mod drawn;

fn golden(name: &str) -> Vec<u8> {
    std::fs::read(drawn::golden(&format!("arch/{name}"))).unwrap()
}

/// A matrix A or B of an adapter.
#[derive(Clone)]
struct Matrix {
    name: String,
    columns: usize,
    rows: usize,
    format: Format,
    bytes: Vec<u8>,
}

impl Matrix {
    /// Numbers of either sign, below one.
    fn drawn(name: String, [columns, rows]: [usize; 2], format: Format, seed: u64) -> Matrix {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f32 / (1 << 23) as f32 - 1.0
        };
        let values: Vec<f32> = (0..columns * rows).map(|_| next() * 0.3).collect();
        let bytes = match format {
            Format::F32 => values.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Format::F16 => values.iter().flat_map(|x| f16::from_f32(*x).to_le_bytes()).collect(),
            Format::Q8_0 => values
                .chunks(32)
                .flat_map(|block| {
                    let d = f16::from_f32(block.iter().fold(0.0f32, |most, x| most.max(x.abs())) / 127.0);
                    let codes = block.iter().map(|x| (x / f32::from(d)).round() as i8 as u8);
                    d.to_le_bytes().into_iter().chain(codes.collect::<Vec<_>>()).collect::<Vec<_>>()
                })
                .collect(),
            other => panic!("{other:?}"),
        };
        Matrix { name, columns, rows, format, bytes }
    }

    fn values(&self) -> Vec<f32> {
        let row_bytes = self.format.row_bytes(self.columns).unwrap();
        let mut values = vec![0.0; self.columns * self.rows];
        for (bytes, row) in self.bytes.chunks(row_bytes).zip(values.chunks_mut(self.columns)) {
            decode_row(self.format, bytes, row);
        }
        values
    }
}

/// An adapter file.
struct Lora {
    architecture: String,
    keys: Vec<(&'static str, Value)>,
    matrices: Vec<Matrix>,
    alpha: f32,
    rank: usize,
}

impl Lora {
    /// For tensors of a model, by name.
    fn of(model: &[u8], tensors: &[&str], rank: usize, format: Format, seed: u64) -> Lora {
        let file = read_file(&model.to_vec(), "model").unwrap();
        let mut matrices = Vec::new();
        for tensor in file.tensors.iter().filter(|t| tensors.iter().any(|name| t.name.ends_with(name))) {
            let seed = seed + matrices.len() as u64;
            let [columns, rows] = [tensor.dims[0] as usize, tensor.dims[1] as usize];
            if tensor.name == "token_embd.weight" {
                // A has a row for each token.
                matrices.push(Matrix::drawn(format!("{}.lora_a", tensor.name), [rank, rows], format, seed));
                matrices.push(Matrix::drawn(format!("{}.lora_b", tensor.name), [rank, columns], format, seed + 1000));
                continue;
            }
            matrices.push(Matrix::drawn(format!("{}.lora_a", tensor.name), [columns, rank], format, seed));
            matrices.push(Matrix::drawn(format!("{}.lora_b", tensor.name), [rank, rows], format, seed + 1000));
        }
        assert!(!matrices.is_empty());
        let architecture = file.metadata.require_str("general.architecture").unwrap().to_string();
        let keys = vec![("general.type", "adapter".into()), ("adapter.type", "lora".into())];
        Lora { architecture, keys, matrices, alpha: 3.0, rank }
    }

    fn write(&self, path: &Path) {
        let mut file = Writer::new();
        file.set("general.architecture", self.architecture.as_str());
        for (key, value) in &self.keys {
            file.set(*key, value.clone());
        }
        file.set("adapter.lora.alpha", self.alpha);
        for m in &self.matrices {
            file.tensor(m.name.as_str(), &[m.columns as u64, m.rows as u64], m.format).unwrap();
        }
        let bytes = |name: &str| &self.matrices.iter().find(|m| m.name == name).unwrap().bytes;
        let mut out = Vec::new();
        file.write(&mut out, |tensor, out| out.write_all(bytes(&tensor.name))).unwrap();
        std::fs::write(path, out).unwrap();
    }

    /// The model of F32 tensors with the adapter merged, in double precision.
    fn merged(&self, model: &[u8], scale: f64) -> Vec<u8> {
        let file = read_file(&model.to_vec(), "model").unwrap();
        let mut bytes = model.to_vec();
        let factor = scale * f64::from(self.alpha) / self.rank as f64;
        for pair in self.matrices.chunks(2) {
            let (a, b) = (pair[0].values(), pair[1].values());
            let name = pair[0].name.trim_end_matches(".lora_a");
            let tensor = file.tensors.iter().find(|t| t.name == name).unwrap();
            assert_eq!(tensor.format, Format::F32);
            let at = tensor.offset as usize;
            let (columns, rank) = (tensor.dims[0] as usize, self.rank);
            let table = name == "token_embd.weight";
            for (i, number) in bytes[at..][..tensor.bytes as usize].chunks_exact_mut(4).enumerate() {
                let (row, column) = (i / columns, i % columns);
                let product = |r: usize| match table {
                    true => f64::from(a[row * rank + r]) * f64::from(b[column * rank + r]),
                    false => f64::from(b[row * rank + r]) * f64::from(a[r * columns + column]),
                };
                let sum: f64 = (0..rank).map(product).sum();
                let own = f64::from(f32::from_le_bytes(number.try_into().unwrap()));
                number.copy_from_slice(&((own + factor * sum) as f32).to_le_bytes());
            }
        }
        bytes
    }
}

fn options() -> Options {
    Options { context_length: 64, threads: 2, ..Options::default() }
}

fn open(path: &Path, options: &Options) -> Arc<Model> {
    Model::open(path, options).unwrap()
}

/// All logits of a session's pass.
fn logits(session: &mut Session, tokens: &[i32]) -> Vec<f32> {
    session.forward(tokens, Logits::All).unwrap();
    (0..tokens.len()).flat_map(|row| session.logits(row).unwrap().to_vec()).collect()
}

fn adapted(model: &Arc<Model>, adapters: &[(&Arc<Adapter>, f32)]) -> Session {
    let mut session = Session::new(model, 0).unwrap();
    session.set_adapters(adapters).unwrap();
    session
}

fn far(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, |far, x| if x > far || x.is_nan() { x } else { far })
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|x| x.to_bits()).collect()
}

const ALL: &[&str] =
    &["_q.weight", "_k.weight", "_v.weight", "attn_output.weight", "gate.weight", "up.weight", "down.weight"];

#[test]
fn an_adapter_gives_what_merged_weights_give() {
    let folder = Folder::new("merged");
    let cases: &[(&str, &[&str], usize, Format, f32)] = &[
        ("llama.gguf", ALL, 4, Format::F32, 1e-4),
        ("llama.gguf", ALL, 4, Format::F16, 1e-4),
        ("llama.gguf", ALL, 32, Format::Q8_0, 2e-2),
        ("llama.gguf", &["attn_q.weight"], 1, Format::F32, 1e-4),
        ("llama.gguf", &["ffn_up.weight"], 2, Format::F16, 1e-4),
        ("llama.gguf", &["ffn_down.weight", "output.weight"], 8, Format::F32, 1e-4),
        ("llama.gguf", &["token_embd.weight", "attn_v.weight"], 4, Format::F16, 1e-4),
        ("phi3.gguf", &["attn_qkv.weight", "ffn_up.weight"], 4, Format::F32, 1e-4),
        ("qwen2.gguf", ALL, 4, Format::F32, 1e-4),
        ("gemma2.gguf", ALL, 4, Format::F32, 1e-4),
    ];
    for (number, &(name, tensors, rank, format, least)) in cases.iter().enumerate() {
        let bytes = golden(name);
        let mut lora = Lora::of(&bytes, tensors, rank, format, number as u64);
        lora.alpha = 0.75 * rank as f32;
        let [own, file, merged] = ["model", "lora", "merged"].map(|what| folder.file(&format!("{number}-{what}.gguf")));
        std::fs::write(&own, &bytes).unwrap();
        lora.write(&file);
        std::fs::write(&merged, lora.merged(&bytes, 0.5)).unwrap();
        let model = open(&own, &options());
        let adapter = Adapter::open(&model, &file).unwrap();
        let wanted = logits(&mut Session::new(&open(&merged, &options()), 0).unwrap(), &TOKENS);
        let plain = logits(&mut Session::new(&model, 0).unwrap(), &TOKENS);
        let found = logits(&mut adapted(&model, &[(&adapter, 0.5)]), &TOKENS);
        let size = wanted.iter().fold(1.0f32, |size, x| size.max(x.abs()));
        assert!(
            far(&found, &wanted) < least * size,
            "{name} {tensors:?} {format:?}: {} of {size}",
            far(&found, &wanted)
        );
        assert!(
            far(&plain, &wanted) > 10.0 * least * size,
            "{name} {tensors:?} {format:?}: {} of {size}",
            far(&plain, &wanted)
        );
        // Two halves are the whole; a scale of 0 is none.
        let halves = logits(&mut adapted(&model, &[(&adapter, 0.25), (&adapter, 0.25)]), &TOKENS);
        assert!(far(&halves, &wanted) < least * size, "{name} {tensors:?}");
        assert_eq!(bits(&logits(&mut adapted(&model, &[(&adapter, 0.0)]), &TOKENS)), bits(&plain));
    }
}

/// The same model with all tensors in single precision.
fn dequantised(model: &[u8]) -> Vec<u8> {
    let file = read_file(&model.to_vec(), "model").unwrap();
    let mut made = Writer::new();
    for (key, value) in file.metadata.entries.iter().filter(|(key, _)| key != "general.alignment") {
        made.set(key.as_str(), value.clone());
    }
    for tensor in &file.tensors {
        made.tensor(tensor.name.as_str(), tensor.shape(), Format::F32).unwrap();
    }
    let mut out = Vec::new();
    made.write(&mut out, |declared, out| {
        let tensor = file.tensors.iter().find(|t| t.name == declared.name).unwrap();
        let columns = tensor.dims[0] as usize;
        let mut row = vec![0.0f32; columns];
        let bytes = &model[tensor.offset as usize..][..tensor.bytes as usize];
        bytes.chunks(tensor.format.row_bytes(columns).unwrap()).try_for_each(|bytes| {
            decode_row(tensor.format, bytes, &mut row);
            row.iter().try_for_each(|x| out.write_all(&x.to_le_bytes()))
        })
    })
    .unwrap();
    out
}

/// Products of quantised matrices take their inputs rounded, and so do adapters.
#[test]
fn adapters_of_quantised_models_are_near_what_merged_weights_give() {
    let folder = Folder::new("quantised");
    for (number, name) in ["quant/Q4_K_M.gguf", "quant/Q8_0.gguf", "quant/Q4_0.gguf"].into_iter().enumerate() {
        let bytes = std::fs::read(drawn::golden(name)).unwrap();
        let single = dequantised(&bytes);
        let mut lora = Lora::of(&single, ALL, 8, Format::F16, 1);
        lora.alpha = 1.0;
        let [own, file, merged, flat] =
            ["model", "lora", "merged", "flat"].map(|w| folder.file(&format!("{number}-{w}")));
        std::fs::write(&own, &bytes).unwrap();
        std::fs::write(&flat, &single).unwrap();
        lora.write(&file);
        std::fs::write(&merged, lora.merged(&single, 0.5)).unwrap();
        let model = open(&own, &options());
        let adapter = Adapter::open(&model, &file).unwrap();
        let found = logits(&mut adapted(&model, &[(&adapter, 0.5)]), &TOKENS);
        let of = |path: &Path| logits(&mut Session::new(&open(path, &options()), 0).unwrap(), &TOKENS);
        let (wanted, flat, plain) = (of(&merged), of(&flat), of(&own));
        // As far apart as rounded inputs make the model without an adapter.
        let (rounding, error, change) = (far(&plain, &flat), far(&found, &wanted), far(&plain, &wanted));
        assert!(error < 4.0 * rounding && change > 4.0 * error, "{name}: {error}, {rounding} without, change {change}");
        // At the floor, where matrices come page by page.
        let floor = Model::plan(&own, &Options { prefetch: false, ..options() }).unwrap().floor_bytes;
        let budget = floor + adapter.memory_bytes() + (3 << 20);
        let model =
            open(&own, &Options { memory_budget: budget, threads: 1, chunk_length: 2, prefetch: false, ..options() });
        let adapter = Adapter::open(&model, &file).unwrap();
        assert_eq!(bits(&logits(&mut adapted(&model, &[(&adapter, 0.5)]), &TOKENS)), bits(&found), "{name}");
    }
}

#[test]
fn bits_do_not_depend_on_budget_threads_chunks_and_company() {
    let folder = Folder::new("bits");
    let bytes = golden("llama.gguf");
    let [own, one, other] = ["model", "one", "other"].map(|name| folder.file(name));
    std::fs::write(&own, &bytes).unwrap();
    Lora::of(&bytes, &[ALL, &["output.weight", "token_embd.weight"]].concat(), 4, Format::F16, 1).write(&one);
    Lora::of(&bytes, &["ffn_gate.weight", "attn_v.weight"], 16, Format::F32, 2).write(&other);
    let long: Vec<i32> = (0..40).map(|i| 3 + i * 7 % 300).collect();
    let reference = {
        let model = open(&own, &options());
        let [one, other] = [&one, &other].map(|path| Adapter::open(&model, path).unwrap());
        let plain = logits(&mut Session::new(&model, 0).unwrap(), &long);
        let adapted = |set: &[(&Arc<Adapter>, f32)]| logits(&mut adapted(&model, set), &long);
        [plain, adapted(&[(&one, 1.0)]), adapted(&[(&other, -0.5)]), adapted(&[(&one, 0.3), (&other, 1.0)])]
    };
    let reference = reference.map(|values| bits(&values));
    assert!((1..4).all(|i| reference[i] != reference[0]));
    let floor = Model::plan(&own, &options()).unwrap();
    for (threads, chunk, budget) in [(1, 0, 0), (3, 5, 0), (2, 3, floor.floor_bytes + 4 * floor.kv_bytes + (2 << 20))] {
        let model = open(&own, &Options { threads, chunk_length: chunk, memory_budget: budget, ..options() });
        let [one, other] = [&one, &other].map(|path| Adapter::open(&model, path).unwrap());
        let sets: [&[(&Arc<Adapter>, f32)]; 4] =
            [&[], &[(&one, 1.0)], &[(&other, -0.5)], &[(&one, 0.3), (&other, 1.0)]];
        for (set, reference) in sets.iter().zip(&reference) {
            let mut session = adapted(&model, set);
            assert_eq!(&bits(&logits(&mut session, &long)), reference, "{threads} threads, chunks of {chunk}");
            // Token by token, and with a copy that goes on.
            session.truncate(0).unwrap();
            let mut found: Vec<f32> = long[..30].iter().flat_map(|&token| logits(&mut session, &[token])).collect();
            found.extend(logits(&mut session.copy(0).unwrap(), &long[30..]));
            assert_eq!(&bits(&found), reference, "token by token");
        }
        // All of them in the same sweeps.
        let mut sessions: Vec<Session> = sets.iter().map(|set| adapted(&model, set)).collect();
        let mut found = vec![Vec::new(); sessions.len()];
        for part in long.chunks(8) {
            let inputs =
                sessions.iter_mut().map(|session| BatchInput { session, tokens: part, outputs: Logits::All.into() });
            let mut inputs: Vec<BatchInput> = inputs.collect();
            for result in forward_batch(&mut inputs) {
                result.unwrap();
            }
            drop(inputs);
            for (session, found) in sessions.iter().zip(&mut found) {
                found.extend((0..part.len()).flat_map(|row| session.logits(row).unwrap().to_vec()));
            }
        }
        for (found, reference) in found.iter().zip(&reference) {
            assert_eq!(&bits(found), reference, "in company");
        }
    }
}

#[test]
fn memory_is_the_budgets_and_comes_back() {
    let folder = Folder::new("memory");
    let bytes = golden("llama.gguf");
    let [own, file] = ["model", "lora"].map(|name| folder.file(name));
    std::fs::write(&own, &bytes).unwrap();
    let lora = Lora::of(&bytes, ALL, 64, Format::F32, 1);
    lora.write(&file);
    // All of the model is there before, so that frames take no more.
    let model = open(&own, &Options { prefetch: false, ..options() });
    logits(&mut Session::new(&model, 0).unwrap(), &TOKENS);
    let before = model.stats().used_bytes;
    let size: usize = lora.matrices.iter().map(|m| m.bytes.len()).sum();
    let adapter = Adapter::open(&model, &file).unwrap();
    assert!(adapter.memory_bytes() >= size as u64 && adapter.memory_bytes() < size as u64 + (64 << 10));
    assert_eq!(model.stats().used_bytes, before + adapter.memory_bytes());
    // Whichever is freed first.
    let mut session = adapted(&model, &[(&adapter, 1.0)]);
    drop(adapter);
    assert!(model.stats().used_bytes > before + size as u64);
    logits(&mut session, &TOKENS);
    let with = session.memory_bytes();
    session.set_adapters(&[]).unwrap();
    let without = session.memory_bytes();
    assert!(with > without);
    logits(&mut session, &TOKENS);
    drop(session);
    assert!(without > 0);
    assert_eq!(model.stats().used_bytes, before);
    let adapter = Adapter::open(&model, &file).unwrap();
    let session = adapted(&model, &[(&adapter, 1.0)]);
    drop(session);
    drop(model);
    drop(adapter);

    // Where it does not fit.
    let plan = Model::plan(&own, &Options { prefetch: false, ..options() }).unwrap();
    let tight = open(&own, &Options { memory_budget: plan.floor_bytes + 4096, prefetch: false, ..options() });
    let before = tight.stats().used_bytes;
    let error = Adapter::open(&tight, &file).err().unwrap();
    assert_eq!(error.status(), Status::MemoryBudget, "{error}");
    assert_eq!(tight.stats().used_bytes, before);
    logits(&mut Session::new(&tight, 0).unwrap(), &TOKENS[..1]);
}

/// What opening says of a file that is changed.
fn refused(change: impl FnOnce(&mut Lora)) -> Error {
    let folder = Folder::new(&format!("refused-{:?}", std::thread::current().id()));
    let bytes = golden("llama.gguf");
    let [own, file] = ["model", "lora"].map(|name| folder.file(name));
    std::fs::write(&own, &bytes).unwrap();
    let mut lora = Lora::of(&bytes, &["attn_q.weight", "ffn_down.weight"], 4, Format::F32, 1);
    change(&mut lora);
    lora.write(&file);
    let model = open(&own, &Options { prefetch: false, ..options() });
    let before = model.stats().used_bytes;
    let error = Adapter::open(&model, &file).err().unwrap();
    assert_eq!(model.stats().used_bytes, before);
    error
}

#[test]
fn what_does_not_fit_the_model_is_refused_by_name() {
    let check = |status: Status, words: &[&str], change: &dyn Fn(&mut Lora)| {
        let error = refused(change);
        assert_eq!(error.status(), status, "{error}");
        assert!(words.iter().all(|word| error.message().contains(word)), "{error}");
    };
    use Status::{Format as Malformed, InvalidArgument, NotFound, Unsupported};
    check(InvalidArgument, &["general.type"], &|l| l.keys[0].1 = "model".into());
    check(InvalidArgument, &["adapter.type", "lora"], &|l| l.keys[1].1 = "control_vector".into());
    check(InvalidArgument, &["qwen2", "llama"], &|l| l.architecture = "qwen2".into());
    check(Malformed, &["adapter.lora.alpha", "NaN"], &|l| l.alpha = f32::NAN);
    check(Malformed, &["blk.0.attn_q.weight.lora_b", "missing"], &|l| drop(l.matrices.remove(1)));
    check(Malformed, &["blk.0.attn_q.weight.lora_a", "missing"], &|l| drop(l.matrices.remove(0)));
    check(InvalidArgument, &["blk.0.attn_q.weight.lora_a", "[32, 4]", "64"], &|l| {
        l.matrices[0] = Matrix::drawn(l.matrices[0].name.clone(), [32, 4], Format::F32, 1);
    });
    check(InvalidArgument, &["blk.0.attn_q.weight.lora_b", "[5, 64]"], &|l| {
        l.matrices[1] = Matrix::drawn(l.matrices[1].name.clone(), [5, 64], Format::F32, 1);
    });
    check(InvalidArgument, &["blk.0.attn_q.weight.lora_b", "[4, 63]"], &|l| {
        l.matrices[1] = Matrix::drawn(l.matrices[1].name.clone(), [4, 63], Format::F32, 1);
    });
    check(NotFound, &["blk.9.attn_q.weight"], &|l| {
        l.matrices[..2].iter_mut().for_each(|m| m.name = m.name.replace("blk.0", "blk.9"));
    });
    check(InvalidArgument, &["token_embd.weight.lora_a", "320"], &|l| {
        l.matrices[..2].iter_mut().for_each(|m| m.name = m.name.replace("blk.0.attn_q", "token_embd"));
    });
    check(Unsupported, &["blk.0.attn_norm.weight"], &|l| l.matrices[0].name = "blk.0.attn_norm.weight".into());
    check(Unsupported, &["aLoRA"], &|l| l.keys.push(("adapter.alora.invocation_tokens", vec![1u32, 2].into())));
    check(InvalidArgument, &["no matrices"], &|l| l.matrices.clear());
}

#[test]
fn experts_and_tied_tables_are_refused_by_name() {
    let folder = Folder::new("experts");
    let bytes = golden("qwen3moe.gguf");
    let [own, file] = ["model", "lora"].map(|name| folder.file(name));
    std::fs::write(&own, &bytes).unwrap();
    Lora::of(&bytes, &["ffn_up_exps.weight"], 4, Format::F32, 1).write(&file);
    let error = Adapter::open(&open(&own, &options()), &file).err().unwrap();
    assert_eq!(error.status(), Status::Unsupported, "{error}");
    assert!(error.message().contains("blk.0.ffn_up_exps.weight"), "{error}");
    // A table that is the head as well.
    let bytes = golden("llama-mha-tied.gguf");
    std::fs::write(&own, &bytes).unwrap();
    Lora::of(&bytes, &["token_embd.weight"], 4, Format::F32, 1).write(&file);
    let error = Adapter::open(&open(&own, &options()), &file).err().unwrap();
    assert_eq!(error.status(), Status::Unsupported, "{error}");
    assert!(error.message().contains("token_embd.weight"), "{error}");
}

#[test]
fn a_session_refuses_what_is_not_its_models() {
    let folder = Folder::new("other");
    let bytes = golden("llama.gguf");
    let [own, file] = ["model", "lora"].map(|name| folder.file(name));
    std::fs::write(&own, &bytes).unwrap();
    Lora::of(&bytes, ALL, 4, Format::F32, 1).write(&file);
    let (model, other) = (open(&own, &options()), open(&own, &options()));
    let adapter = Adapter::open(&other, &file).unwrap();
    let mut session = Session::new(&model, 0).unwrap();
    assert_eq!(session.set_adapters(&[(&adapter, 1.0)]).unwrap_err().status(), Status::InvalidArgument);
    let own = Adapter::open(&model, &file).unwrap();
    let error = session.set_adapters(&[(&own, f32::NAN)]).unwrap_err();
    assert!(error.message().contains("scale"), "{error}");
    assert!(Adapter::open(&model, &folder.file("none")).is_err());
}
