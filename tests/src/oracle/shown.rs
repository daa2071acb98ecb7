//! What Alluxio shows to people: lines of `fs ls`, sizes on its web pages.

/// A file in the output of `fs ls`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listing {
    pub length: u64,
    /// How much of it has at least one copy.
    pub percentage: u8,
}

impl Listing {
    /// `LENGTH STATE DATE TIME PERCENT% PATH`; `None` for a directory or another line.
    pub(super) fn parse(line: &str) -> Option<(String, Self)> {
        let (head, path) = line.split_once("% ")?;
        let mut fields = head.split_ascii_whitespace();
        let length = fields.next()?.parse().ok()?;
        let percentage = fields.next_back()?.parse().ok()?;
        path.starts_with('/').then(|| (path.to_owned(), Self { length, percentage }))
    }
}

/// A size as Alluxio's web pages write it: whole bytes up to 5 KB, then two decimals of a unit of which there
/// are at most 5,120.
pub(super) fn size_as_shown(bytes: u64) -> String {
    if bytes <= 5 * 1024 {
        return format!("{bytes}B");
    }
    let mut size = bytes as f64;
    for unit in ["KB", "MB", "GB"] {
        size /= 1024.0;
        if size <= 5.0 * 1024.0 {
            return format!("{size:.2}{unit}");
        }
    }
    format!("{:.2}TB", size / 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_written_as_alluxio_writes_them() {
        for (bytes, shown) in [
            (0, "0B"),
            (1000, "1000B"),
            (16384, "16.00KB"),
            (15_000_000, "14.31MB"),
            (150_000_000, "143.05MB"),
        ] {
            assert_eq!(size_as_shown(bytes), shown);
        }
    }

    #[test]
    fn a_listed_path_may_hold_anything() {
        let line = "              3       PERSISTED 11-23-2026 02:12:16:179   7% /d/50% of d'.txt";
        let parsed = Listing::parse(line);
        assert_eq!(parsed, Some(("/d/50% of d'.txt".to_owned(), Listing { length: 3, percentage: 7 })));
        assert_eq!(Listing::parse("     5       PERSISTED 11-23-2026 02:12:16:179  DIR /d/50% of"), None);
    }
}
