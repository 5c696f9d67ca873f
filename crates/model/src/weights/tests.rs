//! Hostile weight files: an error that names the file, never a panic, and no allocation beyond the file's size.

use std::fs;
use std::path::Path;

use safetensors::tensor::{Dtype, TensorView};

use crate::error::ModelError;
use crate::weights::header::WeightHeader;
use crate::weights::matrix::Part;
use crate::weights::shard_index::weight_paths;
use crate::weights::weight_files::{WeightFiles, read_safetensors};
use crate::weights::without_weights::directory_hint;

/// A number from the environment, for longer runs.
pub(crate) fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

/// One step of xorshift64* (Vigna, 2016).
pub(crate) fn draw(state: &mut u64, below: usize) -> usize {
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    (state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % below.max(1)
}

/// Applies one to four edits: a byte changed, a run removed, doubled or filled, the end cut off.
pub(crate) fn mutate(original: &[u8], seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut bytes = original.to_vec();
    for _ in 0..=draw(&mut state, 4) {
        if bytes.is_empty() {
            break;
        }
        let at = draw(&mut state, bytes.len());
        let end = bytes.len().min(at + 1 + draw(&mut state, 12));
        match draw(&mut state, 7) {
            0 => bytes[at] ^= 1 << draw(&mut state, 8),
            1 => bytes[at] = b"0123456789[]{}\",:-.e"[draw(&mut state, 20)],
            2 => bytes[at..end].fill(if draw(&mut state, 2) == 0 { 0 } else { 255 }),
            3 => bytes[at..end].fill(b'9'),
            4 => drop(bytes.drain(at..end)),
            5 => {
                let run = bytes[at..end].to_vec();
                bytes.splice(at..at, run);
            }
            _ => bytes.truncate(at),
        }
    }
    bytes
}

/// A weight file with this header and `data` bytes of values.
fn file_of(header: &str, data: usize) -> Vec<u8> {
    let length = (header.len() as u64).to_le_bytes();
    [&length, header.as_bytes(), &vec![0; data]].concat()
}

/// Reads `bytes` as a weight file, header and values.
fn read(dir: &Path, bytes: &[u8]) -> Result<usize, ModelError> {
    let path = dir.join("model.safetensors");
    // Truncating an old file waits for the disk on some file systems.
    let _ = fs::remove_file(&path);
    fs::write(&path, bytes).unwrap();
    let tensors = read_safetensors(&path)?;
    let values: usize = tensors.values().map(|tensor| tensor.values.len()).sum();
    assert!(values * 2 <= bytes.len(), "{values} values from {} bytes", bytes.len());
    Ok(tensors.len())
}

/// The attacks that the safetensors project tests against (`safetensors/src/tensor.rs` and `attacks/`), and the like.
#[test]
fn hostile_headers_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let tensor = |shape: &str, from: u64, to: u64| {
        format!("{{\"dtype\":\"F32\",\"shape\":{shape},\"data_offsets\":[{from},{to}]}}")
    };
    let one = |shape: &str, from: u64, to: u64| format!("{{\"a\":{}}}", tensor(shape, from, to));
    let two = |first: String, second: String| format!("{{\"a\":{first},\"b\":{second}}}");
    let whole = one("[2]", 0, 8);
    assert_eq!(read(dir.path(), &file_of(&whole, 8)).unwrap(), 1);
    let huge = [&u64::MAX.to_le_bytes()[..], b"{}"].concat();
    let over_limit = [&100_000_001u64.to_le_bytes()[..], b"{}"].concat();
    let many = u64::MAX / 4;
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("empty file", Vec::new(), "it is empty"),
        ("length cut off", b"<3".to_vec(), "only 2 bytes"),
        ("huge length", huge, "the header claims 18446744073709551615 bytes"),
        ("length over the limit", over_limit, "the header claims 100000001 bytes"),
        (
            "length beyond the file",
            file_of(&whole, 8)[..20].to_vec(),
            "is cut off, the file has 20 bytes: its download was interrupted",
        ),
        ("not JSON", file_of("hello world", 0), "its header: expected value"),
        ("invalid UTF-8", [&2u64.to_le_bytes()[..], b"\xff\xfe"].concat(), "its header"),
        ("list", file_of("[]", 0), "an object of tensors"),
        ("values missing", file_of(&whole, 4), "from its header: its download was interrupted"),
        ("bytes left over", file_of(&whole, 12), "expected"),
        ("hole at the start", file_of(&one("[2]", 4, 12), 12), "its header"),
        ("hole between", file_of(&two(tensor("[1]", 0, 4), tensor("[1]", 8, 12)), 12), "its header"),
        ("overlap", file_of(&two(tensor("[2]", 0, 8), tensor("[2]", 4, 12)), 12), "its header"),
        ("same bytes twice", file_of(&two(tensor("[2]", 0, 8), tensor("[2]", 0, 8)), 8), "its header"),
        ("end before start", file_of(&one("[2]", 8, 0), 8), "its header"),
        ("shape larger than its bytes", file_of(&one("[3]", 0, 8), 8), "its header"),
        ("product of the shape overflows", file_of(&one(&format!("[{many},{many}]"), 0, 8), 8), "its header"),
        ("size overflows", file_of(&one(&format!("[{many}]"), 0, 8), 8), "its header"),
        ("offset out of range", file_of(&one("[2]", 0, u64::MAX), 8), "its header"),
        (
            "negative shape",
            file_of("{\"a\":{\"dtype\":\"F32\",\"shape\":[-1],\"data_offsets\":[0,4]}}", 4),
            "its header",
        ),
        ("unknown type", file_of("{\"a\":{\"dtype\":\"F31\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4), "its header"),
        ("a name twice", file_of(&format!("{{\"a\":{0},\"a\":{0}}}", tensor("[2]", 0, 8)), 8), "`a` occurs twice"),
    ];
    for (what, bytes, expected) in cases {
        let error = read(dir.path(), &bytes).unwrap_err();
        assert!(matches!(error, ModelError::Weights { .. }), "{what}: {error:?}");
        let message = error.to_string();
        assert!(
            message.contains("model.safetensors` is not a readable") && message.contains(expected),
            "{what}: {message}"
        );
    }
    // Integers are not weights.
    let integers = "{\"a\":{\"dtype\":\"I32\",\"shape\":[1],\"data_offsets\":[0,4]}}";
    assert_eq!(read(dir.path(), &file_of(integers, 4)).unwrap(), 0);
}

#[test]
fn mutated_weights_never_panic() {
    let dir = tempfile::tempdir().unwrap();
    let values: Vec<u8> = (0..64).flat_map(|value: i32| (value as f32).to_le_bytes()).collect();
    let views = [
        ("half", TensorView::new(Dtype::F16, vec![2, 8], &values[..32]).unwrap()),
        ("norm.num_batches_tracked", TensorView::new(Dtype::I64, vec![], &values[..8]).unwrap()),
        ("weight", TensorView::new(Dtype::F32, vec![4, 16], &values).unwrap()),
        ("wide", TensorView::new(Dtype::F64, vec![4], &values[..32]).unwrap()),
    ];
    let original = safetensors::serialize(views, None).unwrap();
    let (first, count) = (setting("DUALENC_SEED", 0), 500 * setting("DUALENC_SOAK", 1));
    let mut refused = 0;
    for seed in first..first + count {
        match read(dir.path(), &mutate(&original, seed)) {
            Ok(_) => {}
            Err(ModelError::Weights { .. } | ModelError::NonFiniteWeights { .. }) => refused += 1,
            Err(other) => panic!("seed {seed}: {other:?}"),
        }
    }
    assert!(refused > count / 3, "only {refused} of {count} were refused");
}

#[test]
fn non_finite_weights_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.safetensors");
    let values = [1.0, f32::NAN, f32::INFINITY, 2.0].map(f32::to_le_bytes).concat();
    let halves = [half::f16::NEG_INFINITY, half::f16::ONE].map(half::f16::to_le_bytes).concat();
    let views = [
        ("a.bias", TensorView::new(Dtype::F32, vec![4], &values).unwrap()),
        ("b.weight", TensorView::new(Dtype::F16, vec![1, 2], &halves).unwrap()),
        ("c", TensorView::new(Dtype::F32, vec![1], &values[..4]).unwrap()),
    ];
    fs::write(&path, safetensors::serialize(views, None).unwrap()).unwrap();
    let error = read_safetensors(&path).unwrap_err().to_string();
    let expected = [
        "2 tensors hold NaN or infinite values:",
        "  a.bias: 2 of 4 values, the first, NaN, at flat index 1",
        "  b.weight: 1 of 2 values, the first, -inf, at flat index 0",
    ]
    .join("\n");
    assert!(error.starts_with(&format!("`{}`: {expected}", path.display())), "{error}");
}

