//! The scripts of the store, and calls of them. Each runs as one step of the store, and
//! uses the keys of one hash slot.

use std::sync::LazyLock;

use redis::Cmd;

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
    ContentOwn = "content_own",
    ContentDisown = "content_disown",
    ContentRefresh = "content_refresh",
    Need = "need",
);

/// The hashes by which the store knows them, in the order of [`ALL`].
static HASHES: LazyLock<Vec<String>> = LazyLock::new(|| {
    let hashes = ALL.iter().map(|script| {
        let script = redis::Script::new(script.code());
        script.get_hash().to_owned()
    });
    hashes.collect()
});

/// One call of a script, or another command.
#[derive(Debug, Clone)]
pub(super) struct Call(Cmd);

impl Call {
    /// A call of a script with these keys.
    pub(super) fn new<K: AsRef<str>>(script: Script, keys: &[K]) -> Self {
        let mut cmd = redis::cmd("EVALSHA");
        cmd.arg(&HASHES[script as usize]).arg(keys.len());
        for key in keys {
            cmd.arg(key.as_ref());
        }
        Self(cmd)
    }

    /// Another command.
    pub(super) fn command(name: &str) -> Self {
        Self(redis::cmd(name))
    }

    pub(super) fn arg(mut self, arg: impl AsRef<[u8]>) -> Self {
        self.0.arg(arg.as_ref());
        self
    }

    pub(super) fn number(self, number: u64) -> Self {
        self.arg(number.to_string())
    }

    pub(super) fn cmd(&self) -> &Cmd {
        &self.0
    }

    /// Those that make the store know all scripts.
    pub(super) fn load_all() -> Vec<Self> {
        let load = |script: &Script| Self::command("SCRIPT").arg("LOAD").arg(script.code());
        ALL.iter().map(load).collect()
    }
}
