//! Data commands of all protocols, from bytes to bytes, on a store without sockets.

use super::batch::{Batch, End};
use super::{Context, Next, Output};
use crate::config::Config;
use crate::protocol::Protocol;
use crate::store::Accounting;
use crate::testing::{self, TestServer};

fn server() -> TestServer {
    server_with(|_| {})
}

fn server_with(change: impl FnOnce(&mut Config)) -> TestServer {
    TestServer::new(|config| {
        config.store.accounting = Accounting::Memcached;
        change(config);
    })
}

fn ask_binary(server: &TestServer, packet: &[u8]) -> Reply {
    let bytes = server.send(packet);
    let number = |from: usize, to: usize| bytes[from..to].iter().fold(0, |n, &b| n << 8 | u64::from(b));
    Reply { status: number(6, 8), cas: number(16, 24), body: bytes[24..].to_vec() }
}

#[derive(Debug)]
struct Reply {
    status: u64,
    cas: u64,
    body: Vec<u8>,
}

fn packet(opcode: u8, extras: &[u8], key: &str, value: &str, cas: u64) -> Vec<u8> {
    testing::packet(opcode, extras, key.as_bytes(), value.as_bytes(), 0x6162_6364, cas)
}

#[test]
fn classic_stores() {
    server().check(&[
        ("set a 7 0 3|abc|", "STORED|"),
        ("get a b|", "VALUE a 7 3|abc|END|"),
        ("gets a|", "VALUE a 7 3 2|abc|END|"),
        ("add a 0 0 1|x|", "NOT_STORED|"),
        ("replace b 0 0 1|x|", "NOT_STORED|"),
        ("append a 9 100 3|def|prepend a 0 0 2|--|get a|", "STORED|STORED|VALUE a 7 8|--abcdef|END|"),
        ("append b 0 0 1|x|", "NOT_STORED|"),
        ("cas b 0 0 1 1|x|", "NOT_FOUND|"),
        ("cas a 0 0 1 1|x|cas a 0 0 1 0|x|", "EXISTS|EXISTS|"),
        ("set a 0 0 3 noreply|abc|", ""),
        ("set e 0 0 0||get e|", "STORED|VALUE e 0 0||END|"),
        ("delete a|delete a|delete e noreply|get e|", "DELETED|NOT_FOUND|END|"),
        ("set a 0 0 3|abcde|", "CLIENT_ERROR bad data chunk|CLIENT_ERROR bad command line format|"),
        ("set n 0 -1 1|x|get n|", "STORED|END|"),
    ]);
}

#[test]
fn a_cas_that_fits() {
    let server = server();
    server.check(&[("set a 0 0 1|x|cas a 0 0 1 2|y|get a|", "STORED|STORED|VALUE a 0 1|y|END|")]);
    let totals = server.shared.stats.totals();
    assert_eq!((totals.cas_hits, totals.cas_badval, totals.cas_misses, totals.set_cmds), (1, 0, 0, 2));
}

#[test]
fn compat_cas_per_try() {
    let server = server();
    server.check(&[
        ("set a 0 0 1|x|", "STORED|"),
        (
            "add a 0 0 1|x|replace b 0 0 1|x|append b 0 0 1|x|cas b 0 0 1 9|x|",
            "NOT_STORED|NOT_STORED|NOT_STORED|NOT_FOUND|",
        ),
        ("ms a 1 c|x|", "HD c7|"),
    ]);
}

#[test]
fn refusals_for_size() {
    let server = server_with(|config| config.store.item_size_max = 1024 * 1024);
    let large = "x".repeat(1024 * 1024);
    server.check(&[
        (
            &format!("set a 0 0 1|x|set a 0 0 1048576|{large}|get a|"),
            "STORED|SERVER_ERROR object too large for cache|END|",
        ),
        (
            &format!("set a 0 0 1|x|add a 0 0 1048576|{large}|get a|"),
            "STORED|SERVER_ERROR object too large for cache|VALUE a 0 1|x|END|",
        ),
        (&format!("ms a 1048576 MA q|{large}|get a|"), "SERVER_ERROR object too large for cache|END|"),
        (&format!("set a 0 0 1|x|set a 0 0 1048576 noreply|{large}|get a|"), "STORED|END|"),
    ]);
    assert_eq!(server.shared.stats.totals().store_too_large, 4);
    assert_eq!(ask_binary(&server, &packet(1, &[0; 8], "a", &large, 0)).status, 3);
    assert_eq!(server.shared.stats.totals().store_too_large, 4);
}

