//! How fast the line of a link is, by the blocks that follow one another.
//!
//! A block that was not due yet when the one before it arrived says nothing of the line: it
//! took as long as the way there and back. So the rate is right with the second block, where
//! a rate over all of the time needs many more; and it is right again after a pause.

use std::time::{Duration, Instant};

/// The rate is measured over one or two spans of at least this time and so many blocks.
/// Buffers on the way make bursts of blocks, with pauses between them: over less time than
/// several of these, one of two equal lines would seem to be much faster.
const SPAN: Duration = Duration::from_millis(100);
const SPAN_BLOCKS: u32 = 8;

/// The rate of a line.
#[derive(Debug, Default)]
pub(super) struct LineMeter {
    /// When the last block arrived.
    last: Option<Instant>,
    current: Span,
    before: Span,
}

/// Blocks that followed one another.
#[derive(Debug, Default, Clone, Copy)]
struct Span {
    blocks: u32,
    bytes: u64,
    time: Duration,
}

impl LineMeter {
    /// A block arrived that was due at a time if the line had been free: the shortest round
    /// trip after it was asked for. `None` if that is not known.
    pub(super) fn arrived(&mut self, now: Instant, bytes: u64, due: Option<Instant>) {
        let before = self.last.replace(now);
        let Some(before) = before.filter(|before| due.is_some_and(|due| due <= *before)) else {
            return;
        };
        if self.current.time >= SPAN && self.current.blocks >= SPAN_BLOCKS {
            self.before = std::mem::take(&mut self.current);
        }
        self.current.blocks += 1;
        self.current.bytes += bytes;
        self.current.time += now.saturating_duration_since(before);
    }

    /// Bytes per second; `None` before one block has followed another. Falls while the next
    /// one, for which was `waited`, is overdue by more than a time.
    pub(super) fn rate(&self, waited: Duration, patience: Duration) -> Option<f64> {
        let blocks = self.current.blocks + self.before.blocks;
        let pause = self.time().checked_div(blocks)?;
        let time = self.time() + waited.saturating_sub(pause.max(patience));
        let bytes = self.current.bytes + self.before.bytes;
        (!time.is_zero()).then(|| bytes as f64 / time.as_secs_f64())
    }

    /// The time over which the rate is measured.
    pub(super) fn time(&self) -> Duration {
        self.current.time + self.before.time
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: Duration = Duration::ZERO;

    #[test]
    fn rate_of_a_line_does_not_count_the_wait_for_the_first_block() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut line = LineMeter::default();
        line.arrived(at(400), 1000, None);
        assert_eq!(line.rate(NONE, NONE), None);
        for ms in [410, 420] {
            line.arrived(at(ms), 1000, Some(at(400)));
        }
        // This one was asked for later, and then others behind it.
        line.arrived(at(700), 1000, Some(at(700)));
        for ms in [710, 720] {
            line.arrived(at(ms), 1000, Some(at(700)));
        }
        assert_eq!(line.rate(NONE, NONE), Some(100_000.0));
        let waited = Duration::from_millis(50);
        assert_eq!(line.rate(waited, NONE), Some(50_000.0));
        assert_eq!(line.rate(waited, waited), Some(100_000.0));
    }

    #[test]
    fn rate_of_a_line_follows_a_drop_and_not_a_burst() {
        let start = Instant::now();
        let mut line = LineMeter::default();
        let mut now = start;
        let mut rates = Vec::new();
        let bursts = [1, 1, 1, 17].into_iter().cycle().take(80);
        for ms in bursts.chain([100; 16]) {
            now += Duration::from_millis(ms);
            line.arrived(now, 1000, Some(start));
            rates.push(line.rate(NONE, NONE).unwrap_or_default());
        }
        assert!(
            rates[40..80]
                .iter()
                .all(|rate| (180_000.0..230_000.0).contains(rate))
        );
        assert_eq!(rates[95], 10_000.0);
    }
}
