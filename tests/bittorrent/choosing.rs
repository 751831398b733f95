//! Torrents of which only some files are wanted.

use std::collections::BTreeSet;
use std::fs;
use std::io::SeekFrom;
use std::path::Path;

use bt_lite::bittorrent::wire::{Message, OWN_EXTENSIONS};
use bt_lite::bittorrent::{
    FileChoice, Magnet, Metainfo, MetainfoBuilder, MetainfoFormat, TorrentError,
    TorrentFileProgress, TorrentOptions, TorrentSession,
};
use bt_lite::{
    ChunkIndex, ContentId, ContentLimits, ContentReader, ContentState, Download, DownloadError,
    DownloadEvent, MemoryStorage, Peer, TcpTransport,
};
use futures::{FutureExt, StreamExt};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncSeekExt};

use crate::raw_peer::{RawPeer, handshake};
use crate::sessions::{addr, check_files, peer, session, torrent, write_files};

const PIECE_LEN: u64 = 32 << 10;

/// Numbers of the files in a torrent of version 1.
const FIRST: usize = 0;
const NONE: usize = 1;
const B: usize = 2;
const LARGE: usize = 3;

/// An owner that has all of the files, and somebody who has nothing of them yet.
struct Scene {
    here: TempDir,
    there: TempDir,
    metainfo: Metainfo,
    owner: Peer,
    seeds: TorrentSession,
    fetcher: Peer,
    fetches: TorrentSession,
}

async fn scene(format: MetainfoFormat) -> Scene {
    scene_of(format, peer().await, peer().await).await
}

async fn scene_of(format: MetainfoFormat, owner: Peer, fetcher: Peer) -> Scene {
    let [here, there] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    write_files(here.path());
    let metainfo = torrent(here.path(), format);
    let (seeds, fetches) = (session(&owner).await, session(&fetcher).await);
    let options = TorrentOptions::new().directory(here.path());
    seeds.add(&metainfo, options).unwrap().await.unwrap();
    Scene {
        here,
        there,
        metainfo,
        owner,
        seeds,
        fetcher,
        fetches,
    }
}

impl Scene {
    /// What is fetched goes there, and comes from the owner.
    fn options(&self) -> TorrentOptions {
        let options = TorrentOptions::new().directory(self.there.path());
        options.peer(addr(&self.seeds))
    }

    fn fetch(&self, options: TorrentOptions) -> Download {
        self.fetches.add(&self.metainfo, options).unwrap()
    }

    async fn end(&self) {
        self.owner.shutdown().await;
        self.fetcher.shutdown().await;
    }
}

/// Everything in a directory, hidden things left out.
fn found(root: &Path) -> BTreeSet<String> {
    fn look(root: &Path, folder: &Path, found: &mut BTreeSet<String>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            let text = path.strip_prefix(root).unwrap().to_str().unwrap();
            if name.starts_with('.') {
                continue;
            }
            found.insert(text.to_owned());
            if path.is_dir() {
                look(root, &path, found);
            }
        }
    }
    let mut all = BTreeSet::new();
    look(root, root, &mut all);
    all
}

/// What is kept of files that are not wanted.
fn apart(root: &Path) -> Option<std::path::PathBuf> {
    let mut entries = fs::read_dir(root)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    entries.find(|path| path.to_str().unwrap().ends_with(".bt_lite-apart"))
}

fn id(metainfo: &Metainfo) -> ContentId {
    ContentId::of_torrent_v1(metainfo.info_hash_v1().unwrap().as_bytes())
}

fn assert_same(here: &Path, there: &Path, path: &str) {
    let read = |root: &Path| fs::read(root.join("folder").join(path)).unwrap();
    assert!(read(here) == read(there), "{path}");
}

fn one(listed: &[TorrentFileProgress], number: usize) -> (u64, bool) {
    let file = listed.iter().find(|file| file.number == number).unwrap();
    (file.verified_bytes, file.wanted)
}

