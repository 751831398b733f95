//! One link as a receiver of blocks: what it asked for, what it was sent, and
//! what it tells of.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::standing::Standing;
use super::trials::Trial;
use crate::content::BlockRange;

/// A link that has taken nothing for so long does not read at present.
pub(super) const STALLED: Duration = Duration::from_secs(1);

/// Whether it is a link's turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TurnState {
    /// It is not its turn: the link may not ask.
    Choked,
    /// The link may ask because every new link may, and was sent nothing yet.
    /// The time since when its first request is waited for.
    Initial(Option<Instant>),
    /// The link was given its turn, and was sent nothing in it yet. The time
    /// since when its first request is waited for.
    Given(Option<Instant>),
    /// The link was sent that many bytes in its turn. They may be on their way.
    Used(u64),
}

/// Whether a link wants something, as far as is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Interest {
    /// It has not said so yet: a stranger.
    Unknown,
    Interested,
    /// It let its turn pass, and has said nothing since.
    LetTurnPass,
    /// It said that it wants nothing.
    NotInterested,
}

/// Whether a link tells of the chunks that it was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Telling {
    /// It owes nothing.
    UpToDate,
    /// Earlier links of its host did not tell, and it has not told of anything
    /// since it came.
    Indebted { since: Instant },
    /// It was sent a whole chunk, and has not told of any since. It may have
    /// been indebted before.
    Mute { since: Instant, indebted: bool },
}

/// The window of a link: how many bytes may be on their way to it.
#[derive(Debug, Clone, Copy)]
pub(super) struct LinkWindow {
    pub(super) block_len: u64,
    /// The most for any link.
    pub(super) most: u64,
}

/// One link as a receiver.
#[derive(Debug)]
pub(super) struct Receiver {
    /// Decides between links that are equally deprived. Without it, all peers
    /// would serve the same links first.
    lot: u64,
    /// The account of its host.
    host: usize,
    waiting: VecDeque<BlockRange>,
    /// Since when the next request waits for the limits.
    held: Option<Instant>,
    /// Bytes that are being read, or queued for the network.
    under_way: u64,
    /// When it last took some, or was first given some.
    moved: Option<Instant>,
    /// Bytes that were handed to the network.
    sent: u64,
    turn: TurnState,
    interest: Interest,
    /// It let a turn pass, and has not asked since.
    passed: bool,
    telling: Telling,
    /// Bytes that it was sent and has not told of yet.
    untold: u64,
    /// Bytes that it was sent and has told of.
    told: u64,
    trial: Trial,
    /// It, or another link of its host, was here for long without anything.
    never_told: bool,
    /// How many chunks it has.
    has: u32,
    /// How many chunks it lacks of those that are here.
    lacks: u32,
    /// If it is a stranger: how it stands.
    standing: Option<Standing>,
}

impl Receiver {
    /// A new link with a host. `indebted_since` is set if earlier links of the
    /// host owe a chunk.
    pub(super) fn new(lot: u64, host: usize, indebted_since: Option<Instant>) -> Self {
        Self {
            lot,
            host,
            waiting: VecDeque::new(),
            held: None,
            under_way: 0,
            moved: None,
            sent: 0,
            turn: TurnState::Initial(None),
            interest: Interest::Interested,
            passed: false,
            telling: match indebted_since {
                Some(since) => Telling::Indebted { since },
                None => Telling::UpToDate,
            },
            untold: 0,
            told: 0,
            trial: Trial::None,
            never_told: false,
            has: 0,
            lacks: 0,
            standing: None,
        }
    }

    /// A new link with a stranger. It may not ask, and says itself when it wants something.
    pub(super) fn stranger(lot: u64, host: usize) -> Self {
        Self {
            turn: TurnState::Choked,
            interest: Interest::Unknown,
            standing: Some(Standing::new()),
            ..Self::new(lot, host, None)
        }
    }

    pub(super) fn is_stranger(&self) -> bool {
        self.standing.is_some()
    }