#[test]
fn truncation_after_opening_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.safetensors");
    fs::write(&path, file_of("{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8)).unwrap();
    let files = WeightFiles::open(dir.path()).unwrap();
    assert_eq!(files.get("a").unwrap().read().unwrap(), [0.0, 0.0]);
    let length = fs::metadata(&path).unwrap().len();
    fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(length - 1).unwrap();
    assert!(matches!(files.get("a").unwrap().read(), Err(ModelError::Read { .. })));
    assert!(WeightHeader::read(path).is_err());
}

#[test]
fn index_cannot_leave_its_directory() {
    let dir = tempfile::tempdir().unwrap();
    let inside = dir.path().join("inside");
    fs::create_dir(&inside).unwrap();
    let outside = dir.path().join("outside.safetensors");
    fs::write(&outside, file_of("{}", 0)).unwrap();
    for name in ["../outside.safetensors", outside.to_str().unwrap(), "a/../../outside.safetensors", "", "."] {
        let index = serde_json::json!({ "weight_map": { "a": name } }).to_string();
        fs::write(inside.join("model.safetensors.index.json"), index).unwrap();
        let error = weight_paths(&inside).unwrap_err().to_string();
        assert!(error.contains("model.safetensors.index.json`: it lists"), "{name}: {error}");
    }
    fs::write(inside.join("model.safetensors.index.json"), "{\"weight_map\": {\"a\": \"one.safetensors\"}}").unwrap();
    assert_eq!(weight_paths(&inside).unwrap(), [inside.join("one.safetensors")]);
}

#[test]
fn foreign_weights_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 99\n";
    for (bytes, expected) in [
        (&pointer[..], "it is a Git LFS pointer of 64 bytes; fetch the real file with `git lfs pull`"),
        (b"<!DOCTYPE html><html><title>Sign in</title>", "it is an HTML page"),
        (b"PK\x03\x04\0\0\0\0archive/data.pkl", "it is a file of PyTorch (a zip archive with a pickle)"),
        (b"\x80\x02}q\0....", "it is a pickle"),
        (&[0; 64], "its first 64 bytes are zeros"),
    ] {
        let error = read(dir.path(), bytes).unwrap_err().to_string();
        assert!(error.contains(&format!("is not a readable safetensors file: {expected}")), "{error}");
    }
    // 35,615 bytes of header: in a file, the first two bytes of gzip.
    let header = format!("{{{}", " ".repeat(35_614));
    let error = read(dir.path(), &file_of(&header, 4)).unwrap_err().to_string();
    assert!(error.contains("its header: EOF"), "{error}");
    let index = dir.path().join("model.safetensors.index.json");
    fs::remove_file(dir.path().join("model.safetensors")).unwrap();
    fs::write(&index, pointer).unwrap();
    let error = weight_paths(dir.path()).unwrap_err().to_string();
    assert!(error.contains("index.json`: it is a Git LFS pointer"), "{error}");
    fs::write(&index, "{\"weight_map\": {\"a\": \"b").unwrap();
    let error = weight_paths(dir.path()).unwrap_err().to_string();
    assert!(error.contains("end in the middle of a value: fetch it again"), "{error}");
}

