//! The kinds of strangers who keep to the protocol and harm.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// A kind of adversary: it sends valid messages only, and is no good.
///
/// Each lives at its own pace: its chunk time is the time of a chunk at the
/// upload rate with which it joined. Where nothing else is said, it knows all
/// honest members that the tracker lists, dials them, takes whoever dials it,
/// and dials again two chunk times after it was dropped or refused. The
/// tracker lists all but impostors.
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
    /// Says that it has all, and never answers a request. Every other one
    /// does not answer for the manifest either.
    Silent,
    /// Dials another honest member every two chunk times, under the name of a
    /// third one, half of them seeders. It says in turns that it has all and
    /// that it has nothing, shows a false manifest, and stays.
    Impostor,
    /// The tracker lists it as complete, and several more addresses of its
    /// host where nobody answers. It refuses whoever dials it, and dials
    /// nobody.
    Squatter,
    /// One of many on one host: takes what it is given, says so, and never
    /// sends.
    Sybil,
    /// Says for ever that it has nothing, and asks everybody for all that
    /// they have, again and again. Never sends.
    Taker,
    /// Says that it has all, chokes and unchokes every half of a chunk time,
    /// and drops each link after five, to dial again at once. Never sends.
    Flapper,
    /// The tracker ranks it first, and names those of its kind for three of
    /// four places. It says that it has all, and sends one block of 64 that it
    /// is asked for, the first among them, at a tenth of its upload rate.
    Liar,
}

/// Why a text is no [`Adversary`].
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0:?} is no kind of adversary")]
pub struct UnknownAdversary(String);

impl Adversary {
    /// All kinds.
    pub const ALL: [Self; 7] = [
        Self::Silent,
        Self::Impostor,
        Self::Squatter,
        Self::Sybil,
        Self::Taker,
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
    fn kinds_are_read_as_they_are_written() {
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
