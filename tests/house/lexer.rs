//! Rust source as tokens: as much of a lexer as the rules need.

/// What stands for any string, character, or lifetime.
const OPAQUE: &str = "\"";

/// A name, a number, `::`, one character of punctuation, or [`OPAQUE`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Token<'a> {
    pub(crate) line: usize,
    pub(crate) text: &'a str,
}

impl Token<'_> {
    pub(crate) fn is_name(&self) -> bool {
        self.text
            .starts_with(|c: char| c.is_alphabetic() || c == '_')
    }
}

/// The tokens of a source, without comments.
pub(crate) fn tokens(source: &str) -> Vec<Token<'_>> {
    let (mut found, mut rest, mut line) = (Vec::new(), source, 1);
    while !rest.is_empty() {
        let (text, later) = rest.split_at(token_len(rest));
        let text_or_opaque = if text.contains(['"', '\'']) {
            OPAQUE
        } else {
            text
        };
        let comment = text.starts_with("//") || text.starts_with("/*");
        if !comment && !text.trim().is_empty() {
            found.push(Token {
                line,
                text: text_or_opaque,
            });
        }
        line += text.matches('\n').count();
        rest = later;
    }
    found
}

/// Whether these texts follow each other from a place on.
pub(crate) fn follows(tokens: &[Token<'_>], at: usize, texts: &[&str]) -> bool {
    tokens[at.min(tokens.len())..]
        .iter()
        .map(|token| token.text)
        .take(texts.len())
        .eq(texts.iter().copied())
}

/// Without `#[cfg(test)]` items; and the names of the modules in other files
/// among them.
pub(crate) fn without_tests<'a>(all: &[Token<'a>]) -> (Vec<Token<'a>>, Vec<&'a str>) {
    const CFG_TEST: [&str; 7] = ["#", "[", "cfg", "(", "test", ")", "]"];
    let (mut kept, mut modules, mut at) = (Vec::new(), Vec::new(), 0);
    while at < all.len() {
        if !follows(all, at, &CFG_TEST) {
            kept.push(all[at].clone());
            at += 1;
            continue;
        }
        at += CFG_TEST.len();
        while follows(all, at, &["#", "["]) {
            at = end_of_group(all, at + 1);
        }
        let end = end_of_item(all, at);
        if end >= 3 && all[end - 3].text == "mod" && all[end - 1].text == ";" {
            modules.push(all[end - 2].text);
        }
        at = end;
    }
    (kept, modules)
}

/// Behind the bracket that closes the one at `at`.
fn end_of_group(tokens: &[Token<'_>], at: usize) -> usize {
    let mut depth = 0;
    for (i, token) in tokens.iter().enumerate().skip(at) {
        match token.text {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return i + 1;
        }
    }
    tokens.len()
}

/// Behind the `;` or the block that ends an item.
fn end_of_item(tokens: &[Token<'_>], mut at: usize) -> usize {
    while at < tokens.len() {
        match tokens[at].text {
            ";" => return at + 1,
            "{" => return end_of_group(tokens, at),
            "(" | "[" => at = end_of_group(tokens, at),
            _ => at += 1,
        }
    }
    at
}

fn token_len(rest: &str) -> usize {
    if rest.starts_with("//") {
        return rest.find('\n').unwrap_or(rest.len());
    }
    if rest.starts_with("/*") {
        return comment_len(rest);
    }
    if let Some(len) = raw_string_len(rest) {
        return len;
    }
    for (open, close) in [("\"", '"'), ("b\"", '"'), ("c\"", '"'), ("b'", '\'')] {
        if let Some(inside) = rest.strip_prefix(open) {
            return open.len() + quoted_len(inside, close);
        }
    }
    if let Some(inside) = rest.strip_prefix('\'') {
        let mut chars = inside.chars();
        return 1 + match (chars.next(), chars.next()) {
            (Some('\\'), _) => quoted_len(inside, '\''),
            (Some(c), Some('\'')) => c.len_utf8() + 1,
            _ => name_len(inside),
        };
    }
    if rest.starts_with("::") {
        return 2;
    }
    match name_len(rest) {
        0 => rest.chars().next().map_or(0, char::len_utf8),
        len => len,
    }
}

fn name_len(rest: &str) -> usize {
    rest.find(|c: char| !c.is_alphanumeric() && c != '_')
        .unwrap_or(rest.len())
}

/// Up to the quote that no backslash escapes, and with it.
fn quoted_len(inside: &str, quote: char) -> usize {
    let mut escaped = false;
    for (i, c) in inside.char_indices() {
        if c == quote && !escaped {
            return i + 1;
        }
        escaped = c == '\\' && !escaped;
    }
    inside.len()
}

fn raw_string_len(rest: &str) -> Option<usize> {
    let inside = ["r", "br", "cr"]
        .iter()
        .find_map(|p| rest.strip_prefix(p))?;
    let hashes = inside.len() - inside.trim_start_matches('#').len();
    let text = inside[hashes..].strip_prefix('"')?;
    let close = format!("\"{}", "#".repeat(hashes));
    let end = text.find(&close).map_or(text.len(), |i| i + close.len());
    Some(rest.len() - text.len() + end)
}

fn comment_len(rest: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < rest.len() {
        if rest[at..].starts_with("/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if rest[at..].starts_with("*/") {
            (depth, at) = (depth - 1, at + 2);
            if depth == 0 {
                return at;
            }
        } else {
            at += rest[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    at
}

#[test]
fn tokens_leave_out_comments_and_what_is_quoted() {
    let source = r###"
        a::b // tokio
        /* std::fs /* nested */ still */ 'x' '\'' b'"' "tok\"io" r#"std::"fs"# &'static c
    "###;
    let texts: Vec<&str> = tokens(source).iter().map(|t| t.text).collect();
    assert_eq!(
        texts,
        [
            "a", "::", "b", OPAQUE, OPAQUE, OPAQUE, OPAQUE, OPAQUE, "&", OPAQUE, "c"
        ]
    );
    assert_eq!(tokens(source)[3].line, 3);
}

#[test]
fn test_items_are_left_out_and_others_are_kept() {
    let source = "
        fn a() {} #[cfg(test)] mod tests { fn b() { { } } } fn c() {}
        #[cfg(test)] #[allow(x)] fn d(e: [u8; 3]) {} #[cfg(test)] mod model; fn f() {}";
    let all = tokens(source);
    let (kept, modules) = without_tests(&all);
    let names: Vec<&str> = kept
        .iter()
        .filter(|t| t.is_name())
        .map(|t| t.text)
        .collect();
    assert_eq!(names, ["fn", "a", "fn", "c", "fn", "f"]);
    assert_eq!(modules, ["model"]);
}
