//! Files as converters write them: keys that change the arithmetic, arrays with a value for each layer, parts that a pass
//! over text does not run. Each is made of one of the tiny models.

use std::io::{Seek, SeekFrom, Write};
use std::path::PathBuf;

use layerline::gguf::{self, Array, Value, write::Writer};
use layerline::model::{Logits, Model, Options};
use layerline::session::Session;
use layerline::weights::Io;
use layerline::{Error, Status};

use crate::support::*;

/// A model taken apart, to be written with changes.
pub struct Parts {
    pub file: gguf::File,
    bytes: Vec<u8>,
    pub from: PathBuf,
}

impl Parts {
    pub fn of(model: &str) -> Parts {
        let from = golden(model);
        let bytes = std::fs::read(&from).unwrap();
        Parts { file: gguf::read_file(&bytes, model).unwrap(), bytes, from }
    }

    pub fn set(mut self, key: &str, value: impl Into<Value>) -> Parts {
        self.file.metadata.take(key);
        self.file.metadata.entries.push((key.into(), value.into()));
        self
    }

    pub fn without(mut self, key: &str) -> Parts {
        self.file.metadata.take(key);
        self
    }

    /// Bytes of a tensor; of one that was given more rows than it has, those that follow it too, or fewer.
    fn data(&self, tensor: &gguf::Tensor) -> &[u8] {
        let from = &self.bytes[tensor.offset as usize..];
        &from[..from.len().min(tensor.bytes as usize)]
    }

    /// Writes the model, with the rows of some tensors in another order, and further tensors of 32 zeroes each.
    fn write(&self, name: &str, order: impl Fn(&str, usize) -> usize, further: &[&str]) -> Written {
        let path = std::env::temp_dir().join(format!("layerline-{}-{name}.gguf", std::process::id()));
        let mut writer = Writer::new();
        for (key, value) in &self.file.metadata.entries {
            if key != "general.alignment" {
                writer.set(key.clone(), value.clone());
            }
        }
        for tensor in &self.file.tensors {
            writer.tensor(tensor.name.clone(), tensor.shape(), tensor.format).unwrap();
        }
        for name in further {
            writer.tensor(*name, &[32], layerline::quant::Format::F32).unwrap();
        }
        let mut out = std::io::BufWriter::new(std::fs::File::create(&path).unwrap());
        let fill = |declared: &gguf::write::Declared, out: &mut dyn Write| {
            let Some(tensor) = self.file.tensors.iter().find(|t| t.name == declared.name) else {
                return out.write_all(&[0; 128]);
            };
            // Of a vector the elements are put in order.
            let row = if tensor.dim_count == 1 { 4 } else { tensor.row_bytes() as usize };
            let rows: Vec<&[u8]> = self.data(tensor).chunks(row).collect();
            (0..tensor.bytes as usize / row).try_for_each(|i| out.write_all(rows[order(&tensor.name, i)]))
        };
        writer.write(&mut out, fill).unwrap();
        out.flush().unwrap();
        Written(path)
    }

    pub fn plain(&self, name: &str) -> Written {
        self.write(name, |_, row| row, &[])
    }

    /// Logits of the tokens that the model's own expected logits are for, and these.
    pub fn logits(&self, written: &Written) -> (Vec<f32>, Vec<f32>) {
        let mut arrays = Arrays::of(&self.from);
        let tokens = arrays.get::<i32>("tokens");
        let model = open(&written.0, &options());
        (logits_of(&model, &tokens, tokens.len()), arrays.get::<f32>("logits"))
    }
}

pub struct Written(pub PathBuf);

impl Written {
    fn refusal(&self) -> Error {
        Model::open(&self.0, &options()).err().expect("the file is opened")
    }
}

