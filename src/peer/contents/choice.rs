//! What is wanted of a content of which only a part may be, and whether that is here.

use tokio::sync::watch;

use crate::content::Bitfield;

/// What is wanted of a content.
#[derive(Debug)]
pub(in crate::peer) struct Choice(watch::Sender<State>);

#[derive(Debug, Default)]
struct State {
    /// How often it has changed.
    version: u64,
    wanted: Wanted,
    is_here: bool,
}

/// What is wanted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(in crate::peer) enum Wanted {
    #[default]
    All,
    /// These chunks.
    Part(Bitfield),
    /// Nothing for the time being: the download waits until something is.
    Nothing(Bitfield),
}

impl Wanted {
    /// The chunks, if not all are wanted.
    fn chunks(&self) -> Option<&Bitfield> {
        match self {
            Self::All => None,
            Self::Part(chunks) | Self::Nothing(chunks) => Some(chunks),
        }
    }
}

/// What a driver does about it.
pub(in crate::peer) struct Follower {
    news: watch::Receiver<State>,
    /// What the machine is set to.
    version: u64,
}

impl Choice {
    /// All is wanted, until something else is [set](Self::set).
    pub(in crate::peer) fn new() -> Self {
        Self(watch::Sender::default())
    }

    /// From now on this is wanted. Nobody takes what is here for it until a driver has looked.
    pub(in crate::peer) fn set(&self, wanted: Wanted) {
        self.0.send_modify(|state| {
            state.version += 1;
            state.wanted = wanted;
            state.is_here = false;
        });
    }

    /// All of this version is here, and published. Returns whether somebody waits for that:
    /// not if something else is wanted by now.
    pub(in crate::peer) fn is_here(&self, version: u64) -> bool {
        self.0.send_if_modified(|state| {
            let is_part = matches!(state.wanted, Wanted::Part(_));
            let is_news = state.version == version && is_part && !state.is_here;
            state.is_here |= is_news;
            is_news
        })
    }

    /// Whether a part is wanted, and all of it is here.
    pub(in crate::peer) fn rests(&self) -> bool {
        self.0.borrow().is_here
    }

    /// Waits until that is so.
    ///
    /// Cancel safe.
    pub(in crate::peer) async fn here(&self) {
        // The sender is here.
        let _ = self.0.subscribe().wait_for(|state| state.is_here).await;
    }

    /// Who does what it says.
    pub(in crate::peer) fn follower(&self) -> Follower {
        let mut news = self.0.subscribe();
        news.mark_changed();
        Follower { news, version: 0 }
    }
}

impl Follower {
    /// What is wanted by now, if that is news: chunks, or all.
    pub(in crate::peer) fn news(&mut self) -> Option<Option<Bitfield>> {
        if !self.news.has_changed().unwrap_or(false) {
            return None;
        }
        let state = self.news.borrow_and_update();
        let is_news = state.version != self.version;
        self.version = state.version;
        is_news.then(|| state.wanted.chunks().cloned())
    }

    /// Which version the machine is set to.
    pub(in crate::peer) fn version(&self) -> u64 {
        self.version
    }

    /// Waits until there may be news.
    ///
    /// Cancel safe.
    pub(in crate::peer) async fn changed(&mut self) {
        if self.news.changed().await.is_err() {
            std::future::pending().await
        }
        self.news.mark_changed();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_wanted_before_is_not_taken_for_what_is() {
        let choice = Choice::new();
        let mut follower = choice.follower();
        assert_eq!(follower.news(), None, "all is wanted anyway");
        let chunks = Bitfield::none(3);
        choice.set(Wanted::Part(chunks.clone()));
        assert_eq!(follower.news(), Some(Some(chunks.clone())));
        let before = follower.version();
        choice.set(Wanted::Part(Bitfield::all(3)));
        assert!(!choice.is_here(before) && !choice.rests());
        assert_eq!(follower.news(), Some(Some(Bitfield::all(3))));
        assert!(choice.is_here(follower.version()) && choice.rests());
        assert!(!choice.is_here(follower.version()), "once");
        choice.set(Wanted::Nothing(chunks));
        assert!(!choice.rests());
        follower.news();
        assert!(!choice.is_here(follower.version()), "nothing is no part");
        choice.set(Wanted::All);
        assert_eq!(follower.news(), Some(None));
        assert!(!choice.is_here(follower.version()));
    }
}
