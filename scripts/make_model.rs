//! Writes synthetic models with the true shapes of real ones, for measuring and testing at sizes that nobody wants to
//! download. The weights are random and deterministic; the vocabulary is made up, and text goes through it.
//!
//! ```sh
//! cargo run --release --example make_model -- --shape tinyllama-1.1b --type q4_k_m --out model.gguf
//! ```
//!
//! With a trace of routing the model has experts, and its routers follow the trace: token t of it, as
//! [`trace::token_of`] has it, is routed to the experts that the trace has for t. Its embedding is a code of its own, large
//! beside what layers add to it, and an expert's row in a router is the sum of the codes of the tokens that chose it.

#[path = "make_model/families.rs"]
mod families;
#[path = "make_model/trace.rs"]
mod trace;

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::process::ExitCode;
use std::time::Instant;

use half::{bf16, f16};
use layerline::gguf::Strings;
use layerline::gguf::write::{Declared, Writer};
use layerline::quant::Format;
use layerline::quant::tables::nvfp4_scale;

use families::{Family, SHAPES, Shape};
use trace::{FIRST_TOKEN, Trace, code};

const USAGE: &str = "\
usage: make_model --shape SHAPE --type TYPE --out FILE [--layers N] [--split N] [--seed N] [--trace TRACE [--codes N]]
  SHAPE   tiny, tinyllama-1.1b, llama2-7b, qwen3.5-4b, lfm2-1.2b, qwen3-30b-layers (six of the layers), or with --trace:
          experts-tiny, experts-small or experts
  TRACE   routing that a model with experts is to follow; it says how many layers and experts there are
  N       of --codes: how large the codes of tokens are beside what a layer adds; default 256, where routers see little else
  TYPE    q4_k_m or q5_k_m (mixes), or one for all matrices: f32 f16 bf16 q4_0 q4_1 q5_0 q5_1 q8_0 q2_k q3_k q4_k
          q5_k q6_k iq4_nl iq4_xs mxfp4 nvfp4 iq1_s iq1_m iq2_xxs iq2_xs iq2_s iq3_xxs iq3_s tq1_0 tq2_0 q1_0 q2_0
          (the output matrix is then q6_k at least)
  FILE    ends in .gguf; with --split, files FILE-00001-of-0000N.gguf are written";

/// Which format each matrix gets.
struct Mix {
    /// Number that `general.file_type` gives the mix, where it has one.
    file_type: Option<u32>,
    base: Format,
    /// Of the output matrix, and in a mix of the matrices that lose most by being small.
    better: Format,
    mixed: bool,
}

impl Mix {
    fn parse(name: &str) -> Option<Mix> {
        let (base, file_type) = match name {
            "f32" => (Format::F32, Some(0)),
            "f16" => (Format::F16, Some(1)),
            "q4_0" => (Format::Q4_0, Some(2)),
            "q4_1" => (Format::Q4_1, Some(3)),
            "q8_0" => (Format::Q8_0, Some(7)),
            "q5_0" => (Format::Q5_0, Some(8)),
            "q5_1" => (Format::Q5_1, Some(9)),
            "q2_k" => (Format::Q2_K, Some(10)),
            "q3_k" => (Format::Q3_K, Some(11)),
            "q4_k" => (Format::Q4_K, Some(14)),
            "q4_k_m" => (Format::Q4_K, Some(15)),
            "q5_k" => (Format::Q5_K, Some(16)),
            "q5_k_m" => (Format::Q5_K, Some(17)),
            "q6_k" => (Format::Q6_K, Some(18)),
            "iq2_xxs" => (Format::IQ2_XXS, Some(19)),
            "iq2_xs" => (Format::IQ2_XS, Some(20)),
            "iq3_xxs" => (Format::IQ3_XXS, Some(23)),
            "iq1_s" => (Format::IQ1_S, Some(24)),
            "iq4_nl" => (Format::IQ4_NL, Some(25)),
            "iq3_s" => (Format::IQ3_S, Some(26)),
            "iq2_s" => (Format::IQ2_S, Some(28)),
            "iq4_xs" => (Format::IQ4_XS, Some(30)),
            "iq1_m" => (Format::IQ1_M, Some(31)),
            "bf16" => (Format::BF16, Some(32)),
            "tq1_0" => (Format::TQ1_0, Some(36)),
            "tq2_0" => (Format::TQ2_0, Some(37)),
            "mxfp4" => (Format::MXFP4, None),
            "nvfp4" => (Format::NVFP4, Some(39)),
            "q1_0" => (Format::Q1_0, Some(40)),
            "q2_0" => (Format::Q2_0, None),
            _ => return None,
        };
        let better = match base {
            Format::F32 | Format::F16 | Format::BF16 | Format::Q8_0 => base,
            _ => Format::Q6_K,
        };
        Some(Mix { file_type, base, better, mixed: name.ends_with("_m") })
    }

