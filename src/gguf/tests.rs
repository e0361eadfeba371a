//! What must be refused, and what the message then says.

use std::cell::RefCell;
use std::collections::HashMap;

use super::write::Writer;
use super::*;
use crate::error::{Error, Status};
use crate::quant::Format;

/// A file put together by hand, so that it can say anything.
#[derive(Default)]
struct Raw(Vec<u8>);

impl Raw {
    fn header(version: u32, tensors: u64, entries: u64) -> Raw {
        Raw(b"GGUF".to_vec()).u32(version).u64(tensors).u64(entries)
    }

    fn u8(mut self, v: u8) -> Raw {
        self.0.push(v);
        self
    }

    fn u32(mut self, v: u32) -> Raw {
        self.0.extend(v.to_le_bytes());
        self
    }

    fn u64(mut self, v: u64) -> Raw {
        self.0.extend(v.to_le_bytes());
        self
    }

    fn string(self, v: impl AsRef<[u8]>) -> Raw {
        let mut raw = self.u64(v.as_ref().len() as u64);
        raw.0.extend(v.as_ref());
        raw
    }

    /// A directory entry of an F32 tensor.
    fn tensor(self, name: &str, dims: &[u64], offset: u64) -> Raw {
        self.typed_tensor(name, dims, 0, offset)
    }

    fn typed_tensor(self, name: &str, dims: &[u64], id: u32, offset: u64) -> Raw {
        let raw = self.string(name).u32(dims.len() as u32);
        dims.iter().fold(raw, |raw, &dim| raw.u64(dim)).u32(id).u64(offset)
    }

    fn pad(mut self, more: usize) -> Raw {
        self.0.resize(self.0.len().next_multiple_of(32) + more, 0);
        self
    }

    fn refused(self, status: Status, parts: &[&str]) {
        refused(&read_file(&self.0, "model.gguf").expect_err("must be refused"), status, parts);
    }
}

#[track_caller]
fn refused(error: &Error, status: Status, parts: &[&str]) {
    let message = error.message();
    assert_eq!(error.status(), status, "{message}");
    assert!(message.starts_with("model"), "the message names the file: {message}");
    for part in parts {
        assert!(message.contains(part), "{part:?} is not in {message:?}");
    }
}

#[test]
fn a_file_that_is_not_gguf_is_refused_with_its_first_bytes() {
    Raw(Vec::new()).refused(Status::Format, &["not a GGUF file", "0 bytes"]);
    Raw(b"ggjtxxxxxxxxxxxxxxxxxxxxxxxx".to_vec()).refused(Status::Format, &["not a GGUF file", "67 67 6a 74"]);
}

#[test]
fn other_versions_and_byte_orders_are_unsupported_by_name() {
    Raw::header(1, 0, 0).refused(Status::Unsupported, &["version 1"]);
    Raw::header(0, 0, 0).refused(Status::Unsupported, &["version 0"]);
    Raw::header(4, 0, 0).refused(Status::Unsupported, &["version 4"]);
    Raw::header(3u32.swap_bytes(), 0, 0).refused(Status::Unsupported, &["big-endian", "version 3"]);
}

#[test]
fn versions_2_and_3_are_read() {
    for version in [2, 3] {
        assert_eq!(read_file(&Raw::header(version, 0, 0).0, "model").unwrap().version, version);
    }
}

#[test]
fn counts_beyond_the_file_are_refused_before_anything_is_allocated() {
    Raw::header(3, 0, u64::MAX).refused(Status::Format, &["18446744073709551615 metadata entries"]);
    Raw::header(3, 0, 1 << 40).refused(Status::Format, &["1099511627776 metadata entries", "0 bytes remain"]);
    Raw::header(3, 1 << 60, 0).refused(Status::Format, &["tensors", "0 bytes remain"]);
    for (id, name) in [(0, "array elements"), (12, "array elements"), (8, "strings"), (9, "arrays")] {
        let array = Raw::header(3, 0, 1).string("key").u32(9).u32(id).u64(1 << 50);
        array.refused(Status::Format, &["\"key\"", name, "1125899906842624"]);
    }
    let string = Raw::header(3, 0, 1).string("key").u32(8).u64(u64::MAX);
    string.refused(Status::Format, &["\"key\"", "18446744073709551615 bytes of a string"]);
    let strings = Raw::header(3, 0, 1).string("key").u32(9).u32(8).u64(1).u64(1 << 40);
    strings.refused(Status::Format, &["\"key\"", "1099511627776 bytes, 0 remain"]);
}

