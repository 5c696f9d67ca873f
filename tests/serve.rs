//! `dualenc serve`: what it answers is what the other commands write.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Session, edit_floats, embedded, floats};

/// A server, which is killed if the test fails.
pub struct Server {
    child: Child,
    /// `127.0.0.1:PORT`.
    address: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        // Most have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    pub fn start(session: &Session, arguments: &[&str]) -> Self {
        let mut command = session.command(&[&["serve", "--port", "0"][..], arguments].concat());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("http://").unwrap_or_else(|| panic!("no address: `{line}`")).to_owned();
        Self { child, address }
    }

    /// Asks, and returns status and body.
    fn ask(&self, method: &str, path: &str, kind: &str, body: &[u8]) -> (u16, Vec<u8>) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let (host, length) = (&self.address, body.len());
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Type: {kind}\r\n\
             Content-Length: {length}\r\n\r\n"
        );
        stream.write_all(&[head.as_bytes(), body].concat()).unwrap();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
        let status = std::str::from_utf8(&bytes[9..12]).unwrap().parse().unwrap();
        (status, bytes[end + 4..].to_vec())
    }

    #[track_caller]
    fn post(&self, path: &str, kind: &str, body: &[u8]) -> Value {
        let (status, body) = self.ask("POST", path, kind, body);
        assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
        serde_json::from_slice(&body).unwrap()
    }

    #[track_caller]
    pub fn post_json(&self, path: &str, body: &Value) -> Value {
        self.post(path, "application/json", body.to_string().as_bytes())
    }

    /// Ends the server by SIGTERM, asserts success, and returns stderr.
    pub fn end(mut self) -> String {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        let status = self.child.wait().unwrap();
        let mut text = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
        assert!(status.success(), "{status}: {text}");
        text
    }
}

fn rows(found: &Value) -> Vec<f32> {
    let rows = found["embeddings"].as_array().unwrap().iter();
    rows.flat_map(|row| row.as_array().unwrap().iter().map(|value| value.as_f64().unwrap() as f32)).collect()
}

#[test]
fn server_answers_as_commands_do() {
    let (session, model) = embedded();
    let server = Server::start(&session, &["--model", &model, "--index", "embeds.safetensors", "--log-requests"]);
    let found = server.post_json("/embed", &json!({ "texts": ["a red circle", "a green square", "blue stripes"] }));
    assert_eq!(found["dim"], 24);
    assert_eq!(rows(&found), floats(&session.path("embeds.safetensors"), "text_embeds"));
    let image = std::fs::read(session.path("images/07.png")).unwrap();
    let images = floats(&session.path("embeds.safetensors"), "image_embeds");
    assert_eq!(rows(&server.post("/embed", "image/png", &image)), images[7 * 24..8 * 24]);

    let search = ["search", "--model", &model, "--index", "embeds.safetensors", "--top", "5", "--json", "-"];
    let queries = ["a green square", "--image", "images/07.png"];
    let expected: Value = serde_json::from_str(&session.succeed(&[&search[..], &queries].concat())).unwrap();
    let found = server.post_json("/search", &json!({ "text": "a green square", "top": 5 }));
    assert_eq!(found["hits"], expected[0]["hits"]);
    let found = server.post("/search", "image/png", &image);
    assert_eq!(found["hits"].as_array().unwrap()[..5], expected[1]["hits"].as_array().unwrap()[..]);

    let labels = ["a red circle", "a green square"];
    let classify = ["classify", "--model", &model, "--labels", "a red circle,a green square", "--json", "-"];
    let encoded = "iVBORw0KGgo="; // Only the first bytes of a PNG.
    for templates in [&[] as &[&str], &["this is {}"]] {
        let options = templates.iter().flat_map(|template| ["--template", *template]).collect::<Vec<_>>();
        let text = session.succeed(&[&classify[..], &options[..], &["images/07.png"]].concat());
        let expected: Value = serde_json::from_str(&text).unwrap();
        let body = json!({ "images": [base64(&image)], "labels": labels, "templates": templates });
        for _ in 0..2 {
            let found = server.post_json("/classify", &body);
            assert_eq!(found["images"][0]["labels"], expected["images"][0]["labels"]);
        }
    }
    let body = json!({ "images": [encoded], "labels": labels }).to_string();
    let (status, text) = server.ask("POST", "/classify", "application/json", body.as_bytes());
    let text = String::from_utf8(text).unwrap();
    assert!(status == 422 && text.contains("image 1 cannot be used") && !text.contains("/tmp"), "{text}");

    let (status, picture) = server.ask("GET", "/image/7", "", b"");
    assert!(status == 200 && picture.starts_with(b"\xff\xd8\xff"), "{status}");
    assert_eq!(server.ask("GET", "/image/24", "", b"").0, 404);
    let narrow = Server::start(&session, &["--model", &model, "--dim", "6"]);
    let found = narrow.post_json("/embed", &json!({ "texts": ["a red circle"] }));
    assert_eq!((&found["dim"], rows(&found).len()), (&json!(6), 6));
    drop(narrow);
    let health: Value = serde_json::from_slice(&server.ask("GET", "/health", "", b"").1).unwrap();
    assert_eq!((&health["status"], &health["index"]["rows"]), (&json!("ok"), &json!(24)));
    let text = server.end();
    assert!(text.contains("POST /classify 422") && text.contains("GET /image/24 404"), "{text}");
    // That requests in progress are answered first is said by a thread that an idle server does not wait for.
    assert!(!text.contains("work in progress") && !text.contains("saving") && !text.contains("--root"), "{text}");
}

