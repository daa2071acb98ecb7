//! Lines of a program's log that a test must not leave behind.

use anyhow::{Result, bail};

pub(crate) const ERRORS: &[&str] = &["ERROR"];
pub(crate) const WARNINGS: &[&str] = &["WARN", "ERROR"];

/// Fails with the first line of `log`, text or JSON, at one of `levels`, or of a panic.
pub(crate) fn assert_none(program: &str, log: &str, levels: &[&str]) -> Result<()> {
    let bad = |line: &&str| {
        line.contains("panicked at")
            || levels.iter().any(|level| {
                line.contains(&format!(" {level} ")) || line.contains(&format!("\"level\":\"{level}\""))
            })
    };
    match log.lines().find(bad) {
        Some(line) => bail!("the {program} logged: {line}"),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complaints_are_found_in_text_and_json() {
        let log = |line: &str| format!("2026-11-27T04:00:00Z  INFO a: well\n{line}\n");
        for (line, level) in [
            ("2026-11-27T04:00:00Z  WARN a: hm", "WARN"),
            ("{\"level\":\"WARN\",\"message\":\"hm\"}", "WARN"),
            ("2026-11-27T04:00:00Z ERROR a: no", "ERROR"),
        ] {
            assert!(assert_none("x", &log(line), WARNINGS).is_err(), "{line}");
            assert_eq!(assert_none("x", &log(line), ERRORS).is_err(), level == "ERROR", "{line}");
        }
        assert!(assert_none("x", &log("thread 'main' panicked at x.rs"), ERRORS).is_err());
        assert!(assert_none("x", &log("2026-11-27T04:00:00Z  INFO a: WARNING"), WARNINGS).is_ok());
    }
}
