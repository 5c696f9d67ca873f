//! Whole numbers beside features, one per row: which image a text belongs to, or a class.

use std::path::Path;

use crate::error::DataError;
use crate::features::tensor_file::{Tensor, Wanted};
use crate::text_lists::text_file::read_text_rows;

/// Reads a list of whole numbers: a one-dimensional `.npy` file, the tensor `name` of a safetensors file, or a text
/// file with one number per line.
///
/// # Errors
/// [`DataError::Malformed`] or [`DataError::Tensor`] for another content; [`DataError::Read`].
pub fn read_integers(path: &Path, name: &str) -> Result<Vec<i64>, DataError> {
    let is_text = path.extension().is_some_and(|extension| ["txt", "json"].iter().any(|it| extension == *it));
    if !is_text {
        return values(path, &Tensor::open(path, wanted(name))?);
    }
    let rows = read_text_rows(path)?;
    let number = |(row, text): (usize, String)| {
        text.parse().map_err(|_| DataError::row(path, "line", row as u64 + 1, format!("`{text}` is no whole number")))
    };
    rows.into_iter().enumerate().map(number).collect()
}

/// As [`read_integers`], of a tensor beside features; `None`: a safetensors file without this tensor, or another
/// format.
///
/// # Errors
/// As for [`read_integers`].
pub fn find_integers(path: &Path, name: &str) -> Result<Option<Vec<i64>>, DataError> {
    if path.extension().is_some_and(|extension| extension == "npy") {
        return Ok(None);
    }
    Tensor::find(path, wanted(name))?.map(|tensor| values(path, &tensor)).transpose()
}

const fn wanted(name: &str) -> Wanted<'_> {
    Wanted { name: Some(name), default: name, dims: 1 }
}

fn values(path: &Path, tensor: &Tensor) -> Result<Vec<i64>, DataError> {
    let (count, size) = (tensor.shape.iter().product::<u64>() as usize, tensor.number.bytes());
    let mut bytes = vec![0; count * size];
    tensor.read(0, &mut bytes)?;
    let beyond = || DataError::Malformed {
        path: path.to_owned(),
        reason: "it holds a number beyond the range of i64".to_owned(),
    };
    bytes.chunks_exact(size).map(|bytes| tensor.number.to_i64(bytes).ok_or_else(beyond)).collect()
}
