//! Progress as JSON lines on stderr, one object per event.

use dualenc_train::Event;

/// Installs the subscriber that prints what [`write()`] emits.
pub fn init() {
    tracing_subscriber::fmt().json().flatten_event(true).with_writer(std::io::stderr).with_target(false).init();
}

/// Writes an event as one line.
pub fn write(event: &Event<'_>) {
    match event {
        Event::Note(text) => tracing::info!(kind = "note", text),
        Event::Warning(text) => tracing::warn!(kind = "warning", text),
        Event::Audit { part, audit } => {
            tracing::info!(
                kind = "audit",
                part,
                loaded = audit.loaded,
                missing = ?audit.missing,
                unused = ?audit.unused
            );
        }
        Event::Parts(parts) => {
            for part in *parts {
                tracing::info!(
                    kind = "parameters",
                    group = part.name,
                    trainable = part.trainable,
                    locked = part.locked,
                    learning_rates = ?part.rates.unwrap_or_default(),
                    weight_decays = ?part.decays.unwrap_or_default()
                );
            }
        }
        Event::Start { step, total_steps, steps_per_epoch } => {
            tracing::info!(kind = "start", step, total_steps, steps_per_epoch);
        }
        Event::Step(record) => tracing::info!(
            kind = "train",
            step = record.step,
            epoch = record.epoch,
            samples_seen = record.samples_seen,
            loss = record.loss,
            learning_rate = record.learning_rate,
            logit_scale = record.logit_scale,
            grad_norm = record.grad_norm,
            pairs_per_sec = record.pairs_per_sec,
            loader_wait = record.loader_wait
        ),
        Event::Skipped(skipped) => tracing::warn!(kind = "skipped", image = skipped.key, reason = skipped.reason),
        Event::Work { name, done, total } => tracing::info!(kind = "work", name, done, total),
        Event::Best(best) => {
            tracing::info!(kind = "best", step = best.step, metric = %best.metric, value = best.value);
        }
        Event::Eval(record) => {
            let metrics = serde_json::Value::Object(record.metrics.clone()).to_string();
            tracing::info!(kind = "eval", step = record.step, name = record.name, task = record.task, metrics);
        }
        Event::Saved { path, took } => {
            tracing::info!(kind = "saved", path = %path.display(), secs = took.as_secs_f64());
        }
        _ => {}
    }
}
