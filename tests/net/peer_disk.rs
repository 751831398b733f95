//! Peers whose disks do what disks do: files vanish, shrink and fail under them.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use bt_lite::peer::PeerConfig;
use bt_lite::storage::Lost;
use bt_lite::{
    ContentId, DownloadError, DownloadEvent, DownloadOptions, FileStorage, MemoryStorage, Peer,
    ShareError, StallReason, StorageError,
};
use bytes::Bytes;
use futures::StreamExt;
use tempfile::TempDir;
use tokio::time::{Duration, Instant};

use crate::on_all_networks;
use crate::world::storages::{Call, Trouble, Troubled};
use crate::world::{World, content, named, soon};

const CHUNK: usize = 16 << 10;
const CHUNKS: usize = 64;

/// How many reads it takes to hash a content of 1 MiB.
const HASHING_READS: usize = 1;

/// What happens to a file that is shared.
#[derive(Debug, Clone, Copy)]
enum Fate {
    Shrinks,
    Vanishes,
    Changes,
}

impl Fate {
    fn befalls(self, path: &Path) {
        match self {
            Self::Shrinks => {
                let file = File::options().write(true).open(path).unwrap();
                file.set_len((CHUNK + 1) as u64).unwrap();
            }
            Self::Vanishes => fs::remove_file(path).unwrap(),
            Self::Changes => fs::write(path, content(CHUNKS * CHUNK - 1, 8)).unwrap(),
        }
    }
}

/// A peer that shares a file.
async fn owner_of(world: &World, name: &str, path: &Path, bytes: &Bytes) -> Peer {
    fs::write(path, bytes).unwrap();
    let storage = MemoryStorage::new();
    let owner = world.builder(name, storage).start().await.unwrap();
    owner.share(path).await.unwrap();
    owner
}

/// Its owner has lost this content, says so, and does not offer it any more; and
/// the one who wants it hears of it and finds another owner.
async fn check_lost(world: &World, owner: &Peer, bytes: &Bytes, error: StorageError) {
    let id = ContentId::of(bytes);
    let shared = owner.contents().pop().unwrap();
    assert_eq!(owner.lost(), []);
    let mut losses = owner.lost_contents();
    let wants = world.node("wants").await;
    let download = wants.peer.download(id);
    let lost = Lost::new(id, shared.name.clone(), error);
    assert_eq!(losses.next().await.as_ref(), Some(&lost));
    assert_eq!(owner.lost(), [lost]);
    assert_eq!(owner.contents(), []);

    let good = world.node("good").await;
    let same = good.share("same", bytes).await;
    download.await.unwrap();
    good.peer.shutdown().await;
    wants.peer.shutdown().await;
    // The tracker does not list the one that lost it.
    world.listed(&same, 0).await;
}

