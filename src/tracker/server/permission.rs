//! Asks whether somebody may do what a request says, before it comes to the registry.

use futures::future::join_all;

use crate::access::{AccessAction, AccessContent, AccessGate, Verdict, Who};
use crate::content::{ContentId, ContentName};
use crate::protocol::{OwnEntry, OwnState, TrackerRequest};
use crate::tracker::registry::Permits;

/// What somebody may do of a request.
pub(super) enum Permission {
    Whole,
    /// OWN: all but the entries at these positions.
    AllBut {
        denied: Vec<u16>,
        unsure: Vec<u16>,
    },
    /// NEED: to be told of these contents.
    Contents(Vec<ContentId>),
    Denied,
    /// The policy cannot tell.
    Unsure,
}

impl Permission {
    /// What is left of it. `None` if all of the request is refused.
    pub(super) fn permits(&self) -> Option<Permits<'_>> {
        match self {
            Self::Whole => Some(Permits::All),
            Self::AllBut { denied, unsure } => Some(Permits::AllBut { denied, unsure }),
            Self::Contents(allowed) => Some(Permits::Contents(allowed)),
            Self::Denied | Self::Unsure => None,
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
    asked_for: impl Future<Output = Vec<(ContentId, Option<ContentName>)>>,
) -> Permission {
    match request {
        TrackerRequest::Register { .. } | TrackerRequest::RegisterAlso { .. } => {
            match gate.check(who, AccessAction::Register, None).await {
                Verdict::Allowed(_) => Permission::Whole,
                Verdict::Denied => Permission::Denied,
                Verdict::Unknown => Permission::Unsure,
            }
        }
        TrackerRequest::Own { entries, .. } => ask_about_entries(gate, who, entries).await,
        TrackerRequest::Need { .. } => {
            let contents = asked_for.await;
            let verdicts = verdicts(gate, who, AccessAction::List, &contents).await;
            let verdicts = contents.iter().zip(verdicts);
            let allowed = verdicts.filter_map(|((id, _), v)| v.is_allowed().then_some(*id));
            Permission::Contents(allowed.collect())
        }
        TrackerRequest::Update { .. }
        | TrackerRequest::Exit { .. }
        | TrackerRequest::Zone { .. } => Permission::Whole,
    }
}

/// Asks about each entry of OWN. What ends is nobody's business.
async fn ask_about_entries(gate: &AccessGate, who: &Who, entries: &[OwnEntry]) -> Permission {
    let owned = |(_, entry): &(u16, &OwnEntry)| entry.state != OwnState::Gone;
    let owned: Vec<_> = (0..).zip(entries).filter(owned).collect();
    let contents: Vec<_> = owned
        .iter()
        .map(|(_, entry)| (entry.id, Some(entry.name.clone())))
        .collect();
    let verdicts = verdicts(gate, who, AccessAction::Own, &contents).await;
    let (mut denied, mut unsure) = (Vec::new(), Vec::new());
    for ((at, _), verdict) in owned.into_iter().zip(verdicts) {
        match verdict {
            Verdict::Allowed(_) => {}
            Verdict::Denied => denied.push(at),
            Verdict::Unknown => unsure.push(at),
        }
    }
    Permission::AllBut { denied, unsure }
}

/// Whether somebody may do this with each of these contents. They are asked about side by
/// side, so that this takes no longer than one question may.
pub(super) async fn verdicts(
    gate: &AccessGate,
    who: &Who,
    action: AccessAction,
    contents: &[(ContentId, Option<ContentName>)],
) -> Vec<Verdict> {
    let asked = contents.iter().map(|(id, name)| {
        let content = AccessContent::new(*id, name.as_ref());
        gate.check(who, action, Some(content))
    });
    join_all(asked).await
}
