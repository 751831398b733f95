#!/usr/bin/env bash
# dottorrent 1.10.1 and torrentool 1.2.0 leave files of length 0 out of a torrent, without
# a word. torf 4.3.1 does so if the working directory is the one in which the folder lies,
# and keeps them if it is another one, so that one folder has two info hashes. Who fetches
# a source tree or a Python package lacks its marker files.
#
# Expected before looking: BEP 3 allows the length 0, so all keep them.
# For us: an empty file is a file, and is fetched and made.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv env
env/bin/pip install --quiet --disable-pip-version-check dottorrent==1.10.1 torrentool==1.2.0 torf==4.3.1

cat >look.py <<'PY'
import os
import dottorrent, torf
from torrentool.api import Torrent

os.makedirs("root")
open("root/__init__.py", "wb").close()
for name in ("a", "b"):
    with open(os.path.join("root", name), "wb") as file:
        file.write(name.encode() * 20000)
made = dottorrent.Torrent("root", piece_size=16384)
made.generate()
print("dottorrent", sorted([b"/".join(entry["path"]).decode() for entry in made.data["info"]["files"]]))
print("torrentool", sorted([entry.name for entry in Torrent.create_from("root").files]))
path = os.path.abspath("root")
os.makedirs("elsewhere")
for directory in (".", "elsewhere"):
    os.chdir(directory)
    made = torf.Torrent(path=path, piece_size=16384)
    files = sorted("/".join(entry["path"]) for entry in made.metainfo["info"]["files"])
    print("torf in", directory, files)
PY
cat >expected <<'TXT'
dottorrent ['a', 'b']
torrentool ['root/a', 'root/b']
torf in . ['a', 'b']
torf in elsewhere ['__init__.py', 'a', 'b']
TXT
env/bin/python -W ignore look.py | tee seen
diff expected seen
