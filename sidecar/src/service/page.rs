//! Pages of answers: sizes and tokens (AIP-158).

use crate::{human::quoted, job::SpecError};

const DEFAULT_SIZE: usize = 50;
const MAX_SIZE: usize = 1000;

/// Takes a token of [`in_list`] apart: which list, and a token for [`Page`].
pub(super) fn of_list(token: &str) -> Result<(Option<u64>, &str), SpecError> {
    if token.is_empty() {
        return Ok((None, token));
    }
    let parts = token.split_once('.').and_then(|(list, rest)| Some((list.parse().ok()?, rest)));
    let (list, rest) = parts.ok_or_else(|| bad_token(token))?;
    Ok((Some(list), rest))
}

/// A token that says in which of several lists, one made after the other, it goes on.
pub(super) fn in_list(list: u64, token: &str) -> String {
    if token.is_empty() { String::new() } else { format!("{list}.{token}") }
}

fn bad_token(token: &str) -> SpecError {
    let problem = format!("is {}; give the next_page_token of the answer before", quoted(token));
    SpecError { field: "page_token", problem }
}

/// What to read next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Page {
    pub(super) size: usize,
    /// Running number of the last entry of the page before.
    pub(super) after: Option<u64>,
}

impl Page {
    pub(super) fn new(size: i32, token: &str) -> Result<Self, SpecError> {
        let size = match usize::try_from(size) {
            Ok(0) => DEFAULT_SIZE,
            Ok(size) if size <= MAX_SIZE => size,
            _ => {
                let problem = format!("is {size}; give 1 to {MAX_SIZE}, or 0 for {DEFAULT_SIZE}");
                return Err(SpecError { field: "page_size", problem });
            }
        };
        let after = match token {
            "" => None,
            token => Some(token.parse().map_err(|_| bad_token(token))?),
        };
        Ok(Self { size, after })
    }

    /// Cuts `entries`, of which one more than a page was asked for, and makes the token of the next page.
    pub(super) fn cut<T>(self, entries: &mut Vec<(u64, T)>) -> String {
        if entries.len() <= self.size {
            return String::new();
        }
        entries.truncate(self.size);
        entries.last().map_or_else(String::new, |(number, _)| number.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_tokens_are_checked() {
        assert_eq!(Page::new(0, "").unwrap(), Page { size: DEFAULT_SIZE, after: None });
        assert_eq!(Page::new(7, "42").unwrap(), Page { size: 7, after: Some(42) });
        for (size, token, field) in [(-1, "", "page_size"), (1001, "", "page_size"), (1, "x", "page_token")] {
            assert_eq!(Page::new(size, token).unwrap_err().field, field);
        }
    }

    #[test]
    fn a_token_names_its_list() {
        assert_eq!(of_list(&in_list(7, "42")).unwrap(), (Some(7), "42"));
        assert_eq!(of_list(&in_list(7, "")).unwrap(), (None, ""));
        for token in ["42", "x.42", "-1.42", ".42"] {
            assert_eq!(of_list(token).unwrap_err().field, "page_token", "{token}");
        }
    }

    #[test]
    fn a_full_page_has_a_token_and_the_last_none() {
        let page = Page { size: 2, after: None };
        let mut three = vec![(9, 'a'), (8, 'b'), (7, 'c')];
        assert_eq!(page.cut(&mut three), "8");
        assert_eq!(three, [(9, 'a'), (8, 'b')]);
        assert_eq!(page.cut(&mut three), "");
    }
}
