//! Which contents may be evicted, and taking one away while nobody uses it.

use std::sync::Arc;
use std::time::Duration;

use super::{Contents, DriverClaim, DriverHandle, State, Table};
use crate::content::ContentId;
use crate::peer::contents::asleep::Asleep;
use crate::peer::contents::inbox::Inbox;
use crate::peer::contents::place::Place;
use crate::peer::contents::readers::ReaderBoard;
use crate::peer::contents::role::Role;
use crate::peer::contents::status::{ContentStatus, StatusSender};
use crate::peer::downloads::holders::Holders;
use tokio::time::Instant;

/// How exactly it is known when a content was used. 32 bits of it last for 13 years.
const TICK: Duration = Duration::from_millis(100);

/// A complete content that is here by itself.
pub(in crate::peer) struct Kept {
    pub(in crate::peer) id: ContentId,
    pub(in crate::peer) length: u64,
    /// The tick at which it was last used, if nobody uses it now and it may be evicted.
    pub(in crate::peer) idle: Option<u32>,
}

/// A content that is being evicted, or cannot be read where it was. Whoever asks for it
/// waits until this is dropped.
pub(in crate::peer) struct Evicting {
    pub(in crate::peer) asleep: Arc<Asleep>,
    pub(in crate::peer) places: Vec<Place>,
    pub(in crate::peer) claim: DriverClaim,
    /// After the claim, so that it is given up when this closes.
    pub(in crate::peer) inbox: Inbox,
    /// What is heard of it: nothing.
    _status: StatusSender,
}

impl Table {
    /// Whether a content may be evicted at this moment.
    fn is_idle(&self, id: &ContentId, asleep: &Arc<Asleep>) -> bool {
        asleep.role == Role::Alone
            // Somebody copies it, or looks at it.
            && Arc::strong_count(asleep) == 1
            && !self.announcing.contains_key(id)
            && !self.pinned.contains(id)
            && self.boards.as_ref().is_some_and(|boards| !boards.is_read(id))
    }
}

impl Contents {
    /// How long the table has been there.
    pub(super) fn tick(&self) -> u32 {
        self.tick_of(Instant::now())
    }

    fn tick_of(&self, at: Instant) -> u32 {
        let ticks = at.duration_since(self.started).as_millis() / TICK.as_millis();
        u32::try_from(ticks).unwrap_or(u32::MAX)
    }

    /// Never evicts a content, or does when it has to.
    pub(in crate::peer) fn set_pinned(&self, id: ContentId, pinned: bool) {
        let mut table = self.table();
        match pinned {
            true => table.pinned.insert(id),
            false => table.pinned.remove(&id),
        };
    }

    pub(in crate::peer) fn is_pinned(&self, id: &ContentId) -> bool {
        self.table().pinned.contains(id)
    }

    /// A content that is asleep is read at this board.
    pub(in crate::peer) fn reads(&self, asleep: &Asleep, board: &Arc<ReaderBoard>) {
        asleep.touch(self.tick());
        self.note_board(&mut self.table(), asleep.content.id, board);
    }

    /// The content is read at this board.
    pub(super) fn note_board(&self, table: &mut Table, id: ContentId, board: &Arc<ReaderBoard>) {
        if let Some(boards) = &mut table.boards
            && boards.add(id, Arc::clone(board))
        {
            self.sweep(table);
        }
    }

    /// Drops what nobody reads any more, and notes until when it was read.
    fn sweep(&self, table: &mut Table) {
        let contents = &table.contents;
        if let Some(boards) = &mut table.boards {
            boards.sweep(|id, left| {
                if let Some(State::Asleep(asleep)) = contents.get(id) {
                    asleep.touch(self.tick_of(left));
                }
            });
        }
    }

    /// All complete contents that are here by themselves. O(contents).
    pub(in crate::peer) fn kept(&self) -> Vec<Kept> {
        let mut table = self.table();
        self.sweep(&mut table);
        let alone = table.contents.iter();
        let alone = alone.filter(|(_, state)| state.role() == Role::Alone);
        let kept = alone.filter_map(|(id, state)| match state {
            State::Asleep(asleep) => {
                let idle = table.is_idle(id, asleep);
                Some(Kept {
                    id: *id,
                    length: asleep.content.length,
                    idle: idle.then(|| asleep.last_used()),
                })
            }
            State::Awake(driver) => driver.complete().map(|content| Kept {
                id: *id,
                length: content.length,
                idle: None,
            }),
        });
        kept.collect()
    }

    /// Takes a content away, if it may be evicted at this moment.
    pub(in crate::peer) fn take_idle(self: &Arc<Self>, id: &ContentId) -> Option<Evicting> {
        let mut table = self.table();
        let State::Asleep(asleep) = table.contents.get(id)? else {
            return None;
        };
        if !table.is_idle(id, asleep) {
            return None;
        }
        let asleep = Arc::clone(asleep);
        Some(self.take_away(&mut table, asleep))
    }

    /// Takes a content away, if it still sleeps like this.
    pub(in crate::peer) fn take_asleep(self: &Arc<Self>, asleep: &Arc<Asleep>) -> Option<Evicting> {
        let mut table = self.table();
        match table.contents.get(&asleep.content.id)? {
            State::Asleep(present) if Arc::ptr_eq(present, asleep) => {
                Some(self.take_away(&mut table, Arc::clone(asleep)))
            }
            State::Asleep(_) | State::Awake(_) => None,
        }
    }

    fn take_away(self: &Arc<Self>, table: &mut Table, asleep: Arc<Asleep>) -> Evicting {
        let id = asleep.content.id;
        let places = table.places.get(&id).cloned().unwrap_or_default();
        let inbox = Inbox::new();
        let uploads = table.uploads.get(&id).cloned().unwrap_or_default();
        let shared = ContentStatus::shared_in(asleep.geometry(), asleep.content.clone(), uploads);
        let status = StatusSender::new(shared);
        let (holders, _) = Holders::new();
        let handle = DriverHandle {
            role: asleep.role,
            ..self.handle(&inbox, status.subscribe(), holders)
        };
        // It is about to end.
        handle.stop.cancel();
        table.contents.insert(id, State::Awake(Box::new(handle)));
        Evicting {
            asleep,
            places,
            claim: DriverClaim::new(self, id),
            inbox,
            _status: status,
        }
    }
}
