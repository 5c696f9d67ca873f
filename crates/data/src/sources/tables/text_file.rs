//! Opens a text file and decodes it to UTF-8. A file in UTF-8 is passed through: whoever reads it checks each row, and
//! can name it.

use std::io::{BufRead, BufReader, Cursor, Read};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::DataError;
use crate::files;
use crate::foreign_file::recognise;
use crate::sources::tables::windows_1252::Windows1252Reader;
use crate::text_lists::text_file::not_utf8;

/// Bytes at the start of a file that are looked at: a few hundred rows.
const HEAD_BYTES: u64 = 64 << 10;

/// Share of zero bytes at every second place from which text without a byte order mark is UTF-16: almost all Latin
/// letters, digits and separators have one.
const UTF16_ZEROS: f64 = 0.4;

/// How the characters of a text file are encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub enum TextEncoding {
    /// UTF-8, with or without byte order mark.
    #[serde(rename = "utf-8", alias = "utf8")]
    Utf8,
    /// UTF-16, as Excel's "Unicode text" and PowerShell write it; little-endian without byte order mark.
    #[serde(rename = "utf-16", alias = "utf16")]
    Utf16,
    /// Latin-1, read as Windows-1252, which adds quotes, dashes and the euro sign.
    #[serde(rename = "latin1", alias = "latin-1", alias = "windows-1252", alias = "cp1252")]
    Latin1,
}

/// Names of UTF-16, for the log.
const UTF16: &str = "UTF-16";
const UTF16_BIG: &str = "UTF-16 big-endian";

/// What to do about text that is not UTF-16.
const NOT_UTF16: &str = "it was read as UTF-16: if it is not, set `encoding = \"utf-8\"`, or the encoding it has";

/// A text file, decoded.
pub(crate) struct TextFile {
    /// The text, without byte order mark. UTF-8 if the file is what it says it is.
    pub(crate) reader: Box<dyn BufRead>,
    /// The start of the text, up to 64 KiB; it may end within a character.
    pub(crate) head: Vec<u8>,
    /// Whether the head is the whole text.
    pub(crate) head_is_whole: bool,
    /// The encoding, for the log.
    pub(crate) encoding: &'static str,
    /// Whether it is read as UTF-16 because the user says so, and nothing in the file does.
    is_doubtful: bool,
}

impl TextFile {
    /// Opens `path`. Without `encoding`, byte order marks and zero bytes tell UTF-16 from UTF-8.
    ///
    /// # Errors
    /// [`DataError::Read`]; [`DataError::Malformed`] for UTF-16 that ends within a character or has half a surrogate
    /// pair, and for a file that is no text at all.
    pub(crate) fn open(path: &Path, encoding: Option<TextEncoding>) -> Result<Self, DataError> {
        let mut file = files::open(path)?;
        let mut head = Vec::new();
        file.by_ref().take(HEAD_BYTES).read_to_end(&mut head).map_err(DataError::read(path))?;
        let head_is_whole = (head.len() as u64) < HEAD_BYTES;
        let malformed = |reason: String| DataError::Malformed { path: path.to_owned(), reason };
        if let Some(other) = not_text(&head) {
            return Err(malformed(other));
        }
        let wide = match encoding {
            None => utf16(&head),
            Some(TextEncoding::Utf16) => Some(utf16(&head).unwrap_or_else(|| unmarked(&head))),
            Some(_) => None,
        };
        let is_doubtful = wide.is_some() && utf16(&head).is_none();
        if let Some(wide) = wide {
            file.read_to_end(&mut head).map_err(DataError::read(path))?;
            let text = wide.decode(&head[wide.mark..]).map_err(|reason| malformed(wide.doubt(reason)))?.into_bytes();
            let head = text[..text.len().min(HEAD_BYTES as usize)].to_vec();
            let encoding = if wide.is_little { UTF16 } else { UTF16_BIG };
            let head_is_whole = head.len() == text.len();
            return Ok(Self { reader: Box::new(Cursor::new(text)), head, head_is_whole, encoding, is_doubtful });
        }
        if encoding == Some(TextEncoding::Latin1) {
            let whole = Cursor::new(head.clone()).chain(file);
            let mut start = Vec::new();
            // Reading memory cannot fail.
            Windows1252Reader::new(&head[..]).read_to_end(&mut start).map_err(DataError::read(path))?;
            let reader = Box::new(BufReader::new(Windows1252Reader::new(BufReader::new(whole))));
            return Ok(Self { reader, head: start, head_is_whole, encoding: "Windows-1252", is_doubtful });
        }
        let mark = if head.starts_with(b"\xef\xbb\xbf") { 3 } else { 0 };
        head.drain(..mark);
        let encoding = if mark > 0 { "UTF-8 with byte order mark" } else { "UTF-8" };
        let reader = Box::new(BufReader::with_capacity(1 << 16, Cursor::new(head.clone()).chain(file)));
        Ok(Self { reader, head, head_is_whole, encoding, is_doubtful })
    }

