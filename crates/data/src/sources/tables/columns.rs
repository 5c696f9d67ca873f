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

/// Words for an image, and last words of names of its column, such as `local_image_path`.
const IMAGE_WORDS: [&str; 5] = ["image", "img", "images", "photo", "picture"];
const LAST_IMAGE_WORDS: [&str; 10] =
    ["image", "img", "images", "photo", "picture", "path", "file", "filename", "filepath", "name"];
/// Words in names of columns that are about a caption or an image, and do not hold it.
const ABOUT: [&str; 44] = [
    "id",
    "ids",
    "uid",
    "key",
    "index",
    "idx",
    "number",
    "num",
    "count",
    "counts",
    "length",
    "len",
    "size",
    "width",
    "height",
    "score",
    "scores",
    "similarity",
    "rank",
    "lang",
    "language",
    "url",
    "urls",
    "link",
    "hash",
    "md5",
    "sha256",
    "phash",
    "embedding",
    "embeddings",
    "emb",
    "token",
    "tokens",
    "type",
    "format",
    "source",
    "status",
    "license",
    "is",
    "has",
    "valid",
    "path",
    "file",
    "split",
];
/// Words that a name has at most: more are a sentence.
const MOST_WORDS: usize = 4;

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

    /// The columns that hold this by their names, of those that `fits` says can: those with strong names, else those
    /// with a strong name as a word, such as `short_caption`, else those with weak names.
    pub(crate) fn alike(self, columns: &[String], fits: impl Fn(usize) -> bool) -> Vec<usize> {
        let (strong, weak) = self.names();
        let found =
            [Self::named(columns, strong), self.worded(columns), Self::named(columns, weak)].map(|mut found| {
                found.retain(|&at| fits(at));
                found
            });
        found.into_iter().find(|found| !found.is_empty()).unwrap_or_default()
    }

    /// The strong and the weak names.
    fn names(self) -> (&'static [&'static str], &'static [&'static str]) {
        match self {
            Self::Image => (&IMAGE_NAMES, &WEAK_IMAGE_NAMES),
            Self::Caption => (&CAPTION_NAMES, &WEAK_CAPTION_NAMES),
        }
    }

    fn named(columns: &[String], names: &[&str]) -> Vec<usize> {
        (0..columns.len()).filter(|&at| names.contains(&folded(&columns[at]).as_str())).collect()
    }

    /// The columns with a usual name as one word of several.
    fn worded(self, columns: &[String]) -> Vec<usize> {
        let fits = |&at: &usize| {
            let name = folded(&columns[at]);
            let words: Vec<&str> = name.split('_').filter(|word| !word.is_empty()).collect();
            let is_caption = words.iter().any(|word| CAPTION_NAMES.contains(word));
            let is_image = words.iter().any(|word| IMAGE_WORDS.contains(word));
            (2..=MOST_WORDS).contains(&words.len())
                && match self {
                    Self::Caption => is_caption && !is_about(&name),
                    Self::Image => {
                        is_image && !is_caption && words.last().is_some_and(|last| LAST_IMAGE_WORDS.contains(last))
                    }
                }
        };
        (0..columns.len()).filter(fits).collect()
    }

    /// Whether a column has a usual name.
    pub(crate) fn is_named(self, columns: &[String]) -> bool {
        let (strong, weak) = self.names();
        !Self::named(columns, strong).is_empty() || !Self::named(columns, weak).is_empty()
    }

    /// What to say of columns that look like captions beside `taken`, those that are used without being written;
    /// `fits`: whether a column can hold captions. It starts with a blank, or is empty.
    pub(crate) fn also(columns: &[String], taken: &[usize], fits: impl Fn(usize) -> bool) -> String {
        let mut others = Self::named(columns, &CAPTION_NAMES);
        others.extend(Self::Caption.worded(columns));
        others.retain(|at| !taken.contains(at) && fits(*at));
        others.sort_unstable();
        others.dedup();
        others.retain(|&at| is_unique(columns, at));
        if others.is_empty() || !taken.iter().all(|&at| is_unique(columns, at)) {
            return String::new();
        }
        let quoted = |quote: &str, all: &mut dyn Iterator<Item = &usize>| -> Vec<String> {
            all.map(|&at| format!("{quote}{}{quote}", columns[at])).collect()
        };
        let look = if others.len() == 1 { "looks like a caption" } else { "look like captions" };
        format!(
            " ({} {look} too: to use several, set `captions = [{}]`)",
            quoted("`", &mut others.iter()).join(" and "),
            quoted("\"", &mut taken.iter().chain(&others)).join(", ")
        )
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
            (None, [at, others @ ..]) if others.iter().all(|other| columns[*other] == columns[*at]) => Ok(*at),
            (None, [first, ..]) => {
                // A name that stands twice means none of the two.
                let alike: Vec<usize> = alike.iter().copied().filter(|&at| is_unique(columns, at)).collect();
                if alike.is_empty() {
                    return Err(format!(
                        "; several columns are named `{}`: give each a name of its own",
                        columns[*first]
                    ));
                }
                let names: Vec<String> = alike.iter().map(|&at| format!("`{}`", columns[at])).collect();
                let all: Vec<String> = alike.iter().map(|&at| format!("\"{}\"", columns[at])).collect();
                if let ([one], [name]) = (&alike[..], &names[..]) {
                    return Err(format!("; {name} may hold it{}", set(*one)));
                }
                let all = match self {
                    Self::Image => String::new(),
                    Self::Caption => format!(", or `captions = [{}]` for all", all.join(", ")),
                };
                Err(format!(
                    "; {} may hold it: set `{key} = \"{}\"`, or another{all}",
                    names.join(" and "),
                    columns[alike[0]]
                ))
            }
            (None, []) => {
                let close = nearest(key, columns.iter().map(String::as_str)).filter(|name| !is_about(name));
                let close = close.and_then(position);
                Err(close.map_or(format!("; set `{key}` to the column that holds it"), set))
            }
            (Some(name), _) => {
                let close = nearest(name, columns.iter().map(String::as_str)).and_then(position);
                Err(close.or(alike.first().copied()).map_or(String::new(), set))
            }
        }
    }
}

