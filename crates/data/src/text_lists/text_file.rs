//! The text of a file in any usual encoding, and its lines.

use std::path::Path;

use crate::error::DataError;
use crate::files;
use crate::foreign_file::recognise;
use crate::text_lists::json_list::{is_json_file, list_in};
use crate::text_lists::table_like::table_like;

/// Blank lines that an error lists.
const MAX_LISTED: usize = 10;

/// Reads a text file with one row per line: line `n` is row `n - 1`. White space around a line is removed. A file with
/// the extension `json` is a JSON list of strings.
///
/// # Errors
/// [`DataError::TextList`] if the file is empty, is no text, is a table or JSON lines, or has blank lines, after which
/// rows would not be lines; [`DataError::Read`].
pub fn read_text_rows(path: &Path) -> Result<Vec<String>, DataError> {
    let text = read_text(path)?;
    if is_json_file(path)
        && let Some(list) = list_in(path, &text)?
    {
        return list.strings();
    }
    let lines: Vec<&str> = lines(&text).collect();
    if lines.is_empty() {
        return Err(empty(path, "one text per line"));
    }
    if let Some(problem) = table_like(path, &lines) {
        return Err(DataError::TextList { path: path.to_owned(), problem });
    }
    let blank: Vec<String> =
        lines.iter().zip(1..).filter(|(line, _)| line.is_empty()).map(|(_, number)| number.to_string()).collect();
    match blank.len() {
        0 => Ok(lines.into_iter().map(str::to_owned).collect()),
        count => {
            let shown = blank[..count.min(MAX_LISTED)].join(", ");
            let more = if count > MAX_LISTED { format!(" and {} more", count - MAX_LISTED) } else { String::new() };
            let (lines, are) = if count == 1 { ("line", "is") } else { ("lines", "are") };
            Err(DataError::TextList {
                path: path.to_owned(),
                problem: format!(
                    "{lines} {shown}{more} {are} blank; row n of the embeddings is line n, so remove blank lines or \
                     write a text there"
                ),
            })
        }
    }
}

/// The error that a list has no entries; `expected`: what a list consists of.
pub(crate) fn empty(path: &Path, expected: &str) -> DataError {
    DataError::TextList { path: path.to_owned(), problem: format!("it is empty; expected {expected}") }
}

/// The error about one line, counted from 1.
pub(crate) fn at_line(path: &Path, line: usize, problem: &str) -> DataError {
    DataError::TextList { path: path.to_owned(), problem: format!("line {line}: {problem}") }
}

/// The lines of a text, without surrounding white space and byte order marks. A text without line feeds has the line
/// ends of old Macs.
pub(crate) fn lines(text: &str) -> impl Iterator<Item = &str> {
    let is_end = if text.contains('\n') { '\n' } else { '\r' };
    let text = text.strip_suffix(is_end).unwrap_or(text);
    let count = if text.trim_matches(is_blank).is_empty() { 0 } else { usize::MAX };
    text.split(is_end).take(count).map(|line| line.trim_matches(is_blank))
}

/// Whether a character at either end of a line does not belong to the line. A byte order mark can stand at the start of
/// any line of a file that was joined from others.
fn is_blank(character: char) -> bool {
    character.is_whitespace() || character == '\u{feff}'
}

/// [`read_text`] of a file that may be read again, which a pipe cannot be.
///
/// # Errors
/// As for [`read_text`]; [`DataError::NotAFile`].
pub(crate) fn read_file_text(path: &Path) -> Result<String, DataError> {
    files::open(path)?;
    read_text(path)
}

