//! No two files of the crate need each other, directly or through others: each file can
//! be read with those below it alone. A name that is handed on by `pub use` counts as a
//! name of the file that defines it, so a `mod.rs` that only declares and hands on is in
//! nobody's way.

use std::collections::{BTreeMap, BTreeSet};

use crate::lexer::{Token, tokens, without_tests};
use crate::paths::{absolute, imports, module_of, path_at};
use crate::sources;

/// How often a name may be handed on.
const MAX_STEPS: usize = 16;

/// The modules of a crate, one per file.
#[derive(Default)]
struct Tree<'a> {
    files: BTreeMap<String, File<'a>>,
}

struct File<'a> {
    tokens: Vec<Token<'a>>,
    /// The tokens that are not of an import.
    code: Vec<usize>,
    /// What its imports call what, in absolute paths.
    imports: BTreeMap<String, String>,
    /// What it hands on and does not use itself.
    handed_on: BTreeSet<String>,
    globs: Vec<String>,
}

impl<'a> Tree<'a> {
    fn new(sources: impl IntoIterator<Item = (String, &'a str)>) -> Self {
        let sources: BTreeMap<String, &str> = sources.into_iter().collect();
        let mut tree = Self::default();
        for (module, source) in &sources {
            let (tokens, _) = without_tests(&tokens(source));
            let (mut named, mut globs) = (BTreeMap::new(), Vec::new());
            let mut handed_on = BTreeSet::new();
            let (imports, code) = imports(&tokens);
            let words: BTreeSet<&str> = code.iter().map(|&at| tokens[at].text).collect();
            for import in imports {
                let first = import.path.split("::").next().unwrap_or_default();
                let of_child = sources.contains_key(&format!("{module}::{first}"));
                let path = if of_child {
                    format!("{module}::{}", import.path)
                } else {
                    absolute(module, &import.path)
                };
                if import.public && !words.contains(&*import.name) {
                    handed_on.insert(import.name.clone());
                }
                match path.strip_suffix("::*") {
                    Some(of) => globs.push(of.to_owned()),
                    None => _ = named.insert(import.name, path),
                }
            }
            let file = File {
                tokens,
                code,
                imports: named,
                handed_on,
                globs,
            };
            tree.files.insert(module.clone(), file);
        }
        tree
    }

    /// The file that defines what an absolute path names; `None` if that is not of the
    /// crate.
    fn definer(&self, path: &str, steps: usize) -> Option<String> {
        let mut segments = path.split("::");
        let mut module = segments
            .next()
            .filter(|first| *first == "crate")?
            .to_owned();
        while let Some(name) = segments.next() {
            let child = format!("{module}::{name}");
            if self.files.contains_key(&child) {
                module = child;
                continue;
            }
            let file = self.files.get(&module).filter(|_| steps < MAX_STEPS)?;
            let rest: Vec<&str> = segments.collect();
            let onward = |path: &str| {
                let path = [&[path][..], &rest].concat().join("::");
                self.definer(&path, steps + 1)
            };
            if let Some(import) = file.imports.get(name) {
                return onward(import);
            }
            let through = file.globs.iter();
            let through = through.filter(|of| self.offers(of, name));
            let mut through = through.filter_map(|of| onward(&format!("{of}::{name}")));
            return through.next().or(Some(module));
        }
        Some(module)
    }

    /// Whether a module hands on or has a child of that name.
    fn offers(&self, module: &str, name: &str) -> bool {
        let file = self.files.get(module);
        file.is_some_and(|file| file.imports.contains_key(name))
            || self.files.contains_key(&format!("{module}::{name}"))
    }

    /// The files whose names a file uses.
    fn uses(&self, module: &str) -> BTreeSet<String> {
        let file = &self.files[module];
        let imports = file.imports.iter();
        let imports = imports.filter(|(name, _)| !file.handed_on.contains(*name));
        let imports = imports.map(|(_, path)| path.clone());
        let paths = file.code.iter().filter_map(|&at| path_at(&file.tokens, at));
        let paths = paths.filter_map(|path| self.written(module, &path));
        let used = imports.chain(paths);
        let mut used: BTreeSet<String> = used.filter_map(|path| self.definer(&path, 0)).collect();
        used.remove(module);
        used
    }

    /// The absolute path of what the code of a module names.
    fn written(&self, module: &str, path: &str) -> Option<String> {
        let (first, rest) = path.split_once("::")?;
        match first {
            "crate" | "self" | "super" => Some(absolute(module, path)),
            _ => {
                let child = format!("{module}::{first}");
                let import = self.files[module].imports.get(first);
                let root = import.or(Some(&child).filter(|c| self.files.contains_key(*c)))?;
                Some(format!("{root}::{rest}"))
            }
        }
    }

    /// The files that need each other, group by group.
    fn circles(&self) -> Vec<Vec<String>> {
        let uses: BTreeMap<&str, BTreeSet<String>> =
            self.files.keys().map(|m| (&**m, self.uses(m))).collect();
        let reachable: BTreeMap<&str, BTreeSet<&str>> = uses
            .keys()
            .map(|&from| {
                let (mut seen, mut open) = (BTreeSet::new(), vec![from]);
                while let Some(module) = open.pop() {
                    for used in &uses[module] {
                        if seen.insert(&**used) {
                            open.push(used);
                        }
                    }
                }
                (from, seen)
            })
            .collect();
        let mut circles = BTreeSet::new();
        for (&from, seen) in &reachable {
            let group = seen.iter().filter(|to| reachable[**to].contains(from));
            let group: Vec<String> = group.map(|module| (*module).to_owned()).collect();
            if !group.is_empty() {
                circles.insert(group);
            }
        }
        circles.into_iter().collect()
    }
}

#[test]
fn no_files_need_each_other() {
    let files = sources(&["src"]);
    assert!(files.len() >= 100, "the crate is not where it should be");
    let tree = Tree::new(files.iter().map(|(path, text)| (module_of(path), &**text)));
    let arrows: usize = tree
        .files
        .keys()
        .map(|module| tree.uses(module).len())
        .sum();
    assert!(arrows >= 300, "only {arrows} uses were found");
    let mut lines = Vec::new();
    for circle in tree.circles() {
        lines.push(format!("a circle of {} files:", circle.len()));
        for module in &circle {
            let used = tree.uses(module);
            let used: Vec<&str> = circle
                .iter()
                .map(|m| &**m)
                .filter(|m| used.contains(*m))
                .collect();
            lines.push(format!("  {module} uses {}", used.join(", ")));
        }
    }
    assert!(lines.is_empty(), "\n{}", lines.join("\n"));
}

fn circles(sources: &[(&str, &'static str)]) -> Vec<Vec<String>> {
    Tree::new(
        sources
            .iter()
            .map(|&(module, text)| (module.to_owned(), text)),
    )
    .circles()
}

#[test]
fn each_circle_is_found_where_it_is_planted() {
    let lib = ("crate", "mod a; mod b; pub use a::A; pub use b::B;");
    for (a, b) in [
        ("use crate::b::B;", "use crate::a::A;"),
        ("use crate::B;", "use crate::A;"),
        (
            "use super::b; fn f() { b::f() }",
            "fn f() { crate::a::f() }",
        ),
        ("use super::{B as C};", "use super::*; use super::a::A;"),
        ("fn f(x: super::B) {}", "fn f(x: super::a::A) {}"),
    ] {
        let found = circles(&[lib, ("crate::a", a), ("crate::b", b)]);
        assert_eq!(found, [["crate::a", "crate::b"]], "{a} {b}");
    }
    // Through a third, and with the module above.
    let lib = ("crate", "mod a; mod b; mod c; struct D; use a::A;");
    let found = circles(&[
        lib,
        ("crate::a", "use crate::b::B; use super::D;"),
        ("crate::b", "use crate::c::C;"),
        ("crate::c", "use crate::a::A;"),
    ]);
    assert_eq!(found, [["crate", "crate::a", "crate::b", "crate::c"]]);
}

#[test]
fn what_only_points_downward_is_let_through() {
    let found = circles(&[
        ("crate", "mod a; mod b; pub use a::A; pub use b::B;"),
        (
            "crate::a",
            "use super::B; fn f() { std::mem::drop(B::new()) }",
        ),
        (
            "crate::b",
            "use std::fmt; #[cfg(test)] mod tests { use crate::A; }",
        ),
    ]);
    assert!(found.is_empty(), "{found:?}");
    // A trait beside what is handed on.
    let found = circles(&[
        ("crate", "mod a; pub use a::A; pub trait T {}"),
        ("crate::a", "use super::T; pub struct A; impl T for A {}"),
    ]);
    assert!(found.is_empty(), "{found:?}");
}
