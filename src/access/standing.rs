//! How something that is open stands with the policy: it goes on for a while if that cannot
//! tell, so that one failure of a directory does not end everything at once.

use std::time::Duration;

use tokio::time::Instant;

use super::gate::Verdict;

/// How often what is open is asked about at most, as long as nothing changes.
pub(crate) const MIN_RECHECK: Duration = Duration::from_millis(500);

/// After how long a policy that could not tell is asked again about what is open: often
/// enough that it counts soon again, and no burden for one that has too much to do.
pub(crate) const RETRY_UNSURE: Duration = Duration::from_secs(1);

/// Something that was permitted when it was opened.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Standing {
    /// Since when the policy could not tell.
    unsure_since: Option<Instant>,
}

impl Standing {
    /// When to ask again, if it goes on.
    pub(crate) fn judge(&mut self, verdict: Verdict, grace: Duration) -> Option<Instant> {
        let now = Instant::now();
        match verdict {
            Verdict::Allowed(until) => {
                self.unsure_since = None;
                Some(until.max(now + MIN_RECHECK))
            }
            Verdict::Denied => None,
            Verdict::Unknown => {
                let since = *self.unsure_since.get_or_insert(now);
                let is_over = now.saturating_duration_since(since) >= grace;
                (!is_over).then(|| now + RETRY_UNSURE)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_nobody_can_tell_goes_on_as_long_as_the_grace_and_no_answer_starts_it_anew() {
        let grace = Duration::from_secs(30);
        let mut standing = Standing::default();
        for _ in 0..2 {
            assert!(standing.judge(Verdict::Unknown, grace).is_some());
            advance(grace - Duration::from_millis(1)).await;
            assert!(standing.judge(Verdict::Unknown, grace).is_some());
            let until = Instant::now();
            assert!(standing.judge(Verdict::Allowed(until), grace).is_some());
        }
        assert!(standing.judge(Verdict::Unknown, grace).is_some());
        advance(grace).await;
        assert_eq!(standing.judge(Verdict::Unknown, grace), None);
        assert_eq!(Standing::default().judge(Verdict::Denied, grace), None);
        let none = Duration::ZERO;
        assert_eq!(Standing::default().judge(Verdict::Unknown, none), None);
    }
}
