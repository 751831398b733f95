//! The paths that a source file names: its imports, and those in its code.

use std::path::Path;

use crate::lexer::Token;

/// One name that a `use` brings in.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Import {
    /// As it is written.
    pub(crate) path: String,
    /// The name that it gets, `*` for all.
    pub(crate) name: String,
    /// Which token it is.
    pub(crate) at: usize,
    /// Whether it is handed on: `pub use`, to the crate or to all.
    pub(crate) public: bool,
}

/// The imports of a file, and the places of all tokens outside of them.
pub(crate) fn imports(tokens: &[Token<'_>]) -> (Vec<Import>, Vec<usize>) {
    let (mut imports, mut others, mut at) = (Vec::new(), Vec::new(), 0);
    while at < tokens.len() {
        // `use<..>` captures, and imports nothing.
        if text(tokens, at) == "use" && text(tokens, at + 1) != "<" {
            let public = at > 0 && matches!(text(tokens, at - 1), "pub" | ")");
            at += 1;
            let from = imports.len();
            import_tree(tokens, &mut at, String::new(), &mut imports);
            for import in &mut imports[from..] {
                import.public = public;
            }
        } else {
            others.push(at);
            at += 1;
        }
    }
    (imports, others)
}

/// One branch of an import.
fn import_tree(tokens: &[Token<'_>], at: &mut usize, mut path: String, found: &mut Vec<Import>) {
    while *at < tokens.len() {
        let (here, token) = (*at, text(tokens, *at));
        *at += 1;
        match token {
            "::" => {}
            "{" => {
                while !matches!(text(tokens, *at), "}" | "") {
                    import_tree(tokens, at, path.clone(), found);
                    if text(tokens, *at) == "," {
                        *at += 1;
                    }
                }
                *at += 1;
                return;
            }
            _ => {
                // `a::{self}` is `a`.
                if path.is_empty() {
                    path = token.into();
                } else if token != "self" {
                    path = format!("{path}::{token}");
                }
                if text(tokens, *at) == "::" {
                    continue;
                }
                let mut name = last_of(&path).to_owned();
                if text(tokens, *at) == "as" {
                    name = text(tokens, *at + 1).into();
                    *at += 2;
                }
                found.push(Import {
                    path,
                    name,
                    at: here,
                    public: false,
                });
                return;
            }
        }
    }
}

/// The path that begins at a token, if one does.
pub(crate) fn path_at(tokens: &[Token<'_>], at: usize) -> Option<String> {
    let is_name = |at: usize| tokens.get(at).is_some_and(Token::is_name);
    let inside =
        at >= 2 && text(tokens, at - 1) == "::" && (is_name(at - 2) || text(tokens, at - 2) == ">");
    if !is_name(at) || inside {
        return None;
    }
    let (mut path, mut end) = (text(tokens, at).to_owned(), at + 1);
    while text(tokens, end) == "::" && is_name(end + 1) {
        path = format!("{path}::{}", text(tokens, end + 1));
        end += 2;
    }
    Some(path)
}

/// A path in a module without a leading `self` or `super`.
pub(crate) fn absolute(module: &str, path: &str) -> String {
    let (mut module, mut rest) = (module, path);
    let (first, after) = rest.split_once("::").unwrap_or((rest, ""));
    match first {
        "self" => rest = after,
        "super" => {}
        _ => return path.to_owned(),
    }
    while let ("super", after) = rest.split_once("::").unwrap_or((rest, "")) {
        module = module.rsplit_once("::").map_or("", |(parent, _)| parent);
        rest = after;
    }
    if rest.is_empty() {
        module.to_owned()
    } else {
        format!("{module}::{rest}")
    }
}

pub(crate) fn text<'a>(tokens: &[Token<'a>], at: usize) -> &'a str {
    tokens.get(at).map_or("", |token| token.text)
}

pub(crate) fn last_of(path: &str) -> &str {
    path.rsplit("::").next().unwrap_or(path)
}

/// The module of a file of the crate.
pub(crate) fn module_of(path: &Path) -> String {
    let path = path.with_extension("");
    let mut parts: Vec<&str> = path.iter().map(|part| part.to_str().unwrap()).collect();
    parts[0] = "crate";
    if matches!(parts.last(), Some(&("mod" | "lib"))) {
        parts.pop();
    }
    parts.join("::")
}

#[test]
fn imports_are_read_branch_by_branch() {
    let source = "use a::{self, b::C as D, e::*}; fn f(x: impl G + use<'a>) { h::i() }";
    let tokens = crate::lexer::tokens(source);
    let (found, others) = imports(&tokens);
    let found: Vec<(&str, &str)> = found.iter().map(|i| (&*i.path, &*i.name)).collect();
    assert_eq!(found, [("a", "a"), ("a::b::C", "D"), ("a::e::*", "*")]);
    let tokens_of_two = crate::lexer::tokens("use a::B; pub use c::D; pub(crate) use e::F;");
    let public = imports(&tokens_of_two).0.into_iter().map(|i| i.public);
    assert_eq!(public.collect::<Vec<_>>(), [false, true, true]);
    let paths = others.iter().filter_map(|&at| path_at(&tokens, at));
    assert!(paths.collect::<Vec<_>>().contains(&"h::i".to_owned()));
}

#[test]
fn paths_are_made_absolute() {
    let of = |path| absolute("crate::a::b", path);
    assert_eq!(of("self::C"), "crate::a::b::C");
    assert_eq!(of("super::C"), "crate::a::C");
    assert_eq!(of("super::super::c::D"), "crate::c::D");
    assert_eq!(of("super"), "crate::a");
    assert_eq!(of("std::mem"), "std::mem");
    assert_eq!(of("superb::C"), "superb::C");
    assert_eq!(of("super::super_seeding::C"), "crate::a::super_seeding::C");
}

#[test]
fn modules_are_found_from_their_files() {
    let module = |path: &str| module_of(Path::new(path));
    assert_eq!(module("src/lib.rs"), "crate");
    assert_eq!(module("src/content/mod.rs"), "crate::content");
    assert_eq!(module("src/peer/link.rs"), "crate::peer::link");
}