    /// Why a file that was not understood may be in another encoding, with the way out.
    pub(crate) fn other_encoding(&self) -> Option<&'static str> {
        let line = self.head[..self.head.len().min(NUL_WITHIN)].split(|byte| *byte == b'\n').next();
        let has_nul = line.is_some_and(|line| line.contains(&0));
        match self.encoding {
            _ if self.is_doubtful => Some(NOT_UTF16),
            UTF16 | UTF16_BIG => None,
            _ => has_nul.then_some(IS_UTF16),
        }
    }
}

/// What to do about text that is in UTF-16, and was not recognised as such.
pub(crate) const IS_UTF16: &str = "it holds NUL bytes, as UTF-16 without byte order mark does: set \
                                   `encoding = \"utf-16\"`, or save the file as UTF-8";

/// Bytes at the start of a text in which a NUL tells that it is UTF-16.
const NUL_WITHIN: usize = 256;

/// What a row says that is not UTF-8: `bytes` is one field or line.
pub(crate) fn row_not_utf8(bytes: &[u8], what: &str) -> String {
    let way_out = if bytes.contains(&0) {
        IS_UTF16
    } else {
        "save the file as UTF-8, or set `encoding = \"latin1\"` if it is in Latin-1 or Windows-1252"
    };
    not_utf8(bytes, what, way_out)
}

/// Text in 16-bit units.
#[derive(Clone, Copy)]
struct Wide {
    is_little: bool,
    /// Bytes of the byte order mark.
    mark: usize,
}

impl Wide {
    /// An error with the way out, if no mark tells that the text is UTF-16.
    fn doubt(self, reason: String) -> String {
        if self.mark == 0 { format!("{reason}; {NOT_UTF16}") } else { reason }
    }

    fn decode(self, bytes: &[u8]) -> Result<String, String> {
        let (units, rest) = bytes.as_chunks::<2>();
        if !rest.is_empty() {
            return Err(format!("UTF-16 with an odd number of bytes, {}: it is cut off", bytes.len() + self.mark));
        }
        let unit = |unit: &[u8; 2]| if self.is_little { u16::from_le_bytes(*unit) } else { u16::from_be_bytes(*unit) };
        let mut text = String::with_capacity(units.len());
        let mut at = 0;
        for decoded in char::decode_utf16(units.iter().map(unit)) {
            let character = decoded.map_err(|error| {
                let byte = self.mark + 2 * at + 1;
                format!("not UTF-16 at byte {byte}: half a surrogate pair, 0x{:04X}", error.unpaired_surrogate())
            })?;
            at += character.len_utf16();
            text.push(character);
        }
        Ok(text)
    }
}

/// UTF-16 that neither a mark nor many zero bytes tell: of the byte orders, the one with more zero bytes in upper
/// halves.
fn unmarked(head: &[u8]) -> Wide {
    let zeros = |from: usize| head.iter().skip(from).step_by(2).filter(|&&byte| byte == 0).count();
    Wide { is_little: zeros(1) >= zeros(0), mark: 0 }
}

/// Whether the file that starts with `head` is UTF-16, and which.
fn utf16(head: &[u8]) -> Option<Wide> {
    if head.starts_with(b"\xff\xfe") || head.starts_with(b"\xfe\xff") {
        return Some(Wide { is_little: head[0] == 0xff, mark: 2 });
    }
    let zeros = |from: usize| head.iter().skip(from).step_by(2).filter(|&&byte| byte == 0).count();
    let (even, odd) = (zeros(0), zeros(1));
    let most = (UTF16_ZEROS * head.len() as f64 / 2.0).max(2.0);
    // Zero bytes at one parity only: text has them at the upper half of each unit.
    match (even as f64 >= most, odd as f64 >= most) {
        (false, true) if even == 0 => Some(Wide { is_little: true, mark: 0 }),
        (true, false) if odd == 0 => Some(Wide { is_little: false, mark: 0 }),
        _ => None,
    }
}

