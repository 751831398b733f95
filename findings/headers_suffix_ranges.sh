#!/usr/bin/env bash
# headers 0.4.2 (of hyper's makers): `Range::satisfiable_ranges` and ranges from the end.
# A suffix that is longer than the whole must select the whole (RFC 9110, 14.1.2), so that
# `tail` of a short file works. Here it selects nothing. A suffix of no bytes, which cannot
# be satisfied, comes back as a range that begins behind the end.
#
# Expected before looking: 0..=99 for the first, nothing for the second.
# For us: the gateway reads ranges with http-range-header 1.0.0, which answers as expected.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
cargo init --quiet --name look --vcs none
cargo add --quiet headers@=0.4.2 http-range-header@=1.0.0
cat >src/main.rs <<'RUST'
use headers::{Header, HeaderValue, Range};

fn main() {
    for text in ["bytes=-5", "bytes=-200", "bytes=-0"] {
        let value = HeaderValue::from_static(text);
        let range = Range::decode(&mut [&value].into_iter()).unwrap();
        let of_headers: Vec<_> = range.satisfiable_ranges(100).collect();
        let parsed = http_range_header::parse_range_header(text).unwrap();
        println!("{text} of 100: headers {of_headers:?}, http-range-header {:?}", parsed.validate(100).ok());
    }
}
RUST
cat >expected <<'TXT'
bytes=-5 of 100: headers [(Included(95), Unbounded)], http-range-header Some([95..=99])
bytes=-200 of 100: headers [], http-range-header Some([0..=99])
bytes=-0 of 100: headers [(Included(100), Unbounded)], http-range-header None
TXT
cargo run --quiet | tee seen
diff expected seen
