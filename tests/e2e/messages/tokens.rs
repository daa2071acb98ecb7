//! As much of Rust's grammar as tells string literals from the rest, and what belongs into which brackets.

use anyhow::{Context, Result, bail};

#[derive(Debug, PartialEq)]
pub(super) enum Token {
    /// Names, numbers and all other things of one word.
    Word(String),
    Sign(char),
    /// A string as it stands between its quotes; `raw` ones mean what they say.
    Text {
        raw: bool,
        text: String,
    },
    /// What is between brackets, of which this is the first.
    Group(char, Vec<Token>),
}

/// Comments are left out.
pub(super) fn of(source: &str) -> Result<Vec<Token>> {
    let mut open = vec![(' ', Vec::new())];
    let mut rest = source;
    while let Some(next) = rest.chars().next() {
        let (token, after) = match next {
            '(' | '[' | '{' => {
                open.push((next, Vec::new()));
                (None, &rest[1..])
            }
            ')' | ']' | '}' => {
                let (bracket, inside) = open.pop().context("no bracket is open")?;
                (Some(Token::Group(bracket, inside)), &rest[1..])
            }
            _ => one(rest).with_context(|| format!("at {:?}", rest.chars().take(40).collect::<String>()))?,
        };
        open.last_mut().context("too many brackets are closed")?.1.extend(token);
        rest = after;
    }
    match <[_; 1]>::try_from(open) {
        Ok([(_, tokens)]) => Ok(tokens),
        Err(_) => bail!("a bracket is not closed"),
    }
}

/// The first token, if there is one before the rest.
fn one(source: &str) -> Result<(Option<Token>, &str)> {
    if source.starts_with("//") {
        return Ok((None, source.split_once('\n').map_or("", |(_, rest)| rest)));
    }
    if source.starts_with("/*") {
        return Ok((None, source.split_once("*/").context("a comment has no end")?.1));
    }
    let begin: String = source.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    let rest = &source[begin.len()..];
    match begin.as_str() {
        "" | "b" | "c" if rest.starts_with('"') => {
            let end = end_of_text(&rest[1..])?;
            let text = Token::Text { raw: false, text: rest[1..=end].to_owned() };
            Ok(((begin.is_empty()).then_some(text), &rest[end + 2..]))
        }
        "r" | "br" if rest.trim_start_matches('#').starts_with('"') => {
            let hashes = &rest[..rest.find('"').unwrap_or_default()];
            let (text, rest) = rest[hashes.len() + 1..]
                .split_once(&format!("\"{hashes}"))
                .context("a raw string has no end")?;
            Ok((Some(Token::Text { raw: true, text: text.to_owned() }), rest))
        }
        "" | "b" if rest.starts_with('\'') => Ok((None, &rest[end_of_quote(&rest[1..]) + 1..])),
        "" => {
            let sign = source.chars().next().context("nothing is left")?;
            Ok(((!sign.is_whitespace()).then_some(Token::Sign(sign)), &source[sign.len_utf8()..]))
        }
        _ => Ok((Some(Token::Word(begin)), rest)),
    }
}

/// Where its closing quote is.
fn end_of_text(text: &str) -> Result<usize> {
    let mut escaped = false;
    let end = text.find(|c| {
        let ends = c == '"' && !escaped;
        escaped = c == '\\' && !escaped;
        ends
    });
    end.context("a string has no end")
}

/// How much after a single quote belongs to it: a character, or nothing of a lifetime.
fn end_of_quote(text: &str) -> usize {
    if text.starts_with('\\') {
        // The second is what is escaped, be it a quote.
        return text.char_indices().skip(2).find(|(_, c)| *c == '\'').map_or(0, |(at, _)| at + 1);
    }
    let mut chars = text.chars();
    match (chars.next(), chars.next()) {
        (Some(c), Some('\'')) => c.len_utf8() + 1,
        _ => 0,
    }
}

#[test]
fn strings_are_told_from_what_looks_like_them() -> Result<()> {
    let source =
        "f(\"a \\\" // b\", '\"', b'\\'', '\\\\', &'a x) // \"no\"\n/* \"no\" */ [r#\"c\"\"#, b\"no\", 1.5]";
    let text = |raw, text: &str| Token::Text { raw, text: text.to_owned() };
    let (word, sign) = (|word: &str| Token::Word(word.to_owned()), Token::Sign);
    let call = vec![
        text(false, "a \\\" // b"),
        sign(','),
        sign(','),
        sign(','),
        sign(','),
        sign('&'),
        word("a"),
        word("x"),
    ];
    let list = vec![text(true, "c\""), sign(','), sign(','), word("1"), sign('.'), word("5")];
    assert_eq!(of(source)?, [word("f"), Token::Group('(', call), Token::Group('[', list)]);
    assert!(of("(").is_err() && of(")").is_err() && of("\"a").is_err());
    Ok(())
}
