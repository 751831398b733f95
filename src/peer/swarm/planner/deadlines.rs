//! What readers want next: it is asked for before everything else, by the time at which it
//! is due.
//!
//! A link takes the first urgent block that no other link would send sooner, or one that
//! another link was asked for and would send too late. When a reader goes elsewhere, what
//! would keep it waiting is given up.

use std::time::Instant;

use super::super::LinkId;
use super::super::read_window::ReadWindow;
use super::answer::{Released, Request};
use super::chunk_states::ChunkState;
use super::end_game::{OVERTAKE, TRY_AFTER};
use super::lanes::{Lane, Lanes};
use super::ledger::Ledger;
use super::source::{Source, Typical};
use super::urgent::{MAX_WINDOWS, Urgent};
use crate::content::{BlockRange, ChunkIndex, Geometry};

/// An overtaking link must be faster by this factor if the other one has not shown yet
/// how fast it is: the wait for its first block counts as well, and it seems too slow.
const OVERTAKE_UNMEASURED: f64 = 2.0;

/// How many chunks may be open beyond the usual bound for the sake of a reader.
const EXTRA_OPEN: usize = 1;

/// How many blocks are left to other links in a search for one that this link would send
/// sooner. It bounds the work for each request.
const MAX_LEFT: usize = 256;

/// An urgent block to ask a link for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum UrgentChoice {
    Take(Request),
    /// Other links would send all of them sooner, as it seems now.
    Left,
    Nothing,
}

/// Which links may be asked, as far as that does not follow from the links themselves.
#[derive(Debug, Clone, Copy)]
pub(super) struct Supply {
    /// Links that take turns are not asked for more at present.
    pub(super) is_spent: bool,
    /// How many owners there are or will be, if this peer is the only leecher.
    pub(super) owners_alone: Option<usize>,
}

/// An urgent block that is not here.
#[derive(Debug, Clone, Copy)]
struct Wanted {
    block: BlockRange,
    /// The link that was asked for it.
    holder: Option<LinkId>,
    /// The only link that may send it.
    only: Option<LinkId>,
    /// When its reader will want it.
    due: Instant,
}

/// Serves the readers.
#[derive(Debug)]
pub(super) struct Deadlines {
    urgent: Urgent,
    windows: Vec<ReadWindow>,
}

impl Deadlines {
    /// Nobody reads.
    pub(super) fn new(geometry: Geometry) -> Self {
        Self {
            urgent: Urgent::none(geometry),
            windows: Vec::new(),
        }
    }

    /// The chunks in the windows of readers.
    pub(super) fn urgent(&self) -> &Urgent {
        &self.urgent
    }

    /// Readers want these parts of the content next. Returns whether one waits for another
    /// chunk than before: then links have to [make way](Self::make_way).
    /// O(chunks in the windows).
    pub(super) fn set_windows(
        &mut self,
        now: Instant,
        ledger: &mut Ledger,
        windows: &[ReadWindow],
    ) -> bool {
        let geometry = ledger.layout().geometry();
        let before = std::mem::take(&mut self.windows);
        self.windows = windows.iter().copied().take(MAX_WINDOWS).collect();
        let surprise = self.is_surprised(ledger, &before);
        self.urgent = Urgent::new(now, windows, geometry);
        ledger.reserve(self.urgent.members());
        surprise
    }

    /// Whether a reader waits for another chunk than one did `before`. A window that slides
    /// on is no surprise, nor if all of it was here and its end shows something new.
    fn is_surprised(&self, ledger: &Ledger, before: &[ReadWindow]) -> bool {
        let geometry = ledger.layout().geometry();
        let awaited: Vec<_> = before
            .iter()
            .map(|window| (window, first_lacking(ledger, window)))
            .collect();
        self.windows.iter().any(|window| {
            let Some(first) = first_lacking(ledger, window) else {
                return false;
            };
            let begin = window.chunks(&geometry).start;
            !awaited.iter().any(|(before, awaited)| match awaited {
                Some(awaited) => *awaited == first,
                None => before.chunks(&geometry).contains(&begin),
            })
        })
    }

    /// The first chunk in each window that is not here. O(chunks in the windows).
    fn awaited(&self, ledger: &Ledger) -> impl Iterator<Item = ChunkIndex> {
        let first = |window| first_lacking(ledger, window);
        self.windows.iter().filter_map(first)
    }

