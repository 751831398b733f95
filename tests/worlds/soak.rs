//! Two peers and a tracker that run for a month of virtual time, while others come and go all the
//! time: they share, fetch, stream, pause, give up, crash. Of all that is over nothing is left:
//! no task, descriptor, file or byte of memory, and nothing at the tracker.
//!
//! ```text
//! cargo test --test worlds soak                                     # a day and a half
//! SOAK=120 cargo test --test worlds soak -- --nocapture             # a month
//! ```

use std::fs;
use std::io::Cursor;
use std::path::Path;
use std::time::Duration;

use bt_lite::peer::PeerBuilder;
use bt_lite::{
    Content, ContentId, ContentLimits, Download, DownloadOptions, FileStorage, FolderOptions,
    MemoryNetwork, PauseOptions, Peer, ReaderOptions, Removal, ShareSource, StreamOptions, Tracker,
};
use bytes::Bytes;
use futures::future::join_all;
use tempfile::TempDir;
use tokio::io::AsyncReadExt;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::gate::Gate;
use crate::{alone, memory, number};

/// How many rounds there are, unless the environment says so.
const ROUNDS: u64 = 6;

/// How long a round takes: a month has 120 of them.
const ROUND: Duration = Duration::from_secs(6 * 3600);

/// After so many rounds, tables and caches have the size that they keep.
const WARM: u64 = 3;

/// How much more memory there may be later than after those, in bytes: buffers that are kept for
/// the next block, and the index of a log that still has useless entries. In a month it is as
/// little as 200 bytes for each content that came and went.
const MORE_MEMORY: usize = 512 << 10;

/// Connections that nobody needs have ended after so long.
const QUIET: Duration = Duration::from_secs(120);

/// How many others come in each round, and how many hosts they come from.
const VISITORS: u64 = 3;
const HOSTS: u64 = 6;

/// How many contents each of them shares, and how long they are, in bytes.
const CONTENTS: u64 = 8;
const LEN: usize = 300_000;

/// How many short contents there are beside them in each round.
const SHORT: u64 = 40;

/// The lines of visitors, in bytes per second: a content takes some seconds.
const UPLOAD: u64 = 200_000;

/// How much the peer that evicts may have in its storage, in bytes: that of about two rounds.
const MAX_STORED: u64 = 16 * LEN as u64;

/// How much the log of finished contents may take on disk, in bytes: useless entries of one MiB
/// may be in it, and as much again is written before they go.
const MAX_LOG: u64 = 3 << 20;

/// How many files a folder has.
const FILES: u64 = 5;

/// The same bytes for the same numbers.
fn bytes(round: u64, seed: u64, len: usize) -> Bytes {
    let mut bytes = vec![0; len];
    fastrand::Rng::with_seed(round << 20 | seed).fill(&mut bytes);
    bytes.into()
}

/// Writes a folder.
fn write_folder(at: &Path, round: u64, seed: u64) {
    fs::create_dir(at).unwrap();
    for file in 0..FILES {
        let bytes = bytes(round, seed << 8 | file, 60_000);
        fs::write(at.join(format!("file-{file}")), bytes).unwrap();
    }
}

/// Waits until a download has a part of its content.
async fn begun(download: &Download) {
    while download.progress().verified_chunks == 0 {
        sleep(Duration::from_millis(20)).await;
    }
}

/// What there is of those that stay when everybody else is gone.
#[derive(Debug, PartialEq, Eq)]
struct Left {
    tasks: usize,
    descriptors: usize,
    /// The files of the peer whose user removes what it fetched, without its log.
    files: Vec<String>,
    /// Connections and peers.
    at_tracker: (u64, u64),
    /// Contents that are awake, downloads, connections, and open files, of each peer.
    at_peers: [[usize; 4]; 2],
}

/// Somebody who comes for one round.
struct Visitor {
    name: String,
    gate: Gate,
    peer: Peer,
    dir: TempDir,
    contents: Vec<Content>,
    folder: ContentId,
}

struct Soak {
    network: MemoryNetwork,
    tracker: Tracker,
    /// Its user shares, fetches and removes.
    user: Peer,
    /// It evicts what it used least recently.
    cache: Peer,
    user_dir: TempDir,
    cache_dir: TempDir,
    /// Where the user has files that are no content of the storage.
    outside: TempDir,
    /// What is shared all the time.
    kept: Content,
}