#[test]
fn numbers() {
    server().check(&[
        ("incr n 1|decr n 1|", "NOT_FOUND|NOT_FOUND|"),
        ("set n 5 0 2|99|incr n 1|get n|", "STORED|100|VALUE n 5 3|100|END|"),
        ("decr n 1|get n|", "99|VALUE n 5 3|99 |END|"),
        ("decr n 1000|incr n 18446744073709551615|incr n 2|", "0|18446744073709551615|1|"),
        ("set n 0 0 3|abc|incr n 1|", "STORED|CLIENT_ERROR cannot increment or decrement non-numeric value|"),
        ("set n 0 0 0||incr n 1|", "STORED|CLIENT_ERROR cannot increment or decrement non-numeric value|"),
        (
            "set n 0 0 25|10                       |decr n 1 noreply|get n|",
            "STORED|VALUE n 0 25|9                        |END|",
        ),
    ]);
}

#[test]
fn a_number_that_changes_is_accessed() {
    let server = server();
    server.ask("set n 0 0 2|10|");
    server.shared.clock.advance(100);
    server.check(&[("mg n l u|incr n 1|mg n l u|", "HD l100|11|HD l0|")]);
}

#[test]
fn compat_no_number_in_chunks() {
    let server = server();
    let number = format!("5{}", " ".repeat(599_999));
    server.check(&[(
        &format!("set n 0 0 600000|{number}|incr n 1|"),
        "STORED|CLIENT_ERROR cannot increment or decrement non-numeric value|",
    )]);
}

#[test]
fn touches() {
    let server = server();
    server.check(&[
        ("set t 0 0 1|x|touch t 100|mg t t|touch u 1|", "STORED|TOUCHED|HD t100|NOT_FOUND|"),
        ("gat 50 t u|mg t t|", "VALUE t 0 1|x|END|HD t50|"),
        ("gats -1 t|get t|", "VALUE t 0 1 2|x|END|END|"),
    ]);
    let totals = server.shared.stats.totals();
    assert_eq!((totals.touch_cmds, totals.touch_hits, totals.touch_misses), (5, 3, 2));
    assert_eq!((totals.get_cmds, totals.get_hits, totals.get_misses, totals.get_expired), (3, 2, 1, 1));
}

#[test]
fn meta_gets() {
    server().check(&[
        ("mg a|mg a k Oabc|mg a q k|", "EN|EN ka Oabc|"),
        ("set a 3 0 5|hello|mg a|mg a v|", "STORED|HD|VA 5|hello|"),
        ("mg a s v t f c k O1 h|", "VA 5 s5 t-1 f3 c2 ka O1 h1|hello|"),
        ("mg a C2 v c|mg a C3 v|", "HD c2|VA 5|hello|"),
        ("set b 0 0 1|x|mg b u|mg b h|mg b h|", "STORED|HD|HD h0|HD h1|"),
        ("mg a T60 t|mg a t T30 t|mg a t|", "HD t60|CLIENT_ERROR duplicate flag|HD t60|"),
    ]);
}

#[test]
fn who_renews() {
    server().check(&[
        ("mg v N30 v t|mg v N30 v t|mg v v|", "VA 0 t30 W||VA 0 t30 Z||VA 0 Z||"),
        ("ms v 2 T0|hi|mg v v t|", "HD|VA 2 t-1|hi|"),
        ("set r 0 50 1|x|mg r R30 t|mg r R60 t|mg r R60|mg r|", "STORED|HD t50|HD t50 W|HD Z|HD Z|"),
        ("ms s 2 E10|hi|md s I T30 E11|mg s v c t|mg s v c|", "HD|HD|VA 2 c11 t30 X W|hi|VA 2 c11 Z X|hi|"),
        ("ms s 2 C9 I E12|ok|mg s v c t|", "HD|VA 2 c12 t30 Z X|ok|"),
        ("md s I|mg s|ms s 2 C1|no|ms s 2 C0 ME|no|", "HD|HD X W|EX|NS|"),
    ]);
}

