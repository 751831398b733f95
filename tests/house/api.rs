//! The public API is that of `api.txt`, and names nothing of other crates but what is
//! meant to be part of it.
//!
//! `.ci/api` has rustdoc write the API as JSON, and runs these tests on that. Without
//! it they are skipped: the JSON is of the toolchain that `.ci/api` names, whatever the
//! toolchain of the reader.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::{Path, PathBuf};
use std::{env, fs};

use public_api::{Builder, PublicItem};
use serde_json::Value;

/// The file of the JSON.
const JSON: &str = "BT_LITE_API_JSON";
/// If this is set, `api.txt` is written anew.
const WRITE: &str = "BT_LITE_API_WRITE";
/// The version of the JSON's format that `public_api` reads.
const FORMAT: u64 = 57;

/// What the standard library consists of. All of it may be part of the API.
const STD: [&str; 3] = ["alloc", "core", "std"];
/// What the API takes from other crates. A new major version of one of these crates is
/// a new major version of this one.
const FOREIGN: [&str; 14] = [
    "bytes::bytes::Bytes",
    // What has arrived of a BitTorrent connection.
    "bytes::bytes_mut::BytesMut",
    "futures_core::stream::Stream",
    "futures_sink::Sink",
    // Feature `serde`.
    "serde_core::de::Deserialize",
    "serde_core::de::Deserializer",
    "serde_core::ser::Serialize",
    "serde_core::ser::Serializer",
    "tokio::io::async_read::AsyncRead",
    "tokio::io::async_seek::AsyncSeek",
    "tokio::io::async_write::AsyncWrite",
    "tokio::io::read_buf::ReadBuf",
    // The byte stream of TCP, for transports over it.
    "tokio::net::tcp::stream::TcpStream",
    "tokio::sync::watch::Receiver",
];

/// Parts of machines, for tests and benchmarks: no part of the stable API.
const NOT_STABLE: &str = "bt_lite::testing::machine::";

/// The JSON that rustdoc wrote, or nothing if this is not run by `.ci/api`.
fn json() -> Option<(PathBuf, Value)> {
    let Some(path) = env::var_os(JSON) else {
        println!("skipped: .ci/api runs it");
        return None;
    };
    let path = PathBuf::from(path);
    let json: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let format = json["format_version"].as_u64();
    assert_eq!(
        format,
        Some(FORMAT),
        "rustdoc wrote its JSON in another format than the crate public-api reads: \
         run .ci/api, which takes the right toolchain; or change the toolchain in .ci/api, \
         the version of public-api in Cargo.toml, and the format in tests/house/api.rs"
    );
    Some((path, json))
}

/// The lines of `api.txt`: each item once, below the first of the paths that it has, and
/// with its other paths by its name alone. The methods of traits stand with the trait,
/// not with what implements it.
fn lines<'a>(items: impl Iterator<Item = &'a PublicItem>) -> Vec<String> {
    let (mut modules, mut implemented, mut seen) = (HashSet::new(), HashSet::new(), HashSet::new());
    let mut lines = Vec::new();
    for item in items {
        let line = item.to_string();
        if line.starts_with("pub mod ") {
            modules.insert(item.id());
        }
        if line.starts_with("impl") && line.contains(" for ") {
            implemented.insert(item.id());
        }
        let is_new = seen.insert(item.id());
        let parent = item.parent_id();
        let in_module = parent.is_none_or(|parent| modules.contains(&parent));
        let in_trait_impl = parent.is_some_and(|parent| implemented.contains(&parent));
        // The latter comes with each derived `PartialEq`.
        let is_noise = line.contains(NOT_STABLE) || line.contains("StructuralPartialEq");
        if (is_new || in_module) && !in_trait_impl && !is_noise {
            lines.push(line);
        }
    }
    lines
}

/// The lines that only one of the two has, with a sign.
fn difference(old: &str, new: &str) -> String {
    let count = |text: &str| {
        let mut counts = BTreeMap::new();
        for line in text.lines() {
            *counts.entry(line.to_owned()).or_insert(0) += 1;
        }
        counts
    };
    let (old, new) = (count(old), count(new));
    let only = |sign: &str, of: &BTreeMap<String, i32>, other: &BTreeMap<String, i32>| {
        let missing = of.iter().filter(|(line, n)| other.get(*line) != Some(n));
        let lines = missing.map(|(line, _)| format!("{sign} {line}\n"));
        lines.collect::<String>()
    };
    only("-", &old, &new) + &only("+", &new, &old)
}

