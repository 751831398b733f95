//! The rules of turns, as a model that looks at everything each time.

use std::time::{Duration, Instant};

use bt_lite::peer::swarm::{LinkId, Turn};

use super::model::{Model, Rank, Receiver, Trial};
use super::{BLOCK, CHUNK, LIMITS, SEED};

/// How long an invited link is waited for.
const ANSWER: Duration = Duration::from_millis(100);

/// Where no rate is known, those that come last are served when the others have
/// wanted nothing for so long.
pub(super) const PAUSE: Duration = Duration::from_secs(1);

/// How many that have told of nothing are served at a time, at first and at the
/// most; and for how long one counts, where no rate is known.
pub(super) const FIRST_TRIALS: usize = 4;
pub(super) const MOST_TRIALS: usize = 16;
pub(super) const TRIAL: Duration = Duration::from_secs(8);

/// No pause between trials is longer.
pub(super) const MAX_PAUSE: Duration = Duration::from_secs(10);

/// What decides who may have a turn at present.
#[derive(Debug, Clone, Copy)]
struct Mood {
    calm: bool,
    may_try: bool,
}

impl Model {
    /// A link's place among those that want something; the links themselves
    /// decide last, by lots that nobody else has.
    fn place(&self, link: u64) -> (bool, Rank, u64) {
        let receiver = &self.links[&link];
        let blank = receiver.has == 0;
        let lot = (link ^ SEED).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        (blank && receiver.old, self.rank(link), lot)
    }

    /// Whether a link comes behind all that are not of its kind, however long it
    /// waits.
    fn is_last(&self, link: u64, has_room: bool) -> bool {
        self.is_ahead(link) || self.links[&link].has == 0 && !has_room
    }

    /// Notes whether others want something than those that come last, when some
    /// of these do.
    fn note_calm(&mut self, now: Instant, has_room: bool) -> bool {
        let mut links = self.links.iter();
        let waits = links.any(|(&link, r)| r.wants() && self.is_last(link, has_room));
        let mut links = self.links.iter();
        let busy = |r: &Receiver| r.wants() || r.bytes() > 0;
        let others = links.any(|(&link, r)| busy(r) && !self.is_last(link, has_room));
        self.calm_since = match self.calm_since {
            _ if !waits => None,
            Some(since) if !others => Some(since),
            _ => Some(now),
        };
        self.calm_since.is_some_and(|since| since + PAUSE <= now)
    }

    /// Until when each link on trial is one that others like it wait for. Those
    /// that were waited for long enough make fewer trials of it.
    fn trials(&mut self, now: Instant) -> Vec<Instant> {
        let mut ends = Vec::new();
        for receiver in self.links.values_mut() {
            let Trial::Began(began) = receiver.trial else {
                continue;
            };
            let end = receiver.mute.or(receiver.moved).unwrap_or(began) + TRIAL;
            if end > now {
                ends.push(end);
            } else {
                receiver.trial = Trial::Lapsed;
                self.trials.lapsed(now, began);
            }
        }
        ends
    }

    fn mood(&mut self, now: Instant) -> Mood {
        let under_way = self.trials(now).len();
        let paused = self.trials.next.is_some_and(|next| next > now);
        let has_room = under_way < self.trials.window && !paused;
        let calm = self.note_calm(now, has_room);
        Mood {
            calm,
            may_try: has_room || calm && under_way < FIRST_TRIALS,
        }
    }

    fn waits(&self, link: u64, mood: Mood) -> bool {
        let blank = self.links[&link].has == 0;
        self.is_ahead(link) && !mood.calm || blank && !mood.may_try
    }

    /// Whether its turn ends at once: others could have it, and it does not tell
    /// of what it gets, or took nothing yet and is to wait.
    fn is_turned_away(&self, link: u64, mood: Mood) -> bool {
        let receiver = &self.links[&link];
        let unused = receiver.turn == 0 && receiver.bytes() == 0;
        let waits = unused && !receiver.given && self.waits(link, mood);
        receiver.wants() && self.others_lack() && (waits || self.is_silent(link))
    }

