//! Connection ids of a tracker over UDP (BEP 15), of which it remembers nothing.

use core::net::IpAddr;
use std::fmt;
use std::time::Duration;

/// How long a connection id is good for at least (BEP 15).
pub const CONNECTION_ID_LIFE: Duration = Duration::from_secs(120);

/// An id is good for this much longer than [`CONNECTION_ID_LIFE`] at most. The number of
/// this many seconds is a part of the id.
const STEP_SECS: u64 = 30;

/// Gives out connection ids and knows them again.
///
/// An id proves that its holder receives what is sent to its address, so that nobody
/// announces in the name of others. It is a keyed hash of the address and the time; there
/// is no table that somebody could fill. The port is no part of it, as some routers choose
/// another one for each packet.
///
/// ```
/// use std::time::Duration;
///
/// use bt_lite::bittorrent::tracker::ConnectionIds;
///
/// let ids = ConnectionIds::new([7; 32]); // of random bytes
/// let ip = "192.0.2.1".parse().unwrap();
/// let now = Duration::from_secs(1000); // since anything, such as the start
/// let id = ids.issue(ip, now);
/// assert!(ids.is_valid(id, ip, now + Duration::from_secs(120)));
/// assert!(!ids.is_valid(id, ip, now + Duration::from_secs(180)));
/// assert!(!ids.is_valid(id, "192.0.2.2".parse().unwrap(), now));
/// ```
#[derive(Clone)]
pub struct ConnectionIds {
    key: [u8; 32],
}

impl ConnectionIds {
    /// With a key that nobody else knows, and that changes with each start.
    pub fn new(key: [u8; 32]) -> Self {
        Self { key }
    }

    /// The id for this address. `now` is the time since any fixed point.
    pub fn issue(&self, ip: IpAddr, now: Duration) -> u64 {
        self.of(ip, now.as_secs() / STEP_SECS)
    }

    /// Whether this id was given to this address within [`CONNECTION_ID_LIFE`], or
    /// half a minute before that. Its cost is one hash.
    pub fn is_valid(&self, id: u64, ip: IpAddr, now: Duration) -> bool {
        let now = now.as_secs() / STEP_SECS;
        // The first byte tells the step, if it was lately.
        let ago = u64::from((now as u8).wrapping_sub(id.to_be_bytes()[0]));
        let Some(step) = now.checked_sub(ago) else {
            return false;
        };
        ago <= CONNECTION_ID_LIFE.as_secs() / STEP_SECS && self.of(ip, step) == id
    }

    fn of(&self, ip: IpAddr, step: u64) -> u64 {
        let mut input = [0; 24];
        let (of_ip, of_step) = input.split_at_mut(16);
        let ip = match ip.to_canonical() {
            IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            IpAddr::V6(ip) => ip,
        };
        of_ip.copy_from_slice(&ip.octets());
        of_step.copy_from_slice(&step.to_be_bytes());
        let hash = blake3::keyed_hash(&self.key, &input);
        let mut id = [0; 8];
        id.copy_from_slice(&hash.as_bytes()[..8]);
        id[0] = step as u8;
        u64::from_be_bytes(id)
    }
}

impl fmt::Debug for ConnectionIds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectionIds").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn id_is_good_for_its_life_and_its_address() {
        let ids = ConnectionIds::new([1; 32]);
        let ip: IpAddr = "192.0.2.7".parse().unwrap();
        let secs = Duration::from_secs;
        for start in [0, 29, 30, 7_000, 7_679, 7_680, 1 << 40] {
            let id = ids.issue(ip, secs(start));
            for later in 0..=120 {
                assert!(ids.is_valid(id, ip, secs(start + later)), "{start} {later}");
            }
            for later in [150, 151, 7_680, 7_700, 15_360] {
                assert!(
                    !ids.is_valid(id, ip, secs(start + later)),
                    "{start} {later}"
                );
            }
            if let Some(before) = start.checked_sub(30) {
                assert!(!ids.is_valid(id, ip, secs(before)), "{start}");
            }
            let mapped = "::ffff:192.0.2.7".parse().unwrap();
            assert!(ids.is_valid(id, mapped, secs(start)));
            assert!(!ids.is_valid(id, "192.0.2.8".parse().unwrap(), secs(start)));
            assert!(!ConnectionIds::new([2; 32]).is_valid(id, ip, secs(start)));
            for bit in 0..64 {
                assert!(
                    !ids.is_valid(id ^ 1 << bit, ip, secs(start)),
                    "{start} {bit}"
                );
            }
        }
    }
}
