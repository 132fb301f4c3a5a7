//! Hosts on a network that a test makes for itself: network namespaces on a bridge, which stands in one of its own.
//!
//! ```text
//!   host "a"           hub              host "b"
//!   eth0 ────────── h1 [br0] h2 ────────── eth0       10.77.0.<n>/24, fd77::<n>/64, and lo
//!                       |
//!                nft: which frames from one port to another are lost
//! ```
//!
//! Names are unique, `twc-<pid>-<number>-<name>`. A host is removed with everything that still runs in it when it is
//! dropped, on a panic, too; what a killed test has left is removed by the next one. Faults are those of cables and
//! switches: a host notices a pulled cable (its carrier goes), but not a frame that is lost on the way, ARP included.

use super::{is_root, until};
use std::collections::BTreeSet;
use std::fs::File;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use twincache::sys::process::enter_network;

/// Where `ip netns` keeps namespaces.
const NAMESPACES: &str = "/run/netns";

/// The first part of every name.
const PREFIX: &str = "twc-";

/// The hosts' own interface.
const INTERFACE: &str = "eth0";

/// A network. It stays until the last of its hosts is dropped, too.
pub struct Net {
    pub bridge: Arc<Bridge>,
    hosts: AtomicUsize,
}

/// The switch between the hosts.
pub struct Bridge {
    namespace: String,
    /// From which port frames to which port are lost.
    lost: Mutex<BTreeSet<(String, String)>>,
}

/// A host of a network.
pub struct Host {
    pub name: String,
    pub ip4: Ipv4Addr,
    pub ip6: Ipv6Addr,
    /// What `ip -n` calls it.
    pub namespace: String,
    /// Its end of the cable at the bridge.
    port: String,
    bridge: Arc<Bridge>,
}

impl Net {
    /// A network without hosts, or None and a line that says why there can be none: it takes root, `ip` and `nft`.
    pub fn start() -> Option<Net> {
        let why_not = if is_root() { Net::remove_leftovers().err() } else { Some("not root".to_owned()) };
        let bridge = match why_not {
            None => Bridge::start(),
            Some(why) => Err(why),
        };
        let bridge = bridge.inspect_err(|why| println!("skipped: no network namespaces: {}", why.trim())).ok()?;
        Some(Net { bridge: Arc::new(bridge), hosts: AtomicUsize::new(0) })
    }

    /// One more host, up and reachable by all others.
    pub fn host(&self, name: &str) -> Host {
        let number = self.hosts.fetch_add(1, Ordering::Relaxed) + 1;
        let (namespace, port) = (new_name(name), format!("h{number}"));
        let (ip4, ip6) =
            (Ipv4Addr::new(10, 77, 0, number as u8), Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, number as u16));
        // Before anything that may panic, so that it is removed.
        let host = Host { name: name.into(), ip4, ip6, namespace, port, bridge: Arc::clone(&self.bridge) };
        let (inside, hub) = (&host.namespace, &self.bridge.namespace);
        must(&format!("ip netns add {inside}"));
        // The hosts' sysctls are those of a new kernel, whatever this machine's are (net.core.devconf_inherit_init_net).
        for setting in
            ["ipv6.conf.all.disable_ipv6=0", "ipv6.conf.default.disable_ipv6=0", "ipv6.conf.default.accept_ra=0"]
        {
            must(&format!("ip netns exec {inside} sysctl -qw net.{setting}"));
        }
        must(&format!("ip -n {hub} link add {} type veth peer name {INTERFACE} netns {inside}", host.port));
        must(&format!("ip -n {hub} link set {} master br0 up", host.port));
        must(&format!("ip -n {inside} link set lo up"));
        must(&format!("ip -n {inside} link set {INTERFACE} up"));
        must(&format!("ip -n {inside} address add {ip4}/24 dev {INTERFACE}"));
        must(&format!("ip -n {inside} address add {ip6}/64 dev {INTERFACE} nodad"));
        host.await_carrier();
        host
    }

    /// Removes what tests that were killed have left.
    fn remove_leftovers() -> Result<(), String> {
        let Ok(entries) = std::fs::read_dir(NAMESPACES) else { return Ok(()) };
        for name in entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()) {
            let pid = name.strip_prefix(PREFIX).and_then(|rest| rest.split_once('-')).map(|(pid, _)| pid);
            if pid.is_some_and(|pid| std::fs::metadata(format!("/proc/{pid}")).is_err()) {
                remove(&name);
            }
        }
        Ok(())
    }
}

impl Bridge {
    fn start() -> Result<Bridge, String> {
        let bridge = Bridge { namespace: new_name("hub"), lost: Mutex::default() };
        let hub = &bridge.namespace;
        shell(&format!("ip netns add {hub}"))?;
        // No snooping: a multicast frame goes to everybody, at once.
        shell(&format!("ip -n {hub} link add br0 type bridge forward_delay 0 mcast_snooping 0"))?;
        shell(&format!("ip -n {hub} link set br0 up"))?;
        shell(&format!("ip netns exec {hub} nft add table bridge faults"))?;
        let chain = "add chain bridge faults lost { type filter hook forward priority 0; }";
        shell(&format!("ip netns exec {hub} nft '{chain}'"))?;
        Ok(bridge)
    }

