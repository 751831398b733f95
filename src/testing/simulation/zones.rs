//! The zones of a simulation, and the lines between them.

use std::collections::BTreeMap;
use std::time::Duration;

use super::line::Downlink;
use crate::protocol::Zone;

/// The lines between zones, and what they have carried.
#[derive(Debug, Default)]
pub(super) struct Zones {
    /// How fast each line is, in bytes per second; `None` if they are no bound.
    rate: Option<f64>,
    /// The line from one zone to another one.
    lines: BTreeMap<(Zone, Zone), Downlink>,
    /// Bytes of blocks that came into each zone from others.
    imported: BTreeMap<Zone, u64>,
}

impl Zones {
    /// Sets how fast all lines are, in bytes per second.
    pub(super) fn set_rate(&mut self, rate: f64) {
        self.rate = Some(rate);
        self.lines.clear();
    }

    /// Bytes of blocks that came into a zone from others.
    pub(super) fn imported(&self, zone: &Zone) -> u64 {
        self.imported.get(zone).copied().unwrap_or(0)
    }

    /// When a message has passed the line between two zones that was sent at the time `sent`.
    pub(super) fn pass(
        &mut self,
        from: Option<&Zone>,
        to: Option<&Zone>,
        sent: Duration,
        bytes: u64,
    ) -> Duration {
        let (Some(from), Some(to)) = (from, to) else {
            return sent;
        };
        if from == to || bytes == 0 {
            return sent;
        }
        *self.imported.entry(to.clone()).or_default() += bytes;
        let Some(rate) = self.rate else {
            return sent;
        };
        let line = self.lines.entry((from.clone(), to.clone()));
        let line = line.or_insert_with(|| Downlink::new(rate));
        line.receive(sent, bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_pair_of_zones_has_a_line_in_each_direction() {
        let [a, b, c]: [Zone; 3] = ["a", "b", "c"].map(|name| name.parse().unwrap());
        let (a, b, c) = (Some(&a), Some(&b), Some(&c));
        let secs = Duration::from_secs;
        let mut zones = Zones::default();
        zones.set_rate(10.0);
        assert_eq!(zones.pass(a, b, secs(1), 20), secs(2));
        assert_eq!(
            zones.pass(a, b, secs(1), 20),
            secs(4),
            "it waits for the first"
        );
        assert_eq!(zones.pass(b, a, secs(1), 20), secs(2));
        assert_eq!(zones.pass(c, b, secs(1), 20), secs(2));
        assert_eq!(
            zones.pass(b, b, secs(1), 20),
            secs(1),
            "it stays in its zone"
        );
        assert_eq!(zones.pass(None, b, secs(1), 20), secs(1));
        assert_eq!(zones.imported(b.unwrap()), 60);
    }
}
