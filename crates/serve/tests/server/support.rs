//! A running server, an engine that answers at once or when it may, and a client that sends bytes.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};

use dualenc_serve::{Classified, Engine, EngineError, Event, IndexInfo, Options, Picture, Query, Served, serve};
use serde_json::{Value, json};

/// After this time, a test that waits has failed.
const PATIENCE: Duration = Duration::from_secs(30);

/// An engine with results that say what it was given.
pub struct Fake {
    pub has_index: bool,
    /// The first text of each call for texts that has begun.
    pub begun: Mutex<Vec<String>>,
    /// Whether texts named `wait` may go on.
    gate: (Mutex<bool>, Condvar),
}

impl Fake {
    /// Lets calls for the text `wait` go on.
    pub fn open(&self) {
        *self.gate.0.lock().unwrap() = true;
        self.gate.1.notify_all();
    }

    /// The first text of each call for texts that has begun.
    pub fn begun(&self) -> Vec<String> {
        self.begun.lock().unwrap().clone()
    }
}

pub fn wait_until(mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "nothing happened");
        sleep(Duration::from_millis(2));
    }
}

impl Engine for Fake {
    fn served(&self) -> Served {
        let index = self.has_index.then_some(IndexInfo { rows: 3, has_pictures: true });
        Served { model: "runs/first".to_owned(), dim: 2, index, version: "0.1.0".to_owned() }
    }

    fn embed_texts(&self, texts: &[String]) -> Result<Vec<Vec<f32>>, EngineError> {
        self.begun.lock().unwrap().push(texts[0].clone());
        match texts[0].as_str() {
            "panic" => panic!("the engine broke"),
            "fail" => return Err(EngineError::Failed("the device is gone".to_owned())),
            "wait" => drop(self.gate.1.wait_while(self.gate.0.lock().unwrap(), |may_go| !*may_go).unwrap()),
            _ => {}
        }
        Ok(texts.iter().map(|text| vec![text.len() as f32, 0.25]).collect())
    }

    fn embed_images(&self, images: &[Vec<u8>]) -> Result<Vec<Vec<f32>>, EngineError> {
        match images.iter().position(|image| !image.starts_with(b"P")) {
            Some(bad) => Err(EngineError::Unusable(format!("image {} cannot be used: damaged", bad + 1))),
            None => Ok(images.iter().map(|image| vec![image.len() as f32, 0.5]).collect()),
        }
    }

    fn classify(
        &self,
        images: &[Vec<u8>],
        labels: &[String],
        templates: &[String],
        top: usize,
    ) -> Result<Classified, EngineError> {
        let size =
            |image: &Vec<u8>| json!({ "size": image.len(), "labels": labels, "templates": templates, "top": top });
        Ok(Classified(images.iter().map(size).collect()))
    }

    fn search(&self, query: &Query, top: usize) -> Result<Vec<Value>, EngineError> {
        let query = match query {
            Query::Text(text) => json!({ "text": text }),
            Query::Image(image) => json!({ "size": image.len() }),
        };
        Ok(vec![json!({ "query": query, "top": top })])
    }

    fn picture(&self, row: usize) -> Result<Picture, EngineError> {
        match row {
            0..3 => Ok(Picture { media_type: "image/jpeg", bytes: vec![0xff, 0xd8, row as u8] }),
            _ => Err(EngineError::Absent(format!("the index has no image in row {row}"))),
        }
    }
}

/// A server that runs until it is dropped.
pub struct Server {
    pub address: SocketAddr,
    pub engine: Arc<Fake>,
    pub events: Arc<Mutex<Vec<Event>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// An answer.
pub struct Answer {
    pub status: u16,
    /// All headers, in lower case.
    pub headers: String,
    pub body: Vec<u8>,
}

impl Answer {
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {:?}", self.text()))
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Asserts an error with this status, advice, and this text.
    #[track_caller]
    pub fn assert_problem(&self, status: u16, expected: &str) {
        assert_eq!(self.status, status, "{}", self.text());
        let found = self.json();
        assert!(found["error"].as_str().unwrap().contains(expected), "{found}");
        assert!(!found["advice"].as_str().unwrap().is_empty(), "{found}");
    }
}

impl Server {
    pub fn new() -> Self {
        Self::with(Options::default(), true)
    }

    pub fn with(options: Options, has_index: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let gate = (Mutex::new(false), Condvar::new());
        let engine = Arc::new(Fake { has_index, begun: Mutex::default(), gate });
        let (stop, events) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
        let (serves, stops, reports) = (Arc::clone(&engine), Arc::clone(&stop), Arc::clone(&events));
        let on_event = Arc::new(move |event| reports.lock().unwrap().push(event));
        let run = move || serve(listener, serves, options, on_event, || stops.load(Ordering::SeqCst)).unwrap();
        let thread = Some(std::thread::spawn(run));
        Self { address, engine, events, stop, thread }
    }

    pub fn stop(&self) {
        self.stop.store(true, Ordering::SeqCst);
    }

    pub fn has_ended(&self) -> bool {
        self.thread.as_ref().unwrap().is_finished()
    }

    /// Sends bytes, on a connection of their own.
    pub fn send(&self, bytes: &[u8]) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        // The server may refuse before it has read all.
        let _ = stream.write_all(bytes);
        stream
    }

    pub fn ask(&self, method: &str, path: &str, headers: &str, body: &[u8]) -> Answer {
        receive(self.send(&request(method, path, headers, body)))
    }

    pub fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, "", b"")
    }

    pub fn post(&self, path: &str, body: &Value) -> Answer {
        self.ask("POST", path, JSON, body.to_string().as_bytes())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.engine.open();
        self.stop();
        let ended = self.thread.take().unwrap().join();
        assert!(ended.is_ok() || std::thread::panicking());
    }
}

pub const JSON: &str = "Content-Type: application/json\r\n";

/// A whole request for this machine.
pub fn request(method: &str, path: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}Content-Length: {length}\r\n\r\n"
    );
    [head.as_bytes(), body].concat()
}

/// Whether bytes of an answer have arrived.
pub fn is_answered(stream: &TcpStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    let has_bytes = stream.peek(&mut [0]).is_ok();
    stream.set_nonblocking(false).unwrap();
    has_bytes
}

/// Reads an answer to the end of its connection.
pub fn receive(mut stream: TcpStream) -> Answer {
    let mut bytes = Vec::new();
    // A refused body may reset the connection after the answer.
    let _ = stream.read_to_end(&mut bytes);
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").expect("an answer has a head");
    let headers = String::from_utf8(bytes[..end].to_vec()).unwrap().to_lowercase();
    let status = headers.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, headers, body: bytes[end + 4..].to_vec() }
}
