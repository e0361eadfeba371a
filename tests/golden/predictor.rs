//! The layer of a file that predicts further tokens: its logits against those of a plain model of the same block, and
//! against float64; texts that it drafts for; files in which it is not what it should be.

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

use layerline::gguf::{self, Array, Value, write::Writer};
use layerline::model::{Embeddings, Logits, Model, Options};
use layerline::quant::Format;
use layerline::session::Session;

use crate::support::*;

/// Each architecture whose layer is built in, by a model whose last block has attention.
pub const MODELS: [&str; 9] = [
    "qwen35-mtp",
    "qwen35moe",
    "qwen3next",
    "glm4moe",
    "glm4moe-355b",
    "deepseek2-v3",
    "deepseek2-softmax",
    "hy_v3",
    "cohere2moe-rms",
];

/// A model whose last block predicts further tokens, all in f32.
pub struct Tiny {
    pub architecture: String,
    entries: Vec<(String, Value)>,
    pub tensors: Vec<(String, Vec<u64>, Vec<f32>)>,
    pub width: usize,
    /// The block that predicts.
    pub block: usize,
}

/// Numbers about 0 without a pattern.
pub fn noise(seed: u64, count: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut number = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..count).map(|_| number()).collect()
}

impl Tiny {
    /// The model of the golden data, with a projection and norms of its own for the last block.
    pub fn of(model: &str) -> Tiny {
        let path = golden(&format!("arch2/{model}.gguf"));
        let bytes = std::fs::read(&path).unwrap();
        let file = gguf::read_file(&bytes, model).unwrap();
        let architecture = file.metadata.require_str("general.architecture").unwrap().to_string();
        let number = |key: &str| file.metadata.require_u32(&format!("{architecture}.{key}")).unwrap() as usize;
        // The last block of this one sees all tokens, which a plain model's first does not do when it is rotated.
        let left_out = usize::from(model == "cohere2moe-rms");
        let (width, block) = (number("embedding_length"), number("block_count") - 1 - left_out);
        let tensors = file.tensors.iter().map(|t| {
            assert_eq!(t.format, Format::F32, "{}", t.name);
            let data = &bytes[t.offset as usize..][..t.bytes as usize];
            let values = data.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
            (t.name.clone(), t.shape().to_vec(), values)
        });
        let beyond = format!("blk.{}.", block + 1);
        let tensors = tensors.filter(|(name, ..)| !name.contains("nextn") && !name.starts_with(&beyond)).collect();
        let entries = file.metadata.entries.iter().filter(|(key, _)| key != "general.alignment").cloned().collect();
        let mut tiny = Tiny { architecture, entries, tensors, width, block };
        tiny.set("block_count", block as u32 + 1);
        tiny.set("nextn_predict_layers", 1u32);
        let near_one = |seed| noise(seed, width).iter().map(|x| 1.0 + 0.2 * x).collect();
        let scale = 1.0 / (width as f32).sqrt();
        let projection = noise(1, 2 * width * width).iter().map(|x| scale * x).collect();
        tiny.put_own("nextn.eh_proj", &[2 * width, width], projection);
        tiny.put_own("nextn.enorm", &[width], near_one(2));
        tiny.put_own("nextn.hnorm", &[width], near_one(3));
        tiny.put_own("nextn.shared_head_norm", &[width], near_one(4));
        tiny
    }

    pub fn set(&mut self, key: &str, value: impl Into<Value>) {
        let key = format!("{}.{key}", self.architecture);
        self.entries.retain(|(name, _)| *name != key);
        self.entries.push((key, value.into()));
    }

    pub fn take(&mut self, name: &str) -> Option<Vec<f32>> {
        let at = self.tensors.iter().position(|(n, ..)| n == name)?;
        Some(self.tensors.remove(at).2)
    }

    fn get(&self, name: &str) -> &[f32] {
        &self.tensors.iter().find(|(n, ..)| n == name).unwrap_or_else(|| panic!("no {name}")).2
    }

    pub fn put(&mut self, name: &str, dims: &[usize], values: Vec<f32>) {
        self.take(name);
        self.tensors.push((name.into(), dims.iter().map(|&d| d as u64).collect(), values));
    }

    /// Name of a tensor of the block that predicts.
    pub fn own(&self, part: &str) -> String {
        format!("blk.{}.{part}.weight", self.block)
    }

    pub fn put_own(&mut self, part: &str, dims: &[usize], values: Vec<f32>) {
        self.put(&self.own(part), dims, values);
    }

    pub fn vocab(&self) -> usize {
        self.get("token_embd.weight").len() / self.width
    }

