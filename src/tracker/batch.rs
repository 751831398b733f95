//! Requests that are answered together.
//!
//! With many peers a request mostly waits for memory, for one line after the other. So
//! what the requests of a batch will read is read before the first of them is answered:
//! in steps, each of which reads one thing for every request, and nothing that depends on
//! what the same step reads. The processor then waits for many lines at once. What was read
//! ahead decides nothing.
//!
//! Requests are answered one by one, in their order. Of NEEDs by id that follow each other
//! none changes what another one is answered: they extend leases, are counted, and draw owners.
//! So these are answered shard by shard, and each shard is locked once for all of them. A
//! batch has the outcome of its requests one after the other.

use std::hint::black_box;
use std::ops::Range;
use std::time::Instant;

use bytes::Bytes;

use super::registry::{Aim, Asker, Permits, ReplyWriter, Viewpoint};
use super::request_handler::RequestHandler;
use crate::content::ContentId;
use crate::protocol::{Addr, ContentKey, Refusal, Token, TrackerReply, TrackerRequest};

/// For how many requests is read ahead. So many that the memory is busy, and so few that
/// what is read still fits into the nearer caches of one core. A position in it takes a
/// byte.
const GROUP: usize = 1 << u8::BITS;

/// One request of a batch.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// Where it came from.
    pub source: &'a Addr,
    /// Where it reached the tracker, if that is known.
    pub local: Option<&'a Addr>,
    /// What is asked.
    pub request: &'a TrackerRequest,
}

/// The replies to a batch, as heads of frames. It can be used again for the next batch,
/// and is then not allocated again.
#[derive(Debug, Default)]
pub struct Replies {
    bytes: Vec<u8>,
    /// Where each reply is, and whether it is a refusal of the whole request. Together they
    /// are all bytes.
    each: Vec<(Range<usize>, Result<(), Refusal>)>,
    /// What is known of requests that are being answered.
    aims: Vec<Aim>,
    askers: Vec<Result<Asker, Refusal>>,
}

impl Replies {
    /// No replies yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The replies in the order of the requests. Each comes with the refusal of the whole
    /// request, if it is one.
    pub fn iter(&self) -> impl Iterator<Item = (Result<(), &Refusal>, &[u8])> {
        let each = self.each.iter();
        each.map(|(range, outcome)| (outcome.as_ref().copied(), &self.bytes[range.clone()]))
    }

    /// The same, each reply to be completed.
    pub(super) fn each_mut(&mut self) -> impl Iterator<Item = (Result<(), &Refusal>, &mut [u8])> {
        let mut order: Vec<usize> = (0..self.each.len()).collect();
        order.sort_unstable_by_key(|&at| self.each[at].0.start);
        let mut replies: Vec<&mut [u8]> = Vec::new();
        replies.resize_with(order.len(), Default::default);
        let mut rest = &mut *self.bytes;
        for at in order {
            (replies[at], rest) = rest.split_at_mut(self.each[at].0.len());
        }
        let outcomes = self.each.iter();
        outcomes
            .map(|(_, outcome)| outcome.as_ref().copied())
            .zip(replies)
    }

    /// The replies, all in one allocation.
    pub(super) fn into_each(self) -> Vec<Bytes> {
        let bytes = Bytes::from(self.bytes);
        let each = self.each.into_iter();
        each.map(|(range, _)| bytes.slice(range)).collect()
    }

    /// One more reply, which is written into this buffer.
    #[cfg(feature = "redis")]
    pub(super) fn push(&mut self, outcome: Result<(), Refusal>, reply: &[u8]) {
        let from = self.bytes.len();
        self.bytes.extend_from_slice(reply);
        self.each.push((from..self.bytes.len(), outcome));
    }

    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.each.clear();
    }
}

/// A NEED by id.
#[derive(Clone, Copy)]
struct NeedById<'a> {
    token: &'a Token,
    id: &'a ContentId,
    max_owners: u16,
}

