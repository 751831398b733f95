#!/usr/bin/env bash
# parse-torrent 11.0.24: magnet-uri 7.0.10, which it uses, reads the v2 info hash of a
# magnet link (BEP 52: urn:btmh), but parse-torrent refuses a link that has only that one;
# and it refuses the numbered form xt.1, xt.2 of the magnet scheme with two v1 hashes.
#
# Expected before looking: what the one reads, the other takes.
# For us: a link is good if it has a hash that we can use, of either kind.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
npm init -y >npm.log
npm install --ignore-scripts --no-audit --no-fund parse-torrent@11.0.24 magnet-uri@7.0.10 >>npm.log 2>&1

cat >look.mjs <<'JS'
import magnet from "magnet-uri"
import parseTorrent from "parse-torrent"

const links = [`magnet:?xt=urn:btmh:1220${"ab".repeat(32)}`, `magnet:?xt.1=urn:btih:${"ab".repeat(20)}&xt.2=urn:btih:${"cd".repeat(20)}`]
for (const link of links) {
  const { infoHash, infoHashV2 } = magnet(link)
  console.log("magnet-uri:", infoHash, infoHashV2)
  try {
    console.log("parse-torrent:", (await parseTorrent(link)).infoHash)
  } catch (error) {
    console.log("parse-torrent:", error.message)
  }
}
JS
cat >expected <<'TXT'
magnet-uri: undefined abababababababababababababababababababababababababababababababab
parse-torrent: Invalid torrent identifier
magnet-uri: undefined undefined
parse-torrent: Invalid torrent identifier
TXT
node look.mjs | tee seen
diff expected seen
