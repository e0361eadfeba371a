//! The scalar decoders against values made with an independent implementation (see tests/data/quant/make.py).

use layerline::quant::{Format, decode_row};

/// Every format that has a decoder.
const ALL: [Format; 28] = Format::ALL;

#[test]
fn every_format_decodes_to_the_exact_values() {
    for format in ALL {
        let path = format!("{}/tests/data/quant/{}.bin", env!("CARGO_MANIFEST_DIR"), format.name());
        let file = std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
        let block = format.block_bytes() + 4 * format.block_len();
        assert_eq!(file.len() % block, 0, "{path}");
        let k = file.len() / block * format.block_len();
        let (row, expected) = file.split_at(format.row_bytes(k).unwrap());
        let mut values = vec![f32::NAN; k];
        decode_row(format, row, &mut values);
        for (j, (value, bytes)) in values.iter().zip(expected.as_chunks::<4>().0).enumerate() {
            let expected = f32::from_le_bytes(*bytes);
            assert_eq!(value.to_bits(), expected.to_bits(), "{} element {j}: {value}, not {expected}", format.name());
        }
    }
}

#[test]
fn any_bytes_are_numbers() {
    let mut state = 1u64;
    let mut random = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    for format in ALL {
        let k = 512 / format.block_len() * format.block_len();
        for _ in 0..200 {
            let row: Vec<u8> = (0..format.row_bytes(k).unwrap()).map(|_| random()).collect();
            let mut values = vec![f32::from_bits(0x7fc1_2345); k];
            decode_row(format, &row, &mut values);
            assert!(values.iter().all(|value| value.to_bits() != 0x7fc1_2345), "{}: a value is missing", format.name());
        }
    }
}

#[test]
#[should_panic(expected = "33 elements of Q4_0")]
fn a_row_of_the_wrong_length_is_refused() {
    decode_row(Format::Q4_0, &[0; 18], &mut [0.0; 33]);
}
