//! The string literals of a Rust source, with what they are handed to.

use super::tokens::{self, Token};
use anyhow::Result;

/// Attributes with words for people; help and reasons of lints are none.
const ATTRIBUTES: [&str; 2] = ["error", "x_kube"];

pub(super) struct Literal {
    /// The attribute, macro or function; empty outside of all.
    pub(super) of: String,
    /// As a program says it, but for its placeholders; breaks of lines are spaces.
    pub(super) text: String,
}

/// All outside of tests and comments.
pub(super) fn of(source: &str) -> Result<Vec<Literal>> {
    let mut found = Vec::new();
    collect(&tokens::of(source)?, "", &mut found);
    Ok(found)
}

fn collect(tokens: &[Token], of: &str, found: &mut Vec<Literal>) {
    let mut rest = tokens.iter().enumerate();
    while let Some((at, token)) = rest.next() {
        match token {
            Token::Group(bracket, inside) => match attribute(&tokens[..at], *bracket, inside) {
                Some(name) if ATTRIBUTES.contains(&name) => collect(inside, &format!("#[{name}]"), found),
                // The item that is compiled for tests alone ends with its braces or a semicolon.
                Some("cfg") if is_test(inside) => {
                    rest.find(|(_, token)| matches!(token, Token::Group('{', _) | Token::Sign(';')));
                }
                Some(_) => {}
                None => {
                    // All of an attribute is the attribute's.
                    let name = called(&tokens[..at], *bracket).filter(|_| !of.starts_with('#'));
                    collect(inside, name.as_deref().unwrap_or(of), found);
                }
            },
            Token::Text { raw, text } => {
                let text = if *raw { text.clone() } else { unescaped(text) };
                found.push(Literal { of: of.to_owned(), text });
            }
            Token::Word(_) | Token::Sign(_) => {}
        }
    }
}

/// Its first word, if the group is the rest of an attribute.
fn attribute<'a>(before: &[Token], bracket: char, inside: &'a [Token]) -> Option<&'a str> {
    let begun = matches!(before, [.., Token::Sign('#')] | [.., Token::Sign('#'), Token::Sign('!')]);
    match inside {
        [Token::Word(name), ..] if begun && bracket == '[' => Some(name),
        _ => None,
    }
}

fn is_test(cfg: &[Token]) -> bool {
    matches!(cfg, [_, Token::Group(_, of)] if matches!(&of[..], [Token::Word(word)] if word == "test"))
}

/// `name(...)`, or `name!` of a macro.
fn called(before: &[Token], bracket: char) -> Option<String> {
    match before {
        [.., Token::Word(name), Token::Sign('!')] => Some(format!("{name}!")),
        [.., Token::Word(name)] if bracket == '(' => Some(name.clone()),
        _ => None,
    }
}

fn unescaped(text: &str) -> String {
    let lines = text.split("\\\n").enumerate();
    let joined: String = lines.map(|(i, line)| if i == 0 { line } else { line.trim_start() }).collect();
    joined.replace("\\r", "").replace("\\n", " ").replace("\\\"", "\"")
}

#[test]
fn literals_are_found_with_what_they_are_handed_to() -> Result<()> {
    let source = r###"
        //! "a comment"
        #![doc = "help"]
        /// "another"
        #[error("load {id} is {state:?}; \
                 cancel it first")]
        struct Busy;
        const WANTED: &str = r#"so "raw""#;
        fn f() { tracing::warn!(%error, "trying again"); refuse(&format!("is \"{}\"", b"no")); [1, 'c'] }
        #[cfg(test)]
        mod tests { const NOT: &str = "not this"; }
        #[cfg(test)]
        mod more;
        fn g() -> &'static str { "the end" }
    "###;
    let found: Vec<_> = of(source)?.into_iter().map(|literal| (literal.of, literal.text)).collect();
    let wanted = [
        ("#[error]", "load {id} is {state:?}; cancel it first"),
        ("", "so \"raw\""),
        ("warn!", "trying again"),
        ("format!", "is \"{}\""),
        ("", "the end"),
    ];
    assert_eq!(found, wanted.map(|(of, text)| (of.to_owned(), text.to_owned())));
    Ok(())
}
