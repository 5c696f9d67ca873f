//! `dualenc inspect`.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::{Args, ValueHint};
use dualenc_train::{Compute, HeadReport, Inputs, Inspection, Kind, RunReport, TowerReport, WeightsReport, counted};
use indicatif::HumanCount;
use textwrap::{WordSeparator, WordSplitter, WrapAlgorithm};

use crate::exit::Ending;
use crate::report::progress::Reporter;
use crate::report::results;

/// Describe a tower, a model, a run or a checkpoint
///
/// Prints shapes, parameters, weights, image processing and tokenizer, and whether the towers can be locked and
/// exported. Every weight is read once, to find values that are not finite. The exit code is 2 if there are problems.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  dualenc inspect towers/vit-s14
  dualenc inspect runs/first --json -")]
pub struct InspectArgs {
    /// Directory of an image tower, a text tower, a whole model, a run or a checkpoint
    #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub dir: PathBuf,
    /// Write the description as JSON to this file; `-` prints JSON instead of the table
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub json: Option<PathBuf>,
}

/// Maximum number of parameter names in a list.
const MAX_LISTED: usize = 8;

/// Width of the column of labels.
const LABEL_WIDTH: usize = 14;

/// Width of the report; only a longer word exceeds it.
const WIDTH: usize = 110;

pub fn run(args: InspectArgs, reporter: &mut Reporter) -> anyhow::Result<Ending> {
    results::check(args.json.as_deref(), &Inputs::new().models("DIR", [args.dir.as_path()]))?;
    let compute = Compute::select("cpu", None)?;
    let found = dualenc_train::inspect(&args.dir, &compute.device)?;
    reporter.finish();
    let value = serde_json::to_value(&found)?;
    results::write(args.json.as_deref(), || value, |out| print(out, &found))?;
    Ok(if found.problems.is_empty() { Ending::Done } else { Ending::Problems })
}

fn print(out: &mut impl Write, found: &Inspection) -> io::Result<()> {
    writeln!(out, "{}: {}, {} parameters", found.dir.display(), what(found), grouped(found.parameters))?;
    writeln!(out)?;
    if let Some(run) = &found.run {
        print_run(out, run, found)?;
    }
    for (name, tower) in [("image tower", &found.image_tower), ("text tower", &found.text_tower)] {
        if let Some(tower) = tower {
            print_tower(out, name, tower, found)?;
        }
    }
    if let Some(head) = &found.head {
        print_head(out, head)?;
    }
    for file in &found.weights {
        print_row(out, "weights", &describe_file(file))?;
    }
    for (name, text) in [("images", &found.image_processing), ("tokenizer", &found.tokenizer)] {
        if let Some(text) = text {
            print_row(out, name, text)?;
        }
    }
    writeln!(out)?;
    match found.problems.len() {
        0 => return writeln!(out, "no problems found"),
        n => writeln!(out, "{}", counted(n, "problem"))?,
    }
    for problem in &found.problems {
        for (n, line) in wrap(problem, WIDTH - 4).into_iter().enumerate() {
            let indent = if n == 0 { "  " } else { "    " };
            writeln!(out, "{indent}{line}")?;
        }
    }
    Ok(())
}

fn what(found: &Inspection) -> String {
    match (found.kind, found.model_type.as_deref().unwrap_or_default()) {
        (Kind::ImageTower, _) => "an image tower".to_owned(),
        (Kind::TextTower, _) => "a text tower".to_owned(),
        (Kind::WholeModel, "vision-text-dual-encoder") => "a VisionTextDualEncoder".to_owned(),
        (Kind::WholeModel, other) => format!("a whole `{other}`"),
        (Kind::Run, _) => "a run".to_owned(),
        (Kind::Checkpoint, _) => "a checkpoint".to_owned(),
    }
}