#[test]
fn keys_must_be_short_utf8_and_unique() {
    Raw::header(3, 0, 1).string("").pad(32).refused(Status::Format, &["entry 0 of 1", "0 bytes"]);
    Raw::header(3, 0, 1).string([b'k'; 65536]).u32(0).u8(0).refused(Status::Format, &["65536 bytes"]);
    Raw::header(3, 0, 1).string([0xff]).u32(0).u8(0).refused(Status::Format, &["entry 0 of 1", "not UTF-8"]);
    let twice = Raw::header(3, 0, 3).string("a").u32(4).u32(1).string("b").u32(4).u32(1).string("a").u32(0).u8(1);
    twice.refused(Status::Format, &["\"a\" occurs twice"]);
}

#[test]
fn value_types_and_bools_outside_the_format_are_refused() {
    Raw::header(3, 0, 1).string("key").u32(13).u64(0).refused(Status::Format, &["\"key\"", "value type 13"]);
    Raw::header(3, 0, 1).string("key").u32(9).u32(13).u64(0).refused(Status::Format, &["\"key\"", "value type 13"]);
    Raw::header(3, 0, 1).string("key").u32(7).u8(2).refused(Status::Format, &["\"key\"", "stored as 2"]);
    let bools = Raw::header(3, 0, 1).string("key").u32(9).u32(7).u64(2).u8(1).u8(3);
    bools.refused(Status::Format, &["\"key\"", "stored as 3"]);
}

#[test]
fn arrays_nest_four_deep_and_no_deeper() {
    let nested = |depth: u32| {
        let raw = Raw::header(3, 0, 1).string("key").u32(9);
        (1..depth).fold(raw, |raw, _| raw.u32(9).u64(1)).u32(0).u64(1).u8(7)
    };
    assert!(read_file(&nested(4).0, "model").is_ok());
    nested(5).refused(Status::Format, &["\"key\"", "nested more than 4 deep"]);
    nested(100_000).refused(Status::Format, &["nested more than 4 deep"]);
}

#[test]
fn alignment_must_be_a_power_of_two() {
    for alignment in [0u32, 3, 48, 1 << 31] {
        let raw = Raw::header(3, 0, 1).string("general.alignment").u32(4).u32(alignment);
        raw.refused(Status::Format, &["general.alignment", &alignment.to_string()]);
    }
    Raw::header(3, 0, 1).string("general.alignment").u32(8).string("32").refused(Status::Format, &["found string"]);
}

#[test]
fn tensor_names_must_be_short_utf8_and_unique() {
    Raw::header(3, 1, 0).tensor("", &[1], 0).pad(32).refused(Status::Format, &["tensor 0 of 1", "0 bytes"]);
    let long = "n".repeat(65);
    Raw::header(3, 1, 0).tensor(&long, &[1], 0).pad(32).refused(Status::Format, &["tensor 0 of 1", "65 bytes"]);
    assert!(read_file(&Raw::header(3, 1, 0).tensor(&long[1..], &[1], 0).pad(32).0, "model").is_ok());
    let raw = Raw::header(3, 1, 0).string([0xc3, 0x28]).u32(1).u64(1).u32(0).u64(0).pad(32);
    raw.refused(Status::Format, &["tensor 0 of 1", "not UTF-8"]);
    let twice = Raw::header(3, 2, 0).tensor("a", &[1], 0).tensor("a", &[1], 32).pad(64);
    twice.refused(Status::Format, &["tensor \"a\" occurs twice"]);
}

