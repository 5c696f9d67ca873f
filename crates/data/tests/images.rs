//! Damaged and hostile image files, and processor files.

use dualenc_data::{Augment, ImageProcessor, ImageRef, Limits, RgbImage, decode, load_pixels, load_view};
use image::ImageFormat;
use serde_json::{Value, json};

use crate::limits::peak_memory;
use crate::support::{crc32, encoded, png};

fn error(bytes: &[u8]) -> String {
    decode(bytes, &Limits::default()).unwrap_err().to_string()
}

#[test]
fn names_unknown_formats() {
    assert_eq!(error(b""), "the file is empty");
    let html = error(b"\n<!DOCTYPE HTML>\n<html>404");
    let known = "not a jpeg, png, webp, gif, bmp, tiff, qoi or pnm: ";
    let expected = "looks like an HTML page; servers send this in place of a file; download it again";
    assert_eq!(html, format!("{known}{expected}"));
    assert!(error(b"version https://git-lfs.github.com/spec/v1\noid").contains("git lfs pull"));
    assert!(error(b"<?xml version=\"1.0\"?><svg>").contains("rasterise it first"));
    let avif = error(b"\0\0\0\x20ftypavif\0\0\0\0");
    assert!(avif.contains("looks like an AVIF image; convert it to png or jpeg") && avif.contains("magick"), "{avif}");
    assert!(error(&[0; 5000]).contains("zeros only; a sparse or interrupted copy"));
    assert_eq!(error(b"Gone away\nfor ever"), format!("{known}is a text that starts with `Gone away`"));
    assert_eq!(error(b"\x00\x01\x02"), format!("{known}starts with the bytes 00 01 02"));
}

#[test]
fn rejects_truncated_images() {
    let message = error(&png(1, 64, 64)[..500]);
    assert!(message.starts_with("damaged png: "), "{message}");
    for format in [ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::WebP, ImageFormat::Gif] {
        let bytes = encoded(1, 64, 64, format);
        let whole = decode(&bytes, &Limits::default()).unwrap();
        for len in (0..bytes.len()).step_by(7).chain(bytes.len().saturating_sub(3)..bytes.len()) {
            // A lost trailer loses no pixel; any other loss must be an error.
            if let Ok(image) = decode(&bytes[..len], &Limits::default()) {
                assert!(image == whole, "{format:?} cut to {len} of {} bytes decoded to other pixels", bytes.len());
            }
        }
    }
    let mut jpeg = encoded(1, 64, 64, ImageFormat::Jpeg);
    jpeg.truncate(jpeg.len() - 2);
    assert_eq!(error(&jpeg), format!("damaged jpeg: truncated: its {} bytes have no end-of-image marker", jpeg.len()));
}

#[test]
fn thumbnail_is_not_end_of_jpeg() {
    let whole = encoded(1, 64, 64, ImageFormat::Jpeg);
    let thumbnail = encoded(2, 8, 8, ImageFormat::Jpeg);
    let len = u16::try_from(thumbnail.len() + 2).unwrap().to_be_bytes();
    let mut nested = [&whole[..2], &[0xFF, 0xE5], &len, &thumbnail, &whole[2..]].concat();
    assert_eq!(decode(&nested, &Limits::default()).unwrap(), decode(&whole, &Limits::default()).unwrap());
    nested.truncate(nested.len() - 100);
    let expected = format!("damaged jpeg: truncated: its {} bytes have no end-of-image marker", nested.len());
    assert_eq!(error(&nested), expected);
}