    /// Gives the block an embedding and a head of its own.
    fn with_own_tables(mut self) -> Tiny {
        let (width, vocab) = (self.width, self.vocab());
        self.put_own("nextn.embed_tokens", &[width, vocab], noise(5, width * vocab));
        self.put_own("nextn.shared_head_head", &[width, vocab], noise(6, width * vocab));
        self
    }

    /// What blocks add to the residual stream, times `scale`; and the one that predicts begins with the embedding, beside a
    /// little of the hidden state.
    pub fn nearly_still(mut self, scale: f32, of_hidden: f32) -> Tiny {
        const LAST: [&str; 6] = ["attn_output", "ssm_out", "ffn_down.", "ffn_down_exps", "ffn_down_shexp", "shortconv"];
        for (name, _, values) in &mut self.tensors {
            if LAST.iter().any(|part| name.contains(part)) {
                values.iter_mut().for_each(|x| *x *= scale);
            }
        }
        let width = self.width;
        let mut projection: Vec<f32> = noise(1, 2 * width * width).iter().map(|x| of_hidden * x).collect();
        for (i, row) in projection.chunks_exact_mut(2 * width).enumerate() {
            row[..width].fill(0.0);
            row[i] = 1.0;
        }
        let norm = self.get("output_norm.weight").to_vec();
        self.put_own("nextn.eh_proj", &[2 * width, width], projection);
        self.put_own("nextn.enorm", &[width], vec![1.0; width]);
        self.put_own("nextn.shared_head_norm", &[width], norm);
        self
    }

    pub fn write(&self, name: &str) -> Written {
        let path = std::env::temp_dir().join(format!("layerline-{}-predictor-{name}.gguf", std::process::id()));
        let mut writer = Writer::new();
        for (key, value) in &self.entries {
            writer.set(key.clone(), value.clone());
        }
        for (name, dims, _) in &self.tensors {
            writer.tensor(name.clone(), dims, Format::F32).unwrap();
        }
        let mut out = std::io::BufWriter::new(std::fs::File::create(&path).unwrap());
        let fill = |declared: &gguf::write::Declared, out: &mut dyn Write| {
            self.get(&declared.name).iter().try_for_each(|x| out.write_all(&x.to_le_bytes()))
        };
        writer.write(&mut out, fill).unwrap();
        out.flush().unwrap();
        Written(path)
    }
}

pub struct Written(pub PathBuf);

