//! Each field of a configuration says which default it has and why, and has a form in
//! which people write it.

use std::path::PathBuf;

use crate::{Finding, expect_none, sources};

/// How many words a default and its reason have at least.
const WORDS: usize = 5;

/// The findings in the configurations of one file.
fn check(text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    let (mut inside, mut docs, mut attributes) = (false, String::new(), String::new());
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if let Some(rest) = line.strip_prefix("pub struct ") {
            let name = rest.split(|c: char| !c.is_alphanumeric()).next();
            inside = name.is_some_and(|name| name.ends_with("Config") || name == "ReaderOptions");
        } else if line == "}" {
            inside = false;
        }
        if let Some(doc) = line.strip_prefix("///") {
            docs.push_str(doc);
        } else if line.starts_with('#') {
            attributes.push_str(line);
        } else {
            if let Some((field, kind)) = line.strip_prefix("pub ").and_then(|f| f.split_once(": "))
                && inside
            {
                let what = field_is_wrong(kind.trim_end_matches(','), &docs, &attributes);
                findings.extend(what.map(|what| (number, format!("{field} {what}"))));
            }
            (docs, attributes) = (String::new(), String::new());
        }
    }
    findings
}

/// What is wrong with a field of this type.
fn field_is_wrong(kind: &str, docs: &str, attributes: &str) -> Option<&'static str> {
    let is_configuration = kind.ends_with("Config");
    let default = docs.find("Default").or_else(|| docs.find("default"));
    let reason = default.map_or(0, |at| docs[at..].split_whitespace().count());
    if !is_configuration && reason < WORDS {
        return Some("has no default, or no reason for it");
    }
    let says_bytes = ["bytes", "Bytes"].iter().any(|word| {
        let first = docs.split(". ").next().unwrap_or_default();
        first.contains(word)
    });
    if kind.contains("Duration") && !attributes.contains("serde::duration") {
        return Some("cannot be written as a duration");
    }
    let loads_bytes = ["serde::bytes", "serde::rate"]
        .iter()
        .any(|with| attributes.contains(with));
    if says_bytes && !loads_bytes {
        return Some("cannot be written as a number of bytes");
    }
    None
}

#[test]
fn each_field_of_a_configuration_has_a_default_with_a_reason() {
    let mut findings: Vec<(PathBuf, Finding)> = Vec::new();
    for (path, text) in sources(&["src"]) {
        let found = check(&text).into_iter();
        findings.extend(found.map(|finding| (path.clone(), finding)));
    }
    expect_none(findings);
}

#[test]
fn each_missing_default_is_found_where_it_is_planted() {
    let text = "\
pub struct SomeConfig {
    /// How many. Default 3: enough for most.
    pub good: usize,
    /// How many. Default 3.
    pub bare: usize,
    /// How long. Default 3 s, which is enough for most.
    pub spoken: Duration,
    /// How many bytes. Default 3, which is enough for most.
    #[cfg(any())]
    pub counted: u64,
    /// The rest.
    pub nested: OtherConfig,
}
pub struct Other {
    /// How many.
    pub free: usize,
}
";
    let lines: Vec<usize> = check(text).into_iter().map(|(line, _)| line).collect();
    assert_eq!(lines, [5, 7, 10]);
}
