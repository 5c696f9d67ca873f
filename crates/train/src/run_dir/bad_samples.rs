//! `bad_samples.jsonl`: the rows and images that a run does without, one JSON object per line, written as they are
//! found.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use dualenc_data::{Dataset, Skipped, SkippedRow};
use serde_json::{Value, json};

use crate::error::TrainError;
use crate::run_dir::atomic_file::write_whole;

/// The open list of a run. There is no file while it is empty.
#[derive(Debug)]
pub(crate) struct BadSamples {
    path: PathBuf,
    file: Option<File>,
    /// Whether the last line may be incomplete.
    is_torn: bool,
}

impl BadSamples {
    /// Writes the list of a run that starts, or continues, with the rows that `dataset` left out and these images.
    ///
    /// # Errors
    /// [`TrainError::Write`] when the file cannot be written.
    pub fn open(path: &Path, dataset: &Dataset, images: &[Skipped]) -> Result<Self, TrainError> {
        let mut list = Self { path: path.to_owned(), file: None, is_torn: false };
        list.rewrite(dataset, images)?;
        Ok(list)
    }

    /// Writes the whole list anew.
    ///
    /// # Errors
    /// [`TrainError::Write`] when the file cannot be written.
    pub fn rewrite(&mut self, dataset: &Dataset, images: &[Skipped]) -> Result<(), TrainError> {
        self.file = None;
        let rows = &dataset.skipped;
        if rows.count == 0 && images.is_empty() {
            return match fs::remove_file(&self.path) {
                Err(error) if error.kind() != ErrorKind::NotFound => Err(TrainError::write(&self.path)(error)),
                _ => Ok(()),
            };
        }
        write_whole(&self.path, |file| {
            rows.rows.iter().try_for_each(|row| write_line(file, &row_line(row)))?;
            if let unlisted @ 1.. = rows.count - rows.rows.len() {
                write_line(file, &json!({"kind": "rows", "cause": "not listed", "count": unlisted}))?;
            }
            images.iter().try_for_each(|image| write_line(file, &image_line(dataset, image)))
        })?;
        self.is_torn = false;
        Ok(())
    }

    /// Appends images in one write.
    ///
    /// # Errors
    /// [`TrainError::Write`] when the file cannot be written: [`BadSamples::rewrite`] makes it whole.
    pub fn add(&mut self, dataset: &Dataset, images: &[Skipped]) -> Result<(), TrainError> {
        let mut lines = Vec::new();
        let written = images.iter().try_for_each(|image| write_line(&mut lines, &image_line(dataset, image)));
        let is_torn = std::mem::replace(&mut self.is_torn, true);
        let appended = written.and_then(|()| {
            if is_torn {
                return Err(io::Error::other("an earlier line could not be written"));
            }
            self.file()?.write_all(&lines)
        });
        appended.map_err(TrainError::write(&self.path))?;
        self.is_torn = false;
        Ok(())
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether a line could not be written.
    pub fn is_torn(&self) -> bool {
        self.is_torn
    }

    fn file(&mut self) -> io::Result<&mut File> {
        match &mut self.file {
            Some(file) => Ok(file),
            none => Ok(none.insert(OpenOptions::new().create(true).append(true).open(&self.path)?)),
        }
    }
}

fn write_line(file: &mut dyn Write, line: &Value) -> io::Result<()> {
    serde_json::to_writer(&mut *file, line)?;
    file.write_all(b"\n")
}

/// The line of a row.
pub(crate) fn row_line(row: &SkippedRow) -> Value {
    json!({
        "kind": "row", "source": row.source.as_ref().map(|path| path.display().to_string()), "row": row.row,
        "key": row.key, "cause": row.cause, "reason": row.message,
    })
}

fn image_line(dataset: &Dataset, image: &Skipped) -> Value {
    let source = dataset.root_of(image.image).map(|root| root.display().to_string());
    json!({"kind": "image", "source": source, "key": image.key, "cause": image.cause, "reason": image.reason})
}

#[cfg(test)]
mod tests {
    use dualenc_data::{DatasetBuilder, ImageError, ImageRef};

    use super::*;

    fn dataset() -> Dataset {
        let mut builder = DatasetBuilder::new("/data");
        for image in 0..3 {
            builder.push(ImageRef::File(format!("/data/{image}.png").into()), "a cat");
        }
        let mut dataset = builder.build();
        dataset.skipped.count = 5;
        for line in [2, 4] {
            let message = format!("`t.csv`, line {line}: empty caption");
            let source = Some(Path::new("t.csv").into());
            dataset.skipped.rows.push(SkippedRow {
                cause: "empty caption".into(),
                message,
                row: Some(line),
                key: None,
                source,
            });
        }
        dataset
    }

    fn bad(image: usize) -> Skipped {
        Skipped::new(image, format!("/data/{image}.png"), &ImageError::Empty)
    }

    #[test]
    fn reopened_list_is_exact() {
        let dir = tempfile::tempdir().unwrap();
        let (path, dataset) = (dir.path().join("bad_samples.jsonl"), dataset());
        let mut list = BadSamples::open(&path, &dataset, &[bad(2)]).unwrap();
        list.add(&dataset, &[bad(0)]).unwrap();
        let first = fs::read_to_string(&path).unwrap();
        let expected = [
            r#"{"cause":"empty caption",
"key":null,"kind":"row","reason":"`t.csv`, line 2: empty caption","row":2,"source":"t.csv"}"#,
            r#"{"cause":"empty caption",
"key":null,"kind":"row","reason":"`t.csv`, line 4: empty caption","row":4,"source":"t.csv"}"#,
            r#"{"cause":"not listed",
"count":3,"kind":"rows"}"#,
            r#"{"cause":"empty file",
"key":"/data/2.png","kind":"image","reason":"the file is empty","source":"/data"}"#,
            r#"{"cause":"empty file",
"key":"/data/0.png","kind":"image","reason":"the file is empty","source":"/data"}"#,
        ];
        let sorted = |line: &str| serde_json::from_str::<std::collections::BTreeMap<String, Value>>(line).unwrap();
        assert_eq!(first.lines().map(sorted).collect::<Vec<_>>(), expected.map(sorted));
        // A killed process left half a line, and an image that the checkpoint does not list.
        fs::write(&path, first.clone() + "{\"kind\":\"ima").unwrap();
        let mut list = BadSamples::open(&path, &dataset, &[bad(2)]).unwrap();
        list.add(&dataset, &[bad(0)]).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), first);
        assert!(!list.is_torn());
    }

    #[test]
    fn no_bad_sample_leaves_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("bad_samples.jsonl");
        let mut healthy = dataset();
        healthy.skipped = Default::default();
        fs::write(&path, "stale").unwrap();
        let mut list = BadSamples::open(&path, &healthy, &[]).unwrap();
        assert!(!path.exists());
        list.add(&healthy, &[bad(1)]).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 1);
    }

    #[test]
    fn rewriting_mends_a_torn_list() {
        let dir = tempfile::tempdir().unwrap();
        let (path, dataset) = (dir.path().join("gone/bad_samples.jsonl"), dataset());
        let mut list = BadSamples { path: path.clone(), file: None, is_torn: false };
        assert!(list.add(&dataset, &[bad(0)]).is_err() && list.is_torn());
        fs::create_dir(dir.path().join("gone")).unwrap();
        assert!(list.add(&dataset, &[bad(1)]).is_err(), "the first line is missing");
        list.rewrite(&dataset, &[bad(0), bad(1)]).unwrap();
        assert!(!list.is_torn());
        assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 5);
    }
}
