//! Bencode (BEP 3, BEP 52): read strictly, written canonically.
//!
//! The reader is that of the crate `bendy`. It refuses leading zeros, a negative zero,
//! keys that are out of order or occur twice, keys without a value, and a string that is
//! longer than what is left; it copies nothing. What it leaves open is closed here: the
//! length of the input, its depth, bytes behind the value, and integers of more than 64
//! bits. Nothing is allocated by a length that the input claims.
//!
//! Programs that are in use send dictionaries that are out of order: some trackers, and
//! some peers in their extension handshake. `canonical` puts them in order. So do some
//! that make torrent files, and every other program reads these: `sorted` does as well. What
//! is hashed are the bytes as they came.

use std::borrow::Cow;
use std::collections::BTreeMap;

use bendy::decoding::{Decoder, Object};
use thiserror::Error;

/// The maximum number of lists and dictionaries around a value. A file tree of the
/// deepest path needs three more than the path has elements.
pub const MAX_BENCODE_DEPTH: usize = 100;

/// Why bytes are not the bencoded value that they should be.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum BencodeError {
    /// There are more bytes than are read.
    #[error("it has {len} bytes, and {max} are the most that are read")]
    TooLong {
        /// How many bytes there are.
        len: usize,
        /// How many there may be.
        max: usize,
    },
    /// The bytes are not one value in canonical form, or end within it.
    #[error("it is not bencode in canonical form: {what}")]
    Malformed {
        /// What is wrong.
        what: String,
    },
    /// Something follows the value.
    #[error("something follows the bencoded value")]
    Trailing,
    /// A value has another type.
    #[error("{key:?} is not {expected}")]
    Type {
        /// The key of the value, or what it is.
        key: &'static str,
        /// What it should be.
        expected: &'static str,
    },
    /// A text is not UTF-8.
    #[error("{key:?} is not UTF-8")]
    Encoding {
        /// The key of the text.
        key: &'static str,
    },
    /// An integer is out of the range of what it is for.
    #[error("{key:?} is out of range")]
    Range {
        /// The key of the integer.
        key: &'static str,
    },
    /// A key is not there.
    #[error("{key:?} is missing")]
    Missing {
        /// The key.
        key: &'static str,
    },
}

/// What bendy found wrong.
fn refused(error: bendy::decoding::Error) -> BencodeError {
    malformed(error.to_string())
}

fn malformed(what: impl Into<String>) -> BencodeError {
    BencodeError::Malformed { what: what.into() }
}

/// A value that is being read. What is not looked at is checked all the same.
pub(crate) struct Value<'o, 'a>(Object<'o, 'a>);

