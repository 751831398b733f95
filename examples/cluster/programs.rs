//! The programs of the cluster: each is stopped when it is dropped.

use std::env;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};

use bt_lite::Addr;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::common::Outcome;

/// The gauge with the number of clients of a tracker.
const CLIENTS: &str = "bt_lite_tracker_connections ";

/// How many bytes the secret of the trackers has.
const SECRET: usize = 32;

/// Where everything of the cluster lies, until it is dropped.
pub(crate) struct Workspace {
    dir: TempDir,
    /// The programs of Redis and of a tracker.
    redis: PathBuf,
    tracker: PathBuf,
}

impl Workspace {
    pub(crate) fn new() -> Outcome<Self> {
        let redis = on_path("redis-server").ok_or(
            "there is no redis-server on the PATH: install it (apt install redis-server, \
             brew install redis), or Valkey with a link of that name",
        )?;
        let dir = tempfile::tempdir()?;
        let mut secret = [0; SECRET];
        getrandom::fill(&mut secret)?;
        fs::write(dir.path().join("redis.secret"), secret)?;
        Ok(Self {
            dir,
            redis,
            tracker: tracker_program()?,
        })
    }
}

/// The example `tracker`, which is beside this one.
fn tracker_program() -> Outcome<PathBuf> {
    let this = env::current_exe()?;
    let beside = this.with_file_name(format!("tracker{}", env::consts::EXE_SUFFIX));
    // Cargo builds no example but this one when it runs it.
    if let Some(cargo) = env::var_os("CARGO") {
        let is_release = this.iter().any(|part| part == "release");
        let mut build = Command::new(cargo);
        build.args(["build", "--quiet", "--example", "tracker"]);
        build.args(is_release.then_some("--release"));
        if !build.status()?.success() {
            return Err("the example tracker cannot be built".into());
        }
    }
    match beside.exists() {
        true => Ok(beside),
        false => Err(format!(
            "{} is not there: cargo build --example tracker",
            beside.display()
        )
        .into()),
    }
}

/// A program that is killed when it is dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts a program, and returns what it prints as well.
fn start(mut command: Command) -> Outcome<(Running, BufReader<ChildStdout>)> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let stdout = child.stdout.take().ok_or("it prints nothing")?;
    Ok((Running(child), BufReader::new(stdout)))
}

/// A Redis that keeps nothing on the disk.
pub(crate) struct Redis {
    url: String,
    _running: Running,
}

impl Redis {
    pub(crate) fn start(workspace: &Workspace) -> Outcome<Self> {
        // Nobody else takes it in the moment until the server does.
        let free = TcpListener::bind("127.0.0.1:0")?;
        let port = free.local_addr()?.port();
        drop(free);
        let mut command = Command::new(&workspace.redis);
        command
            .args(["--bind", "127.0.0.1", "--port", &port.to_string()])
            .args(["--save", "", "--maxmemory-policy", "noeviction", "--dir"])
            .arg(workspace.dir.path());
        let (running, mut said) = start(command)?;
        let mut line = String::new();
        while !line.contains("Ready to accept connections") {
            line.clear();
            if said.read_line(&mut line)? == 0 {
                return Err("redis-server has ended before it was ready".into());
            }
        }
        read_on(said);
        Ok(Self {
            url: format!("redis://127.0.0.1:{port}/"),
            _running: running,
        })
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }
}

/// Where a program is that the shell would find.
fn on_path(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    let name = format!("{name}{}", env::consts::EXE_SUFFIX);
    let all = env::split_paths(&path).map(|dir| dir.join(&name));
    all.into_iter().find(|program| program.is_file())
}

/// Reads what a program prints, so that it never waits for that.
fn read_on(said: BufReader<ChildStdout>) {
    std::thread::spawn(move || said.lines().map_while(Result::ok).for_each(drop));
}

/// The example `tracker`.
pub(crate) struct TrackerProgram {
    pub(crate) addr: Addr,
    /// Where it tells how it is.
    pub(crate) admin: String,
    running: Running,
}

impl TrackerProgram {
    pub(crate) fn start(workspace: &Workspace, redis: &Redis) -> Outcome<Self> {
        let mut command = Command::new(&workspace.tracker);
        command
            .args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"])
            .args(["--drain", "10", "--redis", redis.url(), "--redis-secret"])
            .arg(workspace.dir.path().join("redis.secret"));
        let (running, mut said) = start(command)?;
        let addr = said_behind(&mut said, "listening ")?.parse()?;
        let admin = said_behind(&mut said, "admin ")?;
        read_on(said);
        Ok(Self {
            addr,
            admin,
            running,
        })
    }

    /// Ends it as a crash does.
    pub(crate) fn kill(&mut self) -> Outcome<()> {
        self.running.0.kill()?;
        self.running.0.wait()?;
        Ok(())
    }

    /// Tells it to end.
    pub(crate) fn terminate(&self) -> Outcome<()> {
        let id = self.running.0.id().to_string();
        let told = Command::new("kill").args(["-TERM", &id]).status()?;
        match told.success() {
            true => Ok(()),
            false => Err(format!("the tracker at {} cannot be told to end", self.addr).into()),
        }
    }

    /// Waits for the end after [`terminate`](Self::terminate).
    pub(crate) async fn ended(&mut self) -> Outcome<()> {
        let status = loop {
            if let Some(status) = self.running.0.try_wait()? {
                break status;
            }
            tokio::time::sleep(super::LOOK).await;
        };
        match status.success() {
            true => Ok(()),
            false => Err(format!("the tracker at {} has ended with {status}", self.addr).into()),
        }
    }

    /// How many clients it has.
    pub(crate) async fn clients(&self) -> Outcome<u64> {
        let figures = get(&self.admin, "/metrics").await?;
        let mut lines = figures.lines();
        let clients = lines.find_map(|line| line.strip_prefix(CLIENTS));
        // Nobody has come yet.
        Ok(clients.map_or(Ok(0), str::parse)?)
    }
}

/// The rest of the next line that a program prints.
fn said_behind(said: &mut impl BufRead, prefix: &str) -> Outcome<String> {
    let mut line = String::new();
    said.read_line(&mut line)?;
    let rest = line.trim_end().strip_prefix(prefix);
    Ok(rest.ok_or("a tracker does not start")?.to_owned())
}

/// The answer to a request over HTTP.
async fn get(base: &str, path: &str) -> Outcome<String> {
    let host = base.trim_start_matches("http://");
    let mut stream = TcpStream::connect(host).await?;
    let request = format!("GET {path} HTTP/1.0\r\nhost: {host}\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}
