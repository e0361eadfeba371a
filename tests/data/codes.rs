//! What a tensor's bytes are where its numbers are known and, of the quantised formats, its scales: the nearest codes.

use half::{bf16, f16};

/// Combines `bytes`, blocks of `format`, with what follows from `numbers` and the scales in the blocks. The scales are
/// left as they are, so that a second call undoes the first.
pub fn exclusive_or(format: &str, numbers: &[f32], bytes: &mut [u8]) {
    let (elements, size) = match format {
        "f32" => (1, 4),
        "f16" | "bf16" => (1, 2),
        "q8_0" => (32, 34),
        "q4_0" | "iq4_nl" => (32, 18),
        "q4_1" => (32, 20),
        "q5_0" => (32, 22),
        "q5_1" => (32, 24),
        "q2_K" => (256, 84),
        "q3_K" => (256, 110),
        "q4_K" => (256, 144),
        "q5_K" => (256, 176),
        "q6_K" => (256, 210),
        "iq4_xs" => (256, 136),
        "q2_0" => (64, 18),
        "tq1_0" => (256, 54),
        "tq2_0" => (256, 66),
        _ => panic!("the codes of {format} are not known"),
    };
    let mut codes = vec![0; size];
    for (x, block) in numbers.chunks_exact(elements).zip(bytes.chunks_exact_mut(size)) {
        codes.fill(0);
        match format {
            "f32" => codes.copy_from_slice(&x[0].to_le_bytes()),
            "f16" => codes.copy_from_slice(&f16::from_f32(x[0]).to_le_bytes()),
            "bf16" => codes.copy_from_slice(&bf16::from_f32(x[0]).to_le_bytes()),
            "q2_0" | "tq1_0" | "tq2_0" => smallest(format, x, block, &mut codes),
            _ if elements == 32 => small(format, x, block, &mut codes),
            _ => large(format, x, block, &mut codes),
        }
        block.iter_mut().zip(&codes).for_each(|(b, c)| *b ^= c);
    }
}

const NON_LINEAR: [f32; 16] =
    [-127., -104., -83., -65., -49., -35., -22., -10., 1., 13., 25., 38., 53., 69., 89., 113.];

