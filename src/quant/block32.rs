//! Formats of 32 elements with one scale: Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, IQ4_NL, MXFP4.

use super::{Format, half_at, tables};

/// A block as whole numbers and its scale: element j is `scale * codes[j] + min`.
#[derive(Clone, Debug)]
pub struct Block32 {
    pub codes: [i8; 32],
    pub scale: f32,
    /// Minus zero in the formats without one: adding it changes no value, not even a minus zero.
    pub min: f32,
}

impl Default for Block32 {
    fn default() -> Self {
        Block32 { codes: [0; 32], scale: 0.0, min: -0.0 }
    }
}

impl Block32 {
    /// Takes `bytes`, one whole block of `format`, apart.
    pub fn unpack(&mut self, format: Format, bytes: &[u8]) {
        self.scale = match format {
            Format::MXFP4 => tables::mxfp4_scale(bytes[0]),
            _ => half_at(bytes, 0),
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
            _ => unreachable!("{} has no blocks of 32 elements", format.name()),
        }
    }

    /// Writes the 32 values.
    pub fn values(&self, out: &mut [f32]) {
        for (value, code) in out.iter_mut().zip(self.codes) {
            *value = self.scale * code as f32 + self.min;
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
