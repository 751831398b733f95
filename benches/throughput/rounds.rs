//! The rounds of a comparison, and what is printed of them.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::common::Outcome;
use super::common::process::Process;
use super::plain::Part;
use super::role::{Role, Task};
use super::usage::{Usage, median};
use super::{Carrier, Setting, cipher, ours};

/// The name of the file.
pub(crate) const FILE: &str = "content";

/// Where files are in memory.
const IN_MEMORY: &str = "/dev/shm";

/// How many bytes are written or compared at a time.
const PIECE: usize = 1 << 20;

/// What one side has used in a round: all processes, and the senders alone.
struct Side {
    all: Usage,
    senders: Usage,
}

/// What the baseline has used in a round, part by part.
struct Baseline {
    /// Nothing over memory.
    transfer: Option<Side>,
    /// The transfer with as many senders as there are owners, if there are several.
    spread: Option<Side>,
    hash: Usage,
    cipher: Option<Usage>,
}

impl Baseline {
    /// All parts, one after the other on one core each.
    fn total(&self) -> Usage {
        self.total_with(self.transfer())
    }

    /// The same with as many senders as there are owners.
    fn spread_total(&self) -> Option<Usage> {
        let spread = self.spread.as_ref();
        spread.map(|spread| self.total_with(Some(spread)))
    }

    fn total_with(&self, transfer: Option<&Side>) -> Usage {
        let mut total = self.hash;
        for part in self.cipher.iter().chain(transfer.map(|side| &side.all)) {
            let wall = total.wall + part.wall;
            total = part.with(&total);
            total.wall = wall;
        }
        total
    }

    fn transfer(&self) -> Option<&Side> {
        self.transfer.as_ref()
    }
}

/// A comparison, and where its files are.
struct Comparison<'a> {
    setting: &'a Setting,
    carrier: Carrier,
    root: TempDir,
}

/// Compares both, round by round.
pub(crate) fn compare(setting: &Setting, carrier: Carrier) -> Outcome<()> {
    let comparison = Comparison::new(setting, carrier)?;
    let (mut all_ours, mut baselines) = (Vec::new(), Vec::new());
    for round in 0..setting.rounds {
        // Each is the first one in every other round.
        let (ours, baseline) = match round % 2 {
            0 => {
                let baseline = comparison.baseline()?;
                (comparison.ours()?, baseline)
            }
            _ => {
                let ours = comparison.ours()?;
                (ours, comparison.baseline()?)
            }
        };
        println!("round {}", round + 1);
        print(&ours, &baseline);
        all_ours.push(ours);
        baselines.push(baseline);
    }
    comparison.print_medians(&all_ours, &baselines)
}

impl<'a> Comparison<'a> {
    fn new(setting: &'a Setting, carrier: Carrier) -> Outcome<Self> {
        let in_memory = Path::new(IN_MEMORY).is_dir();
        let root = match in_memory {
            true => tempfile::tempdir_in(IN_MEMORY)?,
            false => tempfile::tempdir()?,
        };
        println!(
            "{} bytes over {} from {} owners, runtimes of {} threads, pieces of {} bytes",
            setting.size,
            carrier.name(),
            setting.owners,
            setting.threads,
            setting.piece
        );
        match in_memory {
            true => println!("files are in memory, in {IN_MEMORY}"),
            false => println!("files are on the disk, in {}", root.path().display()),
        }
        println!("baseline: {}", described(carrier)?);
        write_random(&root.path().join(FILE), setting.size)?;
        ours::prepare(root.path())?;
        Ok(Self {
            setting,
            carrier,
            root,
        })
    }

    fn source(&self) -> PathBuf {
        self.root.path().join(FILE)
    }

    fn task(&self, role: Role, path: PathBuf, senders: &[String]) -> Task {
        Task {
            role,
            carrier: self.carrier,
            root: self.root.path().into(),
            path,
            piece: self.setting.piece,
            threads: self.setting.threads,
            owners: self.setting.owners,
            part: Part { number: 0, of: 1 },
            senders: senders.to_vec(),
        }
    }

