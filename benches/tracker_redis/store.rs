//! A Redis of its own, what it is seen to do, and `redis-benchmark`.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::ffi::OsStringExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::common::Outcome;

/// How many connections `redis-benchmark` has, and how many calls each has under way: what the
/// tracker has under way in all.
const CONNECTIONS: &str = "16";
const PIPELINE: &str = "32";

/// How long Redis may take to say something.
const PATIENCE: Duration = Duration::from_secs(30);

/// The words of a call.
pub(crate) type Call = Vec<Vec<u8>>;

/// Calls, and how often each is made.
pub(crate) type Calls<'a> = Vec<(&'a Call, u64)>;

/// A Redis that keeps nothing on the disk, until it is dropped.
pub(crate) struct Redis {
    pub(crate) url: String,
    port: u16,
    child: Child,
    _dir: TempDir,
}

impl Drop for Redis {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Redis {
    /// Starts it, if its programs are there.
    pub(crate) fn start() -> Outcome<Option<Self>> {
        let is_there = |program: &str| {
            let mut version = Command::new(program);
            let version = version.arg("--version").stdout(Stdio::null());
            version.status().is_ok_and(|status| status.success())
        };
        if !is_there("redis-server") || !is_there("redis-benchmark") {
            return Ok(None);
        }
        let dir = tempfile::tempdir()?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let mut child = Command::new("redis-server")
            .args(["--bind", "127.0.0.1", "--port", &port.to_string()])
            .args(["--save", "", "--dir"])
            .arg(dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut said = BufReader::new(child.stdout.take().ok_or("no output")?);
        let redis = Self {
            url: format!("redis://127.0.0.1:{port}/"),
            port,
            child,
            _dir: dir,
        };
        let mut line = String::new();
        while !line.contains("Ready to accept connections") {
            line.clear();
            if said.read_line(&mut line)? == 0 {
                return Err("redis-server has ended".into());
            }
        }
        std::thread::spawn(move || said.lines().map_while(Result::ok).for_each(drop));
        Ok(Some(redis))
    }

    fn connect(&self) -> Outcome<TcpStream> {
        let stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(stream)
    }

    /// How much CPU time it has used, by all of its threads.
    pub(crate) fn cpu_seconds(&self) -> Outcome<f64> {
        let mut stream = self.connect()?;
        stream.write_all(b"INFO cpu\r\nQUIT\r\n")?;
        let mut info = String::new();
        stream.read_to_string(&mut info)?;
        let field = |name: &str| {
            let mut lines = info.lines();
            let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            value.and_then(|value| value.trim().parse::<f64>().ok())
        };
        let used = field("used_cpu_sys").zip(field("used_cpu_user"));
        let (sys, user) = used.ok_or("INFO does not tell of the CPU")?;
        Ok(sys + user)
    }

    /// Sees what it is asked from now on.
    pub(crate) fn monitor(&self) -> Outcome<Monitor> {
        let mut stream = self.connect()?;
        stream.write_all(b"MONITOR\r\n")?;
        let mut lines = BufReader::new(stream);
        let mut first = String::new();
        lines.read_line(&mut first)?;
        match first.trim_end() {
            "+OK" => Ok(Monitor(lines)),
            other => Err(format!("MONITOR: {other}").into()),
        }
    }

    /// Makes calls one kind after the other.
    pub(crate) fn benchmark(&self, calls: Calls<'_>) -> Outcome<()> {
        for (call, times) in calls {
            let words = call.iter().cloned().map(OsString::from_vec);
            let ended = Command::new("redis-benchmark")
                .args(["-h", "127.0.0.1", "-p", &self.port.to_string(), "-q"])
                .args(["-c", CONNECTIONS, "-P", PIPELINE, "-n", &times.to_string()])
                .args(words)
                .stdin(Stdio::null())
                .output()?;
            let said = String::from_utf8_lossy(&ended.stdout);
            let wrong = String::from_utf8_lossy(&ended.stderr);
            if !ended.status.success() || said.contains("Error") || wrong.contains("rror") {
                return Err(format!("redis-benchmark: {said} {wrong}").into());
            }
        }
        Ok(())
    }
}

/// What a Redis is asked.
pub(crate) struct Monitor(BufReader<TcpStream>);

impl Monitor {
    /// The next calls of scripts that have something to do with peers and contents, except
    /// those by which the tracker looks after leases.
    pub(crate) fn calls(mut self, count: usize) -> Outcome<Vec<Call>> {
        let mut calls = Vec::new();
        while calls.len() < count {
            let mut line = String::new();
            if self.0.read_line(&mut line)? == 0 {
                return Err("MONITOR has ended".into());
            }
            let call = words(&line);
            let is_script = call.first().is_some_and(|word| word == b"EVALSHA");
            // `due` has one key and one argument.
            if is_script && call.get(2).is_some_and(|keys| keys != b"1") {
                calls.push(call);
            }
        }
        Ok(calls)
    }
}

/// The quoted words of a line of MONITOR.
fn words(line: &str) -> Call {
    let mut words = Vec::new();
    let mut rest = line.bytes().skip_while(|byte| *byte != b'"');
    while rest.next() == Some(b'"') {
        let mut word = Vec::new();
        while let Some(byte) = rest.next().filter(|byte| *byte != b'"') {
            word.push(match byte {
                b'\\' => escaped(&mut rest),
                byte => byte,
            });
        }
        words.push(word);
        // The space between two words.
        rest.next();
    }
    words
}

/// The byte behind a backslash.
fn escaped(rest: &mut impl Iterator<Item = u8>) -> u8 {
    match rest.next().unwrap_or(b'\\') {
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'a' => 7,
        b'b' => 8,
        b'x' => {
            let digits = [rest.next(), rest.next()].map(|digit| digit.unwrap_or(b'0'));
            let digits = digits.map(|digit| char::from(digit).to_digit(16).unwrap_or(0));
            (digits[0] * 16 + digits[1]) as u8
        }
        byte => byte,
    }
}
