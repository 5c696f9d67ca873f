//! The complete message for each kind of problem with a `--set` argument.

use super::errors;

#[test]
fn set_is_the_place() {
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
fn malformed_set() {
    let found = errors(&[], &["nope", "=3", "a b=3", "a.b.c.d.e.f.g=1", "run.dir.x=3"]);
    assert_eq!(
        found,
        r#"5 problems in the config `run.toml`
--set nope: `nope` has no `=`
  help: write `--set KEY=VALUE`, such as `--set train.batch_size=64`
--set =3: `` is not a key
  help: write `--set KEY=VALUE`, such as `--set train.batch_size=64`
--set a b=3: `a b` is not a key
  help: write `--set KEY=VALUE`, such as `--set train.batch_size=64`
--set a.b.c.d.e.f.g=1: the key has 7 parts, expected at most 6
  help: write `--set KEY=VALUE`, such as `--set train.batch_size=64`
--set run.dir.x=3: `run.dir` is a value, expected a table
  help: set it with `--set run.dir=VALUE`"#
    );
}

#[test]
fn set_whole_table() {
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
  help: set the length of the run, such as `epochs = 20`"#
    );
}

#[test]
fn set_removes_key() {
    let found = errors(&[], &["train.epochs="]);
    assert_eq!(
        found,
        r#"1 problem in the config `run.toml`
run.toml:12:1: missing key `train.epochs` or `train.steps`
  help: set the length of the run, such as `epochs = 20`"#
    );
}

#[test]
fn set_with_line_break() {
    let found = errors(&[], &["train.batch_size=2\n3"]);
    assert_eq!(
        found,
        r#"1 problem in the config `run.toml`
--set train.batch_size=2 3: `train.batch_size` is the string "2\n3", expected a non-negative integer"#
    );
}
