//! What each path answers.

use dualenc_serve::{Event, Options};
use serde_json::json;

use crate::support::Server;

#[test]
fn health_names_model_and_index() {
    let found = Server::new().get("/health").json();
    let index = json!({ "rows": 3, "images": true });
    let expected = json!({ "status": "ok", "model": "runs/first", "dim": 2, "index": index, "version": "0.1.0" });
    assert_eq!(found, expected);
    assert!(Server::with(Options::default(), false).get("/health").json()["index"].is_null());
}

#[test]
fn texts_and_images_embed() {
    let server = Server::new();
    let found = server.post("/embed", &json!({ "texts": ["a", "four"] }));
    assert_eq!((found.status, found.json()), (200, json!({ "dim": 2, "embeddings": [[1.0, 0.25], [4.0, 0.25]] })));
    assert!(found.headers.contains("content-type: application/json"), "{}", found.headers);
    // "PNG" and "P" in base64, one as a URL.
    let found = server.post("/embed", &json!({ "images": ["UE5H", "data:image/png;base64,UA=="] }));
    assert_eq!(found.json(), json!({ "dim": 2, "embeddings": [[3.0, 0.5], [1.0, 0.5]] }));
    let found = server.ask("POST", "/embed", "Content-Type: image/png\r\n", b"P\xff\x00\x01");
    assert_eq!(found.json(), json!({ "dim": 2, "embeddings": [[4.0, 0.5]] }));
}

#[test]
fn labels_have_order_and_defaults() {
    let server = Server::new();
    let found = server.post("/classify", &json!({ "images": ["UE5H", "UA=="], "labels": ["cat", "dog"] })).json();
    let labels = json!({ "size": 3, "labels": ["cat", "dog"], "templates": [], "top": 2 });
    assert_eq!((found["images"].as_array().unwrap().len(), &found["images"][0]["labels"]), (2, &labels));
    let body = json!({ "images": ["UA=="], "labels": ["cat"], "templates": ["a {c}"], "top": 1 });
    let found = server.post("/classify", &body).json();
    assert_eq!(found["images"][0]["labels"], json!({ "size": 1, "labels": ["cat"], "templates": ["a {c}"], "top": 1 }));
}

#[test]
fn search_takes_text_or_image() {
    let server = Server::new();
    for (body, query, top) in [
        (json!({ "text": "a dog" }), json!({ "text": "a dog" }), 10),
        (json!({ "image": "UE5H", "top": 3 }), json!({ "size": 3 }), 3),
    ] {
        assert_eq!(server.post("/search", &body).json(), json!({ "hits": [{ "query": query, "top": top }] }));
    }
    let found = server.ask("POST", "/search", "Content-Type: image/jpeg\r\n", b"12345").json();
    assert_eq!(found["hits"][0]["query"], json!({ "size": 5 }));
    let without = Server::with(Options::default(), false);
    without.post("/search", &json!({ "text": "a" })).assert_problem(404, "no index");
}

#[test]
fn pictures_come_by_row() {
    let server = Server::new();
    let found = server.get("/image/2");
    assert_eq!((found.status, &found.body[..]), (200, &[0xff, 0xd8, 2][..]));
    assert!(found.headers.contains("content-type: image/jpeg"), "{}", found.headers);
}

#[test]
fn known_pictures_are_those_of_this_server() {
    let server = Server::new();
    let found = server.get("/image/2");
    assert!(found.headers.contains("cache-control: private, no-cache"), "{}", found.headers);
    let tag = found.headers.lines().find_map(|line| line.strip_prefix("etag: ")).unwrap();
    let again = |server: &Server, path| server.ask("GET", path, &format!("If-None-Match: {tag}\r\n"), b"").status;
    assert_eq!((again(&server, "/image/2"), again(&server, "/image/1")), (304, 200));
    assert_eq!(again(&Server::new(), "/image/2"), 200, "the next server may have another index");
}

#[test]
fn page_needs_nothing_from_elsewhere() {
    let server = Server::new();
    let mut text = String::new();
    for (path, kind) in [("/", "text/html"), ("/page.css", "text/css"), ("/page.js", "text/javascript")] {
        let found = server.get(path);
        assert_eq!(found.status, 200);
        assert!(found.headers.contains(&format!("content-type: {kind}; charset=utf-8")), "{}", found.headers);
        assert!(found.headers.contains("content-security-policy: default-src 'none'"), "{}", found.headers);
        assert!(found.headers.contains("x-content-type-options: nosniff"), "{}", found.headers);
        text += &found.text();
    }
    let text = text.replace("http://www.w3.org/2000/svg", "");
    assert!(!text.contains("http:") && !text.contains("https:") && !text.contains("//cdn"));
    // The policy forbids both.
    assert!(!text.contains("<style") && !text.contains(" style=") && !text.contains(" onclick="));
}

#[test]
fn requests_are_reported_on_demand() {
    let server = Server::with(Options { log_requests: true, ..Options::default() }, true);
    server.get("/none");
    let events = server.events.lock().unwrap();
    let [Event::Answered { request, status: 404, .. }] = &events[..] else { panic!("{events:?}") };
    assert_eq!(request, "GET /none");
}
