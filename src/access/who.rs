//! Who is asked about.

use crate::protocol::Addr;
use crate::transport::PeerIdentity;

/// Somebody: at the other end of a connection, or registered.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Who {
    pub(crate) identity: Option<PeerIdentity>,
    pub(crate) remote: Addr,
}
