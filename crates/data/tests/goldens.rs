//! Equality with Pillow and with transformers' image processors. The expected tensors are from `scripts/goldens.py`.

use dualenc_data::{Filter, ImageProcessor, Limits, RgbImage, Window, decode, resize, resize_window};

use crate::support::{Tensors, golden};

fn picture(tensors: &Tensors, name: &str) -> RgbImage {
    let (shape, data) = tensors.bytes(name);
    RgbImage { width: shape[1] as u32, height: shape[0] as u32, data }
}

fn filter(name: &str) -> Filter {
    match name {
        "nearest" => Filter::Nearest,
        "lanczos" => Filter::Lanczos,
        "bilinear" => Filter::Bilinear,
        "bicubic" => Filter::Bicubic,
        "box" => Filter::Box,
        "hamming" => Filter::Hamming,
        other => panic!("unknown filter {other}"),
    }
}

#[test]
fn resize_equals_pillow() {
    let tensors = Tensors::read("resize/expected.safetensors");
    let mut cases = 0;
    for name in tensors.names() {
        // src51x33_bicubic_16x16: width before height.
        let parts: Vec<&str> = name.split('_').collect();
        let [source, kernel, _] = parts[..] else { continue };
        let expected = picture(&tensors, &name);
        let source = picture(&tensors, source);
        let actual = resize(&source, expected.width, expected.height, filter(kernel));
        let differing = actual.data.iter().zip(&expected.data).filter(|(a, b)| a != b).count();
        assert_eq!(differing, 0, "{name}: {differing} of {} bytes differ", expected.data.len());
        cases += 1;

        // A window equals the same part of the whole.
        let window = Window {
            x: expected.width / 3,
            y: expected.height / 4,
            width: expected.width.div_ceil(2),
            height: expected.height.div_ceil(2),
        };
        let part = resize_window(&source, expected.width, expected.height, filter(kernel), window);
        assert!(part.width > 0 && part.height > 0);
        for y in 0..part.height {
            let from = ((y + window.y) * expected.width + window.x) as usize * 3;
            let len = part.width as usize * 3;
            assert_eq!(
                part.data[y as usize * len..][..len],
                expected.data[from..from + len],
                "{name}, row {y} of the window"
            );
        }
    }
    assert!(cases >= 70, "only {cases} cases");
}

#[test]
fn decoding_equals_pillow() {
    // Other decoders than libjpeg round their transforms differently: those of WebP, of CMYK and inside of TIFF.
    let lossy = |name: &str| name == "cmyk.jpg" || name.starts_with("lossy") || name.ends_with(".tif");
    equals_pillow("decode", 20, lossy);
    equals_pillow("formats", 88, lossy);
}

/// Decodes the images of a folder of goldens, at least `count`.
fn equals_pillow(folder: &str, count: usize, lossy: impl Fn(&str) -> bool) {
    let tensors = Tensors::read(&format!("{folder}/expected.safetensors"));
    let names = tensors.names();
    assert!(names.len() >= count, "only {names:?}");
    let mut failures = Vec::new();
    for name in names {
        let expected = picture(&tensors, &name);
        let bytes = std::fs::read(golden(folder).join(&name)).unwrap();
        let actual = match decode(&bytes, &Limits::default()) {
            Ok(actual) => actual,
            Err(error) => {
                failures.push(format!("{name}: {error}"));
                continue;
            }
        };
        if (actual.width, actual.height) != (expected.width, expected.height) {
            failures.push(format!("{name}: {}x{} pixels", actual.width, actual.height));
            continue;
        }
        let allowed = if lossy(&name) { 4 } else { 0 };
        let worst = actual.data.iter().zip(&expected.data).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
        if worst > allowed {
            failures.push(format!("{name}: off by {worst}, {allowed} allowed"));
        }
    }
    assert!(failures.is_empty(), "{failures:#?}");
}

#[test]
fn processors_equal_transformers() {
    for kind in ["vit", "deit", "dinov2", "clip"] {
        let processor = ImageProcessor::from_dir(golden("processor").join(kind)).unwrap();
        let (shape, expected) = Tensors::read(&format!("processor/{kind}/expected.safetensors")).floats("pixel_values");
        assert_eq!(processor.output_size(), (shape[2] as u32, shape[3] as u32));
        let mut actual = Vec::new();
        for image in 0..shape[0] {
            let bytes = std::fs::read(golden("processor/images").join(format!("{image}.png"))).unwrap();
            actual.extend(processor.process(&decode(&bytes, &Limits::default()).unwrap()));
        }
        assert_eq!(actual.len(), expected.len());
        let differing = actual.iter().zip(&expected).filter(|(a, b)| a.to_bits() != b.to_bits()).count();
        let worst = actual.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert_eq!(differing, 0, "{kind}: {differing} of {} values differ, by up to {worst}", expected.len());
    }
}

#[test]
fn reads_old_feature_extractor_files() {
    let new = ImageProcessor::from_dir(golden("processor/clip")).unwrap();
    let old = ImageProcessor::from_dir(golden("processor/clip_legacy")).unwrap();
    assert_eq!(old.fingerprint(), new.fingerprint());
}
