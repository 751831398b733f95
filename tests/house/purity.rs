//! The pure part (`content`, `protocol`, the tracker's registry and its request handler,
//! the swarm machine) sees no I/O, thread, clock, or ambient randomness. What it may name
//! is a list, and whatever is not on it is refused. Imports are followed, so
//! `io::stdin` is judged as `std::io::stdin`. Comments, strings and
//! `#[cfg(test)]` items do not count.

use std::collections::{BTreeMap, BTreeSet};

use crate::lexer::{Token, follows, tokens, without_tests};
use crate::paths::{Import, absolute, imports, last_of, module_of, path_at, text};
use crate::{Finding, expect_none, sources};

/// Where the pure part lives.
const PLACES: [&str; 18] = [
    "src/bittorrent/bencode.rs",
    "src/bittorrent/compact.rs",
    "src/bittorrent/info_hash.rs",
    "src/bittorrent/link",
    "src/bittorrent/local_discovery.rs",
    "src/bittorrent/magnet.rs",
    "src/bittorrent/metainfo",
    "src/bittorrent/percent.rs",
    "src/bittorrent/tracker",
    "src/bittorrent/wire",
    "src/content",
    "src/protocol",
    "src/tracker/announcing.rs",
    "src/tracker/request_handler.rs",
    "src/tracker/registry",
    "src/peer/swarm",
    "src/peer/limits/bucket.rs",
    "src/peer/limits/turns.rs",
];

/// What the pure part may name: these, and what is in them.
const ALLOWED: &[&str] = &[
    "crate::bittorrent",
    "crate::content",
    "crate::protocol",
    "crate::tracker::registry",
    "crate::peer::swarm",
    "crate::peer::limits",
    "bendy", // behind a feature
    "blake3",
    "bytes",
    "serde", // in attributes, behind a feature
    "fastrand::Rng",
    "httparse", // behind a feature
    "percent_encoding",
    "sha1", // behind a feature, as the next one
    "sha2",
    "thiserror",
    "clippy", // in attributes, as the next one
    "rustfmt",
    "core::net::IpAddr",
    "core::net::Ipv4Addr",
    "core::net::Ipv6Addr",
    "core::net::SocketAddr",
    "core::net::SocketAddrV4",
    "std::array",
    "std::borrow",
    "std::cmp",
    "std::collections",
    "std::convert",
    "std::error",
    "std::f64",
    "std::fmt",
    "std::hash",
    "std::hint",
    "std::io::Error",
    "std::io::ErrorKind",
    "std::io::Read",
    "std::io::Result",
    "std::iter",
    "std::marker",
    "std::mem",
    "std::num",
    "std::ops",
    "std::option",
    "std::result",
    "std::slice",
    "std::str",
    "std::string",
    "std::sync::Arc",
    "std::time::Duration",
    "std::time::Instant",
    "std::vec",
];

/// What one module may name beside that: the request handler locks the shards, in which
/// everything is pure. Announces are a part of it.
const EXCEPTIONS: &[(&str, &str)] = &[
    (
        "crate::tracker::announcing",
        "crate::tracker::request_handler",
    ),
    (
        "crate::tracker::request_handler",
        "crate::tracker::request_handler",
    ),
    ("crate::tracker::request_handler", "crate::tracker::shards"),
];

/// Modules that may be imported for a part of them: each use through them is
/// judged by itself.
const DOORS: &[&str] = &["core::net", "fastrand", "std::io", "std::sync", "std::time"];

/// Functions of allowed types that ask the world. Their last two segments are
/// refused whatever stands before them.
const AMBIENT: &[&str] = &[
    "fastrand::Rng::default",
    "fastrand::Rng::new",
    "std::time::Instant::elapsed",
    "std::time::Instant::now",
];

/// The same, called as methods. (What is told the time, as in `elapsed(now)`,
/// does not ask for it.)
const METHODS: &[&[&str]] = &[
    &[".", "elapsed", "(", ")"],
    &[".", "update_mmap", "("],
    &[".", "update_mmap_rayon", "("],
    &[".", "update_rayon", "("],
];

/// Words that have no place, wherever they stand.
const WORDS: &[&str] = &[
    "RandomState",
    "SystemTime",
    "async",
    "await",
    "extern",
    "getrandom",
    "static",
    "tokio",
    "unsafe",
];

const MACROS: &[&str] = &[
    "assert",
    "assert_eq",
    "assert_ne",
    "concat",
    "debug_assert",
    "debug_assert_eq",
    "debug_assert_ne",
    "format",
    "macro_rules",
    "matches",
    "panic",
    "setters", // of configurations, from src/setters.rs
    "stringify",
    "unreachable",
    "vec",
    "write",
    "writeln",
];

