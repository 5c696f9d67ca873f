//! Rare formats: truncated files, variants that are refused, and what the goldens lack.

use std::io::Cursor;
use std::path::PathBuf;

use dualenc_data::{Limits, RgbImage, decode};
use image::codecs::png::PngEncoder;
use image::{DynamicImage, ExtendedColorType, ImageEncoder, ImageFormat};

use crate::limits::peak_memory;
use crate::support::golden;

fn read(name: &str) -> Vec<u8> {
    std::fs::read(golden("formats").join(name)).unwrap()
}

fn decoded(bytes: &[u8]) -> RgbImage {
    decode(bytes, &Limits::default()).unwrap()
}

fn error(bytes: &[u8]) -> String {
    decode(bytes, &Limits::default()).unwrap_err().to_string()
}

/// Every image of the goldens of formats.
fn all_files() -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = Vec::new();
    for folder in ["formats", "decode"] {
        let entries = std::fs::read_dir(golden(folder)).unwrap().map(|entry| entry.unwrap().path());
        files.extend(entries.filter(|path| path.extension().is_some_and(|extension| extension != "safetensors")));
    }
    assert!(files.len() > 100, "{files:?}");
    files
}

#[test]
fn every_format_names_the_limit() {
    for path in all_files() {
        let message = decode(&std::fs::read(&path).unwrap(), &Limits { max_pixels: 9 }).unwrap_err().to_string();
        let expected = "23x17 pixels is over the limit of 9 (`data.max_pixels`, or `--max-pixels` without a config); raise it \
                        or resize the image";
        assert_eq!(message, expected, "{}", path.display());
    }
}

#[test]
fn truncation_is_never_silent() {
    let mut failures = Vec::new();
    for path in all_files() {
        let bytes = std::fs::read(&path).unwrap();
        let whole = decoded(&bytes);
        // A lost trailer or directory of another page loses no pixel; any other loss must be an error.
        let silent = (1..bytes.len())
            .filter(|&len| decode(&bytes[..len], &Limits::default()).is_ok_and(|image| image.data != whole.data));
        let silent: Vec<usize> = silent.collect();
        // Nothing shows that a decimal number has lost its last digits, or a PNG a chunk with up to 3 bytes left.
        let allowed = match path.file_name().unwrap().to_str().unwrap() {
            "plain.pgm" | "plain.ppm" => 2,
            "after_pixels.png" => 4,
            _ => 0,
        };
        if silent.len() > allowed {
            failures.push(format!("{} of {} bytes: {silent:?}", path.display(), bytes.len()));
        }
    }
    assert!(failures.is_empty(), "{failures:#?}");
}

#[test]
fn truncated_files_say_so() {
    for (name, len, expected) in [
        ("xmp.png", 700, "damaged png: truncated: its 700 bytes have no end chunk"),
        ("rgb.bmp", 700, "damaged bmp: truncated: it has 700 of 1278 bytes"),
        ("rgb.qoi", 700, "damaged qoi: truncated: its 700 bytes have no end marker"),
        ("xmp.webp", 700, "damaged webp: truncated: it has 700 of"),
        ("rgb.ppm", 700, "damaged pnm: truncated: it has 687 of 1173 bytes of pixels"),
        ("plain.pgm", 700, "damaged pnm: truncated: it has"),
        ("xmp_ignored.gif", 300, "damaged gif: truncated: its 300 bytes have no trailer"),
        ("lzw.tif", 700, "damaged tiff: truncated: it"),
    ] {
        let message = error(&read(name)[..len]);
        assert!(message.starts_with(expected), "{name}: {message}");
    }
}

/// The place of a tag in the first directory.
fn place(tiff: &[u8], tag: u16) -> usize {
    assert!(tiff.starts_with(b"II*\0"));
    let directory = u32::from_le_bytes(tiff[4..8].try_into().unwrap()) as usize;
    let entries = u16::from_le_bytes([tiff[directory], tiff[directory + 1]]);
    let mut places = (0..usize::from(entries)).map(|entry| directory + 2 + 12 * entry);
    places.find(|&at| tiff[at..at + 2] == tag.to_le_bytes()).unwrap()
}

