#![doc = include_str!("../README.md")]

mod closed_form;
mod commands;
pub mod config;
mod device;
mod device_panics;
mod error;
mod eval;
mod events;
mod features;
mod in_flags;
mod index_dir;
mod loss;
mod models;
mod optim;
mod pairs;
mod ranks;
mod run_dir;
mod stop_flag;
mod teacher;
mod thread_pool;
mod training;

pub use closed_form::fit_report::{Candidate, FitReport, HeldOutReport};
pub use commands::answering::{Answering, small_picture};
pub use commands::check::findings::{Finding, Findings, Level};
pub use commands::check::images::CheckOptions;
pub use commands::check::{CONFIG_PROBLEM, check};
pub use commands::classify::{
    Classification, ClassifiedImage, ClassifyRequest, LabelScore, classify, parse_class_names, parse_labels,
};
pub use commands::embed::{EmbedRequest, Embedded, embed};
pub use commands::evaluated_run::fit_to_run;
pub use commands::export::export;
pub use commands::export::request::{ExportFormat, ExportRequest};
pub use commands::fit::fit;
pub use commands::init::init;
pub use commands::init::request::{InitColumns, InitReport, InitRequest};
pub use commands::inspect::directory::inspect;
pub use commands::inspect::report::{BestReport, HeadReport, Inspection, Kind, RunReport, TowerReport, WeightsReport};
pub use commands::interpolate::Interpolation;
pub use commands::kept_inputs::Inputs;
pub use commands::metrics::request::{MetricsFormat, MetricsRequest, WrittenMetrics};
pub use commands::metrics::write_metrics::write_metrics;
pub use commands::pack::manifest::BAD_SAMPLES;
pub use commands::pack::pack;
pub use commands::pack::request::{PackForm, PackRequest, PackSize, Packed, Recode};
pub use commands::plan::make_plan::make_plan;
pub use commands::plan::report::{
    Advice, CachePlan, CheckpointPlan, DataPlan, EvaluationPlan, FitPlan, LoadingPlan, MemoryPlan, Plan, Share,
    StagePlan, StepPlan, TimePlan,
};
pub use commands::probe::report::{Chance, Combination, ProbeReport, ProbedTower, Recall};
pub use commands::probe::request::{Layers, ProbeRequest};
pub use commands::probe::run::probe;
pub use commands::report::make_comparison::compare;
pub use commands::report::make_report::report;
pub use commands::report::make_results::write_results;
pub use commands::report::page_file::{ReportRequest, WrittenPage};
pub use commands::search::{Answer, Query, SearchRequest, search, write_index};
pub use commands::select::request::{
    ClassCount, ClassQuota, ClusterCap, LeftOutBy, ScoreSummary, SelectRequest, Selected, WrittenList,
};
pub use commands::select::run::select;
pub use commands::staged_output::check_output_file;
pub use commands::warm_cache::{WarmedCache, warm_cache};
pub use device::Compute;
pub use device_panics::catch_device_failures;
pub use dualenc_data::counted;
pub use dualenc_search::{Hit, Index, Part, SearchError};
pub use error::{ErrorKind, TrainError};
pub use eval::encoder::{Embeddings, Encoder};
pub use eval::evaluation::{EvalOutcome, Evaluation};
pub use eval::metrics::calibration::CalibrationBin;
pub use eval::metrics::details::{
    ClassDetails, ClassResult, Confusion, DetailEmbeds, Details, Found, Prediction, RetrievalDetails,
};
pub use events::{Event, Observer};
pub use features::cache_counts::CacheCounts;
pub use features::cut_texts::CutTexts;
pub use features::locked_towers::{LockedFingerprints, LockedTowers, feature_cache_of};
pub use loss::contrastive::Objective;
pub use models::hub::error::HubError;
pub use models::load::LoadedModel;
pub use optim::part_summary::PartSummary;
pub use ranks::launched::Processes;
pub use run_dir::best::Best;
pub use run_dir::metrics_log::{EvalRecord, FitRecord, TrainRecord, WarningRecord};
pub use stop_flag::StopFlag;
pub use thread_pool::join_thread_pool;
pub use training::position::Start;
pub use training::training_loop::{Outcome, train};

/// Parts of a step for `benches/speed` and `examples/exchange_time`. No promise is made about them.
#[cfg(feature = "internals")]
#[doc(hidden)]
pub mod internals {
    pub use crate::features::parallel_forward::on_single_thread;
    pub use crate::loss::contrastive::PairIds;
    pub use crate::loss::targets::contrastive_loss;
    pub use crate::optim::clip::Clip;
    pub use crate::optim::gradients::{ParamGradients, RowsRead};
    pub use crate::optim::optimizer::Optimizer;
    pub use crate::optim::param_groups::LearningRate;
    #[cfg(feature = "mpi")]
    pub use crate::ranks::processes::timing::time_exchanges;
}
