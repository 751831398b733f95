//! The exporter of a session (RFC 8446, 7.5). The library computes it only where it also
//! moves the records, so it is computed here.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustls::crypto::tls13::OkmBlock;
use rustls::{KeyLog, Tls13CipherSuite};

/// Under which name the library tells the secret of the exporter.
const LABEL: &str = "EXPORTER_SECRET";

/// The secret from which the exporter of one session follows. The library tells it to its log
/// of keys; this is no log but for that, and nothing is written anywhere.
#[derive(Default)]
pub(super) struct ExporterSecret(Mutex<Option<OkmBlock>>);

impl ExporterSecret {
    /// The value for a label, without a context, once the handshake is done. Nothing if it is
    /// not, or the second time: the secret is wiped.
    pub(super) fn export(&self, suite: &Tls13CipherSuite, label: &[u8]) -> Option<[u8; 32]> {
        let secret = self.secret().take()?;
        // Of no messages, and of no context.
        let hash = suite.common.hash_provider.hash(&[]);
        let of_label = suite.hkdf_provider.expander_for_okm(&secret);
        let of_label = with_label(label, hash.as_ref(), of_label.hash_len(), |info| {
            of_label.expand_block(info)
        });
        let exporter = suite.hkdf_provider.expander_for_okm(&of_label);
        let mut value = [0; 32];
        with_label(b"exporter", hash.as_ref(), value.len(), |info| {
            exporter.expand_slice(info, &mut value)
        })
        .ok()?;
        Some(value)
    }

    /// Ignores poison: no change under this lock is left half done.
    fn secret(&self) -> MutexGuard<'_, Option<OkmBlock>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Calls `expand` with the `HkdfLabel` of RFC 8446, 7.1. None of the lengths is near 256.
fn with_label<T>(
    label: &[u8],
    context: &[u8],
    len: usize,
    expand: impl FnOnce(&[&[u8]]) -> T,
) -> T {
    const PREFIX: &[u8] = b"tls13 ";
    let len = (len as u16).to_be_bytes();
    let label_len = [(PREFIX.len() + label.len()) as u8];
    let context_len = [context.len() as u8];
    expand(&[&len, &label_len, PREFIX, label, &context_len, context])
}

impl fmt::Debug for ExporterSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ExporterSecret")
    }
}

impl KeyLog for ExporterSecret {
    fn log(&self, label: &str, _client_random: &[u8], secret: &[u8]) {
        if label == LABEL {
            *self.secret() = Some(OkmBlock::new(secret));
        }
    }

    fn will_log(&self, label: &str) -> bool {
        label == LABEL
    }
}
