//! Members of a private swarm, by each shape of trust.

use bt_lite::transport::QuicTransport;
use bt_lite::transport::auth::{AllowedKeys, Authenticator, Identity, Secret, Trust};

use crate::authority::{Authority, Validity};

/// What all members have in common.
pub(crate) enum Members {
    Secret(Secret),
    Keys(AllowedKeys),
    Authority(Box<Authority>),
}

impl Members {
    /// One of each shape.
    pub(crate) fn of_each_shape() -> [Self; 3] {
        [
            Self::by_secret(),
            Self::Keys(AllowedKeys::from_iter([])),
            Self::Authority(Box::new(Authority::new("the cluster"))),
        ]
    }

    pub(crate) fn by_secret() -> Self {
        Self::Secret(Secret::generate().unwrap())
    }

    /// A new member.
    pub(crate) fn auth(&self) -> Authenticator {
        let (identity, trust) = match self {
            Self::Secret(secret) => (Identity::generate().unwrap(), Trust::Secret(secret.clone())),
            Self::Keys(keys) => {
                let identity = Identity::generate().unwrap();
                keys.insert(identity.identity());
                (identity, Trust::Keys(keys.clone()))
            }
            Self::Authority(authority) => (
                authority.member(1, Validity::Now),
                Trust::Ca(authority.ca()),
            ),
        };
        Authenticator::new(identity, trust).unwrap()
    }

    pub(crate) fn quic(&self) -> QuicTransport {
        QuicTransport::new(self.auth())
    }
}

/// Fails a test that hangs. A passing test never waits this long.
pub(crate) async fn soon<T>(something: impl Future<Output = T>) -> T {
    let limit = std::time::Duration::from_secs(300);
    let ended = tokio::time::timeout(limit, something).await;
    ended.expect("the test hangs")
}
