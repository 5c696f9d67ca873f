//! An opened file of embeddings.

use std::io::{self, Seek, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::error::SearchError;
use crate::nearest::Neighbour;
use crate::opened::{Kind, Opened, Part};
use crate::{index_file, mapping, npy_file, safetensors_file, scan};

/// A row near a query, with the image or the text it stands for.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Hit {
    /// Place among the hits of the query, from 1.
    pub rank: usize,
    /// Row in the file, from 0.
    pub row: usize,
    /// Path of the image, if the rows are images and the file names them.
    pub path: Option<String>,
    /// The text, if the rows are texts and the file holds them.
    pub text: Option<String>,
    /// Cosine similarity, from -1 to 1.
    pub score: f32,
}

/// Embeddings in a mapped file. [`Index::open`] reads and checks the whole file.
#[derive(Debug)]
pub struct Index {
    path: PathBuf,
    opened: Opened,
    /// One divided by the norm of each row.
    inverse_norms: Vec<f32>,
}

impl Index {
    /// Opens an index that [`Index::write`] wrote, a safetensors file of `dualenc embed`, or a numpy
    /// array of shape `[rows, dim]`.
    ///
    /// # Errors
    /// [`SearchError::Read`]; [`SearchError::File`] if the file is none of these, is damaged, does not hold `part`, has
    /// no rows, or has a row that is not finite or has no direction.
    pub fn open(path: &Path, part: Part) -> Result<Self, SearchError> {
        let map = mapping::map(path)?;
        let opened = if map.starts_with(index_file::MAGIC) {
            index_file::open(map, path, part)?
        } else if map.starts_with(npy_file::MAGIC) {
            npy_file::open(map, path)?
        } else if safetensors_file::is_safetensors(&map) {
            safetensors_file::open(map, path, part)?
        } else {
            return Err(SearchError::file(path, foreign(&map)));
        };
        let (rows, dim) = (opened.vectors.rows, opened.vectors.dim);
        if rows == 0 || dim == 0 {
            return Err(SearchError::file(path, format!("it has no embeddings: its shape is [{rows}, {dim}]")));
        }
        let inverse_norms = scan::inverse_norms(&opened.vectors).map_err(|(row, bad)| {
            let of = opened.name(row).map_or_else(String::new, |name| format!(" (`{name}`)"));
            let what = bad.describe();
            SearchError::file(path, format!("row {row}{of} {what}, so it has no similarity; embed again without it"))
        })?;
        Ok(Self { path: path.to_owned(), opened, inverse_norms })
    }

    /// Number of embeddings.
    pub fn rows(&self) -> usize {
        self.opened.vectors.rows
    }

    /// Values of an embedding.
    pub fn dim(&self) -> usize {
        self.opened.vectors.dim
    }

    /// Refuses queries of another width.
    ///
    /// # Errors
    /// [`SearchError::Width`].
    pub fn check_width(&self, query: usize) -> Result<(), SearchError> {
        let rows = self.dim();
        if query == rows { Ok(()) } else { Err(SearchError::Width { path: self.path.clone(), rows, query }) }
    }

    /// Refuses queries of another model than the one that wrote the rows. `query`: the fingerprint of its parameters.
    /// Files without a fingerprint, as older ones and numpy arrays, accept any.
    ///
    /// # Errors
    /// [`SearchError::File`].
    pub fn check_model(&self, query: &str) -> Result<(), SearchError> {
        match &self.opened.model {
            Some(written) if written != query => Err(SearchError::file(
                &self.path,
                "its embeddings were written by a model with other weights, so no similarity means anything; search \
                 with the model that wrote them, or embed again with this one",
            )),
            _ => Ok(()),
        }
    }

    /// Whether the file says which model wrote the rows.
    pub fn has_model(&self) -> bool {
        self.opened.model.is_some()
    }

    /// Whether the rows have names: paths of images or texts.
    pub fn has_names(&self) -> bool {
        self.opened.name(0).is_some()
    }

    /// Path of the image that a row stands for; `None` if there is no such row, or it is no image with a name.
    pub fn image_path(&self, row: usize) -> Option<&str> {
        self.opened.name(row).filter(|_| self.opened.kind == Kind::Images && row < self.rows())
    }

    /// The `top` nearest rows of each query, the nearest first: all rows if there are fewer. `queries`: shape
    /// `[queries, dim]`, flat; they need not be normalised.
    ///
    /// # Errors
    /// [`SearchError::Width`] if `dim` is not that of the index or does not divide the queries;
    /// [`SearchError::Query`] if one is not finite or has no direction.
    pub fn nearest(&self, queries: &[f32], dim: usize, top: usize) -> Result<Vec<Vec<Neighbour>>, SearchError> {
        self.check_width(dim)?;
        if !queries.len().is_multiple_of(dim) {
            self.check_width(queries.len() % dim)?;
        }
        let mut normalised = Vec::with_capacity(queries.len());
        for (number, query) in (1..).zip(queries.chunks_exact(dim)) {
            let inverse =
                scan::inverse_norm(query).map_err(|bad| SearchError::Query { number, problem: bad.describe() })?;
            normalised.extend(query.iter().map(|value| value * inverse));
        }
        let top = top.min(self.rows());
        Ok(scan::nearest(&self.opened.vectors, &self.inverse_norms, &normalised, top))
    }

    /// As [`Index::nearest`], with the images or texts of the rows.
    ///
    /// # Errors
    /// As for [`Index::nearest`].
    pub fn search(&self, queries: &[f32], dim: usize, top: usize) -> Result<Vec<Vec<Hit>>, SearchError> {
        let hit = |(rank, neighbour): (usize, &Neighbour)| {
            let name = |kind| self.opened.name(neighbour.row).filter(|_| self.opened.kind == kind).map(str::to_owned);
            let (path, text) = (name(Kind::Images), name(Kind::Texts));
            Hit { rank, row: neighbour.row, path, text, score: neighbour.score.clamp(-1.0, 1.0) }
        };
        let found = self.nearest(queries, dim, top)?;
        Ok(found.iter().map(|neighbours| (1..).zip(neighbours).map(hit).collect()).collect())
    }

    /// Writes the embeddings, normalised and as `f16`, with their names to an empty file, which [`Index::open`] opens.
    /// It has half the size of `f32`, a checksum of all bytes, and names that need not be parsed.
    ///
    /// # Errors
    /// Those of `to`.
    pub fn write(&self, to: &mut (impl Write + Seek)) -> io::Result<()> {
        index_file::write(&self.opened, &self.inverse_norms, to)
    }
}

/// What a file is that holds no embeddings, and what to do.
fn foreign(file: &[u8]) -> String {
    let found = match file {
        [b'P', b'K', 3, 4, ..] => "a zip archive, as numpy's `.npz` and torch's `.pt` are",
        [b'P', b'A', b'R', b'1', ..] => "a parquet file",
        [b'I', b'x' | b'H' | b'w', ..] => "probably an index of faiss",
        _ if file.starts_with(b"version https://git-lfs") => "a Git LFS pointer; fetch the file with `git lfs pull`",
        _ => "of an unknown kind, or its start is damaged",
    };
    format!(
        "it is {found}; expected an index of `dualenc index`, a safetensors file of `dualenc embed`, or a `.npy` array"
    )
}
