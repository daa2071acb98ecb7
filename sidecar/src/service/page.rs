//! Pages of answers: sizes and tokens (AIP-158).

use crate::job::SpecError;

const DEFAULT_SIZE: usize = 50;
const MAX_SIZE: usize = 1000;

/// What to read next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Page {
    pub(super) size: usize,
    /// Running number of the last entry of the page before.
    pub(super) after: Option<u64>,
}

impl Page {
    pub(super) fn new(size: i32, token: &str) -> Result<Self, SpecError> {
        let error = |field, problem: String| SpecError { field, problem };
        let size = match usize::try_from(size) {
            Ok(0) => DEFAULT_SIZE,
            Ok(size) if size <= MAX_SIZE => size,
            _ => {
                return Err(error(
                    "page_size",
                    format!("is {size}; give 1 to {MAX_SIZE}, or 0 for {DEFAULT_SIZE}"),
                ));
            }
        };
        let after = if token.is_empty() {
            None
        } else {
            let number = token.parse().map_err(|_| {
                error("page_token", format!("is {token:?}; give the next_page_token of the answer before"))
            })?;
            Some(number)
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
    fn a_full_page_has_a_token_and_the_last_none() {
        let page = Page { size: 2, after: None };
        let mut three = vec![(9, 'a'), (8, 'b'), (7, 'c')];
        assert_eq!(page.cut(&mut three), "8");
        assert_eq!(three, [(9, 'a'), (8, 'b')]);
        assert_eq!(page.cut(&mut three), "");
    }
}
