//! Small pictures of images.

use std::collections::HashMap;

use dualenc_data::{Encoding, Filter, ImageRef, Limits, RgbImage, decode, encode, resize};
use dualenc_report::Picture;

/// Pixels of the longer side.
const SIDE: u32 = 160;

/// Enough for a picture of this size; a page holds dozens of them.
const QUALITY: u8 = 82;

/// Makes pictures, and each one once.
pub(super) struct Thumbnails {
    limits: Limits,
    made: HashMap<String, Vec<u8>>,
    unreadable: Vec<String>,
}

impl Thumbnails {
    pub fn new(limits: Limits) -> Self {
        Self { limits, made: HashMap::new(), unreadable: Vec::new() }
    }

    /// The picture of an image, shown as `path`. One that cannot be read has no bytes, and is noted.
    pub fn show(&mut self, image: &ImageRef, path: String) -> Picture {
        if let ImageRef::FeatureRow { .. } = image {
            return Picture { path, bytes: Vec::new() };
        }
        let key = image.key();
        if let Some(bytes) = self.made.get(&key) {
            return Picture { path, bytes: bytes.clone() };
        }
        let bytes = self.make(image).unwrap_or_else(|reason| {
            self.unreadable.push(format!("`{key}`: {reason}"));
            Vec::new()
        });
        self.made.insert(key, bytes.clone());
        Picture { path, bytes }
    }

    /// The images that cannot be shown, each with the reason.
    pub fn unreadable(&self) -> &[String] {
        &self.unreadable
    }

    fn make(&self, image: &ImageRef) -> Result<Vec<u8>, String> {
        let bytes = image.read().map_err(|error| error.to_string())?;
        let decoded = decode(&bytes, &self.limits).map_err(|error| error.to_string())?;
        encode(&shrunk(decoded), Encoding::Jpeg(QUALITY))
    }
}

/// The image with at most [`SIDE`] pixels a side.
fn shrunk(image: RgbImage) -> RgbImage {
    let longer = image.width.max(image.height);
    if longer <= SIDE {
        return image;
    }
    let side = |pixels: u32| (u64::from(pixels) * u64::from(SIDE) / u64::from(longer)).max(1) as u32;
    resize(&image, side(image.width), side(image.height), Filter::Bicubic)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_are_small_and_keep_their_shape() {
        let image = |width: u32, height: u32| RgbImage { width, height, data: vec![90; (width * height * 3) as usize] };
        let sizes = [(640, 320), (3, 900), (90, 30)].map(|(width, height)| {
            let image = shrunk(image(width, height));
            (image.width, image.height)
        });
        assert_eq!(sizes, [(160, 80), (1, 160), (90, 30)]);
    }

    #[test]
    fn unreadable_picture_keeps_its_name() {
        let mut thumbnails = Thumbnails::new(Limits::default());
        let image = ImageRef::File("none.png".into());
        for _ in 0..2 {
            let picture = thumbnails.show(&image, "none.png".to_owned());
            assert_eq!((picture.path.as_str(), picture.bytes.len()), ("none.png", 0));
        }
        assert_eq!(thumbnails.unreadable().len(), 1);
    }
}