/// A small image of a format with a header that announces as many pixels as the format can.
fn bomb(format: ImageFormat) -> Vec<u8> {
    let mut bytes = encoded(1, 4, 4, format);
    match format {
        ImageFormat::Png => {
            bytes[16..24].copy_from_slice(&[0, 0, 255, 255, 0, 0, 255, 255]);
            let crc = crc32(&bytes[12..29]);
            bytes[29..33].copy_from_slice(&crc.to_be_bytes());
        }
        ImageFormat::Jpeg => {
            // The frame header: marker, length, precision, then height and width.
            let frame = bytes.windows(2).position(|pair| pair == [0xFF, 0xC0]).unwrap();
            bytes[frame + 5..frame + 9].fill(255);
        }
        ImageFormat::Gif => {
            // The screen, and the first frame after its separator.
            bytes[6..10].fill(255);
            let frame = bytes.iter().position(|&byte| byte == b',').unwrap();
            bytes[frame + 5..frame + 9].fill(255);
        }
        // VP8L: 14 bits for each side minus one, after the signature byte. The decoder takes the largest for 0.
        _ => {
            assert_eq!((&bytes[12..16], bytes[20]), (&b"VP8L"[..], 0x2F));
            let sides = 16_382 | 16_382 << 14;
            let rest = u32::from_le_bytes(bytes[21..25].try_into().unwrap()) & 0xF000_0000;
            bytes[21..25].copy_from_slice(&(rest | sides).to_le_bytes());
        }
    }
    bytes
}

#[test]
fn rejects_bombs_by_header() {
    // As RGB, 65,535 x 65,535 pixels would take 12.9 GB.
    for (format, side) in [
        (ImageFormat::Png, 65_535),
        (ImageFormat::Jpeg, 65_535),
        (ImageFormat::Gif, 65_535),
        (ImageFormat::WebP, 16_383),
    ] {
        let bytes = bomb(format);
        let (message, peak) = peak_memory(|| error(&bytes));
        let expected = "pixels is over the limit of 178956970 (`data.max_pixels`, or `--max-pixels` without a config); \
                        raise it or resize the image";
        assert_eq!(message, format!("{side}x{side} {expected}"), "{format:?}");
        assert!(peak < 1 << 20, "{format:?} took {peak} bytes of memory");
    }

    let small = Limits { max_pixels: 100 };
    let message = decode(&png(1, 11, 10), &small).unwrap_err().to_string();
    assert!(message.starts_with("11x10 pixels is over the limit of 100 (`data.max_pixels`, "), "{message}");
    assert!(decode(&png(1, 10, 10), &small).is_ok());
}

fn processor(config: &Value) -> Result<ImageProcessor, String> {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("preprocessor_config.json"), config.to_string()).unwrap();
    ImageProcessor::from_dir(dir.path()).map_err(|error| error.to_string())
}

fn grey(width: u32, height: u32) -> RgbImage {
    RgbImage { width, height, data: vec![128; (width * height * 3) as usize] }
}

#[test]
fn reads_both_processor_versions() {
    let dir = tempfile::tempdir().unwrap();
    let clip =
        json!({"image_processor_type": "CLIPImageProcessorFast", "size": {"shortest_edge": 64}, "crop_size": 48});
    let nested = json!({"processor_class": "VisionTextDualEncoderProcessor", "image_processor": clip});
    std::fs::write(dir.path().join("processor_config.json"), nested.to_string()).unwrap();
    let found = ImageProcessor::from_dir(dir.path()).unwrap();
    assert_eq!(found.output_size(), (48, 48));
    assert_eq!(found.fingerprint(), processor(&clip).unwrap().fingerprint());
    assert!(!found.is_default());
}

#[test]
fn export_round_trips() {
    let model_types = [
        "vit",
        "deit",
        "dinov2",
        "beit",
        "clip_vision_model",
        "siglip_vision_model",
        "dinov3_vit",
        "convnext",
        "resnet",
        "swin",
        "data2vec-vision",
        "efficientnet",
    ];
    for model_type in model_types {
        let original = ImageProcessor::standard(model_type, Some(112));
        assert_eq!(original.output_size(), (112, 112));
        let back = processor(&original.to_preprocessor_json()).unwrap();
        assert_eq!(back.fingerprint(), original.fingerprint(), "{model_type}");
    }
}

