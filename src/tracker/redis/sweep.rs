//! Looks through a cluster after one of its nodes may have lost its last moments: whoever is
//! listed by a content must be known, or nobody would ever end it.
//!
//! One store forgets the end of its history, so that what a peer owns is never younger there
//! than what lists it. Of two nodes each forgets its own end. Then a content may list somebody
//! whose node has never heard of it. All contents are looked through once for each history of
//! the store, by the tracker that comes first, when nothing of before can arrive any more.
//! Each step can be done twice.

use std::time::Duration;

use redis::Value;
use tokio::time::{Instant, sleep};
use tracing::{debug, info};

use super::link::{Link, Lost};
use super::plan::{FAREWELL, Rules};
use super::schema::{PeerRef, is_of_announcer};
use super::scripts::Call;
use super::values::{bytes, number, parts, text};
use crate::content::ContentId;

/// How often it is looked whether the history is another one.
const LOOK: Duration = Duration::from_secs(1);

/// The longest that a tracker waits beyond [`FAREWELL`], by a lot: one of several is to come
/// before the others.
const SPREAD: Duration = Duration::from_secs(3);

/// How many keys a node looks at in one step, and how many owners of each content are taken in
/// one: each takes a node less than a millisecond.
const KEYS: &str = "500";
const OWNERS: u64 = 200;

/// How many contents are looked at in the same round trips.
const ROUND: usize = 64;

/// Where a scan begins and ends.
const ENDS: &str = "0";

/// Looks through the store whenever that is needed, for ever. The lot is a number below one.
pub(super) async fn keep_sweeping(link: &Link, rules: &Rules, lot: f64) {
    let mut swept = None;
    // Since when the history is another one.
    let mut since: Option<(u64, Instant)> = None;
    loop {
        sleep(LOOK).await;
        let epoch = link.present().epoch;
        if !link.is_of_cluster() || !link.is_whole() || swept == Some(epoch) {
            continue;
        }
        let (of, from) = *since.get_or_insert((epoch, Instant::now()));
        if of != epoch {
            since = None;
            continue;
        }
        if from.elapsed() < FAREWELL + SPREAD.mul_f64(lot) {
            continue;
        }
        match sweep_for(link, rules, epoch).await {
            Ok(()) => (swept, since) = (Some(epoch), None),
            Err(Lost) => debug!("a part of the store was lost while it was looked through"),
        }
    }
}

/// Looks through the store, unless another tracker has done so for this history.
async fn sweep_for(link: &Link, rules: &Rules, epoch: u64) -> Result<(), Lost> {
    let swept = rules.keys.swept();
    let done = Call::command("GET", &swept);
    let mark = format!("{epoch:016x}");
    let by_others = link.run_all(&[done]).await?;
    if by_others.first().and_then(text) == Some(&mark) {
        return Ok(());
    }
    let (mut owners, mut ended) = (0, 0);
    for node in 0..link.node_count() {
        let mut cursor = ENDS.to_owned();
        loop {
            let scan = ["SCAN", &cursor, "MATCH", "*:own", "COUNT", KEYS];
            let page = link.run_all(&[Call::to_node(node, &scan)]).await?;
            let [next, keys] = page.first().map_or(&[][..], parts) else {
                return Err(Lost);
            };
            let ids = parts(keys).iter();
            let ids = ids.filter_map(|key| rules.keys.content_of_owners(text(key)?));
            let ids: Vec<ContentId> = ids.collect();
            for ids in ids.chunks(ROUND) {
                let of_ids = look_at(link, rules, ids).await?;
                owners += of_ids[0];
                ended += of_ids[1];
            }
            cursor = text(next).unwrap_or(ENDS).to_owned();
            if cursor == ENDS {
                break;
            }
        }
    }
    let done = Call::command("SET", &swept).arg(&mark);
    link.run_all(&[done]).await?;
    info!(owners, ended, "the store was looked through");
    Ok(())
}

/// Looks whether all owners of these contents are known. Returns how many there are, and how
/// many were not.
async fn look_at(link: &Link, rules: &Rules, ids: &[ContentId]) -> Result<[u64; 2], Lost> {
    let mut counts = [0; 2];
    let mut left: Vec<(ContentId, String)> = ids.iter().map(|id| (*id, ENDS.into())).collect();
    while !left.is_empty() {
        let scan = |(id, cursor): &(ContentId, String)| {
            let call = Call::command("HSCAN", &rules.keys.content(id, ":own")).arg(cursor);
            call.arg("COUNT").number(OWNERS)
        };
        let calls: Vec<Call> = left.iter().map(scan).collect();
        let pages = link.run_all(&calls).await?;
        let mut listed = Vec::new();
        let mut more = Vec::new();
        for ((id, _), page) in left.iter().zip(&pages) {
            let [next, some] = parts(page) else {
                continue;
            };
            let owners = parts(some).chunks(2).filter_map(owner_of);
            listed.extend(owners.map(|owner| (*id, owner)));
            if let Some(next) = text(next).filter(|next| *next != ENDS) {
                more.push((*id, next.to_owned()));
            }
        }
        let adopt = |(id, peer): &(ContentId, PeerRef)| rules.adopt_call(*peer, id);
        let calls: Vec<Call> = listed.iter().map(adopt).collect();
        let known = link.run_all(&calls).await?;
        let unknown = listed.iter().zip(&known);
        let unknown = unknown.filter(|(_, known)| number(known) == Some(0));
        let ends = unknown.map(|((id, peer), _)| rules.disown_call(*peer, id));
        let ends: Vec<Call> = ends.collect();
        link.run_all(&ends).await?;
        counts[0] += listed.len() as u64;
        counts[1] += ends.len() as u64;
        left = more;
    }
    Ok(counts)
}

/// A peer that a content lists. Those that announce as BitTorrent clients do have no other
/// place, and end by themselves.
fn owner_of(pair: &[Value]) -> Option<PeerRef> {
    let [peer, entry] = pair else {
        return None;
    };
    let is_peer = !is_of_announcer(bytes(entry)?);
    PeerRef::parse(bytes(peer)?).filter(|_| is_peer)
}
