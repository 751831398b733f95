//! What a paused download remembers over a restart, and what can be done to a download in
//! each of its states, in virtual time.

mod crashes;
mod joining;

use std::time::Duration;

use bt_lite::peer::PeerBuilder;
use bt_lite::storage::{PausedDownload, PausedId};
use bt_lite::{
    Addr, Content, ContentId, ContentLimits, ContentState, Download, DownloadError, DownloadEvent,
    DownloadEvents, DownloadOptions, FileStorage, IfTaken, ListedContent, MemoryStorage,
    PauseOptions, Peer, Priority, ShareSource, Storage, Strategy, Tracker,
};
use bytes::Bytes;
use futures::{FutureExt, StreamExt};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::world::{Case, Node, World, content, named, soon};

const CHUNK: usize = 16 << 10;
const LEN: usize = 60 * CHUNK;
const SERVING: PauseOptions = PauseOptions::new();
const RESTING: PauseOptions = PauseOptions::new().serve(false);

/// A storage that outlives the peers that use it.
enum Kept {
    Memory(MemoryStorage),
    Files(TempDir),
}

impl Kept {
    fn both() -> [Self; 2] {
        [Self::Memory(MemoryStorage::new()), Self::files()]
    }

    fn files() -> Self {
        Self::Files(tempfile::tempdir().unwrap())
    }

    /// Opens it, as after a restart.
    fn open(&self) -> Box<dyn Storage> {
        match self {
            Self::Memory(storage) => Box::new(storage.clone()),
            Self::Files(dir) => Box::new(FileStorage::open(dir.path()).unwrap()),
        }
    }

    async fn bytes(&self, name: &str) -> Option<Bytes> {
        let blob = self.open().open(&named(name)).await.ok()?;
        blob.read_at(0, blob.length() as usize).await.ok()
    }

    /// The records, when what is being written or dropped at this moment is so: a record goes
    /// just after its download has ended.
    async fn records(&self) -> Vec<PausedDownload> {
        sleep(Duration::from_secs(1)).await;
        self.open().paused().await.unwrap()
    }
}

/// A peer that remembers, and goes on without a tracker.
fn builder(world: &World, name: &str, kept: &Kept) -> PeerBuilder {
    let builder = world.builder(name, kept.open()).share_stored();
    builder.trackers_optional()
}

async fn start(world: &World, kept: &Kept) -> Peer {
    builder(world, "leecher", kept).start().await.unwrap()
}

async fn restart(world: &World, kept: &Kept, peer: Peer) -> Peer {
    soon(peer.shutdown()).await;
    drop(peer);
    start(world, kept).await
}

/// An owner with a slow line.
async fn slow_owner(world: &World, seed: u64) -> (Node, Bytes, Content) {
    let bytes = content(LEN, seed);
    let owner = world.node("owner").await;
    let shared = owner.share("x", &bytes).await;
    world.network().set_upload_rate("owner", Some(100_000));
    (owner, bytes, shared)
}

/// Waits for an event.
async fn until(events: &mut DownloadEvents, is_it: impl Fn(&DownloadEvent) -> bool) {
    loop {
        let event = soon(events.next()).await.expect("the download goes on");
        if is_it(&event) {
            return;
        }
    }
}

/// Waits until something of it is stored.
async fn begun(download: &Download) {
    let has_some = |event: &DownloadEvent| matches!(event, DownloadEvent::Progress(progress) if progress.verified_chunks >= 10);
    until(&mut download.events(), has_some).await;
}

/// Waits until it is paused, or not.
async fn pauses(download: &Download, paused: bool) {
    let mut events = download.events();
    while download.is_paused() != paused {
        soon(events.next()).await.expect("the download goes on");
    }
}

/// Pauses it, and waits until everything that has arrived is stored.
async fn pause(download: &Download, options: PauseOptions) {
    download.pause(options);
    pauses(download, true).await;
    sleep(Duration::from_secs(5)).await;
}

/// The only download that has not ended.
fn only(peer: &Peer) -> ListedContent {
    let mut list = peer.list();
    assert_eq!(list.len(), 1, "{list:#?}");
    list.remove(0)
}

