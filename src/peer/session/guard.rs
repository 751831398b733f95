//! Asks whether the other side of a session may be there, and may fetch what it asks for.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use crate::access::{AccessAction, AccessContent, AccessGate, Changes, Standing, Verdict, Who};
use crate::content::{ContentId, ContentName};
use crate::peer::contents::table::Contents;
use crate::peer::folders::table::FolderTable;
use crate::protocol::Addr;
use crate::transport::{Connection, PeerIdentity, Whereabouts};

/// Asks for one peer, if it has a policy.
pub(in crate::peer) struct Guard {
    gate: Option<Arc<AccessGate>>,
    contents: Arc<Contents>,
    folders: Arc<FolderTable>,
}

impl Guard {
    pub(in crate::peer) fn new(
        gate: Option<Arc<AccessGate>>,
        contents: Arc<Contents>,
        folders: Arc<FolderTable>,
    ) -> Arc<Self> {
        Arc::new(Self {
            gate,
            contents,
            folders,
        })
    }

    /// Has everything asked again.
    pub(in crate::peer) fn refresh(&self) {
        if let Some(gate) = &self.gate {
            gate.refresh();
        }
    }

    /// Tells of each change of what is allowed. `None` if nothing is asked.
    pub(in crate::peer) fn changes(&self) -> Option<Changes> {
        self.gate.as_ref().map(|gate| gate.changes())
    }

    /// Asks about one session, from now on. `None` if nothing is asked.
    pub(super) fn of(self: &Arc<Self>, connection: &Connection) -> Option<SessionGuard> {
        let gate = Arc::clone(self.gate.as_ref()?);
        Some(SessionGuard {
            guard: Arc::clone(self),
            gate,
            identity: connection.identity,
            whereabouts: connection.whereabouts(),
            opened: Notify::new(),
        })
    }

    /// What a content is asked about as: itself, and the folders that it is a file of.
    fn asked_as(&self, id: &ContentId) -> Vec<(ContentId, Option<ContentName>)> {
        let mut asked = Vec::new();
        let name = |id: &ContentId| {
            let folder = self.folders.get(id).map(|(folder, _)| folder.name);
            folder.or_else(|| self.contents.known_name(id))
        };
        for folder in self.folders.of_file(id) {
            let name = name(&folder);
            asked.push((folder, name));
        }
        if asked.is_empty() || self.contents.is_alone(id) {
            asked.push((*id, name(id)));
        }
        asked
    }
}

/// Asks about the other side of one session.
pub(super) struct SessionGuard {
    guard: Arc<Guard>,
    gate: Arc<AccessGate>,
    identity: Option<PeerIdentity>,
    whereabouts: Whereabouts,
    /// A link was opened, which is asked about from now on.
    opened: Notify,
}

/// What was answered about a link that is to be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MayOpen {
    Yes,
    No,
    /// The policy cannot tell.
    Unknown,
}

impl SessionGuard {
    /// Whether there may be a session.
    ///
    /// Cancel safe.
    pub(super) async fn may_connect(&self) -> Verdict {
        let who = self.who();
        self.gate.check(&who, AccessAction::Connect, None).await
    }

    /// Whether there may be a link about a content, whether that is here or not. Call
    /// [`opened`](Self::opened) when there is one.
    ///
    /// Cancel safe.
    pub(super) async fn may_open(&self, id: &ContentId) -> MayOpen {
        match self.may_fetch(id).await {
            Verdict::Allowed(_) => MayOpen::Yes,
            Verdict::Denied => MayOpen::No,
            Verdict::Unknown => MayOpen::Unknown,
        }
    }

    /// There is a link, or there is one again. It is asked about at once: the answer with
    /// which it was opened may be from before a change.
    pub(super) fn opened(&self) {
        self.opened.notify_one();
    }

    /// Who it is, and where by now.
    fn who(&self) -> Who {
        Who {
            identity: self.identity,
            remote: self.whereabouts.now(),
        }
    }

    /// Asks about everything that the content may be fetched as. One is enough, and the
    /// others are not waited for then.
    async fn may_fetch(&self, id: &ContentId) -> Verdict {
        let who = self.who();
        let asked = self.guard.asked_as(id);
        let mut verdicts: FuturesUnordered<_> = asked
            .iter()
            .map(|(id, name)| {
                let content = AccessContent::new(*id, name.as_ref());
                self.gate.check(&who, AccessAction::Fetch, Some(content))
            })
            .collect();
        let mut all = Verdict::Denied;
        while let Some(verdict) = verdicts.next().await {
            match verdict {
                Verdict::Allowed(_) => return verdict,
                Verdict::Unknown => all = Verdict::Unknown,
                Verdict::Denied => {}
            }
        }
        all
    }

