//! `dualenc report` and `compare`: pages about runs in any state, which are only read.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::Path;

use crate::support::{Session, goldens, stderr};

/// The largest page.
const MOST_BYTES: usize = 5_000_000;

/// A session with a finished run in `run`, with two evaluations.
fn trained() -> Session {
    let session = Session::new();
    session.write_config(&format!(
        "[eval.loss]\ntask = \"loss\"\ndata = \"held.csv\"\npool_size = 8\n\
         [eval.pairs]\ntask = \"retrieval\"\ndata = {data:?}\nat_start = true\nevery_epochs = 2\n\
         [eval.shapes]\ntask = \"zero-shot\"\nimages = \"classes\"\nat_start = true\n",
        data = goldens("train/train.csv"),
    ));
    // With a locked tower, features are cached in the run.
    let config = fs::read_to_string(session.path("lit.toml")).unwrap().replace("\"UU\"", "\"LU\"");
    session.write("lit.toml", config);
    let table = fs::read_to_string(goldens("train/train.csv")).unwrap();
    session.write("held.csv", table.replace("images/", &format!("{}/", goldens("train/images").display())));
    for (number, class) in ["circle", "square", "stripes"].into_iter().enumerate() {
        for image in 0..2 {
            let name = format!("{:02}.png", 2 * number + image);
            let bytes = fs::read(goldens("train/images").join(&name)).unwrap();
            session.write(&format!("classes/{class}/{name}"), bytes);
        }
    }
    session.succeed(&["train", "--config", "lit.toml"]);
    session
}

/// Every file below `dir` with its content, except the report.
fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.file_name().unwrap() != "report.html" {
            found.insert(path.display().to_string(), fs::read(&path).unwrap());
        }
    }
    found
}

fn page(session: &Session, name: &str) -> String {
    let page = fs::read_to_string(session.path(name)).unwrap();
    assert!(page.starts_with("<!DOCTYPE html>") && page.len() < MOST_BYTES, "{} bytes", page.len());
    page
}

#[track_caller]
fn assert_has(page: &str, parts: &[&str]) {
    for part in parts {
        assert!(page.contains(part), "`{part}` is missing");
    }
}

/// The text of the section with this id.
fn section<'a>(page: &'a str, id: &str) -> &'a str {
    let start = page.find(&format!("id=\"{id}\"")).unwrap_or_else(|| panic!("no section `{id}`"));
    let end = page[start..].find("</section>").unwrap();
    &page[start..start + end]
}

#[test]
fn finished_run_has_every_part() {
    let session = trained();
    let before = files(&session.path("run"));
    let out = session.succeed(&["report", "run"]);
    assert!(out.starts_with("wrote run/report.html (") && out.contains("kB)"), "{out}");
    assert_eq!(files(&session.path("run")), before, "the run was changed");
    let page = page(&session, "run/report.html");
    assert_has(&page, &["finished", "step 12 of 12", "above step 0", "id=\"throughput\"", "id=\"waiting\""]);
    assert_has(
        section(&page, "eval-1"),
        &["Answers at step 12", "Text to image", "Image to text", "data:image/jpeg;base64,"],
    );
    assert_has(section(&page, "eval-2"), &["circle", "square", "stripes"]);
    assert_has(
        section(&page, "embeddings"),
        &["Modality gap", "similarities", "embedding-map", "evaluation <code>pairs</code>"],
    );
    assert_has(
        section(&page, "pairs"),
        &["All 24 training pairs were scored by the model of step 12.", "data:image/jpeg;base64,"],
    );
    assert_has(section(&page, "data"), &["training images"]);
    assert_has(section(&page, "model"), &["image_tower", "text_projection", "logit_scale"]);
    assert_has(section(&page, "config"), &["train.batch_size", "learning_rate"]);

    // Neither what shows a result nor an evaluation that has one is left out silently.
    session.succeed(&["report", "run", "--no-model", "--out", "short.html"]);
    let short = self::page(&session, "short.html");
    for id in ["eval-1", "eval-2", "embeddings", "pairs", "data", "model"] {
        assert_has(section(&short, id), &["was left out by <code>--no-model</code>"]);
    }
    assert!(!section(&short, "eval-0").contains("--no-model"), "an evaluation of the loss has nothing to show");

    // A page without the model would replace a better one.
    let text = session.fail(2, &["report", "run", "--device", "abacus"]);
    assert!(text.contains("device `abacus` cannot be used"), "{text}");
    assert_eq!(fs::read_to_string(session.path("run/report.html")).unwrap(), page);

    // What an evaluation measures has changed since; the cache cannot be copied.
    let extra = fs::read(session.path("classes/circle/00.png")).unwrap();
    session.write("classes/circle/more.png", extra);
    fs::remove_file(session.path("held.csv")).unwrap();
    let output =
        session.command(&["report", "run", "--out", "changed.html"]).env("TMPDIR", "nowhere").output().unwrap();
    let text = stderr(&output);
    assert!(output.status.success() && text.contains("what evaluation `shapes` measures has changed"), "{text}");
    assert!(
        text.contains("is not copied, so features are computed") && !text.contains("the page is without"),
        "{text}"
    );
    let changed = self::page(&session, "changed.html");
    assert_has(section(&changed, "eval-2"), &["of its data as it is now", "circle"]);
    assert_has(section(&changed, "eval-1"), &["Text to image"]);

    // The log is cut in the middle of a line, as by a kill; data and checkpoints are gone.
    let log = fs::read(session.path("run/metrics.jsonl")).unwrap();
    fs::write(session.path("run/metrics.jsonl"), &log[..log.len() * 2 / 3]).unwrap();
    fs::remove_dir_all(session.path("classes")).unwrap();
    fs::remove_dir_all(session.path("run/checkpoints/step-12")).ok();
    let output = session.run(&["report", "run", "--out", "killed.html"]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stderr(&output).contains("the page is without `eval.shapes`"), "{}", stderr(&output));
    let killed = self::page(&session, "killed.html");
    assert_has(&killed, &["The last line of <code>metrics.jsonl</code> is incomplete"]);
    assert_has(section(&killed, "eval-2"), &["It could not be made"]);
    assert_has(section(&killed, "eval-1"), &["Text to image"]);
}

