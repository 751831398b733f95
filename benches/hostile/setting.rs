//! What is measured.

use super::Outcome;

pub(crate) struct Setting {
    /// The parts that run.
    pub(crate) parts: Vec<String>,
    pub(crate) messages: u32,
    pub(crate) connections: u32,
    pub(crate) mib: usize,
    pub(crate) idle: usize,
    /// Idle connections a second.
    pub(crate) rate: u32,
    pub(crate) rounds: usize,
    /// Whether this is the process that is attacked.
    pub(crate) is_attacked: bool,
}

impl Setting {
    pub(crate) fn from_args() -> Outcome<Self> {
        let mut setting = Self {
            parts: Vec::new(),
            messages: 300_000,
            connections: 2000,
            mib: 256,
            idle: 16_000,
            rate: 2000,
            rounds: 5,
            is_attacked: false,
        };
        let mut args = std::env::args().skip(1);
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or(format!("{arg} needs a value"));
            match arg.as_str() {
                "floods" | "idle" | "liars" => setting.parts.push(arg),
                "--messages" => setting.messages = value()?.parse()?,
                "--connections" => setting.connections = value()?.parse()?,
                "--mib" => setting.mib = value()?.parse()?,
                "--idle" => setting.idle = value()?.parse()?,
                "--rate" => setting.rate = value()?.parse()?,
                "--rounds" => setting.rounds = value()?.parse()?,
                "--attacked" => setting.is_attacked = true,
                // Cargo passes these to every benchmark.
                "--bench" => {}
                "--test" => {
                    (setting.messages, setting.connections) = (1000, 50);
                    (setting.mib, setting.idle, setting.rounds) = (4, 200, 1);
                }
                other => return Err(format!("unknown argument {other}").into()),
            }
        }
        if setting.rounds == 0 || setting.mib == 0 || setting.messages == 0 {
            return Err("nothing to measure".into());
        }
        Ok(setting)
    }

    pub(crate) fn has(&self, part: &str) -> bool {
        self.parts.is_empty() || self.parts.iter().any(|one| one == part)
    }
}
