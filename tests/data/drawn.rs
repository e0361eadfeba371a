//! The tiny models of the golden data. Their weights are random numbers, which no compression makes smaller, so the
//! weights are drawn again by the generator that drew them first (numpy's PCG64 and its ziggurat).
//!
//! `golden/drawn.txt.gz` has for each model the generator's state and the tensors in the order they were drawn in. A file
//! `NAME.gguf.gz` is the model with the drawn bits taken out by exclusive or: of a quantised tensor the scales stay, and
//! the codes are the ones nearest to the drawn numbers, or drawn bytes. What the prediction misses stays as a difference,
//! so that every file comes back bit by bit; a hash checks that. `scripts/redraw_models.py` makes such files.
//!
//! This file is included by the tests that need models, by `#[path]`.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

#[path = "codes.rs"]
mod codes;

/// The folder of the golden data.
pub fn data() -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests/data/golden"].iter().collect()
}

/// The folder that models are written to.
fn folder() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from);
    Path::new(env!("CARGO_MANIFEST_DIR")).join(target).join("golden")
}

/// A file of the golden data by its path below `golden`, as `arch/llama.gguf`. A model that is drawn is written where it
/// is not there yet.
pub fn golden(name: &str) -> PathBuf {
    let plain = data().join(name);
    if plain.exists() || !name.ends_with(".gguf") {
        return plain;
    }
    unpack_into(&folder(), name)
}

/// Writes the model `name` below `folder`, unless it is there, and returns its path.
pub fn unpack_into(folder: &Path, name: &str) -> PathBuf {
    let path = folder.join(name);
    let recipes = recipes();
    // A model without a recipe is compressed whole.
    let recipe = recipes.get(name.strip_suffix(".gguf").unwrap());
    let there = fs::read(&path).ok();
    if let (Some(bytes), Some(recipe)) = (&there, recipe)
        && hash(bytes) == recipe.hash
    {
        return path;
    }
    let mut bytes = Vec::new();
    let packed = fs::File::open(data().join(format!("{name}.gz"))).unwrap_or_else(|e| panic!("{name}.gz: {e}"));
    flate2::read::GzDecoder::new(packed).read_to_end(&mut bytes).unwrap_or_else(|e| panic!("{name}.gz: {e}"));
    if let Some(recipe) = recipe {
        recipe.exclusive_or(&mut bytes);
        assert_eq!(hash(&bytes), recipe.hash, "{name}: other numbers were drawn than the model has");
    } else if there.as_ref() == Some(&bytes) {
        return path;
    }
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    // Tests of several processes write the same file.
    let id = format!("{:?}", std::thread::current().id());
    let part = path.with_extension(format!("{}-{}.part", std::process::id(), id.replace(['(', ')'], "")));
    fs::File::create(&part).and_then(|mut file| file.write_all(&bytes)).unwrap_or_else(|e| panic!("{part:?}: {e}"));
    fs::rename(&part, &path).unwrap();
    path
}

/// The names of the models in a folder of the golden data, as `arch/llama.gguf`, sorted: those that are drawn and those
/// that are whole.
pub fn models(folder: &str) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(data().join(folder))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .map(|name| name.strip_suffix(".gz").map_or_else(|| name.clone(), str::to_string))
        .filter(|name| name.ends_with(".gguf"))
        .map(|name| format!("{folder}/{name}"))
        .collect();
    names.sort();
    names.dedup();
    names
}

/// How the tensors of a model were drawn.
pub struct Recipe {
    hash: u64,
    state: u128,
    increment: u128,
    draws: Vec<Draw>,
}

struct Draw {
    /// Where the tensor begins in the file.
    offset: usize,
    /// Elements; blocks, where bytes are drawn.
    count: usize,
    /// The format whose codes follow from normal numbers, or `bytes:SIZE:FROM:TO`: of each block of SIZE bytes, those
    /// from FROM to TO are drawn.
    format: String,
    /// Outputs of the generator that went into something else before.
    skipped: usize,
    mean: f64,
    scale: f64,
}

