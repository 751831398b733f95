//! Numbers of bytes, as they are given on the command line.

use super::Outcome;

/// A number of bytes: `10KiB`, `1MiB`, `1GiB`, or digits alone.
pub(crate) fn bytes(text: &str) -> Outcome<usize> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let unit = match &text[digits.len()..] {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        unit => return Err(format!("unknown unit {unit}").into()),
    };
    Ok(digits.parse::<usize>()? * unit)
}