/// The file with another value of a tag.
fn with_tag(mut tiff: Vec<u8>, tag: u16, value: u16) -> Vec<u8> {
    let place = place(&tiff, tag);
    tiff[place + 8..place + 10].copy_from_slice(&value.to_le_bytes());
    tiff
}

/// The file with another tag in place of `tag`.
fn renamed(mut tiff: Vec<u8>, tag: u16, new: u16) -> Vec<u8> {
    let place = place(&tiff, tag);
    tiff[place..place + 2].copy_from_slice(&new.to_le_bytes());
    tiff
}

#[test]
fn unsupported_tiffs_name_the_way_out() {
    const COMPRESSION: u16 = 259;
    const PHOTOMETRIC: u16 = 262;
    const STRIP_ROWS: u16 = 278;
    const SUBFILE: u16 = 254;
    const DNG_VERSION: u16 = 50_706;
    let raw = [b"II*\0\x10\0\0\0CR\x02\0".as_slice(), &[0; 40]].concat();
    for (bytes, expected) in [
        (with_tag(read("lzw.tif"), COMPRESSION, 50_000), "ZSTD"),
        (with_tag(read("bits1.tif"), COMPRESSION, 3), "Fax3"),
        (with_tag(read("grey.tif"), PHOTOMETRIC, 8), "CIELab"),
        // In a raw photo, the first page is a thumbnail.
        (renamed(with_tag(read("grey.tif"), STRIP_ROWS, 1), STRIP_ROWS, SUBFILE), "thumbnail"),
        (renamed(read("grey.tif"), STRIP_ROWS, DNG_VERSION), "thumbnail"),
        (raw, "it is a Canon raw photo"),
    ] {
        let message = error(&bytes);
        assert!(message.starts_with("a tiff of a kind that is not supported: "), "{message}");
        assert!(message.contains(expected) && message.ends_with("`magick FILE out.png`"), "{message}");
    }
}

#[test]
fn broken_side_tags_are_ignored() {
    const PLANES: u16 = 284;
    const RESOLUTION_UNIT: u16 = 296;
    let whole = read("rgb.tif");
    // One plane is the default; its tag becomes another with a value outside the file.
    let mut bytes = renamed(whole.clone(), PLANES, RESOLUTION_UNIT);
    let at = place(&bytes, RESOLUTION_UNIT);
    bytes[at + 2..at + 12].copy_from_slice(&[5, 0, 1, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0]);
    assert_eq!(decoded(&bytes), decoded(&whole));
    // The decoder would allocate what this tag announces.
    let at = place(&whole, PLANES);
    let outside = [&whole[..at + 4], &[0xFF, 0xFF, 0xFF, 0], &whole[at + 8..]].concat();
    assert!(error(&outside).contains("do not hold all of its directory"), "{}", error(&outside));
}

#[test]
fn portable_arbitrary_maps_are_read() {
    let pam = |depth: usize, max: u32, pixels: &[u8]| {
        let header = format!("P7\nWIDTH 2\n# a comment\nHEIGHT 1\nDEPTH {depth}\nMAXVAL {max}\nTUPLTYPE ANY\nENDHDR\n");
        decoded(&[header.as_bytes(), pixels].concat()).data
    };
    assert_eq!(pam(1, 1, &[0, 1]), [0, 0, 0, 255, 255, 255]);
    assert_eq!(pam(2, 255, &[9, 255, 9, 0]), [9, 9, 9, 255, 255, 255]);
    assert_eq!(pam(3, 255, &[1, 2, 3, 4, 5, 6]), [1, 2, 3, 4, 5, 6]);
    assert_eq!(pam(4, 255, &[1, 2, 3, 255, 4, 5, 6, 0]), [1, 2, 3, 255, 255, 255]);
    assert_eq!(pam(1, 65_535, &[255, 255, 128, 0]), [255, 255, 255, 128, 128, 128]);
}

