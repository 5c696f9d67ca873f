//! How fast the parts are: `cargo bench -p dualenc-train --bench speed -- NAME.. [--rounds N]`.
//!
//! With `--rounds` it measures that often and prints one JSON line. Several names take turns, and there is a line for
//! each, with the median of its times as fractions of those of the first in the same round. Without, it prints a line
//! when it is ready, then measures once for each line it reads, so that `scripts/bench.py` can take turns between it
//! and PyTorch.

#![expect(clippy::print_stdout, reason = "what it measures is its output")]

mod images;
mod losses;
mod models;
mod roofs;

use std::error::Error;
use std::io::BufRead;
use std::time::Instant;

use dualenc_train::config::{Loss, Precision};
use dualenc_train::join_thread_pool;

/// Something to measure, set up.
pub(crate) struct Work {
    /// Floating-point operations of a round, a multiplication and an addition counted as two; 0: not counted.
    pub flops: f64,
    /// Bytes read and written in a round; 0: not counted.
    pub bytes: f64,
    /// Images of a round; 0: none.
    pub images: usize,
    /// One round.
    pub round: Box<dyn FnMut() -> Result<(), Box<dyn Error>>>,
}

const USAGE: &str = "usage: speed NAME | speed NAME.. --rounds N; NAME is one of vit, vit-bf16, vit-b, vit-b-bf16, \
                     bert, bert-bf16, bert-captions, bert-captions-bf16, infonce, softmax-32768, sigmoid-32768, \
                     distillation, structure, images-jpeg, images-jpeg-large, images-jpeg-fast, images-png, \
                     gemm, gemm-mlp, memory";

fn main() -> Result<(), Box<dyn Error>> {
    // Cargo adds `--bench`.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    // As `dualenc train` does.
    join_thread_pool(None);
    match arguments[..] {
        [name] => on_request(name),
        [ref names @ .., "--rounds", rounds] if !names.is_empty() => in_turns(names, rounds.parse()?),
        _ => Err(USAGE.into()),
    }
}

/// The work of this name, after a round that does not count: threads have started, and memory is taken. With the memory
/// of the process before that round, in MB.
fn set_up(name: &str) -> Result<(Work, f64), Box<dyn Error>> {
    let mut work = match name {
        "vit" => models::vit(&models::Size::SMALL, false)?,
        "vit-bf16" => models::vit(&models::Size::SMALL, true)?,
        "vit-b" => models::vit(&models::Size::BASE, false)?,
        "vit-b-bf16" => models::vit(&models::Size::BASE, true)?,
        "bert" => models::bert(&[32; 64], Precision::F32)?,
        "bert-bf16" => models::bert(&[32; 64], Precision::Bf16)?,
        "bert-captions" => models::bert(&models::caption_lengths()?, Precision::F32)?,
        "bert-captions-bf16" => models::bert(&models::caption_lengths()?, Precision::Bf16)?,
        "infonce" => models::contrastive(Loss::Softmax, 4096)?,
        "softmax-32768" => models::contrastive(Loss::Softmax, 32_768)?,
        "sigmoid-32768" => models::contrastive(Loss::Sigmoid, 32_768)?,
        "distillation" => losses::distillation(4096)?,
        "structure" => losses::structure(4096)?,
        "images-jpeg" | "images-jpeg-large" | "images-jpeg-fast" | "images-png" => images::load(name)?,
        "gemm" => roofs::gemm([2048, 2048, 2048]),
        // The first linear of a MiniLM-sized block.
        "gemm-mlp" => roofs::gemm([2048, 1536, 384]),
        "memory" => roofs::copy(),
        _ => return Err(USAGE.into()),
    };
    let set_up_rss_mb = status_mb("VmRSS:");
    (work.round)()?;
    Ok((work, set_up_rss_mb))
}

/// A round for each line that is read.
fn on_request(name: &str) -> Result<(), Box<dyn Error>> {
    let mut work = set_up(name)?;
    print(name, &work, &[], &[]);
    for line in std::io::stdin().lock().lines() {
        line?;
        let ms = measure(&mut work.0)?;
        print(name, &work, &[ms], &[ms]);
    }
    Ok(())
}

/// `rounds` rounds of each.
fn in_turns(names: &[&str], rounds: usize) -> Result<(), Box<dyn Error>> {
    let mut works = names.iter().map(|name| set_up(name)).collect::<Result<Vec<_>, _>>()?;
    let mut ms = vec![Vec::new(); works.len()];
    for _ in 0..rounds {
        for ((work, _), ms) in works.iter_mut().zip(&mut ms) {
            ms.push(measure(work)?);
        }
    }
    for ((name, work), of_work) in names.iter().zip(&works).zip(&ms) {
        print(name, work, of_work, &ms[0]);
    }
    Ok(())
}

/// Milliseconds of a round.
fn measure(work: &mut Work) -> Result<f64, Box<dyn Error>> {
    let started = Instant::now();
    (work.round)()?;
    Ok(started.elapsed().as_secs_f64() * 1e3)
}

/// `first`: the times of the work that others are compared with.
fn print(name: &str, (work, set_up_rss_mb): &(Work, f64), ms: &[f64], first: &[f64]) {
    let Work { flops, bytes, images, .. } = work;
    let peak_rss_mb = status_mb("VmHWM:");
    let mut fractions: Vec<f64> = ms.iter().zip(first).map(|(ms, first)| ms / first).collect();
    fractions.sort_by(f64::total_cmp);
    println!(
        "{}",
        serde_json::json!({
            "name": name, "ms": ms, "set_up_rss_mb": set_up_rss_mb, "peak_rss_mb": peak_rss_mb,
            "flops": flops, "bytes": bytes,
            "images": images, "fraction": fractions.get(fractions.len() / 2),
        })
    );
}

/// Memory of this process in MB, from the line of `/proc/self/status` that begins with `key`; 0 without that file.
fn status_mb(key: &str) -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(key));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<f64>().ok());
    kib.map_or(0.0, |kib| kib * 1024.0 / 1e6)
}
