//! One tree as a torrent and as a folder of this crate's network, fetched from both.

use std::fs;
use std::path::Path;

use bt_lite::bittorrent::{
    Metainfo, MetainfoBuilder, MetainfoFormat, TorrentOptions, TorrentSession,
};
use bt_lite::{
    ContentId, Download, DownloadError, Folder, FolderDownload, FolderError, FolderOptions,
    FolderPath, Peer, Removal, StorageError,
};
use tempfile::{TempDir, tempdir};

use crate::also::{added_when_free, member, tracker, until};
use crate::sessions::{addr, check_files, session, torrent, write_files};

const FORMAT: MetainfoFormat = MetainfoFormat::Hybrid;

/// The id of the folder in a directory.
async fn id_of(dir: &Path) -> ContentId {
    let peer = Peer::builder(
        bt_lite::TcpTransport::new(),
        bt_lite::FileStorage::open(dir.join("store")).unwrap(),
    );
    let peer = peer.start().await.unwrap();
    let folder = peer.share_folder(dir.join("folder")).await.unwrap();
    peer.shutdown().await;
    folder.id
}

/// An ordinary client that has these files of the torrent, and wrong bytes in the others.
struct Ordinary {
    dir: TempDir,
    peer: Peer,
    session: TorrentSession,
    download: Download,
}

