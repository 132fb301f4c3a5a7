//! The shard's address, on hosts that are network namespaces. Needs root; else each test says that it is skipped.

mod common;

use common::{DEADLINE, Folder, Host, Net, freeze, signal, until};
use std::collections::BTreeMap;
use std::net::{SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::{Duration, Instant};
use twincache::sidecar::lease::address::Address;
use twincache::sidecar::options::{AddressOptions, SidecarExit, Vip};
use twincache::sys::cpu::time_since_boot;

/// Whether one host reaches the other, at most a moment later.
fn reaches(from: &Host, to: &Host) -> bool {
    from.inside(|| {
        let udp = UdpSocket::bind((from.ip4, 0)).unwrap();
        let answer = to.inside(|| UdpSocket::bind((to.ip4, 0)).unwrap());
        answer.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        udp.send_to(b"?", answer.local_addr().unwrap()).unwrap();
        answer.recv(&mut [0; 8]).is_ok()
    })
}

#[test]
fn hosts_have_cables_that_lose_what_they_should() {
    let Some(net) = Net::start() else { return };
    let (a, b, c) = (net.host("a"), net.host("b"), net.host("c"));
    assert!(reaches(&a, &b) && reaches(&b, &a) && reaches(&c, &a));
    a.run(&format!("ping -c 1 -W 5 {}", b.ip6));
    a.drop_to(&b);
    assert!(!reaches(&a, &b) && reaches(&b, &c) && reaches(&a, &c));
    a.heal();
    a.drop_from(&c);
    assert!(reaches(&a, &b) && reaches(&a, &c) && !reaches(&c, &a));
    a.heal();
    assert!(reaches(&c, &a));
    a.link_down();
    assert!(!reaches(&b, &a));
    a.link_up();
    assert!(reaches(&b, &a) && reaches(&a, &b));
    assert_eq!(a.run("ip -6 -o address show eth0").lines().count(), 2, "its address and the one of the link");
    assert_ne!(a.mac(), b.mac());
}

#[test]
fn a_port_can_be_late() {
    let Some(net) = Net::start() else { return };
    let (a, b) = (net.host("a"), net.host("b"));
    let answer = b.inside(|| UdpSocket::bind((b.ip4, 0)).unwrap());
    answer.set_read_timeout(Some(DEADLINE)).unwrap();
    let port = answer.local_addr().unwrap().port();
    let takes = || {
        let begin = Instant::now();
        a.inside(|| UdpSocket::bind((a.ip4, 0)).unwrap().send_to(b"?", (b.ip4, port)).unwrap());
        answer.recv(&mut [0; 8]).unwrap();
        begin.elapsed()
    };
    let late = Duration::from_millis(200);
    if !a.delay(200, port) {
        return;
    }
    assert!(takes() >= late);
    assert!(a.delay(200, port + 1));
    let fastest = (0..20).map(|_| takes()).min().unwrap();
    assert!(a.delay(0, 0) && fastest < late, "another port is not late: {fastest:?}");
}

#[test]
fn hosts_go_with_what_runs_on_them() {
    let Some(net) = Net::start() else { return };
    let host = net.host("a");
    let mut child = host.command("sleep").arg("1000").spawn().unwrap();
    let pids = || Command::new("ip").args(["netns", "pids", &host.namespace]).output().unwrap().stdout;
    until("it runs there", || String::from_utf8(pids()).unwrap().trim() == child.id().to_string());
    let file = PathBuf::from("/run/netns").join(&host.namespace);
    assert!(file.exists());
    let failed = std::thread::spawn(move || {
        let _host = host;
        panic!("as a test does that fails");
    });
    assert!(failed.join().is_err());
    assert!(!child.wait().unwrap().success() && !file.exists());
}

/// The shard's address, and its network's prefix.
const V4: (&str, u8) = ("10.77.0.100", 24);
const V6: (&str, u8) = ("fd77::100", 64);

fn options((ip, bits): (&str, u8), host: &Host) -> AddressOptions {
    let vip = Vip { ip: ip.parse().unwrap(), bits, interface: host.interface().into() };
    AddressOptions { vip: Some(vip), ..AddressOptions::default() }
}

fn start(host: &Host, options: &AddressOptions) -> Result<Address, SidecarExit> {
    host.inside(|| Address::start(options, "s1", &host.name))
}

fn started(host: &Host, vip: (&str, u8)) -> Address {
    start(host, &options(vip, host)).unwrap_or_else(|exit| panic!("{exit:?}"))
}

fn in_a_while() -> Duration {
    time_since_boot() + Duration::from_secs(1000)
}

/// The address's line of `ip address`, if it is on the host.
fn line(host: &Host, ip: &str) -> Option<String> {
    let all = host.run("ip -o address show dev eth0");
    all.lines().find(|line| line.contains(&format!(" {ip}/"))).map(str::to_owned)
}

fn is_there(host: &Host, ip: &str) -> bool {
    line(host, ip).is_some()
}

/// What a host believes to be the hardware address of the other one.
fn neighbour(host: &Host, ip: &str) -> String {
    let line = host.run(&format!("ip neigh show to {ip} dev eth0"));
    line.split_whitespace().skip_while(|word| *word != "lladdr").nth(1).unwrap_or_default().to_owned()
}

fn ping(from: &Host, to: &str) {
    from.run(&format!("ping -c 1 -W 10 {to}"));
}

/// The old owner is frozen: its kernel has the address still.
fn neighbours_follow_the_owner(vip: (&str, u8)) {
    let Some(net) = Net::start() else { return };
    let (a, b, client) = (net.host("a"), net.host("b"), net.host("client"));
    let (on_a, on_b) = (started(&a, vip), started(&b, vip));
    on_a.hold(1, in_a_while());
    until("it is on a", || is_there(&a, vip.0));
    ping(&client, vip.0);
    assert_eq!(neighbour(&client, vip.0), a.mac());
    assert_eq!(client.run("cat /proc/sys/net/ipv4/conf/eth0/arp_accept").trim(), "0");
    on_a.hold(1, time_since_boot());
    let begin = Instant::now();
    on_b.hold(2, in_a_while());
    until("the client knows", || neighbour(&client, vip.0) == b.mac());
    println!("{}: the neighbour has changed after {:?}, as far as can be seen", vip.0, begin.elapsed());
    assert!(is_there(&a, vip.0), "and not because the old owner has let go");
    ping(&client, vip.0);
    on_a.release();
    until("a has let go", || !is_there(&a, vip.0));
    on_b.settled();
    ping(&client, vip.0);
    on_b.release();
    on_a.hold(3, in_a_while());
    until("the client knows", || neighbour(&client, vip.0) == a.mac());
    assert!(on_a.close(DEADLINE) && on_b.close(DEADLINE));
    assert!(!is_there(&a, vip.0) && !is_there(&b, vip.0));
    assert!(is_there(&a, &a.ip4.to_string()) && is_there(&a, &a.ip6.to_string()), "the host's own stay");
}

#[test]
fn neighbours_follow_the_owner_of_an_ipv4_address() {
    neighbours_follow_the_owner(V4);
}

#[test]
fn neighbours_follow_the_owner_of_an_ipv6_address() {
    neighbours_follow_the_owner(V6);
}

/// Run by the test below, in a process that can be frozen.
#[test]
#[ignore = "part of another test"]
fn held_for_two_seconds() {
    let vip = Vip { ip: V4.0.parse().unwrap(), bits: V4.1, interface: "eth0".into() };
    let address = Address::start(&AddressOptions { vip: Some(vip), ..AddressOptions::default() }, "s1", "a").unwrap();
    address.hold(1, time_since_boot() + Duration::from_secs(2));
    std::thread::sleep(DEADLINE);
}

/// Whether the thread that announces had nothing to do when the process was frozen: it is in the same system call as one
/// that never has. True where the system does not tell.
fn was_at_rest(pid: u32) -> bool {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().map(|task| task.unwrap().path());
    let read = |path: PathBuf| std::fs::read_to_string(path).unwrap_or_default();
    let call = |task: PathBuf| read(task.join("syscall")).split(' ').next().unwrap_or_default().to_owned();
    let mut calls = BTreeMap::new();
    calls.extend(tasks.map(|task| (read(task.join("comm")).trim().to_owned(), call(task))));
    calls["address"] == calls["hooks"]
}

/// A process that holds the address for two seconds, and is frozen within that time. When its deadline has passed.
///
/// Not in the midst of an announcement: what it has begun it ends as it goes on, which no program can prevent, and the
/// next owner takes back.
fn frozen_owner(host: &Host) -> (Child, Instant) {
    loop {
        let mut command = host.command(std::env::current_exe().unwrap().to_str().unwrap());
        let mut owner = command.args(["--exact", "held_for_two_seconds", "--ignored"]).spawn().unwrap();
        until("it is there", || is_there(host, V4.0));
        let (began, held) = (Instant::now(), Duration::from_secs(2));
        freeze(owner.id());
        if was_at_rest(owner.id()) && began.elapsed() < held / 2 {
            return (owner, began + held);
        }
        println!("frozen too late, or in the midst of something, after {:?}: once more", began.elapsed());
        owner.kill().unwrap();
        owner.wait().unwrap();
        host.run(&format!("ip address delete {}/32 dev eth0", V4.0));
    }
}

#[test]
fn who_was_frozen_past_the_deadline_says_nothing() {
    let Some(net) = Net::start() else { return };
    let (a, b, client) = (net.host("a"), net.host("b"), net.host("client"));
    let on_b = started(&b, V4);
    let (mut frozen, deadline) = frozen_owner(&a);
    ping(&client, V4.0);
    assert_eq!(neighbour(&client, V4.0), a.mac());
    std::thread::sleep(deadline.saturating_duration_since(Instant::now()));
    on_b.hold(2, in_a_while());
    on_b.settled();
    until("the client knows", || neighbour(&client, V4.0) == b.mac());
    // Those of b are slow now, and would not hide any of a.
    std::thread::sleep(Duration::from_millis(200));
    signal(frozen.id(), "CONT");
    let end = Instant::now() + Duration::from_secs(1);
    while Instant::now() < end {
        assert_eq!(neighbour(&client, V4.0), b.mac(), "what a has said is heard");
    }
    assert!(frozen.try_wait().unwrap().is_none(), "it was there all the time");
    frozen.kill().unwrap();
    frozen.wait().unwrap();
}

#[test]
fn an_announcement_that_is_lost_is_repeated() {
    let Some(net) = Net::start() else { return };
    let (a, b, client) = (net.host("a"), net.host("b"), net.host("client"));
    let (on_a, on_b) = (started(&a, V4), started(&b, V4));
    on_a.hold(1, in_a_while());
    until("it is on a", || is_there(&a, V4.0));
    ping(&client, V4.0);
    b.drop_to(&client);
    on_b.hold(2, in_a_while());
    on_a.release();
    until("it is on b", || is_there(&b, V4.0));
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(neighbour(&client, V4.0), a.mac(), "the first ones were lost");
    b.heal();
    until("the client knows", || neighbour(&client, V4.0) == b.mac());
}

#[test]
fn it_is_up_soon_and_changes_no_route() {
    let Some(net) = Net::start() else { return };
    let host = net.host("a");
    for (vip, bind) in [(V4, "10.77.0.100:0"), (V6, "[fd77::100]:0")] {
        let address = started(&host, vip);
        let routes = || host.run("ip route; ip -6 route");
        let before = routes();
        let (mut times, bind): (Vec<Duration>, SocketAddr) = (Vec::new(), bind.parse().unwrap());
        for epoch in 1..=50 {
            let begin = Instant::now();
            address.hold(epoch, in_a_while());
            host.inside(|| until("it can be bound", || UdpSocket::bind(bind).is_ok()));
            times.push(begin.elapsed());
            assert_eq!(routes(), before, "the way to the network is the host's own");
            address.release();
            until("it is gone", || !is_there(&host, vip.0));
        }
        times.sort();
        println!("{}: up after {:?} (median of 50), {:?} at most, looked at every 5 ms", vip.0, times[25], times[49]);
        assert_eq!(address.problem(), None);
    }
}

#[test]
fn what_is_there_already_or_gone_already_is_fine() {
    let Some(net) = Net::start() else { return };
    let host = net.host("a");
    for vip in [V4, V6] {
        let address = started(&host, vip);
        address.release();
        host.run(&format!("ip address add {}/{} dev eth0 nodad", vip.0, vip.1));
        address.hold(1, in_a_while());
        until("it is ours", || line(&host, vip.0).is_some_and(|line| !line.contains("valid_lft forever")));
        address.hold(1, in_a_while());
        address.hold(2, in_a_while());
        host.run(&format!("ip address delete {}/{} dev eth0", vip.0, vip.1));
        until("it is back", || is_there(&host, vip.0));
        host.run("ip link set eth0 down; ip link set eth0 up");
        until("it is back", || is_there(&host, vip.0));
        until("it has been announced", || address.problem().is_none());
        address.release();
        until("it is gone", || !is_there(&host, vip.0));
        address.release();
        assert_eq!(address.problem(), None);
        assert!(address.close(DEADLINE));
    }
}

#[test]
fn what_could_not_be_announced_is_no_problem_once_it_is_given_back() {
    let Some(net) = Net::start() else { return };
    let host = net.host("a");
    let address = started(&host, V4);
    host.run("ip link set eth0 down");
    address.hold(1, in_a_while());
    until("the network is down", || address.problem().is_some());
    address.release();
    until("nothing is wrong", || address.problem().is_none());
    assert!(!is_there(&host, V4.0));
    assert!(address.close(DEADLINE));
}

#[test]
fn the_kernel_lets_go_of_it_by_itself() {
    let Some(net) = Net::start() else { return };
    let host = net.host("a");
    for vip in [V4, V6] {
        let address = started(&host, vip);
        address.hold(1, time_since_boot() + Duration::from_millis(500));
        until("it is there", || is_there(&host, vip.0));
        let found = host.run(&format!("ip address show dev eth0 to {}", vip.0));
        let seconds = found.split_once("valid_lft ").and_then(|(_, rest)| rest.split_once("sec")).map(|(n, _)| n);
        assert!((1..=21).contains(&seconds.and_then(|n| n.parse().ok()).unwrap_or(0)), "{found}");
        assert!(vip == V4 || found.contains("preferred_lft 0sec"), "{found}");
        // As a process does that was killed: nobody is told anything any more.
        std::mem::forget(address);
    }
    until("the kernel has removed both", || !is_there(&host, V4.0) && !is_there(&host, V6.0));
}

#[test]
fn what_an_earlier_run_left_is_removed() {
    let Some(net) = Net::start() else { return };
    let host = net.host("a");
    for (vip, left) in [(V4, "10.77.0.100/24"), (V4, "10.77.0.100/32"), (V6, "fd77::100/64"), (V6, "fd77::100/128")] {
        for how in ["", "valid_lft 1000 preferred_lft 0"] {
            host.run(&format!("ip address add {left} dev eth0 nodad {how}"));
            let address = started(&host, vip);
            assert!(!is_there(&host, vip.0), "{left} {how}");
            assert!(address.close(DEADLINE));
        }
    }
    assert!(is_there(&host, &host.ip4.to_string()) && is_there(&host, &host.ip6.to_string()));
}

/// As after a boot, or when a service that configures the network starts anew.
#[test]
fn the_hosts_own_address_may_come_late_and_stays() {
    let Some(net) = Net::start() else { return };
    let (host, client) = (net.host("a"), net.host("client"));
    for (vip, own, default) in [
        (V4, format!("{}/24", host.ip4), format!("default via {} dev eth0 src {}", client.ip4, host.ip4)),
        (V6, format!("{}/64", host.ip6), format!("-6 default via {} dev eth0 src {}", client.ip6, host.ip6)),
    ] {
        host.run(&format!("ip address delete {own} dev eth0"));
        let address = started(&host, vip);
        address.hold(1, in_a_while());
        until("it is there", || is_there(&host, vip.0));
        until("it has a way to its network", || {
            client.command("ping").args(["-c", "1", "-W", "1", vip.0]).output().unwrap().status.success()
        });
        host.run(&format!("ip address add {own} dev eth0 nodad; ip route add {}", default.replace("-6 ", "")));
        ping(&client, vip.0);
        address.hold(2, in_a_while());
        address.release();
        until("it is gone", || !is_there(&host, vip.0));
        let routes = host.run("ip route; ip -6 route");
        assert!(host.run("ip -o address show dev eth0").contains(&own), "{own}");
        assert!(routes.lines().any(|line| line.starts_with("default via") && line.contains("src")), "{routes}");
        assert!(!routes.contains(vip.0), "{routes}");
        ping(&client, own.split_once('/').unwrap().0);
        host.run(&format!("ip route delete {}", default.replace("-6 ", "")));
    }
}

#[test]
fn what_cannot_work_is_said_at_the_start() {
    let Some(net) = Net::start() else { return };
    let host = net.host("a");
    let refused = |options: &AddressOptions, part: &str| {
        let Err(exit) = start(&host, options) else { panic!("started, but: {part}") };
        println!("{}", exit.stderr.trim());
        assert!(exit.code == 71 && exit.stderr.contains(part) && exit.stderr.lines().count() == 1, "{exit:?}");
    };
    let on = |interface: &str| {
        let vip = options(V4, &host).vip.map(|vip| Vip { interface: interface.into(), ..vip });
        AddressOptions { vip, ..AddressOptions::default() }
    };
    refused(&on("eth7"), "--dev eth7: there is no such interface");
    host.run("ip link add side type veth peer name other");
    refused(&on("side"), "ip link set side up");
    host.run("ip link set side up; ip address add 10.77.0.100/24 dev side");
    refused(&options(V4, &host), "on another interface");
    host.run("ip link delete side");
    let own = options((&host.ip4.to_string(), 24), &host);
    refused(&own, "only address of eth0");
    assert!(is_there(&host, &host.ip4.to_string()), "and is not taken away");
    host.run("sysctl -qw net.ipv6.conf.eth0.disable_ipv6=1");
    refused(&options(V6, &host), "IPv6 is off");
}

/// Run by the test below, without rights.
#[test]
#[ignore = "part of another test"]
fn without_rights() {
    let exit = Address::start(
        &AddressOptions {
            vip: Some(Vip { ip: V4.0.parse().unwrap(), bits: 24, interface: "eth0".into() }),
            ..AddressOptions::default()
        },
        "s1",
        "a",
    )
    .err();
    println!("refused: {}", exit.map(|exit| exit.stderr).unwrap_or_default());
}

#[test]
fn missing_rights_are_said_at_the_start() {
    let Some(net) = Net::start() else { return };
    let host = net.host("a");
    let this = std::env::current_exe().unwrap();
    for (rights, part) in [("net_admin", "to change addresses"), ("net_raw", "a packet socket")] {
        let rights = format!("--bounding-set=-{rights}");
        let mut command = host.command("setpriv");
        command.args([
            rights.as_str(),
            this.to_str().unwrap(),
            "--exact",
            "without_rights",
            "--ignored",
            "--nocapture",
        ]);
        let output = String::from_utf8(command.output().unwrap().stdout).unwrap();
        let line = output.lines().find(|line| line.contains("refused: ")).unwrap_or_else(|| panic!("{output}"));
        println!("{line}");
        assert!(line.contains(part) && line.contains("CAP_NET_ADMIN and CAP_NET_RAW are needed"), "{line}");
    }
}

#[test]
fn programs_run_in_order_and_find_the_address() {
    let Some(net) = Net::start() else { return };
    let (host, folder) = (net.host("a"), Folder::new());
    let log = folder.file("log");
    let program = format!(
        "echo $TWINCACHE_SHARD $TWINCACHE_NODE $TWINCACHE_ROLE $TWINCACHE_EPOCH $TWINCACHE_VIP \
         $(ip -o address show dev eth0 to 10.77.0.100 | wc -l) >> {log}"
    );
    let (on_promote, on_demote) = (Some(program.clone()), Some(program));
    let address = start(&host, &AddressOptions { on_promote, on_demote, ..options(V4, &host) })
        .unwrap_or_else(|exit| panic!("{exit:?}"));
    let told = || std::fs::read_to_string(&log).unwrap_or_default();
    let says = |count: usize| until("all have run", || told().lines().count() == count);
    address.release();
    says(1);
    address.hold(4, in_a_while());
    says(2);
    address.hold(4, in_a_while());
    address.hold(5, in_a_while());
    says(4);
    assert!(address.close(DEADLINE));
    let told = told();
    let told: Vec<&str> = told.lines().collect();
    assert_eq!(told[..2], ["s1 a standby 0 10.77.0.100/24 0", "s1 a primary 4 10.77.0.100/24 1"]);
    assert_eq!(told[2..4], ["s1 a standby 4 10.77.0.100/24 1", "s1 a primary 5 10.77.0.100/24 1"]);
    // The address goes while the program of the demotion runs.
    assert!(told.len() == 5 && told[4].starts_with("s1 a standby 5 10.77.0.100/24 "), "{told:?}");
}

#[test]
fn a_program_that_hangs_holds_nothing_up() {
    let Some(net) = Net::start() else { return };
    let (host, folder) = (net.host("a"), Folder::new());
    let gate = folder.file("gate");
    let on_promote = Some(format!("until [ -e {gate} ]; do sleep 0.01; done"));
    let address =
        start(&host, &AddressOptions { on_promote, ..options(V4, &host) }).unwrap_or_else(|exit| panic!("{exit:?}"));
    for epoch in 1..5 {
        address.hold(epoch, in_a_while());
        until("it is there", || is_there(&host, V4.0));
        address.release();
        until("it is gone", || !is_there(&host, V4.0));
    }
    std::fs::write(gate, "").unwrap();
    assert!(address.close(DEADLINE));
}