#[test]
fn image_size_scales_crop() {
    let dinov2 = ImageProcessor::standard("dinov2", None);
    // DINOv2 has the processor of another tower.
    let name = "BitImageProcessor (that of DINOv2)";
    let described = |processor: &ImageProcessor, side: u32, crop: u32| {
        let expected = format!("{name}: resize the shorter side to {side} (bicubic), crop the middle {crop}x{crop}");
        assert!(processor.describe().starts_with(&expected), "{}", processor.describe());
    };
    described(&dinov2, 256, 224);
    let half = dinov2.with_image_size(112);
    described(&half, 128, 112);
    assert_ne!(half.fingerprint(), dinov2.fingerprint());
    assert_eq!(half.process(&grey(50, 31)).len(), 3 * 112 * 112);
}

#[test]
fn tower_without_file_gets_defaults() {
    let dir = tempfile::tempdir().unwrap();
    let message = ImageProcessor::from_dir(dir.path()).unwrap_err().to_string();
    assert!(message.contains("`image processor` is missing; expected `preprocessor_config.json`"), "{message}");
    std::fs::write(dir.path().join("config.json"), r#"{"model_type": "deit", "image_size": 96}"#).unwrap();
    let found = ImageProcessor::from_dir(dir.path()).unwrap();
    assert!(found.is_default());
    assert!(
        found.describe().starts_with("DeiT: resize to 110x110 (bicubic), crop the middle 96x96"),
        "{}",
        found.describe()
    );
}

#[test]
fn rejects_bad_timm_configs() {
    let refusal = |key: &str, value: Value| {
        let dir = tempfile::tempdir().unwrap();
        let config = json!({"architecture": "vit_tiny_patch16_224", "pretrained_cfg": {key: value}});
        std::fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
        let message = ImageProcessor::from_dir(dir.path()).unwrap_err().to_string();
        message[message.find("config.json`").unwrap() + 12..].to_owned()
    };
    assert!(refusal("input_size", json!([1, 28, 28])).contains("expected 3 channels, height, width"));
    assert!(refusal("interpolation", json!("random")).contains("one of `nearest`, `lanczos`, `bilinear`"));
    assert!(refusal("crop_mode", json!("corner")).contains("`center`, `squash` or `border`"));
    assert!(refusal("crop_pct", json!(1e-9)).contains("the fraction of the image to keep"));
    assert!(refusal("std", json!([0, 1, 1])).contains("numbers other than 0"));
}

#[test]
fn large_crop_pads_with_black() {
    let config = json!({"image_processor_type": "CLIPImageProcessor", "do_resize": false, "crop_size": 4,
        "do_rescale": false, "do_normalize": false});
    let pixels = processor(&config).unwrap().process(&grey(2, 1));
    // numpy: top_pad = ceil((4 - 1) / 2) = 2, left_pad = 1.
    let mut plane = [0.0; 16];
    plane[9] = 128.0;
    plane[10] = 128.0;
    assert_eq!(pixels, [plane, plane, plane].concat());
}

#[test]
fn long_thin_images_are_cheap() {
    let clip = ImageProcessor::standard("clip_vision_model", None);
    // Resized as a whole to a shorter side of 224 pixels, the first two would take 2.5 GB. The longer side of the last
    // two would not fit into 32 bits.
    for image in [grey(16_384, 1), grey(1, 16_384), grey(20_000_000, 1), grey(1, 20_000_000)] {
        let (pixels, peak) = peak_memory(|| clip.process(&image).len());
        assert_eq!(pixels, 3 * 224 * 224);
        assert!(peak < 32 << 20, "took {peak} bytes of memory");
    }
}

#[test]
fn rejects_bad_processor_files() {
    let refusal = |config: Value| {
        let message = processor(&config).unwrap_err();
        message[message.find("preprocessor_config.json`").unwrap() + 26..].to_owned()
    };
    let known = "one of ViTImageProcessor, DeiTImageProcessor, BeitImageProcessor, CLIPImageProcessor, \
                 BitImageProcessor, SiglipImageProcessor, ChineseCLIPImageProcessor, ConvNextImageProcessor, \
                 EfficientNetImageProcessor, DINOv3ViTImageProcessor";
    assert_eq!(
        refusal(json!({"image_processor_type": "Qwen2VLImageProcessor"})).split(" (did").next().unwrap(),
        format!(" `image_processor_type` is `\"Qwen2VLImageProcessor\"`; expected {known}")
    );
    let naflex = refusal(json!({"image_processor_type": "Siglip2ImageProcessorFast"}));
    assert!(naflex.contains("those of `naflex` checkpoints depend on the image. Use a checkpoint with"), "{naflex}");
    assert!(
        refusal(json!({"image_processor_type": "TimmWrapperImageProcessor"})).contains("`pretrained_cfg` beside it")
    );
    assert!(refusal(json!({"do_pad": true})).starts_with(" `do_pad` is `true`; expected `false`"));
    let dinov3 =
        |key: &str, value: Value| refusal(json!({"image_processor_type": "DINOv3ViTImageProcessor", key: value}));
    assert!(dinov3("do_center_crop", json!(true)).contains("`false` for this processor"));
    assert!(dinov3("resample", json!(1)).contains("2 (bilinear) or 3 (bicubic)"));
    let convnext = json!({"image_processor_type": "ConvNextImageProcessor", "size": 224, "do_center_crop": true});
    assert!(refusal(convnext).contains("this processor crops while it resizes"));
    assert!(refusal(json!({"resample": 9})).starts_with(" `resample` is `9`; expected a Pillow filter: 0 nearest"));
    assert!(
        refusal(json!({"size": {"height": 0, "width": 2}})).contains("`size.height` is `0`; expected a whole number")
    );
    assert!(refusal(json!({"size": {"height": 1_000_000, "width": 2}})).contains("from 1 to 16384"));
    assert!(refusal(json!({"size": {"shortest_edge": 224}})).contains("so that all outputs have one size"));
    assert!(refusal(json!({"image_mean": [0.5]})).contains("expected three numbers"));
    assert!(refusal(json!({"image_std": [0.5, 0.0, 0.5]})).contains("numbers other than 0"));
    assert!(refusal(json!({"do_resize": "yes"})).contains("`do_resize` is `\"yes\"`; expected true or false"));
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("preprocessor_config.json"), "{").unwrap();
    let message = ImageProcessor::from_dir(dir.path()).unwrap_err().to_string();
    assert!(message.contains("is malformed: not a JSON object"), "{message}");
}

