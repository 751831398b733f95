//! How many files and connections this process may have open at the same time.

/// The soft limit of this process on open descriptors (`RLIMIT_NOFILE`), as it is
/// now; nothing where there is no limit, or none is known. Files and connections
/// count alike.
pub(crate) fn descriptor_limit() -> Option<u64> {
    #[cfg(unix)]
    return rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    #[cfg(not(unix))]
    None
}

/// How many of `limit` descriptors the handshakes of a transport that authenticates may
/// have: an eighth of the half that connections have.
pub(crate) fn handshakes_share(limit: u64) -> u64 {
    limit / 16
}

/// The limit by which to bound connections that have shaken hands, where the transport has
/// handshakes of its own before that.
pub(crate) fn without_handshakes(limit: u64) -> u64 {
    // Half of this is for connections.
    limit - 2 * handshakes_share(limit)
}

/// Whether an operation failed because this process, or the whole system, has no
/// descriptor left. It may succeed a moment later.
pub(crate) fn is_exhausted(error: &std::io::Error) -> bool {
    #[cfg(unix)]
    {
        use rustix::io::Errno;
        let exhausted = [Errno::MFILE, Errno::NFILE].map(Errno::raw_os_error);
        error.raw_os_error().is_some_and(|e| exhausted.contains(&e))
    }
    #[cfg(not(unix))]
    {
        let _ = error;
        false
    }
}
