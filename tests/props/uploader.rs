//! The uploader: windows, fairness, and that nothing is lost.

use std::collections::{BTreeMap, VecDeque};

use bt_lite::ChunkIndex;
use bt_lite::content::BlockRange;
use bt_lite::peer::swarm::{LinkId, Uploader};
use proptest::collection::vec;
use proptest::prelude::*;

const WINDOW: u64 = 1000;
const MAX_LEN: u64 = 300;
const MAX_REQUESTS: usize = 4;

#[derive(Debug, Clone)]
enum Op {
    Request(u64, u32),
    Cancel(u64, u32),
    Next,
    Sent(u64),
    Failed(u64),
    Misreported(u64, u64),
    Remove(u64),
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let link = 0u64..4;
    let op = prop_oneof![
        6 => (link.clone(), 0u32..=MAX_LEN as u32).prop_map(|(l, n)| Op::Request(l, n)),
        2 => (link.clone(), 0u32..=MAX_LEN as u32).prop_map(|(l, n)| Op::Cancel(l, n)),
        6 => Just(Op::Next),
        3 => link.clone().prop_map(Op::Sent),
        1 => link.clone().prop_map(Op::Failed),
        1 => (link.clone(), any::<u64>()).prop_map(|(l, n)| Op::Misreported(l, n)),
        1 => link.prop_map(Op::Remove),
    ];
    vec(op, 0..200)
}

#[derive(Default)]
struct Receiver {
    waiting: VecDeque<BlockRange>,
    under_way: VecDeque<u64>,
    sent: u64,
}

impl Receiver {
    fn bytes(&self) -> u64 {
        self.under_way.iter().sum()
    }
}

proptest! {
    #[test]
    fn uploader_after_any_script_agrees_with_queues(ops in ops()) {
        let mut uploader = Uploader::new(WINDOW, MAX_REQUESTS);
        let mut model: BTreeMap<u64, Receiver> = BTreeMap::new();
        let rank = |link: LinkId| (link.0 / 2) as u32;
        for op in ops {
            match op {
                Op::Request(link, len) => {
                    let block = BlockRange { chunk: ChunkIndex(0), offset: 0, len };
                    let receiver = model.entry(link).or_default();
                    let fits = receiver.waiting.len() < MAX_REQUESTS;
                    prop_assert_eq!(uploader.requested(LinkId(link), block), fits);
                    receiver.waiting.extend(fits.then_some(block));
                }
                Op::Cancel(link, len) => {
                    let block = BlockRange { chunk: ChunkIndex(0), offset: 0, len };
                    let receiver = model.entry(link).or_default();
                    let at = receiver.waiting.iter().position(|b| *b == block);
                    prop_assert_eq!(uploader.cancelled(LinkId(link), block), at.is_some());
                    at.and_then(|at| receiver.waiting.remove(at));
                }
                Op::Next => {
                    let total: u64 = model.values().map(Receiver::bytes).sum();
                    let may = |r: &Receiver| {
                        let room = total < WINDOW && r.bytes() < WINDOW / 4;
                        !r.waiting.is_empty() && (r.bytes() == 0 || room)
                    };
                    let key = |(&link, r): (&u64, &Receiver)| {
                        (rank(LinkId(link)), r.sent + r.bytes(), link)
                    };
                    let most = model.iter().filter(|(_, r)| may(r)).min_by_key(|&entry| key(entry));
                    let most = most.map(|(&link, r)| (LinkId(link), r.waiting[0]));
                    prop_assert_eq!(uploader.next_block(rank), most);
                    if let Some((link, block)) = most {
                        let receiver = model.get_mut(&link.0).unwrap();
                        receiver.waiting.pop_front();
                        receiver.under_way.push_back(block.len.into());
                        prop_assert!(receiver.bytes() < WINDOW / 4 + MAX_LEN);
                    }
                }
                Op::Sent(link) => {
                    let receiver = model.entry(link).or_default();
                    if let Some(len) = receiver.under_way.pop_front() {
                        uploader.sent(LinkId(link), len);
                        receiver.sent += len;
                    }
                }
                Op::Failed(link) => {
                    let receiver = model.entry(link).or_default();
                    if let Some(len) = receiver.under_way.pop_front() {
                        uploader.failed(LinkId(link), len);
                    }
                }
                Op::Misreported(link, more) => {
                    let receiver = model.entry(link).or_default();
                    let bytes = receiver.bytes();
                    uploader.sent(LinkId(link), bytes.saturating_add(more));
                    receiver.sent += bytes;
                    receiver.under_way.clear();
                }
                Op::Remove(link) => {
                    uploader.link_removed(LinkId(link));
                    model.remove(&link);
                }
            }
            uploader.check_invariants();
            let total: u64 = model.values().map(Receiver::bytes).sum();
            prop_assert_eq!(uploader.under_way(), total);
            prop_assert!(total < WINDOW + 4 * MAX_LEN);
        }
        // What still waits goes out in order, link by link, as room is made.
        while let Some((link, block)) = uploader.next_block(rank) {
            let receiver = model.get_mut(&link.0).unwrap();
            prop_assert_eq!(receiver.waiting.pop_front(), Some(block));
            uploader.sent(link, receiver.bytes() + u64::from(block.len));
            receiver.under_way.clear();
        }
        prop_assert!(model.values().all(|r| r.waiting.is_empty() || r.bytes() > 0));
    }
}