impl Drop for Written {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn a_key_that_nobody_reads_is_refused_by_name_unless_it_is_known_to_change_nothing() {
    let cases: [(&str, &str, Value); 6] = [
        ("arch/llama.gguf", "llama.attention.clamp_kqv", 8f32.into()),
        ("arch/llama.gguf", "llama.attention.sliding_window", 16u32.into()),
        ("arch/qwen3.gguf", "qwen3.attention.temperature_scale", 0.1f32.into()),
        ("arch/qwen3.gguf", "qwen3.rope.freq_base_swa", 100f32.into()),
        ("arch/llama.gguf", "llama.a_key_of_tomorrow", "yes".into()),
        ("peer/phi2.gguf", "phi2.rope.scaling.yarn_log_multiplier", 0.1f32.into()),
    ];
    for (model, key, value) in cases {
        let error = Parts::of(model).set(key, value).plain("unread").refusal();
        assert_eq!(error.status(), Status::Unsupported, "{key}");
        assert!(error.message().contains(key), "{}", error.message());
    }
    let harmless: [(&str, Value); 6] = [
        ("llama.vocab_size", 320u32.into()),
        ("llama.attention.clamp_kqv", 0f32.into()),
        ("llama.expert_used_count", 2u32.into()),
        ("llama.vision.block_count", 27u32.into()),
        ("another.attention.clamp_kqv", 8f32.into()),
        ("llama.pooling_type", 1u32.into()),
    ];
    for (key, value) in harmless {
        let parts = Parts::of("arch/llama.gguf").set(key, value);
        let (got, want) = parts.logits(&parts.plain("harmless"));
        assert!(relative_error(&got, &want) < 1e-3, "{key}");
    }
}

#[test]
fn arrays_too_short_or_against_the_tensors_are_refused_with_both_figures() {
    let heads = "llama.attention.head_count_kv";
    let short = Parts::of("arch/llama.gguf").set("llama.feed_forward_length", Array::U32(vec![128])).plain("short");
    assert!(short.refusal().message().contains("layer 1"), "{}", short.refusal().message());
    let differ = Parts::of("arch/llama.gguf").set(heads, Array::U32(vec![2, 4])).plain("differ").refusal();
    // Layers may differ, but layer 1 has keys of two heads.
    let both = ["blk.1.attn_k.weight", "[64, 64]", "[64, 32]"];
    assert!(both.iter().all(|part| differ.message().contains(part)), "{}", differ.message());
}

/// A name for the message, the model, keys without the architecture's name, and their values; without one they go.
type Rewritten = (&'static str, Vec<(&'static str, Option<Value>)>);

#[test]
fn keys_of_recurrent_models_may_be_absent_or_written_otherwise() {
    let numbers = |numbers: &[u32]| Some(Value::from(Array::U32(numbers.to_vec())));
    let kinds = |flags: &[bool]| Some(Value::from(Array::Bool(flags.to_vec())));
    let cases: [Rewritten; 9] = [
        ("qwen35", vec![("full_attention_interval", Some(4u32.into()))]),
        ("qwen35", vec![("attention.recurrent_layers", kinds(&[true, true, true, false]))]),
        ("qwen35", vec![("attention.head_count_kv", numbers(&[0, 0, 0, 2])), ("rope.dimension_sections", None)]),
        (
            "qwen35moe",
            vec![("attention.recurrent_layers", numbers(&[1, 0, 1, 0])), ("expert_weights_norm", Some(true.into()))],
        ),
        ("granitehybrid", vec![("attention.head_count", numbers(&[0, 0, 4, 0]))]),
        ("mamba2", vec![("attention.head_count", Some(0u32.into())), ("feed_forward_length", None)]),
        ("nemotron_h", vec![("attention.layer_norm_rms_epsilon", None)]),
        (
            "nemotron_h_moe",
            vec![
                ("expert_used_count", numbers(&[0, 2, 0, 0, 2])),
                ("expert_feed_forward_length", numbers(&[0, 24, 0, 0, 24])),
            ],
        ),
        ("kimi-linear", vec![("attention.head_count_kv", numbers(&[0, 0, 4, 0]))]),
    ];
    for (model, changes) in cases {
        let mut parts = Parts::of(&format!("arch2/{model}.gguf"));
        let (want, _) = parts.logits(&parts.plain("as-it-is"));
        let what = format!("{model}: {changes:?}");
        for (key, value) in changes {
            let key = format!("{model}.{key}");
            parts = match value {
                Some(value) => parts.set(&key, value),
                None => parts.without(&key),
            };
        }
        assert_same_bits(&parts.logits(&parts.plain("otherwise")).0, &want, &what);
    }
    let parts = Parts::of("arch2/qwen35.gguf").set("qwen35.full_attention_interval", 2u32);
    let missing = parts.plain("interval").refusal();
    assert!(missing.message().contains("blk.1.attn_qkv.weight"), "{missing}");
    let differ = Parts::of("arch2/lfm2.gguf").set("lfm2.attention.head_count_kv", Array::U32(vec![0, 0, 2, 0, 4]));
    let differ = differ.plain("hybrid-differ").refusal();
    assert!(differ.message().contains("lfm2.attention.head_count_kv"), "{differ}");
}

