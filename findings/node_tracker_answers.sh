#!/usr/bin/env bash
# bittorrent-tracker 11.2.3 (the server, HTTP): a peer that is alone gets itself as an
# owner, in the compact form as in the other; numwant=0 gives as many as there are, and
# numwant=-1 none, while its own UDP side follows BEP 15, where -1 means the default;
# no_peer_id=1 is not heeded; a peer that says stopped and was never there gets peers.
#
# Expected before looking: the asker is left out, 0 is none, and stopped gets nobody.
# For us: a client must expect its own address in an answer, and not dial it.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
npm init -y >npm.log
npm install --ignore-scripts --no-audit --no-fund bittorrent-tracker@11.2.3 >>npm.log 2>&1

cat >look.mjs <<'JS'
import http from "http"
import Server from "bittorrent-tracker/server"

const server = new Server({ udp: false, ws: false, stats: false })
await new Promise(done => server.listen(0, "127.0.0.1", done))
const { port } = server.http.address()
const hash = "%01".repeat(20)
const peers = (number, more) => new Promise(done => http.get(
  `http://127.0.0.1:${port}/announce?info_hash=${hash}&peer_id=-XX0001-00000000000${number}&port=600${number}&uploaded=0&downloaded=0&left=1${more}`,
  answer => {
    const parts = []
    answer.on("data", part => parts.push(part))
    answer.on("end", () => {
      const text = Buffer.concat(parts).toString("latin1")
      const compact = /5:peers(\d+):/.exec(text)
      done(compact ? `${compact[1] / 6} peers` : `${text.split("4:port").length - 1} peers, ids: ${text.includes("7:peer id")}`)
    })
  }))
console.log("alone:", await peers(1, "&compact=1&event=started"))
console.log("alone, not compact, no_peer_id:", await peers(1, "&compact=0&no_peer_id=1"))
await peers(2, "&compact=1&event=started")
await peers(3, "&compact=1&event=started")
console.log("numwant=0:", await peers(1, "&compact=1&numwant=0"))
console.log("numwant=-1:", await peers(1, "&compact=1&numwant=-1"))
console.log("stopped, never there:", await peers(9, "&compact=1&event=stopped"))
server.close()
JS
cat >expected <<'TXT'
alone: 1 peers
alone, not compact, no_peer_id: 1 peers, ids: true
numwant=0: 3 peers
numwant=-1: 0 peers
stopped, never there: 3 peers
TXT
node look.mjs | tee seen
diff expected seen
