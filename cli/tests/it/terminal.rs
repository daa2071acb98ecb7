//! The real program on a real terminal (a pty of 80 columns).

use crate::{
    fixture::{command, life},
    server::{Script, Server, Step, sends},
};
use nix::pty::{Winsize, openpty};
use std::{fs::File, io::Read, sync::Arc, time::Duration};
use tokio::sync::Notify;

const QUARTER: &str = "25%, 1.00 GiB of 4.00 GiB";

/// Watches a whole life, which stands still at 25% until the terminal shows it. Returns the exit code and
/// every byte that the terminal got.
async fn watched(args: &[&str], env: &[(&str, &str)]) -> (Option<i32>, String) {
    let shown = Arc::new(Notify::new());
    let stand = Step::Wait(shown.clone());
    let server = Server::tcp(Script {
        get: Box::new(|_, _| Ok(life().remove(0))),
        watch: Box::new(move |_, _| {
            let life = life();
            Ok([sends(&life[..5]), vec![stand.clone()], sends(&life[5..])].concat())
        }),
        ..Script::default()
    });
    let size = Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
    let pty = openpty(&size, None).unwrap();
    let mut command = command(&server.address, args);
    command.env("TERM", "xterm-256color").envs(env.iter().copied());
    command.stdout(pty.slave.try_clone().unwrap()).stderr(pty.slave);
    let mut child = command.spawn().unwrap();
    // It holds the terminal too, and reading ends when nobody does.
    drop(command);
    let mut master = File::from(pty.master);
    let reader = tokio::task::spawn_blocking(move || {
        let (mut bytes, mut chunk) = (Vec::new(), [0; 4096]);
        // Linux reports the end of a pty as EIO, after everything was read.
        while let Ok(read @ 1..) = master.read(&mut chunk) {
            bytes.extend_from_slice(&chunk[..read]);
            if String::from_utf8_lossy(&bytes).contains(QUARTER) {
                shown.notify_one();
            }
        }
        String::from_utf8_lossy(&bytes).into_owned()
    });
    let status = tokio::time::timeout(Duration::from_secs(120), child.wait()).await.unwrap().unwrap();
    (status.code(), reader.await.unwrap())
}

#[tokio::test]
async fn a_bar_while_it_lasts_and_lines_that_stay() {
    let (code, output) = watched(&["watch", "a"], &[]).await;
    assert_eq!(code, Some(0), "{output}");
    assert!(output.contains("[=====") && output.contains(QUARTER), "{output:?}");
    assert!(output.contains("\u{1b}[32mLOADED\u{1b}[0m"), "{output:?}");
    let told = |state| console::strip_ansi_codes(&output).contains(&format!("Z a {state}"));
    for state in ["QUEUED", "WAITING", "LISTING", "LOADING", "VERIFYING", "LOADED"] {
        assert!(told(state), "{state} is not in {output:?}");
    }
}

#[tokio::test]
async fn no_color_means_no_colour() {
    for (args, env) in
        [(&["watch", "a"][..], &[("NO_COLOR", "1")][..]), (&["watch", "a", "--color", "never"], &[])]
    {
        let (code, output) = watched(args, env).await;
        assert_eq!(code, Some(0), "{output}");
        let parameters = |c: char| c.is_ascii_digit() || c == ';';
        let coloured =
            output.split("\u{1b}[").skip(1).any(|rest| rest.trim_start_matches(parameters).starts_with('m'));
        assert!(!coloured, "{args:?} {env:?}: {output:?}");
    }
}
