//! The size of an image from the start of its file.

use std::io::{Cursor, Read, Seek, SeekFrom};

use ::image::ImageReader;

use crate::images::decode::limits::Limits;
use crate::images::location::ImageRef;
use crate::panics::catch_quietly;

/// Bytes that are read: the header of most images, EXIF and thumbnail included.
const START_BYTES: u64 = 128 << 10;

/// The width and height of an image in pixels, before its EXIF orientation. `None`: only decoding can tell whether it
/// is an image within `limits`, or what is wrong with it.
#[must_use]
pub fn image_size(image: &ImageRef, limits: &Limits) -> Option<(u32, u32)> {
    let (file, len): (Box<dyn Read>, u64) = match image {
        ImageRef::File(path) => {
            let metadata = std::fs::metadata(path).ok().filter(std::fs::Metadata::is_file)?;
            (Box::new(std::fs::File::open(path).ok()?), metadata.len())
        }
        ImageRef::TarEntry { tar, offset, len, .. } => {
            let mut file = std::fs::File::open(tar).ok()?;
            file.seek(SeekFrom::Start(*offset)).ok()?;
            (Box::new(file), *len)
        }
        ImageRef::FeatureRow { .. } => return None,
        // A page of the table is unpacked as a whole.
        ImageRef::ParquetCell { .. } => (Box::new(Cursor::new(image.read().ok()?)), u64::MAX),
    };
    let mut start = Vec::new();
    file.take(len.min(START_BYTES)).read_to_end(&mut start).ok()?;
    let size = || ImageReader::new(Cursor::new(&start)).with_guessed_format().ok()?.into_dimensions().ok();
    let (width, height) = catch_quietly(size).ok().flatten()?;
    // A size over a limit is for the decoder to report, and to decide.
    let is_usual = width > 0 && height > 0 && u64::from(width) * u64::from(height) <= limits.max_pixels;
    is_usual.then_some((width, height))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::images::rgb_image::RgbImage;
    use crate::writing::encode::{Encoding, encode};

    #[test]
    fn sizes_come_from_headers() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.png");
        let limits = Limits::default();
        let png = encode(&RgbImage::black(300, 200), Encoding::Png).unwrap();
        std::fs::write(&path, &png).unwrap();
        let size = |limits: &Limits| image_size(&ImageRef::File(path.clone()), limits);
        assert_eq!(size(&limits), Some((300, 200)));
        let mut tight = limits;
        tight.max_pixels = 59_999;
        assert_eq!(size(&tight), None);
        std::fs::write(&path, &png[..60]).unwrap();
        assert_eq!(size(&limits), Some((300, 200)), "the pixels are not read");
        std::fs::write(&path, b"text").unwrap();
        assert_eq!(size(&limits), None);
        std::fs::write(&path, b"").unwrap();
        assert_eq!(size(&limits), None);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(size(&limits), None);
        let tar = std::sync::Arc::from(dir.path().join("s.tar"));
        std::fs::write(&tar, [&[0; 512][..], &png].concat()).unwrap();
        let entry = ImageRef::TarEntry { tar, name: "a.png".to_owned(), offset: 512, len: png.len() as u64 };
        assert_eq!(image_size(&entry, &limits), Some((300, 200)));
    }
}