#[tokio::test]
async fn chosen_files_alone_are_fetched_and_more_of_them_later() {
    let scene = scene(MetainfoFormat::V1).await;
    let options = scene.options().path("b");
    let mut download = scene.fetches.add(&scene.metainfo, options).unwrap();
    let events = download.events();
    let content = (&mut download).await.unwrap();
    assert_eq!(content.length, scene.metainfo.total_length());
    assert_same(scene.here.path(), scene.there.path(), "b");
    let visible: BTreeSet<_> = ["folder", "folder/b"].map(String::from).into();
    assert_eq!(found(scene.there.path()), visible);
    // From the middle of the first piece to that of the fourth.
    let progress = download.progress();
    assert_eq!(progress.downloaded, 4 * PIECE_LEN);
    assert_eq!(
        (progress.length, progress.chunks),
        (Some(4 * PIECE_LEN), Some(4))
    );
    assert_eq!(
        (progress.verified_bytes, progress.verified_chunks),
        (4 * PIECE_LEN, 4)
    );
    let last = events.collect::<Vec<_>>().await.pop();
    assert!(matches!(last, Some(DownloadEvent::Finished(_))), "{last:?}");
    assert_eq!(scene.fetcher.list()[0].state, ContentState::Seeding);
    assert_eq!(scene.fetcher.contents(), []);
    // It goes on without a handle.
    drop(download);
    let files = scene.fetches.files(&content.id).unwrap();
    let listed = files.list().await;
    assert_eq!(one(&listed, FIRST), (5, false));
    assert_eq!(one(&listed, B), (100_000, true));
    assert_eq!(one(&listed, LARGE), (4 * PIECE_LEN - 100_005, false));
    assert!(files.complete().await);

    // What came with the other one is enough for it.
    files.select(&FileChoice::none().path("a/first")).unwrap();
    assert!(files.complete().await);
    assert_same(scene.here.path(), scene.there.path(), "a/first");
    let progress = scene.fetcher.list()[0].progress.clone();
    assert_eq!(progress.downloaded, 4 * PIECE_LEN);

    // Another call has all wanted.
    let options = TorrentOptions::new().directory(scene.there.path());
    let again = scene.fetches.add(&scene.metainfo, options).unwrap();
    let whole = again.await.unwrap();
    check_files(scene.there.path());
    assert_eq!(scene.fetcher.contents(), [whole]);
    assert_eq!(apart(scene.there.path()), None);
    scene.end().await;
}

async fn some_travel(format: MetainfoFormat) {
    let scene = scene(format).await;
    let options = scene.options().path("a/").path("c/d/large");
    scene
        .fetches
        .add(&scene.metainfo, options)
        .unwrap()
        .await
        .unwrap();
    for path in ["a/first", "a/none", "c/d/large"] {
        assert_same(scene.here.path(), scene.there.path(), path);
    }
    assert!(
        !found(scene.there.path())
            .iter()
            .any(|path| path.contains("/b"))
    );
    scene.end().await;
}

#[tokio::test]
async fn files_of_a_hybrid_torrent_are_chosen_beside_its_padding() {
    some_travel(MetainfoFormat::Hybrid).await;
}

#[tokio::test]
async fn files_of_a_torrent_of_version_2_are_chosen() {
    some_travel(MetainfoFormat::V2).await;
}

