//! What a directory holds, as an aligned report for a person.

use std::io::{self, Write};

use dualenc_train::{HeadReport, Inspection, Kind, RunReport, TowerReport, WeightsReport};

/// Names that are listed of each kind.
const MOST_LISTED: usize = 8;

/// Columns before the text.
const LABEL: usize = 14;

/// Columns in all; a word that is longer stands over.
const WIDTH: usize = 110;

/// Prints the report.
pub fn print(out: &mut impl Write, found: &Inspection) -> io::Result<()> {
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
        row(out, "weights", &describe_file(file))?;
    }
    for (name, text) in [("images", &found.image_processing), ("tokenizer", &found.tokenizer)] {
        if let Some(text) = text {
            row(out, name, text)?;
        }
    }
    writeln!(out)?;
    match found.problems.len() {
        0 => return writeln!(out, "no problems found"),
        1 => writeln!(out, "1 problem")?,
        n => writeln!(out, "{n} problems")?,
    }
    let mut lines = found.problems.iter().flat_map(|problem| {
        let indented = |(at, line)| if at == 0 { line } else { format!("  {line}") };
        wrapped(problem, 4).enumerate().map(indented)
    });
    lines.try_for_each(|line| writeln!(out, "  {line}"))
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
    let name = |path: &std::path::Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    match (&run.checkpoint, run.step) {
        (Some(checkpoint), Some(step)) => {
            let total = run.total_steps.map_or(String::new(), |total| format!(" of {total}"));
            let epoch = run.epoch.map_or(String::new(), |epoch| format!(", epoch {epoch:.2}"));
            let seen = run.samples_seen.map_or(String::new(), |seen| format!(", {} pairs seen", grouped_u64(seen)));
            row(out, "step", &format!("{step}{total}{epoch}{seen}"))?;
            if found.kind == Kind::Run {
                let steps: Vec<String> = run.valid_steps.iter().map(u64::to_string).collect();
                row(out, "checkpoint", &format!("{} is the newest valid one", name(checkpoint)))?;
                row(out, "  valid", &format!("steps {}", steps.join(", ")))?;
            }
        }
        _ => row(out, "checkpoint", "none that is valid")?,
    }
    if let Some(best) = &run.best {
        row(out, "  best", &format!("step {}, by {} {:.4}", best.step, best.metric, best.value))?;
    }
    if run.averaged {
        row(out, "  weights", "averaged over the updates (`train.ema_decay`), for all but training on")?;
    }
    match run.damaged.len() {
        0 => {}
        1 => row(out, "  damaged", "1 checkpoint, see below")?,
        n => row(out, "  damaged", &format!("{n} checkpoints, see below"))?,
    }
    if let Some(lock) = &run.lock {
        row(out, "lock", lock)?;
    }
    if run.checkpoint.is_some() {
        row(out, "trains", &format!("{} parameters", grouped(run.trainable)))?;
    }
    Ok(())
}

fn print_tower(out: &mut impl Write, name: &str, tower: &TowerReport, found: &Inspection) -> io::Result<()> {
    row(out, name, &format!("{}, {} parameters", tower.family, grouped(tower.parameters)))?;
    if found.run.is_some() {
        row(out, "  from", &tower.dir.display().to_string())?;
    }
    row(out, "  shape", &describe_shape(tower))?;
    row(out, "  takes", &describe_input(tower))?;
    let asked = if tower.pooling.contains("asks for it") { "" } else { "auto takes " };
    row(out, "  pooling", &format!("{asked}{}", tower.pooling))?;
    row(
        out,
        "  tensors",
        &format!("{} found{}", tower.tensors, if all_fit(tower) { ", none missing or left over" } else { "" }),
    )?;
    for (label, names) in
        [("  missing", &tower.missing), ("  misshapen", &tower.mismatched), ("  left over", &tower.unused)]
    {
        list(out, label, names)?;
    }
    row(out, "  lock", &verdict("can be locked as it is", "cannot be locked as it is", &tower.lock_refused))?;
    row(out, "  export", &verdict("as VisionTextDualEncoder", "not possible", &tower.export_refused))
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
    match words.is_empty() {
        true => "images of any size".to_owned(),
        false => words.join(" "),
    }
}

fn print_head(out: &mut impl Write, head: &HeadReport) -> io::Result<()> {
    let describe = |name: &str, projection: Option<[usize; 2]>| match projection {
        Some([width, dim]) => format!("{name} {width} to {dim}"),
        None => format!("{name} none"),
    };
    let projections = match (head.image_projection, head.text_projection) {
        (None, None) => "none: the towers' outputs are compared as they are".to_owned(),
        (image, text) => format!("{}, {}", describe("image", image), describe("text", text)),
    };
    row(out, "projections", &projections)?;
    if let (Some(scale), Some(temperature)) = (head.logit_scale, head.temperature) {
        row(out, "logit_scale", &format!("{scale:.4}, a temperature of {temperature:.4}"))?;
    }
    if let Some(bias) = head.logit_bias {
        row(out, "logit_bias", &format!("{bias:.4}"))?;
    }
    list(out, "left over", &head.unused)
}

fn describe_file(file: &WeightsReport) -> String {
    let dtypes: Vec<String> = file.dtypes.iter().map(|(dtype, count)| format!("{count} {dtype}")).collect();
    format!("{}, {}: {} tensors", file.file, bytes(file.bytes), dtypes.join(", "))
}

/// Some names, one a line, and how many more there are.
fn list(out: &mut impl Write, label: &str, names: &[String]) -> io::Result<()> {
    for (at, name) in names.iter().take(MOST_LISTED).enumerate() {
        row(out, if at == 0 { label } else { "" }, name)?;
    }
    match names.len().saturating_sub(MOST_LISTED) {
        0 => Ok(()),
        more => row(out, "", &format!("... and {more} more")),
    }
}

fn row(out: &mut impl Write, label: &str, text: &str) -> io::Result<()> {
    wrapped(text, LABEL).enumerate().try_for_each(|(at, line)| {
        let label = if at == 0 { label } else { "" };
        writeln!(out, "{label:LABEL$}{line}")
    })
}

/// The lines of a text that starts `indent` columns from the left.
fn wrapped(text: &str, indent: usize) -> impl Iterator<Item = String> {
    let mut lines = Vec::new();
    for paragraph in text.lines() {
        let mut line = String::new();
        for word in paragraph.split(' ') {
            if !line.is_empty() && indent + line.chars().count() + 1 + word.chars().count() > WIDTH {
                lines.push(std::mem::take(&mut line));
            }
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
        lines.push(line);
    }
    lines.into_iter()
}

/// `1234567` as `1,234,567`.
fn grouped(number: usize) -> String {
    grouped_u64(number as u64)
}

fn grouped_u64(number: u64) -> String {
    let digits = number.to_string();
    let from_end = |at: usize| digits.len() - at;
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && from_end(at) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Bytes in the largest decimal unit that leaves a digit before the point.
fn bytes(count: u64) -> String {
    let units = [(1_000_000_000, "GB"), (1_000_000, "MB"), (1_000, "kB")];
    match units.iter().find(|(size, _)| count >= *size) {
        Some((size, unit)) => format!("{:.1} {unit}", count as f64 / *size as f64),
        None => format!("{count} bytes"),
    }
}
