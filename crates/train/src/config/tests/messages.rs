//! What a user reads, whole, for each thing that can be wrong.

use super::{BASE, load};

/// The whole message for the base with each pair's first text replaced by its second.
fn errors(edits: &[(&str, &str)], overrides: &[&str]) -> String {
    let mut text = BASE.to_owned();
    for (from, to) in edits {
        assert!(text.contains(from), "{from:?} is not in the base");
        text = text.replacen(from, to, 1);
    }
    load(&text, overrides).map(|_| ()).expect_err("the config is valid")
}

#[test]
fn an_unknown_key_names_the_nearest() {
    let found = errors(&[("epochs = 20", "epochs = 20\nweight_dcay = 0.1")], &[]);
    assert_eq!(
        found,
        r#"1 problem in the config `run.toml`
run.toml:14:1: unknown key `train.weight_dcay`
  help: did you mean `weight_decay`?"#
    );
}

#[test]
fn a_misspelt_required_key_is_one_problem() {
    let found = errors(&[("learning_rate", "learning_rte")], &[]);
    assert_eq!(
        found,
        r#"1 problem in the config `run.toml`
run.toml:15:1: unknown key `train.learning_rte`
  help: did you mean `learning_rate`?"#
    );
}

#[test]
fn an_unknown_key_near_none_lists_all() {
    let found = errors(&[("dir =", "zzz = 1\ndir =")], &[]);
    assert_eq!(
        found,
        r#"1 problem in the config `run.toml`
run.toml:2:1: unknown key `run.zzz`
  help: expected `dir`, `seed`, `device`, `precision`, `locked_precision`, `threads` or `log_every_steps`"#
    );
}

#[test]
fn an_unknown_section() {
    let found = errors(&[("[train]", "[trian]")], &[]);
    assert_eq!(
        found,
        r#"1 problem in the config `run.toml`
run.toml:12:2: unknown key `trian`
  help: did you mean `train`?"#
    );
}

#[test]
fn an_unknown_kind_of_source() {
    let found = errors(&[("[data.train.csv]", "[data.train.cvs]")], &[]);
    assert_eq!(
        found,
        r#"1 problem in the config `run.toml`
run.toml:9:13: unknown key `data.train.cvs`
  help: did you mean `csv`?"#
    );
}

#[test]
fn an_unknown_key_of_a_source() {
    let found = errors(&[("path = \"data/train.csv\"", "path = \"data/train.csv\"\ncaptoin = \"text\"")], &[]);
    assert_eq!(
        found,
        r#"1 problem in the config `run.toml`
run.toml:11:1: unknown key `data.train.csv.captoin`
  help: did you mean `caption`?"#
    );
}

#[test]
fn two_sources() {
    let found = errors(&[("[data.train.csv]", "[data.train.folder]\npath = 'x'\n\n[data.train.csv]")], &[]);
    assert_eq!(
        found,
        r#"1 problem in the config `run.toml`
run.toml:9:7: `data.train` needs exactly one table, found `csv` and `folder`"#
    );
}

#[test]
fn no_source() {
    let found = errors(&[("[data.train.csv]\npath = \"data/train.csv\"", "[data.train]")], &[]);
    assert_eq!(
        found,
        r#"1 problem in the config `run.toml`
run.toml:9:1: `data.train` needs exactly one table, found none"#
    );
}

#[test]
fn a_source_without_its_path() {
    let found = errors(&[("path = \"data/train.csv\"\n", "")], &[]);
    assert_eq!(
        found,
        r#"1 problem in the config `run.toml`
run.toml:9:1: missing key `data.train.csv.path`"#
    );
}

#[test]
fn mistyped_values_are_all_reported() {
    let found = errors(
        &[(
            "batch_size = 256",
            "batch_size = \"256\"\nshuffle = 1\nbetas = [0.9, \"x\"]\nclip_grad_norm = true\nloss = 3\nsteps = -1",
        )],
        &[],
    );
    assert_eq!(
        found,
        r#"6 problems in the config `run.toml`
run.toml:14:14: `train.batch_size` is the string "256", expected a whole number of 0 or more
run.toml:15:1: unknown key `train.shuffle`
  help: did you mean `schedule`?
run.toml:16:15: `train.betas[1]` is the string "x", expected a number
run.toml:17:18: `train.clip_grad_norm` is true, expected a number
run.toml:18:8: `train.loss` is the number 3, expected a string
run.toml:19:9: `train.steps` is the number -1, expected a whole number of 0 or more"#
    );
}

