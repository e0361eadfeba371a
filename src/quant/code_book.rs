//! IQ1, IQ2 and IQ3: eight or four codes at a time are a point of a grid, and most have signs of their own.
//!
//! Scales are odd numbers, and `d` is taken by eighths or fourths where the file's formula has halves in it: so the values
//! are products of whole numbers with one single.

use super::block256::Block256;
use super::{Format, grids, half_at, tables};
use crate::elementary::f16_to_f32;

impl Block256 {
    /// Takes a block apart if its format is one of those here.
    pub(super) fn code_book(&mut self, format: Format, bytes: &[u8]) -> bool {
        match format {
            Format::IQ1_S => self.iq1_s(bytes),
            Format::IQ1_M => self.iq1_m(bytes),
            Format::IQ2_XXS => self.iq2_xxs(bytes),
            Format::IQ2_XS => self.iq2_xs(bytes),
            Format::IQ2_S => self.iq2_s(bytes),
            Format::IQ3_XXS => self.iq3_xxs(bytes),
            Format::IQ3_S => self.iq3_s(bytes),
            _ => return false,
        }
        true
    }

    fn iq1_s(&mut self, bytes: &[u8]) {
        for sub in 0..8 {
            let high = u16_at(bytes, 34 + 2 * sub);
            for n in 0..4 {
                let point = bytes[2 + 4 * sub + n] as u16 | (high >> (3 * n) & 7) << 8;
                self.shifted_eight(4 * sub + n, point, high >> 15 == 1);
            }
            self.scales[2 * sub..][..2].fill(2 * (high >> 12 & 7) as i8 + 1);
        }
        self.d = 0.125 * half_at(bytes, 0);
    }

    fn iq1_m(&mut self, bytes: &[u8]) {
        let packed: [u16; 4] = std::array::from_fn(|i| u16_at(bytes, 48 + 2 * i));
        for n in 0..32 {
            let high = bytes[32 + n / 2] >> (4 * (n % 2)) & 15;
            self.shifted_eight(n, bytes[n] as u16 | (high as u16 & 7) << 8, high >> 3 == 1);
        }
        for (sub, scale) in self.scales.iter_mut().enumerate() {
            *scale = 2 * (packed[sub / 4] >> (3 * (sub % 4)) & 7) as i8 + 1;
        }
        let d = packed[0] >> 12 | packed[1] >> 12 << 4 | packed[2] >> 12 << 8 | packed[3] >> 12 << 12;
        self.d = 0.125 * f16_to_f32(d);
    }

    fn iq2_xxs(&mut self, bytes: &[u8]) {
        for sub in 0..8 {
            let signs = u32_at(bytes, 2 + 8 * sub + 4);
            for n in 0..4 {
                let point = grids::IQ2_XXS[bytes[2 + 8 * sub + n] as usize];
                self.signed_eight(4 * sub + n, point, tables::even_signs((signs >> (7 * n)) as u8 & 127));
            }
            self.scales[2 * sub..][..2].fill(2 * (signs >> 28) as i8 + 1);
        }
        self.d = 0.125 * half_at(bytes, 0);
    }

    fn iq2_xs(&mut self, bytes: &[u8]) {
        for n in 0..32 {
            let packed = u16_at(bytes, 2 + 2 * n);
            self.signed_eight(n, grids::IQ2_XS[packed as usize & 511], tables::even_signs((packed >> 9) as u8));
        }
        self.odd_scales(&bytes[66..]);
        self.d = 0.125 * half_at(bytes, 0);
    }

    fn iq2_s(&mut self, bytes: &[u8]) {
        for n in 0..32 {
            let high = bytes[66 + n / 4] >> (2 * (n % 4)) & 3;
            let point = bytes[2 + n] as usize | (high as usize) << 8;
            self.signed_eight(n, grids::IQ2_S[point], bytes[34 + n]);
        }
        self.odd_scales(&bytes[74..]);
        self.d = 0.125 * half_at(bytes, 0);
    }

    fn iq3_xxs(&mut self, bytes: &[u8]) {
        for sub in 0..8 {
            let signs = u32_at(bytes, 66 + 4 * sub);
            for n in 0..8 {
                let point = grids::IQ3_XXS[bytes[2 + 8 * sub + n] as usize];
                let signs = tables::even_signs((signs >> (7 * (n / 2))) as u8 & 127);
                self.signed_four(8 * sub + n, point, &tables::IQ3_XXS, signs >> (4 * (n % 2)));
            }
            self.scales[2 * sub..][..2].fill(2 * (signs >> 28) as i8 + 1);
        }
        self.d = 0.25 * half_at(bytes, 0);
    }

    fn iq3_s(&mut self, bytes: &[u8]) {
        for n in 0..64 {
            let point = bytes[2 + n] as usize | (bytes[66 + n / 8] as usize >> (n % 8) & 1) << 8;
            let signs = bytes[74 + n / 2] >> (4 * (n % 2));
            self.signed_four(n, grids::IQ3_S[point], &tables::IQ3_S, signs);
        }
        for sub in 0..8 {
            let scale = bytes[106 + sub / 2] >> (4 * (sub % 2)) & 15;
            self.scales[2 * sub..][..2].fill(2 * scale as i8 + 1);
        }
        self.d = half_at(bytes, 0);
    }

    /// Four bits for each sub-block of 16.
    fn odd_scales(&mut self, packed: &[u8]) {
        for (sub, scale) in self.scales.iter_mut().enumerate() {
            *scale = 2 * (packed[sub / 2] >> (4 * (sub % 2)) & 15) as i8 + 1;
        }
    }

    /// The `n`-th eight codes of IQ1: -1, 0 or 1, all of them an eighth more or less, times eight.
    fn shifted_eight(&mut self, n: usize, point: u16, down: bool) {
        let shift = if down { -1 } else { 1 };
        for (i, code) in self.codes[8 * n..][..8].iter_mut().enumerate() {
            *code = 8 * ((grids::IQ1[point as usize] >> (2 * i) & 3) as i8 - 1) + shift;
        }
    }

    /// The `n`-th eight codes of IQ2.
    fn signed_eight(&mut self, n: usize, point: u16, signs: u8) {
        for (i, code) in self.codes[8 * n..][..8].iter_mut().enumerate() {
            let level = tables::IQ2[(point >> (2 * i) & 3) as usize] as i8;
            *code = if signs >> i & 1 == 1 { -level } else { level };
        }
    }

    /// The `n`-th four codes of IQ3.
    fn signed_four(&mut self, n: usize, point: u16, levels: &[u8; 8], signs: u8) {
        for (i, code) in self.codes[4 * n..][..4].iter_mut().enumerate() {
            let level = levels[(point >> (3 * i) & 7) as usize] as i8;
            *code = if signs >> i & 1 == 1 { -level } else { level };
        }
    }
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}