/// A picture of two slow waves, upright or turned by its EXIF, as JPEG.
fn waves(dir: &std::path::Path, width: u32, height: u32, is_turned: bool) -> ImageRef {
    let wave = |at: u32, period: f32| (127.5 + 120.0 * (at as f32 / period).sin()) as u8;
    let picture =
        image::RgbImage::from_fn(width, height, |x, y| image::Rgb([wave(x, 40.0), wave(y, 30.0), wave(x + y, 50.0)]));
    let mut bytes = std::io::Cursor::new(Vec::new());
    picture.write_to(&mut bytes, ImageFormat::Jpeg).unwrap();
    let mut bytes = bytes.into_inner();
    if is_turned {
        // One entry of EXIF: orientation 6.
        let tiff = b"Exif\0\0MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0";
        let len = u16::try_from(tiff.len() + 2).unwrap().to_be_bytes();
        bytes.splice(2..2, [&[0xFF, 0xE1][..], &len, tiff].concat());
    }
    let path = dir.join(format!("{width}x{height}-{is_turned}.jpg"));
    std::fs::write(&path, bytes).unwrap();
    ImageRef::File(path)
}

#[test]
fn fast_decoding_is_near_and_only_of_large_jpegs() {
    let dir = tempfile::tempdir().unwrap();
    let clip = json!({"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 56}, "crop_size": 48,
                      "do_normalize": false});
    let whole = processor(&clip).unwrap();
    let fast = whole.clone().with_fast_decode(true);
    assert_ne!(whole.fingerprint(), fast.fingerprint());
    assert_eq!(fast.clone().with_fast_decode(false).fingerprint(), whole.fingerprint());
    assert_eq!(fast.with_image_size(24).fingerprint(), whole.with_image_size(24).with_fast_decode(true).fingerprint());
    // The resized image has 56 pixels along the shorter side, and after a reduction at least 112 remain.
    for (width, height, is_reduced) in [(400, 300, true), (226, 230, true), (222, 300, false), (999, 111, false)] {
        for is_turned in [false, true] {
            let image = waves(dir.path(), width, height, is_turned);
            let [exact, found] = [&whole, &fast].map(|processor| load_pixels(&image, processor).unwrap());
            let worst = exact.iter().zip(&found).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert_eq!(worst > 0.0, is_reduced, "{width}x{height}, turned {is_turned}: {worst}");
            assert!(worst < 6.0 / 255.0, "{width}x{height}, turned {is_turned}: {worst}");
        }
    }
    // Other formats are decoded as before.
    let path = dir.path().join("large.png");
    std::fs::write(&path, png(3, 400, 300)).unwrap();
    let image = ImageRef::File(path);
    assert_eq!(load_pixels(&image, &whole).unwrap(), load_pixels(&image, &fast).unwrap());
}