#[test]
fn compat_ttl_wraps() {
    let server = server();
    server.shared.clock.advance(58);
    server.check(&[("mg v N-1 t|mg v t|", "HD t4294967237 W|EN|")]);
}

#[test]
fn compat_cas_beside_e() {
    server().check(&[
        ("ms n 1 E900 c|1|ms a 1 c|x|", "HD c900|HD c2|"),
        ("ma n E901 c|ms a 1 c|x|ma n D10 E902 c|ms a 1 c|x|", "HD c901|HD c4|HD c902|HD c6|"),
        ("md a I E903|ms a 1 c|x|md a x E904|ms a 1 c|x|", "HD|HD c8|HD|HD c10|"),
    ]);
}

#[test]
fn compat_vivify_in_turn() {
    server().check(&[
        ("mg a t N30|mg a t|mg b T90 N30 t|mg c N30 T90 t|", "HD t-1 W|HD t30 Z|HD t30 W|HD t90 W|"),
        ("ma n t N30|ma n t|ma m T90 N30 t|ma o N30 T90 t|", "HD t-1|HD t30|HD t30|HD t90|"),
        ("mg d N30|mg d h|mg e N30 u|mg e h|", "HD W|HD h1 Z|HD W|HD h0 Z|"),
    ]);
}

#[test]
fn compat_no_number_before_cas() {
    server().check(&[
        ("ms n 0||ma n C9|", "HD|CLIENT_ERROR cannot increment or decrement non-numeric value|"),
        ("ms n 3|abc|ma n C9|", "HD|EX|"),
    ]);
}

#[test]
fn compat_binary_add_with_cas() {
    let server = server();
    let add = |cas| ask_binary(&server, &packet(2, &[0; 8], "a", "x", cas)).status;
    assert_eq!(add(9), 1);
    let stored = ask_binary(&server, &packet(1, &[0; 8], "a", "x", 0));
    assert_eq!((add(stored.cas + 1), add(stored.cas)), (2, 0));
    assert_eq!(ask_binary(&server, &packet(3, &[0; 8], "b", "x", 9)).status, 1);
}

#[test]
fn a_cas_and_i() {
    let server = server();
    server.check(&[
        ("ms a 1 E10|x|ms a 1 MA C9 I|y|ms a 1 C0 I|y|ms a 1 C9 I E11|z|", "HD|EX|EX|HD|"),
        ("mg a v c|", "VA 1 c11 X W|z|"),
    ]);
    let totals = server.shared.stats.totals();
    assert_eq!((totals.cas_hits, totals.cas_badval), (1, 1));
}

#[test]
fn compat_mg_counts() {
    let server = server();
    server.ask("mg v N30|mg v T50|mg u T50|mg v|me v|");
    let totals = server.shared.stats.totals();
    assert_eq!((totals.get_cmds, totals.get_hits, totals.get_misses), (3, 2, 1));
    assert_eq!((totals.touch_cmds, totals.touch_hits, totals.touch_misses, totals.meta_cmds), (1, 1, 0, 1));
}

#[test]
fn meta_stores() {
    server().check(&[
        ("ms a 2 c k O9 s|hi|ms a 2 ME c|hi|ms a 2 MA s c|++|", "HD c2 ka O9 s2|NS c0|HD s4 c4|"),
        ("ms a 2 MP q|--|mg a v|", "VA 6|--hi++|"),
        ("ms b 2 MR|hi|ms b 2 MA|hi|ms b 2 MA N100 s|hi|mg b v t|", "NS|NS|HD s2|VA 2 t100|hi|"),
        ("ms c 2 C1|hi|ms c 2 C1 ME E100|hi|ms c 2 C1 MA|hi|ms c 2 C100 MA c E101|hi|", "NF|HD|EX|HD c101|"),
        (
            "ms Zm9v 2 b F5|hi|get foo|mg foo k v|mg Zm9v!!!! b k|",
            "HD|VALUE foo 5 2|hi|END|VA 2 kZm9v b|hi|HD kZm9v b|",
        ),
        ("mg Zm9w!!!! b k|md Zm9v!!!! b k|", "EN kZm9w b|HD kZm9v b|"),
    ]);
}

