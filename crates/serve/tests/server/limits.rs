//! Size, number, concurrency, time, and the orderly end.

use std::io::Write;
use std::time::Duration;

use dualenc_serve::{Event, Options};
use serde_json::json;

use crate::support::{JSON, Server, is_answered, receive, request, wait_until};

/// A body for which the engine waits until it is opened.
const WAIT: &[u8] = br#"{"texts": ["wait"]}"#;

#[test]
fn large_bodies_are_refused() {
    let server = Server::with(Options { max_body: 1000, ..Options::default() }, true);
    let body = |size: usize| json!({ "texts": ["a".repeat(size)] });
    assert_eq!(server.post("/embed", &body(900)).status, 200);
    server.post("/embed", &body(1000)).assert_problem(413, "larger than 1000 bytes");
    // A length that is declared, and a body that never comes.
    let head =
        b"POST /embed HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\nContent-Length: 9999999999999\r\n\r\n";
    let stream = server.send(head);
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    receive(stream).assert_problem(413, "larger than 1000 bytes");
    // A length that is not declared.
    let head = "Content-Type: image/png\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n";
    let mut stream = server.send(format!("POST /embed HTTP/1.1\r\nHost: localhost\r\n{head}").as_bytes());
    for _ in 0..3 {
        let _ = stream.write_all(format!("190\r\n{}\r\n", "P".repeat(400)).as_bytes());
    }
    receive(stream).assert_problem(413, "larger than 1000 bytes");
    assert_eq!(server.engine.begun().len(), 1);
}

#[test]
fn numbers_are_limited() {
    let options = Options { max_texts: 4, max_images: 2, max_top: 5, ..Options::default() };
    let server = Server::with(options, true);
    for (path, body, expected) in [
        ("/embed", json!({ "texts": ["a", "b", "c", "d", "e"] }), "the number of texts is 5"),
        ("/embed", json!({ "images": ["UA==", "UA==", "UA=="] }), "the number of images is 3"),
        (
            "/classify",
            json!({ "images": ["UA=="], "labels": ["a", "b", "c"], "templates": ["{c}", "a {c}"] }),
            "labels times templates is 6",
        ),
        ("/search", json!({ "text": "a", "top": 6 }), "the number of hits in `top` is 6"),
    ] {
        server.post(path, &body).assert_problem(422, expected);
    }
    assert_eq!(server.post("/embed", &json!({ "texts": ["a", "b", "c", "d"] })).status, 200);
    assert_eq!(server.post("/search", &json!({ "text": "a", "top": 5 })).status, 200);
}

#[test]
fn busy_servers_say_when_to_return() {
    let server = Server::with(Options { max_concurrency: 1, ..Options::default() }, true);
    let waiting = server.send(&request("POST", "/embed", JSON, WAIT));
    wait_until(|| server.engine.begun() == ["wait"]);
    for (path, body) in [("/search", json!({ "text": "a" })), ("/embed", json!({ "texts": ["a"] }))] {
        let refused = server.post(path, &body);
        refused.assert_problem(503, "busy");
        assert!(refused.headers.contains("retry-after: 1"), "{}", refused.headers);
    }
    // What needs no model is answered.
    assert_eq!((server.get("/health").status, server.get("/image/1").status, server.get("/").status), (200, 200, 200));
    server.engine.open();
    assert_eq!(receive(waiting).status, 200);
    assert_eq!(server.post("/search", &json!({ "text": "a" })).status, 200);
    assert_eq!(server.engine.begun(), ["wait"]);
}

#[test]
fn admitted_requests_wait_their_turn() {
    let server = Server::with(Options { max_concurrency: 4, ..Options::default() }, true);
    let first = server.send(&request("POST", "/embed", JSON, WAIT));
    wait_until(|| server.engine.begun() == ["wait"]);
    let text = br#"{"texts": ["next"]}"#;
    let others = [(); 3].map(|()| server.send(&request("POST", "/embed", JSON, text)));
    server.engine.open();
    assert_eq!(receive(first).status, 200);
    for stream in others {
        assert_eq!(receive(stream).json()["embeddings"], json!([[4.0, 0.25]]));
    }
    assert_eq!(server.engine.begun(), ["wait", "next", "next", "next"]);
}

#[test]
fn slow_requests_are_given_up() {
    let server = Server::with(Options { timeout: Duration::from_millis(300), ..Options::default() }, true);
    let found = server.post("/embed", &json!({ "texts": ["wait"] }));
    found.assert_problem(503, "took longer than 0.3 s");
    // A body that does not come.
    let head = "POST /embed HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 9\r\n";
    receive(server.send(format!("{head}{JSON}\r\n").as_bytes())).assert_problem(503, "took longer than 0.3 s");
    // Behind the one that waits, and nobody waits for it any more: it is not computed.
    server.post("/embed", &json!({ "texts": ["late"] })).assert_problem(503, "took longer");
    server.engine.open();
    wait_until(|| server.post("/embed", &json!({ "texts": ["a"] })).status == 200);
    assert!(!server.engine.begun().contains(&"late".to_owned()));
}

#[test]
fn work_of_gone_clients_is_not_begun() {
    let server = Server::with(Options { max_concurrency: 2, ..Options::default() }, true);
    let first = server.send(&request("POST", "/embed", JSON, WAIT));
    wait_until(|| server.engine.begun() == ["wait"]);
    let send_gone = || server.send(&request("POST", "/embed", JSON, br#"{"texts": ["gone"]}"#));
    let mut gone = send_gone();
    // 422 as long as there is a place.
    let status = || server.post("/embed", &json!({})).status;
    wait_until(|| {
        // `status` takes the second place for a moment: `gone` may find none and must ask again.
        if is_answered(&gone) {
            gone = send_gone();
        }
        status() == 503
    });
    drop(gone);
    wait_until(|| status() == 422);
    server.engine.open();
    assert_eq!(receive(first).status, 200);
    assert_eq!(server.post("/embed", &json!({ "texts": ["a"] })).status, 200);
    assert_eq!(server.engine.begun(), ["wait", "a"]);
}

#[test]
fn requests_in_progress_are_finished() {
    let server = Server::new();
    let stream = server.send(&request("POST", "/embed", JSON, WAIT));
    let idle = server.send(b"");
    wait_until(|| server.engine.begun() == ["wait"]);
    server.stop();
    // New connections are refused from now on.
    wait_until(|| std::net::TcpStream::connect(server.address).is_err());
    assert!(!server.has_ended());
    server.engine.open();
    assert_eq!(receive(stream).json()["embeddings"], json!([[4.0, 0.25]]));
    wait_until(|| server.has_ended());
    drop(idle);
    assert!(server.events.lock().unwrap().is_empty());
}

#[test]
fn end_does_not_wait_for_ever() {
    let server = Server::with(Options { timeout: Duration::from_secs(2), ..Options::default() }, true);
    // A head that is never finished.
    let stream = server.send(b"GET / HTTP/1.1\r\nHost: loc");
    assert_eq!(server.get("/health").status, 200);
    server.stop();
    wait_until(|| server.has_ended());
    drop(stream);
    assert!(server.events.lock().unwrap().iter().all(|event| *event == Event::Cut));
}
