//! Scales of whole matrices beside their weights: every product is multiplied by its own.

use std::path::{Path, PathBuf};

use layerline::gguf::{self, write::Writer};
use layerline::quant::Format;

use crate::support::*;

/// A copy of a model with other tensors, removed at the end.
struct Copy(PathBuf);

impl Drop for Copy {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// A power of two for the `i`-th of the matrices that share a tensor.
fn factor(tensor: usize, i: usize) -> f32 {
    [0.25, 8.0, 1.0, 0.5, 2.0][(tensor + 3 * i) % 5]
}

/// The matrices of a float32 `model` divided by powers of two, which stand beside them as `NAME.scale`, and the tensors
/// `more` besides.
fn with_scales(model: &str, name: &str, more: &[&str]) -> Copy {
    let bytes = std::fs::read(golden(model)).unwrap();
    let file = gguf::read_file(&bytes, model).unwrap();
    let mut writer = Writer::new();
    for (key, value) in &file.metadata.entries {
        writer.set(key.clone(), value.clone());
    }
    let mut data: Vec<Vec<u8>> = Vec::new();
    let numbers = |values: &[f32]| values.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
    for (n, tensor) in file.tensors.iter().enumerate() {
        writer.tensor(tensor.name.clone(), tensor.shape(), tensor.format).unwrap();
        let mut own = bytes[tensor.offset as usize..][..tensor.bytes as usize].to_vec();
        let matrix = tensor.name.strip_suffix(".weight").filter(|name| {
            ["attn_q", "attn_k", "attn_v", "attn_output", "exps", "ffn_gate", "ffn_up", "ffn_down"]
                .iter()
                .any(|end| name.ends_with(end))
        });
        let Some(matrix) = matrix else {
            data.push(own);
            continue;
        };
        assert_eq!(tensor.format, Format::F32);
        let count = tensor.dims[2] as usize;
        let part = own.len() / count;
        for (i, part) in own.chunks_exact_mut(part).enumerate() {
            for value in part.as_chunks_mut::<4>().0 {
                *value = (f32::from_le_bytes(*value) / factor(n, i)).to_le_bytes();
            }
        }
        data.push(own);
        writer.tensor(format!("{matrix}.scale"), &[count as u64], Format::F32).unwrap();
        data.push(numbers(&(0..count).map(|i| factor(n, i)).collect::<Vec<_>>()));
    }
    for name in more {
        writer.tensor(*name, &[1], Format::F32).unwrap();
        data.push(numbers(&[0.1]));
    }
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}.gguf", std::process::id()));
    let mut out = std::io::BufWriter::new(std::fs::File::create(&path).unwrap());
    let mut data = data.iter();
    writer.write(&mut out, |_, out| out.write_all(data.next().unwrap())).unwrap();
    Copy(path)
}

/// Powers of two change no bits of what they multiply.
#[test]
fn weights_divided_by_their_scales_give_the_same_logits() {
    for model in ["arch/llama.gguf", "arch/qwen3moe.gguf", "arch/mistral-moe.gguf"] {
        let scaled = with_scales(model, &format!("scaled-{}", model.replace('/', "-")), &[]);
        let tokens: Vec<i32> = (1..20).collect();
        for per_pass in [tokens.len(), 1] {
            let want = logits_of(&open(&golden(model), &options()), &tokens, per_pass);
            assert_same_bits(&logits_of(&open(&scaled.0, &options()), &tokens, per_pass), &want, model);
        }
    }
}

/// They say how activations would be rounded to four bits, which nobody does here: activations keep eight, by scales of
/// their own.
#[test]
fn scales_of_inputs_are_left_unread_beside_their_weights() {
    let model = "arch/llama.gguf";
    let more = ["blk.0.attn_q.input_scale", "blk.1.ffn_down.input_scale"];
    let copy = with_scales(model, "input-scales", &more);
    let tokens = [1, 2, 3, 4];
    let want = logits_of(&open(&golden(model), &options()), &tokens, 4);
    assert_same_bits(&logits_of(&open(&copy.0, &options()), &tokens, 4), &want, model);
}

#[test]
fn scales_without_their_weights_are_refused() {
    for name in ["blk.0.attn_qkv.input_scale", "blk.0.attn_qkv.scale", "blk.0.attn_k_b.scale"] {
        let copy = with_scales("arch/llama.gguf", &name.replace('.', "-"), &[name]);
        let error = layerline::model::Model::open(&copy.0, &options()).err().expect(name);
        assert_eq!(error.status(), layerline::Status::Unsupported, "{error:?}");
        assert!(error.message().contains(name), "{error:?}");
    }
}
