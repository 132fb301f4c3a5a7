//! The operator's programs: their order, environment and end.

use super::{HookCall, HookRunner, Hooks, end_of, last_line, push};
use crate::sidecar::options::{AddressOptions, Vip};
use crate::sync::lock;
use crate::testing::until;
use std::collections::VecDeque;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

const LONG: Duration = Duration::from_secs(90);

/// A file that programs write to; removed when dropped.
struct Log(PathBuf);

impl Log {
    fn new(name: &str) -> Log {
        Log(std::env::temp_dir().join(format!("twincache-hooks-{}-{name}", std::process::id())))
    }

    fn text(&self) -> String {
        fs::read_to_string(&self.0).unwrap_or_default()
    }

    /// Programs that append these lines, after these commands.
    fn options(&self, before: &str, promote: &str, demote: &str) -> AddressOptions {
        let program = |line: &str| Some(format!("{before} echo \"{line}\" >> {}", self.0.display()));
        let vip = Vip { ip: [10, 0, 0, 100].into(), bits: 24, interface: "eth0".into() };
        AddressOptions { vip: Some(vip), on_promote: program(promote), on_demote: program(demote) }
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn runner() -> HookRunner {
    HookRunner { options: AddressOptions::default(), shard: "s1".into(), node: "a".into(), longest: LONG }
}

#[test]
fn programs_know_what_happened() {
    let log = Log::new("environment");
    let all = "$TWINCACHE_SHARD $TWINCACHE_NODE $TWINCACHE_EPOCH $TWINCACHE_ROLE $TWINCACHE_VIP";
    let hooks = Hooks::start(&log.options("", all, all), "s1", "a").unwrap();
    hooks.tell(HookCall::Promote(3));
    until("the first has run", || log.text().lines().count() == 1);
    hooks.tell(HookCall::Demote(3));
    hooks.end();
    until("both have run", || hooks.is_finished());
    assert_eq!(log.text(), "s1 a 3 primary 10.0.0.100/24\ns1 a 3 standby 10.0.0.100/24\n");
}

#[test]
fn programs_run_in_order_and_nobody_waits() {
    let log = Log::new("order");
    let gate = Log::new("gate");
    let wait = format!("until [ -e {} ]; do sleep 0.01; done;", gate.0.display());
    let hooks = Hooks::start(&log.options(&wait, "up $TWINCACHE_EPOCH", "down $TWINCACHE_EPOCH"), "s1", "a").unwrap();
    hooks.tell(HookCall::Promote(1));
    until("the first runs", || lock(&hooks.shared.calls).pending.is_empty());
    for epoch in 2..100 {
        hooks.tell(HookCall::Demote(epoch - 1));
        hooks.tell(HookCall::Promote(epoch));
    }
    assert_eq!(log.text(), "");
    fs::write(&gate.0, "").unwrap();
    hooks.end();
    until("all have run", || hooks.is_finished());
    assert_eq!(log.text(), "up 1\ndown 98\nup 99\n");
}

#[test]
fn only_the_last_of_each_is_pending() {
    let (up, down) = (HookCall::Promote, HookCall::Demote);
    let table = [
        (vec![up(1), up(2)], vec![up(2)]),
        (vec![up(1), down(1)], vec![down(1)]),
        (vec![down(1), up(2), down(2), up(3)], vec![down(2), up(3)]),
        (vec![down(1), up(2), up(3)], vec![down(1), up(3)]),
        (vec![down(1), down(2)], vec![down(2)]),
    ];
    for (calls, expected) in table {
        let mut pending = VecDeque::new();
        calls.iter().for_each(|call| push(&mut pending, *call));
        assert_eq!(pending, expected, "{calls:?}");
    }
}

#[test]
fn a_program_that_hangs_is_killed_with_its_children() {
    let log = Log::new("hangs");
    let before = format!("sleep 1000 & echo $! > {}; echo hangs >&2; wait;", log.0.display());
    let limit = Duration::from_millis(300);
    let hooks = Hooks::start_with(&log.options(&before, "", ""), "s1", "a", limit).unwrap();
    hooks.tell(HookCall::Promote(1));
    hooks.end();
    until("it was killed", || hooks.is_finished());
    let child = log.text().trim().to_owned();
    // A zombie that nobody has waited for yet is dead, too.
    let is_dead = || fs::read_to_string(format!("/proc/{child}/stat")).map_or(true, |stat| stat.contains(") Z "));
    until("its child was killed", || !child.is_empty() && is_dead());
}

#[test]
fn the_end_of_a_program_is_told() {
    let run = |words: &str| {
        let (status, said) = end_of(runner().command(words, "primary", 1).spawn().unwrap(), LONG).unwrap();
        (status.unwrap().to_string(), said)
    };
    assert_eq!(
        run("echo one >&2; echo 'no such route' >&2; echo >&2; exit 3"),
        ("exit status: 3".into(), "no such route".into())
    );
    assert_eq!(
        run("head -c 1000000 /dev/zero | tr '\\0' x >&2; echo >&2; echo end >&2").1,
        "end",
        "a full pipe holds nothing up"
    );
    let begin = Instant::now();
    let (status, left) = run("sleep 100 & echo $! >&2; exit 1");
    assert!(
        status == "exit status: 1" && begin.elapsed() < Duration::from_secs(60),
        "what it leaves is not waited for"
    );
    assert_eq!(run(&format!("kill {left}")).0, "exit status: 0");
    assert!(last_line(b"").contains("nothing"));
}

#[test]
fn signals_reach_programs() {
    // A thread of its own, whose mask is that of the sidecar's threads.
    let run = || {
        crate::sys::process::block_signals().unwrap();
        end_of(runner().command("kill -TERM $$; exit 7", "primary", 1).spawn().unwrap(), LONG).unwrap().0.unwrap()
    };
    let status = std::thread::spawn(run).join().unwrap();
    assert_eq!(status.to_string(), "signal: 15 (SIGTERM)");
}
