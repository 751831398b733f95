#!/usr/bin/env bash
# pyben 0.3.2 (of torrentfile) and torrent-parser 0.4.1 write a dictionary in the order in
# which its keys were put into it, where BEP 3 has them sorted; and True as `iTruee`, which
# they cannot read themselves. So one info dictionary has two info hashes, by who filled it,
# and strict readers refuse it (fastbencode 0.3.12 here).
#
# Expected before looking: sorted keys, and True as 1, as the other encoders do it, or an
# error.
# For us: keys may come in any order in what is read, and the bytes of info are hashed as
# they came.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv env
env/bin/pip install --quiet --disable-pip-version-check pyben==0.3.2 torrent-parser==0.4.1 bencode.py==4.1.0 fastbencode==0.3.12

cat >look.py <<'PY'
import bencodepy, fastbencode, pyben, torrent_parser


def strict(data):
    try:
        fastbencode.bdecode(data)
        return "read"
    except ValueError:
        return "refused"


for name, encode in (("bencode.py", bencodepy.encode), ("pyben", pyben.dumps), ("torrent-parser", torrent_parser.encode)):
    for value in ({"name": "a", "length": 5}, {"private": True}):
        data = encode(value)
        print(f"{name}: {data.decode()} {strict(data)}")
PY
cat >expected <<'TXT'
bencode.py: d6:lengthi5e4:name1:ae read
bencode.py: d7:privatei1ee read
pyben: d4:name1:a6:lengthi5ee refused
pyben: d7:privateiTrueee refused
torrent-parser: d4:name1:a6:lengthi5ee refused
torrent-parser: d7:privateiTrueee refused
TXT
env/bin/python -W ignore look.py | tee seen
diff expected seen
