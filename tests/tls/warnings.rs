//! What a program warns of in its log.

use std::fmt;
use std::sync::{Arc, Mutex};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::DefaultGuard;
use tracing::{Event, Level, Metadata, Subscriber};

/// The warnings of this thread.
#[derive(Clone, Default)]
pub(crate) struct Warnings(Arc<Mutex<Vec<String>>>);

struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0 += &format!("{}={value:?} ", field.name());
    }
}

impl Subscriber for Warnings {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Level::WARN
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut text = Text(String::new());
        event.record(&mut text);
        self.0.lock().unwrap().push(text.0);
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// Records what is warned of as long as this is held.
pub(crate) struct Recording {
    /// Another one, so that each thread is asked for itself what is recorded.
    _second: tracing::Dispatch,
    _guard: DefaultGuard,
}

impl Warnings {
    pub(crate) fn record(&self) -> Recording {
        Recording {
            _second: tracing::Dispatch::new(self.clone()),
            _guard: tracing::subscriber::set_default(self.clone()),
        }
    }

    pub(crate) fn said(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

/// What this warns of, and what it returns.
pub(crate) fn warned<T>(of: impl FnOnce() -> T) -> (Vec<String>, T) {
    let warnings = Warnings::default();
    let recording = warnings.record();
    let done = of();
    drop(recording);
    (warnings.said(), done)
}
