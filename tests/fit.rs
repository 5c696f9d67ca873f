//! Heads in closed form: `dualenc fit`, and training that starts from them.

use std::fs;

use serde_json::Value;

use crate::support::{Session, floats, goldens, stderr, tensors};

const COLORS: [(&str, [u8; 3]); 6] = [
    ("red", [220, 30, 30]),
    ("green", [30, 200, 60]),
    ("blue", [30, 60, 230]),
    ("white", [240, 240, 240]),
    ("yellow", [240, 220, 40]),
    ("black", [10, 10, 10]),
];

/// An uncompressed bitmap of 8 x 8 pixels with two colors, one above the other.
fn bitmap(top: [u8; 3], bottom: [u8; 3], noise: u8) -> Vec<u8> {
    let mut file = b"BM".to_vec();
    for number in [54 + 192u32, 0, 54, 40, 8, 8] {
        file.extend(number.to_le_bytes());
    }
    file.extend([1, 0, 24, 0]);
    file.extend([0; 24]);
    // Rows from the bottom to the top, pixels as blue, green, red.
    for at in 0..64u8 {
        let [red, green, blue] = if at < 32 { bottom } else { top };
        let noisy = |value: u8| value.saturating_add(at.wrapping_mul(noise) % 23);
        file.extend([noisy(blue), noisy(green), noisy(red)]);
    }
    file
}

/// 108 images, three of each pair of colors, and a config of two towers with the lock `LL`.
fn session(more: &str) -> Session {
    let session = Session::new();
    let mut rows = "image,caption\n".to_owned();
    for variant in 0..3u8 {
        for (top_name, top) in COLORS {
            for (bottom_name, bottom) in COLORS {
                let name = format!("images/{top_name}-{bottom_name}-{variant}.bmp");
                session.write(&name, bitmap(top, bottom, 3 + 2 * variant));
                rows += &format!("{name},{top_name} and {bottom_name}\n");
            }
        }
    }
    session.write("pairs.csv", rows);
    session.write(
        "lit.toml",
        format!(
            "[run]\ndir = \"run\"\nseed = 1\nthreads = 2\n\
             [model]\nimage_tower = {vit:?}\ntext_tower = {bert:?}\nlock = \"LL\"\nembed_dim = 10\n\
             [data]\nmax_bad_fraction = 0.1\n[data.train.csv]\npath = \"pairs.csv\"\n\
             [train]\nepochs = 2\nbatch_size = 16\nlearning_rate = 1e-3\n\
             [eval.pairs]\ntask = \"retrieval\"\ndata = \"pairs.csv\"\nat_start = false\n{more}",
            vit = goldens("train/vit"),
            bert = goldens("train/bert"),
        ),
    );
    session
}