    /// Gives up what links were asked for and would keep a reader waiting that has gone
    /// elsewhere, except what is probably on its way: what they come to only after a round
    /// trip, and what is not urgent. Links that `ask_again` at once give up what is
    /// urgent as well, unless a reader waits for it. O(requests).
    pub(super) fn make_way(
        &self,
        now: Instant,
        ledger: &mut Ledger,
        ask_again: impl Fn(&Source) -> bool,
    ) -> Released {
        let typical = ledger.sources().typical(now, ledger.layout().block_len());
        let links: Vec<LinkId> = ledger.sources().iter().map(|(link, _)| link).collect();
        let awaited: Vec<ChunkIndex> = self.awaited(ledger).collect();
        let mut all = Released::default();
        for link in links {
            let Some(source) = ledger.sources().get(link) else {
                continue;
            };
            let asks_again = ask_again(source);
            let is_free = |block: &BlockRange| match asks_again {
                true => !awaited.contains(&block.chunk),
                false => !self.urgent.contains(block.chunk),
            };
            let blocks = beyond(now, ledger, source, typical);
            let blocks: Vec<BlockRange> = blocks.filter(is_free).collect();
            all.add(ledger.take_back(link, &blocks));
        }
        all
    }

    /// An urgent block for a link: the first one that no other link would send sooner, or
    /// one that another link was asked for and would send too late. Opens its chunk.
    pub(super) fn take_block(
        &self,
        now: Instant,
        ledger: &mut Ledger,
        link: LinkId,
        supply: Supply,
    ) -> UrgentChoice {
        if self.urgent.is_empty() {
            return UrgentChoice::Nothing;
        }
        let lanes = lanes(now, ledger, link, supply);
        let choice = self.search(now, ledger, link, lanes);
        if let UrgentChoice::Take(Request { block, .. }) = choice {
            open_for(ledger, link, block.chunk);
        }
        choice
    }

    fn search(
        &self,
        now: Instant,
        ledger: &Ledger,
        link: LinkId,
        mut lanes: Lanes,
    ) -> UrgentChoice {
        let Some(&mine) = lanes.get(link) else {
            return UrgentChoice::Nothing;
        };
        let mut left = 0;
        let mut could_help = false;
        for wanted in self.blocks(ledger, link) {
            if left >= MAX_LEFT {
                break;
            }
            let take = UrgentChoice::Take(Request {
                block: wanted.block,
                overtaken: wanted.holder,
            });
            let chunk = wanted.block.chunk;
            let can_send = ledger.sources().has(link).contains(chunk);
            let soonest = match (wanted.holder, wanted.only) {
                (Some(holder), _) if can_send && comes_late(now, ledger, &mine, holder, wanted) => {
                    return take;
                }
                (Some(_), _) => continue,
                (None, Some(only)) => Some(only),
                (None, None) => {
                    let has = |link| ledger.sources().has(link).contains(chunk);
                    lanes.assign(wanted.block.len, has)
                }
            };
            if soonest == Some(link) {
                return take;
            }
            left += 1;
            could_help |= can_send && wanted.only.is_none();
        }
        match could_help {
            true => UrgentChoice::Left,
            false => UrgentChoice::Nothing,
        }
    }

    /// The urgent blocks that are not here, in order, as far as a link could open their
    /// chunks.
    fn blocks(&self, ledger: &Ledger, link: LinkId) -> impl Iterator<Item = Wanted> {
        let open = ledger.open();
        self.urgent.iter().flat_map(move |(chunk, due)| {
            let is_missing = ledger.states().get(chunk) == ChunkState::Missing;
            let opens = is_missing && may_open(ledger, link, chunk);
            let closed = (0..ledger.layout().blocks(chunk)).take_while(move |_| opens);
            let closed = closed.map(move |position| (ledger.layout().block(chunk, position), None));
            let exclusive = !is_missing && !open.is_shared(chunk);
            let only = open.leader(chunk).filter(|_| exclusive);
            let blocks = open.missing(chunk).chain(closed);
            blocks.map(move |(block, holder)| Wanted {
                block,
                holder,
                only,
                due,
            })
        })
    }
}

/// The first chunk in a window that is not here. O(chunks in the window).
fn first_lacking(ledger: &Ledger, window: &ReadWindow) -> Option<ChunkIndex> {
    let mut chunks = window.chunks(&ledger.layout().geometry()).map(ChunkIndex);
    chunks.find(|chunk| {
        let state = ledger.states().get(*chunk);
        matches!(state, ChunkState::Missing | ChunkState::Open)
    })
}

