//! The rounds of the comparison, and what is printed of them.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::announce::AnnounceServer;
use super::measured::{LOOK, Measured, Used};
use super::program::{Place, Program};
use super::{Outcome, Setting, torrent};

/// The name of the file.
const FILE: &str = "content";

/// Where files are in memory.
const IN_MEMORY: &str = "/dev/shm";

/// How long an owner may take until it is ready.
const PATIENCE: Duration = Duration::from_secs(300);

/// Compares all programs that are here, round by round.
pub(crate) fn compare(setting: &Setting) -> Outcome<()> {
    let mut programs = Vec::new();
    for program in &setting.programs {
        match program.version(setting.address) {
            Ok(version) => {
                println!("{}: {version}", program.name());
                programs.push((*program, Vec::new()));
            }
            Err(why) => println!("{}: left out: {why}", program.name()),
        }
    }
    let bench = Bench::new(setting)?;
    for round in 0..setting.rounds {
        println!("round {}", round + 1);
        for (program, rounds) in &mut programs {
            let used = bench.transfer(*program, *program)?;
            print(program.name(), &used);
            rounds.push(used);
        }
        // Each is the first one in turn.
        programs.rotate_left(1);
    }
    println!("medians of {} rounds", setting.rounds);
    let medians = programs.iter().map(|(program, rounds)| {
        let median = median(rounds);
        print(program.name(), &median);
        (*program, median)
    });
    let medians: Vec<_> = medians.collect();
    let (ours, others): (Vec<_>, Vec<_>) = medians
        .into_iter()
        .partition(|(program, _)| *program == Program::BtLite);
    let best = |figure: fn(&Used) -> f64| {
        let figures = others.iter().map(|(_, used)| figure(used));
        figures.min_by(f64::total_cmp)
    };
    if let ([(_, ours)], Some(cpu), Some(wall)) =
        (&ours[..], best(|used| used.cpu), best(|used| used.wall))
    {
        println!("wall_over_best {:.3}", ours.wall / wall);
        println!("cpu_over_best {:.3}", ours.cpu / cpu);
    }
    Ok(())
}

/// The file, its torrent and the tracker.
pub(crate) struct Bench<'a> {
    setting: &'a Setting,
    root: TempDir,
    tracker: AnnounceServer,
}

impl<'a> Bench<'a> {
    pub(crate) fn new(setting: &'a Setting) -> Outcome<Self> {
        let in_memory = Path::new(IN_MEMORY).is_dir();
        let root = match in_memory {
            true => tempfile::tempdir_in(IN_MEMORY)?,
            false => tempfile::tempdir()?,
        };
        println!(
            "{} bytes over TCP, files in {}",
            setting.size,
            match in_memory {
                true => "memory",
                false => "a temporary directory",
            }
        );
        let tracker = AnnounceServer::start(setting.address)?;
        let bench = Self {
            setting,
            root,
            tracker,
        };
        fs::create_dir(bench.root.path().join("source"))?;
        let (source, url) = (bench.source(), bench.tracker.url());
        torrent::write(&source, setting.size, &url, &bench.torrent())?;
        Ok(bench)
    }

    fn source(&self) -> PathBuf {
        self.root.path().join("source").join(FILE)
    }

    fn torrent(&self) -> PathBuf {
        self.root.path().join("content.torrent")
    }

    /// Moves the file from one program to one of the same kind, or to another one that
    /// speaks the same protocol.
    pub(crate) fn transfer(&self, program: Program, receiver: Program) -> Outcome<Used> {
        self.tracker.clear();
        let homes = ["seeder", "leecher"].map(|side| self.root.path().join(side));
        let (source, torrent) = (self.source(), self.torrent());
        let arrived = homes[1].join("out").join(FILE);
        for home in &homes {
            fs::create_dir_all(home.join("out"))?;
        }
        let place = |content, home| Place {
            address: self.setting.address,
            torrent: &torrent,
            content,
            home,
        };
        let (from, to) = (place(&source, &homes[0]), place(&arrived, &homes[1]));
        let seeder = Measured::start(&mut program.seed(&from)?, &homes[0].join("log"))?;
        let said = match program.announces() {
            true => self.tracker.until_owner().map(|()| String::new())?,
            false => read_when_there(&from.mark())?,
        };
        seeder.until_idle()?;
        let before = seeder.cpu()?;
        let mut command = receiver.fetch(&to, &said)?;
        let mut leecher = Measured::start(&mut command, &homes[1].join("log"))?;
        let mark = receiver.marks().then(|| to.mark());
        let mut used = leecher.until_done(mark.as_deref())?;
        used.owner_cpu = seeder.cpu()? - before;
        used.cpu += used.owner_cpu;
        if !torrent::same(&source, &arrived)? {
            return Err(format!("{}: another file has arrived", program.name()).into());
        }
        drop((seeder, leecher));
        for home in &homes {
            fs::remove_dir_all(home)?;
        }
        Ok(used)
    }
}

/// What a process has written, as soon as it has.
fn read_when_there(mark: &Path) -> Outcome<String> {
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE {
        if let Ok(said) = fs::read_to_string(mark) {
            return Ok(said);
        }
        std::thread::park_timeout(LOOK);
    }
    Err("an owner is not ready in time".into())
}

/// The median of each figure.
pub(crate) fn median(rounds: &[Used]) -> Used {
    let median = |figure: fn(&Used) -> f64| {
        let mut figures: Vec<f64> = rounds.iter().map(figure).collect();
        figures.sort_by(f64::total_cmp);
        figures[figures.len() / 2]
    };
    Used {
        wall: median(|used| used.wall),
        cpu: median(|used| used.cpu),
        owner_cpu: median(|used| used.owner_cpu),
        peak_mib: median(|used| used.peak_mib),
    }
}

fn print(name: &str, used: &Used) {
    println!(
        "{name:<12} wall {:7.3} s, CPU {:7.2} s, receiver's peak {:5.0} MiB",
        used.wall, used.cpu, used.peak_mib
    );
}