/// Names before a `!` that negates.
const KEYWORDS: &[&str] = &["else", "if", "in", "match", "return", "while"];

const PRIMITIVES: &[&str] = &[
    "bool", "char", "f32", "f64", "i8", "i16", "i32", "i64", "i128", "isize", "str", "u8", "u16",
    "u32", "u64", "u128", "usize",
];

/// One file under judgement.
struct File<'a> {
    /// Its module, as a path of the crate.
    module: String,
    tokens: Vec<Token<'a>>,
    /// What its imports call what.
    imports: BTreeMap<String, String>,
    /// Modules and macros that it declares.
    declared: BTreeSet<&'a str>,
    findings: Vec<Finding>,
}

/// What is wrong with a file of the pure part, which is this module.
fn check(module: &str, source: &str) -> Vec<Finding> {
    let (tokens, _) = without_tests(&tokens(source));
    let mut file = File {
        module: module.into(),
        declared: tokens
            .windows(3)
            .filter_map(|w| match [w[0].text, w[1].text] {
                ["mod", name] => Some(name),
                ["macro_rules", "!"] => Some(w[2].text),
                _ => None,
            })
            .collect(),
        tokens,
        imports: BTreeMap::new(),
        findings: Vec::new(),
    };
    let bodies = file.take_imports();
    for at in bodies {
        file.check_word(at);
        file.check_macro(at);
        file.check_hasher(at);
        file.check_path(at);
    }
    file.findings
}

impl<'a> File<'a> {
    fn refuse(&mut self, at: usize, what: impl Into<String>) {
        self.findings.push((self.tokens[at].line, what.into()));
    }

    fn text(&self, at: usize) -> &'a str {
        text(&self.tokens, at)
    }

    /// Reads and judges all imports; returns the places of all other tokens.
    fn take_imports(&mut self) -> Vec<usize> {
        let (imports, others) = imports(&self.tokens);
        let known = imports.iter().map(|i| (i.name.clone(), i.path.clone()));
        self.imports = known.collect();
        for Import { path, name, at, .. } in imports {
            let path = self.resolve(&path);
            let last = last_of(&path);
            if matches!(last, "HashMap" | "HashSet") && name != last {
                self.refuse(at, format!("{last} under another name"));
            }
            if last == "*" && !path.starts_with("crate::") {
                self.refuse(at, format!("{path} imports what is not named"));
            } else if !DOORS.contains(&path.as_str()) {
                self.judge(at, &path);
            }
        }
        others
    }

    /// A path from its root: `self`, `super` and imported names are replaced by
    /// what they stand for.
    fn resolve(&self, path: &str) -> String {
        let (mut path, mut steps) = (path.to_owned(), 0);
        loop {
            let (first, rest) = path.split_once("::").unwrap_or((&path, ""));
            let root = match first {
                "self" => return self.resolve(&absolute(&self.module, &path)),
                "super" => return absolute(&self.module, &path),
                _ if self.declared.contains(first) => format!("{}::{first}", self.module),
                _ => match self.imports.get(first) {
                    // An import names itself in the path that it is of.
                    Some(import) if steps < 8 && import.split("::").next() != Some(first) => {
                        import.clone()
                    }
                    _ => return path,
                },
            };
            path = if rest.is_empty() {
                root
            } else {
                format!("{root}::{rest}")
            };
            steps += 1;
        }
    }

    fn judge(&mut self, at: usize, path: &str) {
        let within = |path: &str, of: &[&str]| {
            of.iter().any(|allowed| {
                path.strip_prefix(allowed)
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
            })
        };
        let as_std = path
            .strip_prefix("core::")
            .map(|rest| format!("std::{rest}"));
        let named = as_std.as_deref().unwrap_or(path);
        let ambient = AMBIENT.iter().any(|ambient| {
            let mut parts = ambient.rsplitn(3, "::");
            let (function, of) = (parts.next().unwrap(), parts.next().unwrap());
            path == format!("{of}::{function}") || path.ends_with(&format!("::{of}::{function}"))
        });
        let last = last_of(path);
        if ambient || last == "now" || WORDS.contains(&last) {
            self.refuse(at, format!("{path} asks the world"));
        } else if !within(path, ALLOWED) && !within(named, ALLOWED) && !self.is_exception(path) {
            self.refuse(at, format!("{path} is not on the list of the pure part"));
        }
    }

    fn is_exception(&self, path: &str) -> bool {
        let mut exceptions = EXCEPTIONS.iter();
        exceptions.any(|(module, of)| self.module == *module && path.starts_with(of))
    }

    fn check_word(&mut self, at: usize) {
        let text = self.text(at);
        if WORDS.contains(&text) {
            self.refuse(at, text);
        }
        for method in METHODS {
            if follows(&self.tokens, at, method) {
                self.refuse(at, method.concat());
            }
        }
        if follows(&self.tokens, at, &["#", "[", "path"]) {
            self.refuse(at, "a module from elsewhere");
        }
    }

    fn check_macro(&mut self, at: usize) {
        let name = self.text(at);
        let called = self.tokens[at].is_name()
            && self.text(at + 1) == "!"
            && (matches!(self.text(at + 2), "(" | "[" | "{") || name == "macro_rules");
        if called
            && !KEYWORDS.contains(&name)
            && !MACROS.contains(&name)
            && !self.declared.contains(name)
        {
            self.refuse(at, format!("{name}! is not on the list of the pure part"));
        }
    }

    /// Hash maps must name their hasher: the usual one draws its keys at
    /// random, and with them the order of iteration.
    fn check_hasher(&mut self, at: usize) {
        let parameters = match self.text(at) {
            "HashMap" => 3,
            "HashSet" => 2,
            _ => return,
        };
        let turbofish = usize::from(follows(&self.tokens, at + 1, &["::", "<"]));
        let open = at + 1 + turbofish;
        let random = match self.text(open) {
            "<" => self.type_arguments(open) < parameters,
            "::" => matches!(self.text(open + 1), "new" | "with_capacity" | "from"),
            _ => false,
        };
        if random {
            self.refuse(at, format!("{} without its hasher", self.text(at)));
        }
    }

    /// How many arguments the list has that opens here.
    fn type_arguments(&self, open: usize) -> usize {
        let (mut depth, mut nested, mut arguments, mut empty) = (0, 0, 1, true);
        for at in open..self.tokens.len() {
            match self.text(at) {
                "<" => depth += 1,
                ">" if self.text(at - 1) == "-" => {}
                ">" if depth == 1 => return arguments - usize::from(empty),
                ">" => depth -= 1,
                "(" | "[" => nested += 1,
                ")" | "]" => nested -= 1,
                "," if depth == 1 && nested == 0 => (arguments, empty) = (arguments + 1, true),
                _ => empty = false,
            }
        }
        arguments
    }

    fn check_path(&mut self, at: usize) {
        let Some(path) = path_at(&self.tokens, at) else {
            return;
        };
        let first = self.text(at);
        if path == first || PRIMITIVES.contains(&first) && !self.imports.contains_key(first) {
            return;
        }
        let path = self.resolve(&path);
        // What begins with a capital, and was not imported, is a type of this
        // module or of the prelude, which has nothing to hide.
        if path.starts_with(char::is_uppercase) {
            let last_two = path.rsplitn(3, "::").take(2).collect::<Vec<_>>();
            if let [function, of] = last_two[..] {
                let own = format!("{}::{of}::{function}", self.module);
                self.judge(at, &own);
            }
        } else {
            self.judge(at, &path);
        }
    }
}

