//! Robustness against arbitrary input. `DUALENC_SOAK` multiplies the mutations, `DUALENC_SEED` draws others.

use std::path::Path;

use super::{BASE, FULL};
use crate::config::RunConfig;

/// Number `n` of the sequence of `seed` (SplitMix64, Steele et al., 2014).
fn number(seed: u64, n: u64) -> u64 {
    let mut mixed = seed.wrapping_add(n.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

fn from_env(name: &str) -> u64 {
    std::env::var(name).map_or(1, |value| value.parse().unwrap())
}

/// Mutated files and `--set` arguments neither panic nor hang, and each problem has a place in its text.
#[test]
#[expect(clippy::print_stdout, reason = "a figure of the fault table")]
fn mutations_do_not_panic() {
    const PARTS: [&str; 24] = [
        "[",
        "]",
        "[[",
        "]]",
        "=",
        "\"",
        "'",
        "\n",
        ".",
        "{",
        "}",
        ",",
        "#",
        "\\u12",
        "é",
        "\u{feff}",
        "-1",
        "1e999",
        "nan",
        "true",
        "[train]\n",
        "eval.x.task = 1\n",
        "[data.train.csv]\n",
        "[data.train.coco]\n",
    ];
    let (mut valid, mut reported, mut with_line) = (0, 0, 0);
    let (count, first) = (5_000 * from_env("DUALENC_SOAK"), from_env("DUALENC_SEED").saturating_sub(1) << 32);
    for round in first..first + count {
        let mut draws = (0..).map(|n| number(round, n) as usize);
        let mut draw = |below: usize| draws.next().unwrap_or(0) % below;
        let mut bytes = if round % 2 == 0 { BASE } else { FULL }.as_bytes().to_vec();
        for _ in 0..=draw(2) {
            let at = draw(bytes.len() + 1);
            let end = (at + draw(20)).min(bytes.len());
            match draw(5) {
                0 => drop(bytes.splice(at..end, [])),
                1 => drop(bytes.splice(at..at, PARTS[draw(PARTS.len())].bytes())),
                2 => drop(bytes.splice(at..end, PARTS[draw(PARTS.len())].bytes())),
                3 => bytes.insert(at, draw(256) as u8),
                _ => {
                    let copied = bytes[at..end].to_vec();
                    let to = draw(bytes.len() + 1);
                    drop(bytes.splice(to..to, copied));
                }
            }
        }
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let start = text.floor_char_boundary(draw(text.len() + 1));
        let overrides = [text[start..].chars().take(draw(30)).collect::<String>()];
        let overrides = if draw(4) == 0 { &overrides[..] } else { &[] };
        match RunConfig::from_bytes(&bytes, Path::new("run.toml"), Path::new("/project"), overrides) {
            Ok(config) => {
                valid += 1;
                assert!(!config.run.dir.as_os_str().is_empty() && config.train.batch_size >= 2);
                config.to_toml().unwrap();
            }
            Err(problems) => {
                reported += problems.len();
                assert!(!problems.is_empty());
                for problem in problems {
                    assert!(!problem.message.is_empty());
                    let place = problem.place.to_string();
                    match &problem.place.span {
                        // A missing table has no line: the file is named.
                        None => {
                            assert!(place == "run.toml" || place.starts_with("--set "), "{place}: {}", problem.message)
                        }
                        Some(span) => {
                            assert!(problem.place.text.get(span.clone()).is_some(), "{span:?}");
                            let lines = problem.place.text.lines().count().max(1);
                            assert!((1..=lines + 1).contains(&problem.place.line), "{place} of {lines} lines");
                            assert!(problem.place.is_argument() || place.starts_with("run.toml:"), "{place}");
                            with_line += 1;
                        }
                    }
                }
            }
        }
    }
    // Both outcomes must be frequent for the test to be meaningful.
    assert!(valid > 100 && reported > 3_000, "{valid} valid, {reported} problems");
    println!(
        "figure: mutations_do_not_panic: {count} configs, {valid} valid, {reported} problems, {with_line} with a line \
         (seed {})",
        (first >> 32) + 1
    );
}
