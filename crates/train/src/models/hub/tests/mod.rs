//! Runs against a small local hub.

mod server;

use std::net::TcpListener;
use std::path::Path;

use crate::config::tower_reference::is_hub_id;
use crate::models::hub::error::HubError;
use crate::models::hub::model_files::{MODULES, OPEN_CLIP, WEIGHTS, WEIGHTS_INDEX};
use crate::models::hub::progress::Progress;
use crate::models::hub::resolve::resolve;
use crate::models::hub::settings::Hub;
use crate::models::hub::tests::server::{COMMIT, Server, State, sha256_hex};

const TOWER: [(&str, &str); 4] = [
    ("config.json", "{\"model_type\": \"vit\"}"),
    ("preprocessor_config.json", "{\"size\": 8}"),
    ("1_Pooling/config.json", "{\"pooling_mode_mean_tokens\": true}"),
    ("model.safetensors", "weights"),
];

fn ignore_progress(_: Progress<'_>) {}

#[test]
fn second_resolve_uses_the_cache() {
    let server = Server::start(&TOWER);
    let cache = tempfile::tempdir().unwrap();
    let hub = server.hub(cache.path());
    let mut seen = Vec::new();
    let dir = hub.resolve("org/tiny", &mut |progress| {
        seen.push((progress.file.to_owned(), progress.bytes, progress.total_bytes))
    });
    let dir = dir.unwrap();
    assert_eq!(dir, cache.path().join("hub/models--org--tiny/snapshots").join(COMMIT));
    for (file, text) in TOWER {
        assert_eq!(std::fs::read_to_string(dir.join(file)).unwrap(), text);
    }
    assert_eq!(seen.last(), Some(&("model.safetensors".to_owned(), 7, 7)));

    // After the first file, every request names the commit of that file.
    let requests = server.requests();
    let at_branch: Vec<_> = requests.iter().filter(|path| path.contains("/resolve/main/")).collect();
    assert!(at_branch.iter().all(|path| path.ends_with("/config.json")), "{at_branch:?}");
    assert!(requests.contains(&format!("/org/tiny/resolve/{COMMIT}/tokenizer.json")));
    assert!(!requests.iter().any(|path| path.ends_with("with token")), "a public model needs no token: {requests:?}");

    // The second time there is no request at all: absent files are recorded too.
    let absent = cache.path().join("hub/models--org--tiny/.no_exist").join(COMMIT);
    assert!(absent.join("tokenizer.json").is_file(), "where `huggingface_hub` puts it too");
    let before = server.requests().len();
    assert_eq!(hub.resolve("org/tiny", &mut ignore_progress).unwrap(), dir);
    assert_eq!(server.requests().len(), before);

    drop(server);
    let offline = Hub { offline: true, ..hub };
    assert_eq!(offline.resolve("org/tiny", &mut ignore_progress).unwrap(), dir);
}

#[test]
fn private_repository_needs_the_token() {
    let server = Server::start(&TOWER);
    let cache = tempfile::tempdir().unwrap();
    let hub = server.hub(cache.path());
    let dir = hub.resolve("secret/tiny", &mut ignore_progress).unwrap();
    assert_eq!(std::fs::read(dir.join("model.safetensors")).unwrap(), b"weights");

    let other = tempfile::tempdir().unwrap();
    let stranger = Hub { token: None, ..server.hub(other.path()) };
    assert!(matches!(
        stranger.resolve("secret/tiny", &mut ignore_progress),
        Err(HubError::NotFound { status: 401, .. })
    ));
}

#[test]
fn follows_renamed_repository() {
    let server = Server::start(&TOWER);
    let cache = tempfile::tempdir().unwrap();
    let dir = server.hub(cache.path()).resolve("old/tiny", &mut ignore_progress).unwrap();
    assert_eq!(std::fs::read(dir.join("model.safetensors")).unwrap(), b"weights");
}

#[test]
fn pooling_dir_comes_from_modules_json() {
    let modules = r#"[{"path": "", "type": "sentence_transformers.models.Transformer"},
        {"path": "2_Pooling", "type": "sentence_transformers.models.Pooling"}]"#;
    let server = Server::start(&[TOWER[0], TOWER[3], (MODULES, modules), ("2_Pooling/config.json", "{}")]);
    let cache = tempfile::tempdir().unwrap();
    let dir = server.hub(cache.path()).resolve("org/tiny", &mut ignore_progress).unwrap();
    assert!(dir.join("2_Pooling/config.json").is_file() && dir.join(MODULES).is_file());

    let outside = modules.replace("2_Pooling", "../..");
    let server = Server::start(&[TOWER[0], TOWER[2], TOWER[3], (MODULES, &outside)]);
    let cache = tempfile::tempdir().unwrap();
    let dir = server.hub(cache.path()).resolve("org/tiny", &mut ignore_progress).unwrap();
    assert!(dir.join("1_Pooling/config.json").is_file());
}

