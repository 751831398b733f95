#!/usr/bin/env bash
# libtorrent 2.1.1 that has nothing but the hash of a torrent of version 2, as from a magnet
# link: who asks it for hashes of a file (hash request, BEP 52) is not answered with a hash
# reject. It closes the connection, over which it was to get the torrent.
#
# Expected before looking: a hash reject, which BEP 52 has for hashes that a peer cannot give,
# or nothing at all.
# For us: hashes are asked only of those who say the size of the info dictionary
# (metadata_size, BEP 9), and so have it.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv env
env/bin/pip install --quiet --disable-pip-version-check libtorrent==2.1.1

cat >look.py <<'PY'
import hashlib, socket, struct
import libtorrent as lt

HASH = hashlib.sha256(b"a torrent that nobody has").digest()
RESERVED = bytes([0, 0, 0, 0, 0, 0x10, 0, 0x14])  # BEP 10, and BEP 6 with BEP 52


def read(stream, count):
    data = b""
    while len(data) < count:
        more = stream.recv(count - len(data))
        if not more:
            raise EOFError
        data += more
    return data


def message(kind, payload=b""):
    return struct.pack(">IB", len(payload) + 1, kind) + payload


def meets(ask):
    """What a session that knows the hash alone says to one who meets it and asks this."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(30)
    session = lt.session({"listen_interfaces": "127.0.0.1:0", "enable_dht": False,
                          "enable_lsd": False, "enable_upnp": False, "enable_natpmp": False,
                          "out_enc_policy": 2, "in_enc_policy": 2})
    params = lt.parse_magnet_uri("magnet:?xt=urn:btmh:1220" + HASH.hex())
    params.save_path = "."
    handle = session.add_torrent(params)
    handle.connect_peer(listener.getsockname())
    stream, _ = listener.accept()
    stream.settimeout(10)
    head = read(stream, 68)
    assert head[28:48] == HASH[:20], "it asks for another torrent"
    stream.sendall(head[:20] + RESERVED + HASH[:20] + b"-XX0000-abcdefghijkl")
    stream.sendall(message(20, b"\x00d1:md11:ut_metadatai1eee"))
    stream.sendall(message(15))  # HaveNone
    stream.sendall(ask)
    said = []
    try:
        while True:
            length = struct.unpack(">I", read(stream, 4))[0]
            if length:
                said.append(read(stream, length)[0])
    except EOFError:
        said.append("closed")
    except socket.timeout:
        said.append("open")
    return f"{said[-1]}, {'rejected' if 23 in said else 'not rejected'}"


# HashRequest (BEP 52): the first 512 hashes of the pieces of a file.
root = hashlib.sha256(b"a file").digest()
hash_request = message(21, root + struct.pack(">IIII", 0, 0, 512, 0))
print("nothing asked:", meets(b""))
print("hashes asked:", meets(hash_request))
PY
cat >expected <<'TXT'
nothing asked: open, not rejected
hashes asked: closed, not rejected
TXT
env/bin/python -W ignore look.py | tee seen
diff expected seen
