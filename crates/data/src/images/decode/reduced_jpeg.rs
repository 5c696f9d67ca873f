//! JPEGs at a half, a quarter or an eighth of their size: of each block of 8 x 8 coefficients, only the lowest 4 x 4,
//! 2 x 2 or 1 are transformed, so that most of the work after Huffman decoding falls away. Pillow's `Image.draft` has
//! libjpeg do the same. The pixels are not those of a reduced whole image.

use ::image::ColorType;
use jpeg_decoder::{Decoder, PixelFormat};

use crate::images::decode::pixels::Raw;

/// The factors that sides can be divided by, the largest first.
const FACTORS: [u32; 3] = [8, 4, 2];

/// Width and height of an image after its resize, from those of the upright image.
pub(crate) type Target<'a> = &'a dyn Fn(u32, u32) -> (u32, u32);

/// The largest factor that leaves an image of this width and height at least as large as its target; `None`: it is not
/// reduced. It divides both sides: otherwise the last pixels would stand for less of the image than the others, and the
/// resize would shift it.
fn factor((width, height): (u32, u32), orientation: u32, target: Target<'_>) -> Option<u32> {
    let is_turned = (5..=8).contains(&orientation);
    let (width, height) = if is_turned { (height, width) } else { (width, height) };
    let (target_width, target_height) = target(width, height);
    let fits =
        |side: u32, target: u32, factor: u32| side.is_multiple_of(factor) && target.saturating_mul(factor) <= side;
    FACTORS.into_iter().find(|&factor| fits(width, target_width, factor) && fits(height, target_height, factor))
}

/// Decodes a JPEG of this width and height at the smallest scale that is at least as large as its `target`. `None`: it
/// is decoded whole, since its target is more than half as large, it is neither grey nor RGB, or this decoder refuses
/// it.
pub(crate) fn read(bytes: &[u8], (width, height): (u32, u32), orientation: u32, target: Target<'_>) -> Option<Raw> {
    let factor = factor((width, height), orientation, target)?;
    let mut decoder = Decoder::new(bytes);
    decoder.read_info().ok()?;
    let info = decoder.info()?;
    let color = match info.pixel_format {
        PixelFormat::L8 => ColorType::L8,
        PixelFormat::RGB24 => ColorType::Rgb8,
        PixelFormat::L16 | PixelFormat::CMYK32 => return None,
    };
    if (u32::from(info.width), u32::from(info.height)) != (width, height) {
        return None;
    }
    let reduced = |side: u32| u16::try_from(side.div_ceil(factor)).ok();
    let (reduced_width, reduced_height) = (reduced(width)?, reduced(height)?);
    let (width, height) = decoder.scale(reduced_width, reduced_height).ok()?;
    let data = decoder.decode().ok()?;
    let pixels = usize::from(width) * usize::from(height);
    let is_whole = data.len() == pixels * if color == ColorType::L8 { 1 } else { 3 };
    is_whole.then(|| Raw { width: width.into(), height: height.into(), data, color, orientation })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reduced_images_are_no_smaller_than_their_target() {
        let to = |width: u32, height: u32| move |_: u32, _: u32| (width, height);
        assert_eq!(factor((1600, 1200), 1, &to(298, 224)), Some(4));
        assert_eq!(factor((1600, 1200), 1, &to(200, 150)), Some(8));
        assert_eq!(factor((1600, 1200), 1, &to(800, 600)), Some(2));
        assert_eq!(factor((1600, 1200), 1, &to(801, 600)), None);
        assert_eq!(factor((1604, 1200), 1, &to(200, 150)), Some(4));
        assert_eq!(factor((1600, 1201), 1, &to(200, 150)), None);
        assert_eq!(factor((1600, 1200), 1, &to(800, 601)), None);
        // A file of a photo on its side.
        let upright = |width: u32, height: u32| (width / 4, height / 5);
        assert_eq!(
            factor((1600, 1200), 6, &|width, height| {
                assert_eq!((width, height), (1200, 1600));
                upright(width, height)
            }),
            Some(4)
        );
    }
}
