//! The rules of `[run]`.

use std::collections::BTreeSet;

use super::rules::Rules;
use crate::config::schema::RunConfig;
use crate::config::schema::run::{Precision, device_kind};

pub(super) fn run(config: &RunConfig, rules: &mut Rules) {
    let run = &config.run;
    rules.check(!run.dir.as_os_str().is_empty(), "run.dir", "empty", "a directory", "");
    // TOML has no larger integers, and the config is written back as TOML.
    rules.check(i64::try_from(run.seed).is_ok(), "run.seed", run.seed, "at most 9223372036854775807", "");
    let devices = run.device.all();
    let are_named = devices.iter().all(|device| !device.is_empty());
    rules.check(are_named, "run.device", "empty", "a device", "such as `cpu` or `cuda:0`");
    let is_one_kind = devices.iter().all(|device| device_kind(device) == run.device.kind());
    let help = "devices of different kinds round differently, so that their copies of the model would drift apart";
    rules.check(!are_named || is_one_kind, "run.device", format!("`{}`", run.device), "devices of one kind", help);
    let number = |device: &str| device.split_once(':').map_or("0", |(_, number)| number).to_owned();
    let are_cores = matches!(run.device.kind(), "cpu" | "ndarray" | "plain");
    let numbers: BTreeSet<String> = devices.iter().map(|device| number(device)).collect();
    let are_different = are_cores || numbers.len() == devices.len();
    let help = "two copies of the model on one device take twice the memory and gain nothing";
    rules.check(!are_named || are_different, "run.device", format!("`{}`", run.device), "each device once", help);
    if run.precision == Precision::F16 {
        rules.check(
            false,
            "run.precision",
            "`f16`",
            "`f32` or `bf16`",
            "gradients underflow in f16; for locked towers, set `run.locked_precision`",
        );
    }
    rules.check(run.threads != Some(0), "run.threads", 0, "at least 1", "remove the key to use every core");
    rules.check(run.log_every_steps >= 1, "run.log_every_steps", 0, "at least 1", "");
}
