//! Loss over fixed pools, the best checkpoint, early stopping, averaged weights and interpolation.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{Session, floats, goldens, kill_moments, stderr, tensors};

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// The golden data, with a loss evaluation on the training pairs and a zero-shot one.
fn session(more: &str) -> Session {
    let session = Session::new();
    for (class, images) in [("red_square", ["00", "01"]), ("blue_circle", ["02", "03"]), ("thing", ["04", "05"])] {
        for image in images {
            let source = goldens(&format!("train/images/{image}.png"));
            session.write(&format!("classes/{class}/{image}.png"), fs::read(source).unwrap());
        }
    }
    let data = goldens("train/train.csv");
    session.write_config(&format!(
        "[eval.held]\ntask = \"loss\"\ndata = {data:?}\npool_size = 8\nevery_steps = 2\n\
         [eval.classes]\ntask = \"zero-shot\"\nimages = \"classes\"\nevery_steps = 2\n{more}"
    ));
    session
}

/// The steps of the checkpoints, ascending.
fn steps(session: &Session, run: &str) -> Vec<u64> {
    let entries = fs::read_dir(session.path(run).join("checkpoints")).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut steps: Vec<u64> = names.map(|name| name.strip_prefix("step-").unwrap().parse().unwrap()).collect();
    steps.sort_unstable();
    steps
}

/// Steps and values of a logged metric.
fn logged(session: &Session, run: &str, name: &str, metric: &str) -> Vec<(u64, f64)> {
    let lines = session.metrics(run, "eval").into_iter().filter(|line| line["name"] == name);
    lines.map(|line| (line["step"].as_u64().unwrap(), line[metric].as_f64().unwrap())).collect()
}

#[test]
fn pool_loss_ignores_batch_size() {
    let session = session("");
    session.succeed(&["train", "--config", "lit.toml"]);
    let last = session.metrics("run", "eval").into_iter().rfind(|line| line["name"] == "held").unwrap();
    assert_eq!((&last["num_pairs"], &last["num_left_out"], &last["pool_size"]), (&24.into(), &0.into(), &8.into()));
    for sets in [["train.batch_size=2", "eval.held.batch_size=3"], ["train.batch_size=24", "run.seed=9"]] {
        let mut arguments = vec!["eval", "--config", "lit.toml", "--checkpoint", "run", "--json", "-"];
        sets.iter().for_each(|set| arguments.extend(["--set", set]));
        let found = &json(&session.succeed(&arguments))["evaluations"]["held"];
        for metric in ["loss", "image_acc1", "text_acc1"] {
            assert_eq!(found[metric], last[metric], "{sets:?} {metric}");
        }
    }
    let data = goldens("train/train.csv");
    let eval_loss = |pool: &str| {
        let data = data.to_str().unwrap();
        let arguments =
            ["eval", "--model", "run", "--task", "loss", "--data", data, "--pool-size", pool, "--json", "-"];
        json(&session.succeed(&arguments))
    };
    assert_eq!(eval_loss("8")["loss"], last["loss"]);
    let tens = eval_loss("10");
    assert_eq!((&tens["num_pairs"], &tens["num_left_out"]), (&20.into(), &4.into()));
    assert!(tens["loss"].as_f64() > last["loss"].as_f64(), "{tens}");

    // The order of pairs does not matter in a single pool: compare with the formula on the output of `dualenc embed`.
    let text = fs::read_to_string(&data).unwrap();
    let rows: Vec<(&str, &str)> = text.lines().skip(1).map(|line| line.split_once(',').unwrap()).collect();
    // Captions with commas are quoted.
    let rows: Vec<(&str, &str)> = rows.into_iter().map(|(image, caption)| (image, caption.trim_matches('"'))).collect();
    session.write("texts.txt", rows.iter().map(|(_, caption)| format!("{caption}\n")).collect::<String>());
    let images = goldens("train/images");
    let embed = [
        "embed",
        "--model",
        "run",
        "--images",
        images.to_str().unwrap(),
        "--texts",
        "texts.txt",
        "--out",
        "e.safetensors",
    ];
    session.succeed(&embed);
    let embeds = session.path("e.safetensors");
    let dim = tensors(&embeds)["image_embeds"].1[1];
    let (image, text) = (floats(&embeds, "image_embeds"), floats(&embeds, "text_embeds"));
    let scale = floats(&session.path("run/checkpoints/step-000012/model.safetensors"), "logit_scale")[0];
    let scale = f64::from(scale).exp();
    let image_of =
        |row: usize| rows[row].0.rsplit('/').next().unwrap().trim_end_matches(".png").parse::<usize>().unwrap();
    let logit = |a: usize, b: usize| {
        let (a, b) = (&image[image_of(a) * dim..][..dim], &text[b * dim..][..dim]);
        scale * a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>()
    };
    let n = rows.len();
    let term = |a: usize| {
        let over_texts = (0..n).map(|b| logit(a, b).exp()).sum::<f64>().ln();
        let over_images = (0..n).map(|b| logit(b, a).exp()).sum::<f64>().ln();
        over_texts + over_images - 2.0 * logit(a, a)
    };
    let expected = (0..n).map(term).sum::<f64>() / (2 * n) as f64;
    let found = eval_loss(&n.to_string())["loss"].as_f64().unwrap();
    assert!((found - expected).abs() < 1e-5, "{found} instead of {expected}");

    let text =
        session.fail(2, &["train", "--config", "lit.toml", "--set", "run.dir=new", "--set", "eval.held.pool_size=25"]);
    assert!(text.contains("`held`: 24 pairs do not fill one pool of 25"), "{text}");
}

