//! What the calls of a peer take for a content, and how small values are printed.

use bt_lite::{
    Advice, ContentState, DownloadError, DownloadKey, DownloadOptions, PauseOptions, Priority,
    ReaderError, Removal, RemoveError, ShareError, ShareSource, StartError, Strategy,
};

use crate::on_both_networks;
use crate::world::{World, content, named, soon};

on_both_networks! {
    async fn content_is_named_by_its_id_its_name_or_itself(world: World) {
        let peer = world.node("peer").await.peer;
        let shared = peer.share(ShareSource::bytes("x", "x")).await.unwrap();
        let (id, name) = (shared.id, named("x"));
        let keys = || [
            DownloadKey::from(id),
            DownloadKey::from(&shared),
            DownloadKey::from(&name),
            DownloadKey::id(id.to_string()),
            DownloadKey::name("x"),
        ];
        for key in keys() {
            assert_eq!(peer.content_stats(key.clone()).unwrap().id, id, "{key}");
            assert!(peer.share_stats(key.clone()).await.is_some(), "{key}");
            peer.reader(key.clone()).await.unwrap();
            assert!(peer.paths(key).await.is_empty());
        }
        for key in keys() {
            assert!(peer.unshare(key.clone()).await, "{key}");
            assert!(!peer.unshare(key).await);
            peer.share(ShareSource::bytes("x", "x")).await.unwrap();
        }
        for key in keys() {
            let removed = peer.remove(key, Removal::KeepFile).await.unwrap();
            assert_eq!(removed.id, id);
            peer.share(ShareSource::bytes("x", "x")).await.unwrap();
        }
        peer.set_pinned(&shared, true);
        assert!(peer.is_pinned(id) && peer.is_pinned(&id) && peer.is_pinned(shared.clone()));
        assert_eq!(peer.content_limits(&shared), peer.content_limits(id));
    }

    async fn key_of_nothing_and_name_of_two_are_errors(world: World) {
        let peer = world.node("peer").await.peer;
        for bytes in ["one", "two"] {
            peer.share(ShareSource::bytes("x", bytes)).await.unwrap();
        }
        let keys = [DownloadKey::name("x"), DownloadKey::name("y"), DownloadKey::id("z")];
        for key in keys {
            let text = key.to_string();
            assert!(peer.content_stats(key.clone()).is_none());
            assert!(peer.get(key.clone()).is_none());
            assert!(!peer.unshare(key.clone()).await);
            let unknown = ReaderError::Unknown { key: text.clone() };
            assert_eq!(peer.reader(key.clone()).await.unwrap_err(), unknown);
            let unknown = RemoveError::Unknown { key: text };
            assert_eq!(peer.remove(key, Removal::KeepFile).await, Err(unknown));
        }
        assert_eq!(peer.contents().len(), 2);
    }

    async fn download_tells_its_id_and_name_and_is_got_by_either(world: World) {
        let owner = world.node("owner").await;
        let shared = owner.share("x", &content(100_000, 1)).await;
        let peer = world.node("leecher").await.peer;
        let mut by_name = peer.download(named("x"));
        assert_eq!((by_name.id(), by_name.name()), (None, Some(named("x"))));
        soon(&mut by_name).await.unwrap();
        assert_eq!((by_name.id(), by_name.name()), (Some(shared.id), Some(named("x"))));

        let peer = world.node("another").await.peer;
        let options = DownloadOptions::new().name("mine").paused(PauseOptions::new());
        let paused = peer.download_with(shared.id, options);
        assert_eq!((paused.id(), paused.name()), (Some(shared.id), Some(named("mine"))));
        let keys = [
            DownloadKey::from(shared.id),
            DownloadKey::from(&shared),
            DownloadKey::name("mine"),
        ];
        for key in keys {
            let got = peer.get(key.clone()).unwrap_or_else(|| panic!("{key}"));
            got.resume();
        }
        let content = soon(paused).await.unwrap();
        assert_eq!((content.id, content.name), (shared.id, named("mine")));
    }

    async fn after_a_shutdown_each_call_says_so(world: World) {
        let peer = world.node("peer").await.peer;
        peer.share(ShareSource::bytes("x", "x")).await.unwrap();
        peer.shutdown().await;
        for key in [DownloadKey::name("x"), DownloadKey::name("y")] {
            let removed = peer.remove(key.clone(), Removal::KeepFile).await;
            assert_eq!(removed, Err(RemoveError::ShutDown));
            assert_eq!(peer.reader(key).await.unwrap_err(), ReaderError::ShutDown);
        }
        let shared = peer.share(ShareSource::bytes("z", "z")).await;
        assert_eq!(shared, Err(ShareError::ShutDown));
        let downloaded = peer.download(named("x")).await;
        assert_eq!(downloaded, Err(DownloadError::ShutDown));
        let added = peer.add_tracker(world.tracker.local_addr());
        assert_eq!(added, Err(StartError::ShutDown));
    }
}

#[test]
fn small_values_are_printed_in_words() {
    let state = |position| ContentState::Queued { position }.to_string();
    assert_eq!([state(0), state(3)], ["queued", "queued behind 3"]);
    assert_eq!(format!("{:>8}", ContentState::Paused), "  paused");
    assert_eq!(format!("{:6}|", Priority::High), "high  |");
    assert_eq!(Strategy::RarestFirst.to_string(), "rarest-first");
    assert_eq!(Advice::AskUser.to_string(), "ask the user");
}
