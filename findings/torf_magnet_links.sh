#!/usr/bin/env bash
# torf 4.3.1, magnet links: a parameter that it does not know is an error, so a link with
# peers (x.pe, BEP 9), chosen files (so, BEP 53) or numbered trackers (tr.1) is refused
# as a whole; so is the link that libtorrent 2.1.1 writes for a hybrid torrent, since it has
# two xt (BEP 52). And it writes `as` as `as_`, which it then does not know itself.
#
# Expected before looking: what is unknown is passed over, and what it writes, it reads.
# For us: what is unknown is passed over; x.pe and so are written only if there are any, so
# the plain link of a v1 torrent can be read everywhere.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv env
env/bin/pip install --quiet --disable-pip-version-check torf==4.3.1 libtorrent==2.1.1

cat >look.py <<'PY'
import libtorrent as lt
import torf

V1 = "magnet:?xt=urn:btih:" + "ab" * 20


def read(what, link):
    try:
        print(f"{what}: read, and written as ...{str(torf.Magnet.from_string(link))[len(V1):]}")
    except torf.MagnetError as error:
        print(f"{what}: {str(error).removeprefix(link + ': ')}")


for rest in ("dn=a", "x.pe=192.0.2.1:6881", "so=0,2-3", "tr.1=http://tracker.example/announce"):
    read(rest.split("=")[0], f"{V1}&{rest}")
with open("a", "wb") as file:
    file.write(b"hello")
files = lt.file_storage()
lt.add_files(files, "a")
create = lt.create_torrent(files, 16384)
lt.set_piece_hashes(create, ".")
with open("hybrid.torrent", "wb") as file:
    file.write(lt.bencode(create.generate()))
read("hybrid", lt.make_magnet_uri(lt.torrent_info("hybrid.torrent")))
written = str(torf.Magnet.from_string(f"{V1}&as=http://web.example/a"))
read("as", f"{V1}&as=http://web.example/a")
read("and again", written)
PY
cat >expected <<'TXT'
dn: read, and written as ...&dn=a
x.pe: x.pe: Unknown parameter
so: so: Unknown parameter
tr.1: tr.1: Unknown parameter
hybrid: Multiple exact topics ("xt")
as: read, and written as ...&as_=http%3A%2F%2Fweb.example%2Fa
and again: as_: Unknown parameter
TXT
env/bin/python -W ignore look.py | tee seen
diff expected seen
