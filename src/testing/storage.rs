//! The conformance suite for [`Storage`](crate::Storage) implementations.
