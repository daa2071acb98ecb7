//! Values of options that clap does not know. Errors name the accepted form.

use alluxio_preload_api::v1::load::State;
use bytesize::ByteSize;
use jiff::{Span, SpanRelativeTo, fmt::friendly::SpanParser};
use std::time::Duration;

pub(super) fn duration(text: &str) -> Result<Duration, String> {
    // A day is 24 hours; months and years have no fixed length and are refused.
    let fixed = |span: Span| span.to_duration(SpanRelativeTo::days_are_24_hours());
    let span = SpanParser::new().parse_span(text).and_then(fixed).ok();
    span.and_then(|span| Duration::try_from(span).ok())
        .ok_or_else(|| "accepted are forms such as 500ms, 90s, 10m, 1h30m and 2d".to_owned())
}

/// MB are 10^6 bytes, MiB 2^20.
pub(super) fn bytes(text: &str) -> Result<ByteSize, String> {
    text.parse().map_err(|_| "accepted are forms such as 1048576, 500MB and 1.5GiB".to_owned())
}

/// The value may be empty and may hold further equals signs.
pub(super) fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("accepted is KEY=VALUE".to_owned()),
    }
}

pub(super) fn state(text: &str) -> Result<State, String> {
    const STATES: [State; 9] = [
        State::Queued,
        State::Waiting,
        State::Listing,
        State::Loading,
        State::Verifying,
        State::Loaded,
        State::Failed,
        State::Cancelled,
        State::Stale,
    ];
    let known = |state: &State| state.as_str_name().eq_ignore_ascii_case(text);
    STATES.into_iter().find(known).ok_or_else(|| {
        let names: Vec<_> = STATES.iter().map(State::as_str_name).collect();
        format!("accepted are {}", names.join(", "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations() {
        for (text, seconds) in [("90s", 90), ("1h30m", 5400), ("1h 5s", 3605), ("1d", 86_400)] {
            assert_eq!(duration(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        for text in ["", "90", "-5s", "5s ago", "soon", "5 parsecs", "99999999999999999999h", "1mo", "1y"] {
            let error = duration(text).unwrap_err();
            assert!(error.contains("1h30m"), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn whole_seconds_are_read_back(seconds in 0u64..1_000_000_000) {
            prop_assert_eq!(duration(&format!("{seconds}s")), Ok(Duration::from_secs(seconds)));
        }

        #[test]
        fn no_text_panics(text in any::<String>()) {
            let _ = (duration(&text), label(&text), state(&text));
        }
    }

    #[test]
    fn sizes() {
        for (text, size) in [("0", 0), ("1048576", 1 << 20), ("500MB", 500_000_000), ("1.5GiB", 3 << 29)] {
            assert_eq!(bytes(text), Ok(ByteSize(size)), "{text}");
        }
        for text in ["", "-1", "much", "5 parsecs"] {
            assert!(bytes(text).unwrap_err().contains("1.5GiB"), "{text}");
        }
    }

    #[test]
    fn labels_and_states() {
        assert_eq!(label("a=b=c"), Ok(("a".into(), "b=c".into())));
        assert_eq!(label("a="), Ok(("a".into(), String::new())));
        assert!(label("a").is_err() && label("=b").is_err());
        assert_eq!(state("loaded"), Ok(State::Loaded));
        assert!(state("STATE_UNSPECIFIED").unwrap_err().contains("CANCELLED"));
    }
}
