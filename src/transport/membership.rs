//! Whether somebody is let in, beyond the connection that he has had.

use std::fmt;
use std::sync::Arc;

/// Tells whether the transport would still let somebody in whom it has let in, as far as it
/// knows, also when the connection is gone. A tracker forgets who is registered and is let in
/// no more. A clone tells the same.
#[derive(Clone)]
pub struct Membership(Arc<dyn Fn() -> bool + Send + Sync>);

impl Membership {
    /// `is_valid` is called often, and must not block.
    pub fn new(is_valid: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(is_valid))
    }

    /// Whether he is still let in.
    pub fn is_valid(&self) -> bool {
        (self.0)()
    }
}

impl fmt::Debug for Membership {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Membership").field(&self.is_valid()).finish()
    }
}
