//! Command lines, and what stands in for a part of them.

use super::*;

fn parse_with(line: &str, environment: &[(&str, &str)]) -> Result<CtlOptions, CtlExit> {
    let words = line.split(' ').filter(|word| !word.is_empty()).map(OsString::from);
    let find = |name: &str| environment.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
    // No file of the machine that the test runs on.
    CtlOptions::parse(["--config".into(), "/dev/null".into()].into_iter().chain(words), find)
}

fn parse(line: &str) -> Result<CtlOptions, CtlExit> {
    parse_with(&format!("--etcd http://a {line}"), &[])
}

fn promote(is_forced: bool, is_dry: bool) -> CtlCommand {
    CtlCommand::Promote { shard: "s".into(), node: "n".into(), is_forced, is_dry }
}

fn topology(host: &str, ip: &str) -> CtlCommand {
    CtlCommand::TopologyAdd(ShardAddress { name: "s".into(), host: host.into(), ip: ip.into(), port: 1 })
}

#[test]
fn commands_and_their_words() {
    let table = [
        ("list", CtlCommand::List(vec![])),
        ("list s1 s2", CtlCommand::List(vec!["s1".into(), "s2".into()])),
        ("status s1 --json", CtlCommand::Status(vec!["s1".into()])),
        ("switchover s", CtlCommand::Switchover("s".into(), None)),
        ("switchover s --to n", CtlCommand::Switchover("s".into(), Some("n".into()))),
        ("promote s n -n", promote(false, true)),
        ("promote s n --force", promote(true, false)),
        ("pause --all", CtlCommand::Pause(None)),
        ("resume s t", CtlCommand::Resume(Some(vec!["s".into(), "t".into()]))),
        ("remove s n", CtlCommand::Remove { shard: "s".into(), node: "n".into(), is_dry: false }),
        ("topology list --json", CtlCommand::TopologyList),
        ("topology add s cache.example:1", topology("cache.example", "")),
        ("topology add s 10.0.0.1:1", topology("10.0.0.1", "10.0.0.1")),
        ("topology add s h:1 --ip fd00::1", topology("h", "fd00::1")),
        ("topology remove s", CtlCommand::TopologyRemove("s".into())),
        ("latency h:1 i:2", CtlCommand::Latency(vec!["h:1".into(), "i:2".into()])),
        ("hotkeys h:1 --json", CtlCommand::HotKeys(vec!["h:1".into()])),
        ("slabs h:1", CtlCommand::Slabs(vec!["h:1".into()])),
        ("check", CtlCommand::Check(vec![])),
        ("check h:1 http://s:2/", CtlCommand::Check(vec!["h:1".into(), "http://s:2".into()])),
        ("plan users=5", CtlCommand::Plan(vec!["users=5".into()])),
        ("dump h:1", CtlCommand::Dump("h:1".into())),
        ("load [::1]:2 --limit-mbps 3", CtlCommand::Load("[::1]:2".into())),
    ];
    for (line, command) in table {
        let options = parse(line).expect(line);
        assert_eq!((options.command, options.is_json), (command, line.contains("--json")), "{line}");
    }
}

#[test]
fn the_command_line_comes_before_the_environment() {
    let environment = [
        ("TWINCACHE_ETCD", "https://b"),
        ("TWINCACHE_ETCD_CA", "ca"),
        ("TWINCACHE_CLUSTER", "two"),
        ("TWINCACHE_ETCD_USER", ""),
    ];
    let cluster = parse_with("list", &environment).unwrap().cluster.unwrap();
    assert_eq!((&cluster.etcd.endpoints[..], cluster.cluster.as_str()), (&["https://b:2379".to_owned()][..], "two"));
    assert_eq!((cluster.etcd.ca, cluster.etcd.user), (Some("ca".into()), None));
    let cluster = parse_with("--cluster one list", &environment).unwrap().cluster.unwrap();
    assert_eq!(cluster.cluster, "one");
}

#[test]
fn the_environment_comes_before_the_file() {
    let path = std::env::temp_dir().join(format!("twincachectl-{}", std::process::id()));
    std::fs::write(&path, "TWINCACHE_ETCD=http://a\nTWINCACHE_CLUSTER=file\n").unwrap();
    let parse = |cluster: Option<&str>| {
        let words = ["--config", path.to_str().unwrap(), "list"].map(OsString::from);
        let find = |name: &str| cluster.filter(|_| name == "TWINCACHE_CLUSTER").map(str::to_owned);
        CtlOptions::parse(words.into_iter(), find).unwrap().cluster.unwrap().cluster
    };
    assert_eq!((parse(None).as_str(), parse(Some("variable")).as_str()), ("file", "variable"));
    std::fs::remove_file(path).unwrap();
}

#[test]
fn mistakes_are_one_line() {
    let table = [
        ("", "a command is needed: list, status"),
        ("lst", "what is `lst`? The commands are list"),
        ("list --force", "`list` has no --force"),
        ("list a/b", "\"a/b\" is no name"),
        ("list --cluster a/b", "--cluster \"a/b\""),
        ("list --frob", "frob"),
        ("topology", "what is `topology`?"),
        ("switchover", "usage: twincachectl switchover SHARD"),
        ("switchover a b", "usage: twincachectl switchover SHARD"),
        ("switchover a --to b/c", "is no name"),
        ("pause", "usage: twincachectl pause SHARD...|--all"),
        ("pause a --all", "usage: twincachectl pause SHARD...|--all"),
        ("remove a", "usage: twincachectl remove SHARD NODE"),
        ("remove a b --force", "`remove` has no --force"),
        ("topology add a b", "a port is needed"),
        ("topology add a b:0", "a port is a number"),
        ("topology add a b_c:1", "a host has 1 to 253"),
        ("topology add a [::1]:1", "an IPv6 address goes into --ip"),
        ("topology add a b:1 --ip c", "--ip c: an address is needed"),
        ("dump a:1 --tls", "--tls needs --tls-ca"),
        ("top a:1 --tls-ca x", "need --tls, too"),
        ("load a:1 --tls --tls-ca x --tls-key y", "need each other"),
        ("check a:1 --tls --tls-ca /nonexistent", "/nonexistent"),
        ("plan --auth-file x", "`plan` has no --auth-file"),
    ];
    for (line, part) in table {
        let exit = parse(line).expect_err(line);
        assert!(exit.stderr.contains(part) && exit.stderr.lines().count() == 1, "{line}: {}", exit.stderr);
        assert_eq!((exit.code, exit.stdout.as_str()), (CtlExit::USAGE, ""), "{line}");
    }
    let exit = parse_with("list", &[]).unwrap_err();
    assert!(exit.stderr.contains("--etcd is needed, or TWINCACHE_ETCD= in /etc/default/twincachectl"));
}

#[test]
fn help_names_every_command_and_option() {
    let help = parse_with("-h", &[]).unwrap_err();
    let rows = COMMANDS.iter().map(|row| row.name).chain(OPTIONS.iter().map(|opt| opt.name));
    for name in rows.chain(cluster::OPTIONS.iter().map(|row| row.name)) {
        assert!(help.stdout.contains(name), "{name}");
    }
    let wide: Vec<&str> = help.stdout.lines().filter(|line| line.len() > 80).collect();
    assert!(wide.is_empty(), "{wide:?}");
    assert_eq!((help.code, help.stderr.as_str()), (0, ""));
}