#[tokio::test(start_paused = true)]
async fn paused_download_is_as_it_was_after_a_restart() {
    for kept in Kept::both() {
        let world = World::memory(1).await;
        let (owner, bytes, shared) = slow_owner(&world, 1).await;
        let peer = start(&world, &kept).await;
        let limits = ContentLimits::default().download(50_000).upload(70_000);
        let options = DownloadOptions::new()
            .name("mine")
            .limits(limits)
            .seed(false);
        let options = options
            .priority(Priority::High)
            .strategy(Strategy::Sequential);
        let download = peer.download_with(named("x"), options);
        begun(&download).await;
        pause(&download, RESTING).await;
        let before = (only(&peer), download.durable_bytes());
        assert_eq!(before.0.progress.verified_bytes, before.1);
        download.detach();
        let mut peer = peer;
        // Once more, as nobody has resumed it.
        for _ in 0..2 {
            peer = restart(&world, &kept, peer).await;
            let after = only(&peer);
            let figures = |listed: &ListedContent| {
                let progress = &listed.progress;
                let verified = (progress.verified_bytes, progress.verified_chunks);
                (
                    listed.clone().name,
                    listed.id,
                    listed.length,
                    verified,
                    progress.chunks,
                )
            };
            assert_eq!(figures(&after), figures(&before.0));
            assert_eq!(after.name, Some(named("mine")));
            assert_eq!(after.state, ContentState::Paused);
            assert_eq!(after.priority, Some(Priority::High));
            // Others are not served, as before.
            world.listed(&shared, 1).await;
        }
        let mut download = peer.get(&shared.id).unwrap();
        assert_eq!(download.priority(), Priority::High);
        let seen = Content::new(shared.id, named("mine"), LEN as u64);
        assert_eq!(download.content(), Some(seen));
        assert_eq!(download.verified_chunks().await, None);
        let progress = download.stats().await.progress;
        assert_eq!(progress.verified_bytes, before.1);
        // The owner is known, so no tracker is needed.
        world.network().stall("tracker");
        let begun = Instant::now();
        download.resume();
        soon(&mut download).await.unwrap();
        let downloaded = download.progress().downloaded;
        assert_eq!(downloaded, LEN as u64 - before.1, "nothing comes twice");
        // As fast as it may, and not faster.
        let expected = Duration::from_secs_f64(downloaded as f64 / 50_000.0);
        let took = begun.elapsed();
        assert!(took > expected * 8 / 10 && took < expected * 2, "{took:?}");
        assert_eq!(peer.content_limits(&shared.id), limits);
        assert_eq!(kept.bytes("mine").await, Some(bytes));
        assert!(peer.contents().is_empty());
        assert_eq!(kept.records().await, []);
        world.network().resume("tracker");
        owner.peer.shutdown().await;
        let peer = restart(&world, &kept, peer).await;
        assert_eq!(peer.list(), []);
    }
}

#[tokio::test(start_paused = true)]
async fn figures_never_go_back_when_a_restored_download_goes_on() {
    for kept in Kept::both() {
        let world = World::memory(1).await;
        let (_owner, _, shared) = slow_owner(&world, 1).await;
        let peer = start(&world, &kept).await;
        let download = peer.download(shared.id);
        begun(&download).await;
        pause(&download, SERVING).await;
        let had = download.progress().verified_bytes;
        download.detach();
        let peer = restart(&world, &kept, peer).await;
        // Asked for by id: the name is the one that was found.
        assert_eq!(only(&peer).name, Some(named("x")));
        world.network().stall("owner");
        let mut download = peer.get(&shared.id).unwrap();
        let mut events = download.events();
        download.resume();
        pauses(&download, false).await;
        sleep(Duration::from_secs(5)).await;
        let listed = only(&peer);
        assert_eq!(listed.state, ContentState::Looking);
        assert_eq!(listed.progress.verified_bytes, had);
        world.network().resume("owner");
        soon(&mut download).await.unwrap();
        let mut last = had;
        while let Some(event) = events.next().await {
            if let DownloadEvent::Progress(progress) = event {
                assert!(progress.verified_bytes >= last, "{progress:?}");
                last = progress.verified_bytes;
            }
        }
        assert_eq!(last, LEN as u64);
        assert!(kept.bytes("x").await.is_some());
    }
}

