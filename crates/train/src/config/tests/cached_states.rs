//! `cache.prefix` and `last_blocks`: the cache of locked layers.

use dualenc_model::Tower;

use super::{BASE, errors, load};

const PARTIAL: [&str; 2] = ["model.lock=LL", "model.image_unlock_last=1"];

#[test]
fn keys_are_written_where_given() {
    let text = load(BASE, &[]).unwrap().to_toml().unwrap();
    assert!(!text.contains("prefix") && !text.contains("last_blocks"), "{text}");
    for argument in ["cache.prefix=true", "cache.prefix=false", "model.text_lora={rank=2,last_blocks=3}"] {
        let config = load(BASE, &["model.lock=LL", argument]).unwrap();
        let text = config.to_toml().unwrap();
        assert!(text.contains("prefix = ") || text.contains("last_blocks = 3"), "{text}");
        assert_eq!(load(&text, &[]).unwrap(), config, "{argument}");
    }
    let lora = load(BASE, &["model.lock=LL", "model.text_lora={rank=2,last_blocks=3}"]).unwrap().model.text_lora;
    assert_eq!(lora.unwrap().adapters().last_blocks, Some(3));
    let found = errors(&[("lock = \"LU\"", "lock = \"LL\"\ntext_lora = { rank = 2, last_blocks = 0 }")], &[]);
    assert!(found.contains("`model.text_lora.last_blocks` is 0, expected at least 1"), "{found}");
    assert!(found.contains("help: remove the key for adapters in all blocks"), "{found}");
}

#[test]
fn cached_where_a_tower_trains_in_part() {
    let cached = |arguments: &[&str]| {
        let config = load(BASE, arguments).unwrap();
        let training = config.stages()[0].training;
        Tower::ALL.map(|tower| config.caches_prefix(tower, &training))
    };
    assert_eq!(cached(&["model.lock=LU"]), [false, false]);
    assert_eq!(cached(&PARTIAL), [true, false]);
    assert_eq!(cached(&["model.lock=UL", "model.text_lora={rank=1}"]), [false, true]);
    assert_eq!(cached(&["model.lock=LU", "model.text_unlock_last=0"]), [false, false]);
    let with = |more: &[&str]| cached(&[&PARTIAL[..], &["model.text_unlock_last=2"], more].concat());
    assert_eq!(with(&["cache.prefix=false"]), [false, false]);
    assert_eq!(with(&["cache.enabled=false", "cache.prefix=true"]), [false, false]);
    // Augmented images have cached views only where that is asked for.
    assert_eq!(with(&["data.augment.flip=0.5", "cache.views=2"]), [false, true]);
    assert_eq!(with(&["data.augment.flip=0.5", "cache.views=2", "cache.prefix=true"]), [true, true]);
}

#[test]
fn warnings_know_cached_states() {
    let warned = |more: &[&str]| {
        let config = load(BASE, &[&["model.text_unlock_last=1", "cache.dir=c"], &PARTIAL[..], more].concat()).unwrap();
        config.warnings().iter().any(|warning| warning.contains("`cache.") && warning.contains("has no effect"))
    };
    assert!(!warned(&[]));
    assert!(warned(&["cache.prefix=false"]));
    let augmented = ["data.augment.flip=0.5", "cache.views=2"];
    assert!(warned(&augmented));
    assert!(!warned(&[&augmented[..], &["cache.prefix=true"]].concat()));
}

#[test]
fn keys_without_effect_are_warned_of() {
    let augmented = ["data.augment.flip=0.5", "cache.views=2"];
    let full = ["model.lock=LL"];
    for (sets, expected) in [
        (&[&full[..], &["cache.prefix=true"]].concat(), "`cache.prefix` has no effect: no tower trains in part"),
        (
            &[&PARTIAL[..], &["cache.prefix=true", "cache.enabled=false"]].concat(),
            "`cache.prefix` has no effect: `cache.enabled` is false",
        ),
        (
            &[&PARTIAL[..], &augmented].concat(),
            "`cache.views` has no effect: the image tower trains; set `cache.prefix",
        ),
        (
            &["model.lock=UL", "model.text_unlock_last=1", "cache.prefix=false", "cache.dir=c"].to_vec(),
            "`cache.dir` has no effect: no tower is locked as a whole, and what locked layers compute is not cached",
        ),
        (&["model.lock=UU", "cache.dir=c"].to_vec(), "`cache.dir` has no effect: no tower is locked"),
        (
            &["model.lock=UU", "run.locked_precision=bf16"].to_vec(),
            "`run.locked_precision` has no effect: no tower is locked",
        ),
    ] {
        let warnings = load(BASE, sets).unwrap().warnings();
        assert!(warnings.iter().any(|warning| warning.starts_with(expected)), "{sets:?}: {warnings:?}");
    }
    let has = |sets: &[&str], key: &str| load(BASE, sets).unwrap().warnings().concat().contains(key);
    assert!(!has(&["model.lock=LU", "run.locked_precision=bf16"], "locked_precision"));
    assert!(!has(&[&PARTIAL[..], &["run.locked_precision=bf16"]].concat(), "locked_precision"));
    assert!(!has(&["model.lock=UU"], "locked_precision"));
    let warned = |sets: &[&str]| has(sets, "cache.prefix");
    assert!(!warned(&[&PARTIAL[..], &["cache.prefix=true"]].concat()));
    assert!(!warned(&[&full[..], &["cache.prefix=false"]].concat()));
}

#[test]
fn augmentation_alone_keeps_states_from_the_cache() {
    let off = |more: &[&str]| {
        let config = load(BASE, &[&PARTIAL[..], more].concat()).unwrap();
        config.augments_states(&config.stages()[0].training)
    };
    let flip = "data.augment.flip=0.5";
    assert!(off(&[flip, "cache.views=2"]));
    for other in ["cache.prefix=true", "cache.prefix=false", "cache.enabled=false"] {
        assert!(!off(&[flip, "cache.views=2", other]), "{other}");
    }
    assert!(!off(&[]));
}