#[test]
fn dense_layers_come_from_modules_json() {
    let modules = r#"[{"path": "", "type": "sentence_transformers.models.Transformer"},
        {"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
        {"path": "2_Dense", "type": "sentence_transformers.base.modules.dense.Dense"},
        {"path": "../3_Dense", "type": "sentence_transformers.models.Dense"}]"#;
    let dense = [("2_Dense/config.json", "{}"), ("2_Dense/model.safetensors", "dense")];
    let server = Server::start(&[&TOWER[..], &dense, &[(MODULES, modules)]].concat());
    let cache = tempfile::tempdir().unwrap();
    let hub = server.hub(cache.path());
    let dir = hub.resolve("org/tiny", &mut ignore_progress).unwrap();
    assert_eq!(std::fs::read(dir.join("2_Dense/model.safetensors")).unwrap(), b"dense");
    assert!(dir.join("2_Dense/config.json").is_file());
    assert!(!server.requests().iter().any(|path| path.contains("3_Dense")), "{:?}", server.requests());
    let before = server.requests().len();
    hub.resolve("org/tiny", &mut ignore_progress).unwrap();
    assert_eq!(server.requests().len(), before);
}

#[test]
fn open_clip_weights_without_model_type() {
    let files = [(OPEN_CLIP[0], "{}"), (OPEN_CLIP[1], "open weights"), TOWER[3]];
    for (config, comes) in [("{\"architecture\": \"vit\"}", true), ("{\"model_type\": \"clip\"}", false)] {
        let server = Server::start(&[&files[..], &[("config.json", config)]].concat());
        let cache = tempfile::tempdir().unwrap();
        let dir = server.hub(cache.path()).resolve("org/tiny", &mut ignore_progress).unwrap();
        assert_eq!((dir.join(OPEN_CLIP[1]).is_file(), dir.join(WEIGHTS).is_file()), (comes, !comes), "{config}");
    }
}

#[test]
fn downloads_all_shards() {
    let index =
        r#"{"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors", "c": "model-1.safetensors"}}"#;
    let files =
        [("config.json", "{}"), (WEIGHTS_INDEX, index), ("model-1.safetensors", "one"), ("model-2.safetensors", "two")];
    let server = Server::start(&files);
    let cache = tempfile::tempdir().unwrap();
    let hub = server.hub(cache.path());
    let dir = hub.resolve("org/tiny", &mut ignore_progress).unwrap();
    assert_eq!(std::fs::read(dir.join("model-2.safetensors")).unwrap(), b"two");
    let before = server.requests().len();
    hub.resolve("org/tiny", &mut ignore_progress).unwrap();
    assert_eq!(server.requests().len(), before);

    let server = Server::start(&files[..3]);
    let other = tempfile::tempdir().unwrap();
    let error = server.hub(other.path()).resolve("org/tiny", &mut ignore_progress).unwrap_err();
    assert_eq!(
        error.to_string(),
        "`org/tiny` has no `model-2.safetensors`; the index of its weights lists this file: the upload is incomplete"
    );
}

#[test]
fn rejects_index_with_outside_paths() {
    for (index, reason) in [
        (
            r#"{"weight_map": {"a": "../../config.json"}}"#,
            "it lists \"../../config.json\", which is not a plain file name",
        ),
        ("[]", "invalid length 0, expected struct Index with 1 element at line 1 column 2"),
    ] {
        let server = Server::start(&[("config.json", "{}"), (WEIGHTS_INDEX, index)]);
        let cache = tempfile::tempdir().unwrap();
        let error = server.hub(cache.path()).resolve("org/tiny", &mut ignore_progress).unwrap_err();
        let path = cache.path().join("hub/models--org--tiny/snapshots").join(COMMIT).join(WEIGHTS_INDEX);
        let path = path.display();
        assert_eq!(
            error.to_string(),
            format!("`{path}` is not an index of safetensors files: {reason}; remove it to download it again")
        );
    }
}

