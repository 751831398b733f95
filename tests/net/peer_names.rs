//! The names under which contents are announced and stored.

use std::fs;

use bt_lite::content::UnsafeName;
use bt_lite::protocol::{ContentKey, OwnEntry, OwnState};
use bt_lite::tracker::{ClientConfig, TrackerClient};
use bt_lite::{
    Addr, ContentId, DownloadError, DownloadEvent, DownloadOptions, FileStorage, MemoryStorage,
    Peer, ShareSource, StorageError,
};

use futures::StreamExt;

use crate::on_all_networks;
use crate::world::storages::{Call, Trouble, Troubled};
use crate::world::{Net, World, content, named, seed_of, soon};

const CHUNK: usize = 16 << 10;

/// A client of the tracker that is not a peer of the test.
fn stranger(world: &World, listens: Option<Addr>) -> TrackerClient {
    let mut config = ClientConfig::default();
    config.seed = Some(1);
    let trackers = vec![world.tracker.local_addr().clone()];
    let transport = world.transport("stranger").into();
    TrackerClient::start(transport, trackers, listens, config)
}

/// Checks by which of these names the tracker knows the content, and how many
/// owners it lists.
async fn check_listed(world: &World, id: ContentId, owners: usize, names: &[(&str, bool)]) {
    let client = stranger(world, None);
    let found = client.need(id.into(), 50).await.unwrap();
    assert_eq!(found.owners.len(), owners);
    for &(name, listed) in names {
        let found = client.need(ContentKey::Name(named(name)), 50).await;
        assert_eq!(found.is_ok_and(|found| found.id == id), listed, "{name}");
    }
    client.shutdown().await;
}

fn own_name(name: &str) -> DownloadOptions {
    DownloadOptions::new().name(named(name))
}

/// Has a stranger announce a content under a name before any other peer.
async fn list_first(world: &World, id: ContentId, name: &str) -> TrackerClient {
    let at = match &world.net {
        Net::Memory(_) => world.at("stranger"),
        _ => world.nowhere(),
    };
    let client = stranger(world, Some(at));
    let name = name.parse().unwrap();
    let (length, state) = (1, OwnState::Complete);
    let entry = OwnEntry::new(id, name, length, state);
    client.own(entry).await.unwrap();
    client
}

/// All files of a directory except those that are reserved for the storage.
fn files(dir: &std::path::Path) -> Vec<String> {
    let names = fs::read_dir(dir).unwrap().map(|entry| {
        let name = entry.unwrap().file_name();
        name.into_string().unwrap()
    });
    let mut names: Vec<_> = names.filter(|name| !name.ends_with(".catalogue")).collect();
    names.sort();
    names
}

