//! Errors of this crate.

use std::io;
use std::path::{Path, PathBuf};

/// A search that cannot be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SearchError {
    /// A file cannot be read.
    #[error("cannot read `{path}`: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// A file is damaged, or holds something else than embeddings.
    #[error("`{path}`: {problem}")]
    File {
        /// The file.
        path: PathBuf,
        /// What was found, what was expected, and what to do.
        problem: String,
    },
    /// A query does not have the width of the rows.
    #[error(
        "`{path}` has embeddings of {rows} values, but the query has {query}; they are of different models: search \
         with the model that wrote the embeddings, or embed again with this one"
    )]
    Width {
        /// The file.
        path: PathBuf,
        /// Values of a row.
        rows: usize,
        /// Values of the query.
        query: usize,
    },
    /// A query has no direction.
    #[error("query {number} {problem}")]
    Query {
        /// Its number, from 1.
        number: usize,
        /// What is wrong with it.
        problem: String,
    },
}

impl SearchError {
    /// For `map_err`: [`SearchError::Read`] of `path`.
    pub(crate) fn read(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Read { path, source }
    }

    /// [`SearchError::File`] of `path`.
    pub(crate) fn file(path: &Path, problem: impl Into<String>) -> Self {
        Self::File { path: path.to_owned(), problem: problem.into() }
    }
}
