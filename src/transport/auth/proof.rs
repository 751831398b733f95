//! The proof that both sides of a session know the secret of the swarm.
//!
//! Each side sends a hash with the secret as its key, over which side it has, a value
//! that only the two ends of this TLS session have (the exporter of RFC 8446, 7.5), and
//! the public keys of both. So a proof is worth nothing in another session, for the other
//! side, or in the hands of somebody who has a session with each of two members. The side
//! that has connected speaks first: who only connects learns nothing.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::secret::Secret;
use crate::transport::auth_error::AuthError;
use crate::transport::identity::PeerIdentity;

/// Which side of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::transport) enum Side {
    /// The one that has connected.
    Client,
    /// The one that has accepted.
    Server,
}

impl Side {
    pub(super) fn other(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }

    fn label(self) -> &'static [u8] {
        match self {
            Self::Client => b"client",
            Self::Server => b"server",
        }
    }
}

/// What a proof is made of, apart from the secret.
pub(super) struct Session {
    /// The value that both ends of the session have, and nobody else.
    pub(super) exporter: [u8; 32],
    pub(super) client: PeerIdentity,
    pub(super) server: PeerIdentity,
}

impl Session {
    fn proof(&self, secret: &Secret, side: Side) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new_keyed(secret.key());
        hasher.update(side.label());
        hasher.update(&self.exporter);
        hasher.update(self.client.as_bytes());
        hasher.update(self.server.as_bytes());
        hasher.finalize()
    }

    /// Proves to know the secret, and has the other side prove it. `side` is the own one.
    pub(super) async fn prove(
        &self,
        io: &mut (impl AsyncRead + AsyncWrite + Unpin),
        secret: &Secret,
        side: Side,
    ) -> Result<(), AuthError> {
        if side == Side::Client {
            send(io, self.proof(secret, side)).await?;
        }
        let mut theirs = [0; blake3::OUT_LEN];
        io.read_exact(&mut theirs).await.map_err(refused)?;
        // In constant time, as the type compares.
        if blake3::Hash::from_bytes(theirs) != self.proof(secret, side.other()) {
            return Err(AuthError::WrongSecret);
        }
        if side == Side::Server {
            send(io, self.proof(secret, side)).await?;
        }
        Ok(())
    }
}

async fn send(io: &mut (impl AsyncWrite + Unpin), proof: blake3::Hash) -> Result<(), AuthError> {
    io.write_all(proof.as_bytes()).await.map_err(refused)?;
    io.flush().await.map_err(refused)
}

/// A member that hears a wrong proof says nothing, and closes.
fn refused(error: io::Error) -> AuthError {
    super::rustls_error::from_io(&error).unwrap_or_else(|| AuthError::Refused {
        reason: match error.kind() {
            // It has heard a proof of another secret.
            io::ErrorKind::UnexpectedEof => {
                "it has not proven to know the secret of this side, and has ended the \
                 connection: compare the files of the secret of both"
                    .to_owned()
            }
            kind => format!("it has not proven to know the secret of this side ({kind})"),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(exporter: u8) -> Session {
        Session {
            exporter: [exporter; 32],
            client: PeerIdentity::of_public_key(b"client"),
            server: PeerIdentity::of_public_key(b"server"),
        }
    }

    #[tokio::test]
    async fn both_sides_prove_the_same_secret() {
        let secret = Secret::generate().unwrap();
        let (mut here, mut there) = tokio::io::duplex(64);
        let (session, _) = (session(1), ());
        let (client, server) = tokio::join!(
            session.prove(&mut here, &secret, Side::Client),
            session.prove(&mut there, &secret, Side::Server),
        );
        assert_eq!((client, server), (Ok(()), Ok(())));
    }

    #[tokio::test]
    async fn proof_of_another_session_side_or_secret_is_wrong_and_is_not_answered() {
        let secret = Secret::generate().unwrap();
        let mut swapped = session(1);
        std::mem::swap(&mut swapped.client, &mut swapped.server);
        let wrong = [
            session(2).proof(&secret, Side::Client),
            session(1).proof(&secret, Side::Server),
            session(1).proof(&Secret::generate().unwrap(), Side::Client),
            swapped.proof(&secret, Side::Client),
            [0; 32].into(),
        ];
        for proof in wrong {
            let (mut here, mut there) = tokio::io::duplex(64);
            send(&mut here, proof).await.unwrap();
            let heard = session(1).prove(&mut there, &secret, Side::Server).await;
            assert_eq!(heard, Err(AuthError::WrongSecret));
            drop(there);
            let mut answer = Vec::new();
            here.read_to_end(&mut answer).await.unwrap();
            assert!(answer.is_empty(), "nothing was said");
        }
    }

    #[tokio::test]
    async fn reflected_proof_is_wrong() {
        let secret = Secret::generate().unwrap();
        let (mut here, mut there) = tokio::io::duplex(64);
        let mirror = async {
            let mut proof = [0; 32];
            there.read_exact(&mut proof).await.unwrap();
            there.write_all(&proof).await.unwrap();
        };
        let session = session(1);
        let (heard, ()) = tokio::join!(session.prove(&mut here, &secret, Side::Client), mirror);
        assert_eq!(heard, Err(AuthError::WrongSecret));
    }
}
