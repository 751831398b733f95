//! Requests that are answered together.
//!
//! With many peers a request mostly waits for memory, for one line after the other. So
//! what the requests of a batch will read is read before the first of them is answered:
//! in steps, each of which reads one thing for every request, and nothing that depends on
//! what the same step reads. The processor then waits for many lines at once. After that
//! the requests are answered one by one, in their order, and find everything in the
//! caches. What was read ahead decides nothing: a batch has the outcome of its requests
//! one after the other.

use std::hint::black_box;
use std::time::Instant;

use bytes::Bytes;

use super::registry::{Aim, Permits};
use super::request_handler::RequestHandler;
use crate::protocol::{Addr, ContentKey, Refusal, Token, TrackerRequest};

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
    /// Where each reply ends, and whether it is a refusal of the whole request.
    ends: Vec<(usize, Result<(), Refusal>)>,
}

impl Replies {
    /// No replies yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The replies in the order of the requests. Each comes with the refusal of the whole
    /// request, if it is one.
    pub fn iter(&self) -> impl Iterator<Item = (Result<(), &Refusal>, &[u8])> {
        let mut from = 0;
        self.ends.iter().map(move |(end, outcome)| {
            let reply = &self.bytes[from..*end];
            from = *end;
            (outcome.as_ref().copied(), reply)
        })
    }

    /// The same, each reply to be completed.
    pub(super) fn each_mut(&mut self) -> impl Iterator<Item = (Result<(), &Refusal>, &mut [u8])> {
        let (mut rest, mut from) = (&mut *self.bytes, 0);
        self.ends.iter().map(move |(end, outcome)| {
            let (reply, after) = std::mem::take(&mut rest).split_at_mut(end - from);
            (rest, from) = (after, *end);
            (outcome.as_ref().copied(), reply)
        })
    }

    /// The replies, all in one allocation.
    pub(super) fn into_each(self) -> Vec<Bytes> {
        let bytes = Bytes::from(self.bytes);
        let mut from = 0;
        let each = self.ends.iter().map(|(end, _)| {
            let reply = bytes.slice(from..*end);
            from = *end;
            reply
        });
        each.collect()
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }
}

impl RequestHandler {
    /// Answers requests that came together, in their order. Everything is permitted.
    pub(super) fn handle_batch(&self, now: Instant, batch: &[Asked<'_>], replies: &mut Replies) {
        replies.clear();
        for group in batch.chunks(GROUP) {
            let aims = self.read_ahead(group);
            for (asked, aim) in group.iter().zip(aims) {
                let from = (asked.source, asked.local);
                let does = (Permits::All, aim);
                let bytes = &mut replies.bytes;
                let outcome = self.handle_aimed(now, from, asked.request, does, bytes);
                replies.ends.push((replies.bytes.len(), outcome));
            }
        }
    }

    /// Reads what a group of requests will need, and draws for the NEEDs by id among them.
    /// The aims are in the order of the requests.
    fn read_ahead(&self, group: &[Asked<'_>]) -> Vec<Option<Aim>> {
        let settings = &self.settings;
        let aim_of = |asked: &Asked<'_>| match asked.request {
            TrackerRequest::Need {
                key: ContentKey::Id(id),
                max_owners,
                ..
            } if group.len() > 1 => {
                let places = settings.config.places(*max_owners);
                Some(Aim::at(settings.locate(id), places))
            }
            _ => None,
        };
        let mut aims: Vec<Option<Aim>> = group.iter().map(aim_of).collect();
        if group.len() < 2 {
            return aims;
        }
        let mut sum = 0_u32;
        let tokens = group.iter().map(|asked| token_of(asked.request));
        let homes = tokens.map(|token| token.map(|token| settings.shard_of_token(token)));
        by_shard(homes, |shard, at| {
            let sessions = self.sessions.lock(shard);
            for &at in at {
                let token = token_of(group[usize::from(at)].request);
                sum = sum.wrapping_add(token.map_or(0, |token| sessions.touch(token)));
            }
        });
        let homes = aims.iter().map(|aim| aim.map(|aim| aim.home));
        let homes: Vec<_> = homes.collect();
        by_shard(homes.into_iter(), |shard, at| {
            let mut catalog = self.catalogs.lock(shard);
            sum = sum.wrapping_add(catalog.touch(&mut aims, at));
        });
        black_box(sum);
        aims
    }
}

/// The token of the peer that a request is about.
fn token_of(request: &TrackerRequest) -> Option<&Token> {
    match request {
        TrackerRequest::Register { token, .. } => token.as_ref(),
        TrackerRequest::RegisterAlso { token, .. }
        | TrackerRequest::Own { token, .. }
        | TrackerRequest::Need { token, .. }
        | TrackerRequest::Update { token, .. }
        | TrackerRequest::Exit { token }
        | TrackerRequest::Zone { token, .. } => Some(token),
    }
}

/// Calls `each` once for each shard, with the positions of the requests that need it, in
/// their order. `shards` tells which shard each of the requests needs, if any.
fn by_shard(shards: impl Iterator<Item = Option<u32>>, mut each: impl FnMut(u32, &[u8])) {
    // The shard in the high bits and the position in the low ones.
    let (mut order, mut len, mut sorted) = ([0_u32; GROUP], 0, true);
    for (at, shard) in (0..).zip(shards) {
        if let Some(shard) = shard {
            order[len] = shard << u8::BITS | at;
            sorted &= len == 0 || order[len - 1] < order[len];
            len += 1;
        }
    }
    let order = &mut order[..len];
    if !sorted {
        order.sort_unstable();
    }
    let mut positions = [0; GROUP];
    for (position, entry) in positions.iter_mut().zip(&*order) {
        *position = *entry as u8;
    }
    let mut from = 0;
    for of_shard in order.chunk_by(|one, other| one >> u8::BITS == other >> u8::BITS) {
        let until = from + of_shard.len();
        each(of_shard[0] >> u8::BITS, &positions[from..until]);
        from = until;
    }
}