fn half_at(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

/// The whole number of `0..=top` nearest to `(x - base) / step`.
fn nearest(x: f32, base: f32, step: f32, top: i32) -> u8 {
    if step == 0.0 { 0 } else { (((x - base) / step).round() as i32).clamp(0, top) as u8 }
}

fn nearest_non_linear(x: f32, step: f32) -> u8 {
    let distance = |&code: &u8| (x - step * NON_LINEAR[code as usize]).abs();
    (0..16).min_by(|a, b| distance(a).total_cmp(&distance(b))).unwrap()
}

/// Formats of blocks of 32.
fn small(format: &str, x: &[f32], block: &[u8], codes: &mut [u8]) {
    let d = half_at(block, 0);
    for (j, &x) in x.iter().enumerate() {
        let code = match format {
            "q8_0" => {
                codes[2 + j] = if d == 0.0 { 0 } else { (x / d).round().clamp(-127.0, 127.0) as i8 as u8 };
                continue;
            }
            "q4_0" => nearest(x, -8.0 * d, d, 15),
            "q4_1" => nearest(x, half_at(block, 2), d, 15),
            "q5_0" => nearest(x, -16.0 * d, d, 31),
            "q5_1" => nearest(x, half_at(block, 2), d, 31),
            _ => nearest_non_linear(x, d),
        };
        let (high, low) = match format {
            "q4_1" => (0, 4),
            "q5_0" => (2, 6),
            "q5_1" => (4, 8),
            _ => (0, 2),
        };
        codes[low + j % 16] |= (code & 15) << (4 * (j / 16));
        if high > 0 {
            codes[high + j / 8] |= (code >> 4) << (j % 8);
        }
    }
}

/// Formats of two bits and less, whose first code stands for minus the scale.
fn smallest(format: &str, x: &[f32], block: &[u8], codes: &mut [u8]) {
    let (scale, top) = match format {
        "q2_0" => (0, 3),
        "tq1_0" => (52, 2),
        _ => (64, 2),
    };
    let d = half_at(block, scale);
    let code = |e: usize| nearest(x[e], -d, d, top);
    match format {
        "q2_0" => (0..64).for_each(|e| codes[2 + e / 4] |= code(e) << (2 * (e % 4))),
        "tq2_0" => (0..256).for_each(|e| codes[32 * (e / 128) + e % 32] |= code(e) << (2 * (e % 128 / 32))),
        _ => {
            // Five numbers of three values a byte, four in the last bytes.
            for (at, first, width, many) in [(0, 0, 32, 5), (32, 160, 16, 5), (48, 240, 4, 4)] {
                for l in 0..width {
                    let whole = (0..5).fold(0, |whole, n| {
                        3 * whole + if n < many { u32::from(code(first + n * width + l)) } else { 0 }
                    });
                    codes[at + l] = (whole * 256).div_ceil(243) as u8;
                }
            }
        }
    }
}

/// Formats of blocks of 256.
fn large(format: &str, x: &[f32], block: &[u8], codes: &mut [u8]) {
    // Scale and minimum of a sub-block of Q4_K and Q5_K.
    let pair = |sub: usize| {
        let b = &block[4..16];
        if sub < 4 {
            (b[sub] & 63, b[sub + 4] & 63)
        } else {
            ((b[sub + 4] & 15) | ((b[sub - 4] >> 6) << 4), (b[sub + 4] >> 4) | ((b[sub] >> 6) << 4))
        }
    };
    for (e, &x) in x.iter().enumerate() {
        let (half, group, l, sub) = (e / 128, e % 128 / 32, e % 32, e / 32);
        match format {
            "q4_K" | "q5_K" => {
                let (scale, minimum) = pair(sub);
                let (d, base) = (half_at(block, 0) * f32::from(scale), -half_at(block, 2) * f32::from(minimum));
                let (low, top) = if format == "q4_K" { (16, 15) } else { (48, 31) };
                let code = nearest(x, base, d, top);
                codes[low + 32 * (sub / 2) + l] |= (code & 15) << (4 * (sub % 2));
                if format == "q5_K" {
                    codes[16 + l] |= (code >> 4) << sub;
                }
            }
            "q6_K" => {
                let d = half_at(block, 208) * f32::from(block[192 + e / 16] as i8);
                let code = nearest(x, -32.0 * d, d, 63);
                codes[64 * half + l + 32 * (group & 1)] |= (code & 15) << (4 * (group / 2));
                codes[128 + 32 * half + l] |= (code >> 4) << (2 * group);
            }
            "q2_K" => {
                let scales = block[e / 16];
                let (d, base) =
                    (half_at(block, 80) * f32::from(scales & 15), half_at(block, 82) * f32::from(scales >> 4));
                codes[16 + 32 * half + l] |= nearest(x, -base, d, 3) << (2 * group);
            }
            "q3_K" => {
                let (i, sc) = (e / 16, &block[96..108]);
                let low = if i < 8 { sc[i] & 15 } else { sc[i - 8] >> 4 };
                let scale = low | (((sc[8 + i % 4] >> (2 * (i / 4))) & 3) << 4);
                let d = half_at(block, 108) * (f32::from(scale) - 32.0);
                let code = nearest(x, -4.0 * d, d, 7);
                codes[32 + 32 * half + l] |= (code & 3) << (2 * group);
                codes[l] |= (code >> 2) << (4 * half + group);
            }
            _ => {
                let high = u16::from_le_bytes([block[2], block[3]]) >> (2 * sub) & 3;
                let scale = u16::from(block[4 + sub / 2] >> (4 * (sub & 1)) & 15) | high << 4;
                let code = nearest_non_linear(x, half_at(block, 0) * (f32::from(scale) - 32.0));
                codes[8 + 16 * sub + l % 16] |= code << (4 * (l / 16));
            }
        }
    }
}
