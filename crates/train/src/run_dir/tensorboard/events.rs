//! The events of a run.

use prost::Message;
use toml::Value;

use crate::run_dir::flat_config::{flat_config, shown};
use crate::run_dir::log_points::LogPoints;
use crate::run_dir::tensorboard::messages::{
    AnyKind, AnyValue, Content, Dim, Event, HyperparameterData, PluginData, SessionLog, SessionStart, Shape, Summary,
    SummaryMetadata, SummaryValue, Tensor, What,
};
use crate::run_dir::tensorboard::records::push_record;

/// The version of the event file, from which on a start makes earlier events void.
const FILE_VERSION: &str = "brain.Event:2";

/// `SessionLog.START`.
const START: i32 = 1;

/// `DT_FLOAT` and `DT_STRING` of TensorFlow's `types.proto`.
const FLOAT: i32 = 1;
const STRING: i32 = 7;

/// The tag of the config.
const CONFIG: &str = "config";

/// The tag of the hyperparameters: `SESSION_START_INFO_TAG` of the plugin.
const HYPERPARAMETERS: &str = "_hparams_/session_start_info";

/// Sections of the config with keys that are hyperparameters.
const SECTIONS: [&str; 3] = ["model.", "data.", "train."];

/// Appends what an event file begins with: an event that makes those of earlier files void, and the config, as text and
/// as hyperparameters if it is TOML.
pub(super) fn push_start(out: &mut Vec<u8>, time: f64, config_toml: &str) {
    push(out, time, 0, What::FileVersion(FILE_VERSION.to_owned()));
    push(out, time, 0, What::SessionLog(SessionLog { status: START }));
    // Markdown: an indented block is shown as it is.
    let text: String = config_toml.lines().map(|line| format!("    {line}\n")).collect();
    let mut value = vec![text_value(CONFIG, &text)];
    value.extend(flat_config(config_toml).map(|entries| hyperparameters(entries, time)));
    push(out, time, 0, What::Summary(Summary { value }));
}

/// Appends what a line of the log says, at `time` if the line has none.
pub(super) fn push_points(out: &mut Vec<u8>, points: &LogPoints, time: f64) {
    let scalar = |(tag, value): &(String, f64)| SummaryValue {
        tag: tag.clone(),
        metadata: None,
        content: Some(Content::Scalar(*value as f32)),
    };
    let mut value: Vec<SummaryValue> = points.values.iter().map(scalar).collect();
    value.extend(points.warning.iter().map(|(name, message)| text_value(&format!("warnings/{name}"), message)));
    if !value.is_empty() {
        push(out, points.time.unwrap_or(time), points.step, What::Summary(Summary { value }));
    }
}

fn push(out: &mut Vec<u8>, wall_time: f64, step: u64, what: What) {
    let event = Event { wall_time, step: i64::try_from(step).unwrap_or(i64::MAX), what: Some(what) };
    push_record(out, &event.encode_to_vec());
}

fn text_value(tag: &str, markdown: &str) -> SummaryValue {
    let shape = Shape { dim: vec![Dim { size: 1 }] };
    let tensor = Tensor { dtype: STRING, shape: Some(shape), strings: vec![markdown.as_bytes().to_vec()] };
    plugin_value(tag, "text", Vec::new(), tensor)
}

fn hyperparameters(entries: Vec<(String, Value)>, start_time: f64) -> SummaryValue {
    let entries = entries.into_iter().filter(|(key, _)| SECTIONS.iter().any(|section| key.starts_with(section)));
    let entries = entries.map(|(key, value)| {
        let kind = match value {
            Value::Integer(value) => AnyKind::Number(value as f64),
            Value::Float(value) => AnyKind::Number(value),
            Value::Boolean(value) => AnyKind::Bool(value),
            other => AnyKind::Text(shown(&other)),
        };
        (key, AnyValue { kind: Some(kind) })
    });
    let session_start = SessionStart { hyperparameters: entries.collect(), start_time };
    let data = HyperparameterData { session_start: Some(session_start) };
    // `NULL_TENSOR` of the plugin.
    let shape = Shape { dim: vec![Dim { size: 0 }] };
    let tensor = Tensor { dtype: FLOAT, shape: Some(shape), strings: Vec::new() };
    plugin_value(HYPERPARAMETERS, "hparams", data.encode_to_vec(), tensor)
}

fn plugin_value(tag: &str, plugin: &str, content: Vec<u8>, tensor: Tensor) -> SummaryValue {
    let plugin_data = Some(PluginData { plugin_name: plugin.to_owned(), content });
    SummaryValue {
        tag: tag.to_owned(),
        metadata: Some(SummaryMetadata { plugin_data }),
        content: Some(Content::Tensor(tensor)),
    }
}
