//! Shapes, and the keys and tensors of those that are not Llama's: recurrent layers beside attention, and many small
//! experts.

use layerline::gguf::Array;
use layerline::gguf::write::Writer;
use layerline::quant::Format;

use crate::Options;

#[derive(Clone, Copy, PartialEq)]
pub enum Family {
    Llama,
    /// Gated delta nets, and attention in every fourth layer, as Qwen 3.5 has.
    Qwen35,
    /// Short convolutions, and attention in some layers.
    Lfm2,
    /// Experts in every layer.
    Qwen3Moe,
}

pub struct Shape {
    pub family: Family,
    pub name: &'static str,
    pub layers: u32,
    pub width: u32,
    pub heads: u32,
    pub kv_heads: u32,
    pub ffn: u32,
    pub vocab: u32,
    pub context: u32,
}

/// Of experts.
const ROUTED: Shape = Shape { name: "experts", layers: 0, width: 1024, heads: 16, ffn: 512, vocab: 1024, ..TINY };
const TINY: Shape = Shape {
    family: Family::Llama,
    name: "tiny",
    layers: 4,
    width: 256,
    heads: 8,
    kv_heads: 4,
    ffn: 768,
    vocab: 512,
    context: 512,
};

pub const SHAPES: [Shape; 9] = [
    Shape { name: "experts-tiny", width: 512, heads: 8, ffn: 256, vocab: 512, ..ROUTED },
    Shape { name: "experts-small", ffn: 256, ..ROUTED },
    ROUTED,
    TINY,
    ONE_B,
    Shape { name: "llama2-7b", layers: 32, width: 4096, kv_heads: 32, ffn: 11008, context: 4096, ..ONE_B },
    Shape {
        family: Family::Qwen35,
        name: "qwen3.5-4b",
        layers: 32,
        width: 2560,
        heads: 16,
        ffn: 9216,
        vocab: 248_320,
        context: 8192,
        ..ONE_B
    },
    Shape {
        family: Family::Lfm2,
        name: "lfm2-1.2b",
        layers: 16,
        kv_heads: 8,
        ffn: 8192,
        vocab: 65536,
        context: 8192,
        ..ONE_B
    },
    Shape { family: Family::Qwen3Moe, name: "qwen3-30b-layers", layers: 6, ffn: 768, context: 8192, ..ONE_B },
];
const ONE_B: Shape = Shape {
    name: "tinyllama-1.1b",
    layers: 22,
    width: 2048,
    heads: 32,
    ffn: 5632,
    vocab: 32000,
    context: 2048,
    ..TINY
};

/// Elements of a head of attention in the two families of Qwen.
const QWEN_35_HEAD: u32 = 256;
const QWEN_3_HEAD: u32 = 128;
/// Heads of values and keys of a delta net, and the elements of each.
const DELTA: (u32, u32, u32) = (32, 16, 128);
const DELTA_KERNEL: u32 = 4;
const SHORT_KERNEL: u32 = 3;
/// Experts of a layer, and those that a token uses.
const EXPERTS: (u32, u32) = (128, 8);

impl Family {
    pub fn name(self) -> &'static str {
        match self {
            Family::Llama => "llama",
            Family::Qwen35 => "qwen35",
            Family::Lfm2 => "lfm2",
            Family::Qwen3Moe => "qwen3moe",
        }
    }

    /// Elements of a head of attention.
    pub fn head(self, options: &Options) -> u32 {
        match self {
            Family::Llama | Family::Lfm2 => options.shape.width / options.shape.heads,
            Family::Qwen35 => QWEN_35_HEAD,
            Family::Qwen3Moe => QWEN_3_HEAD,
        }
    }

    fn is_recurrent(self, layer: u32) -> bool {
        match self {
            Family::Llama | Family::Qwen3Moe => false,
            Family::Qwen35 => !(layer + 1).is_multiple_of(4),
            Family::Lfm2 => ![2, 5, 8, 10, 12, 14].contains(&layer),
        }
    }
}

