//! What a trait has, as its source says: for tests that every method is forwarded.

use std::collections::BTreeSet;

/// The names of the methods of a public trait in this source.
pub(crate) fn methods(source: &str, name: &str) -> BTreeSet<String> {
    let (_, source) = source.split_once(&format!("pub trait {name}")).unwrap();
    let (source, _) = source.split_once("\n}\n").unwrap();
    let starts = ["    async fn ", "    fn "];
    let method = |line: &str| {
        let rest = starts.iter().find_map(|start| line.strip_prefix(start))?;
        rest.split('(').next().map(str::to_string)
    };
    source.lines().filter_map(method).collect()
}
