//! Figures and errors in messages for people.

/// An error and its causes in one line.
#[must_use]
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(error.source(), |e| e.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// `1.5 GiB`; exact below 1 KiB.
#[must_use]
pub fn bytes(n: u64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut value = n as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{n} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

/// What a caller gave, in quotes and escaped. Cut when it is long: an error travels in headers, of which clients take a
/// few KiB.
#[must_use]
pub fn quoted(text: &str) -> String {
    const MOST: usize = 80;
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{:?}...", &text[..end]),
        None => format!("{text:?}"),
    }
}

/// `15m`, `1h 30m`, `2s`: whole seconds, and nothing that is zero.
#[must_use]
pub fn seconds(span: std::time::Duration) -> String {
    let total = span.as_secs();
    let parts = [(total / 3600, "h"), (total / 60 % 60, "m"), (total % 60, "s")];
    let parts: Vec<_> = parts.iter().filter(|(n, _)| *n > 0).map(|(n, unit)| format!("{n}{unit}")).collect();
    if parts.is_empty() { "0s".to_owned() } else { parts.join(" ") }
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_is_quoted_is_short() {
        assert_eq!(super::quoted("a\n"), r#""a\n""#);
        assert_eq!(super::quoted(&"é".repeat(80)), format!("\"{}\"", "é".repeat(80)));
        assert_eq!(super::quoted(&"é".repeat(81)), format!("\"{}\"...", "é".repeat(80)));
    }

    #[test]
    fn spans_read_well() {
        let seconds = |n| super::seconds(std::time::Duration::from_secs(n));
        assert_eq!([0, 59, 900, 5400, 3601].map(seconds), ["0s", "59s", "15m", "1h 30m", "1h 1s"]);
    }

    #[test]
    fn sizes_read_well() {
        assert_eq!(super::bytes(1023), "1023 B");
        assert_eq!(super::bytes(1536), "1.5 KiB");
        assert_eq!(super::bytes(u64::MAX), "16384.0 PiB");
    }
}