fn command<'a>(name: &'a str, sets: &[&'a str]) -> Vec<&'a str> {
    let mut arguments = vec![name, "--config", "lit.toml"];
    arguments.extend(sets.iter().flat_map(|set| ["--set", *set]));
    arguments
}

fn weights(
    session: &Session,
    run: &str,
    step: u64,
) -> std::collections::BTreeMap<String, (String, Vec<usize>, Vec<u8>)> {
    tensors(&session.path(&format!("{run}/checkpoints/step-{step:06}/model.safetensors")))
}

#[test]
fn fit_aligns_without_training() {
    let session = session("[checkpoint]\nbest = \"pairs.image_retrieval_recall@1\"\n");
    let output = session.run(&[command("fit", &[]), vec!["--json", "fit.json"]].concat());
    let said = stderr(&output);
    assert!(output.status.success(), "{said}");
    let out = String::from_utf8(output.stdout).unwrap();
    let line = said.lines().find(|line| line.contains("heads fitted in closed form (cca) to 108 pairs in "));
    assert!(line.is_some_and(|line| !line.contains(" in 0 s")), "{said}");
    assert!(!said.contains(" steps, "), "a fit takes no steps: {said}");
    for part in [
        "ridge, power",
        "choice of ridge and power ",
        "direction",
        "correlation",
        "logit_scale ",
        "a factor of ",
        " on cosines, by the loss on 16 images that were held out",
        "fitted to 108 pairs",
        "pairs (retrieval",
    ] {
        assert!(out.contains(part), "{part}: {out}");
    }
    let found: Value = serde_json::from_slice(&fs::read(session.path("fit.json")).unwrap()).unwrap();
    assert_eq!((found["images"].as_u64(), found["directions"].as_u64()), (Some(108), Some(10)), "{found}");
    let held_out = &found["held_out"];
    // Whole groups of three equal captions.
    assert_eq!((held_out["images"].as_u64(), held_out["captions_apart"].as_bool()), (Some(15), Some(true)), "{found}");
    assert_eq!(held_out["candidates"].as_array().unwrap().len(), 20);
    // One line at step 0, of a model that tells colors apart; random heads find 6 of 108.
    let evals = session.metrics("run", "eval");
    assert_eq!((evals.len(), evals[0]["step"].as_u64()), (1, Some(0)));
    let recall = evals[0]["image_retrieval_recall@1"].as_f64().unwrap();
    assert!(recall > 0.5, "{evals:?}");
    let fit = &session.metrics("run", "fit")[..];
    let [fit] = fit else { panic!("{fit:?}") };
    assert_eq!((&fit["step"], &fit["method"], &fit["pairs"]), (&0.into(), &"cca".into(), &108.into()));
    assert_eq!((&fit["ridge"], &fit["held_out_images"]), (&found["ridge"], &15.into()));
    // The factor in the log, the logarithm in the result.
    let factor = found["logit_scale"].as_f64().unwrap().exp();
    assert!((fit["logit_scale"].as_f64().unwrap() - factor).abs() < 1e-9 * factor, "{fit}");
    assert!(found["correlations"].is_array() && found["covariances"].is_null());
    // Every other command takes the run.
    let again: Value =
        serde_json::from_str(&session.succeed(&[command("eval", &[]), vec!["--json", "-"]].concat())).unwrap();
    assert!(again.to_string().contains(&format!("\"image_retrieval_recall@1\":{recall}")), "{again}");
    session.succeed(&["embed", "--model", "run", "--images", "images", "--out", "images.safetensors"]);
    session.succeed(&["report", "run"]);
    let page = fs::read_to_string(session.path("run/report.html")).unwrap();
    for part in ["The heads started fitted in closed form (cca): 108 pairs, ridge ", ">fitted</span>", "step 0, fitted"]
    {
        assert!(page.contains(part), "{part}");
    }
    assert!(!page.contains(">killed<") && !page.contains("step 0 of"));
    session.succeed(&["report", "run", "--best"]);
    assert!(fs::read_to_string(session.path("run/report.html")).unwrap().contains("the model of step <strong>0<"));
    session.succeed(&["inspect", "run"]);
    session.succeed(&["export", "--model", "run", "--out", "heads", "--format", "heads"]);
    let card = fs::read_to_string(session.path("heads/README.md")).unwrap();
    for part in ["closed form (CCA), ridge chosen on held-out pairs", "image_retrieval_recall@1", "108 images"] {
        assert!(card.contains(part), "{part}: {card}");
    }
    assert!(!card.contains("adamw") && !card.contains("No evaluation"), "{card}");
    session.succeed(&["export", "--model", "run", "--out", "exported"]);
}

/// Where captions are names of classes, the temperature goes by images of known classes, as those of zero-shot
/// classification are.
#[test]
fn temperature_suits_known_classes() {
    let session = session("");
    let colors = |pair: usize| [COLORS[pair / 6], COLORS[pair % 6]];
    let mut rows = "image,caption\n".to_owned();
    for class in 0..12 {
        // Names that tell nothing of the colors, so that the name of an unknown class is of no use.
        let [(top_name, _), (bottom_name, _)] = colors((class * 7 + 3) % 36);
        let [(_, top), (_, bottom)] = colors(class * 3);
        for variant in 0..9u8 {
            let name = format!("images/class-{class}-{variant}.bmp");
            session.write(&name, bitmap(top, bottom, 3 + 2 * variant));
            rows += &format!("{name},{top_name} and {bottom_name}\n");
        }
        session.write(&format!("held/{top_name} and {bottom_name}/0.bmp"), bitmap(top, bottom, 40));
    }
    session.write("classes.csv", rows);
    let sets = ["data.train.csv.path=classes.csv", "eval={held={task=\"zero-shot\", images=\"held\"}}"];
    let found = session.succeed(&[command("fit", &sets), vec!["--json", "-"]].concat());
    let found: Value = serde_json::from_str(&found).unwrap();
    // A tenth for the choice, whole classes, and another for the temperature.
    assert_eq!((found["held_out"]["images"].as_u64(), found["scale_images"].as_u64()), (Some(9), Some(16)), "{found}");
    // By the classes of the choice alone, it would be at its limit of 100. The lowest loss on `held` is at 12.
    let factor = found["logit_scale"].as_f64().unwrap().exp();
    assert!((4.0..25.0).contains(&factor), "{factor}");
    let evals = session.metrics("run", "eval");
    let eval = evals.iter().find(|eval| eval["name"] == "held").unwrap();
    assert!(eval["acc1"].as_f64().unwrap() > 0.7 && eval["ece"].as_f64().unwrap() < 0.2, "{eval}");
}

#[test]
fn training_goes_on_from_a_fit() {
    let session = session("");
    session.succeed(&command("fit", &[]));
    session.succeed(&[command("train", &["model.lock=LL"]), vec!["--resume"]].concat());
    session.succeed(&command("train", &["run.dir=once", "model.init=cca"]));
    let steps = session.metrics("run", "train").len() as u64;
    assert!(steps > 8, "{steps}");
    assert!(weights(&session, "run", steps) == weights(&session, "once", steps), "a resumed fit, and `init = \"cca\"`");
    let losses = |run: &str| session.reproducible(run, "train");
    assert_eq!(losses("run"), losses("once"));
    // The start is better than a random one.
    session.succeed(&command("train", &["run.dir=random"]));
    let first = |run: &str| losses(run)[0]["loss"].as_f64().unwrap();
    assert!(first("once") < first("random") - 0.3, "{} {}", first("once"), first("random"));
    // A new run may start from the fitted model.
    session.succeed(&command(
        "train",
        &["run.dir=later", "model.init=./once", "model.image_tower=", "model.text_tower=", "model.embed_dim="],
    ));
}

/// What a residual head has learned beside its linear map does not stay beside a fitted one.
#[test]
fn fit_of_trained_residual_heads_is_linear() {
    let session = session("");
    let heads = ["image", "text"].map(|side| format!("model.{side}_head={{kind=\"residual\", norm=false}}"));
    let heads = [heads[0].as_str(), &heads[1]];
    let sets = |more: &[&'static str]| [&heads[..], more].concat();
    session.succeed(&command("train", &sets(&["run.dir=trained", "train.learning_rate=1e-2"])));
    let trained = session.path("trained/checkpoints/step-000012/model.safetensors");
    let names = ["image_projection", "text_projection"].map(|head| format!("{head}.down.weight"));
    assert!(names.iter().all(|name| floats(&trained, name).iter().any(|&value| value != 0.0)));
    let from = ["model.init=./trained", "model.image_tower=", "model.text_tower=", "model.embed_dim="];
    let output = session.run(&command("fit", &[&from[..], &["run.dir=fitted"]].concat()));
    let notes = stderr(&output);
    assert!(output.status.success(), "{notes}");
    for side in ["image", "text"] {
        assert!(notes.contains(&format!("the {side} head of `model.init` had learned what its linear map lacks")));
    }
    // The fit of new heads on the same towers.
    let output = session.run(&command("fit", &sets(&["run.dir=new"])));
    assert!(output.status.success() && !stderr(&output).contains("had learned"), "{}", stderr(&output));
    let path = |run: &str| session.path(&format!("{run}/checkpoints/step-000000/model.safetensors"));
    for (head, down) in ["image_projection", "text_projection"].iter().zip(&names) {
        assert!(floats(&path("fitted"), down).iter().all(|&value| value == 0.0), "{down}");
        let weight = format!("{head}.weight");
        assert_eq!(floats(&path("fitted"), &weight), floats(&path("new"), &weight));
    }
    let recall = |run: &str| session.metrics(run, "eval")[0]["image_retrieval_recall@1"].clone();
    assert_eq!(recall("fitted"), recall("new"));
}

#[test]
fn warmup_longer_than_the_run_is_for_training() {
    let session = session("");
    // 108 images fill 6 batches, so the run has 12 steps.
    session.succeed(&command("fit", &["train.warmup_steps=13"]));
    let resume = |sets: &[&str]| session.run(&[command("train", sets), vec!["--resume"]].concat());
    let refused = resume(&["train.warmup_steps=13"]);
    let text = stderr(&refused);
    assert_eq!(refused.status.code(), Some(2), "{text}");
    assert!(text.contains("a warm-up of 13 steps (`train.warmup_steps`) does not fit in the 12 steps"), "{text}");
    // A longer run has room for it.
    let constant = ["run.dir=constant", "train.warmup_steps=13", "train.schedule=constant"];
    session.succeed(&command("fit", &constant));
    let resumed = resume(&[&constant[..], &["train.epochs=3"]].concat());
    assert!(resumed.status.success(), "{}", stderr(&resumed));
    assert_eq!(session.metrics("constant", "train").len(), 18);
}

#[test]
fn fits_have_equal_bits() {
    let session = session("");
    session.succeed(&command("fit", &[]));
    session.succeed(&command("fit", &["run.dir=cached", "cache.dir=run/cache"]));
    session.succeed(&command("fit", &["run.dir=uncached", "cache.enabled=false"]));
    let first = weights(&session, "run", 0);
    assert!(first == weights(&session, "cached", 0) && first == weights(&session, "uncached", 0));
    // A tower that trains later gives the features that it has before.
    session.succeed(&command("fit", &["run.dir=unlocked", "model.lock=LU", "cache.dir=run/cache"]));
    session.succeed(&command("fit", &["run.dir=all", "model.lock=UU"]));
    for run in ["unlocked", "all"] {
        let found = weights(&session, run, 0);
        assert!(found.len() > first.len());
        assert!(first.iter().all(|(name, tensor)| found[name] == *tensor), "{run}");
    }
}

#[test]
fn wide_space_is_filled() {
    let session = session("");
    let wide = ["model.embed_dim=24", "fit.ridge=0.01", "fit.power=1"];
    let out = session.run(&command("fit", &wide));
    assert!(out.status.success());
    let said = String::from_utf8_lossy(&out.stdout);
    assert!(said.contains("recall of held-out pairs ") && !said.contains("choice"), "both are given: {said}");
    let notes = String::from_utf8_lossy(&out.stderr);
    assert!(notes.contains("have 11 directions in common: the other 13"), "{notes}");
    let path = session.path("run/checkpoints/step-000000/model.safetensors");
    for name in ["image_projection.weight", "text_projection.weight"] {
        let weight = floats(&path, name);
        assert!((0..24).all(|output| weight.iter().skip(output).step_by(24).any(|&value| value != 0.0)), "{name}");
    }
}

#[test]
fn few_pairs_determine_few_directions() {
    let session = session("");
    let rows = fs::read_to_string(session.path("pairs.csv")).unwrap();
    let first = |count: usize| rows.lines().take(1 + count).map(|row| format!("{row}\n")).collect::<String>();
    // 8 images with 7 distinct captions.
    session.write("pairs.csv", first(7) + "images/white-red-0.bmp,red and red\n");
    for (command, sets) in [("fit", vec!["run.dir=fit"]), ("train", vec!["run.dir=trained", "model.head_init=cca"])] {
        let out = session.run(&self::command(command, &[&sets[..], &["train.batch_size=4"]].concat()));
        let notes = String::from_utf8_lossy(&out.stderr);
        let expected = "8 distinct images and 7 distinct texts determine 6 directions of the shared space, so the last \
                        4 of `model.embed_dim` = 10 outputs are random";
        assert!(out.status.success() && notes.contains(expected), "{notes}");
        let fit = &session.metrics(sets[0].trim_start_matches("run.dir="), "fit")[0];
        assert_eq!(fit["directions"], 6, "{fit}");
    }
    let narrow = command("fit", &["run.dir=narrow", "model.embed_dim=6", "train.batch_size=4"]);
    let out = session.run(&narrow);
    assert!(out.status.success() && !stderr(&out).contains("determine"));
    assert_eq!(session.metrics("narrow", "fit")[0]["directions"], 6);
}

#[test]
fn ridge_regression_and_sigmoid_loss() {
    let session = session("");
    let out = session.succeed(&[command("fit", &["train.loss=sigmoid"]), vec!["--method", "ridge"]].concat());
    assert!(out.contains("covariance") && out.contains("logit_bias -"), "{out}");
    let sets = command("fit", &["run.dir=json"]);
    let found = session.succeed(&[sets, vec!["--method", "ridge", "--json", "-"]].concat());
    let found: Value = serde_json::from_str(&found).unwrap();
    assert!(found["covariances"].is_array() && found["correlations"].is_null(), "{found}");
    // Unrelated features find one of 3 images among 108 in 14 of 100 cases.
    let recall = session.metrics("run", "eval")[0]["image_retrieval_recall@5"].as_f64().unwrap();
    assert!(recall > 0.4, "{recall}");
}

#[test]
fn few_images_take_the_usual_settings() {
    let session = session("");
    let rows = fs::read_to_string(session.path("pairs.csv")).unwrap();
    session.write("pairs.csv", rows.lines().take(31).map(|row| format!("{row}\n")).collect::<String>());
    let out = session.run(&command("fit", &[]));
    let notes = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success() && notes.contains("ridge 0.1, power 1, no images held out"), "{notes}");
}

#[test]
fn unusable_images_are_left_out() {
    let session = session("");
    session.write("images/red-blue-1.bmp", "<!DOCTYPE html>not found");
    let out = session.succeed(&command("fit", &[]));
    assert!(out.contains("fitted to 107 pairs"), "{out}");
}

#[test]
fn contradictions_are_refused() {
    let session = session("");
    let refused = |sets: &[&str], part: &str| {
        let error = session.fail(2, &command("fit", sets));
        assert!(error.contains(part), "{sets:?}: {error}");
    };
    // What nobody wrote is not to blame.
    for (set, part) in [
        ("model.lock=Lu", "`model.lock` is `Lu`: features of a tower with random weights tell nothing"),
        ("model.image_projection.whitening=0.5", "gives the image projection other weights"),
        ("model.image_head={tokens='query', token_width=8}", "takes all tokens, which no closed form maps"),
        ("model.text_head={kind='glu'}", "`model.text_head.kind` is `glu`, a head without a linear map"),
    ] {
        let error = session.fail(2, &command("fit", &[set]));
        assert!(error.contains("`dualenc fit` cannot fit these heads: ") && error.contains(part), "{set}: {error}");
        assert!(!error.contains("head_init"), "{set}: {error}");
        refused(&[set, "model.head_init=cca"], "`model.head_init` is `cca`, but");
    }
    refused(&["model.text_projection.locked=true"], "not saved with the checkpoints");
    refused(&["fit.ridge=0"], "`fit.ridge` is 0");
    refused(&["model.head_init=ridge", "fit.power=1"], "ridge regression has none of");
    // One image, whatever its name.
    let plain = bitmap([9; 3], [9; 3], 0);
    fs::read_dir(session.path("images")).unwrap().for_each(|file| fs::write(file.unwrap().path(), &plain).unwrap());
    refused(&["run.dir=plain"], "the training data have only one distinct image");
    assert!(!session.path("plain/checkpoints/step-000000").exists());
}

#[test]
fn training_run_is_not_replaced() {
    let session = session("");
    session.succeed(&command("train", &["train.epochs=1"]));
    let before = fs::read(session.path("run/metrics.jsonl")).unwrap();
    let error = session.fail(2, &command("fit", &[]));
    assert!(error.contains("already holds a run (step 6), which a fit does not replace"), "{error}");
    assert_eq!(fs::read(session.path("run/metrics.jsonl")).unwrap(), before);
}

#[test]
fn cut_fit_is_a_narrower_fit() {
    let session = session("");
    session.write("texts.txt", "red and green\nblack and white\n");
    let embed = |run: &str, more: &[&str]| {
        let arguments =
            ["embed", "--model", run, "--images", "images", "--texts", "texts.txt", "--out", "e.safetensors"];
        let output = session.run(&[&arguments[..], more].concat());
        let notes = stderr(&output);
        assert!(output.status.success() && !notes.contains("`--dim"), "{notes}");
        ["image_embeds", "text_embeds"].map(|name| floats(&session.path("e.safetensors"), name))
    };
    for method in [&["model.head_init=cca", "fit.power=1"][..], &["model.head_init=ridge"]] {
        let fit = |run: &str, dim: &str| {
            let sets = [&["fit.ridge=0.01", run, dim], method].concat();
            session.succeed(&command("fit", &sets));
        };
        let runs = method[0].replace("model.head_init=", "");
        fit(&format!("run.dir={runs}10"), "model.embed_dim=10");
        fit(&format!("run.dir={runs}4"), "model.embed_dim=4");
        let (cut, narrow) = (embed(&format!("{runs}10"), &["--dim", "4"]), embed(&format!("{runs}4"), &[]));
        for (cut, narrow) in cut.iter().zip(&narrow) {
            assert!(!cut.is_empty() && cut.len() == narrow.len());
            assert!(cut.iter().zip(narrow).all(|(cut, narrow)| (cut - narrow).abs() < 1e-4), "{runs}");
        }
    }
}