#[tokio::test(start_paused = true)]
async fn download_that_was_paused_before_it_was_found_is_there_after_a_restart() {
    for kept in Kept::both() {
        for by_another_call in [false, true] {
            let world = World::memory(1).await;
            let (_owner, bytes, _) = slow_owner(&world, 1).await;
            let peer = start(&world, &kept).await;
            world.network().stall("tracker");
            let options = DownloadOptions::new().name("mine").owner("memory:nowhere");
            let download = peer.download_with(named("x"), options);
            sleep(Duration::from_secs(1)).await;
            pause(&download, SERVING).await;
            download.detach();
            // Another one is paused from the start, and is the same when it is found.
            let options = DownloadOptions::new().paused(SERVING);
            peer.download_with(named("x"), options).detach();
            world.network().resume("tracker");
            let peer = restart(&world, &kept, peer).await;
            let list = peer.list();
            let seen = |listed: &ListedContent| (listed.id, listed.name.clone(), listed.state);
            let expected =
                ["mine", "x"].map(|name| (None, Some(named(name)), ContentState::Paused));
            assert!(list.iter().map(seen).eq(expected), "{list:#?}");
            if by_another_call {
                let options = DownloadOptions::new().name("mine");
                let download = peer.download_with(named("x"), options);
                assert!(download.is_paused());
                download.resume();
                assert_eq!(soon(download).await.unwrap().name, named("mine"));
                sleep(Duration::from_secs(1)).await;
                assert_eq!(kept.records().await.len(), 1);
            }
            peer.resume_all();
            while peer
                .list()
                .iter()
                .any(|is| is.state != ContentState::Seeding)
            {
                sleep(Duration::from_secs(1)).await;
            }
            assert_eq!(kept.bytes("x").await, Some(bytes.clone()));
            assert_eq!(kept.bytes("mine").await, Some(bytes));
            assert_eq!(kept.records().await, []);
            let id = peer.list()[0].id.unwrap();
            peer.remove(&id, bt_lite::Removal::DeleteFile)
                .await
                .unwrap();
            peer.shutdown().await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn paused_download_goes_on_to_where_it_went() {
    let world = World::memory(1).await;
    let (_owner, bytes, shared) = slow_owner(&world, 1).await;
    let kept = Kept::files();
    let outside = tempfile::tempdir().unwrap();
    let (elsewhere, existing) = (outside.path().join("there"), outside.path().join("old"));
    let peer = start(&world, &kept).await;
    // The last third is known.
    let mut old = vec![0; LEN];
    old[40 * CHUNK..].copy_from_slice(&bytes[40 * CHUNK..]);
    std::fs::write(&existing, &old).unwrap();
    std::fs::create_dir(&elsewhere).unwrap();
    std::fs::write(elsewhere.join("x"), b"something else").unwrap();
    let options = DownloadOptions::new()
        .directory(&elsewhere)
        .existing(&existing);
    let options = options.if_taken(IfTaken::Overwrite);
    let download = peer.download_with(named("x"), options);
    until(&mut download.events(), |event| matches!(event, DownloadEvent::Progress(progress) if progress.verified_chunks >= 30)).await;
    pause(&download, SERVING).await;
    let had = download.progress().verified_bytes;
    download.detach();
    // What it needs may be away as long as it is paused.
    let away = outside.path().join("away");
    std::fs::rename(&existing, &away).unwrap();
    let peer = restart(&world, &kept, peer).await;
    assert_eq!(only(&peer).progress.verified_bytes, had);
    assert_eq!(only(&peer).name, Some(named("x")));
    sleep(Duration::from_secs(60)).await;
    assert_eq!(only(&peer).state, ContentState::Paused);
    std::fs::rename(&away, &existing).unwrap();
    // One that goes elsewhere joins it, and is not another one.
    let other = peer.download(shared.id);
    sleep(Duration::from_secs(1)).await;
    assert!(other.is_paused());
    assert_eq!(only(&peer).state, ContentState::Paused);
    drop(other);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(
        std::fs::read(elsewhere.join("x")).unwrap(),
        b"something else"
    );
    let mut download = peer.get(&shared.id).unwrap();
    download.resume();
    soon(&mut download).await.unwrap();
    assert_eq!(std::fs::read(elsewhere.join("x")).unwrap(), bytes);
    assert_eq!(download.progress().downloaded, LEN as u64 - had);
    assert_eq!(kept.records().await, []);
    assert_eq!(kept.bytes("x").await, None);
}

#[tokio::test(start_paused = true)]
async fn downloads_come_back_in_their_order_and_begin_in_it() {
    for kept in Kept::both() {
        let world = World::memory(1).await;
        let owner = world.node("owner").await;
        let names = ["c", "a", "d", "b"];
        for (name, seed) in names.iter().zip(1..) {
            owner.share(name, &content(2 * CHUNK, seed)).await;
        }
        let peer = start(&world, &kept).await;
        peer.set_max_downloads(0);
        for name in names {
            let download = peer.download(named(name));
            if name == "b" {
                download.set_priority(Priority::High);
            }
            download.detach();
        }
        peer.pause_all(SERVING);
        sleep(Duration::from_secs(1)).await;
        let mut peer = peer;
        for _ in 0..2 {
            peer = restart(&world, &kept, peer).await;
            let listed = peer.list().into_iter().map(|is| is.name.unwrap());
            assert!(listed.eq(names.map(named)));
        }
        // A new one comes behind them.
        peer.set_max_downloads(0);
        let new = peer.download(named("none"));
        let mut events = peer.events();
        peer.resume_all();
        sleep(Duration::from_secs(1)).await;
        assert_eq!(new.position(), Some(4));
        peer.set_max_downloads(1);
        let mut order = Vec::new();
        while order.len() < names.len() {
            if let Some(bt_lite::PeerEvent::Complete { content }) = soon(events.next()).await {
                order.push(content.name);
            }
        }
        assert_eq!(order, ["b", "c", "a", "d"].map(named));
        peer.shutdown().await;
    }
}

#[tokio::test(start_paused = true)]
async fn download_that_was_resumed_goes_on_after_a_restart() {
    for kept in Kept::both() {
        let world = World::memory(1).await;
        let (_owner, bytes, shared) = slow_owner(&world, 1).await;
        let peer = start(&world, &kept).await;
        let download = peer.download_with(named("x"), DownloadOptions::new().name("mine"));
        begun(&download).await;
        pause(&download, SERVING).await;
        download.resume();
        pauses(&download, false).await;
        download.detach();
        let peer = restart(&world, &kept, peer).await;
        assert_ne!(only(&peer).state, ContentState::Paused);
        let download = peer.get(&shared.id).unwrap();
        assert_eq!(soon(download).await.unwrap().name, named("mine"));
        assert_eq!(kept.bytes("mine").await, Some(bytes));
        assert_eq!(kept.records().await, []);
    }
}

#[tokio::test(start_paused = true)]
async fn what_does_not_go_to_the_storage_is_not_recorded() {
    for kept in Kept::both() {
        let world = World::memory(1).await;
        let (_owner, _, shared) = slow_owner(&world, 1).await;
        let peer = start(&world, &kept).await;
        let in_memory = peer.download_bytes(shared.id, LEN as u64);
        let mut in_memory = std::pin::pin!(in_memory);
        assert!((&mut in_memory).now_or_never().is_none());
        let stream = peer.stream(named("x"));
        sleep(Duration::from_secs(2)).await;
        peer.pause_all(SERVING);
        sleep(Duration::from_secs(5)).await;
        assert!(
            peer.list()
                .iter()
                .any(|is| is.state == ContentState::Paused)
        );
        assert_eq!(kept.records().await, []);
        peer.shutdown().await;
        assert_eq!(kept.records().await, []);
        drop(stream);
    }
}

#[tokio::test(start_paused = true)]
async fn damaged_and_foreign_records_do_not_stop_the_start() {
    let world = World::memory(1).await;
    let (_owner, _, shared) = slow_owner(&world, 1).await;
    for kept in Kept::both() {
        let storage = kept.open();
        let record = |id: u8, bytes: &[u8]| {
            PausedDownload::new(PausedId([id; 32]), Bytes::copy_from_slice(bytes))
        };
        let foreign = record(1, &[9, 0, 0, 0]);
        for record in [&foreign, &record(2, b""), &record(3, b"something")] {
            storage.remember_paused(record).await.unwrap();
        }
        if let Kept::Files(dir) = &kept {
            // One that a crash of the system has torn, and one of the first version.
            let torn = dir.path().join(format!("{}.paused", PausedId([4; 32])));
            std::fs::write(torn, b"btl.paus").unwrap();
            let mut first = b"btl.paus\x01\0\0\0".to_vec();
            first.extend(shared.id.as_bytes());
            first.push(1 | 2 | 4);
            first.extend(b"mine");
            let sum = blake3::hash(&first);
            first.extend(&sum.as_bytes()[..16]);
            std::fs::write(dir.path().join(format!("{}.paused", shared.id)), first).unwrap();
        }
        let peer = start(&world, &kept).await;
        match &kept {
            Kept::Memory(_) => assert_eq!(peer.list(), []),
            Kept::Files(_) => {
                let listed = only(&peer);
                assert_eq!(
                    (listed.id, listed.name),
                    (Some(shared.id), Some(named("mine")))
                );
                peer.resume_all();
                let done = soon(peer.get(&shared.id).unwrap()).await;
                assert_eq!(done.unwrap().name, named("mine"));
            }
        }
        peer.shutdown().await;
        // They may be somebody else's.
        assert_eq!(kept.records().await.len(), 3);
        assert!(kept.records().await.contains(&foreign));
    }
}

/// In which state a download is when something is done to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    Searching,
    NoTracker,
    Manifest,
    Queued,
    Fetching,
    Complete,
    Failed,
    PausedBefore,
    Paused,
    Restored,
}

const STATES: [At; 10] = [
    At::Searching,
    At::NoTracker,
    At::Manifest,
    At::Queued,
    At::Fetching,
    At::Complete,
    At::Failed,
    At::PausedBefore,
    At::Paused,
    At::Restored,
];

/// A download in a state, and what it needs.
struct Scene {
    world: World,
    kept: Kept,
    peer: Peer,
    download: Download,
    owner: Node,
    shared: Content,
}

impl Scene {
    async fn new(at: At, kept: Kept) -> Self {
        let world = World::memory(1).await;
        let (owner, _, shared) = slow_owner(&world, 1).await;
        let mut peer = start(&world, &kept).await;
        let network = world.network();
        match at {
            At::Searching => network.stall("tracker"),
            At::NoTracker => {
                network.stall("tracker");
                sleep(Duration::from_secs(600)).await;
            }
            At::Manifest => network.stall("owner"),
            At::Queued => peer.set_max_downloads(0),
            _ => {}
        }
        let mut download = match at {
            At::PausedBefore => {
                peer.download_with(named("x"), DownloadOptions::new().paused(SERVING))
            }
            At::Failed => peer.download(named("nobody has it")),
            At::Searching | At::NoTracker | At::Queued => peer.download(named("x")),
            _ => peer.download(shared.id),
        };
        match at {
            At::Complete | At::Failed => _ = soon(&mut download).await,
            At::NoTracker => sleep(Duration::from_secs(120)).await,
            At::Fetching => begun(&download).await,
            At::Paused | At::Restored => {
                begun(&download).await;
                pause(&download, SERVING).await;
            }
            _ => sleep(Duration::from_secs(1)).await,
        }
        if at == At::Restored {
            download.detach();
            peer = restart(&world, &kept, peer).await;
            download = peer.get(&shared.id).unwrap();
        }
        Self {
            world,
            kept,
            peer,
            download,
            owner,
            shared,
        }
    }

    /// Everybody answers, and everything may begin.
    fn let_go(&self) {
        self.world.network().resume("tracker");
        self.world.network().resume("owner");
        self.peer.set_max_downloads(64);
    }
}

/// What is done to a download.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Call {
    Pause,
    Resume,
    PauseAll,
    ResumeAll,
    Cancel,
    Discard,
}

/// What follows in the end, when everybody answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// It stays paused, and is recorded.
    Paused,
    /// It completes.
    Completes,
    /// It is cancelled, and what has arrived is kept.
    Cancelled,
    /// It is cancelled, and nothing is left.
    Discarded,
    /// It ends as it had ended already.
    Unchanged,
}

