#!/usr/bin/env bash
# magnet-uri 7.0.10, valid links that other programs write: a colon of xt that is written
# as %3A, as URLSearchParams writes it, hides the info hash; a tracker whose own query has
# an equals sign is left out without a word unless the sign is written as %3D (RFC 3986
# allows it in a query as it is); x.pe stays encoded, which is no address; and a plus in a
# name is a space, also when it was written as %2B by the package itself.
#
# Expected before looking: the link is cut at & and at the first =, and what is between is
# decoded once.
# For us: a link is read so; in links that we write, the colons of xt and x.pe are plain,
# and every other sign of a tracker is encoded.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
npm init -y >npm.log
npm install --ignore-scripts --no-audit --no-fund magnet-uri@7.0.10 >>npm.log 2>&1

cat >look.mjs <<'JS'
import { decode, encode } from "magnet-uri"

const infoHash = "aa".repeat(20)
const xt = `xt=urn:btih:${infoHash}`
console.log("xt:", decode(`magnet:?${new URLSearchParams({ xt: `urn:btih:${infoHash}` })}`).infoHash)
console.log("tr:", decode(`magnet:?${xt}&tr=http://tracker.example/announce?key=1`).announce,
  decode(`magnet:?${xt}&tr=http://tracker.example/announce?key%3D1`).announce)
console.log("x.pe:", decode(`magnet:?${xt}&x.pe=${encodeURIComponent("[2001:db8::1]:6881")}`).peerAddresses)
const link = encode({ infoHash, name: "c++ notes" })
console.log("dn:", link.split("&")[1], "is", JSON.stringify(decode(link).name))
JS
cat >expected <<'TXT'
xt: undefined
tr: [] [ 'http://tracker.example/announce?key=1' ]
x.pe: [ '%5B2001%3Adb8%3A%3A1%5D%3A6881' ]
dn: dn=c%2B%2B+notes is "c   notes"
TXT
node look.mjs | tee seen
diff expected seen
