//! Where a run is cut, what it reads, what it trains and how many workers load: every combination resumes to the bits
//! of the uninterrupted run.

use std::fs;

use crate::soak::{copy_run, figure, outcome, scaled};
use crate::support::{Session, goldens};

/// 24 pairs in batches of 5: four steps of an epoch when shuffled, five in the order of the file, the fifth of 4 pairs.
const BATCH: usize = 5;

/// Where a run is cut: its name, whether the pairs are shuffled, and the steps after which it resumes.
const CUTS: [(&str, bool, [u64; 2]); 4] = [
    ("epoch edge", true, [4, 8]),
    ("mid-epoch", true, [5, 10]),
    // Just before the smaller batch and just after it.
    ("last partial batch", false, [4, 10]),
    // Evaluations run after steps 3, 6 and 9; the cut is between one and the next step.
    ("after evaluation", true, [3, 9]),
];

/// A tar archive of regular files.
pub fn ustar(entries: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut tar = Vec::new();
    for (name, bytes) in entries {
        let mut header = [0u8; 512];
        let mut put = |at: usize, text: &str| header[at..at + text.len()].copy_from_slice(text.as_bytes());
        put(0, name);
        put(100, "0000644");
        put(108, "0000000");
        put(116, "0000000");
        put(124, &format!("{:011o}", bytes.len()));
        put(136, "00000000000");
        put(148, "        ");
        put(156, "0");
        put(257, "ustar\u{0}00");
        let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        tar.extend(header);
        tar.extend(bytes);
        tar.resize(tar.len().next_multiple_of(512), 0);
    }
    tar.resize(tar.len() + 1024, 0);
    tar
}

/// The golden pairs as csv, jsonl and two tar shards, with evaluations every third step.
fn session() -> Session {
    let session = Session::new();
    session.write_config(
        "ema_decay = 0.9\n[checkpoint]\nevery_steps = 1\nkeep = 100\n\
         [eval.pairs]\ntask = \"retrieval\"\ndata = \"data.csv\"\nevery_steps = 3\n",
    );
    session.copy("train/images", "images");
    let csv = fs::read_to_string(goldens("train/train.csv")).unwrap();
    session.write("data.csv", &csv);
    let rows: Vec<(&str, &str)> =
        csv.lines().skip(1).map(|row| row.split_once(',').unwrap()).map(|(i, c)| (i, c.trim_matches('"'))).collect();
    assert_eq!(rows.len(), 24);
    let line = |(image, caption): &(&str, &str)| serde_json::json!({"image": image, "caption": caption}).to_string();
    session.write("data.jsonl", rows.iter().map(line).collect::<Vec<_>>().join("\n"));
    for (shard, rows) in rows.chunks(12).enumerate() {
        let entries = rows.iter().enumerate().flat_map(|(at, (image, caption))| {
            let key = format!("{:03}", shard * 12 + at);
            let bytes = fs::read(session.path(image)).unwrap();
            [(format!("{key}.png"), bytes), (format!("{key}.txt"), caption.as_bytes().to_vec())]
        });
        session.write(&format!("shards/{shard:02}.tar"), ustar(&entries.collect::<Vec<_>>()));
    }
    session
}

fn train(session: &Session, sets: &[String]) {
    let mut arguments = vec!["train".to_owned(), "--config".to_owned(), "lit.toml".to_owned(), "--resume".to_owned()];
    arguments.extend(sets.iter().flat_map(|set| ["--set".to_owned(), set.clone()]));
    session.succeed(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
}

#[test]
fn forty_eight_resumes_are_exact() {
    let session = session();
    let (mut combinations, mut resumes) = (0, 0);
    let sources = [
        ("csv", ["data.train.csv.path=data.csv"].as_slice()),
        ("jsonl", &["data.train.csv=", "data.train.jsonl.path=data.jsonl"]),
        ("tar", &["data.train.csv=", "data.train.webdataset.path=shards"]),
    ];
    for (source, source_sets) in sources {
        // Unlocked with dropout; locked with features from a cache.
        for lock in ["UU", "LU"] {
            for shuffle in [true, false] {
                let steps = if shuffle { 12 } else { 15 };
                let sets = |run: &str, workers: u64| {
                    let mut sets: Vec<String> = source_sets.iter().map(|&set| set.to_owned()).collect();
                    sets.extend([
                        format!("run.dir={run}"),
                        format!("model.lock={lock}"),
                        format!("data.shuffle={shuffle}"),
                        format!("data.workers={workers}"),
                        format!("train.batch_size={BATCH}"),
                        "train.epochs=3".to_owned(),
                        "model.text_dropout=0.2".to_owned(),
                        format!("cache.dir=cache-{source}"),
                    ]);
                    sets
                };
                let whole = format!("{source}-{lock}-{shuffle}");
                train(&session, &sets(&whole, 2));
                let expected = outcome(&session, &whole, steps);
                assert!(expected.metrics.iter().filter(|line| line["kind"] == "eval").count() >= 4);
                for (cut, _, places) in CUTS.iter().filter(|(_, shuffled, _)| *shuffled == shuffle) {
                    for workers in [1, 4] {
                        combinations += 1;
                        // One of the places on each push, both in the soak.
                        for step in places.iter().cycle().skip(combinations % 2).take(scaled(1).min(2) as usize) {
                            let run = format!("{whole}-{step}-{workers}");
                            copy_run(&session.path(&whole), &session.path(&run), *step, 100);
                            train(&session, &sets(&run, workers));
                            let what = format!("{cut}, {source}, {lock}, {workers} workers, after step {step}");
                            outcome(&session, &run, steps).assert_same(&expected, &what);
                            resumes += 1;
                        }
                    }
                }
            }
        }
    }
    assert_eq!(combinations, 48);
    figure("forty_eight_resumes_are_exact", &format!("{combinations} combinations, {resumes} resumes, 0 differing"));
}
