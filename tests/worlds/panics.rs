//! Panics of tasks are seen, and not only those of the test.

use std::cell::RefCell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

thread_local! {
    /// Those of a world that this thread runs now.
    static SEEN: RefCell<Option<Vec<String>>> = const { RefCell::new(None) };
}

/// Runs something, and returns what it returns, unless anything in this thread has panicked.
pub(crate) fn watched<T>(run: impl FnOnce() -> T) -> Result<T, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let is_seen = SEEN.with_borrow_mut(|seen| match seen {
                Some(seen) => {
                    seen.push(info.to_string());
                    true
                }
                None => false,
            });
            if !is_seen {
                usual(info);
            }
        }));
    });
    SEEN.set(Some(Vec::new()));
    let ended = panic::catch_unwind(AssertUnwindSafe(run));
    let seen = SEEN.take().unwrap_or_default();
    match ended {
        Ok(ended) if seen.is_empty() => Ok(ended),
        _ => Err(seen.join("\n")),
    }
}