#[test]
fn run_with_only_a_config_is_reported() {
    let session = Session::new();
    session.write_config("");
    session.write("run/config.toml", fs::read(session.path("lit.toml")).unwrap());
    let output = session.run(&["report", "run"]);
    assert!(output.status.success() && stderr(&output).contains("has no checkpoint yet"), "{}", stderr(&output));
    let page = page(&session, "run/report.html");
    assert_has(&page, &["The run has no evaluation.", "step 0", "not started</span>"]);
    assert_has(section(&page, "model"), &["has no checkpoint yet"]);
    assert_has(section(&page, "pairs"), &["has no checkpoint yet"]);
    let error = session.fail(2, &["report", "nowhere"]);
    assert!(error.contains("`nowhere` does not exist"), "{error}");
    fs::create_dir(session.path("empty")).unwrap();
    assert!(session.fail(2, &["report", "empty"]).contains("is not a run"));
}

#[test]
fn running_run_is_reported_undisturbed() {
    let session = Session::new();
    session.write("run/config.toml", "");
    let log = "{\"kind\":\"train\",\"step\":1,\"epoch\":0.5,\"loss\":2.0}\n{\"kind\":\"tr";
    session.write("run/metrics.jsonl", log);
    let lock = File::create(session.path("run/run.lock")).unwrap();
    for (held, word) in [(true, "running"), (false, "killed")] {
        if held {
            lock.lock().unwrap();
        } else {
            lock.unlock().unwrap();
        }
        let before = files(&session.path("run"));
        let output = session.run(&["report", "run", "--no-model"]);
        assert!(output.status.success(), "{}", stderr(&output));
        assert!(stderr(&output).contains("`config.toml` of the run cannot be used"), "{}", stderr(&output));
        assert_eq!(files(&session.path("run")), before);
        let page = page(&session, "run/report.html");
        assert_has(&page, &[&format!("chip {word}"), "is incomplete and is left out"]);
    }
}

#[test]
fn comparison_shows_what_differs() {
    let session = Session::new();
    for (name, rate, acc) in [("first", "1e-3", 0.5), ("second", "2e-3", 0.75)] {
        session.write_config("");
        let config = fs::read_to_string(session.path("lit.toml")).unwrap().replace("1e-3", rate);
        session.write(&format!("{name}/config.toml"), config);
        let eval = |step: u64, acc: f64| {
            format!(
                "{{\"kind\":\"eval\",\"step\":{step},\"name\":\"v\",\"task\":\"zero-shot\",\"fingerprint\":\"a\",\
                 \"acc1\":{acc},\"acc1_ci95\":[{},{}]}}\n",
                acc - 0.01,
                acc + 0.01
            )
        };
        let train = "{\"kind\":\"train\",\"step\":1,\"epoch\":0.25,\"loss\":2.0}\n";
        session.write(&format!("{name}/metrics.jsonl"), eval(0, 0.1) + train + &eval(1, acc));
    }
    let out = session.succeed(&["compare", "first", "second", "--out", "both.html"]);
    assert!(out.starts_with("wrote both.html ("), "{out}");
    let page = page(&session, "both.html");
    assert_has(section(&page, "figures"), &["first", "second", "50.0", "75.0", "\u{2605} best", "step 1 of 16"]);
    let differing = section(&page, "config");
    assert_has(differing, &["train.learning_rate", "0.001", "0.002"]);
    assert!(!differing.contains("train.batch_size"), "{differing}");
    assert!(session.fail(2, &["compare", "first"]).contains("2 values"));
    assert!(session.fail(2, &["compare", "first", "./first"]).contains("is named twice"));
}

#[test]
fn search_writes_a_page_of_thumbnails() {
    let session = Session::new();
    session.copy("train/images", "images");
    let model = goldens("train/init").to_str().unwrap().to_owned();
    session.succeed(&["embed", "--model", &model, "--images", "images", "--out", "e.safetensors"]);
    fs::remove_file(session.path("images/03.png")).unwrap();
    let arguments = ["search", "--model", &model, "--index", "e.safetensors", "--top", "24", "a <b>circle"];
    let output = session.run(&[&arguments[..], &["--html", "found.html", "--json", "-"]].concat());
    assert!(output.status.success() && stderr(&output).contains("1 picture cannot be shown"), "{}", stderr(&output));
    serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap();
    let page = page(&session, "found.html");
    assert_has(&page, &["a &lt;b&gt;circle", "images/", "no picture"]);
    assert_eq!(page.matches("data:image/jpeg;base64,").count(), 23);
}
