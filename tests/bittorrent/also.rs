//! One file as a torrent and as a content of this crate's network, fetched from both.

use std::collections::BTreeSet;
use std::fs;
use std::future::poll_fn;
use std::ops::Range;
use std::path::Path;
use std::task::Poll;

use bt_lite::bittorrent::{
    Magnet, Metainfo, MetainfoBuilder, MetainfoFormat, TorrentOptions, TorrentSession,
};
use bt_lite::tracker::Tracker;
use bt_lite::{
    Content, ContentId, ContentLimits, Download, DownloadError, DownloadOptions, FileStorage,
    PauseOptions, Peer, ShareSource, StorageError, TcpTransport,
};
use tempfile::{TempDir, tempdir};
use tokio::io::AsyncReadExt;

use crate::sessions::{addr, session};

const PIECE_LEN: u32 = 32 << 10;
/// Many pieces, and a short one at the end.
const LEN: usize = 1_000_003;

fn bytes(seed: u64) -> Vec<u8> {
    let mut rng = fastrand::Rng::with_seed(seed);
    std::iter::repeat_with(|| rng.u8(..)).take(LEN).collect()
}

fn torrent_of(bytes: &[u8]) -> Metainfo {
    let builder = MetainfoBuilder::file("image", bytes.len() as u64).unwrap();
    let builder = builder
        .format(MetainfoFormat::Hybrid)
        .piece_length(PIECE_LEN);
    builder.build(|_| Ok(bytes)).unwrap()
}

/// The tracker of the fleet.
pub(crate) async fn tracker() -> Tracker {
    let tracker = Tracker::builder(TcpTransport::new());
    tracker.bind("127.0.0.1:0").await.unwrap()
}

/// A peer of the fleet, with its files in a directory.
pub(crate) async fn member(tracker: &Tracker, dir: &Path) -> Peer {
    let storage = FileStorage::open(dir).unwrap();
    let peer = Peer::builder(TcpTransport::new(), storage)
        .tracker(tracker.local_addr())
        .listen("127.0.0.1:0")
        .share_stored();
    peer.start().await.unwrap()
}

/// Waits for something that others bring about.
pub(crate) async fn until<T>(mut look: impl FnMut() -> Option<T>) -> T {
    poll_fn(|cx| match look() {
        Some(found) => Poll::Ready(found),
        None => {
            cx.waker().wake_by_ref();
            Poll::Pending
        }
    })
    .await
}

/// The download that goes on beside a torrent.
async fn beside(peer: &Peer, id: ContentId) -> Download {
    until(|| peer.get(id)).await
}

/// Whether a content is complete and shared.
pub(crate) async fn is_shared(peer: &Peer, id: ContentId) {
    until(|| peer.contents().iter().any(|c| c.id == id).then_some(())).await;
}

/// An ordinary client with those pieces of a torrent of which all bytes are in `ranges`. The
/// rest of its file is wrong.
struct Ordinary {
    dir: TempDir,
    peer: Peer,
    session: TorrentSession,
    download: Download,
}

async fn ordinary(bytes: &[u8], ranges: &[Range<usize>]) -> Ordinary {
    let dir = tempdir().unwrap();
    let mut there = vec![0; bytes.len()];
    for range in ranges {
        there[range.clone()].copy_from_slice(&bytes[range.clone()]);
    }
    fs::write(dir.path().join("image"), there).unwrap();
    let peer = crate::sessions::peer().await;
    let session = session(&peer).await;
    let options = TorrentOptions::new().directory(dir.path()).overwrite(true);
    let download = session.add(&torrent_of(bytes), options).unwrap();
    Ordinary {
        dir,
        peer,
        session,
        download,
    }
}

/// A peer of the fleet that has a part of a content, and which bytes that are.
struct Partial {
    _dir: TempDir,
    peer: Peer,
    download: Download,
    content: Content,
    has: Vec<Range<usize>>,
    lacks: Vec<Range<usize>>,
}

