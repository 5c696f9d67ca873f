//! Equality with Pillow on each vector unit. The goldens are from `scripts/goldens/jpeg.py`.

use std::path::{Path, PathBuf};

use super::*;
use crate::images::filter::Filter;
use crate::images::resize_pillow::{Window, resize_box};
use crate::images::rgb_image::RgbImage;

fn golden(name: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/goldens/jpeg")).join(name)
}

fn rgb(decoded: Decoded) -> Vec<u8> {
    let Decoded { width, height, is_grey, data } = decoded;
    match is_grey {
        true => data[..width as usize * height as usize].iter().flat_map(|&level| [level; 3]).collect(),
        false => data,
    }
}

#[test]
fn pixels_equal_pillow() {
    let bytes = std::fs::read(golden("expected.safetensors")).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let mut reduced = 0;
    for (name, expected) in tensors.tensors().into_iter().filter(|(name, _)| !name.ends_with(" resized")) {
        let (file, reduction) = match name.split_once('@') {
            None => (name.as_str(), Reduction::None),
            Some((file, "2")) => (file, Reduction::Half),
            Some((file, "4")) => (file, Reduction::Quarter),
            Some((file, _)) => (file, Reduction::Eighth),
        };
        reduced += usize::from(reduction != Reduction::None);
        let jpeg = std::fs::read(golden(file)).unwrap();
        for arch in [Arch::Scalar, Arch::new()] {
            let decoded = decode_on(arch, &jpeg, reduction).unwrap_or_else(|| panic!("{name} was not decoded"));
            assert_eq!([decoded.height as usize, decoded.width as usize], expected.shape()[..2], "{name}");
            let found = rgb(decoded);
            let differing = found.iter().zip(expected.data()).filter(|(found, expected)| found != expected).count();
            assert_eq!(differing, 0, "{name}: {differing} of {} bytes differ", found.len());
        }
    }
    assert!(tensors.len() - reduced >= 25 && reduced > 60, "{} pictures, {reduced} smaller", tensors.len() - reduced);
}

#[test]
fn reduced_images_are_resized_as_by_pillow() {
    let bytes = std::fs::read(golden("expected.safetensors")).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let mut cases = 0;
    for (name, expected) in tensors.tensors() {
        let Some(file) = name.strip_suffix("@2 resized") else { continue };
        let [height, width] = [expected.shape()[0] as u32, expected.shape()[1] as u32];
        let jpeg = std::fs::read(golden(file)).unwrap();
        let whole = decode(&jpeg, Reduction::None).unwrap();
        let half = decode(&jpeg, Reduction::Half).unwrap();
        let extent = (f64::from(whole.width) / 2.0, f64::from(whole.height) / 2.0);
        let image = RgbImage { width: half.width, height: half.height, data: rgb(half) };
        let window = Window { x: 0, y: 0, width, height };
        let found = resize_box(&image, extent, (width, height), Filter::Bicubic, window);
        assert!(found.data == expected.data(), "{name}");
        cases += 1;
    }
    assert!(cases > 5, "{cases} cases");
}

#[test]
fn other_files_are_left() {
    let jpeg = std::fs::read(golden("420.jpg")).unwrap();
    let frame = jpeg.windows(2).position(|pair| pair == [0xFF, 0xC0]).unwrap();
    let changed = |at: usize, byte: u8| {
        let mut jpeg = jpeg.clone();
        jpeg[at] = byte;
        decode(&jpeg, Reduction::None)
    };
    assert!(decode(&jpeg, Reduction::None).is_some());
    for (at, byte, what) in [
        (frame + 1, 0xC9, "arithmetic coding"),
        (frame + 4, 12, "12 bits"),
        (frame + 9, 4, "four components"),
        (frame + 11, 0x32, "a third of a pixel"),
        (frame + 11, 0x20, "no sampling factor"),
        (frame + 12, 3, "no such quantisation table"),
        (frame + 6, 0, "no rows"),
    ] {
        assert!(changed(at, byte).is_none(), "{what}");
    }
    for len in (0..jpeg.len() - 2).step_by(5) {
        assert!(decode(&jpeg[..len], Reduction::None).is_none(), "cut to {len} of {} bytes", jpeg.len());
    }
}

#[test]
fn missing_scans_are_left() {
    // libjpeg estimates coefficients with missing bits.
    let jpeg = std::fs::read(golden("420_progressive.jpg")).unwrap();
    let scans: Vec<usize> = (0..jpeg.len() - 1).filter(|&at| jpeg[at..at + 2] == [0xFF, 0xDA]).collect();
    assert!(scans.len() > 5);
    for &scan in &scans[..scans.len() - 1] {
        let cut = [&jpeg[..scan], &[0xFF, 0xD9]].concat();
        assert!(decode(&cut, Reduction::None).is_none(), "without what is behind byte {scan}");
    }
}

#[test]
fn files_that_libjpeg_refuses_are_left() {
    let read = |name: &str| std::fs::read(golden(name)).unwrap();
    let is_left = |jpeg: &[u8]| decode(jpeg, Reduction::None).is_none();
    let jpeg = read("444.jpg");
    let scan = jpeg.windows(2).position(|pair| pair == [0xFF, 0xDA]).unwrap();
    let end = jpeg.len() - 2;
    assert!(is_left(&[&jpeg[..end], &jpeg[scan..]].concat()), "two scans of the same coefficients");
    assert!(
        !is_left(&[&jpeg[..end], &[0xFF, 0xD3, 7], &jpeg[end..]].concat()),
        "a restart marker and a byte at the end"
    );
    let mut swapped = jpeg.clone();
    (swapped[scan + 5], swapped[scan + 7]) = (jpeg[scan + 7], jpeg[scan + 5]);
    assert!(is_left(&swapped), "components in another order");
    let mut large = jpeg.clone();
    let frame = jpeg.windows(2).position(|pair| pair == [0xFF, 0xC0]).unwrap();
    for at in [11, 14, 17] {
        large[frame + at] = 0x22;
    }
    assert!(is_left(&large), "12 blocks in an MCU");
}

#[test]
fn short_jfif_says_nothing_of_colours() {
    // Of RGB: without JFIF and Adobe's segment, the names of the components say so.
    let jpeg = std::fs::read(golden("rgb.jpg")).unwrap();
    let jfif = |len: u8| {
        let payload = &b"JFIF\0\x01\x01\0\0\x01\0\x01\0\0"[..usize::from(len)];
        let without_adobe = match jpeg.windows(2).position(|pair| pair == [0xFF, 0xEE]) {
            Some(at) => [&jpeg[2..at], &jpeg[at + 16..]].concat(),
            None => jpeg[2..].to_vec(),
        };
        let file = [&[0xFF, 0xD8, 0xFF, 0xE0, 0, len + 2], payload, &without_adobe].concat();
        rgb(decode(&file, Reduction::None).unwrap())
    };
    let plain = rgb(decode(&jpeg, Reduction::None).unwrap());
    assert!(jfif(12) == plain && jfif(14) != plain, "JFIF has 14 bytes");
}
