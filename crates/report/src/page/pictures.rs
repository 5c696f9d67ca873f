//! Pictures as data URIs, within the bytes that a page may take.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use maud::{Markup, html};

use crate::data::picture::Picture;
use crate::page::format::{SHOWN_CHARACTERS, counted, shortened};

/// The pictures of a page: counts the bytes that they take, and what is left out.
#[derive(Debug)]
pub(crate) struct Pictures {
    left: usize,
    used: usize,
    shown: usize,
    beyond_budget: usize,
    unknown_format: usize,
}

impl Pictures {
    pub fn new(bytes: usize) -> Self {
        Self { left: bytes, used: 0, shown: 0, beyond_budget: 0, unknown_format: 0 }
    }

    /// The picture, or a field that says why there is none. `alt` describes it to who cannot see it.
    pub fn show(&mut self, picture: &Picture, alt: &str) -> Markup {
        if picture.bytes.is_empty() {
            return missing("no picture");
        }
        let Some(format) = format_of(&picture.bytes) else {
            self.unknown_format += 1;
            return missing("unknown format");
        };
        let start = format!("data:image/{format};base64,");
        let size = start.len() + picture.bytes.len().div_ceil(3) * 4;
        if size > self.left {
            self.beyond_budget += 1;
            return missing("left out");
        }
        self.left -= size;
        self.used += size;
        self.shown += 1;
        let source = start + &STANDARD.encode(&picture.bytes);
        html! { img.thumb src=(source) alt=(alt) title=[(!picture.path.is_empty()).then_some(&picture.path)]; }
    }

    /// Bytes that the pictures take as text.
    pub fn used(&self) -> usize {
        self.used
    }

    /// What was left out, as a sentence; `None` if nothing was.
    pub fn left_out(&self) -> Option<String> {
        let mut parts = Vec::new();
        if self.beyond_budget > 0 {
            parts.push(format!(
                "{} of {} left out to keep this file small.",
                self.beyond_budget,
                counted(self.beyond_budget + self.shown, "picture")
            ));
        }
        if self.unknown_format > 0 {
            parts.push(format!("{} not JPEG, PNG, WebP or GIF.", counted(self.unknown_format, "picture")));
        }
        (!parts.is_empty()).then(|| parts.join(" "))
    }
}

/// A path that may break after its slashes.
pub(crate) fn path(path: &str) -> Markup {
    html! { bdi { @for part in shortened(path, SHOWN_CHARACTERS).split_inclusive(['/', '\\']) { (part) wbr; } } }
}

fn missing(why: &str) -> Markup {
    html! { span.thumb.missing { (why) } }
}

/// The subtype of the media type, by the first bytes.
fn format_of(bytes: &[u8]) -> Option<&'static str> {
    match bytes {
        [0xff, 0xd8, 0xff, ..] => Some("jpeg"),
        [0x89, b'P', b'N', b'G', ..] => Some("png"),
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Some("webp"),
        [b'G', b'I', b'F', b'8', ..] => Some("gif"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jpeg(bytes: usize) -> Picture {
        let mut picture = Picture { path: "a.jpg".to_owned(), bytes: vec![0xff, 0xd8, 0xff] };
        picture.bytes.resize(bytes, 0);
        picture
    }

    #[test]
    fn formats_are_known_by_their_bytes() {
        assert_eq!(format_of(b"\x89PNG\r\n"), Some("png"));
        assert_eq!(format_of(b"RIFF\0\0\0\0WEBPVP8 "), Some("webp"));
        assert_eq!(format_of(b"GIF89a"), Some("gif"));
        assert_eq!(format_of(b"<svg onload=alert(1)>"), None);
    }

    #[test]
    fn pictures_beyond_the_budget_are_counted() {
        let mut pictures = Pictures::new(2 * (23 + 400));
        let shown: Vec<String> = (0..3).map(|_| pictures.show(&jpeg(300), "x").into_string()).collect();
        assert!(shown[0].starts_with("<img") && shown[1].starts_with("<img") && shown[2].contains("left out"));
        assert_eq!(pictures.left_out().unwrap(), "1 of 3 pictures left out to keep this file small.");
    }

    #[test]
    fn other_files_are_not_shown() {
        let mut pictures = Pictures::new(1000);
        let text = Picture { path: String::new(), bytes: b"hello".to_vec() };
        assert!(pictures.show(&text, "x").into_string().contains("unknown format"));
        assert!(pictures.left_out().unwrap().contains("1 picture not JPEG"));
    }

    #[test]
    fn alt_and_path_are_escaped() {
        let picture = Picture { path: "\"><script>".to_owned(), ..jpeg(10) };
        let shown = Pictures::new(1000).show(&picture, "<b>\"").into_string();
        assert!(!shown.contains("<script>") && !shown.contains("<b>"));
    }
}
