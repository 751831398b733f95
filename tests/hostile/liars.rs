//! Owners that lie.

use std::collections::BTreeMap;

use bt_lite::{Addr, Content, ContentId, Download, DownloadEvent, DownloadOptions};
use bytes::Bytes;
use futures::StreamExt;

use crate::alone;
use crate::world::strangers::{Answers, ClaimedManifest, FalseOwners};
use crate::world::{World, content, named};

/// Each block of it is a chunk, so each bad chunk has one sender.
const CHUNK: usize = 16 << 10;
const LEN: usize = 512 * CHUNK;
const LIARS: u64 = 63;

async fn liars(world: &World, bytes: &Bytes) -> (Content, FalseOwners) {
    let shared = Content::new(ContentId::of(bytes), named("x"), bytes.len() as u64);
    let lies = Answers::Lies(ClaimedManifest::of(bytes), bytes.clone(), |_| true);
    let liars = FalseOwners::list(world, LIARS, &shared, lies).await;
    (shared, liars)
}

/// How often each address is banned until so many are, or until the download has ended.
async fn bans(download: &Download, most: u64) -> BTreeMap<Addr, u64> {
    let mut events = download.detailed_events();
    let mut bans = BTreeMap::new();
    while bans.values().sum::<u64>() < most
        && let Some(event) = events.next().await
    {
        match event {
            DownloadEvent::Banned(banned) => {
                *bans.entry(banned.peer.addr.unwrap()).or_default() += 1;
            }
            DownloadEvent::Missed { events } => panic!("{events} are missed"),
            _ => {}
        }
    }
    bans
}

#[test]
fn sixty_three_liars_are_each_banned_after_one_chunk_and_an_honest_owner_is_enough() {
    alone(async {
        let world = World::tcp().await;
        let bytes = content(LEN, 3);
        let (shared, liars) = liars(&world, &bytes).await;
        let leecher = world.node("leecher").await;
        let add = |options: DownloadOptions, addr: &Addr| options.owner(addr);
        let options = liars.addrs.iter().fold(DownloadOptions::new(), add);
        let download = leecher.peer.download_with(shared.id, options);
        let bans = bans(&download, LIARS).await;
        let expected: BTreeMap<_, _> = liars.addrs.iter().map(|addr| (addr.clone(), 1)).collect();
        assert_eq!(bans, expected);
        // What a link has sent before its first chunk was hashed may be hashed with it.
        let bad = leecher.peer.stats().waste.bad;
        assert!(bad <= LIARS * 2 * CHUNK as u64, "{bad}");
        // They are not asked again while the honest owner comes.
        let owner = world.node("owner").await;
        owner.share("x", &bytes).await;
        download.await.unwrap();
        assert_eq!(leecher.bytes("x").unwrap(), bytes);
        assert_eq!(leecher.peer.stats().waste.bad, bad);
    });
}

#[test]
fn honest_owner_among_liars_is_not_banned() {
    alone(async {
        let world = World::tcp().await;
        let bytes = content(LEN, 4);
        let owner = world.node("owner").await;
        owner.share("x", &bytes).await;
        let (shared, liars) = liars(&world, &bytes).await;
        let leecher = world.node("leecher").await;
        let add = |options: DownloadOptions, addr: &Addr| options.owner(addr);
        let options = DownloadOptions::new().owner(owner.addr());
        let options = liars.addrs.iter().fold(options, add);
        let download = leecher.peer.download_with(shared.id, options);
        let bans = bans(&download, u64::MAX).await;
        download.await.unwrap();
        assert_eq!(leecher.bytes("x").unwrap(), bytes);
        assert!(!bans.contains_key(&owner.addr()), "{bans:?}");
        assert!(bans.values().all(|times| *times == 1), "{bans:?}");
        let waste = leecher.peer.stats().waste;
        assert!(waste.bad <= (bans.len() * 2 * CHUNK) as u64, "{waste:?}");
    });
}