#[test]
fn compat_ms_q_bad_chunk() {
    let server = server();
    let reply = "CLIENT_ERROR bad data chunk|CLIENT_ERROR bad command line format|";
    server
        .check(&[("ms a 3 q|hello|", reply), ("set a 0 0 3 noreply|hello|", "CLIENT_ERROR bad command line format|")]);
}

#[test]
fn meta_deletes() {
    server().check(&[
        ("md d|md d q|md d k Oz|", "NF|NF|NF kd Oz|"),
        ("ms d 2 E10|hi|md d C9|md d C9 q|md d C10 k O5|get d|", "HD|EX|EX|HD kd O5|END|"),
        ("ms x 2 F9 E10 T100|hi|md x x|mg x v c f t|", "HD|HD|VA 0 c10 f0 t-1||"),
        ("md x x I T30 E20|mg x v c f t|md y x|", "HD|VA 0 c20 f0 t30 X W||NF|"),
    ]);
}

#[test]
fn meta_arithmetic() {
    server().check(&[
        ("ma n|ma n N0|ma n v|ma n N0 J13 v|", "NF|HD|VA 1|1|VA 1|2|"),
        ("ma n D5 v t k O7|ma n MD v|ma n M- D100 v|", "VA 1 t-1 kn O7|7|VA 1|6|VA 1|0|"),
        ("ma m N90 J5 v t|ma m T100 t|ma m q|ma l q k O1|", "VA 1 t90|5|HD t100|NF kl O1|"),
        ("ma n C1|ma n E1000 c|ma n C1000 c E1001|", "EX|HD c1000|HD c1001|"),
        ("set s 0 0 3|abc|ma s q|", "STORED|CLIENT_ERROR cannot increment or decrement non-numeric value|"),
    ]);
}

#[test]
fn meta_debug() {
    server().check(&[
        ("me a|set a 0 100 2|xx|me a|", "EN|STORED|ME a exp=100 la=0 cas=2 fetch=no cls=1 size=62|"),
        ("get a|me a|", "VALUE a 0 2|xx|END|ME a exp=100 la=0 cas=2 fetch=yes cls=1 size=62|"),
    ]);
}

#[test]
fn compat_vivified_key() {
    server().check(&[
        ("mg Ym1Q b k N30|mg Ym1Q b k|mg bmP k|", "HD kbmP W|HD kbmP Z|HD kbmP Z|"),
        ("ma bm1Q b N0|mg bm1Q b k|", "HD|HD knmP|"),
        // Its name would break the line.
        ("mg YSBi b k N30|mg YSBi b k|", "HD kYSBi b W|HD kYSBi b Z|"),
        ("mg YQpi b k N30|ma YQpj b N0|mg YQpj b k|", "HD kYQpi b W|HD|HD kYQpj b|"),
    ]);
}

