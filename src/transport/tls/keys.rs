//! The keys of a session after its handshake. The library derives them, and this crate uses
//! them: so a record is sealed and opened where it lies.
//!
//! The library offers its ciphers in this way only as the keys of QUIC packets. Those are used
//! as TLS 1.3 does (RFC 9001, 5.3): the nonce is the initial one combined with a number, and
//! what is authenticated beside the payload is given. Of a packet that is its number and its
//! header, of a record the same.

use rustls::kernel::KernelConnection;
use rustls::quic::PacketKey;
use rustls::{ConnectionTrafficSecrets, Error, Tls13CipherSuite};

/// How long the tag of each cipher of TLS 1.3 is, in bytes.
pub(super) const TAG: usize = 16;

/// The key of one direction, and the number of its next record.
pub(super) struct RecordKey {
    key: Box<dyn PacketKey>,
    number: u64,
}

/// What derives the next keys of a session.
pub(super) struct KeySchedule {
    suite: &'static Tls13CipherSuite,
    library: Box<dyn Updates>,
}

/// The part of the library that updates keys, of either side.
trait Updates: Send + Sync {
    fn sealing(&mut self) -> Result<(u64, ConnectionTrafficSecrets), Error>;
    fn opening(&mut self) -> Result<(u64, ConnectionTrafficSecrets), Error>;
}

impl<Data: Send + Sync> Updates for KernelConnection<Data> {
    fn sealing(&mut self) -> Result<(u64, ConnectionTrafficSecrets), Error> {
        self.update_tx_secret()
    }

    fn opening(&mut self) -> Result<(u64, ConnectionTrafficSecrets), Error> {
        self.update_rx_secret()
    }
}

impl RecordKey {
    /// How many records may be sealed with it.
    pub(super) fn most(&self) -> u64 {
        self.key.confidentiality_limit()
    }

    /// How many records it has sealed or opened.
    pub(super) fn used(&self) -> u64 {
        self.number
    }

    /// Seals what lies behind the header of a record, and returns the tag.
    pub(super) fn seal(&mut self, header: &[u8], payload: &mut [u8]) -> Result<[u8; TAG], Error> {
        let tag = self.key.encrypt_in_place(self.number, header, payload)?;
        self.number += 1;
        tag.as_ref().try_into().map_err(|_| Error::EncryptError)
    }

    /// Opens what lies behind the header of a record, with its tag, and returns how long it
    /// is without that.
    pub(super) fn open(&mut self, header: &[u8], payload: &mut [u8]) -> Result<usize, Error> {
        let opened = self.key.decrypt_in_place(self.number, header, payload)?;
        self.number += 1;
        Ok(opened.len())
    }
}

impl KeySchedule {
    pub(super) fn new<Data: Send + Sync + 'static>(
        suite: &'static Tls13CipherSuite,
        library: KernelConnection<Data>,
    ) -> Self {
        let library = Box::new(library);
        Self { suite, library }
    }

    /// The key of these secrets.
    pub(super) fn key(
        &self,
        (number, secrets): (u64, ConnectionTrafficSecrets),
    ) -> Result<RecordKey, Error> {
        let (ConnectionTrafficSecrets::Aes128Gcm { key, iv }
        | ConnectionTrafficSecrets::Aes256Gcm { key, iv }
        | ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv }) = secrets
        else {
            return Err(unusable());
        };
        let ciphers = self.suite.quic.ok_or_else(unusable)?;
        let key = ciphers.packet_key(key, iv);
        Ok(RecordKey { key, number })
    }

    /// The next key to seal with.
    pub(super) fn next_sealing(&mut self) -> Result<RecordKey, Error> {
        let secrets = self.library.sealing()?;
        self.key(secrets)
    }

    /// The next key to open with.
    pub(super) fn next_opening(&mut self) -> Result<RecordKey, Error> {
        let secrets = self.library.opening()?;
        self.key(secrets)
    }
}

/// No cipher of the libraries that the features choose among.
fn unusable() -> Error {
    Error::General("the cipher of the session cannot be used".to_owned())
}
