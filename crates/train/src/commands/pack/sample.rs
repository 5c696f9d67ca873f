//! An image with its captions as bytes.

use std::path::Path;

use dualenc_data::{DataError, Dataset, Encoding, Filter, Limits, RgbImage, ShardWriter, decode, encode, resize};
use serde_json::{Value, json};

use crate::commands::check::images::fault;
use crate::commands::pack::request::{PackSize, Recode};

/// Quality of the JPEG that replaces a larger JPEG: Pillow's docs advise against more.
const JPEG_QUALITY: u8 = 95;

/// A sample to write.
#[derive(Debug)]
pub(crate) struct Sample {
    pub bytes: Vec<u8>,
    /// The extension of the image.
    pub extension: String,
    /// In order.
    pub captions: Vec<String>,
    /// The captions as lines of text, unless they are in `json`.
    pub text: Option<Vec<u8>>,
    /// The original name, and captions that are no lines.
    pub json: Vec<u8>,
}

/// An image that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BadSample {
    /// Its number in the data set.
    pub image: usize,
    pub key: String,
    pub cause: String,
    pub reason: String,
}

impl Sample {
    /// Bytes that it takes in a shard.
    pub fn entry_bytes(&self) -> u64 {
        let entries = [Some(&self.bytes), self.text.as_ref(), Some(&self.json)];
        entries.into_iter().flatten().map(|bytes| ShardWriter::<Vec<u8>>::entry_bytes(bytes.len() as u64)).sum()
    }
}

impl BadSample {
    pub fn to_json(&self) -> Value {
        json!({"image": self.image, "key": self.key, "cause": self.cause, "reason": self.reason})
    }

    /// `None`: the line is about a row of the source.
    pub fn from_json(line: &Value) -> Option<Self> {
        let text = |key: &str| line.get(key)?.as_str().map(str::to_owned);
        let image = usize::try_from(line.get("image")?.as_u64()?).ok()?;
        Some(Self { image, key: text("key")?, cause: text("cause")?, reason: text("reason")? })
    }
}

/// Reads image number `image` of `dataset` with its captions. The outer error ends the work; the inner one is a bad
/// image.
pub(crate) fn read_sample(
    dataset: &Dataset,
    image: usize,
    recode: Recode,
    limits: &Limits,
) -> Result<Result<Sample, BadSample>, DataError> {
    let location = dataset.image(image);
    let read = || -> Result<(Vec<u8>, String), DataError> {
        let bytes = location.read()?;
        let decoded = decode(&bytes, limits).map_err(|source| DataError::Image { key: location.key(), source })?;
        let is_jpeg = bytes.starts_with(b"\xff\xd8\xff");
        let Some((smaller, encoding)) = recoded(&decoded, is_jpeg, recode) else {
            let extension = extension(&bytes, &location.key());
            return Ok((bytes, extension));
        };
        let bytes = encode(smaller.as_ref().unwrap_or(&decoded), encoding)
            .map_err(|reason| DataError::Loader { reason: format!("image `{}`: {reason}", location.key()) })?;
        Ok((bytes, encoding.extension().to_owned()))
    };
    let (bytes, extension) = match read() {
        Ok(read) => read,
        Err(error @ DataError::Image { .. }) => {
            let fault = fault(error);
            let (cause, key) = (fault.cause.to_owned(), location.key());
            return Ok(Err(BadSample { image, key, cause, reason: fault.reason }));
        }
        Err(error) => return Err(error),
    };
    let captions: Vec<String> =
        dataset.captions_of(image).iter().map(|&caption| dataset.caption(caption as usize).text.to_owned()).collect();
    let (text, json) = text_of(&captions, &original(dataset, image));
    Ok(Ok(Sample { bytes, extension, captions, text, json }))
}

/// The name of an image: its path below the source, or `shard.tar/entry.jpg`.
pub(crate) fn original(dataset: &Dataset, image: usize) -> String {
    let key = dataset.image(image).key();
    let below = dataset.root_of(image).and_then(|root| Path::new(&key).strip_prefix(root).ok());
    below.map_or_else(|| key.clone(), |path| path.display().to_string())
}

