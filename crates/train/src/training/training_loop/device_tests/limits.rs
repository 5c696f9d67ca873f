//! What a device does when its memory is full, and how many launches and transfers a training step takes.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use burn::tensor::Tensor;
use cubecl::logging::{LaunchObservation, LaunchObserver};
use dualenc_kernels::Transfers;
use dualenc_model::parameters;
use serde_json::Value;

use super::{DEVICE, alone};
use crate::config::RunConfig;
use crate::device::Compute;
use crate::device_panics::catch_device_failures;
use crate::error::TrainError;
use crate::events::{Event, Observer};
use crate::training::training_loop::{Start, StopFlag, train};

#[test]
fn full_memory_is_an_error_with_its_bytes() {
    let _alone = alone();
    let device = Compute::select(DEVICE, None).unwrap().device;
    // More than a buffer may have, within what 32 bits count.
    let result: Result<_, TrainError> = catch_device_failures(|| {
        let huge = Tensor::<2>::ones([1 << 15, 3 << 15], &device);
        Ok(parameters::host((huge.clone() * huge).sum())?)
    });
    let text = result.unwrap_err().to_string();
    eprintln!("a full device: {text}");
    assert!(
        text.starts_with("the device failed: it is out of memory: there is no room for 12884901888 bytes"),
        "{text}"
    );
}

/// Launches by kernel since the last step.
#[derive(Default)]
struct Launches {
    by_kernel: Mutex<BTreeMap<&'static str, u64>>,
    count: AtomicU64,
}

impl LaunchObserver for Launches {
    fn launched(&self, kernel: &'static str) {
        self.count.fetch_add(1, Ordering::Relaxed);
        *self.by_kernel.lock().unwrap().entry(kernel).or_default() += 1;
    }
}

/// What each step does, from the end of the one before.
struct CountSteps {
    launches: Arc<Launches>,
    transfers: Transfers,
    steps: Vec<(u64, Transfers)>,
    by_kernel: BTreeMap<&'static str, u64>,
}

impl Observer for CountSteps {
    fn on(&mut self, event: Event<'_>) {
        if let Event::Step(_) = event {
            let now = Transfers::so_far();
            let launches = self.launches.count.swap(0, Ordering::Relaxed);
            self.steps.push((launches, now.since(self.transfers)));
            let by_kernel = std::mem::take(&mut *self.launches.by_kernel.lock().unwrap());
            if launches > 0 {
                self.by_kernel = by_kernel;
            }
            self.transfers = now;
        }
    }
}

const PAIRS: usize = 256;

/// A training step of a text tower of 6 blocks, from cached features of a locked image tower, 256 pairs a step, with
/// dropout, clipping and AdamW: the step of docs/GPU.md, with narrow layers. The limits are what was counted when they
/// were set, so that a step that does more shows.
#[test]
fn step_launches_few_kernels() {
    let _alone = alone();
    let (most_launches, most_bytes) = (397, 200_000);
    let dir = tempfile::tempdir().unwrap();
    write_pairs(dir.path(), PAIRS);
    let goldens = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/goldens/train");
    let text = dir.path().join("text");
    std::fs::create_dir(&text).unwrap();
    for file in ["tokenizer.json", "tokenizer_config.json"] {
        std::fs::copy(goldens.join("bert").join(file), text.join(file)).unwrap();
    }
    let bert = std::fs::read_to_string(goldens.join("bert/config.json")).unwrap();
    let mut bert: Value = serde_json::from_str(&bert).unwrap();
    for (key, value) in [
        ("num_hidden_layers", 6.into()),
        ("hidden_size", 64.into()),
        ("num_attention_heads", 2.into()),
        ("intermediate_size", 128.into()),
        ("hidden_dropout_prob", 0.1.into()),
        ("attention_probs_dropout_prob", 0.1.into()),
    ] {
        bert[key] = value;
    }
    std::fs::write(text.join("config.json"), bert.to_string()).unwrap();
    let config = format!(
        "[run]\ndir = {:?}\ndevice = {DEVICE:?}\n[model]\nimage_tower = {:?}\ntext_tower = {:?}\nembed_dim = 64\n\
         lock = \"Lu\"\n[data]\nshuffle = false\n[data.train.csv]\npath = {:?}\n\
         [train]\nsteps = 5\nbatch_size = {PAIRS}\nlearning_rate = 1e-3\nweight_decay = 0.1\nclip_grad_norm = 1.0\n",
        dir.path().join("run"),
        goldens.join("vit"),
        text,
        dir.path().join("pairs.csv"),
    );
    let path = dir.path().join("run.toml");
    std::fs::write(&path, config).unwrap();
    let launches = Arc::new(Launches::default());
    let mut counts = CountSteps {
        launches: Arc::clone(&launches),
        transfers: Transfers::so_far(),
        steps: Vec::new(),
        by_kernel: BTreeMap::new(),
    };
    let watching = LaunchObservation::new(launches);
    train(&RunConfig::load(&path, &[]).unwrap(), Start::New, &StopFlag::default(), &mut counts).unwrap();
    drop(watching);
    let mut by_kernel: Vec<_> = counts.by_kernel.iter().collect();
    by_kernel.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    let table = by_kernel.iter().fold(String::new(), |mut table, (kernel, count)| {
        writeln!(table, "{count:5} {kernel}").unwrap();
        table
    });
    // The last step is queued before the previous one is finished, so that nothing happens between both.
    let mut steady = counts.steps.split_off(3);
    assert_eq!(steady.pop(), Some((0, Transfers::default())));
    eprintln!("a step of {PAIRS} pairs, 6 blocks: {steady:?}\n{table}");
    for (launches, Transfers { uploads: _, uploaded_bytes, reads }) in steady {
        assert!(launches > 100 && launches <= most_launches, "{launches} launches, at most {most_launches}:\n{table}");
        assert_eq!(reads, 1, "reads");
        assert!(uploaded_bytes <= most_bytes, "{uploaded_bytes} bytes are uploaded, at most {most_bytes}");
    }
}

/// `pairs.csv`, with images of their own and captions of 8 to 24 letters, which are a token each.
fn write_pairs(dir: &Path, count: usize) {
    let mut table = String::from("image,caption\n");
    for n in 0..count {
        let side = 32u32;
        let mut file = b"BM".to_vec();
        let pixels = side * side * 3;
        for value in [54 + pixels, 0, 54, 40, side, side, 1 | 24 << 16, 0, pixels, 0, 0, 0, 0] {
            file.extend(value.to_le_bytes());
        }
        file.extend((0..pixels).map(|at| (at as usize * (n + 3) / 7 + n) as u8));
        std::fs::write(dir.join(format!("{n}.bmp")), file).unwrap();
        let letters = (0..8 + n % 17).map(|at| char::from(b'a' + ((at * 7 + n * (at + 3) + n / 26) % 26) as u8));
        let caption = letters.map(String::from).collect::<Vec<_>>().join(" ");
        writeln!(table, "{n}.bmp,{caption}").unwrap();
    }
    std::fs::write(dir.join("pairs.csv"), table).unwrap();
}