/// It has at least the first half. The one that had all of it is gone.
async fn partial(tracker: &Tracker, bytes: &[u8]) -> Partial {
    let [whole, dir] = [(); 2].map(|()| tempdir().unwrap());
    let owner = member(tracker, whole.path()).await;
    let content = owner.share(ShareSource::bytes("image", bytes.to_vec()));
    let content = content.await.unwrap();
    let peer = member(tracker, dir.path()).await;
    let half = whole.path().join("half");
    fs::write(&half, &bytes[..LEN / 2]).unwrap();
    let slow = ContentLimits::default().download(16 << 10);
    let mut options = DownloadOptions::new().existing(&half);
    options.limits = Some(slow);
    let download = peer.download_with(content.id, options);
    until(|| (download.progress().verified_bytes as usize > LEN / 3).then_some(())).await;
    owner.shutdown().await;
    let chunks = download.verified_chunks().await.unwrap();
    let chunk_len = 16 << 10;
    assert_eq!(chunks.chunks() as usize, LEN.div_ceil(chunk_len));
    let range = |chunk: usize| chunk * chunk_len..((chunk + 1) * chunk_len).min(LEN);
    let here: BTreeSet<usize> = chunks.iter().map(|chunk| chunk.0 as usize).collect();
    let all = 0..chunks.chunks() as usize;
    let (has, lacks): (Vec<_>, Vec<_>) = all.partition(|chunk| here.contains(chunk));
    assert!(!has.is_empty() && !lacks.is_empty());
    Partial {
        _dir: dir,
        peer,
        download,
        content,
        has: has.into_iter().map(range).collect(),
        lacks: lacks.into_iter().map(range).collect(),
    }
}

fn len(ranges: &[Range<usize>]) -> usize {
    ranges.iter().map(|range| range.len()).sum()
}

/// The pieces that have some of these bytes.
fn pieces(ranges: &[Range<usize>]) -> Vec<Range<usize>> {
    let len = PIECE_LEN as usize;
    let touched = ranges
        .iter()
        .flat_map(|r| r.start / len..r.end.div_ceil(len));
    let pieces: BTreeSet<usize> = touched.collect();
    let range = |piece: usize| piece * len..((piece + 1) * len).min(LEN);
    pieces.into_iter().map(range).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_halves_from_two_worlds_are_a_whole_in_both() {
    let (bytes, tracker, dir) = (bytes(1), tracker().await, tempdir().unwrap());
    let mut half = partial(&tracker, &bytes).await;
    let theirs = pieces(&half.lacks);
    let mut other = ordinary(&bytes, &theirs).await;
    let peer = member(&tracker, dir.path()).await;
    let torrents = session(&peer).await;
    let options = TorrentOptions::new()
        .peer(addr(&other.session))
        .also(half.content.id);
    let mut download = torrents.add(&torrent_of(&bytes), options).unwrap();
    let mut second = beside(&peer, half.content.id).await;
    let torrent = (&mut download).await.unwrap();
    (&mut second).await.unwrap();
    assert!(fs::read(dir.path().join("image")).unwrap() == bytes);
    let shared: BTreeSet<_> = peer.contents().iter().map(|content| content.id).collect();
    assert_eq!(shared, BTreeSet::from([torrent.id, half.content.id]));
    // Nothing came from both.
    let (first, second) = (download.progress(), second.progress());
    let both = (first.downloaded + second.downloaded) as usize;
    assert!(
        first.downloaded > 0 && second.downloaded > 0,
        "{first:?} {second:?}"
    );
    let twice = len(&theirs) + len(&half.has) - LEN;
    assert!(both <= LEN + twice, "{both} {twice}");
    // And each world has what the other one had.
    (&mut other.download).await.unwrap();
    assert!(fs::read(other.dir.path().join("image")).unwrap() == bytes);
    half.download
        .set_limits(ContentLimits::default())
        .await
        .unwrap();
    (&mut half.download).await.unwrap();
    // There is one file, and the record of the torrent.
    let names: Vec<_> = fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.metadata().unwrap().len() >= LEN as u64)
        .map(|entry| entry.file_name())
        .collect();
    assert_eq!(names, ["image"]);
    for peer in [peer, half.peer, other.peer] {
        peer.shutdown().await;
    }
    // The content is shared again, with or without the torrent.
    let peer = member(&tracker, dir.path()).await;
    is_shared(&peer, half.content.id).await;
    let mut read = Vec::new();
    let mut reader = peer.reader(half.content.id).await.unwrap();
    reader.read_to_end(&mut read).await.unwrap();
    assert!(read == bytes);
    peer.shutdown().await;
    tracker.shutdown().await;
}