#[test]
fn unknown_repository_message() {
    let server = Server::start(&TOWER);
    let cache = tempfile::tempdir().unwrap();
    for (reference, status) in [("org/tyni", 404), ("secret/other", 404)] {
        let error = server.hub(cache.path()).resolve(reference, &mut ignore_progress).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "`{reference}` is not a local directory, and the hub at `http://127.0.0.1:{}` does not find it (status \
                 {status}); check the path (relative paths start at the config file), the spelling of the id, and \
                 `HF_TOKEN` if the model is private or gated",
                server.port
            )
        );
    }
}

#[test]
fn missing_required_file_message() {
    let server = Server::start(&[("pytorch_model.bin", "pickle"), ("config.json", "{}")]);
    let cache = tempfile::tempdir().unwrap();
    assert_eq!(
        server.hub(cache.path()).resolve("org/tiny", &mut ignore_progress).unwrap_err().to_string(),
        "`org/tiny` has no `model.safetensors`; only safetensors weights can be read: save the model again with a \
         current transformers"
    );
    let server = Server::start(&[("README.md", "hello")]);
    let cache = tempfile::tempdir().unwrap();
    assert_eq!(
        server.hub(cache.path()).resolve("org/tiny", &mut ignore_progress).unwrap_err().to_string(),
        "`org/tiny` has no `config.json`; it is not a Hugging Face model"
    );
}

#[test]
fn offline_message_names_missing_file() {
    let cache = tempfile::tempdir().unwrap();
    let hub = Hub { endpoint: String::new(), cache_dir: cache.path().to_owned(), token: None, offline: true };
    let repo = cache.path().join("models--org--tiny");
    let message = |file: &str, looked_in: &Path| {
        format!(
            "`org/tiny` is not a local directory, `HF_HUB_OFFLINE` is set, and the cache has no `{file}` for it \
             (looked in `{}`); run once with network access, or copy the model's files to a directory and give its \
             path",
            looked_in.display()
        )
    };
    let error = hub.resolve("org/tiny", &mut ignore_progress).unwrap_err();
    assert_eq!(error.to_string(), message("config.json", &repo));

    let snapshot = repo.join("snapshots").join(COMMIT);
    std::fs::create_dir_all(&snapshot).unwrap();
    std::fs::create_dir_all(repo.join("refs")).unwrap();
    std::fs::write(repo.join("refs/main"), COMMIT).unwrap();
    std::fs::write(snapshot.join("config.json"), "{}").unwrap();
    let error = hub.resolve("org/tiny", &mut ignore_progress).unwrap_err();
    assert_eq!(error.to_string(), message("model.safetensors", &snapshot));

    std::fs::write(snapshot.join("model.safetensors"), "weights").unwrap();
    assert_eq!(hub.resolve("org/tiny", &mut ignore_progress).unwrap(), snapshot);
}

#[test]
fn unreachable_server_keeps_its_cause() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let endpoint = format!("http://127.0.0.1:{port}");
    let cache = tempfile::tempdir().unwrap();
    let hub = Hub { endpoint: endpoint.clone(), cache_dir: cache.path().to_owned(), token: None, offline: false };
    let error = hub.resolve("org/tiny", &mut ignore_progress).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "`org/tiny` is not a local directory, and `config.json` cannot be downloaded from `{endpoint}`; check the \
             path, the network, `HF_ENDPOINT` and free disk space"
        )
    );
    assert!(std::error::Error::source(&error).is_some());
}

#[test]
fn resumes_interrupted_download() {
    // What is there, and the first byte of the last request: the rest, or the whole file.
    for (there, first) in [("wei", 3), ("weights", 0), ("weights and more", 0)] {
        let server = Server::start(&TOWER);
        let cache = tempfile::tempdir().unwrap();
        let hub = server.hub(cache.path());
        let blobs = hub.cache_dir.join("models--org--tiny/blobs");
        std::fs::create_dir_all(&blobs).unwrap();
        std::fs::write(blobs.join("etag-model-safetensors.part"), there).unwrap();
        let dir = hub.resolve("org/tiny", &mut ignore_progress).unwrap();
        assert_eq!(std::fs::read_to_string(dir.join("model.safetensors")).unwrap(), "weights", "after {there:?}");
        let ranges = server.state.ranges.lock().unwrap();
        let of_weights: Vec<&str> =
            ranges.iter().filter(|(path, _)| path.ends_with(WEIGHTS)).map(|(_, range)| range.as_str()).collect();
        assert!(
            of_weights.last().is_some_and(|range| range.starts_with(&format!("bytes={first}-"))),
            "after {there:?}: {of_weights:?}"
        );
    }
}

