//! Lines of the control socket: what is written is understood, and nonsense is refused.

use super::*;
use crate::protocol::duty_line::RoleName;
use crate::protocol::token::WORD_MAX;
use crate::testing::{Rng, seeds};

#[test]
fn server_lines() {
    let position = |lsn| Position { run: "00ab", lsn };
    let info = |items, descent, upstreams| ServerLine::Info(ServerInfo { items, uptime: 3, descent, upstreams });
    let table = [
        ("twincache 1 00ab 7", ServerLine::Greeting(1, position(7))),
        ("met 12 3 again", info(12, Descent::Again, vec![])),
        ("met 0 3 back", info(0, Descent::Back, vec![])),
        ("met 0 3 first ab cd", info(0, Descent::First, vec!["ab", "cd"])),
        ("continuing 00ab 12", ServerLine::Continuing(position(12))),
        ("walk 00ab 13", ServerLine::FullSync(position(13))),
        ("refused it is the server itself", ServerLine::Refused("it is the server itself")),
        ("batch 00000000000000000009 0000262144", ServerLine::Batch(9, 262_144)),
        ("walked 9", ServerLine::FullSyncEnd(9)),
        ("overtaken 10 3", ServerLine::Lagged(10, 3)),
        ("caught-up 11", ServerLine::CaughtUp(11)),
        ("alive 11 1700000000000", ServerLine::Alive(11, 1_700_000_000_000)),
        ("STAT 0:name a b", ServerLine::Stat("0:name", "a b")),
        ("END", ServerLine::End),
        ("role standby 3 17 5", ServerLine::Role(RoleReport { name: RoleName::Standby, epoch: 3, lsn: 17, items: 5 })),
        ("members 7", ServerLine::Members(7)),
        ("writes 8", ServerLine::Writes(8)),
        ("OK", ServerLine::Done),
        ("CLIENT_ERROR it is so", ServerLine::Wrong("it is so")),
    ];
    for (text, line) in table {
        assert_eq!(line.to_string(), text);
        assert_eq!(ServerLine::parse(text.as_bytes()), Some(line), "{text}");
    }
    assert_eq!(ServerLine::Batch(u64::MAX, 0).to_string().len() + 2, BATCH_LINE);
}

#[test]
fn client_lines() {
    let attach =
        |run, lsn, with_cas| ClientLine::Attach(AttachLine { name: "a:1", identity: "00cd", run, lsn, with_cas });
    let topology = ClientLine::Topology(TopologyLine { version: 3, servers: "a|10.0.0.1|1 b||2" });
    let primary = |deadline_ms, drops_all| ClientLine::Role(RoleLine::Primary { epoch: 4, deadline_ms, drops_all });
    let table = [
        ("meet a:1 00cd", ClientLine::Hello("a:1", "00cd")),
        ("attach a:1 00cd - - nocas", attach(None, None, false)),
        ("attach a:1 00cd 00ab 7 cas", attach(Some("00ab"), Some(7), true)),
        ("ack 7", ClientLine::Ack(7)),
        ("refuse 18446744073709551615", ClientLine::Refuse(u64::MAX)),
        ("replicas_ack 2", ClientLine::ReplicasAck(2)),
        ("topology 3 a|10.0.0.1|1 b||2", topology),
        ("role", ClientLine::Role(RoleLine::Ask)),
        ("role waiting", ClientLine::Role(RoleLine::Waiting)),
        ("role standby 3 00ff", ClientLine::Role(RoleLine::Standby { epoch: 3, secret: "00ff" })),
        ("role candidate 4", ClientLine::Role(RoleLine::Candidate { epoch: 4 })),
        ("role primary 4 1234567", primary(1_234_567, false)),
        ("role primary 4 12 empty", primary(12, true)),
        ("writes hold 50", ClientLine::HoldWrites(50)),
        ("writes go", ClientLine::HoldWrites(0)),
        ("members 0", ClientLine::Members(MembersLine::new(0, &[]).unwrap())),
        ("members 1 b c", ClientLine::Members(MembersLine::new(1, &["b", "c"]).unwrap())),
        ("status", ClientLine::Status),
        ("stats", ClientLine::Stats("")),
        ("stats slabs", ClientLine::Stats("slabs")),
        ("stats latency buckets", ClientLine::Stats("latency buckets")),
    ];
    for (text, line) in table {
        assert_eq!(ClientLine::parse(text.as_bytes()), Ok(line), "{text}");
        assert_eq!(line.to_string(), text);
    }
}