/// The torrent and the content have the same length, and other bytes. `torrent_first` says
/// which of both comes first.
async fn mismatch(torrent_first: bool) {
    let (right, other) = (bytes(1), bytes(2));
    let (tracker, [dir, there]) = (tracker().await, [(); 2].map(|()| tempdir().unwrap()));
    let client = ordinary(&right, &[0..LEN]).await;
    let owner = member(&tracker, there.path()).await;
    let content = owner.share(ShareSource::bytes("other", other.clone()));
    let content = content.await.unwrap();
    let peer = member(&tracker, dir.path()).await;
    let torrents = session(&peer).await;
    let options = TorrentOptions::new().also(content.id);
    let with_peer = options.clone().peer(addr(&client.session));
    let metainfo = torrent_of(&right);
    let first = match torrent_first {
        true => with_peer.clone(),
        false => options,
    };
    let mut download = torrents.add(&metainfo, first).unwrap();
    let second = beside(&peer, content.id).await;
    let refused = second.await;
    if !torrent_first {
        // All that had come was of the other content.
        torrents.add(&metainfo, with_peer).unwrap().detach();
    }
    let path = dir.path().join("image");
    let expected = StorageError::Mismatch { path: path.clone() };
    assert!(
        matches!(&refused, Err(DownloadError::Storage { source, .. }) if *source == expected),
        "{refused:?}"
    );
    (&mut download).await.unwrap();
    assert!(fs::read(&path).unwrap() == right);
    // Nobody was blamed, and the other content comes by itself.
    let found = peer.download(content.id).await.unwrap();
    assert_eq!(found.id, content.id);
    assert!(fs::read(dir.path().join("other")).unwrap() == other);
    assert!(fs::read(&path).unwrap() == right);
    for peer in [peer, owner, client.peer] {
        peer.shutdown().await;
    }
    tracker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pair_that_does_not_match_harms_neither() {
    mismatch(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn torrent_is_right_if_other_bytes_came_first() {
    mismatch(false).await;
}

/// Fetches a torrent as soon as a peer that was killed has let go of its files.
pub(crate) async fn added_when_free(
    torrents: &TorrentSession,
    metainfo: &Metainfo,
    options: TorrentOptions,
) -> Download {
    loop {
        let mut download = torrents.add(metainfo, options.clone()).unwrap();
        match (&mut download).await {
            Err(DownloadError::Storage {
                source: StorageError::Locked { .. },
                ..
            }) => {}
            ended => {
                ended.unwrap();
                return download;
            }
        }
    }
}

/// What one has verified is found after a restart, though it came from the other world.
async fn restarts(kill: bool) {
    let (bytes, tracker, dir) = (bytes(1), tracker().await, tempdir().unwrap());
    let half = partial(&tracker, &bytes).await;
    let metainfo = torrent_of(&bytes);
    let peer = member(&tracker, dir.path()).await;
    let torrents = session(&peer).await;
    let options = TorrentOptions::new().also(half.content.id);
    let first = torrents.add(&metainfo, options.clone()).unwrap();
    let second = beside(&peer, half.content.id).await;
    // All that the fleet has is here, and is right as a torrent as well.
    let whole = pieces(&half.lacks);
    let first_has = LEN - len(&whole);
    until(|| {
        let has = first.progress().verified_bytes as usize >= first_has;
        let durable = second.durable_bytes() as usize + (64 << 10) >= len(&half.has);
        (has && durable).then_some(())
    })
    .await;
    match kill {
        true => drop((torrents, first, second, peer)),
        false => {
            drop((first, second));
            peer.shutdown().await;
        }
    }
    half.peer.shutdown().await;
    let other = ordinary(&bytes, &whole).await;
    let peer = member(&tracker, dir.path()).await;
    let torrents = session(&peer).await;
    let options = options.peer(addr(&other.session));
    let download = added_when_free(&torrents, &metainfo, options).await;
    let downloaded = download.progress().downloaded as usize;
    assert!(downloaded <= len(&whole) + (128 << 10), "{downloaded}");
    is_shared(&peer, half.content.id).await;
    assert!(fs::read(dir.path().join("image")).unwrap() == bytes);
    for peer in [peer, other.peer] {
        peer.shutdown().await;
    }
    tracker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pair_goes_on_after_a_shutdown() {
    restarts(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pair_goes_on_after_a_kill() {
    restarts(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn torrent_is_shared_in_the_fleet_though_nobody_there_had_it() {
    let (bytes, tracker) = (bytes(1), tracker().await);
    let [dir, there] = [(); 2].map(|()| tempdir().unwrap());
    let id = ContentId::of(&bytes);
    let client = ordinary(&bytes, &[0..LEN]).await;
    let peer = member(&tracker, dir.path()).await;
    let torrents = session(&peer).await;
    let options = TorrentOptions::new().peer(addr(&client.session)).also(id);
    let _torrent = torrents.add(&torrent_of(&bytes), options.clone()).unwrap();
    is_shared(&peer, id).await;
    peer.announced().await.unwrap();
    let second = member(&tracker, there.path()).await;
    second.download(id).await.unwrap();
    assert!(fs::read(there.path().join("image")).unwrap() == bytes);
    // After a restart both are shared at once, and nothing is hashed.
    drop(torrents);
    peer.shutdown().await;
    let peer = member(&tracker, dir.path()).await;
    is_shared(&peer, id).await;
    let torrents = session(&peer).await;
    let mut torrent = torrents.add(&torrent_of(&bytes), options).unwrap();
    (&mut torrent).await.unwrap();
    assert_eq!(torrent.progress().downloaded, 0);
    for peer in [peer, second, client.peer] {
        peer.shutdown().await;
    }
    tracker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn magnet_link_brings_a_second_content() {
    let (bytes, tracker, dir) = (bytes(1), tracker().await, tempdir().unwrap());
    let half = partial(&tracker, &bytes).await;
    let client = ordinary(&bytes, &pieces(&half.lacks)).await;
    let peer = member(&tracker, dir.path()).await;
    let torrents = session(&peer).await;
    let magnet = Magnet::of(&torrent_of(&bytes));
    let options = TorrentOptions::new().peer(addr(&client.session));
    let fetched = torrents.add_magnet(&magnet, options.also(half.content.id));
    fetched.unwrap().await.unwrap();
    is_shared(&peer, half.content.id).await;
    assert!(fs::read(dir.path().join("image")).unwrap() == bytes);
    for peer in [peer, half.peer, client.peer] {
        peer.shutdown().await;
    }
    tracker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn second_content_goes_on_alone_if_somebody_wants_it() {
    let (bytes, tracker) = (bytes(1), tracker().await);
    let [dir, there] = [(); 2].map(|()| tempdir().unwrap());
    let half = partial(&tracker, &bytes).await;
    let id = half.content.id;
    let peer = member(&tracker, dir.path()).await;
    let torrents = session(&peer).await;
    let options = TorrentOptions::new().also(id);
    let torrent = torrents.add(&torrent_of(&bytes), options).unwrap();
    let mut second = beside(&peer, id).await;
    until(|| (second.progress().verified_bytes as usize >= len(&half.has)).then_some(())).await;
    torrent.cancel();
    assert_eq!(torrent.await, Err(DownloadError::Cancelled));
    let owner = member(&tracker, there.path()).await;
    let source = ShareSource::bytes("image", bytes.clone());
    owner.share(source).await.unwrap();
    let addr = owner.local_addr().unwrap().clone();
    second.add_owner(addr).await.unwrap();
    (&mut second).await.unwrap();
    assert!(fs::read(dir.path().join("image")).unwrap() == bytes);
    for peer in [peer, owner, half.peer] {
        peer.shutdown().await;
    }
    tracker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn discarding_the_torrent_removes_the_file_of_both() {
    let (bytes, tracker, dir) = (bytes(1), tracker().await, tempdir().unwrap());
    let half = partial(&tracker, &bytes).await;
    let peer = member(&tracker, dir.path()).await;
    let torrents = session(&peer).await;
    let options = TorrentOptions::new().also(half.content.id);
    let torrent = torrents.add(&torrent_of(&bytes), options).unwrap();
    let second = beside(&peer, half.content.id).await;
    until(|| (second.progress().verified_bytes as usize >= len(&half.has)).then_some(())).await;
    torrent.discard();
    assert_eq!(torrent.await, Err(DownloadError::Cancelled));
    let ended = second.await;
    let is_removed = |source: &StorageError| matches!(source, StorageError::Tampered { .. });
    assert!(
        matches!(&ended, Err(DownloadError::Storage { source, .. }) if is_removed(source)),
        "{ended:?}"
    );
    let left = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap());
    let left: Vec<_> = left
        .filter(|e| e.metadata().unwrap().len() > 4096)
        .collect();
    assert!(left.is_empty(), "{left:?}");
    for peer in [peer, half.peer] {
        peer.shutdown().await;
    }
    tracker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn paused_side_verifies_what_the_other_brings() {
    let (bytes, tracker, dir) = (bytes(1), tracker().await, tempdir().unwrap());
    let half = partial(&tracker, &bytes).await;
    let client = ordinary(&bytes, &[0..LEN]).await;
    let peer = member(&tracker, dir.path()).await;
    let torrents = session(&peer).await;
    let (metainfo, options) = (
        torrent_of(&bytes),
        TorrentOptions::new().also(half.content.id),
    );
    let mut torrent = torrents.add(&metainfo, options.clone()).unwrap();
    let mut second = beside(&peer, half.content.id).await;
    until(|| second.content()).await;
    second.pause(PauseOptions::new());
    until(|| second.is_paused().then_some(())).await;
    let options = options.peer(addr(&client.session));
    torrents.add(&metainfo, options).unwrap().detach();
    (&mut torrent).await.unwrap();
    (&mut second).await.unwrap();
    assert!(fs::read(dir.path().join("image")).unwrap() == bytes);
    for peer in [peer, half.peer, client.peer] {
        peer.shutdown().await;
    }
    tracker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn second_content_may_be_named_while_the_torrent_comes() {
    let (bytes, tracker, dir) = (bytes(1), tracker().await, tempdir().unwrap());
    let half = partial(&tracker, &bytes).await;
    let peer = member(&tracker, dir.path()).await;
    let torrents = session(&peer).await;
    let metainfo = torrent_of(&bytes);
    // As a link first: another call hears of the content before the torrent is known.
    let magnet = Magnet::of(&metainfo);
    let first = torrents.add_magnet(&magnet, TorrentOptions::new()).unwrap();
    let options = TorrentOptions::new().also(half.content.id);
    let second = torrents.add_magnet(&magnet, options).unwrap();
    second.into_download().detach();
    let mut other = torrents.add(&metainfo, TorrentOptions::new()).unwrap();
    is_fetched(&peer, &half).await;
    // And as a torrent that is known.
    first.into_download().cancel();
    other.cancel();
    let _ = (&mut other).await;
    for peer in [peer, half.peer] {
        peer.shutdown().await;
    }
    tracker.shutdown().await;
}

/// What the fleet has of the content comes beside the torrent.
async fn is_fetched(peer: &Peer, half: &Partial) {
    let second = beside(peer, half.content.id).await;
    until(|| (second.progress().verified_bytes as usize >= len(&half.has)).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn second_content_is_named_by_another_call() {
    let (bytes, tracker, dir) = (bytes(1), tracker().await, tempdir().unwrap());
    let half = partial(&tracker, &bytes).await;
    let client = ordinary(&bytes, &pieces(&half.lacks)).await;
    let peer = member(&tracker, dir.path()).await;
    let torrents = session(&peer).await;
    let metainfo = torrent_of(&bytes);
    let mut download = torrents.add(&metainfo, TorrentOptions::new()).unwrap();
    until(|| (download.progress().chunks.is_some()).then_some(())).await;
    let options = TorrentOptions::new()
        .also(half.content.id)
        .peer(addr(&client.session));
    torrents.add(&metainfo, options).unwrap().detach();
    (&mut download).await.unwrap();
    is_shared(&peer, half.content.id).await;
    assert!(fs::read(dir.path().join("image")).unwrap() == bytes);
    for peer in [peer, half.peer, client.peer] {
        peer.shutdown().await;
    }
    tracker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn second_content_is_named_when_the_torrent_is_complete() {
    let (bytes, tracker, dir) = (bytes(1), tracker().await, tempdir().unwrap());
    let id = ContentId::of(&bytes);
    let client = ordinary(&bytes, &[0..LEN]).await;
    let peer = member(&tracker, dir.path()).await;
    let torrents = session(&peer).await;
    let metainfo = torrent_of(&bytes);
    let options = TorrentOptions::new().peer(addr(&client.session));
    torrents.add(&metainfo, options).unwrap().await.unwrap();
    let options = TorrentOptions::new().also(id);
    torrents.add(&metainfo, options).unwrap().await.unwrap();
    is_shared(&peer, id).await;
    for peer in [peer, client.peer] {
        peer.shutdown().await;
    }
    tracker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn content_that_is_here_already_is_the_torrent() {
    let (bytes, tracker, [dir, there]) = (
        bytes(1),
        tracker().await,
        [(); 2].map(|()| tempdir().unwrap()),
    );
    let peer = member(&tracker, dir.path()).await;
    let path = there.path().join("elsewhere");
    fs::write(&path, &bytes).unwrap();
    let content = peer.share(ShareSource::file(&path)).await.unwrap();
    let torrents = session(&peer).await;
    let options = TorrentOptions::new().also(content.id);
    let mut download = torrents.add(&torrent_of(&bytes), options).unwrap();
    (&mut download).await.unwrap();
    assert_eq!(download.progress().downloaded, 0);
    assert!(fs::read(dir.path().join("image")).unwrap() == bytes);
    assert!(fs::read(&path).unwrap() == bytes);
    peer.shutdown().await;
    tracker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn content_that_comes_to_another_place_is_the_torrent() {
    let (bytes, tracker, [dir, there]) = (
        bytes(1),
        tracker().await,
        [(); 2].map(|()| tempdir().unwrap()),
    );
    let half = partial(&tracker, &bytes).await;
    let peer = member(&tracker, dir.path()).await;
    let options = DownloadOptions::new().directory(there.path());
    let mut first = peer.download_with(half.content.id, options);
    until(|| first.content()).await;
    let torrents = session(&peer).await;
    let options = TorrentOptions::new().also(half.content.id);
    let mut download = torrents.add(&torrent_of(&bytes), options).unwrap();
    let rest = member(&tracker, &dir.path().join("rest")).await;
    let source = ShareSource::bytes("image", bytes.clone());
    rest.share(source).await.unwrap();
    let addr = rest.local_addr().unwrap().clone();
    first.add_owner(addr).await.unwrap();
    (&mut first).await.unwrap();
    (&mut download).await.unwrap();
    assert_eq!(download.progress().downloaded, 0);
    assert!(fs::read(dir.path().join("image")).unwrap() == bytes);
    for peer in [peer, rest, half.peer] {
        peer.shutdown().await;
    }
    tracker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn both_are_one_of_the_active_downloads() {
    let (bytes, tracker, dir) = (bytes(1), tracker().await, tempdir().unwrap());
    let half = partial(&tracker, &bytes).await;
    let client = ordinary(&bytes, &pieces(&half.lacks)).await;
    let peer = member(&tracker, dir.path()).await;
    peer.set_max_downloads(1);
    let torrents = session(&peer).await;
    let options = TorrentOptions::new()
        .peer(addr(&client.session))
        .also(half.content.id);
    let mut download = torrents.add(&torrent_of(&bytes), options).unwrap();
    let mut second = beside(&peer, half.content.id).await;
    // Nobody else has what the fleet has.
    (&mut download).await.unwrap();
    (&mut second).await.unwrap();
    assert!(second.progress().downloaded > 0);
    for peer in [peer, half.peer, client.peer] {
        peer.shutdown().await;
    }
    tracker.shutdown().await;
}
