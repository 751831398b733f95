//! Threads that share syncs of a disk, one of which may fail and lose what was not durable.

use std::sync::Mutex as Plain;

use shuttle::thread;

use super::*;
use crate::sync::schedules::try_all;

/// A disk of changes, each of which is a bit.
#[derive(Default)]
struct Device(Plain<Changes>);

#[derive(Default)]
struct Changes {
    written: u32,
    durable: u32,
    lost: u32,
    syncs: u32,
    is_syncing: bool,
}

impl Device {
    fn with<T>(&self, work: impl FnOnce(&mut Changes) -> T) -> T {
        work(&mut self.0.lock().unwrap())
    }

    /// What was written before is durable, unless this is the sync that fails: then what was
    /// written before its end may be lost, and no later sync makes it durable.
    fn sync(&self, failing: Option<u32>) -> io::Result<()> {
        let (before, fails) = self.with(|changes| {
            assert!(!changes.is_syncing, "two sync at a time");
            changes.is_syncing = true;
            changes.syncs += 1;
            (changes.written, Some(changes.syncs) == failing)
        });
        thread::yield_now();
        self.with(|changes| {
            changes.is_syncing = false;
            match fails {
                true => changes.lost |= changes.written & !changes.durable,
                false => changes.durable |= before & !changes.lost,
            }
        });
        match fails {
            true => Err(io::ErrorKind::StorageFull.into()),
            false => Ok(()),
        }
    }
}

/// Two changes of one of the threads, each synced.
fn change(group: &GroupSync, device: &Device, thread: u32, failing: Option<u32>) {
    for turn in 0..2 {
        let own = 1 << (2 * thread + turn);
        let mark = group.mark();
        thread::yield_now();
        device.with(|changes| changes.written |= own);
        thread::yield_now();
        let synced = group.sync(mark, || device.sync(failing));
        let is_durable = device.with(|changes| changes.durable & own != 0);
        match synced {
            Ok(()) => assert!(is_durable, "it is durable, and is not"),
            // No other sync fails, so there is none since the mark.
            Err(_) => assert_eq!(mark.failures, 0, "it failed for another's failure"),
        }
    }
}

fn run(threads: u32, failing: Option<u32>) {
    let (group, device) = (Arc::new(GroupSync::default()), Arc::new(Device::default()));
    let threads = (0..threads).map(|thread| {
        let (group, device) = (Arc::clone(&group), Arc::clone(&device));
        thread::spawn(move || change(&group, &device, thread, failing))
    });
    let threads: Vec<_> = threads.collect();
    let calls = 2 * threads.len() as u32;
    for thread in threads {
        thread.join().unwrap();
    }
    assert!(!group.state().running);
    let syncs = device.with(|changes| changes.syncs);
    assert!((1..=calls).contains(&syncs));
}

#[test]
fn what_was_synced_is_durable_whoever_has_synced_it() {
    try_all(|| run(4, None));
}

#[test]
fn failed_sync_is_told_to_all_who_may_have_lost_something() {
    for failing in 1..4 {
        try_all(move || run(3, Some(failing)));
    }
}