    /// Runs a process that needs no other one.
    fn alone(&self, role: Role) -> Outcome<Usage> {
        let mut process = self.task(role, self.source(), &[]).start()?;
        let used = process.line()?.parse()?;
        process.stop()?;
        Ok(used)
    }

    /// Moves the content with this crate.
    fn ours(&self) -> Outcome<Side> {
        if self.carrier == Carrier::Memory {
            let (all, senders) = (self.alone(Role::Memory)?, Usage::default());
            return Ok(Side { all, senders });
        }
        let to = self.root.path().join("fetched");
        fs::create_dir(&to)?;
        let owners = self.setting.owners;
        let side = self.transfer((Role::Share, owners), (Role::Fetch, to.clone()))?;
        self.check(&to.join(FILE))?;
        fs::remove_dir_all(to)?;
        Ok(side)
    }

    fn baseline(&self) -> Outcome<Baseline> {
        let to = self.root.path().join("received");
        let roles = match self.carrier {
            Carrier::Memory => None,
            Carrier::Tcp | Carrier::Tls => Some((Role::PlainSend, Role::PlainReceive)),
            Carrier::Quic => Some((Role::QuinnSend, Role::QuinnReceive)),
        };
        let moved = |(send, receive), senders| -> Outcome<Side> {
            let side = self.transfer((send, senders), (receive, to.clone()))?;
            self.check(&to)?;
            fs::remove_file(&to)?;
            Ok(side)
        };
        let transfer = roles.map(|roles| moved(roles, 1)).transpose()?;
        let owners = self.setting.owners;
        // Quinn has all of its streams over one connection.
        let several = roles.filter(|_| owners > 1 && self.carrier != Carrier::Quic);
        let spread = several.map(|roles| moved(roles, owners)).transpose()?;
        let hash = self.alone(Role::Hash)?;
        let cipher = match self.carrier {
            Carrier::Tls => Some(self.alone(Role::Cipher)?),
            Carrier::Tcp | Carrier::Memory | Carrier::Quic => None,
        };
        Ok(Baseline {
            transfer,
            spread,
            hash,
            cipher,
        })
    }

    /// Starts the senders and then the receiver, and waits for their end.
    fn transfer(
        &self,
        (send, senders): (Role, usize),
        (receive, to): (Role, PathBuf),
    ) -> Outcome<Side> {
        let mut sender = self.task(send, self.source(), &[]);
        let mut processes = Vec::new();
        for number in 0..senders {
            sender.part = Part {
                number: number as u64,
                of: senders as u64,
            };
            processes.push(sender.start()?);
        }
        let said: Outcome<Vec<_>> = processes.iter_mut().map(Process::line).collect();
        let mut receiver = self.task(receive, to, &said?).start()?;
        let received: Usage = receiver.line()?.parse()?;
        let mut sent = Usage::default();
        for process in &mut processes {
            let used: Usage = process.stop()?.parse()?;
            let peak = used.peak_mib.max(sent.peak_mib);
            sent = used.with(&sent);
            sent.peak_mib = peak;
        }
        receiver.stop()?;
        Ok(Side {
            all: received.with(&sent),
            senders: sent,
        })
    }

    /// Whether the file has arrived.
    fn check(&self, arrived: &Path) -> Outcome<()> {
        let (mut one, mut other) = (File::open(self.source())?, File::open(arrived)?);
        let same_len = one.metadata()?.len() == other.metadata()?.len();
        let (mut here, mut there) = (vec![0; PIECE], vec![0; PIECE]);
        let mut left = self.setting.size;
        while left > 0 && same_len {
            let len = left.min(PIECE);
            one.read_exact(&mut here[..len])?;
            other.read_exact(&mut there[..len])?;
            if here[..len] != there[..len] {
                break;
            }
            left -= len;
        }
        match left {
            0 => Ok(()),
            _ => Err("what has arrived is not what was sent".into()),
        }
    }

