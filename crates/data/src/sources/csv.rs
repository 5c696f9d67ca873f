//! Tables of image paths and captions, separated by commas, tabs or another character.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::dataset::Dataset;
use crate::dataset::builder::DatasetBuilder;
use crate::dataset::selection::Selection;
use crate::dataset::skipped_rows::BadRows;
use crate::did_you_mean::nearest;
use crate::error::DataError;
use crate::sources::rows::{CAPTION_NAMES, IMAGE_NAMES, default_caption, default_image, push_pair};

/// `[data.train.csv]` or `[data.train.tsv]`: a table with a header and one caption per row. Rows with the same image
/// path share the image.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct CsvSource {
    /// The table, encoded as UTF-8.
    pub path: PathBuf,
    /// Column of the image path. Default `image`.
    #[serde(default = "default_image")]
    pub image: String,
    /// Column of the caption. Default `caption`.
    #[serde(default = "default_caption")]
    pub caption: String,
    /// Directory that image paths are relative to. Default: the directory of the table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<PathBuf>,
    /// One ASCII character between columns. Default: a tab for `.tsv`, else a comma.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delimiter: Option<char>,
    /// What to do with a malformed row. Default `error`.
    #[serde(default)]
    pub bad_rows: BadRows,
}

impl CsvSource {
    /// The table `path` with columns `image` and `caption`.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            image: default_image(),
            caption: default_caption(),
            root: None,
            delimiter: None,
            bad_rows: BadRows::default(),
        }
    }

    /// Resolves relative paths against `base`.
    pub fn resolve(&mut self, base: &Path) {
        self.path = base.join(&self.path);
        self.root = self.root.take().map(|root| base.join(root));
    }

    /// Reads the table.
    ///
    /// # Errors
    /// [`DataError::Column`] if a column is missing, [`DataError::Row`] for a malformed row unless they are skipped,
    /// [`DataError::Malformed`] for a delimiter that is not ASCII, [`DataError::Empty`] without a usable row,
    /// [`DataError::Read`].
    pub fn read(&self) -> Result<Dataset, DataError> {
        self.read_selected(None)
    }

    pub(crate) fn read_selected(&self, selection: Option<Selection>) -> Result<Dataset, DataError> {
        let tab = self.path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("tsv"));
        self.read_with(if tab { b'\t' } else { b',' }, selection)
    }

    pub(crate) fn read_with(&self, default_delimiter: u8, selection: Option<Selection>) -> Result<Dataset, DataError> {
        let path = &self.path;
        let delimiter = match self.delimiter {
            None => default_delimiter,
            Some(delimiter) => {
                u8::try_from(delimiter).ok().filter(u8::is_ascii).ok_or_else(|| DataError::Malformed {
                    path: path.clone(),
                    reason: format!("the delimiter is `{delimiter}`; expected an ASCII character"),
                })?
            }
        };
        let file = std::fs::File::open(path).map_err(DataError::read(path))?;
        let mut reader = ::csv::ReaderBuilder::new()
            .delimiter(delimiter)
            .has_headers(false)
            .flexible(true)
            .from_reader(std::io::BufReader::new(file));
        let mut record = ::csv::ByteRecord::new();
        let failed = |error: ::csv::Error| match error.into_kind() {
            ::csv::ErrorKind::Io(source) => DataError::Read { path: path.clone(), source },
            other => DataError::Malformed { path: path.clone(), reason: format!("{other:?}") },
        };

        if !reader.read_byte_record(&mut record).map_err(failed)? {
            return Err(self.empty("an empty file"));
        }
        let header: Vec<String> = record.iter().map(|field| String::from_utf8_lossy(field).into_owned()).collect();
        let header: Vec<String> =
            header.iter().map(|name| name.trim_start_matches('\u{feff}').trim().to_owned()).collect();
        let image = self.column(&header, &self.image, "image", &IMAGE_NAMES, delimiter)?;
        let caption = self.column(&header, &self.caption, "caption", &CAPTION_NAMES, delimiter)?;

        let root = self.root.as_deref().or(path.parent()).unwrap_or(Path::new(""));
        let mut builder = DatasetBuilder::new(root).with_selection(selection);
        let mut row = 0;
        while reader.read_byte_record(&mut record).map_err(failed)? {
            row += 1;
            if !builder.selects(row, record.get(image).map_or("".into(), String::from_utf8_lossy).trim()) {
                continue;
            }
            let line = record.position().map_or(0, ::csv::Position::line);
            let place = || format!("`{}`, line {line}", path.display());
            let pushed = cells(&record, header.len(), image, caption)
                .and_then(|(image, caption)| push_pair(&mut builder, root, image, caption, place));
            if let Err(reason) = pushed {
                builder.skipped.or_fail(self.bad_rows, DataError::row(path, "line", line, reason))?;
            }
        }
        if builder.is_empty() {
            return Err(self.empty("a header and no usable row"));
        }
        builder.finish(path)
    }

    fn empty(&self, found: &str) -> DataError {
        DataError::Empty {
            path: self.path.clone(),
            found: found.to_owned(),
            expected: "a header, then one row per image and caption",
        }
    }

    fn column(
        &self,
        header: &[String],
        name: &str,
        key: &str,
        known: &[&str],
        delimiter: u8,
    ) -> Result<usize, DataError> {
        if let Some(index) = header.iter().position(|column| column == name) {
            return Ok(index);
        }
        let columns = || header.iter().map(String::as_str);
        let other_delimiter = |(character, _): &(char, _)| {
            header.len() == 1 && header[0].contains(*character) && *character != char::from(delimiter)
        };
        let delimiters = [('\t', "\\t"), (';', ";"), (',', ","), ('|', "|")];
        let hint = if let Some((_, written)) = delimiters.iter().find(|it| other_delimiter(it)) {
            Some(format!("; the table seems to use another delimiter: set `delimiter = \"{written}\"`"))
        } else {
            let close = nearest(name, columns())
                .or_else(|| known.iter().find_map(|known| columns().find(|column| column.eq_ignore_ascii_case(known))));
            close.map(|column| format!("; set `{key} = \"{column}\"`?"))
        };
        Err(DataError::Column { path: self.path.clone(), column: name.to_owned(), found: header.to_vec(), hint })
    }
}

