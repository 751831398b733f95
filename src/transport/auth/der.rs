//! The little that is read from DER here and not by the TLS library: what it does not tell.

use std::fmt;
use std::time::{Duration, SystemTime};

pub(super) const SEQUENCE: u8 = 0x30;
pub(super) const BIT_STRING: u8 = 0x03;
pub(super) const UTC_TIME: u8 = 0x17;
pub(super) const GENERALIZED_TIME: u8 = 0x18;
const SET: u8 = 0x31;
const OBJECT_IDENTIFIER: u8 = 0x06;

/// The parts of a name that are shown, as they are written in a certificate.
const SHOWN: [(&[u8], &str); 4] = [
    (&[0x55, 4, 3], "CN"),
    (&[0x55, 4, 10], "O"),
    (&[0x55, 4, 11], "OU"),
    (&[0x55, 4, 6], "C"),
];

/// The longest name that is shown, in characters: longer ones are for machines.
const MAX_NAME: usize = 120;

/// The next element, if it has this tag: its contents.
pub(super) fn take<'a>(input: &mut &'a [u8], tag: u8) -> Option<&'a [u8]> {
    let (found, contents) = any(input)?;
    (found == tag).then_some(contents)
}

/// The next element: its tag and its contents.
pub(super) fn any<'a>(input: &mut &'a [u8]) -> Option<(u8, &'a [u8])> {
    let (&tag, rest) = input.split_first()?;
    let (&first, mut rest) = rest.split_first()?;
    let len = match first {
        0..=0x7f => usize::from(first),
        0x81..=0x83 => {
            let (bytes, after) = rest.split_at_checked(usize::from(first & 0x0f))?;
            rest = after;
            bytes
                .iter()
                .fold(0, |len, byte| len << 8 | usize::from(*byte))
        }
        _ => return None,
    };
    let (contents, after) = rest.split_at_checked(len)?;
    *input = after;
    Some((tag, contents))
}

/// The next element with its tag and its length, if it has this tag.
pub(super) fn whole<'a>(input: &mut &'a [u8], tag: u8) -> Option<&'a [u8]> {
    let before = *input;
    take(input, tag)?;
    Some(&before[..before.len() - input.len()])
}

/// `YYMMDDHHMMSSZ` or `YYYYMMDDHHMMSSZ` (RFC 5280, 4.1.2.5). What was before 1970 is taken
/// for its first second.
pub(super) fn time((tag, text): (u8, &[u8])) -> Option<SystemTime> {
    let text = std::str::from_utf8(text).ok()?.strip_suffix('Z')?;
    let (year, rest) = match tag {
        UTC_TIME => {
            let (year, rest) = text.split_at_checked(2)?;
            let year: u64 = year.parse().ok()?;
            (if year < 50 { 2000 + year } else { 1900 + year }, rest)
        }
        GENERALIZED_TIME => {
            let (year, rest) = text.split_at_checked(4)?;
            (year.parse().ok()?, rest)
        }
        _ => return None,
    };
    if rest.len() != 10 {
        return None;
    }
    let two = |at: usize| rest.get(at..at + 2)?.parse::<u64>().ok();
    let (month, day) = (two(0)?, two(2)?);
    let of_day = two(4)? * 3600 + two(6)? * 60 + two(8)?;
    if year < 1970 {
        return Some(SystemTime::UNIX_EPOCH);
    }
    let seconds = days(year, month, day)? * 24 * 3600 + of_day;
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}

/// The first of March of the year 0 was that many days before 1970.
const MARCH_OF_YEAR_0: u64 = 719_469;

/// The days from the first of January 1970 to this day.
fn days(year: u64, month: u64, day: u64) -> Option<u64> {
    // Years that begin in March have their odd day at the end.
    let (year, month) = match month {
        1..=2 => (year - 1, month + 9),
        3..=12 => (year, month - 3),
        _ => return None,
    };
    let before = year * 365 + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5;
    (before + day).checked_sub(MARCH_OF_YEAR_0)
}

