//! What one process does.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bt_lite::Peer;
use tokio::runtime::Runtime;

use super::common::Outcome;
use super::common::process::{Process, say, until_end};
use super::plain::{self, Part};
use super::usage::{Meter, Usage};
use super::{Carrier, bare_quinn, cipher, memory, ours};

/// How long a runtime keeps a thread that has nothing to do: longer than any round, so that
/// what it has done is counted.
const KEPT: Duration = Duration::from_secs(3600);

/// The role of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Share,
    Fetch,
    Memory,
    PlainSend,
    PlainReceive,
    QuinnSend,
    QuinnReceive,
    Hash,
    Cipher,
}

impl Role {
    const ALL: [(Self, &'static str); 9] = [
        (Self::Share, "share"),
        (Self::Fetch, "fetch"),
        (Self::Memory, "memory"),
        (Self::PlainSend, "plain-send"),
        (Self::PlainReceive, "plain-receive"),
        (Self::QuinnSend, "quinn-send"),
        (Self::QuinnReceive, "quinn-receive"),
        (Self::Hash, "hash"),
        (Self::Cipher, "cipher"),
    ];
}

/// What a process is told.
#[derive(Debug, Clone)]
pub(crate) struct Task {
    pub(crate) role: Role,
    pub(crate) carrier: Carrier,
    /// Where all files are.
    pub(crate) root: PathBuf,
    /// The file or the directory that it reads or writes.
    pub(crate) path: PathBuf,
    pub(crate) piece: usize,
    pub(crate) threads: usize,
    pub(crate) owners: usize,
    /// Which part of the file a plain sender sends.
    pub(crate) part: Part,
    /// What the senders have said.
    pub(crate) senders: Vec<String>,
}

impl Task {
    pub(crate) fn start(&self) -> Outcome<Process> {
        let mut roles = Role::ALL.iter();
        let name = roles.find(|(role, _)| *role == self.role);
        let text = |path: &Path| path.to_str().map(str::to_owned);
        let mut args = vec![
            name.map_or("", |(_, name)| name).to_owned(),
            self.carrier.name().to_owned(),
            text(&self.root).ok_or("a path that is no text")?,
            text(&self.path).ok_or("a path that is no text")?,
            self.piece.to_string(),
            self.threads.to_string(),
            self.owners.to_string(),
            self.part.number.to_string(),
            self.part.of.to_string(),
        ];
        args.extend(self.senders.iter().cloned());
        Process::start(args)
    }

    fn from_args(args: impl Iterator<Item = String>) -> Outcome<Self> {
        let args: Vec<String> = args.collect();
        let [
            role,
            carrier,
            root,
            path,
            piece,
            threads,
            owners,
            part,
            of,
            senders @ ..,
        ] = &args[..]
        else {
            return Err("a role has nine arguments and more".into());
        };
        let mut roles = Role::ALL.iter();
        let role = roles.find(|(_, name)| name == role);
        Ok(Self {
            role: role.ok_or("unknown role")?.0,
            carrier: Carrier::named(carrier)?,
            root: root.into(),
            path: path.into(),
            piece: piece.parse()?,
            threads: threads.parse()?,
            owners: owners.parse()?,
            part: Part {
                number: part.parse()?,
                of: of.parse()?,
            },
            senders: senders.to_vec(),
        })
    }

    fn runtime(&self) -> Outcome<Runtime> {
        Ok(tokio::runtime::Builder::new_multi_thread()
            .worker_threads(self.threads)
            .thread_keep_alive(KEPT)
            .enable_all()
            .build()?)
    }

    /// Where a sender of bare quinn has its certificate.
    fn certificate(&self) -> PathBuf {
        self.root.join("certificate")
    }
}

/// Runs this process.
pub(crate) fn run(args: impl Iterator<Item = String>) -> Outcome<()> {
    let task = Task::from_args(args)?;
    match task.role {
        Role::Share => share(&task),
        Role::Fetch => fetch(&task),
        Role::PlainSend | Role::QuinnSend => send(&task),
        Role::PlainReceive | Role::QuinnReceive => receive(&task),
        Role::Memory => {
            let transfer = memory::transfer(&task.path, task.owners);
            report(task.runtime()?.block_on(transfer)?)
        }
        Role::Hash => report(cipher::hash(&task.path)?),
        Role::Cipher => report(cipher::seal_and_open(&task.path)?),
    }
}

fn report(used: Usage) -> Outcome<()> {
    say(used);
    until_end();
    say("done");
    Ok(())
}

fn share(task: &Task) -> Outcome<()> {
    task.runtime()?.block_on(async {
        let (peer, addr, id) = ours::share(task.carrier, &task.root, &task.path).await?;
        let meter = Meter::start();
        say(format!("{addr} {id}"));
        tokio::task::spawn_blocking(until_end).await?;
        say(meter.read());
        peer.shutdown().await;
        Ok(())
    })
}

fn fetch(task: &Task) -> Outcome<()> {
    let runtime = task.runtime()?;
    let meter = Meter::start();
    let senders = task.senders.iter();
    let said: Option<Vec<_>> = senders.map(|sender| sender.split_once(' ')).collect();
    let said = said.ok_or("a sender has said something else")?;
    let owners: Vec<&str> = said.iter().map(|(addr, _)| *addr).collect();
    let id = said.first().ok_or("no sender")?.1.parse()?;
    runtime.block_on(async {
        let peer: Peer = ours::fetch(task.carrier, &task.root, &task.path, id, &owners).await?;
        say(meter.read());
        tokio::task::spawn_blocking(until_end).await?;
        peer.shutdown().await;
        say("done");
        Ok(())
    })
}

fn send(task: &Task) -> Outcome<()> {
    let mut meter = None;
    let ready = |addr| {
        meter = Some(Meter::start());
        say(addr);
    };
    match task.role {
        Role::QuinnSend => {
            let certificate = task.certificate();
            let send = bare_quinn::send(&task.path, task.piece, &certificate, ready);
            task.runtime()?.block_on(send)?;
        }
        _ => plain::send(&task.path, task.part, task.piece, ready)?,
    }
    let used = meter.ok_or("it did not listen")?.read();
    until_end();
    say(used);
    Ok(())
}

fn receive(task: &Task) -> Outcome<()> {
    let meter = Meter::start();
    match task.role {
        Role::QuinnReceive => {
            let addr = task.senders.first().ok_or("no sender")?;
            let certificate = task.certificate();
            let receive = bare_quinn::receive(&task.path, task.piece, &certificate, addr);
            task.runtime()?.block_on(receive)?;
        }
        _ => plain::receive(&task.path, task.piece, &task.senders)?,
    }
    report(meter.read())
}
