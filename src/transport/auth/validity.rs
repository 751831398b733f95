//! Until when a certificate is valid: the one thing that is read from a certificate here
//! and not by the TLS library, which tells it only once it is too late.

use std::time::{Duration, SystemTime};

const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// The `notAfter` of a certificate in DER; nothing if it is not one.
pub(super) fn not_after(certificate: &[u8]) -> Option<SystemTime> {
    let (_, mut certificate) = take(&mut &*certificate, SEQUENCE)?;
    let (_, mut fields) = take(&mut certificate, SEQUENCE)?;
    if fields.first() == Some(&VERSION) {
        any(&mut fields)?;
    }
    // The serial number, the algorithm, and the issuer.
    for _ in 0..3 {
        any(&mut fields)?;
    }
    let (_, mut validity) = take(&mut fields, SEQUENCE)?;
    any(&mut validity)?;
    time(any(&mut validity)?)
}

fn take<'a>(input: &mut &'a [u8], tag: u8) -> Option<(u8, &'a [u8])> {
    any(input).filter(|(found, _)| *found == tag)
}

/// The next element: its tag and its contents.
fn any<'a>(input: &mut &'a [u8]) -> Option<(u8, &'a [u8])> {
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

/// `YYMMDDHHMMSSZ` or `YYYYMMDDHHMMSSZ` (RFC 5280, 4.1.2.5).
fn time((tag, text): (u8, &[u8])) -> Option<SystemTime> {
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
    if rest.len() != 10 || year < 1970 {
        return None;
    }
    let two = |at: usize| rest.get(at..at + 2)?.parse::<u64>().ok();
    let seconds = (days(year, two(0)?, two(2)?)? * 24 + two(4)?) * 3600 + two(6)? * 60 + two(8)?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}

/// The days from the first of January 1970 to this day.
fn days(year: u64, month: u64, day: u64) -> Option<u64> {
    // Years that begin in March have their odd day at the end.
    let (year, month) = match month {
        1..=2 => (year - 1, month + 9),
        3..=12 => (year, month - 3),
        _ => return None,
    };
    let before = year * 365 + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5;
    // The first of March of the year 0 was that many days before 1970.
    (before + day).checked_sub(719_469)
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
    fn nonsense_is_no_certificate() {
        for bad in [
            &[][..],
            &[0x30],
            &[0x30, 0x84, 1, 1, 1, 1],
            &[0x30, 3, 0x30, 9, 1],
        ] {
            assert_eq!(not_after(bad), None);
        }
    }
}
