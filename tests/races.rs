//! Many processes that start at once on one run directory, or fill one cache.

use std::fs;
use std::process::{Child, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::soak::{figure, log_lines, outcome, scaled, send_signal, wait_while_running, whole_checkpoints};
use crate::support::{Session, goldens, stderr};

fn spawn(session: &Session, arguments: &[&str]) -> Child {
    session.command(arguments).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
}

#[test]
fn one_of_twenty_processes_wins() {
    const PROCESSES: usize = 20;
    let session = Session::new();
    session.write_config("[checkpoint]\nevery_steps = 7\nkeep = 2\n");
    let rounds = scaled(2);
    for round in 0..rounds {
        let name = format!("run-{round}");
        let run = format!("run.dir={name}");
        // Half of the rounds start a run, half resume one.
        let resume: &[&str] = if round % 2 == 0 { &[] } else { &["--resume"] };
        let long = [&["train", "--config", "lit.toml", "--set", &run, "--set", "train.epochs=100000"], resume].concat();
        if round % 2 == 1 {
            let mut first = spawn(&session, &long);
            wait_while_running(&mut first, || log_lines(&session.path(&name)) > 10);
            first.kill().unwrap();
            first.wait().unwrap();
        }
        let mut running: Vec<Child> = (0..PROCESSES).map(|_| spawn(&session, &long)).collect();
        let mut refused = Vec::new();
        let deadline = Instant::now() + Duration::from_secs(120);
        while running.len() > 1 {
            assert!(Instant::now() < deadline, "{} processes still run", running.len());
            let (ended, still): (Vec<_>, Vec<_>) = running
                .into_iter()
                .map(|mut child| (child.try_wait().unwrap().is_some(), child))
                .partition(|(ended, _)| *ended);
            refused.extend(ended.into_iter().map(|(_, child)| child.wait_with_output().unwrap()));
            running = still.into_iter().map(|(_, child)| child).collect();
            sleep(Duration::from_millis(2));
        }
        assert_eq!((running.len(), refused.len()), (1, PROCESSES - 1));
        for output in &refused {
            let text = stderr(output);
            assert_eq!(output.status.code(), Some(2), "{text}");
            assert!(text.contains("is in use by another process"), "{text}");
        }
        let mut winner = running.pop().unwrap();
        let lines = log_lines(&session.path(&name));
        assert!(wait_while_running(&mut winner, || log_lines(&session.path(&name)) > lines + 3), "the winner ended");
        send_signal(&winner, "INT");
        let output = winner.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(130), "{}", stderr(&output));
        // Each step once, and its last one saved.
        let saved = whole_checkpoints(&session.path(&name)).last().copied().unwrap();
        outcome(&session, &name, saved);
    }
    figure("one_of_twenty_processes_wins", &format!("{rounds} races of {PROCESSES} processes: 1 winner each"));
}

#[test]
fn eight_processes_fill_one_cache() {
    const PROCESSES: usize = 8;
    let session = Session::new();
    session.write_config("[eval.pairs]\ntask = \"retrieval\"\ndata = \"data.csv\"\n");
    session.copy("train/images", "images");
    session.write("data.csv", fs::read(goldens("train/train.csv")).unwrap());
    let always = ["--config", "lit.toml", "--set", "data.train.csv.path=data.csv", "--set", "model.lock=LL"];
    let train = |sets: [&str; 2]| {
        let sets = sets.map(|set| ["--set", set]).concat();
        session.succeed(&[&["train", "--resume"], always.as_slice(), &sets].concat());
    };
    train(["run.dir=off", "cache.enabled=false"]);
    let off = outcome(&session, "off", 12);
    let rounds = scaled(3);
    let mut sizes = std::collections::BTreeSet::new();
    for round in 0..rounds {
        let (dir, run) = (format!("cache.dir=cache-{round}"), format!("run.dir=run-{round}"));
        let fill = [&["cache"], always.as_slice(), &["--set", &dir]].concat();
        let processes: Vec<Child> = (0..PROCESSES).map(|_| spawn(&session, &fill)).collect();
        for process in processes {
            let output = process.wait_with_output().unwrap();
            assert!(output.status.success(), "{}", stderr(&output));
        }
        let files = fs::read_dir(session.path(&format!("cache-{round}"))).unwrap();
        let mut found: Vec<u64> = files.map(|file| file.unwrap().metadata().unwrap().len()).collect();
        found.sort_unstable();
        assert_eq!(found.len(), 4, "{found:?}");
        // No row is there twice.
        sizes.insert(found);
        train([&run, &dir]);
        outcome(&session, &format!("run-{round}"), 12).assert_same(&off, &dir);
    }
    assert_eq!(sizes.len(), 1, "{sizes:?}");
    figure("eight_processes_fill_one_cache", &format!("{rounds} caches, {PROCESSES} processes each: bits equal"));
}
