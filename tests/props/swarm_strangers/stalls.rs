//! What a machine says and does when nothing arrives.

use bt_lite::StallReason;

use super::*;

/// What it said about stalling, and when (in milliseconds).
fn stalls(outputs: &[(Duration, Output)]) -> Vec<(u64, Option<StallReason>)> {
    let said = outputs.iter().filter_map(|(at, output)| match output {
        Output::Stalled(reason) => Some((at.as_millis() as u64, Some(*reason))),
        Output::Resumed => Some((at.as_millis() as u64, None)),
        _ => None,
    });
    said.collect()
}

impl Single {
    /// Runs until `end` in a world in which nobody answers a dial, and no tracker a
    /// search. Returns all outputs.
    fn alone_until(&mut self, end: Instant) -> Vec<(Duration, Output)> {
        let mut all = Vec::new();
        loop {
            let at = self.now - self.start;
            let outputs = self.outputs();
            for output in &outputs {
                match output {
                    Output::Dial { addr } => self.swarm.dial_failed(self.now, addr),
                    Output::FindOwners => self.swarm.owners_found(self.now, []),
                    _ => {}
                }
            }
            let quiet = outputs.is_empty();
            all.extend(outputs.into_iter().map(|output| (at, output)));
            if !quiet {
                continue;
            }
            let Some(next) = self.swarm.poll_timeout().filter(|next| *next <= end) else {
                self.now = end;
                return all;
            };
            self.now = self.now.max(next);
            self.swarm.handle_timeout(self.now);
            assert!(all.len() < 100_000, "time does not move on");
        }
    }
}

#[test]
fn machine_without_an_owner_says_so_at_once_and_never_gives_up() {
    let sample = &SMALL[3];
    let mut single = Single::new(sample.manifest.id(), SwarmConfig::default());
    let end = single.start + Duration::from_secs(24 * 3600);
    let outputs = single.alone_until(end);
    assert_eq!(stalls(&outputs), [(2000, Some(StallReason::NoOwners))]);
    let gave_up = |(_, output): &(Duration, Output)| matches!(output, Output::GaveUp(_));
    assert!(!outputs.iter().any(gave_up));
}

#[test]
fn owner_that_never_answers_is_tried_every_half_minute_and_at_once_when_something_answers() {
    let sample = &SMALL[3];
    let mut single = Single::new(sample.manifest.id(), SwarmConfig::default());
    single
        .swarm
        .owners_found(single.now, [(addr("owner:1"), true)]);
    let end = single.start + Duration::from_secs(3600);
    let outputs = single.alone_until(end);
    let reason = StallReason::Unreachable { owners: 1 };
    assert_eq!(stalls(&outputs), [(2000, Some(reason))]);
    let dialled = dials(&outputs).len();
    assert!((100..130).contains(&dialled), "{dialled} dials");
    // However often something answers, it is tried once a second at most.
    for _ in 0..5 {
        single.swarm.reachable_again(single.now);
        let now = single.now;
        assert!(dials(&single.alone_until(now)).len() <= 1);
    }
    let last = single.now - single.start;
    let again = single.now + Duration::from_secs(2);
    single.alone_until(again);
    single.swarm.reachable_again(single.now);
    let now = single.now;
    let outputs = single.alone_until(now);
    assert_eq!(
        dials(&outputs),
        [(last + Duration::from_secs(2), addr("owner:1"))]
    );
}

#[test]
fn owner_that_serves_others_first_is_told_from_one_that_is_silent() {
    let sample = &SMALL[3];
    let mut single = Single::new(sample.manifest.id(), SwarmConfig::default());
    let owner = single.dialled(OWNER, "owner:1");
    single.hears(owner, PeerMessage::HaveAll);
    single.learns(owner, sample);
    single.hears(owner, PeerMessage::Choke);
    let outputs = single.until(single.start + Duration::from_secs(11));
    let reason = StallReason::Choked { links: 1 };
    assert_eq!(stalls(&outputs), [(10_000, Some(reason))]);
    // Its turn comes, and it says nothing: soon it is silent. A block ends that.
    single.hears(owner, PeerMessage::Unchoke);
    let outputs = single.until(single.start + Duration::from_millis(11_100));
    let reason = StallReason::Silent { links: 1 };
    assert_eq!(stalls(&outputs), [(11_000, Some(reason))]);
    let sent = Vec::from_iter(outputs.into_iter().map(|(_, output)| output));
    let asked = requests(&sent, owner)[0];
    single.hears(owner, block(sample, asked, true));
    let now = single.now;
    let outputs = single.until(now);
    assert_eq!(stalls(&outputs), [(11_100, None)]);
}