    /// How it stands, if it is a stranger.
    pub(super) fn standing(&self) -> Option<&Standing> {
        self.standing.as_ref()
    }

    /// The same, to be changed.
    pub(super) fn standing_mut(&mut self) -> Option<&mut Standing> {
        self.standing.as_mut()
    }

    pub(super) fn lot(&self) -> u64 {
        self.lot
    }

    pub(super) fn host(&self) -> usize {
        self.host
    }

    // What it has.

    pub(super) fn has(&self) -> u32 {
        self.has
    }

    /// Whether it has told of no chunk at all.
    pub(super) fn is_blank(&self) -> bool {
        self.has == 0
    }

    pub(super) fn lacks_something(&self) -> bool {
        self.lacks > 0
    }

    /// It says how many chunks it has, and lacks of those that are here.
    pub(super) fn set_has(&mut self, has: u32, lacks: u32) {
        (self.has, self.lacks) = (has, lacks);
    }

    /// It has one chunk more, which is here as well or not.
    pub(super) fn gain(&mut self, here: bool) {
        self.has = self.has.saturating_add(1);
        self.lacks = self.lacks.saturating_sub(here.into());
    }

    /// One more chunk is here that it lacks.
    pub(super) fn lack(&mut self) {
        self.lacks += 1;
    }

    // What it wants.

    pub(super) fn wants(&self) -> bool {
        self.lacks > 0 && self.interest == Interest::Interested
    }

    /// Whether it wants something that is here, or is owed something.
    pub(super) fn is_wanted(&self) -> bool {
        self.wants() || self.under_way > 0 || !self.waiting.is_empty()
    }

    /// It says whether it wants something.
    pub(super) fn set_interest(&mut self, interested: bool) {
        self.interest = match interested {
            true => Interest::Interested,
            false => Interest::NotInterested,
        };
    }

    /// Whether it said that it wants nothing.
    pub(super) fn has_said_no(&self) -> bool {
        self.interest == Interest::NotInterested
    }

    /// Whether it said that it wants nothing, or lacks nothing.
    pub(super) fn has_declined(&self) -> bool {
        self.has_said_no() || self.lacks == 0
    }

    /// Whether it has not used the turns that it had of late.
    pub(super) fn has_passed(&self) -> bool {
        self.has_said_no() || self.passed
    }

    // Requests and bytes.

    /// It asks for something. Returns whether its interest is news.
    pub(super) fn ask(&mut self) -> bool {
        self.withdraw_invitation();
        self.passed = false;
        std::mem::replace(&mut self.interest, Interest::Interested) != Interest::Interested
    }

    /// Takes a request, unless the link is choked or too many wait.
    pub(super) fn queue(&mut self, block: BlockRange, most: usize) -> bool {
        let fits = !self.is_choked() && self.waiting.len() < most;
        if fits {
            self.waiting.push_back(block);
        }
        fits
    }

    /// Takes a request back that waits.
    pub(super) fn cancel(&mut self, block: BlockRange) -> bool {
        let waiting = self.waiting.iter().position(|asked| *asked == block);
        waiting.is_some_and(|at| self.waiting.remove(at).is_some())
    }

    /// How many requests wait.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// The requests that wait, in their order.
    pub(super) fn requests(&self) -> impl Iterator<Item = BlockRange> + Clone {
        self.waiting.iter().copied()
    }

    /// The length of the block that comes next, in bytes.
    pub(super) fn next_len(&self) -> Option<u64> {
        self.waiting.front().map(|block| block.len.into())
    }

    /// The limits hold the next request up from now on, or do not.
    pub(super) fn hold(&mut self, now: Instant, held: bool) {
        self.held = held.then(|| self.held.unwrap_or(now));
    }

    /// They hold nothing up any more.
    pub(super) fn release(&mut self) {
        self.held = None;
    }

    /// Since when they do.
    pub(super) fn held(&self) -> Option<Instant> {
        self.held.filter(|_| !self.waiting.is_empty())
    }

    /// How many bytes wait.
    pub(super) fn waiting_bytes(&self) -> u64 {
        let waiting = self.waiting.iter().map(|block| u64::from(block.len));
        waiting.sum()
    }

