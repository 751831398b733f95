#!/usr/bin/env bash
# create-torrent 6.1.3 (the maker of WebTorrent): a torrent for which no tracker is named
# announces at eight public ones, so a private file is told to strangers; and dotfiles,
# backups and logs of a folder are left out without a word, also with
# filterJunkFiles: false, which is said to keep them.
#
# Expected before looking: no tracker, and every file.
# For us: nobody is told what the user did not name, and what is left out is an error.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
npm init -y >npm.log
npm install --ignore-scripts --no-audit --no-fund create-torrent@6.1.3 bencode@4.0.1 >>npm.log 2>&1

cat >look.mjs <<'JS'
import fs from "fs"
import bencode from "bencode"
import createTorrent from "create-torrent"

fs.mkdirSync("root")
for (const name of ["a", ".gitignore", "Thumbs.db", "notes~", "npm-debug.log"]) fs.writeFileSync(`root/${name}`, name)
const make = options => new Promise((done, failed) =>
  createTorrent("root", options, (error, torrent) => error ? failed(error) : done(bencode.decode(torrent))))
for (const options of [{}, { filterJunkFiles: false }]) {
  const torrent = await make(options)
  const info = torrent.info
  const files = info.files ? info.files.map(file => Buffer.from(file.path[0]).toString()) : [Buffer.from(info.name).toString()]
  console.log(JSON.stringify(options), files, "trackers:", torrent["announce-list"].length)
}
JS
cat >expected <<'TXT'
{} [ 'a' ] trackers: 8
{"filterJunkFiles":false} [ 'a' ] trackers: 8
TXT
node look.mjs | tee seen
diff expected seen
