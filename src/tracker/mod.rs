//! The tracker: who is there, who owns what, and how fast each uploads.