on_all_networks! {
    async fn local_name_stays_local(world: World) {
        let dir = tempfile::tempdir().unwrap();
        let bytes = content(10 * CHUNK, 1);
        let id = ContentId::of(&bytes);
        // It sends some chunks, and then waits.
        let storage = Troubled::new(Call::Read, 1 + 5, Trouble::Hangs);
        storage.inner.insert(named("public"), bytes.clone()).unwrap();
        let owner = world.builder("owner", storage.clone()).start().await.unwrap();
        let content = owner.share(named("public")).await.unwrap();
        let names = [("public", true), ("private", false), (&*id.to_string(), false)];

        let started = async |name: &str| {
            let storage = FileStorage::open(dir.path()).unwrap();
            let builder = world.builder(name, storage).share_stored();
            builder.start().await.unwrap()
        };
        let leecher = started("leecher").await;
        let download = leecher.download_with(named("public"), own_name("private"));
        world.listed(&content, 2).await;
        // As a partial owner, ...
        check_listed(&world, id, 2, &names).await;
        owner.shutdown().await;
        // ... the only one, ...
        check_listed(&world, id, 1, &names).await;
        let owner = world.node("owner-again").await;
        owner.share("public", &bytes).await;
        let got = download.await.unwrap();
        assert_eq!(got.name, named("private"));
        assert_eq!(leecher.contents(), std::slice::from_ref(&got));
        // ... as a complete owner, ...
        owner.peer.shutdown().await;
        check_listed(&world, id, 1, &names).await;
        leecher.shutdown().await;
        let leecher = started("leecher-again").await;
        assert_eq!(leecher.contents(), [got]);
        // ... after a restart, ...
        check_listed(&world, id, 1, &names).await;
        let last = world.node("last").await;
        last.peer.download(named("public")).await.unwrap();
        assert_eq!(last.bytes("public").unwrap(), bytes);
        let key = ContentKey::Name(named("private"));
        assert_eq!(last.peer.download(named("private")).await, Err(DownloadError::NotFound { key }));
        // ... and when it no longer shares the content.
        assert!(leecher.unshare(&id).await);
        check_listed(&world, id, 1, &names).await;
        assert_eq!(fs::read(dir.path().join("private")).unwrap(), bytes);
    }

    async fn local_names_do_not_use_up_the_names_of_a_content(world: World) {
        let bytes = content(2 * CHUNK, 2);
        let first = world.node("first").await;
        let id = first.share("public", &bytes).await.id;
        // More than the names that a tracker accepts for one content.
        for number in 0..20 {
            let peer = world.node(&format!("peer-{number}")).await.peer;
            let options = own_name(&format!("private-{number}"));
            peer.download_with(id, options).await.unwrap();
            drop(peer);
        }
        let honest = world.node("honest").await;
        honest.share("another public", &bytes).await;
        let last = world.node("last").await;
        last.peer.download(named("another public")).await.unwrap();
        assert_eq!(last.bytes("another public").unwrap(), bytes);
    }

    async fn content_without_a_name_is_announced_under_its_id(world: World) {
        let bytes = content(2 * CHUNK, 3);
        let id = ContentId::of(&bytes);
        let owner = Peer::builder(world.transport("owner"), MemoryStorage::new());
        let owner = owner.listen(world.at("owner")).seed(seed_of("owner"));
        let owner = owner.start().await.unwrap();
        // It has no tracker.
        owner.share(ShareSource::bytes(named("unheard"), bytes.clone())).await.unwrap();
        let leecher = world.node("leecher").await;
        let options = own_name("private").owner(owner.local_addr().unwrap().clone());
        leecher.peer.download_with(id, options).await.unwrap();
        assert_eq!(leecher.bytes("private").unwrap(), bytes);
        let id_name = id.to_string();
        check_listed(&world, id, 1, &[("private", false), (&id_name, true)]).await;
    }

    async fn unsafe_name_of_a_stranger_is_not_used(world: World) {
        let longest = format!(".{}", "x".repeat(254));
        for (number, bad) in [
            ".bash_profile",
            "a\u{202e}gpj.exe",
            "a\u{200b}b",
            "C:evil",
            "a:b",
            "what?",
            "nul",
            "Com\u{b9}.tar.gz",
            "trailing.",
            "trailing ",
            " leading",
            &longest,
            "0000000000000000000000000000000000000000000000000000000000000000",
            "0000000000000000000000000000000000000000000000000000000000000000.part",
            "0000000000000000000000000000000000000000000000000000000000000000.Journal",
            "0000000000000000000000000000000000000000000000000000000000000000.manifest",
            "0000000000000000000000000000000000000000000000000000000000000000.Catalogue",
        ].into_iter().enumerate() {
            let bytes = content(3 * CHUNK + number, 4);
            let id = ContentId::of(&bytes);
            let attacker = list_first(&world, id, bad).await;
            let owner = world.node(&format!("owner-{number}")).await;
            owner.share("honest", &bytes).await;
            let dir = tempfile::tempdir().unwrap();
            let storage = FileStorage::open(dir.path()).unwrap();
            let builder = world.builder(&format!("leecher-{number}"), storage);
            let leecher = builder.share_stored().start().await.unwrap();
            let got = leecher.download(id).await.unwrap();
            assert_eq!(got.name, named(&id.to_string()), "{bad:?}");
            assert_eq!(files(dir.path()), [id.to_string()], "{bad:?}");
            assert_eq!(fs::read(dir.path().join(id.to_string())).unwrap(), bytes);
            // From here on it is like any other content, also after a restart.
            assert_eq!(leecher.download(id).await.unwrap(), got);
            leecher.shutdown().await;
            let storage = FileStorage::open(dir.path()).unwrap();
            let builder = world.builder(&format!("again-{number}"), storage);
            let leecher = builder.share_stored().start().await.unwrap();
            assert_eq!(leecher.contents(), [got]);
            for peer in [leecher, owner.peer] {
                peer.shutdown().await;
            }
            attacker.shutdown().await;
        }
    }

    async fn name_that_is_taken_does_not_stop_a_download_by_id(world: World) {
        let bytes = content(3 * CHUNK, 8);
        let id = ContentId::of(&bytes);
        let attacker = list_first(&world, id, "mine").await;
        let owner = world.node("owner").await;
        owner.share("honest", &bytes).await;
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("mine"), "mine").unwrap();
        let storage = FileStorage::open(dir.path()).unwrap();
        let leecher = world.builder("leecher", storage).start().await.unwrap();
        let download = leecher.download(id);
        let events = download.events();
        let got = download.await.unwrap();
        let named_by_id = named(&id.to_string());
        assert_eq!(got.name, named_by_id);
        assert_eq!(files(dir.path()), {
            let mut both = [id.to_string(), "mine".into()];
            both.sort();
            both
        });
        assert_eq!(fs::read(dir.path().join("mine")).unwrap(), b"mine");
        assert_eq!(fs::read(dir.path().join(id.to_string())).unwrap(), bytes);
        let events: Vec<_> = events.collect().await;
        let mut found = events.iter().filter_map(|event| match event {
            DownloadEvent::Found(content) => Some(&content.name),
            _ => None,
        });
        assert_eq!(found.next_back(), Some(&named_by_id));
        // The next peer finds it there.
        leecher.shutdown().await;
        let storage = FileStorage::open(dir.path()).unwrap();
        let leecher = world.builder("again", storage).start().await.unwrap();
        let mut again = leecher.download(id);
        assert_eq!((&mut again).await.unwrap(), got);
        assert_eq!(again.progress().downloaded, 0);
        attacker.shutdown().await;
    }

    async fn unsafe_name_that_the_user_asks_for_is_refused(world: World) {
        let bytes = content(3 * CHUNK, 5);
        let owner = world.node("owner").await;
        let id = owner.share(".hidden", &bytes).await.id;
        let dir = tempfile::tempdir().unwrap();
        let storage = FileStorage::open(dir.path()).unwrap();
        let leecher = world.builder("leecher", storage).start().await.unwrap();
        let refused = |name: &str, reason| {
            let name = named(name);
            let source = StorageError::UnsafeName { name, reason };
            Err(DownloadError::Storage { id, chunk: None, source })
        };
        let device = || own_name("nul");
        let mut by_name = leecher.download(named(".hidden"));
        assert_eq!((&mut by_name).await, refused(".hidden", UnsafeName::Hidden));
        let mut local = leecher.download_with(id, device());
        assert_eq!((&mut local).await, refused("nul", UnsafeName::Device));
        for download in [by_name, local] {
            assert_eq!(download.progress().downloaded, 0);
            assert_eq!(download.content(), None);
        }
        assert!(files(dir.path()).is_empty());
        // It works with another name, and with a storage that accepts this one.
        leecher.download_with(named(".hidden"), own_name("seen")).await.unwrap();
        assert_eq!(fs::read(dir.path().join("seen")).unwrap(), bytes);
        // Also when the content is complete here under another name.
        let again = leecher.download(named(".hidden")).await;
        assert_eq!(again, refused(".hidden", UnsafeName::Hidden));
        assert_eq!(leecher.download(id).await.unwrap().name, named("seen"));
        let map = world.node("map").await;
        map.peer.download(named(".hidden")).await.unwrap();
        assert_eq!(map.bytes(".hidden").unwrap(), bytes);
    }
}

