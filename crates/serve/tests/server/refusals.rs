//! Requests that are wrong: each gets a status and advice, and the server goes on.

use dualenc_serve::Event;
use serde_json::json;

use crate::support::{JSON, Server, receive};

#[test]
fn unknown_paths_and_methods() {
    let server = Server::new();
    for path in ["/none", "/embed/", "/image", "/image/", "/page.html", "//", "/index.html"] {
        server.get(path).assert_problem(404, "there is nothing at");
    }
    for (method, path) in
        [("GET", "/embed"), ("GET", "/search"), ("DELETE", "/classify"), ("POST", "/"), ("PUT", "/health")]
    {
        let found = server.ask(method, path, "", b"");
        found.assert_problem(405, "does not take");
        assert!(found.headers.contains("allow: "), "{}", found.headers);
    }
}

#[test]
fn pictures_only_of_rows() {
    let server = Server::new();
    for path in [
        "/image/3",
        "/image/99999999999999999999999",
        "/image/-1",
        "/image/+1",
        "/image/0x1",
        "/image/a.png",
        "/image/../page.css",
        "/image/%2e%2e%2fetc%2fpasswd",
        "/image/..%2f..%2fetc%2fpasswd",
        "/image/%2fetc%2fpasswd",
        "/image/0/../../etc/passwd",
        "/../../etc/passwd",
        "/image/1%00",
        "/image/%ff",
    ] {
        let found = server.get(path);
        assert!(matches!(found.status, 400 | 404), "{path}: {} {}", found.status, found.text());
        assert!(!found.text().contains("root:"));
    }
    server.get("/image/a.png").assert_problem(404, "by the number of its row");
    server.get("/image/3").assert_problem(404, "no image in row 3");
}

#[test]
fn wrong_bodies_say_what_is_wrong() {
    let server = Server::new();
    let one = ["UA=="];
    for (path, body, status, expected) in [
        ("/embed", "{\"texts\": [", 400, "no JSON"),
        ("/embed", "", 400, "no JSON"),
        ("/embed", "\u{0}\u{1}", 400, "no JSON"),
        ("/embed", &"[".repeat(100_000), 400, "no JSON"),
        ("/embed", "[[\"a\"], null]", 400, "no JSON"),
        ("/embed", "{\"text\": [\"a\"]}", 422, "unknown field `text`"),
        ("/embed", "{\"texts\": \"a\"}", 422, "invalid type"),
        ("/embed", "{}", 422, "exactly one of `texts` and `images`"),
        ("/embed", "{\"texts\": [\"a\"], \"images\": [\"UA==\"]}", 422, "exactly one of"),
        ("/embed", "{\"texts\": []}", 422, "the number of texts is 0"),
        ("/embed", "{\"images\": [\"UA==\", \"*\"]}", 422, "image 2 is not in base64"),
        ("/embed", "{\"images\": [\"UA==\", \"Qg==\"]}", 422, "image 2 cannot be used: damaged"),
        ("/classify", &json!({ "images": one }).to_string(), 422, "missing field `labels`"),
        ("/classify", &json!({ "images": one, "labels": [] }).to_string(), 422, "labels times templates is 0"),
        ("/search", "{\"top\": 3}", 422, "exactly one of `text` and `image`"),
        ("/search", "{\"text\": \"a\", \"top\": 0}", 422, "the number of hits in `top` is 0"),
        ("/search", "{\"text\": \"\"}", 422, "`text` is empty"),
        ("/embed", "{\"texts\": [\"a\", \" \"]}", 422, "text 2 is empty"),
        ("/search", "{\"text\": \"a\", \"top\": -1}", 422, "invalid value"),
        ("/search", "{\"text\": \"a\", \"top\": 1001}", 422, "is 1001"),
    ] {
        server.ask("POST", path, JSON, body.as_bytes()).assert_problem(status, expected);
    }
    assert_eq!(server.get("/health").status, 200);
}

#[test]
fn advice_can_be_followed() {
    let server = Server::new();
    let advice = |path: &str, body: serde_json::Value| {
        server.post(path, &body).json()["advice"].as_str().unwrap_or_else(|| panic!("{path} {body}")).to_owned()
    };
    assert_eq!(advice("/embed", json!({ "texts": [] })), "send from 1 to 1024");
    assert_eq!(advice("/search", json!({ "text": "a", "top": 0 })), "send from 1 to 1000");
    let too_many = advice("/search", json!({ "text": "a", "top": 1001 }));
    assert_eq!(too_many, "send at most 1000, or start the server with a larger `--max-top`");
}

#[test]
fn other_content_types_are_refused() {
    let server = Server::new();
    // What a form of another site can send without being asked.
    for kind in ["", "Content-Type: text/plain\r\n", "Content-Type: application/x-www-form-urlencoded\r\n"] {
        server.ask("POST", "/search", kind, b"{\"text\": \"a\"}").assert_problem(415, "content type");
    }
    server.ask("POST", "/classify", "Content-Type: image/png\r\n", b"P").assert_problem(415, "an image alone");
    let kind = "Content-Type: Application/JSON; charset=utf-8\r\n";
    assert_eq!(server.ask("POST", "/search", kind, b"{\"text\": \"a\"}").status, 200);
}

#[test]
fn foreign_hosts_are_refused() {
    let server = Server::new();
    for (host, status) in [
        ("Host: example.com", 403),
        ("Host: 127.0.0.1.example.com:80", 403),
        ("Host: ", 403),
        ("X: y", 400),
        ("Host: 127.0.0.1:1", 200),
        ("Host: [::1]:8080", 200),
        ("Host: LOCALHOST", 200),
    ] {
        let found =
            receive(server.send(format!("GET /health HTTP/1.1\r\n{host}\r\nConnection: close\r\n\r\n").as_bytes()));
        assert_eq!(found.status, status, "{host}: {}", found.text());
        assert!(!found.headers.contains("access-control"), "{}", found.headers);
    }
}

#[test]
fn what_is_no_http_ends_its_connection() {
    let server = Server::new();
    let long = format!("GET /{} HTTP/1.1\r\nHost: localhost\r\n\r\n", "a".repeat(1 << 20));
    for bytes in [b"\x16\x03\x01\x02\x00".as_slice(), b"hello\r\n\r\n", b"GET\r\n\r\n", long.as_bytes()] {
        let mut stream = server.send(bytes);
        stream.shutdown(std::net::Shutdown::Write).unwrap_or(());
        let mut answer = Vec::new();
        let _ = std::io::Read::read_to_end(&mut stream, &mut answer);
        assert!(!answer.starts_with(b"HTTP/1.1 200"));
    }
    assert_eq!(server.get("/health").status, 200);
}

#[test]
fn panics_and_failures_are_answered() {
    let server = Server::new();
    server.post("/embed", &json!({ "texts": ["panic"] })).assert_problem(500, "internal error: the engine broke");
    server.post("/embed", &json!({ "texts": ["fail"] })).assert_problem(500, "the device is gone");
    assert_eq!(server.post("/embed", &json!({ "texts": ["a"] })).status, 200);
    let events = server.events.lock().unwrap();
    assert_eq!(events.len(), 2, "{events:?}");
    assert!(matches!(&events[1], Event::Failed { request, message }
        if request == "POST /embed" && message == "the device is gone"));
}
