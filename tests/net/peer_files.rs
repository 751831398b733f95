//! Where the bytes of a content are: under which names, in how many places, and what
//! happens when they are gone.

use std::fs;
use std::path::Path;

use bt_lite::protocol::ContentKey;
use bt_lite::tracker::{ClientConfig, TrackerClient};
use bt_lite::{
    ContentId, DownloadError, DownloadKey, DownloadOptions, FileStorage, MemoryStorage, Peer,
    ShareError, ShareSource, Storage,
};
use bytes::Bytes;
use tempfile::TempDir;

use crate::on_all_networks;
use crate::world::{World, content, named, soon};

const CHUNK: usize = 16 << 10;
/// Contents of one chunk have a way of their own in many places.
const LENGTHS: [usize; 2] = [5 * CHUNK + 3, 999];

/// A storage of either kind, and a way to look into it from outside.
enum Kind {
    Memory(MemoryStorage),
    Files(FileStorage, TempDir),
}

impl Kind {
    fn both() -> [Self; 2] {
        let dir = tempfile::tempdir().unwrap();
        let files = FileStorage::open(dir.path()).unwrap();
        [Self::Memory(MemoryStorage::new()), Self::Files(files, dir)]
    }

    async fn start(&self, world: &World, name: &str) -> Peer {
        match self {
            Self::Memory(storage) => start(world, name, storage.clone()).await,
            Self::Files(storage, _) => start(world, name, storage.clone()).await,
        }
    }

    fn bytes(&self, name: &str) -> Option<Bytes> {
        match self {
            Self::Memory(storage) => storage.bytes(named(name)),
            Self::Files(_, dir) => fs::read(dir.path().join(name)).ok().map(Bytes::from),
        }
    }
}

async fn start(world: &World, name: &str, storage: impl Storage) -> Peer {
    world.builder(name, storage).start().await.unwrap()
}

/// A peer with files in a directory, which shares after a restart.
async fn sharing(world: &World, name: &str, dir: &Path) -> Peer {
    let storage = FileStorage::open(dir).unwrap();
    let builder = world.builder(name, storage).share_stored();
    builder.start().await.unwrap()
}

fn to(name: &str) -> DownloadOptions {
    DownloadOptions::new().name(named(name))
}

/// The content that the tracker has under a name, with the number of its owners.
async fn listed(world: &World, name: &str) -> Option<(ContentId, usize)> {
    let mut config = ClientConfig::default();
    config.seed = Some(3);
    let trackers = vec![world.tracker.local_addr().clone()];
    let transport = world.transport("looker").into();
    let client = TrackerClient::start(transport, trackers, None, config);
    let found = client.need(ContentKey::Name(named(name)), 50).await;
    client.shutdown().await;
    found.ok().map(|found| (found.id, found.owners.len()))
}

