//! This crate in one role of a transfer with libtorrent, beside libtorrent in that role.

use super::measured::Used;
use super::program::Program;
use super::rounds::{Bench, median};
use super::{Outcome, Setting};

/// Who has the file, and who fetches it.
const PAIRS: [(Program, Program); 3] = [
    (Program::Libtorrent, Program::Libtorrent),
    (Program::Libtorrent, Program::Torrents),
    (Program::Torrents, Program::Libtorrent),
];

/// Compares the CPU of each role, round by round.
pub(crate) fn compare(setting: &Setting) -> Outcome<()> {
    for program in [Program::Libtorrent, Program::Torrents] {
        let version = program.version(setting.address)?;
        println!("{}: {version}", program.name());
    }
    let bench = Bench::new(setting)?;
    let mut rounds = PAIRS.map(|pair| (pair, Vec::new()));
    for round in 0..setting.rounds {
        println!("round {}", round + 1);
        for ((from, to), used) in &mut rounds {
            let now = bench.transfer(*from, *to)?;
            print((*from, *to), &now);
            used.push(now);
        }
        // Each is the first one in turn.
        rounds.rotate_left(1);
    }
    println!("medians of {} rounds", setting.rounds);
    let of = |pair: (Program, Program)| {
        let found = rounds.iter().find(|(other, _)| *other == pair);
        found.map(|(_, used)| median(used)).unwrap_or_default()
    };
    let [theirs, fetches, seeds] = PAIRS.map(of);
    for (pair, used) in PAIRS.iter().zip([theirs, fetches, seeds]) {
        print(*pair, &used);
    }
    let fetching = fetches.receiver_cpu() / theirs.receiver_cpu();
    let seeding = seeds.owner_cpu / theirs.owner_cpu;
    println!("fetching_cpu_over_libtorrent {fetching:.3}");
    println!("seeding_cpu_over_libtorrent {seeding:.3}");
    Ok(())
}

fn print((from, to): (Program, Program), used: &Used) {
    println!(
        "{:>10} to {:<10} wall {:7.3} s, CPU of the owner {:5.2} s, of the receiver {:5.2} s",
        from.name(),
        to.name(),
        used.wall,
        used.owner_cpu,
        used.receiver_cpu(),
    );
}
