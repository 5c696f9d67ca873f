//! What stands in a column of images other than a local path, and what to do about it.

/// How many characters of a value a message shows.
const SHOWN: usize = 60;

/// Longest path of Linux and macOS, in bytes; what is longer is no path.
const MAX_PATH_BYTES: usize = 4096;

/// First characters of JPEG, PNG, GIF, WebP and BMP in base64.
const BASE64_STARTS: [&str; 5] = ["/9j/", "iVBORw0KGgo", "R0lGOD", "UklGR", "Qk0"];

/// Shortest text that is taken for an image in base64: a path that starts like one is shorter.
const MIN_BASE64_BYTES: usize = 200;

/// Why `written` is no path of a file on this machine, with the way out; `None` if it may be one.
pub(crate) fn not_local(written: &str) -> Option<String> {
    if written.starts_with("data:") {
        return Some("the image is a `data:` URL; expected a path: write the images to files".to_owned());
    }
    if let Some(scheme) = scheme(written) {
        let out = match scheme.to_ascii_lowercase().as_str() {
            "http" | "https" => {
                "download the images first, for example with `img2dataset`, and use the shards or the files that it \
                 writes"
            }
            "s3" | "s3a" | "s3n" => {
                "copy the bucket first, for example with `aws s3 sync`, and set `root` to the folder"
            }
            "gs" | "gcs" => {
                "copy the bucket first, for example with `gcloud storage rsync`, and set `root` to the folder"
            }
            "hdfs" => "copy the files first, for example with `hdfs dfs -get`, and set `root` to the folder",
            "az" | "abfs" | "abfss" | "wasb" | "wasbs" => {
                "copy the container first, for example with `azcopy sync`, and set `root` to the folder"
            }
            "hf" => "download the data set first, for example with `hf download`, and set `root` to the folder",
            "file" => "only `file:///path` of this machine is read",
            _ => "copy the images to this machine first, and set `root` to their folder",
        };
        return Some(format!("the image is a URL, `{}`; expected a local file: {out}", shown(written)));
    }
    if is_drive(written) && !cfg!(windows) {
        return Some(format!(
            "the image is a path with a Windows drive, `{}`, and this machine has no drives; write paths relative to a \
             folder, and set `root` to it",
            shown(written)
        ));
    }
    let python_bytes = ["b'\\x", "b\"\\x", "{'bytes':", "{\"bytes\":"].iter().any(|start| written.starts_with(start));
    let base64 = written.len() >= MIN_BASE64_BYTES && BASE64_STARTS.iter().any(|start| written.starts_with(start));
    if python_bytes || base64 || written.len() > MAX_PATH_BYTES {
        let what = if python_bytes {
            "the bytes of the image as Python prints them"
        } else if base64 {
            "the image itself in base64"
        } else {
            "too long for a path"
        };
        return Some(format!(
            "the image is {what}, `{}`; expected a path: write the images to files, or use Parquet or tar shards, \
             which hold them",
            shown(written)
        ));
    }
    None
}

/// The path of a `file://` URL on this machine, percent-decoded; `None` if `written` is no such URL.
pub(crate) fn file_url(written: &str) -> Option<String> {
    let rest = written.get(..7).filter(|start| start.eq_ignore_ascii_case("file://")).map(|_| &written[7..])?;
    let path = rest.strip_prefix("localhost").unwrap_or(rest);
    // `file://relative.png` is not valid, but there is only one thing that it can mean.
    let is_host = !path.starts_with('/') && path.split('/').next().is_some_and(|host| !host.contains('.'));
    if is_host && path.contains('/') {
        return None;
    }
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let hex = |at: usize| after.get(at).and_then(|byte| char::from(*byte).to_digit(16));
        match (byte, hex(0), hex(1)) {
            (b'%', Some(high), Some(low)) => {
                bytes.push((16 * high + low) as u8);
                rest = &after[2..];
            }
            _ => {
                bytes.push(byte);
                rest = after;
            }
        }
    }
    String::from_utf8(bytes).ok()
}

/// The scheme of a URL, without `://`.
fn scheme(written: &str) -> Option<&str> {
    let (scheme, _) = written.split_once("://")?;
    let is_scheme = scheme.starts_with(|first: char| first.is_ascii_alphabetic())
        && scheme.chars().all(|it| it.is_ascii_alphanumeric() || matches!(it, '+' | '-' | '.'));
    is_scheme.then_some(scheme)
}

/// Whether a path starts as `C:\` or `C:/` does.
pub(crate) fn is_drive(written: &str) -> bool {
    matches!(written.as_bytes(), [drive, b':', b'\\' | b'/', ..] if drive.is_ascii_alphabetic())
}

/// The start of a value.
pub(crate) fn shown(written: &str) -> String {
    let mut characters = written.chars();
    let start: String = characters.by_ref().take(SHOWN).collect();
    if characters.next().is_some() { format!("{start}...") } else { start }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_name_the_tool() {
        for (url, tool) in [
            ("http://x/a.png", "img2dataset"),
            ("HTTPS://x/a.png", "img2dataset"),
            ("s3://bucket/a.png", "aws s3 sync"),
            ("gs://bucket/a.png", "gcloud storage rsync"),
            ("hdfs://n/a.png", "hdfs dfs -get"),
            ("ftp://h/a.png", "copy the images"),
            ("file://server/share/a.png", "of this machine"),
        ] {
            let reason = not_local(url).unwrap();
            assert!(reason.contains(tool) && reason.contains(url), "{reason}");
        }
    }

    #[test]
    fn bytes_are_no_paths() {
        let base64 = format!("/9j/{}", "4AAQSkZJRg".repeat(40));
        for (written, what) in [
            (base64.as_str(), "base64"),
            ("b'\\xff\\xd8\\xff", "Python"),
            ("{'bytes': b'\\xff', 'path': None}", "Python"),
            ("data:image/png;base64,iVBOR", "`data:` URL"),
            (&"x".repeat(5000), "too long"),
            ("C:\\images\\a.png", "Windows drive"),
        ] {
            let reason = not_local(written).unwrap();
            assert!(reason.contains(what) && reason.len() < 300, "{reason}");
        }
        for path in ["a.png", "/9j/a.png", "a:b.png", "images/C:/a.png", "data/a.png", "\\\\x\\a.png", "~/a.png"] {
            assert_eq!(not_local(path), None, "{path}");
        }
    }

    #[test]
    fn file_urls_are_decoded() {
        for (url, path) in [
            ("file:///a/b%20c.png", Some("/a/b c.png")),
            ("FILE://localhost/a/caf%C3%A9.png", Some("/a/caf\u{e9}.png")),
            ("file:///a/100%.png", Some("/a/100%.png")),
            ("file://a.png", Some("a.png")),
            ("file://server/a.png", None),
            ("file:///%FF", None),
            ("a.png", None),
        ] {
            assert_eq!(file_url(url).as_deref(), path, "{url}");
        }
    }
}
