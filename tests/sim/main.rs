//! Many endpoints in one thread, in virtual time.

mod network;
