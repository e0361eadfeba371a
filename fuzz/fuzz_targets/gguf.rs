//! The bytes of a file, whatever they are: the reader gives an error or a directory that holds what it promises.

#![no_main]

use layerline::Error;
use layerline::gguf::write::Writer;
use layerline::gguf::{Directory, open_split, read_file, value_as_text};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(file) = read_file(&data, "fuzz") else { return };
    let length = data.len() as u64;
    assert!(file.metadata.memory_bytes() <= 8 * length);
    let mut tensors: Vec<_> = file.tensors.iter().collect();
    tensors.sort_by_key(|tensor| tensor.offset);
    let mut end = file.data_offset;
    for tensor in tensors {
        assert!(tensor.offset >= end && tensor.offset.is_multiple_of(file.alignment));
        assert_eq!(tensor.row_bytes() * tensor.rows(), tensor.bytes);
        end = tensor.offset + tensor.bytes;
        assert!(end <= length);
    }
    rewritten(&file);

    // The file stands for every part of the split that it may claim to begin.
    let opened = open_split("fuzz-00001-of-00002.gguf", data, 1 << 30, |_| Ok(data));
    if let Ok((directory, inputs)) = opened {
        assert_eq!(directory.file_count(), inputs.len());
        looked_up(&directory);
    }
});

/// What was read, written again and read again, is the same.
fn rewritten(file: &layerline::gguf::File) {
    let mut writer = Writer::new();
    for (key, value) in &file.metadata.entries {
        // The writer lays tensors out by its own alignment.
        if key != "general.alignment" {
            writer.set(key.clone(), value.clone());
        }
    }
    for tensor in &file.tensors {
        writer.tensor(tensor.name.clone(), tensor.shape(), tensor.format).expect("the reader has accepted it");
    }
    let mut again = Vec::new();
    writer
        .write(&mut again, |tensor, out| out.write_all(&vec![0; tensor.bytes as usize]))
        .expect("memory takes every write");
    let again = read_file(&again, "again").expect("the writer writes what the reader reads");
    for (key, value) in &again.metadata.entries {
        // By text, because a NaN is not equal to itself.
        assert_eq!(format!("{value:?}"), format!("{:?}", file.metadata.get(key).expect("the key was there")));
    }
    assert_eq!(again.tensors.len(), file.tensors.len());
}

/// Every lookup gives a value or an error.
fn looked_up(directory: &Directory) {
    for tensor in directory.tensors() {
        assert_eq!(directory.tensor(&tensor.name), Some(tensor));
        directory.require_tensor(&tensor.name, tensor.shape()).expect("its own shape");
    }
    let metadata = &directory.metadata;
    for (key, value) in &metadata.entries {
        value_as_text(value);
        let results: [Option<Error>; 7] = [
            metadata.get_str(key).err(),
            metadata.get_u32(key).err(),
            metadata.get_u64(key).err(),
            metadata.get_i32(key).err(),
            metadata.get_f32(key).err(),
            metadata.get_bool(key).err(),
            metadata.get_array(key).err(),
        ];
        for error in results.into_iter().flatten() {
            assert!(error.message().contains("metadata key"));
        }
    }
    assert!(directory.memory_bytes() <= 64 + 16 * directory.file_bytes());
}
