#!/usr/bin/env bash
# bencode 4.0.1 (of WebTorrent): the keys of a scrape answer (BEP 48) are info hashes, 20
# bytes. A key that is no UTF-8 comes out as 40 hexadecimal digits, one that is (a hash may
# be by accident) as text; and what was decoded is encoded as another message.
#
# Expected before looking: bytes, or an error; and the same message again.
# For us: keys are bytes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
npm init -y >npm.log
npm install --ignore-scripts --no-audit --no-fund bencode@4.0.1 >>npm.log 2>&1

cat >look.mjs <<'JS'
import bencode from "bencode"

const scrape = key => Buffer.concat([Buffer.from("d5:filesd20:"), key, Buffer.from("d8:completei1eeee")])
for (const key of [Buffer.alloc(20, 0xff), Buffer.alloc(20, 0x61)]) {
  const message = scrape(key)
  const decoded = bencode.decode(message)
  const again = Buffer.from(bencode.encode(decoded))
  console.log(Object.keys(decoded.files), "the same again:", again.equals(message))
}
JS
cat >expected <<'TXT'
[ 'ffffffffffffffffffffffffffffffffffffffff' ] the same again: false
[ 'aaaaaaaaaaaaaaaaaaaa' ] the same again: true
TXT
node look.mjs | tee seen
diff expected seen