#[test]
fn pure_part_sees_no_io() {
    let files = sources(&PLACES);
    assert!(files.len() >= 10, "the pure part is not where it should be");
    let of_tests: BTreeSet<String> = files
        .iter()
        .flat_map(|(path, text)| {
            let module = module_of(path);
            let all = tokens(text);
            let names = without_tests(&all).1;
            names
                .into_iter()
                .map(move |name| format!("{module}::{name}"))
                .collect::<Vec<_>>()
        })
        .collect();
    let is_test = |module: &str| {
        of_tests
            .iter()
            .any(|test| module == test || module.starts_with(&format!("{test}::")))
    };
    let findings = files
        .iter()
        .filter(|(path, _)| !is_test(&module_of(path)))
        .flat_map(|(path, text)| {
            let found = check(&module_of(path), text);
            found.into_iter().map(|finding| (path.clone(), finding))
        });
    expect_none(findings.collect());
}

#[test]
fn everything_impure_is_caught_where_it_is_planted() {
    let (comment, planted) = include_str!("planted.txt").split_once('\n').unwrap();
    assert!(comment.starts_with("//") && planted.lines().count() > 50);
    for line in planted.lines() {
        let findings = check("crate::peer::swarm::planner", line);
        assert!(!findings.is_empty(), "not caught: {line}");
    }
}

#[test]
fn shards_are_locked_by_the_request_handler_alone() {
    let source = "use crate::tracker::shards::Shards;";
    assert_eq!(check("crate::tracker::request_handler", source), []);
    assert!(!check("crate::tracker::registry::catalog", source).is_empty());
}

#[test]
fn pure_code_is_let_through() {
    let findings = check("crate::peer::swarm::planner", include_str!("pure.txt"));
    assert_eq!(findings, []);
}
