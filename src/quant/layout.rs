//! How the elements of each format lie in memory: blocks of so many elements in so many bytes, rows of whole blocks.

use super::Format;

impl Format {
    /// Every format there is.
    pub const ALL: [Format; 28] = [
        Format::F32,
        Format::F16,
        Format::BF16,
        Format::Q4_0,
        Format::Q4_1,
        Format::Q5_0,
        Format::Q5_1,
        Format::Q8_0,
        Format::Q2_K,
        Format::Q3_K,
        Format::Q4_K,
        Format::Q5_K,
        Format::Q6_K,
        Format::IQ4_NL,
        Format::IQ4_XS,
        Format::MXFP4,
        Format::NVFP4,
        Format::IQ1_S,
        Format::IQ1_M,
        Format::IQ2_XXS,
        Format::IQ2_XS,
        Format::IQ2_S,
        Format::IQ3_XXS,
        Format::IQ3_S,
        Format::TQ1_0,
        Format::TQ2_0,
        Format::Q1_0,
        Format::Q2_0,
    ];

    /// The format with this type id of the file format; `None` where no decoder is built in.
    /// [`type_name`] still names the ids that this refuses.
    pub const fn from_id(id: u32) -> Option<Format> {
        Some(match id {
            0 => Format::F32,
            1 => Format::F16,
            2 => Format::Q4_0,
            3 => Format::Q4_1,
            6 => Format::Q5_0,
            7 => Format::Q5_1,
            8 => Format::Q8_0,
            10 => Format::Q2_K,
            11 => Format::Q3_K,
            12 => Format::Q4_K,
            13 => Format::Q5_K,
            14 => Format::Q6_K,
            16 => Format::IQ2_XXS,
            17 => Format::IQ2_XS,
            18 => Format::IQ3_XXS,
            19 => Format::IQ1_S,
            20 => Format::IQ4_NL,
            21 => Format::IQ3_S,
            22 => Format::IQ2_S,
            23 => Format::IQ4_XS,
            29 => Format::IQ1_M,
            30 => Format::BF16,
            34 => Format::TQ1_0,
            35 => Format::TQ2_0,
            39 => Format::MXFP4,
            40 => Format::NVFP4,
            41 => Format::Q1_0,
            42 => Format::Q2_0,
            _ => return None,
        })
    }

    /// The type id of the file format.
    pub const fn id(self) -> u32 {
        self as u32
    }

    /// The name people know it by, such as `Q4_K`.
    pub const fn name(self) -> &'static str {
        match type_name(self.id()) {
            Some(name) => name,
            None => unreachable!(),
        }
    }

    /// Elements in a block; 1 for the formats without blocks.
    pub const fn block_len(self) -> usize {
        match self {
            Format::F32 | Format::F16 | Format::BF16 => 1,
            Format::Q4_0
            | Format::Q4_1
            | Format::Q5_0
            | Format::Q5_1
            | Format::Q8_0
            | Format::IQ4_NL
            | Format::MXFP4 => 32,
            Format::NVFP4 | Format::Q2_0 => 64,
            Format::Q1_0 => 128,
            Format::Q2_K
            | Format::Q3_K
            | Format::Q4_K
            | Format::Q5_K
            | Format::Q6_K
            | Format::IQ1_S
            | Format::IQ1_M
            | Format::IQ2_XXS
            | Format::IQ2_XS
            | Format::IQ2_S
            | Format::IQ3_XXS
            | Format::IQ3_S
            | Format::IQ4_XS
            | Format::TQ1_0
            | Format::TQ2_0 => 256,
        }
    }

    /// Bytes of a block.
    pub const fn block_bytes(self) -> usize {
        match self {
            Format::F32 => 4,
            Format::F16 | Format::BF16 => 2,
            Format::Q4_0 | Format::IQ4_NL => 18,
            Format::Q4_1 => 20,
            Format::Q5_0 => 22,
            Format::Q5_1 => 24,
            Format::Q8_0 => 34,
            Format::Q2_K => 84,
            Format::Q3_K | Format::IQ3_S => 110,
            Format::Q4_K => 144,
            Format::Q5_K => 176,
            Format::Q6_K => 210,
            Format::IQ4_XS => 136,
            Format::MXFP4 => 17,
            Format::NVFP4 => 36,
            Format::IQ1_S => 50,
            Format::IQ1_M => 56,
            Format::IQ2_XXS | Format::TQ2_0 => 66,
            Format::IQ2_XS => 74,
            Format::IQ2_S => 82,
            Format::IQ3_XXS => 98,
            Format::TQ1_0 => 54,
            Format::Q1_0 | Format::Q2_0 => 18,
        }
    }

    /// Bytes of a row of `k` elements; `None` when `k` is not a whole number of blocks or the size overflows.
    pub const fn row_bytes(self, k: usize) -> Option<usize> {
        if !k.is_multiple_of(self.block_len()) {
            return None;
        }
        (k / self.block_len()).checked_mul(self.block_bytes())
    }
}

