//! A folder is a download like any other: it is paused, joined, discarded, limited and
//! listed as one thing.

use std::fs;
use std::time::Duration;

use bt_lite::{
    ContentId, ContentKind, ContentLimits, ContentState, DownloadError, DownloadKey, Folder,
    FolderDownload, FolderError, FolderEvent, FolderEvents, FolderFile, FolderOptions,
    PauseOptions, Peer, Priority,
};
use futures::StreamExt;
use tokio::time::{Instant, sleep};

use crate::world::trees::{Dirs, many, names, on_files, path, tree, write};
use crate::world::{World, content, named, soon};

/// How many files the folder has, and how long each is.
const FILES: usize = 8;
const LEN: usize = 256 << 10;

/// In virtual time.
const MINUTE: Duration = Duration::from_secs(60);

/// What a whole folder needs more than a minute for.
fn slow() -> ContentLimits {
    ContentLimits::default().download(32 << 10)
}

/// A folder of [`FILES`] long files, half of them in `a`, and half in `b`.
fn long_files(dirs: &Dirs) {
    for number in 0..FILES {
        let folder = ["a", "b"][number % 2];
        let bytes = content(LEN, number as u64);
        write(&dirs.folder(), &format!("{folder}/{number}"), bytes);
    }
}

/// A world with an owner of that folder, and a leecher that has nothing.
struct Scene {
    world: World,
    dirs: Dirs,
    folder: Folder,
    leecher: Peer,
    _owner: Peer,
}

impl Scene {
    async fn new() -> Self {
        let (world, dirs) = (World::memory(1).await, Dirs::new());
        long_files(&dirs);
        let owner = world.node("owner").await.peer;
        let folder = owner.share_folder(dirs.folder()).await.unwrap();
        let leecher = on_files(&world, "leecher", dirs.to.path()).await;
        Self {
            world,
            dirs,
            folder,
            leecher,
            _owner: owner,
        }
    }

    fn fetch(&self, options: FolderOptions) -> FolderDownload {
        self.leecher.download_folder_with(self.folder.id, options)
    }

    /// What is in the directory of the leecher.
    fn names(&self) -> Vec<String> {
        names(self.dirs.to.path())
    }

    fn home(&self) -> String {
        format!("{}.folder", self.folder.id)
    }

    fn is_whole(&self) {
        let here = self.dirs.to.path().join("folder");
        assert_eq!(tree(&here), tree(&self.dirs.folder()));
    }
}

async fn until(events: &mut FolderEvents, wanted: impl Fn(&FolderEvent) -> bool) {
    let mut last = None;
    while let Some(event) = soon(events.next()).await {
        if wanted(&event) {
            return;
        }
        last = Some(event);
    }
    panic!("it did not happen: {last:?}");
}

/// Waits until some files are here, and others are not.
async fn in_the_middle(download: &FolderDownload) {
    let some = |event: &FolderEvent| matches!(event, FolderEvent::Progress(p) if p.verified_bytes > p.length / 3);
    until(&mut download.events(), some).await;
}

fn cancelled() -> FolderError {
    DownloadError::Cancelled.into()
}