/// A learning rate so high that metrics rise and fall.
const UNSTABLE: [&str; 6] =
    ["--set", "train.learning_rate=0.02", "--set", "train.epochs=40", "--set", "train.schedule=constant"];

const BEST: &str = "[checkpoint]\nevery_steps = 7\nkeep = 1\nbest = \"held.loss\"\npatience = 6\nmin_delta = 0.001\n";

#[test]
fn keeps_best_and_stops_early() {
    let session = session(&format!("{BEST}[eval.end]\ntask = \"zero-shot\"\nimages = \"classes\"\nevery_epochs = 0\n"));
    let train = [&["train", "--config", "lit.toml"][..], &UNSTABLE].concat();
    let output = session.run(&train);
    let (out, log) = (String::from_utf8(output.stdout.clone()).unwrap(), stderr(&output));
    assert!(output.status.success(), "{log}");
    assert!(log.contains("training ends early") && log.contains("`held.loss` has not improved in 6"), "{log}");
    let losses = logged(&session, "run", "held", "loss");
    let (stopped, _) = *losses.last().unwrap();
    assert!(stopped < 120, "the run did not stop early");
    // The evaluation before the first step is no candidate.
    assert_eq!(losses[0].0, 0);
    let best = losses[1..]
        .iter()
        .fold((0, f64::MAX), |best, &(step, loss)| if best.1 - loss > 0.001 { (step, loss) } else { best });
    assert_eq!(best.0, stopped - 12, "six evaluations, two steps apart");
    assert_eq!(steps(&session, "run"), [best.0, stopped]);
    assert!(out.contains(&format!("best checkpoint: step {}, held.loss {:.4}", best.0, best.1)), "{out}");
    // The evaluation at the end runs after early stopping, too.
    assert_eq!(session.metrics("run", "eval").iter().filter(|line| line["name"] == "end").count(), 2);

    // Resuming does nothing until the patience is raised.
    let before = fs::read(session.path("run/metrics.jsonl")).unwrap();
    session.succeed(&[&train[..], &["--resume"]].concat());
    assert_eq!(fs::read(session.path("run/metrics.jsonl")).unwrap(), before);
    let data = goldens("train/train.csv");
    let eval = ["eval", "--model", "run", "--task", "loss", "--pool-size", "8", "--json", "-", "--data"];
    let loss = |more: &[&str]| {
        let found = json(&session.succeed(&[&eval[..], &[data.to_str().unwrap()], more].concat()));
        found["loss"].as_f64().unwrap()
    };
    assert_eq!(loss(&["--best"]), best.1);
    assert_ne!(loss(&[]), best.1);
    let report = session.succeed(&["inspect", "run"]);
    assert!(report.contains(&format!("  best        step {}, by held.loss {:.4}", best.0, best.1)), "{report}");
    session.succeed(&["report", "run", "--best", "--out", "best.html"]);
    let page = fs::read_to_string(session.path("best.html")).unwrap();
    assert!(page.contains(&format!("This page is about the model of step <strong>{}</strong>", best.0)));
    assert!(page.contains(&format!("held, step {}", best.0)) && !page.contains(&format!("held, step {stopped}")));
    session.succeed(&[&train[..], &["--resume", "--set", "checkpoint.patience=9"]].concat());
    assert!(logged(&session, "run", "held", "loss").last().unwrap().0 > stopped);

    session.succeed(&[
        "train",
        "--config",
        "lit.toml",
        "--set",
        "run.dir=plain",
        "--set",
        "checkpoint.best=",
        "--set",
        "checkpoint.patience=",
        "--set",
        "checkpoint.min_delta=",
    ]);
    for arguments in [&["export", "--model", "plain", "--best", "--out", "hf"][..], &["report", "plain", "--best"]] {
        let text = session.fail(2, arguments);
        assert!(text.contains("has no best checkpoint") && text.contains("checkpoint.best"), "{text}");
    }
    assert!(!session.path("plain/report.html").exists());
}