on_all_networks! {
    async fn owner_whose_file_is_not_the_same_any_more_says_so(world: World) {
        for (n, fate) in [Fate::Shrinks, Fate::Vanishes, Fate::Changes].into_iter().enumerate() {
            let files = tempfile::tempdir().unwrap();
            let path = files.path().join("x");
            let bytes = content(CHUNKS * CHUNK, n as u64);
            let owner = owner_of(&world, &format!("owner-{n}"), &path, &bytes).await;
            fate.befalls(&path);
            let changed = StorageError::Changed { path: path.clone() };
            check_lost(&world, &owner, &bytes, changed).await;
            // When it is back, it can be shared again.
            fs::write(&path, &bytes).unwrap();
            owner.share(&*path).await.unwrap();
            assert_eq!(owner.lost(), []);
            owner.shutdown().await;
        }
    }

    async fn owner_whose_disk_fails_says_so(world: World) {
        let bytes = content(CHUNKS * CHUNK, 1);
        let storage = Troubled::new(Call::Read, HASHING_READS, Trouble::Fails);
        storage.inner.insert(named("x"), bytes.clone()).unwrap();
        let owner = world.builder("owner", storage.clone()).start().await.unwrap();
        owner.share(named("x")).await.unwrap();
        check_lost(&world, &owner, &bytes, Troubled::error()).await;
        storage.mend();
        owner.share(named("x")).await.unwrap();
        assert_eq!(owner.lost(), []);
    }

    async fn short_content_whose_file_is_gone_is_lost_as_well(world: World) {
        let files = tempfile::tempdir().unwrap();
        let path = files.path().join("x");
        let bytes = content(1000, 1);
        let owner = owner_of(&world, "owner", &path, &bytes).await;
        fs::remove_file(&path).unwrap();
        check_lost(&world, &owner, &bytes, StorageError::Changed { path }).await;
    }

    async fn what_is_lost_at_the_start_is_listed(world: World) {
        let dir = tempfile::tempdir().unwrap();
        let start = async || {
            let storage = FileStorage::open(dir.path()).unwrap();
            let peer = world.builder("peer", storage).share_stored().start().await;
            peer.unwrap()
        };
        fs::write(dir.path().join("x"), "x").unwrap();
        let peer = start().await;
        let shared = peer.share(named("x")).await.unwrap();
        peer.shutdown().await;
        drop(peer);
        fs::remove_file(dir.path().join("x")).unwrap();
        let peer = start().await;
        let gone = StorageError::NotFound { name: named("x") };
        let lost = Lost::new(shared.id, named("x"), gone);
        assert_eq!(peer.lost_contents().next().await.as_ref(), Some(&lost));
        assert_eq!(peer.lost(), [lost]);
    }
}

#[tokio::test(start_paused = true)]
async fn download_that_finds_no_other_owner_says_that_they_are_gone() {
    let world = World::memory(1).await;
    let files = tempfile::tempdir().unwrap();
    let path = files.path().join("x");
    let bytes = content(CHUNKS * CHUNK, 1);
    let owner = owner_of(&world, "owner", &path, &bytes).await;
    world.network().set_upload_rate("owner", Some(100_000));
    let mut config = PeerConfig::default();
    config.swarm.patience = Some(Duration::from_secs(33));
    let wants = world.node_with("wants", config).await;
    let mut download = wants.peer.download(named("x"));
    let mut events = download.events();
    let mut losses = owner.lost_contents();
    loop {
        match events.next().await.unwrap() {
            DownloadEvent::Progress(progress) if progress.verified_chunks >= 10 => break,
            DownloadEvent::Progress(_) | DownloadEvent::Found(_) => {}
            end => panic!("{end:?}"),
        }
    }
    let begun = Instant::now();
    Fate::Shrinks.befalls(&path);
    soon(losses.next()).await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(2));
    let error = soon(&mut download).await.unwrap_err();
    let DownloadError::GaveUp {
        id,
        missing,
        reason: StallReason::Gone,
    } = error
    else {
        panic!("{error}");
    };
    assert_eq!(id, ContentId::of(&bytes));
    let verified = download.progress().verified_chunks;
    assert_eq!((missing, verified >= 10), (Some(64 - verified), true));
    let waited = begun.elapsed();
    // What was on its way still arrives first.
    let patience = Duration::from_secs(33)..Duration::from_secs(40);
    assert!(patience.contains(&waited), "{waited:?}");
}

/// What somebody does to the unfinished file of a download.
#[derive(Debug, Clone, Copy)]
enum Meddling {
    Removes,
    Replaces,
    Truncates,
}

fn part(dir: &TempDir, id: ContentId) -> PathBuf {
    dir.path().join(format!("{id}.part"))
}

