//! What a peer and a tracker say to each other: REGISTER, OWN, NEED, UPDATE
//! and EXIT, each answered in the order of asking on its connection.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::Addr;
use crate::content::{ContentId, ContentName, NameError};

/// Proves that a message comes from the peer that registered: 128 bits that
/// are not to be guessed. Its `Debug` output hides it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Token(pub [u8; 16]);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

/// How a tracker calls an owner towards others, for UPDATE. Known to
/// everybody, and proof of nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OwnerRef(pub u64);

/// By what a content is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ContentKey {
    /// By what it is: always exact.
    Id(ContentId),
    /// By what people call it.
    Name(ContentName),
}

impl fmt::Display for ContentKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => id.fmt(f),
            Self::Name(name) => name.fmt(f),
        }
    }
}

impl From<ContentId> for ContentKey {
    fn from(id: ContentId) -> Self {
        Self::Id(id)
    }
}

impl From<ContentName> for ContentKey {
    fn from(name: ContentName) -> Self {
        Self::Name(name)
    }
}

impl FromStr for ContentKey {
    type Err = NameError;

    /// Reads 64 hexadecimal digits as an id, and any other text as a name.
    fn from_str(text: &str) -> Result<Self, NameError> {
        match text.parse() {
            Ok(id) => Ok(Self::Id(id)),
            Err(_) => text.parse().map(Self::Name),
        }
    }
}

impl TryFrom<&str> for ContentKey {
    type Error = NameError;

    fn try_from(text: &str) -> Result<Self, NameError> {
        text.parse()
    }
}

impl TryFrom<String> for ContentKey {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

/// How much of a content a peer has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OwnState {
    /// All of it: a seeder.
    Complete,
    /// Some of it: a leecher.
    Partial,
    /// Nothing any more: it is taken off the list.
    Gone,
}

/// One content in an OWN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnEntry {
    /// What it is.
    pub id: ContentId,
    /// What its owner calls it.
    pub name: ContentName,
    /// Its length in bytes.
    pub length: u64,
    /// How much of it the peer has.
    pub state: OwnState,
}

/// One upload in an UPDATE: reported by the peer that received the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Upload {
    /// Who sent them.
    pub owner: OwnerRef,
    /// How many verified bytes came since the last report.
    pub bytes: u64,
}

/// Everything that a peer asks of a tracker.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum TrackerRequest {
    /// I am here; with a token, I am still here.
    Register {
        /// Where the peer listens, if it does; an unspecified IP is filled in
        /// from the connection.
        listen: Option<Addr>,
        /// The token from the last REGISTER, in a heartbeat.
        token: Option<Token>,
    },
    /// I own these contents.
    Own {
        /// Who speaks.
        token: Token,
        /// At most [`MAX_BATCH`](super::limits::MAX_BATCH).
        entries: Vec<OwnEntry>,
    },
    /// Who owns this?
    Need {
        /// Who asks.
        token: Token,
        /// What for.
        key: ContentKey,
        /// How many owners are wanted at the most; the tracker's own bound
        /// holds as well.
        max_owners: u16,
    },
    /// These owners sent me so many bytes.
    Update {
        /// Who speaks.
        token: Token,
        /// At most [`MAX_BATCH`](super::limits::MAX_BATCH).
        uploads: Vec<Upload>,
    },
    /// I leave.
    Exit {
        /// Who speaks.
        token: Token,
    },
}

/// The answer to REGISTER.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registered {
    /// Proves every later message.
    pub token: Token,
    /// Another one after each start of the tracker.
    pub epoch: u64,
    /// How often to REGISTER again.
    pub heartbeat: Duration,
    /// The address under which the tracker lists the peer.
    pub listed: Option<Addr>,
}

/// One owner in the answer to NEED.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedOwner {
    /// How to name it in UPDATE.
    pub owner: OwnerRef,
    /// Where to reach it.
    pub addr: Addr,
    /// Whether it has all of the content.
    pub complete: bool,
}