fn print_run(out: &mut impl Write, run: &RunReport, found: &Inspection) -> io::Result<()> {
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    match (&run.checkpoint, run.step) {
        (Some(checkpoint), Some(step)) => {
            let total = run.total_steps.map_or(String::new(), |total| format!(" of {total}"));
            let epoch = run.epoch.map_or(String::new(), |epoch| format!(", epoch {epoch:.2}"));
            let seen = run.samples_seen.map_or(String::new(), |seen| format!(", {} pairs seen", HumanCount(seen)));
            print_row(out, "step", &format!("{step}{total}{epoch}{seen}"))?;
            if found.kind == Kind::Run {
                let steps: Vec<String> = run.valid_steps.iter().map(u64::to_string).collect();
                print_row(out, "checkpoint", &format!("{} is the newest valid one", name(checkpoint)))?;
                print_row(out, "  valid", &format!("steps {}", steps.join(", ")))?;
            }
        }
        _ => print_row(out, "checkpoint", "none that is valid")?,
    }
    if let Some(best) = &run.best {
        print_row(out, "  best", &format!("step {}, by {} {:.4}", best.step, best.metric, best.value))?;
    }
    if run.averaged {
        print_row(out, "  weights", "averaged over the updates (`train.ema_decay`), for all but training on")?;
    }
    match run.damaged.len() {
        0 => {}
        1 => print_row(out, "  damaged", "1 checkpoint, see below")?,
        n => print_row(out, "  damaged", &format!("{n} checkpoints, see below"))?,
    }
    if let Some(lock) = &run.lock {
        print_row(out, "lock", lock)?;
    }
    if let Some(teacher) = &run.teacher {
        print_row(out, "teacher", &format!("`{teacher}` (`train.teacher`)"))?;
    }
    if let Some(several @ 2..) = run.captions_per_pair {
        print_row(out, "captions", &format!("{several} of each image at once (`data.captions = \"slots\"`)"))?;
    }
    if run.checkpoint.is_some() {
        print_row(out, "trains", &format!("{} parameters", grouped(run.trainable)))?;
    }
    Ok(())
}

fn print_tower(out: &mut impl Write, name: &str, tower: &TowerReport, found: &Inspection) -> io::Result<()> {
    print_row(out, name, &format!("{}, {} parameters", tower.family, grouped(tower.parameters)))?;
    if found.run.is_some() {
        print_row(out, "  from", &tower.dir.display().to_string())?;
    }
    print_row(out, "  shape", &describe_shape(tower))?;
    print_row(out, "  takes", &describe_input(tower))?;
    let asked = if tower.pooling.contains("asks for it") { "" } else { "auto takes " };
    print_row(out, "  pooling", &format!("{asked}{}", tower.pooling))?;
    print_row(
        out,
        "  tensors",
        &format!("{} found{}", tower.tensors, if all_fit(tower) { ", none missing or left over" } else { "" }),
    )?;
    for (label, names) in
        [("  missing", &tower.missing), ("  misshapen", &tower.mismatched), ("  left over", &tower.unused)]
    {
        print_list(out, label, names)?;
    }
    for note in &tower.notes {
        print_row(out, "  note", note)?;
    }
    print_row(out, "  lock", &verdict("can be locked as it is", "cannot be locked as it is", &tower.lock_refused))?;
    print_row(out, "  export", &verdict("as VisionTextDualEncoder", "not possible", &tower.export_refused))
}

fn all_fit(tower: &TowerReport) -> bool {
    tower.tensors > 0 && tower.missing.is_empty() && tower.mismatched.is_empty() && tower.unused.is_empty()
}

fn verdict(good: &str, bad: &str, refused: &Option<String>) -> String {
    match refused {
        None => good.to_owned(),
        Some(reason) => format!("{bad}\n{reason}"),
    }
}

fn describe_shape(tower: &TowerReport) -> String {
    let numbers = |numbers: &[usize]| numbers.iter().map(usize::to_string).collect::<Vec<_>>().join(", ");
    match (tower.widths.as_slice(), tower.depths.as_slice(), tower.heads.as_slice()) {
        ([width], [depth], [heads]) => {
            format!("{depth} block{} of width {width} with {heads} heads", if *depth == 1 { "" } else { "s" })
        }
        (widths, depths, heads) => {
            let heads = if heads.is_empty() { String::new() } else { format!(" with {} heads", numbers(heads)) };
            format!("stages of {} blocks of width {}{heads}", numbers(depths), numbers(widths))
        }
    }
}

