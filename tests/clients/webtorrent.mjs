// One process of WebTorrent: verifies what is there, fetches the rest, and shares it.
//   webtorrent.mjs MODULE PORT TORRENT DIRECTORY
const [module, port, torrent, directory] = process.argv.slice(2)
const WebTorrent = (await import(module)).default
const client = new WebTorrent({
  dht: false,
  lsd: false,
  natPmp: false,
  natUpnp: false,
  torrentPort: Number(port),
  utp: false
})
client.on('error', error => {
  console.log('error', error)
  process.exit(1)
})
const added = client.add(torrent, { path: directory })
for (const name of ['warning', 'ready', 'noPeers', 'wire', 'done']) {
  added.on(name, what => console.log(name, what?.message ?? what?.remoteAddress ?? ''))
}
