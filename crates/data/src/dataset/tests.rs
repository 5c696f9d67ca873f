use std::path::Path;

use super::*;
use crate::dataset::builder::DatasetBuilder;

const ROWS: [(&str, &str); 4] = [("a.png", "A cat"), ("b.png", "a  dog "), ("a.png", "a CAT"), ("a.png", "sleeping")];

fn sample(root: &str) -> Dataset {
    let mut builder = DatasetBuilder::new(root);
    for (image, caption) in ROWS {
        assert!(builder.push(ImageRef::File(Path::new(root).join(image)), caption));
    }
    assert!(!builder.push(ImageRef::File(Path::new(root).join("c.png")), "  "));
    builder.build()
}

#[test]
fn rows_share_images() {
    let dataset = sample("/data");
    assert_eq!(dataset.num_images(), 2);
    assert_eq!(dataset.captions_of(0), [0, 2, 3]);
    assert_eq!(dataset.captions_of(1), [1]);
    assert_eq!(dataset.caption(1).text, "a  dog");
    assert_eq!(dataset.num_pairs(CaptionMode::All), 4);
    assert_eq!(dataset.num_pairs(CaptionMode::One), 2);
    assert_eq!(dataset.pair(CaptionMode::All, 2, 0, 0), Pair { image: 0, caption: 2 });
}

#[test]
fn one_caption_per_epoch() {
    let dataset = sample("/data");
    let choices: Vec<_> = (0..300).map(|epoch| dataset.pair(CaptionMode::One, 0, 5, epoch).caption).collect();
    for caption in [0, 2, 3] {
        let count = choices.iter().filter(|&&choice| choice == caption).count();
        assert!((70..130).contains(&count), "caption {caption} chosen {count} of 300 times");
    }
    assert_eq!(choices[7], dataset.pair(CaptionMode::One, 0, 5, 7).caption);
}

#[test]
fn caption_ids_ignore_case_and_space() {
    let ids = sample("/data").caption_ids();
    assert_eq!(ids[0], ids[2]);
    assert_ne!(ids[0], ids[1]);
    assert_ne!(ids[2], ids[3]);
}

#[test]
fn fingerprint_ignores_location_only() {
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for dir in [&first, &second] {
        std::fs::write(dir.path().join("a.png"), b"12345").unwrap();
        std::fs::write(dir.path().join("b.png"), b"123").unwrap();
    }
    let (one, two) = (sample(first.path().to_str().unwrap()), sample(second.path().to_str().unwrap()));
    assert_eq!(one.fingerprint().unwrap(), two.fingerprint().unwrap());
    let before = one.fingerprint().unwrap();
    std::fs::write(first.path().join("b.png"), b"1234").unwrap();
    assert_ne!(one.fingerprint().unwrap(), before, "a file that grew");
    let changed = |rows: [(&str, &str); 4]| {
        let mut builder = DatasetBuilder::new(second.path());
        for (image, caption) in rows {
            builder.push(ImageRef::File(second.path().join(image)), caption);
        }
        builder.build().fingerprint().unwrap()
    };
    let mut rows = ROWS;
    assert_eq!(changed(rows), two.fingerprint().unwrap());
    rows[3].1 = "sleeping!";
    assert_ne!(changed(rows), two.fingerprint().unwrap(), "an edited caption");
    rows = ROWS;
    rows.swap(0, 1);
    assert_ne!(changed(rows), two.fingerprint().unwrap(), "another order");
}

#[test]
fn counts_missing_files() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("0.png"), b"x").unwrap();
    let mut builder = DatasetBuilder::new(dir.path());
    for index in 0..1000 {
        builder.push(ImageRef::File(dir.path().join(format!("{index}.png"))), "x");
    }
    let missing = builder.build().missing_files(2).unwrap();
    assert_eq!(missing.count, 999);
    assert_eq!(missing.first, [dir.path().join("1.png"), dir.path().join("2.png")]);
}

