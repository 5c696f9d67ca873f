//! What a file is, by its bytes. It names what a user may have in place of an image, of weights or of a tokenizer, and
//! what to do about it.

use std::fmt::{Display, Formatter};

/// What a file is by its first bytes, for an error message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Content {
    /// The name with its article, such as `a PNG image`.
    pub name: &'static str,
    /// What to do when another kind of file was expected; empty if nothing is known.
    pub advice: &'static str,
    /// Whether [`crate::decode`] reads it.
    pub is_image: bool,
    /// Whether another text may start so: JSON, the words of an error, or a signature that only letters follow.
    pub may_be_text: bool,
}

impl Display for Content {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)?;
        if self.advice.is_empty() { Ok(()) } else { write!(f, "; {}", self.advice) }
    }
}

const CONVERT: &str = "convert it to png or jpeg, for example with ImageMagick: `magick FILE out.png`";
const RASTERISE: &str = "rasterise it first, for example with `rsvg-convert FILE -o out.png`";
const DEVELOP: &str = "develop it to jpeg or tiff first, for example with darktable or RawTherapee";
const EXTRACT_FRAMES: &str = "extract its frames first, for example with `ffmpeg -i FILE frame-%06d.jpg`";
const DOWNLOAD_AGAIN: &str = "servers send this in place of a file; download it again";
const PICKLE: &str = "a Python pickle, as `torch.save` writes";
const NO_PICKLE: &str = "it can run code when it is read, and is refused; if it is a table, write it with \
                         `pandas.read_pickle(FILE).to_csv(\"pairs.csv\", index=False)`";
const XML: &str = "an XML page";
const FROM_PYTHON: &str = "write its images as files and its captions in a table, from Python";
const TO_CSV: &str = "save it as CSV in UTF-8, for example with `libreoffice --headless --convert-to csv FILE`";
const COPY_AGAIN: &str = "a sparse or interrupted copy looks so; copy or download it again";

/// Brands of the ISO base media format (ISO/IEC 14496-12) and what they stand for; others are videos.
const BRANDS: [(&[u8], &str, &str); 16] = [
    (b"avif", "an AVIF image", CONVERT),
    (b"avis", "an AVIF sequence", CONVERT),
    (b"heic", "a HEIC image", CONVERT),
    (b"heix", "a HEIC image", CONVERT),
    (b"heim", "a HEIC image", CONVERT),
    (b"heis", "a HEIC image", CONVERT),
    (b"hevc", "a HEIC sequence", CONVERT),
    (b"hevx", "a HEIC sequence", CONVERT),
    (b"mif1", "a HEIF image", CONVERT),
    (b"msf1", "a HEIF sequence", CONVERT),
    (b"miaf", "a HEIF image", CONVERT),
    (b"crx ", "a Canon raw photo", DEVELOP),
    (b"jp2 ", "a JPEG 2000 image", CONVERT),
    (b"jpx ", "a JPEG 2000 image", CONVERT),
    (b"jxl ", "a JPEG XL image", CONVERT),
    (b"qt  ", "a QuickTime video", EXTRACT_FRAMES),
];

