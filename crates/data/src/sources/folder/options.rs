//! Choices in the config of a folder or of shards.

use serde::{Deserialize, Serialize};

/// A place where captions of a folder's images are looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CaptionsFrom {
    /// `metadata.jsonl`, `metadata.csv` or `metadata.parquet` of Hugging Face ImageFolder, in the image's folder or one
    /// above it.
    Metadata,
    /// `cat.txt` beside `cat.jpg`.
    Txt,
    /// A key of `cat.json` beside `cat.jpg`, as img2dataset writes it.
    Json,
    /// `cat.caption` beside `cat.jpg`, as kohya's scripts write it.
    Caption,
    /// The name of the image file, with `_` and `-` as spaces.
    Name,
}

impl CaptionsFrom {
    /// Every place, in the order in which they are looked at by default.
    pub(crate) const ALL: [Self; 5] = [Self::Metadata, Self::Txt, Self::Json, Self::Caption, Self::Name];

    /// What messages call it.
    pub(crate) fn shown(self) -> &'static str {
        match self {
            Self::Metadata => "metadata",
            Self::Txt => "`.txt`",
            Self::Json => "`.json`",
            Self::Caption => "`.caption`",
            Self::Name => "file names",
        }
    }

    /// The extension of the files beside the images, in lower case.
    pub(crate) fn extension(self) -> Option<&'static str> {
        match self {
            Self::Txt => Some("txt"),
            Self::Json => Some("json"),
            Self::Caption => Some("caption"),
            Self::Metadata | Self::Name => None,
        }
    }
}

/// How a text file of captions is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum TextCaptions {
    /// Every line that is not blank is a caption.
    #[default]
    Lines,
    /// The file is one caption. Its lines are joined by spaces.
    Whole,
}

impl TextCaptions {
    /// What becomes of a text with several lines, for the log.
    pub(crate) fn several_lines(self) -> &'static str {
        match self {
            Self::Lines => "every line is a caption (`txt = \"whole\"`: one caption)",
            Self::Whole => "they are one caption (`txt = \"lines\"`: a caption per line)",
        }
    }

    /// The captions in a text, and whether it has several lines that are not blank.
    pub(crate) fn split(self, text: &str) -> (Vec<String>, bool) {
        let lines = text.trim_start_matches('\u{feff}').lines().map(str::trim).filter(|line| !line.is_empty());
        let lines: Vec<&str> = lines.collect();
        let captions = match self {
            Self::Lines => lines.iter().map(|&line| line.to_owned()).collect(),
            Self::Whole if lines.is_empty() => Vec::new(),
            Self::Whole => vec![lines.join(" ")],
        };
        (captions, lines.len() > 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_lines_or_one_caption() {
        let text = "\u{feff}a dog\r\n\r\n  in Paris \r\n";
        assert_eq!(TextCaptions::Lines.split(text), (vec!["a dog".to_owned(), "in Paris".to_owned()], true));
        assert_eq!(TextCaptions::Whole.split(text), (vec!["a dog in Paris".to_owned()], true));
        assert_eq!(TextCaptions::Whole.split(" \n"), (Vec::new(), false));
    }
}
