#!/usr/bin/env bash
# aria2 1.36.0 and Transmission 3.00 (Debian 12), hybrid torrents (BEP 52): the v2 file
# tree has a key of no bytes in each file's dictionary. aria2 loses such keys when it
# reads, so it tells and announces an info hash that nobody has: it gets the metadata of a
# magnet link from libtorrent, and then finds no peer. Transmission refuses the file. Both
# take the same torrent without the file tree, and a file tree without the key.
#
# Expected before looking: old v1 clients pass over what they do not know, which is why
# hybrid torrents were made.
# For us: who is to be reached by these two gets a v1 torrent; keys may be empty.
# Needs libcurl.so.4 and libxml2.so.2 of the system.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv env
env/bin/pip install --quiet --disable-pip-version-check libtorrent==2.1.1
mkdir packages root
(cd packages && apt-get download -qq aria2=1.36.0-1 libaria2-0=1.36.0-1 libc-ares2=1.18.1-3 libssh2-1=1.10.0-3+b1 \
    transmission-cli=3.00-2.1+deb12u1 libevent-2.1-7=2.1.12-stable-8 libminiupnpc17=2.2.4-1+b1 \
    libnatpmp1=20150609-7.1+b2 libdeflate0=1.14-1 >/dev/null
for package in *.deb; do dpkg -x "$package" ..; done)
export PATH="$work/usr/bin:$PATH"
export LD_LIBRARY_PATH="$work/usr/lib/x86_64-linux-gnu"

cat >look.py <<'PY'
import copy, hashlib, subprocess
import libtorrent as lt

with open("root/a", "wb") as file:
    file.write(b"a" * 20000)
files = lt.file_storage()
lt.add_files(files, "root")
create = lt.create_torrent(files, 16384)
lt.set_piece_hashes(create, ".")
hybrid = create.generate()

def run(*command):
    return subprocess.run(command, capture_output=True, text=True).stdout

def look(what, torrent):
    with open("one.torrent", "wb") as file:
        file.write(lt.bencode(torrent))
    right = hashlib.sha1(lt.bencode(torrent[b"info"])).hexdigest()
    for name, said in (("aria2", run("aria2c", "--show-files", "one.torrent")),
                       ("Transmission", run("transmission-show", "one.torrent"))):
        hashes = [line.split()[-1] for line in said.splitlines() if "Hash: " in line]
        verdict = "refuses it" if not hashes else "right" if hashes[0] == right else "another info hash"
        print(f"{what}: {name}: {verdict}")

print(run("aria2c", "--version").splitlines()[0])
look("hybrid", hybrid)
other = copy.deepcopy(hybrid)
del other[b"info"][b"file tree"]
look("without the file tree", other)
other[b"info"][b"file tree"] = {b"a": {b"key": {b"length": 20000}}}
look("with a key that is not empty", other)
PY
cat >expected <<'TXT'
aria2 version 1.36.0
hybrid: aria2: another info hash
hybrid: Transmission: refuses it
without the file tree: aria2: right
without the file tree: Transmission: right
with a key that is not empty: aria2: right
with a key that is not empty: Transmission: right
TXT
env/bin/python -W ignore look.py | tee seen
diff expected seen