#[test]
fn an_unknown_name_of_an_enum() {
    let found = errors(&[("epochs = 20", "epochs = 20\nschedule = \"cosin\"")], &[]);
    assert_eq!(
        found,
        r#"1 problem in the config `run.toml`
run.toml:14:12: `train.schedule` is `cosin`, expected `cosine`, `linear`, `rsqrt` or `constant`
  help: did you mean `cosine`?"#
    );
}

#[test]
fn a_lock_of_other_letters() {
    let found = errors(&[("\"LU\"", "\"lu\"")], &[]);
    assert_eq!(
        found,
        r#"1 problem in the config `run.toml`
run.toml:7:8: `model.lock`: `lu` is not a lock: two letters, image tower then text tower, each of `L` (locked, pretrained), `U` (unlocked, pretrained) or `u` (unlocked, from scratch), such as `LU`"#
    );
}

#[test]
fn a_section_that_is_no_table() {
    let found = errors(&[("[run]\ndir = \"runs/emoji\"", "run = 3")], &[]);
    assert_eq!(
        found,
        r#"1 problem in the config `run.toml`
run.toml:1:7: `run` is the number 3, expected a table"#
    );
}

#[test]
fn missing_keys_are_all_reported() {
    let found = errors(&[("dir = \"runs/emoji\"", ""), ("batch_size = 256", ""), ("epochs = 20", "")], &[]);
    assert_eq!(
        found,
        r#"3 problems in the config `run.toml`
run.toml:1:1: missing key `run.dir`
  help: where the run writes, such as `dir = "runs/first"`
run.toml:12:1: missing key `train.batch_size`
  help: such as `batch_size = 256`
run.toml:12:1: missing key `train.epochs` or `train.steps`
  help: how long to train, such as `epochs = 20`"#
    );
}

#[test]
fn a_missing_section() {
    let found = errors(&[("[run]\ndir = \"runs/emoji\"\n", "")], &[]);
    assert_eq!(
        found,
        r#"1 problem in the config `run.toml`
run.toml: missing key `run.dir`
  help: where the run writes, such as `dir = "runs/first"`"#
    );
}

#[test]
fn text_that_is_no_toml() {
    let found = errors(&[("= 256", "= "), ("epochs = 20", "epochs = 20\nepochs = 3")], &[]);
    assert_eq!(
        found,
        r#"2 problems in the config `run.toml`
run.toml:14:1: duplicate key
run.toml:15:14: string values must be quoted, expected literal string"#
    );
}

#[test]
fn numbers_out_of_range() {
    let found = errors(
        &[
            ("dir =", "threads = 0\nlog_every_steps = 0\nseed = 18446744073709551615\ndir ="),
            ("lock = \"LU\"", "lock = \"LU\"\nembed_dim = 0\nimage_size = 0\nimage_dropout = 1.0"),
            ("[data.train.csv]", "[data]\nmax_tokens = 2\nmax_bad_fraction = 1.5\n\n[data.train.csv]"),
            ("256", "1"),
            (
                "1e-3",
                "0.0\nweight_decay = -0.1\nbetas = [0.9, 1.0]\neps = 0\nclip_grad_norm = inf\nlogit_scale_max = nan\n[checkpoint]\nevery_steps = 0\nkeep = 0",
            ),
        ],
        &[],
    );
    assert_eq!(
        found,
        r#"17 problems in the config `run.toml`
run.toml:2:11: `run.threads` is 0, expected at least 1
  help: leave the key out to use every core
run.toml:3:19: `run.log_every_steps` is 0, expected at least 1
run.toml:4:8: `run.seed` is 18446744073709551615, expected at most 9223372036854775807
run.toml:11:13: `model.embed_dim` is 0, expected at least 1
run.toml:12:14: `model.image_size` is 0, expected at least 1 pixel
run.toml:13:17: `model.image_dropout` is 1, expected 0 or more and less than 1
run.toml:16:14: `data.max_tokens` is 2, expected at least 3
  help: two are special tokens
run.toml:17:20: `data.max_bad_fraction` is 1.5, expected a share from 0 to 1
run.toml:24:14: `train.batch_size` is 1, expected at least 2
  help: a pair's negatives are the other pairs of its batch
run.toml:25:17: `train.learning_rate` is 0, expected a finite number above 0
run.toml:26:16: `train.weight_decay` is -0.1, expected a finite number of 0 or more
run.toml:27:9: `train.betas` is [0.9, 1], expected two numbers of 0 or more and less than 1
run.toml:28:7: `train.eps` is 0, expected a finite number above 0
run.toml:29:18: `train.clip_grad_norm` is inf, expected a finite number of 0 or more
  help: 0 turns clipping off
run.toml:30:19: `train.logit_scale_max` is NaN, expected a finite number above 0
  help: it is a logarithm: 4.6052 stands for a scale of 100
run.toml:32:15: `checkpoint.every_steps` is 0, expected at least 1
  help: a checkpoint is also written at the end and on a signal
run.toml:33:8: `checkpoint.keep` is 0, expected at least 1"#
    );
}

