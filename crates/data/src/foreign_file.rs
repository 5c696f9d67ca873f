//! Recognises a file that is not the text or JSON that its name says: a download that went wrong, or another format.

/// Bytes at the start of a file that are looked at. A pointer of Git LFS is shorter.
const HEAD_BYTES: usize = 512;

/// What a file with these bytes is instead of text, and what to do; `None` if it is not recognised.
pub(crate) fn recognise(bytes: &[u8]) -> Option<String> {
    let (head, size) = (&bytes[..bytes.len().min(HEAD_BYTES)], bytes.len());
    let text = String::from_utf8_lossy(head).trim_start_matches('\u{feff}').trim_start().to_lowercase();
    let starts = |magics: &[&[u8]]| magics.iter().any(|magic| head.starts_with(magic));
    let found = if size == 0 {
        "it is empty: fetch it again"
    } else if text.starts_with("version https://git-lfs") {
        return Some(format!("it is a Git LFS pointer of {size} bytes; fetch the real file with `git lfs pull`"));
    } else if ["<!doctype html", "<html", "<head"].iter().any(|tag| text.starts_with(tag)) {
        "it is an HTML page, as servers send in place of a missing or protected file: fetch it again"
    } else if text.starts_with("<?xml") || text.starts_with("<error") {
        "it is an XML page, as storage servers send in place of a missing or protected file: fetch it again"
    } else if starts(&[b"PK\x03\x04"]) {
        "it is a zip archive, as Excel and Word write too: unpack it, or save it as plain text"
    } else if starts(&[b"\x1f\x8b"]) {
        "it is compressed with gzip: unpack it with `gunzip`"
    } else if starts(&[b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd", b"BZh", b"7z\xbc\xaf"]) {
        "it is compressed (xz, zstd, bzip2 or 7z): unpack it"
    } else if starts(&[b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"]) {
        "it is a pickle of Python, which can run code when it is read, and is refused"
    } else if size >= 4 && head.iter().all(|&byte| byte == 0) {
        "it consists of zeros, as an interrupted download leaves them: fetch it again"
    } else {
        return None;
    };
    Some(found.to_owned())
}

/// What a file is instead of JSON, or why it is not JSON.
pub(crate) fn json_problem(bytes: &[u8], error: &serde_json::Error) -> String {
    match recognise(bytes) {
        Some(found) => found,
        None if bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff") => {
            "it is UTF-16 text: save it as UTF-8".to_owned()
        }
        None if error.is_eof() => {
            format!("not JSON: {error}; its {} bytes end in the middle of a value: fetch it again", bytes.len())
        }
        None => format!("not JSON: {error}"),
    }
}

/// The JSON of a file without its byte order mark.
pub(crate) fn without_bom(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_files_are_named() {
        let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 99\n";
        let cases: [(&[u8], &str); 10] = [
            (b"", "it is empty"),
            (pointer, "it is a Git LFS pointer of 64 bytes; fetch the real file with `git lfs pull`"),
            (b"\xef\xbb\xbf <!DOCTYPE html>", "it is an HTML page"),
            (b"<?xml version=\"1.0\"?><Error>", "it is an XML page"),
            (b"<Error><Code>NoSuchKey", "it is an XML page"),
            (b"PK\x03\x04\0\0", "it is a zip archive"),
            (b"\x1f\x8b\x08\0", "it is compressed with gzip"),
            (b"BZh91AY", "it is compressed (xz"),
            (b"\x80\x04\x95", "it is a pickle"),
            (&[0; 40], "it consists of zeros"),
        ];
        for (bytes, expected) in cases {
            let found = recognise(bytes).unwrap();
            assert!(found.starts_with(expected), "{found}");
        }
        for real in [&b"a photo of a {c}"[..], b"{\"a\": 1}", b"[PAD]\n[UNK]\n"] {
            assert_eq!(recognise(real), None);
        }
    }

    #[test]
    fn cut_json_is_an_interrupted_download() {
        let bytes = b"{\"a\": [1, ";
        let error = serde_json::from_slice::<serde_json::Value>(bytes).unwrap_err();
        assert!(json_problem(bytes, &error).ends_with("its 10 bytes end in the middle of a value: fetch it again"));
        let bytes = b"{\"a\" 1}";
        let error = serde_json::from_slice::<serde_json::Value>(bytes).unwrap_err();
        assert!(!json_problem(bytes, &error).contains("fetch it again"));
    }
}
