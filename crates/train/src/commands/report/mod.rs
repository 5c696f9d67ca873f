//! `dualenc report`, `compare` and `search --html`: pages about runs and searches. What is on a page is gathered here;
//! `dualenc_report` renders it. Runs are only read: no lock is taken, so a run that is training is not disturbed.
//!
//! - `make_report`: the report on one run.
//! - `make_comparison`: the comparison of several runs.
//! - `make_results`: the results of a search.
//! - `page_file`: writes a page.
//! - `run_files`: what the files of a run say.
//! - `run_log`: `metrics.jsonl` as curves and evaluations.
//! - `state`: how far a run is.
//! - `with_model`: what only the model can say.
//! - `details`: answers of evaluations as tables and examples.
//! - `embedded`: a sample of embeddings, as map and histograms.
//! - `training_pairs`: the worst and the best training pairs.
//! - `thumbnails`: small pictures.

mod details;
mod embedded;
pub(crate) mod make_comparison;
pub(crate) mod make_report;
pub(crate) mod make_results;
pub(crate) mod page_file;
pub(crate) mod run_files;
mod run_log;
mod state;
mod thumbnails;
mod training_pairs;
mod with_model;