/// The image and the caption of a record that should have `columns` cells.
fn cells(record: &::csv::ByteRecord, columns: usize, image: usize, caption: usize) -> Result<(&str, &str), String> {
    if record.len() != columns {
        return Err(format!("found {} fields; expected {columns}, as in the header", record.len()));
    }
    let text =
        |index: usize| std::str::from_utf8(&record[index]).map_err(|_| "not UTF-8; save the table as UTF-8".to_owned());
    Ok((text(image)?, text(caption)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::Source;
    use crate::sources::source_table::SourceTable;

    fn read(name: &str, content: impl AsRef<[u8]>) -> Result<Dataset, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        std::fs::write(&path, content).unwrap();
        let result = Source::from_path(&path).unwrap().read();
        result.map_err(|error| error.to_string().replace(&dir.path().display().to_string(), "DIR"))
    }

    #[test]
    fn rows_become_pairs() {
        let dataset =
            read("d.csv", "\u{feff}id,image,caption\n1,a.png,\"a cat, asleep\"\n2,b.png,a dog\n3,a.png,a pet\n")
                .unwrap();
        assert_eq!(dataset.num_images(), 2);
        assert!(dataset.image(1).key().ends_with("/b.png"));
        let texts: Vec<_> = dataset.captions().map(|caption| caption.text).collect();
        assert_eq!(texts, ["a cat, asleep", "a dog", "a pet"]);
        assert_eq!(dataset.captions_of(0), [0, 2]);
    }

    #[test]
    fn reads_tsv_with_crlf() {
        let dataset = read("d.tsv", "image\tcaption\r\na.png\ta, b\r\n").unwrap();
        assert_eq!(dataset.caption(0).text, "a, b");
    }

    #[test]
    fn missing_column_names_fix() {
        assert_eq!(
            read("d.csv", "filepath,title\na.png,x\n").unwrap_err(),
            "`DIR/d.csv` has no column `image`; its columns are `filepath`, `title`; set `image = \"filepath\"`?"
        );
        assert_eq!(
            read("d.csv", "image,captoin\na.png,x\n").unwrap_err(),
            "`DIR/d.csv` has no column `caption`; its columns are `image`, `captoin`; set `caption = \"captoin\"`?"
        );
        assert_eq!(
            read("d.csv", "image\tcaption\na.png\tx\n").unwrap_err(),
            "`DIR/d.csv` has no column `image`; its columns are `image\tcaption`; the table seems to use another \
             delimiter: set `delimiter = \"\\t\"`"
        );
        assert_eq!(
            read("d.csv", "x,y\n1,2\n").unwrap_err(),
            "`DIR/d.csv` has no column `image`; its columns are `x`, `y`"
        );
    }

    #[test]
    fn malformed_rows_name_line() {
        assert_eq!(
            read("d.csv", "image,caption\na.png,x\nb.png,y,z\n").unwrap_err(),
            "`DIR/d.csv`, line 3: found 3 fields; expected 2, as in the header"
        );
        assert_eq!(
            read("d.csv", b"image,caption\na.png,caf\xe9\n").unwrap_err(),
            "`DIR/d.csv`, line 2: not UTF-8; save the table as UTF-8"
        );
        assert_eq!(
            read("d.csv", "image,caption\nhttp://x/a.png,x\n").unwrap_err(),
            "`DIR/d.csv`, line 2: the image is a URL, `http://x/a.png`; expected a local file: download the images \
             first"
        );
    }

    #[test]
    fn counts_empty_captions() {
        let dataset = read("d.csv", "image,caption\na.png,x\nb.png,  \n,y\n").unwrap();
        assert_eq!((dataset.num_captions(), dataset.skipped.count), (1, 2));
        assert!(dataset.skipped.rows[0].message.ends_with("d.csv`, line 3: empty caption"), "{:?}", dataset.skipped);
        assert!(dataset.skipped.rows[1].message.ends_with("line 4: no image"));
    }

    #[test]
    fn skips_bad_rows_if_asked() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("d.csv");
        std::fs::write(&path, "image,caption\na.png\nb.png,y\n").unwrap();
        let source = CsvSource { bad_rows: BadRows::Skip, ..CsvSource::new(path) };
        let dataset = source.read().unwrap();
        assert_eq!((dataset.num_captions(), dataset.skipped.count), (1, 1));
        assert!(dataset.skipped.rows[0].message.contains("line 2: found 1 fields"));
    }

    #[test]
    fn rejects_empty_and_unknown_files() {
        assert!(read("d.csv", "").unwrap_err().contains("holds no samples: found an empty file"));
        assert!(read("d.csv", "image,caption\n").unwrap_err().contains("a header and no usable row"));
        let error = Source::from_path("x/data.xlsx").unwrap_err().to_string();
        assert_eq!(
            error,
            "`x/data.xlsx` has the extension `xlsx`; expected `csv`, `tsv`, `jsonl` or `tar`, or a folder"
        );
    }

    #[test]
    fn rejects_unknown_key() {
        let mut source: SourceTable =
            toml::from_str("[csv]\npath = \"d.csv\"\nroot = \"images\"\ndelimiter = \";\"").unwrap();
        source.resolve(Path::new("/config"));
        let csv = source.csv.unwrap();
        assert_eq!(csv.path, Path::new("/config/d.csv"));
        assert_eq!(csv.root.as_deref(), Some(Path::new("/config/images")));
        assert_eq!((csv.delimiter, csv.caption.as_str()), (Some(';'), "caption"));
        let error = toml::from_str::<SourceTable>("[csv]\npath = \"d.csv\"\nimages = \"x\"").unwrap_err().to_string();
        assert!(error.contains("unknown field `images`"), "{error}");
    }
}