fn builder(network: &MemoryNetwork, name: &str, gate: &Gate, dir: &TempDir) -> PeerBuilder {
    network.set_latency(name, Duration::from_millis(5));
    Peer::builder(gate.clone(), FileStorage::open(dir.path()).unwrap())
        .tracker("memory:tracker")
        .share_stored()
        .listen(format!("memory:{name}"))
}

impl Soak {
    async fn new() -> Self {
        let network = MemoryNetwork::new(1);
        let tracker = Tracker::builder(network.endpoint("tracker"));
        let tracker = tracker.bind("memory:tracker").await.unwrap();
        let (user_dir, cache_dir) = (TempDir::new().unwrap(), TempDir::new().unwrap());
        let gate = |name| Gate::new(network.endpoint(name));
        let user = builder(&network, "user", &gate("user"), &user_dir);
        let cache = builder(&network, "cache", &gate("cache"), &cache_dir);
        let user = user.seed(1).start().await.unwrap();
        let cache = cache.seed(2).max_stored(Some(MAX_STORED));
        let cache = cache.start().await.unwrap();
        let kept = user.share_reader("kept", Cursor::new(bytes(0, 0, LEN)));
        let kept = kept.await.unwrap();
        cache.download(&kept).await.unwrap();
        Self {
            network,
            tracker,
            user,
            cache,
            user_dir,
            cache_dir,
            outside: TempDir::new().unwrap(),
            kept,
        }
    }

    async fn round(&self, round: u64) {
        let ends = Instant::now() + ROUND;
        self.share(round).await;
        let visitors = join_all((0..VISITORS).map(|seed| self.come(round, seed))).await;
        let own = self.user.contents();
        let all = async {
            tokio::join!(
                join_all(visitors.iter().map(|visitor| self.visit(visitor, &own))),
                join_all(visitors.iter().map(|visitor| self.fetch(visitor))),
                join_all(visitors.iter().map(|visitor| self.cache(visitor))),
                self.look_around(round),
            )
        };
        timeout(ROUND, all).await.expect("a round hangs");
        self.leave(&visitors).await;
        self.tidy_up(&visitors).await;
        sleep_until(ends).await;
    }

    /// The user shares what is gone at the end of the round.
    async fn share(&self, round: u64) {
        let short = (0..SHORT).map(|number| async move {
            let bytes = Cursor::new(bytes(round, 1000 + number, 1000));
            let shared = self.user.share_reader(format!("{round}-{number}"), bytes);
            shared.await.unwrap();
        });
        join_all(short).await;
        let (file, folder) = (
            self.outside.path().join("file"),
            self.outside.path().join("folder"),
        );
        fs::write(&file, bytes(round, 1, LEN)).unwrap();
        write_folder(&folder, round, 1);
        self.user.share(ShareSource::file(file)).await.unwrap();
        self.user.share_folder(folder).await.unwrap();
        let in_memory = ShareSource::bytes("in memory", bytes(round, 2, LEN));
        self.user.share(in_memory).await.unwrap();
    }

    async fn come(&self, round: u64, seed: u64) -> Visitor {
        let name = format!("visitor-{}", (round * VISITORS + seed) % HOSTS);
        self.network.set_upload_rate(&name, Some(UPLOAD));
        let gate = Gate::new(self.network.endpoint(&name));
        let dir = TempDir::new().unwrap();
        let peer = builder(&self.network, &name, &gate, &dir).seed(seed);
        let peer = peer.start().await.unwrap();
        let mut contents = Vec::new();
        for number in 0..CONTENTS {
            let bytes = Cursor::new(bytes(round, (seed << 8) | (number + 16), LEN));
            // The names are those of others before.
            let shared = peer.share_reader(format!("{seed} of {number}"), bytes);
            contents.push(shared.await.unwrap());
        }
        let folder = dir.path().join(format!("folder-{seed}"));
        write_folder(&folder, round, seed + 16);
        let folder = peer.share_folder(folder).await.unwrap().id;
        Visitor {
            name,
            gate,
            peer,
            dir,
            contents,
            folder,
        }
    }