/// Sections of a rotation mean that halves are pairs. The same results come of neighbours as pairs where the rows that
/// make queries and keys stand in the order of pairs.
#[test]
fn glm4_with_sections_pairs_halves() {
    let parts = Parts::of("peer/glm4.gguf");
    let key = |part: &str| parts.file.metadata.require_u32(&format!("glm4.{part}")).unwrap() as usize;
    let heads = key("attention.head_count");
    let head = parts.file.metadata.get_u32("glm4.attention.key_length").unwrap();
    let head = head.map_or(key("embedding_length") / heads, |n| n as usize);
    let rotated = parts.file.metadata.get_u32("glm4.rope.dimension_count").unwrap().map_or(head, |n| n as usize);
    let order = move |name: &str, row: usize| {
        if !(name.contains("attn_q.") || name.contains("attn_k.")) || row % head >= rotated {
            return row;
        }
        let (start, at) = (row - row % head, row % head);
        start + if at < rotated / 2 { 2 * at } else { 2 * (at - rotated / 2) + 1 }
    };
    let (neighbours, want) = parts.logits(&parts.plain("neighbours"));
    let parts = parts.set("glm4.rope.dimension_sections", Array::I32(vec![2, 3, 3, 0]));
    let (halves, _) = parts.logits(&parts.write("halves", order, &[]));
    assert!(relative_error(&halves, &want) < 1e-3 && relative_error(&halves, &neighbours) < 1e-3);
    let (unordered, _) = parts.logits(&parts.plain("unordered"));
    assert!(relative_error(&unordered, &want) > 0.1, "the sections are not read");
}

#[test]
fn a_base_of_its_own_turns_the_windows_of_gemma2_and_gpt_oss_otherwise() {
    for (model, family) in [("arch/gemma2.gguf", "gemma2"), ("arch/gpt-oss.gguf", "gpt-oss")] {
        let parts = Parts::of(model);
        let base = parts.file.metadata.get_f32(&format!("{family}.rope.freq_base")).unwrap().unwrap_or(10_000.0);
        let (got, _) = parts.logits(&parts.plain("base"));
        let key = format!("{family}.rope.freq_base_swa");
        let parts = parts.set(&key, base);
        assert_same_bits(&parts.logits(&parts.plain("same-base")).0, &got, model);
        let parts = parts.set(&key, base / 50.0);
        assert!(
            relative_error(&parts.logits(&parts.plain("own-base")).0, &got) > 0.01,
            "{model}: the base is not read"
        );
    }
}