on_all_networks! {
    async fn file_of_any_name_is_shared(world: World) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(".dotfile");
        let bytes = content(3 * CHUNK, 6);
        fs::write(&path, &bytes).unwrap();
        let storage = FileStorage::open(dir.path().join("storage")).unwrap();
        let owner = world.builder("owner", storage).start().await.unwrap();
        let shared = owner.share(&*path).await.unwrap();
        assert_eq!(shared.name, named(".dotfile"));
        let leecher = world.node("leecher").await;
        leecher.peer.download(named(".dotfile")).await.unwrap();
        assert_eq!(leecher.bytes(".dotfile").unwrap(), bytes);
    }

    async fn longest_name_is_downloaded_interrupted_and_shared_again(world: World) {
        let name = "é".repeat(127) + "x";
        let bytes = content(5 * CHUNK, 7);
        let owner = world.node("owner").await;
        let id = owner.share(&name, &bytes).await.id;
        let dir = tempfile::tempdir().unwrap();
        let start = async |peer: &str| {
            let storage = FileStorage::open(dir.path()).unwrap();
            let builder = world.builder(peer, storage).share_stored();
            builder.start().await.unwrap()
        };
        let leecher = start("leecher").await;
        let got = leecher.download(id).await.unwrap();
        assert_eq!(got.name, named(&name));
        assert_eq!(fs::read(dir.path().join(&name)).unwrap(), bytes);
        leecher.shutdown().await;
        assert_eq!(start("again").await.contents(), [got]);
    }
}
