//! What ends at a tracker when somebody may do something no more.

use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, stream};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use super::permission::verdicts;
use super::registrations::{Part, Registered};
use super::service::{Asker, Service, now};
use crate::access::{AccessAction, AccessGate, MIN_RECHECK, RETRY_UNSURE, Standing, Verdict, Who};

/// How many registrations are asked about side by side.
const AT_ONCE: usize = 64;

/// How long a tracker rests after it has asked about all registrations. Short, as a change
/// is to count within a second.
const SWEEP_PAUSE: Duration = Duration::from_millis(100);

/// Returns once somebody who is connected may not register any more. Never without a
/// policy.
///
/// Cancel safe.
pub(super) async fn denied(gate: Option<&AccessGate>, asker: &Asker) {
    let Some(gate) = gate else {
        return std::future::pending().await;
    };
    let mut changes = gate.changes();
    let mut standing = Standing::default();
    let mut there = asker.who().remote.clone();
    // The first request has a question of its own, and is told the answer.
    let mut due = Instant::now() + MIN_RECHECK;
    loop {
        tokio::select! {
            () = changes.changed() => {}
            () = asker.whereabouts.moved_from(&there) => {}
            () = sleep_until(due) => {}
        }
        let who = asker.who().into_owned();
        let verdict = gate.check(&who, AccessAction::Register, None).await;
        match standing.judge(verdict, gate.grace()) {
            Some(again) => due = again,
            None => return,
        }
        there = who.remote;
    }
}

/// Asks about all registrations whenever something changes, until the tracker stops. Those
/// who may not register any more are forgotten, and of the others what they may not own.
pub(super) async fn watch(service: Arc<Service>, gate: Arc<AccessGate>) {
    let sweep = keep_sweeping(&service, &gate);
    service.stop.run_until_cancelled(sweep).await;
}

/// Forgets the registrations of those whom the transport lets in no more, also if they are
/// away, until the tracker stops.
pub(super) async fn watch_members(service: Arc<Service>, mut changes: watch::Receiver<u64>) {
    let forget = async {
        while changes.changed().await.is_ok() {
            for (token, who) in service.registrations.outsiders() {
                service.forget(&token, &who).await;
                // So that very many take turns with other tasks.
                tokio::task::yield_now().await;
            }
        }
    };
    service.stop.run_until_cancelled(forget).await;
}

async fn keep_sweeping(service: &Service, gate: &AccessGate) {
    let mut changes = gate.changes();
    // Those of which the policy could not tell.
    let mut unsure = Vec::new();
    loop {
        let asked = tokio::select! {
            () = changes.changed() => service.registrations.all(),
            () = service.sweep.notified() => service.registrations.all(),
            () = sleep(RETRY_UNSURE), if !unsure.is_empty() => std::mem::take(&mut unsure),
        };
        // About each by itself: one that takes long holds up none of the others.
        let asked = stream::iter(asked).map(|one| recheck(service, gate, one));
        let asked = asked.buffer_unordered(AT_ONCE);
        unsure = asked.filter_map(std::future::ready).collect().await;
        // Others have their turn, however often something changes.
        sleep(SWEEP_PAUSE).await;
    }
}

/// Asks about one registration. Returns it if the policy cannot tell, and it goes on.
async fn recheck(service: &Service, gate: &AccessGate, one: Registered) -> Option<Registered> {
    // So that very many take turns with other tasks.
    tokio::task::yield_now().await;
    let Registered { token, who, also } = &one;
    let keeps = |part, verdict| {
        let registrations = &service.registrations;
        registrations.keeps((token, who), part, verdict, gate.grace())
    };
    let verdict = gate.check(who, AccessAction::Register, None).await;
    if !keeps(Part::Registered, verdict) {
        service.forget(token, who).await;
        return None;
    }
    let mut is_unsure = verdict == Verdict::Unknown;
    if let Some(also) = also {
        let also = Who {
            identity: who.identity,
            remote: also.clone(),
        };
        let verdict = gate.check(&also, AccessAction::Register, None).await;
        // If nobody can tell, it lapses when it is not repeated.
        if verdict == Verdict::Denied {
            service.forget_also(token, &also).await;
        }
    }
    let (mut unknown, mut from) = (Vec::new(), 0);
    loop {
        let (owned, next) = service.registry.owned(now(), token, from).await;
        let verdicts = verdicts(gate, who, AccessAction::Own, &owned).await;
        let mut denied = Vec::new();
        for (owned, verdict) in owned.into_iter().zip(verdicts) {
            match verdict {
                Verdict::Allowed(_) => {}
                Verdict::Denied => denied.push(owned),
                Verdict::Unknown => unknown.push(owned),
            }
        }
        service.registry.disown_all(now(), token, &denied).await;
        match next {
            Some(next) => from = next,
            None => break,
        }
    }
    let verdict = match unknown.is_empty() {
        true => Verdict::Allowed(Instant::now()),
        false => Verdict::Unknown,
    };
    match keeps(Part::Owned, verdict) {
        true => is_unsure |= !unknown.is_empty(),
        false => service.registry.disown_all(now(), token, &unknown).await,
    }
    is_unsure.then_some(one)
}
