//! COCO captions: a `captions_*.json` and the folder of its images.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::dataset::Dataset;
use crate::dataset::builder::DatasetBuilder;
use crate::dataset::selection::Selection;
use crate::dataset::skipped_rows::BadRows;
use crate::error::DataError;
use crate::sources::rows::push_pair;

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

#[derive(Deserialize)]
struct File {
    images: Vec<Image>,
    annotations: Vec<Annotation>,
}

#[derive(Deserialize)]
struct Image {
    id: i64,
    file_name: String,
}

#[derive(Deserialize)]
struct Annotation {
    image_id: i64,
    /// Absent in the files of COCO's other tasks.
    caption: Option<String>,
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
        let bytes = std::fs::read(path).map_err(DataError::read(path))?;
        let file: File = serde_json::from_slice(&bytes).map_err(|error| DataError::Malformed {
            path: path.clone(),
            reason: format!("{error}; expected COCO's `images` (id, file_name) and `annotations` (image_id, caption)"),
        })?;
        let root = self.root.as_deref().or(path.parent()).unwrap_or(Path::new(""));
        let mut builder = DatasetBuilder::new(root).with_selection(selection);
        let positions: HashMap<i64, usize> = file.images.iter().zip(0..).map(|(image, at)| (image.id, at)).collect();
        let mut captions = vec![Vec::new(); file.images.len()];
        for (annotation, number) in file.annotations.iter().zip(1..) {
            let reason = match (&annotation.caption, positions.get(&annotation.image_id)) {
                (Some(caption), Some(&at)) => {
                    captions[at].push((caption.as_str(), number));
                    continue;
                }
                (None, _) => "no `caption`; expected a `captions_*.json`, not the file of another task".to_owned(),
                (_, None) => format!("`image_id` is {}; expected the id of an image", annotation.image_id),
            };
            builder.skipped.or_fail(self.bad_rows, DataError::row(path, "annotation", number, reason))?;
        }
        for ((image, captions), row) in file.images.iter().zip(captions).zip(1..) {
            if !builder.selects(row, &image.file_name) {
                continue;
            }
            if captions.is_empty() {
                builder
                    .skipped
                    .note("no caption", || format!("`{}`: image `{}` has no caption", path.display(), image.file_name));
            }
            for (caption, number) in captions {
                let place = || format!("`{}`, annotation {number}", path.display());
                if let Err(reason) = push_pair(&mut builder, root, &image.file_name, caption, place) {
                    builder.skipped.or_fail(self.bad_rows, DataError::row(path, "annotation", number, reason))?;
                }
            }
        }
        if builder.is_empty() {
            return Err(DataError::Empty {
                path: path.clone(),
                found: format!("{} images, {} annotations", file.images.len(), file.annotations.len()),
                expected: "images with captions",
            });
        }
        builder.finish(path)
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
        assert!(error.contains("holds no samples: found 0 images, 0 annotations"), "{error}");
    }
}
