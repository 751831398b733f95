//! An identity and a trust: all that a transport needs to know whom it speaks to.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use rustls::client::{ResolvesClientCert, Resumption};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::version::TLS13;
use rustls::{ClientConfig, ServerConfig, SignatureScheme};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::Instant;

use super::checked::Checked;
use super::error::AuthSetupError;
use super::identity::Identity;
use super::live::{Ended, Live, LiveMember};
use super::notice::Notice;
use super::proof::{Session, Side};
use super::provider::provider;
use super::trust::{Trust, TrustState};
use super::validity::Validity;
use super::verifier::TrustVerifier;
#[cfg(feature = "_quic")]
use super::verifier::Verdict;
use crate::transport::auth_error::AuthError;
use crate::transport::identity::PeerIdentity;

/// The label of the value that a proof of the secret is bound to (RFC 8446, 7.5), without
/// a context.
pub(in crate::transport) const EXPORTER_LABEL: &[u8] = b"EXPORTER-bt_lite-swarm-secret";

/// How often [`Authenticator::watch`] warns of the same thing.
const WARN_EVERY: Duration = Duration::from_secs(24 * 60 * 60);

/// Proves who this program is, and decides who the others are. A clone is a handle to the
/// same; one may be shared by all transports of a program.
#[derive(Clone)]
pub struct Authenticator(Arc<AuthState>);

struct AuthState {
    identity: PeerIdentity,
    own: Arc<OwnCertificate>,
    trust: Arc<TrustState>,
    live: Arc<Live>,
    /// Held while files are read again: what was read earlier must not come later.
    reloading: Mutex<()>,
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
}

/// The own certificate as it was last read, for the TLS library.
struct OwnCertificate(RwLock<Identity>);

/// The other side of a connection, let in.
pub(in crate::transport) struct Member {
    pub(in crate::transport) identity: PeerIdentity,
    /// Tells when it is let in no more.
    pub(in crate::transport) ended: Ended,
}

impl Authenticator {
    /// Joins an identity with a trust. May read files. Warns in the log of what will go
    /// wrong: of an authority that has expired or is about to, of a revocation list that is
    /// missing or late, and of an own certificate that others would refuse.
    ///
    /// # Errors
    /// [`AuthSetupError`]: the files of the authorities cannot be used, all of them have
    /// expired, or the own certificate, where certificates count, has.
    pub fn new(identity: Identity, trust: Trust) -> Result<Self, AuthSetupError> {
        let trust = Arc::new(TrustState::new(trust)?);
        if matches!(*trust, TrustState::Ca(..)) {
            identity.check_expiry()?;
        }
        let live = Arc::new(Live::default());
        if let TrustState::Keys(keys) = &*trust {
            keys.watch(&live);
        }
        let id = identity.identity();
        let own = Arc::new(OwnCertificate(RwLock::new(identity)));
        let verifier = Arc::new(TrustVerifier {
            trust: Arc::clone(&trust),
            verdict: None,
        });
        let this = Self(Arc::new(AuthState {
            identity: id,
            client: Arc::new(client_config(&own, &verifier)?),
            server: Arc::new(server_config(&own, &verifier)?),
            own,
            trust,
            live,
            reloading: Mutex::default(),
        }));
        let now = SystemTime::now();
        for notice in this.notices(now) {
            notice.log(now);
        }
        Ok(this)
    }

    /// Who this program is to others.
    pub fn identity(&self) -> PeerIdentity {
        self.0.identity
    }

    /// When the own certificate, or one between it and its authority, expires. Nothing
    /// if only the key counts.
    pub fn expires_at(&self) -> Option<SystemTime> {
        match *self.0.trust {
            TrustState::Ca(..) => self.0.own.current().expires_at(),
            TrustState::Keys(_) | TrustState::Secret(_) => None,
        }
    }

