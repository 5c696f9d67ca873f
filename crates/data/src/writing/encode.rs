//! An image as PNG or JPEG.

use std::io::Cursor;

use ::image::codecs::jpeg::JpegEncoder;
use ::image::codecs::png::PngEncoder;
use ::image::{ExtendedColorType, ImageEncoder};

use crate::images::rgb_image::RgbImage;

/// A format to store images in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// Without loss.
    Png,
    /// With loss: baseline JPEG without subsampling of colours. The quality is from 1 to 100.
    Jpeg(u8),
}

impl Encoding {
    /// The usual extension of file names.
    #[must_use]
    pub const fn extension(self) -> &'static str {
        match self {
            Self::Png => "png",
            Self::Jpeg(_) => "jpg",
        }
    }
}

/// Encodes an image. The same image gives the same bytes.
///
/// # Errors
/// What the encoder cannot do, in words: an image without pixels, or a JPEG of more than 65,535 pixels a side.
pub fn encode(image: &RgbImage, encoding: Encoding) -> Result<Vec<u8>, String> {
    let mut bytes = Cursor::new(Vec::new());
    let (width, height) = (image.width, image.height);
    if width == 0 || height == 0 {
        return Err(format!("an image of {width}x{height} pixels cannot be encoded"));
    }
    let encoded = match encoding {
        Encoding::Png => PngEncoder::new(&mut bytes).write_image(&image.data, width, height, ExtendedColorType::Rgb8),
        Encoding::Jpeg(quality) => JpegEncoder::new_with_quality(&mut bytes, quality.clamp(1, 100)).write_image(
            &image.data,
            width,
            height,
            ExtendedColorType::Rgb8,
        ),
    };
    encoded.map_err(|error| error.to_string())?;
    Ok(bytes.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::images::decode::decode;
    use crate::images::decode::limits::Limits;

    fn gradient() -> RgbImage {
        let data = (0..40 * 30).flat_map(|at| [(at % 40 * 6) as u8, (at / 40 * 8) as u8, 90]).collect();
        RgbImage { width: 40, height: 30, data }
    }

    #[test]
    fn png_keeps_every_pixel() {
        let image = gradient();
        let bytes = encode(&image, Encoding::Png).unwrap();
        assert_eq!(decode(&bytes, &Limits::default()).unwrap(), image);
        assert_eq!(bytes, encode(&image, Encoding::Png).unwrap());
    }

    #[test]
    fn jpeg_is_close_and_smaller_at_low_quality() {
        let image = gradient();
        let [fine, coarse] = [95, 20].map(|quality| encode(&image, Encoding::Jpeg(quality)).unwrap());
        assert!(coarse.len() < fine.len(), "{} and {}", coarse.len(), fine.len());
        let decoded = decode(&fine, &Limits::default()).unwrap();
        let worst = decoded.data.iter().zip(&image.data).map(|(a, b)| a.abs_diff(*b)).max();
        assert!(worst <= Some(8), "{worst:?}");
    }

    #[test]
    fn refuses_what_has_no_pixels() {
        let error = encode(&RgbImage::black(0, 3), Encoding::Png).unwrap_err();
        assert_eq!(error, "an image of 0x3 pixels cannot be encoded");
    }
}