fn describe_input(tower: &TowerReport) -> String {
    let mut words = Vec::new();
    words.extend(tower.image_size.map(|side| format!("images of {side}x{side} px")));
    words.extend(tower.patch_size.map(|side| format!("in patches of {side}x{side} px")));
    words.extend(tower.max_tokens.map(|tokens| format!("{tokens} tokens at most,")));
    words.extend(tower.pad_to.map(|tokens| format!("padded to {tokens},")));
    words.extend(tower.vocab_size.map(|rows| format!("of {} words", grouped(rows))));
    if words.is_empty() { "images of any size".to_owned() } else { words.join(" ") }
}

fn print_head(out: &mut impl Write, head: &HeadReport) -> io::Result<()> {
    let describe = |name: &str, projection: Option<[usize; 2]>, head: &Option<String>| match (projection, head) {
        (Some([width, dim]), Some(kind)) if kind != "linear" => format!("{name} {width} to {dim} ({kind})"),
        (Some([width, dim]), _) => format!("{name} {width} to {dim}"),
        (None, Some(kind)) if kind != "linear" => format!("{name} {kind}"),
        (None, _) => format!("{name} none"),
    };
    let projections = match (head.image_projection, head.text_projection) {
        (None, None) if head.image_head.is_none() && head.text_head.is_none() => {
            "none: the towers' outputs are compared as they are".to_owned()
        }
        (image, text) => {
            format!("{}, {}", describe("image", image, &head.image_head), describe("text", text, &head.text_head))
        }
    };
    print_row(out, "projections", &projections)?;
    if let (Some(scale), Some(temperature)) = (head.logit_scale, head.temperature) {
        print_row(
            out,
            "logit_scale",
            &format!("{scale:.4}, a factor of {:.2} on cosines (temperature {temperature:.4})", scale.exp()),
        )?;
    }
    if let Some(bias) = head.logit_bias {
        print_row(out, "logit_bias", &format!("{bias:.4}"))?;
    }
    print_list(out, "left over", &head.unused)
}

fn describe_file(file: &WeightsReport) -> String {
    let dtypes: Vec<String> = file.dtypes.iter().map(|(dtype, count)| format!("{count} {dtype}")).collect();
    let noun = if file.dtypes.values().sum::<usize>() == 1 { "tensor" } else { "tensors" };
    format!("{}, {}: {} {noun}", file.file, bytes(file.bytes), dtypes.join(", "))
}

/// One name per line, at most [`MAX_LISTED`], and the number of the others.
fn print_list(out: &mut impl Write, label: &str, names: &[String]) -> io::Result<()> {
    for (n, name) in names.iter().take(MAX_LISTED).enumerate() {
        print_row(out, if n == 0 { label } else { "" }, name)?;
    }
    match names.len().saturating_sub(MAX_LISTED) {
        0 => Ok(()),
        more => print_row(out, "", &format!("... and {more} more")),
    }
}

fn print_row(out: &mut impl Write, label: &str, text: &str) -> io::Result<()> {
    for (n, line) in wrap(text, WIDTH - LABEL_WIDTH).into_iter().enumerate() {
        let label = if n == 0 { label } else { "" };
        writeln!(out, "{label:LABEL_WIDTH$}{line}")?;
    }
    Ok(())
}

/// Wraps each line of `text` between words, so that paths and parameter names stay whole.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let options = textwrap::Options::new(width)
        .break_words(false)
        .word_separator(WordSeparator::AsciiSpace)
        .word_splitter(WordSplitter::NoHyphenation)
        .wrap_algorithm(WrapAlgorithm::FirstFit);
    text.lines().flat_map(|line| textwrap::wrap(line, &options)).map(|line| line.into_owned()).collect()
}

/// `1234567` as `1,234,567`.
fn grouped(number: usize) -> HumanCount {
    HumanCount(number as u64)
}

/// A number of bytes in decimal units, with one decimal: the form that scripts may read already.
fn bytes(count: u64) -> String {
    let units = [(1_000_000_000, "GB"), (1_000_000, "MB"), (1_000, "kB")];
    match units.iter().find(|(size, _)| count >= *size) {
        Some((size, unit)) => format!("{:.1} {unit}", count as f64 / *size as f64),
        None => format!("{count} bytes"),
    }
}
