//! A watch on a terminal: one or two living lines, and the changes of state above them.

use super::lines::Changes;
use crate::words::{self, Paint};
use alluxio_preload_api::v1::{Load, load::State};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Resolution of the bar; bytes themselves could grow beyond its length while a load runs.
const LENGTH: u64 = 100;
const SPINNER: &str = "{spinner} {prefix}  {wide_msg}";
const BAR: &str = "{spinner} {prefix} [{wide_bar}]\n  {wide_msg}";

#[derive(Debug)]
pub(crate) struct Bar {
    bar: ProgressBar,
    changes: Changes,
    paint: Paint,
    measured: bool,
}

impl Bar {
    pub(super) fn new(target: ProgressDrawTarget, paint: Paint) -> Self {
        let bar = ProgressBar::with_draw_target(Some(LENGTH), target).with_style(style(SPINNER));
        Self { bar, changes: Changes::new(paint), paint, measured: false }
    }

    pub(super) fn load(&mut self, load: &Load) {
        for line in self.changes.lines(load) {
            self.bar.println(line);
        }
        let measured = matches!(load.state(), State::Loading | State::Verifying);
        if measured != self.measured {
            self.bar.set_style(style(if measured { BAR } else { SPINNER }));
            self.measured = measured;
        }
        self.bar.set_prefix(self.paint.state(load.state()));
        self.bar.set_message(if measured { words::working(load) } else { words::headline(load) });
        self.bar.set_position(words::percent(load).unwrap_or(0));
    }

    pub(super) fn lost(&self, line: String) {
        self.bar.set_message(line);
    }

    pub(super) fn tick(&self) {
        self.bar.tick();
    }

    pub(super) fn close(&self) {
        self.bar.finish_and_clear();
    }
}

/// The templates are constants; a broken one shows indicatif's default and fails the test below.
fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ")
        .tick_chars("-\\|/ ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::words::tests::load;
    use alluxio_preload_api::v1::load::{Reason, Transition};
    use indicatif::TermLike;
    use std::{
        io,
        sync::{Arc, Mutex},
    };

    /// A terminal that remembers what is on it, as lines.
    #[derive(Debug, Clone)]
    struct Screen {
        width: u16,
        state: Arc<Mutex<(Vec<String>, usize)>>,
    }

    impl Screen {
        fn new(width: u16) -> Self {
            Self { width, state: Arc::new(Mutex::new((vec![String::new()], 0))) }
        }

        fn text(&self) -> String {
            let lines = self.state.lock().unwrap().0.clone();
            lines.iter().map(|l| l.trim_end()).filter(|l| !l.is_empty()).collect::<Vec<_>>().join("\n")
        }

        fn move_to(&self, change: impl FnOnce(usize) -> usize) -> io::Result<()> {
            let (lines, row) = &mut *self.state.lock().unwrap();
            *row = change(*row);
            lines.resize(lines.len().max(*row + 1), String::new());
            Ok(())
        }
    }

    impl TermLike for Screen {
        fn width(&self) -> u16 {
            self.width
        }
        fn move_cursor_up(&self, n: usize) -> io::Result<()> {
            self.move_to(|row| row.saturating_sub(n))
        }
        fn move_cursor_down(&self, n: usize) -> io::Result<()> {
            self.move_to(|row| row + n)
        }
        fn move_cursor_right(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn move_cursor_left(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn write_line(&self, text: &str) -> io::Result<()> {
            self.write_str(text)?;
            self.move_to(|row| row + 1)
        }
        fn write_str(&self, text: &str) -> io::Result<()> {
            let (lines, row) = &mut *self.state.lock().unwrap();
            for c in text.chars() {
                if console::measure_text_width(&lines[*row]) >= usize::from(self.width) {
                    *row += 1;
                    lines.resize(lines.len().max(*row + 1), String::new());
                }
                lines[*row].push(c);
            }
            Ok(())
        }
        fn clear_line(&self) -> io::Result<()> {
            let (lines, row) = &mut *self.state.lock().unwrap();
            lines[*row].clear();
            Ok(())
        }
        fn flush(&self) -> io::Result<()> {
            Ok(())
        }
    }

    fn shown(width: u16) -> (Bar, Screen) {
        let screen = Screen::new(width);
        let target = ProgressDrawTarget::term_like(Box::new(screen.clone()));
        (Bar::new(target, Paint { on: false }), screen)
    }

    #[test]
    fn templates_are_valid() {
        for template in [SPINNER, BAR] {
            ProgressStyle::with_template(template).unwrap();
        }
    }

    #[test]
    fn bar_with_figures_below_and_changes_above() {
        let (mut bar, screen) = shown(60);
        let mut load = load(State::Waiting);
        load.set_reason(Reason::WorkersMissing);
        load.message = "1 of 2 workers are live, and that is rather little for two replicas".into();
        bar.load(&load);
        insta::assert_snapshot!(screen.text(), @r"
        1970-01-01T00:00:30Z a WAITING  WORKERS_MISSING: 1 of 2 work
        ers are live, and that is rather little for two replicas
        \ WAITING  WORKERS_MISSING: 1 of 2 workers are live, and tha
        ");

        load.set_state(State::Loading);
        load.set_reason(Reason::Unspecified);
        load.message.clear();
        load.sequence += 1;
        load.transitions = vec![Transition {
            to: State::Loading.into(),
            time: crate::words::tests::at(30),
            sequence: load.sequence,
            ..Transition::default()
        }];
        bar.load(&load);
        bar.tick();
        insta::assert_snapshot!(screen.text(), @r"
        1970-01-01T00:00:30Z a WAITING  WORKERS_MISSING: 1 of 2 work
        ers are live, and that is rather little for two replicas
        1970-01-01T00:00:30Z a LOADING  41%, 1.25 GiB of 3.00 GiB, 4
        20 of 1,000 files, 120.00 MiB/s, 14s left
        / LOADING [===================>                            ]
          41%, 1.25 GiB of 3.00 GiB, 420 of 1,000 files, 120.00 MiB/
        ");

        bar.close();
        let left = screen.text();
        assert!(!left.contains("[=") && left.ends_with("14s left"), "{left}");
    }
}
