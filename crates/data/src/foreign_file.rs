//! Recognises a file that is not the text or JSON that its name says: a download that went wrong, or another format.

use crate::look_at::what_is;

/// What a file with these bytes is instead of text, and what to do; `None` if it may be text.
pub(crate) fn recognise(bytes: &[u8]) -> Option<String> {
    if bytes.is_empty() {
        return Some("it is empty: fetch it again".to_owned());
    }
    let content = what_is(bytes).filter(|content| !content.may_be_text)?;
    Some(format!("it is {content}"))
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
        let cases: [(&[u8], &str); 11] = [
            (b"", "it is empty"),
            (pointer, "it is a Git LFS pointer; fetch the real file with `git lfs pull`"),
            (b"\xef\xbb\xbf <!DOCTYPE html>", "it is an HTML page; servers send this in place of a file"),
            (b"<?xml version=\"1.0\"?><Error>", "it is an XML page"),
            (b"<Error><Code>NoSuchKey", "it is an XML page"),
            (b"PK\x03\x04\0\0", "it is a zip archive; unpack it first: `unzip FILE`"),
            (b"\x1f\x8b\x08\0", "it is a gzip archive; unpack it first: `gunzip FILE`"),
            (b"BZh91AY&SY\0\x01", "it is a bzip2 archive"),
            (b"\x89PNG\r\n\x1a\n\0", "it is a PNG image"),
            (b"\x80\x04\x95", "it is a Python pickle, as `torch.save` writes; it can run code"),
            (&[0; 40], "it is zeros only"),
        ];
        for (bytes, expected) in cases {
            let found = recognise(bytes).unwrap();
            assert!(found.starts_with(expected), "{found}");
        }
        for real in [
            &b"a photo of a {c}"[..],
            b"{\"a\": 1}",
            b"[\"a\"]",
            b"[PAD]\n[UNK]\n",
            b"error message\n",
            b"404 sign\n",
            b"BZh is a prefix",
            b"P1 parking",
            "ID3 caf\u{e9}".as_bytes(),
        ] {
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