#[test]
fn changed_evaluation_counts_anew() {
    let session = session("[checkpoint]\nevery_steps = 2\nkeep = 2\nbest = \"held.loss\"\n");
    let train = |sets: &[&str]| {
        let mut arguments = vec!["train", "--config", "lit.toml", "--resume", "--set", "train.schedule=constant"];
        sets.iter().for_each(|set| arguments.extend(["--set", set]));
        let output = session.run(&arguments);
        assert!(output.status.success(), "{}", stderr(&output));
        stderr(&output)
    };
    train(&[]);
    let before = logged(&session, "run", "held", "loss");
    // Pools of 12 are harder than pools of 8: no later loss is below the best of the old figures.
    let text = train(&["train.epochs=6", "eval.held.pool_size=12"]);
    assert!(text.contains("the evaluation `held` has changed, so its 7 earlier results are not comparable"), "{text}");
    let all = logged(&session, "run", "held", "loss");
    let (old, new) = all.split_at(before.len());
    assert_eq!(old, before);
    let lowest = |values: &[(u64, f64)]| *values.iter().min_by(|left, right| left.1.total_cmp(&right.1)).unwrap();
    assert!(lowest(new).1 > lowest(old).1, "{all:?}");
    let best = json(&session.succeed(&["inspect", "run", "--json", "-"]))["run"]["best"]["step"].as_u64();
    assert_eq!(best, Some(lowest(new).0));
    assert!(steps(&session, "run").contains(&lowest(new).0));
    // The best checkpoint by the old figures stayed until there was a new one.
    let kept = [
        &["train", "--config", "lit.toml", "--set", "train.schedule=constant", "--set", "run.dir=kept"][..],
        &["--set", "checkpoint.keep=1"],
    ]
    .concat();
    session.succeed(&kept);
    let best = lowest(&logged(&session, "kept", "held", "loss")).0;
    assert!(best <= 12);
    let changed = [&kept[..], &["--resume", "--set", "eval.held.pool_size=12"]].concat();
    session.succeed(&changed);
    assert!(steps(&session, "kept").contains(&best));
    // Nothing has changed since.
    assert!(!train(&["train.epochs=6", "eval.held.pool_size=12"]).contains("are not comparable"));
}

