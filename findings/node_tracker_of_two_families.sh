#!/usr/bin/env bash
# bittorrent-tracker 11.2.3 (the server): who announces over UDP and IPv6 gets no peer with
# an IPv6 address, but those of IPv4 in 6 bytes each, where BEP 15 has 18 bytes each. So two
# peers over IPv6 never meet, and a client reads three addresses as one. In a scrape,
# `downloaded` is not how often the content was downloaded (BEP 48), but how many have it
# now: it is 0 again when they have left.
#
# Expected before looking: 18 bytes for each peer of IPv6, and a count that only grows.
# For us: an answer over IPv6 is cut into 18 bytes each, and what is left at the end is
# dropped, so one or two such addresses do no harm; nothing is decided from `downloaded`.
# Needs IPv6 on the loopback.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
npm init -y >npm.log
npm install --ignore-scripts --no-audit --no-fund bittorrent-tracker@11.2.3 >>npm.log 2>&1

cat >look.mjs <<'JS'
import dgram from "dgram"
import Server from "bittorrent-tracker/server"

const server = new Server({ http: false, ws: false, stats: false })
await new Promise(done => server.listen(0, done))
const number = value => { const bytes = Buffer.alloc(4); bytes.writeUInt32BE(value); return bytes }
const connection = Buffer.from("0000041727101980", "hex")
const hash = Buffer.alloc(20, 1)
const ask = (family, message) => new Promise((done, failed) => {
  const socket = dgram.createSocket(`udp${family}`)
  socket.on("message", answer => { socket.close(); done(answer) })
  socket.send(message, server[`udp${family}`].address().port, family === 4 ? "127.0.0.1" : "::1", error => error && failed(error))
})
const NONE = 0, COMPLETED = 1, STARTED = 2, STOPPED = 3
const announce = async (family, port, event, left) => {
  const id = (await ask(family, Buffer.concat([connection, number(0), number(1)]))).subarray(8, 16)
  const answer = await ask(family, Buffer.concat([id, number(1), number(2), hash, Buffer.from(`-XX0001-00000000${port}`),
    Buffer.alloc(8), number(0), number(left), Buffer.alloc(8), number(event), number(0), number(3), number(50),
    number(port).subarray(2)]))
  return `${answer.readUInt32BE(12)} incomplete, peers ${answer.subarray(20).toString("hex")}`
}
const downloaded = async () => (await ask(4, Buffer.concat([connection, number(2), number(3), hash]))).readUInt32BE(12)

await announce(6, 7001, STARTED, 1)
console.log("two over IPv6:", await announce(6, 7002, STARTED, 1))
await announce(4, 7003, STARTED, 1)
console.log("and one over IPv4:", await announce(6, 7001, NONE, 1))
await announce(4, 7003, COMPLETED, 0)
console.log("completed once, downloaded:", await downloaded())
await announce(4, 7003, STOPPED, 0)
console.log("and gone, downloaded:", await downloaded())
server.close()
JS
cat >expected <<'TXT'
two over IPv6: 2 incomplete, peers 
and one over IPv4: 3 incomplete, peers 7f0000011b5b
completed once, downloaded: 1
and gone, downloaded: 0
TXT
node look.mjs | tee seen
diff expected seen