#[test]
fn lines_to_and_from_a_peer() {
    let table = [
        ("replica who", ReplicaLine::Who),
        ("replica key 3 00ff", ReplicaLine::Key(3, "00ff")),
        ("replica promise 3 00ff 1000", ReplicaLine::Promise { epoch: 3, secret: "00ff", ms: 1000 }),
        ("replica from 00ab cd", ReplicaLine::From(vec!["00ab", "cd"])),
        ("replica begin", ReplicaLine::Begin(None)),
        ("replica begin 28000", ReplicaLine::Begin(Some(28_000))),
        ("replica sent 12345 6000000", ReplicaLine::Sent(12_345, 6_000_000)),
        ("replica at 7", ReplicaLine::At(7)),
        ("replica overtaken", ReplicaLine::Overtaken),
        ("replica caught-up", ReplicaLine::CaughtUp),
        ("replica end", ReplicaLine::End),
    ];
    for (text, line) in table {
        assert_eq!(line.to_string(), text);
        assert_eq!(ReplicaLine::parse(&after_replica(text)), Some(line), "{text}");
    }
    for text in
        ["replica", "replica from", "replica begin now", "replica whom", "replica key x y", "replica promise 1 y"]
    {
        assert_eq!(ReplicaLine::parse(&after_replica(text)), None, "{text}");
    }
    let introduction = Introduction { run: "00ab", told_ms: 7, unix_ms: -5 };
    assert_eq!(Introduction::parse(&introduction.to_string()), Some(introduction));
    assert_eq!(parse_run(&run_word(7)), Some(7));
}

fn after_replica(text: &str) -> Vec<&[u8]> {
    words(text.as_bytes()).skip(1).collect()
}

#[test]
fn nonsense_is_refused() {
    let table = ["", "ERROR", "batch", "batch 1", "batch x 1", "walk 5", "twincache 1", "twincache x y", "alive -1"];
    for line in [&table[..], &["met 1 2", "met 1 2 x", "batch +1 1", "role king 1 2 3", "role waiting 1 2"]].concat() {
        assert_eq!(ServerLine::parse(line.as_bytes()), None, "{line}");
    }
    assert_eq!(ServerLine::parse(b"batch \xff 1"), None);
    for line in ["", "acknowledge 1", "ack 1 2", "status now", "meet a", "replicas_ack 1 2 3 4 5 6 7"] {
        assert_eq!(ClientLine::parse(line.as_bytes()), Err(ClientError::Unknown), "{line}");
    }
    let table: [(&[u8], _); 12] = [
        (b"role primary 3", ClientError::Role),
        (b"role standby x 00ff", ClientError::Role),
        (b"role standby 3 \xff", ClientError::Role),
        (b"role king", ClientError::Role),
        (b"ack x", ClientError::Lsn),
        (b"refuse -1", ClientError::Lsn),
        (b"replicas_ack \xff", ClientError::ReplicasAck),
        (b"meet \xff b", ClientError::Hello),
        (b"attach", ClientError::Attach),
        (b"attach a b - - maybe", ClientError::Attach),
        (b"attach a b - - cas more", ClientError::Attach),
        (b"attach a b x\ty - cas", ClientError::Attach),
    ];
    for (line, error) in table {
        assert_eq!(ClientLine::parse(line), Err(error), "{}", line.escape_ascii());
    }
    assert!(is_word("localhost:11211") && !is_word("") && !is_word("a b") && !is_word(&"x".repeat(129)));
}