#[test]
fn a_rate_that_is_no_number() {
    let found = errors(&[("1e-3", "nan")], &[]);
    assert_eq!(
        found,
        r#"1 problem in the config `run.toml`
run.toml:15:17: `train.learning_rate` is NaN, expected a finite number above 0"#
    );
}

#[test]
fn epochs_and_steps() {
    let found = errors(&[("epochs = 20", "epochs = 20\nsteps = 100")], &[]);
    assert_eq!(
        found,
        r#"1 problem in the config `run.toml`
run.toml:14:9: `train.epochs` and `train.steps` are both given
  help: keep one; on the command line `--set train.epochs=` takes a key out"#
    );
}

#[test]
fn a_warmup_longer_than_the_run() {
    let found = errors(&[("epochs = 20", "steps = 100\nwarmup_steps = 100")], &[]);
    assert_eq!(
        found,
        r#"1 problem in the config `run.toml`
run.toml:14:16: `train.warmup_steps` is 100, expected fewer than `train.steps`, which is 100
  help: the learning rate would never reach its full height"#
    );
}

#[test]
fn a_curve_of_the_rate_that_contradicts_itself() {
    let more = "epochs = 20\nwarmup_steps = 1\nwarmup_fraction = 0.1\nschedule = \"linear\"\ncooldown_fraction = 1.5\nrsqrt_timescale = 5";
    assert_eq!(
        errors(&[("epochs = 20", more)], &[]),
        r#"4 problems in the config `run.toml`
run.toml:15:19: `train.warmup_fraction` and `train.warmup_steps` are both given
  help: keep one; on the command line `--set KEY=` takes a key out
run.toml:17:21: `train.cooldown_fraction` is 1.5, expected a number of 0 or more and less than 1
  help: a share of the whole run
run.toml:17:21: `train.cooldown_fraction` is given, and `train.schedule` is `linear`, which falls anyway
  help: `rsqrt` and `constant` cool down
run.toml:18:19: `train.rsqrt_timescale` is given, and `train.schedule` is `linear`, which has none
  help: leave it out"#
    );
}

#[test]
fn towers_and_init() {
    let found = errors(&[("lock = \"LU\"", "init = \"runs/old\"\nlock = \"Lu\"")], &[]);
    assert_eq!(
        found,
        r#"3 problems in the config `run.toml`
run.toml:5:15: `model.image_tower` and `model.init` are both given
  help: `init` brings both towers: keep one or the other
run.toml:6:14: `model.text_tower` and `model.init` are both given
  help: `init` brings both towers: keep one or the other
run.toml:8:8: `model.lock` is `Lu`, and `model.init` brings trained towers
  help: `u` starts a tower from random weights: write `U` to train on, or leave `init` out"#
    );
}

#[test]
fn neither_towers_nor_init() {
    let found = errors(&[("image_tower = \"./towers/vit\"\ntext_tower = \"org/minilm\"\n", "")], &[]);
    assert_eq!(
        found,
        r#"2 problems in the config `run.toml`
run.toml:4:1: missing key `model.image_tower`
  help: a Hugging Face directory or a hub id; or `init`, which stands for both towers
run.toml:4:1: missing key `model.text_tower`
  help: a Hugging Face directory or a hub id; or `init`, which stands for both towers"#
    );
}

#[test]
fn a_tower_that_is_neither_path_nor_id() {
    let found = errors(&[("org/minilm", "org/mini lm")], &[]);
    assert_eq!(
        found,
        r#"1 problem in the config `run.toml`
run.toml:6:14: `model.text_tower` is "org/mini lm", neither a directory nor a hub id
  help: write a path such as `./towers/vit`, or a hub id such as `org/name`"#
    );
}

#[test]
fn nothing_trains() {
    let found = errors(
        &[(
            "lock = \"LU\"",
            "lock = \"LL\"\nimage_projection = { locked = true }\ntext_projection = { locked = true }",
        )],
        &[],
    );
    assert_eq!(
        found,
        r#"1 problem in the config `run.toml`
run.toml:7:8: nothing trains: `model.lock` is `LL` and both projections are locked
  help: unlock a tower (`LU`) or a projection"#
    );
}