    /// Invited links that did not answer let their turn pass. Which others are
    /// waited for: none of a host that let its last one pass.
    fn lapse(&mut self, now: Instant, mood: Mood) -> Vec<u64> {
        let mut expected = Vec::new();
        let links: Vec<u64> = self.links.keys().copied().collect();
        let turned_away = links.iter().map(|&link| self.is_turned_away(link, mood));
        let turned_away: Vec<bool> = turned_away.collect();
        for (link, turned_away) in links.into_iter().zip(turned_away) {
            let receiver = self.links.get_mut(&link).expect("it is there");
            if !receiver.wants() {
                receiver.invited = None;
            } else if !turned_away && receiver.is_invited() {
                let since = *receiver.invited.get_or_insert(now);
                if since + ANSWER <= now {
                    (receiver.invited, receiver.declined) = (None, true);
                    self.account_mut(link).passed = true;
                } else if !self.account(link).passed {
                    expected.push(link);
                }
            }
        }
        expected
    }

    fn choke(&mut self, link: u64) -> Turn {
        let receiver = self.links.get_mut(&link).expect("it is there");
        (receiver.choked, receiver.invited) = (true, None);
        let rejected = receiver.waiting.drain(..).collect();
        let link = LinkId(link);
        Turn::Choke { link, rejected }
    }

    fn begin_turn(&mut self, link: u64) {
        let receiver = self.links.get_mut(&link).expect("it is there");
        (receiver.choked, receiver.turn, receiver.given) = (false, 0, true);
    }

    /// The next turn that begins or ends.
    pub(super) fn next_turn(&mut self, now: Instant) -> Option<Turn> {
        loop {
            let mood = self.mood(now);
            let expected = self.lapse(now, mood);
            let mut unchoked = self.links.iter().filter(|(_, r)| !r.choked);
            let silent = unchoked.rfind(|(link, _)| self.is_turned_away(**link, mood));
            if let Some((&silent, _)) = silent {
                return Some(self.choke(silent));
            }
            let wanting: Vec<u64> = self.wanting().map(|(link, _)| link).collect();
            let crowded = wanting.len() > LIMITS.slots;
            let (choked, asking): (Vec<u64>, Vec<u64>) =
                wanting.iter().partition(|link| self.links[link].choked);
            let choked = choked.into_iter();
            let next = choked.filter(|&link| !self.waits(link, mood));
            let next = next.min_by_key(|&link| self.place(link));
            let (spent, open): (Vec<u64>, Vec<u64>) = asking
                .iter()
                .partition(|link| self.links[link].turn >= CHUNK);
            let spent = spent.into_iter().max_by_key(|&link| self.place(link));
            let open: Vec<u64> = open
                .into_iter()
                .filter(|link| self.links[link].bytes() < self.links[link].window())
                .collect();
            let waits = |link: &u64| -> u64 {
                let waiting = self.links[link].waiting.iter();
                waiting.map(|block| u64::from(block.len)).sum()
            };
            let ready: u64 = open.iter().map(waits).sum();
            let invited = |link: &u64| self.links[link].is_invited();
            let starved = ready < BLOCK && expected.is_empty();
            if let Some(spent) = spent {
                let is_better = |next: u64| self.place(next) <= self.place(spent);
                if crowded && next.is_some_and(is_better) {
                    return Some(self.choke(spent));
                }
                if starved || !crowded {
                    self.begin_turn(spent);
                    continue;
                }
            }
            if let Some(next) = next.filter(|_| starved || !crowded) {
                self.begin_turn(next);
                return Some(Turn::Unchoke { link: LinkId(next) });
            }
            let unused = open.iter().copied().filter(|link| {
                let receiver = &self.links[link];
                crowded && receiver.turn == 0 && receiver.bytes() == 0
            });
            let unused = unused.max_by_key(|&link| self.place(link))?;
            let others_wait = ready - waits(&unused) >= BLOCK;
            let others_answer = invited(&unused) && expected.len() > 1;
            return (others_wait || others_answer).then(|| self.choke(unused));
        }
    }

    /// When to look again, if nothing happens before.
    pub(super) fn looks_again(&mut self, now: Instant) -> Option<Instant> {
        let may_try = self.mood(now).may_try;
        let trials = self.trials(now).into_iter();
        let invited = self.wanting().filter(|(_, r)| r.is_invited());
        let lapses = invited.filter_map(|(_, r)| Some(r.invited? + ANSWER));
        let calm = self.calm_since.map(|since| since + PAUSE);
        let pause = self.trials.next.filter(|next| *next > now);
        let trial = trials.chain(pause).min().filter(|_| !may_try);
        let calm = calm.filter(|calm| *calm > now);
        lapses.chain(calm).chain(trial).min()
    }
}
