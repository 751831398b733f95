#!/usr/bin/env bash
# bittorrent-dht 11.0.12: a query that it does not know, such as sample_infohashes (BEP 51),
# gets no answer at all, so that a node that is there looks like one that is gone. A node
# that says it is read-only (BEP 43) is taken into the table and told to others. And the
# integer 0 cannot be put (BEP 44), also without an answer, while 1 can.
#
# Expected before looking: error 204 (BEP 5) for the first, or nodes near the target; a
# read-only node is told to nobody; and a number is a number.
# For us: a query without an answer is no sign that the node is gone.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
npm init -y >npm.log
npm install --ignore-scripts --no-audit --no-fund bittorrent-dht@11.0.12 bencode@4.0.1 >>npm.log 2>&1

cat >look.mjs <<'JS'
import dgram from "dgram"
import bencode from "bencode"
import { Client } from "bittorrent-dht"

const node = new Client({ bootstrap: false })
await new Promise(done => node.listen(0, "127.0.0.1", done))
const socket = dgram.createSocket("udp4")
await new Promise(done => socket.bind(0, "127.0.0.1", done))
const answers = new Map()
socket.on("message", bytes => {
  const message = bencode.decode(bytes)
  const got = answers.get(Buffer.from(message.t).toString())
  if (got) got(message)
})
let number = 0
const ask = (query, values, more = {}) => new Promise(done => {
  const transaction = `t${number++}`
  answers.set(transaction, done)
  const message = { t: transaction, y: "q", q: query, a: { id, ...values }, ...more }
  socket.send(bencode.encode(message), node.address().port, "127.0.0.1")
})
// What the node answers, if it does so before it answers a ping that was sent later.
const answered = async (query, values) => {
  let answer
  ask(query, values).then(message => { answer = message })
  await ask("ping", {})
  return answer ? answer.r ? "an answer" : `error ${answer.e[0]}` : "no answer"
}
const id = Buffer.alloc(20, 1)
const target = Buffer.alloc(20, 2)
await ask("ping", {}, { ro: 1 })
const { nodes } = (await ask("find_node", { target })).r
console.log("a node that is read-only is told:", Buffer.from(nodes).includes(id))
for (const query of ["find_node", "sample_infohashes"]) console.log(`${query}:`, await answered(query, { target }))
const token = Buffer.from((await ask("get", { target })).r.token)
for (const v of [1, 0]) console.log(`put of ${v}:`, await answered("put", { token, v }))
node.destroy()
socket.close()
JS
cat >expected <<'TXT'
a node that is read-only is told: true
find_node: an answer
sample_infohashes: no answer
put of 1: an answer
put of 0: no answer
TXT
node look.mjs | tee seen
diff expected seen
