//! Pictures and what is shown beside them.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A picture with its place. Pages embed the bytes as they are, so give a thumbnail: 160 pixels on the longer side are
/// enough.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Picture {
    /// Where it comes from, shown as text.
    pub path: String,
    /// A whole JPEG, PNG, WebP or GIF file; empty if there is none. Base64 in JSON.
    #[serde(serialize_with = "to_base64", deserialize_with = "from_base64")]
    pub bytes: Vec<u8>,
}

impl fmt::Debug for Picture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Picture({:?}, {} bytes)", self.path, self.bytes.len())
    }
}

fn to_base64<S: Serializer>(bytes: &[u8], output: S) -> Result<S::Ok, S::Error> {
    output.serialize_str(&STANDARD.encode(bytes))
}

fn from_base64<'de, D: Deserializer<'de>>(input: D) -> Result<Vec<u8>, D::Error> {
    STANDARD.decode(String::deserialize(input)?).map_err(serde::de::Error::custom)
}

/// Retrieval examples in both directions.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct RetrievalExamples {
    /// How the examples were chosen, as a sentence.
    pub chosen: String,
    /// Captions and the images found for them.
    pub texts: Vec<TextQuery>,
    /// Images and the captions found for them.
    pub images: Vec<ImageQuery>,
}

/// A caption and the images found for it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct TextQuery {
    /// The caption.
    pub text: String,
    /// The images, the best first; the page shows 5.
    pub found: Vec<FoundImage>,
    /// The rank of the first true match, from 1.
    pub rank: Option<u64>,
}

/// An image that was found.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct FoundImage {
    /// The image.
    pub picture: Picture,
    /// Its cosine similarity to the query.
    pub score: f64,
    /// Whether it is a true match.
    pub is_match: bool,
}

/// An image and the captions found for it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ImageQuery {
    /// The image.
    pub picture: Picture,
    /// The captions, the best first; the page shows 5.
    pub found: Vec<FoundText>,
    /// The rank of the first true match, from 1.
    pub rank: Option<u64>,
}

/// A caption that was found.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct FoundText {
    /// The caption.
    pub text: String,
    /// Its cosine similarity to the query.
    pub score: f64,
    /// Whether it is a true match.
    pub is_match: bool,
}

/// Training pairs by their cosine similarity.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct PairScores {
    /// Which pairs were scored, as a sentence.
    pub scored: String,
    /// The pairs of the lowest similarity, the lowest first.
    pub worst: Vec<PairCard>,
    /// The pairs of the highest similarity, the highest first.
    pub best: Vec<PairCard>,
}

/// A pair with its score.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct PairCard {
    /// The image.
    pub picture: Picture,
    /// The caption.
    pub caption: String,
    /// Their cosine similarity.
    pub score: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_base64_in_json() {
        let picture: Picture = serde_json::from_str(r#"{"path": "a.png", "bytes": "aGk="}"#).unwrap();
        assert_eq!(picture.bytes, b"hi");
        assert!(serde_json::to_string(&picture).unwrap().contains("aGk="));
        assert!(serde_json::from_str::<Picture>(r#"{"bytes": "?"}"#).is_err());
    }
}