    /// Reads the files again: the own certificate, those of the authorities, and what
    /// they have revoked. Open connections go on, but for those with somebody who would
    /// not be let in any more. Blocks.
    ///
    /// A file that was not there before counts from now on. One that has vanished or that is
    /// broken leaves what was read from it before, and the others are read all the same.
    /// Reloads that come at the same time are done one after the other.
    ///
    /// # Errors
    /// [`AuthSetupError`]: of the first file that cannot be used. The log has those of all.
    pub fn reload(&self) -> Result<(), AuthSetupError> {
        let state = &*self.0;
        let reloading = state.reloading.lock();
        let _reloading = reloading.unwrap_or_else(PoisonError::into_inner);
        // Each by itself: a broken certificate must not keep a revoked one in.
        let mut errors = state.trust.reload();
        let own = state.own.current().reloaded();
        self.recheck();
        let own = own.and_then(|new| match new {
            Some(new) => self.renew(new),
            None => Ok(()),
        });
        errors.extend(own.err());
        let mut errors = errors.into_iter();
        let first = errors.next();
        for error in errors {
            tracing::warn!(%error, "cannot reload what authenticates this program");
        }
        first.map_or(Ok(()), Err)
    }

    /// Reloads again and again, `every` so often, and warns in the log when the files
    /// cannot be used. Warns once a day of the same things as [`new`](Self::new), and when
    /// the own certificate or that of an authority expires within a week.
    /// Spawn it; it ends when every other handle is gone.
    ///
    /// Also ends connections with those whose certificates have expired meanwhile.
    ///
    /// Cancel safe.
    pub async fn watch(self, every: Duration) {
        let state = Arc::downgrade(&self.0);
        drop(self);
        // Zero would be a busy loop.
        let every = every.max(Duration::from_millis(1));
        let mut warned: Vec<(Notice, Instant)> = Vec::new();
        loop {
            tokio::time::sleep(every).await;
            let Some(state) = state.upgrade() else {
                return;
            };
            let this = Self(state);
            let reload = tokio::task::spawn_blocking(move || {
                let reloaded = this.reload();
                (this, reloaded)
            });
            let Ok((this, reloaded)) = reload.await else {
                return;
            };
            if let Err(error) = reloaded {
                tracing::warn!(%error, "cannot reload what authenticates this program");
            }
            warned.retain(|(_, at)| at.elapsed() < WARN_EVERY);
            let now = SystemTime::now();
            for notice in this.notices(now) {
                if warned.iter().all(|(known, _)| *known != notice) {
                    notice.log(now);
                    warned.push((notice, Instant::now()));
                }
            }
        }
    }

    /// What a person should look at.
    fn notices(&self, now: SystemTime) -> Vec<Notice> {
        let TrustState::Ca(..) = *self.0.trust else {
            return Vec::new();
        };
        let mut notices = self.0.trust.notices(now);
        let own = self.0.own.current();
        notices.extend(self.own_notice(&own, now));
        // Two lists of one authority are told of once.
        let mut told = Vec::with_capacity(notices.len());
        for notice in notices {
            if !told.contains(&notice) {
                told.push(notice);
            }
        }
        told
    }

    /// What others will think of the own certificate, if they trust the same.
    fn own_notice(&self, own: &Identity, now: SystemTime) -> Option<Notice> {
        if let Some(until) = own.expires_at() {
            let what = "the own certificate".to_owned();
            let validity = Validity { from: now, until };
            let notice = Notice::of_validity(what, &validity, now);
            if notice.is_some() {
                return notice;
            }
        }
        let (first, between) = own.certified.cert.split_first()?;
        let checked = self
            .0
            .trust
            .check(first, between, Side::Client, UnixTime::now());
        checked.err().map(Notice::Refused)
    }

    /// Replaces the own certificate, unless certificates count and the new one has expired
    /// already.
    fn renew(&self, new: Identity) -> Result<(), AuthSetupError> {
        if matches!(*self.0.trust, TrustState::Ca(..)) {
            new.check_expiry()?;
        }
        self.0.own.set(new);
        Ok(())
    }

    fn recheck(&self) {
        let (trust, now) = (&self.0.trust, SystemTime::now());
        self.0.live.recheck(|member| {
            let LiveMember {
                identity,
                chain,
                side,
                checked,
            } = member;
            trust.check_again(*identity, (chain, *side), checked, now)
        });
    }

    /// Changes when somebody that was let in is let in no more.
    pub(in crate::transport) fn membership_changes(&self) -> watch::Receiver<u64> {
        self.0.live.changes()
    }

    /// The configuration of the side that connects.
    pub(in crate::transport) fn client_config(&self) -> &Arc<ClientConfig> {
        &self.0.client
    }

