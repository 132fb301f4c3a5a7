//! `check`: one line for a monitoring system, with the exit codes and figures that nagios reads.
//!
//! ```text
//!   HOST:PORT          stats        answers? connections near the limit?
//!   http://HOST:PORT   /health      what the sidecar says
//!   none of these      etcd         what is wrong with the cluster's shards
//!        a thread for each, and 8 s for them all
//!        worst of all ──> TWINCACHE OK - …   0    WARNING 1    CRITICAL 2    UNKNOWN 3     | figures
//! ```
//!
//! Invariant: whatever servers, sidecars and etcd do, or do not do, the line comes before the monitoring system's patience ends:
//! nagios waits for 10 s, and takes a check that it had to end for less than critical. Nobody waits for a thread
//! that is late; it ends with the process.
//!
//! Not here: what is wrong with a shard (`diagnosis`).

use super::console::Console;
use super::diagnosis::problems;
use super::dial::{Dialed, number_of};
use super::exit::{CtlExit, harmless};
use super::options::DialOptions;
use super::show::seen;
use super::view::ShardView;
use crate::cluster::options::ClusterOptions;
use std::io;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

/// How long all servers, sidecars or etcd may take together: looking up names, connecting, TLS, login and answer.
const ANSWERS_MAX: Duration = Duration::from_secs(8);

/// From this share of the connections on it is a warning, and from the next one on critical, in percent.
const CONNECTIONS: (u64, u64) = (80, 95);

/// How bad it is, the worst last. Unknown is worse than well, and no worse than what is known to be bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Severity {
    Ok,
    Unknown,
    Warning,
    Critical,
}

/// What is said of one thing that was looked at.
#[derive(Debug)]
struct CheckedThing {
    severity: Severity,
    line: String,
    figures: Vec<String>,
}

impl CheckedThing {
    fn new(severity: Severity, line: String) -> CheckedThing {
        CheckedThing { severity, line, figures: Vec::new() }
    }
}

/// Checks servers and sidecars, all at once.
pub(super) fn servers(addresses: &[String], dial: &DialOptions) -> CtlExit {
    let until = Instant::now() + ANSWERS_MAX;
    let asked: Vec<_> = addresses.iter().map(|address| (address, begin(address, dial))).collect();
    ended(asked.into_iter().map(|(address, asked)| in_time(address, asked, until)).collect())
}

/// Checks one on a thread of its own.
fn begin(address: &str, dial: &DialOptions) -> io::Result<Receiver<CheckedThing>> {
    let (address, dial) = (address.to_owned(), dial.clone());
    on_thread(move || match address.strip_prefix("http://") {
        Some(sidecar) => health(sidecar),
        None => server(&address, &dial),
    })
}

/// What `look` finds will come here.
fn on_thread<T: Send + 'static>(look: impl FnOnce() -> T + Send + 'static) -> io::Result<Receiver<T>> {
    let (found, finds) = channel();
    // Who asked may have given up.
    thread::Builder::new().name("check".to_owned()).spawn(move || drop(found.send(look())))?;
    Ok(finds)
}

fn in_time(address: &str, asked: io::Result<Receiver<CheckedThing>>, until: Instant) -> CheckedThing {
    let asked = match asked {
        Ok(asked) => asked,
        Err(error) => return CheckedThing::new(Severity::Unknown, format!("a thread for {address}: {error}")),
    };
    asked.recv_timeout(until.saturating_duration_since(Instant::now())).unwrap_or_else(|_| {
        let line = format!("{address}: no whole answer within {} s", ANSWERS_MAX.as_secs());
        CheckedThing::new(Severity::Critical, line)
    })
}

/// Checks a cluster.
pub(super) fn cluster(options: &ClusterOptions) -> CtlExit {
    let (options, until) = (options.clone(), Instant::now() + ANSWERS_MAX);
    let seen = on_thread(move || Console::new(&options).and_then(|mut console| seen(&mut console, &[])));
    let shards = match seen {
        Ok(seen) => seen.recv_timeout(until.saturating_duration_since(Instant::now())).unwrap_or_else(|_| {
            let line = format!("etcd: no whole answer within {} s", ANSWERS_MAX.as_secs());
            Err(CtlExit::refuse(CtlExit::UNAVAILABLE, &line))
        }),
        Err(error) => Err(CtlExit::not_done(&format!("a thread for etcd: {error}"))),
    };
    match shards {
        // The cluster could not be looked at.
        Err(exit) => ended(vec![CheckedThing::new(Severity::Unknown, exit.reason().to_owned())]),
        Ok(shards) if shards.is_empty() => ended(vec![CheckedThing::new(Severity::Unknown, "no shards".to_owned())]),
        Ok(shards) => ended(shards.iter().map(|(name, view)| shard(name, view)).collect()),
    }
}

fn server(address: &str, dial: &DialOptions) -> CheckedThing {
    let rows = match Dialed::to(address, dial).and_then(|mut dialed| dialed.stats("")) {
        Ok(rows) => rows,
        // A fault of this program's options says nothing of the server.
        Err(exit) if exit.code == CtlExit::USAGE => {
            return CheckedThing::new(Severity::Unknown, exit.reason().to_owned());
        }
        Err(exit) => return CheckedThing::new(Severity::Critical, exit.reason().to_owned()),
    };
    judged(address, &rows)
}

