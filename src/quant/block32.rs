//! Formats with a scale for 16 to 128 elements, 32 elements at a time: Q1_0, Q2_0, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, IQ4_NL,
//! MXFP4, NVFP4.

use super::{Format, half_at, tables};

/// 32 elements of a block as whole numbers and their scales: element j is `scales[j/16] * codes[j] + min`. Both halves have
/// the same scale in all formats but NVFP4.
#[derive(Clone, Debug)]
pub struct Block32 {
    pub codes: [i8; 32],
    pub scales: [f32; 2],
    /// Minus zero in the formats without one: adding it changes no value, not even a minus zero.
    pub min: f32,
}

impl Default for Block32 {
    fn default() -> Self {
        Block32 { codes: [0; 32], scales: [0.0; 2], min: -0.0 }
    }
}

impl Block32 {
    /// Takes the elements from `32 * part` on of `bytes`, one whole block of `format`, apart.
    pub fn unpack(&mut self, format: Format, bytes: &[u8], part: usize) {
        self.scales = match format {
            Format::MXFP4 => [tables::mxfp4_scale(bytes[0]); 2],
            Format::NVFP4 => [0, 1].map(|half| tables::nvfp4_scale(bytes[2 * part + half])),
            _ => [half_at(bytes, 0); 2],
        };
        self.min = match format {
            Format::Q4_1 | Format::Q5_1 => half_at(bytes, 2),
            _ => -0.0,
        };
        match format {
            Format::Q4_0 => self.nibbles(&bytes[2..], |q| q as i8 - 8),
            Format::Q4_1 => self.nibbles(&bytes[4..], |q| q as i8),
            Format::Q5_0 => {
                self.nibbles(&bytes[6..], |q| q as i8 - 16);
                self.fifth_bits(&bytes[2..]);
            }
            Format::Q5_1 => {
                self.nibbles(&bytes[8..], |q| q as i8);
                self.fifth_bits(&bytes[4..]);
            }
            Format::IQ4_NL => self.nibbles(&bytes[2..], |q| tables::IQ4[q as usize]),
            Format::MXFP4 => self.nibbles(&bytes[1..], |q| tables::MXFP4[q as usize]),
            Format::Q8_0 => {
                for (code, byte) in self.codes.iter_mut().zip(&bytes[2..]) {
                    *code = *byte as i8;
                }
            }
            Format::NVFP4 => {
                for (j, code) in self.codes.iter_mut().enumerate() {
                    let byte = bytes[4 + 16 * part + 8 * (j / 16) + j % 8];
                    *code = tables::MXFP4[(byte >> (4 * (j / 8 % 2)) & 15) as usize];
                }
            }
            Format::Q1_0 => {
                for (j, code) in self.codes.iter_mut().enumerate() {
                    *code = 2 * (bytes[2 + 4 * part + j / 8] >> (j % 8) & 1) as i8 - 1;
                }
            }
            Format::Q2_0 => {
                for (j, code) in self.codes.iter_mut().enumerate() {
                    *code = (bytes[2 + 8 * part + j / 4] >> (2 * (j % 4)) & 3) as i8 - 1;
                }
            }
            _ => unreachable!("{} is not taken apart 32 elements at a time", format.name()),
        }
    }

    /// Writes the 32 values.
    pub fn values(&self, out: &mut [f32]) {
        for ((values, codes), scale) in out.chunks_mut(16).zip(self.codes.chunks(16)).zip(self.scales) {
            for (value, code) in values.iter_mut().zip(codes) {
                *value = scale * *code as f32 + self.min;
            }
        }
    }

    /// Low nibbles are elements 0..16, high nibbles elements 16..32.
    fn nibbles(&mut self, packed: &[u8], value: impl Fn(u8) -> i8) {
        for (j, byte) in packed[..16].iter().enumerate() {
            self.codes[j] = value(byte & 15);
            self.codes[j + 16] = value(byte >> 4);
        }
    }

    fn fifth_bits(&mut self, bits: &[u8]) {
        let bits = u32::from_le_bytes([bits[0], bits[1], bits[2], bits[3]]);
        for (j, code) in self.codes.iter_mut().enumerate() {
            *code += ((bits >> j & 1) << 4) as i8;
        }
    }
}