#[test]
fn a_scale_above_its_maximum() {
    let found = errors(&[("lock = \"LU\"", "lock = \"LU\"\nlogit_scale_init = 10")], &[]);
    assert_eq!(
        found,
        r#"1 problem in the config `run.toml`
run.toml:8:20: `model.logit_scale_init` is 10, above `train.logit_scale_max`, which is 4.605170185988092
  help: it is a logarithm: 2.6592 is a temperature of 0.07"#
    );
}

#[test]
fn a_bias_without_its_loss() {
    let found = errors(&[("epochs = 20", "epochs = 20\nlogit_bias_init = -10")], &[]);
    assert_eq!(
        found,
        r#"1 problem in the config `run.toml`
run.toml:14:19: `train.logit_bias_init` is given, and `train.loss` is `softmax`, which has no bias
  help: leave it out, or write `loss = "sigmoid"`"#
    );
}

#[test]
fn smoothing_out_of_range_and_without_its_loss() {
    let edit = |more: &str| errors(&[("epochs = 20", &format!("epochs = 20\n{more}"))], &[]);
    assert_eq!(
        edit("label_smoothing = 1"),
        r#"1 problem in the config `run.toml`
run.toml:14:19: `train.label_smoothing` is 1, expected 0 or more and less than 1"#
    );
    assert_eq!(
        edit("label_smoothing = 0.1\nloss = \"sigmoid\""),
        r#"1 problem in the config `run.toml`
run.toml:14:19: `train.label_smoothing` is 0.1, and `train.loss` is `sigmoid`, whose targets are not smoothed
  help: leave it out, or write `loss = "softmax"`"#
    );
}

#[test]
fn words_dropped_from_captions_whose_features_are_kept() {
    let found = errors(&[("\"LU\"", "\"LL\""), ("[train]", "[data]\nword_dropout = 0.1\n\n[train]")], &[]);
    assert_eq!(
        found,
        r#"1 problem in the config `run.toml`
run.toml:13:16: `data.word_dropout` is 0.1, but the text tower is locked and its features are computed once and kept: hardly a caption comes twice with the same words
  help: set `cache.enabled = false` to run the tower anew in every epoch, or leave it out"#
    );
    let found = errors(&[("[train]", "[data]\nword_dropout = 1\n\n[train]")], &[]);
    assert!(found.contains("`data.word_dropout` is 1, expected 0 or more and less than 1"), "{found}");
}

#[test]
fn an_evaluation_without_its_images() {
    let found = errors(&[("images = \"data/heldout\"\n", "")], &[]);
    assert_eq!(
        found,
        r#"1 problem in the config `run.toml`
run.toml:17:1: missing key `eval.vendor.images`, which a zero-shot evaluation needs
  help: a folder that holds one folder of images a class"#
    );
}

#[test]
fn an_evaluation_without_its_task() {
    let found = errors(&[("task = \"zero-shot\"\n", "")], &[]);
    assert_eq!(
        found,
        r#"1 problem in the config `run.toml`
run.toml:17:1: missing key `eval.vendor.task`
  help: `zero-shot`, `retrieval` or `loss`"#
    );
}

#[test]
fn an_evaluation_with_an_unknown_task() {
    let found = errors(&[("\"zero-shot\"\nimages", "\"zeroshot\"\nimage")], &[]);
    assert_eq!(
        found,
        r#"2 problems in the config `run.toml`
run.toml:18:8: `eval.vendor.task` is `zeroshot`, expected `zero-shot`, `retrieval` or `loss`
  help: did you mean `zero-shot`?
run.toml:19:1: unknown key `eval.vendor.image`
  help: did you mean `images`?"#
    );
}

#[test]
fn an_evaluation_with_keys_of_the_other_task() {
    let found = errors(
        &[
            ("[eval.vendor]", "[eval.\"My set\"]"),
            ("\"zero-shot\"", "\"retrieval\"\nbatch_size = 0\nevery_epochs = 1\nevery_steps = 0"),
        ],
        &[],
    );
    assert_eq!(
        found,
        r#"6 problems in the config `run.toml`
run.toml:17:1: `My set` is no name for an evaluation
  help: use `a-z`, `0-9`, `_` and `-`: it becomes part of the metrics
run.toml:17:1: missing key `eval.My set.data`, which a retrieval evaluation needs
  help: a csv, tsv or jsonl of image and caption
run.toml:19:14: `eval.My set.batch_size` is 0, expected at least 1
run.toml:21:15: `eval.My set` has both `every_epochs` and `every_steps`
  help: keep one
run.toml:21:15: `eval.My set.every_steps` is 0, expected at least 1
  help: `every_epochs = 0` evaluates only at the end
run.toml:22:10: `eval.My set.images` belongs to a zero-shot evaluation, and this one is retrieval"#
    );
}