    /// The values and the down projection matter most in the first and last eighth of the layers, and in every third between.
    fn of_layer(&self, layer: u32, layers: u32, sensitive: bool) -> Format {
        let eighth = layers / 8;
        let chosen = layer < eighth || layer >= 7 * layers / 8 || (layer - eighth) % 3 == 2;
        if self.mixed && sensitive && chosen { self.better } else { self.base }
    }
}

struct Options {
    shape: &'static Shape,
    layers: u32,
    type_name: String,
    mix: Mix,
    out: String,
    split: u32,
    seed: u64,
    trace: Option<Trace>,
    codes: f32,
}

fn parse(arguments: impl Iterator<Item = String>) -> Result<Options, String> {
    let (mut shape, mut kind, mut out, mut layers, mut split, mut seed, mut trace) =
        (None, None, None, None, 1, 1, None);
    let mut codes = 256.0;
    let mut arguments = arguments;
    while let Some(flag) = arguments.next() {
        let mut value = || arguments.next().ok_or_else(|| format!("{flag} needs a value"));
        let number = |text: String| text.parse::<u64>().map_err(|_| format!("{flag}: {text:?} is not a number"));
        let small = |n: u64| u32::try_from(n).ok().filter(|n| *n > 0).ok_or(format!("{flag}: {n} is out of range"));
        match flag.as_str() {
            "--shape" => shape = Some(value()?),
            "--type" => kind = Some(value()?),
            "--out" => out = Some(value()?),
            "--layers" => layers = Some(small(number(value()?)?)?),
            "--split" => split = small(number(value()?)?)?,
            "--seed" => seed = number(value()?)?,
            "--trace" => trace = Some(Trace::read(&value()?)?),
            "--codes" => codes = small(number(value()?)?)? as f32,
            _ => return Err(format!("{flag:?} is not an option")),
        }
    }
    let shape = shape.ok_or("--shape is missing")?;
    let shape = SHAPES.iter().find(|known| known.name == shape).ok_or(format!("no shape {shape:?}"))?;
    let type_name = kind.ok_or("--type is missing")?.to_lowercase();
    let mix = Mix::parse(&type_name).ok_or(format!("no type {type_name:?}"))?;
    let out = out.ok_or("--out is missing")?;
    if !out.ends_with(".gguf") {
        return Err(format!("--out: {out:?} does not end in .gguf"));
    }
    if let Some(trace) = &trace {
        let tokens = trace.tokens.len() as u64 + u64::from(FIRST_TOKEN);
        if shape.layers > 0 || tokens > u64::from(shape.vocab) {
            return Err(format!(
                "--trace: {tokens} tokens for shape {:?} with a vocabulary of {}",
                shape.name, shape.vocab
            ));
        }
        layers = Some(trace.layers);
    } else if shape.layers == 0 {
        return Err(format!("shape {:?} needs a trace", shape.name));
    }
    Ok(Options { shape, layers: layers.unwrap_or(shape.layers), type_name, mix, out, split, seed, trace, codes })
}

