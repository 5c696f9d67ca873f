//! The header of a safetensors file, and every tensor that it names.
#![no_main]

use dualenc_fuzz::with_file;
use dualenc_model::{WeightHeader, read_safetensors};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    with_file("model.safetensors", bytes, |path| {
        if let Ok(tensors) = read_safetensors(path) {
            for tensor in tensors.values() {
                assert_eq!(tensor.shape.iter().product::<usize>(), tensor.values.len());
            }
        }
        let Ok(header) = WeightHeader::read(path.to_owned()) else { return };
        let names: Vec<String> = header.tensors().map(|(name, ..)| name.to_owned()).collect();
        names.iter().for_each(|name| drop(header.values(name)));
    });
});
