//! The record of the storage of a download that was paused.
//!
//! ```text
//!             pause                  resume                 pause
//!   (none) ─────────▶ a paused one ─────────▶ a resumed one ─────▶ a paused one …
//!     ▲                                            │
//!     └── complete, failed, cancelled, discarded ──┴── from any of them
//! ```
//! Each step replaces the record at once, so a crash leaves the one before or the one
//! after. A download that was never paused has none.

use crate::content::{ContentId, Geometry};
use crate::peer::contents::status::ContentStatus;
use crate::peer::downloads::pause::PauseOptions;
use crate::peer::downloads::paused_form::{KnownContent, PausedRecord, RecordedState};
use crate::peer::downloads::running::Running;
use crate::peer::limits::ContentLimits;
use crate::peer::shared::PeerShared;
use crate::storage::PausedId;

/// The peer is shut down: what has happened since the last record is recorded. One that was
/// cancelled just before has ended; one that was to be discarded is still there.
pub(in crate::peer) async fn record_at_shutdown(shared: &PeerShared, running: &Running) {
    let holders = &running.handle.holders;
    if holders.was_explicit() && !holders.discards() {
        return forget(shared, running).await;
    }
    let pause = *running.control.pauses().borrow();
    record(shared, running, pause).await;
}

/// Has the storage record a download that is paused, or that goes on after a pause.
pub(in crate::peer) async fn record(
    shared: &PeerShared,
    running: &Running,
    pause: Option<PauseOptions>,
) {
    let state = match pause {
        Some(options) => RecordedState::Paused(options),
        None if running.has_record() => RecordedState::Resumed,
        None => return,
    };
    let Some(form) = form(shared, running, state) else {
        return;
    };
    let Some(bytes) = form.encode() else {
        tracing::warn!("a download with such paths will not be listed after a restart");
        return;
    };
    let Some(record) = running.record_with(bytes, || new_id(form.place)) else {
        return;
    };
    match shared.storage.remember_paused(&record).await {
        Ok(()) => running.is_recorded(record),
        Err(error) => tracing::warn!(%error, "a pause may not survive a restart"),
    }
}

/// Has the storage drop the record of a download that has ended.
pub(in crate::peer) async fn forget(shared: &PeerShared, running: &Running) {
    if let Some(id) = running.take_record()
        && let Err(error) = shared.storage.forget_paused(&id).await
    {
        tracing::warn!(%error, "a download that has ended will be listed after a restart");
    }
}

/// What is recorded of a download; nothing of one that does not go to the storage.
fn form(shared: &PeerShared, running: &Running, state: RecordedState) -> Option<PausedRecord> {
    let mut asked = (**running.asked.get()?).clone();
    let id = running.id();
    let ticket = running.control.ticket();
    let settings = running.control.settings().borrow().clone();
    asked.strategy = settings.strategy.unwrap_or(asked.strategy);
    let limits = settings.limits.or(asked.limits);
    asked.limits = limits.or_else(|| id.and_then(|id| limits_of(shared, &id)));
    let known = known(&running.handle.status.borrow());
    Some(PausedRecord {
        state,
        key: running.key.get()?.clone(),
        id,
        listed_as: running.listed_as.get().cloned(),
        known,
        asked,
        place: ticket.place(),
        priority: ticket.priority(),
        seeds: running.control.seeds(),
        patience: settings.patience,
        owners: running.owners(),
    })
}

/// The limits that a content has without its download.
fn limits_of(shared: &PeerShared, id: &ContentId) -> Option<ContentLimits> {
    let limits = shared.limiter.content(id);
    (limits != ContentLimits::default()).then_some(limits)
}

fn known(status: &ContentStatus) -> Option<KnownContent> {
    let content = status.content()?.clone();
    // What is not durable may have to be fetched again.
    let bytes = status.durable_bytes().min(content.length);
    let geometry = Geometry::of(content.length).ok()?;
    // Only the last chunk may be shorter.
    let chunks = bytes.div_ceil(geometry.chunk_len());
    Some(KnownContent {
        content,
        verified_bytes: bytes,
        verified_chunks: chunks as u32,
    })
}

/// A number that no other record has.
fn new_id(place: u64) -> PausedId {
    let mut id = [0; 32];
    if getrandom::fill(&mut id).is_err() {
        // Nobody else has this place.
        id = *blake3::hash(&place.to_le_bytes()).as_bytes();
    }
    PausedId(id)
}