/// How an image is stored, and its smaller copy if it is reduced; `None`: its file is copied.
fn recoded(image: &RgbImage, is_jpeg: bool, recode: Recode) -> Option<(Option<RgbImage>, Encoding)> {
    let size = recode.size.and_then(|size| reduced(image.width, image.height, size));
    let smaller = size.map(|(width, height)| resize(image, width, height, Filter::Bicubic));
    match (recode.quality, smaller) {
        (Some(quality), smaller) => Some((smaller, Encoding::Jpeg(quality))),
        (None, Some(smaller)) => {
            let encoding = if is_jpeg { Encoding::Jpeg(JPEG_QUALITY) } else { Encoding::Png };
            Some((Some(smaller), encoding))
        }
        (None, None) => None,
    }
}

/// The reduced size of an image; `None`: it is small enough.
fn reduced(width: u32, height: u32, size: PackSize) -> Option<(u32, u32)> {
    let (side, target) = match size {
        PackSize::ShorterSide(target) => (width.min(height), target.max(1)),
        PackSize::LongerSide(target) => (width.max(height), target.max(1)),
    };
    // Rounded down as torchvision and transformers do, to at least one pixel.
    let scaled = |other: u32| (u64::from(other) * u64::from(target) / u64::from(side)).max(1) as u32;
    (side > target).then(|| (scaled(width), scaled(height)))
}

/// The captions as lines of text, and a JSON object with the original name and captions that are no lines.
fn text_of(captions: &[String], original: &str) -> (Option<Vec<u8>>, Vec<u8>) {
    let is_line = |caption: &String| !caption.contains(['\n', '\r']) && !caption.starts_with('\u{feff}');
    if captions.iter().all(is_line) {
        let lines = captions.iter().flat_map(|caption| [caption.as_bytes(), b"\n"].concat()).collect();
        return (Some(lines), json!({ "original": original }).to_string().into_bytes());
    }
    (None, json!({ "caption": captions, "original": original }).to_string().into_bytes())
}

/// The usual extension for the format of the bytes; for other formats, that of the name.
fn extension(bytes: &[u8], key: &str) -> String {
    let known: [(&[u8], &str); 6] = [
        (b"\xff\xd8\xff", "jpg"),
        (b"\x89PNG", "png"),
        (b"GIF8", "gif"),
        (b"BM", "bmp"),
        (b"II*\0", "tif"),
        (b"MM\0*", "tif"),
    ];
    if bytes.starts_with(b"RIFF") && bytes.get(8..12) == Some(b"WEBP") {
        return "webp".to_owned();
    }
    if let Some((_, extension)) = known.iter().find(|(start, _)| bytes.starts_with(start)) {
        return (*extension).to_owned();
    }
    let name = Path::new(key).extension().unwrap_or_default().to_string_lossy();
    name.to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_only_shrink() {
        assert_eq!(reduced(640, 480, PackSize::ShorterSide(224)), Some((298, 224)));
        assert_eq!(reduced(640, 480, PackSize::LongerSide(320)), Some((320, 240)));
        assert_eq!(reduced(640, 480, PackSize::ShorterSide(480)), None);
        assert_eq!(reduced(100, 50, PackSize::LongerSide(224)), None);
        assert_eq!(reduced(10_000, 2, PackSize::LongerSide(100)), Some((100, 1)));
    }

    #[test]
    fn captions_of_several_lines_are_json() {
        let captions = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let (text, json) = text_of(&captions(&["a", "b c"]), "x/1.jpg");
        assert_eq!((text, json), (Some(b"a\nb c\n".to_vec()), b"{\"original\":\"x/1.jpg\"}".to_vec()));
        let (text, json) = text_of(&captions(&["a\nb"]), "1.jpg");
        assert_eq!((text, json), (None, b"{\"caption\":[\"a\\nb\"],\"original\":\"1.jpg\"}".to_vec()));
    }

    #[test]
    fn extensions_follow_content() {
        assert_eq!(extension(b"\xff\xd8\xff\xe0", "x/a.png"), "jpg");
        assert_eq!(extension(b"RIFF....WEBPVP8 ", "x/a"), "webp");
        assert_eq!(extension(b"qoif", "x/a.QOI"), "qoi");
    }
}
