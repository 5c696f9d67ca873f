//! The complete message for each kind of syntax error, unknown or missing key, and mistyped value.

use super::errors;

#[test]
fn unknown_key_suggests_nearest() {
    let found = errors(&[("epochs = 20", "epochs = 20\nweight_dcay = 0.1")], &[]);
    assert_eq!(
        found,
        r#"1 problem in the config `run.toml`
run.toml:14:1: unknown key `train.weight_dcay`
  help: did you mean `weight_decay`?"#
    );
}

#[test]
fn misspelt_required_key() {
    let found = errors(&[("learning_rate", "learning_rte")], &[]);
    assert_eq!(
        found,
        r#"1 problem in the config `run.toml`
run.toml:15:1: unknown key `train.learning_rte`
  help: did you mean `learning_rate`?"#
    );
}

#[test]
fn unknown_key_lists_known() {
    let found = errors(&[("dir =", "zzz = 1\ndir =")], &[]);
    assert_eq!(
        found,
        "1 problem in the config `run.toml`\nrun.toml:2:1: unknown key `run.zzz`\n  help: expected `dir`, `seed`, \
         `device`, `precision`, `locked_precision`, `threads`, `log_every_steps` or `tensorboard`"
    );
}

#[test]
fn unknown_table() {
    let found = errors(&[("[train]", "[trian]")], &[]);
    assert_eq!(
        found,
        r#"1 problem in the config `run.toml`
run.toml:12:2: unknown key `trian`
  help: did you mean `train`?"#
    );
}

#[test]
fn unknown_source() {
    let found = errors(&[("[data.train.csv]", "[data.train.cvs]")], &[]);
    assert_eq!(
        found,
        r#"1 problem in the config `run.toml`
run.toml:9:13: unknown key `data.train.cvs`
  help: did you mean `csv`?"#
    );
}

#[test]
fn unknown_source_key() {
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
run.toml:9:7: `data.train` needs exactly one source, found `csv` and `folder`
  help: name one of `csv`, `tsv`, `jsonl`, `json`, `folder`, `webdataset`, `classes`, `coco`, `parquet`, `features`"#
    );
}

#[test]
fn no_source() {
    let found = errors(&[("[data.train.csv]\npath = \"data/train.csv\"", "[data.train]")], &[]);
    assert_eq!(
        found,
        r#"1 problem in the config `run.toml`
run.toml:9:1: `data.train` needs exactly one source, found none
  help: name one of `csv`, `tsv`, `jsonl`, `json`, `folder`, `webdataset`, `classes`, `coco`, `parquet`, `features`"#
    );
}

#[test]
fn path_of_windows() {
    let found = errors(&[("\"data/train.csv\"", "\"C:\\Users\\me\\train.csv\"")], &[]);
    let help = "\n  help: in double quotes, `\\` begins an escape; write a path in single quotes, or with `/`";
    assert!(found.contains(&format!("expected unicode hexadecimal value{help}")), "{found}");
    assert!(found.matches(help).count() == 2, "{found}");
}

#[test]
fn source_without_path() {
    let found = errors(&[("path = \"data/train.csv\"\n", "")], &[]);
    assert_eq!(
        found,
        r#"1 problem in the config `run.toml`
run.toml:9:1: missing key `data.train.csv.path`"#
    );
}

#[test]
fn mistyped_values() {
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
run.toml:14:14: `train.batch_size` is the string "256", expected a non-negative integer
run.toml:15:1: unknown key `train.shuffle`
  help: did you mean `schedule`?
run.toml:16:15: `train.betas[1]` is the string "x", expected a number
run.toml:17:18: `train.clip_grad_norm` is true, expected a number
run.toml:18:8: `train.loss` is the number 3, expected a string
run.toml:19:9: `train.steps` is the number -1, expected a non-negative integer"#
    );
}

#[test]
fn unknown_enum_value() {
    let found = errors(&[("epochs = 20", "epochs = 20\nschedule = \"cosin\"")], &[]);
    assert_eq!(
        found,
        r#"1 problem in the config `run.toml`
run.toml:14:12: `train.schedule` is `cosin`, expected `cosine`, `linear`, `rsqrt` or `constant`
  help: did you mean `cosine`?"#
    );
}

#[test]
fn invalid_lock() {
    let found = errors(&[("\"LU\"", "\"lu\"")], &[]);
    assert_eq!(
        found,
        [
            "1 problem in the config `run.toml`",
            "run.toml:7:8: `model.lock`: `lu` is not a lock; expected two letters, image tower then text \
             tower, each of `L` (locked, pretrained), `U` (unlocked, pretrained) or `u` (unlocked, \
             from scratch), such as `LU`",
        ]
        .join("\n")
    );
}

#[test]
fn section_is_not_a_table() {
    let found = errors(&[("[run]\ndir = \"runs/emoji\"", "run = 3")], &[]);
    assert_eq!(
        found,
        r#"1 problem in the config `run.toml`
run.toml:1:7: `run` is the number 3, expected a table"#
    );
}

#[test]
fn missing_keys() {
    let found = errors(&[("dir = \"runs/emoji\"", ""), ("batch_size = 256", ""), ("epochs = 20", "")], &[]);
    assert_eq!(
        found,
        r#"3 problems in the config `run.toml`
run.toml:1:1: missing key `run.dir`
  help: where the run writes, such as `dir = "runs/first"`
run.toml:12:1: missing key `train.batch_size`
  help: such as `batch_size = 256`
run.toml:12:1: missing key `train.epochs` or `train.steps`
  help: set the length of the run, such as `epochs = 20`"#
    );
}

#[test]
fn missing_table() {
    let found = errors(&[("[run]\ndir = \"runs/emoji\"\n", "")], &[]);
    assert_eq!(
        found,
        r#"1 problem in the config `run.toml`
run.toml: missing key `run.dir`
  help: where the run writes, such as `dir = "runs/first"`"#
    );
}

#[test]
fn syntax_errors() {
    let found = errors(&[("= 256", "= "), ("epochs = 20", "epochs = 20\nepochs = 3")], &[]);
    assert_eq!(
        found,
        r#"2 problems in the config `run.toml`
run.toml:14:1: duplicate key
run.toml:15:14: string values must be quoted, expected literal string"#
    );
}

#[test]
fn eval_without_task() {
    let found = errors(&[("task = \"zero-shot\"\n", "")], &[]);
    assert_eq!(
        found,
        r#"1 problem in the config `run.toml`
run.toml:17:1: missing key `eval.vendor.task`
  help: `zero-shot`, `retrieval` or `loss`"#
    );
}

#[test]
fn eval_with_unknown_task() {
    let found = errors(&[("\"zero-shot\"\nimages", "\"zeroshot\"\nimage")], &[]);
    assert_eq!(
        found,
        r#"2 problems in the config `run.toml`
run.toml:18:8: `eval.vendor.task` is `zeroshot`, expected `zero-shot`, `knn`, `linear-probe`, `retrieval` or `loss`
  help: did you mean `zero-shot`?
run.toml:19:1: unknown key `eval.vendor.image`
  help: did you mean `images`?"#
    );
}
