//! What figures were measured on: the machine, and versions.

use crate::prerequisites;
use std::fs;
use std::path::Path;
use std::process::Command;

/// For a document, with a file system of interest: nothing that names the machine.
pub fn of(directory: &Path) -> String {
    let first = |path: &str, key: &str| {
        let text = fs::read_to_string(path).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default();
        line.trim_start_matches([' ', '\t', ':']).trim().to_owned()
    };
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kilobytes = first("/proc/meminfo", "MemTotal");
    let memory = kilobytes.trim_end_matches(" kB").parse::<f64>().unwrap_or_default() * 1024.0 / 1e9;
    format!(
        "{} {cores} cores ({}), {memory:.0} GB of memory, Linux {}, {} file system.\n\
         Sidecar {}, {}; Alluxio {}, {}.\n",
        said("date", &["-u", "+Measured on %Y-%m-%d:"]),
        first("/proc/cpuinfo", "model name"),
        first("/proc/sys/kernel/osrelease", ""),
        file_system(directory),
        env!("CARGO_PKG_VERSION"),
        said("rustc", &["--version"]).split(" (").next().unwrap_or_default(),
        prerequisites::ALLUXIO,
        java(),
    )
}

/// Type of the file system that holds `directory`.
pub fn file_system(directory: &Path) -> String {
    let table = said("df", &["--output=fstype", &directory.to_string_lossy()]);
    table.lines().last().unwrap_or_default().trim().to_owned()
}

fn java() -> String {
    let Ok(java) = prerequisites::java() else { return String::new() };
    let version = said(&java.to_string_lossy(), &["--version"]);
    version.lines().next().unwrap_or_default().to_owned()
}

/// What a small program prints, or nothing.
pub fn said(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).env("LC_ALL", "C").output();
    output.map(|out| String::from_utf8_lossy(&out.stdout).trim().to_owned()).unwrap_or_default()
}
