//! The keys of the store, and what is in them. All keys of one peer are in one hash slot of
//! a cluster, and so are all keys of one content, so that one script may use all of them.
//!
//! A peer belongs to one of [`PEER_SHARDS`] by the host that registered it, and a content
//! to one of [`CONTENT_SHARDS`] by its id. PREFIX is that of the configuration, `PP` and `CC`
//! are the numbers of the shards in hexadecimal, REF is a peer in 16 and ID a content in 64
//! hexadecimal digits.
//!
//! | key | type | what |
//! |---|---|---|
//! | `PREFIX:meta` | hash | `schema`, `store` (its id), `key` (a fingerprint), `founded` (ms) |
//! | `PREFIX:swept` | string | the epoch for which a cluster was looked through, in hexadecimal |
//! | `PREFIX:{pPP}:due` | sorted set | REF by when its lease ends (ms) |
//! | `PREFIX:{pPP}:hosts` | hash | host: how many peers |
//! | `PREFIX:{pPP}:extra` | hash | host: contents beyond the first of each of its peers |
//! | `PREFIX:{pPP}:spent` | hash | host: until when its reports have used what it can have received (ms) |
//! | `PREFIX:{pPP}:sum` | hash | `owned`: how many ownerships |
//! | `PREFIX:{pPP}:REF` | hash | a peer: `host`, `addr`, `family`, `also`, `also_until`, `score`, `bytes`, `reported` (until when its reports have used what it can have received, ms), `rev`, `dead` |
//! | `PREFIX:{pPP}:REF:own` | set | the ids that it owns, 32 bytes each |
//! | `PREFIX:{pPP}:once:NUMBER` | string, expires | a report that was counted |
//! | `PREFIX:{cCC}:sum` | hash | `contents`: how many |
//! | `PREFIX:{cCC}:names` | sorted set | `NAME/ID`, in the order of the names |
//! | `PREFIX:{cCC}:due` | sorted set | `ID/REF` of BitTorrent clients by when their leases end (ms) |
//! | `PREFIX:{cCC}:hosts` | hash | host: how many torrents its BitTorrent clients announce here |
//! | `PREFIX:{cCC}:ID` | hash | `length`, `complete` (how many owners have all), `downloaded` |
//! | `PREFIX:{cCC}:ID:rate` | sorted set | REF by score, of owners that listen |
//! | `PREFIX:{cCC}:ID:own` | hash | REF: [`Entry`] |
//! | `PREFIX:{cCC}:ID:names` | sorted set | the names, by how many owners use them |
//! | `PREFIX:{cCC}:ID:ids` | hash | REF of a BitTorrent client: what it calls itself, and its host |
//! | `PREFIX:{cCC}:ID:used` | hash | REF: the names that it uses, each after a slash |

use crate::content::ContentId;
use crate::protocol::{Addr, OwnerRef};
use crate::tracker::registry::ListenAddr;

/// The version of all this. A store with another one is not touched.
pub(super) const SCHEMA: &str = "2";

/// How many shards of peers there are, as a power of two: so many that a cluster of the
/// usual size shares them evenly, and few enough that all of them are looked at each second.
pub(super) const PEER_SHARD_BITS: u32 = 6;
pub(super) const PEER_SHARDS: u32 = 1 << PEER_SHARD_BITS;

/// How many shards of contents there are. A NEED by name looks into each.
pub(super) const CONTENT_SHARDS: u32 = 16;

/// How many bits of a reference are drawn at random beside its shard: the rest of the number
/// of a peer, and what an [`OwnerRef`] shows of its generation. With a million peers one in
/// a million draws is of one that is taken, and drawn again.
const REF_BITS: u32 = 46;

/// The score of an owner that nobody has measured: below all others.
pub(super) const UNMEASURED: f64 = -1e9;

/// A peer of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct PeerRef(pub(super) u64);

impl PeerRef {
    /// One of these random bits, in a shard.
    pub(super) fn of(random: u64, shard: u32) -> Self {
        let random = random & ((1 << REF_BITS) - 1);
        Self(random >> PEER_SHARD_BITS << PEER_SHARD_BITS | u64::from(shard))
    }

    /// One whose number and generation are given.
    pub(super) fn of_parts(number: u32, generation: u32) -> Option<Self> {
        let both = u64::from(generation) << u32::BITS | u64::from(number);
        (both >> REF_BITS == 0).then_some(Self(both))
    }

    /// That of one who announces as BitTorrent clients do, which has no other place than the
    /// content: always the same one for what makes these random bits.
    #[cfg(feature = "bittorrent")]
    pub(super) fn of_announcer(random: u64) -> Self {
        Self(random & ((1 << REF_BITS) - 1))
    }

