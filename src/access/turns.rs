//! Whose turn it is to have a question asked: so many at a time in all, fewer of each host,
//! and of these fewer still of each member, so that nobody holds up the others with
//! questions that take long.
//!
//! Who waits holds no place of the others: it waits in the line of its member, then in
//! that of its host, and then with at most so many of each host for a place among all. A
//! line that nobody stands in leaves no trace.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};

use super::who::Who;
use crate::protocol::HostKey;
use crate::transport::PeerIdentity;

/// One member has this part of the places of its host: others are often behind the same
/// address.
const MEMBER_SHARE: usize = 2;

/// Gives out turns.
pub(super) struct Turns {
    all: Semaphore,
    per_host: usize,
    per_member: usize,
    lines: Mutex<HashMap<Line, Arc<Semaphore>>>,
}

#[derive(Clone, PartialEq, Eq, Hash)]
enum Line {
    Host(HostKey),
    Member(HostKey, PeerIdentity),
}

/// A turn, given back when it is dropped.
pub(super) struct Turn<'a> {
    _all: SemaphorePermit<'a>,
    _host: Place<'a>,
    _member: Option<Place<'a>>,
}

/// A place in a line, or at its head.
struct Place<'a> {
    turns: &'a Turns,
    line: Line,
    semaphore: Arc<Semaphore>,
    permit: Option<OwnedSemaphorePermit>,
}

impl Turns {
    pub(super) fn new(max: usize, per_host: usize) -> Self {
        let bound = |places: usize| places.clamp(1, Semaphore::MAX_PERMITS);
        Self {
            all: Semaphore::new(bound(max)),
            per_host: bound(per_host),
            per_member: bound(per_host.div_ceil(MEMBER_SHARE)),
            lines: Mutex::default(),
        }
    }

    /// Waits for a turn.
    ///
    /// Cancel safe: who stops waiting leaves the lines.
    pub(super) async fn turn(&self, who: &Who) -> Turn<'_> {
        let host = HostKey::of(&who.remote);
        let member = match who.identity {
            Some(identity) => {
                let line = Line::Member(host.clone(), identity);
                Some(self.place(line, self.per_member).await)
            }
            None => None,
        };
        let host = self.place(Line::Host(host), self.per_host).await;
        Turn {
            // It is never closed.
            _all: self.all.acquire().await.expect("nobody closes it"),
            _host: host,
            _member: member,
        }
    }

    async fn place(&self, line: Line, places: usize) -> Place<'_> {
        let semaphore = {
            let mut lines = self.lines();
            let semaphore = lines.entry(line.clone());
            Arc::clone(semaphore.or_insert_with(|| Arc::new(Semaphore::new(places))))
        };
        let mut place = Place {
            turns: self,
            line,
            semaphore,
            permit: None,
        };
        let permit = Arc::clone(&place.semaphore).acquire_owned().await;
        place.permit = Some(permit.expect("nobody closes it"));
        place
    }

    /// Ignores poison: no change under this lock is left half done.
    fn lines(&self) -> MutexGuard<'_, HashMap<Line, Arc<Semaphore>>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut lines = self.turns.lines();
        self.permit = None;
        // One is in the map, and one is this.
        if Arc::strong_count(&self.semaphore) == 2 {
            lines.remove(&self.line);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn who(identity: Option<&str>, host: u8) -> Who {
        Who {
            identity: identity.map(|name| PeerIdentity::of_public_key(name.as_bytes())),
            remote: format!("10.0.0.{host}:1").parse().unwrap(),
        }
    }

    /// Whether somebody has a turn now.
    fn take<'a>(turns: &'a Turns, identity: Option<&str>, host: u8) -> Option<Turn<'a>> {
        turns.turn(&who(identity, host)).now_or_never()
    }

    #[test]
    fn each_member_and_each_host_have_a_part_of_all_turns() {
        let turns = Turns::new(6, 4);
        let of_a: Vec<_> = (0..3).map_while(|_| take(&turns, Some("a"), 1)).collect();
        assert_eq!(of_a.len(), 2);
        let of_b: Vec<_> = (0..3).map_while(|_| take(&turns, Some("b"), 1)).collect();
        assert_eq!(of_b.len(), 2);
        assert!(take(&turns, Some("c"), 1).is_none());
        // It is another host, which has no identities.
        let others: Vec<_> = (0..5).map_while(|_| take(&turns, None, 2)).collect();
        assert_eq!(others.len(), 2, "six in all");
        assert!(take(&turns, None, 3).is_none());
        drop(of_a);
        assert!(take(&turns, Some("c"), 1).is_some());
        drop((of_b, others));
        assert!(turns.lines().is_empty());
        assert_eq!(turns.all.available_permits(), 6);
    }
}
