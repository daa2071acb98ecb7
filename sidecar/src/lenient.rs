//! What can be made of a command line that is not valid: whether to stay up, and where to say why.
//!
//! Pure: arguments and environment are given. Only ever used where clap has refused, or as a first look.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::config::LogFormat;

/// As `PRELOAD_STAY_UP` and its like spell no.
const NO: [&str; 7] = ["", "0", "false", "f", "no", "n", "off"];

/// Arguments after the program's name, and a look at the environment.
pub struct Lenient<'a> {
    arguments: &'a [String],
    environment: &'a dyn Fn(&str) -> Option<String>,
}

impl std::fmt::Debug for Lenient<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lenient").field("arguments", &self.arguments).finish_non_exhaustive()
    }
}

impl<'a> Lenient<'a> {
    #[must_use]
    pub fn new(arguments: &'a [String], environment: &'a dyn Fn(&str) -> Option<String>) -> Self {
        Self { arguments, environment }
    }

    /// A server that shall not end by itself; other subcommands end when they are done.
    #[must_use]
    pub fn stays_up(&self) -> bool {
        let serves = self.arguments.iter().any(|argument| argument == "serve");
        let told = (self.environment)("PRELOAD_STAY_UP");
        let told = told.is_some_and(|value| !NO.contains(&value.to_lowercase().as_str()));
        serves && (told || self.arguments.iter().any(|argument| argument == "--stay-up"))
    }

    /// The address as given; with what is a port at its end; else the default.
    #[must_use]
    pub fn admin_listen(&self, default: SocketAddr) -> SocketAddr {
        let Some(given) = self.value("--admin-listen", "PRELOAD_ADMIN_LISTEN") else { return default };
        let port = || given.rsplit(':').next().and_then(|port| port.parse().ok());
        let any = |port| SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port);
        given.parse().ok().or_else(|| port().map(any)).unwrap_or(default)
    }

    #[must_use]
    pub fn log_format(&self) -> LogFormat {
        match self.value("--log-format", "PRELOAD_LOG_FORMAT").as_deref() {
            Some("json") => LogFormat::Json,
            _ => LogFormat::Text,
        }
    }

    /// The last one given.
    fn value(&self, flag: &str, variable: &str) -> Option<String> {
        let after = |(at, argument): (usize, &String)| {
            let rest = argument.strip_prefix(flag)?;
            if rest.is_empty() {
                self.arguments.get(at + 1).cloned()
            } else {
                rest.strip_prefix('=').map(str::to_owned)
            }
        };
        let last = self.arguments.iter().enumerate().filter_map(after).next_back();
        last.or_else(|| (self.environment)(variable))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEFAULT: &str = "127.0.0.1:29701";

    fn ask<T>(arguments: &[&str], environment: &[(&str, &str)], ask: impl FnOnce(&Lenient<'_>) -> T) -> T {
        let arguments: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        let get = |name: &str| environment.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned());
        ask(&Lenient::new(&arguments, &get))
    }

    #[test]
    fn only_a_server_that_is_told_stays_up() {
        let stays = |arguments: &[&str], value: Option<&str>| {
            let environment: Vec<_> = value.map(|value| ("PRELOAD_STAY_UP", value)).into_iter().collect();
            ask(arguments, &environment, |lenient| lenient.stays_up())
        };
        for yes in ["true", "1", "yes", "TRUE"] {
            assert!(stays(&["serve", "--nonsense"], Some(yes)), "{yes}");
        }
        for no in [None, Some("false"), Some("0"), Some("")] {
            assert!(!stays(&["serve"], no), "{no:?}");
        }
        assert!(stays(&["serve", "--stay-up", "--nonsense"], None));
        assert!(!stays(&["healthcheck", "--nonsense"], Some("true")));
        assert!(!stays(&["install"], Some("true")));
    }

    #[test]
    fn the_admin_address_is_found_among_nonsense() {
        let default: SocketAddr = DEFAULT.parse().unwrap();
        for (arguments, variable, found) in [
            (vec!["serve", "--admin-listen", "1.2.3.4:5", "--nonsense"], None, "1.2.3.4:5"),
            (vec!["serve", "--nonsense", "--admin-listen=1.2.3.4:5"], Some("4.3.2.1:5"), "1.2.3.4:5"),
            (vec!["serve", "--admin-listen=1.1.1.1:1", "--admin-listen=2.2.2.2:2"], None, "2.2.2.2:2"),
            (vec!["serve"], Some("4.3.2.1:5"), "4.3.2.1:5"),
            (vec!["serve", "--admin-listen=[::]:5"], None, "[::]:5"),
            (vec!["serve", "--admin-listen=localhost:5"], None, "0.0.0.0:5"),
            (vec!["serve", "--admin-listen=5"], None, "0.0.0.0:5"),
            (vec!["serve", "--admin-listen=nowhere"], None, DEFAULT),
            (vec!["serve", "--admin-listener=1.2.3.4:5"], None, DEFAULT),
            (vec!["serve", "--admin-listen"], None, DEFAULT),
        ] {
            let environment: Vec<_> =
                variable.map(|value| ("PRELOAD_ADMIN_LISTEN", value)).into_iter().collect();
            let address = ask(&arguments, &environment, |lenient| lenient.admin_listen(default));
            assert_eq!(address, found.parse().unwrap(), "{arguments:?} {variable:?}");
        }
    }
}