impl Drop for Written {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

pub fn predicting(options: Options) -> Options {
    Options { predictor: true, ..options }
}

/// Logits of the layer for all `tokens` and their hidden states, taken in by passes of `per_pass`.
fn predicted(predictor: &Arc<Model>, tokens: &[i32], hidden: &[f32], per_pass: usize) -> Vec<f32> {
    let mut session = Session::new(predictor, 0).unwrap();
    let width = hidden.len() / tokens.len();
    let mut all = vec![];
    for (tokens, hidden) in tokens.chunks(per_pass).zip(hidden.chunks(per_pass * width)) {
        session.hidden_inputs()[..hidden.len()].copy_from_slice(hidden);
        session.predict(tokens, Logits::All).unwrap();
        (0..tokens.len()).for_each(|row| all.extend_from_slice(session.logits(row).unwrap()));
    }
    all
}

/// norm(x) in float64.
fn rms_norm(x: &[f64], weight: &[f32], eps: f64) -> Vec<f64> {
    let mean = x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64;
    x.iter().zip(weight).map(|(x, &w)| x / (mean + eps).sqrt() * f64::from(w)).collect()
}

/// W·x in float64.
fn product(weights: &[f32], x: &[f64]) -> Vec<f64> {
    weights.chunks_exact(x.len()).map(|row| row.iter().zip(x).map(|(&w, x)| f64::from(w) * x).sum()).collect()
}

fn wide(x: &[f32]) -> Vec<f64> {
    x.iter().map(|&x| f64::from(x)).collect()
}

fn key(tiny: &Tiny, name: &str) -> f64 {
    let name = format!("{}.{name}", tiny.architecture);
    match tiny.entries.iter().find(|(key, _)| *key == name).map(|(_, value)| value) {
        Some(Value::F32(x)) => f64::from(*x),
        Some(Value::U32(x)) => f64::from(*x),
        other => panic!("{name}: {other:?}"),
    }
}

/// What the layer begins with, in float64.
fn joined(tiny: &Tiny, embeddings: &[f32], token: i32, hidden: &[f32]) -> Vec<f64> {
    let eps = key(tiny, "attention.layer_norm_rms_epsilon");
    let embedding = wide(&embeddings[token as usize * tiny.width..][..tiny.width]);
    let mut both = rms_norm(&embedding, tiny.get(&tiny.own("nextn.enorm")), eps);
    both.extend(rms_norm(&wide(hidden), tiny.get(&tiny.own("nextn.hnorm")), eps));
    product(tiny.get(&tiny.own("nextn.eh_proj")), &both)
}

/// Some tokens and hidden states.
fn inputs(tiny: &Tiny) -> (Vec<i32>, Vec<f32>) {
    let tokens: Vec<i32> = (0..21).map(|i| (i * 37 + 11) % tiny.vocab() as i32).collect();
    let hidden = noise(8, tokens.len() * tiny.width).iter().map(|x| 3.0 * x).collect();
    (tokens, hidden)
}

#[test]
fn its_logits_are_those_of_a_plain_model_of_its_block_over_the_joined_rows() {
    for model in MODELS {
        for own_tables in [false, true] {
            let tiny = if own_tables { Tiny::of(model).with_own_tables() } else { Tiny::of(model) };
            let (tokens, hidden) = inputs(&tiny);
            let written = tiny.write("whole");
            let predictor = open(&written.0, &predicting(options()));
            let got = predicted(&predictor, &tokens, &hidden, tokens.len());
            assert_same_bits(&predicted(&predictor, &tokens, &hidden, 4), &got, model);

            // Token i of the plain model has the i-th of these rows as its embedding.
            let (width, vocab) = (tiny.width, tiny.vocab());
            let table = tiny.own("nextn.embed_tokens");
            let table = if own_tables { table } else { "token_embd.weight".into() };
            let rows = tokens.iter().zip(hidden.chunks_exact(width));
            let rows = rows.flat_map(|(&token, hidden)| joined(&tiny, tiny.get(&table), token, hidden));
            let mut embeddings: Vec<f32> = rows.map(|x| x as f32).collect();
            embeddings.resize(width * vocab, 0.0);
            let own_head = tiny.own("nextn.shared_head_head");
            let heads = [own_head.as_str(), "output.weight", "token_embd.weight"];
            let has = |name: &&&str| tiny.tensors.iter().any(|(n, ..)| n == **name);
            let head = tiny.get(heads.iter().find(has).unwrap()).to_vec();
            let norm = tiny.get(&tiny.own("nextn.shared_head_norm")).to_vec();
            let (from, mut plain) = (format!("blk.{}.", tiny.block), Tiny::of(model));
            plain.tensors.retain(|(name, ..)| name.starts_with(&from) && !name.contains("nextn"));
            plain.tensors.iter_mut().for_each(|(name, ..)| *name = name.replacen(&from, "blk.0.", 1));
            plain.put("token_embd.weight", &[width, vocab], embeddings);
            plain.put("output.weight", &[width, vocab], head);
            plain.put("output_norm.weight", &[width], norm);
            plain.set("block_count", 1u32);
            plain.set("nextn_predict_layers", 0u32);
            plain.set("leading_dense_block_count", 0u32);
            if model.starts_with("qwen3") {
                plain.set("attention.recurrent_layers", Array::U32(vec![0]));
            } else if model.starts_with("cohere") {
                plain.set("attention.sliding_window_pattern", Array::U32(vec![1]));
            }
            let numbers: Vec<i32> = (0..tokens.len() as i32).collect();
            let plain = plain.write("plain");
            let want = logits_of(&open(&plain.0, &options()), &numbers, numbers.len());
            let error = relative_error(&got, &want);
            assert!(error < 2e-4, "{model}, its own tables {own_tables}: {error:.1e}");
        }
    }
}

/// The logits of the block of a dense model with gated attention, in float64.
fn gated_attention_block(tiny: &Tiny, tokens: &[i32], hidden: &[f32]) -> Vec<f32> {
    let eps = key(tiny, "attention.layer_norm_rms_epsilon");
    let count = |name: &str| key(tiny, name) as usize;
    let (heads, kv_heads) = (count("attention.head_count"), count("attention.head_count_kv"));
    let (dim, turned) = (count("attention.key_length"), count("rope.dimension_count"));
    let base = key(tiny, "rope.freq_base");
    let own = |part: &str| tiny.get(&tiny.own(part));
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    let prepared = |x: &[f64], norm: &str, position: usize| {
        let mut x = rms_norm(x, own(norm), eps);
        for pair in 0..turned / 2 {
            let angle = position as f64 * base.powf(-2.0 * pair as f64 / turned as f64);
            let (a, b) = (x[pair], x[pair + turned / 2]);
            x[pair] = a * angle.cos() - b * angle.sin();
            x[pair + turned / 2] = a * angle.sin() + b * angle.cos();
        }
        x
    };
    let (mut keys, mut values, mut logits) = (vec![], vec![], vec![]);
    for (position, (&token, hidden)) in tokens.iter().zip(hidden.chunks_exact(tiny.width)).enumerate() {
        let mut x = joined(tiny, tiny.get("token_embd.weight"), token, hidden);
        let h = rms_norm(&x, own("attn_norm"), eps);
        let k = product(own("attn_k"), &h);
        keys.push(k.chunks(dim).map(|k| prepared(k, "attn_k_norm", position)).collect::<Vec<_>>());
        values.push(product(own("attn_v"), &h));
        let mut seen = vec![];
        for (head, both) in product(own("attn_q"), &h).chunks(2 * dim).enumerate() {
            let (q, gate) = (prepared(&both[..dim], "attn_q_norm", position), &both[dim..]);
            let kv = head / (heads / kv_heads);
            let score = |k: &Vec<Vec<f64>>| q.iter().zip(&k[kv]).map(|(q, k)| q * k).sum::<f64>() / (dim as f64).sqrt();
            let shares: Vec<f64> = keys.iter().map(|k| score(k).exp()).collect();
            let sum: f64 = shares.iter().sum();
            for i in 0..dim {
                let value: f64 = shares.iter().zip(&values).map(|(share, v)| share / sum * v[kv * dim + i]).sum();
                seen.push(value * sigmoid(gate[i]));
            }
        }
        x.iter_mut().zip(product(own("attn_output"), &seen)).for_each(|(x, y)| *x += y);
        let h = rms_norm(&x, own("post_attention_norm"), eps);
        let gates = product(own("ffn_gate"), &h);
        let ups = product(own("ffn_up"), &h);
        let inner: Vec<f64> = gates.iter().zip(&ups).map(|(g, u)| g * sigmoid(*g) * u).collect();
        x.iter_mut().zip(product(own("ffn_down"), &inner)).for_each(|(x, y)| *x += y);
        let h = rms_norm(&x, own("nextn.shared_head_norm"), eps);
        logits.extend(product(tiny.get("token_embd.weight"), &h).into_iter().map(|x| x as f32));
    }
    logits
}

#[test]
fn its_logits_are_those_that_float64_gives() {
    let tiny = Tiny::of("qwen35-mtp");
    let (tokens, hidden) = inputs(&tiny);
    let written = tiny.write("exact");
    let got = predicted(&open(&written.0, &predicting(options())), &tokens, &hidden, tokens.len());
    let error = relative_error(&got, &gated_attention_block(&tiny, &tokens, &hidden));
    // Keys and values have 11 bits.
    assert!(error < 1e-3, "{error:.1e}");
}

/// What `scripts/predictor_cases.py` has computed by llama.cpp, of models whose files have such a layer.
#[test]
fn its_logits_and_hidden_states_are_those_that_another_program_computed() {
    for name in ["qwen35-mtp", "glm4moe", "hy_v3"] {
        let path = golden(&format!("arch2/{name}.gguf"));
        let mut arrays = Arrays::open(&golden(&format!("predictor/{name}.npz")));
        let (tokens, states) = (arrays.get::<i32>("tokens"), arrays.get::<f32>("hidden"));
        let mut session = Session::new(&open(&path, &options()), 0).unwrap();
        session.forward(&tokens, Embeddings::All).unwrap();
        let rows = |session: &Session| -> Vec<f32> {
            (0..tokens.len()).flat_map(|row| session.embeddings(row).unwrap().to_vec()).collect()
        };
        let own = rows(&session);
        assert!(relative_error(&own, &states) < 1e-3, "{name}: {:.1e}", relative_error(&own, &states));

        let width = states.len() / tokens.len();
        let before = [&vec![0.0; width], &states[..states.len() - width]].concat();
        let predictor = open(&path, &predicting(options()));
        let logits = predicted(&predictor, &tokens, &before, tokens.len());
        let error = relative_error(&logits, &arrays.get::<f32>("logits"));
        assert!(error < 1e-3, "{name}: {error:.1e}");

        let mut session = Session::new(&predictor, 0).unwrap();
        session.hidden_inputs()[..before.len()].copy_from_slice(&before);
        session.predict(&tokens, Embeddings::All).unwrap();
        let error = relative_error(&rows(&session), &arrays.get::<f32>("chained"));
        assert!(error < 1e-3, "{name}: {error:.1e}");
    }
}