#[test]
fn position_of_the_first_bad_value() {
    let dir = tempfile::tempdir().unwrap();
    let mut values = [0f32; 12];
    values[7] = f32::NAN;
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    let view = TensorView::new(Dtype::F32, vec![6, 2], &bytes).unwrap();
    fs::write(dir.path().join("model.safetensors"), safetensors::serialize([("qkv", view)], None).unwrap()).unwrap();
    let files = WeightFiles::open(dir.path()).unwrap();
    let qkv = files.get("qkv").unwrap();
    for tensor in [qkv.clone(), qkv.clone().transposed(), qkv.part(Part { index: 1, of: 3 })] {
        let error = tensor.read().unwrap_err().to_string();
        assert!(error.contains("values, the first, NaN, at flat index 7"), "{error}");
    }
    assert!(qkv.part(Part { index: 0, of: 3 }).read().is_ok());
}

/// Blocks of rows are read to be transposed: of a few rows, and of rows that are longer than a block.
#[test]
fn matrices_of_any_width_are_transposed() {
    for (rows, columns) in [(1, 1), (37, 5000), (19, 70_001), (3, 1 << 17)] {
        let dir = tempfile::tempdir().unwrap();
        let values: Vec<f32> = (0..rows * columns).map(|n| n as f32).collect();
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let view = TensorView::new(Dtype::F32, vec![rows, columns], &bytes).unwrap();
        fs::write(dir.path().join("model.safetensors"), safetensors::serialize([("w", view)], None).unwrap()).unwrap();
        let found = WeightFiles::open(dir.path()).unwrap().get("w").unwrap().read_transposed().unwrap();
        let expected: Vec<f32> = (0..columns).flat_map(|c| (0..rows).map(move |r| (r * columns + c) as f32)).collect();
        assert!(found == expected, "{rows} x {columns}");
    }
}