fn expected(at: At, call: Call) -> Outcome {
    match (at, call) {
        (At::Complete | At::Failed, _) => Outcome::Unchanged,
        (_, Call::Pause | Call::PauseAll) => Outcome::Paused,
        (_, Call::Resume | Call::ResumeAll) => Outcome::Completes,
        (_, Call::Cancel) => Outcome::Cancelled,
        (_, Call::Discard) => Outcome::Discarded,
    }
}

const CALLS: [Call; 6] = [
    Call::Pause,
    Call::Resume,
    Call::PauseAll,
    Call::ResumeAll,
    Call::Cancel,
    Call::Discard,
];

fn call(scene: &Scene, call: Call) {
    call_on(&scene.peer, &scene.download, call);
}

fn call_on(peer: &Peer, download: &Download, call: Call) {
    match call {
        Call::Pause => download.pause(RESTING),
        Call::Resume => download.resume(),
        Call::PauseAll => peer.pause_all(RESTING),
        Call::ResumeAll => peer.resume_all(),
        Call::Cancel => download.cancel(),
        Call::Discard => download.discard(),
    }
}

async fn check(mut scene: Scene, at: At, expected: Outcome) {
    let had = scene.kept.open().has_partial(&scene.shared.id).await;
    scene.let_go();
    match expected {
        Outcome::Paused => {
            pauses(&scene.download, true).await;
            sleep(Duration::from_secs(3600)).await;
            assert_eq!(only(&scene.peer).state, ContentState::Paused);
            assert_eq!(scene.kept.records().await.len(), 1);
            // It survives, and goes on.
            scene.download.detach();
            let peer = restart(&scene.world, &scene.kept, scene.peer).await;
            assert_eq!(only(&peer).state, ContentState::Paused);
            peer.resume_all();
            while only(&peer).state != ContentState::Seeding {
                sleep(Duration::from_secs(1)).await;
            }
            scene.peer = peer;
        }
        Outcome::Completes => {
            soon(&mut scene.download).await.unwrap();
            assert_eq!(only(&scene.peer).state, ContentState::Seeding);
        }
        Outcome::Cancelled | Outcome::Discarded => {
            let outcome = soon(&mut scene.download).await;
            assert_eq!(outcome, Err(DownloadError::Cancelled));
            sleep(Duration::from_secs(1)).await;
            assert_eq!(scene.peer.list(), []);
            let left = scene.kept.open().has_partial(&scene.shared.id).await;
            let keeps = expected == Outcome::Cancelled;
            assert_eq!(left, keeps && had);
        }
        Outcome::Unchanged => {
            let outcome = soon(&mut scene.download).await;
            assert_eq!(outcome.is_ok(), at == At::Complete);
        }
    }
    assert_eq!(scene.kept.records().await, []);
    let peer = restart(&scene.world, &scene.kept, scene.peer).await;
    let states: Vec<_> = peer.list().into_iter().map(|is| is.state).collect();
    let completes = matches!(expected, Outcome::Paused | Outcome::Completes) || at == At::Complete;
    assert_eq!(states, vec![ContentState::Seeding; usize::from(completes)]);
    scene.owner.peer.shutdown().await;
}

