//! Recognises a file that is not what its name says: a download that went wrong, or another format.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde_json::Value;

use crate::error::ModelError;

/// Bytes at the start of a file that are looked at. A pointer of Git LFS is shorter.
const HEAD_BYTES: u64 = 512;

/// How each file of PyTorch becomes one that is read.
pub(crate) const CONVERT_PICKLE: &str = "which can run code when it is read, and is refused. If you trust its \
    source, convert it once: a transformers directory with \
    `AutoModel.from_pretrained(DIR).save_pretrained(DIR, safe_serialization=True)`, anything else with \
    `safetensors.torch.save_file(torch.load(FILE, weights_only=True), \"model.safetensors\")`";

/// What the file at `path` is instead of safetensors, and what to do; `None` if it is not recognised, starts as
/// safetensors do, or cannot be read.
pub(crate) fn recognise_file(path: &Path) -> Option<String> {
    let file = File::open(path).ok()?;
    let size = file.metadata().ok()?.len();
    let mut head = Vec::new();
    file.take(HEAD_BYTES).read_to_end(&mut head).ok()?;
    // The length of a header, below 2^32, and its first brace. A length may look like the start of another format.
    if head.get(4..9) == Some(b"\0\0\0\0{") { None } else { recognise(&head, size) }
}

/// Parses the content of the JSON file at `path`, with or without a byte order mark.
///
/// # Errors
/// [`ModelError::Config`] if it is not JSON.
pub(crate) fn parse_json(path: &Path, bytes: &[u8]) -> Result<Value, ModelError> {
    let json = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    serde_json::from_slice(json)
        .map_err(|error| ModelError::Config { path: path.to_owned(), problem: json_problem(bytes, &error) })
}

/// What a file is instead of JSON, or why it is not JSON.
pub(crate) fn json_problem(bytes: &[u8], error: &serde_json::Error) -> String {
    match recognise(&bytes[..bytes.len().min(HEAD_BYTES as usize)], bytes.len() as u64) {
        Some(found) => found,
        None if error.is_eof() => {
            format!("not JSON: {error}; its {} bytes end in the middle of a value: fetch it again", bytes.len())
        }
        None if error.is_data() => error.to_string(),
        None => format!("not JSON: {error}"),
    }
}

/// What a file of `size` bytes that starts with `head` is, and what to do; `None` if it is not recognised.
pub(crate) fn recognise(head: &[u8], size: u64) -> Option<String> {
    let text = String::from_utf8_lossy(head).trim_start_matches('\u{feff}').trim_start().to_lowercase();
    let starts = |magics: &[&[u8]]| magics.iter().any(|magic| head.starts_with(magic));
    let holds = |word: &[u8]| head.windows(word.len()).any(|window| window == word);
    let found = if size == 0 {
        "it is empty: fetch it again".to_owned()
    } else if text.starts_with("version https://git-lfs") {
        format!("it is a Git LFS pointer of {size} bytes; fetch the real file with `git lfs pull`")
    } else if ["<!doctype html", "<html", "<head"].iter().any(|tag| text.starts_with(tag)) {
        "it is an HTML page, as servers send in place of a missing or protected file: fetch it again".to_owned()
    } else if text.starts_with("<?xml") || text.starts_with("<error") {
        "it is an XML page, as storage servers send in place of a missing or protected file: fetch it again".to_owned()
    } else if starts(&[b"PK\x03\x04"]) && (holds(b"data.pkl") || holds(b".format_version")) {
        format!("it is a file of PyTorch (a zip archive with a pickle), {CONVERT_PICKLE}")
    } else if starts(&[b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"]) {
        format!("it is a pickle, as PyTorch writes, {CONVERT_PICKLE}")
    } else if starts(&[b"\x1f\x8b"]) {
        "it is compressed with gzip: unpack it with `gunzip` or `tar xzf`".to_owned()
    } else if starts(&[b"PK\x03\x04"]) {
        "it is a zip archive: unpack it".to_owned()
    } else if starts(&[b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd", b"BZh", b"7z\xbc\xaf"]) {
        "it is compressed (xz, zstd, bzip2 or 7z): unpack it".to_owned()
    } else if starts(&[b"GGUF"]) {
        "it is a GGUF file of llama.cpp, which cannot be trained: get the safetensors weights".to_owned()
    } else if starts(&[b"\x89HDF"]) {
        "it is an HDF5 file, as TensorFlow and Keras write: get the safetensors weights".to_owned()
    } else if starts(&[b"\xff\xfe", b"\xfe\xff"]) {
        "it is UTF-16 text: save it as UTF-8".to_owned()
    } else if size >= 8 && head.iter().all(|&byte| byte == 0) {
        format!("its first {} bytes are zeros, as an interrupted download leaves them: fetch it again", head.len())
    } else {
        return None;
    };
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_files_are_named() {
        let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 99\n";
        let cases: [(&[u8], &str); 15] = [
            (b"", "it is empty"),
            (pointer, "it is a Git LFS pointer of 64 bytes; fetch the real file with `git lfs pull`"),
            (b"\n<!DOCTYPE html><html>", "it is an HTML page"),
            (b"<html lang=\"en\">", "it is an HTML page"),
            (b"<?xml version=\"1.0\"?><Error><Code>AccessDenied", "it is an XML page"),
            (b"<Error><Code>NoSuchKey", "it is an XML page"),
            (b"PK\x03\x04\0\0\0\0archive/data.pkl", "it is a file of PyTorch"),
            (b"PK\x03\x04\0\0\0\0model/config.json", "it is a zip archive"),
            (b"\x80\x02}q\0", "it is a pickle"),
            (b"\x1f\x8b\x08\0", "it is compressed with gzip"),
            (b"\xfd7zXZ\0\0", "it is compressed (xz"),
            (b"GGUF\x03\0\0\0", "it is a GGUF file"),
            (b"\x89HDF\r\n", "it is an HDF5 file"),
            (b"\xff\xfe{\0", "it is UTF-16 text"),
            (&[0; 40], "its first 40 bytes are zeros"),
        ];
        for (bytes, expected) in cases {
            let found = recognise(bytes, bytes.len() as u64).unwrap();
            assert!(found.starts_with(expected), "{found}");
        }
        for real in [&b"\x40\0\0\0\0\0\0\0{\"a\":"[..], b"{\"model_type\": \"vit\"}", b"\0"] {
            assert_eq!(recognise(real, real.len() as u64), None);
        }
    }

    #[test]
    fn cut_json_is_an_interrupted_download() {
        let whole = b"{\"a\": [1, 2]}";
        let problem = |bytes: &[u8]| json_problem(bytes, &serde_json::from_slice::<Vec<()>>(bytes).unwrap_err());
        assert!(!problem(whole).contains("fetch it again"));
        let error = serde_json::from_slice::<Value>(&whole[..9]).unwrap_err();
        assert!(
            json_problem(&whole[..9], &error).ends_with("its 9 bytes end in the middle of a value: fetch it again")
        );
    }
}