#[test]
fn binary_values() {
    let server = server();
    let set = ask_binary(&server, &packet(1, &[0, 0, 0, 5, 0, 0, 0, 0], "k", "val", 0));
    assert_eq!((set.status, set.cas, set.body), (0, 2, vec![]));
    let get = ask_binary(&server, &packet(0x0c, b"", "k", "", 0));
    assert_eq!((get.status, get.cas, get.body), (0, 2, b"\0\0\0\x05kval".to_vec()));
    assert_eq!(ask_binary(&server, &packet(0, b"", "no", "", 0)).body, b"Not found");
    assert_eq!(ask_binary(&server, &packet(0x0c, b"", "no", "", 0)).body, b"no");
    assert_eq!(server.send(&packet(0x0d, b"", "no", "", 0)), b"");
    assert_eq!(ask_binary(&server, &packet(1, &[0; 8], "k", "x", 1)).status, 2);
    assert_eq!(ask_binary(&server, &packet(1, &[0; 8], "no", "x", 1)).status, 1);
    assert_eq!(ask_binary(&server, &packet(2, &[0; 8], "k", "x", 0)).status, 2);
    assert_eq!(ask_binary(&server, &packet(3, &[0; 8], "no", "x", 0)).status, 1);
    assert_eq!(ask_binary(&server, &packet(0x0e, b"", "no", "x", 0)).status, 5);
    assert_eq!(ask_binary(&server, &packet(0x0e, b"", "k", "x", 1)).status, 2);
    assert_eq!(ask_binary(&server, &packet(0x0e, b"", "k", "x", 0)).status, 0);
    let gat = ask_binary(&server, &packet(0x1d, &[0, 0, 0, 9], "k", "", 0));
    assert_eq!((gat.status, gat.body), (0, b"\0\0\0\x05valx".to_vec()));
    assert_eq!(server.ask("mg k t|"), "HD t9|");
    assert_eq!(ask_binary(&server, &packet(0x1c, &[0; 4], "k", "", 0)).body, b"\0\0\0\x05");
    assert_eq!(ask_binary(&server, &packet(4, b"", "k", "", 1)).status, 2);
    assert_eq!(ask_binary(&server, &packet(4, b"", "k", "", 0)).status, 0);
    assert_eq!(ask_binary(&server, &packet(0x14, b"", "k", "", 0)).status, 1);
}

#[test]
fn binary_arithmetic() {
    let server = server();
    let extras = |delta: u8, initial: u8, exptime: u32| {
        let mut extras = [0; 20];
        extras[7] = delta;
        extras[15] = initial;
        extras[16..].copy_from_slice(&exptime.to_be_bytes());
        extras
    };
    assert_eq!(ask_binary(&server, &packet(5, &extras(1, 10, u32::MAX), "n", "", 0)).status, 1);
    assert_eq!(ask_binary(&server, &packet(5, &extras(1, 10, 0), "n", "", 0)).body, 10u64.to_be_bytes());
    let incr = ask_binary(&server, &packet(5, &extras(1, 10, 0), "n", "", 0));
    assert_eq!(incr.body, 11u64.to_be_bytes());
    assert_eq!(ask_binary(&server, &packet(6, &extras(1, 0, 0), "n", "", incr.cas - 1)).status, 2);
    assert_eq!(ask_binary(&server, &packet(6, &extras(100, 0, 0), "n", "", incr.cas)).body, 0u64.to_be_bytes());
    assert_eq!(server.send(&packet(0x15, &extras(1, 0, 0), "n", "", 0)), b"");
    server.ask("set s 0 0 1|x|");
    assert_eq!(ask_binary(&server, &packet(5, &extras(1, 0, 0), "s", "", 0)).status, 6);
}

#[test]
fn a_long_multiget_pauses_and_goes_on() {
    let server = server();
    let value = "x".repeat(10_000);
    let keys: Vec<String> = (0..100).map(|i| format!("key{i}")).collect();
    for key in &keys {
        server.ask(&format!("set {key} 0 0 10000|{value}|"));
    }
    let line = format!("get {}\r\n", keys.join(" "));
    let mut batch = Batch::default();
    batch.cut(Protocol::Ascii, line.as_bytes(), 0, 1, &server.shared.store);
    let get = batch.requests(0..1).next().expect("a whole request");
    let (mut out, mut parts) = (Output::default(), 0);
    let mut context = server.context();
    while let Next::More(at) = get.run(&mut context, &mut out) {
        (context.resume, parts) = (at, parts + 1);
    }
    let expected: String = keys.iter().map(|key| format!("VALUE {key} 0 10000\r\n{value}\r\n")).collect();
    assert!(parts >= 3);
    assert_eq!(String::from_utf8(out.bytes).unwrap(), expected + "END\r\n");
}

