//! Times searches in a file: `cargo bench -p dualenc-search -- FILE QUERIES TOP ROUNDS`, where QUERIES is a numpy
//! array of `f32`. Prints a JSON object. `scripts/bench_search.py` runs it.
#![allow(clippy::print_stdout, reason = "its output")]

use std::error::Error;
use std::path::Path;
use std::time::Instant;

use dualenc_search::{Index, Part};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let [file, queries, top, rounds] = arguments.as_slice() else {
        // `cargo test --benches` gives no arguments.
        return Ok(());
    };
    let (top, rounds): (usize, usize) = (top.parse()?, rounds.parse()?);
    let start = Instant::now();
    let index = Index::open(Path::new(file), Part::Any)?;
    let open = start.elapsed().as_secs_f64();
    let bytes = std::fs::read(queries)?;
    let values = bytes.len() / size_of::<f32>() / index.dim() * index.dim();
    let (queries, _) = bytes[bytes.len() - values * size_of::<f32>()..].as_chunks();
    let queries: Vec<f32> = queries.iter().map(|&value| f32::from_le_bytes(value)).collect();
    let time = |queries: &[f32]| -> Result<Vec<f64>, Box<dyn Error>> {
        let round = |_| {
            let start = Instant::now();
            index.nearest(queries, index.dim(), top)?;
            Ok(start.elapsed().as_secs_f64())
        };
        (0..rounds).map(round).collect()
    };
    let (one, all) = (time(&queries[..index.dim()])?, time(&queries)?);
    let rows: Vec<Vec<usize>> = index
        .nearest(&queries, index.dim(), top)?
        .iter()
        .map(|found| found.iter().map(|neighbour| neighbour.row).collect())
        .collect();
    let threads = rayon::current_num_threads();
    println!("{}", serde_json::json!({ "open": open, "one": one, "all": all, "rows": rows, "threads": threads }));
    Ok(())
}