#[cfg(unix)]
#[test]
fn unknown_length_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let dataset = sample(dir.path().to_str().unwrap());
    assert!(dataset.fingerprint().is_ok(), "missing files are bad images, not errors");
    // A link to itself stands for a file that the disk cannot read.
    std::os::unix::fs::symlink("b.png", dir.path().join("b.png")).unwrap();
    for error in [dataset.fingerprint().unwrap_err(), dataset.missing_files(1).unwrap_err()] {
        assert!(matches!(&error, DataError::Read { path, .. } if path.ends_with("b.png")), "{error}");
    }
}

#[test]
fn fingerprint_is_pinned() {
    // A change here refuses to resume every run.
    let found = blake3::Hash::from(sample("/nowhere").fingerprint().unwrap()).to_hex();
    assert_eq!(found.as_str(), "4210bc3d422327841f8114aa61bf89810599c67f7c00014f1f87c4f58b183eb6");
}

/// Rows `0..rows` of `images` images, with captions in two slots.
fn numbered(root: &str, rows: usize, images: usize) -> Dataset {
    let mut builder = DatasetBuilder::new(root);
    for row in 0..rows {
        let image = ImageRef::File(Path::new(root).join(format!("{}.png", row % images)));
        builder.push_slot(image, &format!("{root} {row}"), (row / images % 2) as u8);
    }
    builder.build()
}

#[test]
fn sources_keep_their_weights() {
    let weighted = |dataset: Dataset, weight| dataset.with_use(weight, &[], &[]);
    let all =
        Dataset::concat(vec![numbered("/a", 8, 4), weighted(numbered("/b", 4, 2), 2.5), weighted(sample("/c"), 0.5)]);
    assert_eq!((all.num_images(), all.num_captions(), all.parts().len()), (8, 16, 3));
    assert_eq!(all.num_pairs(CaptionMode::All), 8 + 10 + 2);
    assert_eq!(all.num_pairs(CaptionMode::One), 4 + 5 + 1);
    assert_eq!(all.image(7).key(), "/c/b.png");
    assert_eq!(all.caption(13).text, "a  dog");
    let mut counts = vec![0; 16];
    for epoch in 0..2 {
        for index in 0..all.num_pairs(CaptionMode::All) {
            let pair = all.pair(CaptionMode::All, index, 3, epoch);
            assert_eq!(all.caption(pair.caption).image, pair.image);
            counts[pair.caption] += 1;
        }
    }
    assert_eq!(counts, [[2; 8].as_slice(), &[5; 4], &[1; 4]].concat());
    let same = Dataset::concat(vec![numbered("/a", 8, 4)]);
    assert_eq!(same.fingerprint().unwrap(), numbered("/a", 8, 4).fingerprint().unwrap());
    let heavier = weighted(numbered("/a", 8, 4), 2.0);
    assert_ne!(same.fingerprint().unwrap(), heavier.fingerprint().unwrap());
}

#[test]
fn caption_weights_are_frequencies() {
    let weighted = |weights: &[f64]| numbered("/a", 4, 2).with_use(1.0, weights, &[]);
    let first = |dataset: &Dataset| {
        let drawn = (0..1000).map(|epoch| dataset.pair(CaptionMode::One, 0, 5, epoch).caption);
        drawn.filter(|&caption| caption == 0).count()
    };
    assert!((430..570).contains(&first(&weighted(&[]))));
    assert!((700..800).contains(&first(&weighted(&[3.0, 1.0]))));
    assert_eq!(first(&weighted(&[0.0, 1.0])), 0);
    assert!((430..570).contains(&first(&weighted(&[0.0, 0.0]))), "no caption has a weight");
    assert!((430..570).contains(&first(&weighted(&[1.0]))), "a slot without a weight has 1");
}

