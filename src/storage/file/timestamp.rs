//! Modification times as they are recorded on disk.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A modification time: seconds and nanoseconds since 1970. Packed, because there is one
/// in memory for each complete content.
#[repr(Rust, packed(4))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Timestamp {
    pub(super) seconds: i64,
    pub(super) nanos: u32,
}

impl Timestamp {
    pub(super) const LEN: usize = 12;

    pub(super) fn to_bytes(self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        bytes[..8].copy_from_slice(&self.seconds.to_le_bytes());
        bytes[8..].copy_from_slice(&self.nanos.to_le_bytes());
        bytes
    }

    pub(super) fn from_bytes(bytes: [u8; Self::LEN]) -> Self {
        let (seconds, nanos) = bytes.split_at(8);
        Self {
            seconds: i64::from_le_bytes(seconds.try_into().expect("split at its length")),
            nanos: u32::from_le_bytes(nanos.try_into().expect("split at its length")),
        }
    }

    /// How much later `later` is; zero if it is earlier.
    pub(super) fn until(self, later: SystemTime) -> Duration {
        let nanos = |time: Self| i128::from(time.seconds) * 1_000_000_000 + i128::from(time.nanos);
        let elapsed = nanos(later.into()) - nanos(self);
        Duration::from_nanos(u64::try_from(elapsed.max(0)).unwrap_or(u64::MAX))
    }
}

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        let (seconds, nanos) = match time.duration_since(UNIX_EPOCH) {
            Ok(since) => (since.as_secs() as i64, since.subsec_nanos()),
            Err(before) => {
                // The nanoseconds count forward, before 1970 as well.
                let before = before.duration();
                match before.subsec_nanos() {
                    0 => (-(before.as_secs() as i64), 0),
                    nanos => (-(before.as_secs() as i64) - 1, 1_000_000_000 - nanos),
                }
            }
        };
        Self { seconds, nanos }
    }
}

/// Fails if the system has no such time.
impl TryFrom<Timestamp> for SystemTime {
    type Error = ();

    fn try_from(time: Timestamp) -> Result<Self, ()> {
        let whole = Duration::from_secs(time.seconds.unsigned_abs());
        let whole = match time.seconds < 0 {
            false => UNIX_EPOCH.checked_add(whole),
            true => UNIX_EPOCH.checked_sub(whole),
        };
        let nanos = Duration::from_nanos(time.nanos.into());
        whole.and_then(|time| time.checked_add(nanos)).ok_or(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamp_keeps_order_and_nanoseconds_around_1970() {
        let at = |nanos: i64| -> Timestamp {
            let step = Duration::from_nanos(nanos.unsigned_abs());
            match nanos < 0 {
                true => (UNIX_EPOCH - step).into(),
                false => (UNIX_EPOCH + step).into(),
            }
        };
        let times = [-2_000_000_001, -2_000_000_000, -1, 0, 1, 1_500_000_000];
        let times = times.map(at);
        assert!(times.is_sorted_by(|a, b| a < b), "{times:?}");
        for time in times {
            assert_eq!(Timestamp::from_bytes(time.to_bytes()), time);
        }
        let later = UNIX_EPOCH + Duration::from_secs(3);
        assert_eq!(at(1_500_000_000).until(later), Duration::from_millis(1500));
        assert_eq!(at(4_000_000_000).until(later), Duration::ZERO);
    }
}
