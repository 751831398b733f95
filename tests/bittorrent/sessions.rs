//! Sessions of this crate with each other, over TCP.

use std::fs;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::path::Path;
use std::task::Poll;

use bt_lite::bittorrent::{
    Magnet, Metainfo, MetainfoBuilder, MetainfoFormat, TorrentOptions, TorrentSession,
    TorrentSessionConfig,
};
use bt_lite::{
    ContentLimits, ContentState, DownloadError, DownloadEvent, MemoryStorage, PauseOptions, Peer,
    TcpTransport,
};
use futures::StreamExt;
use tokio::io::AsyncReadExt;

const PIECE_LEN: u32 = 32 << 10;

/// A folder with files whose borders lie in pieces, an empty one, and one of many pieces.
const FILES: [(&str, usize); 4] = [
    ("a/first", 5),
    ("a/none", 0),
    ("b", 100_000),
    ("c/d/large", 1_000_000),
];

fn bytes(path: &str, len: usize) -> Vec<u8> {
    let mut rng = fastrand::Rng::with_seed(path.len() as u64);
    std::iter::repeat_with(|| rng.u8(..)).take(len).collect()
}

pub(crate) fn write_files(root: &Path) {
    for (path, len) in FILES {
        let file = root.join("folder").join(path);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, bytes(path, len)).unwrap();
    }
}

pub(crate) fn check_files(root: &Path) {
    for (path, len) in FILES {
        let found = fs::read(root.join("folder").join(path)).unwrap();
        assert!(found == bytes(path, len), "{path}");
    }
}

pub(crate) fn torrent(root: &Path, format: MetainfoFormat) -> Metainfo {
    let mut builder = MetainfoBuilder::folder("folder").unwrap();
    for (path, len) in FILES {
        builder = builder.add(path.parse().unwrap(), len as u64);
    }
    let builder = builder.format(format).piece_length(PIECE_LEN);
    builder
        .build(|path| fs::File::open(root.join("folder").join(path.as_str())))
        .unwrap()
}

pub(crate) async fn peer() -> Peer {
    let peer = Peer::builder(TcpTransport::new(), MemoryStorage::new());
    peer.start().await.unwrap()
}

pub(crate) async fn session(peer: &Peer) -> TorrentSession {
    let config = TorrentSessionConfig::new().listen(([127, 0, 0, 1], 0).into());
    TorrentSession::start(peer, config).await.unwrap()
}

pub(crate) fn addr(session: &TorrentSession) -> SocketAddr {
    session.local_addr().unwrap().socket_addr().unwrap()
}

