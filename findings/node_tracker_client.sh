#!/usr/bin/env bash
# bittorrent-tracker 11.2.3 (the client, HTTP), at a tracker that answers as BEP 3 and
# BEP 48 have it: peers in the form of dictionaries come out with the bytes of their
# address as decimal numbers; the tracker id, which is to be given back, is given back
# empty; a slash at the end of the tracker's address is cut off, so another path is asked;
# complete() says that 16384 bytes are left; and the info hash of a scrape that is no
# UTF-8 has 80 digits.
#
# Expected before looking: an address that can be dialled, the same id, the path as given,
# left=0 with completed, and 40 digits.
# For us: a tracker gives no tracker id, answers in the compact form unless told compact=0,
# and takes a peer for a seeder by `left` alone, whatever the event.
# WebRTC, which is not met here and would fetch a binary, is left out.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
npm init -y >npm.log
npm install --ignore-scripts --no-audit --no-fund bittorrent-tracker@11.2.3 >>npm.log 2>&1

cat >no-webrtc.mjs <<'JS'
import { register } from "node:module"

const empty = "export const RTCPeerConnection = undefined, RTCSessionDescription = undefined, RTCIceCandidate = undefined"
register("data:text/javascript," + encodeURIComponent(`
  export const resolve = (name, context, next) => name === "webrtc-polyfill"
    ? { url: "data:text/javascript,${empty}", shortCircuit: true }
    : next(name, context)`))
JS
cat >look.mjs <<'JS'
import http from "http"
import Client from "bittorrent-tracker/client"

const hash = Buffer.alloc(20, 0xff)
const announced = Buffer.from("d8:intervali1800e10:tracker id3:abc5:peersld2:ip8:10.0.0.44:porti6881eeee")
const scraped = Buffer.concat([Buffer.from("d5:filesd20:"), hash, Buffer.from("d8:completei1e10:downloadedi1e10:incompletei0eeee")])
const server = http.createServer((request, response) => {
  const { pathname, searchParams } = new URL(request.url, "http://tracker")
  if (pathname === "/scrape") return response.end(scraped)
  console.log(pathname, ...["event", "left", "trackerid"].map(key => `${key}=${searchParams.get(key)}`))
  response.end(announced)
})
await new Promise(done => server.listen(0, "127.0.0.1", done))
const client = new Client({
  infoHash: hash.toString("hex"), peerId: Buffer.from("-XX0001-000000000001"), port: 6881,
  announce: `http://127.0.0.1:${server.address().port}/announce/`
})
client.on("error", error => console.log("error:", error.message))
client.on("warning", error => console.log("warning:", error.message))
client.once("peer", peer => console.log("peer:", peer))
const said = event => new Promise(done => client.once(event, done))
client.start()
await said("update")
client.complete()
await said("update")
client.scrape()
console.log("scraped:", (await said("scrape")).infoHash)
client.destroy()
server.close()
JS
cat >expected <<TXT
/announce event=started left=16384 trackerid=null
peer: 49,48,46,48,46,48,46,52:6881
/announce event=completed left=16384 trackerid=
scraped: $(printf '66%.0s' {1..40})
TXT
node --import ./no-webrtc.mjs look.mjs | tee seen
diff expected seen