/// What a family has beside the keys of all.
pub fn metadata(writer: &mut Writer, options: &Options) {
    let (family, shape) = (options.shape.family, options.shape);
    let key = |part: &str| format!("{}.{part}", family.name());
    match family {
        Family::Llama => {}
        Family::Qwen35 => {
            let (values, keys, length) = DELTA;
            writer
                .set(key("attention.key_length"), QWEN_35_HEAD)
                .set(key("attention.value_length"), QWEN_35_HEAD)
                .set(key("ssm.conv_kernel"), DELTA_KERNEL)
                .set(key("ssm.inner_size"), values * length)
                .set(key("ssm.state_size"), length)
                .set(key("ssm.time_step_rank"), values)
                .set(key("ssm.group_count"), keys)
                .set(key("rope.dimension_sections"), Array::I32(vec![11, 11, 10, 0]));
        }
        Family::Lfm2 => {
            let kv = |layer| if family.is_recurrent(layer) { 0 } else { shape.kv_heads };
            writer
                .set(key("attention.head_count_kv"), Array::U32((0..options.layers).map(kv).collect()))
                .set(key("shortconv.l_cache"), SHORT_KERNEL);
        }
        Family::Qwen3Moe => {
            writer
                .set(key("attention.key_length"), QWEN_3_HEAD)
                .set(key("attention.value_length"), QWEN_3_HEAD)
                .set(key("expert_feed_forward_length"), shape.ffn)
                .set(key("expert_count"), EXPERTS.0)
                .set(key("expert_used_count"), EXPERTS.1);
        }
    }
}

/// The tensors of all layers and of what comes after them.
pub fn tensors(writer: &mut Writer, options: &Options) -> layerline::Result<()> {
    let (family, shape, mix) = (options.shape.family, options.shape, &options.mix);
    let [width, ffn, heads, kv_heads, head] =
        [shape.width, shape.ffn, shape.heads, shape.kv_heads, family.head(options)].map(u64::from);
    for layer in 0..options.layers {
        let format = mix.of_layer(layer, options.layers, false);
        let sensitive = mix.of_layer(layer, options.layers, true);
        let mut add = |part: &str, dims: &[u64], format: Format| {
            writer.tensor(format!("blk.{layer}.{part}"), dims, format).map(|_| ())
        };
        add("attn_norm.weight", &[width], Format::F32)?;
        match family {
            Family::Lfm2 if family.is_recurrent(layer) => {
                add("shortconv.in_proj.weight", &[width, 3 * width], format)?;
                add("shortconv.conv.weight", &[SHORT_KERNEL.into(), width], Format::F32)?;
                add("shortconv.out_proj.weight", &[width, width], format)?;
            }
            _ if family.is_recurrent(layer) => {
                let (values, keys, length) = (u64::from(DELTA.0), u64::from(DELTA.1), u64::from(DELTA.2));
                let channels = (2 * keys + values) * length;
                // llama.cpp's mixes take this one for keys and values of attention.
                let better = if mix.mixed { Format::Q5_K } else { format };
                add("attn_qkv.weight", &[width, channels], better)?;
                add("attn_gate.weight", &[width, values * length], format)?;
                add("ssm_conv1d.weight", &[DELTA_KERNEL.into(), channels], Format::F32)?;
                add("ssm_a", &[values], Format::F32)?;
                add("ssm_dt.bias", &[values], Format::F32)?;
                add("ssm_alpha.weight", &[width, values], format)?;
                add("ssm_beta.weight", &[width, values], format)?;
                add("ssm_norm.weight", &[length], Format::F32)?;
                add("ssm_out.weight", &[values * length, width], format)?;
            }
            _ => {
                // The gate of each head lies beside its query.
                let gated = if family == Family::Qwen35 { 2 } else { 1 };
                add("attn_q.weight", &[width, gated * heads * head], format)?;
                add("attn_k.weight", &[width, kv_heads * head], format)?;
                add("attn_v.weight", &[width, kv_heads * head], sensitive)?;
                add("attn_q_norm.weight", &[head], Format::F32)?;
                add("attn_k_norm.weight", &[head], Format::F32)?;
                add("attn_output.weight", &[heads * head, width], format)?;
            }
        }
        let norm = if family == Family::Qwen35 { "post_attention_norm.weight" } else { "ffn_norm.weight" };
        add(norm, &[width], Format::F32)?;
        if family == Family::Qwen3Moe {
            let experts = u64::from(EXPERTS.0);
            add("ffn_gate_inp.weight", &[width, experts], Format::F32)?;
            add("ffn_gate_exps.weight", &[width, ffn, experts], format)?;
            add("ffn_up_exps.weight", &[width, ffn, experts], format)?;
            add("ffn_down_exps.weight", &[ffn, width, experts], sensitive)?;
        } else {
            add("ffn_gate.weight", &[width, ffn], format)?;
            add("ffn_up.weight", &[width, ffn], format)?;
            add("ffn_down.weight", &[ffn, width], sensitive)?;
        }
    }
    let norm = if family == Family::Lfm2 { "token_embd_norm.weight" } else { "output_norm.weight" };
    writer.tensor(norm, &[width], Format::F32)?;
    if family == Family::Qwen3Moe {
        writer.tensor("output.weight", &[width, shape.vocab.into()], mix.better)?;
    }
    Ok(())
}
