//! Log lines say which connection or tracker they are about.

#![allow(clippy::unwrap_used, reason = "a failure ends the test")]

use std::fmt::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bt_lite::MemoryNetwork;
use bt_lite::protocol::{Frame, OwnState};
use futures::SinkExt;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

use crate::{Raw, client, entry, id, tracker};

/// A log of all spans, and of all events with the spans that they are in.
#[derive(Default)]
struct Log {
    next: AtomicU64,
    /// Each span as text, by its id.
    spans: Mutex<Vec<String>>,
    entered: Mutex<Vec<u64>>,
    events: Mutex<Vec<String>>,
}

#[derive(Default)]
struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        write!(self.0, " {field}={value:?}").unwrap();
    }
}

struct Handle(Arc<Log>);

impl Subscriber for Handle {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("bt_lite")
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let mut text = Text(span.metadata().name().into());
        span.record(&mut text);
        self.0.spans.lock().unwrap().push(text.0);
        Id::from_u64(self.0.next.fetch_add(1, Ordering::Relaxed) + 1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut text = Text::default();
        for id in &*self.0.entered.lock().unwrap() {
            let spans = self.0.spans.lock().unwrap();
            text.0 += &format!("[{}]", spans[*id as usize - 1]);
        }
        event.record(&mut text);
        self.0.events.lock().unwrap().push(text.0);
    }

    fn enter(&self, id: &Id) {
        self.0.entered.lock().unwrap().push(id.into_u64());
    }

    fn exit(&self, id: &Id) {
        let left = self.0.entered.lock().unwrap().pop();
        assert_eq!(left, Some(id.into_u64()));
    }
}

#[tokio::test(start_paused = true)]
async fn log_can_be_filtered_by_a_connection_or_a_tracker() {
    let log = Arc::new(Log::default());
    // With a single subscriber, `tracing` asks only the thread that comes to a
    // place first whether it is recorded, which may be another test's.
    let _second = tracing::Dispatch::new(Handle(log.clone()));
    let _default = tracing::subscriber::set_default(Handle(log.clone()));
    let network = MemoryNetwork::new(1);
    let tracker = tracker(&network).await;
    let peer = client(&network, "peer");
    peer.own(entry(1, OwnState::Complete)).await.unwrap();
    peer.need(id(1).into(), 5).await.unwrap();
    let mut raw = Raw::connect(&network, "stranger").await;
    raw.0.sink.send(Frame::head(vec![0xff])).await.unwrap();
    assert!(raw.reply().await.is_some());
    peer.shutdown().await;
    tracker.shutdown().await;

    let spans = log.spans.lock().unwrap().clone();
    let has = |start: &str| spans.iter().any(|span| span.starts_with(start));
    assert!(has("tracker_session tracker=memory:tracker"), "{spans:?}");
    assert!(has("tracker_connection peer=memory:peer"), "{spans:?}");
    assert!(has("announce request=\"OWN\" entries=1"), "{spans:?}");
    assert!(has("announce request=\"NEED\" key="), "{spans:?}");
    let events = log.events.lock().unwrap().clone();
    let told = |span: &str, message: &str| {
        let mut events = events.iter();
        events.any(|event| event.starts_with(span) && event.contains(message))
    };
    let session = "[tracker_session tracker=memory:tracker";
    assert!(told(session, "registered"), "{events:?}");
    let connection = "[tracker_connection peer=memory:stranger";
    assert!(told(connection, "malformed request"), "{events:?}");
}
