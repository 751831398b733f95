//! Who may take part in a private swarm (features `tls` and `quic`).
//!
//! Every program, peer or tracker, has an [`Identity`]: a key pair with a certificate. An
//! [`Authenticator`] joins it with a [`Trust`], which says whom to let in:
//!
//! - [`Trust::Ca`]: whoever has a certificate that one of these authorities has signed.
//! - [`Trust::Keys`]: whoever has one of these keys. The certificate is self-signed and
//!   only carries the key.
//! - [`Trust::Secret`]: whoever knows one secret, which is never sent.
//!
//! Whichever it is, each side proves to hold its private key, and the other side knows it
//! by the hash of its public key from then on ([`PeerIdentity`](super::PeerIdentity)). So
//! nobody can take the id of another peer. There is no other mode: who cannot prove what
//! is asked for is told nothing.
//!
//! A certificate of an authority must be of version 3, which OpenSSL makes by itself only from
//! its version 3.2 on, and for both uses, as a peer connects and accepts:
//!
//! ```text
//! echo extendedKeyUsage=serverAuth,clientAuth >extensions
//! openssl req -new -key key.pem -subj /CN=peer-7 -out peer-7.csr
//! openssl x509 -req -in peer-7.csr -CA ca.pem -CAkey ca-key.pem -CAcreateserial -days 90 \
//!     -extfile extensions -out cert.pem
//! ```
//!
//! Names in certificates are not checked against addresses. Peers are reached at addresses
//! that trackers name, and whoever a trusted authority has signed for is a member at
//! whatever address it is.
//!
//! ```
//! use bt_lite::transport::auth::{Authenticator, Identity, Secret, Trust};
//! use bt_lite::transport::{TcpTransport, TlsTransport};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // Once, for the whole swarm: bring it to each member by a safe way.
//! let secret = Secret::generate()?;
//!
//! // At each member, peer or tracker.
//! let auth = Authenticator::new(Identity::generate()?, Trust::Secret(secret))?;
//! let transport = TlsTransport::new(TcpTransport::new(), auth);
//! # Ok(())
//! # }
//! ```

mod allowed;
mod authenticator;
mod ca;
mod chain;
mod checked;
mod der;
mod error;
mod failures;
mod handshakes;
mod handshaking;
mod identity;
mod known_hosts;
mod live;
#[cfg(feature = "_tls")]
mod member_io;
mod notice;
mod pem;
mod pins;
mod private_file;
mod proof;
mod provider;
mod revocation;
mod rustls_error;
mod secret;
mod stats;
mod trust;
mod validity;
mod verifier;

pub use allowed::AllowedKeys;
pub use authenticator::Authenticator;
pub use ca::Ca;
pub use error::AuthSetupError;
pub use handshakes::HandshakeConfig;
pub use identity::Identity;
#[cfg(feature = "_bittorrent_tls")]
pub(crate) use provider::provider;
pub use secret::{MIN_SECRET_LEN, Secret};
pub use stats::HandshakeStats;
pub use trust::Trust;

pub(super) use authenticator::EXPORTER_LABEL;
pub(super) use der::printable;
pub(super) use handshaking::Handshaking;
#[cfg(feature = "_quic")]
pub(super) use live::Ended;
#[cfg(feature = "_tls")]
pub(super) use member_io::MemberIo;
pub(super) use pins::Pins;
pub(super) use proof::Side;
#[cfg(feature = "_quic")]
pub(super) use rustls_error::refusal;
#[cfg(feature = "_tls")]
pub(super) use rustls_error::{from_rustls, handshake_failed};
pub(super) use stats::HandshakeCounts;
#[cfg(feature = "_quic")]
pub(super) use verifier::Verdict;
