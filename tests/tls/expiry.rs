//! The end of the own certificate is warned of before it comes.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use bt_lite::transport::auth::{Authenticator, Trust};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

use crate::authority::{Authority, Validity};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// The warnings of this thread.
#[derive(Clone, Default)]
struct Warnings(Arc<Mutex<Vec<String>>>);

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

/// What is warned of within 26 hours by one whose certificate has so many days left.
async fn warnings(days: u32) -> Vec<String> {
    let authority = Authority::new("the cluster");
    let until = SystemTime::now() + days * DAY;
    let identity = authority.member(1, Validity::Until(until));
    let auth = Authenticator::new(identity, Trust::Ca(authority.ca())).unwrap();
    // To the second.
    let expires = auth.expires_at().unwrap();
    assert!(until.duration_since(expires).unwrap() < Duration::from_secs(1));
    let warnings = Warnings::default();
    // Another one, so that each thread is asked for itself what is recorded.
    let _second = tracing::Dispatch::new(warnings.clone());
    let _guard = tracing::subscriber::set_default(warnings.clone());
    let watch = tokio::spawn(auth.clone().watch(DAY / 24));
    tokio::time::sleep(26 * DAY / 24).await;
    watch.abort();
    let warned = warnings.0.lock().unwrap();
    warned.clone()
}

#[tokio::test(start_paused = true)]
async fn certificate_that_expires_within_a_week_is_warned_of_once_a_day() {
    let warned = warnings(6).await;
    assert_eq!(warned.len(), 2, "{warned:?}");
    for text in warned {
        assert!(text.contains("expires soon"), "{text}");
        assert!(text.contains("hours=143"), "{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn certificate_that_is_valid_for_longer_is_not() {
    assert_eq!(warnings(8).await, Vec::<String>::new());
}