#[test]
fn fast_decoding_leaves_enough_for_crops() {
    let dir = tempfile::tempdir().unwrap();
    let clip = json!({"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 56}, "crop_size": 48});
    let whole = processor(&clip).unwrap();
    let fast = whole.clone().with_fast_decode(true);
    let image = waves(dir.path(), 400, 300, false);
    let differs = |least: f64| {
        let augment = Augment { crop_scale: Some([least, 1.0]), ..Augment::default() };
        let [exact, found] =
            [&whole, &fast].map(|processor| load_view(&image, processor, Some(augment.view(1, 2, 3))).unwrap());
        assert_eq!(exact.len(), found.len());
        exact != found
    };
    // At half of the size, the smallest crop has sqrt(0.9 * 200 * 150 * 3 / 4) = 142 columns; 96 are twice the input's.
    assert!(differs(0.9));
    // With a tenth of the area it would have 47.
    assert!(!differs(0.1));
    // No crop fits into an elongated image: the centre crop has all of its rows, of which half are too few.
    let elongated = [waves(dir.path(), 900, 180, false), waves(dir.path(), 180, 900, false)];
    for image in elongated {
        let augment = Augment { crop_scale: Some([0.9, 1.0]), ..Augment::default() };
        let [exact, found] =
            [&whole, &fast].map(|processor| load_view(&image, processor, Some(augment.view(1, 2, 3))).unwrap());
        assert!(exact == found);
    }
}

#[test]
fn reduced_images_keep_the_geometry_of_whole_ones() {
    // 225 x 301 pixels become 113 x 151 at half of the size, of which the last cover half a pixel of the picture.
    let dir = tempfile::tempdir().unwrap();
    let config = json!({"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 56}, "crop_size": 56,
                        "do_normalize": false, "do_rescale": false});
    let fast = processor(&config).unwrap().with_fast_decode(true);
    let mean = |is_turned: bool| {
        let image = waves(dir.path(), 225, 301, is_turned);
        let found = load_pixels(&image, &fast).unwrap();
        let whole = load_pixels(&image, &fast.clone().with_fast_decode(false)).unwrap();
        found.iter().zip(&whole).map(|(a, b)| f64::from((a - b).abs())).sum::<f64>() / whole.len() as f64
    };
    assert!(mean(false) > 0.0 && mean(false) < 0.5, "{} levels on average", mean(false));
    // Turned, the half pixel would be at the other end: such an image is decoded whole.
    assert!(mean(true) == 0.0, "{} levels on average", mean(true));
}