    pub(super) fn parse(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?;
        let number = u64::from_str_radix(text, 16).ok()?;
        (number >> REF_BITS == 0).then_some(Self(number))
    }

    pub(super) fn number(self) -> u32 {
        self.0 as u32
    }

    pub(super) fn generation(self) -> u32 {
        (self.0 >> u32::BITS) as u32
    }

    pub(super) fn owner_ref(self) -> OwnerRef {
        OwnerRef(self.0)
    }

    pub(super) fn shard(self) -> u32 {
        self.0 as u32 % PEER_SHARDS
    }

    pub(super) fn text(self) -> String {
        format!("{:016x}", self.0)
    }
}

/// Makes the names of keys.
#[derive(Debug, Clone)]
pub(super) struct Keys {
    prefix: String,
}

impl Keys {
    pub(super) fn new(prefix: &str) -> Self {
        Self {
            prefix: prefix.to_owned(),
        }
    }

    pub(super) fn meta(&self) -> String {
        format!("{}:meta", self.prefix)
    }

    pub(super) fn swept(&self) -> String {
        format!("{}:swept", self.prefix)
    }

    /// A key that all peers of a shard share.
    pub(super) fn of_peers(&self, shard: u32, what: &str) -> String {
        format!("{}:{{p{shard:02x}}}:{what}", self.prefix)
    }

    pub(super) fn peer(&self, peer: PeerRef) -> String {
        self.of_peers(peer.shard(), &peer.text())
    }

    pub(super) fn own(&self, peer: PeerRef) -> String {
        self.of_peers(peer.shard(), &format!("{}:own", peer.text()))
    }

    pub(super) fn once(&self, peer: PeerRef, number: u64) -> String {
        self.of_peers(peer.shard(), &format!("once:{number:016x}"))
    }

    /// A key that all contents of a shard share.
    pub(super) fn of_contents(&self, shard: u32, what: &str) -> String {
        format!("{}:{{c{shard:02x}}}:{what}", self.prefix)
    }

    /// The key of a content, and with endings those of what belongs to it.
    pub(super) fn content(&self, id: &ContentId, ending: &str) -> String {
        let shard = u32::from(id.as_bytes()[0]) % CONTENT_SHARDS;
        self.of_contents(shard, &format!("{id}{ending}"))
    }

    /// The content of which this is the key of the owners.
    pub(super) fn content_of_owners(&self, key: &str) -> Option<ContentId> {
        let (_, id) = key.strip_suffix(":own")?.rsplit_once(':')?;
        let id = id.parse().ok()?;
        (self.content(&id, ":own") == key).then_some(id)
    }

    /// Those that one who announces a torrent as BitTorrent clients do changes by that.
    #[cfg(feature = "bittorrent")]
    pub(super) fn of_announcer(&self, id: &ContentId) -> [String; 7] {
        let [info, rate, owners, _, _, sum, due, hosts, ids] = self.of_departing(id);
        [info, rate, owners, sum, due, hosts, ids]
    }

    /// Those that change when it departs.
    pub(super) fn of_departing(&self, id: &ContentId) -> [String; 9] {
        let [info, rate, owners, names, used, _, sum] = self.all_of_content(id);
        let shard = u32::from(id.as_bytes()[0]) % CONTENT_SHARDS;
        let due = self.of_contents(shard, "due");
        let hosts = self.of_contents(shard, "hosts");
        let ids = self.content(id, ":ids");
        [info, rate, owners, names, used, sum, due, hosts, ids]
    }

    /// Seven keys, as the scripts of contents that change something take them.
    pub(super) fn all_of_content(&self, id: &ContentId) -> [String; 7] {
        let shard = u32::from(id.as_bytes()[0]) % CONTENT_SHARDS;
        [
            self.content(id, ""),
            self.content(id, ":rate"),
            self.content(id, ":own"),
            self.content(id, ":names"),
            self.content(id, ":used"),
            self.of_contents(shard, "names"),
            self.of_contents(shard, "sum"),
        ]
    }
}

/// What the list of a content has of an owner: one digit that tells whether it has all of
/// it, the revision of the peer in 8 hexadecimal digits, its address, a line feed, and the
/// address of its other family. An address that it does not have is empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) complete: bool,
    pub(super) addr: Option<ListenAddr>,
    pub(super) also: Option<ListenAddr>,
}

impl Entry {
    /// What is in an entry. `None` if it is none.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?;
        let (complete, rest) = text.split_at_checked(1)?;
        let (_, addrs) = rest.split_at_checked(8)?;
        let (addr, also) = addrs.split_once('\n')?;
        Some(Self {
            complete: complete == "1",
            addr: listen_addr(addr.as_bytes()),
            also: listen_addr(also.as_bytes()),
        })
    }
}

