#!/usr/bin/env bash
# bytesize 2.7.0: a size with a unit that does not fit 64 bits is no error when it is read;
# it becomes the largest number, while the same number without a unit is refused. And what
# is written just below a unit is read as the unit.
#
# Expected before looking: an error for both; 1048575 bytes shown as 1.0 MiB.
# For us: a size in a configuration that came out as the largest number is refused.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
cargo init --quiet --name look --vcs none
cargo add --quiet bytesize@=2.7.0
cat >src/main.rs <<'RUST'
use bytesize::ByteSize;

fn main() {
    for text in ["20000000 TiB", "21990232555520000000"] {
        println!("{text}: {:?}", text.parse::<ByteSize>().map(|size| size.0).ok());
    }
    let shown = ByteSize(1_048_575).to_string();
    println!("1048575: {shown}, {:?}", shown.parse::<ByteSize>().map(|size| size.0).ok());
}
RUST
cat >expected <<'TXT'
20000000 TiB: Some(18446744073709551615)
21990232555520000000: None
1048575: 1024.0 KiB, Some(1048576)
TXT
cargo run --quiet | tee seen
diff expected seen
