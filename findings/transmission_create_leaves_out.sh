#!/usr/bin/env bash
# transmission-create 3.00 and mktorrent 1.1 (Debian 12): Transmission leaves dotfiles and
# files of length 0 out of a torrent, without a word, and orders the rest without regard to
# case; mktorrent keeps all, in the order of the bytes. Transmission also writes
# `private` 0 into the info dictionary of a public torrent. So one folder has two info
# hashes, by the program.
#
# Expected before looking: the same list of files, and `private` only if it is 1 (BEP 27).
# For us: what is left out is told; `private` 0 is read as public, and kept for the hash.
# Needs libcurl.so.4 of the system.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv env
env/bin/pip install --quiet --disable-pip-version-check bencode.py==4.1.0
mkdir packages root
(cd packages && apt-get download -qq mktorrent=1.1-3 transmission-cli=3.00-2.1+deb12u1 \
    libevent-2.1-7=2.1.12-stable-8 libminiupnpc17=2.2.4-1+b1 libnatpmp1=20150609-7.1+b2 libdeflate0=1.14-1 >/dev/null
for package in *.deb; do dpkg -x "$package" ..; done)
export PATH="$work/usr/bin:$PATH"
export LD_LIBRARY_PATH="$work/usr/lib/x86_64-linux-gnu"
for name in .gitignore Makefile a z; do echo "$name" >root/"$name"; done
: >root/__init__.py
transmission-create -o transmission.torrent root >/dev/null 2>&1
mktorrent -o mktorrent.torrent root >/dev/null

cat >look.py <<'PY'
import bencodepy

for name in ("transmission", "mktorrent"):
    info = bencodepy.bread(f"{name}.torrent")[b"info"]
    print(name, [b"/".join(file[b"path"]).decode() for file in info[b"files"]], "private:", info.get(b"private"))
PY
cat >expected <<'TXT'
transmission ['a', 'Makefile', 'z'] private: 0
mktorrent ['.gitignore', 'Makefile', '__init__.py', 'a', 'z'] private: None
TXT
env/bin/python look.py | tee seen
diff expected seen
