# One process of libtorrent: verifies what is there, fetches the rest, and shares it; or only
# the files of these numbers.
#   libtorrent.py ADDRESS:PORT TORRENT DIRECTORY [FILE...]
import sys
import time

import libtorrent

address, torrent, directory, *chosen = sys.argv[1:]
session = libtorrent.session({
    "listen_interfaces": address,
    "enable_dht": False,
    "enable_lsd": False,
    "enable_upnp": False,
    "enable_natpmp": False,
    "enable_incoming_utp": False,
    "enable_outgoing_utp": False,
    # All are on one host.
    "allow_multiple_connections_per_ip": True,
    "alert_mask": libtorrent.alert.category_t.error_notification
    | libtorrent.alert.category_t.status_notification
    | libtorrent.alert.category_t.tracker_notification
    | libtorrent.alert.category_t.connect_notification,
})
params = libtorrent.load_torrent_file(torrent)
params.save_path = directory
if chosen:
    files = range(params.ti.num_files())
    params.file_priorities = [4 if str(file) in chosen else 0 for file in files]
handle = session.add_torrent(params)
begun = time.monotonic()
while True:
    session.wait_for_alert(1000)
    for alert in session.pop_alerts():
        print(round(time.monotonic() - begun, 2), alert.what(), alert.message())
