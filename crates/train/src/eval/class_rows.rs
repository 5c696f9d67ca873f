//! Labelled features, and features of the prompts of classes.

use std::path::Path;
use std::sync::Arc;

use dualenc_data::{
    ClassLabels, Dataset, DatasetBuilder, FeatureColumn, FeatureTable, ImageRef, counted, find_integers, read_integers,
};

use crate::config::EvalSection;
use crate::error::TrainError;
use crate::features::absent::check_rows;

/// The columns of parquet files without a name.
const COLUMNS: [&str; 2] = ["image_embedding", "text_embedding"];

/// Features of the prompts of each class.
#[derive(Debug)]
pub(crate) struct ClassRows {
    pub table: Arc<FeatureTable>,
    /// The rows of each class, at least one.
    pub of_class: Vec<Vec<u64>>,
}

impl ClassRows {
    /// Reads `class_features` of a section; `None`: the classes are texts.
    ///
    /// # Errors
    /// [`TrainError::Data`] when a file cannot be read or is not features; [`TrainError::Usage`] when a row cannot be
    /// used, or a class has none.
    pub fn open(section: &EvalSection) -> Result<Option<Self>, TrainError> {
        let Some(path) = &section.class_features else { return Ok(None) };
        let table = open(path, COLUMNS[1])?;
        check_rows(&table)?;
        let rows = table.num_rows() as usize;
        let classes = match integers(section.class_of.as_deref(), path, "class_of")? {
            Some((file, numbers)) => numbers_of(file, numbers, rows, "class_of")?,
            None => (0..rows).collect(),
        };
        let mut of_class = vec![Vec::new(); classes.iter().max().map_or(0, |most| most + 1)];
        classes.iter().zip(0..).for_each(|(&class, row)| of_class[class].push(row));
        if let Some(class) = of_class.iter().position(Vec::is_empty) {
            return Err(TrainError::Usage(format!(
                "`{}` has no row of class {class}; expected at least one for each class from 0 to {}",
                path.display(),
                of_class.len() - 1
            )));
        }
        Ok(Some(Self { table: Arc::new(table), of_class }))
    }

    /// The hashes of all rows with their classes, for a fingerprint.
    pub fn bytes(&self) -> Vec<u8> {
        let rows = self.of_class.iter().enumerate().flat_map(|(class, rows)| rows.iter().map(move |row| (class, row)));
        rows.flat_map(|(class, &row)| [class as u64, self.table.id(row)]).flat_map(u64::to_le_bytes).collect()
    }
}

/// Reads `image_features` of a section and the class of each row; `None`: the images are files.
///
/// # Errors
/// [`TrainError::Data`] when a file cannot be read or is not features; [`TrainError::Usage`] without labels, or for a
/// label that is no class.
pub(crate) fn labelled_rows(section: &EvalSection) -> Result<Option<(Dataset, Vec<usize>)>, TrainError> {
    let Some(path) = &section.image_features else { return Ok(None) };
    let table = Arc::new(open(path, COLUMNS[0])?);
    let Some((file, numbers)) = integers(section.labels.as_deref(), path, "labels")? else {
        return Err(TrainError::Usage(format!(
            "`{}` has no tensor `labels` beside the features; name a file with the class of each row with `labels`",
            path.display()
        )));
    };
    let labels = numbers_of(file, numbers, table.num_rows() as usize, "labels")?;
    let mut data = DatasetBuilder::new(path.parent().unwrap_or(Path::new("")));
    for (label, row) in labels.iter().zip(0..) {
        data.push(ImageRef::FeatureRow { table: Arc::clone(&table), row }, &label.to_string());
    }
    Ok(Some((data.build(), labels)))
}

/// The classes of rows with these `names`, or as many as there are.
pub(crate) fn class_labels(
    labels: Vec<usize>,
    names: Option<Vec<Vec<String>>>,
    rows: Option<&ClassRows>,
) -> Result<(ClassLabels, Vec<Vec<String>>), TrainError> {
    let most = labels.iter().max().map_or(0, |most| most + 1);
    let count = rows.map_or(most, |rows| rows.of_class.len());
    let names = names.unwrap_or_else(|| (0..count.max(most)).map(|class| vec![class.to_string()]).collect());
    if most > names.len() {
        return Err(TrainError::Usage(format!(
            "`labels` has class {}, but there are {}; expected numbers from 0 to {}",
            most - 1,
            counted(names.len(), "class name"),
            names.len().saturating_sub(1)
        )));
    }
    let titles = names.iter().filter_map(|names| names.first().cloned()).collect();
    Ok((ClassLabels::new(titles, labels.into_iter().map(|label| vec![label])), names))
}

fn open(path: &Path, parquet: &str) -> Result<FeatureTable, TrainError> {
    Ok(FeatureTable::open(&[path.to_owned()], FeatureColumn { name: None, parquet })?)
}

/// The whole numbers in `file`, or else in the tensor `name` beside the features in `path`; with the file they are in.
fn integers<'a>(
    file: Option<&'a Path>,
    path: &'a Path,
    name: &str,
) -> Result<Option<(&'a Path, Vec<i64>)>, TrainError> {
    Ok(match file {
        Some(file) => Some((file, read_integers(file, name)?)),
        None => find_integers(path, name)?.map(|numbers| (path, numbers)),
    })
}

/// One number of 0 or more for each of `rows`.
fn numbers_of(file: &Path, numbers: Vec<i64>, rows: usize, name: &str) -> Result<Vec<usize>, TrainError> {
    /// More classes than any data set has: a larger number is a mistake, and would take memory.
    const MAX_CLASS: i64 = 10_000_000;
    let usage = |problem: String| TrainError::Usage(format!("`{}`: {problem}", file.display()));
    if numbers.len() != rows {
        return Err(usage(format!("`{name}` has {} numbers; expected {rows}, one for each row", numbers.len())));
    }
    let class = |(row, number): (usize, i64)| match usize::try_from(number).ok().filter(|_| number <= MAX_CLASS) {
        Some(class) => Ok(class),
        None => Err(usage(format!("`{name}` of row {} is {number}; expected the number of a class", row + 1))),
    };
    numbers.into_iter().enumerate().map(class).collect()
}