/// Any values: what one side writes the other side understands.
#[test]
fn what_is_written_is_understood() {
    for seed in seeds(500) {
        let mut rng = Rng(seed);
        let words = [(); 4].map(|()| any_word(&mut rng));
        let words = words.each_ref().map(String::as_str);
        let [n, m] = [(); 2].map(|()| rng.next() >> rng.below(64));
        let position = Position { run: words[0], lsn: n };
        let runs = words[..rng.below(5)].to_vec();
        let descent = rng.pick(&Descent::ALL);
        let lines = [
            ServerLine::Greeting(m, position),
            ServerLine::Info(ServerInfo { items: n, uptime: m, descent, upstreams: runs.clone() }),
            ServerLine::Continuing(position),
            ServerLine::FullSync(position),
            ServerLine::Refused(words[1]),
            ServerLine::Batch(n, m),
            ServerLine::FullSyncItems(m),
            ServerLine::FullSyncEnd(n),
            ServerLine::Lagged(n, m),
            ServerLine::CaughtUp(n),
            ServerLine::Alive(n, m as i64),
            ServerLine::Stat(words[1], words[2]),
            ServerLine::Role(RoleReport { name: rng.pick(&RoleName::ALL), epoch: n, lsn: m, items: n }),
        ];
        for line in lines {
            assert_eq!(ServerLine::parse(line.to_string().as_bytes()).as_ref(), Some(&line), "{line}");
        }
        let [_, _, name, identity] = words;
        let run = Some(words[0]).filter(|run| *run != "-" && rng.one_in(2));
        let lsn = rng.one_in(2).then_some(n);
        let lines = [
            ClientLine::Hello(name, identity),
            ClientLine::Attach(AttachLine { name, identity, run, lsn, with_cas: rng.one_in(2) }),
            ClientLine::Ack(n),
            ClientLine::Refuse(m),
            ClientLine::Clock(n as i64),
            ClientLine::ReplicasAck(n as u32),
            ClientLine::Role(RoleLine::Standby { epoch: n, secret: name }),
            ClientLine::Role(RoleLine::Candidate { epoch: m }),
            ClientLine::Role(RoleLine::Primary { epoch: n, deadline_ms: m, drops_all: rng.one_in(2) }),
        ];
        for line in lines {
            assert_eq!(ClientLine::parse(line.to_string().as_bytes()), Ok(line), "{line}");
        }
        if !runs.is_empty() {
            let line = ReplicaLine::From(runs);
            assert_eq!(ReplicaLine::parse(&after_replica(&line.to_string())).as_ref(), Some(&line), "{line}");
        }
        let introduction = Introduction { run: words[0], told_ms: n as i64, unix_ms: m as i64 };
        assert_eq!(Introduction::parse(&introduction.to_string()), Some(introduction));
    }
}

fn any_word(rng: &mut Rng) -> String {
    (0..1 + rng.below(WORD_MAX)).map(|_| char::from(b'!' + rng.below(94_u8))).collect()
}

/// Whatever one side may hear: no parser panics, and what is understood stays itself.
#[test]
fn what_is_understood_is_written_as_it_was_meant() {
    let pieces = "batch met attach ack - 7 00ab first cas \u{e9} 99999999999999999999 who from STAT alive role standby primary OK CLIENT_ERROR";
    let pieces: Vec<&[u8]> = pieces.split(' ').map(str::as_bytes).chain([b"".as_slice(), b"\xff"]).collect();
    for seed in seeds(20_000) {
        let mut rng = Rng(seed);
        let mut text = Vec::new();
        for _ in 0..rng.below(8) {
            text.extend_from_slice(rng.pick(&pieces));
            text.push(b' ');
        }
        text.truncate(text.len() - rng.below(2).min(text.len()));
        if let Some(line) = ServerLine::parse(&text) {
            assert_eq!(ServerLine::parse(line.to_string().as_bytes()).as_ref(), Some(&line), "{line}");
        }
        if let Ok(line) = ClientLine::parse(&text) {
            assert_eq!(ClientLine::parse(line.to_string().as_bytes()), Ok(line), "{line}");
        }
        let arguments: Vec<&[u8]> = words(&text).collect();
        let _ = ReplicaLine::parse(&arguments);
    }
}
