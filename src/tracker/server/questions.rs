//! The requests of one connection that wait for a policy: asked about side by side, and
//! answered in their order, so that a question that takes long holds up the replies behind
//! it once, and not once more for each.
//!
//! As many are asked about as are answered in one go ([`BATCH`]), with so many entries of
//! OWN ([`MAX_ENTRIES`]).

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesOrdered;

use super::service::{Asked, Asker, Service};
use crate::protocol::limits::MAX_BATCH;
use crate::protocol::{ContentKey, TrackerRequest};

/// How many requests that have arrived together are answered before their
/// replies are flushed.
pub(super) const BATCH: usize = 32;

/// With how many entries of OWN under way no further request is taken: what waits takes
/// memory. Two full ones, so that the four that a client sends at once have two waits.
const MAX_ENTRIES: usize = 2 * MAX_BATCH;

/// The requests of one connection that wait.
pub(super) struct Questions<'a> {
    service: &'a Service,
    asker: &'a Asker,
    asking: FuturesOrdered<BoxFuture<'a, Asked<'a>>>,
    owns: usize,
    entries: usize,
    /// A request about which it is not known what to ask, until those before it are
    /// answered.
    held: Option<TrackerRequest>,
}

impl<'a> Questions<'a> {
    pub(super) fn new(service: &'a Service, asker: &'a Asker) -> Self {
        Self {
            service,
            asker,
            asking: FuturesOrdered::new(),
            owns: 0,
            entries: 0,
            held: None,
        }
    }

    /// Whether one more request may be taken.
    pub(super) fn has_room(&self) -> bool {
        self.held.is_none() && self.asking.len() < BATCH && self.entries < MAX_ENTRIES
    }

    /// Takes a request, for which there must be room.
    pub(super) fn ask(&mut self, request: TrackerRequest) {
        match &request {
            TrackerRequest::Own { entries, .. } => {
                self.owns += 1;
                self.entries += entries.len();
            }
            // Which contents have the name depends on what is announced before.
            TrackerRequest::Need {
                key: ContentKey::Name(_),
                ..
            } if self.owns > 0 => {
                self.held = Some(request);
                return;
            }
            _ => {}
        }
        let (service, asker) = (self.service, self.asker);
        self.asking.push_back(Box::pin(service.ask(asker, request)));
    }

    /// The first request, once it may be answered: before the next call. `None` if there is
    /// none.
    ///
    /// Cancel safe.
    pub(super) async fn next(&mut self) -> Option<Asked<'a>> {
        if self.owns == 0
            && let Some(held) = self.held.take()
        {
            self.ask(held);
        }
        let asked = self.asking.next().await?;
        if let TrackerRequest::Own { entries, .. } = &asked.request {
            self.owns -= 1;
            self.entries -= entries.len();
        }
        Some(asked)
    }
}
