//! What the calls of a peer take for a content, and how small values are printed.

use bt_lite::{
    Advice, ContentState, DownloadKey, PauseOptions, Priority, ReaderError, Removal, RemoveError,
    ShareSource, Strategy,
};

use crate::on_both_networks;
use crate::peer_handles::found;
use crate::world::{World, content, named};

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
        let leecher = world.node("leecher").await;
        let download = leecher.peer.download(named("x"));
        assert_eq!((download.id(), download.content()), (None, None));
        found(&download).await;
        download.pause(PauseOptions::new());
        assert_eq!((download.id(), download.name()), (Some(shared.id), Some(named("x"))));
        let by_id = leecher.peer.download(shared.id);
        assert!(by_id.id().is_none_or(|id| id == shared.id));
        for key in [DownloadKey::name("x"), DownloadKey::from(&shared)] {
            if let Some(got) = leecher.peer.get(key) {
                assert_eq!(got.id(), Some(shared.id));
            }
        }
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