impl<'a> NeedById<'a> {
    fn of(asked: &Asked<'a>) -> Option<Self> {
        match asked.request {
            TrackerRequest::Need {
                token,
                key: ContentKey::Id(id),
                max_owners,
            } => Some(Self {
                token,
                id,
                max_owners: *max_owners,
            }),
            _ => None,
        }
    }
}

impl RequestHandler {
    /// Answers requests that came together, in their order. Everything is permitted.
    pub(super) fn handle_batch(&self, now: Instant, batch: &[Asked<'_>], replies: &mut Replies) {
        replies.clear();
        for group in batch.chunks(GROUP) {
            self.read_ahead(group);
            let both_need = |one: &Asked<'_>, other: &Asked<'_>| {
                NeedById::of(one).is_some() && NeedById::of(other).is_some()
            };
            for run in group.chunk_by(both_need) {
                match run {
                    [asked] => self.answer_one(now, asked, replies),
                    needs => self.answer_needs(now, needs, replies),
                }
            }
        }
    }

    fn answer_one(&self, now: Instant, asked: &Asked<'_>, replies: &mut Replies) {
        let begin = replies.bytes.len();
        let (from, bytes) = ((asked.source, asked.local), &mut replies.bytes);
        let outcome = self.handle(now, from, asked.request, Permits::All, bytes);
        replies.each.push((begin..bytes.len(), outcome));
    }

    /// Answers NEEDs by id, of which there are no more than a group has.
    fn answer_needs(&self, now: Instant, asked: &[Asked<'_>], replies: &mut Replies) {
        let settings = &self.settings;
        let needs = || asked.iter().filter_map(NeedById::of);
        let need = |at: u8| NeedById::of(&asked[usize::from(at)]);
        let Replies {
            bytes,
            each,
            aims,
            askers,
        } = replies;
        aims.clear();
        aims.extend(needs().map(|need| {
            let places = settings.config.places(need.max_owners);
            Aim::at(settings.locate(need.id), places)
        }));
        askers.clear();
        askers.resize(aims.len(), Err(Refusal::UnknownToken));
        let mut sum = 0_u32;
        let homes = needs().map(|need| settings.shard_of_token(need.token));
        ByShard::new(homes.map(Some)).each(|shard, at| {
            let mut sessions = self.sessions.lock(shard);
            for need in at.iter().filter_map(|&at| need(at)) {
                sum = sum.wrapping_add(sessions.touch(need.token));
            }
            for &at in at {
                if let Some(need) = need(at) {
                    askers[usize::from(at)] = sessions.asks(now, need.token);
                }
            }
        });
        let first = each.len();
        each.resize(first + aims.len(), (0..0, Ok(())));
        // So that the buffer does not grow in steps.
        bytes.reserve(aims.iter().map(Aim::reply_len).sum());
        let homes = ByShard::new(aims.iter().map(|aim| Some(aim.home)));
        let mut place = Place::default();
        homes.each(|shard, at| {
            let mut catalog = self.catalogs.lock(shard);
            sum = sum.wrapping_add(catalog.touch(aims, at));
            for &at in at {
                let (begin, asked) = (bytes.len(), &asked[usize::from(at)]);
                let outcome = match (&askers[usize::from(at)], need(at)) {
                    (Ok(asker), Some(need)) => {
                        let aim = &aims[usize::from(at)];
                        let asker = (asker, place.of(asked));
                        catalog.answer_aimed(now, need.id, aim, asker, bytes)
                    }
                    (Err(refusal), _) => Err(refusal.clone()),
                    (Ok(_), None) => Ok(()),
                };
                each[first + usize::from(at)] = (begin..bytes.len(), outcome);
            }
        });
        black_box(sum);
        for (need, (range, outcome)) in needs().zip(&mut each[first..]) {
            if let Err(refusal) = outcome {
                let shard = settings.shard_of_token(need.token);
                self.sessions.lock(shard).count_refusal(refusal);
                let begin = bytes.len();
                ReplyWriter::reply(bytes, TrackerReply::Refused(refusal.clone()));
                *range = begin..bytes.len();
            }
        }
    }

    /// Reads what requests will need that are answered one by one.
    fn read_ahead(&self, group: &[Asked<'_>]) {
        if group.len() < 2 {
            return;
        }
        let token = |asked: &Asked<'_>| match NeedById::of(asked) {
            Some(_) => None,
            None => asked.request.token().copied(),
        };
        let homes = group.iter().map(token);
        let homes = homes.map(|token| token.map(|token| self.settings.shard_of_token(&token)));
        let mut sum = 0_u32;
        ByShard::new(homes).each(|shard, at| {
            let sessions = self.sessions.lock(shard);
            for &at in at {
                let token = group[usize::from(at)].request.token();
                sum = sum.wrapping_add(token.map_or(0, |token| sessions.touch(token)));
            }
        });
        black_box(sum);
    }
}

/// From where the last request came: mostly the next one comes from the same place.
#[derive(Default)]
struct Place<'a>(Option<(Asked<'a>, Viewpoint<'a>)>);

impl<'a> Place<'a> {
    fn of(&mut self, asked: &Asked<'a>) -> &mut Viewpoint<'a> {
        let is_same = |last: &Asked<'a>| {
            std::ptr::eq(last.source, asked.source)
                && match (last.local, asked.local) {
                    (Some(last), Some(local)) => std::ptr::eq(last, local),
                    (last, local) => last.is_none() && local.is_none(),
                }
        };
        if !self.0.as_ref().is_some_and(|(last, _)| is_same(last)) {
            self.0 = None;
        }
        let new = || (*asked, Viewpoint::new(asked.source, asked.local));
        &mut self.0.get_or_insert_with(new).1
    }
}

/// The positions of requests, by the shard that each needs.
struct ByShard {
    /// The shard in the high bits and the position in the low ones, in order.
    order: [u32; GROUP],
    len: usize,
}

impl ByShard {
    /// `shards` tells which shard each of the requests needs, if any.
    fn new(shards: impl Iterator<Item = Option<u32>>) -> Self {
        let (mut order, mut len, mut sorted) = ([0_u32; GROUP], 0, true);
        for (at, shard) in (0..).zip(shards) {
            if let Some(shard) = shard {
                order[len] = shard << u8::BITS | at;
                sorted &= len == 0 || order[len - 1] < order[len];
                len += 1;
            }
        }
        if !sorted {
            order[..len].sort_unstable();
        }
        Self { order, len }
    }

    /// Calls `each` once for each shard, with the positions of the requests that need it, in
    /// their order.
    fn each(&self, mut each: impl FnMut(u32, &[u8])) {
        let order = &self.order[..self.len];
        let mut positions = [0; GROUP];
        for (position, entry) in positions.iter_mut().zip(order) {
            *position = *entry as u8;
        }
        let mut from = 0;
        for of_shard in order.chunk_by(|one, other| one >> u8::BITS == other >> u8::BITS) {
            let until = from + of_shard.len();
            each(of_shard[0] >> u8::BITS, &positions[from..until]);
            from = until;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_come_in_the_order_of_the_requests_wherever_they_are_written() {
        let mut replies = Replies {
            bytes: b"abcdef".to_vec(),
            each: vec![(3..6, Ok(())), (0..1, Err(Refusal::Busy)), (1..3, Ok(()))],
            ..Replies::default()
        };
        let expected = [&b"def"[..], b"a", b"bc"];
        assert!(replies.iter().map(|(_, reply)| reply).eq(expected));
        let refused = replies.each_mut().map(|(outcome, reply)| {
            reply[0] = b'x';
            outcome.is_err()
        });
        assert_eq!(refused.collect::<Vec<_>>(), [false, true, false]);
        assert_eq!(replies.into_each(), [&b"xef"[..], b"x", b"xc"]);
    }

    #[test]
    fn requests_are_told_shard_by_shard_and_in_their_order() {
        let shards = [Some(7), None, Some(0), Some(255), Some(7), Some(0)];
        let mut told = Vec::new();
        ByShard::new(shards.into_iter()).each(|shard, at| told.push((shard, at.to_vec())));
        assert_eq!(told, [(0, vec![2, 5]), (7, vec![0, 4]), (255, vec![3])]);
    }
}