/// In each state each call has its outcome, also if it is made twice.
#[tokio::test(start_paused = true)]
async fn every_call_in_every_state_has_its_outcome() {
    for at in STATES {
        for of in CALLS {
            for in_files in [false, true] {
                let kept = match in_files {
                    true => Kept::files(),
                    false => Kept::Memory(MemoryStorage::new()),
                };
                let _case = Case(format!("{at:?} {of:?} files: {in_files}"));
                let scene = Scene::new(at, kept).await;
                call(&scene, of);
                call(&scene, of);
                check(scene, at, expected(at, of)).await;
            }
        }
    }
}

/// A download changes its mind as often as its user does.
#[tokio::test(start_paused = true)]
async fn last_call_counts() {
    for at in STATES {
        let scene = Scene::new(at, Kept::files()).await;
        for _ in 0..10 {
            call(&scene, Call::Pause);
            tokio::task::yield_now().await;
            call(&scene, Call::Resume);
            tokio::task::yield_now().await;
            call(&scene, Call::PauseAll);
        }
        check(scene, at, expected(at, Call::Pause)).await;
    }
}

/// The calls that change a download return at once in every state, and count when it runs.
#[tokio::test(start_paused = true)]
async fn settings_return_at_once_in_every_state_and_count_when_it_runs() {
    for at in STATES {
        let _case = Case(format!("{at:?}"));
        let scene = Scene::new(at, Kept::files()).await;
        let download = &scene.download;
        let limits = ContentLimits::default().download(40_000);
        let at_once = |future: std::pin::Pin<Box<dyn Future<Output = ()> + '_>>| {
            // One that fetches takes a moment, until it is so.
            let is_free = at == At::Fetching || at == At::Manifest;
            is_free || future.now_or_never().is_some()
        };
        assert!(at_once(Box::pin(async {
            download.set_limits(limits).await.unwrap()
        })));
        assert!(at_once(Box::pin(
            download.set_strategy(Strategy::Sequential)
        )));
        assert!(at_once(Box::pin(download.set_patience(None))));
        for number in 0..2_000 {
            let owner = format!("memory:nobody-{number}");
            let added = download.add_owner(owner.as_str()).now_or_never();
            added.expect("it returns at once").unwrap();
        }
        download.set_priority(Priority::High);
        if matches!(at, At::Fetching | At::Manifest) {
            soon(download.set_limits(limits)).await.unwrap();
            soon(download.set_strategy(Strategy::Sequential)).await;
            soon(download.set_patience(None)).await;
        }
        assert!(scene.peer.add_tracker("memory:second").unwrap());
        if matches!(at, At::Complete | At::Failed) {
            continue;
        }
        assert_eq!(only(&scene.peer).priority, Some(Priority::High));
        // They are remembered, too.
        pause(&scene.download, SERVING).await;
        let Scene {
            world,
            kept,
            peer,
            download,
            shared,
            ..
        } = scene;
        download.detach();
        world.network().resume("tracker");
        world.network().resume("owner");
        let peer = restart(&world, &kept, peer).await;
        assert_eq!(only(&peer).priority, Some(Priority::High));
        // Until the owner is registered again, if its lease has run out.
        sleep(Duration::from_secs(600)).await;
        peer.resume_all();
        let begun = Instant::now();
        while only(&peer).state != ContentState::Seeding {
            sleep(Duration::from_millis(100)).await;
        }
        let took = begun.elapsed();
        let had = match at {
            At::Fetching | At::Paused | At::Restored => 40,
            _ => 5,
        };
        // At 40 kB/s, and not at 100 kB/s.
        let least = Duration::from_secs_f64((LEN - had * CHUNK) as f64 / 48_000.0);
        assert!(took > least, "{at:?} {took:?}");
        assert_eq!(peer.content_limits(&shared.id), limits);
    }
}

