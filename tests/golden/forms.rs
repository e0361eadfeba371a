//! The forms in which files say the same: numbers for all layers or for each, windows by period or by layer, keys that are
//! absent where a converter leaves its default away. Of every tiny model, so that the whole table of architectures is tried.

use std::collections::BTreeMap;

use layerline::gguf::{Array, Value};
use layerline::model::{Embeddings, Logits, Outputs};
use layerline::session::Session;

use crate::files::{Parts, Written};
use crate::support::*;

fn models() -> Vec<String> {
    let folders = ["arch", "arch2", "peer", "family", "encoder"];
    let name = |folder: &str, path: &std::path::Path| format!("{folder}/{}.gguf", stem(path));
    folders
        .iter()
        .flat_map(|folder| models_in(folder).iter().map(|path| name(folder, path)).collect::<Vec<_>>())
        .collect()
}

/// The architecture of a model, and its layers, those that no pass runs included.
fn family(parts: &Parts) -> (String, usize) {
    let family = parts.file.metadata.require_str("general.architecture").unwrap().to_owned();
    let layers = parts.file.metadata.require_u32(&format!("{family}.block_count")).unwrap();
    (family, layers as usize)
}

/// Logits of all positions, or the hidden states of an encoder.
fn results(parts: &Parts, written: &Written) -> Vec<f32> {
    let tokens = Arrays::of(&parts.from).get::<i32>("tokens");
    let model = open(&written.0, &options());
    let mut session = Session::new(&model, 0).unwrap_or_else(|e| panic!("{e}"));
    let encodes = parts.from.parent().unwrap().ends_with("encoder");
    let embeddings = if encodes { Embeddings::All } else { Embeddings::None };
    let logits = if encodes { Logits::None } else { Logits::All };
    session.forward(&tokens, Outputs { logits, embeddings }).unwrap_or_else(|e| panic!("{e}"));
    let rows = |row| if encodes { session.embeddings(row) } else { session.logits(row) };
    (0..tokens.len()).flat_map(|row| rows(row).unwrap().to_vec()).collect()
}

#[test]
fn numbers_may_be_arrays_with_one_for_each_layer() {
    const KEYS: [&str; 5] = [
        "attention.head_count",
        "attention.head_count_kv",
        "feed_forward_length",
        "expert_used_count",
        "expert_feed_forward_length",
    ];
    let mut changed: BTreeMap<&str, usize> = BTreeMap::new();
    for model in models() {
        let mut parts = Parts::of(&model);
        let (family, layers) = family(&parts);
        let before = parts.plain("scalar");
        for name in KEYS {
            let key = format!("{family}.{name}");
            let Some(Value::U32(number)) = parts.file.metadata.get(&key).cloned() else { continue };
            // Converters write both kinds of integers.
            let array = match layers % 2 {
                0 => Array::I32(vec![number as i32; layers]),
                _ => Array::U32(vec![number; layers]),
            };
            parts = parts.set(&key, array);
            *changed.entry(name).or_default() += 1;
        }
        let want = results(&parts, &before);
        assert_same_bits(&results(&parts, &parts.plain("arrays")), &want, &model);
    }
    assert!(KEYS.iter().all(|key| changed[key] >= 20), "{changed:?}");
}

