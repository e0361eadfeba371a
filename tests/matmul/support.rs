//! Blocks of every kind, activations, and memory with edges that fault.

use layerline::quant::Format;

/// Every format that has kernels.
pub const ALL: [Format; 28] = Format::ALL;

/// A small generator of repeatable numbers.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub fn next(&mut self) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 24) as u32
    }

    /// Between -1 and 1.
    pub fn unit(&mut self) -> f32 {
        (self.next() % 200_001) as f32 / 100_000.0 - 1.0
    }
}

/// What the blocks of a matrix look like.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Blocks {
    /// Random codes, scales of a size that models have.
    Ordinary,
    /// All bits of codes and whole-number scales set.
    Highest,
    /// None of them set.
    Lowest,
    /// The smallest whole-number scales and codes where those are signed.
    Negative,
    /// Stretches of 16 bytes alike, each at one end of signed or unsigned numbers.
    Stretches,
    /// Random codes with the largest half, negative, subnormal and zero scales in turn.
    Extreme,
}

impl Blocks {
    pub const ALL: [Blocks; 6] =
        [Blocks::Ordinary, Blocks::Highest, Blocks::Lowest, Blocks::Negative, Blocks::Stretches, Blocks::Extreme];
}

/// Row lengths of one block, odd and even numbers of them, and more than an eight of blocks.
pub fn row_lengths(format: Format) -> Vec<usize> {
    match format.block_len() {
        1 => vec![1, 7, 255, 256, 300, 1000],
        32 => vec![32, 96, 256, 288, 544],
        64 => vec![64, 192, 256, 320, 576],
        128 => vec![128, 256, 384, 640],
        _ => vec![256, 768, 1280],
    }
}

pub fn weights(random: &mut Random, format: Format, k: usize, count: usize, kind: Blocks) -> Vec<u8> {
    let mut rows = vec![0; count * format.row_bytes(k).unwrap()];
    for block in rows.chunks_exact_mut(format.block_bytes()) {
        for stretch in block.chunks_mut(16) {
            let end = [0x00, 0x7f, 0x80, 0xff][random.next() as usize % 4];
            for byte in stretch {
                *byte = match kind {
                    Blocks::Ordinary | Blocks::Extreme => random.next() as u8,
                    Blocks::Highest => 0xff,
                    Blocks::Lowest => 0x00,
                    Blocks::Negative => 0x80,
                    Blocks::Stretches => end,
                };
            }
        }
        let extremes = [0x7bff, 0xfbff, 0x0001, 0x8001, 0x0000, 0x8000, 0x03ff, 0x3c00];
        let mut bits = |size: f32| match kind {
            Blocks::Extreme => extremes[random.next() as usize % extremes.len()],
            _ => half::f16::from_f32_const(size * (random.unit() + 1.5)).to_bits(),
        };
        if format == Format::IQ1_M {
            // Four bits of the half at the end of each of four words.
            let bits = bits(0.01);
            for n in 0..4 {
                let byte = &mut block[49 + 2 * n];
                *byte = *byte & 15 | ((bits >> (4 * n) & 15) as u8) << 4;
            }
            continue;
        }
        let mut half = |at: usize, size: f32| block[at..at + 2].copy_from_slice(&bits(size).to_le_bytes());
        match format {
            Format::F16 => half(0, 0.1),
            Format::Q4_0
            | Format::Q5_0
            | Format::Q8_0
            | Format::IQ4_NL
            | Format::IQ4_XS
            | Format::IQ1_S
            | Format::IQ2_XXS
            | Format::IQ2_XS
            | Format::IQ2_S
            | Format::IQ3_XXS
            | Format::IQ3_S
            | Format::Q1_0
            | Format::Q2_0 => half(0, 0.01),
            Format::TQ1_0 => half(52, 0.1),
            Format::TQ2_0 => half(64, 0.1),
            Format::IQ1_M => {}
            Format::NVFP4 => {
                let odd = [0, 1, 7, 8, 0x7e, 0x7f, 0xff, 0x80];
                for scale in &mut block[..4] {
                    let number = random.next() as usize;
                    *scale = if kind == Blocks::Extreme { odd[number % odd.len()] } else { 0x10 + (number % 16) as u8 };
                }
            }
            Format::Q4_1 | Format::Q5_1 | Format::Q4_K | Format::Q5_K => {
                half(0, 0.01);
                half(2, 0.02);
            }
            Format::Q2_K => {
                half(80, 0.01);
                half(82, 0.01);
            }
            Format::Q3_K => half(108, 0.001),
            Format::Q6_K => half(208, 0.001),
            Format::MXFP4 => {
                let odd = [0, 1, 2, 200, 120, 60];
                block[0] = if kind == Blocks::Extreme { odd[random.next() as usize % odd.len()] } else { 122 };
            }
            Format::F32 => block.copy_from_slice(&random.unit().to_le_bytes()),
            Format::BF16 => block.copy_from_slice(&half::bf16::from_f32(random.unit()).to_le_bytes()),
        }
    }
    rows
}

/// Numbers between -1 and 1 with a few larger ones among them.
pub fn activations(random: &mut Random, count: usize) -> Vec<f32> {
    (0..count).map(|i| random.unit() * if i % 97 == 5 { 20.0 } else { 1.0 }).collect()
}

/// Bytes at a multiple of 64.
pub struct Aligned(Vec<Line>, usize);

#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([u8; 64]);

impl Aligned {
    pub fn new(bytes: usize) -> Aligned {
        Aligned(vec![Line([0; 64]); bytes.div_ceil(64)], bytes)
    }

    pub fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: the lines are that many bytes or more, end to end, and borrowed as long as the result.
        unsafe { std::slice::from_raw_parts_mut(self.0.as_mut_ptr().cast(), self.1) }
    }
}

/// Pages between two that fault when they are touched.
pub struct Guarded {
    base: *mut u8,
    inner: usize,
}

const PAGE: usize = 4096;

impl Guarded {
    pub fn new(bytes: usize) -> Guarded {
        let inner = bytes.next_multiple_of(PAGE);
        // SAFETY: a new mapping of its own, whose inner pages are then made accessible.
        unsafe {
            let base = libc::mmap(
                std::ptr::null_mut(),
                inner + 2 * PAGE,
                libc::PROT_NONE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            );
            assert_ne!(base, libc::MAP_FAILED);
            let base = base.cast::<u8>();
            assert_eq!(libc::mprotect(base.add(PAGE).cast(), inner, libc::PROT_READ | libc::PROT_WRITE), 0);
            Guarded { base, inner }
        }
    }

    /// `bytes` against the page after or before them.
    pub fn place(&mut self, bytes: usize, at_end: bool) -> &mut [u8] {
        let at = PAGE + if at_end { self.inner - bytes } else { 0 };
        // SAFETY: inside of the accessible pages, borrowed as long as the result.
        unsafe { std::slice::from_raw_parts_mut(self.base.add(at), bytes) }
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        // SAFETY: the whole mapping made in `new`; borrows of it have ended.
        unsafe { libc::munmap(self.base.cast(), self.inner + 2 * PAGE) };
    }
}