#[test]
fn best_survives_sigkill() {
    let session = session(BEST);
    for (kind, more) in [("plain", ""), ("averaged", "train.ema_decay=0.9")] {
        let mut train = [&["train", "--config", "lit.toml", "--resume"][..], &UNSTABLE].concat();
        if !more.is_empty() {
            train.extend(["--set", more]);
        }
        let whole = format!("run.dir=whole-{kind}");
        let killed = format!("run.dir=killed-{kind}");
        session.succeed(&[&train[..], &["--set", &whole]].concat());
        let log = fs::read_to_string(session.path(&format!("whole-{kind}")).join("metrics.jsonl")).unwrap();
        let (lines, run) = (log.lines().count() as f64, format!("killed-{kind}"));
        let train = [&train[..], &["--set", &killed]].concat();
        let kills = kill_moments()
            .filter(|(share, delay)| session.kill_after_lines(&train, &run, (share * lines) as usize, *delay))
            .count();
        assert!(kills >= 2, "{kills} kills");
        session.succeed(&train);
        let (whole, killed) = (format!("whole-{kind}"), format!("killed-{kind}"));
        assert_eq!(session.reproducible(&killed, "eval"), session.reproducible(&whole, "eval"));
        assert_eq!(steps(&session, &killed), steps(&session, &whole));
        for step in steps(&session, &whole) {
            let files = ["model.safetensors", "optimizer.safetensors", "ema.safetensors"];
            for file in &files[..if more.is_empty() { 2 } else { 3 }] {
                let of = |run: &str| tensors(&session.path(run).join(format!("checkpoints/step-{step:06}/{file}")));
                assert!(of(&killed) == of(&whole), "{kind} step {step} {file}");
            }
        }
    }
}

#[test]
fn best_survives_crash_during_save() {
    let session = session(BEST);
    let train =
        [&["train", "--config", "lit.toml", "--resume", "--set", "train.ema_decay=0.9"][..], &UNSTABLE].concat();
    session.succeed(&[&train[..], &["--set", "run.dir=whole"]].concat());
    for point in ["before_ema.safetensors", "inside_ema.safetensors", "before_rename", "after_rename", "while_pruning"]
    {
        let run = format!("run.dir={point}");
        let arguments = [&train[..], &["--set", &run]].concat();
        let output = session.command(&arguments).env("DUALENC_FAIL_AT", point).output().unwrap();
        assert!(!output.status.success(), "{point} was not reached");
        session.succeed(&arguments);
        assert_eq!(session.reproducible(point, "eval"), session.reproducible("whole", "eval"), "{point}");
        assert_eq!(steps(&session, point), steps(&session, "whole"), "{point}");
    }
}

