//! JSON lines: one object per line, with an image path and one or several captions.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::dataset::Dataset;
use crate::dataset::builder::DatasetBuilder;
use crate::dataset::selection::Selection;
use crate::dataset::skipped_rows::BadRows;
use crate::did_you_mean::nearest;
use crate::error::DataError;
use crate::sources::rows::{default_caption, default_image, push_pair, texts};

/// `[data.train.jsonl]`: one object per line; the caption is a string or a list of strings.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct JsonlSource {
    /// The file.
    pub path: PathBuf,
    /// Key of the image path. Default `image`.
    #[serde(default = "default_image")]
    pub image: String,
    /// Key of the caption or captions. Default `caption`.
    #[serde(default = "default_caption")]
    pub caption: String,
    /// Directory that image paths are relative to. Default: the directory of the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<PathBuf>,
    /// What to do with a malformed line. Default `error`.
    #[serde(default)]
    pub bad_rows: BadRows,
}

impl JsonlSource {
    /// The file `path` with keys `image` and `caption`.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            image: default_image(),
            caption: default_caption(),
            root: None,
            bad_rows: BadRows::default(),
        }
    }

    /// Resolves relative paths against `base`.
    pub fn resolve(&mut self, base: &Path) {
        self.path = base.join(&self.path);
        self.root = self.root.take().map(|root| base.join(root));
    }

    /// Reads the file.
    ///
    /// # Errors
    /// [`DataError::Row`] for a malformed line unless they are skipped, [`DataError::Empty`] without a usable line,
    /// [`DataError::Read`].
    pub fn read(&self) -> Result<Dataset, DataError> {
        self.read_selected(None)
    }

    pub(crate) fn read_selected(&self, selection: Option<Selection>) -> Result<Dataset, DataError> {
        let path = &self.path;
        let file = std::fs::File::open(path).map_err(DataError::read(path))?;
        let mut reader = BufReader::new(file);
        let root = self.root.as_deref().or(path.parent()).unwrap_or(Path::new(""));
        let mut builder = DatasetBuilder::new(root).with_selection(selection);
        let (mut bytes, mut row) = (Vec::new(), 0);
        for line in 1.. {
            bytes.clear();
            if reader.read_until(b'\n', &mut bytes).map_err(DataError::read(path))? == 0 {
                break;
            }
            if bytes.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            row += 1;
            if let Err(reason) = self.push_line(&mut builder, root, &bytes, (row, line)) {
                builder.skipped.or_fail(self.bad_rows, DataError::row(path, "line", line, reason))?;
            }
        }
        if builder.is_empty() {
            return Err(DataError::Empty {
                path: path.clone(),
                found: "no usable line".to_owned(),
                expected: "one object per line, such as {\"image\": \"a.jpg\", \"caption\": \"a cat\"}",
            });
        }
        builder.finish(path)
    }

    fn push_line(
        &self,
        builder: &mut DatasetBuilder,
        root: &Path,
        bytes: &[u8],
        (row, line): (u64, u64),
    ) -> Result<(), String> {
        let object: Map<String, Value> =
            serde_json::from_slice(bytes).map_err(|error| format!("not a JSON object: {error}"))?;
        let get = |name: &str| {
            object.get(name).ok_or_else(|| {
                let keys = object.keys().map(|key| format!("`{key}`")).collect::<Vec<_>>().join(", ");
                let hint = nearest(name, object.keys().map(String::as_str));
                let hint = hint.map_or(String::new(), |key| format!("; did you mean `{key}`?"));
                format!("no key `{name}`; its keys are {keys}{hint}")
            })
        };
        let image = get(&self.image)?;
        let image = image.as_str().ok_or_else(|| format!("`{}` is {image}; expected a path", self.image))?;
        if !builder.selects(row, image) {
            return Ok(());
        }
        let captions = texts(get(&self.caption)?)
            .ok_or_else(|| format!("`{}` is neither a string nor a list of strings", self.caption))?;
        if captions.is_empty() {
            builder.skipped.note("empty caption", || format!("`{}`, line {line}: empty caption", self.path.display()));
        }
        for caption in captions {
            push_pair(builder, root, image, caption, || format!("`{}`, line {line}", self.path.display()))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(content: impl AsRef<[u8]>) -> Result<Dataset, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("d.jsonl");
        std::fs::write(&path, content).unwrap();
        let result = JsonlSource::new(&path).read();
        result.map_err(|error| error.to_string().replace(&dir.path().display().to_string(), "DIR"))
    }

    #[test]
    fn reads_one_or_more_captions() {
        let several = r#"{"image": "a.png", "caption": ["x", "y"]}"#;
        let one = r#"{"caption": "z", "image": "b.png", "id": 3}"#;
        let dataset = read(format!("{several}\n\n{one}")).unwrap();
        assert_eq!((dataset.num_images(), dataset.num_captions()), (2, 3));
        assert_eq!(dataset.captions_of(0), [0, 1]);
    }

    #[test]
    fn malformed_lines_name_line() {
        let good = "{\"image\": \"a.png\", \"caption\": \"x\"}\n";
        assert_eq!(
            read(format!("{good}{{\"image\": 3, \"caption\": \"x\"}}")).unwrap_err(),
            "`DIR/d.jsonl`, line 2: `image` is 3; expected a path"
        );
        assert_eq!(
            read(format!("{good}{{\"image\": \"a\", \"captions\": \"x\"}}")).unwrap_err(),
            "`DIR/d.jsonl`, line 2: no key `caption`; its keys are `captions`, `image`; did you mean `captions`?"
        );
        assert_eq!(
            read(format!("{good}{{\"image\": \"a\", \"caption\": [1]}}")).unwrap_err(),
            "`DIR/d.jsonl`, line 2: `caption` is neither a string nor a list of strings"
        );
        let error = read(format!("{good}not json\n")).unwrap_err();
        assert!(error.starts_with("`DIR/d.jsonl`, line 2: not a JSON object: expected"), "{error}");
        let error = read(b"{\"image\": \"a\", \"caption\": \"\xff\"}").unwrap_err();
        assert!(error.contains("line 1: not a JSON object: invalid unicode"), "{error}");
        assert!(read("\n").unwrap_err().contains("no usable line"));
    }
}
