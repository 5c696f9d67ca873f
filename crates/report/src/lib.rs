//! Self-contained HTML pages about training runs of dual encoders.
//!
//! Three functions take plain data and give whole pages: [`render_report`] on one run, [`render_comparison`] of several
//! runs, [`render_results`] of a search. Nothing is read, written or printed, and nothing is known of how the data was
//! made. A page is one file without any request to the network; its content security policy forbids them. It follows
//! the light or dark theme of the reader, prints, fits a phone, and works without a script.
//!
//! Every part of the data may be missing, empty or not finite: the page says so or leaves the part out. Texts are
//! escaped, long ones are cut, long tables are folded, and pictures beyond [`PageOptions::picture_bytes`] are left out
//! and counted.
//!
//! ```
//! use dualenc_report::{PageOptions, Report, TrainStep, render_report};
//!
//! let steps = (1..=100).map(|step| TrainStep { loss: 5.0 / step as f64, ..TrainStep::new(step) }).collect();
//! let report = Report { title: "Flags".to_owned(), steps, ..Report::default() };
//! let page = render_report(&report, &PageOptions::default());
//! assert!(page.starts_with("<!DOCTYPE html>"));
//! ```

mod data;
mod histogram;
mod page;
mod pages;
mod plot;
mod projection;
mod sections;

pub use data::evaluation::{
    CalibrationBin, ClassResult, Classification, Confusion, EmbeddingMap, EvalPoint, Evaluation, MapPoint,
};
pub use data::number::Figure;
pub use data::pages::{ComparedRun, Comparison, PageOptions, Report, SearchQuery, SearchResult, SearchResults};
pub use data::picture::{
    FoundImage, FoundText, ImageQuery, PairCard, PairScores, Picture, RetrievalExamples, TextQuery,
};
pub use data::run::{
    BadSamples, BestCheckpoint, Entry, Headline, ParameterGroup, RunState, Status, TrainStep, Warning,
};
pub use histogram::{Histogram, Similarities, similarities};
pub use pages::comparison::render_comparison;
pub use pages::report::render_report;
pub use pages::results::render_results;
pub use projection::{Projection, embedding_map, modality_gap, pca_2d};