#[test]
fn set_names_itself_as_the_place() {
    let found = errors(&[], &["train.batch_size=1", "train.lr=3", "train.betas=[0.1,'x']", "train.learning_rate=fast"]);
    assert_eq!(
        found,
        r#"4 problems in the config `run.toml`
--set train.batch_size=1: `train.batch_size` is 1, expected at least 2
  help: a pair's negatives are the other pairs of its batch
--set train.lr=3: unknown key `train.lr`
  help: did you mean `learning_rate`?
--set train.betas=[0.1,'x']: `train.betas[1]` is the string "x", expected a number
--set train.learning_rate=fast: `train.learning_rate` is the string "fast", expected a number"#
    );
}

#[test]
fn set_of_another_form() {
    let found = errors(&[], &["nope", "=3", "a b=3", "a.b.c.d.e.f.g=1", "run.dir.x=3"]);
    assert_eq!(
        found,
        r#"5 problems in the config `run.toml`
--set nope: `nope` has no `=`
  help: write `--set KEY=VALUE`, such as `--set train.batch_size=64`
--set =3: `` is no key
  help: write `--set KEY=VALUE`, such as `--set train.batch_size=64`
--set a b=3: `a b` is no key
  help: write `--set KEY=VALUE`, such as `--set train.batch_size=64`
--set a.b.c.d.e.f.g=1: the key has 7 parts, expected 6 at most
  help: write `--set KEY=VALUE`, such as `--set train.batch_size=64`
--set run.dir.x=3: `run.dir` is a value, expected a table
  help: set it by `--set run.dir=VALUE`"#
    );
}

#[test]
fn set_of_a_whole_table() {
    let found = errors(&[], &["run={dri=\"x\"}", "train={}"]);
    assert_eq!(
        found,
        r#"4 problems in the config `run.toml`
--set run={dri="x"}: unknown key `run.dri`
  help: did you mean `dir`?
--set train={}: missing key `train.batch_size`
  help: such as `batch_size = 256`
--set train={}: missing key `train.learning_rate`
  help: such as `learning_rate = 1e-3`
--set train={}: missing key `train.epochs` or `train.steps`
  help: how long to train, such as `epochs = 20`"#
    );
}

#[test]
fn set_takes_a_key_out() {
    let found = errors(&[], &["train.epochs="]);
    assert_eq!(
        found,
        r#"1 problem in the config `run.toml`
run.toml:12:1: missing key `train.epochs` or `train.steps`
  help: how long to train, such as `epochs = 20`"#
    );
}

#[test]
fn set_with_a_line_break_stays_on_one_line() {
    let found = errors(&[], &["train.batch_size=2\n3"]);
    assert_eq!(
        found,
        r#"1 problem in the config `run.toml`
--set train.batch_size=2 3: `train.batch_size` is the string "2\n3", expected a whole number of 0 or more"#
    );
}

#[test]
fn whitening_where_nothing_stays_white() {
    let found = errors(
        &[("lock = \"LU\"", "lock = \"UU\"\nimage_projection = { locked = true, whitening = 0.6 }")],
        &["cache.enabled=false"],
    );
    assert_eq!(
        found,
        r#"3 problems in the config `run.toml`
run.toml:8:49: `model.image_projection.whitening` is 0.6, but the image tower trains: its features would not stay white
  help: lock it (`LU`)
run.toml:8:49: `model.image_projection.whitening` is 0.6, but a locked projection is not saved with the checkpoints
  help: unlock it; a low `train.projection_learning_rate` keeps it near its start
run.toml:8:49: `model.image_projection.whitening` is 0.6, but it is computed from cached features
  help: leave `cache.enabled` at `true`"#
    );
}

#[test]
fn views_that_no_epoch_would_see_and_strengths_out_of_range() {
    let found = errors(&[("[train]", "[data.augment]\nflip = 2\n\n[train]")], &[]);
    assert_eq!(
        found,
        r#"2 problems in the config `run.toml`
run.toml:12:1: `data.augment` is given, but the image tower is locked and its features are computed once and kept: no epoch would see another view
  help: set `cache.views` to keep that many views of each image, or `cache.enabled = false` to run the tower anew in every epoch
run.toml:13:8: `data.augment.flip` is out of range, expected a probability from 0 to 1"#
    );
}