    /// What a visitor takes from the user.
    async fn visit(&self, visitor: &Visitor, own: &[Content]) {
        let folders = self.user.folders();
        let single = own
            .iter()
            .filter(|content| folders.iter().all(|f| f.id != content.id));
        for content in single {
            visitor.peer.download(content).await.unwrap();
        }
        let taken = FolderOptions::new().name(format!("of {}", folders[0].name));
        let taken = visitor.peer.download_folder_with(folders[0].id, taken);
        taken.await.unwrap();
    }

    /// All ways in which a download of the user may end.
    async fn fetch(&self, visitor: &Visitor) {
        let user = &self.user;
        let [
            whole,
            cancelled,
            discarded,
            resumed,
            paused,
            streamed,
            read,
            limited,
        ] = &visitor.contents[..]
        else {
            panic!("there are others")
        };
        let cancel = async {
            let download = user.download(cancelled);
            begun(&download).await;
            download.cancel();
            download.await.unwrap_err();
        };
        let discard = async {
            let download = user.download(discarded);
            begun(&download).await;
            download.discard();
            download.await.unwrap_err();
        };
        let resume = async {
            let download = user.download(resumed);
            begun(&download).await;
            download.pause(PauseOptions::new().serve(false));
            sleep(Duration::from_secs(60)).await;
            download.resume();
            download.await.unwrap();
        };
        let pause = async {
            let download = user.download(paused);
            begun(&download).await;
            download.pause(PauseOptions::new());
            download.detach();
        };
        let stream = async {
            let options = StreamOptions::new().window(100_000);
            let mut stream = user.stream_with(streamed, options);
            let mut bytes = Vec::new();
            stream.read_to_end(&mut bytes).await.unwrap();
            assert_eq!(ContentId::of(&bytes), streamed.id);
        };
        let read = async {
            let download = user.download(read);
            let mut reader = download.reader_with(ReaderOptions::new().readahead(50_000));
            let mut some = [0; 1000];
            reader.read_exact(&mut some).await.unwrap();
            // Dropped, which cancels it.
        };
        let limited = async {
            let limits = ContentLimits::default().download(Some(50_000));
            user.set_content_limits(limited.id, limits).unwrap();
            let download = user.download_with(limited, DownloadOptions::new().seed(false));
            // It is a file of the user, and no content that is here.
            let name = download.await.unwrap().name;
            fs::remove_file(self.user_dir.path().join(name.as_str())).unwrap();
            let none = ContentLimits::default();
            user.set_content_limits(limited.id, none).unwrap();
        };
        let folder = async {
            let download = user.download_folder(visitor.folder);
            match visitor.folder.as_bytes()[0] % 2 {
                0 => drop(download.await.unwrap()),
                _ => {
                    while download.progress().files_done == 0 {
                        sleep(Duration::from_millis(20)).await;
                    }
                    download.cancel();
                    download.await.unwrap_err();
                }
            }
        };
        let whole = async {
            let events = user.events();
            user.download(whole).await.unwrap();
            drop(events);
        };
        tokio::join!(
            whole, cancel, discard, resume, pause, stream, read, limited, folder
        );
    }

    /// The cache gets some of it.
    async fn cache(&self, visitor: &Visitor) {
        for content in &visitor.contents[..4] {
            self.cache.set_pinned(content.id, true);
            self.cache.download(content).await.unwrap();
            self.cache.set_pinned(content.id, false);
        }
    }

    /// The user asks for what nobody has, and follows what happens.
    async fn look_around(&self, round: u64) {
        let nothing = self.user.download(ContentId::of(&round.to_le_bytes()));
        sleep(Duration::from_secs(120)).await;
        drop(nothing);
        self.user.announced().await.unwrap();
        drop(self.user.list());
    }

    /// Some say that they go, one ends without a word, and one is cut off before.
    async fn leave(&self, visitors: &[Visitor]) {
        for (number, visitor) in visitors.iter().enumerate() {
            match number {
                0 => {}
                1 => {
                    visitor.gate.close();
                    self.network.kill(&visitor.name);
                }
                _ => {
                    self.network.stall(&visitor.name);
                    sleep(Duration::from_secs(120)).await;
                    visitor.gate.close();
                    self.network.kill(&visitor.name);
                    self.network.resume(&visitor.name);
                }
            }
            visitor.peer.shutdown().await;
            assert!(visitor.dir.path().is_dir());
        }
    }

