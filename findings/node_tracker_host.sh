#!/usr/bin/env bash
# bittorrent-tracker 11.2.3: listen(port, host) with the address of one family, as its
# README has it, binds HTTP and UDP over IPv4 and fails on UDP over IPv6, which gets the
# same host; the port of UDP is told although the server has reported an error.
#
# Expected before looking: it listens at that address, or at none.
# For us: a listener for two families tells which of them it has.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
npm init -y >npm.log
npm install --ignore-scripts --no-audit --no-fund bittorrent-tracker@11.2.3 >>npm.log 2>&1

cat >look.mjs <<'JS'
import Server from "bittorrent-tracker/server"

const server = new Server({ udp: true, http: true, ws: false, stats: false })
server.on("error", error => {
  console.log("error:", error.message)
  console.log("UDP over IPv4 is bound:", server.udp4.address().address, "and listening is", server.listening)
  process.exit()
})
server.listen(0, "127.0.0.1", () => console.log("listening"))
setTimeout(() => console.log("neither"), 3000).unref()
JS
cat >expected <<'TXT'
error: bind EINVAL 127.0.0.1
UDP over IPv4 is bound: 127.0.0.1 and listening is false
TXT
node look.mjs | tee seen
diff expected seen