impl<'a> Value<'_, 'a> {
    /// The bytes of a string.
    pub(crate) fn bytes(self, key: &'static str) -> Result<&'a [u8], BencodeError> {
        let expected = "a string";
        self.0.bytes_or(Err(BencodeError::Type { key, expected }))
    }

    /// A string that is UTF-8.
    pub(crate) fn text(self, key: &'static str) -> Result<&'a str, BencodeError> {
        let bytes = self.bytes(key)?;
        std::str::from_utf8(bytes).map_err(|_| BencodeError::Encoding { key })
    }

    /// An integer.
    pub(crate) fn int(self, key: &'static str) -> Result<i64, BencodeError> {
        let expected = "an integer";
        let digits = self
            .0
            .integer_or(Err(BencodeError::Type { key, expected }))?;
        digits.parse().map_err(|_| BencodeError::Range { key })
    }

    /// An integer that is not negative, and fits its type.
    pub(crate) fn unsigned<T: TryFrom<i64>>(self, key: &'static str) -> Result<T, BencodeError> {
        let int = self.int(key)?;
        let unsigned = (int >= 0).then_some(int);
        unsigned
            .and_then(|int| T::try_from(int).ok())
            .ok_or(BencodeError::Range { key })
    }

    /// A string of this many bytes.
    pub(crate) fn array<const N: usize>(self, key: &'static str) -> Result<[u8; N], BencodeError> {
        let bytes = self.bytes(key)?;
        bytes.try_into().map_err(|_| BencodeError::Range { key })
    }

    /// Hands on the items of a list, one after the other.
    pub(crate) fn list<E: From<BencodeError>>(
        self,
        key: &'static str,
        mut item: impl FnMut(Value<'_, 'a>) -> Result<(), E>,
    ) -> Result<(), E> {
        let Object::List(mut list) = self.0 else {
            let expected = "a list";
            return Err(BencodeError::Type { key, expected }.into());
        };
        while let Some(object) = list.next_object().map_err(refused)? {
            item(Value(object))?;
        }
        Ok(())
    }

    /// Hands on the entries of a dictionary, in the order of their keys.
    pub(crate) fn dict<E: From<BencodeError>>(
        self,
        key: &'static str,
        mut entry: impl FnMut(&'a [u8], Value<'_, 'a>) -> Result<(), E>,
    ) -> Result<(), E> {
        let Object::Dict(mut dict) = self.0 else {
            let expected = "a dictionary";
            return Err(BencodeError::Type { key, expected }.into());
        };
        while let Some((key, object)) = dict.next_pair().map_err(refused)? {
            entry(key, Value(object))?;
        }
        Ok(())
    }

    /// Whether it is a string.
    pub(crate) fn is_bytes(&self) -> bool {
        matches!(self.0, Object::Bytes(_))
    }

    /// Whether it is a dictionary.
    pub(crate) fn is_dict(&self) -> bool {
        matches!(self.0, Object::Dict(_))
    }

    /// The bytes that it is written with.
    pub(crate) fn raw(self) -> Result<Cow<'a, [u8]>, BencodeError> {
        Ok(match self.0 {
            Object::List(list) => list.into_raw().map_err(refused)?.into(),
            Object::Dict(dict) => dict.into_raw().map_err(refused)?.into(),
            // There is one way to write these.
            Object::Integer(digits) => format!("i{digits}e").into_bytes().into(),
            Object::Bytes(bytes) => written(bytes).into(),
        })
    }
}

/// Reads bytes that are one value and nothing else. `max` bounds their number.
pub(crate) fn read<'a, T, E: From<BencodeError>>(
    bytes: &'a [u8],
    max: usize,
    read: impl FnOnce(Value<'_, 'a>) -> Result<T, E>,
) -> Result<T, E> {
    let len = bytes.len();
    if len > max {
        return Err(BencodeError::TooLong { len, max }.into());
    }
    let mut decoder = decoder(bytes);
    let first = decoder.next_object().map_err(refused)?;
    let first = first.ok_or_else(|| malformed("there is nothing"))?;
    let value = read(Value(first))?;
    // What was left unread has been walked through by now, and its errors are kept.
    match decoder.next_object().map_err(refused)? {
        None => Ok(value),
        Some(_) => Err(BencodeError::Trailing.into()),
    }
}

fn decoder(bytes: &[u8]) -> Decoder<'_> {
    Decoder::new(bytes).with_max_depth(MAX_BENCODE_DEPTH)
}

/// The same value with the keys of its dictionaries in order. They may come in any order;
/// in everything else the bytes have to be one value in canonical form, so a key may not
/// occur twice. `max` bounds their number.
pub(crate) fn sorted(bytes: &[u8], max: usize) -> Result<Cow<'_, [u8]>, BencodeError> {
    match read(bytes, max, |_| Ok::<_, BencodeError>(())) {
        Err(refused @ BencodeError::Malformed { .. }) => match canonical(bytes, max) {
            // What is left out of a canonical form should not have been there: a second
            // value of a key, a zero before a number, something behind the value.
            Ok((value, [])) if value.len() == bytes.len() => Ok(value),
            _ => Err(refused),
        },
        read => read.map(|()| bytes.into()),
    }
}

/// The value of a key in a dictionary, exactly as it is written there, wherever it comes.
pub(crate) fn written_value<'a>(dict: &'a [u8], key: &[u8]) -> Option<&'a [u8]> {
    let mut rest = dict.strip_prefix(b"d")?;
    let mut skipped = Vec::new();
    while !take_end(&mut rest) {
        let found = take_string(&mut rest).ok()?;
        let from = rest;
        skipped.clear();
        put_in_order(&mut rest, 1, &mut skipped).ok()?;
        if found == key {
            return from.get(..from.len() - rest.len());
        }
    }
    None
}

