//! A long run needs no more memory and no more open files at its end than at its beginning.

use std::fs;
use std::process::Stdio;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::soak::{figure, log_lines, scaled, whole_checkpoints};
use crate::support::{Session, goldens};

/// Resident memory in bytes and open files of a process, from `/proc`; `None` once it has ended.
fn usage(process: u32) -> Option<(f64, usize)> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let kilobytes = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: f64 = kilobytes.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some((kilobytes * 1024.0, fs::read_dir(format!("/proc/{process}/fd")).ok()?.count()))
}

/// Slope of the samples `(x, y)` by Theil and Sen: the median slope of all pairs, which a few outliers do not move.
fn slope(samples: &[(f64, f64)]) -> f64 {
    let pairs =
        samples.iter().enumerate().flat_map(|(at, first)| samples[at + 1..].iter().map(move |second| (first, second)));
    let mut slopes: Vec<f64> = pairs.map(|(first, second)| (second.1 - first.1) / (second.0 - first.0)).collect();
    slopes.sort_by(f64::total_cmp);
    slopes[slopes.len() / 2]
}

#[test]
fn long_run_needs_no_more_memory() {
    if !fs::exists("/proc/self/fd").unwrap() {
        return figure("long_run_needs_no_more_memory", "SKIPPED: no /proc");
    }
    let steps = scaled(1000);
    let session = Session::new();
    session.write_config(
        "schedule = \"constant\"\nema_decay = 0.99\n[checkpoint]\nevery_steps = 50\nkeep = 2\n\
         [eval.pairs]\ntask = \"retrieval\"\ndata = \"data.csv\"\nevery_steps = 50\n",
    );
    session.copy("train/images", "images");
    session.write("data.csv", fs::read(goldens("train/train.csv")).unwrap());
    let steps_set = format!("train.steps={steps}");
    let sets = [
        "train.epochs=",
        &steps_set,
        "data.train.csv.path=data.csv",
        "data.shuffle=true",
        "model.lock=LU",
        "model.text_dropout=0.1",
        "cache.dir=cache",
    ];
    let mut arguments = vec!["train", "--config", "lit.toml"];
    arguments.extend(sets.iter().flat_map(|set| ["--set", *set]));
    let mut command = session.command(&arguments);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    // Drained, or the process waits for a reader.
    let log = child.stderr.take().unwrap();
    let reader = std::thread::spawn(move || std::io::read_to_string(log).unwrap());
    let (run, started) = (session.path("run"), Instant::now());
    // 200 samples of a run, each with its time and its lines in the log: at a save and between two.
    let mut samples = Vec::new();
    let mut next = 0;
    while child.try_wait().unwrap().is_none() {
        let lines = log_lines(&run);
        if lines >= next
            && let Some((memory, files)) = usage(child.id())
        {
            samples.push((started.elapsed().as_secs_f64(), memory, files));
            next = lines + (steps as usize / 200).max(1);
        }
        let pause = if steps > 5000 { 50 } else { 2 };
        sleep(Duration::from_millis(pause));
    }
    let seconds = started.elapsed().as_secs_f64();
    let text = reader.join().unwrap();
    assert!(child.wait().unwrap().success(), "{text}");
    assert_eq!(session.metrics("run", "train").len() as u64, steps);
    assert_eq!(session.metrics("run", "eval").len() as u64, 1 + steps / 50);
    assert_eq!(whole_checkpoints(&run), [steps - 50, steps]);
    assert!(samples.len() >= 30, "only {} samples", samples.len());

    // The first third is the warm-up: allocators and thread pools fill.
    let steady = &samples[samples.len() / 3..];
    let files: Vec<usize> = steady.iter().map(|(_, _, files)| *files).collect();
    let (fewest, most) = (files.iter().min().unwrap(), files.iter().max().unwrap());
    // A save and an evaluation have a few files open for a moment.
    assert!(most - fewest <= 12, "{fewest} to {most} open files");
    let late = &files[files.len() / 2..];
    assert!(late.iter().min() <= files[..files.len() / 2].iter().min(), "open files grow: {files:?}");
    let memory: Vec<(f64, f64)> = steady.iter().map(|(time, memory, _)| (*time, *memory)).collect();
    let per_step = slope(&memory) * seconds / steps as f64;
    let per_hour = slope(&memory) * 3600.0 / 1e6;
    let highest = |samples: &[(f64, f64)]| samples.iter().fold(0.0, |most: f64, (_, bytes)| most.max(*bytes)) / 1e6;
    let peaks = memory.chunks(memory.len().div_ceil(2)).map(highest).collect::<Vec<_>>();
    figure(
        "long_run_needs_no_more_memory",
        &format!(
            "{steps} steps in {seconds:.0} s, {} checkpoints; memory {:.1} MB, then {:.1} MB at most, slope \
             {per_hour:.2} MB an hour ({per_step:.0} bytes a step); {fewest} to {most} open files",
            steps / 50,
            peaks[0],
            peaks[1]
        ),
    );
    // A short run cannot show a slope per hour; a leak of a batch or a gradient per step shows in any.
    if steps >= 50_000 {
        assert!(per_hour < 1.0, "memory grows by {per_hour:.2} MB an hour");
    }
    assert!(peaks[1] - peaks[0] < 8.0, "memory grows from {:.1} MB to {:.1} MB", peaks[0], peaks[1]);
}