/// An owner that is added helps a download that no tracker helps, in whatever state it was.
#[tokio::test(start_paused = true)]
async fn owner_that_is_added_to_a_download_that_waits_is_asked_when_it_goes_on() {
    for kept in Kept::both() {
        for restarts in [false, true] {
            let world = World::memory(1).await;
            let bytes = content(LEN, 7);
            // No tracker names this one.
            let helper = Peer::builder(world.transport("helper"), MemoryStorage::new());
            let helper = helper.listen("memory:helper").start().await.unwrap();
            let shared = helper
                .share(ShareSource::bytes("x", bytes.clone()))
                .await
                .unwrap();
            let mut peer = start(&world, &kept).await;
            world.network().stall("tracker");
            let options = DownloadOptions::new().paused(SERVING);
            let mut download = peer.download_with(shared.id, options);
            sleep(Duration::from_secs(1)).await;
            let added = download.add_owner("memory:helper").now_or_never();
            added.expect("it returns at once").unwrap();
            sleep(Duration::from_secs(1)).await;
            if restarts {
                download.detach();
                peer = restart(&world, &kept, peer).await;
                download = peer.get(&shared.id).unwrap();
            }
            download.resume();
            soon(&mut download).await.unwrap();
            // One that searches for nothing else than an owner goes on at once.
            let other = content(CHUNK, 8);
            let other = helper.share(ShareSource::bytes("y", other)).await.unwrap();
            let searching = peer.download(other.id);
            sleep(Duration::from_secs(120)).await;
            let asked = Instant::now();
            searching.add_owner("memory:helper").await.unwrap();
            soon(searching).await.unwrap();
            assert!(
                asked.elapsed() < Duration::from_secs(20),
                "{:?}",
                asked.elapsed()
            );
            peer.shutdown().await;
            let name = download.content().unwrap().name;
            assert_eq!(kept.bytes(name.as_str()).await, Some(bytes));
            peer_forgets(&world, &kept, shared.id).await;
        }
    }
}

