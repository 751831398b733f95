//! Where the bytes of a peer lie: removing them, other directories, files that are
//! overwritten, and files that are taken over.

use std::fs;
use std::path::Path;

use bt_lite::peer::{FileFate, IfTaken};
use bt_lite::{
    Content, ContentId, DownloadError, DownloadKey, DownloadOptions, FileStorage, Peer, RateLimits,
    Removal, RemoveError, ShareSource, StorageError,
};
use bytes::Bytes;

use crate::on_all_networks;
use crate::world::storages::{Call, Trouble, Troubled};
use crate::world::{Node, World, content, named, soon};

const CHUNK: usize = 16 << 10;

async fn peer_in(world: &World, name: &str, dir: &Path) -> Peer {
    let storage = FileStorage::open(dir).unwrap();
    let builder = world.builder(name, storage).share_stored();
    builder.start().await.unwrap()
}

/// How many bytes an owner has sent of a content.
fn sent(owner: &Node, id: &ContentId) -> u64 {
    owner.peer.content_stats(id).unwrap().uploaded
}

async fn owner_of(world: &World, bytes: &Bytes) -> (Node, Content) {
    let owner = world.node("owner").await;
    let shared = owner.share("x", bytes).await;
    (owner, shared)
}

on_all_networks! {
    async fn removed_content_is_gone_from_the_disk_the_trackers_and_the_next_start(
        world: World
    ) {
        let dir = tempfile::tempdir().unwrap();
        let bytes = content(9 * CHUNK + 5, 1);
        let (owner, shared) = owner_of(&world, &bytes).await;
        let peer = peer_in(&world, "peer", dir.path()).await;
        peer.download(shared.id).await.unwrap();
        peer.download_with(shared.id, DownloadOptions::new().name(named("y"))).await.unwrap();
        world.listed(&shared, 2).await;
        let paths = peer.paths(&shared.id).await;
        assert_eq!(paths, [dir.path().join("x"), dir.path().join("y")]);
        let removed = peer.remove(&shared.id, Removal::DeleteFile).await.unwrap();
        assert_eq!(removed.id, shared.id);
        assert_eq!(removed.files.len(), 2);
        for file in removed.files {
            assert_eq!(file.fate, FileFate::Deleted, "{}", file.name);
            assert!(!file.path.unwrap().exists());
        }
        world.listed(&shared, 1).await;
        assert_eq!(peer.paths(&shared.id).await, [""; 0].map(std::path::PathBuf::from));
        let again = peer.remove(&shared.id, Removal::DeleteFile).await;
        assert_eq!(again, Err(RemoveError::NotHere { id: shared.id }));
        peer.shutdown().await;
        let peer = peer_in(&world, "peer-again", dir.path()).await;
        assert_eq!(peer.contents(), []);
        assert_eq!(peer.lost(), []);
        // It can be fetched again.
        peer.download(shared.id).await.unwrap();
        assert_eq!(fs::read(dir.path().join("x")).unwrap(), bytes);
        peer.shutdown().await;
        owner.peer.shutdown().await;
    }

    async fn file_that_is_kept_or_lies_elsewhere_or_was_overwritten_stays(world: World) {
        let (dir, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let bytes = content(3 * CHUNK, 2);
        let peer = peer_in(&world, "peer", dir.path()).await;
        for (case, removal) in [(0, Removal::KeepFile), (1, Removal::DeleteFile)] {
            let path = outside.path().join("x");
            fs::write(&path, &bytes).unwrap();
            let shared = peer.share(&path).await.unwrap();
            let removed = peer.remove(&shared.id, removal).await.unwrap();
            let fates = [FileFate::Kept, FileFate::Elsewhere];
            assert_eq!(removed.files[0].fate, fates[case]);
            assert_eq!(fs::read(&path).unwrap(), bytes);
            assert_eq!(peer.contents(), []);
        }
        // What is in memory only.
        let shared = peer.share(ShareSource::bytes("x", bytes.clone())).await.unwrap();
        fs::write(dir.path().join("x"), &bytes).unwrap();
        let removed = peer.remove(&shared.id, Removal::DeleteFile).await.unwrap();
        assert_eq!(removed.files[0].fate, FileFate::Elsewhere);
        // In the storage, and then not the same.
        fs::remove_file(dir.path().join("x")).unwrap();
        let shared = peer.share_reader("x", &bytes[..]).await.unwrap();
        fs::write(dir.path().join("x"), "mine").unwrap();
        let removed = peer.remove(&shared.id, Removal::DeleteFile).await.unwrap();
        let path = dir.path().join("x");
        let changed = StorageError::Changed { path: path.clone() };
        assert_eq!(removed.files[0].fate, FileFate::Failed(changed));
        assert_eq!(fs::read(&path).unwrap(), b"mine");
        for is_found in [false, true] {
            fs::remove_file(&path).unwrap();
            let shared = match is_found {
                true => {
                    fs::write(&path, &bytes).unwrap();
                    peer.share(ShareSource::stored(named("x"))).await.unwrap()
                }
                false => peer.share_reader("x", &bytes[..]).await.unwrap(),
            };
            fs::remove_file(&path).unwrap();
            let removed = peer.remove(&shared.id, Removal::DeleteFile).await.unwrap();
            assert_eq!(removed.files[0].fate, FileFate::Gone);
            fs::write(&path, &bytes).unwrap();
        }
        peer.shutdown().await;
    }

    async fn content_that_is_removed_while_it_is_served_is_fetched_from_others(world: World) {
        let dir = tempfile::tempdir().unwrap();
        let bytes = content(40 * CHUNK, 3);
        let peer = peer_in(&world, "peer", dir.path()).await;
        let shared = peer.share_reader("x", &bytes[..]).await.unwrap();
        // It takes some chunks, and then waits.
        let storage = Troubled::new(Call::Write, 3, Trouble::Hangs);
        let leecher = world.builder("leecher", storage.clone()).start().await.unwrap();
        let download = leecher.download(shared.id);
        let mut events = download.events();
        while download.progress().verified_chunks < 3 {
            futures::StreamExt::next(&mut events).await.unwrap();
        }
        let (removed, read) = tokio::join!(
            peer.remove(&shared.id, Removal::DeleteFile),
            leecher.remove(&shared.id, Removal::DeleteFile)
        );
        assert_eq!(read, Err(RemoveError::Downloading { id: shared.id }));
        assert_eq!(removed.unwrap().files[0].fate, FileFate::Deleted);
        assert!(!dir.path().join("x").exists());
        assert_eq!(peer.lost(), []);
        drop(download);
        leecher.shutdown().await;
        let leecher = world.node("leecher-again").await;
        let download = leecher.peer.download(shared.id);
        let owner = world.node("owner").await;
        owner.share("x", &bytes).await;
        match download.await {
            Ok(_) => {}
            // No tracker knew an owner.
            Err(_) => drop(leecher.peer.download(shared.id).await.unwrap()),
        }
        assert_eq!(leecher.bytes("x").unwrap(), bytes);
        peer.shutdown().await;
    }

    async fn download_goes_to_another_directory_and_is_shared_from_there_after_a_restart(
        world: World
    ) {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().canonicalize().unwrap();
        let bytes = content(5 * CHUNK + 1, 4);
        let (owner, shared) = owner_of(&world, &bytes).await;
        let peer = peer_in(&world, "peer", &root.join("main")).await;
        let other = root.join("other");
        let options = || DownloadOptions::new().directory(&other);
        let got = peer.download_with(DownloadKey::name("x"), options()).await.unwrap();
        assert_eq!(got, shared);
        assert_eq!(fs::read(other.join("x")).unwrap(), bytes);
        assert!(!root.join("main/x").exists());
        assert_eq!(peer.paths(&shared.id).await, [other.join("x")]);
        peer.shutdown().await;
        owner.peer.shutdown().await;

        let peer = peer_in(&world, "peer-again", &root.join("main")).await;
        assert_eq!(peer.contents(), std::slice::from_ref(&shared));
        assert_eq!(peer.paths(&shared.id).await, [other.join("x")]);
        let leecher = world.node("leecher").await;
        leecher.peer.download(shared.id).await.unwrap();
        assert_eq!(leecher.bytes("x").unwrap(), bytes);
        // Nobody has to send it again for one more directory.
        leecher.peer.shutdown().await;
        let sub = DownloadOptions::new().directory("sub");
        peer.download_with(DownloadKey::name("x"), sub).await.unwrap();
        assert_eq!(fs::read(root.join("main/sub/x")).unwrap(), bytes);
        // It is not in the directory of the storage.
        let removed = peer.remove(&shared.id, Removal::DeleteFile).await.unwrap();
        for file in removed.files {
            assert_eq!(file.fate, FileFate::Elsewhere);
            assert_eq!(fs::read(file.path.unwrap()).unwrap(), bytes);
        }
        peer.shutdown().await;
    }

    async fn directory_that_cannot_be_used_is_refused_before_anything_is_fetched(world: World) {
        let dir = tempfile::tempdir().unwrap();
        let (owner, shared) = owner_of(&world, &content(5 * CHUNK, 5)).await;
        let peer = peer_in(&world, "peer", dir.path()).await;
        let file = dir.path().join("file");
        fs::write(&file, "mine").unwrap();
        let refused = peer.download_with(shared.id, DownloadOptions::new().directory(&file)).await;
        let path = file.clone();
        let source = StorageError::NotADirectory { path: file.clone() };
        assert_eq!(refused, Err(DownloadError::Directory { path, source }));
        let refused = peer.download_with(shared.id, DownloadOptions::new().existing("nowhere")).await;
        assert!(matches!(refused, Err(DownloadError::Existing { .. })), "{refused:?}");
        let in_memory = world.node("memory").await;
        let refused = in_memory.peer.download_with(shared.id, DownloadOptions::new().directory("a"));
        let refused = refused.await;
        let Err(DownloadError::Directory { source: StorageError::Unsupported { .. }, .. }) = refused else {
            panic!("{refused:?}");
        };
        assert_eq!(sent(&owner, &shared.id), 0);
        peer.shutdown().await;
    }

    async fn file_is_overwritten_by_a_content_of_any_length(world: World) {
        let dir = tempfile::tempdir().unwrap();
        let owner = world.node("owner").await;
        let peer = peer_in(&world, "peer", dir.path()).await;
        for (seed, length) in [0, 1000, CHUNK, CHUNK + 1, 5 * CHUNK].into_iter().enumerate() {
            let bytes = content(length, 160 + seed as u64);
            let name = format!("x{length}");
            let shared = owner.share(&name, &bytes).await;
            // Once fetched, and once copied from what is here.
            for target in ["fetched", "copied"] {
                let path = dir.path().join(format!("{target}{length}"));
                fs::write(&path, "mine").unwrap();
                let options = DownloadOptions::new().name(format!("{target}{length}"));
                let refused = peer.download_with(shared.id, options.clone()).await;
                assert!(
                    matches!(refused, Err(DownloadError::TargetExists { .. })),
                    "{length}: {refused:?}"
                );
                let options = options.if_taken(IfTaken::Overwrite);
                peer.download_with(shared.id, options).await.unwrap();
                assert_eq!(fs::read(&path).unwrap(), bytes, "{length}");
            }
        }
    }

    async fn relative_directory_stays_within_the_storage(world: World) {
        let root = tempfile::tempdir().unwrap();
        let (_owner, shared) = owner_of(&world, &content(5 * CHUNK, 170)).await;
        let peer = peer_in(&world, "peer", &root.path().join("main")).await;
        let options = DownloadOptions::new().directory("a/../../out");
        let refused = peer.download_with(shared.id, options).await;
        assert!(matches!(refused, Err(DownloadError::Directory { .. })), "{refused:?}");
        assert!(!root.path().join("out").exists());
    }

    async fn file_is_overwritten_only_if_asked_and_only_by_the_whole_content(world: World) {
        let dir = tempfile::tempdir().unwrap();
        let bytes = content(20 * CHUNK, 6);
        let path = dir.path().join("x");
        fs::write(&path, "mine").unwrap();
        let owner = world.node("owner").await;
        let shared = owner.share("x", &bytes).await;
        // It sends some chunks at once, and needs seconds for the rest.
        let slow = RateLimits::default().upload(2 * CHUNK as u64);
        owner.peer.set_rate_limits(slow).unwrap();
        let peer = peer_in(&world, "peer", dir.path()).await;
        let refused = peer.download(DownloadKey::name("x")).await;
        assert!(matches!(refused, Err(DownloadError::TargetExists { .. })), "{refused:?}");
        let options = || DownloadOptions::new().if_taken(IfTaken::Overwrite);
        let download = peer.download_with(DownloadKey::name("x"), options());
        let mut events = download.events();
        while download.progress().verified_chunks < 3 {
            futures::StreamExt::next(&mut events).await.unwrap();
        }
        assert_eq!(fs::read(&path).unwrap(), b"mine");
        drop(download);
        owner.peer.set_rate_limits(RateLimits::default()).unwrap();
        let got = peer.download_with(DownloadKey::name("x"), options()).await.unwrap();
        assert_eq!(got, shared);
        assert_eq!(fs::read(&path).unwrap(), bytes);
        // Another content takes the same name, and the first is lost.
        let next = content(7 * CHUNK, 7);
        let second = owner.share("y", &next).await;
        let over = options().name(named("x"));
        peer.download_with(second.id, over).await.unwrap();
        assert_eq!(fs::read(&path).unwrap(), next);
        peer.shutdown().await;
        let peer = peer_in(&world, "peer-again", dir.path()).await;
        assert_eq!(peer.contents().iter().map(|c| c.id).collect::<Vec<_>>(), [second.id]);
        peer.shutdown().await;
    }

    async fn only_what_a_file_lacks_is_fetched_and_the_file_stays_as_it_is(world: World) {
        let root = tempfile::tempdir().unwrap();
        let bytes = content(30 * CHUNK + 77, 8);
        let (owner, shared) = owner_of(&world, &bytes).await;
        let damaged = {
            let mut damaged = bytes.to_vec();
            for at in [0, 5 * CHUNK + 1, 30 * CHUNK + 3] {
                damaged[at] ^= 1;
            }
            damaged
        };
        let longer = [&bytes[..], b"more"].concat();
        let of_all = bytes.len() as u64;
        let cases = [
            ("whole", bytes.to_vec(), 0),
            ("truncated", bytes[..20 * CHUNK + 9].to_vec(), of_all - 20 * CHUNK as u64),
            ("longer", longer, 0),
            ("damaged", damaged, 2 * CHUNK as u64 + 77),
            ("empty", Vec::new(), of_all),
            ("other", vec![3; bytes.len()], of_all),
        ];
        for (case, existing, fetched) in cases {
            let path = root.path().join(case);
            fs::write(&path, &existing).unwrap();
            let before = sent(&owner, &shared.id);
            let dir = root.path().join(format!("{case}-dir"));
            let peer = peer_in(&world, case, &dir).await;
            let options = DownloadOptions::new().existing(&path);
            let download = peer.download_with(shared.id, options);
            download.await.unwrap();
            assert_eq!(fs::read(dir.join("x")).unwrap(), bytes, "{case}");
            assert_eq!(fs::read(&path).unwrap(), existing, "{case}");
            peer.shutdown().await;
            assert_eq!(sent(&owner, &shared.id) - before, fetched, "{case}");
        }
    }
}
