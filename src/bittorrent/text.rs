//! Texts of the other side, which may be any bytes, in a length that is bounded as text.
//!
//! A byte that is no UTF-8 becomes three, so a bound on the bytes bounds no text.

/// Bytes as text, and what is behind `max_len` bytes of that is left out.
pub(super) fn lossy(bytes: &[u8], max_len: usize) -> String {
    let mut text = String::from_utf8_lossy(bytes).into_owned();
    text.truncate(cut(&text, max_len).len());
    text
}

/// As many whole characters as fit in `max_len` bytes.
pub(super) fn cut(text: &str, max_len: usize) -> &str {
    let mut end = max_len.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_cut_between_characters() {
        for (max_len, fits) in [
            (0, ""),
            (1, "a"),
            (2, "a"),
            (3, "aé"),
            (6, "aé"),
            (7, "aé😀"),
        ] {
            assert_eq!(cut("aé😀", max_len), fits, "{max_len}");
        }
        assert_eq!(cut("aé😀", 99), "aé😀");
        assert_eq!(cut("", 0), "");
    }

    #[test]
    fn bytes_that_are_no_utf_8_count_as_long_as_they_become() {
        assert_eq!(lossy(b"a\xffb", 9), "a\u{fffd}b");
        assert_eq!(lossy(b"a\xffb", 4), "a\u{fffd}");
        assert_eq!(lossy(b"a\xffb", 3), "a");
        assert_eq!(lossy(&[0xff; 9], 10), "\u{fffd}".repeat(3));
    }
}
