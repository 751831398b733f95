//! Whether both sides of a connection are still there.

use std::time::{Duration, Instant};

/// After this time in which nothing was sent, a keep-alive is: clients close after two
/// minutes (BEP 3), and it may be under way for a while.
const KEEP_ALIVE: Duration = Duration::from_secs(100);

/// How long the other side may be silent: twice the time of BEP 3.
const SILENCE: Duration = Duration::from_secs(240);

/// When something was last sent and heard.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pulse {
    sent_at: Instant,
    heard_at: Instant,
}

impl Pulse {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            sent_at: now,
            heard_at: now,
        }
    }

    pub(super) fn sent(&mut self, now: Instant) {
        self.sent_at = now;
    }

    pub(super) fn heard(&mut self, now: Instant) {
        self.heard_at = now;
    }

    /// Whether the other side has been silent for too long.
    pub(super) fn is_lost(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.heard_at) >= SILENCE
    }

    /// Whether a keep-alive has to be sent, which then counts as sent.
    pub(super) fn beats(&mut self, now: Instant) -> bool {
        let beats = now.saturating_duration_since(self.sent_at) >= KEEP_ALIVE;
        if beats {
            self.sent_at = now;
        }
        beats
    }

    /// When to look again.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let both = [
            self.sent_at.checked_add(KEEP_ALIVE),
            self.heard_at.checked_add(SILENCE),
        ];
        both.into_iter().flatten().min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keep_alive_counts_as_sent_when_it_is_due_and_any_message_puts_it_off() {
        let start = Instant::now();
        let mut pulse = Pulse::new(start);
        let due = start + KEEP_ALIVE;
        assert_eq!(pulse.poll_timeout(), Some(due));
        assert!(pulse.beats(due) && !pulse.beats(due));
        assert_eq!(pulse.poll_timeout(), Some(due + KEEP_ALIVE));
        pulse.sent(due + KEEP_ALIVE / 2);
        assert!(!pulse.beats(due + KEEP_ALIVE));
        assert!(!pulse.is_lost(start + SILENCE - Duration::from_secs(1)));
        assert!(pulse.is_lost(start + SILENCE));
        pulse.heard(start + SILENCE);
        assert!(!pulse.is_lost(start + SILENCE));
    }
}
