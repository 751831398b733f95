//! The gateway: what it answers, and whom it waits for.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;

use bt_lite::ContentId;
use serde_json::Value;
use tempfile::TempDir;

use super::{PATIENCE, Program, text};

/// As many as the gateway looks for at a time.
const MAX_DOWNLOADS: usize = 256;

/// More than the buffers of a connection hold.
const LONG: usize = 64 << 20;

struct Gateway {
    tracker: Program,
    _owner: Program,
    gateway: Program,
    host: String,
    /// Where its contents are: `gateway` in it.
    dir: TempDir,
}

impl Gateway {
    /// One that finds a content of these bytes at an owner, under this name.
    fn new(name: &str, bytes: &[u8]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join(name);
        fs::write(&file, bytes).unwrap();
        let tracker = Program::start("tracker", &["--listen", "127.0.0.1:0"]);
        let addr = tracker.said("listening ");
        let at = ["--tracker", &addr, "--listen", "127.0.0.1:0"];
        let owner = Program::start("share", &[&at[..], &[text(&file)]].concat());
        owner.said("sharing ");
        let here = dir.path().join("gateway");
        let gateway = Program::start("gateway", &[&at[..], &["--dir", text(&here)]].concat());
        let host = gateway.said("serving http://");
        Self {
            tracker,
            _owner: owner,
            gateway,
            host,
            dir,
        }
    }

    /// A connection with a request that has these lines in its head.
    fn asked(&self, first: &str, more: &[&str]) -> TcpStream {
        let mut stream = TcpStream::connect(&self.host).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let host = format!("Host: {}", self.host);
        let lines = [&[first, &host, "Connection: close"], more, &["", ""]].concat();
        stream.write_all(lines.join("\r\n").as_bytes()).unwrap();
        stream
    }

    /// The status, the head, and the body.
    fn answer(&self, first: &str, more: &[&str]) -> (u16, String, Vec<u8>) {
        let mut answer = Vec::new();
        self.asked(first, more).read_to_end(&mut answer).unwrap();
        let end = answer
            .windows(4)
            .position(|end| end == b"\r\n\r\n")
            .unwrap();
        let body = answer.split_off(end + 4);
        let head = String::from_utf8(answer).unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, head, body)
    }

    /// How many contents are looked for.
    fn looked_for(&self) -> usize {
        let (_, _, list) = self.answer("GET /contents.json HTTP/1.1", &[]);
        let list: Vec<Value> = serde_json::from_slice(&list).unwrap();
        list.iter().filter(|one| one["length"].is_null()).count()
    }
}

#[test]
fn conditions_and_ranges_are_answered_as_http_says() {
    let bytes = b"0123456789";
    let gateway = Gateway::new("digits.txt", bytes);
    let tag = format!("\"{}\"", ContentId::of(bytes));
    let (weak, both) = (format!("W/{tag}"), format!("\"x\", {tag}"));
    let whole = (200, "0123456789");
    // The header and its value, the range, the status, and the body.
    for (name, value, range, (status, body)) in [
        ("X", "none", "bytes=2-4", (206, "234")),
        ("X", "none", "bytes=-3", (206, "789")),
        ("X", "none", "bytes=-30", (206, "0123456789")),
        ("X", "none", "bytes=8-99,20-", (206, "89")),
        ("X", "none", "bytes=10-", (416, "")),
        ("X", "none", "bytes=-0", (416, "")),
        ("X", "none", "bytes=4-2", whole),
        ("X", "none", "lines=1-2", whole),
        ("If-Range", &*tag, "bytes=2-4", (206, "234")),
        ("If-Range", &*weak, "bytes=2-4", whole),
        ("If-Range", "\"x\"", "bytes=10-", whole),
        ("If-Range", "no tag", "bytes=2-4", whole),
        ("If-Range", &*both, "bytes=2-4", whole),
        (
            "If-Range",
            "Sat, 29 Oct 1994 19:43:31 GMT",
            "bytes=2-4",
            whole,
        ),
        ("If-Match", &*tag, "bytes=2-4", (206, "234")),
        ("If-Match", &*both, "bytes=2-4", (206, "234")),
        ("If-Match", "*", "bytes=2-4", (206, "234")),
        ("If-Match", "\"x\"", "bytes=2-4", (412, "")),
        ("If-Match", &*weak, "bytes=2-4", (412, "")),
        ("If-None-Match", &*weak, "bytes=2-4", (304, "")),
        ("If-None-Match", "\"x\"", "bytes=2-4", (206, "234")),
    ] {
        let (condition, range) = (format!("{name}: {value}"), format!("Range: {range}"));
        let answer = gateway.answer("GET /digits.txt HTTP/1.1", &[&condition, &range]);
        let (got, head, got_body) = answer;
        let got_body = String::from_utf8(got_body).unwrap();
        assert_eq!((got, &*got_body), (status, body), "{condition}, {range}");
        assert!(head.contains(&format!("etag: {tag}")), "{head}");
    }
    let (status, head, body) = gateway.answer("HEAD /digits.txt HTTP/1.1", &["Range: bytes=2-4"]);
    assert!(
        status == 200 && body.is_empty() && head.contains("content-length: 10"),
        "{head}"
    );
    for wrong in ["..", "a%2Fb", "%00", "%ff", &"x".repeat(256)] {
        let (status, _, body) = gateway.answer(&format!("GET /{wrong} HTTP/1.1"), &[]);
        assert_eq!(status, 400, "{wrong}: {}", String::from_utf8_lossy(&body));
    }
    assert_eq!(gateway.answer("GET /nothing HTTP/1.1", &[]).0, 404);
}