#[test]
fn malformed_maps_are_refused() {
    for (file, expected) in [
        (&b"P5 2 1 0\n12"[..], "its maximum is 0; expected 1 to 65535"),
        (b"P5 2 x 255\n12", "the height at byte 5 is not a number"),
        (b"P5 2 1", "truncated: it ends before the maximum"),
        (b"P5 2 1 255\n1", "truncated: it has 1 of 2 bytes of pixels"),
        (b"P2 2 1 9\n1 10", "the sample 10 is over the maximum 9"),
        (b"P2 2 1 9\n 1 ", "truncated: it ends before a sample"),
        (b"P1 2 1\n02", "the sample at byte 8 is neither 0 nor 1"),
        (b"P5 0 1 255\n1", "it has 0x1 pixels"),
        (b"P7\nWIDTH 2\n", "its header has no `ENDHDR`"),
        (b"P7\nWIDTH two\nENDHDR\n", "`WIDTH` in its header is `two`; expected a number"),
        (b"P7\nWIDTH 2\nENDHDR\n", "it has depth 0 and maximum 0"),
    ] {
        let message = error(file);
        assert!(message.starts_with("damaged pnm: ") && message.contains(expected), "{message}");
    }
    assert!(error(b"P6 60000 60000 255\n").starts_with("60000x60000 pixels is over the limit"));
}

fn encoded(image: &DynamicImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    image.write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

#[test]
fn decoding_fills_one_buffer() {
    const SIDE: u32 = 1000;
    const PIXELS: usize = (SIDE * SIDE) as usize;
    let kinds = [
        (DynamicImage::new_rgb8(SIDE, SIDE), ImageFormat::Png, 3),
        (DynamicImage::new_rgba8(SIDE, SIDE), ImageFormat::Png, 4),
        (DynamicImage::new_luma8(SIDE, SIDE), ImageFormat::Png, 3),
        (DynamicImage::new_rgba16(SIDE, SIDE), ImageFormat::Png, 8),
        (DynamicImage::new_rgb8(SIDE, SIDE), ImageFormat::Jpeg, 3),
        (DynamicImage::new_rgb8(SIDE, SIDE), ImageFormat::Bmp, 3),
        (DynamicImage::new_rgba8(SIDE, SIDE), ImageFormat::Qoi, 4),
    ];
    for (image, format, bytes_per_pixel) in kinds {
        let bytes = encoded(&image, format);
        let (decoded, peak) = peak_memory(|| decoded(&bytes));
        assert_eq!(decoded.data.len(), 3 * PIXELS);
        // Rows, tables and a copy of the encoded bytes are beside it.
        let most = bytes_per_pixel * PIXELS + 2 * bytes.len() + (1 << 19);
        assert!(peak <= most, "{format:?} with {:?}: {peak} bytes of memory, {most} expected", image.color());
    }
}

#[test]
fn colour_profile_is_no_bomb() {
    let mut bytes = Vec::new();
    let mut encoder = PngEncoder::new(&mut bytes);
    encoder.set_icc_profile(vec![0; 150 << 20]).unwrap();
    encoder.write_image(&[1, 2, 3], 1, 1, ExtendedColorType::Rgb8).unwrap();
    let (result, peak) = peak_memory(|| decode(&bytes, &Limits::default()));
    assert!(result.is_ok() && peak < 140 << 20, "{peak} bytes of memory, {result:?}");
}

#[test]
fn panorama_is_read() {
    let bytes = encoded(&DynamicImage::new_luma8(18_000, 2000), ImageFormat::Png);
    let image = decoded(&bytes);
    assert_eq!((image.width, image.height, image.data.len()), (18_000, 2000, 108_000_000));
    assert!(decode(&bytes, &Limits { max_pixels: 35_999_999 }).is_err());
}

/// Shows the memory that a photo of 108 megapixels takes: `--ignored --nocapture`.
#[test]
#[ignore = "takes a minute and a gigabyte"]
fn huge_photos_are_read() {
    for format in [ImageFormat::Jpeg, ImageFormat::Png] {
        for image in [DynamicImage::new_rgb8(12_000, 9000), DynamicImage::new_rgba8(12_000, 9000)] {
            if format == ImageFormat::Jpeg && image.color().has_alpha() {
                continue;
            }
            let bytes = encoded(&image, format);
            let (_, plain) = peak_memory(|| image::load_from_memory(&bytes).unwrap().into_rgb8());
            let (_, ours) = peak_memory(|| decoded(&bytes));
            let (plain, ours) = (plain >> 20, ours >> 20);
            #[expect(clippy::print_stdout, reason = "shown with `--nocapture`: what it measures")]
            {
                println!("{format:?} {:?}: {ours} MiB, and {plain} MiB with two buffers", image.color());
            }
            assert!(ours <= plain + 1);
        }
    }
}
