//! The conformance suite for [`Transport`](crate::Transport) implementations.