/// Reads a text in UTF-8, or in UTF-16 with a byte order mark. The mark is removed.
///
/// # Errors
/// [`DataError::TextList`] if the file is no text, or a text in another encoding; [`DataError::Read`].
pub(crate) fn read_text(path: &Path) -> Result<String, DataError> {
    let bytes = std::fs::read(path).map_err(DataError::read(path))?;
    let problem = |problem: String| DataError::TextList { path: path.to_owned(), problem };
    let utf16 = match bytes.get(..2) {
        Some(b"\xff\xfe") => Some(u16::from_le_bytes as fn([u8; 2]) -> u16),
        Some(b"\xfe\xff") => Some(u16::from_be_bytes as fn([u8; 2]) -> u16),
        _ => None,
    };
    if let Some(unit) = utf16 {
        let (units, rest) = bytes[2..].as_chunks::<2>();
        let text = String::from_utf16(&units.iter().map(|&bytes| unit(bytes)).collect::<Vec<u16>>());
        return text
            .ok()
            .filter(|_| rest.is_empty())
            .ok_or_else(|| problem("it starts as UTF-16 but is not; save it as UTF-8".to_owned()));
    }
    if !bytes.is_empty()
        && let Some(found) = recognise(&bytes)
    {
        return Err(problem(found));
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let (bytes, at) = (error.as_bytes(), error.utf8_error().valid_up_to());
        let is_end = |byte: &u8| *byte == b'\n';
        let number = 1 + bytes[..at].iter().filter(|byte| is_end(byte)).count();
        let start = bytes[..at].iter().rposition(is_end).map_or(0, |end| end + 1);
        let end = bytes[at..].iter().position(is_end).map_or(bytes.len(), |len| at + len);
        let way_out = "the text is probably Latin-1 or Windows-1252: save it as UTF-8, or use `iconv -f WINDOWS-1252 \
                       -t UTF-8`";
        problem(not_utf8(&bytes[start..end], &format!("line {number}"), way_out))
    })?;
    if text.contains('\0') {
        return Err(problem("it holds NUL bytes, as UTF-16 text without its mark does; save it as UTF-8".to_owned()));
    }
    Ok(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text))
}

/// That `bytes`, one field or line, is not UTF-8, with the first byte that is not. `what`: which field or line it is.
/// `way_out`: what to do.
pub(crate) fn not_utf8(bytes: &[u8], what: &str, way_out: &str) -> String {
    let at = std::str::from_utf8(bytes).err().map_or(0, |error| error.valid_up_to());
    let byte = bytes.get(at).copied().unwrap_or(0);
    let start = String::from_utf8_lossy(&bytes[at.saturating_sub(20)..(at + 20).min(bytes.len())]);
    format!("not UTF-8 at byte {} of {what}, 0x{byte:02X} in `{}`; {way_out}", at + 1, start.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(name: &str, bytes: &[u8]) -> (tempfile::TempDir, std::path::PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        (dir, path)
    }

    fn rows(bytes: &[u8]) -> Result<Vec<String>, String> {
        let (_dir, path) = written("texts.txt", bytes);
        read_text_rows(&path).map_err(|error| error.to_string().replace(&path.display().to_string(), "texts.txt"))
    }

    #[test]
    fn every_encoding_reads_alike() {
        let plain = "a café\nb 猫\n";
        let utf16 = |unit: fn(u16) -> [u8; 2]| plain.encode_utf16().flat_map(unit).collect::<Vec<u8>>();
        let files: [Vec<u8>; 7] = [
            plain.into(),
            format!("\u{feff}{plain}").into(),
            format!("\u{feff}{}", plain.replace('\n', "\r\n")).into(),
            plain.replace('\n', "\r").into(),
            plain.replace('\n', "\n\u{feff}").trim_end_matches('\u{feff}').into(),
            [b"\xff\xfe".to_vec(), utf16(u16::to_le_bytes)].concat(),
            [b"\xfe\xff".to_vec(), utf16(u16::to_be_bytes)].concat(),
        ];
        for bytes in files {
            assert_eq!(rows(&bytes).unwrap(), ["a café", "b 猫"], "{bytes:?}");
        }
        let (_dir, path) = written("texts.json", b"[\n \"a\", \"b\"\n]");
        assert_eq!(read_text_rows(&path).unwrap(), ["a", "b"]);
    }

    #[test]
    fn other_files_are_refused() {
        let cases: [(&[u8], &str); 9] = [
            (b"a\ncaf\xe9 au lait", "not UTF-8 at byte 4 of line 2, 0xE9 in `caf\u{fffd} au lait`"),
            (b"a\0b\0", "it holds NUL bytes"),
            (b"\xff\xfea", "it starts as UTF-16 but is not"),
            (b"", "it is empty; expected one text per line"),
            (b"\xef\xbb\xbf\r\n", "it is empty"),
            (b"a\n\nb\n \n", "lines 2, 4 are blank"),
            (b"a\n\n", "line 2 is blank"),
            (b"PK\x03\x04xl", "it is a zip archive; unpack it first: `unzip FILE`"),
            (b"version https://git-lfs.github.com/spec/v1\n", "it is a Git LFS pointer"),
        ];
        for (bytes, expected) in cases {
            let error = rows(bytes).unwrap_err();
            assert!(error.starts_with(&format!("`texts.txt`: {expected}")), "{error}");
        }
    }
}