#[tokio::test(start_paused = true)]
async fn paused_folder_asks_nobody_and_goes_on_with_all_files() {
    let scene = Scene::new().await;
    let mut download = scene.fetch(FolderOptions::new().limits(slow()));
    in_the_middle(&download).await;
    assert!(!download.is_paused());
    let mut events = download.events();
    download.pause(PauseOptions::new());
    until(&mut events, |event| *event == FolderEvent::Paused).await;
    // What was on its way.
    sleep(MINUTE).await;
    assert!(download.is_paused());
    assert_eq!(scene.leecher.stats().active_downloads, 0);
    assert_eq!(scene.leecher.list()[0].state, ContentState::Paused);
    let (before, _) = (download.stats(), sleep(MINUTE).await);
    assert_eq!(scene.leecher.stats().downloaded, before.downloaded);
    assert_eq!(download.stats().verified_bytes, before.verified_bytes);
    assert!(before.verified_bytes < scene.folder.length);
    // Nothing appears meanwhile, and another handle resumes it.
    assert_eq!(scene.names(), [scene.home()]);
    scene.leecher.get_folder(&scene.folder.id).unwrap().resume();
    until(&mut events, |event| *event == FolderEvent::Unpaused).await;
    assert_eq!((&mut download).await.as_ref(), Ok(&scene.folder));
    scene.is_whole();
    assert_eq!(download.stats().verified_bytes, scene.folder.length);
    // Nothing was fetched twice, and nothing was left of the pause.
    assert_eq!(
        scene.leecher.stats().downloaded,
        scene.folder.length + index_len(&scene)
    );
    assert_eq!(scene.names(), ["folder"]);
}

/// How many bytes the index has: they are fetched as well.
fn index_len(scene: &Scene) -> u64 {
    scene._owner.contents()[0].length
}

#[tokio::test(start_paused = true)]
async fn folder_is_paused_with_all_others_and_begins_paused() {
    let scene = Scene::new().await;
    let paused = FolderOptions::new().paused(PauseOptions::new());
    let download = scene.fetch(paused);
    sleep(MINUTE).await;
    assert!(download.is_paused());
    let list = scene.leecher.list();
    assert_eq!((list.len(), list[0].state), (1, ContentState::Paused));
    assert_eq!(list[0].id, Some(scene.folder.id));
    assert_eq!(scene.leecher.stats().downloaded, 0);
    assert_eq!(scene.names(), [""; 0]);
    scene.leecher.resume_all();
    until(&mut download.events(), |event| {
        matches!(event, FolderEvent::Found(_))
    })
    .await;
    scene.leecher.pause_all(PauseOptions::new());
    let mut events = download.events();
    until(&mut events, |event| *event == FolderEvent::Paused).await;
    assert!(scene.leecher.get_folder(&ContentId::of(b"x")).is_none());
    scene.leecher.resume_all();
    download.await.unwrap();
    scene.is_whole();
}

