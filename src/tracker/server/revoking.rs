//! What ends at a tracker when somebody may do something no more.

use std::sync::Arc;

use futures::future::join_all;
use tokio::time::Instant;

use super::permission::allowed;
use super::service::{Service, now};
use crate::access::{AccessAction, AccessGate, Verdict, Who};
use crate::protocol::Token;

/// How many registrations are asked about side by side.
const AT_ONCE: usize = 64;

/// Returns once somebody who is connected may not register any more. Never without a
/// policy.
///
/// Cancel safe.
pub(super) async fn denied(gate: Option<&AccessGate>, who: &Who) {
    let Some(gate) = gate else {
        return std::future::pending().await;
    };
    let mut changes = gate.changes();
    let mut until = Instant::now();
    loop {
        changes.changed(Some(until)).await;
        match gate.check(who, AccessAction::Register, None).await {
            Verdict::Allowed(again) => until = again,
            Verdict::Denied => return,
        }
    }
}

/// Asks about all registrations whenever something changes, until the tracker stops. Those
/// who may not register any more are forgotten, and of the others what they may not own.
pub(super) async fn watch(service: Arc<Service>, gate: Arc<AccessGate>) {
    let mut changes = gate.changes();
    loop {
        tokio::select! {
            () = service.stop.cancelled() => return,
            () = changes.changed(None) => {}
        }
        for some in service.registrations.all().chunks(AT_ONCE) {
            let asked = some.iter().map(|one| recheck(&service, &gate, one));
            join_all(asked).await;
            tokio::task::yield_now().await;
        }
    }
}

async fn recheck(service: &Service, gate: &AccessGate, (token, who): &(Token, Who)) {
    let may_register = gate.check(who, AccessAction::Register, None).await;
    if !may_register.is_allowed() {
        service.forget(token, who);
        return;
    }
    let mut from = 0;
    loop {
        let (owned, next) = service.registry.owned(now(), token, from);
        let may_own = allowed(gate, who, AccessAction::Own, &owned).await;
        let denied = owned.iter().zip(may_own).filter(|(_, may_own)| !may_own);
        let denied: Vec<_> = denied.map(|((id, _), _)| *id).collect();
        service.registry.disown_all(now(), token, &denied);
        match next {
            Some(next) => from = next,
            None => return,
        }
    }
}
