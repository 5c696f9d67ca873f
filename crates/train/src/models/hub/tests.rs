//! Runs against a small local hub that answers like the real one: byte ranges, entity tags, the commit in a header, and
//! weights behind a redirect to another host.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};

use sha2::{Digest, Sha256};

use crate::config::tower_reference::is_hub_id;
use crate::models::hub::error::HubError;
use crate::models::hub::model_files::{MODULES, OPEN_CLIP, WEIGHTS, WEIGHTS_INDEX};
use crate::models::hub::progress::Progress;
use crate::models::hub::resolve::resolve;
use crate::models::hub::settings::Hub;

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// Serves the files of `org/tiny` until it is dropped.
struct Server {
    port: u16,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    files: BTreeMap<String, Vec<u8>>,
    /// Answers a request for the rest of a file with the whole file.
    ignore_ranges: bool,
    /// Sends the SHA-256 of this text as the entity tag of the weights, as for files in large-file storage.
    announced: Option<&'static str>,
    requests: Mutex<Vec<String>>,
    /// Each request for a part of a file: its path, and the range.
    ranges: Mutex<Vec<(String, String)>>,
    stop: std::sync::atomic::AtomicBool,
}

impl Server {
    fn start(files: &[(&str, &str)]) -> Self {
        Self::start_with(files, false)
    }

    fn start_with(files: &[(&str, &str)], ignore_ranges: bool) -> Self {
        Self::serve(files, State { ignore_ranges, ..State::default() })
    }

    fn serve(files: &[(&str, &str)], state: State) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let files = files.iter().map(|(name, text)| ((*name).to_owned(), text.as_bytes().to_vec())).collect();
        let state = Arc::new(State { files, ..state });
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if shared.stop.load(std::sync::atomic::Ordering::SeqCst) {
                    break;
                }
                // A client may hang up.
                let _ = stream.and_then(|stream| shared.answer(stream, port));
            }
        });
        Self { port, state }
    }

    fn hub(&self, cache: &Path) -> Hub {
        Hub {
            endpoint: format!("http://127.0.0.1:{}", self.port),
            cache_dir: cache.join("hub"),
            token: Some("secret".to_owned()),
            offline: false,
        }
    }

    fn requests(&self) -> Vec<String> {
        self.state.requests.lock().unwrap().clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.state.stop.store(true, std::sync::atomic::Ordering::SeqCst);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

impl State {
    fn answer(&self, stream: TcpStream, port: u16) -> std::io::Result<()> {
        let mut lines = BufReader::new(stream.try_clone()?).lines();
        let first = lines.next().transpose()?.unwrap_or_default();
        let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
        let mut headers = BTreeMap::new();
        for line in lines {
            let line = line?;
            let Some((name, value)) = line.split_once(": ") else { break };
            headers.insert(name.to_lowercase(), value.to_owned());
        }
        let token = if headers.contains_key("authorization") { " with token" } else { "" };
        self.requests.lock().unwrap().push(format!("{path}{token}"));
        if let Some(range) = headers.get("range") {
            self.ranges.lock().unwrap().push((path.clone(), range.clone()));
        }
        // The same repository, visible with the token only.
        let path = match (path.strip_prefix("/secret/"), headers.get("authorization").map(String::as_str)) {
            (Some(rest), Some("Bearer secret")) => format!("/org/{rest}"),
            _ => path,
        };
        self.reply(stream, &path, headers.get("range"), port)
    }

    fn reply(&self, mut stream: TcpStream, path: &str, range: Option<&String>, port: u16) -> std::io::Result<()> {
        let mut send = |status: &str, headers: &str, body: &[u8]| {
            write!(
                stream,
                "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n",
                body.len()
            )?;
            stream.write_all(body)
        };
        let etag = |file: &str| match self.announced {
            Some(text) if file == WEIGHTS => sha256_hex(text),
            _ => format!("etag-{}", file.replace(['/', '.'], "-")),
        };
        if path == "/api/models/org/tiny/revision/main" {
            return send("200 OK", "", format!("{{\"sha\": \"{COMMIT}\", \"siblings\": []}}").as_bytes());
        }
        if let Some(rest) = path.strip_prefix("/old/tiny/") {
            // A repository that was renamed.
            return send("307 Temporary Redirect", &format!("Location: /org/tiny/{rest}\r\n"), b"");
        }
        if path.starts_with("/secret/") {
            return send("401 Unauthorized", "", b"");
        }
        let (file, headers) = if let Some(file) = path.strip_prefix("/cdn/") {
            (file, String::new())
        } else {
            let file = path.strip_prefix("/org/tiny/resolve/main/");
            let Some(file) = file.or_else(|| path.strip_prefix(&format!("/org/tiny/resolve/{COMMIT}/"))) else {
                return send("404 Not Found", "", b"");
            };
            if file.ends_with(".safetensors") && self.files.contains_key(file) {
                let headers = format!(
                    "X-Repo-Commit: {COMMIT}\r\nX-Linked-Etag: \"{}\"\r\n\
                     Location: http://localhost:{port}/cdn/{file}\r\n",
                    etag(file)
                );
                return send("302 Found", &headers, b"");
            }
            (file, format!("X-Repo-Commit: {COMMIT}\r\nETag: \"{}\"\r\n", etag(file)))
        };
        let Some(bytes) = self.files.get(file) else {
            return send("404 Not Found", "", b"");
        };
        let asked = range.and_then(|range| range.strip_prefix("bytes=")?.split_once('-'));
        let start = asked.and_then(|(start, _)| start.parse().ok()).unwrap_or(0);
        let end = asked.and_then(|(_, end)| end.parse::<usize>().ok()).map_or(bytes.len(), |last| last + 1);
        match bytes.get(start..end) {
            Some(part) if !part.is_empty() => {
                let whole = self.ignore_ranges && end == bytes.len();
                let headers = format!("{headers}Content-Range: bytes {start}-{}/{}\r\n", end - 1, bytes.len());
                send("206 Partial Content", &headers, if whole { bytes } else { part })
            }
            _ => send("416 Range Not Satisfiable", "", b""),
        }
    }
}

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
            "cannot download `config.json` of `org/tiny` from `{endpoint}`; check the network, `HF_ENDPOINT` and free \
             disk space"
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

fn sha256_hex(text: &str) -> String {
    Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
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