#[tokio::test(start_paused = true)]
async fn paused_folder_is_served_only_if_that_is_wanted() {
    for serve in [true, false] {
        let scene = Scene::new().await;
        let download = scene.fetch(FolderOptions::new().limits(slow()));
        in_the_middle(&download).await;
        download.pause(PauseOptions::new().serve(serve));
        until(&mut download.events(), |event| {
            *event == FolderEvent::Paused
        })
        .await;
        sleep(MINUTE).await;
        let verified = download.stats().verified_bytes;
        // Somebody else finds what is here, or nothing.
        scene._owner.shutdown().await;
        let last = tempfile::tempdir().unwrap();
        let other = on_files(&scene.world, "other", last.path()).await;
        let second = other.download_folder(DownloadKey::name("folder"));
        let mut events = second.events();
        match serve {
            true => {
                let has_all = |event: &FolderEvent| matches!(event, FolderEvent::Progress(p) if p.verified_bytes == verified);
                until(&mut events, has_all).await;
            }
            false => {
                let error = second.await.unwrap_err();
                let is_unknown =
                    matches!(error, FolderError::Download(DownloadError::NotFound { .. }));
                assert!(is_unknown, "{error}");
                assert_eq!(scene.leecher.stats().uploaded, 0);
                // And is found again when it goes on.
                download.resume();
                until(&mut download.events(), |e| {
                    matches!(e, FolderEvent::Progress(_))
                })
                .await;
                sleep(Duration::from_secs(5)).await;
                let third = other.download_folder(DownloadKey::name("folder"));
                until(&mut third.events(), |e| matches!(e, FolderEvent::Found(_))).await;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn folder_has_one_entry_from_the_first_moment_on() {
    let scene = Scene::new().await;
    let download = scene.fetch(FolderOptions::new().limits(slow()));
    in_the_middle(&download).await;
    let list = scene.leecher.list();
    assert_eq!(list.len(), 1, "{list:?}");
    let listed = &list[0];
    assert_eq!(listed.id, Some(scene.folder.id));
    assert_eq!(listed.name, Some(named("folder")));
    assert_eq!(listed.length, Some(scene.folder.length));
    assert_eq!(listed.state, ContentState::Downloading);
    assert_eq!(
        listed.progress.verified_bytes,
        download.stats().verified_bytes
    );
    let ContentKind::Folder { progress, path } = &listed.kind else {
        panic!("{listed:?}");
    };
    assert_eq!((progress.files, path), (FILES, &None));
    // Neither its index nor its files are anything by themselves.
    assert_eq!(scene.leecher.contents(), []);
    assert!(scene.leecher.get(&scene.folder.id).is_none());
    assert!(scene.leecher.paths(&scene.folder.id).await.is_empty());
    download.await.unwrap();
    let list = scene.leecher.list();
    let here = scene.dirs.to.path().join("folder");
    assert_eq!((list.len(), list[0].state), (1, ContentState::Seeding));
    assert_eq!(list[0].progress.verified_bytes, scene.folder.length);
    let ContentKind::Folder { progress, path } = &list[0].kind else {
        panic!("{list:?}");
    };
    assert_eq!((progress.files_done, path.as_ref()), (FILES, Some(&here)));
    assert_eq!(scene.leecher.paths(&scene.folder.id).await, [here]);
    assert!(scene.leecher.get_folder(&scene.folder.id).is_none());
}

#[tokio::test(start_paused = true)]
async fn downloads_of_one_folder_join_and_fetch_what_both_want() {
    let scene = Scene::new().await;
    let first = scene.fetch(FolderOptions::new().path("a").limits(slow()));
    in_the_middle(&first).await;
    // One that wants what is not there fails alone, and so does one that wants it elsewhere.
    let wrong = scene.fetch(FolderOptions::new().path("c")).await;
    assert_eq!(wrong, Err(FolderError::NoSuchPath { path: path("c") }));
    for options in [
        FolderOptions::new().name("other"),
        FolderOptions::new().directory("other"),
    ] {
        let id = scene.folder.id;
        assert_eq!(
            scene.fetch(options).await,
            Err(FolderError::AlreadyHere { id })
        );
    }
    let same = scene.fetch(FolderOptions::new().path("a"));
    let other = FolderOptions::new().path("b/1").priority(Priority::High);
    let other = scene.fetch(other);
    let mut events = other.events();
    until(
        &mut events,
        |event| matches!(event, FolderEvent::Progress(p) if p.files == 5),
    )
    .await;
    assert_eq!(scene.leecher.list().len(), 1);
    assert_eq!(first.priority(), Priority::High);
    // One that leaves takes nothing away from the others.
    same.cancel();
    assert_eq!(same.await, Err(cancelled()));
    drop(first);
    // A pause is one for all.
    other.pause(PauseOptions::new());
    until(&mut events, |event| *event == FolderEvent::Paused).await;
    other.resume();
    let got = other.await.unwrap();
    assert_eq!((got.files, got.length), (5, 5 * LEN as u64));
    assert_eq!(
        scene.leecher.stats().downloaded,
        got.length + index_len(&scene)
    );
    let here = tree(&scene.dirs.to.path().join("folder"));
    assert_eq!(here.len(), 2 + 5);
}

#[tokio::test(start_paused = true)]
async fn download_by_name_joins_one_by_id() {
    let scene = Scene::new().await;
    let by_id = scene.fetch(FolderOptions::new().limits(slow()));
    let by_name = scene.leecher.download_folder(DownloadKey::name("folder"));
    let (by_id, by_name) = futures::join!(by_id, by_name);
    assert_eq!(by_id, Ok(scene.folder.clone()));
    assert_eq!(by_id, by_name);
    assert_eq!(
        scene.leecher.stats().downloaded,
        scene.folder.length + index_len(&scene)
    );
}

#[tokio::test(start_paused = true)]
async fn cancelled_folder_is_kept_and_a_discarded_one_is_gone() {
    let scene = Scene::new().await;
    for way in 0..4 {
        let download = scene.fetch(FolderOptions::new().limits(slow()));
        in_the_middle(&download).await;
        match way {
            0 => download.cancel(),
            1 => {
                // The last one decides.
                let other = scene.leecher.get_folder(&scene.folder.id).unwrap();
                other.discard();
                assert_eq!(other.await, Err(cancelled()));
                download.cancel();
            }
            2 => {
                download.pause(PauseOptions::new());
                until(&mut download.events(), |e| *e == FolderEvent::Paused).await;
                download.discard();
            }
            _ => download.discard(),
        }
        assert_eq!(download.await, Err(cancelled()), "{way}");
        let left = match way {
            0 | 1 => vec![scene.home()],
            _ => Vec::new(),
        };
        assert_eq!(scene.names(), left, "{way}");
        assert_eq!(scene.leecher.list(), []);
        assert_eq!(scene.leecher.stats().contents, 0);
    }
    // What an earlier one has left is discarded as well, also before it is found.
    let download = scene.fetch(FolderOptions::new().limits(slow()));
    in_the_middle(&download).await;
    download.cancel();
    assert_eq!(download.await, Err(cancelled()));
    assert_eq!(scene.names(), [scene.home()]);
    let download = scene.fetch(FolderOptions::new().paused(PauseOptions::new()));
    sleep(Duration::from_secs(1)).await;
    download.discard();
    assert_eq!(download.await, Err(cancelled()));
    assert_eq!(scene.names(), [""; 0]);
    scene
        .fetch(FolderOptions::new().limits(ContentLimits::default()))
        .await
        .unwrap();
    scene.is_whole();
}

#[tokio::test(start_paused = true)]
async fn limit_holds_for_all_files_together() {
    let rate = 128 << 10;
    let scene = Scene::new().await;
    let begun = Instant::now();
    let limits = ContentLimits::default().download(rate);
    scene
        .fetch(FolderOptions::new().limits(limits))
        .await
        .unwrap();
    let least = Duration::from_secs(scene.folder.length / rate - 1);
    assert!(begun.elapsed() > least, "{:?}", begun.elapsed());
    assert_eq!(scene.leecher.content_limits(&scene.folder.id), limits);

    // That of the owner as well, while its files sleep and wake up.
    let limits = ContentLimits::default().upload(rate);
    scene
        ._owner
        .set_content_limits(&scene.folder.id, limits)
        .unwrap();
    let last = tempfile::tempdir().unwrap();
    scene.leecher.shutdown().await;
    let other = on_files(&scene.world, "other", last.path()).await;
    let begun = Instant::now();
    other.download_folder(scene.folder.id).await.unwrap();
    assert!(begun.elapsed() > least, "{:?}", begun.elapsed());
}

/// The files that a stream says are done.
async fn done(mut events: FolderEvents) -> Vec<FolderFile> {
    let mut done = Vec::new();
    loop {
        match soon(events.next()).await.unwrap() {
            FolderEvent::FileDone(file) => done.push(file),
            FolderEvent::Finished(_) => break,
            _ => {}
        }
    }
    assert_eq!(events.next().await, None);
    done
}

#[tokio::test(start_paused = true)]
async fn each_file_of_a_folder_is_told_once_however_late_it_is_read() {
    let scene = Scene::new().await;
    // The same bytes at two places are two files.
    write(&scene.dirs.folder(), "c/again", content(LEN, 0));
    write(&scene.dirs.folder(), "c/empty", "");
    let folder = scene
        ._owner
        .share_folder(scene.dirs.folder())
        .await
        .unwrap();
    let part = |path| FolderOptions::new().path(path).limits(slow());
    let fetch = |path| scene.leecher.download_folder_with(folder.id, part(path));
    fetch("a").await.unwrap();
    let first = fetch("b");
    let unread = first.events();
    assert_eq!(first.files(), []);
    in_the_middle(&first).await;
    let seen = first.files();
    let paths: Vec<&str> = seen.iter().map(|file| file.path.as_str()).collect();
    assert_eq!(paths, ["b/1", "b/3", "b/5", "b/7"]);
    let verified: u64 = seen.iter().map(|file| file.verified_bytes).sum();
    assert_eq!(verified, first.progress().verified_bytes);
    assert!(
        seen.iter()
            .any(|file| !file.done && file.verified_bytes < file.length)
    );
    // One that joins it wants more, and some of that is here.
    let second = fetch("c");
    let joined = second.events();
    let third = fetch("a");
    let (first, second, third) = futures::join!(async { (&mut { first }).await }, second, third);
    assert_eq!(
        (first, second.as_ref()),
        (third.clone(), Ok(&third.unwrap()))
    );
    let again = scene.leecher.get_folder(folder.id);
    assert!(again.is_none());
    for events in [unread, joined] {
        let mut files = done(events).await;
        files.sort_by(|a, b| a.path.cmp(&b.path));
        let paths: Vec<&str> = files.iter().map(|file| file.path.as_str()).collect();
        let all = [
            "a/0", "a/2", "a/4", "a/6", "b/1", "b/3", "b/5", "b/7", "c/again", "c/empty",
        ];
        assert_eq!(paths, all);
        for file in files {
            let was_here = file.path.as_str().starts_with('a') || file.path == path("c/again");
            assert!(file.done && file.verified_bytes == file.length, "{file:?}");
            if !file.path.as_str().ends_with("empty") {
                assert_eq!(file.found, was_here, "{file:?}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn folder_of_a_higher_priority_begins_first_with_all_its_files() {
    let (world, dirs, more) = (World::memory(1).await, Dirs::new(), Dirs::new());
    long_files(&dirs);
    many(&more.folder(), 20);
    let owner = world.node("owner").await.peer;
    let first = owner
        .share_folder_as(dirs.folder(), named("first"))
        .await
        .unwrap();
    let second = owner
        .share_folder_as(more.folder(), named("second"))
        .await
        .unwrap();
    let mut config = bt_lite::PeerConfig::default();
    config.max_downloads = 1;
    let storage = bt_lite::FileStorage::open(dirs.to.path()).unwrap();
    let leecher = world
        .builder("leecher", storage)
        .config(config)
        .start()
        .await
        .unwrap();
    let low = FolderOptions::new().priority(Priority::Low).limits(slow());
    let low = leecher.download_folder_with(first.id, low);
    until(&mut low.events(), |event| {
        matches!(event, FolderEvent::Found(_))
    })
    .await;
    let high = leecher.download_folder_with(second.id, FolderOptions::new());
    high.set_priority(Priority::High);
    high.await.unwrap();
    assert!(low.progress().files_done < 3, "{:?}", low.progress());
    low.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn folder_that_is_not_to_be_shared_is_only_there() {
    let scene = Scene::new().await;
    let got = scene.fetch(FolderOptions::new().seed(false)).await.unwrap();
    assert_eq!(got, scene.folder);
    scene.is_whole();
    assert_eq!(scene.names(), ["folder"]);
    assert_eq!(
        (scene.leecher.list(), scene.leecher.folders()),
        (vec![], vec![])
    );
    assert_eq!(scene.leecher.stats().contents, 0);
    // It is found again where it lies, and shared.
    let downloaded = scene.leecher.stats().downloaded;
    scene
        .fetch(FolderOptions::new().name("folder"))
        .await
        .unwrap();
    assert_eq!(scene.leecher.folders(), std::slice::from_ref(&scene.folder));
    assert_eq!(
        scene.leecher.stats().downloaded,
        downloaded + index_len(&scene)
    );
}

#[tokio::test(start_paused = true)]
async fn folder_goes_to_another_directory_and_is_found_there_again() {
    use crate::world::trees::sharing_again;
    let scene = Scene::new().await;
    scene.leecher.shutdown().await;
    let elsewhere = tempfile::tempdir().unwrap();
    let options = || FolderOptions::new().directory(elsewhere.path());
    let peer = sharing_again(&scene.world, "again", scene.dirs.to.path()).await;
    let slowly = options().limits(slow());
    let download = peer.download_folder_with(scene.folder.id, slowly);
    in_the_middle(&download).await;
    assert_eq!(names(elsewhere.path()), [scene.home()]);
    // It is paused there, over a restart.
    download.pause(PauseOptions::new());
    until(&mut download.events(), |event| {
        *event == FolderEvent::Paused
    })
    .await;
    peer.shutdown().await;
    let peer = sharing_again(&scene.world, "again", scene.dirs.to.path()).await;
    assert_eq!(peer.list()[0].state, ContentState::Paused);
    let download = peer.get_folder(&scene.folder.id).unwrap();
    download.resume();
    download.await.unwrap();
    assert_eq!(names(elsewhere.path()), ["folder"]);
    let here = elsewhere.path().join("folder");
    assert_eq!(tree(&here), tree(&scene.dirs.folder()));
    peer.shutdown().await;
    let peer = sharing_again(&scene.world, "again", scene.dirs.to.path()).await;
    assert_eq!(peer.folders(), std::slice::from_ref(&scene.folder));
    assert_eq!(peer.paths(&scene.folder.id).await, [here]);
    assert!(fs::read_dir(scene.dirs.to.path()).unwrap().count() == 1);
}

#[tokio::test(start_paused = true)]
async fn folder_that_is_here_is_in_no_other_directory() {
    let scene = Scene::new().await;
    let id = scene.folder.id;
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let to = |path: &std::path::Path| FolderOptions::new().directory(path);
    let here = Err(FolderError::AlreadyHere { id });
    let fetched = scene.leecher.download_folder_with(id, to(one.path()));
    assert_eq!(fetched.await.as_ref(), Ok(&scene.folder));
    for (path, outcome) in [
        (one.path(), &Ok(scene.folder.clone())),
        (other.path(), &here),
        (scene.dirs.to.path(), &here),
    ] {
        let again = scene.leecher.download_folder_with(id, to(path)).await;
        assert_eq!(&again, outcome, "{}", path.display());
    }
    // Without one, it is where it is.
    let again = scene.leecher.download_folder(id).await;
    assert_eq!(again.as_ref(), Ok(&scene.folder));
    assert!(names(other.path()).is_empty());
}

#[tokio::test(start_paused = true)]
async fn part_that_is_unshared_while_more_of_it_comes_is_served_no_more() {
    let scene = Scene::new().await;
    let (peer, id) = (&scene.leecher, scene.folder.id);
    let first = names(&scene.dirs.folder()).remove(0);
    let part = FolderOptions::new().path(path(&first));
    peer.download_folder_with(id, part).await.unwrap();
    let more = peer.download_folder_with(id, FolderOptions::new().limits(slow()));
    let begun =
        |event: &FolderEvent| matches!(event, FolderEvent::Progress(p) if p.files_done > FILES / 2);
    until(&mut more.events(), begun).await;
    assert!(peer.unshare(&id).await);
    more.await.unwrap();
    let here = scene.dirs.to.path().join("folder");
    assert_eq!(tree(&here), tree(&scene.dirs.folder()));
    assert_eq!((peer.stats().contents, peer.folders()), (0, Vec::new()));
}