/// The answer to NEED.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// What the content is.
    pub id: ContentId,
    /// What it is called (as asked for, or as an owner calls it).
    pub name: ContentName,
    /// Its length in bytes, as an owner says. Only the manifest proves it.
    pub length: u64,
    /// Some of its owners, the best ones mostly; never the asker.
    pub owners: Vec<ListedOwner>,
}

/// Everything that a tracker answers.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum TrackerReply {
    /// To REGISTER.
    Registered(Registered),
    /// To OWN, UPDATE and EXIT: all of it.
    Done,
    /// To OWN: what was refused of it, by the place in the request, each place
    /// at most once and in their order. All else was done.
    Partly(Vec<RefusedEntry>),
    /// To NEED.
    Found(Found),
    /// To NEED by a name that several contents bear: their ids and lengths, at
    /// most [`MAX_AMBIGUOUS`](super::limits::MAX_AMBIGUOUS).
    Ambiguous(Vec<(ContentId, u64)>),
    /// To anything: no, and why.
    Refused(Refusal),
}

/// One entry of OWN that was refused, or done without its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedEntry {
    /// Its place in the request, from 0 on.
    pub at: u16,
    /// Why. [`Refusal::is_of_name`] tells whether only the name was refused.
    pub refusal: Refusal,
}

/// Why a tracker refuses. A refusal harms only the asker.
#[derive(Debug, Clone, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The token is not known here (any more): register again, then own again.
    #[error("not registered here, or no longer")]
    UnknownToken,
    /// Nobody has said to own such a content.
    #[error("no such content is known here")]
    UnknownContent,
    /// The listening address is of another host than the connection.
    #[error("the listening address {addr} is not of the host that registers it")]
    ForeignAddress {
        /// The refused address.
        addr: Addr,
    },
    /// As many peers are registered from this host as one host may have.
    #[error("this host has {max} peers registered, which is the most")]
    PeersPerHost {
        /// The bound.
        max: u32,
    },
    /// As many peers are registered as this tracker takes.
    #[error("this tracker has {max} peers, which is the most")]
    Peers {
        /// The bound.
        max: u32,
    },
    /// The peer owns as many contents as one peer may.
    #[error("this peer owns {max} contents, which is the most")]
    ContentsPerPeer {
        /// The bound.
        max: u32,
    },
    /// The content has as many owners as this tracker lists.
    #[error("this content has {max} owners, which is the most")]
    OwnersPerContent {
        /// The bound.
        max: u32,
    },
    /// As many contents are listed as this tracker takes.
    #[error("this tracker lists {max} contents, which is the most")]
    Contents {
        /// The bound.
        max: u32,
    },
    /// The content has as many names as one content may, or as one host may
    /// give it. It is listed by its id.
    #[error("this content has {max} names, which is the most")]
    NamesPerContent {
        /// The bound.
        max: u32,
    },
    /// The name stands for as many contents as one name may, or as one host may
    /// give it to. The content is listed by its id.
    #[error("this name stands for {max} contents, which is the most")]
    ContentsPerName {
        /// The bound.
        max: u32,
    },
    /// The peers of this host own so many contents that it may bring no new one.
    #[error("this host has brought {max} contents, which is the most")]
    ContentsPerHost {
        /// The bound.
        max: u32,
    },
    /// The peers of this host own as many contents as those of one host may.
    #[error("the peers of this host own {max} contents, which is the most")]
    OwnershipsPerHost {
        /// The bound.
        max: u32,
    },
    /// As many ownerships are listed as this tracker takes.
    #[error("this tracker lists {max} ownerships, which is the most")]
    Ownerships {
        /// The bound.
        max: u32,
    },
    /// The request cannot be read.
    #[error("the request is malformed, or of another version")]
    Malformed,
    /// The tracker takes no more connections at present.
    #[error("the tracker is busy")]
    Busy,
    /// The tracker stops.
    #[error("the tracker is shutting down")]
    ShuttingDown,
}

impl Refusal {
    /// Whether only the name of an OWN entry was refused: the content is listed
    /// by its id all the same.
    pub fn is_of_name(&self) -> bool {
        matches!(
            self,
            Self::NamesPerContent { .. } | Self::ContentsPerName { .. }
        )
    }
}