#[test]
fn split_is_stable() {
    let names = |dataset: &Dataset| (0..dataset.num_images()).map(|it| dataset.relative_key(it)).collect::<Vec<_>>();
    let (rest, share) = numbered("/a", 2000, 1000).split(0.1);
    assert_eq!(rest.num_images() + share.num_images(), 1000);
    assert!((70..130).contains(&share.num_images()), "{}", share.num_images());
    assert_eq!(share.num_captions(), 2 * share.num_images());
    for caption in share.captions() {
        let row: usize = caption.text[3..].parse().unwrap();
        assert_eq!(share.image(caption.image).key(), format!("/a/{}.png", row % 1000));
    }
    let (_, moved) = numbered("/b", 500, 500).split(0.1);
    let number = |name: &String| name.trim_end_matches(".png").parse::<usize>().unwrap();
    let expected: Vec<_> = names(&share).into_iter().filter(|name| number(name) < 500).collect();
    assert_eq!(names(&moved), expected);
    assert_eq!(numbered("/a", 10, 10).split(0.0).1.num_images(), 0);
    assert_eq!(numbered("/a", 10, 10).split(1.0).0.num_images(), 0);
}

#[test]
fn prompts_are_drawn_from_templates() {
    let templates = ["a photo of {c}".to_owned(), "{c}, {c}".to_owned()];
    let dataset = Dataset::concat(vec![numbered("/a", 2, 2), sample("/b").with_use(1.0, &[], &templates)]);
    assert_eq!(dataset.text(1, 0, 0), "/a 1");
    let drawn: std::collections::BTreeSet<_> = (0..20).map(|epoch| dataset.text(2, 1, epoch)).collect();
    assert_eq!(drawn, ["A cat, A cat", "a photo of A cat"].map(Cow::from).into());
    assert_eq!(dataset.text(2, 1, 7), dataset.text(2, 1, 7));
    assert!(dataset.has_templates() && !sample("/b").has_templates());
    assert_eq!(dataset.texts(0).collect::<Vec<_>>(), ["/a 0"]);
    assert_eq!(dataset.texts(2).collect::<Vec<_>>(), ["a photo of A cat", "A cat, A cat"]);
    assert_ne!(sample("/b").fingerprint().unwrap(), sample("/b").with_use(1.0, &[], &templates).fingerprint().unwrap());
}

#[test]
fn class_numbers_become_names() {
    let labelled = |labels: [&str; 2]| {
        let mut builder = DatasetBuilder::new("/a");
        labels.iter().zip(["a.png", "b.png"]).for_each(|(label, name)| {
            builder.push(ImageRef::File(Path::new("/a").join(name)), label);
        });
        builder.build().with_class_names(&["cat".to_owned(), "red panda".to_owned()])
    };
    let named = labelled(["1", "0"]).unwrap();
    assert_eq!(named.captions().map(|caption| caption.text).collect::<Vec<_>>(), ["red panda", "cat"]);
    let error = labelled(["1", "2"]).unwrap_err().to_string();
    assert!(error.contains("image `/a/b.png` has the label `2`; expected a number from 0 to 1"), "{error}");
}

#[test]
fn one_file_is_on_one_side() {
    let list = |root: &str, prefix: &str| {
        let mut builder = DatasetBuilder::new(root);
        for image in 0..200 {
            builder.push(ImageRef::File(Path::new(root).join(format!("{prefix}{image}.png"))), "x");
        }
        builder.build()
    };
    let held_out = |dataset: &Dataset| -> std::collections::BTreeSet<String> {
        let (rest, share) = dataset.split(0.5);
        let names = |side: &Dataset| {
            side.images().map(|image| image.path().file_name().unwrap().to_str().unwrap().to_owned()).collect()
        };
        let (rest, share): (std::collections::BTreeSet<String>, _) = (names(&rest), names(&share));
        assert!(rest.is_disjoint(&share) && rest.len() > 50 && share.len() > 50);
        share
    };
    assert_eq!(held_out(&list("/a", "im/")), held_out(&list("/a", "./im/../im/")));
    held_out(&Dataset::concat(vec![list("/a", "im/"), list("/a/im", ""), list("/a", "im/../im/")]));
    let mut warned = list("/a", "");
    warned.skipped.note("no image", || "row 3".to_owned());
    let (rest, share) = warned.split(0.5);
    assert_eq!((rest.skipped.count, share.skipped.count), (1, 0));
}
