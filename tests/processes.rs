//! The examples as separate processes: what they print, how they end, and that a
//! file arrives unchanged whatever happens to the other processes.
//!
//! No test sleeps. Where something has to happen in the middle of a download,
//! the owners are reached through [`Gate`]s, which hold their bytes back until
//! the test has done it.

#![allow(clippy::unwrap_used, reason = "a failure ends the test")]

#[path = "tls/authority.rs"]
#[allow(dead_code)]
mod authority;
#[path = "processes/gateway.rs"]
mod gateway;
#[path = "processes/operating.rs"]
mod operating;
#[cfg(unix)]
#[path = "processes/zones.rs"]
mod zones;

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use bt_lite::content::MIN_CHUNK_LEN;
use bt_lite::protocol::{OwnEntry, OwnState};
use bt_lite::tracker::ClientConfig;
use bt_lite::{Addr, ContentId, FolderEntry, FolderIndex, TcpTransport, TrackerClient};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::{Semaphore, watch};

/// The length of the file in bytes: many chunks.
const LENGTH: usize = 2 << 20;

/// How many bytes each of three owners may send before a test opens its gate:
/// together much less than the file.
const HELD_BACK: usize = LENGTH / 10;

/// A number of bytes that opens a gate for good.
const OPEN: usize = 1 << 30;

/// How many lines of a program may wait to be read.
const MAX_LINES: usize = 1024;

/// Ends a test that hangs.
const PATIENCE: Duration = Duration::from_secs(90);

/// An example that runs. Killed when it is dropped.
struct Program {
    name: &'static str,
    child: Child,
    lines: Receiver<String>,
    stderr: Option<JoinHandle<String>>,
}

impl Program {
    fn start(name: &'static str, args: &[&str]) -> Self {
        let mut command = Command::new(example(name));
        command.args(args);
        Self::spawned(name, command)
    }