/// What a file that is no text is, and what to do.
fn not_text(head: &[u8]) -> Option<String> {
    if head.starts_with(b"\xff\xfe\0\0") || head.starts_with(b"\0\0\xfe\xff") {
        return Some("it is UTF-32; save it as UTF-8".to_owned());
    }
    // Readers say themselves that an empty file has no rows.
    recognise(head).filter(|_| !head.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The decoded text and the name of its encoding.
    fn open(bytes: &[u8], encoding: Option<TextEncoding>) -> Result<(String, &'static str), String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("d.csv");
        std::fs::write(&path, bytes).unwrap();
        let mut file = TextFile::open(&path, encoding)
            .map_err(|error| error.to_string().replace(&path.display().to_string(), "d.csv"))?;
        let mut text = Vec::new();
        file.reader.read_to_end(&mut text).unwrap();
        assert!(text.starts_with(&file.head));
        Ok((String::from_utf8(text).unwrap(), file.encoding))
    }

    fn wide(text: &str, to_bytes: fn(u16) -> [u8; 2]) -> Vec<u8> {
        text.encode_utf16().flat_map(to_bytes).collect()
    }

    #[test]
    fn encodings_are_recognised() {
        let text = "image,caption\na.png,caf\u{e9} \u{8d64} \u{1f431}\n";
        let marked = format!("\u{feff}{text}");
        let cases = [
            (text.as_bytes().to_vec(), "UTF-8"),
            (marked.as_bytes().to_vec(), "UTF-8 with byte order mark"),
            (wide(&marked, u16::to_le_bytes), "UTF-16"),
            (wide(&marked, u16::to_be_bytes), "UTF-16 big-endian"),
            (wide(text, u16::to_le_bytes), "UTF-16"),
            (wide(text, u16::to_be_bytes), "UTF-16 big-endian"),
        ];
        for (bytes, name) in cases {
            assert_eq!(open(&bytes, None).unwrap(), (text.to_owned(), name));
        }
        let long = text.repeat(5000);
        assert_eq!(open(long.as_bytes(), None).unwrap().0, long);
        assert_eq!(open(&wide(&long, u16::to_le_bytes), None).unwrap().0, long);
        assert_eq!(open(b"", None).unwrap(), (String::new(), "UTF-8"));
        assert_eq!(open(b"a\0", None).unwrap().1, "UTF-8", "too short to tell");
    }

    #[test]
    fn latin1_is_windows_1252() {
        let bytes = b"a.png,caf\xe9 \x80 \x93x\x94\n".repeat(9000);
        let (text, name) = open(&bytes, Some(TextEncoding::Latin1)).unwrap();
        assert_eq!((text, name), ("a.png,caf\u{e9} \u{20ac} \u{201c}x\u{201d}\n".repeat(9000), "Windows-1252"));
    }

    #[test]
    fn damaged_utf16_names_byte() {
        let mut bytes = wide("\u{feff}ab\u{1f431}", u16::to_le_bytes);
        bytes.truncate(bytes.len() - 2);
        let error = open(&bytes, None).unwrap_err();
        assert_eq!(error, "`d.csv` is malformed: not UTF-16 at byte 7: half a surrogate pair, 0xD83D");
        bytes.pop();
        assert!(open(&bytes, None).unwrap_err().contains("an odd number of bytes, 7: it is cut off"));
    }

    #[test]
    fn other_files_are_named() {
        for (bytes, name) in [
            (&b"\x1f\x8b\x08"[..], "gunzip"),
            (b"PK\x03\x04", "it is a zip archive; unpack"),
            (b"PAR1\x15", "Parquet"),
            (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
            (b"\n <!DOCTYPE html>", "HTML"),
        ] {
            let error = open(bytes, None).unwrap_err();
            assert!(error.starts_with("`d.csv` is malformed: it is ") && error.contains(name), "{error}");
        }
    }
    #[test]
    fn unmarked_utf16_is_read_on_request() {
        let text = "i,c\n\u{8d64}\u{8d64}\u{8d64}\u{8d64}\u{8d64}\u{8d64}\u{8d64}\u{8d64}\u{8d64}\u{8d64}\u{8d64}\n";
        for to_bytes in [u16::to_le_bytes, u16::to_be_bytes] {
            let bytes = wide(text, to_bytes);
            assert!(utf16(&bytes).is_none(), "few zero bytes");
            assert_eq!(open(&bytes, Some(TextEncoding::Utf16)).unwrap().0, text);
        }
    }
}
