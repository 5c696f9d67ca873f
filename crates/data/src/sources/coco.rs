//! COCO captions: a `captions_*.json` and the folder of its images.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::dataset::Dataset;
use crate::dataset::selection::Selection;
use crate::dataset::skipped_rows::BadRows;
use crate::error::DataError;
use crate::sources::json::coco_file::read_coco;
use crate::sources::json::shape::Shape;
use crate::sources::rows::Rows;
use crate::sources::tables::text_file::TextFile;

/// `[data.train.coco]`: an annotation file of COCO's caption task. Images and captions have the order of the file.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct CocoSource {
    /// The annotation file, `captions_*.json`.
    pub path: PathBuf,
    /// Folder of the images. Default: the directory of the annotation file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<PathBuf>,
    /// What to do with a malformed annotation. Default `error`.
    #[serde(default)]
    pub bad_rows: BadRows,
}

impl CocoSource {
    /// The annotation file `path`, with images below `root`.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>, root: Option<PathBuf>) -> Self {
        Self { path: path.into(), root, bad_rows: BadRows::default() }
    }

    /// Resolves relative paths against `base`.
    pub fn resolve(&mut self, base: &Path) {
        self.path = base.join(&self.path);
        self.root = self.root.take().map(|root| base.join(root));
    }

    /// Reads the annotations.
    ///
    /// # Errors
    /// [`DataError::Malformed`] for another kind of file, [`DataError::Row`] for a malformed annotation unless they are
    /// skipped, [`DataError::Empty`] without a captioned image, [`DataError::Read`].
    pub fn read(&self) -> Result<Dataset, DataError> {
        self.read_selected(None)
    }

    pub(crate) fn read_selected(&self, selection: Option<Selection>) -> Result<Dataset, DataError> {
        let path = &self.path;
        let (shape, _) = Shape::read(TextFile::open(path, None)?.reader).map_err(|error| self.not_json(&error))?;
        let is_split = shape.get("images").and_then(Shape::first).and_then(|image| image.get("sentences")).is_some();
        let is_coco = ["images", "annotations"].iter().all(|key| matches!(shape.get(key), Some(Shape::List(_))));
        if is_split {
            return Err(
                self.malformed("it is a Karpathy split, which `json = { path = \"..\", split = \"train\" }` reads")
            );
        }
        if !is_coco {
            let found = shape.describe();
            return Err(self.malformed(&format!("it is {found}; `json = {{ path = \"..\" }}` reads other forms")));
        }
        let file = TextFile::open(path, None)?;
        let mut rows = Rows::new(path, self.root.as_deref(), "annotation", self.bad_rows, selection);
        let counts = read_coco(file.reader, &mut rows)?.map_err(|error| self.not_json(&error))?;
        let described =
            format!("COCO captions, {}, {} images, {} annotations", file.encoding, counts.images, counts.annotations);
        rows.finish(&described, "image from `file_name`, caption from `annotations`", "images with captions")
    }

    fn not_json(&self, error: &serde_json::Error) -> DataError {
        if error.io_error_kind().is_some() {
            return DataError::Read { path: self.path.clone(), source: std::io::Error::other(error.to_string()) };
        }
        self.malformed(&format!("not JSON: {error}"))
    }

    fn malformed(&self, reason: &str) -> DataError {
        let expected = "expected COCO's `images` (id, file_name) and `annotations` (image_id, caption)";
        DataError::Malformed { path: self.path.clone(), reason: format!("{reason}; {expected}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(content: &str) -> Result<Dataset, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("captions.json");
        std::fs::write(&path, content).unwrap();
        let result = CocoSource::new(&path, Some("/coco".into())).read();
        result.map_err(|error| error.to_string().replace(&dir.path().display().to_string(), "DIR"))
    }

    #[test]
    fn keeps_image_order() {
        let dataset = read(
            r#"{"info": {},
                "images": [{"id": 9, "file_name": "9.jpg"}, {"id": 2, "file_name": "2.jpg"},
                           {"id": 3, "file_name": "3.jpg"}],
                "annotations": [{"id": 1, "image_id": 2, "caption": "two"},
                                {"id": 2, "image_id": 9, "caption": " nine\n"},
                                {"id": 3, "image_id": 2, "caption": "also two"}]}"#,
        )
        .unwrap();
        let keys: Vec<_> = dataset.images().map(|image| image.key()).collect();
        assert_eq!(keys, ["/coco/9.jpg", "/coco/2.jpg"]);
        let texts: Vec<_> = dataset.captions().map(|caption| caption.text).collect();
        assert_eq!(texts, ["nine", "two", "also two"]);
        assert_eq!(dataset.skipped.count, 1, "3.jpg has no caption");
    }

    #[test]
    fn rejects_other_files() {
        let error = read(r#"{"images": [{"id": 1, "file_name": "a"}], "annotations": [{"image_id": 1, "bbox": []}]}"#);
        assert_eq!(
            error.unwrap_err(),
            "`DIR/captions.json`, annotation 1: no `caption`; expected a `captions_*.json`, not the file of another \
             task"
        );
        let error = read(r#"{"images": [], "annotations": [{"image_id": 7, "caption": "x"}]}"#).unwrap_err();
        assert_eq!(error, "`DIR/captions.json`, annotation 1: `image_id` is 7; expected the id of an image");
        let error = read("[]").unwrap_err();
        assert!(error.contains("is malformed:") && error.contains("expected COCO's `images`"), "{error}");
        let error = read(r#"{"images": [], "annotations": []}"#).unwrap_err();
        assert!(error.contains("holds no samples: found COCO captions, UTF-8, 0 images, 0 annotations"), "{error}");
    }
}
