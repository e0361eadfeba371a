//! Formats of 256 elements whose sub-blocks of 16 or 32 have whole-number scales: the K formats, the IQ formats but IQ4_NL,
//! and the ternary ones, whose scales are 1.

use super::{Format, half_at, tables};

/// A block as whole numbers and its scales: element j is `d * scales[j/16] * codes[j] - dmin * mins[j/16]`.
/// Where sub-blocks have 32 elements, both their halves have the same scale and min.
#[derive(Clone, Debug)]
pub struct Block256 {
    pub codes: [i8; 256],
    pub scales: [i8; 16],
    pub mins: [i8; 16],
    pub d: f32,
    /// Zero in the formats without mins.
    pub dmin: f32,
}

impl Default for Block256 {
    fn default() -> Self {
        Block256 { codes: [0; 256], scales: [0; 16], mins: [0; 16], d: 0.0, dmin: 0.0 }
    }
}

impl Block256 {
    /// Takes `bytes`, one whole block of `format`, apart.
    pub fn unpack(&mut self, format: Format, bytes: &[u8]) {
        (self.mins, self.dmin) = ([0; 16], 0.0);
        match format {
            Format::Q2_K => self.q2(bytes),
            Format::Q3_K => self.q3(bytes),
            Format::Q4_K => {
                self.scales_and_mins(bytes);
                self.nibbles(&bytes[16..]);
            }
            Format::Q5_K => {
                self.scales_and_mins(bytes);
                self.nibbles(&bytes[48..]);
                for (j, code) in self.codes.iter_mut().enumerate() {
                    *code += ((bytes[16 + j % 32] >> (j / 32) & 1) << 4) as i8;
                }
            }
            Format::Q6_K => self.q6(bytes),
            Format::IQ4_XS => self.iq4_xs(bytes),
            Format::TQ1_0 => self.tq1_0(bytes),
            Format::TQ2_0 => self.tq2_0(bytes),
            _ if self.code_book(format, bytes) => {}
            _ => unreachable!("{} has no blocks of 256 elements", format.name()),
        }
    }

    /// Writes the 256 values.
    pub fn values(&self, out: &mut [f32]) {
        for (sub, values) in out.chunks_exact_mut(16).enumerate() {
            let scale = self.d * self.scales[sub] as f32;
            let min = self.dmin * self.mins[sub] as f32;
            for (value, code) in values.iter_mut().zip(&self.codes[16 * sub..]) {
                *value = scale * *code as f32 - min;
            }
        }
    }

    fn q2(&mut self, bytes: &[u8]) {
        for (sub, byte) in bytes[..16].iter().enumerate() {
            self.scales[sub] = (byte & 15) as i8;
            self.mins[sub] = (byte >> 4) as i8;
        }
        self.pairs_of_bits(&bytes[16..]);
        (self.d, self.dmin) = (half_at(bytes, 80), half_at(bytes, 82));
    }

    fn q3(&mut self, bytes: &[u8]) {
        let (high, packed) = (&bytes[..32], &bytes[96..108]);
        self.pairs_of_bits(&bytes[32..]);
        for (j, code) in self.codes.iter_mut().enumerate() {
            if high[j % 32] >> (j / 32) & 1 == 0 {
                *code -= 4;
            }
        }
        for (i, scale) in self.scales.iter_mut().enumerate() {
            let low = if i < 8 { packed[i] & 15 } else { packed[i - 8] >> 4 };
            let top = packed[8 + i % 4] >> (2 * (i / 4)) & 3;
            *scale = (low | top << 4) as i8 - 32;
        }
        self.d = half_at(bytes, 108);
    }

    fn q6(&mut self, bytes: &[u8]) {
        let (low, high) = (&bytes[..128], &bytes[128..192]);
        for (j, code) in self.codes.iter_mut().enumerate() {
            let (half, group, l) = (j / 128, j % 128 / 32, j % 32);
            let nibble = low[64 * half + 32 * (group & 1) + l] >> (4 * (group / 2)) & 15;
            let top = high[32 * half + l] >> (2 * group) & 3;
            *code = (nibble | top << 4) as i8 - 32;
        }
        for (scale, byte) in self.scales.iter_mut().zip(&bytes[192..208]) {
            *scale = *byte as i8;
        }
        self.d = half_at(bytes, 208);
    }

    fn iq4_xs(&mut self, bytes: &[u8]) {
        let high = u16::from_le_bytes([bytes[2], bytes[3]]);
        for sub in 0..8 {
            let low = bytes[4 + sub / 2] >> (4 * (sub & 1)) & 15;
            let top = (high >> (2 * sub) & 3) as u8;
            let scale = (low | top << 4) as i8 - 32;
            self.scales[2 * sub..2 * sub + 2].fill(scale);
            for l in 0..16 {
                let byte = bytes[8 + 16 * sub + l];
                self.codes[32 * sub + l] = tables::IQ4[(byte & 15) as usize];
                self.codes[32 * sub + l + 16] = tables::IQ4[(byte >> 4) as usize];
            }
        }
        self.d = half_at(bytes, 0);
    }

    fn tq1_0(&mut self, bytes: &[u8]) {
        for (j, code) in self.codes.iter_mut().enumerate() {
            // Five codes in each of 32 bytes and of 16, four in each of the last four: the digits of a fraction to the
            // base of 3, of 256ths.
            let (at, digit) = match j {
                0..160 => (j % 32, j / 32),
                160..240 => (32 + j % 16, (j - 160) / 16),
                _ => (48 + j % 4, (j - 240) / 4),
            };
            let rest = bytes[at].wrapping_mul(3u8.pow(digit as u32));
            *code = ((rest as u16 * 3) >> 8) as i8 - 1;
        }
        self.scales = [1; 16];
        self.d = half_at(bytes, 52);
    }

    fn tq2_0(&mut self, bytes: &[u8]) {
        self.pairs_of_bits(bytes);
        self.codes.iter_mut().for_each(|code| *code -= 1);
        self.scales = [1; 16];
        self.d = half_at(bytes, 64);
    }

    /// Two-bit codes: element 128h + 32g + l is bits 2g, 2g+1 of byte 32h + l.
    fn pairs_of_bits(&mut self, packed: &[u8]) {
        for (j, code) in self.codes.iter_mut().enumerate() {
            *code = (packed[32 * (j / 128) + j % 32] >> (2 * (j % 128 / 32)) & 3) as i8;
        }
    }

    /// Four-bit codes: each 32 bytes hold one sub-block in their low nibbles and the next in their high ones.
    fn nibbles(&mut self, packed: &[u8]) {
        for (j, code) in self.codes.iter_mut().enumerate() {
            *code = (packed[32 * (j / 64) + j % 32] >> (4 * (j / 32 % 2)) & 15) as i8;
        }
    }

    /// The head shared by Q4_K and Q5_K: both halves and eight six-bit scales and mins in twelve bytes.
    fn scales_and_mins(&mut self, bytes: &[u8]) {
        (self.d, self.dmin) = (half_at(bytes, 0), half_at(bytes, 2));
        let packed = &bytes[4..16];
        for sub in 0..8 {
            let (scale, min) = if sub < 4 {
                (packed[sub] & 63, packed[sub + 4] & 63)
            } else {
                (packed[sub + 4] & 15 | packed[sub - 4] >> 6 << 4, packed[sub + 4] >> 4 | packed[sub] >> 6 << 4)
            };
            self.scales[2 * sub..2 * sub + 2].fill(scale as i8);
            self.mins[2 * sub..2 * sub + 2].fill(min as i8);
        }
    }
}
