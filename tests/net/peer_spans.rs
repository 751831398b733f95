//! What a peer logs lies in the spans of that peer, content, link and
//! announcement, whichever task logs it.

use std::cell::RefCell;
use std::fmt::{self, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bt_lite::{DownloadOptions, MemoryStorage, Peer};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

use crate::world::{World, content, named, soon};

thread_local! {
    /// The spans that this thread is in.
    static ENTERED: RefCell<Vec<Id>> = const { RefCell::new(Vec::new()) };
}

/// A span: its name, its fields as text, and the span around it.
#[derive(Debug, Clone)]
struct SpanEntry {
    name: &'static str,
    fields: String,
    parent: Option<usize>,
}

/// An event and the spans around it, each as `name{fields}`, outermost first.
#[derive(Debug, Clone)]
struct Line {
    target: &'static str,
    level: Level,
    text: String,
    spans: Vec<String>,
}

/// Keeps every span and event of the crate.
#[derive(Clone, Default)]
struct Log {
    spans: Arc<Mutex<Vec<SpanEntry>>>,
    lines: Arc<Mutex<Vec<Line>>>,
}

/// Writes fields as `a=1 b=2`, and a message as it is.
struct Fields(String);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let space = if self.0.is_empty() { "" } else { " " };
        match field.name() {
            "message" => write!(self.0, "{space}{value:?}"),
            name => write!(self.0, "{space}{name}={value:?}"),
        }
        .unwrap();
    }
}

impl Log {
    fn index(id: &Id) -> usize {
        id.into_u64() as usize - 1
    }

    fn parent(explicit: Option<&Id>, contextual: bool) -> Option<usize> {
        let current = || ENTERED.with(|entered| entered.borrow().last().cloned());
        let parent = explicit.cloned();
        let parent = parent.or_else(|| current().filter(|_| contextual));
        parent.as_ref().map(Self::index)
    }

    /// Records what this thread logs, as long as the result is kept.
    fn install(&self) -> impl Sized {
        // With a single subscriber, `tracing` asks only the thread that comes to
        // a place first whether it is recorded, which may be another test's.
        let second = tracing::Dispatch::new(self.clone());
        (second, tracing::subscriber::set_default(self.clone()))
    }

    /// The lines that contain a text.
    fn lines(&self, text: &str) -> Vec<Line> {
        let lines = self.lines.lock().unwrap();
        let found = lines.iter().filter(|line| line.text.contains(text));
        found.cloned().collect()
    }
}

impl Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("bt_lite::")
    }

    fn new_span(&self, attributes: &Attributes<'_>) -> Id {
        let mut fields = Fields(String::new());
        attributes.record(&mut fields);
        let mut spans = self.spans.lock().unwrap();
        spans.push(SpanEntry {
            name: attributes.metadata().name(),
            fields: fields.0,
            parent: Self::parent(attributes.parent(), attributes.is_contextual()),
        });
        Id::from_u64(spans.len() as u64)
    }

    fn record(&self, id: &Id, record: &Record<'_>) {
        let mut fields = Fields(String::new());
        record.record(&mut fields);
        let fields = format!(" {}", fields.0);
        self.spans.lock().unwrap()[Self::index(id)].fields += &fields;
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut fields = Fields(String::new());
        event.record(&mut fields);
        let spans = self.spans.lock().unwrap();
        let mut next = Self::parent(event.parent(), event.is_contextual());
        let mut around = Vec::new();
        while let Some(at) = next {
            let SpanEntry {
                name,
                fields,
                parent,
            } = &spans[at];
            around.insert(0, format!("{name}{{{fields}}}"));
            next = *parent;
        }
        let line = Line {
            target: event.metadata().target(),
            level: *event.metadata().level(),
            text: fields.0,
            spans: around,
        };
        self.lines.lock().unwrap().push(line);
    }

    fn enter(&self, span: &Id) {
        ENTERED.with(|entered| entered.borrow_mut().push(span.clone()));
    }

    fn exit(&self, span: &Id) {
        ENTERED.with(|entered| {
            let left = entered.borrow_mut().pop();
            assert_eq!(left.as_ref(), Some(span), "spans are left in their order");
        });
    }
}

/// Whether these are the spans around a line; each may have more fields.
fn lies_in(line: &Line, spans: &[(&str, &[&str])]) -> bool {
    let is = |(found, (name, fields)): (&String, &(&str, &[&str]))| {
        found.starts_with(&format!("{name}{{")) && fields.iter().all(|field| found.contains(field))
    };
    line.spans.len() == spans.len() && line.spans.iter().zip(spans).all(is)
}