async fn ordinary(from: &Path, metainfo: &Metainfo, has: &[&str]) -> Ordinary {
    let dir = tempdir().unwrap();
    for file in metainfo.files().iter().filter(|file| !file.is_padding()) {
        let path = Path::new("folder").join(file.path().as_str());
        let mut bytes = fs::read(from.join(&path)).unwrap();
        if !has.contains(&file.path().as_str()) {
            bytes.fill(0);
        }
        let path = dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    let peer = crate::sessions::peer().await;
    let session = session(&peer).await;
    let options = TorrentOptions::new().directory(dir.path()).overwrite(true);
    let download = session.add(metainfo, options).unwrap();
    Ordinary {
        dir,
        peer,
        session,
        download,
    }
}

const ALL: [&str; 4] = ["a/first", "a/none", "b", "c/d/large"];

/// A peer of the fleet that has a part of the folder. The one that had all of it is gone.
async fn partial(
    tracker: &bt_lite::tracker::Tracker,
    from: &Path,
    dir: &Path,
    paths: &[&str],
) -> (Peer, Folder) {
    let store = tempdir().unwrap();
    let owner = member(tracker, store.path()).await;
    let folder = owner.share_folder(from.join("folder")).await.unwrap();
    let peer = member(tracker, dir).await;
    let mut options = FolderOptions::new();
    for path in paths {
        options = options.path(*path);
    }
    peer.download_folder_with(folder.id, options).await.unwrap();
    owner.shutdown().await;
    (peer, folder)
}

async fn beside(peer: &Peer, id: ContentId) -> FolderDownload {
    until(|| peer.get_folder(id)).await
}

async fn is_shared(peer: &Peer, id: ContentId) {
    until(|| {
        peer.folders()
            .iter()
            .any(|folder| folder.id == id)
            .then_some(())
    })
    .await;
}

/// How many bytes lie in a directory, in files that are longer than any record.
fn size(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    let sizes = entries.map(|entry| {
        let about = entry.metadata().unwrap();
        match about.is_dir() {
            true => size(&entry.path()),
            false => Some(about.len()).filter(|len| *len > 50_000).unwrap_or(0),
        }
    });
    sizes.sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_tree_comes_from_two_worlds() {
    let tracker = tracker().await;
    let [from, here, there] = [(); 3].map(|()| tempdir().unwrap());
    write_files(from.path());
    let metainfo = torrent(from.path(), FORMAT);
    let (half, folder) = partial(&tracker, from.path(), there.path(), &["a", "b"]).await;
    let mut other = ordinary(from.path(), &metainfo, &["c/d/large"]).await;
    let peer = member(&tracker, here.path()).await;
    let torrents = session(&peer).await;
    let options = TorrentOptions::new()
        .peer(addr(&other.session))
        .also(folder.id);
    let mut download = torrents.add(&metainfo, options).unwrap();
    let mut second = beside(&peer, folder.id).await;
    (&mut download).await.unwrap();
    let found = (&mut second).await.unwrap();
    assert_eq!((found.id, found.name.as_str()), (folder.id, "folder"));
    check_files(here.path());
    // Each came from the world that has it, and is there once.
    let (first, second) = (download.progress().downloaded, second.stats().downloaded);
    assert!((1_000_000..1_100_000).contains(&first), "{first}");
    assert!((100_005..200_000).contains(&second), "{second}");
    assert_eq!(size(here.path()), 1_100_000);
    // And each world has what the other one had.
    (&mut other.download).await.unwrap();
    check_files(other.dir.path());
    half.download_folder(folder.id).await.unwrap();
    check_files(there.path());
    drop((torrents, download));
    for peer in [peer, half, other.peer] {
        peer.shutdown().await;
    }
    // After a restart the folder is shared from where the torrent has put it, and nothing is
    // deleted when it is not shared any more.
    let peer = member(&tracker, here.path()).await;
    is_shared(&peer, folder.id).await;
    let torrents = session(&peer).await;
    let mut again = torrents.add(&metainfo, TorrentOptions::new()).unwrap();
    (&mut again).await.unwrap();
    assert_eq!(again.progress().downloaded, 0);
    peer.remove(folder.id, Removal::DeleteFile).await.unwrap();
    check_files(here.path());
    peer.shutdown().await;
    tracker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn torrent_that_comes_alone_is_the_folder_in_the_end() {
    let tracker = tracker().await;
    let [from, here, there] = [(); 3].map(|()| tempdir().unwrap());
    write_files(from.path());
    let id = id_of(from.path()).await;
    let metainfo = torrent(from.path(), FORMAT);
    let other = ordinary(from.path(), &metainfo, &ALL).await;
    let peer = member(&tracker, here.path()).await;
    let torrents = session(&peer).await;
    let options = TorrentOptions::new().peer(addr(&other.session)).also(id);
    let _download = torrents.add(&metainfo, options).unwrap();
    is_shared(&peer, id).await;
    peer.announced().await.unwrap();
    let second = member(&tracker, there.path()).await;
    second.download_folder(id).await.unwrap();
    check_files(there.path());
    assert_eq!(size(here.path()), 1_100_000);
    for peer in [peer, second, other.peer] {
        peer.shutdown().await;
    }
    tracker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn folder_of_the_fleet_is_a_torrent_for_others() {
    let tracker = tracker().await;
    let [from, here, there] = [(); 3].map(|()| tempdir().unwrap());
    write_files(from.path());
    let metainfo = torrent(from.path(), FORMAT);
    let all = ["a", "b", "c"];
    let (owner, folder) = partial(&tracker, from.path(), there.path(), &all).await;
    // All of it comes from the fleet, and goes to ordinary clients as it comes.
    let mut other = ordinary(from.path(), &metainfo, &[]).await;
    let peer = member(&tracker, here.path()).await;
    let torrents = session(&peer).await;
    let options = TorrentOptions::new()
        .peer(addr(&other.session))
        .also(folder.id);
    let mut download = torrents.add(&metainfo, options).unwrap();
    (&mut download).await.unwrap();
    assert_eq!(download.progress().downloaded, 0);
    (&mut other.download).await.unwrap();
    check_files(other.dir.path());
    is_shared(&peer, folder.id).await;
    // One that is here is a torrent where it lies, and nothing is copied.
    let more = session(&owner).await;
    let seeded = more.add(&metainfo, TorrentOptions::new().also(folder.id));
    let mut seeded = seeded.unwrap();
    (&mut seeded).await.unwrap();
    assert_eq!(seeded.progress().downloaded, 0);
    assert_eq!(size(there.path()), 1_100_000);
    for peer in [peer, owner, other.peer] {
        peer.shutdown().await;
    }
    tracker.shutdown().await;
}

/// The same torrent with one more file, and the folder with another one.
#[tokio::test(flavor = "multi_thread")]
async fn files_of_one_world_alone_are_its_own_business() {
    let tracker = tracker().await;
    let [from, clients, here, there] = [(); 4].map(|()| tempdir().unwrap());
    write_files(from.path());
    write_files(clients.path());
    fs::write(clients.path().join("folder/only-torrent"), vec![7; 70_000]).unwrap();
    fs::write(from.path().join("folder/only-folder"), vec![8; 80_000]).unwrap();
    let mut builder = MetainfoBuilder::folder("folder").unwrap();
    for file in [&ALL[..], &["only-torrent"]].concat() {
        let path = clients.path().join("folder").join(file);
        let len = fs::metadata(path).unwrap().len();
        builder = builder.add(file.parse().unwrap(), len);
    }
    let builder = builder.format(FORMAT).piece_length(32 << 10);
    let root = clients.path().join("folder");
    let open = |path: &FolderPath| fs::File::open(root.join(path.as_str()));
    let metainfo = builder.build(open).unwrap();
    let paths = ["a", "b", "only-folder"];
    let (half, folder) = partial(&tracker, from.path(), there.path(), &paths).await;
    let has = ["c/d/large", "only-torrent"];
    let other = ordinary(clients.path(), &metainfo, &has).await;
    let peer = member(&tracker, here.path()).await;
    let torrents = session(&peer).await;
    let options = TorrentOptions::new()
        .peer(addr(&other.session))
        .also(folder.id);
    let mut download = torrents.add(&metainfo, options).unwrap();
    let mut second = beside(&peer, folder.id).await;
    (&mut download).await.unwrap();
    (&mut second).await.unwrap();
    check_files(here.path());
    let read = |name| fs::read(here.path().join("folder").join(name)).unwrap();
    assert!(read("only-torrent") == [7; 70_000]);
    assert!(read("only-folder") == [8; 80_000]);
    assert_eq!(size(here.path()), 1_250_000);
    for peer in [peer, half, other.peer] {
        peer.shutdown().await;
    }
    tracker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn file_that_differs_harms_neither() {
    let tracker = tracker().await;
    let [from, clients, here, there] = [(); 4].map(|()| tempdir().unwrap());
    write_files(from.path());
    write_files(clients.path());
    fs::write(from.path().join("folder/b"), vec![9; 100_000]).unwrap();
    let metainfo = torrent(clients.path(), FORMAT);
    let all = ["a", "b", "c"];
    let (owner, folder) = partial(&tracker, from.path(), there.path(), &all).await;
    let other = ordinary(clients.path(), &metainfo, &ALL).await;
    let peer = member(&tracker, here.path()).await;
    let torrents = session(&peer).await;
    let options = TorrentOptions::new().also(folder.id);
    let mut download = torrents.add(&metainfo, options.clone()).unwrap();
    let second = beside(&peer, folder.id).await;
    torrents
        .add(&metainfo, options.peer(addr(&other.session)))
        .unwrap()
        .detach();
    let refused = second.await;
    let path = here.path().join("folder/b");
    let is_refused = match &refused {
        Err(FolderError::File {
            source: DownloadError::Storage { source, .. },
            ..
        })
        | Err(FolderError::Storage(source)) => {
            *source == StorageError::Mismatch { path: path.clone() }
        }
        Err(FolderError::TargetExists { path: taken, .. }) => *taken == path,
        _ => false,
    };
    assert!(is_refused, "{refused:?}");
    (&mut download).await.unwrap();
    check_files(here.path());
    // The folder comes by itself, under another name.
    let found = peer.download_folder(folder.id).await.unwrap();
    let b = here.path().join(found.name.as_str()).join("b");
    assert!(fs::read(b).unwrap() == [9; 100_000]);
    check_files(here.path());
    for peer in [peer, owner, other.peer] {
        peer.shutdown().await;
    }
    tracker.shutdown().await;
}

/// What one has verified is found after a restart, though it came from the other world.
async fn restarts(kill: bool) {
    let tracker = tracker().await;
    let [from, here, there] = [(); 3].map(|()| tempdir().unwrap());
    write_files(from.path());
    let metainfo = torrent(from.path(), FORMAT);
    let (half, folder) = partial(&tracker, from.path(), there.path(), &["c"]).await;
    let peer = member(&tracker, here.path()).await;
    let torrents = session(&peer).await;
    let options = TorrentOptions::new().also(folder.id);
    let first = torrents.add(&metainfo, options.clone()).unwrap();
    let second = beside(&peer, folder.id).await;
    until(|| (first.progress().verified_bytes >= 950_000).then_some(())).await;
    match kill {
        true => drop((torrents, first, second, peer)),
        false => {
            drop((first, second));
            peer.shutdown().await;
        }
    }
    half.shutdown().await;
    let other = ordinary(from.path(), &metainfo, &ALL).await;
    let peer = member(&tracker, here.path()).await;
    let torrents = session(&peer).await;
    let options = options.peer(addr(&other.session));
    let download = added_when_free(&torrents, &metainfo, options).await;
    let downloaded = download.progress().downloaded;
    assert!(downloaded <= 250_000, "{downloaded}");
    is_shared(&peer, folder.id).await;
    check_files(here.path());
    for peer in [peer, other.peer] {
        peer.shutdown().await;
    }
    tracker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pair_of_trees_goes_on_after_a_shutdown() {
    restarts(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pair_of_trees_goes_on_after_a_kill() {
    restarts(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn folder_goes_on_alone_if_the_torrent_is_cancelled() {
    let tracker = tracker().await;
    let [from, here, there, more] = [(); 4].map(|()| tempdir().unwrap());
    write_files(from.path());
    let metainfo = torrent(from.path(), FORMAT);
    let (half, folder) = partial(&tracker, from.path(), there.path(), &["a", "b"]).await;
    let peer = member(&tracker, here.path()).await;
    let torrents = session(&peer).await;
    let options = TorrentOptions::new().also(folder.id);
    let torrent = torrents.add(&metainfo, options).unwrap();
    let second = beside(&peer, folder.id).await;
    until(|| (second.progress().verified_bytes >= 100_005).then_some(())).await;
    torrent.cancel();
    assert_eq!(torrent.await, Err(DownloadError::Cancelled));
    let owner = member(&tracker, more.path()).await;
    owner
        .share_folder(from.path().join("folder"))
        .await
        .unwrap();
    let owner_addr = owner.local_addr().unwrap().clone();
    second.add_owner(owner_addr).await.unwrap();
    let found = second.await.unwrap();
    let place = here.path().join(found.name.as_str());
    assert!(fs::read(place.join("b")).unwrap() == fs::read(from.path().join("folder/b")).unwrap());
    assert!(place.join("c/d/large").exists());
    for peer in [peer, owner, half] {
        peer.shutdown().await;
    }
    tracker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn folder_that_is_here_already_is_the_torrent() {
    let tracker = tracker().await;
    let [from, here] = [(); 2].map(|()| tempdir().unwrap());
    write_files(from.path());
    let metainfo = torrent(from.path(), FORMAT);
    let peer = member(&tracker, here.path()).await;
    let folder = peer.share_folder(from.path().join("folder")).await.unwrap();
    let torrents = session(&peer).await;
    let options = TorrentOptions::new().also(folder.id);
    let mut download = torrents.add(&metainfo, options).unwrap();
    (&mut download).await.unwrap();
    assert_eq!(download.progress().downloaded, 0);
    check_files(here.path());
    check_files(from.path());
    assert_eq!(peer.folders()[0].id, folder.id);
    peer.shutdown().await;
    tracker.shutdown().await;
}

/// The pieces of version 1 lie over several files. Neither world has all files of one of them.
async fn comes_in_parts(format: MetainfoFormat, max_downloads: usize) {
    let tracker = tracker().await;
    let [from, here, there] = [(); 3].map(|()| tempdir().unwrap());
    write_files(from.path());
    let metainfo = torrent(from.path(), format);
    let (half, folder) = partial(&tracker, from.path(), there.path(), &["a", "b"]).await;
    let mut other = ordinary(from.path(), &metainfo, &["b", "c/d/large"]).await;
    let peer = member(&tracker, here.path()).await;
    peer.set_max_downloads(max_downloads);
    let torrents = session(&peer).await;
    let options = TorrentOptions::new()
        .peer(addr(&other.session))
        .also(folder.id);
    let mut download = torrents.add(&metainfo, options).unwrap();
    let mut second = beside(&peer, folder.id).await;
    (&mut download).await.unwrap();
    (&mut second).await.unwrap();
    check_files(here.path());
    (&mut other.download).await.unwrap();
    check_files(other.dir.path());
    for peer in [peer, half, other.peer] {
        peer.shutdown().await;
    }
    tracker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn piece_over_two_files_comes_from_two_worlds() {
    comes_in_parts(MetainfoFormat::V1, 5).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tree_of_version_2_comes_from_two_worlds() {
    comes_in_parts(MetainfoFormat::V2, 5).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn torrent_and_folder_are_one_of_the_active_downloads() {
    comes_in_parts(FORMAT, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn folder_ends_with_a_torrent_that_is_discarded() {
    let tracker = tracker().await;
    let [from, here, there] = [(); 3].map(|()| tempdir().unwrap());
    write_files(from.path());
    let metainfo = torrent(from.path(), FORMAT);
    let (half, folder) = partial(&tracker, from.path(), there.path(), &["a", "b"]).await;
    let peer = member(&tracker, here.path()).await;
    let torrents = session(&peer).await;
    let options = TorrentOptions::new().also(folder.id);
    let torrent = torrents.add(&metainfo, options).unwrap();
    let second = beside(&peer, folder.id).await;
    until(|| (second.progress().verified_bytes >= 100_005).then_some(())).await;
    torrent.discard();
    assert_eq!(torrent.await, Err(DownloadError::Cancelled));
    second.cancel();
    assert!(second.await.is_err());
    assert!(!here.path().join("folder").exists());
    assert_eq!(size(here.path()), 0);
    for peer in [peer, half] {
        peer.shutdown().await;
    }
    tracker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn torrent_that_fails_leaves_the_folder_to_the_next_one() {
    let tracker = tracker().await;
    let [from, here, there] = [(); 3].map(|()| tempdir().unwrap());
    write_files(from.path());
    let metainfo = torrent(from.path(), FORMAT);
    // Nobody in the fleet has all of it.
    let (half, folder) = partial(&tracker, from.path(), there.path(), &["a"]).await;
    let id = folder.id;
    let other = ordinary(from.path(), &metainfo, &ALL).await;
    let peer = member(&tracker, here.path()).await;
    let torrents = session(&peer).await;
    let taken = here.path().join("folder/b");
    fs::create_dir_all(taken.parent().unwrap()).unwrap();
    fs::write(&taken, "something else").unwrap();
    let options = TorrentOptions::new().peer(addr(&other.session)).also(id);
    let refused = torrents.add(&metainfo, options.clone()).unwrap().await;
    assert!(refused.is_err(), "{refused:?}");
    fs::remove_file(&taken).unwrap();
    torrents.add(&metainfo, options).unwrap().await.unwrap();
    is_shared(&peer, id).await;
    check_files(here.path());
    for peer in [peer, half, other.peer] {
        peer.shutdown().await;
    }
    tracker.shutdown().await;
}
