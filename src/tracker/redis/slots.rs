//! Which node of a cluster has which keys: hash slots, and what a cluster tells of them. It
//! knows no connection.

use redis::Value;

use super::values::{number, parts, text};

/// How many slots a cluster has, by its protocol.
const SLOTS: u16 = 16_384;

/// The polynomial of the checksum that makes slots of keys, by the protocol of clusters.
const POLYNOMIAL: u16 = 0x1021;

/// The slot of a key: that of what is in its first braces, if there is anything.
pub(super) fn slot_of(key: &str) -> u16 {
    let braces = key
        .split_once('{')
        .and_then(|(_, rest)| rest.split_once('}'));
    let tag = braces.map(|(tag, _)| tag).filter(|tag| !tag.is_empty());
    crc16(tag.unwrap_or(key).as_bytes()) % SLOTS
}

fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |sum, byte| {
        let sum = sum ^ (u16::from(*byte) << 8);
        (0..8).fold(sum, |sum: u16, _| match sum & 0x8000 {
            0 => sum << 1,
            _ => (sum << 1) ^ POLYNOMIAL,
        })
    })
}

/// The number of the node of each slot, if one has it.
#[derive(Debug)]
pub(super) struct SlotTable(Vec<Option<u16>>);

impl SlotTable {
    /// Nobody has any.
    pub(super) fn empty() -> Self {
        Self(vec![None; SLOTS.into()])
    }

    /// The first node has all.
    pub(super) fn of_one() -> Self {
        Self(vec![Some(0); SLOTS.into()])
    }

    /// Those of a map, whose masters have these numbers by their places in `nodes`.
    pub(super) fn of_map(map: &SlotMap, nodes: &[NodeAddr]) -> Self {
        let mut table = Self::empty();
        for (first, last, master) in &map.ranges {
            let node = nodes.iter().position(|node| node == master);
            for slot in *first..=*last {
                table.0[usize::from(slot)] = node.map(|node| node as u16);
            }
        }
        table
    }

    pub(super) fn node_of(&self, slot: u16) -> Option<usize> {
        self.0
            .get(usize::from(slot))
            .copied()
            .flatten()
            .map(usize::from)
    }

    /// A slot has moved to this node.
    pub(super) fn moved(&mut self, slot: u16, node: usize) {
        if let Some(at) = self.0.get_mut(usize::from(slot)) {
            *at = Some(node as u16);
        }
    }
}

/// Where a node is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NodeAddr {
    pub(super) host: String,
    pub(super) port: u16,
}

impl NodeAddr {
    /// As a redirection names it. Without a host it is that of who has said so.
    pub(super) fn parse(text: &str, said_by: &str) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let host = if host.is_empty() { said_by } else { host };
        Some(Self {
            host: host.to_owned(),
            port: port.parse().ok()?,
        })
    }
}

/// What a node tells of the slots.
#[derive(Debug)]
pub(super) struct SlotMap {
    /// The first and the last slot, and the master that has them.
    ranges: Vec<(u16, u16, NodeAddr)>,
}

impl SlotMap {
    /// What `CLUSTER SLOTS` has answered. What is not understood is left out.
    pub(super) fn parse(answer: &Value, said_by: &str) -> Self {
        let slot = |value: &Value| {
            let slot = u16::try_from(number(value)?).ok()?;
            (slot < SLOTS).then_some(slot)
        };
        let ranges = parts(answer).iter().filter_map(|range| {
            let [first, last, master, ..] = parts(range) else {
                return None;
            };
            let [host, port, ..] = parts(master) else {
                return None;
            };
            // A node that does not know its name says nothing, or a question mark.
            let host = text(host).filter(|host| !matches!(*host, "" | "?"));
            let master = NodeAddr {
                host: host.unwrap_or(said_by).to_owned(),
                port: u16::try_from(number(port)?).ok()?,
            };
            Some((slot(first)?, slot(last)?, master))
        });
        Self {
            ranges: ranges.collect(),
        }
    }

    /// The masters, each once.
    pub(super) fn masters(&self) -> Vec<NodeAddr> {
        let mut masters: Vec<NodeAddr> = Vec::new();
        for (_, _, master) in &self.ranges {
            if !masters.contains(master) {
                masters.push(master.clone());
            }
        }
        masters
    }

    /// Whether some node has each slot.
    pub(super) fn is_whole(&self) -> bool {
        let had = self.ranges.iter();
        let had =
            had.map(|(first, last, _)| usize::from(*last).saturating_sub(usize::from(*first)) + 1);
        had.sum::<usize>() >= usize::from(SLOTS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_the_protocol() {
        assert_eq!(crc16(b"123456789"), 0x31c3);
        for (key, slot) in [("foo", 12_182), ("bar", 5061), ("a{foo}b", 12_182)] {
            assert_eq!(slot_of(key), slot, "{key}");
        }
        // Empty braces are none.
        assert_eq!(slot_of("a{}{foo}"), crc16(b"a{}{foo}") % SLOTS);
    }

    fn bulk(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    fn range(first: i64, last: i64, host: Value, port: i64) -> Value {
        let node = |host: Value, port| Value::Array(vec![host, Value::Int(port), bulk("id")]);
        let replica = node(bulk("9.9.9.9"), 1);
        let numbers = [Value::Int(first), Value::Int(last)];
        let mut range = numbers.to_vec();
        range.extend([node(host, port), replica]);
        Value::Array(range)
    }

    #[test]
    fn map_names_masters_and_leaves_out_what_it_does_not_understand() {
        let answer = Value::Array(vec![
            range(0, 5000, bulk("10.0.0.1"), 7000),
            range(5001, 10_000, Value::Nil, 7001),
            range(10_001, 16_383, bulk("10.0.0.1"), 7000),
            range(5, 70_000, bulk("10.0.0.1"), 7000),
            bulk("what"),
        ]);
        let map = SlotMap::parse(&answer, "asked");
        let node = |host: &str, port| NodeAddr {
            host: host.into(),
            port,
        };
        let masters = vec![node("10.0.0.1", 7000), node("asked", 7001)];
        assert_eq!(map.masters(), masters);
        assert!(map.is_whole());
        let mut table = SlotTable::of_map(&map, &masters);
        let nodes = [0, 5001, 16_383].map(|slot| table.node_of(slot));
        assert_eq!(nodes, [Some(0), Some(1), Some(0)]);
        table.moved(5001, 0);
        assert_eq!(table.node_of(5001), Some(0));
        assert_eq!(SlotTable::empty().node_of(5001), None);
        assert!(!SlotMap::parse(&Value::Nil, "asked").is_whole());
    }

    #[test]
    fn redirections_name_nodes_of_both_families() {
        let parse = |text| NodeAddr::parse(text, "asked").map(|node| (node.host, node.port));
        assert_eq!(parse("10.0.0.1:7000"), Some(("10.0.0.1".into(), 7000)));
        assert_eq!(
            parse("2001:db8::1:7000"),
            Some(("2001:db8::1".into(), 7000))
        );
        assert_eq!(parse(":7000"), Some(("asked".into(), 7000)));
        assert_eq!(parse("10.0.0.1"), None);
    }
}
