//! `dualenc index`, `search` and `classify`: what they find, and what they refuse.

use std::fs;

use serde_json::Value;

use crate::support::{Session, edit_floats, embedded, floats, goldens, stderr};

/// The rows of a tensor.
fn rows(session: &Session, name: &str) -> Vec<Vec<f64>> {
    let values = floats(&session.path("embeds.safetensors"), name);
    values.chunks(24).map(|row| row.iter().map(|&value| f64::from(value)).collect()).collect()
}

fn dot(left: &[f64], right: &[f64]) -> f64 {
    left.iter().zip(right).map(|(a, b)| a * b).sum()
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn search_finds_the_nearest() {
    let (session, model) = embedded();
    session.succeed(&["index", "embeds.safetensors", "--out", "images.index"]);
    let size = fs::metadata(session.path("images.index")).unwrap().len();
    assert!(size < fs::metadata(session.path("embeds.safetensors")).unwrap().len());
    let (images, texts) = (rows(&session, "image_embeds"), rows(&session, "text_embeds"));
    let queries = ["a green square", "blue stripes", "--image", "images/07.png"];
    for (index, tolerance) in [("embeds.safetensors", 1e-5), ("images.index", 1e-3)] {
        let arguments = ["search", "--model", &model, "--index", index, "--top", "24", "--json", "-"];
        let found = json(&session.succeed(&[&arguments[..], &queries].concat()));
        assert_eq!(found.as_array().unwrap().len(), 3);
        assert_eq!(found[0]["query"]["text"], "a green square");
        assert_eq!(found[2]["query"]["image"], "images/07.png");
        for (answer, query) in found.as_array().unwrap().iter().zip([&texts[1], &texts[2], &images[7]]) {
            let hits = answer["hits"].as_array().unwrap();
            assert_eq!(hits.len(), 24);
            let mut last = f64::INFINITY;
            for (rank, hit) in (1..).zip(hits) {
                let (row, score) = (hit["row"].as_u64().unwrap() as usize, hit["score"].as_f64().unwrap());
                assert!((score - dot(query, &images[row])).abs() < tolerance, "{hit}");
                assert!(score <= last && hit["rank"] == rank, "{hit}");
                assert!(hit["path"].as_str().unwrap().ends_with(&format!("images/{row:02}.png")), "{hit}");
                last = score;
            }
        }
        assert_eq!(found[2]["hits"][0]["row"], 7, "the image itself");
    }
    let table = session.succeed(&["search", "--model", &model, "--index", "images.index", "--top", "2", "a bee"]);
    let lines: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!((&lines[0], &lines[1], lines.len()), (&vec!["a", "bee"], &vec!["rank", "score", "path"], 4), "{table}");
    assert!(lines[2][0] == "1" && lines[2][2].ends_with(".png"), "{table}");

    let arguments = ["search", "--model", &model, "--index", "embeds.safetensors", "--among", "texts"];
    let found = json(&session.succeed(&[&arguments[..], &["blue stripes", "--top", "9", "--json", "-"]].concat()));
    let hits = found[0]["hits"].as_array().unwrap();
    assert_eq!((hits.len(), &hits[0]["text"], &hits[0]["path"]), (3, &"blue stripes".into(), &Value::Null));
    assert!((hits[0]["score"].as_f64().unwrap() - 1.0).abs() < 1e-5);
}

#[test]
fn search_refuses_what_does_not_fit() {
    let (session, model) = embedded();
    session.write("broken.png", "<html>404</html>");
    // A decoder describes it with a line feed at the end.
    session.write("damaged.jpg", b"\xff\xd8\xff\xe0notreallyajpeg");
    session.write("pairs.csv", "image,caption\n");
    session.write("wide.npy", {
        let header = format!("{:117}\n", "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 3), }");
        [b"\x93NUMPY\x01\x00\x76\x00".as_slice(), header.as_bytes(), &[0x3f; 12]].concat()
    });
    let search = |index: &'static str, query: &[&'static str]| {
        let arguments = ["search", "--model", &model, "--index", index];
        session.fail(2, &[&arguments[..], query].concat())
    };
    for (index, query, expected) in [
        ("none.index", &["a"][..], "cannot read `none.index`"),
        ("pairs.csv", &["a"], "`pairs.csv`: it is of an unknown kind"),
        ("wide.npy", &["a"], "`wide.npy` has embeddings of 3 values, but those of the model have 24"),
        ("embeds.safetensors", &["--image", "broken.png"], "`broken.png` cannot be searched for"),
        ("embeds.safetensors", &[], "[TEXT]... [--image <FILE>]..."),
        ("embeds.safetensors", &[""], "it is blank; give a text, or `--image FILE`"),
        ("embeds.safetensors", &["a", "--json", "none/x.json"], "`none` is not a directory; create it"),
        ("embeds.safetensors", &["--image", "damaged.jpg"], "; name another image"),
    ] {
        let text = search(index, query);
        assert!(text.contains(expected), "{text}");
        assert!(!text.contains("damaged") || text.lines().count() == 1, "{text}");
    }
    let mut bytes = fs::read(session.path("embeds.safetensors")).unwrap();
    bytes.truncate(bytes.len() - 5);
    session.write("cut.safetensors", &bytes);
    let text = session.fail(2, &["index", "cut.safetensors", "--out", "new.index"]);
    assert!(text.contains("`cut.safetensors`: it"), "{text}");
    assert!(!session.path("new.index").exists());
}