/// What is wrong with `captions` that have a name twice, each caption of which would be used twice.
pub(crate) fn repeated(captions: &[String]) -> Option<String> {
    let (_, name) = captions.iter().enumerate().find(|(at, name)| captions[..*at].contains(name))?;
    Some(format!("`captions` names `{name}` twice, so that its captions would count twice; name it once"))
}

/// Whether no other column has the name of this one.
fn is_unique(columns: &[String], at: usize) -> bool {
    columns.iter().filter(|name| **name == columns[at]).count() == 1
}

/// Whether the name of a column says that it is about something, and does not hold it: `image_id`, `url`.
pub(crate) fn is_about(name: &str) -> bool {
    folded(name).split('_').any(|word| ABOUT.contains(&word))
}

fn folded(name: &str) -> String {
    name.trim().to_lowercase().replace(['-', ' '], "_")
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
            (Caption, &["image", "short_caption", "caption", "alt_text"], 2),
            (Caption, &["image", "caption_id", "caption_en", "caption_lang"], 2),
            (Caption, &["image_title", "label"], 0),
            (Image, &["image_id", "local_image_path", "image_caption"], 1),
            (Image, &["image_id", "product_image", "image_width"], 1),
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
            "; `title` and `text` may hold it: set `caption = \"title\"`, or another, or `captions = [\"title\", \
             \"text\"]` for all"
        );
        let several = hint(Caption, &["image", "long_caption", "short_caption"], None);
        assert!(several.contains("set `caption = \"long_caption\"`") && several.contains("\"short_caption\"]`"));
        assert_eq!(
            hint(Caption, &["image", "title", "title", "text"], None),
            "; `text` may hold it; set `caption = \"text\"`?"
        );
        let none = hint(Caption, &["image", "title", "title", "text", "text"], None);
        assert_eq!(none, "; several columns are named `title`: give each a name of its own");
        for columns in [&["image_id", "caption"][..], &["image_label", "caption"], &["mask_id", "image_text"]] {
            assert!(hint(Image, columns, None).starts_with("; set `image"), "{columns:?}");
        }
        assert_eq!(hint(Caption, &["image", "captoin"], None), "; set `caption = \"captoin\"`?");
        assert_eq!(hint(Image, &["x", "y"], None), "; set `image` to the column that holds it");
        assert_eq!(hint(Image, &["file_name", "text"], Some("image")), "; set `image = \"file_name\"`?");
        assert_eq!(hint(Image, &["x", "y"], Some("picture")), "");
    }

    #[test]
    fn other_captions_are_told() {
        let columns = ["image", "caption", "alt_text", "caption_id", "long_caption", "label"].map(str::to_owned);
        let expected = " (`alt_text` and `long_caption` look like captions too: to use several, set `captions = \
                        [\"caption\", \"alt_text\", \"long_caption\"]`)";
        assert_eq!(Holds::also(&columns, &[1], |_| true), expected);
        assert_eq!(Holds::also(&columns, &[1], |at| at < 2), "");
        let doubled = ["image", "caption", "caption", "alt_text"].map(str::to_owned);
        assert_eq!(Holds::also(&doubled, &[1], |_| true), "", "`caption` means none of the two");
        let doubled = ["image", "caption", "alt_text", "alt_text"].map(str::to_owned);
        assert_eq!(Holds::also(&doubled, &[1], |_| true), "");
    }
}
