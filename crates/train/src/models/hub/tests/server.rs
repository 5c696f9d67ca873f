//! A small local hub that answers like the real one: byte ranges, entity tags, the commit in a header, and weights
//! behind a redirect to another host.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};

use sha2::{Digest, Sha256};

use crate::models::hub::model_files::WEIGHTS;
use crate::models::hub::settings::Hub;

pub(super) const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// Serves the files of `org/tiny` until it is dropped.
pub(super) struct Server {
    pub port: u16,
    pub state: Arc<State>,
}

#[derive(Default)]
pub(super) struct State {
    pub files: BTreeMap<String, Vec<u8>>,
    /// Answers a request for the rest of a file with the whole file.
    pub ignore_ranges: bool,
    /// Sends the SHA-256 of this text as the entity tag of the weights, as for files in large-file storage.
    pub announced: Option<&'static str>,
    pub requests: Mutex<Vec<String>>,
    /// Each request for a part of a file: its path, and the range.
    pub ranges: Mutex<Vec<(String, String)>>,
    pub stop: std::sync::atomic::AtomicBool,
}

impl Server {
    pub fn start(files: &[(&str, &str)]) -> Self {
        Self::start_with(files, false)
    }

    pub fn start_with(files: &[(&str, &str)], ignore_ranges: bool) -> Self {
        Self::serve(files, State { ignore_ranges, ..State::default() })
    }

    pub fn serve(files: &[(&str, &str)], state: State) -> Self {
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

    pub fn hub(&self, cache: &Path) -> Hub {
        Hub {
            endpoint: format!("http://127.0.0.1:{}", self.port),
            cache_dir: cache.join("hub"),
            token: Some("secret".to_owned()),
            offline: false,
        }
    }

    pub fn requests(&self) -> Vec<String> {
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

pub(super) fn sha256_hex(text: &str) -> String {
    Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}