#[test]
fn way_out_of_directories_without_weights() {
    const CONFIG: &str = "{\"model_type\": \"vit\"}";
    let cases: Vec<(&[(&str, &str)], &str)> = vec![
        (&[("notes.txt", "")], ""),
        (
            &[("adapter_config.json", "{\"base_model_name_or_path\": \"org/vit\"}"), ("adapter_model.safetensors", "")],
            "; it holds a PEFT adapter of `org/vit` (`adapter_config.json`)",
        ),
        (&[("model.fp16.safetensors", "")], "; `model.fp16.safetensors` is a variant of the weights: rename it to"),
        (
            &[("model.safetensors.index.bf16.json", ""), ("model.bf16-00001-of-00002.safetensors", "")],
            "; `model.safetensors.index.bf16.json` is a variant of the weights: rename it to `model.safetensors.index",
        ),
        (&[("model-00001-of-00002.safetensors", "")], "; `model-00001-of-00002.safetensors` is one of several shards"),
        (&[("pytorch_model.bin", ""), ("training_args.bin", "")], "; `pytorch_model.bin` is a pickle"),
        (&[("training_args.bin", "")], ""),
        (&[("flax_model.msgpack", "")], "; `flax_model.msgpack` has weights of Flax"),
        (&[("tf_model.h5", "")], "; `tf_model.h5` has weights of TensorFlow"),
        (&[("q4.gguf", "")], "; `q4.gguf` has weights of llama.cpp"),
        (&[("model.onnx", "")], "; `model.onnx` has an ONNX graph"),
        (&[("net.safetensors", "")], "; if `net.safetensors` has the weights of this model, rename it"),
        (
            &[
                ("0_CLIPModel/config.json", CONFIG),
                ("0_CLIPModel/model.safetensors", ""),
                ("1_Pooling/config.json", "{}"),
            ],
            "; the model is in its sub-folder: give `DIR/0_CLIPModel`, and set `text_pool`",
        ),
        (
            &[("snapshots/0a1b/config.json", CONFIG), ("snapshots/0a1b/model.safetensors", ""), ("refs/main", "0a1b")],
            "; the model is in its sub-folder: give `DIR/snapshots/0a1b`",
        ),
        (
            &[
                ("text_encoder/config.json", CONFIG),
                ("text_encoder/model.safetensors", ""),
                ("image_encoder/config.json", CONFIG),
                ("image_encoder/model.safetensors", ""),
                ("unet/config.json", "{\"_class_name\": \"UNet2DConditionModel\"}"),
                ("unet/model.safetensors", ""),
            ],
            "; models are in its sub-folders: give one of `DIR/image_encoder`, `DIR/text_encoder`",
        ),
    ];
    for (files, expected) in cases {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let expected = expected.replace("DIR", &dir.path().display().to_string());
        let hint = directory_hint(dir.path());
        assert!(hint.starts_with(&expected) && hint.is_empty() == expected.is_empty(), "{files:?}: {hint}");
        let error = weight_paths(dir.path()).unwrap_err().to_string();
        assert!(error.ends_with(&format!("index.json`{hint}")), "{error}");
    }
}

#[test]
fn pickles_are_never_read() {
    for name in ["pytorch_model.bin", "model.pt", "model.pth", "last.ckpt"] {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(name), "cos\nsystem\n(S'touch owned'\ntR.").unwrap();
        let error = WeightFiles::open(dir.path()).unwrap_err();
        assert!(matches!(error, ModelError::NoWeights { .. }), "{error:?}");
        let message = error.to_string();
        assert!(message.contains(&format!("`{name}` is a pickle, which can run code")), "{message}");
        assert!(
            message.contains("save_pretrained(DIR, safe_serialization=True)") && message.contains("weights_only=True"),
            "{message}"
        );
        // The same bytes under a name that is read.
        fs::rename(dir.path().join(name), dir.path().join("model.safetensors")).unwrap();
        assert!(matches!(WeightFiles::open(dir.path()), Err(ModelError::Weights { .. })));
    }
}