#[test]
fn windows_may_be_a_period_or_flags_of_either_kind_by_layer() {
    // Layers of a period, of which the last sees everything, or the first.
    let cases = [
        ("arch/gemma3", 6, false),
        ("arch/gemma2", 2, false),
        ("arch/gpt-oss", 2, false),
        ("arch2/gpt-oss-b", 3, false),
        ("peer/olmo3", 4, false),
        ("peer/cohere2", 4, false),
        ("arch2/exaone4-32b", 4, false),
        ("arch2/cohere2moe", 4, true),
        ("family/cohere2moe", 4, true),
        ("peer/smallthinker", 4, true),
        ("peer/llama4", 4, false),
        ("encoder/modern-bert", 3, true),
        ("encoder/gemma-embedding", 6, false),
    ];
    for (name, period, full_first) in cases {
        let model = format!("{name}.gguf");
        let parts = Parts::of(&model);
        let (family, layers) = family(&parts);
        let want = results(&parts, &parts.plain("as-it-is"));
        let key = format!("{family}.attention.sliding_window_pattern");
        let full = if full_first { 0 } else { period - 1 };
        let windowed = |i: usize| i % period != full;
        let flags = Array::Bool((0..layers).map(windowed).collect());
        let numbers = Array::I32((0..layers).map(|i| i32::from(windowed(i))).collect());
        let forms: [Value; 3] = [(period as u32).into(), flags.into(), numbers.into()];
        for form in forms {
            let what = format!("{model}, {}", form.describe());
            let parts = Parts::of(&model).set(&key, form);
            assert_same_bits(&results(&parts, &parts.plain("form")), &want, &what);
        }
        let inverted = Array::Bool((0..layers).map(|i| !windowed(i)).collect());
        let parts = parts.set(&key, inverted);
        assert_ne!(results(&parts, &parts.plain("inverted")), want, "{model}: the flags are not read");
    }
    // Those that share keys and values by kind of layer have arrays alone: the kinds could not be another's.
    for model in ["peer/gemma4.gguf", "peer/gemma3n.gguf"] {
        let parts = Parts::of(model);
        let (family, layers) = family(&parts);
        let key = format!("{family}.attention.sliding_window_pattern");
        let Some(Value::Array(Array::Bool(flags))) = parts.file.metadata.get(&key).cloned() else { panic!("{model}") };
        let want = results(&parts, &parts.plain("flags"));
        let numbers = Array::U32(flags.iter().map(|&flag| u32::from(flag)).collect());
        assert_eq!(flags.len(), layers);
        let parts = parts.set(&key, numbers);
        assert_same_bits(&results(&parts, &parts.plain("numbers")), &want, model);
    }
}

/// What converters leave away, with what it is then.
fn default(parts: &Parts, family: &str, key: &str) -> Option<f64> {
    let number = |key: &str| match parts.file.metadata.get(&format!("{family}.{key}"))? {
        Value::U32(n) => Some(f64::from(*n)),
        Value::F32(x) => Some(f64::from(*x)),
        Value::Bool(flag) => Some(f64::from(u8::from(*flag))),
        _ => None,
    };
    match key {
        "attention.head_count_kv" => number("attention.head_count"),
        "attention.key_length" | "attention.value_length" => {
            Some(number("embedding_length")? / number("attention.head_count")?)
        }
        "rope.dimension_count" => number("attention.key_length"),
        "rope.freq_base" => Some(10_000.0),
        "expert_weights_scale" | "rope.scaling.factor" => Some(1.0),
        "vocab_size" => number("vocab_size"),
        // It is what scaling begins with, and the rows of a table of positions.
        "context_length" => {
            let named = ["rope.scaling.factor", "rope.scaling.original_context_length"];
            let needed = named.iter().any(|key| number(key).is_some());
            let learned = parts.file.tensors.iter().any(|t| t.name == "position_embd.weight");
            number("context_length").filter(|_| !needed && !learned)
        }
        _ => Some(0.0),
    }
}

#[test]
fn keys_with_the_converters_default_may_be_absent() {
    const KEYS: [(&str, usize); 12] = [
        ("attention.head_count_kv", 5),
        ("attention.key_length", 3),
        ("attention.value_length", 3),
        ("rope.dimension_count", 10),
        ("rope.freq_base", 50),
        ("vocab_size", 100),
        ("context_length", 50),
        ("expert_weights_scale", 0),
        ("leading_dense_block_count", 0),
        ("nextn_predict_layers", 0),
        ("attention.shared_kv_layers", 1),
        ("embedding_length_per_layer_input", 1),
    ];
    let mut removed: BTreeMap<&str, usize> = BTreeMap::new();
    for model in models() {
        let mut parts = Parts::of(&model);
        let family = family(&parts).0;
        let before = parts.plain("whole");
        let mut without = Vec::new();
        for (name, _) in KEYS {
            let key = format!("{family}.{name}");
            let given = match parts.file.metadata.get(&key) {
                Some(Value::U32(n)) => f64::from(*n),
                Some(Value::F32(x)) => f64::from(*x),
                _ => continue,
            };
            if default(&parts, &family, name) == Some(given) {
                without.push((key, name));
            }
        }
        // Latent attention and windows have lengths of their own, which these are not the default of.
        let own = |name: &str| name.contains("_length") && !name.starts_with("context") && model.contains("kimi");
        for (key, name) in without.into_iter().filter(|(_, name)| !own(name)) {
            parts = parts.without(&key);
            *removed.entry(name).or_default() += 1;
        }
        let want = results(&parts, &before);
        assert_same_bits(&results(&parts, &parts.plain("fewer")), &want, &model);
    }
    for (key, least) in KEYS {
        let count = removed.get(key).copied().unwrap_or(0);
        assert!(count >= least, "{key} was absent {count} times");
    }
}
