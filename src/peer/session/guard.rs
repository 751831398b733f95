//! Asks whether the other side of a session may be there, and may fetch what it asks for.

use std::sync::Arc;

use futures::future::join_all;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::access::{AccessAction, AccessContent, AccessGate, Changes, Verdict, Who};
use crate::content::{ContentId, ContentName};
use crate::peer::contents::table::Contents;
use crate::peer::folders::table::FolderTable;
use crate::transport::Connection;

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

    /// Asks about one session, from now on. `None` if nothing is asked.
    pub(super) fn of(self: &Arc<Self>, connection: &Connection) -> Option<SessionGuard> {
        let gate = Arc::clone(self.gate.as_ref()?);
        Some(SessionGuard {
            guard: Arc::clone(self),
            gate,
            who: Who {
                identity: connection.identity,
                remote: connection.remote.clone(),
            },
            again: Notify::new(),
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
    who: Who,
    /// Something may have changed while a link was opened.
    again: Notify,
}

/// The state of affairs in which an answer was given.
pub(super) struct Answered((u64, u64));

impl SessionGuard {
    /// Whether there may be a session.
    ///
    /// Cancel safe.
    pub(super) async fn may_connect(&self) -> Verdict {
        self.gate
            .check(&self.who, AccessAction::Connect, None)
            .await
    }

    /// Whether there may be a link about a content, whether that is here or not. `None` if
    /// not. Call [`opened`](Self::opened) when there is one.
    ///
    /// Cancel safe.
    pub(super) async fn may_open(&self, id: &ContentId) -> Option<Answered> {
        let answered = Answered(self.gate.generation());
        let verdict = self.may_fetch(id).await;
        verdict.is_allowed().then_some(answered)
    }

    /// There is a link.
    pub(super) fn opened(&self, Answered(generation): Answered) {
        if self.gate.generation() != generation {
            self.again.notify_one();
        }
    }

    /// Asks about everything that the content may be fetched as. One is enough.
    async fn may_fetch(&self, id: &ContentId) -> Verdict {
        let asked = self.guard.asked_as(id);
        let verdicts = join_all(asked.iter().map(|(id, name)| {
            let content = AccessContent::new(*id, name.as_ref());
            self.gate
                .check(&self.who, AccessAction::Fetch, Some(content))
        }));
        let verdicts = verdicts.await.into_iter();
        let latest = verdicts.filter_map(|verdict| match verdict {
            Verdict::Allowed(until) => Some(until),
            Verdict::Denied => None,
        });
        latest.max().map_or(Verdict::Denied, Verdict::Allowed)
    }

    /// Watches the session and its links from now on.
    pub(super) fn watch(&self) -> Watch<'_> {
        Watch {
            guard: self,
            changes: self.gate.changes(),
            until: None,
        }
    }
}

/// Asks about a session and its links again and again.
pub(super) struct Watch<'a> {
    guard: &'a SessionGuard,
    changes: Changes,
    /// How long the last answers count.
    until: Option<Instant>,
}

/// What may not be any more.
pub(super) enum Ended {
    Session,
    /// The links about these contents.
    Links(Vec<ContentId>),
}

impl Watch<'_> {
    /// Waits until something may not be any more. `open` names the contents of the links.
    /// Asks at once when called for the first time, and then whenever something may have
    /// changed.
    ///
    /// Cancel safe.
    pub(super) async fn next(&mut self, open: impl Fn() -> Vec<ContentId>) -> Ended {
        let guard = self.guard;
        loop {
            if let Some(until) = self.until {
                tokio::select! {
                    () = self.changes.changed(Some(until)) => {}
                    () = guard.again.notified() => {}
                }
            }
            let Verdict::Allowed(mut until) = guard.may_connect().await else {
                return Ended::Session;
            };
            let open = open();
            let verdicts = join_all(open.iter().map(|id| guard.may_fetch(id))).await;
            let mut denied = Vec::new();
            for (id, verdict) in open.into_iter().zip(verdicts) {
                match verdict {
                    Verdict::Allowed(again) => until = until.min(again),
                    Verdict::Denied => denied.push(id),
                }
            }
            self.until = Some(until);
            if !denied.is_empty() {
                return Ended::Links(denied);
            }
        }
    }
}
