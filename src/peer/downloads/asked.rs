//! How a download was asked for, as far as that has to be recorded.

use std::path::PathBuf;

use crate::content::{Content, ContentName};
use crate::peer::limits::ContentLimits;
use crate::peer::swarm::Strategy;

/// How a download was asked for.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::peer) struct Asked {
    /// The name that the user wants it stored under, if any.
    pub(in crate::peer) name: Option<ContentName>,
    /// The directory that it goes to, if that is another one.
    pub(in crate::peer) directory: Option<PathBuf>,
    /// Whether it replaces a file that has its name.
    pub(in crate::peer) overwrites: bool,
    /// A file that may have a part of it.
    pub(in crate::peer) existing: Option<PathBuf>,
    pub(in crate::peer) strategy: Strategy,
    pub(in crate::peer) limits: Option<ContentLimits>,
}

/// What was found out about a download before the peer was started again.
#[derive(Debug, Clone)]
pub(in crate::peer) struct Earlier {
    /// The name that it was asked for by, if it was not asked for by id.
    pub(in crate::peer) asked: Option<ContentName>,
    /// The name that trackers have for it.
    pub(in crate::peer) listed_as: Option<ContentName>,
    /// What it is, under the name that it gets here.
    pub(in crate::peer) content: Option<Content>,
}
