//! Connecting to a host that has several addresses, some of which may not answer:
//! version 2 of Happy Eyeballs (RFC 8305, sections 4 and 5).
//!
//! The operating system has sorted the addresses by preference. Their families are
//! interleaved, so that a family that does not work here costs one delay and not one
//! for each address. Attempts are started one after the other, and go on side by side.
//! The first connection wins, and the other attempts are dropped.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;

/// After how long without a connection the next attempt starts: the recommended
/// "Connection Attempt Delay" of RFC 8305, section 8.
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);
/// How many addresses of a host are tried at most. Each attempt may need a
/// descriptor until one has succeeded.
const MAX_ATTEMPTS: usize = 16;

/// Connects to the first of these addresses that answers, by calling `connect` with
/// one after the other.
///
/// Cancel safe: dropping the future drops all attempts.
///
/// # Errors
/// The error of the last attempt that failed, when all have.
pub(in crate::transport) async fn connect_first<S, Attempt>(
    targets: Vec<SocketAddr>,
    connect: impl Fn(SocketAddr) -> Attempt,
) -> io::Result<S>
where
    Attempt: Future<Output = io::Result<S>>,
{
    let mut targets = interleaved(targets).into_iter().take(MAX_ATTEMPTS);
    let mut attempts = FuturesUnordered::new();
    let mut failed = io::ErrorKind::AddrNotAvailable.into();
    loop {
        attempts.extend(targets.next().map(&connect));
        let delay = tokio::time::sleep(ATTEMPT_DELAY);
        tokio::select! {
            biased;
            ended = attempts.next() => match ended {
                Some(Ok(connected)) => return Ok(connected),
                // The next one starts at once.
                Some(Err(error)) => failed = error,
                None => return Err(failed),
            },
            () = delay, if targets.len() > 0 => {}
        }
    }
}

