//! How a peer starts.

use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;

use super::serve::{announce, serve_stored};
use super::shared::{Drawn, Shared};
use super::{Handle, Peer, PeerConfig, accept};
use crate::error::{ConfigError, StartError};
use crate::protocol::{Addr, AddrError, PeerId};
use crate::storage::Storage;
use crate::tracker::TrackerClient;
use crate::transport::Transport;

/// Builds a [`Peer`].
#[must_use = "a builder does nothing until it is started"]
pub struct PeerBuilder {
    transport: Arc<dyn Transport>,
    storage: Arc<dyn Storage>,
    trackers: Vec<Addr>,
    trackers_optional: bool,
    share_stored: bool,
    listen: Option<Addr>,
    advertise: Option<Addr>,
    config: PeerConfig,
    seed: Option<u64>,
    /// The first thing that was wrong; said by [`start`](PeerBuilder::start).
    wrong: Option<ConfigError>,
}

impl PeerBuilder {
    pub(super) fn new(transport: Arc<dyn Transport>, storage: Arc<dyn Storage>) -> Self {
        Self {
            transport,
            storage,
            trackers: Vec::new(),
            trackers_optional: false,
            share_stored: false,
            listen: None,
            advertise: None,
            config: PeerConfig::default(),
            seed: None,
            wrong: None,
        }
    }

    /// A tracker to register with; may be called for several.
    pub fn tracker<A>(mut self, addr: A) -> Self
    where
        A: TryInto<Addr> + fmt::Display,
        A::Error: Into<AddrError>,
    {
        if let Some(addr) = self.addr(addr) {
            self.trackers.push(addr);
        }
        self
    }

    /// Starts also when no tracker answers at present; they are tried again in
    /// the background.
    pub fn trackers_optional(mut self) -> Self {
        self.trackers_optional = true;
        self
    }

    /// Shares after a restart what was complete before: what was shared or
    /// downloaded, and not [unshared](Peer::unshare), is kept in mind by the
    /// storage ([`Storage::remember`]), and served from
    /// [`start`](Self::start) on without being hashed again. What has changed
    /// meanwhile, as far as the storage can tell (a
    /// [`FileStorage`](crate::FileStorage#changed-files) by length and
    /// modification time), is left out. A storage that keeps nothing in mind, as
    /// [`MemoryStorage`](crate::MemoryStorage), has nothing to share then.
    ///
    /// Without it the peer starts with nothing to share, and leaves no list
    /// behind.
    pub fn share_stored(mut self) -> Self {
        self.share_stored = true;
        self
    }

    /// Listens for other peers here (port 0: any). Without it, the peer serves
    /// over the links that it dialled, and is not listed as an owner.
    pub fn listen<A>(mut self, addr: A) -> Self
    where
        A: TryInto<Addr> + fmt::Display,
        A::Error: Into<AddrError>,
    {
        self.listen = self.addr(addr);
        self
    }

    /// Tells others this address instead of the one that the listener has:
    /// behind a port forwarding, say. Without a listener it means nothing.
    pub fn advertise<A>(mut self, addr: A) -> Self
    where
        A: TryInto<Addr> + fmt::Display,
        A::Error: Into<AddrError>,
    {
        self.advertise = self.addr(addr);
        self
    }

    /// Replaces every bound.
    pub fn config(mut self, config: PeerConfig) -> Self {
        self.config = config;
        self
    }

    /// Decides every choice that is left to chance, the peer's id included, so
    /// that a simulation can be repeated. Each peer of a network needs another
    /// one. Without it, the operating system's randomness is used.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Starts the peer: listens, and registers with the trackers.
    ///
    /// Cancel safe: with the future dropped, nothing stays behind.
    ///
    /// # Errors
    /// [`StartError`]: a configuration that cannot work, an address that cannot
    /// be listened at, no tracker that takes this peer, or a storage that does
    /// not say what it has.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub async fn start(self) -> Result<Peer, StartError> {
        if let Some(wrong) = self.wrong {
            return Err(wrong.into());
        }
        self.config.check()?;
        let secret = self.secret()?;
        let listener = match &self.listen {
            Some(addr) => match self.transport.listen(addr).await {
                Ok(listener) => Some(listener),
                Err(source) => {
                    let addr = addr.clone();
                    return Err(StartError::Listen { addr, source });
                }
            },
            None => None,
        };
        let bound = listener
            .as_ref()
            .map(|listener| listener.local_addr().clone());
        let addr = self.advertise.filter(|_| bound.is_some());
        let addr = addr.or_else(|| bound.clone());
        let mut rng = fastrand::Rng::with_seed(self.seed.unwrap_or_else(random_seed));
        let id = PeerId(rng.u128(..).to_be_bytes());
        let mut config = self.config;
        let tracker_seed = rng.u64(..);
        config.tracker.seed.get_or_insert(tracker_seed);
        let trackers = TrackerClient::start(
            Arc::clone(&self.transport),
            self.trackers,
            addr.clone(),
            config.tracker.clone(),
        );
        let drawn = Drawn {
            id,
            seed: rng.u64(..),
            secret,
        };
        let mut shared = Shared::new(drawn, config, self.transport, self.storage, trackers, addr);
        shared.share_stored = self.share_stored;
        let shared = Arc::new(shared);
        // Dropped from here on, the handle stops what was started.
        let peer = Peer(Arc::new(Handle {
            shared: Arc::clone(&shared),
            bound,
        }));
        let mut stored = Vec::new();
        if self.share_stored {
            match serve_stored(&shared).await {
                Ok(entries) => stored = entries,
                Err(error) => {
                    peer.shutdown().await;
                    return Err(error.into());
                }
            }
        }
        if let Some(listener) = listener {
            shared.spawn(accept::run(Arc::clone(&shared), listener));
        }
        if !self.trackers_optional
            && let Err(error) = shared.trackers.registered().await
        {
            peer.shutdown().await;
            return Err(error.into());
        }
        let announced = announce(Arc::clone(&shared), stored);
        if self.trackers_optional {
            shared.spawn(announced);
        } else {
            announced.await;
        }
        Ok(peer)
    }

    /// The key of the secrets of links.
    fn secret(&self) -> Result<[u8; 32], StartError> {
        if let Some(seed) = self.seed {
            return Ok(blake3::derive_key(
                "bt_lite link cookies",
                &seed.to_le_bytes(),
            ));
        }
        let mut secret = [0; 32];
        getrandom::fill(&mut secret).map_err(|error| StartError::Entropy {
            detail: error.to_string(),
        })?;
        Ok(secret)
    }

    fn addr<A>(&mut self, addr: A) -> Option<Addr>
    where
        A: TryInto<Addr> + fmt::Display,
        A::Error: Into<AddrError>,
    {
        let text = addr.to_string();
        match addr.try_into() {
            Ok(addr) => Some(addr),
            Err(source) => {
                let source = source.into();
                self.wrong.get_or_insert(ConfigError::Addr { text, source });
                None
            }
        }
    }
}

impl fmt::Debug for PeerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerBuilder")
            .field("trackers", &self.trackers)
            .field("listen", &self.listen)
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

/// Randomness of the operating system; a fixed number on one that has none,
/// which costs nothing but chance.
fn random_seed() -> u64 {
    getrandom::u64().unwrap_or(0)
}

/// An [`Addr`] is one without another look.
impl From<Infallible> for AddrError {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}
