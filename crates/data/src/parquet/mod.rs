//! Parquet files, as far as images and captions need them: footers, pages, and the values of one column at a time. A
//! page is read and unpacked only when one of its values is asked for; nothing is unpacked to disk.
//!
//! The format is <https://parquet.apache.org/docs/file-format/>. Files may come from anywhere: every length is checked
//! against the file before memory is reserved for it.
//!
//! - `thrift`: the encoding of footers and page headers
//! - `footer`: the columns of a file, and where their parts are
//! - `schema`: the tree of columns
//! - `file`: reads parts of a file
//! - `codec`: unpacks pages
//! - `page`: one page of a column
//! - `bits`: numbers in few bits
//! - `values`: the values of a page
//! - `column`: the rows of a column, in order
//! - `partial`: unpacks a part of a page
//! - `cells`: single images, in any order
//! - `page_cache`: the pages that were read last

mod bits;
pub(crate) mod cells;
mod codec;
pub(crate) mod column;
pub(crate) mod file;
pub(crate) mod footer;
mod page;
mod page_cache;
mod partial;
pub(crate) mod schema;
mod thrift;
pub(crate) mod values;
