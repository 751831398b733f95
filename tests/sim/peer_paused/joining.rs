//! Other calls for a download that is paused, and the control of one that was not found.

use std::time::Duration;

use bt_lite::{ContentLimits, ContentState, DownloadError, DownloadOptions, Priority, Strategy};
use futures::{FutureExt, StreamExt};
use tokio::time::{Instant, sleep};

use super::{At, CALLS, Kept, LEN, SERVING, Scene, call, check, expected, only, pause, restart};
use crate::world::{Case, named, soon};

/// Another call for a download that is paused, however it came to be that, joins it and
/// leaves it paused: there is one, and either handle has it go on.
#[tokio::test(start_paused = true)]
async fn another_call_joins_a_paused_download_and_leaves_it_paused() {
    for at in [At::PausedBefore, At::Paused, At::Restored, At::NoTracker] {
        for by_name in [false, true] {
            for elsewhere in [false, true] {
                let _case = Case(format!("{at:?} by name: {by_name}, elsewhere: {elsewhere}"));
                let mut scene = Scene::new(at, Kept::files()).await;
                if at == At::NoTracker {
                    // One that was asked for by name, and is not found, after a restart.
                    pause(&scene.download, SERVING).await;
                    scene.download.detach();
                    scene.peer = restart(&scene.world, &scene.kept, scene.peer).await;
                    scene.download = scene.peer.get(&named("x")).unwrap();
                }
                scene.let_go();
                sleep(Duration::from_secs(600)).await;
                let is_found = scene.download.id().is_some();
                let mut events = scene.peer.events();
                let options = match elsewhere {
                    true => DownloadOptions::new().name("other"),
                    false => DownloadOptions::new(),
                };
                let options = options.priority(Priority::High).owner("memory:owner");
                let mut second = match by_name {
                    true => scene.peer.download_with(named("x"), options),
                    false => scene.peer.download_with(scene.shared.id, options),
                };
                // At once, if it is known to be the same.
                let is_same = if by_name { !elsewhere } else { is_found };
                let asked_by_name = at == At::PausedBefore || at == At::NoTracker;
                if is_same && (asked_by_name || !by_name) {
                    assert!(second.is_paused());
                    assert_eq!(only(&scene.peer).state, ContentState::Paused);
                }
                sleep(Duration::from_secs(600)).await;
                if is_found || (by_name && !elsewhere) {
                    let listed = only(&scene.peer);
                    assert_eq!(listed.state, ContentState::Paused);
                    assert_eq!(listed.priority, Some(Priority::High));
                    assert!(second.is_paused() && scene.download.is_paused());
                    assert!((&mut second).now_or_never().is_none());
                    assert_eq!(scene.peer.stats().active_downloads, 0);
                    // Nothing hangs that asks.
                    soon(second.stats()).await;
                    while let Some(Some(event)) = events.next().now_or_never() {
                        let goes_on = matches!(event, bt_lite::PeerEvent::Unpaused { .. });
                        assert!(!goes_on, "{event:?}");
                    }
                    second.resume();
                }
                // What could not be known to be the same goes its own way.
                scene.peer.resume_all();
                soon(&mut second).await.unwrap();
                soon(&mut scene.download).await.unwrap();
                if elsewhere {
                    assert!(scene.kept.bytes("other").await.is_some());
                }
                assert!(scene.kept.bytes("x").await.is_some());
                assert_eq!(only(&scene.peer).state, ContentState::Seeding);
                assert_eq!(scene.kept.records().await, []);
            }
        }
    }
}

/// What is wanted of another call counts for the download that it joins, as documented.
#[tokio::test(start_paused = true)]
async fn options_of_another_call_count_for_the_download_that_it_joins() {
    let scene = Scene::new(At::Restored, Kept::files()).await;
    let limits = ContentLimits::default().download(40_000);
    let options = DownloadOptions::new()
        .limits(limits)
        .owner("memory:another")
        .seed(false)
        .strategy(Strategy::Sequential);
    let second = scene.peer.download_with(scene.shared.id, options);
    sleep(Duration::from_secs(1)).await;
    // Invalid ones concern nobody else.
    for wrong in [
        DownloadOptions::new().name("no/name"),
        DownloadOptions::new().owner("other:transport"),
    ] {
        let wrong = scene.peer.download_with(scene.shared.id, wrong);
        assert!(!matches!(soon(wrong).await, Err(DownloadError::Cancelled)));
    }
    second.detach();
    drop(scene.download);
    let peer = restart(&scene.world, &scene.kept, scene.peer).await;
    assert_eq!(only(&peer).state, ContentState::Paused);
    let mut download = peer.get(&scene.shared.id).unwrap();
    download.resume();
    let had = download.progress().verified_bytes;
    let begun = Instant::now();
    soon(&mut download).await.unwrap();
    let least = Duration::from_secs_f64((LEN as u64 - had) as f64 / 48_000.0);
    assert!(begun.elapsed() > least, "{:?}", begun.elapsed());
    assert_eq!(peer.content_limits(&scene.shared.id), limits);
    // It is shared, as the first one wanted.
    assert_eq!(only(&peer).state, ContentState::Seeding);
}

/// A restored download that was asked for by name, and has not found its content, is under
/// full control.
#[tokio::test(start_paused = true)]
async fn restored_download_by_name_that_was_not_found_is_under_full_control() {
    for of in CALLS {
        for kept in Kept::both() {
            let _case = Case(format!("{of:?}"));
            let mut scene = Scene::new(At::NoTracker, kept).await;
            pause(&scene.download, SERVING).await;
            scene.download.detach();
            scene.peer = restart(&scene.world, &scene.kept, scene.peer).await;
            let listed = only(&scene.peer);
            assert_eq!((listed.id, listed.name), (None, Some(named("x"))));
            assert_eq!(listed.state, ContentState::Paused);
            assert!(scene.peer.get(&named("y")).is_none());
            let download = scene.peer.get(&named("x")).unwrap();
            assert_eq!((download.id(), download.name()), (None, Some(named("x"))));
            assert!(download.is_paused() && download.content().is_none());
            assert_eq!(download.verified_chunks().now_or_never(), Some(None));
            assert!(download.stats().now_or_never().is_some());
            let limits = ContentLimits::default().download(40_000);
            download.set_limits(limits).now_or_never().unwrap().unwrap();
            download.set_patience(None).now_or_never().unwrap();
            download
                .set_strategy(Strategy::Sequential)
                .now_or_never()
                .unwrap();
            download
                .add_owner("memory:owner")
                .now_or_never()
                .unwrap()
                .unwrap();
            download.set_priority(Priority::High);
            assert_eq!(only(&scene.peer).priority, Some(Priority::High));
            scene.download = download;
            scene.let_go();
            // Until the owner is registered again.
            sleep(Duration::from_secs(600)).await;
            call(&scene, of);
            check(scene, At::Restored, expected(At::Restored, of)).await;
        }
    }
}