    /// The user removes what it has fetched and shared in this round.
    async fn tidy_up(&self, visitors: &[Visitor]) {
        let user = &self.user;
        for visitor in visitors {
            let ids = visitor.contents.iter().map(|content| content.id);
            for id in ids.filter(|id| user.contents().iter().all(|has| has.id != *id)) {
                let download = match user.get(id) {
                    Some(download) => download,
                    None => user.download(id),
                };
                download.discard();
                download.await.unwrap_err();
            }
            if user
                .folders()
                .iter()
                .all(|folder| folder.id != visitor.folder)
            {
                let download = user.download_folder(visitor.folder);
                download.discard();
                download.await.unwrap_err();
            }
        }
        for content in user.contents() {
            if content.id != self.kept.id {
                user.remove(&content, Removal::DeleteFile).await.unwrap();
            }
        }
        fs::remove_file(self.outside.path().join("file")).unwrap();
        fs::remove_dir_all(self.outside.path().join("folder")).unwrap();
    }

    fn left(&self) -> Left {
        let metrics = tokio::runtime::Handle::current().metrics();
        let tracker = self.tracker.stats();
        let contents = self.user.contents().len() + self.cache.contents().len();
        assert_eq!(tracker.registry.ownerships, contents as u64);
        let at_peer = |peer: &Peer| {
            let stats = peer.stats();
            assert_eq!(peer.list().len(), peer.contents().len());
            [
                stats.awake,
                stats.active_downloads + stats.queued_downloads,
                stats.connections,
                stats.files.unwrap().open,
            ]
        };
        Left {
            tasks: metrics.num_alive_tasks(),
            descriptors: fs::read_dir("/dev/fd").unwrap().count(),
            files: files(self.user_dir.path()).0,
            at_tracker: (tracker.connections, tracker.registry.peers),
            at_peers: [at_peer(&self.user), at_peer(&self.cache)],
        }
    }

    /// What is on disk has a bound. Returns how long the logs are.
    fn check_disk(&self) -> [u64; 2] {
        let (files, log) = files(self.cache_dir.path());
        assert_eq!(files.len(), self.cache.contents().len(), "{files:?}");
        let most = (MAX_STORED / LEN as u64) as usize;
        assert!((most / 2..=most).contains(&files.len()), "{files:?}");
        let logs = [self::files(self.user_dir.path()).1, log];
        assert!(logs.iter().all(|log| *log <= MAX_LOG), "{logs:?}");
        logs
    }
}

/// The names of what is in a directory, and how long the log there is.
fn files(dir: &Path) -> (Vec<String>, u64) {
    let (mut names, mut log) = (Vec::new(), 0);
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        match name.ends_with(".catalogue") {
            true => log += entry.metadata().unwrap().len(),
            false => names.push(name),
        }
    }
    names.sort();
    (names, log)
}

async fn soak(rounds: u64) {
    let soak = Soak::new().await;
    sleep(QUIET).await;
    let (before, mut most) = (soak.left(), 0);
    for round in 0..rounds {
        soak.round(round).await;
        let held = memory::held();
        let logs = soak.check_disk();
        println!("round {round}: {held} bytes of memory, logs of {logs:?}");
        assert_eq!(soak.left(), before, "after round {round}");
        if round < WARM {
            most = most.max(held);
        } else {
            assert!(held < most + MORE_MEMORY, "{most} and then {held} bytes");
        }
    }
    soak.user.shutdown().await;
    soak.cache.shutdown().await;
    soak.tracker.shutdown().await;
}

#[test]
fn soak_leaves_nothing_of_those_who_are_gone() {
    let _alone = alone();
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        soak(number("SOAK").unwrap_or(ROUNDS)).await;
        sleep(QUIET).await;
        for _ in 0..1000 {
            tokio::task::yield_now().await;
        }
        let tasks = tokio::runtime::Handle::current()
            .metrics()
            .num_alive_tasks();
        assert_eq!(tasks, 0);
    });
}