    /// Watches the session and its links from now on.
    pub(super) fn watch(&self) -> Watch<'_> {
        Watch {
            guard: self,
            changes: self.gate.changes(),
            there: self.whereabouts.now(),
            asked_about: BTreeMap::from([(Subject::Session, AskedAbout::new())]),
            asking: FuturesUnordered::new(),
        }
    }
}

/// What is asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Subject {
    Session,
    /// The links about this content.
    Links(ContentId),
}

/// Asks about a session and its links again and again, about each by itself: one that takes
/// long holds up none of the others.
pub(super) struct Watch<'a> {
    guard: &'a SessionGuard,
    changes: Changes,
    /// Where the other side was when it was last asked about.
    there: Addr,
    asked_about: BTreeMap<Subject, AskedAbout>,
    asking: FuturesUnordered<BoxFuture<'a, (Subject, Verdict)>>,
}

struct AskedAbout {
    /// When to ask again, unless it is being asked.
    due: Instant,
    is_asking: bool,
    /// Something has changed since it was asked.
    again: bool,
    standing: Standing,
}

impl AskedAbout {
    fn new() -> Self {
        Self {
            due: Instant::now(),
            is_asking: false,
            again: false,
            standing: Standing::default(),
        }
    }
}

impl Watch<'_> {
    /// Waits until something may not be any more. `open` names the contents of the links.
    /// Asks at once about what is new, and then whenever something may have changed.
    ///
    /// Cancel safe.
    pub(super) async fn next(&mut self, open: impl Fn() -> Vec<ContentId>) -> Subject {
        let mut follow = true;
        loop {
            if follow {
                self.follow(open());
            }
            follow = true;
            let due = self.ask_what_is_due();
            let over = async {
                match due {
                    Some(due) => sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            let guard = self.guard;
            tokio::select! {
                Some((subject, verdict)) = self.asking.next(), if !self.asking.is_empty() => {
                    follow = false;
                    if self.has_ended(subject, verdict) {
                        return subject;
                    }
                }
                () = self.changes.changed() => self.ask_again(),
                () = guard.whereabouts.moved_from(&self.there) => {
                    self.there = guard.whereabouts.now();
                    self.ask_again();
                }
                () = guard.opened.notified() => {}
                () = over => {}
            }
        }
    }

    /// Asks about these links from now on, and about no others.
    fn follow(&mut self, open: Vec<ContentId>) {
        // Most often nothing has changed.
        let is_same = self.asked_about.len() == open.len() + 1
            && open
                .iter()
                .all(|id| self.asked_about.contains_key(&Subject::Links(*id)));
        if is_same {
            return;
        }
        let mut before = std::mem::take(&mut self.asked_about);
        let links = open.into_iter().map(Subject::Links);
        for subject in links.chain([Subject::Session]) {
            let known = before.remove(&subject);
            self.asked_about
                .insert(subject, known.unwrap_or_else(AskedAbout::new));
        }
    }

    /// Asks about all that is due. Returns when the next one is.
    fn ask_what_is_due(&mut self) -> Option<Instant> {
        let (now, mut next) = (Instant::now(), None::<Instant>);
        for (subject, about) in &mut self.asked_about {
            if about.is_asking {
                continue;
            }
            if about.due > now {
                next = Some(next.map_or(about.due, |next| next.min(about.due)));
                continue;
            }
            about.is_asking = true;
            let (guard, subject) = (self.guard, *subject);
            self.asking.push(Box::pin(async move {
                let verdict = match &subject {
                    Subject::Session => guard.may_connect().await,
                    Subject::Links(id) => guard.may_fetch(id).await,
                };
                (subject, verdict)
            }));
        }
        next
    }

    /// Something has changed: what is being asked now is asked once more after that.
    fn ask_again(&mut self) {
        let now = Instant::now();
        for about in self.asked_about.values_mut() {
            about.due = now;
            about.again = about.is_asking;
        }
    }

    /// Takes an answer. Returns whether it ends what it is about.
    fn has_ended(&mut self, subject: Subject, verdict: Verdict) -> bool {
        let Some(about) = self.asked_about.get_mut(&subject) else {
            // All links about it have ended meanwhile.
            return false;
        };
        about.is_asking = false;
        let again = std::mem::take(&mut about.again);
        let grace = self.guard.gate.grace();
        match about.standing.judge(verdict, grace) {
            Some(due) => {
                about.due = if again { Instant::now() } else { due };
                false
            }
            None => {
                self.asked_about.remove(&subject);
                true
            }
        }
    }
}
