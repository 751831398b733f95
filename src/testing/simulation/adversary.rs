//! The kinds of adversaries: peers that keep to the protocol and do harm.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// A kind of adversary: a peer that sends only valid messages, and does harm.
///
/// Each adversary has its own pace: its chunk time is the time that a chunk takes
/// at the upload rate with which it joined. Unless noted otherwise, an adversary
/// knows all honest members that the tracker lists, dials them, accepts every
/// dial, and dials again two chunk times after it was dropped or refused. The
/// tracker lists all kinds except impostors.
///
/// ```
/// use bt_lite::testing::simulation::Adversary;
///
/// assert_eq!("taker".parse(), Ok(Adversary::Taker));
/// assert_eq!(Adversary::Taker.to_string(), "taker");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Adversary {
    /// Claims to have all chunks and never answers a request. Every second one
    /// does not send the manifest either.
    Silent,
    /// Dials another honest member every two chunk times, under the peer id of a
    /// third member; half of these are seeders. It claims in turn to have all
    /// chunks and to have none, sends a false manifest, and keeps the link.
    Impostor,
    /// The tracker lists it as complete, and also several addresses of its host
    /// where nobody answers. It refuses every dial, and dials nobody.
    Squatter,
    /// One of many on one host. It downloads like a leecher and announces its
    /// chunks, but never sends.
    Sybil,
    /// Claims to have nothing for ever, and asks everybody for everything that they
    /// have, again and again. It never sends.
    Taker,
    /// Says that it has nothing, and asks everybody for one chunk after the other. It tells
    /// of each chunk, but only to the peer that sent it: so it seems to lack almost
    /// everything, and to deserve the next turn. It never sends.
    Hider,
    /// Claims to have all chunks, chokes and unchokes every half chunk time, and
    /// drops each link after five chunk times to dial again at once. It never
    /// sends.
    Flapper,
    /// The tracker ranks it first and fills three quarters of its replies with
    /// liars. It claims to have all chunks, and sends one of 64 requested blocks,
    /// starting with the first, at a tenth of its upload rate.
    Liar,
}

/// The error for a text that is not a kind of [`Adversary`].
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("unknown kind of adversary {0:?}")]
pub struct UnknownAdversary(String);

impl Adversary {
    /// All kinds.
    pub const ALL: [Self; 8] = [
        Self::Silent,
        Self::Impostor,
        Self::Squatter,
        Self::Sybil,
        Self::Taker,
        Self::Hider,
        Self::Flapper,
        Self::Liar,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Silent => "silent",
            Self::Impostor => "impostor",
            Self::Squatter => "squatter",
            Self::Sybil => "sybil",
            Self::Taker => "taker",
            Self::Hider => "hider",
            Self::Flapper => "flapper",
            Self::Liar => "liar",
        }
    }
}

impl fmt::Display for Adversary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Adversary {
    type Err = UnknownAdversary;

    fn from_str(text: &str) -> Result<Self, UnknownAdversary> {
        let named = |kind: &Self| kind.name() == text;
        let kind = Self::ALL.into_iter().find(named);
        kind.ok_or_else(|| UnknownAdversary(text.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_parsed_as_they_are_written() {
        for kind in Adversary::ALL {
            assert_eq!(kind.to_string().parse(), Ok(kind));
        }
        for text in ["", "Taker", "takers", " taker"] {
            assert_eq!(
                text.parse::<Adversary>(),
                Err(UnknownAdversary(text.into()))
            );
        }
    }
}