#[tokio::test]
async fn what_lies_apart_is_used_after_a_restart() {
    let mut scene = scene(MetainfoFormat::V1).await;
    let options = TorrentOptions::new().directory(scene.there.path()).file(B);
    let from_peer = options.clone().peer(addr(&scene.seeds));
    scene
        .fetches
        .add(&scene.metainfo, from_peer)
        .unwrap()
        .await
        .unwrap();
    scene.fetcher.shutdown().await;
    scene.owner.shutdown().await;
    // Nobody is scene.there who could send anything.
    for first_too in [false, true] {
        scene.fetcher = peer().await;
        scene.fetches = session(&scene.fetcher).await;
        let options = match first_too {
            true => options.clone().file(FIRST),
            false => options.clone(),
        };
        let mut download = scene.fetches.add(&scene.metainfo, options).unwrap();
        (&mut download).await.unwrap();
        assert_eq!(download.progress().downloaded, 0);
        let listed = scene
            .fetches
            .files(&id(&scene.metainfo))
            .unwrap()
            .list()
            .await;
        assert_eq!(one(&listed, LARGE), (4 * PIECE_LEN - 100_005, false));
        scene.fetcher.shutdown().await;
    }
    assert_same(scene.here.path(), scene.there.path(), "a/first");
    assert_same(scene.here.path(), scene.there.path(), "b");
    assert!(!scene.there.path().join("folder/c").exists());
}

/// Its first piece has bytes of the file before, which stays: that piece is not whole any more.
#[tokio::test]
async fn file_that_the_user_has_removed_is_not_taken_to_lie_apart() {
    let mut scene = scene(MetainfoFormat::V1).await;
    let options = TorrentOptions::new()
        .directory(scene.there.path())
        .peer(addr(&scene.seeds));
    let both = options.clone().file(FIRST).file(B);
    scene
        .fetches
        .add(&scene.metainfo, both)
        .unwrap()
        .await
        .unwrap();
    scene.fetcher.shutdown().await;
    fs::remove_file(scene.there.path().join("folder/b")).unwrap();

    scene.fetcher = peer().await;
    scene.fetches = session(&scene.fetcher).await;
    let mut download = scene
        .fetches
        .add(&scene.metainfo, options.file(FIRST))
        .unwrap();
    (&mut download).await.unwrap();
    assert_eq!(download.progress().downloaded, PIECE_LEN);
    let files = scene.fetches.files(&id(&scene.metainfo)).unwrap();
    files.select(&FileChoice::none().file(B)).unwrap();
    assert!(files.complete().await);
    assert_same(scene.here.path(), scene.there.path(), "a/first");
    assert_same(scene.here.path(), scene.there.path(), "b");
    scene.end().await;
}

/// Copies what is scene.there, as a kill at that moment would leave it.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        match path.is_dir() {
            true => copy(&path, &target),
            false => {
                fs::copy(&path, &target).unwrap();
            }
        }
    }
}

#[tokio::test]
async fn kill_in_the_middle_leaves_what_the_next_one_goes_on_with() {
    let killed = tempfile::tempdir().unwrap();
    let mut scene = scene(MetainfoFormat::V1).await;
    let options = TorrentOptions::new().files("2-3".parse().unwrap());
    let slow = ContentLimits::default().download(256 << 10);
    let slowly = options.clone().limits(slow).peer(addr(&scene.seeds));
    let slowly = slowly.directory(scene.there.path());
    let download = scene.fetches.add(&scene.metainfo, slowly).unwrap();
    let mut events = download.events();
    let is_enough = |event: &DownloadEvent| match event {
        DownloadEvent::Progress(progress) => progress.verified_chunks >= 5,
        _ => false,
    };
    while !is_enough(&events.next().await.unwrap()) {}
    copy(scene.there.path(), killed.path());
    drop(download);
    scene.fetcher.shutdown().await;
    scene.fetcher = peer().await;
    scene.fetches = session(&scene.fetcher).await;
    let options = options.directory(killed.path()).peer(addr(&scene.seeds));
    scene
        .fetches
        .add(&scene.metainfo, options)
        .unwrap()
        .await
        .unwrap();
    assert_same(scene.here.path(), killed.path(), "b");
    assert_same(scene.here.path(), killed.path(), "c/d/large");
    assert!(!killed.path().join("folder/a").exists());
    scene.end().await;
}