#[test]
fn content_that_cannot_be_read_is_an_error_with_its_reason() {
    let gateway = Gateway::new("digits.txt", b"0123456789");
    let here = gateway.dir.path().join("gateway/digits.txt");
    fs::write(&here, "somebody else's").unwrap();
    let (status, _, body) = gateway.answer("GET /digits.txt HTTP/1.1", &[]);
    let body = String::from_utf8(body).unwrap();
    assert!(
        status == 502 && body.contains("already exists"),
        "{status} {body}"
    );
    fs::remove_file(&here).unwrap();
    assert_eq!(gateway.answer("GET /digits.txt HTTP/1.1", &[]).0, 200);
    // It was complete, and is gone.
    while fs::remove_file(&here).is_err() {}
    // What is open may still be read; when it is found to be gone, it is fetched again.
    while !here.exists() {
        let (status, _, body) = gateway.answer("GET /digits.txt HTTP/1.1", &[]);
        let body = String::from_utf8(body).unwrap();
        assert!(status == 502 || status == 200, "{status} {body}");
        assert!(status == 502 || body == "0123456789", "{body}");
    }
    let (status, _, body) = gateway.answer("GET /digits.txt HTTP/1.1", &[]);
    assert_eq!((status, &*body), (200, &b"0123456789"[..]));
}

#[test]
fn content_that_is_not_found_is_not_looked_for_when_its_clients_have_gone() {
    let mut gateway = Gateway::new("file", b"bytes");
    assert_eq!(gateway.answer("GET /file HTTP/1.1", &[]).0, 200);
    // Nobody says that there is no such content.
    gateway.tracker.kill();
    let ask = |number: usize| gateway.asked(&format!("GET /{number} HTTP/1.1"), &[]);
    let asked: Vec<_> = (0..MAX_DOWNLOADS).map(ask).collect();
    let last = ask(0);
    while gateway.looked_for() < MAX_DOWNLOADS {}
    assert_eq!(gateway.answer("GET /more HTTP/1.1", &[]).0, 503);
    assert_eq!(gateway.answer("GET /file HTTP/1.1", &[]).0, 200);
    drop(asked);
    // One of them has another client.
    while gateway.looked_for() > 1 {}
    drop(last);
    while gateway.looked_for() > 0 {}
}

#[cfg(unix)]
#[test]
fn gateway_ends_though_a_client_does_not_read() {
    let mut gateway = Gateway::new("long", &vec![7; LONG]);
    let mut stuck = gateway.asked("GET /long HTTP/1.1", &[]);
    let mut first = [0; 12];
    stuck.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"HTTP/1.1 200");
    gateway.gateway.terminate();
    let (status, _, stderr) = gateway.gateway.ended();
    assert!(status.success(), "{status} {stderr}");
    drop(stuck);
}