#[tokio::test(start_paused = true)]
async fn events_lie_in_the_spans_of_their_peer_content_and_link() {
    let log = Log::default();
    let _guard = log.install();
    let world = World::memory(1).await;
    let owner = world.node("owner").await;
    let one = owner.share("one", &content(100_000, 1)).await.id;
    let two = owner.share("two", &content(100_000, 2)).await.id;
    let leecher = world.node("leecher").await;
    soon(leecher.peer.download(named("one"))).await.unwrap();
    soon(leecher.peer.download(two)).await.unwrap();
    let (owners, leechers) = (owner.peer.id(), leecher.peer.id());
    leecher.peer.shutdown().await;
    owner.peer.shutdown().await;

    for id in [one, two] {
        let id = format!("id={id}");
        for (peer, other) in [(owners, leechers), (leechers, owners)] {
            let (peer, other) = (format!("id={peer}"), format!("peer={other}"));
            let spans: [(&str, &[&str]); 3] = [
                ("peer", &[&peer]),
                ("content", &[&id]),
                ("link", &["id=", &other, "remote=memory:"]),
            ];
            for text in ["link up", "link ended"] {
                let lines = log.lines(text);
                let found = lines.iter().filter(|line| lies_in(line, &spans));
                assert_eq!(found.count(), 1, "{text} of {spans:?}: {lines:#?}");
            }
            // One that is being announced when its peer stops does not fall asleep.
            let mut lines = log.lines("content asleep");
            lines.extend(log.lines("content ended"));
            let found = lines.iter().filter(|line| lies_in(line, &spans[..2]));
            assert_eq!(found.count(), 1, "{spans:?}: {lines:#?}");
        }
    }
    // A peer logs nothing outside of its span.
    let lines = log.lines.lock().unwrap();
    let mut of_peers = lines
        .iter()
        .filter(|line| line.target.starts_with("bt_lite::peer"));
    let in_span = |line: &Line| {
        let first = line.spans.first();
        first.is_some_and(|span| span.starts_with("peer{"))
    };
    assert!(of_peers.all(in_span), "{lines:#?}");
}

#[tokio::test(start_paused = true)]
async fn announcement_that_fails_is_logged_in_its_own_span() {
    let log = Log::default();
    let _guard = log.install();
    let world = World::memory(1).await;
    let owner = world.node("owner").await;
    let id = owner.share("x", &content(50_000, 1)).await.id;
    let peer = Peer::builder(world.transport("leecher"), MemoryStorage::new())
        .tracker(world.nowhere())
        .trackers_optional()
        .start()
        .await
        .unwrap();
    let options = DownloadOptions::new().owner(owner.addr());
    soon(peer.download_with(id, options)).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let failed = log.lines("announcing failed");
    let (peer, id) = (format!("id={}", peer.id()), format!("id={id}"));
    let spans = |state| -> [(&str, Vec<&str>); 3] {
        [
            ("peer", vec![&peer]),
            ("content", vec![&id]),
            ("announce", vec![state]),
        ]
    };
    for state in ["state=Partial", "state=Complete"] {
        let spans = spans(state);
        let spans: Vec<_> = spans
            .iter()
            .map(|(name, fields)| (*name, &fields[..]))
            .collect();
        assert!(
            failed.iter().any(|line| lies_in(line, &spans)),
            "{state}: {failed:#?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn chunks_and_bans_are_logged_in_their_content_and_no_chunk_above_trace() {
    let log = Log::default();
    let _guard = log.install();
    let world = World::memory(1).await;
    let liar = world.node("liar").await;
    let bytes = content(200 * (16 << 10), 1);
    let shared = liar.share("x", &bytes).await;
    world.network().set_upload_rate("liar", Some(100_000));
    let leecher = world.node("leecher").await;
    let download = leecher.peer.download(&shared);
    while download.progress().verified_chunks < 3 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    world.network().corrupt_next("liar", 1);
    while log.lines("peer banned").is_empty() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let good = world.node("good").await;
    good.share("x", &bytes).await;
    soon(download).await.unwrap();
    let (peer, id) = (
        format!("id={}", leecher.peer.id()),
        format!("id={}", shared.id),
    );
    let spans: [(&str, &[&str]); 2] = [("peer", &[&peer]), ("content", &[&id])];
    let banned = log.lines("peer banned");
    assert_eq!(banned.len(), 1);
    assert!(lies_in(&banned[0], &spans), "{banned:#?}");
    let named = format!("peer={}", liar.peer.id());
    assert!(banned[0].text.contains(&named), "{banned:#?}");
    let bad = log.lines("chunk is bad");
    assert_eq!(bad.len(), 1);
    assert_eq!(
        (bad[0].level, lies_in(&bad[0], &spans)),
        (Level::DEBUG, true)
    );
    let verified = log.lines("chunk verified");
    assert_eq!(verified.len(), 200);
    for line in verified {
        assert_eq!((line.level, lies_in(&line, &spans)), (Level::TRACE, true));
        assert!(line.text.contains("chunk="), "{line:?}");
    }
    let complete = log.lines("download complete");
    assert_eq!(complete.len(), 1);
    assert!(lies_in(&complete[0], &spans), "{complete:#?}");
}