/// A time as people write it: the day, in UTC.
pub(super) struct Day(pub(super) SystemTime);

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let since = self.0.duration_since(SystemTime::UNIX_EPOCH);
        let wanted = since.unwrap_or_default().as_secs() / (24 * 3600);
        // Never too late, and a year too early at most.
        let mut year = 1970 + wanted / 366;
        while days(year + 1, 1, 1).is_some_and(|first| first <= wanted) {
            year += 1;
        }
        let begins = |month| days(year, month, 1).unwrap_or(0);
        let month = (1..=12).rev().find(|month| begins(*month) <= wanted);
        let month = month.unwrap_or(1);
        let day = wanted - begins(month) + 1;
        write!(f, "{year:04}-{month:02}-{day:02}")
    }
}

/// A name of X.509, given as the contents of its element, as people read it: `CN=the
/// cluster, O=we`.
pub(super) fn name(mut name: &[u8]) -> String {
    let mut parts = Vec::new();
    while let Some(mut set) = take(&mut name, SET) {
        while let Some(mut part) = take(&mut set, SEQUENCE) {
            let Some(kind) = take(&mut part, OBJECT_IDENTIFIER) else {
                continue;
            };
            let shown = SHOWN.iter().find(|(known, _)| *known == kind);
            if let (Some((_, key)), Some((_, value))) = (shown, any(&mut part)) {
                parts.push(format!("{key}={}", String::from_utf8_lossy(value)));
            }
        }
    }
    match parts.is_empty() {
        true => "without a name".to_owned(),
        false => printable(&parts.join(", "), MAX_NAME),
    }
}

/// A text without what would spoil a log, and not longer than so many characters.
pub(in crate::transport) fn printable(text: &str, max: usize) -> String {
    let clean = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    let mut chars = text.chars().map(clean);
    let mut printable: String = chars.by_ref().take(max).collect();
    if chars.next().is_some() {
        printable.push('…');
    }
    printable
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unix(tag: u8, text: &str) -> Option<u64> {
        let time = time((tag, text.as_bytes()))?;
        let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap();
        Some(since.as_secs())
    }

    #[test]
    fn times_of_both_forms_are_read() {
        assert_eq!(unix(UTC_TIME, "700101000000Z"), Some(0));
        assert_eq!(unix(UTC_TIME, "000229123456Z"), Some(951_827_696));
        assert_eq!(unix(UTC_TIME, "491231235959Z"), Some(2_524_607_999));
        assert_eq!(unix(UTC_TIME, "500101000000Z"), Some(0));
        assert_eq!(
            unix(GENERALIZED_TIME, "20500101000000Z"),
            Some(2_524_608_000)
        );
        assert_eq!(
            unix(GENERALIZED_TIME, "99991231235959Z"),
            Some(253_402_300_799)
        );
        for bad in ["", "Z", "700101000000", "7001010000Z", "701301000000Z", "ä"] {
            assert_eq!(unix(UTC_TIME, bad), None, "{bad}");
        }
    }

    #[test]
    fn days_are_written_as_they_are_read() {
        for (text, day) in [
            ("19700101000000Z", "1970-01-01"),
            ("19701231235959Z", "1970-12-31"),
            ("20000229123456Z", "2000-02-29"),
            ("20241231000000Z", "2024-12-31"),
            ("21000301000000Z", "2100-03-01"),
            ("99991231235959Z", "9999-12-31"),
        ] {
            let time = time((GENERALIZED_TIME, text.as_bytes())).unwrap();
            assert_eq!(Day(time).to_string(), day);
        }
    }

    #[test]
    fn text_of_others_is_short_and_has_no_line_of_its_own() {
        assert_eq!(printable("a\n\u{1b}[2Jb", 10), "a\u{fffd}\u{fffd}[2Jb");
        assert_eq!(printable("abcd", 3), "abc…");
        assert_eq!(printable("abc", 3), "abc");
        assert_eq!(name(&[0x31, 9, 1]), "without a name");
    }
}