#[tokio::test]
async fn torrent_of_which_nothing_is_wanted_waits_and_an_empty_file_is_made_at_once() {
    let [here, there] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    write_files(here.path());
    let metainfo = torrent(here.path(), MetainfoFormat::V1);
    let fetcher = peer().await;
    let fetches = session(&fetcher).await;
    let options = TorrentOptions::new().directory(there.path());
    let options = options.files(FileChoice::none());
    let mut download = fetches.add(&metainfo, options).unwrap();
    let files = fetches.files(&id(&metainfo)).unwrap();
    // The list is an answer of the driver, so it has begun by then.
    while files.list().await.len() < 4 || fetcher.list()[0].state == ContentState::Looking {
        tokio::task::yield_now().await;
    }
    assert!((&mut download).now_or_never().is_none());
    assert_eq!(found(there.path()), BTreeSet::new());
    files.select(&FileChoice::none().file(NONE)).unwrap();
    (&mut download).await.unwrap();
    assert_eq!(fs::read(there.path().join("folder/a/none")).unwrap(), b"");
    files.only(&FileChoice::none()).unwrap();
    assert!((&mut download).now_or_never().is_none());
    fetcher.shutdown().await;
}

#[tokio::test]
async fn what_the_torrent_does_not_have_is_a_typed_error() {
    let scene = scene(MetainfoFormat::V1).await;
    let options = TorrentOptions::new().directory(scene.there.path());
    let add = |options| scene.fetches.add(&scene.metainfo, options).map(|_| ());
    let no_file = |file| Err(TorrentError::NoSuchFile { file, files: 4 });
    assert_eq!(add(options.clone().file(4)), no_file(4));
    let many = FileChoice::none().files(0..=usize::MAX);
    assert_eq!(add(options.clone().files(many)), no_file(usize::MAX));
    let path = "a/firs".parse().unwrap();
    let no_path = Err(TorrentError::NoSuchPath { path });
    assert_eq!(add(options.clone().path("a/firs")), no_path);
    let wrong = add(options.clone().path("../b"));
    assert!(matches!(wrong, Err(TorrentError::Path(_))), "{wrong:?}");
    let also = options.clone().also(ContentId::of(b"x")).file(B);
    assert_eq!(add(also), Err(TorrentError::PartIsNoOther));

    let mut magnet = Magnet::of(&scene.metainfo);
    magnet.peers = vec![addr(&scene.seeds).into()];
    magnet.selected = Some(vec![2..=2, 9..=9]);
    let fails = scene.fetches.add_magnet(&magnet, options.clone()).unwrap();
    let failed = fails.await;
    let source = TorrentError::NoSuchFile { file: 9, files: 4 };
    let expected = DownloadError::Torrent {
        id: id(&scene.metainfo),
        source,
    };
    assert_eq!(failed, Err(expected));
    assert_eq!(found(scene.there.path()), BTreeSet::new());

    // Whatever is named twice is one.
    magnet.selected = Some(vec![2..=2, 1..=2, 0..=0, 0..=2]);
    let link = magnet.to_string();
    assert!(link.ends_with("&so=2,1-2,0,0-2"), "{link}");
    let magnet: Magnet = link.parse().unwrap();
    let fetched = scene.fetches.add_magnet(&magnet, options).unwrap();
    fetched.await.unwrap();
    for path in ["a/first", "a/none", "b"] {
        assert_same(scene.here.path(), scene.there.path(), path);
    }
    assert!(!scene.there.path().join("folder/c").exists());
    scene.end().await;
}

#[tokio::test]
async fn whoever_joins_waits_for_its_own_files_as_well() {
    let scene = scene(MetainfoFormat::V1).await;
    let options = TorrentOptions::new().directory(scene.there.path());
    let first = options.clone().file(FIRST).peer(addr(&scene.seeds));
    let first = scene.fetches.add(&scene.metainfo, first).unwrap();
    first.await.unwrap();
    assert!(!scene.there.path().join("folder/b").exists());
    let second = scene.fetches.add(&scene.metainfo, options.file(B)).unwrap();
    second.await.unwrap();
    assert_same(scene.here.path(), scene.there.path(), "b");
    assert_same(scene.here.path(), scene.there.path(), "a/first");
    assert!(!scene.there.path().join("folder/c").exists());
    scene.end().await;
}