#[test]
fn what_a_batch_holds() {
    let server = server();
    let cut = |protocol, input: &[u8], most| {
        let mut batch = Batch::default();
        let end = batch.cut(protocol, input, 0, most, &server.shared.store);
        batch.prefetch(&server.shared.store);
        let bytes: usize = batch.requests(0..batch.count()).map(|prepared| prepared.cut.size()).sum();
        (batch.count(), bytes, format!("{end:?}").split(['(', ' ']).next().unwrap_or_default().to_owned())
    };
    let text = |input: &[u8]| cut(Protocol::Ascii, input, usize::MAX);
    let full = |len, bytes| (len, bytes, "Full".to_owned());
    assert_eq!(text(b""), full(0, 0));
    assert_eq!(text(b"get a\r\nmg b v\r\nincr c 1\r\nquit\r\n"), full(4, 31));
    assert_eq!(text(b"get a\r\nget \nget b\r\n"), (1, 7, "Bad".into()));
    let sets = b"set a 0 0 1\r\nx\r\nset b 0 0 0 noreply\n\r\nms c 2 T0\r\nxy\r\nms d 3\r\nxyz\r\nset e 0 0 -1\r\n";
    assert_eq!(text(sets), (4, 16 + 22 + 15 + 13, "Bad".into()));
    assert_eq!(text(b"get a\r\nset a 0 0 10\r\nxyz"), (1, 7, "Value".into()));
    assert_eq!(text(b"get unfinished"), (0, 0, "Partial".into()));
    assert_eq!(text(&b"get k\n".repeat(100)), full(16, 16 * 6));
    assert_eq!(cut(Protocol::Ascii, &b"get k\n".repeat(100), 3), full(3, 3 * 6));
    let (get, set) = (packet(0, b"", "key", "", 0), packet(1, &[0; 8], "key", "x", 0));
    let binary = |input: &[u8]| cut(Protocol::Binary, input, usize::MAX);
    assert_eq!(binary(&[&set[..], &get[..], &get[..26]].concat()), (2, set.len() + get.len(), "Partial".into()));
    assert_eq!(binary(&set[..set.len() - 1]), (0, 0, "Value".into()));
}

#[test]
fn compat_binary_store_without_cas() {
    let server = server_with(|config| config.store.cas_enabled = false);
    let status = |op, extras: &[u8], value, cas| ask_binary(&server, &packet(op, extras, "a", value, cas)).status;
    assert_eq!((status(3, &[0; 8], "5", 9), status(1, &[0; 8], "5", 9), status(2, &[0; 8], "5", 9)), (1, 0, 2));
    assert_eq!((status(3, &[0; 8], "5", 9), status(14, b"", "5", 9)), (0, 0));
    assert_eq!((status(5, &[0; 20], "", 9), status(4, b"", "", 9), status(4, b"", "", 0)), (2, 2, 0));
}

#[test]
fn compat_join_without_cas() {
    server_with(|config| config.store.cas_enabled = false).check(&[
        ("ms a 1|x|ms a 1 MA C5|y|ms a 1 MP C5|z|mg a v|", "HD|HD|HD|VA 3|zxy|"),
        ("ms a 1 C5|q|ms a 1 MR C5|q|ms a 1 C5 I|q|mg a v|", "EX|EX|EX|VA 3|zxy|"),
    ]);
}

#[test]
fn without_cas() {
    server_with(|config| config.store.cas_enabled = false).check(&[
        ("set a 0 0 1|x|gets a|cas a 0 0 1 0|x|", "STORED|VALUE a 0 1 0|x|END|EXISTS|"),
        ("mg a c|ms a 1 C5 c|x|ms a 1 c E7|x|", "HD c0|EX c0|HD c0|"),
    ]);
}

/// Runs requests in batches that are as large as can be.
fn send_together(server: &TestServer, protocol: Protocol, mut input: &[u8]) -> Vec<u8> {
    let (store, mut context, mut out) = (&server.shared.store, server.context(), Output::default());
    while !input.is_empty() {
        let mut batch = Batch::default();
        let end = batch.cut(protocol, input, 0, usize::MAX, store);
        assert!(matches!(end, End::Full), "{end:?}");
        batch.prefetch(store);
        for prepared in batch.requests(0..batch.count()) {
            prepared.run(&mut context, &mut out);
            input = &input[prepared.cut.size()..];
        }
    }
    testing::flatten(&out)
}

