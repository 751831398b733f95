#!/usr/bin/env bash
# torrentfile 0.9.2 puts an empty folder into the file tree of a v2 torrent (BEP 52) as an
# empty dictionary; libtorrent 2.1.1 leaves it out. So the same folder has two v2 info
# hashes, by who made the torrent, and two swarms. libtorrent loads the other one, keeps
# its info hash, and does not make the folder.
#
# Expected before looking: BEP 52 has no empty folders, so both leave it out.
# For us: a folder without files in a file tree is read, and makes no difference to what
# is fetched.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv env
env/bin/pip install --quiet --disable-pip-version-check torrentfile==0.9.2 libtorrent==2.1.1

cat >look.py <<'PY'
import os
import libtorrent as lt
from torrentfile.torrent import TorrentFileV2

os.makedirs("root/empty")
with open("root/a", "wb") as file:
    file.write(b"a" * 20000)
files = lt.file_storage()
lt.add_files(files, "root")
create = lt.create_torrent(files, 16384, lt.create_torrent.v2_only)
lt.set_piece_hashes(create, ".")
theirs = create.generate()[b"info"]
made = TorrentFileV2(path="root", piece_length=16384, outfile="v2.torrent", progress=0)
made.write(outfile="v2.torrent")
info = lt.torrent_info("v2.torrent")
with open("v2.torrent", "rb") as file:
    other = lt.bdecode(file.read())[b"info"]
print("libtorrent", sorted(theirs[b"file tree"]))
print("torrentfile", sorted(other[b"file tree"]), other[b"file tree"][b"empty"])
same = {key: value for key, value in other.items() if key != b"file tree"}
print("the rest is the same:", same == {key: value for key, value in theirs.items() if key != b"file tree"})
print("loaded as", [info.files().file_path(index) for index in range(info.files().num_files())])
PY
cat >expected <<'TXT'
libtorrent [b'a']
torrentfile [b'a', b'empty'] {}
the rest is the same: True
loaded as ['root/a', 'root/.pad/12768']
TXT
env/bin/python -W ignore look.py | tee seen
diff expected seen