/// Removes a content from a storage.
async fn peer_forgets(world: &World, kept: &Kept, id: ContentId) {
    let peer = start(world, kept).await;
    let _ = peer.remove(&id, bt_lite::Removal::DeleteFile).await;
    peer.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn patience_that_is_set_while_a_download_waits_ends_it() {
    let minute = Duration::from_secs(60);
    for at in [At::NoTracker, At::PausedBefore, At::Paused, At::Restored] {
        let mut scene = Scene::new(at, Kept::files()).await;
        scene.download.set_patience(Some(minute)).await;
        scene.owner.peer.shutdown().await;
        scene.world.network().stall("tracker");
        sleep(10 * minute).await;
        let begun = Instant::now();
        scene.download.resume();
        assert!(soon(&mut scene.download).await.is_err());
        let took = begun.elapsed();
        let most = if at == At::NoTracker {
            minute
        } else {
            4 * minute
        };
        assert!(took <= most, "{at:?} {took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn tracker_that_is_added_helps_a_download_that_waits() {
    for kept in Kept::both() {
        let world = World::memory(1).await;
        let second = Tracker::builder(world.transport("second"));
        let second = second.bind("memory:second").await.unwrap();
        let owner = Peer::builder(world.transport("owner"), MemoryStorage::new());
        let owner = owner.tracker(second.local_addr()).listen("memory:owner");
        let owner = owner.start().await.unwrap();
        let source = ShareSource::bytes("x", content(LEN, 1));
        owner.share(source).await.unwrap();
        let peer = start(&world, &kept).await;
        let options = DownloadOptions::new().paused(SERVING);
        let download = peer.download_with(named("x"), options);
        sleep(Duration::from_secs(1)).await;
        assert!(peer.add_tracker(second.local_addr()).unwrap());
        download.resume();
        soon(download).await.unwrap();
    }
}

/// Addresses that this transport cannot read are no reason to fail, if they were recorded.
#[tokio::test(start_paused = true)]
async fn owner_of_another_transport_is_left_out() {
    let world = World::memory(1).await;
    let (_owner, _, shared) = slow_owner(&world, 1).await;
    let kept = Kept::Memory(MemoryStorage::new());
    let peer = start(&world, &kept).await;
    let options = DownloadOptions::new().paused(SERVING);
    let download = peer.download_with(shared.id, options);
    let other: Addr = "other:somewhere".parse().unwrap();
    download.add_owner(other).await.unwrap();
    sleep(Duration::from_secs(1)).await;
    download.detach();
    let peer = restart(&world, &kept, peer).await;
    let download = peer.get(&shared.id).unwrap();
    download.resume();
    soon(download).await.unwrap();
}

/// What was right in a file was copied when the download began.
#[tokio::test(start_paused = true)]
async fn file_that_was_taken_over_may_be_gone_after_a_restart() {
    let world = World::memory(1).await;
    let (_owner, bytes, shared) = slow_owner(&world, 1).await;
    let kept = Kept::files();
    let files = tempfile::tempdir().unwrap();
    let half = files.path().join("half");
    std::fs::write(&half, &bytes[..LEN / 2]).unwrap();
    let peer = start(&world, &kept).await;
    let options = DownloadOptions::new().existing(&half);
    let download = peer.download_with(shared.id, options);
    begun(&download).await;
    pause(&download, SERVING).await;
    let peer = restart(&world, &kept, peer).await;
    std::fs::remove_file(&half).unwrap();
    let mut download = peer.get(shared.id).unwrap();
    download.resume();
    soon(&mut download).await.unwrap();
    assert!(download.progress().downloaded <= (LEN / 2) as u64);
    assert_eq!(kept.bytes("x").await, Some(bytes));
}