/// The first value of the bytes in canonical form, and what follows it. Keys may be out
/// of order; of equal ones the first counts. `max` bounds the number of bytes.
pub(crate) fn canonical(bytes: &[u8], max: usize) -> Result<(Cow<'_, [u8]>, &[u8]), BencodeError> {
    let len = bytes.len();
    if len > max {
        return Err(BencodeError::TooLong { len, max });
    }
    let mut rest = bytes;
    let mut out = Vec::new();
    put_in_order(&mut rest, 0, &mut out)?;
    let value = &bytes[..len - rest.len()];
    match value == out {
        true => Ok((value.into(), rest)),
        false => Ok((out.into(), rest)),
    }
}

/// Writes the next value of `rest` to `out`, with its keys in order.
fn put_in_order(rest: &mut &[u8], depth: usize, out: &mut Vec<u8>) -> Result<(), BencodeError> {
    let first = *rest.first().ok_or_else(|| malformed("it ends early"))?;
    if matches!(first, b'l' | b'd') && depth == MAX_BENCODE_DEPTH {
        return Err(malformed("it is too deep"));
    }
    match first {
        b'i' => {
            let end = rest.iter().position(|&byte| byte == b'e');
            let end = end.ok_or_else(|| malformed("an integer has no end"))?;
            let digits = std::str::from_utf8(&rest[1..end]).ok();
            let int: i64 = digits
                .and_then(|digits| digits.parse().ok())
                .ok_or_else(|| malformed("an integer is none"))?;
            *rest = &rest[end + 1..];
            out.extend(format!("i{int}e").into_bytes());
        }
        b'l' => {
            *rest = &rest[1..];
            out.push(b'l');
            while !take_end(rest) {
                put_in_order(rest, depth + 1, out)?;
            }
            out.push(b'e');
        }
        b'd' => {
            *rest = &rest[1..];
            out.push(b'd');
            let start = out.len();
            let mut entries = Vec::new();
            while !take_end(rest) {
                let from = out.len();
                let key = take_string(rest)?;
                out.extend(written(key));
                put_in_order(rest, depth + 1, out)?;
                entries.push((key, from..out.len()));
            }
            if !entries.is_sorted_by(|a, b| a.0 < b.0) {
                entries.sort_by_key(|(key, _)| *key);
                entries.dedup_by_key(|(key, _)| *key);
                let unsorted = out.split_off(start);
                for (_, range) in entries {
                    out.extend(&unsorted[range.start - start..range.end - start]);
                }
            }
            out.push(b'e');
        }
        _ => {
            let bytes = take_string(rest)?;
            out.extend(written(bytes));
        }
    }
    Ok(())
}

fn take_end(rest: &mut &[u8]) -> bool {
    let after = rest.strip_prefix(b"e");
    *rest = after.unwrap_or(*rest);
    after.is_some()
}

fn take_string<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], BencodeError> {
    let wrong = || malformed("a string or its length is wrong");
    let colon = rest.iter().take(20).position(|&byte| byte == b':');
    let (digits, after) = rest.split_at(colon.ok_or_else(wrong)?);
    if !digits.iter().all(u8::is_ascii_digit) {
        return Err(wrong());
    }
    let digits = std::str::from_utf8(digits).map_err(|_| wrong())?;
    let len: usize = digits.parse().map_err(|_| wrong())?;
    let (string, after) = after[1..].split_at_checked(len).ok_or_else(wrong)?;
    *rest = after;
    Ok(string)
}

fn written(bytes: &[u8]) -> Vec<u8> {
    let mut written = format!("{}:", bytes.len()).into_bytes();
    written.extend(bytes);
    written
}

/// A dictionary that is being written. Its keys come in order by themselves.
#[derive(Debug, Clone, Default)]
pub(crate) struct DictWriter(BTreeMap<Vec<u8>, Vec<u8>>);

impl DictWriter {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn bytes(&mut self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) {
        self.raw(key, written(value.as_ref()));
    }

    pub(crate) fn int(&mut self, key: impl AsRef<[u8]>, value: i64) {
        self.raw(key, format!("i{value}e"));
    }

