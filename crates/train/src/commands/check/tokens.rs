//! Lengths of the training captions in tokens, and how many are cut.

use dualenc_data::{Dataset, SameTokens, Tokenizer};
use rayon::prelude::*;

use crate::commands::check::captions::shown;
use crate::commands::check::findings::{Finding, Findings, percent};
use crate::commands::check::models::TokenSource;
use crate::config::RunConfig;
use crate::training::health::{MANY_SAME, same_tokens_message};

/// Length to which nothing is cut: far above that of any text tower.
const NO_LIMIT: usize = 1 << 20;

/// Share of captions that may be cut without a warning, and that a suggested limit cuts at most.
const TOLERATED: f64 = 0.01;

/// Reports how long the texts of the first epoch are.
pub(crate) fn report_tokens(config: &RunConfig, text: &TokenSource, dataset: &Dataset, findings: &mut Findings) {
    let key = "data.max_tokens";
    let tokenizer = Tokenizer::from_dir(&text.dir, NO_LIMIT);
    let tokenizer = match tokenizer.and_then(|tokenizer| tokenizer.with_prompt(&text.prompt)) {
        Ok(tokenizer) => tokenizer,
        // The text tower is reported with it.
        Err(_) => return,
    };
    let positions = text.positions;
    let limit = positions.map_or(config.data.max_tokens, |positions| positions.min(config.data.max_tokens));
    let length = |caption: usize| {
        let text = dataset.text(caption, config.run.seed, 0);
        let encoded = tokenizer.encode(&text).map_err(|error| {
            format!("{}: `{}`: {error}", dataset.image(dataset.caption(caption).image).key(), shown(&text))
        })?;
        let mut hasher = blake3::Hasher::new();
        encoded.ids.iter().take(limit).for_each(|id| _ = hasher.update(&id.to_le_bytes()));
        Ok((encoded.ids.len(), *hasher.finalize().as_bytes()))
    };
    let found: Vec<Result<(usize, [u8; 32]), String>> =
        (0..dataset.num_captions()).into_par_iter().map(length).collect();
    if !dataset.has_templates() {
        let tokens = found.iter().enumerate().filter_map(|(caption, found)| Some((caption, found.as_ref().ok()?.1)));
        let texts = tokens.map(|(caption, tokens)| (caption, dataset.caption(caption).text, tokens));
        if let Some(same) = SameTokens::among(texts) {
            let message = same_tokens_message(same, dataset);
            let finding = match same.share() >= MANY_SAME {
                true => findings.warn("same_tokens", "data.train", message),
                false => findings.fact("same_tokens", "data.train", message),
            };
            finding.value("same", same.same).value("distinct", same.texts);
        }
    }
    let mut failed = Vec::new();
    let mut known: Vec<usize> = Vec::with_capacity(found.len());
    for found in found {
        match found {
            Ok((length, _)) => known.push(length),
            Err(error) => failed.push(error),
        }
    }
    if !failed.is_empty() {
        let (count, total) = (failed.len(), dataset.num_captions());
        let message = format!("{count} of {total} captions cannot be tokenised, which ends a run:");
        findings.problem("captions_not_tokenised", "data.train", message).value("count", count).items(failed);
    }
    known.sort_unstable();
    let at = |share: f64| known[(share * (known.len() - 1) as f64).round() as usize];
    let (Some(&least), Some(&most)) = (known.first(), known.last()) else { return };
    let (median, p95) = (at(0.5), at(0.95));
    let cut_above = |limit: usize| known.len() - known.partition_point(|&length| length <= limit);
    let (cut, total) = (cut_above(limit), known.len());
    let message = format!(
        "captions in tokens: {least} to {most}, median {median}, 95 % have at most {p95}; {cut} of {total} ({}) are \
         cut at {limit}",
        percent(cut, total)
    );
    let record = |finding: &mut Finding| {
        finding.value("min", least).value("median", median).value("p95", p95).value("max", most);
        finding.value("limit", limit).value("cut", cut).value("captions", total);
    };
    if cut as f64 <= TOLERATED * total as f64 {
        record(findings.fact("tokens", key, message));
        return;
    }
    let wanted = at(1.0 - TOLERATED);
    let advice = match positions {
        Some(positions) if limit >= positions => {
            format!("{positions} is the text tower's maximum: shorten the captions, or take another text tower")
        }
        positions => {
            let suggested = positions.map_or(wanted, |positions| positions.min(wanted));
            let left = percent(cut_above(suggested), total);
            format!("with `data.max_tokens = {suggested}`, {left} are cut")
        }
    };
    record(findings.warn("tokens_cut", key, format!("{message}; {advice}")));
}