#[tokio::test]
async fn file_that_is_not_wanted_any_more_is_not_waited_for() {
    let scene = scene(MetainfoFormat::V1).await;
    let slow = ContentLimits::default().download(128 << 10);
    let options = TorrentOptions::new()
        .directory(scene.there.path())
        .limits(slow);
    let mut download = scene
        .fetches
        .add(&scene.metainfo, options.peer(addr(&scene.seeds)))
        .unwrap();
    let mut events = download.events();
    let has_begun = |event: &DownloadEvent| match event {
        DownloadEvent::Progress(progress) => progress.verified_chunks >= 2,
        _ => false,
    };
    while !has_begun(&events.next().await.unwrap()) {}
    let files = scene.fetches.files(&id(&scene.metainfo)).unwrap();
    files.deselect(&FileChoice::none().path("c")).unwrap();
    download.set_limits(ContentLimits::default()).await.unwrap();
    (&mut download).await.unwrap();
    for path in ["a/first", "a/none", "b"] {
        assert_same(scene.here.path(), scene.there.path(), path);
    }
    assert!(!scene.there.path().join("folder/c/d/large").exists());
    let progress = download.progress();
    assert_eq!(progress.length, Some(4 * PIECE_LEN));
    files.select(&FileChoice::all()).unwrap();
    assert!(files.complete().await);
    check_files(scene.there.path());
    scene.end().await;
}

#[tokio::test]
async fn torrent_of_ten_thousand_files_makes_the_one_that_is_chosen() {
    const FILES: usize = 10_000;
    const LEN: usize = 200;
    const CHOSEN: usize = 7_777;
    let [here, there] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let folder = here.path().join("many");
    fs::create_dir(&folder).unwrap();
    let bytes = |number: usize| vec![number as u8; LEN];
    // Two pieces on each side of it are more than it touches.
    let around = 2 * PIECE_LEN as usize / LEN;
    let around = CHOSEN - around..=CHOSEN + around;
    let mut builder = MetainfoBuilder::folder("many").unwrap();
    for number in 0..FILES {
        let name = format!("{number:05}");
        if around.contains(&number) {
            fs::write(folder.join(&name), bytes(number)).unwrap();
        }
        builder = builder.add(name.parse().unwrap(), LEN as u64);
    }
    let metainfo = builder
        .piece_length(PIECE_LEN as u32)
        .build(|path| Ok(std::io::Cursor::new(bytes(path.as_str().parse().unwrap()))))
        .unwrap();
    let (owner, fetcher) = (peer().await, peer().await);
    let (seeds, fetches) = (session(&owner).await, session(&fetcher).await);
    // What lies there of other files is verified, and shared as well.
    let options = TorrentOptions::new().directory(here.path()).file(CHOSEN);
    seeds.add(&metainfo, options).unwrap().await.unwrap();
    let options = TorrentOptions::new().directory(there.path()).file(CHOSEN);
    let mut download = fetches.add(&metainfo, options.peer(addr(&seeds))).unwrap();
    (&mut download).await.unwrap();
    assert!(download.progress().downloaded <= 2 * PIECE_LEN);
    let made: Vec<_> = fs::read_dir(there.path().join("many")).unwrap().collect();
    assert_eq!(made.len(), 1);
    let read = fs::read(there.path().join("many/07777")).unwrap();
    assert!(read == bytes(CHOSEN));
    owner.shutdown().await;
    fetcher.shutdown().await;
}

