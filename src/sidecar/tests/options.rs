//! The command line: what it says, and how mistakes are named.

use super::*;

fn parse(line: &str) -> Result<Options, SidecarExit> {
    Options::parse(line.split_whitespace().map(OsString::from))
}

#[test]
fn a_whole_command_line() {
    let line = "--server unix:/run/x --peer a:1 --peer [::1]:2 --limit-mbps 100 --replace-peer --http 127.0.0.1:9090 --max-lag-ms 50 -u nobody -v";
    let expected = Options {
        server: "/run/x".into(),
        peers: vec!["a:1".into(), "[::1]:2".into()],
        peer_tls: None,
        peer_login: None,
        limit_megabits: Some(100),
        may_replace: true,
        http: Some("127.0.0.1:9090".parse().unwrap()),
        http_token_file: None,
        shows_keys: false,
        max_lag: Duration::from_millis(50),
        lease: None,
        address: AddressOptions::default(),
        user: Some("nobody".to_owned()),
        is_check: false,
        is_verbose: true,
    };
    assert_eq!(parse(line), Ok(expected));
}

#[test]
fn the_most_lag_has_two_names() {
    let lag = |more: &str| parse(&format!("--server unix:/x --peer a:1 {more}")).map(|options| options.max_lag);
    assert_eq!(lag(""), Ok(Duration::from_secs(10)));
    assert_eq!(
        (lag("--max-lag 70"), lag("--max-lag-ms 70")),
        (Ok(Duration::from_millis(70)), Ok(Duration::from_millis(70)))
    );
    assert!(lag("--max-lag 70 --max-lag-ms 70").is_err() && lag("--max-lag x").is_err());
}

#[test]
fn mistakes_are_named() {
    let good = "--server unix:/x --peer a:1 ";
    let table = [
        ("", "--server"),
        ("--server unix:/x", "--peer"),
        ("--server /x --peer a:1", "unix:"),
        ("--server unix: --peer a:1", "unix:"),
        ("--server unix:/x --peer a", "--peer a: a port is needed, as in 10.0.0.2:11211"),
        ("--server unix:/x --peer a:0", "--peer a:0: a port is a number from 1 to 65535"),
        ("--server unix:/x --peer a:65536", "a port is a number"),
        ("--server unix:/x --peer a:", "a port is a number"),
        ("--server unix:/x --peer :1", "--peer :1: a host is needed"),
        ("--server unix:/x --peer ::1:5", "--peer ::1:5: an IPv6 address stands in brackets"),
        ("--server unix:/x --peer [::1]", "stands in brackets, and a port behind it"),
        ("--server unix:/x --peer a\u{e4}:1", "without blanks"),
        (&format!("{good} --peer a:1"), "twice"),
        (&format!("{good} --limit-mbps 0"), "--limit-mbps"),
        (&format!("{good} --max-lag-ms 0"), "--max-lag-ms"),
        (&format!("{good} --peer-ca /ca"), "need --peer-tls"),
        (&format!("{good} --peer-tls"), "--peer-tls needs --peer-ca"),
        (&format!("{good} --peer-tls --peer-ca /ca --peer-key /k"), "--peer-cert and --peer-key need each other"),
        (&format!("{good} --http x"), "--http x: a port is needed, as in 127.0.0.1:9151"),
        (&format!("{good} --http 9151"), "--http 9151: a host is needed before the port, as in 127.0.0.1:9151"),
        (&format!("{good} --user nobody --dev eth0 --vip 10.0.0.9/24"), "--user and --vip exclude each other"),
        (&format!("{good} --http :9151"), "a host is needed"),
        (&format!("{good} --nonsense"), "nonsense"),
        (&format!("{good} word"), "word"),
        (&format!("{good} --vip 10.0.0.9/24"), "--vip needs --dev"),
        (&format!("{good} --dev eth0"), "--dev needs --vip"),
        (&format!("{good} --dev eth0 --vip 10.0.0.9"), "--vip 10.0.0.9: the length of the prefix is needed"),
        (&format!("{good} --dev eth0 --vip host/24"), "an address is needed, as in 10.0.0.100/24"),
        (&format!("{good} --dev eth0 --vip 10.0.0.9/33"), "the length is 1 to 32"),
        (&format!("{good} --dev eth0 --vip fd00::9/0"), "the length is 1 to 128"),
        (&format!("{good} --dev eth0 --vip 127.0.0.1/8"), "other hosts can reach"),
        (&format!("{good} --dev eth0 --vip fe80::9/64"), "other hosts can reach"),
        (&format!("{good} --dev an/interface --vip fd00::9/64"), "--dev an/interface"),
        (&format!("{good} --dev sixteen-letters- --vip fd00::9/64"), "--dev sixteen-letters-"),
        (&format!("{good} --dev eth0 --vip fd00::9/64"), "need --etcd"),
        (&format!("{good} --on-demote true"), "need --etcd"),
        (&(2..10).fold(good.to_owned(), |line, n| line + &format!(" --peer a:{n}")), "more than 8"),
    ];
    for (line, part) in table {
        let exit = parse(line).unwrap_err();
        assert!(exit.code == EX_USAGE && exit.stderr.contains(part), "{line}: {exit:?}");
        assert_eq!(exit.stderr.lines().count(), 1, "{exit:?}");
    }
}

#[test]
fn an_address_is_in_networks() {
    let vip = vip_of("10.0.1.100/24", "eth0".into()).unwrap();
    assert_eq!(vip.to_string(), "10.0.1.100/24");
    let table = [("10.0.1.1", 24, true), ("10.0.0.1", 24, false), ("10.0.0.1", 23, true), ("10.0.1.1", 32, false)];
    for (ip, bits, is_in) in table {
        assert_eq!(vip.is_in_network_of(ip.parse().unwrap(), bits), is_in, "{ip}/{bits}");
    }
    let vip = vip_of("fd00::1:0:0:9/128", "eth0".into()).unwrap();
    assert!(vip.is_in_network_of("fd00::1:0:0:1".parse().unwrap(), 64));
    assert!(!vip.is_in_network_of("10.0.1.1".parse().unwrap(), 1));
}

#[test]
fn help_names_every_option() {
    let help = parse("-h").unwrap_err();
    assert!(help.code == 0 && OPTIONS.iter().all(|opt| help.stdout.contains(&format!("--{}", opt.name))));
    let wide: Vec<&str> = help.stdout.lines().filter(|line| line.len() > 80).collect();
    assert!(wide.is_empty(), "{wide:?}");
    assert!(parse("--version").unwrap_err().stdout.starts_with("twincache-sidecar 0."));
}