/// By its statistics.
fn judged(address: &str, rows: &[(String, String)]) -> CheckedThing {
    let of = |name: &str| number_of(rows, name);
    let (Some(open), Some(most)) = (of("curr_connections"), of("max_connections")) else {
        return CheckedThing::new(Severity::Unknown, format!("{address}: its statistics have no connections"));
    };
    let severity = match open.saturating_mul(100).checked_div(most).unwrap_or(100) {
        percent if percent >= CONNECTIONS.1 => Severity::Critical,
        _ if of("accepting_conns") == Some(0) => Severity::Critical,
        percent if percent >= CONNECTIONS.0 => Severity::Warning,
        _ => Severity::Ok,
    };
    let counter = |name: &'static str| of(name).map(|value| format!("'{address} {name}'={value}c"));
    let edge = |percent: u64| most.saturating_mul(percent) / 100;
    let mut figures =
        vec![format!("'{address} connections'={open};{};{};0;{most}", edge(CONNECTIONS.0), edge(CONNECTIONS.1))];
    figures.extend(["get_hits", "get_misses", "evictions"].into_iter().filter_map(counter));
    figures.extend(of("bytes").map(|bytes| format!("'{address} bytes'={bytes}B")));
    CheckedThing { severity, line: format!("{address}: {open} of {most} connections"), figures }
}

/// What a sidecar says of itself and its copies.
fn health(sidecar: &str) -> CheckedThing {
    let asked = Dialed::to(sidecar, &DialOptions::default()).and_then(|mut dialed| {
        dialed.ask(format!("GET /health HTTP/1.0\r\nHost: {sidecar}\r\nConnection: close\r\n\r\n").as_bytes())
    });
    match asked {
        Ok(status) if status.split(' ').nth(1) == Some("200") => {
            CheckedThing::new(Severity::Ok, format!("sidecar {sidecar}: healthy"))
        }
        Ok(status) => CheckedThing::new(Severity::Critical, format!("sidecar {sidecar}: {status}; see its /health")),
        Err(exit) => CheckedThing::new(Severity::Critical, exit.reason().to_owned()),
    }
}

fn shard(name: &str, view: &ShardView) -> CheckedThing {
    let problems = problems(view);
    let severity = match view.owner() {
        Some(_) if problems.is_empty() => Severity::Ok,
        Some(_) if !view.is_owner_silent => Severity::Warning,
        _ => Severity::Critical,
    };
    let line = if problems.is_empty() { "all is well".to_owned() } else { problems.join(", ") };
    CheckedThing::new(severity, format!("shard {name}: {line}"))
}

/// The line and the exit code of all that was looked at, the worst first.
fn ended(mut verdicts: Vec<CheckedThing>) -> CtlExit {
    verdicts.sort_by_key(|verdict| std::cmp::Reverse(verdict.severity));
    let (name, code) = match verdicts.first().map(|verdict| verdict.severity) {
        Some(Severity::Ok) => ("OK", 0),
        Some(Severity::Warning) => ("WARNING", 1),
        Some(Severity::Critical) => ("CRITICAL", 2),
        Some(Severity::Unknown) | None => ("UNKNOWN", 3),
    };
    // A bar would begin the figures, and a line end the next line.
    let clean = |text: &str| harmless(&text.replace(['|', '\n', '\r'], " "));
    let lines: Vec<String> = verdicts.iter().map(|verdict| clean(&verdict.line)).collect();
    let figures: Vec<String> = verdicts.into_iter().flat_map(|verdict| verdict.figures).collect();
    let figures = if figures.is_empty() { String::new() } else { format!(" | {}", figures.join(" ")) };
    let stdout = format!("TWINCACHE {name} - {}{figures}\n", lines.join("; "));
    // A line that is lost tells of nothing, but critical stays critical.
    CtlExit { stdout, lost_code: if name == "CRITICAL" { code } else { 3 }, ..CtlExit::silent(code) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(open: u64) -> Vec<(String, String)> {
        let rows = [("curr_connections", open), ("max_connections", 100), ("accepting_conns", 1), ("get_hits", 7)];
        rows.map(|(name, value)| (name.to_owned(), value.to_string())).to_vec()
    }

    #[test]
    fn connections_near_the_limit() {
        for (open, code) in [(0, 0), (79, 0), (80, 1), (94, 1), (95, 2), (200, 2)] {
            let exit = ended(vec![judged("h:1", &rows(open))]);
            assert_eq!(exit.code, code, "{}", exit.stdout);
        }
        let line = ended(vec![judged("h:1", &rows(5))]).stdout;
        let wanted = "TWINCACHE OK - h:1: 5 of 100 connections | 'h:1 connections'=5;80;95;0;100 'h:1 get_hits'=7c\n";
        assert_eq!(line, wanted);
        assert_eq!(ended(vec![judged("h:1", &[])]).code, 3);
    }

    #[test]
    fn the_worst_comes_first() {
        let verdicts = [Severity::Ok, Severity::Critical, Severity::Unknown, Severity::Warning];
        let exit = ended(
            verdicts.into_iter().map(|severity| CheckedThing::new(severity, format!("{severity:?}|\n"))).collect(),
        );
        assert_eq!((exit.code, exit.stdout.matches('|').count(), exit.stdout.lines().count()), (2, 0, 1));
        assert!(exit.stdout.starts_with("TWINCACHE CRITICAL - Critical"), "{}", exit.stdout);
        assert_eq!(ended(Vec::new()).code, 3);
    }
}
