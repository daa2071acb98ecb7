//! Small pieces of text: sizes, counts, times, and the escaping of what a server sent.

use indicatif::{BinaryBytes, HumanCount, HumanDuration};
use jiff::fmt::friendly::SpanPrinter;
use std::{borrow::Cow, fmt::Write, time::Duration, time::SystemTime};

/// Makes text safe for a terminal: control characters (C0, DEL, C1) and those that turn the direction of
/// writing or break lines are shown as `\u{…}`; everything else stays.
pub(crate) fn clean(text: &str) -> Cow<'_, str> {
    if !text.contains(is_unsafe) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            '\n' => safe.push_str("\\n"),
            '\r' => safe.push_str("\\r"),
            '\t' => safe.push_str("\\t"),
            c if is_unsafe(c) => {
                // Writing to a String cannot fail.
                let _ = write!(safe, "{}", c.escape_unicode());
            }
            c => safe.push(c),
        }
    }
    Cow::Owned(safe)
}

/// The characters that [`clean`] escapes.
pub(crate) fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// `1.50 GiB`
pub(crate) fn bytes(bytes: u64) -> String {
    BinaryBytes(bytes).to_string()
}

/// `1,000`
pub(crate) fn count(count: u64) -> String {
    HumanCount(count).to_string()
}

/// `1,000 files`
pub(crate) fn files(number: u64) -> String {
    format!("{} file{}", count(number), if number == 1 { "" } else { "s" })
}

/// `1h 2m 5s`; less than a second in milliseconds.
pub(crate) fn duration(duration: Duration) -> String {
    let whole = match duration.as_secs() {
        0 => Duration::from_millis(u64::from(duration.subsec_millis())),
        seconds => Duration::from_secs(seconds),
    };
    SpanPrinter::new().unsigned_duration_to_string(&whole)
}

/// `3m`, `2h`, `5d`: one unit is enough for an age.
pub(crate) fn age(since: Option<prost_types::Timestamp>, now: SystemTime) -> String {
    match since.and_then(|t| SystemTime::try_from(t).ok()) {
        Some(since) => format!("{:#}", HumanDuration(now.duration_since(since).unwrap_or_default())),
        None => "-".to_owned(),
    }
}

/// A time that passed; `None` when the messages do not say or contradict themselves.
pub(crate) fn between(
    start: Option<prost_types::Timestamp>,
    end: Option<prost_types::Timestamp>,
) -> Option<Duration> {
    let start = SystemTime::try_from(start?).ok()?;
    SystemTime::try_from(end?).ok()?.duration_since(start).ok()
}

/// RFC 3339 in UTC, to the second.
pub(crate) fn time(time: Option<prost_types::Timestamp>) -> String {
    match time {
        Some(time) => prost_types::Timestamp { nanos: 0, ..time }.to_string(),
        None => "-".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn unsafe_characters_are_shown_and_others_stay() {
        assert_eq!(
            clean("a\u{1b}[31m\u{9b}2J\u{7f}\n\u{202e}b"),
            "a\\u{1b}[31m\\u{9b}2J\\u{7f}\\n\\u{202e}b"
        );
        for text in ["/plain path", "/データ/été/🦀", "quotes ' \" \\"] {
            assert!(matches!(clean(text), Cow::Borrowed(same) if same == text));
        }
    }

    proptest! {
        #[test]
        fn nothing_unsafe_is_left(text in any::<String>()) {
            prop_assert!(!clean(&text).contains(is_unsafe));
        }
    }

    #[test]
    fn sizes_and_times() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(1_610_612_736), "1.50 GiB");
        assert_eq!(files(1), "1 file");
        assert_eq!(files(1_234), "1,234 files");
        assert_eq!(duration(Duration::from_millis(450)), "450ms");
        assert_eq!(duration(Duration::from_millis(3_725_900)), "1h 2m 5s");
        assert_eq!(duration(Duration::ZERO), "0s");
        let at = |seconds| Some(prost_types::Timestamp { seconds, nanos: 500_000_000 });
        assert_eq!(time(at(0)), "1970-01-01T00:00:00Z");
        assert_eq!(age(at(100), SystemTime::UNIX_EPOCH + Duration::from_secs(400)), "5m");
        assert_eq!(age(at(500), SystemTime::UNIX_EPOCH), "0s", "clocks of two hosts differ");
        assert_eq!(between(at(1), at(3)), Some(Duration::from_secs(2)));
        assert_eq!(between(at(3), at(1)), None);
    }
}