#[test]
fn ema_follows_formula_and_is_evaluated() {
    let session = session("[checkpoint]\nevery_steps = 1\nkeep = 20\n");
    session.succeed(&["train", "--config", "lit.toml", "--set", "train.ema_decay=0.5", "--set", "model.lock=LU"]);
    let file = |step: u64, name: &str| session.path(&format!("run/checkpoints/step-{step:06}/{name}.safetensors"));
    let paths: Vec<String> = tensors(&file(1, "model")).into_keys().collect();
    assert_eq!(paths, tensors(&file(1, "ema")).into_keys().collect::<Vec<_>>());
    assert!(paths.iter().all(|path| !path.starts_with("image_tower")), "a locked tower was averaged");
    for path in ["logit_scale", "text_projection.weight", "text_tower.words"] {
        let mut average = floats(&file(1, "ema"), path);
        for step in 2..=12u64 {
            let t = step as f64;
            let share = 1.0 - 0.5f64.min((1.0 + t) / (10.0 + t));
            let values = floats(&file(step, "model"), path);
            average.iter_mut().zip(values).for_each(|(a, v)| *a += (share * f64::from(v - *a)) as f32);
            let found = floats(&file(step, "ema"), path);
            let worst = found.iter().zip(&average).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(worst < 1e-6, "{path} step {step}: {worst}");
        }
    }
    // The logged metrics are those of the averaged weights, from the checkpoint and from its export.
    let last = session.metrics("run", "eval").into_iter().rfind(|line| line["name"] == "held").unwrap();
    session.succeed(&["export", "--model", "run", "--out", "hf"]);
    for model in ["run", "hf"] {
        let arguments = ["eval", "--config", "lit.toml", "--checkpoint", model, "--json", "-"];
        let found = json(&session.succeed(&arguments))["evaluations"]["held"]["loss"].as_f64().unwrap();
        assert!((found - last["loss"].as_f64().unwrap()).abs() < 1e-6, "{model}");
    }
    session.succeed(&["train", "--config", "lit.toml", "--set", "model.lock=LU", "--set", "run.dir=raw"]);
    assert!(!session.path("raw/checkpoints/step-000012/ema.safetensors").exists());
    let raw = session.metrics("raw", "eval").into_iter().rfind(|line| line["name"] == "held").unwrap();
    assert_ne!(raw["loss"], last["loss"]);
    // Averaging does not change training.
    assert!(tensors(&file(12, "model")) == tensors(&session.path("raw/checkpoints/step-000012/model.safetensors")));
    assert!(session.succeed(&["inspect", "run"]).contains("averaged over the updates"));
}

#[test]
fn newly_locked_tower_keeps_average() {
    let session = session("[checkpoint]\nevery_steps = 3\nkeep = 9\n");
    let stage = "train.stage=[{from_step = 6, lock = \"LL\"}]";
    let arguments =
        ["train", "--config", "lit.toml", "--set", "train.ema_decay=0.9", "--set", "model.lock=LU", "--set", stage];
    session.succeed(&arguments);
    let last = session.metrics("run", "eval").into_iter().rfind(|line| line["name"] == "held").unwrap();
    let found = json(&session.succeed(&["eval", "--config", "lit.toml", "--json", "-"]));
    let (found, expected) = (found["evaluations"]["held"]["loss"].as_f64().unwrap(), last["loss"].as_f64().unwrap());
    assert!((found - expected).abs() < 1e-6, "{found} {expected}");
    let file = |step: u64| session.path(&format!("run/checkpoints/step-{step:06}/ema.safetensors"));
    assert_eq!(floats(&file(6), "text_tower.words"), floats(&file(12), "text_tower.words"));
    assert_ne!(floats(&file(6), "text_projection.weight"), floats(&file(12), "text_projection.weight"));
}

#[test]
fn interpolation_spans_base_to_trained() {
    let session = session("");
    session.succeed(&["train", "--config", "lit.toml", "--set", "train.learning_rate=0.01"]);
    let sweep = |more: &[&str]| {
        let arguments = ["interpolate", "--model", "run", "--alpha", "0,0.5,1", "--json", "-"];
        json(&session.succeed(&[&arguments[..], more].concat()))
    };
    let found = sweep(&[]);
    let eval = |model: &str| {
        let arguments = ["eval", "--config", "lit.toml", "--checkpoint", model, "--json", "-"];
        json(&session.succeed(&arguments))["evaluations"].clone()
    };
    let init = goldens("train/init");
    let (base, trained) = (eval(init.to_str().unwrap()), eval("run"));
    assert_eq!((&found["rows"][0]["evaluations"], &found["rows"][2]["evaluations"]), (&base, &trained));
    assert_ne!(base, trained);
    let middle = &found["rows"][1]["evaluations"];
    assert!(middle != &base && middle != &trained);
    // The same base, given explicitly.
    assert_eq!(sweep(&["--base", init.to_str().unwrap()])["rows"], found["rows"]);
    let table = session.succeed(&["interpolate", "--model", "run", "--alpha", "0,1"]);
    let lines: Vec<&str> = table.lines().collect();
    assert!(
        lines.len() == 3 && lines[0].starts_with("alpha  classes.acc1") && lines[0].contains("held.loss"),
        "{table}"
    );
    assert!(lines[2].contains(&format!("{:.4}", trained["held"]["loss"].as_f64().unwrap())), "{table}");

    session.succeed(&["interpolate", "--model", "run", "--alpha", "0.5", "--out", "hf"]);
    let (found, expected) = (eval("hf")["held"]["loss"].as_f64(), middle["held"]["loss"].as_f64());
    assert!((found.unwrap() - expected.unwrap()).abs() < 1e-6);
    let text = session.fail(2, &["interpolate", "--model", "run", "--alpha", "0,1", "--out", "hf2"]);
    assert!(text.contains("writes one model"), "{text}");
    let text = session.fail(2, &["interpolate", "--model", "run", "--alpha", "1.5"]);
    assert!(text.contains("a number from 0 to 1"), "{text}");
    session.copy("dual/vit_bert", "other");
    let text = session.fail(2, &["interpolate", "--model", "run", "--alpha", "0.5", "--base", "other"]);
    assert!(text.contains("does not have the same parameters"), "{text}");
}