/// The items of other crates that public items name, each with one that names it.
fn foreign(json: &Value) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for item in json["index"].as_object().unwrap().values() {
        let inner = &item["inner"];
        let of_compiler = |what: &str| {
            let is = &inner["impl"][what];
            *is != Value::Null && *is != Value::Bool(false)
        };
        if item["crate_id"] == 0 && !of_compiler("is_synthetic") && !of_compiler("blanket_impl") {
            let named = item["name"].as_str().map(str::to_owned);
            let by = named.unwrap_or_else(|| inner["impl"]["for"].to_string());
            collect(json, inner, &by, &mut found);
        }
    }
    found
}

fn collect(json: &Value, value: &Value, by: &str, found: &mut BTreeMap<String, String>) {
    match value {
        Value::Object(fields) => {
            if let (Some(Value::String(_)), Some(id)) = (fields.get("path"), fields.get("id")) {
                let target = &json["paths"][id.to_string()];
                let parts = target["path"].as_array().into_iter().flatten();
                let path: Vec<_> = parts.filter_map(Value::as_str).collect();
                if target["crate_id"] != 0 && path.first().is_none_or(|first| !STD.contains(first))
                {
                    found.insert(path.join("::"), by.to_owned());
                }
            }
            fields.values().for_each(|v| collect(json, v, by, found));
        }
        Value::Array(values) => values.iter().for_each(|v| collect(json, v, by, found)),
        _ => {}
    }
}

#[test]
fn public_api_is_that_of_the_file() {
    let Some((json, _)) = json() else { return };
    let builder = Builder::from_rustdoc_json(json)
        .omit_blanket_impls(true)
        .omit_auto_trait_impls(true);
    let api = builder.build().unwrap();
    let mut now = lines(api.items()).join("\n");
    now.push('\n');
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("api.txt");
    if env::var_os(WRITE).is_some() {
        fs::write(path, now).unwrap();
        return;
    }
    let then = fs::read_to_string(path).unwrap_or_default();
    assert!(
        then == now,
        "the public API is another one than in api.txt. If that is meant, run \
         `.ci/api --write` and commit the file.\n{}",
        difference(&then, &now)
    );
}

#[test]
fn public_api_names_no_other_crate_but_the_listed() {
    let Some((_, json)) = json() else { return };
    let found = foreign(&json);
    let listed = BTreeSet::from(FOREIGN);
    let leaks = found
        .iter()
        .filter(|(path, _)| !listed.contains(path.as_str()));
    let leaks: Vec<_> = leaks.map(|(path, by)| format!("{path}, in {by}")).collect();
    assert!(leaks.is_empty(), "the public API names {leaks:#?}");
    let unused = listed.iter().filter(|path| !found.contains_key(**path));
    let unused: Vec<_> = unused.collect();
    assert!(unused.is_empty(), "listed, and not used: {unused:?}");
}

#[test]
fn difference_shows_what_came_and_went() {
    assert_eq!(difference("a\nb\n", "b\nc\n"), "- a\n+ c\n");
    assert_eq!(difference("a\n", "a\na\n"), "- a\n+ a\n");
    assert_eq!(difference("b\na\n", "a\nb\n"), "");
}

#[test]
fn types_of_other_crates_are_found_where_they_are_planted() {
    let json = serde_json::json!({
        "index": {
            "1": { "crate_id": 0, "name": "f", "inner": { "function": { "output":
                { "resolved_path": { "path": "Vec", "id": 7, "args":
                    [{ "resolved_path": { "path": "Secret", "id": 8 } }] } } } } },
            "2": { "crate_id": 0, "name": "g", "inner": { "function": { "output":
                { "resolved_path": { "path": "Own", "id": 9 } } } } },
            "3": { "crate_id": 0, "name": null, "inner": { "impl":
                { "is_synthetic": true, "blanket_impl": null,
                  "trait": { "path": "Auto", "id": 10 } } } },
            "4": { "crate_id": 5, "name": "h", "inner": { "path": "Theirs", "id": 10 } },
        },
        "paths": {
            "7": { "crate_id": 1, "path": ["alloc", "vec", "Vec"] },
            "8": { "crate_id": 5, "path": ["private", "Secret"] },
            "9": { "crate_id": 0, "path": ["bt_lite", "Own"] },
            "10": { "crate_id": 5, "path": ["private", "Auto"] },
        },
    });
    let found = foreign(&json);
    assert_eq!(found, [("private::Secret".into(), "f".into())].into());
}
