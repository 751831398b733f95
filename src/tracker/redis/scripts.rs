//! The scripts of the store, and calls of them. Each runs as one step of the store, and
//! uses the keys of one hash slot.

use std::sync::LazyLock;

use redis::Cmd;

use super::slots::slot_of;

macro_rules! scripts {
    ($($name:ident = $file:literal),+ $(,)?) => {
        /// A script of the store.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(super) enum Script {
            $($name,)+
        }

        const ALL: &[Script] = &[$(Script::$name),+];

        impl Script {
            const fn code(self) -> &'static str {
                match self {
                    $(Self::$name => include_str!(concat!("scripts/", $file, ".lua")),)+
                }
            }
        }
    };
}

scripts!(
    Meta = "meta",
    Register = "register",
    Heard = "heard",
    Also = "also",
    Own = "own",
    Drop = "drop",
    Exit = "exit",
    Due = "due",
    Die = "die",
    Report = "report",
    Credit = "credit",
    Peer = "peer",
    Adopt = "adopt",
    ContentOwn = "content_own",
    ContentDisown = "content_disown",
    ContentRefresh = "content_refresh",
    Need = "need",
    Announce = "announce",
    Depart = "depart",
);

/// The hashes by which the store knows them, in the order of [`ALL`].
static HASHES: LazyLock<Vec<String>> = LazyLock::new(|| {
    let hashes = ALL.iter().map(|script| {
        let script = redis::Script::new(script.code());
        script.get_hash().to_owned()
    });
    hashes.collect()
});

/// Which node a call is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Route {
    /// The one that has this slot.
    Slot(u16),
    /// The one with this number.
    Node(usize),
}

/// One call of a script, or another command.
#[derive(Debug, Clone)]
pub(super) struct Call {
    cmd: Cmd,
    route: Route,
}

impl Call {
    /// A call of a script with these keys, which are of one slot.
    pub(super) fn new<K: AsRef<str>>(script: Script, keys: &[K]) -> Self {
        let slots = || keys.iter().map(|key| slot_of(key.as_ref()));
        let slot = slots().next().unwrap_or(0);
        debug_assert!(slots().all(|other| other == slot), "{script:?}");
        let mut cmd = redis::cmd("EVALSHA");
        cmd.arg(&HASHES[script as usize]).arg(keys.len());
        for key in keys {
            cmd.arg(key.as_ref());
        }
        let route = Route::Slot(slot);
        Self { cmd, route }
    }

    /// Another command, about this key.
    pub(super) fn command(name: &str, key: &str) -> Self {
        let mut cmd = redis::cmd(name);
        cmd.arg(key);
        let route = Route::Slot(slot_of(key));
        Self { cmd, route }
    }

    /// A command that is about no key, for the node with this number.
    pub(super) fn to_node(node: usize, words: &[&str]) -> Self {
        let mut words = words.iter();
        let mut cmd = redis::cmd(words.next().unwrap_or(&"PING"));
        cmd.arg(words.as_slice());
        let route = Route::Node(node);
        Self { cmd, route }
    }

    pub(super) fn arg(mut self, arg: impl AsRef<[u8]>) -> Self {
        self.cmd.arg(arg.as_ref());
        self
    }

    pub(super) fn number(self, number: u64) -> Self {
        self.arg(number.to_string())
    }

    pub(super) fn cmd(&self) -> &Cmd {
        &self.cmd
    }

    pub(super) fn route(&self) -> Route {
        self.route
    }

    /// Those that make a node know all scripts.
    pub(super) fn load_all() -> Vec<Self> {
        let load = |script: &Script| Self::to_node(0, &["SCRIPT", "LOAD", script.code()]);
        ALL.iter().map(load).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_use_the_keys_that_they_are_given_and_no_others() {
        for script in ALL {
            let calls = script.code().split("redis.call(").skip(1);
            for call in calls.filter(|call| !call.starts_with("'TIME')")) {
                let (_, key) = call.split_once(", ").expect("a key");
                assert!(key.starts_with("KEYS["), "{script:?}: {call}");
            }
        }
    }
}