/// Its files from before the key `expert_gating_func` are told by 47 blocks and 154,880 tokens: here a small model's first
/// block 46 times, its last one, and its rows of tokens again and again.
#[test]
fn glm_4_7_flash_without_a_gating_function_has_sigmoids() {
    const BLOCKS: u32 = 47;
    let logits = |blocks: u32, vocab: u64, gating: Option<u32>| {
        let mut parts = Parts::of("arch2/deepseek2-v3.gguf")
            .without("deepseek2.expert_gating_func")
            .set("deepseek2.block_count", blocks)
            .set("deepseek2.leading_dense_block_count", blocks - 1);
        if let Some(gating) = gating {
            parts = parts.set("deepseek2.expert_gating_func", gating);
        }
        let tensors = std::mem::take(&mut parts.file.tensors);
        let mut rows = 0;
        for tensor in tensors {
            let of_block = |from: &str, to: u32| {
                let part = tensor.name.strip_prefix(&format!("blk.{from}."))?;
                Some(gguf::Tensor { name: format!("blk.{to}.{part}"), ..tensor.clone() })
            };
            parts.file.tensors.extend((0..blocks - 1).filter_map(|block| of_block("0", block)));
            parts.file.tensors.extend(of_block("2", blocks - 1));
            if matches!(&*tensor.name, "token_embd.weight" | "output.weight") {
                rows = tensor.dims[1] as usize;
                let bytes = vocab * tensor.row_bytes();
                let dims = [tensor.dims[0], vocab, 1, 1];
                parts.file.tensors.push(gguf::Tensor { dims, bytes, ..tensor });
            } else if !tensor.name.starts_with("blk.") {
                parts.file.tensors.push(tensor);
            }
        }
        let again =
            |name: &str, row| if matches!(name, "token_embd.weight" | "output.weight") { row % rows } else { row };
        let written = parts.write("glm-lite", again, &[]);
        let model = open(&written.0, &options());
        logits_of(&model, &[1, 2, 3, 4], 4)
    };
    let lite = logits(BLOCKS, 154_880, None);
    assert_same_bits(&lite, &logits(BLOCKS, 154_880, Some(2)), "sigmoids");
    assert!(relative_error(&logits(BLOCKS, 154_880, Some(1)), &lite) > 1e-3, "the gating makes no difference here");
    // Another model that lacks the key keeps the family's softmax.
    for (blocks, vocab) in [(BLOCKS, 154_879), (BLOCKS - 1, 154_880)] {
        let other = logits(blocks, vocab, None);
        assert_same_bits(&other, &logits(blocks, vocab, Some(1)), "softmax");
    }
}

#[test]
fn granite_that_was_not_tuned_with_rotation_is_not_rotated() {
    // Larger scores than the model's own, in which a rotation would hardly show.
    let parts = Parts::of("arch/granite.gguf").set("granite.attention.scale", 2f32);
    let (got, _) = parts.logits(&parts.plain("rotated"));
    let parts = parts.set("granite.rope.scaling.finetuned", Value::Bool(true));
    assert_same_bits(&parts.logits(&parts.plain("tuned")).0, &got, "granite");
    let parts = parts.set("granite.rope.scaling.finetuned", Value::Bool(false));
    let error = relative_error(&parts.logits(&parts.plain("unrotated")).0, &got);
    assert!(error > 1e-2, "the flag is not read: {error:.1e}");
}

#[test]
fn parts_that_a_text_does_not_need_are_left_unread_and_told_by_the_plan() {
    let parts = Parts::of("arch/qwen3.gguf");
    let (got, _) = parts.logits(&parts.plain("alone"));
    let written = parts.write("towers", |_, row| row, &["v.blk.0.attn_q.weight", "mm.0.weight", "a.conv.weight"]);
    assert_same_bits(&parts.logits(&written).0, &got, "with towers");
    let plan = plan(&written.0, &options());
    assert_eq!((plan.unread_tensors, plan.unread_bytes), (3, 3 * 128));

    let stray = parts.write("stray", |_, row| row, &["blk.0.attn_extra.weight"]).refusal();
    assert!(stray.message().contains("blk.0.attn_extra.weight"), "{}", stray.message());
    let blocks = parts.file.metadata.require_u32("qwen3.block_count").unwrap();
    let (attention, predicting) = (format!("blk.{blocks}.attn_q.weight"), format!("blk.{blocks}.nextn.eh_proj.weight"));
    let parts = parts.set("qwen3.block_count", blocks + 1).set("qwen3.nextn_predict_layers", 1u32);
    let written = parts.write("nextn", |_, row| row, &[&attention, &predicting]);
    assert_same_bits(&parts.logits(&written).0, &got, "with a block that predicts further tokens");

    let adapter = parts.set("general.type", "adapter").plain("adapter").refusal();
    assert!(adapter.message().contains("LoRA"), "{}", adapter.message());
}