    /// An entry whose value is written already.
    pub(crate) fn raw(&mut self, key: impl AsRef<[u8]>, value: impl Into<Vec<u8>>) {
        self.0.insert(key.as_ref().to_vec(), value.into());
    }

    /// The entries, each with its value as it is written.
    pub(crate) fn entries(self) -> impl Iterator<Item = (Vec<u8>, Vec<u8>)> {
        self.0.into_iter()
    }

    pub(crate) fn finish(self) -> Vec<u8> {
        let mut out = vec![b'd'];
        for (key, value) in self.0 {
            out.extend(written(&key));
            out.extend(value);
        }
        out.push(b'e');
        out
    }
}

/// A list of values that are written already.
pub(crate) fn list(items: impl IntoIterator<Item = Vec<u8>>) -> Vec<u8> {
    let mut out = vec![b'l'];
    items.into_iter().for_each(|item| out.extend(item));
    out.push(b'e');
    out
}

/// A list of strings.
pub(crate) fn list_of_bytes<T: AsRef<[u8]>>(items: impl IntoIterator<Item = T>) -> Vec<u8> {
    list(items.into_iter().map(|item| written(item.as_ref())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(bytes: &[u8], max: usize) -> Result<(), BencodeError> {
        read(bytes, max, |_| Ok(()))
    }

    fn check_text(text: &str) -> Result<(), BencodeError> {
        check(text.as_bytes(), 1 << 20)
    }

    #[test]
    fn what_is_not_canonical_is_refused() {
        for text in [
            "",
            "e",
            "i",
            "ie",
            "i-e",
            "i-0e",
            "i00e",
            "i01e",
            "i-01e",
            "i1",
            "i+1e",
            "i 1e",
            "01:a",
            "00:",
            "-1:a",
            "+1:a",
            "1a",
            "2:a",
            "4294967296:a",
            "18446744073709551615:a",
            "99999999999999999999999:a",
            "l",
            "le e",
            "lee",
            "d",
            "d1:ae",
            "di1e1:ae",
            "d1:bi1e1:ai2ee",
            "d1:ai1e1:ai2ee",
            "dle1:ae",
            "1:a1:b",
            "i1ei2e",
            "d1:ad1:ci1e1:bi1eee",
            "x",
            " i1e",
            "i1e\n",
        ] {
            assert!(check_text(text).is_err(), "{text:?} was accepted");
        }
        for text in ["i0e", "i-1e", "0:", "3:abc", "le", "de", "d0:0:1:ali1eee"] {
            assert_eq!(check_text(text), Ok(()), "{text:?}");
        }
        assert_eq!(check_text("i1ei2e"), Err(BencodeError::Trailing));
        // Also where nobody looks at the value, and where the error is deep in it.
        assert!(check_text("d1:ald1:bi1e1:bi1eeee").is_err());
    }

    #[test]
    fn depth_and_length_are_bounded() {
        let nested = |depth: usize| "l".repeat(depth) + &"e".repeat(depth);
        assert_eq!(check_text(&nested(MAX_BENCODE_DEPTH)), Ok(()));
        assert!(check_text(&nested(MAX_BENCODE_DEPTH + 1)).is_err());
        assert!(check_text(&"l".repeat(1 << 20)).is_err());
        assert!(check_text(&"d0:".repeat(1 << 18)).is_err());
        let loose = |text: &str| canonical(text.as_bytes(), 1 << 20).map(|_| ());
        assert_eq!(loose(&nested(MAX_BENCODE_DEPTH)), Ok(()));
        assert!(loose(&nested(MAX_BENCODE_DEPTH + 1)).is_err());
        assert_eq!(
            check(b"3:abc", 4),
            Err(BencodeError::TooLong { len: 5, max: 4 })
        );
    }

    #[test]
    fn integers_have_64_bits_and_fit_their_type() {
        let int = |text: &'static str| read(text.as_bytes(), 99, |value| value.int("n"));
        assert_eq!(int("i9223372036854775807e"), Ok(i64::MAX));
        assert_eq!(int("i-9223372036854775808e"), Ok(i64::MIN));
        let out_of_range = Err(BencodeError::Range { key: "n" });
        assert_eq!(int("i9223372036854775808e"), out_of_range);
        let byte = |text: &'static str| read(text.as_bytes(), 99, |v| v.unsigned::<u8>("n"));
        assert_eq!(byte("i255e"), Ok(255));
        let out_of_range = Err(BencodeError::Range { key: "n" });
        assert_eq!(
            (byte("i256e"), byte("i-1e")),
            (out_of_range.clone(), out_of_range)
        );
    }

    #[test]
    fn dictionaries_are_put_in_order() {
        let in_order = |text: &str| {
            let (value, rest) = canonical(text.as_bytes(), 999).ok()?;
            let value = String::from_utf8(value.into_owned()).ok()?;
            check(value.as_bytes(), 999).ok()?;
            Some((value, String::from_utf8_lossy(rest).into_owned()))
        };
        let some = |value: &str, rest: &str| Some((value.to_owned(), rest.to_owned()));
        assert_eq!(in_order("d1:bi2e1:ai1ee"), some("d1:ai1e1:bi2ee", ""));
        assert_eq!(in_order("d1:ai1e1:ai2ee\r\n"), some("d1:ai1ee", "\r\n"));
        assert_eq!(
            in_order("ld1:cle1:bd1:z0:1:y0:eee4:rest"),
            some("ld1:bd1:y0:1:z0:e1:cleee", "4:rest")
        );
        assert_eq!(in_order("li01e02:abe"), some("li1e2:abe", ""));
        for text in [
            "",
            "d",
            "d1:a",
            "d1:ae",
            "i1",
            "5:a",
            "-1:",
            "+1:a",
            " 1:a",
            "d+1:ai1ee",
            "dle0:e",
            "x",
            "<html>",
        ] {
            assert_eq!(in_order(text), None, "{text:?}");
        }
    }

    #[test]
    fn keys_may_be_unsorted_and_nothing_else_may_differ() {
        let put = |text: &str| {
            let value = sorted(text.as_bytes(), 999)?.into_owned();
            Ok::<_, BencodeError>(String::from_utf8(value).unwrap_or_default())
        };
        for (text, value) in [
            ("d1:ai1e1:bi2ee", "d1:ai1e1:bi2ee"),
            ("d1:bi2e1:ai1ee", "d1:ai1e1:bi2ee"),
            ("d1:bld1:z0:1:y0:eee", "d1:bld1:y0:1:z0:eee"),
        ] {
            assert_eq!(put(text).as_deref(), Ok(value));
        }
        for text in [
            "d1:bi2e1:ai1e1:ai1ee",
            "d1:bi2e1:ai1e1:ai2ee",
            "d1:bi02e1:ai1ee",
            "d1:bi-0e1:ai1ee",
            "d01:bi2e1:ai1ee",
            "d1:bi2e1:ai1eei1e",
            "d1:bi2e1:ai1e",
            "d1:bi2e1:ae",
        ] {
            assert!(put(text).is_err(), "{text}");
        }
        assert!(matches!(
            sorted(b"d1:bi2e1:ai1ee", 9),
            Err(BencodeError::TooLong { .. })
        ));
        let dict = b"d1:bd1:zi1e1:yi2ee1:ai1ee";
        assert_eq!(written_value(dict, b"b"), Some(&b"d1:zi1e1:yi2ee"[..]));
        assert_eq!(written_value(dict, b"a"), Some(&b"i1e"[..]));
        assert_eq!(written_value(dict, b"c"), None);
        assert_eq!(written_value(b"le", b"c"), None);
    }

    #[test]
    fn what_is_written_is_canonical() {
        let mut dict = DictWriter::new();
        dict.int("b", -5);
        dict.bytes("a", b"\xff");
        dict.raw("c", list_of_bytes(["x", ""]));
        let bytes = dict.finish();
        assert_eq!(bytes, b"d1:a1:\xff1:bi-5e1:cl1:x0:ee");
        let raw = read(&bytes, 99, |value| {
            Ok::<_, BencodeError>(value.raw()?.into_owned())
        });
        assert_eq!(raw, Ok(bytes));
    }
}
