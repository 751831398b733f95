//! What was changed and what was synced, in tests: a real disk cannot be made to lose what
//! was not. Otherwise nothing is noted.

use std::fs::File;

#[cfg(test)]
pub(in super::super) use noted::times;

/// The bytes of a file, or the names in a directory, are not what they were.
#[cfg_attr(
    not(test),
    expect(unused_variables, reason = "only tests want to know")
)]
pub(super) fn changed(file: &File) {
    #[cfg(test)]
    noted::note(file, |times, now| times.changed = now);
}

/// They are on the disk.
#[cfg_attr(
    not(test),
    expect(unused_variables, reason = "only tests want to know")
)]
pub(super) fn synced(file: &File) {
    #[cfg(test)]
    noted::note(file, |times, now| times.synced = now);
}

#[cfg(test)]
mod noted {
    use std::collections::HashMap;
    use std::fs::{File, Metadata};
    use std::os::unix::fs::MetadataExt;
    use std::path::Path;
    use std::sync::{LazyLock, Mutex};
    use std::time::SystemTime;

    /// When something was last changed, and when it was last synced: numbers that grow with
    /// each step of all tests; 0 for never.
    #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
    pub(in super::super::super) struct Times {
        pub(in super::super::super) changed: u64,
        pub(in super::super::super) synced: u64,
    }

    impl Times {
        /// Whether it is on the disk as it is.
        pub(in super::super::super) fn is_durable(self) -> bool {
            self.synced > self.changed
        }
    }

    /// Numbers of files are used again; the time when each was made tells them apart.
    type Key = (u64, u64, Option<SystemTime>);

    static NOTED: LazyLock<Mutex<(u64, HashMap<Key, Times>)>> = LazyLock::new(Mutex::default);

    fn key(of: &Metadata) -> Key {
        (of.dev(), of.ino(), of.created().ok())
    }

    pub(super) fn note(file: &File, what: impl FnOnce(&mut Times, u64)) {
        let key = key(&file.metadata().unwrap());
        let (now, noted) = &mut *NOTED.lock().unwrap();
        *now += 1;
        what(noted.entry(key).or_default(), *now);
    }

    /// Those of what is at a path.
    pub(in super::super::super) fn times(path: &Path) -> Times {
        let key = key(&path.metadata().unwrap());
        let (_, noted) = &*NOTED.lock().unwrap();
        noted.get(&key).copied().unwrap_or_default()
    }
}