    fn spawned(name: &'static str, mut command: Command) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let mut stderr = child.stderr.take().unwrap();
        let (sender, lines) = sync_channel(MAX_LINES);
        std::thread::spawn(move || {
            let lines = stdout.lines().map_while(Result::ok);
            for line in lines {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let stderr = std::thread::spawn(move || {
            let mut text = String::new();
            stderr.read_to_string(&mut text).unwrap();
            text
        });
        Self {
            name,
            child,
            lines,
            stderr: Some(stderr),
        }
    }

    /// The next line, or `None` at the end.
    fn line(&self) -> Option<String> {
        match self.lines.recv_timeout(PATIENCE) {
            Ok(line) => Some(line),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => panic!("{} prints nothing", self.name),
        }
    }

    /// The rest of the next line behind `prefix`.
    fn said(&self, prefix: &str) -> String {
        let line = self.line().unwrap_or_else(|| panic!("{} ended", self.name));
        let rest = line.strip_prefix(prefix);
        rest.unwrap_or_else(|| panic!("{}: {line}", self.name))
            .to_owned()
    }

    /// Waits for the end. Returns the exit status, the last line, and all of
    /// stderr.
    fn ended(&mut self) -> (ExitStatus, String, String) {
        let mut last = String::new();
        while let Some(line) = self.line() {
            last = line;
        }
        let status = self.child.wait().unwrap();
        let stderr = self.stderr.take().unwrap().join().unwrap();
        (status, last, stderr)
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    #[cfg(unix)]
    fn terminate(&self) {
        let kill = Command::new("kill")
            .args(["-TERM", &self.child.id().to_string()])
            .status();
        assert!(kill.unwrap().success());
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The path of an example, which cargo builds beside this test.
fn example(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let profile = test.ancestors().nth(2).unwrap();
    let path = profile
        .join("examples")
        .join(format!("{name}{}", std::env::consts::EXE_SUFFIX));
    assert!(
        path.exists(),
        "{} is not built: cargo build --examples",
        path.display()
    );
    path
}

/// A tracker, a file, and owners of copies of it.
struct Stage {
    dir: TempDir,
    bytes: Vec<u8>,
    id: ContentId,
    tracker: Program,
    tracker_addr: String,
    owners: Vec<Program>,
}

impl Stage {
    fn new(owners: usize) -> Self {
        let mut bytes = vec![0; LENGTH - 321];
        fastrand::Rng::with_seed(7).fill(&mut bytes);
        let tracker = Program::start("tracker", &["--listen", "127.0.0.1:0"]);
        let tracker_addr = tracker.said("listening ");
        let mut stage = Self {
            dir: tempfile::tempdir().unwrap(),
            id: ContentId::of(&bytes),
            bytes,
            tracker,
            tracker_addr,
            owners: Vec::new(),
        };
        for _ in 0..owners {
            stage.add_owner();
        }
        stage
    }

    fn add_owner(&mut self) {
        let copy = self.copy_of(self.owners.len());
        fs::create_dir(copy.parent().unwrap()).unwrap();
        fs::write(&copy, &self.bytes).unwrap();
        let tracker = &self.tracker_addr;
        let args = ["--tracker", tracker, "--listen", "127.0.0.1:0", text(&copy)];
        let owner = Program::start("share", &args);
        // The id is what b3sum prints.
        assert_eq!(owner.said("sharing "), format!("{} file.bin", self.id));
        self.owners.push(owner);
    }

    fn copy_of(&self, owner: usize) -> PathBuf {
        self.dir
            .path()
            .join(format!("owner-{owner}"))
            .join("file.bin")
    }

    fn out(&self) -> PathBuf {
        self.dir.path().join("out")
    }

    fn fetch(&self, tracker: &str, key: &str) -> Program {
        let out = self.out();
        let args = [
            "--tracker",
            tracker,
            "--out",
            text(&out),
            "--progress-lines",
            key,
        ];
        Program::start("fetch", &args)
    }

    fn expect_verified(&self, mut fetch: Program) {
        let (status, last, stderr) = fetch.ended();
        assert!(status.success(), "{stderr}");
        let expected = format!("verified {} {} bytes in ", self.id, self.bytes.len());
        assert!(
            last.starts_with(&expected) && last.ends_with(" s"),
            "{last}"
        );
        assert!(
            fs::read(self.out().join("file.bin")).unwrap() == self.bytes,
            "the file is another one"
        );
        let left: Vec<_> = fs::read_dir(self.out())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(left, ["file.bin"], "nothing else stays");
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A proxy in front of an owner. It passes on as many of the owner's bytes as
/// the test allows.
struct Gate {
    allowed: Arc<Semaphore>,
    seen: watch::Receiver<Seen>,
    /// Tells a tracker that the owner is at the gate's address.
    _client: TrackerClient,
}

#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    /// How many connections began and ended.
    began: usize,
    ended: usize,
    /// How many bytes were passed on.
    bytes: usize,
}

impl Gate {
    async fn new(owner: SocketAddr, tracker: &str, entry: OwnEntry, allowed: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = client(tracker, Some(listener.local_addr().unwrap().into()));
        client.own(entry).await.unwrap();
        let allowed = Arc::new(Semaphore::new(allowed));
        let (seen, watched) = watch::channel(Seen::default());
        let (permits, seen) = (allowed.clone(), Arc::new(seen));
        tokio::spawn(async move {
            loop {
                let (dialler, _) = listener.accept().await.unwrap();
                let (permits, seen) = (permits.clone(), seen.clone());
                tokio::spawn(async move {
                    seen.send_modify(|seen| seen.began += 1);
                    carry(dialler, owner, &permits, &seen).await;
                    seen.send_modify(|seen| seen.ended += 1);
                });
            }
        });
        Self {
            allowed,
            seen: watched,
            _client: client,
        }
    }

    fn open(&self) {
        self.allowed.add_permits(OPEN);
    }

    async fn wait_for(&self, condition: impl Fn(&Seen) -> bool) {
        let mut seen = self.seen.clone();
        let met = tokio::time::timeout(PATIENCE, seen.wait_for(|seen| condition(seen))).await;
        met.expect("it happens at the gate").unwrap();
    }
}

/// Carries bytes both ways until either side closes.
async fn carry(
    mut dialler: TcpStream,
    owner: SocketAddr,
    allowed: &Semaphore,
    seen: &watch::Sender<Seen>,
) {
    let Ok(mut owner) = TcpStream::connect(owner).await else {
        return;
    };
    let (mut from_dialler, mut to_dialler) = dialler.split();
    let (mut from_owner, mut to_owner) = owner.split();
    let down = async {
        let mut buffer = vec![0; 4096];
        while let Ok(read @ 1..) = from_owner.read(&mut buffer).await {
            allowed.acquire_many(read as u32).await.unwrap().forget();
            if to_dialler.write_all(&buffer[..read]).await.is_err() {
                break;
            }
            seen.send_modify(|seen| seen.bytes += read);
        }
    };
    tokio::select! {
        () = down => {}
        _ = tokio::io::copy(&mut from_dialler, &mut to_owner) => {}
    }
}

fn client(tracker: &str, listen: Option<Addr>) -> TrackerClient {
    TrackerClient::start(
        Arc::new(TcpTransport::new()),
        vec![tracker.parse().unwrap()],
        listen,
        ClientConfig::default(),
    )
}

/// A stage with a second tracker that knows only the gates of the owners.
struct Gated {
    stage: Stage,
    tracker: Program,
    tracker_addr: String,
    gates: Vec<Gate>,
    runtime: Runtime,
}

impl Gated {
    /// Has one owner for each allowance in bytes.
    fn new(allowed: &[usize]) -> Self {
        let mut stage = Stage::new(0);
        let tracker = Program::start("tracker", &["--listen", "127.0.0.1:0"]);
        let tracker_addr = tracker.said("listening ");
        let runtime = Runtime::new().unwrap();
        let asker = {
            let _inside = runtime.enter();
            client(&stage.tracker_addr, None)
        };
        let (mut gates, mut known) = (Vec::new(), Vec::new());
        for &allowed in allowed {
            stage.add_owner();
            let gate = runtime.block_on(async {
                let found = asker.need(stage.id.into(), 10).await.unwrap();
                let addrs = found.owners.iter().filter_map(|o| o.addr.socket_addr());
                let new: Vec<_> = addrs.filter(|addr| !known.contains(addr)).collect();
                assert_eq!(new.len(), 1, "the owner that has just come");
                known.extend(&new);
                let entry = OwnEntry::new(found.id, found.name, found.length, OwnState::Complete);
                Gate::new(new[0], &tracker_addr, entry, allowed).await
            });
            gates.push(gate);
        }
        Self {
            stage,
            tracker,
            tracker_addr,
            gates,
            runtime,
        }
    }

    /// A download that has received something from each owner, and waits for
    /// the gates to open.
    fn fetch_to_the_middle(&self) -> Program {
        let fetch = self.stage.fetch(&self.tracker_addr, "file.bin");
        self.runtime.block_on(async {
            for gate in &self.gates {
                gate.wait_for(|seen| seen.bytes > HELD_BACK / 2).await;
            }
        });
        loop {
            let progress = fetch.said("progress ");
            let (verified, rest) = progress.split_once(" of ").unwrap();
            assert!(rest.starts_with(&format!("{} bytes from ", self.stage.bytes.len())));
            let verified: usize = verified.parse().unwrap();
            assert!(verified < self.stage.bytes.len());
            if verified > 0 {
                return fetch;
            }
        }
    }

    fn open(&self) {
        for gate in &self.gates {
            gate.open();
        }
    }
}

#[test]
fn file_arrives_from_three_owners() {
    let stage = Stage::new(3);
    let by_name = stage.fetch(&stage.tracker_addr, "file.bin");
    stage.expect_verified(by_name);
    let again_by_id = stage.fetch(&stage.tracker_addr, &stage.id.to_string());
    stage.expect_verified(again_by_id);
}

#[test]
fn file_arrives_though_an_owner_is_killed() {
    let mut gated = Gated::new(&[HELD_BACK; 3]);
    let fetch = gated.fetch_to_the_middle();
    gated.stage.owners[1].kill();
    gated.open();
    gated.stage.expect_verified(fetch);
}

#[test]
fn file_arrives_though_the_trackers_are_killed() {
    let mut gated = Gated::new(&[HELD_BACK; 3]);
    let fetch = gated.fetch_to_the_middle();
    gated.tracker.kill();
    gated.stage.tracker.kill();
    gated.open();
    gated.stage.expect_verified(fetch);
}

#[test]
fn file_arrives_though_an_owner_altered_its_copy() {
    // The honest owners send nothing until the liar is known.
    let gated = Gated::new(&[OPEN, 0, 0]);
    let altered: Vec<u8> = gated.stage.bytes.iter().map(|byte| !byte).collect();
    // With its old modification time, the owner itself does not notice.
    let copy = fs::File::options()
        .write(true)
        .open(gated.stage.copy_of(0))
        .unwrap();
    let modified = copy.metadata().unwrap().modified().unwrap();
    std::io::Write::write_all(&mut &copy, &altered).unwrap();
    copy.set_modified(modified).unwrap();

    let fetch = gated.stage.fetch(&gated.tracker_addr, "file.bin");
    let found_out = |seen: &Seen| seen.ended == 1 && seen.bytes > MIN_CHUNK_LEN as usize;
    gated.runtime.block_on(gated.gates[0].wait_for(found_out));
    gated.open();
    gated.stage.expect_verified(fetch);
    let began = gated.gates[0].seen.borrow().began;
    assert_eq!(began, 1, "it is not asked again");
}

#[test]
fn fetch_that_fails_prints_the_reason_in_one_line() {
    let stage = Stage::new(1);
    let in_the_way = stage.dir.path().join("in-the-way");
    fs::write(&in_the_way, "").unwrap();
    let (tracker, out) = (stage.tracker_addr.as_str(), stage.out());
    let (out, in_the_way) = (text(&out), text(&in_the_way));
    for (args, reason) in [
        (
            ["--tracker", tracker, "--out", out, "nothing"],
            "no tracker knows",
        ),
        (["--tracker", tracker, "--out", out, "a/b"], "content name"),
        (["--tracker", "nowhere", "--out", out, "a"], "nowhere"),
        (["--tracker", tracker, "--out", in_the_way, "a"], "opening"),
    ] {
        let (status, last, stderr) = Program::start("fetch", &args).ended();
        assert!(!status.success());
        assert_eq!(last, "");
        let line = stderr.strip_prefix("fetch: ").unwrap();
        assert!(line.contains(reason), "{line}");
        assert_eq!(line.lines().count(), 1, "{line}");
    }
}

#[test]
fn fetch_with_a_wrong_option_tells_it_and_the_usage() {
    let (status, last, stderr) = Program::start("fetch", &["--to", "x", "a"]).ended();
    assert_eq!(status.code(), Some(2));
    assert_eq!(last, "");
    assert!(
        stderr.contains("--to") && stderr.contains("Usage"),
        "{stderr}"
    );
}

/// `cat` ends in silence too when its reader has left, and takes any file name.
#[cfg(unix)]
#[test]
fn programs_whose_output_nobody_reads_end_in_silence() {
    use std::os::unix::process::ExitStatusExt;

    let stage = Stage::new(1);
    let (tracker, out) = (stage.tracker_addr.as_str(), stage.out());
    let (file, out) = (text(&stage.dir.path().join("copy")).to_owned(), text(&out));
    fs::write(&file, "some bytes").unwrap();
    let fetch = [
        "--tracker",
        tracker,
        "--out",
        out,
        "--progress-lines",
        "file.bin",
    ];
    let share = ["--tracker", tracker, "--listen", "127.0.0.1:0", &file];
    for (name, args) in [
        ("fetch", fetch.as_slice()),
        ("share", &share),
        ("tracker", &["--listen", "127.0.0.1:0"]),
    ] {
        // A pipe whose reading end is closed.
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = Command::new(example(name))
            .args(args)
            .stdin(Stdio::null())
            .stdout(writer)
            .stderr(Stdio::piped())
            .output()
            .unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(stderr, "", "{name}");
        let (code, signal) = (output.status.code(), output.status.signal());
        assert_eq!(
            code.or(signal.map(|signal| 128 + signal)),
            Some(141),
            "{name}"
        );
    }
}

#[cfg(unix)]
#[test]
fn arguments_that_are_not_utf_8_are_paths_or_told_to_be_wrong() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    let stage = Stage::new(1);
    let strange = OsStr::from_bytes(b"b\xffd");
    let file = stage.dir.path().join(strange);
    fs::write(&file, "some bytes").unwrap();
    let run = |name: &str, args: &[&OsStr]| {
        let output = Command::new(example(name)).args(args).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status, stderr)
    };
    let tracker = OsStr::new(&stage.tracker_addr);
    let shared = [OsStr::new("--tracker"), tracker, file.as_os_str()];
    let (status, stderr) = run("share", &shared);
    assert_eq!(status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("content name"), "{stderr}");

    let out = stage.dir.path().join("out").join(strange);
    let fetched = [
        OsStr::new("--tracker"),
        tracker,
        OsStr::new("--out"),
        out.as_os_str(),
    ];
    let (status, stderr) = run("fetch", &[&fetched[..], &[strange]].concat());
    assert_eq!(status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("UTF-8"), "{stderr}");
    let (status, stderr) = run("fetch", &[&fetched[..], &[OsStr::new("file.bin")]].concat());
    assert!(status.success(), "{stderr}");
    assert!(out.join("file.bin").exists());
}

#[cfg(unix)]
#[test]
fn owner_and_tracker_end_in_order_when_they_are_terminated() {
    let mut stage = Stage::new(1);
    let mut owner = stage.owners.remove(0);
    owner.terminate();
    let (status, _, stderr) = owner.ended();
    assert!(status.success(), "{stderr}");

    let (status, _, stderr) = stage.fetch(&stage.tracker_addr, "file.bin").ended();
    assert!(!status.success());
    assert!(stderr.contains("no tracker knows"), "{stderr}");

    stage.tracker.terminate();
    let (status, _, stderr) = stage.tracker.ended();
    assert!(status.success(), "{stderr}");
}

#[test]
fn quickstart_ends_with_its_verified_line_and_leaves_no_file() {
    let dir = tempfile::tempdir().unwrap();
    let (file, temporary) = (dir.path().join("a.bin"), dir.path().join("tmp"));
    let bytes = vec![3; LENGTH];
    fs::write(&file, &bytes).unwrap();
    fs::create_dir(&temporary).unwrap();
    let places = ["TMPDIR", "TMP", "TEMP"].map(|name| (name, &temporary));
    let output = Command::new(example("quickstart"))
        .arg(&file)
        .envs(places)
        .output()
        .unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();
    let last = stdout.lines().last().unwrap();
    let (what, from) = last.split_once(" from ").unwrap();
    let id = ContentId::of(&bytes);
    assert_eq!(what, format!("verified {id} {LENGTH} bytes"));
    // Chance decides how many of the three are counted; no other peer is.
    let (owners, seconds) = from.split_once(" owners in ").unwrap();
    assert!(["1", "2", "3"].contains(&owners), "{last}");
    let seconds: f64 = seconds.strip_suffix(" s").unwrap().parse().unwrap();
    assert!(seconds >= 0.0);
    assert_eq!(fs::read_dir(&temporary).unwrap().count(), 0);
}

/// How many files the folder has, and how many bytes each: one block, so that half of
/// all bytes are about half of the files.
const FILES: usize = 60;
const FILE_LENGTH: usize = 15_000;

/// A folder of many files, and the id and length of its index.
fn write_folder(root: &Path) -> (ContentId, u64) {
    let mut random = fastrand::Rng::with_seed(11);
    let entries = (0..FILES).map(|number| {
        let path = format!("dir-{}/file-{number}", number % 5);
        let mut bytes = vec![0; FILE_LENGTH];
        random.fill(&mut bytes);
        let at = root.join(&path);
        fs::create_dir_all(at.parent().unwrap()).unwrap();
        fs::write(at, &bytes).unwrap();
        let length = FILE_LENGTH as u64;
        FolderEntry::file(path.parse().unwrap(), ContentId::of(&bytes), length)
    });
    let index = FolderIndex::new(entries.collect()).unwrap();
    (index.id(), index.encode().len() as u64)
}

fn same_folder(a: &Path, b: &Path) -> bool {
    (0..FILES).all(|number| {
        let path = format!("dir-{}/file-{number}", number % 5);
        fs::read(a.join(&path)).ok() == fs::read(b.join(&path)).ok()
    })
}

#[test]
fn folder_arrives_though_the_fetch_is_killed_in_the_middle() {
    let stage = Stage::new(0);
    let folder = stage.dir.path().join("photos");
    let (id, length) = write_folder(&folder);
    // Only the gate is known to the tracker of the fetch.
    let hidden = Program::start("tracker", &["--listen", "127.0.0.1:0"]);
    let hidden_addr = hidden.said("listening ");
    let listen = ["--tracker", &hidden_addr, "--listen", "127.0.0.1:0"];
    let owner = Program::start("share", &[&listen[..], &[text(&folder)]].concat());
    assert_eq!(owner.said("sharing "), format!("{id} photos"));
    let runtime = Runtime::new().unwrap();
    let half = FILES * FILE_LENGTH / 2;
    let gate = runtime.block_on(async {
        let found = client(&hidden_addr, None).need(id.into(), 1).await.unwrap();
        assert_eq!(found.length, length);
        let entry = OwnEntry::new(id, found.name, length, OwnState::Complete);
        let owner = found.owners[0].addr.socket_addr().unwrap();
        Gate::new(owner, &stage.tracker_addr, entry, half).await
    });

    let out = stage.out();
    let fetch = || {
        let tracker = ["--tracker", &stage.tracker_addr, "--out", text(&out)];
        let what = ["--progress-lines", "--folder", "photos"];
        Program::start("fetch", &[&tracker[..], &what].concat())
    };
    let mut killed = fetch();
    loop {
        let progress = killed.said("progress ");
        let (_, files) = progress.rsplit_once(" bytes, ").unwrap();
        let done: usize = files.split(' ').next().unwrap().parse().unwrap();
        assert!(done < FILES, "{progress}");
        if done > FILES / 5 {
            break;
        }
    }
    killed.kill();
    let left = || {
        let entries = fs::read_dir(&out).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.collect::<Vec<_>>()
    };
    assert_eq!(left(), [format!("{id}.folder")], "nothing is visible");

    let before = gate.seen.borrow().bytes;
    gate.open();
    let (status, last, stderr) = fetch().ended();
    assert!(status.success(), "{stderr}");
    let all = FILES * FILE_LENGTH;
    assert!(
        last.starts_with(&format!("verified {id} {all} bytes in ")),
        "{last}"
    );
    assert!(same_folder(&folder, &out.join("photos")));
    assert_eq!(left(), ["photos"]);
    let fetched = gate.seen.borrow().bytes - before;
    let staged = FILES / 5 * FILE_LENGTH;
    assert!(
        fetched < all - staged / 2,
        "{fetched} bytes were fetched again"
    );
}

#[test]
fn folder_whose_owner_is_gone_says_why_nothing_arrives() {
    let stage = Stage::new(0);
    let folder = stage.dir.path().join("photos");
    write_folder(&folder);
    let listen = ["--tracker", &stage.tracker_addr, "--listen", "127.0.0.1:0"];
    let mut owner = Program::start("share", &[&listen[..], &[text(&folder)]].concat());
    owner.said("sharing ");
    owner.kill();
    let out = stage.out();
    let tracker = ["--tracker", &stage.tracker_addr, "--out", text(&out)];
    let what = ["--patience", "4", "--folder", "photos"];
    let (status, _, stderr) = Program::start("fetch", &[&tracker[..], &what].concat()).ended();
    assert!(!status.success());
    assert!(stderr.starts_with("stalled: "), "{stderr}");
    assert!(
        stderr.lines().last().unwrap().starts_with("fetch: "),
        "{stderr}"
    );
}

#[test]
fn part_of_a_folder_arrives_and_the_index_alone_is_a_file() {
    let stage = Stage::new(0);
    let folder = stage.dir.path().join("photos");
    let (id, length) = write_folder(&folder);
    let listen = ["--tracker", &stage.tracker_addr, "--listen", "127.0.0.1:0"];
    let owner = Program::start("share", &[&listen[..], &[text(&folder)]].concat());
    owner.said("sharing ");
    let run = |out: &Path, args: &[&str]| {
        let tracker = ["--tracker", &stage.tracker_addr, "--out", text(out)];
        Program::start("fetch", &[&tracker[..], args].concat()).ended()
    };
    let out = stage.out();
    let only = [
        "--folder",
        "--only",
        "dir-3/",
        "--only",
        "dir-1/file-6",
        "photos",
    ];
    let (status, _, stderr) = run(&out, &only);
    assert!(status.success(), "{stderr}");
    let dir_3 = fs::read_dir(out.join("photos/dir-3")).unwrap().count();
    assert_eq!(dir_3, FILES / 5);
    assert_eq!(fs::read_dir(out.join("photos/dir-1")).unwrap().count(), 1);
    assert_eq!(fs::read_dir(out.join("photos")).unwrap().count(), 2);

    let plain = stage.dir.path().join("plain");
    let (status, last, stderr) = run(&plain, &["photos"]);
    assert!(status.success(), "{stderr}");
    assert!(
        last.starts_with(&format!("verified {id} {length} bytes")),
        "{last}"
    );
    assert!(plain.join("photos").is_file());

    let file = stage.dir.path().join("a file");
    fs::write(&file, "no folder").unwrap();
    let owner = Program::start("share", &[&listen[..], &[text(&file)]].concat());
    owner.said("sharing ");
    let (status, _, stderr) = run(&out, &["--folder", "a file"]);
    assert!(!status.success());
    assert_eq!(stderr, "fetch: the content is not a folder\n");
}

/// Files of a private swarm, and how its programs are started.
struct Private {
    dir: TempDir,
    bytes: Vec<u8>,
}

impl Private {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let bytes = (0..100_000u32).map(|at| at as u8).collect();
        fs::write(dir.path().join("file.bin"), &bytes).unwrap();
        Self { dir, bytes }
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().unwrap().to_owned()
    }

    /// A directory with a certificate of an authority.
    fn certificates(&self, name: &str, authority: &authority::Authority) -> String {
        let dir = self.path(name);
        fs::create_dir(&dir).unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = authority.sign(&key, 1, authority::Validity::Now);
        for (name, text, mode) in [
            ("ca.pem", authority.pem(), 0o644),
            ("cert.pem", certificate, 0o644),
            ("key.pem", key.serialize_pem(), 0o600),
        ] {
            let path = Path::new(&dir).join(name);
            fs::write(&path, text).unwrap();
            #[cfg(unix)]
            fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
            #[cfg(not(unix))]
            let _ = mode;
        }
        dir
    }

    /// Has `members` share, fetch and serve a file over HTTP, and keeps `outsiders` out.
    fn travels(&self, members: [&[&str]; 4], outsiders: &[&[&str]]) {
        let [of_tracker, of_owner, of_member, of_gateway] = members;
        let listen = ["--listen", "127.0.0.1:0"];
        let tracker = Program::start("tracker", &[of_tracker, &listen].concat());
        let addr = tracker.said("listening ");
        let tracker_is = ["--tracker", &addr];
        let file = self.path("file.bin");
        let share = [of_owner, &listen, &tracker_is, &[&file]].concat();
        let owner = Program::start("share", &share);
        let id = ContentId::of(&self.bytes);
        assert_eq!(owner.said("sharing "), format!("{id} file.bin"));

        let out = tempfile::tempdir().unwrap();
        let out_is = ["--out", out.path().to_str().unwrap(), "file.bin"];
        let fetch = |how: &[&str]| {
            let mut fetch = Program::start("fetch", &[how, &tracker_is, &out_is].concat());
            fetch.ended()
        };
        for outsider in outsiders {
            let (status, _, stderr) = fetch(outsider);
            assert!(!status.success(), "{outsider:?}");
            assert!(stderr.starts_with("fetch: cannot reach"), "{stderr}");
            assert_eq!(stderr.lines().count(), 1, "{stderr}");
        }
        let (status, _, stderr) = fetch(of_member);
        assert!(status.success(), "{stderr}");
        assert!(fs::read(out.path().join("file.bin")).unwrap() == self.bytes);

        let dir = tempfile::tempdir().unwrap();
        let dir_is = ["--dir", dir.path().to_str().unwrap()];
        let gateway = [of_gateway, &listen, &tracker_is, &dir_is].concat();
        let gateway = Program::start("gateway", &gateway);
        let url = gateway.said("serving http://");
        let answer = http_get(&url, "file.bin");
        assert!(answer.starts_with(b"HTTP/1.1 200"));
        assert!(answer.ends_with(&self.bytes));
    }
}

/// The whole answer, with its head.
fn http_get(host: &str, path: &str) -> Vec<u8> {
    let mut stream = std::net::TcpStream::connect(host).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let request = format!("GET /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    std::io::Write::write_all(&mut stream, request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    answer
}

#[test]
fn private_swarm_lets_in_only_those_with_the_secret() {
    for over in ["--tls", "--quic"] {
        let files = Private::new();
        // The tracker makes it.
        let (secret, other) = (files.path("secret"), files.path("other"));
        let made = bt_lite::transport::auth::Secret::load_or_generate(&other);
        assert!(made.is_ok());
        let member = &["--secret", &secret, over][..];
        files.travels([member; 4], &[&["--secret", &other, over], &[]]);
    }
}

#[test]
fn private_swarm_lets_in_only_those_with_a_certificate() {
    for over in ["--tls", "--quic"] {
        let files = Private::new();
        let [authority, other] = ["one", "other"].map(authority::Authority::new);
        let [tracker, owner, member, gateway] = ["tracker", "owner", "member", "gateway"]
            .map(|name| files.certificates(name, &authority));
        let outsider = files.certificates("outsider", &other);
        let dirs = [&tracker, &owner, &member, &gateway];
        let members = dirs.map(|dir| ["--certificates", dir.as_str(), over]);
        let members = members.each_ref().map(|member| &member[..]);
        files.travels(members, &[&["--certificates", &outsider, over], &[]]);
    }
}

/// The first line of an output with this in it, or nothing if none comes.
fn first_line(of: impl Read + Send + 'static, with: &'static str) -> String {
    let (sender, line) = sync_channel(1);
    std::thread::spawn(move || {
        let mut lines = BufReader::new(of).lines().map_while(Result::ok);
        let line = lines.find(|line| line.contains(with));
        let _ = sender.send(line.unwrap_or_default());
    });
    line.recv_timeout(PATIENCE).unwrap_or_default()
}

#[test]
fn file_that_breaks_while_a_program_runs_is_told() {
    let files = Private::new();
    let authority = authority::Authority::new("the cluster");
    let dir = files.certificates("tracker", &authority);
    let listen = ["--certificates", &dir, "--listen", "127.0.0.1:0"];
    let mut tracker = Command::new(example("tracker"))
        .args(listen)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let said = first_line(tracker.stdout.take().unwrap(), "");
    fs::write(Path::new(&dir).join("revoked.pem"), "nonsense").unwrap();
    let told = first_line(tracker.stderr.take().unwrap(), "no PEM");
    tracker.kill().unwrap();
    tracker.wait().unwrap();
    assert!(said.starts_with("listening "), "{said}");
    assert!(told.contains("revoked.pem"), "{told}");
}

#[test]
fn encryption_without_members_is_a_mistake() {
    for over in ["--tls", "--quic"] {
        let mut tracker = Program::start("tracker", &[over]);
        let (status, _, stderr) = tracker.ended();
        assert!(!status.success());
        assert!(stderr.contains("--secret"), "{stderr}");
    }
}
