//! Trackers over HTTPS: whose certificates are trusted, and with which cryptography.

use reqwest::ClientBuilder;
use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::BuilderVerifierExt;

use crate::transport::auth::provider;

/// Those that the operating system trusts. If it has none, no tracker over HTTPS is trusted,
/// and the others are asked as ever. May read files.
pub(super) fn trusting_the_system(builder: ClientBuilder) -> ClientBuilder {
    let config = || ClientConfig::builder_with_provider(provider());
    let config = || config().with_safe_default_protocol_versions();
    let trusting = config().and_then(BuilderVerifierExt::with_platform_verifier);
    let trusting = trusting.or_else(|error| {
        tracing::warn!(%error, "there is nothing to trust trackers over HTTPS by");
        config().map(|config| config.with_root_certificates(RootCertStore::empty()))
    });
    match trusting {
        Ok(config) => builder.tls_backend_preconfigured(config.with_no_client_auth()),
        // The cryptography has no version of TLS, which no provider is without.
        Err(_) => builder,
    }
}
