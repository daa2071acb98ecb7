//! Columns that line up, whatever the characters in them. Pure.

use crate::text;
use console::{Alignment, measure_text_width, pad_str, truncate_str};

const GAP: usize = 2;
/// No column is cut below this many cells.
const NARROWEST: usize = 8;

#[derive(Debug, Clone, Copy)]
pub(crate) struct Column {
    pub(crate) title: &'static str,
    pub(crate) right: bool,
    /// May be cut on a narrow terminal; its text comes from outside and is escaped.
    pub(crate) free: bool,
}

impl Column {
    pub(crate) const fn left(title: &'static str) -> Self {
        Self { title, right: false, free: false }
    }

    pub(crate) const fn right(title: &'static str) -> Self {
        Self { title, right: true, free: false }
    }

    pub(crate) const fn free(title: &'static str) -> Self {
        Self { title, right: false, free: true }
    }
}

/// A header and one line for each row. `width` is that of the terminal; without one nothing is cut.
pub(crate) fn table<const N: usize>(
    columns: &[Column; N],
    rows: &[[String; N]],
    width: Option<usize>,
) -> String {
    let header = columns.map(|column| column.title.to_owned());
    let rows: Vec<[String; N]> = std::iter::once(header)
        .chain(rows.iter().map(|row| {
            std::array::from_fn(|i| {
                if columns[i].free { text::clean(&row[i]).into_owned() } else { row[i].clone() }
            })
        }))
        .collect();
    let widest = |i: usize| rows.iter().map(|row| measure_text_width(&row[i])).max().unwrap_or(0);
    let widths = fit(columns, std::array::from_fn(widest), width);
    let mut out = String::new();
    for row in &rows {
        let mut line = String::new();
        for (i, cell) in row.iter().enumerate() {
            let alignment = if columns[i].right { Alignment::Right } else { Alignment::Left };
            let cell = truncate_str(cell, widths[i], "…");
            line.push_str(&pad_str(&cell, widths[i], alignment, None));
            line.push_str(&" ".repeat(GAP));
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

/// Takes cells from the widest free column until the table fits, or all are at their narrowest.
fn fit<const N: usize>(columns: &[Column; N], mut widths: [usize; N], limit: Option<usize>) -> [usize; N] {
    let Some(limit) = limit else { return widths };
    let gaps = GAP * N.saturating_sub(1);
    let excess = (widths.iter().sum::<usize>() + gaps).saturating_sub(limit);
    for _ in 0..excess {
        let free = (0..N).filter(|&i| columns[i].free && widths[i] > NARROWEST);
        let Some(widest) = free.max_by_key(|&i| widths[i]) else { break };
        widths[widest] -= 1;
    }
    widths
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const COLUMNS: [Column; 3] = [Column::left("ID"), Column::free("PATH"), Column::right("SIZE")];

    fn row(id: &str, path: &str, size: &str) -> [String; 3] {
        [id.into(), path.into(), size.into()]
    }

    #[test]
    fn wide_characters_and_colours_line_up_and_controls_are_escaped() {
        let rows = [
            row("a", "/データ/学習", "1 B"),
            row("\u{1b}[32mb\u{1b}[0m", "/e\u{301}té", "12 B"),
            row("c", "/x\u{1b}[2J\ny", "1 GiB"),
        ];
        insta::assert_snapshot!(console::strip_ansi_codes(&table(&COLUMNS, &rows, None)), @r"
        ID  PATH             SIZE
        a   /データ/学習      1 B
        b   /été             12 B
        c   /x\u{1b}[2J\ny  1 GiB
        ");
    }

    #[test]
    fn a_narrow_terminal_cuts_free_columns_only() {
        let rows = [row("0123456789", "/データ/a/long/path/of/many/parts", "1 GiB")];
        insta::assert_snapshot!(table(&COLUMNS, &rows, Some(40)), @r"
        ID          PATH                    SIZE
        0123456789  /データ/a/long/path/…  1 GiB
        ");
        insta::assert_snapshot!(table(&COLUMNS, &rows, Some(1)), @r"
        ID          PATH       SIZE
        0123456789  /データ…  1 GiB
        ");
    }

    proptest! {
        #[test]
        fn any_text_keeps_the_last_column_in_place(paths in prop::collection::vec(any::<String>(), 1..8)) {
            let rows: Vec<_> = paths.iter().map(|path| row("id", path, "end")).collect();
            for width in [None, Some(40)] {
                let table = table(&COLUMNS, &rows, width);
                prop_assert_eq!(table.lines().count(), rows.len() + 1);
                let ends: std::collections::HashSet<usize> =
                    table.lines().map(measure_text_width).collect();
                prop_assert_eq!(ends.len(), 1, "{}", table);
                prop_assert!(width.is_none_or(|width| ends.iter().all(|end| *end <= width)), "{}", table);
            }
        }
    }
}
