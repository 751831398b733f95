//! The dictionaries of the extension protocol, as they arrive.
//!
//! Raw bytes may follow a dictionary (BEP 9), and not every client sorts its keys, so these
//! are read leniently: a key may come anywhere, what is unknown is skipped. Nothing is
//! copied, and depth and size are bounded.

/// How deeply values may nest: twice what any known extension needs.
const MAX_DEPTH: usize = 8;

/// How many entries a dictionary may have: several times what any known client sends.
const MAX_ENTRIES: usize = 256;

/// A value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Value<'a> {
    Bytes(&'a [u8]),
    Integer(i64),
    /// A dictionary, still encoded.
    Dictionary(&'a [u8]),
    /// Anything else, which was skipped.
    Other,
}

/// The entries of a dictionary, in the order in which they came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Dictionary<'a> {
    entries: Vec<(&'a [u8], Value<'a>)>,
}

impl<'a> Dictionary<'a> {
    /// Reads a dictionary at the start of the input; returns it and what follows it.
    pub(super) fn read(input: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let mut reader = Reader { rest: input };
        let mut entries = Vec::new();
        reader.expect(b'd')?;
        while !reader.ends()? {
            if entries.len() >= MAX_ENTRIES {
                return None;
            }
            let key = reader.bytes()?;
            entries.push((key, reader.value(MAX_DEPTH)?));
        }
        Some((Self { entries }, reader.rest))
    }

    /// The first value of a key.
    pub(super) fn value(&self, key: &str) -> Option<Value<'a>> {
        let mut entries = self.entries.iter();
        let found = entries.find(|(name, _)| *name == key.as_bytes());
        found.map(|(_, value)| *value)
    }

    /// The number that a key has, if it has one in this range.
    pub(super) fn number(&self, key: &str) -> Option<u32> {
        match self.value(key)? {
            Value::Integer(number) => u32::try_from(number).ok(),
            _ => None,
        }
    }

    /// The bytes that a key has.
    pub(super) fn bytes(&self, key: &str) -> Option<&'a [u8]> {
        match self.value(key)? {
            Value::Bytes(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// The dictionary that a key has.
    pub(super) fn dictionary(&self, key: &str) -> Option<Self> {
        match self.value(key)? {
            Value::Dictionary(bytes) => Some(Self::read(bytes)?.0),
            _ => None,
        }
    }
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn peek(&self) -> Option<u8> {
        self.rest.first().copied()
    }

    fn expect(&mut self, byte: u8) -> Option<()> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        (*first == byte).then_some(())
    }

    /// Whether a list or dictionary ends here, which is then behind.
    fn ends(&mut self) -> Option<bool> {
        let ends = self.peek()? == b'e';
        if ends {
            self.rest = &self.rest[1..];
        }
        Some(ends)
    }

    /// Digits up to a byte that ends them.
    fn text_until(&mut self, end: u8) -> Option<&'a str> {
        let at = self.rest.iter().take(24).position(|byte| *byte == end)?;
        let text = std::str::from_utf8(&self.rest[..at]).ok()?;
        self.rest = &self.rest[at + 1..];
        Some(text)
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let len: usize = match self.peek()? {
            b'0'..=b'9' => self.text_until(b':')?.parse().ok()?,
            _ => return None,
        };
        let (bytes, rest) = self.rest.split_at_checked(len)?;
        self.rest = rest;
        Some(bytes)
    }

    fn value(&mut self, depth: usize) -> Option<Value<'a>> {
        let depth = depth.checked_sub(1)?;
        let start = self.rest;
        match self.peek()? {
            b'i' => {
                self.expect(b'i')?;
                // A number that no field here can have is as good as none.
                let text = self.text_until(b'e')?;
                Some(text.parse().map_or(Value::Other, Value::Integer))
            }
            b'l' => {
                self.expect(b'l')?;
                while !self.ends()? {
                    self.value(depth)?;
                }
                Some(Value::Other)
            }
            b'd' => {
                self.expect(b'd')?;
                while !self.ends()? {
                    self.bytes()?;
                    self.value(depth)?;
                }
                let len = start.len() - self.rest.len();
                Some(Value::Dictionary(&start[..len]))
            }
            _ => self.bytes().map(Value::Bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unsorted_keys_and_raw_bytes_behind_are_read() {
        let input = b"d1:zi-3e1:ad1:xi7eee\x00raw";
        let (read, rest) = Dictionary::read(input).expect("a dictionary");
        assert_eq!(rest, b"\x00raw");
        assert_eq!(read.value("z"), Some(Value::Integer(-3)));
        assert_eq!(read.number("z"), None);
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
            assert_eq!(Dictionary::read(&nested).is_some(), depth < MAX_DEPTH);
        }
        assert_eq!(Dictionary::read(b"d1:a999999999999999999:xe"), None);
    }
}