#[test]
fn requests_in_a_batch_are_answered_as_alone() {
    let text = |i: usize| match i % 9 {
        0 | 3 => format!("set key{} {} 0 {}\r\n{}\r\n", i % 5, i % 2, i % 11, "v".repeat(i % 11)),
        1 => format!("ms key{} 2 c k\r\nxy\r\n", i % 5),
        2 => format!("mg key{} v s k O{i}\r\nincr key1 1\r\n", i % 6),
        4 => format!("gets key{} nothing key1\r\ndelete key{}\r\n", i % 6, i % 4),
        5 => format!("set key{} 0 -0 1 noreply\r\nq\r\n", i % 5),
        6 => format!("set key{} 0 100 1 noreply\r\nq\r\n", i % 5),
        _ => format!("get key{}\r\n", i % 6),
    };
    let binary = |i: usize| {
        let key = format!("key{}", i % 5);
        match i % 3 {
            0 => packet(1, &[0; 8], &key, "value", 0),
            1 => packet(0, b"", &key, "", 0),
            _ => packet(4, b"", &key, "", 0),
        }
    };
    let texts: Vec<Vec<u8>> = (0..100).map(|i| text(i).into_bytes()).collect();
    let binaries: Vec<Vec<u8>> = (0..100).map(binary).collect();
    for (protocol, requests) in [(Protocol::Ascii, texts), (Protocol::Binary, binaries)] {
        let (together, alone) = (server(), server());
        let expected: Vec<u8> = requests.iter().flat_map(|request| alone.send(request)).collect();
        assert_eq!(send_together(&together, protocol, &requests.concat()), expected);
        assert_eq!(together.shared.stats.totals(), alone.shared.stats.totals());
    }
}

#[test]
fn the_keys_of_a_long_line_are_checked_in_parts_before_the_first_is_answered() {
    let server = TestServer::new(|_| {});
    server.check(&[("set k 0 0 1|x", "STORED")]);
    let many = "k ".repeat(100_000);
    let cases = [
        (format!("get {many}k\r\n"), "END", 100_001),
        (format!("get {}k{}\r\n", " ".repeat(200_000), " ".repeat(200_000)), "END", 1),
        (format!("gets {many}{}\r\n", "k".repeat(251)), "CLIENT_ERROR bad command line format", 0),
        (format!("get {} {many}\r\n", "k".repeat(251)), "CLIENT_ERROR bad command line format", 0),
        (format!("get {many}{} noreply\r\n", "k".repeat(251)), "", 0),
        (format!("gat 0 {many}\r\n"), "END", 100_000),
    ];
    for (line, end, values) in cases {
        let (mut out, mut steps, mut batch) = (Output::default(), 0, Batch::default());
        batch.cut(Protocol::Ascii, line.as_bytes(), 0, 1, &server.shared.store);
        let mut context = Context { part: 8 << 10, ..server.context() };
        let first = batch.requests(0..1).next().unwrap();
        let mut next = first.run(&mut context, &mut out);
        loop {
            let before = out.bytes.len();
            (context.resume, context.is_checking) = match next {
                Next::More(at) => (at, false),
                Next::Check(at) => (at, true),
                _ => break,
            };
            let mut again = Batch::default();
            again.push(
                crate::protocol::text::get_again(line.as_bytes(), line.len()),
                line.as_bytes(),
                &server.shared.store,
            );
            next = again.requests(0..1).next().unwrap().run(&mut context, &mut out);
            assert!(out.bytes.len() - before < 16 << 10, "a step answers little");
            steps += 1;
        }
        let text = String::from_utf8(out.bytes).unwrap();
        assert_eq!(text.matches("VALUE").count(), values, "{} {end}", &line[..10]);
        assert!(text.trim_end().ends_with(end) && (values > 0 || text.trim_end() == end), "{}", &line[..10]);
        assert!(values == 0 || steps >= line.len() / (64 << 10), "{steps} steps");
    }
}