#[tokio::test]
async fn file_of_the_user_is_in_nobodys_way_until_its_place_is_wanted() {
    let scene = scene(MetainfoFormat::V1).await;
    let mine = scene.there.path().join("folder/a/first");
    fs::create_dir_all(mine.parent().unwrap()).unwrap();
    fs::write(&mine, "something of mine").unwrap();
    let options = scene.options().file(B);
    scene
        .fetches
        .add(&scene.metainfo, options.clone())
        .unwrap()
        .await
        .unwrap();
    assert_same(scene.here.path(), scene.there.path(), "b");
    let refused = scene
        .fetches
        .add(&scene.metainfo, options.file(FIRST))
        .unwrap()
        .await;
    assert!(
        matches!(refused, Err(DownloadError::TargetExists { .. })),
        "{refused:?}"
    );
    assert_eq!(fs::read(&mine).unwrap(), b"something of mine");
    scene.end().await;
}

#[tokio::test]
async fn file_of_the_user_that_is_as_long_stays_as_it_is() {
    for overwrites in [false, true] {
        let scene = scene(MetainfoFormat::V1).await;
        let mine = scene.there.path().join("folder/a/first");
        fs::create_dir_all(mine.parent().unwrap()).unwrap();
        fs::write(&mine, "abcde").unwrap();
        let options = TorrentOptions::new().directory(scene.there.path()).file(B);
        let options = options.overwrite(overwrites).peer(addr(&scene.seeds));
        scene
            .fetches
            .add(&scene.metainfo, options)
            .unwrap()
            .await
            .unwrap();
        assert_same(scene.here.path(), scene.there.path(), "b");
        assert_eq!(fs::read(&mine).unwrap(), b"abcde");
        scene.owner.shutdown().await;
        scene.fetcher.shutdown().await;
    }
}

/// Reads one byte scene.there.
async fn byte_at(reader: &mut ContentReader, at: u64) -> std::io::Result<u8> {
    reader.seek(SeekFrom::Start(at)).await?;
    reader.read_u8().await
}

#[tokio::test]
async fn what_is_in_no_file_that_is_wanted_cannot_be_read_until_it_is() {
    let scene = scene(MetainfoFormat::V1).await;
    let options = TorrentOptions::new().directory(scene.there.path()).file(B);
    let mut download = scene
        .fetches
        .add(&scene.metainfo, options.peer(addr(&scene.seeds)))
        .unwrap();
    let mut reader = download.reader();
    // The first file is in the first piece, where the wanted one begins.
    byte_at(&mut reader, 0).await.unwrap();
    let last = scene.metainfo.total_length() - 1;
    let refused = byte_at(&mut reader, last).await.unwrap_err();
    let cause = refused.get_ref().and_then(|cause| cause.downcast_ref());
    let id = id(&scene.metainfo);
    let chunk = ChunkIndex((last / PIECE_LEN) as u32);
    assert_eq!(cause, Some(&DownloadError::NotWanted { id, chunk }));
    (&mut download).await.unwrap();
    let files = scene.fetches.files(&id).unwrap();
    files.select(&FileChoice::all()).unwrap();
    byte_at(&mut reader, last).await.unwrap();
    scene.end().await;
    let ended = files.select(&FileChoice::all());
    assert_eq!(ended, Err(TorrentError::Ended));
}

/// One that has a part, and serves it.
async fn partial_seed(
    metainfo: &Metainfo,
    here: &Path,
    there: &Path,
) -> (bt_lite::Peer, TorrentSession) {
    let (owner, fetcher) = (peer().await, peer().await);
    let (seeds, fetches) = (session(&owner).await, session(&fetcher).await);
    let options = TorrentOptions::new().directory(here);
    seeds.add(metainfo, options).unwrap().await.unwrap();
    let options = TorrentOptions::new().directory(there).file(B);
    let options = options.peer(addr(&seeds));
    fetches.add(metainfo, options).unwrap().await.unwrap();
    owner.shutdown().await;
    (fetcher, fetches)
}