/// The same addresses with their families in turn, as long as there are both. The
/// family of the first address stays first.
fn interleaved(targets: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let first_is_v6 = targets.first().is_some_and(SocketAddr::is_ipv6);
    let total = targets.len();
    let (first, second): (Vec<_>, Vec<_>) = targets
        .into_iter()
        .partition(|target| target.is_ipv6() == first_is_v6);
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    (0..total)
        .flat_map(|_| [first.next(), second.next()])
        .flatten()
        .collect()
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use tokio::time::{Instant, sleep};

    use super::*;

    fn v4(n: u8) -> SocketAddr {
        ([192, 0, 2, n], 7000).into()
    }

    fn v6(n: u16) -> SocketAddr {
        ([0x2001, 0xdb8, 0, 0, 0, 0, 0, n], 7000).into()
    }

    /// What an address does with an attempt.
    #[derive(Clone, Copy)]
    enum Reply {
        /// Accepts it after this many milliseconds.
        Accepts(u64),
        Refuses(u64),
        Never,
    }

    /// What happened, at which time in milliseconds after the start.
    #[derive(Debug, Clone, PartialEq, Eq)]
    enum Event {
        Began(u64, SocketAddr),
        Dropped(u64, SocketAddr),
    }

    struct Attempt<'a> {
        events: &'a RefCell<Vec<Event>>,
        start: Instant,
        addr: SocketAddr,
        ended: bool,
    }

    impl Attempt<'_> {
        fn now(&self) -> u64 {
            self.start.elapsed().as_millis() as u64
        }
    }

    impl Drop for Attempt<'_> {
        fn drop(&mut self) {
            if !self.ended {
                let dropped = Event::Dropped(self.now(), self.addr);
                self.events.borrow_mut().push(dropped);
            }
        }
    }

    /// Connects to addresses that reply like this. Returns the one that won, the
    /// time in milliseconds, and what happened.
    async fn connect(replies: &[(SocketAddr, Reply)]) -> (io::Result<SocketAddr>, u64, Vec<Event>) {
        let (start, events) = (Instant::now(), RefCell::default());
        let targets = replies.iter().map(|&(addr, _)| addr).collect();
        let connected = connect_first(targets, |addr| {
            let (_, reply) = replies.iter().find(|(other, _)| *other == addr).unwrap();
            let attempt = Attempt {
                events: &events,
                start,
                addr,
                ended: false,
            };
            let began = Event::Began(attempt.now(), addr);
            events.borrow_mut().push(began);
            async move {
                let mut attempt = attempt;
                let (after, accepts) = match *reply {
                    Reply::Accepts(after) => (after, true),
                    Reply::Refuses(after) => (after, false),
                    Reply::Never => std::future::pending().await,
                };
                sleep(Duration::from_millis(after)).await;
                attempt.ended = true;
                match accepts {
                    true => Ok(addr),
                    false => Err(io::Error::other(addr.to_string())),
                }
            }
        });
        let connected = connected.await;
        let took = start.elapsed().as_millis() as u64;
        (connected, took, events.into_inner())
    }

    #[test]
    fn families_take_turns_and_the_preferred_one_is_first() {
        let sorted = vec![v6(1), v6(2), v6(3), v4(1), v4(2)];
        assert_eq!(interleaved(sorted), [v6(1), v4(1), v6(2), v4(2), v6(3)]);
        assert_eq!(
            interleaved(vec![v4(1), v4(2), v6(1)]),
            [v4(1), v6(1), v4(2)]
        );
        assert_eq!(interleaved(vec![v4(1)]), [v4(1)]);
        assert_eq!(interleaved(Vec::new()), []);
    }

    #[tokio::test(start_paused = true)]
    async fn next_address_is_tried_after_the_delay_and_the_first_connection_wins() {
        let replies = [(v6(1), Reply::Never), (v4(1), Reply::Accepts(30))];
        let (connected, took, events) = connect(&replies).await;
        assert_eq!((connected.unwrap(), took), (v4(1), 280));
        assert_eq!(
            events,
            [
                Event::Began(0, v6(1)),
                Event::Began(250, v4(1)),
                Event::Dropped(280, v6(1)),
            ]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn earlier_attempt_goes_on_and_may_win() {
        let replies = [
            (v6(1), Reply::Accepts(300)),
            (v4(1), Reply::Accepts(100)),
            (v6(2), Reply::Accepts(0)),
        ];
        let (connected, took, events) = connect(&replies).await;
        assert_eq!((connected.unwrap(), took), (v6(1), 300));
        assert_eq!(events.len(), 3, "{events:?}");
        assert_eq!(events[2], Event::Dropped(300, v4(1)));
    }

    #[tokio::test(start_paused = true)]
    async fn refused_attempt_is_followed_at_once() {
        let replies = [
            (v6(1), Reply::Refuses(10)),
            (v6(2), Reply::Never),
            (v4(1), Reply::Refuses(20)),
            (v4(2), Reply::Accepts(5)),
        ];
        // The order is v6(1), v4(1), v6(2), v4(2).
        let (connected, took, events) = connect(&replies).await;
        assert_eq!((connected.unwrap(), took), (v4(2), 285));
        let began: Vec<_> = events
            .iter()
            .filter(|event| matches!(event, Event::Began(..)))
            .collect();
        assert_eq!(
            began,
            [
                &Event::Began(0, v6(1)),
                &Event::Began(10, v4(1)),
                &Event::Began(30, v6(2)),
                &Event::Began(280, v4(2)),
            ]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn error_of_the_last_failure_is_returned_when_all_have_failed() {
        let replies = [(v6(1), Reply::Refuses(400)), (v4(1), Reply::Refuses(0))];
        let (failed, took, _) = connect(&replies).await;
        assert_eq!(
            (failed.unwrap_err().to_string(), took),
            (v6(1).to_string(), 400)
        );
        let (failed, took, _) = connect(&[]).await;
        assert_eq!(failed.unwrap_err().kind(), io::ErrorKind::AddrNotAvailable);
        assert_eq!(took, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn number_of_attempts_is_bounded() {
        let replies: Vec<_> = (0..40).map(|n| (v4(n), Reply::Refuses(0))).collect();
        let (failed, _, events) = connect(&replies).await;
        assert!(failed.is_err());
        assert_eq!(events.len(), MAX_ATTEMPTS);
    }
}
