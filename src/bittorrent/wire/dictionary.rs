//! The dictionaries of the extension protocol, as they arrive.
//!
//! Raw bytes may follow a dictionary (BEP 9), and not every client sorts its keys, so these
//! are read leniently: a key may come anywhere, what is unknown is skipped.

use std::collections::BTreeMap;

use crate::bittorrent::bencode::{self, BencodeError};

/// A value.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Value {
    Bytes(Vec<u8>),
    Integer(i64),
    Dictionary(Dictionary),
    /// Anything else, also a number that no field here can have.
    Other,
}

/// A dictionary.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Dictionary(BTreeMap<Vec<u8>, Value>);

impl Dictionary {
    /// Reads a dictionary at the start of the input; returns it and what follows it.
    pub(super) fn read(input: &[u8]) -> Option<(Self, &[u8])> {
        let (value, rest) = bencode::canonical(input, input.len()).ok()?;
        let read = bencode::read(&value, value.len(), Self::of).ok()?;
        Some((read, rest))
    }

    fn of(value: bencode::Value<'_, '_>) -> Result<Self, BencodeError> {
        let mut entries = BTreeMap::new();
        value.dict("dictionary", |key, value| {
            let value = match value {
                bytes if bytes.is_bytes() => Value::Bytes(bytes.bytes("")?.to_vec()),
                inner if inner.is_dict() => Value::Dictionary(Self::of(inner)?),
                other => other.int("").map_or(Value::Other, Value::Integer),
            };
            entries.insert(key.to_vec(), value);
            Ok::<_, BencodeError>(())
        })?;
        Ok(Self(entries))
    }

    /// The integer that a key has.
    pub(super) fn integer(&self, key: &str) -> Option<i64> {
        match self.0.get(key.as_bytes())? {
            Value::Integer(number) => Some(*number),
            _ => None,
        }
    }

    /// The number that a key has, if it has one in this range.
    pub(super) fn number(&self, key: &str) -> Option<u32> {
        self.integer(key)?.try_into().ok()
    }

    /// The bytes that a key has.
    pub(super) fn bytes(&self, key: &str) -> Option<&[u8]> {
        match self.0.get(key.as_bytes())? {
            Value::Bytes(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// The dictionary that a key has.
    pub(super) fn dictionary(&self, key: &str) -> Option<&Self> {
        match self.0.get(key.as_bytes())? {
            Value::Dictionary(inner) => Some(inner),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bittorrent::bencode::MAX_BENCODE_DEPTH;

    #[test]
    fn unsorted_keys_and_raw_bytes_behind_are_read() {
        let input = b"d1:zi-3e1:ad1:xi7eee\x00raw";
        let (read, rest) = Dictionary::read(input).expect("a dictionary");
        assert_eq!(rest, b"\x00raw");
        assert_eq!((read.integer("z"), read.number("z")), (Some(-3), None));
        let inner = read.dictionary("a").expect("within");
        assert_eq!(inner.number("x"), Some(7));
    }

    #[test]
    fn what_is_cut_or_nests_too_deeply_is_refused() {
        let whole = b"d1:ai1e1:b2:xye";
        for cut in 0..whole.len() {
            assert_eq!(Dictionary::read(&whole[..cut]), None, "cut at {cut}");
        }
        for depth in [3, 100_000] {
            let nested = [b"d1:a".to_vec(), vec![b'l'; depth], vec![b'e'; depth + 1]].concat();
            assert_eq!(
                Dictionary::read(&nested).is_some(),
                depth < MAX_BENCODE_DEPTH
            );
        }
        assert_eq!(Dictionary::read(b"d1:a999999999999999999:xe"), None);
        assert_eq!(Dictionary::read(b"le"), None);
    }
}
