//! A folder may be fetched by whom it is allowed to, with all of its files.

use bt_lite::access::ContentRules;
use bt_lite::{
    ContentId, DownloadOptions, FileStorage, MemoryNetwork, MemoryStorage, Peer, PeerConfig,
    Storage, Tracker,
};
use std::time::Duration;

use crate::world::identities::{Identified, identity};
use crate::world::trees::{Dirs, many, tree, write};
use crate::world::{content, soon};

async fn peer(
    network: &MemoryNetwork,
    name: &str,
    storage: impl Storage,
    rules: &ContentRules,
) -> Peer {
    let mut config = PeerConfig::default();
    config.swarm.patience = Some(Duration::from_secs(30));
    Peer::builder(Identified::new(network, name), storage)
        .config(config)
        .tracker("memory:tracker")
        .listen(format!("memory:{name}"))
        .access(rules.clone())
        .start()
        .await
        .unwrap()
}

#[tokio::test(start_paused = true)]
async fn files_of_a_folder_are_asked_about_as_the_folder() {
    let network = MemoryNetwork::new(1);
    let tracker = Tracker::builder(Identified::new(&network, "tracker"));
    let tracker = tracker.bind("memory:tracker").await.unwrap();
    let dirs = Dirs::new();
    many(&dirs.folder(), 20);
    let one = content(50_000, 99);
    write(&dirs.folder(), "one", one.clone());
    let one = ContentId::of(&one);
    // All have the same rules, so nobody fetches from whoever may not have it.
    let rules = ContentRules::closed();
    let owner = peer(&network, "owner", MemoryStorage::new(), &rules).await;
    let shared = owner.share_folder(dirs.folder()).await.unwrap();
    rules.set(shared.id, ["owner", "member"].map(identity));

    let storage = FileStorage::open(dirs.to.path()).unwrap();
    let member = peer(&network, "member", storage, &rules).await;
    soon(member.download_folder(shared.id)).await.unwrap();
    assert_eq!(tree(&dirs.to.path().join("folder")), tree(&dirs.folder()));

    // One who lets in everybody is not let in, for the folder nor for a file of it.
    let to = tempfile::tempdir().unwrap();
    let storage = FileStorage::open(to.path()).unwrap();
    let stranger = peer(&network, "stranger", storage, &ContentRules::open()).await;
    soon(stranger.download_folder(shared.id)).await.unwrap_err();
    let from_owner = || DownloadOptions::new().owner("memory:owner");
    let fetched = soon(stranger.download_with(one, from_owner())).await;
    fetched.unwrap_err();
    // A rule for the file itself counts only if it is shared by itself.
    rules.set(one, [identity("stranger")]);
    let fetched = soon(stranger.download_with(one, from_owner())).await;
    fetched.unwrap_err();
    owner.share(dirs.folder().join("one")).await.unwrap();
    soon(stranger.download_with(one, from_owner()))
        .await
        .unwrap();
    tracker.shutdown().await;
}
