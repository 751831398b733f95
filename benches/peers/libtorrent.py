# One process of libtorrent: seeds a file that is not checked again, or fetches it.
#   libtorrent.py seed|fetch ADDRESS TORRENT DIRECTORY MARK
# Makes the file MARK when it has all.
import sys
import time

import libtorrent

role, address, torrent, directory, mark = sys.argv[1:]
session = libtorrent.session({
    "listen_interfaces": address + ":0",
    "enable_dht": False,
    "enable_lsd": False,
    "enable_upnp": False,
    "enable_natpmp": False,
    "enable_incoming_utp": False,
    "enable_outgoing_utp": False,
    "allow_multiple_connections_per_ip": True,
    "alert_mask": libtorrent.alert.category_t.status_notification
    | libtorrent.alert.category_t.storage_notification,
})
params = libtorrent.load_torrent_file(torrent)
params.save_path = directory
if role == "seed":
    params.flags |= libtorrent.torrent_flags.seed_mode
handle = session.add_torrent(params)
while not handle.status().is_seeding:
    session.wait_for_alert(20)
    session.pop_alerts()
# Its last writes may still be under way.
handle.flush_cache()
flushed = False
while role == "fetch" and not flushed:
    session.wait_for_alert(1000)
    flushed = any(isinstance(alert, libtorrent.cache_flushed_alert) for alert in session.pop_alerts())
open(mark, "w").close()
while True:
    time.sleep(3600)
