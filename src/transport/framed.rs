//! Frames over any byte stream.
