//! From when until when a certificate is valid, which the TLS library tells only once it is
//! too late.

use std::time::SystemTime;

use super::der::{SEQUENCE, any, take, time};

const VERSION: u8 = 0xa0;

/// The time of a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Validity {
    pub(super) from: SystemTime,
    pub(super) until: SystemTime,
}

impl Validity {
    /// That of a certificate in DER; nothing if it is not one.
    pub(super) fn of(certificate: &[u8]) -> Option<Self> {
        let mut certificate = take(&mut &*certificate, SEQUENCE)?;
        let mut fields = take(&mut certificate, SEQUENCE)?;
        if fields.first() == Some(&VERSION) {
            any(&mut fields)?;
        }
        // The serial number, the algorithm, and the issuer.
        for _ in 0..3 {
            any(&mut fields)?;
        }
        let mut validity = take(&mut fields, SEQUENCE)?;
        let from = time(any(&mut validity)?)?;
        let until = time(any(&mut validity)?)?;
        Some(Self { from, until })
    }

    pub(super) fn has_begun(&self, now: SystemTime) -> bool {
        self.from <= now
    }

    pub(super) fn is_over(&self, now: SystemTime) -> bool {
        self.until < now
    }

    pub(super) fn is_now(&self, now: SystemTime) -> bool {
        self.has_begun(now) && !self.is_over(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nonsense_is_no_certificate() {
        for bad in [
            &[][..],
            &[0x30],
            &[0x30, 0x84, 1, 1, 1, 1],
            &[0x30, 3, 0x30, 9, 1],
        ] {
            assert_eq!(Validity::of(bad), None);
        }
    }
}
