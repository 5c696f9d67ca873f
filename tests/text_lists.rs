//! Class names, templates and texts to embed, in the forms that people have them.

use std::fs;

use serde_json::{Value, json};

use crate::support::{Session, floats, goldens, stderr};

/// A folder of two classes, which hold two images each.
fn classes(session: &Session) {
    for (at, class) in ["Fire_Ant", "owl"].iter().enumerate() {
        fs::create_dir_all(session.path(&format!("eval/{class}"))).unwrap();
        for image in 0..2 {
            let source = goldens(&format!("train/images/{:02}.png", 2 * at + image));
            fs::copy(source, session.path(&format!("eval/{class}/{image}.png"))).unwrap();
        }
    }
}

/// The figures of a zero-shot evaluation, and what it wrote to stderr.
fn evaluate(session: &Session, more: &[&str]) -> (Value, String) {
    let model = goldens("whole/clip");
    let arguments = ["eval", "--model", model.to_str().unwrap(), "--task", "zero-shot", "--images", "eval"];
    let output = session.run(&[&arguments[..], &["--json", "-"], more].concat());
    let text = stderr(&output);
    assert!(output.status.success(), "{more:?}: {text}");
    (serde_json::from_slice(&output.stdout).unwrap(), text)
}

#[test]
fn forms_of_lists_have_the_same_figures() {
    let session = Session::new();
    classes(&session);
    session.write("t.txt", "a photo of a {c}.\nmany {c}\n");
    session.write("n.txt", "ant\nbird\n");
    let expected = evaluate(&session, &["--classnames", "n.txt", "--templates", "t.txt"]);
    assert_eq!(expected.0["num_classes"], 2);
    session.write("n_bom.txt", "\u{feff}ant\r\nbird\r\n");
    session.write("n.json", "{\"1\": \"bird\", \"0\": \"ant\"}");
    session.write("t.json", "{\"imagenet1k\": [\"a photo of a {c}.\", \"many {}\"]}");
    session.write("t.py", "T = [\n    lambda c: f'a photo of a {c}.',\n    lambda c: f'many {c}',\n]\n");
    session.write("eval/__MACOSX/owl/._0.png", "");
    for (names, templates) in [("n_bom.txt", "t.txt"), ("n.json", "t.json"), ("n.txt", "t.py")] {
        assert_eq!(evaluate(&session, &["--classnames", names, "--templates", templates]), expected, "{templates}");
    }
    session.write("cls.txt", "a {cls}\n");
    session.write("latin.txt", b"ant\nch\xe8vre\n");
    let model = goldens("whole/clip");
    let model = ["eval", "--task", "zero-shot", "--images", "eval", "--model", model.to_str().unwrap()];
    for (key, file, expected) in [
        ("--templates", "cls.txt", "`cls.txt`: line 1: the template `a {cls}` has the placeholder `{cls}`"),
        ("--classnames", "latin.txt", "`latin.txt`: not UTF-8 at byte 3 of line 2, 0xE8"),
    ] {
        let text = session.fail(2, &[&model[..], &[key, file]].concat());
        assert!(text.contains(expected), "{text}");
    }
}

#[test]
fn classes_with_one_name_are_warned_of() {
    let session = Session::new();
    classes(&session);
    session.write("n.txt", "crane\ncrane\n");
    let warning = "several classes have the same name, so that no model can tell them apart: `crane`";
    assert!(evaluate(&session, &["--classnames", "n.txt"]).1.contains(warning));
    assert!(!evaluate(&session, &[]).1.contains("warning"));
    session.write_config("[eval.z]\ntask = \"zero-shot\"\nimages = \"eval\"\nclassnames = \"n.txt\"\n");
    assert!(session.succeed(&["check", "--config", "lit.toml"]).contains(warning));
}

#[test]
fn texts_embed_alike_in_every_encoding() {
    let session = Session::new();
    let text = "a café\nthe blue sea\n";
    let utf16: Vec<u8> = "\u{feff}".encode_utf16().chain(text.encode_utf16()).flat_map(u16::to_le_bytes).collect();
    session.write("plain.txt", text);
    session.write("bom.txt", format!("\u{feff}{}", text.replace('\n', "\r\n")));
    session.write("utf16.txt", utf16);
    session.write("list.json", "[\"a café\", \"the blue sea\"]");
    let model = goldens("whole/clip");
    let embed = |texts: &str| {
        let arguments = ["embed", "--model", model.to_str().unwrap(), "--out", "out.safetensors", "--texts", texts];
        session.succeed(&arguments);
        fs::read(session.path("out.safetensors")).unwrap()
    };
    let expected = embed("plain.txt");
    for texts in ["bom.txt", "utf16.txt", "list.json"] {
        assert!(embed(texts) == expected, "{texts}");
    }
    let (_, metadata) = safetensors::SafeTensors::read_metadata(&expected).unwrap();
    let metadata = metadata.metadata().clone().unwrap();
    let texts: Value = serde_json::from_str(&metadata["texts"]).unwrap();
    assert_eq!((texts, metadata["num_texts"].as_str()), (json!(["a café", "the blue sea"]), "2"));
}

#[test]
fn embed_counts_what_it_leaves_out() {
    let session = Session::new();
    let model = goldens("train/init");
    let embed = ["embed", "--model", model.to_str().unwrap(), "--out", "out.safetensors", "--images"];
    for name in ["a.heic", "b.HEIC", "sub/c.svg", ".hidden.svg"] {
        session.write(&format!("images/{name}"), "x");
    }
    let text = session.fail(2, &[&embed[..], &["images"]].concat());
    assert!(text.contains("`images` has no images: 3 files left out: heic (2), svg (1); expected an image"), "{text}");
    assert!(text.contains("; convert the HEIC images: `for f in *.heic; do magick "), "{text}");
    assert!(!session.path("out.safetensors").exists());
    fs::copy(goldens("train/images/00.png"), session.path("images/0.png")).unwrap();
    let text = session.succeed(&[&embed[..], &["images"]].concat());
    assert!(text.ends_with("to out.safetensors; 3 files left out: heic (2), svg (1)\n"), "{text}");
    // Two outputs of the same inputs are equal, whatever is in the metadata.
    session.write("texts.txt", "a\nb\n");
    let with_texts = |out: &str| {
        session.succeed(&[&embed[..3], &["--images", "images", "--texts", "texts.txt", "--out", out]].concat());
        fs::read(session.path(out)).unwrap()
    };
    assert!(with_texts("one.safetensors") == with_texts("two.safetensors"));
    assert_eq!(floats(&session.path("one.safetensors"), "text_embeds").len(), 2 * 24);
}
