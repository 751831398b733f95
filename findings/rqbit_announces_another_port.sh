#!/usr/bin/env bash
# rqbit 9.1.0: the port that it is told to listen at is not the port that it announces.
# Trackers are told 4240 unless --announce-port says otherwise, so peers that found it by a
# tracker do not reach it, and two of them on one host are one address to a tracker.
#
# Expected before looking: the port at which it listens, as in BEP 3.
# For us: the benchmark beside other programs gives both options.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cargo install --quiet --locked rqbit@9.1.0 --root "$work"
cat >"$work/look.py" <<'PY'
import hashlib
import http.server
import socket
import subprocess
import sys
import urllib.parse

rqbit, work = sys.argv[1:]


class Tracker(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        query = urllib.parse.urlsplit(self.path).query
        self.server.announced = urllib.parse.parse_qs(query, errors="replace")["port"][0]
        body = b"d8:intervali1800e5:peers0:e"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return taken.getsockname()[1]


def announced(options):
    tracker = http.server.HTTPServer(("127.0.0.1", 0), Tracker)
    tracker.timeout = 60
    url = b"http://127.0.0.1:%d/announce" % tracker.server_port
    piece = hashlib.sha1(bytes(16384)).digest()
    torrent = b"d8:announce%d:%s4:infod6:lengthi16384e4:name4:file" % (len(url), url)
    torrent += b"12:piece lengthi16384e6:pieces20:" + piece + b"ee"
    with open(work + "/file.torrent", "wb") as out:
        out.write(torrent)
    command = [rqbit, "--disable-dht", "--disable-lsd", "--listen-ip", "127.0.0.1", *options]
    command += ["download", "--disable-http-api", "--overwrite", "-o", work + "/out"]
    process = subprocess.Popen(
        command + [work + "/file.torrent"],
        env={"HOME": work},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    tracker.handle_request()
    process.terminate()
    process.wait()
    tracker.server_close()
    return int(tracker.announced)


listen = free_port()
alone = announced(["--listen-port", str(listen)])
print("listens at one port, announces", "that port" if alone == listen else alone)
both = announced(["--listen-port", str(listen), "--announce-port", str(listen)])
print("told both, announces", "that port" if both == listen else both)
PY
cat >"$work/expected" <<'TXT'
listens at one port, announces 4240
told both, announces that port
TXT
python3 "$work/look.py" "$work/bin/rqbit" "$work" | tee "$work/seen"
diff "$work/expected" "$work/seen"