/// The revision in the entries of those that announce as BitTorrent clients do: they are in no
/// shard of peers.
const ANNOUNCED: &str = "ffffffff";

/// The entry of such a one, behind its first digit.
#[cfg(feature = "bittorrent")]
pub(super) fn entry_of_announcer(addr: &str) -> String {
    format!("{ANNOUNCED}{addr}\n")
}

/// Whether an entry is of such a one.
pub(super) fn is_of_announcer(entry: &[u8]) -> bool {
    entry.get(1..9) == Some(ANNOUNCED.as_bytes())
}

/// The part of an entry that follows from the peer.
pub(super) fn entry_of_peer(revision: u64, addr: &[u8], also: &[u8]) -> Vec<u8> {
    let mut entry = format!("{:08x}", revision as u32).into_bytes();
    entry.extend_from_slice(addr);
    entry.push(b'\n');
    entry.extend_from_slice(also);
    entry
}

/// An address, as the store has it.
pub(super) fn listen_addr(text: &[u8]) -> Option<ListenAddr> {
    let text = std::str::from_utf8(text).ok()?;
    let addr: Addr = text.parse().ok()?;
    Some(ListenAddr::from(&addr))
}

/// The text of an address, and the digit of its family. Nothing if there is none.
pub(super) fn addr_text(addr: Option<&ListenAddr>) -> (String, &'static str) {
    match addr {
        None => (String::new(), ""),
        Some(addr) => {
            let text = addr.addr();
            let family = match text.socket_addr() {
                None => "",
                Some(socket) if socket.is_ipv4() => "4",
                Some(_) => "6",
            };
            (text.as_str().to_owned(), family)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_keep_their_shard_and_come_back() {
        for random in [0, 1, 77, u64::MAX, 0x1234_5678_9abc_def0] {
            for shard in [0, 1, 63] {
                let peer = PeerRef::of(random, shard);
                assert_eq!(peer.shard(), shard);
                assert_eq!(PeerRef::parse(peer.text().as_bytes()), Some(peer));
                let parts = (peer.number(), peer.generation());
                assert_eq!(PeerRef::of_parts(parts.0, parts.1), Some(peer));
            }
        }
        assert_eq!(PeerRef::of_parts(1, 1 << 14), None);
        assert_eq!(PeerRef::parse(b"ffffffffffffffff"), None);
    }

    #[test]
    fn keys_of_owners_name_their_content_and_others_do_not() {
        let (keys, id) = (Keys::new("t"), ContentId::of(b"x"));
        let key = keys.content(&id, ":own");
        assert_eq!(keys.content_of_owners(&key), Some(id));
        let others = [
            keys.own(PeerRef::of(999, 7)),
            keys.content(&id, ":names"),
            Keys::new("other").content(&id, ":own"),
        ];
        assert!(
            others
                .iter()
                .all(|key| keys.content_of_owners(key).is_none())
        );
    }

    #[test]
    fn keys_of_one_content_and_of_one_peer_share_a_hash_slot() {
        let keys = Keys::new("t");
        let tag = |key: &str| key[key.find('{').unwrap()..=key.find('}').unwrap()].to_owned();
        let id = ContentId::of(b"x");
        let of_content = keys.all_of_content(&id);
        assert!(of_content.iter().all(|key| tag(key) == tag(&of_content[0])));
        let peer = PeerRef::of(999, 7);
        let of_departing = keys.of_departing(&id);
        assert!(
            of_departing
                .iter()
                .all(|key| tag(key) == tag(&of_content[0]))
        );
        let of_peer = [
            keys.peer(peer),
            keys.own(peer),
            keys.once(peer, 5),
            keys.of_peers(7, "due"),
        ];
        assert!(of_peer.iter().all(|key| tag(key) == "{p07}"));
    }

    #[test]
    fn entries_come_back_and_others_are_none() {
        let addr = |text: &str| listen_addr(text.as_bytes());
        for (first, also) in [
            ("1.2.3.4:5", ""),
            ("", ""),
            ("1.2.3.4:5", "[2001:db8::1]:7"),
        ] {
            let mut bytes = b"1".to_vec();
            bytes.extend(entry_of_peer(3, first.as_bytes(), also.as_bytes()));
            let entry = Entry {
                complete: true,
                addr: addr(first),
                also: addr(also),
            };
            assert_eq!(Entry::parse(&bytes), Some(entry));
        }
        for wrong in ["", "1", "10000000", "100000000", "\u{e4}00000000\n"] {
            assert_eq!(Entry::parse(wrong.as_bytes()), None, "{wrong:?}");
        }
    }
}