    fn print_medians(&self, ours: &[Side], baselines: &[Baseline]) -> Outcome<()> {
        let totals: Vec<_> = baselines.iter().map(Baseline::total).collect();
        let all: Vec<_> = ours.iter().map(|side| side.all).collect();
        let senders: Vec<_> = ours.iter().map(|side| side.senders).collect();
        println!("medians of {} rounds", ours.len());
        print_usage("bt_lite", &Usage::median(&all));
        if self.carrier != Carrier::Memory {
            print_usage("  senders", &Usage::median(&senders));
        }
        print_usage("baseline", &Usage::median(&totals));
        let cores = std::thread::available_parallelism()?.get() as f64;
        let pairs = || all.iter().zip(&totals);
        let walls = pairs().map(|(ours, plain)| ours.wall / (plain.cpu / cores));
        println!(
            "wall over (CPU of the baseline / {cores} cores) {:.3}",
            median(walls)
        );
        let mut to_all: Vec<f64> = pairs().map(|(ours, plain)| ours.cpu / plain.cpu).collect();
        to_all.sort_by(f64::total_cmp);
        println!("CPU ratios to all of the baseline: {to_all:.3?}");
        let spread: Option<Vec<_>> = baselines.iter().map(Baseline::spread_total).collect();
        if let Some(spread) = spread {
            let used = |side: &Usage, plain: &Usage| side.cpu / plain.cpu;
            let to_spread = all
                .iter()
                .zip(&spread)
                .map(|(ours, plain)| used(ours, plain));
            let of_spread = spread
                .iter()
                .zip(&totals)
                .map(|(one, other)| used(one, other));
            println!(
                "plain senders, as many as owners, over one: {:.3}",
                median(of_spread)
            );
            println!("ratio to as many plain senders {:.3}", median(to_spread));
        }
        if self.carrier != Carrier::Quic {
            println!("ratio {:.3}", median(to_all.into_iter()));
            return Ok(());
        }
        println!(
            "ratio to quinn and BLAKE3 {:.3}",
            median(to_all.into_iter())
        );
        let bare = baselines.iter().filter_map(Baseline::transfer);
        let to_bare = all
            .iter()
            .zip(bare)
            .map(|(ours, bare)| ours.cpu / bare.all.cpu);
        println!("ratio {:.3}", median(to_bare));
        Ok(())
    }
}

/// What is in a baseline.
fn described(carrier: Carrier) -> Outcome<String> {
    let suite = cipher::suite()?;
    Ok(match carrier {
        Carrier::Tcp => "file to TCP to file, and BLAKE3 on one thread".into(),
        Carrier::Memory => "BLAKE3 on one thread".into(),
        Carrier::Tls => {
            format!("file to TCP to file, BLAKE3 on one thread, and {suite:?} sealed and opened")
        }
        Carrier::Quic => format!(
            "file to quinn to file ({suite:?}, one stream, windows of 10 MiB), and BLAKE3 on one thread"
        ),
    })
}

/// Bytes that no compression and no deduplication makes shorter.
fn write_random(path: &Path, size: usize) -> Outcome<()> {
    let mut file = File::create(path)?;
    let mut random = fastrand::Rng::with_seed(1);
    let mut bytes = vec![0; PIECE];
    let mut left = size;
    while left > 0 {
        let len = left.min(PIECE);
        random.fill(&mut bytes[..len]);
        file.write_all(&bytes[..len])?;
        left -= len;
    }
    Ok(())
}

fn print(ours: &Side, baseline: &Baseline) {
    print_usage("bt_lite", &ours.all);
    if ours.senders.cpu > 0.0 {
        print_usage("  senders", &ours.senders);
    }
    if let Some(transfer) = &baseline.transfer {
        print_usage("baseline", &transfer.all);
        print_usage("  sender", &transfer.senders);
    }
    print_usage("BLAKE3", &baseline.hash);
    if let Some(cipher) = &baseline.cipher {
        print_usage("cipher", cipher);
    }
}

fn print_usage(what: &str, used: &Usage) {
    println!(
        "{what:<10} wall {:6.3} s, CPU {:6.3} s (user {:.2}, system {:.2}), peak {:4.0} MiB, \
         switches {:.0} + {:.0}, faults {:.0}",
        used.wall,
        used.cpu,
        used.user,
        used.system,
        used.peak_mib,
        used.waits,
        used.preempted,
        used.faults
    );
}
