#!/usr/bin/env bash
# libtorrent 2.1.1, on a file system that tells b and B apart: a torrent that it made of
# a folder with both cannot be seeded from that folder. When it loads the torrent, it
# calls the second of the two in the list B.1, and looks for that file. Which one is the
# second differs between v1 (order of the folder) and v2 (order of the names).
#
# Expected before looking: names are compared as bytes, as in the file system.
# For us: a name that differs from another only in case is refused before anything is
# made of it, and never renamed.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv env
env/bin/pip install --quiet --disable-pip-version-check libtorrent==2.1.1

cat >look.py <<'PY'
import os, time
import libtorrent as lt

os.makedirs("root")
for name, byte in (("b", b"b"), ("B", b"B")):
    with open(os.path.join("root", name), "wb") as file:
        file.write(byte * 16384)
assert len(os.listdir("root")) == 2, "this file system does not tell b and B apart"

files = lt.file_storage()
lt.add_files(files, "root")
create = lt.create_torrent(files, 16384, lt.create_torrent.v2_only)
lt.set_piece_hashes(create, ".")
info = lt.torrent_info(lt.bdecode(lt.bencode(create.generate())))
print([info.files().file_path(index) for index in range(info.files().num_files())])

session = lt.session({"listen_interfaces": "127.0.0.1:0", "enable_dht": False,
                      "enable_lsd": False, "enable_upnp": False, "enable_natpmp": False})
params = lt.add_torrent_params()
params.ti, params.save_path = info, "."
handle = session.add_torrent(params)
while "checking" in str(handle.status().state):
    time.sleep(0.05)
print(handle.status().state, handle.file_progress())
PY
cat >expected <<'TXT'
['root/B', 'root/b.1']
downloading [16384, 0]
TXT
env/bin/python -W ignore look.py | tee seen
diff expected seen