    /// The configuration of the side that accepts.
    pub(in crate::transport) fn server_config(&self) -> &Arc<ServerConfig> {
        &self.0.server
    }

    /// The configuration of the side that connects, for one handshake of a library that
    /// does not tell why it has refused the other side.
    #[cfg(feature = "_quic")]
    pub(in crate::transport) fn noting_client_config(&self) -> (ClientConfig, Verdict) {
        let (mut config, verdict) = (ClientConfig::clone(&self.0.client), Verdict::default());
        let verifier = TrustVerifier {
            trust: Arc::clone(&self.0.trust),
            verdict: Some(verdict.clone()),
        };
        let mut dangerous = config.dangerous();
        dangerous.set_certificate_verifier(Arc::new(verifier));
        (config, verdict)
    }

    /// Lets the other side in after a handshake of TLS, or refuses it: proves the secret
    /// over `io`, if there is one. `side` is the own side, `chain` what the other has
    /// shown, and `exporter` the value for [`EXPORTER_LABEL`].
    pub(in crate::transport) async fn admit(
        &self,
        io: &mut (impl AsyncRead + AsyncWrite + Unpin),
        side: Side,
        chain: Option<&[CertificateDer<'_>]>,
        exporter: [u8; 32],
    ) -> Result<Member, AuthError> {
        let (first, between) = chain
            .and_then(<[_]>::split_first)
            .ok_or(AuthError::Missing)?;
        let (trust, theirs) = (&self.0.trust, side.other());
        let identity = trust.check(first, between, theirs, UnixTime::now())?;
        if let TrustState::Secret(secret) = &**trust {
            let (client, server) = match side {
                Side::Client => (self.0.identity, identity),
                Side::Server => (identity, self.0.identity),
            };
            let session = Session {
                exporter,
                client,
                server,
            };
            session.prove(io, secret, side).await?;
        }
        let chain = match **trust {
            TrustState::Ca(..) => std::iter::once(first)
                .chain(between)
                .map(|certificate| certificate.clone().into_owned())
                .collect(),
            TrustState::Keys(_) | TrustState::Secret(_) => Vec::new(),
        };
        let member = LiveMember {
            identity,
            chain: Arc::new(chain),
            side: theirs,
            checked: Checked::default(),
        };
        let ended = self.0.live.add(member);
        // What has changed from here on ends the connection.
        trust.check(first, between, theirs, UnixTime::now())?;
        Ok(Member { identity, ended })
    }
}

impl fmt::Debug for Authenticator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Authenticator")
            .field(&self.0.identity)
            .finish()
    }
}

/// TLS 1.3 alone; each session is authenticated from the start, so none is resumed, and
/// nothing is sent before that.
fn client_config(
    own: &Arc<OwnCertificate>,
    verifier: &Arc<TrustVerifier>,
) -> Result<ClientConfig, AuthSetupError> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(unusable)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::clone(verifier) as _)
        .with_client_cert_resolver(Arc::clone(own) as _);
    config.enable_sni = false;
    config.enable_early_data = false;
    config.resumption = Resumption::disabled();
    Ok(config)
}

fn server_config(
    own: &Arc<OwnCertificate>,
    verifier: &Arc<TrustVerifier>,
) -> Result<ServerConfig, AuthSetupError> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(unusable)?
        .with_client_cert_verifier(Arc::clone(verifier) as _)
        .with_cert_resolver(Arc::clone(own) as _);
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    Ok(config)
}

fn unusable(error: rustls::Error) -> AuthSetupError {
    AuthSetupError::Key {
        reason: error.to_string(),
    }
}

impl OwnCertificate {
    fn current(&self) -> Identity {
        self.0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn set(&self, new: Identity) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = new;
    }
}

impl fmt::Debug for OwnCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OwnCertificate")
    }
}

impl ResolvesServerCert for OwnCertificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current().certified)
    }
}

impl ResolvesClientCert for OwnCertificate {
    fn resolve(
        &self,
        _root_hint_subjects: &[&[u8]],
        _sigschemes: &[SignatureScheme],
    ) -> Option<Arc<CertifiedKey>> {
        Some(self.current().certified)
    }

    fn has_certs(&self) -> bool {
        true
    }
}