#[test]
fn dimensions_must_be_1_to_4_none_zero_without_overflow() {
    Raw::header(3, 1, 0).tensor("a", &[], 0).pad(64).refused(Status::Format, &["\"a\"", "0 dimensions"]);
    Raw::header(3, 1, 0).tensor("a", &[1; 5], 0).pad(64).refused(Status::Format, &["\"a\"", "5 dimensions"]);
    Raw::header(3, 1, 0).tensor("a", &[4, 0], 0).pad(64).refused(Status::Format, &["\"a\"", "[4, 0]"]);
    let dims = [1 << 32, 1 << 31, 2];
    Raw::header(3, 1, 0).tensor("a", &dims, 0).pad(64).refused(Status::Format, &["\"a\"", "more than 64 bits"]);
    let dims = [1 << 62, 2];
    Raw::header(3, 1, 0).tensor("a", &dims, 0).pad(64).refused(Status::Format, &["\"a\"", "more bytes than 64 bits"]);
}

#[test]
fn rows_must_be_whole_blocks() {
    let raw = Raw::header(3, 1, 0).typed_tensor("a", &[128, 2], 12, 0).pad(512);
    raw.refused(Status::Format, &["\"a\"", "128 elements", "Q4_K blocks of 256"]);
}

#[test]
fn tensor_types_without_a_decoder_are_unsupported_by_name() {
    for (id, name) in [(24, "I8"), (26, "I32"), (27, "I64"), (28, "F64"), (999, "the unknown type 999")] {
        Raw::header(3, 1, 0).typed_tensor("a", &[256], id, 0).pad(512).refused(Status::Unsupported, &["\"a\"", name]);
    }
}

#[test]
fn tensors_must_be_aligned_and_inside_the_file() {
    Raw::header(3, 1, 0).tensor("a", &[1], 16).pad(64).refused(Status::Format, &["\"a\"", "16", "alignment 32"]);
    // The header takes 24 bytes and the directory 33, so the data starts at 64.
    let raw = || Raw::header(3, 1, 0).tensor("a", &[8], 32);
    assert_eq!(read_file(&raw().pad(64).0, "model").unwrap().tensors[0].offset, 96);
    raw().pad(63).refused(Status::Format, &["\"a\"", "ends at byte 128", "127 bytes"]);
    let raw = Raw::header(3, 1, 0).tensor("a", &[8], u64::MAX - 31).pad(64);
    raw.refused(Status::Format, &["\"a\"", "18446744073709551584"]);
    let raw = Raw::header(3, 1, 0).tensor("a", &[1 << 40], 0).pad(64);
    raw.refused(Status::Format, &["ends at byte 4398046511168", "128 bytes"]);
}

#[test]
fn tensors_must_not_overlap_in_whatever_order_they_stand() {
    let raw = Raw::header(3, 2, 0).tensor("b", &[9], 32).tensor("a", &[9], 0).pad(128);
    raw.refused(Status::Format, &["\"a\" and \"b\" overlap", "ends at byte 132", "starts at byte 128"]);
    let raw = Raw::header(3, 2, 0).tensor("b", &[9], 32).tensor("a", &[8], 0).pad(128);
    assert!(read_file(&raw.0, "model").is_ok());
}

#[test]
fn a_failing_read_is_an_io_error_that_names_the_file() {
    struct Broken(u64);
    impl Input for Broken {
        fn len(&self) -> u64 {
            self.0
        }
        fn read_exact_at(&self, offset: u64, _: &mut [u8]) -> crate::Result<()> {
            Err(Error::io(format!("device error at {offset}")))
        }
    }
    let error = read_file(&Broken(1 << 40), "model.gguf").unwrap_err();
    refused(&error, Status::Io, &["device error at 0"]);
}

#[test]
fn metadata_is_read_within_the_memory_allowed_for_it() {
    let mut writer = Writer::new();
    let tokens: Strings = (0..10_000).map(|i| format!("token {i}")).collect();
    writer.set("tokens", tokens).set("scores", vec![0f32; 10_000]);
    let mut bytes = Vec::new();
    writer.write(&mut bytes, |_, _| Ok(())).unwrap();

    let needed = read_file(&bytes, "model").unwrap().metadata.memory_bytes();
    assert!((178_890..179_500).contains(&needed), "{needed} bytes, of which 98890 + 40000 + 40000 are the arrays");
    assert!(read_file_within(&bytes, "model", needed + 1000).is_ok());
    let error = read_file_within(&bytes, "model", needed - 1000).unwrap_err();
    refused(&error, Status::MemoryBudget, &[&(needed - 1000).to_string()]);
}

