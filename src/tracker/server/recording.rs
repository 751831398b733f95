//! What a tracker records of its requests and replies ([`metrics`](crate::metrics)).

use crate::error_kind::ErrorKind;
use crate::metrics;
use crate::protocol::{Frame, Refusal, TrackerReply, TrackerRequest};
use crate::transport::TransportError;

/// The name of a request in metrics.
pub(super) fn kind_of(request: &TrackerRequest) -> &'static str {
    match request {
        TrackerRequest::Register { .. } | TrackerRequest::RegisterAlso { .. } => "register",
        TrackerRequest::Own { .. } => "own",
        TrackerRequest::Need { .. } => "need",
        TrackerRequest::Update { .. } => "update",
        TrackerRequest::Exit { .. } => "exit",
        TrackerRequest::Zone { .. } => "zone",
    }
}

/// Records a refusal.
pub(super) fn count_refusal(refusal: &Refusal) {
    let reason = ("reason", reason_of(refusal));
    metrics::count_as(metrics::TRACKER_REFUSALS, reason, 1);
}

/// The name of a refusal in metrics: that of its field in
/// [`RefusalCounts`](crate::tracker::RefusalCounts).
fn reason_of(refusal: &Refusal) -> &'static str {
    match refusal {
        Refusal::UnknownToken => "unknown_token",
        Refusal::UnknownContent => "unknown_content",
        Refusal::Denied => "denied",
        Refusal::ForeignAddress { .. } => "foreign_address",
        Refusal::PeersPerHost { .. } => "peers_per_host",
        Refusal::Peers { .. } => "peers",
        Refusal::ContentsPerPeer { .. } => "contents_per_peer",
        Refusal::OwnersPerContent { .. } => "owners_per_content",
        Refusal::Contents { .. } => "contents",
        Refusal::NamesPerContent { .. } => "names_per_content",
        Refusal::ContentsPerName { .. } => "contents_per_name",
        Refusal::ContentsPerHost { .. } => "contents_per_host",
        Refusal::OwnershipsPerHost { .. } => "ownerships_per_host",
        Refusal::Ownerships { .. } => "ownerships",
        Refusal::Malformed => "malformed",
        Refusal::Busy => "busy",
        Refusal::ShuttingDown => "shutting_down",
    }
}

/// Records a reply to a peer, from its head.
pub(super) fn count_reply(head: &[u8]) {
    if !cfg!(feature = "metrics") {
        return;
    }
    let Some(kind) = TrackerReply::kind_of_head(head) else {
        return;
    };
    metrics::count_as(metrics::TRACKER_REPLIES, ("kind", kind), 1);
    // It is rare, so it may be read again.
    if kind == "partly"
        && let Ok(TrackerReply::Partly(refused)) = TrackerReply::decode(Frame::head(head.to_vec()))
    {
        for entry in refused {
            let reason = ("reason", reason_of(&entry.refusal));
            metrics::count_as(metrics::TRACKER_REFUSED_ENTRIES, reason, 1);
        }
    }
}

/// Records a reply that refuses a whole request.
pub(super) fn count_refused_reply() {
    metrics::count_as(metrics::TRACKER_REPLIES, ("kind", "refused"), 1);
}

/// Records that a connection ends by an error.
pub(super) fn count_error(error: &TransportError) {
    let kind = ("kind", error.kind());
    metrics::count_as(metrics::TRACKER_CONNECTION_ERRORS, kind, 1);
}