#[tokio::test]
async fn partial_seed_serves_what_it_has() {
    let [here, there, third] = [(); 3].map(|()| tempfile::tempdir().unwrap());
    write_files(here.path());
    let metainfo = torrent(here.path(), MetainfoFormat::V1);
    let (part, serves) = partial_seed(&metainfo, here.path(), there.path()).await;
    let fetcher = peer().await;
    let fetches = session(&fetcher).await;
    let options = TorrentOptions::new().directory(third.path()).path("b");
    let options = options.peer(addr(&serves));
    fetches.add(&metainfo, options).unwrap().await.unwrap();
    assert_same(here.path(), third.path(), "b");
    // The neighbours came with it, and are as good.
    let files = fetches.files(&id(&metainfo)).unwrap();
    files.select(&FileChoice::none().file(FIRST)).unwrap();
    assert!(files.complete().await);
    part.shutdown().await;
    fetcher.shutdown().await;
}

#[tokio::test]
async fn partial_seed_wants_nothing_and_says_so_until_it_does() {
    let [here, there] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    write_files(here.path());
    let metainfo = torrent(here.path(), MetainfoFormat::V1);
    let (part, serves) = partial_seed(&metainfo, here.path(), there.path()).await;
    let hash = metainfo.info_hash_v1().unwrap();
    let own = handshake(*hash.as_bytes(), Default::default(), 7);
    let mut other = RawPeer::connect(addr(&serves), own).await;
    other.say_about(None).await;
    let has = |pieces: &[u32]| {
        let mut bits = vec![0_u8; (metainfo.pieces() as usize).div_ceil(8)];
        for piece in pieces {
            bits[*piece as usize / 8] |= 0x80 >> (piece % 8);
        }
        Message::Bitfield(bits.into())
    };
    // It has what that one lacks, and nobody there wants.
    other.say(has(&[2, 20, 21])).await;
    let is_upload_only = |message: &Message| {
        matches!(message, Message::Extended { id: 0, payload }
            if payload.windows(16).any(|part| part == b"11:upload_onlyi1"))
    };
    let heard = other.hear_until(is_upload_only).await;
    assert!(!heard.contains(&Message::Interested), "{heard:?}");
    // An answer to this comes behind whatever else it has to say.
    other.say(Message::Interested).await;
    let heard = other
        .hear_until(|message| *message == Message::Unchoke)
        .await;
    assert!(!heard.contains(&Message::Interested), "{heard:?}");
    let files = serves.files(&id(&metainfo)).unwrap();
    files.select(&FileChoice::all()).unwrap();
    let upload_only = OWN_EXTENSIONS.upload_only.unwrap();
    let (mut is_interested, mut takes_it_back) = (false, false);
    while !is_interested || !takes_it_back {
        match other.hear().await.unwrap() {
            Message::Interested => is_interested = true,
            Message::Extended { id, payload } if id == upload_only => {
                assert_eq!(payload[..], [0]);
                takes_it_back = true;
            }
            _ => {}
        }
    }
    part.shutdown().await;
}

#[tokio::test]
async fn torrent_that_is_not_shared_when_it_is_complete_says_that_it_is() {
    let scene = scene(MetainfoFormat::V1).await;
    let options = scene.options().seed(false);
    let mut download = scene
        .fetches
        .add_magnet(&Magnet::of(&scene.metainfo), options)
        .unwrap();
    let files = download.files().clone();
    assert!(files.complete().await);
    (&mut download).await.unwrap();
    let listed = files.list().await;
    assert!(listed.iter().all(|file| file.verified_bytes == file.length));
    scene.end().await;
}