    /// Takes the next request: its block is on its way from now on. One that
    /// told of nothing is on trial.
    pub(super) fn take_next(&mut self, now: Instant) -> Option<BlockRange> {
        let block = self.waiting.pop_front()?;
        self.held = None;
        if self.under_way == 0 {
            self.moved = Some(now);
        }
        if !self.is_stranger() && self.is_blank() && self.trial == Trial::None {
            self.trial = Trial::Began(now);
        }
        self.under_way += u64::from(block.len);
        let used = self.turn_bytes() + u64::from(block.len);
        if used > 0 {
            self.turn = TurnState::Used(used);
        }
        Some(block)
    }

    /// Bytes are with the network, at most those on their way. Returns how
    /// many.
    pub(super) fn sent(&mut self, now: Instant, bytes: u64, chunk_len: u64) -> u64 {
        let bytes = self.failed(bytes);
        self.sent += bytes;
        self.moved = Some(now);
        if self.is_stranger() {
            // It may fetch many chunks at a time, and say of what it has got when it likes.
            return bytes;
        }
        self.untold += bytes;
        if self.untold >= chunk_len.max(1) {
            self.telling = match self.telling {
                Telling::UpToDate => Telling::Mute {
                    since: now,
                    indebted: false,
                },
                Telling::Indebted { .. } => Telling::Mute {
                    since: now,
                    indebted: true,
                },
                mute @ Telling::Mute { .. } => mute,
            };
        }
        bytes
    }

    /// Bytes on their way could not be read. Returns how many, at most those
    /// on their way.
    pub(super) fn failed(&mut self, bytes: u64) -> u64 {
        let bytes = bytes.min(self.under_way);
        self.under_way -= bytes;
        bytes
    }

    pub(super) fn under_way(&self) -> u64 {
        self.under_way
    }

    /// When it last took some bytes, or was first given some.
    pub(super) fn moved(&self) -> Option<Instant> {
        self.moved
    }

    /// Bytes that were handed to the network.
    pub(super) fn sent_bytes(&self) -> u64 {
        self.sent
    }

    /// Bytes that it was sent, with those on their way.
    pub(super) fn given(&self) -> u64 {
        self.sent + self.under_way
    }

    /// Whether it does not read at present, though something is on its way.
    pub(super) fn is_stalled(&self, now: Instant) -> bool {
        let still = |moved: Instant| now.duration_since(moved) >= STALLED;
        self.under_way > 0 && self.moved.is_some_and(still)
    }

    /// Whether more may be on its way. No single link fills the window of all,
    /// and one that has taken nothing yet has little of it.
    pub(super) fn has_room(&self, now: Instant, window: LinkWindow) -> bool {
        let room = (2 * window.block_len).max(self.sent).min(window.most);
        self.under_way < room && !self.is_stalled(now)
    }

    // Its turn.

    pub(super) fn is_choked(&self) -> bool {
        self.turn == TurnState::Choked
    }

    /// Ends its turn. Returns the requests that waited.
    pub(super) fn choke(&mut self) -> Vec<BlockRange> {
        self.turn = TurnState::Choked;
        self.held = None;
        self.waiting.drain(..).collect()
    }

    /// Begins its turn, or one more.
    pub(super) fn begin_turn(&mut self) {
        self.turn = TurnState::Given(None);
    }

    /// Bytes that it was sent in this turn, with those on their way.
    pub(super) fn turn_bytes(&self) -> u64 {
        match self.turn {
            TurnState::Used(bytes) => bytes,
            TurnState::Choked | TurnState::Initial(_) | TurnState::Given(_) => 0,
        }
    }

    /// Whether nothing was sent in its turn, and nothing is on its way.
    pub(super) fn is_unused(&self) -> bool {
        let unused = matches!(self.turn, TurnState::Initial(_) | TurnState::Given(_));
        unused && self.under_way == 0
    }

