//! A parquet column of lists of numbers. Its pages are packed together with others, so that rows cannot be read by
//! position: the column is unpacked into memory, once.

use std::path::Path;

use crate::error::DataError;
use crate::panics::catch_quietly;
use crate::parquet::column::Column;
use crate::parquet::file::{Fault, ParquetFile};
use crate::parquet::footer::read_footer;
use crate::parquet::schema::Physical;
use crate::parquet::values::Value;

/// Values for each byte of the file, at most: a damaged page can claim any number of equal ones.
const MAX_VALUES_PER_BYTE: u64 = 1024;

/// The vectors of a column.
#[derive(Debug)]
pub(crate) struct Vectors {
    pub(crate) width: usize,
    /// `[rows, width]`, flat.
    pub(crate) values: Vec<f32>,
    /// The type in the file, for the log.
    pub(crate) number: &'static str,
}

/// Reads column `name`: `list<float>`, `list<double>`, or lists of a fixed size of these.
///
/// # Errors
/// [`DataError::Column`] without the column, [`DataError::Row`] for a null or a vector of another width,
/// [`DataError::Malformed`] for a damaged file or a column of another type, [`DataError::Read`].
pub(crate) fn read(path: &Path, name: &str) -> Result<Vectors, DataError> {
    let file = ParquetFile::open(path)?;
    let caught =
        |read: Result<Result<Vectors, DataError>, Fault>| read.map_err(|fault| fault.at(path)).and_then(|it| it);
    caught(
        catch_quietly(|| read_file(&file, path, name)).unwrap_or_else(|panic| Err(Fault::Malformed(panic.to_string()))),
    )
}

fn read_file(file: &ParquetFile, path: &Path, name: &str) -> Result<Result<Vectors, DataError>, Fault> {
    let footer = read_footer(file)?;
    let of_column = |leaf: &&usize| footer.schema.leaves[**leaf].path.first().is_some_and(|first| first == name);
    let all: Vec<usize> = (0..footer.schema.leaves.len()).collect();
    let leaves: Vec<usize> = all.iter().filter(of_column).copied().collect();
    let &[number] = &leaves[..] else {
        if leaves.is_empty() {
            let found = footer.schema.columns.iter().map(|node| node.name.clone()).collect();
            return Ok(Err(DataError::Column { path: path.to_owned(), column: name.to_owned(), found, hint: None }));
        }
        return Err(Fault::Malformed(format!("column `{name}` is a group; expected lists of float or double")));
    };
    let leaf = &footer.schema.leaves[number];
    let number_type = match (leaf.physical, leaf.max_rep) {
        (Physical::Float, 1) => "f32",
        (Physical::Double, 1) => "f64",
        (physical, lists) => {
            let reason = format!(
                "column `{name}` holds {physical:?} in {lists} lists; expected lists of float or double, such as \
                 `pyarrow.list_(pyarrow.float32())`"
            );
            return Err(Fault::Malformed(reason));
        }
    };
    let most = file.len().saturating_mul(MAX_VALUES_PER_BYTE);
    let (mut values, mut width, mut rows) = (Vec::new(), 0, 0u64);
    for group in &footer.groups {
        let mut column = Column::new(file, leaf, &group.chunks[number]);
        for _ in 0..group.rows {
            rows += 1;
            let (before, mut has_null) = (values.len(), false);
            column.next_row(&mut |value| match value {
                _ if values.len() as u64 > most => {}
                Value::Bytes(&[a, b, c, d]) => values.push(f32::from_le_bytes([a, b, c, d])),
                Value::Bytes(bytes) => match bytes.first_chunk() {
                    Some(bytes) => values.push(f64::from_le_bytes(*bytes) as f32),
                    None => has_null = true,
                },
                Value::Null | Value::Int(_) => has_null = true,
            })?;
            let found = values.len() - before;
            if values.len() as u64 > most {
                return Err(Fault::Malformed(format!(
                    "column `{name}` has more values than {} bytes hold",
                    file.len()
                )));
            }
            if has_null {
                return Ok(Err(DataError::row(path, "row", rows, format!("`{name}` is null, empty or has a null"))));
            }
            if rows == 1 {
                width = found;
            } else if found != width {
                let reason = format!("`{name}` has {found} numbers; expected {width}, as the rows before it have");
                return Ok(Err(DataError::row(path, "row", rows, reason)));
            }
        }
    }
    if rows == 0 {
        return Err(Fault::Malformed(format!("column `{name}` has no rows")));
    }
    values.shrink_to_fit();
    Ok(Ok(Vectors { width, values, number: number_type }))
}