/// A part of a split with tensors of one F32 element each.
fn part(keys: &[(&str, Value)], tensors: &[&str]) -> Vec<u8> {
    let mut writer = Writer::new();
    for (key, value) in keys {
        writer.set(*key, value.clone());
    }
    for name in tensors {
        writer.tensor(*name, &[1], Format::F32).unwrap();
    }
    let mut bytes = Vec::new();
    writer.write(&mut bytes, |_, out| out.write_all(&1f32.to_le_bytes())).unwrap();
    bytes
}

fn place(no: u16, count: u16, total: i32) -> [(&'static str, Value); 3] {
    [("split.no", no.into()), ("split.count", count.into()), ("split.tensors.count", total.into())]
}

/// Opens `first` where only `files` can be opened beside it.
fn open(name: &str, first: Vec<u8>, files: &[(&str, Vec<u8>)]) -> crate::Result<Directory> {
    open_split(name, first, u64::MAX, |name| match files.iter().find(|(known, _)| *known == name) {
        Some((_, bytes)) => Ok(bytes.clone()),
        None => Err(Error::io(format!("{name}: no such file"))),
    })
    .map(|(directory, inputs)| {
        assert_eq!(inputs.len(), directory.file_count());
        directory
    })
}

const FIRST: &str = "model-00001-of-00002.gguf";
const SECOND: &str = "model-00002-of-00002.gguf";

#[test]
fn opening_the_first_file_opens_all() {
    let files = [(SECOND, part(&place(1, 2, 3), &["b", "c"]))];
    let directory = open(FIRST, part(&place(0, 2, 3), &["a"]), &files).unwrap();
    assert_eq!(directory.file_count(), 2);
    assert_eq!(directory.tensors().len(), 3);
    assert_eq!(directory.tensor("a").unwrap().file, 0);
    assert_eq!(directory.tensor("c").unwrap().file, 1);
    assert_eq!(directory.parts[1].name, SECOND);
    assert_eq!(directory.file_bytes(), directory.parts[0].bytes + files[0].1.len() as u64);
}

#[test]
fn opening_another_part_names_the_first() {
    let error = open(SECOND, part(&place(1, 2, 3), &["b"]), &[]).unwrap_err();
    refused(&error, Status::InvalidArgument, &[SECOND, "part 2 of 2", FIRST]);
    let error = open("model.gguf", part(&place(1, 2, 3), &["b"]), &[]).unwrap_err();
    refused(&error, Status::InvalidArgument, &["part 2 of 2", "-00001-of-00002.gguf"]);
}

#[test]
fn a_split_file_must_have_the_name_of_its_place() {
    for name in ["model.gguf", "model-00002-of-00002.gguf", "model-00001-of-00003.gguf", "model-+0001-of-00002.gguf"] {
        let error = open(name, part(&place(0, 2, 1), &["a"]), &[]).unwrap_err();
        refused(&error, Status::Format, &[name, "does not end in -00001-of-00002.gguf"]);
    }
}

#[test]
fn a_missing_part_is_named() {
    let error = open(FIRST, part(&place(0, 2, 3), &["a"]), &[]).unwrap_err();
    let error = error.context("model");
    refused(&error, Status::Io, &["part 2 of 2", SECOND, "no such file"]);
}

#[test]
fn parts_that_contradict_one_another_are_refused() {
    let first = || part(&place(0, 2, 2), &["a"]);
    let cases: [(Vec<u8>, &[&str]); 6] = [
        (part(&place(0, 2, 2), &["b"]), &["part 2 of 2", "\"split.no\" is 0, expected 1"]),
        (part(&place(1, 3, 2), &["b"]), &["part 2 of 2", "\"split.count\" is 3, expected 2"]),
        (part(&place(1, 2, 9), &["b"]), &["part 2 of 2", "\"split.tensors.count\" is 9, expected 2"]),
        (part(&place(1, 2, 2)[1..], &["b"]), &["part 2 of 2", "\"split.no\" is missing"]),
        (part(&place(1, 2, 2), &["b", "c"]), &["\"split.tensors.count\" is 2", "3 tensors"]),
        (part(&place(1, 2, 2), &["a"]), &["tensor \"a\" is in", FIRST, SECOND]),
    ];
    for (second, parts) in cases {
        let error = open(FIRST, first(), &[(SECOND, second)]).unwrap_err().context("model");
        refused(&error, Status::Format, parts);
    }
}

#[test]
fn counts_of_parts_must_make_sense() {
    let error = open(FIRST, part(&place(0, 0, 1), &["a"]), &[]).unwrap_err();
    refused(&error, Status::Format, &["\"split.count\" is 0"]);
    let error = open(FIRST, part(&place(2, 2, 1), &["a"]), &[]).unwrap_err();
    refused(&error, Status::Format, &["\"split.no\" is 2 of 2"]);
    let error = open(FIRST, part(&[("split.count", 100_000u32.into())], &["a"]), &[]).unwrap_err();
    refused(&error, Status::Format, &["\"split.count\" is 100000"]);
    let error = open(FIRST, part(&place(0, 1, 5), &["a"]), &[]).unwrap_err();
    refused(&error, Status::Format, &["\"split.tensors.count\" is 5", "1 tensors"]);
}

#[test]
fn the_memory_allowed_is_for_all_files_together() {
    let names: Vec<String> = (0..100).map(|i| format!("tensor.{i:03}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let open = |limit| {
        let second = part(&place(1, 2, 100), &names[50..]);
        open_split(FIRST, part(&place(0, 2, 100), &names[..50]), limit, |_| Ok(second.clone()))
    };
    let needed = open(u64::MAX).unwrap().0.memory_bytes();
    // Both halves sort their names before they are put together.
    assert!(open(needed + 1000).is_ok());
    let error = open(needed * 3 / 4).unwrap_err().context("model");
    refused(&error, Status::MemoryBudget, &["part 2 of 2", SECOND]);
}

#[test]
fn a_split_of_one_needs_no_special_name() {
    assert_eq!(open("model.gguf", part(&place(0, 1, 1), &["a"]), &[]).unwrap().file_count(), 1);
}

#[test]
fn getters_take_what_fits_and_name_the_key_when_it_does_not() {
    let mut metadata = Metadata::default();
    let mut set = |key: &str, value: Value| metadata.entries.push((key.to_owned(), value));
    set("u8", 7u8.into());
    set("i64", 7i64.into());
    set("negative", (-7i32).into());
    set("large", u64::MAX.into());
    set("f32", 0.5f32.into());
    set("f64", 0.25f64.into());
    set("bool", true.into());
    set("text", "llama".into());
    set("bytes", Value::String([0xff].into()));
    set("array", vec![1i32, 2].into());

    assert_eq!(metadata.get_u32("u8").unwrap(), Some(7));
    assert_eq!(metadata.get_u32("i64").unwrap(), Some(7));
    assert_eq!(metadata.get_u64("large").unwrap(), Some(u64::MAX));
    assert_eq!(metadata.get_i32("negative").unwrap(), Some(-7));
    assert_eq!(metadata.get_f32("f32").unwrap(), Some(0.5));
    assert_eq!(metadata.get_f32("f64").unwrap(), Some(0.25));
    assert_eq!(metadata.get_bool("bool").unwrap(), Some(true));
    assert_eq!(metadata.get_str("text").unwrap(), Some("llama"));
    assert_eq!(metadata.get_array("array").unwrap().unwrap().integer(1), Some(2));
    assert_eq!(metadata.get_u32("absent").unwrap(), None);

    let failures = [
        (metadata.require_u32("absent").err(), "\"absent\" is missing"),
        (metadata.get_u32("negative").err(), "\"negative\": expected an integer from 0 to 4294967295, found i32 -7"),
        (metadata.get_u32("large").err(), "found u64 18446744073709551615"),
        (metadata.get_u64("f32").err(), "found f32 0.5"),
        (metadata.get_u32("text").err(), "found string"),
        (metadata.get_f32("u8").err(), "\"u8\": expected an f32 or f64, found u8 7"),
        (metadata.get_bool("u8").err(), "expected a bool"),
        (metadata.get_str("array").err(), "expected a string, found array of 2 i32"),
        (metadata.get_str("bytes").err(), "\"bytes\": the string is not UTF-8"),
        (metadata.get_array("text").err(), "expected an array, found string"),
    ];
    for (error, part) in failures {
        let error = error.unwrap();
        assert_eq!(error.status(), Status::Format);
        assert!(error.message().contains(part), "{part:?} is not in {:?}", error.message());
    }
}

#[test]
fn scalars_and_strings_are_text_and_arrays_are_not() {
    let texts = [
        (Value::from(7u8), "7"),
        (Value::from(-7i64), "-7"),
        (Value::from(1e-5f32), "0.00001"),
        (Value::from(false), "false"),
        (Value::from("llama"), "llama"),
        (Value::String([b'a', 0xff].into()), "a\u{fffd}"),
    ];
    for (value, text) in texts {
        assert_eq!(value_as_text(&value).as_deref(), Some(text));
    }
    assert_eq!(value_as_text(&vec![1u8].into()), None);
}

#[test]
fn taking_a_value_out_gives_its_memory_away() {
    let mut metadata = Metadata::default();
    let scores = vec![1f32; 1000];
    let address = scores.as_ptr();
    metadata.entries.push(("scores".to_owned(), scores.into()));
    let before = metadata.memory_bytes();
    let Some(Value::Array(Array::F32(taken))) = metadata.take("scores") else { panic!("it was there") };
    assert_eq!(taken.as_ptr(), address, "moved, not copied");
    assert_eq!(before - metadata.memory_bytes(), 4000 + 6);
    assert_eq!(metadata.take("scores"), None);
}

#[test]
fn a_required_tensor_must_be_there_in_its_shape() {
    let mut writer = Writer::new();
    writer.tensor("w", &[4, 2], Format::F32).unwrap();
    let mut bytes = Vec::new();
    writer.write(&mut bytes, |_, out| out.write_all(&[0; 32])).unwrap();
    let directory = open("model", bytes, &[]).unwrap();
    let tensor = directory.require_tensor("w", &[4, 2]).unwrap();
    assert_eq!((tensor.rows(), tensor.row_bytes(), tensor.elements()), (2, 16, 8));
    assert!(directory.require_tensor("w", &[4, 2, 1, 1]).is_ok());
    for (name, dims, part) in [
        ("v", vec![4, 2], "\"v\" is missing"),
        ("w", vec![2, 4], "expected shape [2, 4], found [4, 2]"),
        ("w", vec![4, 2, 1, 1, 2], "found [4, 2]"),
        ("w", vec![4], "expected shape [4], found [4, 2]"),
    ] {
        let error = directory.require_tensor(name, &dims).unwrap_err();
        assert_eq!(error.status(), Status::Format);
        assert!(error.message().contains(part), "{part:?} is not in {:?}", error.message());
    }
}

/// One value of every type the format has.
fn every_value() -> Vec<Value> {
    let strings: Strings = ["", "a", "\u{2581}the"].into_iter().collect();
    vec![
        Value::U8(1),
        Value::I8(-1),
        Value::U16(2),
        Value::I16(-2),
        Value::U32(3),
        Value::I32(-3),
        Value::F32(0.1),
        Value::Bool(true),
        "text".into(),
        Value::U64(1 << 40),
        Value::I64(-(1 << 40)),
        Value::F64(0.1),
        vec![1u8, 2].into(),
        vec![-1i8].into(),
        vec![1u16].into(),
        vec![-1i16].into(),
        (0..2000).collect::<Vec<u32>>().into(),
        vec![-1i32].into(),
        vec![0.5f32].into(),
        vec![true, false].into(),
        vec![1u64].into(),
        vec![-1i64].into(),
        vec![0.5f64].into(),
        strings.clone().into(),
        Array::Array(vec![Array::U8(vec![]), Array::String(strings)]).into(),
        // Larger than the reader's buffer, so that it is read around it.
        Value::String(vec![b'x'; 300_000].into()),
    ]
}

#[test]
fn what_the_writer_writes_the_reader_reads() {
    for (version, alignment) in [(2, 32), (3, 64), (3, 4096)] {
        let mut writer = Writer::new();
        writer.version(version);
        if alignment != 32 {
            writer.alignment(alignment).unwrap();
        }
        for (i, value) in every_value().into_iter().enumerate() {
            writer.set(format!("key.{i}"), value);
        }
        writer.tensor("a", &[3], Format::F32).unwrap();
        writer.tensor("b", &[256, 2, 3], Format::Q4_K).unwrap();
        let mut bytes = Vec::new();
        let fill = |tensor: &write::Declared, out: &mut dyn std::io::Write| {
            out.write_all(&vec![tensor.name.as_bytes()[0]; tensor.bytes as usize])
        };
        let length = writer.write(&mut bytes, fill).unwrap();
        assert_eq!(length, bytes.len() as u64);

        let file = read_file(&bytes, "model").unwrap();
        assert_eq!((file.version, file.alignment), (version, u64::from(alignment)));
        for (i, value) in every_value().iter().enumerate() {
            assert_eq!(file.metadata.get(&format!("key.{i}")), Some(value));
        }
        for tensor in &file.tensors {
            let data = &bytes[tensor.offset as usize..][..tensor.bytes as usize];
            assert!(data.iter().all(|byte| *byte == tensor.name.as_bytes()[0]));
        }
        assert_eq!(file.tensors[1].shape(), [256, 2, 3]);
        assert_eq!(file.tensors[1].bytes, 6 * 144);
    }
}

#[test]
fn a_model_written_in_parts_opens_as_one() {
    let mut writer = Writer::new();
    writer.alignment(64).unwrap().set("general.architecture", "llama");
    for i in 0..10 {
        writer.tensor(format!("t{i}"), &[32, 1 + i], Format::Q8_0).unwrap();
    }
    let files = RefCell::new(HashMap::<String, Vec<u8>>::new());
    struct Sink<'a>(&'a RefCell<HashMap<String, Vec<u8>>>, String);
    impl std::io::Write for Sink<'_> {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.borrow_mut().get_mut(&self.1).unwrap().extend(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let create = |name: &str| {
        files.borrow_mut().insert(name.to_owned(), Vec::new());
        Ok(Sink(&files, name.to_owned()))
    };
    writer.write_split("dir/model", 3, create, |t, out| out.write_all(&vec![7; t.bytes as usize])).unwrap();

    let files = files.into_inner();
    assert_eq!(files.len(), 3);
    let first = "dir/model-00001-of-00003.gguf";
    let (directory, inputs) =
        open_split(first, files[first].clone(), u64::MAX, |name| Ok(files[name].clone())).unwrap();
    assert_eq!(inputs.len(), 3);
    assert_eq!(directory.tensors().len(), 10);
    assert_eq!(directory.metadata.get_str("general.architecture").unwrap(), Some("llama"));
    for part in 0..3 {
        assert!(directory.tensors().iter().any(|tensor| tensor.file == part), "part {part} holds tensors");
    }
    for tensor in directory.tensors() {
        let data = &inputs[tensor.file as usize][tensor.offset as usize..][..tensor.bytes as usize];
        assert!(data.iter().all(|byte| *byte == 7));
        assert!(tensor.offset.is_multiple_of(64));
    }
}

#[test]
fn the_writer_refuses_what_cannot_be_a_tensor() {
    let mut writer = Writer::new();
    assert_eq!(writer.tensor("a", &[], Format::F32).unwrap_err().status(), Status::InvalidArgument);
    assert_eq!(writer.tensor("a", &[0], Format::F32).unwrap_err().status(), Status::InvalidArgument);
    assert_eq!(writer.tensor("a", &[1 << 40, 1 << 40], Format::F32).unwrap_err().status(), Status::InvalidArgument);
    assert_eq!(writer.tensor("a", &[33], Format::Q4_0).unwrap_err().status(), Status::Format);
    assert_eq!(writer.alignment(48).unwrap_err().status(), Status::InvalidArgument);
    writer.tensor("a", &[2], Format::F32).unwrap();
    for wrong in [7, 9] {
        let error = writer.write(Vec::new(), |_, out| out.write_all(&vec![0; wrong])).unwrap_err();
        assert_eq!(error.status(), Status::InvalidArgument);
        assert!(error.message().contains(&format!("{wrong} bytes were written, it has 8")), "{error}");
    }
}
