//! Every image processor type and spelling, compared with transformers, timm and open_clip. The expected pixels are
//! from `scripts/goldens.py`.

use std::path::PathBuf;
use std::process::Command;

use dualenc_data::{ImageProcessor, Limits, decode};
use serde_json::{Value, json};

use crate::support::{Tensors, golden};

/// The folders of processor files; each also has the expected pixels.
fn kinds() -> Vec<String> {
    let folders = std::fs::read_dir(golden("pixels")).unwrap().map(|entry| entry.unwrap());
    let mut kinds: Vec<String> = folders.map(|entry| entry.file_name().into_string().unwrap()).collect();
    kinds.retain(|kind| kind != "images");
    kinds.sort();
    kinds
}

fn read(kind: &str) -> ImageProcessor {
    ImageProcessor::from_dir(golden("pixels").join(kind)).unwrap_or_else(|error| panic!("{kind}: {error}"))
}

#[test]
fn pixels_equal_the_reference() {
    let kinds = kinds();
    assert!(kinds.len() >= 39, "only {kinds:?}");
    let mut failures = Vec::new();
    for kind in kinds {
        let processor = read(&kind);
        let tensors = Tensors::read(&format!("pixels/{kind}/expected.safetensors"));
        let (shape, expected) = tensors.floats("pixel_values");
        assert_eq!(processor.output_size(), (shape[2] as u32, shape[3] as u32), "{kind}");
        let images = tensors.metadata("images");
        for (name, expected) in images.split(' ').zip(expected.chunks_exact(shape[1] * shape[2] * shape[3])) {
            let bytes = std::fs::read(golden("pixels/images").join(name)).unwrap();
            let actual = processor.process(&decode(&bytes, &Limits::default()).unwrap());
            assert_eq!(actual.len(), expected.len());
            let differences: Vec<f32> = actual.iter().zip(expected).map(|(a, b)| (a - b).abs()).collect();
            let over = |allowed: f32| differences.iter().filter(|&&difference| difference > allowed).count();
            let exceeding = if name == "cmyk.jpg" {
                // Another decoder: one level of 255, divided by the standard deviation (of CLIP's the smallest).
                over(1.0001 / 255.0 / if kind == "vit" { 0.5 } else { 0.261_302_6 })
            } else if kind.starts_with("dinov3") {
                // Sums in another order, divided by a standard deviation of 0.225.
                over(1e-6 / 0.225)
            } else {
                over(0.0)
            };
            if exceeding > 0 {
                let worst = differences.iter().copied().fold(0.0, f32::max);
                failures.push(format!("{kind}, {name}: {exceeding} of {} values, by up to {worst}", actual.len()));
            }
        }
    }
    assert!(failures.is_empty(), "{failures:#?}");
}

#[test]
fn convnext_crops_below_384() {
    let read = |config: Value| {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("preprocessor_config.json"), config.to_string()).unwrap();
        ImageProcessor::from_dir(dir.path()).map_err(|error| error.to_string())
    };
    let convnext =
        |size: Value| read(json!({"image_processor_type": "ConvNextImageProcessor", "size": size, "crop_pct": 0.875}));
    let vit = json!({"image_processor_type": "ViTImageProcessor", "size": 384, "resample": 3});
    let warped = convnext(json!({"shortest_edge": 384})).unwrap();
    assert_eq!(warped.fingerprint(), read(vit).unwrap().fingerprint());
    let cropped = convnext(json!(383)).unwrap();
    assert!(cropped.describe().contains("shorter side to 437 (bicubic), crop the middle 383x383"));
    let message = convnext(json!([224, 224])).unwrap_err();
    assert!(message.contains("`size` is `[224,224]`; expected `shortest_edge`"), "{message}");
}

/// Exports the processor of `kind` to a folder of its own.
fn write_exported(kind: &str, root: &std::path::Path) -> PathBuf {
    let dir = root.join(kind);
    std::fs::create_dir(&dir).unwrap();
    let file = read(kind).to_preprocessor_json();
    std::fs::write(dir.join("preprocessor_config.json"), file.to_string()).unwrap();
    dir
}

#[test]
fn export_round_trips() {
    let root = tempfile::tempdir().unwrap();
    for kind in kinds() {
        let original = read(&kind);
        let back = ImageProcessor::from_dir(write_exported(&kind, root.path())).unwrap();
        if original.export_difference().is_none() {
            assert_eq!(back.fingerprint(), original.fingerprint(), "{kind}");
        } else {
            assert!(["timm", "open_clip"].iter().any(|library| kind.starts_with(library)), "{kind}");
            assert_eq!(back.output_size(), original.output_size(), "{kind}");
        }
    }
    assert!(read("timm_squash_all").export_difference().is_none());
}

/// `DUALENC_PYTHON` names a Python with the packages of `scripts/goldens.py`.
#[test]
#[ignore = "needs Python: run scripts/check_parity.sh"]
fn transformers_reads_exports() {
    let python = std::env::var_os("DUALENC_PYTHON");
    let python = python.unwrap_or_else(|| panic!("`DUALENC_PYTHON` names no Python: run scripts/check_parity.sh"));
    let root = tempfile::tempdir().unwrap();
    for kind in kinds().iter().filter(|kind| read(kind).export_difference().is_none()) {
        write_exported(kind, root.path());
    }
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../scripts/check_processors.py");
    let output = Command::new(python).arg(script).arg(root.path()).arg(golden("pixels")).output().unwrap();
    let printed = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{printed}");
}
