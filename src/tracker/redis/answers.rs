//! Chooses owners for an answer to NEED, as the registry in memory does: those that the
//! store has drawn become the list of a content for as long as it is answered, so that the
//! choice, the families of addresses and what each asker can reach are decided by the same
//! code.

#[cfg(feature = "bittorrent")]
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use redis::Value;

use super::schema::{Entry, PeerRef, UNMEASURED};
use super::values::{bytes, float, number, parts, text};
use crate::content::{ContentId, ContentName};
use crate::protocol::{Addr, Refusal};
#[cfg(feature = "bittorrent")]
use crate::tracker::registry::Announcer;
use crate::tracker::registry::{
    Asker, Begun, Catalog, PeerListing, RegistryConfig, Settings, Viewpoint,
};

/// How many owners more than are wanted the store draws of the fastest, as some of them may
/// not be fit: so many that a host with many peers behind one address does not fill them.
pub(super) const SPARE: usize = 16;

/// At how many levels of speed the store looks for the fastest. Each is a factor of two.
pub(super) const LEVELS: u64 = 12;

/// What the store has drawn of a content.
#[derive(Debug)]
pub(super) struct Drawn {
    pub(super) length: u64,
    /// The name that most owners use.
    pub(super) name: Option<ContentName>,
    owners: Vec<Candidate>,
}

#[derive(Debug)]
struct Candidate {
    peer: PeerRef,
    score: f64,
    entry: Entry,
}

impl Drawn {
    /// What the script has answered. `None` if nobody has the content. What is not
    /// understood is left out.
    pub(super) fn parse(value: &Value) -> Option<Self> {
        let [length, name, refs, scores, entries] = parts(value) else {
            return None;
        };
        let owners = parts(refs).iter().zip(parts(scores)).zip(parts(entries));
        let owners = owners.filter_map(|((peer, score), entry)| {
            Some(Candidate {
                peer: PeerRef::parse(bytes(peer)?)?,
                score: float(score).unwrap_or(UNMEASURED),
                entry: Entry::parse(bytes(entry)?)?,
            })
        });
        Some(Self {
            length: number(length)?,
            name: text(name).and_then(|name| name.parse().ok()),
            owners: owners.collect(),
        })
    }
}

/// What one NEED is about.
pub(super) struct Question<'a> {
    pub(super) id: &'a ContentId,
    /// The name by which was asked, if it was by name.
    pub(super) name: Option<&'a ContentName>,
    pub(super) asker: &'a Asker,
    /// Where it came from, and where it reached the tracker.
    pub(super) from: (&'a Addr, Option<&'a Addr>),
    /// How many of the fastest owners are wanted, and how many others.
    pub(super) wanted: (usize, usize),
    pub(super) seed: u64,
}

/// Chooses owners. Several threads may do so at once.
pub(super) struct Chooser {
    settings: Settings,
    key: [u8; 32],
    /// Catalogs that are not in use, all of them empty. As many as threads have been here at
    /// once.
    idle: Mutex<Vec<Catalog>>,
}

/// Does not show the key.
impl std::fmt::Debug for Chooser {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Chooser(..)")
    }
}

impl Chooser {
    pub(super) fn new(config: RegistryConfig, key: &[u8; 32]) -> Self {
        Self {
            settings: Settings::new(config, key, 0, 0),
            key: *key,
            idle: Mutex::default(),
        }
    }

    /// Writes the answer to a NEED, without these owners.
    pub(super) fn answer(
        &self,
        now: Instant,
        drawn: &Drawn,
        question: &Question<'_>,
        is_left_out: impl Fn(PeerRef) -> bool,
        out: &mut Vec<u8>,
    ) -> Result<(), Refusal> {
        let Question {
            id,
            asker,
            from: (source, local),
            wanted,
            ..
        } = *question;
        self.with_list(drawn, id, is_left_out, |catalog, hash| {
            let mut viewpoint = Viewpoint::new(source, local);
            let search = catalog.search(hash, id, wanted, question.seed);
            let name = question.name.or(drawn.name.as_ref());
            catalog.answer(now, id, search, (asker, &mut viewpoint), name, out)
        })
    }

    /// Others for one who announces as BitTorrent clients do.
    #[cfg(feature = "bittorrent")]
    pub(super) fn others(
        &self,
        drawn: &Drawn,
        id: &ContentId,
        announcer: &Announcer<'_>,
    ) -> Vec<(SocketAddr, PeerRef)> {
        let others = self.with_list(
            drawn,
            id,
            |_| false,
            |catalog, hash| catalog.others(hash, id, announcer),
        );
        let others = others.into_iter();
        others
            .map(|(addr, owner)| (addr, PeerRef(owner.0)))
            .collect()
    }

    /// Has a catalog that knows what was drawn, and nothing else. The hash of the content goes
    /// with it.
    fn with_list<T>(
        &self,
        drawn: &Drawn,
        id: &ContentId,
        is_left_out: impl Fn(PeerRef) -> bool,
        ask: impl FnOnce(&mut Catalog, u64) -> T,
    ) -> T {
        let idle = self.idle().pop();
        let mut catalog = idle.unwrap_or_else(|| Catalog::new(&self.settings, &self.key, 0));
        let (hash, _) = self.settings.locate(id);
        // One that does not listen, so that the content is there if nobody does.
        let nobody = PeerListing::of_ref(PeerRef(0).owner_ref(), UNMEASURED, None, None);
        let begun = |complete| Begun {
            id: *id,
            length: drawn.length,
            complete,
        };
        let mut held = vec![catalog.begin((hash, None), begun(false), &nobody)];
        let known = catalog.by_id(hash, id);
        let owners = drawn.owners.iter();
        for owner in owners.filter(|owner| !is_left_out(owner.peer)) {
            let entry = &owner.entry;
            let (addr, also) = (entry.addr.clone(), entry.also.clone());
            let listing = PeerListing::of_ref(owner.peer.owner_ref(), owner.score, addr, also);
            held.push(catalog.begin((hash, known), begun(entry.complete), &listing));
        }
        let outcome = ask(&mut catalog, hash);
        for held in held {
            catalog.disown(held, 0);
        }
        self.idle().push(catalog);
        outcome
    }

    /// Ignores poison: a catalog that a panic has left is not put back.
    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Catalog>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
