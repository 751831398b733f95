#!/usr/bin/env bash
# What `left` (BEP 3) says while a client has nothing but a magnet link, and so cannot know
# it: aria2 1.36.0 says 0, as one that has all; Transmission 3.00 (both Debian 12) says
# 9223372036854775807; libtorrent 2.1.1 says 16384. A tracker that counts by `left` has a
# seeder that has nothing; one that tells seeders nothing of seeders gives aria2 nobody who
# could give it the torrent.
#
# Expected before looking: a number that is not 0, since all three lack something.
# For us: our tracker takes left=0 for a seeder, which it tells only of peers that lack
# something, but for its first announce; `left` is read as 64 bits without a sign, and never
# summed.
# Needs libcurl.so.4 and libxml2.so.2 of the system.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv env
env/bin/pip install --quiet --disable-pip-version-check libtorrent==2.1.1
mkdir packages settings
(cd packages && apt-get download -qq aria2=1.36.0-1 libaria2-0=1.36.0-1 libc-ares2=1.18.1-3 libssh2-1=1.10.0-3+b1 \
    transmission-cli=3.00-2.1+deb12u1 libevent-2.1-7=2.1.12-stable-8 libminiupnpc17=2.2.4-1+b1 \
    libnatpmp1=20150609-7.1+b2 libdeflate0=1.14-1 >/dev/null
for package in *.deb; do dpkg -x "$package" ..; done)
export PATH="$work/usr/bin:$PATH"
export LD_LIBRARY_PATH="$work/usr/lib/x86_64-linux-gnu"

cat >look.py <<'PY'
import http.server, json, subprocess, urllib.parse
import libtorrent as lt


class Tracker(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        query = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query, errors="replace")
        self.server.told = [f"{key}={query[key][0]}" for key in ("downloaded", "left")]
        body = b"d8:intervali1800e5:peers0:e"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


tracker = http.server.HTTPServer(("127.0.0.1", 0), Tracker)
tracker.timeout = 60
url = urllib.parse.quote(f"http://127.0.0.1:{tracker.server_port}/announce", safe="")
link = f"magnet:?xt=urn:btih:{'ab' * 20}&tr={url}"
with open("settings/settings.json", "w") as file:
    json.dump({"dht-enabled": False, "lpd-enabled": False, "port-forwarding-enabled": False, "utp-enabled": False}, file)
for name, command in (
    ("aria2", ["aria2c", "--no-conf", "--enable-dht=false", "--enable-dht6=false", "--bt-enable-lpd=false", link]),
    ("Transmission", ["transmission-cli", "--config-dir", "settings", "--download-dir", ".", link]),
):
    client = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    tracker.handle_request()
    client.kill()
    client.wait()
    print(name, *tracker.told)
session = lt.session({"listen_interfaces": "127.0.0.1:0", "enable_dht": False, "enable_lsd": False,
                      "enable_upnp": False, "enable_natpmp": False})
params = lt.parse_magnet_uri(link)
params.save_path = "."
session.add_torrent(params)
tracker.handle_request()
print("libtorrent", *tracker.told)
PY
cat >expected <<'TXT'
aria2 downloaded=0 left=0
Transmission downloaded=0 left=9223372036854775807
libtorrent downloaded=0 left=16384
TXT
env/bin/python -W ignore look.py | tee seen
diff expected seen
