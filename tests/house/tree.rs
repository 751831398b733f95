//! What holds for every file of the project, tests and all.

use crate::lexer::{follows, tokens};
use crate::{Finding, expect_none, sources};

/// What stands nowhere, token by token, and why.
const REFUSED: &[(&[&str], &str)] = &[
    (&["unbounded_channel"], "a queue without a bound"),
    (&["mpsc", "::", "unbounded"], "a queue without a bound"),
    (&["thread", "::", "sleep"], "waits for real time"),
    (
        &["thread", "::", "{", "self", ",", "sleep"],
        "waits for real time",
    ),
    (&["thread", "::", "{", "sleep"], "waits for real time"),
    (&["#", "[", "ignore"], "a test that does not run"),
    (&["todo", "!"], "not done"),
    (&["unimplemented", "!"], "not done"),
];

fn check(source: &str) -> Vec<Finding> {
    let tokens = tokens(source);
    let mut findings = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        for (texts, why) in REFUSED {
            if follows(&tokens, at, texts) {
                findings.push((token.line, format!("{}: {why}", texts.concat())));
            }
        }
    }
    findings
}

#[test]
fn tree_keeps_the_rules() {
    let fuzz = ["fuzz/src", "fuzz/fuzz_targets", "fuzz/tests"];
    let files = sources(&[&["src", "tests", "benches", "examples"], &fuzz[..]].concat());
    assert!(files.len() >= 20, "the project is not where it should be");
    let findings = files.iter().flat_map(|(path, text)| {
        let found = check(text);
        found.into_iter().map(|finding| (path.clone(), finding))
    });
    expect_none(findings.collect());
}

#[test]
fn each_breach_is_caught_where_it_is_planted() {
    for planted in [
        "let (tx, rx) = tokio::sync::mpsc::unbounded_channel();",
        "let (tx, rx) = futures::channel::mpsc::unbounded();",
        "std::thread::sleep(d);",
        "use std::thread::{self, sleep};",
        "use std::thread::{sleep, spawn};",
        "#[test]\n#[ignore = \"slow\"]\nfn f() {}",
        "fn f() { todo!() }",
        "fn f() { unimplemented!() }",
    ] {
        assert!(!check(planted).is_empty(), "not caught: {planted}");
    }
}

#[test]
fn what_keeps_the_rules_is_let_through() {
    let source = "// thread::sleep\nlet a = \"todo!()\"; sleep(d).await;";
    assert_eq!(check(source), []);
}