/// Waits until the tracker lists this many owners of a name.
async fn until_listed(world: &World, name: &str, owners: Option<usize>) {
    while listed(world, name).await.map(|(_, owners)| owners) != owners {
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
}

/// A file in a new directory.
fn file(name: &str, bytes: &Bytes) -> (TempDir, std::path::PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    fs::write(&path, bytes).unwrap();
    (dir, path)
}

on_all_networks! {
    async fn content_that_is_elsewhere_is_copied_to_the_name_that_is_asked_for(world: World) {
        for (at, kind) in Kind::both().into_iter().enumerate() {
            for length in LENGTHS {
                let bytes = content(length, 1);
                let name = format!("film-{length}");
                let (_dir, path) = file(&name, &bytes);
                let peer = kind.start(&world, &format!("peer-{at}-{length}")).await;
                let id = peer.share(&*path).await.unwrap().id;
                assert_eq!(kind.bytes(&name), None);
                // By its id it gets the name that it has.
                let got = peer.download(id).await.unwrap();
                assert_eq!(got.name, named(&name));
                assert_eq!(kind.bytes(&name), Some(bytes.clone()));
                assert_eq!(peer.download(id).await, Ok(got));
                // Another name, of the user's own, which stays here.
                let own = format!("own-{length}");
                let got = peer.download_with(id, to(&own)).await.unwrap();
                assert_eq!((got.name, got.length), (named(&own), length as u64));
                assert_eq!(kind.bytes(&own), Some(bytes.clone()));
                let owned = peer.download_with(named(&name), to(&own)).await.unwrap();
                assert_eq!(owned.name, named(&own));
                assert_eq!(listed(&world, &own).await, None);
                assert_eq!(listed(&world, &name).await.unwrap().0, id);
                assert_eq!(peer.contents().len(), 1);
                // Something else has the name.
                let other = kind.start(&world, &format!("other-{at}-{length}")).await;
                other.share(ShareSource::bytes(named("x"), content(length, 2))).await.unwrap();
                let x = format!("x-{length}");
                other.download_with(named("x"), to(&x)).await.unwrap();
                let taken = peer.download_with(id, to(&x)).await.unwrap_err();
                assert!(matches!(taken, DownloadError::TargetExists { .. }), "{taken}");
                assert_eq!(kind.bytes(&x), Some(content(length, 2)));
                for peer in [peer, other] {
                    peer.shutdown().await;
                }
            }
        }
    }

    async fn downloaded_content_is_copied_to_a_second_name(world: World) {
        for (at, kind) in Kind::both().into_iter().enumerate() {
            let bytes = content(LENGTHS[0], 4);
            let owner = world.node(&format!("owner-{at}")).await;
            let id = owner.share("film", &bytes).await.id;
            let peer = kind.start(&world, &format!("peer-{at}")).await;
            peer.download(named("film")).await.unwrap();
            owner.peer.shutdown().await;
            // The one that is named by trackers is the second name.
            let copy = peer.download_with(id, to("copy")).await.unwrap();
            assert_eq!(copy.name, named("copy"));
            assert_eq!(kind.bytes("copy"), Some(bytes.clone()));
            assert_eq!(peer.content_stats(&id).unwrap().names, [named("film"), named("copy")]);
            peer.shutdown().await;
        }
    }

    async fn content_with_several_names_is_found_by_each_and_withdrawn_with_all(world: World) {
        let bytes = content(LENGTHS[0], 5);
        let dir = tempfile::tempdir().unwrap();
        let (_kept, path) = file("first", &bytes);
        let (_too, second) = file("second", &bytes);
        let owner = sharing(&world, "owner", dir.path()).await;
        let first = owner.share(&*path).await.unwrap();
        let again = owner.share(&*second).await.unwrap();
        assert_eq!((again.id, again.name), (first.id, named("second")));
        // Nothing changes by doing so again.
        owner.share(&*second).await.unwrap();
        let id = first.id;
        let names = [named("first"), named("second")];
        assert_eq!(owner.content_stats(&id).unwrap().names, names);
        for (at, name) in ["first", "second"].into_iter().enumerate() {
            let leecher = world.node(&format!("leecher-{at}")).await;
            leecher.peer.download(named(name)).await.unwrap();
            assert_eq!(leecher.bytes(name), Some(bytes.clone()));
            leecher.peer.shutdown().await;
        }
        // After a restart as well.
        owner.shutdown().await;
        assert_eq!(listed(&world, "second").await, None);
        let owner = sharing(&world, "again", dir.path()).await;
        assert_eq!(owner.content_stats(&id).unwrap().names, names);
        for name in ["first", "second"] {
            assert_eq!(listed(&world, name).await, Some((id, 1)));
        }
        for number in 0..6 {
            let more = ShareSource::bytes(named(&format!("more-{number}")), bytes.clone());
            owner.share(more).await.unwrap();
        }
        let more = ShareSource::bytes(named("one more"), bytes.clone());
        let max = 8;
        assert_eq!(owner.share(more).await, Err(ShareError::TooManyNames { id, max }));
        assert_eq!(listed(&world, "one more").await, None);
        assert_eq!(listed(&world, "more-5").await, Some((id, 1)));
        // All of them end together, for good.
        assert!(owner.unshare(&id).await);
        for name in ["first", "second", "more-0", "more-5"] {
            assert_eq!(listed(&world, name).await, None);
        }
        assert!(!owner.unshare(&id).await);
        owner.shutdown().await;
        let owner = sharing(&world, "last", dir.path()).await;
        assert_eq!(owner.contents(), []);
    }

    async fn contents_of_one_name_from_two_directories_are_both_shared_again(world: World) {
        let dir = tempfile::tempdir().unwrap();
        let bytes = [content(LENGTHS[0], 6), content(LENGTHS[1], 7)];
        let files = bytes.each_ref().map(|bytes| file("same name", bytes));
        let owner = sharing(&world, "owner", dir.path()).await;
        for (_, path) in &files {
            owner.share(&**path).await.unwrap();
        }
        let shared = owner.contents();
        assert_eq!(shared.len(), 2);
        owner.shutdown().await;
        let owner = sharing(&world, "again", dir.path()).await;
        assert_eq!(owner.contents(), shared);
        let leecher = world.node("leecher").await;
        for (at, bytes) in bytes.iter().enumerate() {
            let own = at.to_string();
            let id = ContentId::of(bytes);
            leecher.peer.download_with(id, to(&own)).await.unwrap();
            assert_eq!(leecher.bytes(&own).as_ref(), Some(bytes));
        }
        // One of them ends without the other.
        assert!(owner.unshare(&shared[0].id).await);
        owner.shutdown().await;
        let owner = sharing(&world, "last", dir.path()).await;
        assert_eq!(owner.contents(), shared[1..]);
    }

    async fn file_whose_folder_is_away_is_reported_and_shared_again(world: World) {
        let (dir, volume) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let bytes = content(LENGTHS[0], 8);
        let (mounted, away) = (volume.path().join("mounted"), volume.path().join("away"));
        fs::create_dir(&mounted).unwrap();
        fs::write(mounted.join("film"), &bytes).unwrap();
        let owner = sharing(&world, "owner", dir.path()).await;
        let shared = owner.share(mounted.join("film")).await.unwrap();
        assert!(owner.lost().is_empty());
        owner.shutdown().await;
        fs::rename(&mounted, &away).unwrap();
        for start in 0..2 {
            let owner = sharing(&world, &format!("without-{start}"), dir.path()).await;
            assert_eq!(owner.contents(), []);
            let lost = owner.lost();
            assert_eq!(lost.len(), 1);
            assert_eq!((lost[0].id, &lost[0].name), (shared.id, &shared.name));
            assert_eq!(listed(&world, "film").await, None);
            owner.shutdown().await;
        }
        fs::rename(&away, &mounted).unwrap();
        let owner = sharing(&world, "with", dir.path()).await;
        assert_eq!(owner.contents(), std::slice::from_ref(&shared));
        let leecher = world.node("leecher").await;
        leecher.peer.download(named("film")).await.unwrap();
        assert_eq!(leecher.bytes("film"), Some(bytes.clone()));
        owner.shutdown().await;
        // It is shared from elsewhere, or given up.
        fs::rename(&mounted, &away).unwrap();
        let owner = sharing(&world, "elsewhere", dir.path()).await;
        owner.share(away.join("film")).await.unwrap();
        assert!(owner.lost().is_empty());
        owner.shutdown().await;
        fs::rename(&away, &mounted).unwrap();
        let owner = sharing(&world, "without-2", dir.path()).await;
        assert_eq!(owner.lost().len(), 1);
        assert!(owner.unshare(&shared.id).await);
        assert!(owner.lost().is_empty());
        assert!(!owner.unshare(&shared.id).await);
        owner.shutdown().await;
        let owner = sharing(&world, "without-3", dir.path()).await;
        assert!(owner.lost().is_empty());
    }

    async fn file_that_was_deleted_is_fetched_again(world: World) {
        for length in LENGTHS {
            let dir = tempfile::tempdir().unwrap();
            let bytes = content(length, 9);
            let owner = world.node(&format!("owner-{length}")).await;
            let id = owner.share("film", &bytes).await.id;
            let storage = FileStorage::open(dir.path()).unwrap();
            let peer = start(&world, &format!("peer-{length}"), storage).await;
            peer.download(named("film")).await.unwrap();
            let path = dir.path().join("film");
            for asked in [DownloadKey::from(id), named("film").into(), id.into()] {
                fs::remove_file(&path).unwrap();
                let mut again = peer.download(asked);
                (&mut again).await.unwrap();
                assert_eq!(fs::read(&path).unwrap(), bytes);
                assert_eq!(again.progress().downloaded, length as u64);
            }
            // A file of the user that was moved, and one that was changed.
            let (other, outside) = file("outside", &bytes);
            let named_too = peer.share(&*outside).await.unwrap();
            assert_eq!(named_too.name, named("outside"));
            fs::remove_file(&path).unwrap();
            let mut copied = peer.download_with(id, to("film"));
            (&mut copied).await.unwrap();
            // The bytes were at hand there.
            assert_eq!(copied.progress().downloaded, 0);
            assert_eq!(fs::read(&path).unwrap(), bytes);
            drop(other);
            for peer in [peer, owner.peer] {
                peer.shutdown().await;
            }
        }
    }

    async fn copy_of_a_file_that_was_altered_unnoticed_is_not_taken_for_the_content(world: World) {
        for (at, kind) in Kind::both().into_iter().enumerate() {
            for length in LENGTHS {
                let bytes = content(length, 16);
                let (_dir, path) = file("film", &bytes);
                let peer = kind.start(&world, &format!("peer-{at}-{length}")).await;
                let id = peer.share(&*path).await.unwrap().id;
                // The length and the times are those of before.
                let modified = fs::metadata(&path).unwrap().modified().unwrap();
                let mut altered = bytes.to_vec();
                altered[length - 1] ^= 1;
                fs::write(&path, &altered).unwrap();
                let file = fs::File::options().write(true).open(&path).unwrap();
                file.set_modified(modified).unwrap();
                let copied = format!("copy-{length}");
                let error = peer.download_with(id, to(&copied)).await.unwrap_err();
                // The tracker may have heard already that this peer has it no more.
                let nobody = matches!(
                    error,
                    DownloadError::NotFound { .. } | DownloadError::NoOwners { .. }
                );
                assert!(nobody, "{error}");
                assert_eq!(kind.bytes(&copied), None);
                assert_eq!(peer.contents(), []);
                let owner = world.node(&format!("owner-{at}-{length}")).await;
                owner.share("film", &bytes).await;
                peer.download_with(id, to(&copied)).await.unwrap();
                assert_eq!(kind.bytes(&copied), Some(bytes));
                for peer in [peer, owner.peer] {
                    peer.shutdown().await;
                }
            }
        }
    }

    async fn file_that_was_deleted_is_no_longer_offered(world: World) {
        for length in LENGTHS {
            let dir = tempfile::tempdir().unwrap();
            let bytes = content(length, 10);
            let owner = world.node(&format!("owner-{length}")).await;
            let id = owner.share("film", &bytes).await.id;
            let storage = FileStorage::open(dir.path()).unwrap();
            let peer = start(&world, &format!("peer-{length}"), storage).await;
            peer.download(named("film")).await.unwrap();
            owner.peer.shutdown().await;
            until_listed(&world, "film", Some(1)).await;
            // Somebody asks for it.
            fs::remove_file(dir.path().join("film")).unwrap();
            let leecher = world.node(&format!("leecher-{length}")).await;
            let download = leecher.peer.download(named("film"));
            while !peer.contents().is_empty() {
                tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            }
            drop(download);
            until_listed(&world, "film", None).await;
            assert_eq!(peer.content_stats(&id), None);
            // The peer itself does.
            let owner = world.node(&format!("once-more-{length}")).await;
            owner.share("film", &bytes).await;
            peer.download(id).await.unwrap();
            owner.peer.shutdown().await;
            fs::remove_file(dir.path().join("film")).unwrap();
            let error = peer.download(id).await.unwrap_err();
            let unknown = matches!(error, DownloadError::NotFound { .. } | DownloadError::NoOwners { .. });
            assert!(unknown, "{error}");
            assert_eq!(peer.contents(), []);
            assert_eq!(listed(&world, "film").await, None);
            for peer in [peer, leecher.peer] {
                peer.shutdown().await;
            }
        }
    }

    async fn content_is_served_from_its_other_place_when_one_is_gone(world: World) {
        for length in LENGTHS {
            let dir = tempfile::tempdir().unwrap();
            let bytes = content(length, 11);
            let ((_one, first), (_two, second)) = (file("a", &bytes), file("b", &bytes));
            let owner = sharing(&world, &format!("owner-{length}"), dir.path()).await;
            let id = owner.share(&*first).await.unwrap().id;
            owner.share(&*second).await.unwrap();
            fs::remove_file(&first).unwrap();
            let leecher = world.node(&format!("leecher-{length}")).await;
            leecher.peer.download(named("b")).await.unwrap();
            assert_eq!(leecher.bytes("b"), Some(bytes.clone()));
            assert_eq!(owner.content_stats(&id).unwrap().names, [named("b")]);
            // The file was moved, and is shared from where it is now.
            let moved = dir.path().join("moved");
            fs::rename(&second, &moved).unwrap();
            let source = ShareSource::file(&moved).named(named("b"));
            owner.share(source).await.unwrap();
            leecher.peer.shutdown().await;
            let leecher = world.node(&format!("next-{length}")).await;
            leecher.peer.download(named("b")).await.unwrap();
            assert_eq!(leecher.bytes("b"), Some(bytes));
            for peer in [owner, leecher.peer] {
                peer.shutdown().await;
            }
        }
    }

    async fn complete_file_is_a_success_although_nobody_has_it(world: World) {
        for (at, kind) in Kind::both().into_iter().enumerate() {
            for length in LENGTHS {
                let bytes = content(length, 12);
                let name = format!("film-{length}");
                let owner = world.node(&format!("owner-{at}-{length}")).await;
                let id = owner.share(&name, &bytes).await.id;
                let peer = kind.start(&world, &format!("peer-{at}-{length}")).await;
                peer.download(named(&name)).await.unwrap();
                let by_id = id.to_string();
                peer.download_with(id, to(&by_id)).await.unwrap();
                peer.shutdown().await;
                owner.peer.shutdown().await;
                let peer = kind.start(&world, &format!("again-{at}-{length}")).await;
                assert_eq!(peer.contents(), []);
                let got = peer.download_with(id, to(&name)).await.unwrap();
                assert_eq!((got.name, got.length), (named(&name), length as u64));
                // From here on it is shared.
                assert_eq!(peer.contents().len(), 1);
                until_listed(&world, &by_id, Some(1)).await;
                peer.shutdown().await;
                let peer = kind.start(&world, &format!("by-id-{at}-{length}")).await;
                assert_eq!(peer.download(id).await.unwrap().name, named(&by_id));
                // A name tells nothing of the bytes.
                let other = kind.start(&world, &format!("by-name-{at}-{length}")).await;
                let key = ContentKey::Name(named(&name));
                assert_eq!(other.download(named(&name)).await, Err(DownloadError::NotFound { key }));
                for peer in [peer, other] {
                    peer.shutdown().await;
                }
            }
        }
    }

    async fn remembered_file_is_a_success_by_name_and_by_id_unless_it_was_changed(world: World) {
        for length in LENGTHS {
            let dir = tempfile::tempdir().unwrap();
            let bytes = content(length, 13);
            let owner = world.node(&format!("owner-{length}")).await;
            let id = owner.share("film", &bytes).await.id;
            let peer = sharing(&world, &format!("peer-{length}"), dir.path()).await;
            peer.download(named("film")).await.unwrap();
            peer.shutdown().await;
            owner.peer.shutdown().await;
            let without = async |name: &str| {
                let storage = FileStorage::open(dir.path()).unwrap();
                start(&world, &format!("{name}-{length}"), storage).await
            };
            for (at, asked) in [named("film").into(), DownloadKey::from(id)].into_iter().enumerate() {
                let peer = without(&format!("without-{at}")).await;
                let got = peer.download(asked).await.unwrap();
                assert_eq!((got.id, got.name), (id, named("film")));
                peer.shutdown().await;
            }
            let peer = without("other-name").await;
            let got = peer.download_with(id, to("other")).await.unwrap();
            assert_eq!(got.name, named("other"));
            assert_eq!(fs::read(dir.path().join("other")).unwrap(), bytes);
            peer.shutdown().await;
            fs::remove_file(dir.path().join("other")).unwrap();
            // Overwritten by hand.
            fs::write(dir.path().join("film"), content(length, 14)).unwrap();
            let peer = without("changed").await;
            for asked in [named("film").into(), DownloadKey::from(id)] {
                let error = peer.download(asked).await.unwrap_err();
                assert!(matches!(error, DownloadError::NotFound { .. }), "{error}");
            }
            assert_eq!(fs::read(dir.path().join("film")).unwrap(), content(length, 14));
            peer.shutdown().await;
        }
    }

    async fn uploads_are_counted_after_the_end_of_a_download_and_of_a_share(world: World) {
        let bytes = content(LENGTHS[0], 15);
        let (_dir, path) = file("film", &bytes);
        let owner = start(&world, "owner", MemoryStorage::new()).await;
        let id = owner.share(&*path).await.unwrap().id;
        assert_eq!(owner.content_stats(&id).unwrap().uploaded, 0);
        let peer = world.node("peer").await;
        let mut download = peer.peer.download(named("film"));
        (&mut download).await.unwrap();
        assert_eq!(download.progress().uploaded, 0);
        let length = bytes.len() as u64;
        assert_eq!(owner.content_stats(&id).unwrap().uploaded, length);
        owner.shutdown().await;
        for round in 1..=3 {
            // Asleep and awake again.
            while peer.peer.stats().awake > 0 {
                tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            }
            let leecher = world.node(&format!("leecher-{round}")).await;
            leecher.peer.download(named("film")).await.unwrap();
            leecher.peer.shutdown().await;
            assert_eq!(download.progress().uploaded, round * length);
            assert_eq!(peer.peer.content_stats(&id).unwrap().uploaded, round * length);
        }
        // A handle that comes later tells the same.
        let mut later = peer.peer.download(id);
        (&mut later).await.unwrap();
        assert_eq!(later.progress().uploaded, 3 * length);
        assert!(peer.peer.unshare(&id).await);
        assert_eq!(peer.peer.content_stats(&id), None);
        assert_eq!(download.progress().uploaded, 3 * length);
    }
}
