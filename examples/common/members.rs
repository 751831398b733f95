//! Who takes part in the swarm, and how they speak to each other.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bt_lite::transport::auth::{Authenticator, Ca, Identity, Secret, Trust};
use bt_lite::transport::{QuicTransport, TlsTransport};
use bt_lite::{TcpTransport, Transport};
use clap::{ArgGroup, Args};

use super::Outcome;

/// How often the files of the certificates are read again: who is revoked has nothing left
/// a second later.
const REREAD: Duration = Duration::from_secs(1);

/// Whom to speak to. Without any of these: to everybody, over TCP in the clear.
#[derive(Args)]
#[command(group = ArgGroup::new("members").args(["secret", "certificates"]))]
pub(crate) struct Members {
    /// Speaks only to those who know the secret in this file.
    #[arg(long, value_name = "FILE")]
    secret: Option<PathBuf>,
    /// Speaks only to those with a certificate of the authority in ca.pem in this directory.
    /// The own one is in cert.pem, its key in key.pem, and a list of those that are revoked,
    /// if there is one, in revoked.pem. They are read again every second.
    #[arg(long, value_name = "DIR")]
    certificates: Option<PathBuf>,
    /// Over TLS, which is so by default.
    #[arg(long, requires = "members")]
    tls: bool,
    /// Over QUIC instead of TLS.
    #[arg(long, requires = "members", conflicts_with = "tls")]
    quic: bool,
    /// Whether the program has a log, in which everything about the files is told.
    #[arg(skip)]
    has_log: bool,
}

impl Members {
    /// Those who know a secret, or who have certificates, for a program that has a log.
    pub(crate) fn new(secret: Option<PathBuf>, certificates: Option<PathBuf>, quic: bool) -> Self {
        Self {
            secret,
            certificates,
            tls: false,
            quic,
            has_log: true,
        }
    }

    /// Makes the secret if there is no such file.
    pub(crate) fn make_secret(&self) -> Outcome<()> {
        if let Some(path) = &self.secret {
            Secret::load_or_generate(path)?;
        }
        Ok(())
    }

    pub(crate) fn transport(&self) -> Outcome<Box<dyn Transport>> {
        let tcp = TcpTransport::new();
        let auth = match (&self.secret, &self.certificates) {
            (Some(path), _) => {
                let trust = Trust::Secret(Secret::from_file(path)?);
                Authenticator::new(Identity::generate()?, trust)?
            }
            (None, Some(dir)) => by_certificate(dir, self.has_log)?,
            (None, None) => return Ok(Box::new(tcp)),
        };
        Ok(match self.quic {
            true => Box::new(QuicTransport::new(auth)),
            false => Box::new(TlsTransport::new(tcp, auth)),
        })
    }
}

fn by_certificate(dir: &Path, has_log: bool) -> Outcome<Authenticator> {
    let (ca, revoked) = (dir.join("ca.pem"), dir.join("revoked.pem"));
    // It need not be there before somebody is revoked.
    let ca = Ca::from_pem_file(ca).revoked_pem_file(revoked);
    let identity = Identity::from_pem_files(dir.join("cert.pem"), dir.join("key.pem"))?;
    let auth = Authenticator::new(identity, Trust::Ca(ca))?;
    match has_log {
        true => tokio::spawn(auth.clone().watch(REREAD)),
        false => tokio::spawn(reread(auth.clone())),
    };
    Ok(auth)
}

/// Reads the files again and again, and says on stderr when they cannot be used: a program
/// that does not hear of it would go on with an old list of those that are revoked. One that
/// has a log has `Authenticator::watch` instead, which says more.
async fn reread(auth: Authenticator) {
    let mut told = None;
    loop {
        tokio::time::sleep(REREAD).await;
        let auth = auth.clone();
        let Ok(reloaded) = tokio::task::spawn_blocking(move || auth.reload()).await else {
            return;
        };
        let error = reloaded.err();
        if let Some(error) = error.as_ref().filter(|error| told.as_ref() != Some(*error)) {
            eprintln!("what was read before still counts: {error}");
        }
        told = error;
    }
}