    /// Whether it is new: it may ask though nobody gave it a turn, and was sent
    /// nothing.
    pub(super) fn is_initial(&self) -> bool {
        matches!(self.turn, TurnState::Initial(_))
    }

    /// Since when its first request is waited for; `None` if it has asked, or
    /// it is not its turn.
    pub(super) fn invite(&mut self, now: Instant) -> Option<Instant> {
        if !self.is_unused() || !self.waiting.is_empty() {
            return None;
        }
        match &mut self.turn {
            TurnState::Initial(since) | TurnState::Given(since) => Some(*since.get_or_insert(now)),
            TurnState::Choked | TurnState::Used(_) => None,
        }
    }

    /// It is not waited for any more.
    pub(super) fn withdraw_invitation(&mut self) {
        if let TurnState::Initial(since) | TurnState::Given(since) = &mut self.turn {
            *since = None;
        }
    }

    /// It did not ask in time.
    pub(super) fn let_turn_pass(&mut self) {
        self.withdraw_invitation();
        self.interest = Interest::LetTurnPass;
        self.passed = true;
    }

    // What it tells of.

    /// Bytes that it was sent and has not told of.
    pub(super) fn untold(&self) -> u64 {
        self.untold
    }

    /// Bytes that it was sent and has told of.
    pub(super) fn told(&self) -> u64 {
        self.told
    }

    /// It tells of a chunk. Returns how many bytes it owed of it.
    pub(super) fn tell(&mut self, chunk_len: u64) -> u64 {
        let paid = self.untold.min(chunk_len);
        self.untold -= paid;
        self.told += paid;
        self.telling = Telling::UpToDate;
        paid
    }

    /// It is not blamed for earlier links of its host.
    pub(super) fn forgive_debt(&mut self) {
        self.telling = match self.telling {
            Telling::UpToDate | Telling::Indebted { .. } => Telling::UpToDate,
            Telling::Mute { since, .. } => Telling::Mute {
                since,
                indebted: false,
            },
        };
    }

    /// Since when it has not told of a whole chunk, or of anything if it is
    /// indebted.
    pub(super) fn mute_since(&self) -> Option<Instant> {
        match self.telling {
            Telling::UpToDate => None,
            Telling::Indebted { since } | Telling::Mute { since, .. } => Some(since),
        }
    }

    /// Whether it says that it has nothing, after an earlier link of its host
    /// had not told of what it was sent.
    pub(super) fn repeats_debt(&self) -> bool {
        let indebted = match self.telling {
            Telling::UpToDate => false,
            Telling::Indebted { .. } => true,
            Telling::Mute { indebted, .. } => indebted,
        };
        self.is_blank() && indebted
    }

    /// When the trial under way began, and since when the link keeps others
    /// waiting by it. One that pauses in the middle of its chunk is not waited
    /// for longer.
    pub(super) fn trial(&self) -> Option<(Instant, Instant)> {
        let Trial::Began(began) = self.trial else {
            return None;
        };
        let mute = match self.telling {
            Telling::Mute { since, .. } => Some(since),
            Telling::UpToDate | Telling::Indebted { .. } => None,
        };
        Some((began, mute.or(self.moved).unwrap_or(began)))
    }

    /// It did not tell within the time of a trial.
    pub(super) fn lapse_trial(&mut self) {
        self.trial = Trial::Lapsed;
    }

    /// It has told of something. Returns whether it was on trial.
    pub(super) fn pass_trial(&mut self) -> bool {
        std::mem::take(&mut self.trial) != Trial::None
    }

    /// It has been here for long, and never told of anything. Returns whether
    /// that is news.
    pub(super) fn mark_never_told(&mut self) -> bool {
        !std::mem::replace(&mut self.never_told, true)
    }

    /// It does not come last any more. Returns whether that is news.
    pub(super) fn forget_never_told(&mut self) -> bool {
        std::mem::replace(&mut self.never_told, false)
    }

    /// Whether it comes last: it has been here for long without anything.
    pub(super) fn comes_last(&self) -> bool {
        self.is_blank() && self.never_told
    }
}