fn main() -> ExitCode {
    let options = match parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(message) => {
            eprintln!("{message}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let start = Instant::now();
    match make(&options) {
        Ok(bytes) => {
            let (mib, seconds) = (bytes as f64 / f64::from(1 << 20), start.elapsed().as_secs_f64());
            println!("{}: {bytes} bytes ({mib:.1} MiB) in {seconds:.1} s, {:.0} MiB/s", options.out, mib / seconds);
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn make(options: &Options) -> layerline::Result<u64> {
    let mut writer = Writer::new();
    metadata(&mut writer, options);
    tensors(&mut writer, options)?;
    let create = |name: &str| File::create(name).map(|file| BufWriter::with_capacity(1 << 20, file));
    let fill = |tensor: &Declared, out: &mut dyn Write| match &options.trace {
        Some(trace) if follows(trace, options.codes, tensor, out)? => Ok(()),
        _ => fill(tensor, options.seed, out),
    };
    if options.split > 1 {
        let stem = options.out.strip_suffix(".gguf").unwrap_or(&options.out);
        return writer.write_split(stem, options.split, create, fill);
    }
    let file = create(&options.out).map_err(|error| layerline::Error::io(format!("{}: {error}", options.out)))?;
    writer.write(file, fill)
}

fn metadata(writer: &mut Writer, options: &Options) {
    let shape = options.shape;
    let family = shape.family.name();
    let key = |part: &str| format!("{family}.{part}");
    // A quarter of the long heads of Qwen 3.5 is rotated.
    let head = shape.family.head(options);
    let rotated = if shape.family == Family::Qwen35 { head / 4 } else { head };
    writer
        .set("general.architecture", family)
        .set("general.name", format!("synthetic {} {}", shape.name, options.type_name).as_str())
        .set("general.quantization_version", 2u32)
        .set(key("block_count"), options.layers)
        .set(key("context_length"), shape.context)
        .set(key("embedding_length"), shape.width)
        .set(key("feed_forward_length"), shape.ffn)
        .set(key("attention.head_count"), shape.heads)
        .set(key("attention.layer_norm_rms_epsilon"), 1e-5f32)
        .set(key("rope.dimension_count"), rotated)
        .set(key("rope.freq_base"), 10000f32)
        .set(key("vocab_size"), shape.vocab);
    if shape.family != Family::Lfm2 {
        writer.set(key("attention.head_count_kv"), shape.kv_heads);
    }
    families::metadata(writer, options);
    if let Some(trace) = &options.trace {
        writer.set("llama.expert_count", trace.experts).set("llama.expert_used_count", trace.used());
    }
    if let Some(file_type) = options.mix.file_type {
        writer.set("general.file_type", file_type);
    }
    let vocabulary = vocabulary(shape.vocab as usize);
    writer
        .set("tokenizer.ggml.model", "llama")
        .set("tokenizer.ggml.pre", "default")
        .set("tokenizer.ggml.tokens", vocabulary.tokens.iter().collect::<Strings>())
        .set("tokenizer.ggml.scores", vocabulary.scores)
        .set("tokenizer.ggml.token_type", vocabulary.types)
        .set("tokenizer.ggml.bos_token_id", 1u32)
        .set("tokenizer.ggml.eos_token_id", 2u32)
        .set("tokenizer.ggml.unknown_token_id", 0u32)
        .set("tokenizer.ggml.add_bos_token", true)
        .set("tokenizer.ggml.add_eos_token", false);
}

fn tensors(writer: &mut Writer, options: &Options) -> layerline::Result<()> {
    let (shape, mix, layers) = (options.shape, &options.mix, options.layers);
    let [width, ffn, vocab] = [shape.width, shape.ffn, shape.vocab].map(u64::from);
    let kv = width / u64::from(shape.heads) * u64::from(shape.kv_heads);
    let experts = options.trace.as_ref().map(|trace| u64::from(trace.experts));
    let embeddings = if experts.is_some() { Format::F16 } else { mix.base };
    if shape.family != Family::Llama {
        // The head's matrix too, but for experts.
        let tied = if shape.family == Family::Qwen3Moe { mix.base } else { mix.better };
        writer.tensor("token_embd.weight", &[width, vocab], tied)?;
        return families::tensors(writer, options);
    }
    writer.tensor("token_embd.weight", &[width, vocab], embeddings)?;
    for layer in 0..layers {
        let name = |part: &str| format!("blk.{layer}.{part}.weight");
        let format = mix.of_layer(layer, layers, false);
        let sensitive = mix.of_layer(layer, layers, true);
        writer.tensor(name("attn_norm"), &[width], Format::F32)?;
        writer.tensor(name("attn_q"), &[width, width], format)?;
        writer.tensor(name("attn_k"), &[width, kv], format)?;
        writer.tensor(name("attn_v"), &[width, kv], sensitive)?;
        writer.tensor(name("attn_output"), &[width, width], format)?;
        writer.tensor(name("ffn_norm"), &[width], Format::F32)?;
        if let Some(experts) = experts {
            writer.tensor(name("ffn_gate_inp"), &[width, experts], Format::F32)?;
            writer.tensor(name("ffn_gate_exps"), &[width, ffn, experts], format)?;
            writer.tensor(name("ffn_up_exps"), &[width, ffn, experts], format)?;
            writer.tensor(name("ffn_down_exps"), &[ffn, width, experts], sensitive)?;
            continue;
        }
        writer.tensor(name("ffn_gate"), &[width, ffn], format)?;
        writer.tensor(name("ffn_up"), &[width, ffn], format)?;
        writer.tensor(name("ffn_down"), &[ffn, width], sensitive)?;
    }
    writer.tensor("output_norm.weight", &[width], Format::F32)?;
    writer.tensor("output.weight", &[width, vocab], mix.better)?;
    Ok(())
}

struct Vocabulary {
    tokens: Vec<String>,
    scores: Vec<f32>,
    types: Vec<i32>,
}

/// A vocabulary as SentencePiece makes it: control tokens, all bytes, then pieces by falling score. Every piece of more
/// than one character is a shorter piece and one more letter, so merging by score reaches all of them.
fn vocabulary(size: usize) -> Vocabulary {
    let [normal, unknown, control, byte_type] = [1, 2, 3, 6];
    let mut all = Vocabulary { tokens: Vec::new(), scores: Vec::new(), types: Vec::new() };
    let mut add = |token: String, score: f32, kind: i32| {
        all.tokens.push(token);
        all.scores.push(score);
        all.types.push(kind);
    };
    add("<unk>".to_owned(), 0.0, unknown);
    add("<s>".to_owned(), 0.0, control);
    add("</s>".to_owned(), 0.0, control);
    (0..=255).for_each(|byte| add(format!("<0x{byte:02X}>"), 0.0, byte_type));

    let characters = std::iter::once('\u{2581}').chain('!'..='~');
    let mut pieces: Vec<String> = characters.map(String::from).collect();
    // Words' beginnings before their insides, as frequency would have it; longer ones grow from the shorter.
    let mut growing: Vec<String> = std::iter::once('\u{2581}').chain('a'..='z').map(String::from).collect();
    let room = size.saturating_sub(3 + 256);
    while pieces.len() < room {
        growing = growing.iter().flat_map(|piece| ('a'..='z').map(move |letter| format!("{piece}{letter}"))).collect();
        pieces.extend(growing.iter().take(room - pieces.len()).cloned());
    }
    pieces.truncate(room);
    for (rank, piece) in pieces.into_iter().enumerate() {
        add(piece, -(rank as f32), normal);
    }
    all
}

/// SplitMix64: a counter, mixed. Fast, and any seed will do.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn fill(&mut self, bytes: &mut [u8]) {
        let mut chunks = bytes.chunks_exact_mut(8);
        for chunk in &mut chunks {
            chunk.copy_from_slice(&self.next().to_le_bytes());
        }
        let rest = chunks.into_remainder();
        rest.copy_from_slice(&self.next().to_le_bytes()[..rest.len()]);
    }
}

/// Writes the tensors that make a model follow a trace; false: it is not one of them.
fn follows(trace: &Trace, codes: f32, tensor: &Declared, out: &mut dyn Write) -> io::Result<bool> {
    /// The score of an expert that a token chose.
    const SCORE: f32 = 16.0;
    let width = tensor.dims[0] as u32;
    if tensor.dims.len() == 1 {
        (0..width).try_for_each(|_| out.write_all(&1f32.to_le_bytes()))?;
    } else if tensor.name == "token_embd.weight" {
        for token in 0..tensor.dims[1] as u32 {
            let row = (0..width).map(|i| f16::from_f32(codes * code(token, i)));
            row.into_iter().try_for_each(|value| out.write_all(&value.to_le_bytes()))?;
        }
    } else if tensor.name.ends_with("ffn_gate_inp.weight") {
        let layer: usize = tensor.name.split('.').nth(1).and_then(|n| n.parse().ok()).expect("a layer's tensor");
        for expert in 0..trace.experts {
            let chose = |t: &u32| trace.tokens[*t as usize][layer].contains(&expert);
            let tokens: Vec<u32> = (0..trace.tokens.len() as u32).filter(chose).map(trace::token_of).collect();
            for i in 0..width {
                let sum: f32 = tokens.iter().map(|&token| code(token, i)).sum();
                out.write_all(&(SCORE / width as f32 * sum).to_le_bytes())?;
            }
        }
    } else {
        return Ok(false);
    }
    Ok(true)
}

/// Writes a tensor's bytes: they depend on its name and the seed, not on where it stands or how the model is split.
fn fill(tensor: &Declared, seed: u64, out: &mut dyn Write) -> io::Result<()> {
    let hash = tensor.name.bytes().fold(seed, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
    let mut random = Random(hash);
    if tensor.dims.len() == 1 {
        // Norm weights: near 1.
        for _ in 0..tensor.dims[0] {
            let near_one = 0.9 + 0.2 * (random.next() >> 40) as f32 / (1 << 24) as f32;
            // What decays has a negative factor.
            let weight = if tensor.name.ends_with("ssm_a") { -near_one } else { near_one };
            out.write_all(&weight.to_le_bytes())?;
        }
        return Ok(());
    }
    // Outputs of a product with unit inputs have unit variance; embeddings are inputs themselves.
    let deviation = if tensor.name == "token_embd.weight" { 1.0 } else { 1.0 / (tensor.dims[0] as f32).sqrt() };
    let maker = Maker::new(tensor.format, deviation);
    let block = tensor.format.block_bytes();
    let mut buffer = vec![0; (1 << 20) / block * block];
    let mut left = tensor.bytes;
    while left > 0 {
        let part = left.min(buffer.len() as u64) as usize;
        maker.fill(&mut random, &mut buffer[..part]);
        out.write_all(&buffer[..part])?;
        left -= part as u64;
    }
    Ok(())
}

/// Makes blocks of one format whose values have mean 0 and a given deviation. Codes are uniform, so the deviation of a
/// block's values is its scale times a constant of the format; scales vary by an eighth either way.
struct Maker {
    format: Format,
    deviation: f32,
    /// Block scales to choose from, as halves.
    scales: [[u8; 2]; 16],
    /// What goes with each of them in formats with a minimum or offset.
    offsets: [[u8; 2]; 16],
    /// The scale that the blocks of NVFP4 have.
    small_scale: u8,
    /// Values of the two-byte formats to choose from.
    values: Vec<[u8; 2]>,
}

impl Maker {
    fn new(format: Format, deviation: f32) -> Self {
        // Root mean square of the codes times that of the inner scales, and the offset in units of the scale.
        let (codes, offset) = match format {
            Format::Q4_0 => (4.64, 0.0),
            Format::Q4_1 => (4.61, -7.5),
            Format::Q5_0 => (9.25, 0.0),
            Format::Q5_1 => (9.23, -15.5),
            Format::Q8_0 => (73.9, 0.0),
            Format::Q2_K => (1.118 * 11.73, 1.5),
            Format::Q3_K => (2.345 * 18.48, 0.0),
            Format::Q4_K => (4.61 * 48.4, 7.5),
            Format::Q5_K => (9.23 * 48.4, 15.5),
            Format::Q6_K => (18.48 * 73.9, 0.0),
            Format::IQ4_NL => (67.44, 0.0),
            Format::IQ4_XS => (67.44 * 18.48, 0.0),
            Format::MXFP4 | Format::NVFP4 => (5.85, 0.0),
            Format::IQ1_S | Format::IQ1_M => (0.781 * 9.22, 0.0),
            Format::IQ2_XXS => (23.12 * 18.47 / 8.0, 0.0),
            Format::IQ2_XS => (24.22 * 18.47 / 8.0, 0.0),
            Format::IQ2_S => (24.43 * 18.47 / 8.0, 0.0),
            Format::IQ3_XXS => (30.85 * 18.47 / 4.0, 0.0),
            Format::IQ3_S => (7.594 * 18.47, 0.0),
            Format::TQ1_0 => (0.816, 0.0),
            Format::TQ2_0 | Format::Q2_0 => (1.225, 0.0),
            Format::Q1_0 => (1.0, 0.0),
            Format::F32 | Format::F16 | Format::BF16 => (1.0, 0.0),
        };
        let scale = |i: usize| deviation / codes * (0.875 + 0.25 * i as f32 / 15.0);
        let half = |value: f32| f16::from_f32(value).to_le_bytes();
        // Uniform over an interval of this deviation.
        let uniform = |i: u32| deviation * 3f32.sqrt() * ((2 * i + 1) as f32 / 4096.0 - 1.0);
        let values = match format {
            Format::F16 => (0..4096).map(|i| half(uniform(i))).collect(),
            Format::BF16 => (0..4096).map(|i| bf16::from_f32(uniform(i)).to_le_bytes()).collect(),
            _ => Vec::new(),
        };
        let distance = |bits: &u8| (nvfp4_scale(*bits) - deviation / codes).abs();
        Maker {
            format,
            deviation,
            small_scale: (1..0x7f).min_by(|a, b| distance(a).total_cmp(&distance(b))).unwrap_or(1),
            scales: std::array::from_fn(|i| half(scale(i))),
            offsets: std::array::from_fn(|i| half(scale(i) * offset)),
            values,
        }
    }

    /// Fills `out`, a whole number of blocks: random codes everywhere, then the fields that must not be random.
    fn fill(&self, random: &mut Random, out: &mut [u8]) {
        random.fill(out);
        match self.format {
            Format::F32 => {
                for bytes in out.as_chunks_mut::<4>().0 {
                    let unit = i32::from_le_bytes(*bytes) as f32 / (1u32 << 31) as f32;
                    *bytes = (unit * 3f32.sqrt() * self.deviation).to_le_bytes();
                }
            }
            Format::F16 | Format::BF16 => {
                for bytes in out.as_chunks_mut::<2>().0 {
                    *bytes = self.values[usize::from(u16::from_le_bytes(*bytes) & 4095)];
                }
            }
            _ => out.chunks_exact_mut(self.format.block_bytes()).for_each(|block| self.finish(random.next(), block)),
        }
    }

    /// Puts scales into a block of random bytes.
    fn finish(&self, random: u64, block: &mut [u8]) {
        let choice = (random & 15) as usize;
        let (scale, offset) = (self.scales[choice], self.offsets[choice]);
        // Codes whose range is not symmetric get a mean of 0 over many blocks by a random sign of the scale.
        let signed = [scale[0], scale[1] | (random >> 56) as u8 & 0x80];
        let mut set = |at: usize, field: [u8; 2]| block[at..at + 2].copy_from_slice(&field);
        match self.format {
            Format::Q4_0
            | Format::Q5_0
            | Format::IQ4_NL
            | Format::IQ4_XS
            | Format::IQ1_S
            | Format::IQ2_XXS
            | Format::IQ2_XS
            | Format::IQ2_S
            | Format::IQ3_XXS
            | Format::IQ3_S
            | Format::Q1_0
            | Format::Q2_0 => set(0, signed),
            Format::TQ1_0 => set(52, signed),
            Format::TQ2_0 => set(64, signed),
            Format::IQ1_M => {
                // Four bits of the half at the end of each of four words.
                let bits = u16::from_le_bytes(signed);
                for n in 0..4 {
                    let byte = &mut block[49 + 2 * n];
                    *byte = *byte & 15 | ((bits >> (4 * n) & 15) as u8) << 4;
                }
            }
            Format::Q4_1 | Format::Q5_1 => {
                set(0, scale);
                set(2, offset);
            }
            Format::Q8_0 => {
                set(0, scale);
                // Quantisers use a symmetric range, and fast decoders may count on it.
                block[2..].iter_mut().filter(|code| **code == 0x80).for_each(|code| *code = 0x81);
            }
            Format::Q3_K => set(108, scale),
            Format::Q6_K => set(208, scale),
            Format::Q2_K => {
                set(80, scale);
                set(82, offset);
                // Scale and minimum of a sub-block are the same number, 8 to 15.
                block[..16].iter_mut().for_each(|field| *field = (*field & 7 | 8) * 0x11);
            }
            Format::Q4_K | Format::Q5_K => {
                set(0, scale);
                set(2, offset);
                // Scale and minimum of a sub-block are the same number of six bits, 32 to 63: so every value has mean 0.
                let number = |i: usize| (random >> (4 + 5 * i)) as u8 & 31 | 32;
                for i in 0..4 {
                    let (low, high) = (number(i), number(i + 4));
                    block[4 + i] = low | (high >> 4) << 6;
                    block[8 + i] = low | (high >> 4) << 6;
                    block[12 + i] = (high & 15) * 0x11;
                }
            }
            Format::MXFP4 => {
                let unit = (self.deviation / 5.85).log2().round();
                block[0] = (128.0 + unit) as u8;
            }
            // The scale whose value is nearest, of the numbers that the format has for it.
            Format::NVFP4 => block[..4].fill(self.small_scale),
            Format::F32 | Format::F16 | Format::BF16 => {}
        }
    }
}