    /// Changes what is lost, at once.
    fn change(&self, change: impl FnOnce(&mut BTreeSet<(String, String)>)) {
        let mut lost = self.lost.lock().unwrap();
        change(&mut lost);
        let rule =
            |(from, to): &(String, String)| format!("add rule bridge faults lost iifname {from} oifname {to} drop;");
        let rules: String = lost.iter().map(rule).collect();
        must(&format!("ip netns exec {} nft 'flush chain bridge faults lost; {rules}'", self.namespace));
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        remove(&self.namespace);
    }
}

impl Host {
    /// A command that runs a program on this host. Its process id is that of the program.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace, program]);
        command
    }

    /// Runs words on this host as a shell does; what they print. They must succeed.
    pub fn run(&self, words: &str) -> String {
        let mut shell = self.command("sh");
        output(shell.args(["-c", words])).unwrap_or_else(|why| panic!("{}: {words}: {why}", self.name))
    }

    /// Runs this in a thread on this host: sockets that it opens, also in threads that it starts, and programs that it
    /// starts are on this host.
    pub fn inside<T: Send>(&self, run: impl FnOnce() -> T + Send) -> T {
        let namespace = File::open(format!("{NAMESPACES}/{}", self.namespace)).expect("the host is there");
        let enter = || enter_network(&namespace).expect("root may enter");
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                enter();
                run()
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Its interface's name.
    pub fn interface(&self) -> &'static str {
        INTERFACE
    }

    /// The hardware address of its interface.
    pub fn mac(&self) -> String {
        self.run(&format!("cat /sys/class/net/{INTERFACE}/address")).trim().to_owned()
    }

    /// Puts its cable in again.
    pub fn link_up(&self) {
        must(&format!("ip -n {} link set {} up", self.bridge.namespace, self.port));
        self.await_carrier();
    }

    /// The kernel tells its parts of a new carrier up to a second later; until then nothing is sent.
    fn await_carrier(&self) {
        for (namespace, interface) in [(&self.bridge.namespace, self.port.as_str()), (&self.namespace, INTERFACE)] {
            let link = format!("ip -n {namespace} -o link show dev {interface} up");
            until("the cable is in", || shell(&link).is_ok_and(|line| line.contains(" state UP ")));
        }
    }

    /// Pulls its cable.
    pub fn link_down(&self) {
        must(&format!("ip -n {} link set {} down", self.bridge.namespace, self.port));
    }

    /// From now on what it sends to the other is lost.
    pub fn drop_to(&self, other: &Host) {
        self.bridge.change(|lost| lost.extend([(self.port.clone(), other.port.clone())]));
    }

    /// From now on what the other sends to it is lost.
    pub fn drop_from(&self, other: &Host) {
        other.drop_to(self);
    }

    /// Nothing from it or to it is lost any more.
    pub fn heal(&self) {
        self.bridge.change(|lost| lost.retain(|(from, to)| *from != self.port && *to != self.port));
    }

    /// From now on what it sends to a port over IPv4, on the network or to itself, is late by so many milliseconds. False, and a
    /// printed line, where the kernel has no netem. 0 ends it.
    pub fn delay(&self, ms: u64, port: u16) -> bool {
        for interface in ["lo", INTERFACE] {
            let tc = |words: &str| shell(&format!("ip netns exec {} tc {words}", self.namespace));
            let _ = tc(&format!("qdisc delete dev {interface} root"));
            if ms == 0 {
                continue;
            }
            let late = [
                format!(
                    "qdisc add dev {interface} root handle 1: prio bands 4 priomap 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0"
                ),
                format!("qdisc add dev {interface} parent 1:4 netem delay {ms}ms"),
                format!("filter add dev {interface} parent 1: protocol ip u32 match ip dport {port} 0xffff flowid 1:4"),
            ];
            if let Err(why) = late.iter().try_for_each(|words| tc(words).map(drop)) {
                let _ = tc(&format!("qdisc delete dev {interface} root"));
                println!("skipped: no delays: {}", why.trim());
                return false;
            }
        }
        true
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        remove(&self.namespace);
    }
}

fn new_name(name: &str) -> String {
    static MADE: AtomicUsize = AtomicUsize::new(0);
    format!("{PREFIX}{}-{}-{name}", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed))
}

/// Removes a namespace, and ends what runs there first: it would keep the namespace.
fn remove(namespace: &str) {
    let pids = shell(&format!("ip netns pids {namespace}")).unwrap_or_default();
    for pid in pids.split_whitespace() {
        let _ = shell(&format!("kill -KILL {pid}"));
    }
    let _ = shell(&format!("ip netns delete {namespace}"));
}

fn must(words: &str) {
    shell(words).unwrap_or_else(|why| panic!("{words}: {why}"));
}

/// What a command prints, or what it says against it.
fn shell(words: &str) -> Result<String, String> {
    output(Command::new("sh").args(["-c", words]))
}

fn output(command: &mut Command) -> Result<String, String> {
    let output = command.stdin(Stdio::null()).output().map_err(|error| error.to_string())?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}
