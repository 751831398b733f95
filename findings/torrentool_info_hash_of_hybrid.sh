#!/usr/bin/env bash
# torrentool 1.2.0 reads a hybrid torrent (BEP 52) without a complaint and tells an info
# hash that is not that of the file: it decodes what is UTF-8 by accident into text,
# and hashes what it has encoded again. So a tracker or a swarm is asked for a torrent
# that does not exist.
#
# Expected before looking: the v1 info hash, or an error.
# For us: the bytes of info are kept as they came, and hashed.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv env
env/bin/pip install --quiet --disable-pip-version-check torrentool==1.2.0 libtorrent==2.1.1

cat >look.py <<'PY'
import hashlib, os
import libtorrent as lt
from torrentool.api import Torrent

os.makedirs("root")
with open("root/a", "wb") as file:
    file.write(b"a" * 70000)
with open("root/b", "wb") as file:
    file.write(b"b" * 16384)
files = lt.file_storage()
lt.add_files(files, "root")
create = lt.create_torrent(files, 16384)
lt.set_piece_hashes(create, ".")
torrent = create.generate()
with open("hybrid.torrent", "wb") as file:
    file.write(lt.bencode(torrent))

right = hashlib.sha1(lt.bencode(torrent[b"info"])).hexdigest()
print("libtorrent agrees:", str(lt.torrent_info("hybrid.torrent").info_hashes().v1) == right)
print("torrentool agrees:", Torrent.from_file("hybrid.torrent").info_hash == right)
PY
cat >expected <<'TXT'
libtorrent agrees: True
torrentool agrees: False
TXT
env/bin/python -W ignore look.py | tee seen
diff expected seen