/// Signatures at the start of a file. The first that matches counts.
const SIGNATURES: [(&[u8], &str, &str); 40] = [
    (b"\x00\x00\x00\x0cjP  \r\n\x87\n", "a JPEG 2000 image", CONVERT),
    (b"\xff\x4f\xff\x51", "a JPEG 2000 image", CONVERT),
    (b"\x00\x00\x00\x0cJXL \r\n\x87\n", "a JPEG XL image", CONVERT),
    (b"\xff\x0a", "a JPEG XL image", CONVERT),
    (b"8BPS", "a Photoshop document", CONVERT),
    (b"gimp xcf", "a GIMP document", CONVERT),
    (b"\x00\x00\x01\x00", "a Windows icon", CONVERT),
    (b"\x00\x00\x02\x00", "a Windows cursor", CONVERT),
    (b"icns", "a macOS icon", CONVERT),
    (b"DDS ", "a DDS texture", CONVERT),
    (b"v/1\x01", "an OpenEXR image", CONVERT),
    (b"#?RADIANCE", "a Radiance HDR image", CONVERT),
    (b"SIMPLE  =", "a FITS image", CONVERT),
    (b"\xd7\xcd\xc6\x9a", "a Windows metafile", RASTERISE),
    (b"%!PS", "a PostScript document", RASTERISE),
    (b"%PDF", "a PDF document", "extract its images first, for example with `pdfimages -all FILE out`"),
    (b"FUJIFILMCCD-RAW", "a Fujifilm raw photo", DEVELOP),
    (b"IIRO", "an Olympus raw photo", DEVELOP),
    (b"IIU\0", "a Panasonic raw photo", DEVELOP),
    (b"\x1aE\xdf\xa3", "a Matroska or WebM video", EXTRACT_FRAMES),
    (b"FLV\x01", "a Flash video", EXTRACT_FRAMES),
    (b"\x00\x00\x01\xba", "an MPEG video", EXTRACT_FRAMES),
    (b"\x00\x00\x01\xb3", "an MPEG video", EXTRACT_FRAMES),
    (b"OggS", "an Ogg audio or video file", EXTRACT_FRAMES),
    (b"fLaC", "a FLAC audio file", ""),
    (b"ID3", "an MP3 audio file", ""),
    (b"\x1f\x8b", "a gzip archive", "unpack it first: `gunzip FILE` or `tar -xzf FILE`"),
    (b"PK\x03\x04", "a zip archive", "unpack it first: `unzip FILE`"),
    (b"PK\x05\x06", "an empty zip archive", ""),
    (b"\x28\xb5\x2f\xfd", "a zstd archive", "unpack it first: `zstd -d FILE`"),
    (b"BZh", "a bzip2 archive", "unpack it first: `bunzip2 FILE`"),
    (b"\xfd7zXZ\0", "an xz archive", "unpack it first: `unxz FILE`"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", "unpack it first: `7z x FILE`"),
    (b"Rar!\x1a\x07", "a rar archive", "unpack it first: `unrar x FILE`"),
    (b"\x93NUMPY", "a numpy array", "save it as an image first, for example with `PIL.Image.fromarray`"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file", FROM_PYTHON),
    (b"PAR1", "a Parquet table", "its name has to end with `.parquet`, where data are read"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Excel or Word file", TO_CSV),
    (
        b"SQLite format 3\0",
        "an SQLite database",
        "write a table first: `sqlite3 -csv -header FILE 'select * from TABLE' > pairs.csv`",
    ),
    (b"ARROW1\0\0", "an Arrow file", "write it as parquet first, for example with `pandas.read_feather`"),
];

/// Starts of text files, in lower case. The first that matches counts.
const TEXTS: [(&str, &str, &str); 14] = [
    (
        "version https://git-lfs",
        "a Git LFS pointer",
        "fetch the real file with `git lfs pull` in its repository (see `git lfs install`)",
    ),
    ("<!doctype html", "an HTML page", DOWNLOAD_AGAIN),
    ("<html", "an HTML page", DOWNLOAD_AGAIN),
    ("<head", "an HTML page", DOWNLOAD_AGAIN),
    ("<error", XML, DOWNLOAD_AGAIN),
    ("<svg", "an SVG drawing", RASTERISE),
    ("accessdenied", "the text `AccessDenied`", DOWNLOAD_AGAIN),
    ("access denied", "the text `Access Denied`", DOWNLOAD_AGAIN),
    ("forbidden", "the text `Forbidden`", DOWNLOAD_AGAIN),
    ("not found", "the text `Not Found`", DOWNLOAD_AGAIN),
    ("404", "the text `404`", DOWNLOAD_AGAIN),
    ("403", "the text `403`", DOWNLOAD_AGAIN),
    ("error", "the text of an error", DOWNLOAD_AGAIN),
    ("too many requests", "the text `Too Many Requests`", DOWNLOAD_AGAIN),
];

/// Bytes of the head that decide about text.
const HEAD_BYTES: usize = 512;

/// What `bytes` are, the whole of a file or its first kilobyte; `None` if they are nothing known.
///
/// It never fails and takes the time of a few comparisons, plus one pass over bytes that are all zero.
#[must_use]
pub fn what_is(bytes: &[u8]) -> Option<Content> {
    let may_be_text = !bytes[..bytes.len().min(HEAD_BYTES)].iter().any(is_control);
    if let Some(format) = ImageFormat::of(bytes) {
        return Some(Content { name: format.with_article(), advice: "", is_image: true, may_be_text });
    }
    let found = |name, advice| Some(Content { name, advice, is_image: false, may_be_text });
    if let Some((name, advice)) = container(bytes) {
        return found(name, advice);
    }
    if let Some((_, name, advice)) = SIGNATURES.iter().find(|(signature, ..)| bytes.starts_with(signature)) {
        return found(name, advice);
    }
    if is_pickle(bytes) {
        return found(PICKLE, NO_PICKLE);
    }
    if bytes.get(257..262) == Some(b"ustar") {
        return found("a tar archive", "unpack it first: `tar -xf FILE`; or name it as a source of shards");
    }
    // `numpy.save` and tensors start with a header; a hole in a file has none.
    if bytes.len() >= 8 && bytes.iter().all(|&byte| byte == 0) {
        return found("zeros only", COPY_AGAIN);
    }
    let head = String::from_utf8_lossy(&bytes[..bytes.len().min(HEAD_BYTES)]);
    let text = head.trim_start_matches('\u{feff}').trim_start().to_lowercase();
    let found = |name, advice, may_be_text| Some(Content { name, advice, is_image: false, may_be_text });
    if let Some((start, name, advice)) = TEXTS.iter().find(|(start, ..)| text.starts_with(start)) {
        let is_sure = start.starts_with('<') || start.starts_with("version");
        return found(name, advice, !is_sure);
    }
    if text.starts_with("<?xml") {
        let is_svg = text.contains("<svg");
        let (name, advice) = if is_svg { ("an SVG drawing", RASTERISE) } else { (XML, DOWNLOAD_AGAIN) };
        return found(name, advice, false);
    }
    // A JSON value in a safetensors file follows eight bytes of length.
    if text.starts_with('{') || text.starts_with("[{") || text.starts_with("[\"") {
        return found("JSON", DOWNLOAD_AGAIN, true);
    }
    None
}

/// Whether a byte is in no text.
fn is_control(byte: &u8) -> bool {
    byte.is_ascii_control() && !byte.is_ascii_whitespace()
}

/// Formats with the signature not at the start, or of a family: zip, RIFF, LMDB, and ISO base media.
fn container(bytes: &[u8]) -> Option<(&'static str, &'static str)> {
    if bytes.starts_with(b"PK\x03\x04") {
        return zip_of(bytes);
    }
    // `MDB_MAGIC` behind the header of the first page.
    if bytes.get(16..20) == Some(&0xBEEF_C0DE_u32.to_le_bytes()) {
        return Some(("an LMDB database", FROM_PYTHON));
    }
    if bytes.starts_with(b"RIFF") {
        return match bytes.get(8..12)? {
            b"AVI " => Some(("an AVI video", EXTRACT_FRAMES)),
            b"WAVE" => Some(("a WAV audio file", "")),
            _ => None,
        };
    }
    if bytes.get(4..8) != Some(b"ftyp") {
        return None;
    }
    let brand = bytes.get(8..12)?;
    let known = BRANDS.iter().find(|(known, ..)| *known == brand);
    Some(known.map_or(("an MP4 video", EXTRACT_FRAMES), |&(_, name, advice)| (name, advice)))
}

/// What a zip archive holds, by the name of its first file; `None` for any other archive.
fn zip_of(bytes: &[u8]) -> Option<(&'static str, &'static str)> {
    let length = u16::from_le_bytes([*bytes.get(26)?, *bytes.get(27)?]);
    let (name, content) = bytes.get(30..)?.split_at_checked(usize::from(length))?;
    let is_office =
        [&b"[Content_Types].xml"[..], b"_rels/", b"xl/", b"docProps/"].iter().any(|it| name.starts_with(it));
    if is_office || name == b"mimetype" && content.starts_with(b"application/vnd.oasis.opendocument") {
        return Some(("a spreadsheet or document of Excel, Word or LibreOffice", TO_CSV));
    }
    // `torch.save` names its folder after the file.
    if name.ends_with(b"/data.pkl") {
        return Some((PICKLE, NO_PICKLE));
    }
    name.ends_with(b".npy").then_some(("a numpy archive", FROM_PYTHON))
}

/// Protocols 2 to 5 start with their number, and those before with the opcodes of a container.
fn is_pickle(bytes: &[u8]) -> bool {
    matches!(bytes, [0x80, 2..=5, b'c' | b'}' | b']' | b'(' | b'K' | b'X' | b'q' | 0x8a | 0x95, ..])
}

/// An image format that [`crate::decode`] reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ImageFormat {
    Jpeg,
    Png,
    WebP,
    Gif,
    Bmp,
    /// A BMP without the file header, as in the clipboard of Windows.
    Dib,
    Tiff,
    Qoi,
    Pnm,
}

impl ImageFormat {
    /// The format of a file, by its first 18 bytes.
    pub(crate) fn of(bytes: &[u8]) -> Option<Self> {
        const PNG: &[u8] = b"\x89PNG\r\n\x1a\n";
        // The lengths of the headers that BMP decoders know.
        let has_dib_header =
            |bytes: Option<&[u8]>| matches!(bytes, Some([12 | 40 | 52 | 56 | 64 | 108 | 124, 0, 0, 0]));
        Some(match bytes {
            [0xFF, 0xD8, 0xFF, ..] => Self::Jpeg,
            _ if bytes.starts_with(PNG) => Self::Png,
            [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Self::WebP,
            [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => Self::Gif,
            [b'B', b'M', ..] if has_dib_header(bytes.get(14..18)) => Self::Bmp,
            // One plane, at the place of the information header.
            _ if bytes.first() == Some(&40) && has_dib_header(bytes.get(..4)) && bytes.get(12..14) == Some(&[1, 0]) => {
                Self::Dib
            }
            // The second number is that of BigTIFF.
            [b'I', b'I', 42 | 43, 0, ..] | [b'M', b'M', 0, 42 | 43, ..] => Self::Tiff,
            [b'q', b'o', b'i', b'f', ..] => Self::Qoi,
            [b'P', b'1'..=b'7', b' ' | b'\t' | b'\n' | b'\r' | b'#', ..] => Self::Pnm,
            _ => return None,
        })
    }

    /// The name in messages, such as `damaged png: ...`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Jpeg => "jpeg",
            Self::Png => "png",
            Self::WebP => "webp",
            Self::Gif => "gif",
            Self::Bmp | Self::Dib => "bmp",
            Self::Tiff => "tiff",
            Self::Qoi => "qoi",
            Self::Pnm => "pnm",
        }
    }

    fn with_article(self) -> &'static str {
        match self {
            Self::Jpeg => "a JPEG image",
            Self::Png => "a PNG image",
            Self::WebP => "a WebP image",
            Self::Gif => "a GIF image",
            Self::Bmp | Self::Dib => "a BMP image",
            Self::Tiff => "a TIFF image",
            Self::Qoi => "a QOI image",
            Self::Pnm => "a PNM image",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(bytes: &[u8]) -> String {
        what_is(bytes).map_or_else(String::new, |content| content.to_string())
    }

    #[test]
    fn every_kind_is_named() {
        for (signature, name, _) in SIGNATURES {
            assert_eq!(what_is(signature).unwrap().name, name);
        }
        for (brand, name, _) in BRANDS {
            assert_eq!(what_is(&[b"\0\0\0\x20ftyp", brand].concat()).unwrap().name, name);
        }
        for (start, name, _) in TEXTS {
            assert_eq!(what_is(format!("\u{feff}\n {}", start.to_uppercase()).as_bytes()).unwrap().name, name);
        }
        assert!(named(b"\0\0\0\x20ftypheic").starts_with("a HEIC image; convert it to png or jpeg"));
        assert!(named(b"\0\0\0\x20ftypisom").starts_with("an MP4 video; extract its frames"));
        assert!(named(b"RIFF\0\0\0\0AVI LIST").starts_with("an AVI video"));
        assert!(
            named(b"<?xml version=\"1.0\"?><Error><Code>NoSuchKey</Code>")
                .starts_with("an XML page; servers send this")
        );
        assert!(named(b"<?xml version=\"1.0\"?>\n<svg width=\"1\">").starts_with("an SVG drawing; rasterise"));
        let zip = |name: &[u8], content: &[u8]| {
            [b"PK\x03\x04", &[0; 22][..], &[name.len() as u8, 0, 0, 0], name, content].concat()
        };
        assert!(named(&zip(b"images.npy", b"")).starts_with("a numpy archive; write its images"));
        assert!(named(&zip(b"[Content_Types].xml", b"")).contains("Excel, Word or LibreOffice; save it as CSV"));
        let ods = zip(b"mimetype", b"application/vnd.oasis.opendocument.spreadsheetPK");
        assert!(named(&ods).contains("--convert-to csv"));
        assert!(named(&zip(b"archive/data.pkl", b"")).starts_with("a Python pickle"));
        assert!(named(&zip(b"images/0.png", b"")).starts_with("a zip archive; unpack it first: `unzip FILE`"));
        let lmdb = [&[0; 16][..], &[0xde, 0xc0, 0xef, 0xbe], &[1, 0, 0, 0]].concat();
        assert!(named(&lmdb).starts_with("an LMDB database; write its images"));
        assert!(named(b"{\"error\": 404}").starts_with("JSON"));
        assert!(named(b"\x80\x02}q\x00(").starts_with("a Python pickle"));
        assert!(named(&[0; 4096]).starts_with("zeros only; a sparse or interrupted copy"));
        let mut tar = [b'x'; 512];
        tar[257..262].copy_from_slice(b"ustar");
        assert!(named(&tar).starts_with("a tar archive"));
    }

    #[test]
    fn other_bytes_have_no_name() {
        for bytes in [&b""[..], b"\0", b"BMW drives a car", b"P6", b"MMm", b"GIF88a", b"a plain caption", b"\x80\x02"] {
            assert_eq!(named(bytes), "", "{bytes:?}");
        }
    }

    #[test]
    fn images_are_known_by_content() {
        let bmp = [b"BM".as_slice(), &[0; 12], &[40, 0, 0, 0]].concat();
        let dib = [&[40, 0, 0, 0][..], &[0; 8], &[1, 0, 24, 0]].concat();
        for (bytes, name) in [
            (&b"\xff\xd8\xff\xe0"[..], "a JPEG image"),
            (b"\x89PNG\r\n\x1a\n", "a PNG image"),
            (b"RIFF\x10\0\0\0WEBPVP8L", "a WebP image"),
            (b"GIF89a", "a GIF image"),
            (&bmp, "a BMP image"),
            (&dib, "a BMP image"),
            (b"II*\0", "a TIFF image"),
            (b"MM\0*", "a TIFF image"),
            (b"MM\0+", "a TIFF image"),
            (b"qoif", "a QOI image"),
            (b"P5 1 1 255\n", "a PNM image"),
            (b"P7\nWIDTH 1", "a PNM image"),
        ] {
            assert_eq!(what_is(bytes).map(|it| (it.name, it.advice, it.is_image)), Some((name, "", true)));
        }
    }
}
