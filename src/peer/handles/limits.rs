//! Rate limits that can be changed while a peer runs.

use crate::content::ContentId;
use crate::error::ConfigError;
use crate::peer::contents::inbox::DriverInput;
use crate::peer::downloads::settings::Settings;
use crate::peer::handles::download::{Download, DownloadOptions};
use crate::peer::handles::peer::{Peer, PeerBuilder};
use crate::peer::limits::{ContentLimits, RateLimits};

impl Peer {
    /// How fast this peer may send and receive.
    pub fn rate_limits(&self) -> RateLimits {
        self.shared().limiter.limits()
    }

    /// Changes how fast this peer may send and receive, from now on: all contents and
    /// connections together, and those of each host. What was asked for or is being sent
    /// already is not held up. What waits goes on at the new rates at once.
    ///
    /// # Errors
    /// [`ConfigError::Zero`] if a limit is zero. Nothing changes then.
    pub fn set_rate_limits(&self, limits: RateLimits) -> Result<(), ConfigError> {
        limits.check()?;
        self.shared().limiter.set(limits);
        Ok(())
    }

    /// The limits of a content of its own.
    pub fn content_limits(&self, id: impl Into<ContentId>) -> ContentLimits {
        self.shared().limiter.content(&id.into())
    }

    /// Changes how fast one content may be sent and received, from now on, beside the limits
    /// of the whole peer. It holds as long as this peer runs, whether the content is being
    /// downloaded, shared, or not here yet; a download that has limits of its own
    /// ([`DownloadOptions::limits`]) replaces it. Limits of contents that are not here any
    /// more are forgotten when there are more than a thousand.
    ///
    /// # Errors
    /// [`ConfigError::Zero`] if a limit is zero. Nothing changes then.
    pub fn set_content_limits(
        &self,
        id: impl Into<ContentId>,
        limits: ContentLimits,
    ) -> Result<(), ConfigError> {
        limits.check()?;
        let (shared, id) = (self.shared(), id.into());
        shared.limit_content(id, limits);
        for running in shared.running.all() {
            if running.id() == Some(id) {
                let change = |settings: &mut Settings| settings.limits = Some(limits);
                running.control.change(change);
            }
        }
        #[cfg(feature = "file-storage")]
        for running in shared.running_folders.all() {
            if running.id() == Some(id) {
                running.control.note_change();
            }
        }
        Ok(())
    }
}

impl PeerBuilder {
    /// Sets how fast the peer may send and receive
    /// ([`PeerConfig::limits`](crate::peer::PeerConfig::limits)).
    pub fn limits(self, limits: RateLimits) -> Self {
        self.map_config(|config| config.limits(limits))
    }
}

impl DownloadOptions {
    /// Sets how fast the content may be sent and received. It holds for the content, so
    /// also for other handles of the same download, and when it is complete. If a limit is
    /// zero, the download fails with
    /// [`DownloadError::Config`](crate::DownloadError::Config).
    #[must_use]
    pub fn limits(mut self, limits: ContentLimits) -> Self {
        match limits.check() {
            Ok(()) => self.limits = Some(limits),
            Err(wrong) => _ = self.wrong.get_or_insert(wrong.into()),
        }
        self
    }
}

impl Download {
    /// Changes how fast the content may be sent and received, as
    /// [`Peer::set_content_limits`] does. While something is being fetched, it returns when
    /// the change is in effect, which is soon. If the download waits, looks for its content
    /// or is paused, this returns at once, and the limits count when it goes on. Once the
    /// download has ended it may have no effect.
    ///
    /// Cancel safe: if the future is dropped, the limits change or they do not.
    ///
    /// # Errors
    /// [`ConfigError::Zero`] if a limit is zero. Nothing changes then.
    pub async fn set_limits(&self, limits: ContentLimits) -> Result<(), ConfigError> {
        limits.check()?;
        let change = |settings: &mut Settings| settings.limits = Some(limits);
        self.control().change(change);
        self.control().in_effect().await;
        if self.status.borrow().outcome().is_some() {
            // Fails if the content is not served by now.
            let _ = self.inbox().send(DriverInput::SetLimits(limits)).await;
        }
        Ok(())
    }
}
