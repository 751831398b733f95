//! Bencode as a tree, for tests: simple, and careless with memory.

use std::collections::BTreeMap;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value {
    Int(i64),
    Bytes(Vec<u8>),
    List(Vec<Value>),
    Dict(BTreeMap<Vec<u8>, Value>),
}

impl Value {
    pub(crate) fn parse(bytes: &[u8]) -> Self {
        let (value, rest) = parse(bytes);
        assert!(rest.is_empty());
        value
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        self.encode_by(false)
    }

    /// The same with the keys of all dictionaries in the reverse order.
    pub(crate) fn encode_reversed(&self) -> Vec<u8> {
        self.encode_by(true)
    }

    fn encode_by(&self, reversed: bool) -> Vec<u8> {
        let string = |bytes: &[u8]| [format!("{}:", bytes.len()).as_bytes(), bytes].concat();
        match self {
            Self::Int(int) => format!("i{int}e").into_bytes(),
            Self::Bytes(bytes) => string(bytes),
            Self::List(items) => {
                let items: Vec<_> = items.iter().map(|item| item.encode_by(reversed)).collect();
                [&b"l"[..], &items.concat(), b"e"].concat()
            }
            Self::Dict(entries) => {
                let entries = entries.iter();
                let mut entries: Vec<_> = entries
                    .map(|(key, value)| [string(key), value.encode_by(reversed)].concat())
                    .collect();
                if reversed {
                    entries.reverse();
                }
                [&b"d"[..], &entries.concat(), b"e"].concat()
            }
        }
    }

    pub(crate) fn dict(&mut self) -> &mut BTreeMap<Vec<u8>, Value> {
        match self {
            Self::Dict(entries) => entries,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn list(&mut self) -> &mut Vec<Value> {
        match self {
            Self::List(items) => items,
            other => panic!("{other:?}"),
        }
    }

    /// What a key leads to; an empty dictionary is made where nothing is.
    pub(crate) fn at(&mut self, key: &str) -> &mut Value {
        let empty = Self::Dict(BTreeMap::new());
        self.dict().entry(key.into()).or_insert(empty)
    }

    pub(crate) fn set(&mut self, key: &str, value: impl Into<Value>) {
        self.dict().insert(key.into(), value.into());
    }

    pub(crate) fn remove(&mut self, key: &str) {
        self.dict().remove(key.as_bytes());
    }
}

impl From<i64> for Value {
    fn from(int: i64) -> Self {
        Self::Int(int)
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Bytes(text.into())
    }
}

impl From<Vec<u8>> for Value {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Bytes(bytes)
    }
}

impl From<Vec<Value>> for Value {
    fn from(items: Vec<Value>) -> Self {
        Self::List(items)
    }
}

/// A list of strings.
pub(crate) fn strings(texts: &[&str]) -> Value {
    Value::List(texts.iter().map(|text| Value::from(*text)).collect())
}

fn parse(bytes: &[u8]) -> (Value, &[u8]) {
    let split = |until: u8| {
        let end = bytes.iter().position(|byte| *byte == until).unwrap();
        let digits = std::str::from_utf8(&bytes[..end]).unwrap();
        (digits.trim_start_matches('i'), &bytes[end + 1..])
    };
    match bytes[0] {
        b'i' => {
            let (digits, rest) = split(b'e');
            (Value::Int(digits.parse().unwrap()), rest)
        }
        b'l' | b'd' => {
            let (mut items, mut rest) = (Vec::new(), &bytes[1..]);
            while rest[0] != b'e' {
                let (item, after) = parse(rest);
                items.push(item);
                rest = after;
            }
            let value = match bytes[0] {
                b'l' => Value::List(items),
                _ => {
                    let pairs = items.chunks(2).map(|pair| match &pair[0] {
                        Value::Bytes(key) => (key.clone(), pair[1].clone()),
                        other => panic!("{other:?}"),
                    });
                    Value::Dict(pairs.collect())
                }
            };
            (value, &rest[1..])
        }
        _ => {
            let (digits, rest) = split(b':');
            let (string, rest) = rest.split_at(digits.parse().unwrap());
            (Value::Bytes(string.into()), rest)
        }
    }
}
