//! Peers of two zones in processes of their own: what crosses from one zone to the other, as each
//! side tells it.

use std::fs;
use std::path::Path;

use tempfile::TempDir;

use super::{Program, text};

/// Much more than a link is asked for before it is known who is near.
const LENGTH: usize = 48 << 20;

struct Sites {
    dir: TempDir,
    _tracker: Program,
    tracker_addr: String,
}

impl Sites {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut bytes = vec![0; LENGTH];
        fastrand::Rng::with_seed(7).fill(&mut bytes);
        fs::write(dir.path().join("file.bin"), bytes).unwrap();
        let tracker = Program::start("tracker", &["--listen", "127.0.0.1:0"]);
        let tracker_addr = tracker.said("listening ");
        Self {
            dir,
            _tracker: tracker,
            tracker_addr,
        }
    }

    fn file(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    fn run(&self, program: &'static str, zone: &str, of: &[&str]) -> Program {
        let mut args = vec!["--tracker", &self.tracker_addr, "--zone", zone];
        args.extend(of);
        Program::start(program, &args)
    }

    fn owner(&self, zone: &str) -> Program {
        let file = self.file("file.bin");
        let owner = self.run("share", zone, &["--listen", "127.0.0.1:0", text(&file)]);
        owner.said("sharing ");
        owner
    }

    /// How many bytes a peer of a zone takes from others to get the file.
    fn fetched_from_others(&self, zone: &str, out: &Path) -> usize {
        let mut fetch = self.run("fetch", zone, &["--out", text(out), "file.bin"]);
        let bytes = count(&fetch.said("from other zones "));
        let (status, last, stderr) = fetch.ended();
        assert!(
            status.success() && last.starts_with("verified "),
            "{stderr}"
        );
        let same =
            fs::read(out.join("file.bin")).unwrap() == fs::read(self.file("file.bin")).unwrap();
        assert!(same, "the file is another one");
        bytes
    }
}

/// How many bytes an owner has sent to other zones in all, as it says in the end.
fn sent_to_others(owner: &mut Program) -> usize {
    owner.terminate();
    let (status, last, stderr) = owner.ended();
    assert!(status.success(), "{stderr}");
    count(last.strip_prefix("to other zones ").unwrap())
}

fn count(bytes: &str) -> usize {
    bytes.strip_suffix(" bytes").unwrap().parse().unwrap()
}

#[test]
fn near_owner_is_preferred_and_both_sides_count_what_crosses() {
    let sites = Sites::new();
    let mut there = sites.owner("there");
    let alone = sites.fetched_from_others("here", &sites.file("first"));
    assert_eq!(alone, LENGTH, "nobody is near");
    let mut here = sites.owner("here");
    let beside = sites.fetched_from_others("here", &sites.file("second"));
    assert!(beside < LENGTH / 2, "{beside} of {LENGTH}");
    assert_eq!(sent_to_others(&mut here), 0);
    assert_eq!(sent_to_others(&mut there), alone + beside);
}
