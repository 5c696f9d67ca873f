//! JPEGs that are decoded at a reduced scale.

use dualenc_data::{Encoding, ImageProcessor, ImageRef, RgbImage, encode, load_pixels};

/// Smooth, as photos mostly are, with an edge.
fn photo(width: u32, height: u32) -> RgbImage {
    let pixel = |at: u32| {
        let (x, y) = ((at % width) as f32 / width as f32, (at / width) as f32 / height as f32);
        let wave = |rate: f32| 128.0 + 60.0 * (rate * x + 5.0 * y * y).sin();
        let edge = if x + y > 1.2 { 50.0 } else { 0.0 };
        [wave(3.0) + edge, wave(7.0), wave(11.0) - edge].map(|level| level as u8)
    };
    RgbImage { width, height, data: (0..width * height).flat_map(pixel).collect() }
}

/// The values of a file in bytes, and the largest and mean difference of both ways to decode it, in levels.
fn differences(name: &str, bytes: &[u8]) -> (f32, f32) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    let whole = ImageProcessor::standard("clip", Some(64));
    let fast = whole.clone().with_fast_decode(true);
    let [whole, fast] = [whole, fast].map(|it| load_pixels(&ImageRef::File(path.clone()), &it).unwrap());
    assert_eq!(whole.len(), fast.len());
    // CLIP divides levels by 255 and by standard deviations of 0.26 to 0.28.
    let levels: Vec<f32> = whole.iter().zip(&fast).map(|(a, b)| (a - b).abs() * 255.0 * 0.27).collect();
    (levels.iter().copied().fold(0.0, f32::max), levels.iter().sum::<f32>() / levels.len() as f32)
}

#[test]
fn large_jpegs_differ_a_little() {
    for (width, height) in [(512, 512), (1000, 776), (300, 520), (130, 132)] {
        let jpeg = encode(&photo(width, height), Encoding::Jpeg(90)).unwrap();
        let (largest, mean) = differences("a.jpg", &jpeg);
        assert!(largest > 0.0 && mean < 1.5, "{width}x{height}: {largest} at most, {mean} on average");
    }
}

#[test]
fn other_images_are_decoded_whole() {
    let small = encode(&photo(127, 127), Encoding::Jpeg(90)).unwrap();
    assert_eq!(differences("a.jpg", &small), (0.0, 0.0), "less than twice the target");
    let odd = encode(&photo(1001, 777), Encoding::Jpeg(90)).unwrap();
    assert_eq!(differences("a.jpg", &odd), (0.0, 0.0), "sides that 2 does not divide");
    let png = encode(&photo(512, 512), Encoding::Png).unwrap();
    assert_eq!(differences("a.png", &png), (0.0, 0.0));
}

#[test]
fn damaged_jpegs_have_the_same_error() {
    let jpeg = encode(&photo(512, 512), Encoding::Jpeg(90)).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.jpg");
    std::fs::write(&path, &jpeg[..jpeg.len() / 2]).unwrap();
    let whole = ImageProcessor::standard("clip", Some(64));
    let fast = whole.clone().with_fast_decode(true);
    let [whole, fast] =
        [whole, fast].map(|it| load_pixels(&ImageRef::File(path.clone()), &it).unwrap_err().to_string());
    assert!(whole.contains("truncated"), "{whole}");
    assert_eq!(whole, fast);
}

#[test]
fn features_are_kept_apart() {
    let whole = ImageProcessor::standard("clip", Some(64));
    let fast = whole.clone().with_fast_decode(true);
    assert_ne!(whole.fingerprint(), fast.fingerprint());
    assert_eq!(whole.fingerprint(), fast.clone().with_fast_decode(false).fingerprint());
    // Another size keeps the setting.
    assert_ne!(whole.with_image_size(32).fingerprint(), fast.with_image_size(32).fingerprint());
    assert!(fast.describe().contains("`data.fast_decode`"), "{}", fast.describe());
    assert!(fast.export_difference().unwrap().contains("decodes JPEGs whole"));
}