/// The name of any tensor type of the file format, those without a decoder here and those withdrawn included,
/// so that a refusal can say what the file holds.
pub const fn type_name(id: u32) -> Option<&'static str> {
    Some(match id {
        0 => "F32",
        1 => "F16",
        2 => "Q4_0",
        3 => "Q4_1",
        4 => "Q4_2",
        5 => "Q4_3",
        6 => "Q5_0",
        7 => "Q5_1",
        8 => "Q8_0",
        9 => "Q8_1",
        10 => "Q2_K",
        11 => "Q3_K",
        12 => "Q4_K",
        13 => "Q5_K",
        14 => "Q6_K",
        15 => "Q8_K",
        16 => "IQ2_XXS",
        17 => "IQ2_XS",
        18 => "IQ3_XXS",
        19 => "IQ1_S",
        20 => "IQ4_NL",
        21 => "IQ3_S",
        22 => "IQ2_S",
        23 => "IQ4_XS",
        24 => "I8",
        25 => "I16",
        26 => "I32",
        27 => "I64",
        28 => "F64",
        29 => "IQ1_M",
        30 => "BF16",
        31 => "Q4_0_4_4",
        32 => "Q4_0_4_8",
        33 => "Q4_0_8_8",
        34 => "TQ1_0",
        35 => "TQ2_0",
        36 => "IQ4_NL_4_4",
        37 => "IQ4_NL_4_8",
        38 => "IQ4_NL_8_8",
        39 => "MXFP4",
        40 => "NVFP4",
        41 => "Q1_0",
        42 => "Q2_0",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_format_is_found_by_its_id_and_no_other_id_is() {
        let mut found = 0;
        for id in 0..1000 {
            if let Some(format) = Format::from_id(id) {
                assert_eq!(format.id(), id);
                assert_eq!(format.name(), format!("{format:?}"));
                assert!(Format::ALL.contains(&format));
                found += 1;
            }
        }
        assert_eq!(found, Format::ALL.len());
    }

    #[test]
    fn the_readme_names_what_is_built_in() {
        let row = |line: &'static str| line.strip_prefix("| weight formats | ")?.strip_suffix(" |");
        let named = include_str!("../../README.md").lines().find_map(row).unwrap();
        assert_eq!(named, Format::ALL.map(Format::name).join(" "));
    }

    #[test]
    fn rows_are_whole_blocks() {
        assert_eq!(Format::Q4_K.row_bytes(4096), Some(2304));
        assert_eq!(Format::Q6_K.row_bytes(256), Some(210));
        assert_eq!(Format::Q8_0.row_bytes(64), Some(68));
        assert_eq!(Format::F32.row_bytes(3), Some(12));
        assert_eq!(Format::Q4_K.row_bytes(128), None);
        assert_eq!(Format::Q4_0.row_bytes(33), None);
        assert_eq!(Format::NVFP4.row_bytes(192), Some(108));
        assert_eq!(Format::NVFP4.row_bytes(32), None);
        assert_eq!(Format::Q1_0.row_bytes(384), Some(54));
        assert_eq!(Format::Q1_0.row_bytes(64), None);
        assert_eq!(Format::F32.row_bytes(usize::MAX), None);
    }

    #[test]
    fn types_without_a_decoder_still_have_names() {
        for (id, name) in [(9, "Q8_1"), (15, "Q8_K"), (24, "I8"), (28, "F64"), (31, "Q4_0_4_4")] {
            assert_eq!(type_name(id), Some(name));
            assert_eq!(Format::from_id(id), None);
        }
        assert_eq!(type_name(1000), None);
    }
}
