//! The cryptography that the features have chosen: that of ring, or of aws-lc-rs if it
//! alone was chosen.

use std::sync::{Arc, OnceLock};

use rustls::crypto::CryptoProvider;

#[cfg(not(feature = "_ring"))]
use rustls::crypto::aws_lc_rs as chosen;
#[cfg(feature = "_ring")]
use rustls::crypto::ring as chosen;

/// The same for all, whatever the process has installed as its default.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    let provider = PROVIDER.get_or_init(|| Arc::new(chosen::default_provider()));
    Arc::clone(provider)
}
