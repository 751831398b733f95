//! How many peers each host has. A table of 8 bytes a place that grows in
//! small parts and small steps, for it counts for every peer and must not make
//! anybody wait.

/// How many parts the table has. Each grows by itself.
const PARTS: usize = 64;

#[derive(Debug, Clone, Copy, Default)]
struct Place {
    host: u32,
    /// None, for an empty place.
    peers: u32,
}

/// Counts by the hash of a host. In each part, a host is at the place its hash
/// asks for or, if others are there, at one behind without a gap between.
#[derive(Debug)]
pub(super) struct Hosts {
    parts: Vec<Part>,
}

#[derive(Debug, Default)]
struct Part {
    places: Vec<Place>,
    used: usize,
}

impl Default for Hosts {
    fn default() -> Self {
        let parts = (0..PARTS).map(|_| Part::default());
        Self {
            parts: parts.collect(),
        }
    }
}

impl Hosts {
    pub(super) fn count(&self, host: u32) -> u32 {
        let part = &self.parts[host as usize % PARTS];
        part.find(host).map_or(0, |at| part.places[at].peers)
    }

    /// One more peer of a host. Constant, but for the growth of a part.
    pub(super) fn add(&mut self, host: u32) {
        let part = &mut self.parts[host as usize % PARTS];
        if let Some(at) = part.find(host) {
            part.places[at].peers += 1;
            return;
        }
        // At most seven eighths are used.
        if 8 * (part.used + 1) > 7 * part.places.len() {
            part.resize((part.places.len() * 5 / 4).max(8));
        }
        part.place(Place { host, peers: 1 });
        part.used += 1;
    }

    /// The opposite of [`add`](Self::add).
    pub(super) fn remove(&mut self, host: u32) {
        let part = &mut self.parts[host as usize % PARTS];
        let Some(at) = part.find(host) else {
            return;
        };
        part.places[at].peers -= 1;
        if part.places[at].peers == 0 {
            part.close_gap(at);
            part.used -= 1;
            if 4 * part.used < part.places.len() && part.places.len() > 8 {
                part.resize(part.used * 2 + 8);
            }
        }
    }

    /// All hosts with their counts, for checks.
    #[cfg(any(test, feature = "testing"))]
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, u32)> {
        let places = self.parts.iter().flat_map(|part| &part.places);
        places
            .filter(|place| place.peers > 0)
            .map(|place| (place.host, place.peers))
    }
}

impl Part {
    fn ideal(&self, host: u32) -> usize {
        // The high bits choose: those of the part are among the low ones.
        ((u64::from(host) * self.places.len() as u64) >> 32) as usize
    }

    fn find(&self, host: u32) -> Option<usize> {
        if self.places.is_empty() {
            return None;
        }
        let mut at = self.ideal(host);
        while self.places[at].peers > 0 {
            if self.places[at].host == host {
                return Some(at);
            }
            at = (at + 1) % self.places.len();
        }
        None
    }

    fn place(&mut self, place: Place) {
        let mut at = self.ideal(place.host);
        while self.places[at].peers > 0 {
            at = (at + 1) % self.places.len();
        }
        self.places[at] = place;
    }

    fn resize(&mut self, len: usize) {
        let old = std::mem::replace(&mut self.places, vec![Place::default(); len]);
        for place in old.into_iter().filter(|place| place.peers > 0) {
            self.place(place);
        }
    }

    /// Empties a place, and moves those up that had to make way for it.
    fn close_gap(&mut self, mut gap: usize) {
        let len = self.places.len();
        let mut at = gap;
        loop {
            at = (at + 1) % len;
            let place = self.places[at];
            if place.peers == 0 {
                break;
            }
            let way = |to: usize| (to + len - self.ideal(place.host)) % len;
            if way(gap) < way(at) {
                self.places[gap] = place;
                gap = at;
            }
        }
        self.places[gap] = Place::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn counts_agree_with_a_map_whoever_comes_and_goes() {
        let mut rng = fastrand::Rng::with_seed(1);
        let (mut hosts, mut map) = (Hosts::default(), BTreeMap::<u32, u32>::new());
        for round in 0..60_000 {
            // Few hashes, so that many want the same places; first many come,
            // then many go.
            let host = rng.u32(..1500) << 21 | 5;
            if rng.u32(..60_000) > round {
                hosts.add(host);
                *map.entry(host).or_default() += 1;
            } else if let Some(count) = map.get_mut(&host) {
                hosts.remove(host);
                *count -= 1;
                map.retain(|_, count| *count > 0);
            }
            assert_eq!(hosts.count(host), map.get(&host).copied().unwrap_or(0));
        }
        assert_eq!(hosts.iter().collect::<BTreeMap<_, _>>(), map);
        for (host, count) in map {
            (0..count).for_each(|_| hosts.remove(host));
        }
        assert_eq!(hosts.iter().count(), 0);
    }
}
