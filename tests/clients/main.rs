//! Torrents between this crate and real BitTorrent programs, each in a process of its own:
//! they fetch from us, we fetch from them, and swarms in which each has another part. Each
//! cell is a transfer of a folder, found by a tracker, and compared byte for byte.
//!
//! `.ci/clients FOLDER` installs the programs in a folder, which `BT_LITE_CLIENTS` names
//! here. They are run by name only (`--test clients`). What could not be installed is said and
//! not run.

#![allow(clippy::unwrap_used, reason = "a failure ends the test")]

mod aria2;
mod cells;
mod client;
mod libtorrent;
mod ours;
mod program;
mod rqbit;
mod setting;
mod torrent;
mod trackers;
mod transmission;
mod webtorrent;

/// The cells of one client with one kind of torrent: a test for each role and tracker.
macro_rules! clients {
    ($($name:ident: $client:expr, $format:ident;)*) => {
        $(mod $name {
            mod fetches_from_us {
                clients!(@trackers we_seed, &$client, $format);
            }
            mod seeds_to_us {
                clients!(@trackers we_fetch, &$client, $format);
            }
        })*
    };
    (@trackers $role:ident, $what:expr, $format:ident) => {
        clients!(@tracker our_http, OurHttp, $role, $what, $format);
        clients!(@tracker our_udp, OurUdp, $role, $what, $format);
        clients!(@tracker opentracker_http, OpentrackerHttp, $role, $what, $format);
        clients!(@tracker opentracker_udp, OpentrackerUdp, $role, $what, $format);
    };
    (@tracker $name:ident, $tracker:ident, $role:ident, $what:expr, $format:ident) => {
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            use bt_lite::bittorrent::MetainfoFormat;
            use crate::trackers::TrackerKind;
            crate::cells::$role($what, MetainfoFormat::$format, TrackerKind::$tracker).await;
        }
    };
}

/// Swarms of three clients and us: a test for each tracker.
macro_rules! swarms {
    ($($name:ident: $($client:ident)*, $format:ident;)*) => {
        $(mod $name {
            clients!(
                @trackers mixed,
                [$(&crate::$client::CLIENT),*],
                $format
            );
        })*
    };
}

clients! {
    aria2_v1: crate::aria2::CLIENT, V1;
    transmission_v1: crate::transmission::CLIENT, V1;
    libtorrent_v1: crate::libtorrent::CLIENT, V1;
    libtorrent_hybrid: crate::libtorrent::CLIENT, Hybrid;
    libtorrent_v2: crate::libtorrent::CLIENT, V2;
    rqbit_v1: crate::rqbit::CLIENT, V1;
    webtorrent_v1: crate::webtorrent::CLIENT, V1;
}

mod libtorrent_wants_some_files {
    clients!(@trackers some_files, &crate::libtorrent::CLIENT, V1);
}

mod swarm_in_which_we_begin_with_a_part {
    clients!(
        @trackers mixed_with_our_part,
        [&crate::aria2::CLIENT, &crate::transmission::CLIENT, &crate::libtorrent::CLIENT],
        V1
    );
}

swarms! {
    swarm_of_aria2_transmission_libtorrent: aria2 transmission libtorrent, V1;
    swarm_of_rqbit_webtorrent_aria2: rqbit webtorrent aria2, V1;
    swarm_of_hybrid: libtorrent libtorrent libtorrent, Hybrid;
    swarm_of_v2: libtorrent libtorrent libtorrent, V2;
}