#[test]
fn interpolation_skips_fresh_parameters() {
    let session = session("");
    let towers = [
        format!("model.image_tower={}", goldens("train/vit").display()),
        format!("model.text_tower={}", goldens("train/bert").display()),
    ];
    let run = |name: &str, lock: &str| {
        let dir = format!("run.dir={name}");
        let lock = format!("model.lock={lock}");
        let sets = ["model.init=", "model.embed_dim=6", "model.image_pool=cls", &lock, &dir, &towers[0], &towers[1]];
        let mut arguments = vec!["train", "--config", "lit.toml"];
        sets.iter().for_each(|set| arguments.extend(["--set", set]));
        session.succeed(&arguments);
    };
    run("lu", "LU");
    let output = session.run(&["interpolate", "--model", "lu", "--alpha", "0,1", "--json", "-"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let found = json(&String::from_utf8(output.stdout).unwrap());
    assert_eq!(found["interpolated"], serde_json::json!(["text tower"]));
    assert!(found["as_trained"].to_string().contains("image projection (it started afresh)"), "{found}");
    let trained = json(&session.succeed(&["eval", "--config", "lit.toml", "--checkpoint", "lu", "--json", "-"]));
    assert_eq!(found["rows"][1]["evaluations"], trained["evaluations"]);
    run("scratch", "uu");
    let text = session.fail(2, &["interpolate", "--model", "scratch", "--alpha", "0.5"]);
    assert!(text.contains("nothing to interpolate") && text.contains("started from scratch"), "{text}");
}

#[test]
fn rejects_unknown_best_metric() {
    let session = session("");
    for (best, expected) in [
        ("held.los", "did you mean `held.loss`?"),
        ("hold.acc1", "expected a metric of an evaluation"),
        ("classes.loss", "`checkpoint.best` is `classes.loss`"),
    ] {
        let set = format!("checkpoint.best={best}");
        let text = session.fail(2, &["train", "--config", "lit.toml", "--set", &set]);
        assert!(text.contains(expected), "{best}: {text}");
    }
    let text = session.fail(2, &["train", "--config", "lit.toml", "--set", "checkpoint.patience=2"]);
    assert!(text.contains("no `checkpoint.best`"), "{text}");
}

#[test]
fn missing_metric_never_improves() {
    let session = session("[checkpoint]\nbest = \"classes.acc5\"\npatience = 2\n");
    let started = Instant::now();
    let output = session.run(&["train", "--config", "lit.toml"]);
    assert!(output.status.success() && started.elapsed() < Duration::from_secs(60));
    // Three classes have no acc5, so the patience of two evaluations, two steps apart, runs out at step 4.
    assert_eq!(session.metrics("run", "train").len(), 4);
}