#[tokio::test]
async fn hybrid_torrent_that_is_asked_for_by_both_hashes_is_one() {
    let scene = scene(MetainfoFormat::Hybrid).await;
    // Nobody has told of a peer yet, so it is not known what is in it.
    let mut link: Magnet = format!(
        "magnet:?xt=urn:btmh:1220{}",
        scene.metainfo.info_hash_v2().unwrap()
    )
    .parse()
    .unwrap();
    link.trackers = Vec::new();
    let options = || TorrentOptions::new().directory(scene.there.path());
    let first = scene.fetches.add_magnet(&link, options()).unwrap();
    let second = options().file(FIRST).peer(addr(&scene.seeds));
    let second = scene.fetches.add(&scene.metainfo, second).unwrap();
    // All is wanted, as the first one wants all.
    let (first, second) = futures::join!(first, second);
    assert_eq!(first.unwrap(), second.unwrap());
    check_files(scene.there.path());
    scene.end().await;
}

#[tokio::test]
async fn call_that_is_refused_changes_nothing() {
    let scene = scene(MetainfoFormat::V1).await;
    let options = || TorrentOptions::new().directory(scene.there.path());
    let mut download = scene
        .fetches
        .add(&scene.metainfo, options().peer(addr(&scene.seeds)))
        .unwrap();
    (&mut download).await.unwrap();
    let other = ContentId::of(b"another");
    let refused = scene
        .fetches
        .add(&scene.metainfo, options().file(FIRST).also(other));
    assert_eq!(refused.map(|_| ()), Err(TorrentError::PartIsNoOther));
    let files = scene.fetches.files(&id(&scene.metainfo)).unwrap();
    files.deselect(&FileChoice::none().file(B)).unwrap();
    scene.end().await;
}

#[tokio::test]
async fn two_magnet_links_to_one_hybrid_are_one_and_what_each_wants_is_fetched() {
    let scene = scene(MetainfoFormat::Hybrid).await;
    let (v1, v2) = (
        scene.metainfo.info_hash_v1().unwrap(),
        scene.metainfo.info_hash_v2().unwrap(),
    );
    let magnet = |hash: String| format!("magnet:?xt=urn:{hash}").parse().unwrap();
    let links: [Magnet; 2] = [format!("btih:{v1}"), format!("btmh:1220{v2}")].map(magnet);
    let wanted = ["a/first", "b"];
    let add = |(link, path): (&Magnet, &str)| {
        let options = scene.options().path(path);
        scene.fetches.add_magnet(link, options).unwrap()
    };
    let downloads: Vec<_> = links.iter().zip(wanted).map(add).collect();
    futures::future::try_join_all(downloads).await.unwrap();
    for path in wanted {
        assert_same(scene.here.path(), scene.there.path(), path);
    }
    assert!(!scene.there.path().join("folder/c").exists());
    scene.end().await;
}

#[tokio::test]
async fn peers_with_one_seed_are_different_clients() {
    let seeded = async || {
        let peer = Peer::builder(TcpTransport::new(), MemoryStorage::new()).seed(7);
        peer.start().await.unwrap()
    };
    let scene = scene_of(MetainfoFormat::V1, seeded().await, seeded().await).await;
    scene.fetch(scene.options()).await.unwrap();
    check_files(scene.there.path());
    scene.end().await;
}

#[tokio::test]
async fn partial_seed_whose_file_was_emptied_ends_when_it_is_asked_for_it() {
    let scene = scene(MetainfoFormat::V1).await;
    let options = scene.options().path("b");
    scene.fetch(options).await.unwrap();
    let files = scene.fetches.files(&id(&scene.metainfo)).unwrap();
    // It may be open, and is empty for whoever reads it.
    fs::File::create(scene.there.path().join("folder/b")).unwrap();
    let (third, dir) = (peer().await, tempfile::tempdir().unwrap());
    let session = session(&third).await;
    let options = TorrentOptions::new().directory(dir.path());
    let options = options.peer(addr(&scene.fetches));
    let _waits = session.add(&scene.metainfo, options).unwrap();
    while !scene.fetcher.list().is_empty() {
        tokio::task::yield_now().await;
    }
    let select = files.select(&FileChoice::none());
    assert_eq!(select, Err(TorrentError::Ended));
    third.shutdown().await;
    scene.end().await;
}
