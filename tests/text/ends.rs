//! Which tokens end a generation.

use layerline::Status;
use layerline::gguf::{Array, Value};

use crate::{bpe, load, refused};

/// The tokens that end a generation, of a vocabulary with these texts and kinds and these further keys.
fn ends<'a>(texts: &[&'a str], kinds: &[i32], keys: Vec<(&'static str, Value)>) -> Vec<&'a str> {
    let bytes: Vec<&[u8]> = texts.iter().map(|text| text.as_bytes()).collect();
    let mut entries = bpe(&bytes, &[], "qwen2");
    entries.push(("token_type", Value::Array(Array::I32(kinds.to_vec()))));
    entries.extend(keys);
    let tokenizer = load(entries).unwrap().unwrap();
    texts.iter().zip(0..).filter(|&(_, id)| tokenizer.is_end(id).unwrap()).map(|(&text, _)| text).collect()
}

/// For each family the special tokens of its models, the one that files name as the end of a text, and those that end
/// a generation by the settings its makers publish with the models.
type Family = (&'static str, &'static [&'static str], &'static str, &'static [&'static str]);
const FAMILIES: &[Family] = &[
    ("Llama 1 and 2, Mistral", &["<unk>", "<s>", "</s>", "[INST]", "[/INST]"], "</s>", &["</s>"]),
    (
        "Llama 3",
        &["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|eom_id|>", "<|eot_id|>", "<|python_tag|>"],
        "<|eot_id|>",
        &["<|end_of_text|>", "<|eom_id|>", "<|eot_id|>"],
    ),
    (
        "Llama 4",
        &["<|begin_of_text|>", "<|end_of_text|>", "<|eom|>", "<|eot|>", "<|header_start|>"],
        "<|eot|>",
        &["<|end_of_text|>", "<|eom|>", "<|eot|>"],
    ),
    (
        "Qwen",
        &["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|image_pad|>"],
        "<|endoftext|>",
        &["<|endoftext|>", "<|im_end|>"],
    ),
    ("Gemma", &["<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>"], "<eos>", &["<eos>", "<end_of_turn>"]),
    ("Phi 2", &["<|endoftext|>"], "<|endoftext|>", &["<|endoftext|>"]),
    (
        "Phi 3",
        &["<unk>", "<s>", "<|endoftext|>", "<|system|>", "<|user|>", "<|end|>"],
        "<|endoftext|>",
        &["<|endoftext|>", "<|end|>"],
    ),
    (
        "Phi 4",
        &["<|endoftext|>", "<|im_start|>", "<|im_sep|>", "<|im_end|>"],
        "<|im_end|>",
        &["<|endoftext|>", "<|im_end|>"],
    ),
    (
        "gpt-oss",
        &["<|startoftext|>", "<|endoftext|>", "<|return|>", "<|channel|>", "<|message|>", "<|end|>", "<|call|>"],
        "<|return|>",
        &["<|endoftext|>", "<|return|>", "<|call|>"],
    ),
    (
        "Granite",
        &["<|end_of_text|>", "<fim_prefix>", "<|start_of_role|>", "<|end_of_role|>", "<|tool_call|>"],
        "<|end_of_text|>",
        &["<|end_of_text|>"],
    ),
    (
        "OLMo",
        &["<|endoftext|>", "<|padding|>", "<|im_start|>", "<|im_end|>"],
        "<|endoftext|>",
        &["<|endoftext|>", "<|im_end|>"],
    ),
    (
        "DeepSeek",
        &["<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>"],
        "<｜end▁of▁sentence｜>",
        &["<｜end▁of▁sentence｜>"],
    ),
    (
        "SmolLM",
        &["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<file_sep>"],
        "<|im_end|>",
        &["<|endoftext|>", "<|im_end|>"],
    ),
    ("EXAONE", &["[BOS]", "[PAD]", "[|endofturn|]", "[|user|]"], "[|endofturn|]", &["[|endofturn|]"]),
    (
        "GLM 4",
        &["<|endoftext|>", "[gMASK]", "<sop>", "<|system|>", "<|user|>", "<|assistant|>", "<|observation|>"],
        "<|endoftext|>",
        &["<|endoftext|>", "<|user|>", "<|observation|>"],
    ),
    (
        "ChatGLM 3",
        &["<unk>", "<s>", "</s>", "[gMASK]", "sop", "<|system|>", "<|user|>", "<|assistant|>", "<|observation|>"],
        "</s>",
        &["</s>", "<|user|>", "<|observation|>"],
    ),
    ("InternLM 2", &["<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|plugin|>"], "</s>", &["</s>", "<|im_end|>"]),
    (
        "Command R",
        &["<BOS_TOKEN>", "<|START_OF_TURN_TOKEN|>", "<|END_OF_TURN_TOKEN|>"],
        "<|END_OF_TURN_TOKEN|>",
        &["<|END_OF_TURN_TOKEN|>"],
    ),
    ("StableLM 2", &["<|endoftext|>", "<|im_start|>", "<|im_end|>"], "<|endoftext|>", &["<|endoftext|>", "<|im_end|>"]),
    ("StarCoder 2, GPT-NeoX, GPT-2", &["<|endoftext|>", "<fim_prefix>"], "<|endoftext|>", &["<|endoftext|>"]),
    ("Falcon", &[">>TITLE<<", "<|endoftext|>"], "<|endoftext|>", &["<|endoftext|>"]),
];

#[test]
fn each_family_ends_where_its_makers_say() {
    for &(family, texts, eos, expected) in FAMILIES {
        let eos = texts.iter().position(|&text| text == eos).unwrap() as u32;
        let keys = vec![("eos_token_id", Value::U32(eos))];
        assert_eq!(ends(texts, &vec![3; texts.len()], keys), expected, "{family}");
    }
}

#[test]
fn ends_are_found_by_their_keys() {
    let key = |name, id| (name, Value::U32(id));
    let keys = vec![
        key("eos_token_id", 1),
        key("eot_token_id", 2),
        key("eom_token_id", 3),
        key("fim_pad_token_id", 4),
        key("fim_rep_token_id", 5),
    ];
    assert_eq!(ends(&["a", "b", "c", "d", "e", "f"], &[1; 6], keys), ["b", "c", "d", "e", "f"]);
}

#[test]
fn ends_are_found_in_the_list_that_some_files_have() {
    let list = |array| vec![("eos_token_id", Value::U32(0)), ("eos_token_ids", Value::Array(array))];
    assert_eq!(ends(&["a", "b", "c"], &[1; 3], list(Array::I32(vec![2, 0]))), ["a", "c"]);
    assert_eq!(ends(&["a", "b", "c"], &[1; 3], list(Array::U32(vec![1, 3, u32::MAX]))), ["a", "b"], "others are none");
    for wrong in [Value::U32(1), Value::Array(Array::F32(vec![1.0]))] {
        let mut entries = bpe(&[b"a"], &[], "qwen2");
        entries.push(("eos_token_ids", wrong));
        refused(entries, Status::Format, "eos_token_ids");
    }
}

#[test]
fn ends_are_found_by_their_texts() {
    let texts = ["<|im_end|>", "<|eot_id|>", "<end_of_turn>", "<turn|>", "[e~[", "x"];
    assert_eq!(ends(&texts, &[3; 6], vec![]), texts[..5]);
    assert_eq!(ends(&texts, &[1, 4, 4, 1, 4, 3], vec![]), texts[..5], "whatever the file says they are");
    assert_eq!(ends(&["</s>", "<eos>"], &[4, 3], vec![]), ["<eos>"], "a tag of HTML is none unless the file says so");
}

#[test]
fn the_end_of_a_message_is_not_the_end_of_a_turn_that_goes_on() {
    assert_eq!(ends(&["<|end|>", "<|user|>"], &[3; 2], vec![]), ["<|end|>"]);
    assert_eq!(ends(&["<|end|>", "<|return|>", "<|call|>"], &[3; 3], vec![]), ["<|return|>", "<|call|>"]);
    assert_eq!(ends(&["<|end|>", "<|calls|>", "<|flush|>"], &[3; 3], vec![]), ["<|calls|>", "<|flush|>"]);
}

#[test]
fn an_end_is_not_written_by_a_user_whatever_the_file_says_it_is() {
    let mut entries = bpe(&[b"<", b"|", b"<|im_end|>", b"end"], &[], "qwen2");
    entries.push(("token_type", Value::Array(Array::I32(vec![1, 1, 4, 4]))));
    entries.push(("eos_token_id", Value::U32(3)));
    let tokenizer = load(entries).unwrap().unwrap();
    assert_eq!(tokenizer.encode("<|im_end|>end", false, false), [0, 1, 1]);
    assert_eq!(tokenizer.encode("<|im_end|>end", true, false), [2, 3]);
    assert_eq!(tokenizer.decode(&[0, 2, 3], false).unwrap(), b"<");
}