#[tokio::test(start_paused = true)]
async fn download_whose_file_is_taken_away_ends_long_before_everything_has_arrived() {
    for (meddling, how) in [
        (Meddling::Removes, "removed"),
        (Meddling::Replaces, "replaced"),
        (Meddling::Truncates, "truncated"),
    ] {
        let world = World::memory(1).await;
        let bytes = content(CHUNKS * CHUNK, 1);
        let id = ContentId::of(&bytes);
        let owners = world.owners(1, "x", &bytes).await;
        world.network().set_upload_rate("owner-0", Some(50_000));
        let dir = tempfile::tempdir().unwrap();
        let mut config = PeerConfig::default();
        config.swarm.commit_interval = Duration::from_secs(1);
        let storage = FileStorage::open(dir.path()).unwrap();
        let builder = world.builder("leecher", storage).config(config);
        let peer = builder.start().await.unwrap();
        let mut download = peer.download(named("x"));
        let mut events = download.events();
        while download.durable_bytes() < (5 * CHUNK) as u64 {
            soon(events.next()).await.unwrap();
        }
        let path = part(&dir, id);
        match meddling {
            Meddling::Removes => fs::remove_file(&path).unwrap(),
            Meddling::Replaces => {
                fs::remove_file(&path).unwrap();
                fs::write(&path, vec![7; bytes.len()]).unwrap();
            }
            Meddling::Truncates => {
                let file = File::options().write(true).open(&path).unwrap();
                file.set_len((2 * CHUNK) as u64).unwrap();
            }
        }
        let error = soon(&mut download).await.unwrap_err();
        let source = StorageError::Tampered { path, how };
        let DownloadError::Storage { source: found, .. } = &error else {
            panic!("{error}");
        };
        assert_eq!(*found, source, "{meddling:?}");
        let arrived = download.progress().verified_chunks;
        assert!(arrived < 20, "{meddling:?}: {arrived}");

        // It begins again with what is left, and ends well.
        world.network().set_upload_rate("owner-0", None);
        soon(peer.download(named("x"))).await.unwrap();
        assert_eq!(fs::read(dir.path().join("x")).unwrap(), bytes);
        assert_eq!(owners[0].peer.lost(), []);
    }
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn what_is_no_file_of_its_stated_length_is_not_shared() {
    let world = World::memory(1).await;
    let peer = world.node("peer").await.peer;
    let dir = tempfile::tempdir().unwrap();
    let pipe = dir.path().join("pipe");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    assert!(made.unwrap().success());
    let socket = dir.path().join("socket");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    for (path, found) in [
        (dir.path(), "a directory"),
        (&*pipe, "a pipe"),
        (&*socket, "a socket"),
        (Path::new("/dev/null"), "a device"),
        (Path::new("/dev/zero"), "a device"),
    ] {
        let path = path.to_path_buf();
        let error = peer.share(&*path).await.unwrap_err();
        let expected = StorageError::NotAFile {
            path: path.clone(),
            found,
        };
        assert_eq!(error, ShareError::Storage(expected.clone()));
        // Nor is it taken over, as a whole or in part.
        let id = ContentId::of(b"x");
        let error = soon(peer.verify(&*path, id)).await.unwrap_err();
        assert_eq!(error, ShareError::Storage(expected.clone()));
        let options = DownloadOptions::new().existing(&*path);
        let error = soon(peer.download_with(id, options)).await.unwrap_err();
        let source = expected;
        assert_eq!(error, DownloadError::Existing { path, source });
    }
    // It reads longer than it says.
    let path = PathBuf::from("/proc/cpuinfo");
    let error = peer.share(&*path).await.unwrap_err();
    let expected = StorageError::WrongLength { path, length: 0 };
    assert_eq!(error, ShareError::Storage(expected));
    // It reads shorter.
    let path = PathBuf::from("/sys/kernel/mm/transparent_hugepage/enabled");
    match fs::metadata(&path) {
        Ok(metadata) => {
            let error = peer.share(&*path).await.unwrap_err();
            let length = metadata.len();
            let expected = StorageError::WrongLength { path, length };
            assert_eq!(error, ShareError::Storage(expected));
        }
        Err(error) => println!("skipped: {}: {error}", path.display()),
    }
    assert_eq!(peer.contents(), []);
    // An empty file is a file.
    let path = dir.path().join("empty");
    fs::write(&path, "").unwrap();
    assert_eq!(peer.share(&*path).await.unwrap().length, 0);
}