#[test]
fn removes_download_of_wrong_size() {
    let server = Server::start_with(&TOWER, true);
    let cache = tempfile::tempdir().unwrap();
    let hub = server.hub(cache.path());
    let blobs = hub.cache_dir.join("models--org--tiny/blobs");
    std::fs::create_dir_all(&blobs).unwrap();
    std::fs::write(blobs.join("etag-model-safetensors.part"), "wei").unwrap();
    let error = hub.resolve("org/tiny", &mut ignore_progress).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the download of `model.safetensors` of `org/tiny` has 10 bytes, expected 7; it was removed, try again"
    );
    let dir = hub.resolve("org/tiny", &mut ignore_progress).unwrap();
    assert_eq!(std::fs::read_to_string(dir.join("model.safetensors")).unwrap(), "weights");
}

#[test]
fn checks_hash_of_large_files() {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::serve(&TOWER, State { announced: Some("weights"), ..State::default() });
    let dir = server.hub(cache.path()).resolve("org/tiny", &mut ignore_progress).unwrap();
    assert_eq!(std::fs::read_to_string(dir.join(WEIGHTS)).unwrap(), "weights");

    // As long as what was announced, but not the same.
    let cache = tempfile::tempdir().unwrap();
    let server = Server::serve(&TOWER, State { announced: Some("WEIGHTS"), ..State::default() });
    let error = server.hub(cache.path()).resolve("org/tiny", &mut ignore_progress).unwrap_err();
    let (found, expected) = (sha256_hex("weights"), sha256_hex("WEIGHTS"));
    assert_eq!(
        error.to_string(),
        format!(
            "the download of `model.safetensors` of `org/tiny` has the SHA-256 {found}, expected {expected}; it was \
             removed, try again"
        )
    );
    let repo = cache.path().join("hub/models--org--tiny");
    assert!(!repo.join("snapshots").join(COMMIT).join(WEIGHTS).exists() && !repo.join("blobs").join(expected).exists());
}

#[test]
fn directory_resolves_to_itself() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_str().unwrap();
    assert_eq!(resolve(path).unwrap(), dir.path());
    let missing = format!("{path}/none");
    assert_eq!(
        resolve(&missing).unwrap_err().to_string(),
        format!(
            "`{missing}` is neither a local directory nor a hub id; check the path, or write the id as `name` or \
             `org/name`"
        )
    );
}

#[test]
fn hub_id_syntax() {
    for id in ["bert-base-uncased", "facebook/dinov2-small", "a/b_c.d", "x"] {
        assert!(is_hub_id(id), "{id}");
    }
    for other in ["", "/", "a/", "/a", "a/b/c", "a b", "a--b", "..", "a/..", "-a", "a.", "é", "a\\b", "a/b@main"] {
        assert!(!is_hub_id(other), "{other}");
    }
}

#[test]
fn environment_matches_huggingface_hub() {
    let home = tempfile::tempdir().unwrap();
    let hub = |variables: &[(&str, &str)]| {
        let find =
            |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        Hub::from_variables(find, Some(home.path().to_owned())).unwrap()
    };
    let default = hub(&[("HF_ENDPOINT", ""), ("HF_HUB_OFFLINE", "0")]);
    assert_eq!(default.endpoint, "https://huggingface.co");
    assert_eq!(default.cache_dir, home.path().join(".cache/huggingface/hub"));
    assert_eq!((default.token, default.offline), (None, false));

    let token_file = home.path().join("hf/token");
    std::fs::create_dir_all(home.path().join("hf")).unwrap();
    std::fs::write(&token_file, "from-file\n").unwrap();
    let hf_home = home.path().join("hf");
    let in_home =
        hub(&[("HF_HOME", hf_home.to_str().unwrap()), ("HF_ENDPOINT", "http://mirror/"), ("HF_HUB_OFFLINE", "1")]);
    assert_eq!(in_home.endpoint, "http://mirror");
    assert_eq!(in_home.cache_dir, hf_home.join("hub"));
    assert_eq!((in_home.token.as_deref(), in_home.offline), (Some("from-file"), true));
    assert!(!format!("{in_home:?}").contains("from-file"));

    let named =
        hub(&[("HF_HUB_CACHE", "/c"), ("HF_TOKEN", "t"), ("TRANSFORMERS_OFFLINE", "TRUE"), ("XDG_CACHE_HOME", "/x")]);
    assert_eq!(named.cache_dir, Path::new("/c"));
    assert_eq!((named.token.as_deref(), named.offline), (Some("t"), true));
    assert_eq!(hub(&[("XDG_CACHE_HOME", "/x")]).cache_dir, Path::new("/x/huggingface/hub"));

    assert!(matches!(Hub::from_variables(|_| None, None), Err(HubError::NoHome)));
}
