//! Whether the API server knows native sidecars.

use k8s_openapi::apimachinery::pkg::version::Info;

/// On by default from here on.
const NATIVE_SIDECARS: (u32, u32) = (1, 29);

/// A version that cannot be read counts as old: plain containers work everywhere.
pub(super) fn has_native_sidecars(version: &Info) -> bool {
    let number = |text: &str| {
        // Some clouds write "29+".
        let digits: String = text.chars().take_while(char::is_ascii_digit).collect();
        digits.parse::<u32>().ok()
    };
    number(&version.major).zip(number(&version.minor)).is_some_and(|version| version >= NATIVE_SIDECARS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        let has = |major: &str, minor: &str| {
            has_native_sidecars(&Info { major: major.to_owned(), minor: minor.to_owned(), ..Info::default() })
        };
        assert!(has("1", "29") && has("1", "29+") && has("1", "36") && has("2", "0"));
        assert!(!has("1", "28") && !has("", "") && !has("1", "x"));
    }
}
