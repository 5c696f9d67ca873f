//! The complete message for each kind of broken rule.

use super::errors;

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
                "0.0\nweight_decay = -0.1\nbetas = [0.9, 1.0]\neps = 0\nclip_grad_norm = inf\n\
                 logit_scale_max = nan\n[checkpoint]\nevery_steps = 0\nkeep = 0",
            ),
        ],
        &[],
    );
    assert_eq!(
        found,
        r#"17 problems in the config `run.toml`
run.toml:2:11: `run.threads` is 0, expected at least 1
  help: remove the key to use every core
run.toml:3:19: `run.log_every_steps` is 0, expected at least 1
run.toml:4:8: `run.seed` is 18446744073709551615, expected at most 9223372036854775807
run.toml:11:13: `model.embed_dim` is 0, expected at least 1
run.toml:12:14: `model.image_size` is 0, expected at least 1 pixel
run.toml:13:17: `model.image_dropout` is 1, expected 0 or more and less than 1
run.toml:16:14: `data.max_tokens` is 2, expected at least 3
  help: two of them are special tokens
run.toml:17:20: `data.max_bad_fraction` is 1.5, expected a fraction from 0 to 1
run.toml:24:14: `train.batch_size` is 1, expected at least 2
  help: a pair's negatives are the other pairs of its batch
run.toml:25:17: `train.learning_rate` is 0, expected a finite number above 0
run.toml:26:16: `train.weight_decay` is -0.1, expected a finite number of 0 or more
run.toml:27:9: `train.betas` is [0.9, 1], expected two numbers of 0 or more and less than 1
run.toml:28:7: `train.eps` is 0, expected a finite number above 0
run.toml:29:18: `train.clip_grad_norm` is inf, expected a finite number of 0 or more
  help: 0 turns clipping off
run.toml:30:19: `train.logit_scale_max` is NaN, expected a finite number above 0
  help: it is a logarithm: 4.6052 is a scale of 100
run.toml:32:15: `checkpoint.every_steps` is 0, expected at least 1
  help: a checkpoint is also written at the end and on a signal
run.toml:33:8: `checkpoint.keep` is 0, expected at least 1"#
    );
}

#[test]
fn learning_rate_nan() {
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
run.toml:14:9: `train.epochs` and `train.steps` are both set
  help: remove one of them; on the command line, `--set train.epochs=` removes a key"#
    );
}

#[test]
fn warmup_longer_than_run() {
    let found = errors(&[("epochs = 20", "steps = 100\nwarmup_steps = 100")], &[]);
    assert_eq!(
        found,
        r#"1 problem in the config `run.toml`
run.toml:14:16: `train.warmup_steps` is 100, expected fewer than `train.steps`, which is 100
  help: the learning rate would never reach its peak"#
    );
}

#[test]
fn contradictory_schedule() {
    let more = "epochs = 20\nwarmup_steps = 1\nwarmup_fraction = 0.1\nschedule = \"linear\"\n\
                cooldown_fraction = 1.5\nrsqrt_timescale = 5";
    assert_eq!(
        errors(&[("epochs = 20", more)], &[]),
        r#"4 problems in the config `run.toml`
run.toml:15:19: `train.warmup_fraction` and `train.warmup_steps` are both set
  help: remove one of them; on the command line, `--set KEY=` removes a key
run.toml:17:21: `train.cooldown_fraction` is 1.5, expected a number of 0 or more and less than 1
  help: it is a fraction of the whole run
run.toml:17:21: `train.cooldown_fraction` is set, but `train.schedule` is `linear`, which falls anyway
  help: only `rsqrt` and `constant` cool down
run.toml:18:19: `train.rsqrt_timescale` is set, but `train.schedule` is `linear`, which has no time scale
  help: remove the key"#
    );
}

#[test]
fn towers_and_init() {
    let found = errors(&[("lock = \"LU\"", "init = \"runs/old\"\nlock = \"Lu\"")], &[]);
    assert_eq!(
        found,
        r#"3 problems in the config `run.toml`
run.toml:5:15: `model.image_tower` and `model.init` are both set
  help: `init` includes both towers: remove one or the other
run.toml:6:14: `model.text_tower` and `model.init` are both set
  help: `init` includes both towers: remove one or the other
run.toml:8:8: `model.lock` is `Lu`, but the towers of `model.init` are trained
  help: `u` starts a tower from random weights: write `U` to train the tower of `init`, or remove `init`"#
    );
}

#[test]
fn neither_towers_nor_init() {
    let found = errors(&[("image_tower = \"./towers/vit\"\ntext_tower = \"org/minilm\"\n", "")], &[]);
    assert_eq!(
        found,
        r#"2 problems in the config `run.toml`
run.toml:4:1: missing key `model.image_tower`
  help: set it to a Hugging Face directory or a hub id, or set `init` to a whole model
run.toml:4:1: missing key `model.text_tower`
  help: set it to a Hugging Face directory or a hub id, or set `init` to a whole model"#
    );
}