/// All recipes, by the models' names without the ending.
pub fn recipes() -> BTreeMap<String, Recipe> {
    let mut text = String::new();
    let packed = fs::File::open(data().join("drawn.txt.gz")).unwrap();
    flate2::read::GzDecoder::new(packed).read_to_string(&mut text).unwrap();
    let mut recipes: BTreeMap<String, Recipe> = BTreeMap::new();
    let mut name = String::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        if let ["model", model, state, increment, hash] = words[..] {
            name = model.to_string();
            let number = |hex| u128::from_str_radix(hex, 16).unwrap();
            let (state, increment, hash) = (number(state), number(increment), number(hash) as u64);
            recipes.insert(name.clone(), Recipe { hash, state, increment, draws: Vec::new() });
        } else {
            let [offset, count, format, skipped, mean, scale] = words[..] else { panic!("drawn.txt: {line}") };
            recipes.get_mut(&name).unwrap().draws.push(Draw {
                offset: offset.parse().unwrap(),
                count: count.parse().unwrap(),
                format: format.to_string(),
                skipped: skipped.parse().unwrap(),
                mean: mean.parse().unwrap(),
                scale: scale.parse().unwrap(),
            });
        }
    }
    recipes
}

impl Recipe {
    /// Takes what is drawn out of a model's bytes, or puts it in: the same operation.
    pub fn exclusive_or(&self, bytes: &mut [u8]) {
        let tables = Tables::read();
        let mut random = Random { state: self.state, increment: self.increment };
        for draw in &self.draws {
            for _ in 0..draw.skipped {
                random.next();
            }
            let bytes = &mut bytes[draw.offset..];
            if let Some(part) = draw.format.strip_prefix("bytes:") {
                let part: Vec<usize> = part.split(':').map(|word| word.parse().unwrap()).collect();
                let [size, from, to] = part[..] else { panic!("drawn.txt: {}", draw.format) };
                random.mix_in(bytes.chunks_exact_mut(size).take(draw.count).flat_map(|block| &mut block[from..to]));
                continue;
            }
            let numbers: Vec<f32> =
                (0..draw.count).map(|_| (draw.mean + draw.scale * random.normal(&tables)) as f32).collect();
            codes::exclusive_or(&draw.format, &numbers, bytes);
        }
    }
}

/// xxh3 of a model's bytes.
pub fn hash(bytes: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64(bytes)
}

/// PCG64, the generator of `numpy.random.default_rng`.
struct Random {
    state: u128,
    increment: u128,
}

impl Random {
    fn next(&mut self) -> u64 {
        const MULTIPLIER: u128 = 0x2360_ed05_1fc6_5da4_4385_df64_9fcc_f645;
        self.state = self.state.wrapping_mul(MULTIPLIER).wrapping_add(self.increment);
        ((self.state >> 64) as u64 ^ self.state as u64).rotate_right((self.state >> 122) as u32)
    }

    /// Combines bytes with drawn ones.
    fn mix_in<'a>(&mut self, bytes: impl Iterator<Item = &'a mut u8>) {
        let mut drawn = [0; 8];
        for (i, byte) in bytes.enumerate() {
            if i % 8 == 0 {
                drawn = self.next().to_le_bytes();
            }
            *byte ^= drawn[i % 8];
        }
    }

    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// A number of the standard normal distribution, by a ziggurat of 256 layers.
    fn normal(&mut self, tables: &Tables) -> f64 {
        const TAIL: f64 = 3.654_152_885_361_009;
        loop {
            let r = self.next();
            let layer = (r & 0xff) as usize;
            let r = r >> 8;
            let magnitude = (r >> 1) & 0x000f_ffff_ffff_ffff;
            let x = magnitude as f64 * tables.width[layer];
            let x = if r & 1 == 1 { -x } else { x };
            if magnitude < tables.inside[layer] {
                return x;
            }
            if layer == 0 {
                loop {
                    let a = -(-self.unit()).ln_1p() / TAIL;
                    let b = -(-self.unit()).ln_1p();
                    if b + b > a * a {
                        return if (magnitude >> 8) & 1 == 1 { -(TAIL + a) } else { TAIL + a };
                    }
                }
            }
            let (above, below) = (tables.height[layer - 1], tables.height[layer]);
            if (above - below) * self.unit() + below < (-0.5 * x * x).exp() {
                return x;
            }
        }
    }
}

/// The layers of the ziggurat, as numpy has them: 256 bounds, widths and heights, 8 bytes each.
struct Tables {
    inside: Vec<u64>,
    width: Vec<f64>,
    height: Vec<f64>,
}

impl Tables {
    fn read() -> Tables {
        let bytes = fs::read(data().join("ziggurat.bin")).unwrap();
        let numbers: Vec<u64> = bytes.chunks_exact(8).map(|b| u64::from_le_bytes(b.try_into().unwrap())).collect();
        let real = |part: &[u64]| part.iter().map(|&bits| f64::from_bits(bits)).collect();
        let (width, height) = (real(&numbers[256..512]), real(&numbers[512..768]));
        Tables { inside: numbers[..256].to_vec(), width, height }
    }
}
