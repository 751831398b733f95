#!/usr/bin/env bash
# transmission-daemon 3.00 (Debian 12) calls a torrent complete, and seeds it, without
# making its files of length 0 or the folders that hold only such. In the list of files,
# such a file is done to the part "-nan%". The torrent itself is one that keeps them.
#
# Expected before looking: what the info dictionary lists is there when a torrent is 100 %
# done, as libtorrent, aria2 and rqbit do it.
# For us: the tests with real clients look for empty files at all of them but this one.
# Needs libcurl.so.4 and libsystemd.so.0 of the system.
set -euo pipefail
work=$(mktemp -d)
daemon=
trap '[[ -z $daemon ]] || kill "$daemon" 2>/dev/null || true; rm -rf "$work"' EXIT
cd "$work"
mkdir -p packages settings fetched/root
(cd packages && apt-get download -qq transmission-daemon=3.00-2.1+deb12u1 transmission-cli=3.00-2.1+deb12u1 \
    transmission-common=3.00-2.1+deb12u1 libevent-2.1-7=2.1.12-stable-8 libminiupnpc17=2.2.4-1+b1 \
    libnatpmp1=20150609-7.1+b2 libdeflate0=1.14-1 >/dev/null
for package in *.deb; do dpkg -x "$package" ..; done)
export PATH="$work/usr/bin:$PATH"
export LD_LIBRARY_PATH="$work/usr/lib/x86_64-linux-gnu"

cat >make.py <<'PY'
import hashlib
import socket


def encode(value):
    match value:
        case int():
            return b"i%de" % value
        case bytes():
            return b"%d:%s" % (len(value), value)
        case list():
            return b"l" + b"".join(map(encode, value)) + b"e"
        case dict():
            return b"d" + b"".join(encode(key) + encode(value[key]) for key in sorted(value)) + b"e"


piece = 16 << 10
data = b"one\n" * 5000
hashes = [hashlib.sha1(data[at : at + piece]).digest() for at in range(0, len(data), piece)]
files = [
    {b"length": len(data), b"path": [b"one"]},
    {b"length": 0, b"path": [b"package", b"__init__.py"]},
]
info = {b"files": files, b"name": b"root", b"piece length": piece, b"pieces": b"".join(hashes)}
open("root.torrent", "wb").write(encode({b"info": info}))
open("fetched/root/one", "wb").write(data)
with socket.socket() as first, socket.socket() as second:
    first.bind(("127.0.0.1", 0))
    second.bind(("127.0.0.1", 0))
    print(first.getsockname()[1], second.getsockname()[1])
PY
read -r rpc peers < <(python3 make.py)
transmission-daemon --foreground --config-dir settings --download-dir "$work/fetched" \
    --rpc-bind-address 127.0.0.1 --port "$rpc" --peerport "$peers" \
    --no-dht --no-lpd --no-utp --no-portmap >log 2>&1 &
daemon=$!
remote() { transmission-remote "127.0.0.1:$rpc" "$@"; }
until remote --list >/dev/null 2>&1; do sleep 0.2; done
remote --add root.torrent >/dev/null
remote --torrent 1 --verify >/dev/null
for _ in {1..100}; do
    remote --torrent 1 --info | grep -q 'Percent Done: 100%' && break
    sleep 0.2
done
{
    remote --torrent 1 --info | grep -o 'Percent Done: .*'
    remote --torrent 1 --files | awk 'NR > 2 { print $NF, $2 }'
    find fetched -mindepth 1 | sort
} | tee seen
cat >expected <<'TXT'
Percent Done: 100%
root/one 100%
root/package/__init__.py -nan%
fetched/root
fetched/root/one
TXT
diff expected seen
