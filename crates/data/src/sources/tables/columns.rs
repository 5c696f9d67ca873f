//! Which columns or keys hold the image and the captions, by their names.

use crate::did_you_mean::nearest;

/// Usual names of the image column (open_clip, img2dataset, Hugging Face, COCO conversions, Flickr30k). The first is
/// the default.
pub(crate) const IMAGE_NAMES: [&str; 16] = [
    "image",
    "image_path",
    "filepath",
    "file_name",
    "filename",
    "path",
    "img",
    "file",
    "image_name",
    "img_path",
    "image_file",
    "image_filename",
    "file_path",
    "imagepath",
    "img_name",
    "images",
];
/// Usual names of the caption column; the first is the default.
pub(crate) const CAPTION_NAMES: [&str; 11] = [
    "caption",
    "title",
    "text",
    "sentence",
    "description",
    "captions",
    "comment",
    "alt_text",
    "sentences",
    "texts",
    "prompt",
];
/// Names that are taken only if there is no other.
const WEAK_IMAGE_NAMES: [&str; 3] = ["url", "image_url", "img_url"];
const WEAK_CAPTION_NAMES: [&str; 3] = ["label", "class", "class_name"];

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Holds {
    Image,
    Caption,
}

impl Holds {
    /// The key of the config, and the default name.
    pub(crate) fn key(self) -> &'static str {
        match self {
            Self::Image => IMAGE_NAMES[0],
            Self::Caption => CAPTION_NAMES[0],
        }
    }

    /// The columns that hold this by their names, of those that `fits` says can: those with strong names or else those
    /// with weak ones.
    pub(crate) fn alike(self, columns: &[String], fits: impl Fn(usize) -> bool) -> Vec<usize> {
        let folded = |name: &str| name.trim().to_lowercase().replace(['-', ' '], "_");
        let named = |names: &[&str]| -> Vec<usize> {
            let is_known = |at: &usize| names.contains(&folded(&columns[*at]).as_str());
            (0..columns.len()).filter(is_known).filter(|&at| fits(at)).collect()
        };
        let (strong, weak): (&[&str], &[&str]) = match self {
            Self::Image => (&IMAGE_NAMES, &WEAK_IMAGE_NAMES),
            Self::Caption => (&CAPTION_NAMES, &WEAK_CAPTION_NAMES),
        };
        let found = named(strong);
        if found.is_empty() { named(weak) } else { found }
    }

    /// Whether a column has a usual name.
    pub(crate) fn is_named(self, columns: &[String]) -> bool {
        !self.alike(columns, |_| true).is_empty()
    }

    /// The column that the user wrote, or the one that looks like it. The error is the hint of a message, which starts
    /// with `; ` or is empty.
    pub(crate) fn find(self, columns: &[String], written: Option<&str>) -> Result<usize, String> {
        self.find_among(columns, written, &self.alike(columns, |_| true))
    }

    /// As [`Holds::find`]; `alike` are the columns that look like it.
    pub(crate) fn find_among(
        self,
        columns: &[String],
        written: Option<&str>,
        alike: &[usize],
    ) -> Result<usize, String> {
        let key = self.key();
        let position = |name: &str| columns.iter().position(|column| column == name);
        if let Some(at) = position(written.unwrap_or(key)) {
            return Ok(at);
        }
        let set = |at: usize| format!("; set `{key} = \"{}\"`?", columns[at]);
        match (written, alike) {
            (None, [at]) => Ok(*at),
            (None, [_, _, ..]) => {
                let names: Vec<String> = alike.iter().map(|&at| format!("`{}`", columns[at])).collect();
                Err(format!(
                    "; {} may hold it: set `{key} = \"{}\"`, or another",
                    names.join(" and "),
                    columns[alike[0]]
                ))
            }
            (None, []) => {
                let close = nearest(key, columns.iter().map(String::as_str)).and_then(position);
                Err(close.map_or(format!("; set `{key}` to the column that holds it"), set))
            }
            (Some(name), _) => {
                let close = nearest(name, columns.iter().map(String::as_str)).and_then(position);
                Err(close.or(alike.first().copied()).map_or(String::new(), set))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(holds: Holds, columns: &[&str], written: Option<&str>) -> Result<usize, String> {
        let columns: Vec<String> = columns.iter().map(|&name| name.to_owned()).collect();
        holds.find(&columns, written)
    }

    #[test]
    fn one_known_name_is_taken() {
        use Holds::{Caption, Image};
        for (holds, columns, at) in [
            (Image, &["id", "filepath", "title"][..], 1),
            (Image, &["filepath", "image"], 1),
            (Image, &["Image Path", "text"], 0),
            (Image, &["url", "file_name"], 1),
            (Image, &["caption", "url"], 1),
            (Caption, &["image_name", "comment_number", "comment"], 2),
            (Caption, &["file_name", "text", "label"], 1),
            (Caption, &["file_name", "label"], 1),
            (Caption, &["Caption", "x"], 0),
        ] {
            assert_eq!(find(holds, columns, None), Ok(at), "{columns:?}");
        }
    }

    #[test]
    fn hints_name_what_looks_alike() {
        use Holds::{Caption, Image};
        let hint = |holds, columns: &[&str], written| find(holds, columns, written).unwrap_err();
        assert_eq!(
            hint(Caption, &["image", "title", "text"], None),
            "; `title` and `text` may hold it: set `caption = \"title\"`, or another"
        );
        assert_eq!(hint(Caption, &["image", "captoin"], None), "; set `caption = \"captoin\"`?");
        assert_eq!(hint(Image, &["x", "y"], None), "; set `image` to the column that holds it");
        assert_eq!(hint(Image, &["file_name", "text"], Some("image")), "; set `image = \"file_name\"`?");
        assert_eq!(hint(Image, &["x", "y"], Some("picture")), "");
    }
}