#[test]
fn search_refuses_another_model() {
    let (session, model) = embedded();
    session.succeed(&["index", "embeds.safetensors", "--out", "images.index"]);
    session.copy("train/init", "other");
    edit_floats(&session.path("other/model.safetensors"), "text_projection.weight", |value| value * 1.01);
    for index in ["embeds.safetensors", "images.index"] {
        let text = session.fail(2, &["search", "--model", "other", "--index", index, "a"]);
        assert!(text.contains("written by a model with other weights") && text.contains(index), "{text}");
    }
    // An export of the same weights is the same model.
    session.succeed(&["export", "--model", &model, "--out", "same"]);
    session.succeed(&["search", "--model", "same", "--index", "images.index", "a"]);
}

#[test]
fn classify_agrees_with_embeds() {
    let (session, model) = embedded();
    let labels = "a red circle,a green square,blue stripes";
    let classify = ["classify", "--model", &model, "--labels"];
    let found = json(&session.succeed(&[&classify[..], &[labels, "images", "--json", "-"]].concat()));
    let (images, texts) = (rows(&session, "image_embeds"), rows(&session, "text_embeds"));
    let scale = f64::from(floats(&goldens("train/init").join("model.safetensors"), "logit_scale")[0]).exp();
    assert_eq!((found["images"].as_array().unwrap().len(), &found["skipped"]), (24, &Value::Array(Vec::new())));
    for (image, found) in images.iter().zip(found["images"].as_array().unwrap()) {
        let powers: Vec<f64> = texts.iter().map(|text| (scale * dot(text, image)).exp()).collect();
        let labels_found = found["labels"].as_array().unwrap();
        let total: f64 = labels_found.iter().map(|label| label["softmax"].as_f64().unwrap()).sum();
        assert!((total - 1.0).abs() < 1e-9 && labels_found.len() == 3, "{found}");
        for label in labels_found {
            let at = labels.split(',').position(|name| label["label"] == name).unwrap();
            let expected = powers[at] / powers.iter().sum::<f64>();
            assert!((label["softmax"].as_f64().unwrap() - expected).abs() < 1e-5, "{label}, expected {expected}");
        }
        assert!(labels_found.is_sorted_by(|a, b| a["softmax"].as_f64() >= b["softmax"].as_f64()));
    }

    // A file of labels without their articles, and a template that adds them.
    session.write("labels.txt", "red circle\ngreen square\n");
    let template = ["labels.txt", "images/03.png", "--template", "a {}"];
    let table = session.succeed(&[&classify[..], &template].concat());
    let whole = session.succeed(&[&classify[..], &["a red circle,a green square", "images/03.png"]].concat());
    let numbers = |text: &str| {
        let numbers = text.split_whitespace().filter_map(|word| word.parse::<f64>().ok());
        numbers.collect::<Vec<_>>()
    };
    assert_eq!(numbers(&table), numbers(&whole));
    assert!(numbers(&table).len() == 4 && table.contains("  red circle\n"), "{table}");
}

#[test]
fn unreadable_images_are_named() {
    let (session, model) = embedded();
    session.write("images/05.png", "<html>404</html>");
    session.write("prompts.txt", "a flag\nanother flag\n");
    let classify = ["classify", "--model", &model, "--labels", "a,b"];
    let output = session.run(&[&classify[..], &["images", "--json", "-"]].concat());
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("images/05.png"), "{}", stderr(&output));
    let found = json(&String::from_utf8(output.stdout).unwrap());
    assert_eq!(found["images"].as_array().unwrap().len(), 23);
    assert!(found["skipped"][0]["image"].as_str().unwrap().ends_with("images/05.png"));
    let table = session.problems(&[&classify[..], &["images"]].concat());
    assert!(table.ends_with("\n1 image was skipped\n"), "{table}");
    for (more, expected) in [
        (&["images/05.png"][..], "the image cannot be used: `images/05.png`"),
        (&["prompts.txt"], "`prompts.txt` is not an image, and as a table of images it cannot be read"),
        (&["images", "--json", "none/x.json"], "`none` is not a directory; create it"),
        (&["none"], "none"),
        (&["images", "--template", "a photo"], "has no `{c}`"),
    ] {
        let text = session.fail(2, &[&classify[..], more].concat());
        assert!(text.contains(expected), "{text}");
    }
    let text = session.fail(2, &["classify", "--model", &model, "--labels", "a,a", "images"]);
    assert!(text.contains("has `a` more than once"), "{text}");
    let one = session.run(&["classify", "--model", &model, "--labels", "a", "images/01.png"]);
    assert!(one.status.success() && stderr(&one).contains("its softmax is 1"), "{}", stderr(&one));
}
