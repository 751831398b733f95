//! Percent encoding (RFC 3986), as trackers and magnet links use it.

use std::borrow::Cow;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, percent_encode};

/// All but the characters that RFC 3986 leaves unreserved.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// Text or bytes as a part of a query.
pub(super) fn encode(bytes: &[u8]) -> String {
    percent_encode(bytes, RESERVED).to_string()
}

/// The bytes that a part of a query stands for. What is no valid escape stays as it is.
pub(super) fn decode(text: &str) -> Cow<'_, [u8]> {
    percent_decode_str(text).into()
}

/// The names and values of a query, still encoded. `max` bounds their number.
pub(super) fn pairs(query: &str, max: usize) -> impl Iterator<Item = (&str, &str)> {
    let parts = query.split('&').filter(|part| !part.is_empty());
    parts
        .map(|part| part.split_once('=').unwrap_or((part, "")))
        .take(max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_bytes_are_encoded_and_decoded() {
        let all: Vec<u8> = (0..=255).collect();
        let text = encode(&all);
        assert!(text.is_ascii() && text.contains("%00%01") && text.contains("-.%2F0123"));
        assert_eq!(*decode(&text), all[..]);
        assert_eq!(*decode("%4"), b"%4"[..]);
        assert_eq!(*decode("%zz+%41"), b"%zz+A"[..]);
    }
}