#[test]
fn pictures_elsewhere_are_noticed_at_the_start() {
    let (session, model) = embedded();
    std::fs::create_dir(session.path("empty")).unwrap();
    let arguments = ["--model", &model, "--index", "embeds.safetensors", "--root", "empty"];
    let server = Server::start(&session, &arguments);
    let health: Value = serde_json::from_slice(&server.ask("GET", "/health", "", b"").1).unwrap();
    assert_eq!(health["index"]["images"], false, "{health}");
    let text = server.end();
    assert!(text.contains("24 of 24 images looked at in `embeds.safetensors`") && text.contains("`--root`"), "{text}");
}

#[test]
fn server_refuses_what_cannot_work() {
    let (session, model) = embedded();
    session.write("wide.npy", {
        let header = format!("{:117}\n", "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 3), }");
        [b"\x93NUMPY\x01\x00\x76\x00".as_slice(), header.as_bytes(), &[0x3f; 12]].concat()
    });
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    for (arguments, expected) in [
        (&["--port", &port][..], "cannot listen on `127.0.0.1` port"),
        (
            &["--port", "0", "--index", "wide.npy"],
            "`wide.npy` has embeddings of 3 values, but those of the model have 24",
        ),
        (&["--port", "0", "--index", "none.index"], "cannot read `none.index`"),
    ] {
        let text = session.fail(2, &[&["serve", "--model", &model][..], arguments].concat());
        assert!(text.contains(expected), "{text}");
    }
    // Of the same width, so that only its weights say that no similarity means anything.
    session.copy("train/init", "other");
    edit_floats(&session.path("other/model.safetensors"), "text_projection.weight", |value| value * 1.01);
    let text = session.fail(2, &["serve", "--port", "0", "--model", "other", "--index", "embeds.safetensors"]);
    assert!(text.contains("written by a model with other weights"), "{text}");
    let mut server = Server::start(&session, &["--model", &model, "--host", "0.0.0.0", "--max-pixels", "4"]);
    server.address = server.address.replace("0.0.0.0", "127.0.0.1");
    let image = std::fs::read(session.path("images/07.png")).unwrap();
    let (status, text) = server.ask("POST", "/embed", "image/png", &image);
    let text = String::from_utf8(text).unwrap();
    assert!(status == 422 && text.contains("image 1 cannot be used"), "{text}");
    let text = server.end();
    assert!(text.contains("there is no authentication"), "{text}");
}

fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let group = |three: &[u8]| {
        let bits = (0..3).fold(0, |bits, at| (bits << 8) | usize::from(*three.get(at).unwrap_or(&0)));
        let letter = |at: usize| if at > three.len() { '=' } else { char::from(LETTERS[(bits >> (18 - 6 * at)) & 63]) };
        (0..4).map(letter).collect::<String>()
    };
    bytes.chunks(3).map(group).collect()
}
