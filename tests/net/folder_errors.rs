//! What goes wrong with folders: each case ends with its error, and nothing is visible
//! that is not whole.

use std::fs;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use bt_lite::content::{FolderIndexError, FolderPathError, MAX_CONTENT_LEN, UnsafeName};
use bt_lite::{
    Advice, ConfigError, ContentId, DownloadError, DownloadKey, FileStorage, FolderEntry,
    FolderError, FolderEvent, FolderIndex, FolderOptions, ShareError, ShareSource, StorageError,
};
use futures::StreamExt;
use rustix::fs::{CWD, FileType, Mode, mknodat};

use crate::on_all_networks;
use crate::world::trees::{Dirs, many, names, on_files, path, sample, tree, write};
use crate::world::{World, content, named, soon};

fn pipe(path: &std::path::Path) {
    mknodat(CWD, path, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
}

/// An index written without any check: one empty folder at this path.
fn unchecked(path: &str) -> Vec<u8> {
    let mut bytes = b"btl.fldr\0\0\0\x01\0\0\0\x01\x03".to_vec();
    bytes.extend((path.len() as u16).to_be_bytes());
    bytes.extend(path.as_bytes());
    bytes
}

on_all_networks! {
    async fn what_is_no_folder_is_refused_before_anything_is_fetched(world: World) {
        let dirs = Dirs::new();
        let owner = world.node("owner").await;
        for (name, bytes) in [
            ("plain", b"btl.fl, or so".to_vec()),
            ("outside", unchecked("../x")),
            ("absolute", unchecked("/etc/x")),
            ("device", unchecked("a/NUL")),
            ("cut", unchecked("x")[..15].to_vec()),
        ] {
            owner.share(name, &bytes.into()).await;
        }
        let huge = (0..4).map(|number: u8| {
            let id = ContentId::of(&[number]);
            FolderEntry::file(path(&number.to_string()), id, MAX_CONTENT_LEN)
        });
        let huge = FolderIndex::new(huge.collect()).unwrap();
        owner.share("huge", &huge.encode()).await;

        let leecher = on_files(&world, "leecher", dirs.to.path()).await;
        for name in ["plain", "outside", "absolute", "device", "cut", "huge"] {
            let download = leecher.download_folder(DownloadKey::name(name));
            let mut events = download.events();
            let error = download.await.unwrap_err();
            let expected = match (name, &error) {
                ("plain", FolderError::Index(error)) => *error == FolderIndexError::NotAFolder,
                ("huge", FolderError::Storage(StorageError::Full { needed, .. })) => {
                    *needed == 4 * MAX_CONTENT_LEN
                }
                ("cut", FolderError::Index(error)) => {
                    matches!(error, FolderIndexError::Damaged { .. })
                }
                (_, FolderError::Index(error)) => matches!(error, FolderIndexError::Path { .. }),
                _ => false,
            };
            assert!(expected, "{name}: {error}");
            while let Some(event) = events.next().await {
                match event {
                    FolderEvent::Progress(progress) => assert_eq!(progress.verified_bytes, 0),
                    FolderEvent::Failed(failed) => assert_eq!(failed, error),
                    FolderEvent::Found(_) => assert_eq!(name, "huge"),
                    event => panic!("{event:?}"),
                }
            }
            assert_eq!(names(dirs.to.path()), Vec::<String>::new(), "{name}");
        }
        assert_eq!(leecher.contents(), []);
        assert_eq!(leecher.stats().contents, 0);
        // A file is a file, whatever is in it.
        assert_eq!(leecher.download(DownloadKey::name("outside")).await.unwrap().length, 23);
        assert_eq!(names(dirs.to.path()), ["outside"]);
    }

    async fn unknown_folder_and_other_storages_are_told(world: World) {
        let dirs = Dirs::new();
        let node = world.node("memory").await;
        let error = node.peer.download_folder(DownloadKey::name("x")).await.unwrap_err();
        assert_eq!(error, FolderError::Unsupported);
        let leecher = on_files(&world, "leecher", dirs.to.path()).await;
        let error = leecher.download_folder(DownloadKey::name("x")).await.unwrap_err();
        assert!(matches!(error, FolderError::Download(DownloadError::NotFound { .. })), "{error}");
        let error = leecher.download_folder(DownloadKey::name("a/b")).await.unwrap_err();
        assert!(matches!(error, FolderError::Download(DownloadError::Name { .. })), "{error}");
        let options = FolderOptions::new().name(named(".hidden"));
        many(&dirs.folder(), 2);
        let shared = node.peer.share_folder(dirs.folder()).await.unwrap();
        let error = leecher.download_folder_with(shared.id, options).await.unwrap_err();
        assert!(matches!(error, FolderError::Storage(StorageError::UnsafeName { .. })), "{error}");
        let reserved = format!("{}.folder", shared.id);
        let options = FolderOptions::new().name(named(&reserved));
        let error = leecher.download_folder_with(shared.id, options).await.unwrap_err();
        assert!(matches!(error, FolderError::Storage(StorageError::Reserved { .. })), "{error}");
    }

    async fn nothing_that_is_there_is_replaced(world: World) {
        let dirs = Dirs::new();
        many(&dirs.folder(), 5);
        let owner = world.node("owner").await.peer;
        let shared = owner.share_folder(dirs.folder()).await.unwrap();
        let target = dirs.to.path().join("folder");
        let leecher = on_files(&world, "leecher", dirs.to.path()).await;
        let taken = || FolderError::TargetExists {
            name: named("folder"),
            path: target.clone(),
            id: shared.id,
        };
        fs::write(&target, "mine").unwrap();
        assert_eq!(leecher.download_folder(DownloadKey::name("folder")).await, Err(taken()));
        assert_eq!(fs::read(&target).unwrap(), b"mine");
        fs::remove_file(&target).unwrap();

        symlink("nowhere", &target).unwrap();
        assert_eq!(leecher.download_folder(DownloadKey::name("folder")).await, Err(taken()));
        fs::remove_file(&target).unwrap();

        // Another folder, or the same with something of the user's in it.
        many(&target, 5);
        fs::write(target.join("mine"), "").unwrap();
        assert_eq!(leecher.download_folder(DownloadKey::name("folder")).await, Err(taken()));
        assert!(target.join("mine").exists());
        // Nobody asked for that name, so it gets its id as its name.
        let got = leecher.download_folder(shared.id).await.unwrap();
        assert_eq!(got.name, named(&shared.id.to_string()));
        assert_eq!(tree(&dirs.to.path().join(got.name.as_str())), tree(&dirs.folder()));
        leecher.unshare(&shared.id).await;

        // The very same folder is what was asked for.
        fs::remove_file(target.join("mine")).unwrap();
        let got = leecher.download_folder(DownloadKey::name("folder")).await.unwrap();
        assert_eq!(got, shared);
        assert_eq!(names(dirs.to.path()), [shared.id.to_string(), "folder".into()]);
    }

    async fn file_that_no_owner_has_any_more_fails_with_its_path(world: World) {
        let dirs = Dirs::new();
        many(&dirs.folder(), 10);
        let owner = world.node("owner").await.peer;
        let shared = owner.share_folder(dirs.folder()).await.unwrap();
        fs::remove_file(dirs.folder().join("dir-3/file-3")).unwrap();
        let mut config = bt_lite::peer::PeerConfig::default();
        config.swarm.patience = Some(std::time::Duration::from_millis(300));
        let storage = bt_lite::FileStorage::open(dirs.to.path()).unwrap();
        let leecher = world.builder("leecher", storage).config(config).start().await.unwrap();
        let error = leecher.download_folder(shared.id).await.unwrap_err();
        assert!(
            matches!(&error, FolderError::File { path: at, source: DownloadError::GaveUp { .. } }
                if *at == path("dir-3/file-3")),
            "{error}"
        );
        assert!(error.to_string().starts_with("dir-3/file-3: "), "{error}");
        assert_eq!(names(dirs.to.path()), [format!("{}.folder", shared.id)]);
        assert_eq!(leecher.contents(), []);
        // Those of other files that were under way end in a moment.
        while leecher.stats().contents > 0 {
            tokio::task::yield_now().await;
        }
    }

    async fn cancelled_download_leaves_nothing_visible_and_can_be_repeated(world: World) {
        let dirs = Dirs::new();
        many(&dirs.folder(), 30);
        write(&dirs.folder(), "long", content(3 << 20, 5));
        let owner = world.node("owner").await.peer;
        let shared = owner.share_folder(dirs.folder()).await.unwrap();
        let leecher = on_files(&world, "leecher", dirs.to.path()).await;
        for way in 0..3 {
            let mut download = leecher.download_folder(shared.id);
            let mut events = download.events();
            while let Some(event) = events.next().await {
                if matches!(event, FolderEvent::Found(_)) {
                    break;
                }
            }
            match way {
                0 => {
                    download.cancel();
                    assert_eq!((&mut download).await, Err(DownloadError::Cancelled.into()));
                }
                1 => drop(download),
                _ => assert_eq!((&mut download).await.as_ref(), Ok(&shared)),
            }
            if way < 2 {
                let last = events.filter(|event| {
                    std::future::ready(!matches!(event, FolderEvent::Progress(_)))
                });
                let last: Vec<FolderEvent> = last.collect().await;
                assert_eq!(last, [FolderEvent::Failed(DownloadError::Cancelled.into())]);
                assert_eq!(leecher.folders(), []);
            }
        }
        assert_eq!(tree(&dirs.to.path().join("folder")), tree(&dirs.folder()));
        assert_eq!(names(dirs.to.path()), ["folder"]);
    }

    async fn folder_is_fetched_by_one_process_at_a_time(world: World) {
        let dirs = Dirs::new();
        many(&dirs.folder(), 3);
        write(&dirs.folder(), "gone", "x");
        let owner = world.node("owner").await.peer;
        let shared = owner.share_folder(dirs.folder()).await.unwrap();
        fs::remove_file(dirs.folder().join("gone")).unwrap();
        let leecher = on_files(&world, "leecher", dirs.to.path()).await;
        let first = leecher.download_folder(shared.id);
        let mut events = first.events();
        events.next().await;
        // A second one within the same joins.
        let second = leecher.download_folder(shared.id);
        while leecher.list().len() > 1 {
            tokio::task::yield_now().await;
        }
        drop(second);
        // Another process, or another peer.
        let other = on_files(&world, "other", dirs.to.path()).await;
        let error = other.download_folder(shared.id).await.unwrap_err();
        assert!(matches!(error, FolderError::Storage(StorageError::Locked { .. })), "{error}");
    }
}

#[tokio::test]
async fn what_not_every_system_can_have_is_not_shared() {
    let world = World::memory(1).await;
    let owner = world.node("owner").await.peer;
    let dirs = Dirs::new();
    let at = |name: &str| dirs.folder().join(name);
    type Make = Box<dyn Fn(&PathBuf)>;
    let file = || -> Make { Box::new(|path| fs::write(path, "x").unwrap()) };
    let link = |to: &'static str| -> Make { Box::new(move |path| symlink(to, path).unwrap()) };
    let cases: Vec<(PathBuf, Make, &str)> = vec![
        (at("NUL"), file(), "device"),
        (at("a:b"), file(), "special meaning"),
        (at("ends "), file(), "ends with"),
        (
            dirs.folder().join(std::ffi::OsStr::from_bytes(b"\xff")),
            file(),
            "UTF-8",
        ),
        (at("READ me"), file(), "upper and lower case"),
        (at("link"), link("/etc/passwd"), "absolute"),
        (at("link"), link("../other"), "outside"),
        (at("link"), link("loop/x"), "not a folder"),
        (at("pipe"), Box::new(|path| pipe(path)), "a pipe"),
    ];
    for (path, make, why) in cases {
        fs::create_dir_all(dirs.folder()).unwrap();
        write(&dirs.folder(), "read me", "");
        symlink(".", at("loop")).unwrap();
        make(&path);
        let error = owner.share_folder(dirs.folder()).await.unwrap_err();
        assert!(error.to_string().contains(why), "{why}: {error}");
        fs::remove_dir_all(dirs.folder()).unwrap();
    }
    fs::create_dir_all(dirs.folder()).unwrap();
    pipe(&at("pipe"));
    let error = owner.share_folder(dirs.folder()).await.unwrap_err();
    let path = at("pipe");
    let found = "a pipe";
    assert_eq!(error, StorageError::NotAFile { path, found }.into());
    fs::remove_file(at("pipe")).unwrap();
    fs::write(at("aux.c"), "").unwrap();
    let error = owner.share_folder(dirs.folder()).await.unwrap_err();
    let source = FolderPathError::Unsafe {
        element: "aux.c".into(),
        source: UnsafeName::Device,
    };
    let path = at("aux.c");
    assert_eq!(error, FolderError::Name { path, source });
    let error = owner.share_folder(at("missing")).await.unwrap_err();
    assert!(
        matches!(error, FolderError::Storage(StorageError::Io { .. })),
        "{error}"
    );
    // What is no directory at all is known by its path.
    pipe(&at("pipe"));
    for path in ["pipe", "aux.c", "aux.c/x"].map(at) {
        let error = owner.share_folder(&path).await.unwrap_err();
        assert_eq!(error, StorageError::NotADirectory { path }.into());
    }
    assert_eq!(owner.folders(), []);
}

#[tokio::test]
async fn folder_that_the_trackers_refuse_is_not_shared() {
    let world = World::memory(1).await;
    let dirs = Dirs::new();
    many(&dirs.folder(), 10);
    let mut config = bt_lite::peer::PeerConfig::default();
    config.tracker.max_contents = 1;
    let keeps = tempfile::tempdir().unwrap();
    let storage = FileStorage::open(keeps.path()).unwrap();
    let builder = world.builder("owner", storage).config(config);
    let owner = builder.share_stored().start().await.unwrap();
    let other = ShareSource::bytes(named("x"), "x");
    let other = owner.share(other).await.unwrap();
    let error = owner.share_folder(dirs.folder()).await.unwrap_err();
    assert!(
        matches!(error, FolderError::Share(ShareError::Tracker(_))),
        "{error}"
    );
    assert_eq!(owner.folders(), []);
    assert_eq!(owner.stats().contents, 1);
    // Nothing would bring it back.
    let has_home = || {
        names(keeps.path())
            .iter()
            .any(|name| name.ends_with(".folder"))
    };
    while has_home() {
        tokio::task::yield_now().await;
    }
    owner.unshare(&other.id).await;
    owner.share_folder(dirs.folder()).await.unwrap();
    assert_eq!(owner.stats().contents, 11);
}

#[tokio::test]
async fn changed_file_is_not_served_and_the_others_are() {
    let world = World::memory(1).await;
    let dirs = Dirs::new();
    sample(&dirs.folder());
    let owner = world.node("owner").await.peer;
    let shared = owner.share_folder(dirs.folder()).await.unwrap();
    let mut file = fs::File::options()
        .append(true)
        .open(dirs.folder().join("bin/run"))
        .unwrap();
    file.write_all(b"more").unwrap();
    let leecher = on_files(&world, "leecher", dirs.to.path()).await;
    let options = FolderOptions::new().path(path("a"));
    let got = leecher
        .download_folder_with(shared.id, options)
        .await
        .unwrap();
    assert_eq!(got.files, 4);
}

/// Links in the place of what the storage keeps lead nowhere.
#[tokio::test]
async fn link_in_the_place_of_a_home_is_not_followed() {
    let world = World::memory(1).await;
    let (dirs, outside) = (Dirs::new(), tempfile::tempdir().unwrap());
    many(&dirs.folder(), 5);
    let owner = world.node("owner").await.peer;
    let shared = owner.share_folder(dirs.folder()).await.unwrap();
    let home = dirs.to.path().join(format!("{}.folder", shared.id));
    symlink(outside.path(), &home).unwrap();
    let leecher = on_files(&world, "leecher", dirs.to.path()).await;
    let error = leecher.download_folder(shared.id).await.unwrap_err();
    assert!(
        matches!(error, FolderError::Storage(StorageError::NotAFile { .. })),
        "{error}"
    );
    fs::remove_file(&home).unwrap();

    // And in the place of the tree that is built.
    fs::create_dir(&home).unwrap();
    symlink(outside.path(), home.join("tree")).unwrap();
    leecher.download_folder(shared.id).await.unwrap();
    assert_eq!(names(outside.path()), Vec::<String>::new());
    assert_eq!(tree(&dirs.to.path().join("folder")), tree(&dirs.folder()));
}

// Text is taken as it is for other downloads, and what is wrong with it is the outcome.
on_all_networks! {
async fn options_that_are_not_valid_text_are_the_outcome(world: World) {
    let dirs = Dirs::new();
    sample(&dirs.folder());
    let peer = on_files(&world, "peer", dirs.to.path()).await;
    let key = || DownloadKey::id("0".repeat(64));

    let options = FolderOptions::new().path("../etc").name("fine");
    let error = peer.download_folder_with(key(), options).await.unwrap_err();
    assert!(
        matches!(&error, FolderError::Path { path, .. } if path == "../etc"),
        "{error:?}"
    );
    assert_eq!(error.advice(), Advice::AskUser);

    let options = FolderOptions::new().name("a/b");
    let error = peer.download_folder_with(key(), options).await.unwrap_err();
    assert!(
        matches!(&error, FolderError::Download(DownloadError::Name { name, .. }) if name == "a/b"),
        "{error:?}"
    );

    let options = FolderOptions::new().owner("");
    let error = peer.download_folder_with(key(), options).await.unwrap_err();
    assert!(
        matches!(
            &error,
            FolderError::Download(DownloadError::Config(ConfigError::Addr { .. }))
        ),
        "{error:?}"
    );

    let error = peer.share_folder_as(dirs.folder(), "a/b").await.unwrap_err();
    assert!(
        matches!(&error, FolderError::Share(ShareError::Name { name, .. }) if name == "a/b"),
        "{error:?}"
    );
}
}