#[test]
fn invalid_tower_reference() {
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
fn logit_scale_above_maximum() {
    let found = errors(&[("lock = \"LU\"", "lock = \"LU\"\nlogit_scale_init = 10")], &[]);
    assert_eq!(
        found,
        r#"1 problem in the config `run.toml`
run.toml:8:20: `model.logit_scale_init` is 10, above `train.logit_scale_max`, which is 4.605170185988092
  help: it is a logarithm: 2.6592 is a temperature of 0.07"#
    );
}

#[test]
fn logit_bias_without_sigmoid() {
    let found = errors(&[("epochs = 20", "epochs = 20\nlogit_bias_init = -10")], &[]);
    assert_eq!(
        found,
        r#"1 problem in the config `run.toml`
run.toml:14:19: `train.logit_bias_init` is set, but `train.loss` is `softmax`, which has no bias
  help: remove it, or set `loss = "sigmoid"`"#
    );
}

#[test]
fn logit_bias_is_number_or_auto() {
    let edit = |value: &str| {
        errors(&[("epochs = 20", &format!("epochs = 20\nloss = \"sigmoid\"\nlogit_bias_init = {value}"))], &[])
    };
    assert_eq!(
        edit("\"automatic\""),
        r#"1 problem in the config `run.toml`
run.toml:15:19: `train.logit_bias_init` is the string "automatic", expected a number or "auto""#
    );
    assert_eq!(
        edit("inf"),
        r#"1 problem in the config `run.toml`
run.toml:15:19: `train.logit_bias_init` is inf, expected a finite number or "auto""#
    );
}

#[test]
fn terms_of_the_loss() {
    let edit = |more: &str| errors(&[("epochs = 20", &format!("epochs = 20\n{more}"))], &[]);
    assert_eq!(
        edit("matryoshka = [256, 256]\nstructure = -1\nmixup_alpha = nan"),
        r#"3 problems in the config `run.toml`
run.toml:14:14: `train.matryoshka` is [256, 256], expected widths of 1 or more in descending order
  help: each width is below the one before it, such as `[512, 256, 128, 64]`
run.toml:15:13: `train.structure` is -1, expected a finite number of 0 or more
  help: 0 turns it off
run.toml:16:15: `train.mixup_alpha` is NaN, expected a finite number of 0 or more
  help: 0 turns mixup off"#
    );
    assert_eq!(
        edit("matryoshka = [768, 64]\nstructure_temperature = 0.1\nmixup_alpha = 1.0"),
        r#"3 problems in the config `run.toml`
run.toml:14:14: `train.matryoshka` begins with 768, above `model.embed_dim`, which is 512
  help: remove the larger widths, or raise `embed_dim`
run.toml:15:25: `train.structure_temperature` is set, but `train.structure` is 0: there is no structure term
  help: remove the key, or set `structure`, such as `structure = 10.0`
run.toml:16:15: `train.mixup_alpha` is 1, but a tower trains: only features of locked towers can be blended
  help: set `lock = "LL"`, or remove the key"#
    );
    let stage = "structure = 10.0\n[[train.stage]]\nfrom_epoch = 2\nlock = \"UU\"";
    assert_eq!(
        errors(&[("learning_rate = 1e-3", &format!("learning_rate = 1e-3\n{stage}"))], &[]),
        r#"1 problem in the config `run.toml`
run.toml:16:13: `train.structure` is 10, but both towers train in stage 2: it needs the features of a locked one
  help: lock a tower (`LU`), or remove the key"#
    );
}

#[test]
fn label_smoothing() {
    let edit = |more: &str| errors(&[("epochs = 20", &format!("epochs = 20\n{more}"))], &[]);
    assert_eq!(
        edit("label_smoothing = 1"),
        r#"1 problem in the config `run.toml`
run.toml:14:19: `train.label_smoothing` is 1, expected 0 or more and less than 1"#
    );
    assert_eq!(
        edit("label_smoothing = 0.1\nloss = \"sigmoid\""),
        r#"1 problem in the config `run.toml`
run.toml:14:19: `train.label_smoothing` is 0.1, but `train.loss` is `sigmoid`, which has no label smoothing
  help: remove it, or set `loss = "softmax"`"#
    );
}

#[test]
fn word_dropout_with_cache() {
    let found = errors(&[("\"LU\"", "\"LL\""), ("[train]", "[data]\nword_dropout = 0.1\n\n[train]")], &[]);
    assert_eq!(
        found,
        [
            "1 problem in the config `run.toml`",
            "run.toml:13:16: `data.word_dropout` is 0.1, but the features of the locked text tower \
             are cached, and captions with words left out rarely repeat",
            "  help: set `cache.enabled = false` to run the tower in every epoch, or remove the key",
        ]
        .join("\n")
    );
    // A later stage locks the text tower.
    let dropped = ("[train]", "[data]\nword_dropout = 0.1\n\n[train]");
    let stage =
        |lock: &str| ("[eval.vendor]", format!("[[train.stage]]\nfrom_step = 40\nlock = \"{lock}\"\n\n[eval.vendor]"));
    let (locks, trains) = (stage("LL"), stage("UU"));
    let found = errors(&[dropped, ("[eval.vendor]", &locks.1)], &[]);
    assert!(found.contains("the locked text tower are cached from step 40 on, and captions"), "{found}");
    // The text tower trains in part, or in every stage.
    let valid = |edits: &[(&str, &str)], overrides: &[&str]| {
        let mut text = super::BASE.replacen(dropped.0, dropped.1, 1);
        for (from, to) in edits {
            text = text.replacen(from, to, 1);
        }
        super::load(&text, overrides).map(drop)
    };
    let locked = ("\"LU\"", "\"LL\"");
    assert_eq!(valid(&[locked], &["cache.enabled=false"]), Ok(()));
    assert_eq!(valid(&[locked], &["model.text_unlock_last=1"]), Ok(()));
    assert_eq!(valid(&[locked], &["model.text_lora.rank=4"]), Ok(()));
    assert_eq!(valid(&[("[eval.vendor]", &trains.1)], &[]), Ok(()));
    let begins = trains.1.replace("from_step = 40", "from_step = 0");
    assert_eq!(valid(&[locked, ("[eval.vendor]", &begins)], &[]), Ok(()), "the stage replaces `model.lock`");
    let found = errors(&[("[train]", "[data]\nword_dropout = 1\n\n[train]")], &[]);
    assert!(found.contains("`data.word_dropout` is 1, expected 0 or more and less than 1"), "{found}");
}

#[test]
fn eval_without_images() {
    let found = errors(&[("images = \"data/heldout\"\n", "")], &[]);
    assert_eq!(
        found,
        r#"1 problem in the config `run.toml`
run.toml:17:1: missing key `eval.vendor.images`, which a zero-shot evaluation requires
  help: a directory that holds one folder of images per class, or `data`: images and the names of their classes"#
    );
}

#[test]
fn eval_with_keys_of_other_task() {
    let found = errors(
        &[
            ("[eval.vendor]", "[eval.\"My set\"]"),
            ("\"zero-shot\"", "\"retrieval\"\nbatch_size = 0\nevery_epochs = 1\nevery_steps = 0"),
        ],
        &[],
    );
    assert_eq!(
        found,
        concat!(
            r#"6 problems in the config `run.toml`
run.toml:17:1: `My set` is not a valid name for an evaluation
  help: use `a-z`, `0-9`, `_` and `-`; the name becomes part of the metrics
run.toml:17:1: missing key `eval.My set.data`, which a retrieval evaluation requires
  help: images and captions, such as a csv file, or a table `[eval.NAME.data.csv]`
run.toml:19:14: `eval.My set.batch_size` is 0, expected at least 1
run.toml:21:15: `eval.My set` has both `every_epochs` and `every_steps`
  help: remove one of them
run.toml:21:15: `eval.My set.every_steps` is 0, expected at least 1
  help: `every_epochs = 0` evaluates only at the end
"#,
            "run.toml:22:10: `eval.My set.images` is only for a zero-shot, knn or linear-probe evaluation, but this ",
            "one is retrieval"
        )
    );
}

#[test]
fn whitening_conflicts() {
    let found = errors(
        &[("lock = \"LU\"", "lock = \"UU\"\nimage_projection = { locked = true, whitening = 0.6 }")],
        &["cache.enabled=false"],
    );
    assert_eq!(
        found,
        r#"3 problems in the config `run.toml`
run.toml:8:49: `model.image_projection.whitening` is 0.6, but the image tower trains: its features would not stay white
  help: lock the tower (`lock = "LU"`)
run.toml:8:49: `model.image_projection.whitening` is 0.6, but a locked projection is not saved with the checkpoints
  help: unlock it; a low `train.projection_learning_rate` keeps it near its start
run.toml:8:49: `model.image_projection.whitening` is 0.6, but it is computed from cached features
  help: set `cache.enabled = true`"#
    );
}

#[test]
fn augment_with_cache() {
    let found = errors(&[("[train]", "[data.augment]\nflip = 2\n\n[train]")], &[]);
    assert_eq!(
        found,
        [
            "2 problems in the config `run.toml`",
            "run.toml:12:1: `data.augment` is set, but the features of the locked image tower are \
             cached: every epoch would see the same view",
            "  help: set `cache.views` to the number of views to cache for each image, or \
             `cache.enabled = false` to run the tower in every epoch",
            "run.toml:13:8: `data.augment.flip` is out of range, expected a probability from 0 to 1",
        ]
        .join("\n")
    );
}

#[test]
fn source_tables() {
    let found = errors(
        &[
            (
                "[data.train.csv]\npath = \"data/train.csv\"",
                "[[data.train]]\ncsv = { path = 'a.csv' }\nweight = 0\n\n[[data.train]]\ncaption_weights = [0, 0.0]\n\
                 folder = { path = 'b' }\ncsv = { path = 'a.csv' }",
            ),
            (
                "[eval.vendor]",
                "[eval.pairs]\ntask = 'retrieval'\ndata = { csv = { path = 'c.csv' }, weight = 2 }\n\n[eval.vendor]",
            ),
        ],
        &["data.validation_fraction=1"],
    );
    assert_eq!(
        found,
        r#"5 problems in the config `run.toml`
run.toml:11:10: `data.train[0].weight` is 0, expected a number above 0, at most 1000000
run.toml:13:1: `data.train[1]` needs exactly one source, found `csv` and `folder`
  help: name one of `csv`, `tsv`, `jsonl`, `json`, `folder`, `webdataset`, `classes`, `coco`, `parquet`, `features`
run.toml:14:19: `data.train[1].caption_weights` is all 0, expected a weight above 0
run.toml:25:45: `eval.pairs.data.weight` is only for training data
  help: remove the key
--set data.validation_fraction=1: `data.validation_fraction` is 1, expected 0 or more and less than 1
  help: the share of the images that is held out"#
    );
}

#[test]
fn caption_weights_need_their_columns() {
    let found = errors(
        &[(
            "[data.train.csv]\npath = \"data/train.csv\"",
            "[[data.train]]\ncsv = { path = 'a.csv', captions = ['raw', 'long'] }\ncaption_weights = [1]\n\n\
             [[data.train]]\njsonl = { path = 'b.jsonl', captions = ['raw', 'long', 'alt'] }\n\
             caption_weights = [1, 2]\n\n[[data.train]]\n\
             parquet = { path = 'c', captions = ['raw', 'long'] }\ncaption_weights = [1, 2]",
        )],
        &[],
    );
    assert_eq!(
        found,
        [
            "3 problems in the config `run.toml`",
            "run.toml:11:19: `data.train[0].caption_weights` has 1 weight, but `data.train[0].csv` has 2 caption \
             columns",
            "  help: give a weight for each",
            "run.toml:15:19: `data.train[1].caption_weights` has 2 weights, but `data.train[1].jsonl` has 3 caption \
             columns",
            "  help: give a weight for each",
            "run.toml:19:19: `data.train[2].caption_weights` is set, but with `data.captions = \"all\"` every caption \
             is a pair: none is drawn",
            "  help: set `data.captions = \"one\"` to draw one caption of an image in each epoch, or \"slots\" to draw \
             several at once, or remove the key",
        ]
        .join("\n")
    );
}

#[test]
fn caption_slots_need_their_mode() {
    let found = errors(&[], &["data.caption_slots=3", "data.pin_first_caption=true"]);
    assert!(found.contains("`data.caption_slots` is set, but it is only for `data.captions = \"slots\"`"), "{found}");
    assert!(found.contains("`data.pin_first_caption` is set, but"), "{found}");
    for count in ["0", "257"] {
        let found = errors(&[], &["data.captions=slots", &format!("data.caption_slots={count}")]);
        assert!(found.contains(&format!("`data.caption_slots` is {count}, expected 1 to 256")), "{found}");
    }
}

#[test]
fn empty_list_of_sources() {
    let found = errors(&[("[data.train.csv]\npath = \"data/train.csv\"", "[data]\ntrain = []")], &[]);
    assert_eq!(
        found,
        r#"1 problem in the config `run.toml`
run.toml:10:9: `data.train` has no source
  help: add a table `[[data.train]]`"#
    );
}

#[test]
fn key_in_a_list_of_sources() {
    let found = errors(
        &[(
            "[data.train.csv]\npath = \"data/train.csv\"",
            "[[data.train]]\ncsv = { path = 'a.csv' }\n\n[[data.train]]\ncsv = { path = 'a.csv', captoin = 'x' }\n\
             weigth = 2\n\n[[data.train]]\ncsv = { caption = 'x' }",
        )],
        &[],
    );
    assert_eq!(
        found,
        r#"3 problems in the config `run.toml`
run.toml:13:25: unknown key `data.train[1].csv.captoin`
  help: did you mean `caption`?
run.toml:14:1: unknown key `data.train[1].weigth`
  help: did you mean `weight`?
run.toml:17:7: missing key `data.train[2].csv.path`"#
    );
}
