//! Asks whether somebody may do what a request says, before it comes to the registry.

use futures::future::join_all;

use crate::access::{AccessAction, AccessContent, AccessGate, Who};
use crate::content::{ContentId, ContentName};
use crate::protocol::{OwnEntry, OwnState, TrackerRequest};
use crate::tracker::registry::Permits;

/// What somebody may do of a request.
pub(super) enum Permission {
    Whole,
    /// OWN: all but the entries at these positions.
    AllBut(Vec<u16>),
    /// NEED: to be told of these contents.
    Contents(Vec<ContentId>),
    Denied,
}

impl Permission {
    /// What is left of it. `None` if all of the request is refused.
    pub(super) fn permits(&self) -> Option<Permits<'_>> {
        match self {
            Self::Whole => Some(Permits::All),
            Self::AllBut(denied) => Some(Permits::AllBut(denied)),
            Self::Contents(allowed) => Some(Permits::Contents(allowed)),
            Self::Denied => None,
        }
    }
}

/// Asks about a request. `asked_for` gives the contents that a NEED is about.
///
/// Cancel safe.
pub(super) async fn ask(
    gate: &AccessGate,
    who: &Who,
    request: &TrackerRequest,
    asked_for: impl FnOnce() -> Vec<(ContentId, Option<ContentName>)>,
) -> Permission {
    match request {
        TrackerRequest::Register { .. } | TrackerRequest::RegisterAlso { .. } => {
            match gate.check(who, AccessAction::Register, None).await {
                verdict if verdict.is_allowed() => Permission::Whole,
                _ => Permission::Denied,
            }
        }
        TrackerRequest::Own { entries, .. } => Permission::AllBut(denied(gate, who, entries).await),
        TrackerRequest::Need { .. } => {
            let contents = asked_for();
            let allowed = allowed(gate, who, AccessAction::List, &contents).await;
            let allowed = contents.iter().zip(allowed);
            let allowed = allowed.filter_map(|((id, _), allowed)| allowed.then_some(*id));
            Permission::Contents(allowed.collect())
        }
        TrackerRequest::Update { .. } | TrackerRequest::Exit { .. } => Permission::Whole,
    }
}

/// The positions of the entries that somebody may not own.
async fn denied(gate: &AccessGate, who: &Who, entries: &[OwnEntry]) -> Vec<u16> {
    let owned = |(_, entry): &(u16, &OwnEntry)| entry.state != OwnState::Gone;
    let owned: Vec<_> = (0..).zip(entries).filter(owned).collect();
    let contents: Vec<_> = owned
        .iter()
        .map(|(_, entry)| (entry.id, Some(entry.name.clone())))
        .collect();
    let allowed = allowed(gate, who, AccessAction::Own, &contents).await;
    let denied = owned.iter().zip(allowed);
    denied
        .filter_map(|((at, _), allowed)| (!allowed).then_some(*at))
        .collect()
}

/// Whether somebody may do this with each of these contents. They are asked about side by
/// side, so that this takes no longer than one question may.
pub(super) async fn allowed(
    gate: &AccessGate,
    who: &Who,
    action: AccessAction,
    contents: &[(ContentId, Option<ContentName>)],
) -> Vec<bool> {
    let asked = contents.iter().map(|(id, name)| {
        let content = AccessContent::new(*id, name.as_ref());
        gate.check(who, action, Some(content))
    });
    let verdicts = join_all(asked).await;
    verdicts.into_iter().map(|v| v.is_allowed()).collect()
}
