//! The tables of docs/messages.md, and what a row says.

/// First cells of the rows below the heads.
pub(super) fn rows(document: &str) -> Vec<String> {
    let lines: Vec<_> = document.lines().collect();
    let is_rule = |line: Option<&&str>| line.is_some_and(|line| line.starts_with("|---"));
    let rows =
        lines.iter().enumerate().filter(|(at, line)| line.starts_with("| ") && !is_rule(lines.get(at + 1)));
    let cells = rows.filter_map(|(_, line)| line.split(" | ").next()?.strip_prefix("| "));
    cells.map(|cell| plain(&cell.replace("\\|", "|"))).collect()
}

/// Rows with all pieces of the message, one after the other. It is no part of a longer one: what surrounds it is
/// punctuation, or has the place of a placeholder at its end.
pub(super) fn having<'a>(rows: &'a [String], message: &str) -> Vec<&'a String> {
    let pieces = pieces(message);
    let [first, ..] = &pieces[..] else { return Vec::new() };
    let (open_begin, open_end) = (message.starts_with(['{', ' ']), message.ends_with(['}', ' ']));
    let has = |row: &&String| {
        row.match_indices(first.as_str()).any(|(at, _)| {
            (open_begin || is_edge(row[..at].trim_end().chars().next_back()))
                && has_in_order(&row[at..], &pieces, open_end)
        })
    };
    rows.iter().filter(has).collect()
}

fn has_in_order(text: &str, pieces: &[String], open_end: bool) -> bool {
    let [piece, later @ ..] = pieces else { return true };
    if later.is_empty() {
        let is_last = |(at, _)| open_end || is_edge(text[at + piece.len()..].trim_start().chars().next());
        return text.match_indices(piece.as_str()).any(is_last);
    }
    text.split_once(piece.as_str()).is_some_and(|(_, rest)| has_in_order(rest, later, open_end))
}

/// No sentence goes on with it.
fn is_edge(next: Option<char>) -> bool {
    next.is_none_or(|next| !next.is_alphanumeric() && !"-'".contains(next))
}

/// What is between placeholders, if it has words.
pub(super) fn pieces(message: &str) -> Vec<String> {
    let pieces = message.split(['{', '}']).step_by(2).map(plain);
    let bare = pieces.map(|piece| piece.trim_matches(|c: char| " .,:;()'\"/".contains(c)).to_owned());
    bare.filter(|piece| piece.contains(char::is_alphabetic)).collect()
}

/// With one space between words, and without marks of code.
fn plain(text: &str) -> String {
    text.replace('`', "").split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn a_row_has_whole_messages() {
    let document = "| message | who acts |\n|---|---|\n| load ... is `...`; cancel it first, it is empty | us |\n| a \\| b | us |";
    let rows = rows(document);
    assert_eq!(rows, ["load ... is ...; cancel it first, it is empty", "a | b"]);
    let said = |message: &str| having(&rows, message) == [&rows[0]];
    assert!(
        said("load {id} is {state:?}; cancel it first") && said("it is empty") && said("{file} is empty")
    );
    assert!(!said("is empty"), "a part of another");
    assert!(!said("cancel it"), "a part of another");
    assert!(!said("load {id} is {state:?}; verify it first"), "one piece alone");
    assert!(!said("cancel it first; load {id}"), "in another order");
}