#[test]
fn rows_beyond_the_vocabulary_are_no_tokens_and_missing_ones_are_refused() {
    use layerline::generate::Sequence;
    const TOKENS: &str = "tokenizer.ggml.tokens";
    let parts = Parts::of("arch/llama.gguf");
    let array = |key: &str| parts.file.metadata.require_array(key).unwrap().clone();
    let Array::String(texts) = array(TOKENS) else { panic!("no texts") };
    let (scores, kinds) = ("tokenizer.ggml.scores", "tokenizer.ggml.token_type");
    let (Array::F32(all_scores), Array::I32(all_kinds)) = (array(scores), array(kinds)) else { panic!("no scores") };
    // A vocabulary of other length, that of the file or longer.
    let with = |count: usize| {
        let further = (texts.len()..count).map(|i| format!("<{i}>").into_bytes());
        let tokens: gguf::Strings = texts.iter().map(<[u8]>::to_vec).chain(further).take(count).collect();
        let (mut s, mut k) = (all_scores.clone(), all_kinds.clone());
        s.resize(count, 0.0);
        k.resize(count, 1);
        let parts = Parts::of("arch/llama.gguf").set(TOKENS, Array::String(tokens));
        parts.set(scores, Array::F32(s)).set(kinds, Array::I32(k))
    };
    let parts = with(texts.len() - 3);
    let written = parts.plain("more-rows");
    let model = open(&written.0, &options());
    let mut session = layerline::Session::new(&model, 0).unwrap();
    session.forward(&[1, 2, 3], layerline::Logits::Last).unwrap();
    assert_eq!(session.logits(0).unwrap().len(), texts.len());
    assert_eq!(session.last_logits().unwrap().len(), texts.len() - 3);

    let fewer = with(texts.len() + 1).plain("fewer-rows").refusal();
    let figures = [texts.len(), texts.len() + 1].map(|n| n.to_string());
    assert!(figures.iter().all(|n| fewer.message().contains(n)), "{}", fewer.message());
}

#[test]
fn a_name_may_be_a_number_or_no_text_at_all() {
    let names: [Value; 2] = [7u32.into(), Value::String(vec![0xff, 0xfe].into())];
    for name in names {
        let written = Parts::of("arch/llama.gguf").set("general.name", name).plain("name");
        assert!(open(&written.0, &options()).tokenizer().is_ok());
    }
}

/// Systems of 32 bits read such files too, but cannot map them.
#[test]
fn a_model_beyond_4_gib_of_a_file_has_the_same_bits() {
    const OFFSET: u64 = 5 << 30;
    let model = golden("arch/llama.gguf");
    let logits = |model: std::sync::Arc<Model>| {
        let mut session = Session::new(&model, 0).unwrap();
        session.forward(&[1, 40, 50], Logits::Last).unwrap();
        session.logits(0).unwrap().to_vec()
    };
    let alone = logits(Model::open(&model, &options()).unwrap());
    let mut file = tempfile::tempfile().unwrap();
    file.seek(SeekFrom::Start(OFFSET)).unwrap();
    file.write_all(&std::fs::read(&model).unwrap()).unwrap();
    for io in [Io::Buffered, Io::Auto, Io::Mmap] {
        match Model::open_file(file.try_clone().unwrap(), OFFSET, 0, &Options { io, ..options() }) {
            Ok(model) => assert!(logits(model) == alone, "{io:?}"),
            Err(e) => assert!(io == Io::Mmap && cfg!(target_pointer_width = "32"), "{io:?}: {e}"),
        }
    }
}
