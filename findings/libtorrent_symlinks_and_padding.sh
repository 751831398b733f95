#!/usr/bin/env bash
# What libtorrent 2.1.1 writes for a symbolic link and for padding in a hybrid torrent:
# in the v2 file tree a link has no length at all (BEP 52 has one for every file), in the
# v1 list it has the length 0; its attribute says executable as well (BEP 47: x), since
# that is how links are shown by the system. Paddings of the same length have the
# same path, so a list of files with a path twice is valid.
#
# Expected before looking: a length everywhere, l alone, and no path twice.
# For us: a link needs no length, and a path is looked at only if the file is no padding.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv env
env/bin/pip install --quiet --disable-pip-version-check libtorrent==2.1.1

cat >look.py <<'PY'
import os
import libtorrent as lt

os.makedirs("root")
for name in ("a", "b", "c"):
    with open(os.path.join("root", name), "wb") as file:
        file.write(name.encode() * 20000)
os.symlink("a", "root/link")
flags = lt.create_torrent.symlinks
files = lt.file_storage()
lt.add_files(files, "root", flags=flags)
create = lt.create_torrent(files, 16384, flags)
lt.set_piece_hashes(create, ".")
info = create.generate()[b"info"]
print("v2", info[b"file tree"][b"link"][b""])
print("v1", [file for file in info[b"files"] if file[b"path"] == [b"link"]])
print("padding", [b"/".join(file[b"path"]) for file in info[b"files"] if file.get(b"attr") == b"p"])
PY
cat >expected <<'TXT'
v2 {b'attr': b'xl', b'symlink path': [b'a']}
v1 [{b'attr': b'xl', b'length': 0, b'path': [b'link'], b'symlink path': [b'a']}]
padding [b'.pad/12768', b'.pad/12768', b'.pad/12768']
TXT
env/bin/python -W ignore look.py | tee seen
diff expected seen