/// What a link was asked for and comes to only after its travel and a block, and that
/// others may be asked for as well.
fn beyond(
    now: Instant,
    ledger: &Ledger,
    source: &Source,
    typical: Typical,
) -> impl Iterator<Item = BlockRange> {
    let block_len = ledger.layout().block_len() as f64;
    let rate = source.line_rate(now).unwrap_or(typical.rate);
    let limit = source.travel(block_len, rate) + block_len / rate;
    let blocks = source.asked_beyond(now, typical, limit);
    blocks.filter(|block| ledger.open().is_shared(block.chunk))
}

/// The links that urgent blocks may be left to, and this one. What a link can do that
/// has sent nothing yet is not known: others are not relied on, and this one gets
/// what would take long from others.
fn lanes(now: Instant, ledger: &Ledger, link: LinkId, supply: Supply) -> Lanes {
    let sources = ledger.sources();
    let block_len = ledger.layout().block_len();
    let typical = sources.typical(now, block_len);
    let some_proven = sources.values().any(Source::is_proven);
    let mut lanes = Lanes::default();
    for (other, source) in sources.iter() {
        let restrained = supply.is_spent && source.takes_turns();
        let unproven = some_proven && !source.is_proven();
        // This one has room, or it would not be looked at, even if it was silent.
        if other != link && (restrained || !source.may_be_asked(ledger.layout())) {
            continue;
        }
        let delay = match unproven {
            true => TRY_AFTER.as_secs_f64(),
            false => 0.0,
        };
        if unproven && other != link {
            continue;
        }
        let rate = source.line_rate(now).unwrap_or(typical.rate).max(1.0);
        lanes.push(Lane {
            link: Some(other),
            free_in: source.clear_in(now, None, typical) + delay,
            travel: source.travel(block_len as f64, rate),
            rate,
        });
    }
    // Owners that are being dialled count at the start only: they may never come.
    let began = sources.values().any(|source| source.round_trip().is_some());
    let expected = supply.owners_alone.filter(|_| !began).unwrap_or(0);
    lanes.expect(expected, typical.rate);
    lanes
}

/// Whether an urgent chunk may be opened for a link. One that must come from a single
/// link has to wait until that link has asked for all of the one before.
fn may_open(ledger: &Ledger, link: LinkId, chunk: ChunkIndex) -> bool {
    let lead = ledger.sources().get(link).and_then(Source::lead);
    let must_lead = ledger.is_exclusive(chunk);
    ledger.has_place(EXTRA_OPEN)
        && !(must_lead && lead.is_some_and(|lead| ledger.open().needs_leader(lead)))
}

/// Opens a chunk for a link, if it is missing.
fn open_for(ledger: &mut Ledger, link: LinkId, chunk: ChunkIndex) {
    if ledger.states().get(chunk) == ChunkState::Missing {
        // All links may help with it, so none leads it, unless it must.
        ledger.open_chunk(chunk);
        if ledger.is_exclusive(chunk) {
            ledger.lead(link, chunk);
        }
    }
}

/// Whether a block that another link was asked for comes too late for its reader, and
/// would come sooner from this one.
fn comes_late(now: Instant, ledger: &Ledger, mine: &Lane, holder: LinkId, wanted: Wanted) -> bool {
    let sources = ledger.sources();
    let known = |link| sources.get(link).filter(|s| s.rate(now).is_some());
    let is_known = mine.link.and_then(known).is_some();
    if Some(holder) == mine.link || wanted.only.is_some() || !is_known {
        return false;
    }
    let Some(source) = sources.get(holder) else {
        return false;
    };
    let due_in = wanted.due.saturating_duration_since(now).as_secs_f64();
    let factor = match source.is_measured() {
        true => OVERTAKE,
        false => OVERTAKE_UNMEASURED,
    };
    let soon = mine.finish(wanted.block.len) * factor;
    let typical = sources.typical(now, ledger.layout().block_len());
    if source.clear_in(now, None, typical) <= due_in.max(soon) {
        return false;
    }
    let asked_before = source
        .live_ask(wanted.block)
        .is_some_and(|ask| ask.at < now);
    let theirs = source.clear_in(now, Some(wanted.block), typical);
    asked_before && theirs > due_in && soon < theirs
}