async fn travels(format: MetainfoFormat) {
    let [here, there] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    write_files(here.path());
    let metainfo = torrent(here.path(), format);
    let (owner, fetcher) = (peer().await, peer().await);
    let (seeds, fetches) = (session(&owner).await, session(&fetcher).await);
    let options = TorrentOptions::new().directory(here.path());
    let seeded = seeds.add(&metainfo, options).unwrap().await.unwrap();
    let options = TorrentOptions::new()
        .directory(there.path())
        .peer(addr(&seeds));
    let fetched = fetches.add(&metainfo, options).unwrap().await.unwrap();
    assert_eq!(seeded.id, fetched.id);
    assert_eq!(fetched.length, metainfo.total_length());
    check_files(there.path());
    assert_eq!(fetcher.contents(), [fetched]);
    owner.shutdown().await;
    fetcher.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn torrent_of_version_1_travels() {
    travels(MetainfoFormat::V1).await;
}

#[tokio::test]
async fn torrent_of_version_2_travels() {
    travels(MetainfoFormat::V2).await;
}

#[tokio::test]
async fn hybrid_torrent_travels() {
    travels(MetainfoFormat::Hybrid).await;
}

#[tokio::test]
async fn what_lies_there_is_verified_and_only_the_rest_is_fetched() {
    let [here, there] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    write_files(here.path());
    write_files(there.path());
    let metainfo = torrent(here.path(), MetainfoFormat::V1);
    fs::remove_file(there.path().join("folder/a/first")).unwrap();
    let (owner, fetcher) = (peer().await, peer().await);
    let (seeds, fetches) = (session(&owner).await, session(&fetcher).await);
    let options = TorrentOptions::new().directory(here.path());
    let _seeded = seeds.add(&metainfo, options).unwrap();
    let options = TorrentOptions::new()
        .directory(there.path())
        .peer(addr(&seeds));
    let mut download = fetches.add(&metainfo, options).unwrap();
    (&mut download).await.unwrap();
    assert_eq!(download.progress().downloaded, PIECE_LEN.into());
    check_files(there.path());
    owner.shutdown().await;
    fetcher.shutdown().await;
}

#[tokio::test]
async fn files_of_the_user_stay_unless_they_may_be_overwritten() {
    let [here, there] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    write_files(here.path());
    let metainfo = torrent(here.path(), MetainfoFormat::V1);
    let mine = there.path().join("folder/b");
    fs::create_dir(there.path().join("folder")).unwrap();
    fs::write(&mine, vec![7; 100_000]).unwrap();
    let (owner, fetcher) = (peer().await, peer().await);
    let (seeds, fetches) = (session(&owner).await, session(&fetcher).await);
    let options = TorrentOptions::new().directory(here.path());
    let _seeded = seeds.add(&metainfo, options).unwrap();
    let options = TorrentOptions::new()
        .directory(there.path())
        .peer(addr(&seeds));
    let refused = fetches.add(&metainfo, options.clone()).unwrap().await;
    assert!(
        matches!(refused, Err(DownloadError::TargetExists { .. })),
        "{refused:?}"
    );
    assert_eq!(fs::read(&mine).unwrap(), vec![7; 100_000]);
    fs::write(&mine, "short").unwrap();
    let refused = fetches.add(&metainfo, options.clone()).unwrap().await;
    assert!(
        matches!(refused, Err(DownloadError::TargetExists { .. })),
        "{refused:?}"
    );
    assert_eq!(fs::read(&mine).unwrap(), b"short");
    let options = options.overwrite(true);
    fetches.add(&metainfo, options).unwrap().await.unwrap();
    check_files(there.path());
    owner.shutdown().await;
    fetcher.shutdown().await;
}

#[tokio::test]
async fn torrent_is_listed_limited_paused_and_read_like_any_download() {
    let [here, there] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    write_files(here.path());
    let metainfo = torrent(here.path(), MetainfoFormat::V1);
    let (owner, fetcher) = (peer().await, peer().await);
    let (seeds, fetches) = (session(&owner).await, session(&fetcher).await);
    let options = TorrentOptions::new().directory(here.path());
    let _seeded = seeds.add(&metainfo, options).unwrap();
    let slow = ContentLimits::default().download(256 << 10);
    let options = TorrentOptions::new().directory(there.path()).limits(slow);
    let mut download = fetches.add(&metainfo, options.peer(addr(&seeds))).unwrap();
    let mut events = download.events();
    let mut reader = download.reader();
    let mut first = vec![0; 70_000];
    reader.read_exact(&mut first).await.unwrap();
    let progress = download.progress();
    assert!(
        progress.verified_bytes < metainfo.total_length(),
        "{progress:?}"
    );
    let [listed] = &fetcher.list()[..] else {
        panic!("{:?}", fetcher.list());
    };
    assert_eq!(listed.name.as_ref().unwrap().as_str(), "folder");
    assert_eq!(listed.length, Some(metainfo.total_length()));
    assert_eq!(listed.state, ContentState::Downloading);
    download.pause(PauseOptions::new());
    while !matches!(events.next().await, Some(DownloadEvent::Paused)) {}
    assert_eq!(fetcher.list()[0].state, ContentState::Paused);
    download.set_limits(ContentLimits::default()).await.unwrap();
    download.resume();
    let mut rest = Vec::new();
    reader.read_to_end(&mut rest).await.unwrap();
    (&mut download).await.unwrap();
    let files = FILES.iter().flat_map(|(path, len)| bytes(path, *len));
    assert!(first.into_iter().chain(rest).eq(files));
    check_files(there.path());
    owner.shutdown().await;
    fetcher.shutdown().await;
}

/// Gives a file other bytes that nobody can tell by its stamp.
fn change_secretly(path: &Path) {
    let modified = fs::metadata(path).unwrap().modified().unwrap();
    let mut bytes = fs::read(path).unwrap();
    bytes[0] ^= 1;
    fs::write(path, bytes).unwrap();
    let file = fs::File::options().write(true).open(path).unwrap();
    file.set_modified(modified).unwrap();
}

#[tokio::test]
async fn torrent_is_not_verified_again_after_a_restart_unless_its_files_changed() {
    let [here, there] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    write_files(here.path());
    let metainfo = torrent(here.path(), MetainfoFormat::V1);
    let owner = peer().await;
    let seeds = session(&owner).await;
    let _seeded = seeds.add(&metainfo, TorrentOptions::new().directory(here.path()));
    let into = || TorrentOptions::new().directory(there.path());
    let fetcher = peer().await;
    let fetches = session(&fetcher).await;
    let fetched = fetches.add(&metainfo, into().peer(addr(&seeds))).unwrap();
    fetched.await.unwrap();
    fetcher.shutdown().await;
    // Nobody reads this, so nobody notices.
    let large = there.path().join("folder/c/d/large");
    change_secretly(&large);
    let again = peer().await;
    let shares = session(&again).await;
    shares.add(&metainfo, into()).unwrap().await.unwrap();
    again.shutdown().await;
    let touched = fs::File::options().write(true).open(&large).unwrap();
    touched.set_modified(std::time::SystemTime::now()).unwrap();
    let third = peer().await;
    let fetches = session(&third).await;
    let options = into().peer(addr(&seeds)).overwrite(true);
    let mut mended = fetches.add(&metainfo, options).unwrap();
    (&mut mended).await.unwrap();
    assert_eq!(mended.progress().downloaded, PIECE_LEN.into());
    check_files(there.path());
    owner.shutdown().await;
    third.shutdown().await;
}

#[cfg(unix)]
#[tokio::test]
async fn symbolic_links_of_a_torrent_are_made() {
    let [here, there] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    write_files(here.path());
    let builder = MetainfoBuilder::folder("folder").unwrap();
    let builder = builder.add("b".parse().unwrap(), 100_000);
    let builder = builder.add_symlink("a/link".parse().unwrap(), "b".parse().unwrap());
    let metainfo = builder.build(|_| fs::File::open(here.path().join("folder/b")));
    let metainfo = metainfo.unwrap();
    let (owner, fetcher) = (peer().await, peer().await);
    let (seeds, fetches) = (session(&owner).await, session(&fetcher).await);
    let options = TorrentOptions::new().directory(here.path());
    seeds.add(&metainfo, options).unwrap().await.unwrap();
    let options = TorrentOptions::new().directory(there.path());
    let options = options.peer(addr(&seeds));
    fetches.add(&metainfo, options).unwrap().await.unwrap();
    for root in [here, there] {
        let link = root.path().join("folder/a/link");
        assert_eq!(fs::read_link(&link).unwrap(), Path::new("../b"));
        assert_eq!(fs::read(link).unwrap(), bytes("b", 100_000));
    }
    owner.shutdown().await;
    fetcher.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hybrid_that_came_without_its_hashes_of_v2_serves_them_in_the_end() {
    let [here, there, last] = [(); 3].map(|()| tempfile::tempdir().unwrap());
    write_files(here.path());
    let metainfo = torrent(here.path(), MetainfoFormat::Hybrid);
    // Without the hashes, as from a link that only clients of version 1 know.
    let bare = [&b"d4:info"[..], metainfo.info_bytes(), b"e"].concat();
    let bare = Metainfo::from_bytes(&bare).unwrap();
    let (owner, fetcher, third) = (peer().await, peer().await, peer().await);
    let (seeds, fetches) = (session(&owner).await, session(&fetcher).await);
    let options = TorrentOptions::new().directory(here.path());
    let _seeded = seeds.add(&metainfo, options).unwrap();
    let options = TorrentOptions::new()
        .directory(there.path())
        .peer(addr(&seeds));
    let fetched = fetches.add(&bare, options).unwrap().await.unwrap();
    owner.shutdown().await;
    let whole = poll_fn(|cx| match fetches.metainfo(&fetched.id) {
        Some(whole) if whole.to_bytes() != bare.to_bytes() => Poll::Ready(whole),
        _ => {
            cx.waker().wake_by_ref();
            Poll::Pending
        }
    });
    let whole = whole.await;
    assert_eq!(whole.info_hash_v2(), metainfo.info_hash_v2());
    // A client that knows version 2 only gets all of it.
    let mut magnet = Magnet::of(&metainfo);
    magnet.v1 = None;
    let session = session(&third).await;
    let options = TorrentOptions::new()
        .directory(last.path())
        .peer(addr(&fetches));
    session.add_magnet(&magnet, options).unwrap().await.unwrap();
    check_files(last.path());
    for peer in [fetcher, third] {
        peer.shutdown().await;
    }
}
