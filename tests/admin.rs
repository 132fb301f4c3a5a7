//! What operators see: `stats` and its sub-commands, dumps, `watch`, and settings changed at run time, against
//! the running server.

mod common;

use common::{Conn, DEADLINE, Packet, Server, Waited, show, until};
use std::collections::BTreeMap;

/// `stats` of a server with default options.
const STATS: &str = "\
    pid uptime time version libevent pointer_size rusage_user rusage_system max_connections curr_connections \
    total_connections rejected_connections connection_structures response_obj_oom response_obj_count \
    response_obj_bytes read_buf_count read_buf_bytes read_buf_bytes_free read_buf_oom reserved_fds cmd_get \
    cmd_set cmd_flush cmd_touch cmd_meta get_hits get_misses get_expired get_flushed delete_misses delete_hits \
    incr_misses incr_hits decr_misses decr_hits cas_misses cas_hits cas_badval touch_hits touch_misses \
    store_too_large store_no_memory auth_cmds auth_errors bytes_read bytes_written limit_maxbytes \
    accepting_conns listen_disabled_num time_in_listen_disabled_us threads conn_yields hash_power_level \
    hash_bytes hash_is_expanding slab_reassign_rescues slab_reassign_chunk_rescues slab_reassign_inline_reclaim \
    slab_reassign_busy_items slab_reassign_busy_deletes slab_reassign_busy_nomem slab_reassign_last_busy_status \
    slab_reassign_running slabs_moved lru_crawler_running lru_crawler_starts lru_maintainer_juggles \
    malloc_fails log_worker_dropped log_worker_written log_watcher_skipped log_watcher_sent log_watchers \
    unexpected_napi_ids round_robin_fallback bytes curr_items total_items slab_global_page_pool \
    expired_unfetched evicted_unfetched evicted_active evictions reclaimed crawler_reclaimed \
    crawler_items_checked lrutail_reflocked moves_to_cold moves_to_warm moves_within_lru direct_reclaims \
    lru_bumps_dropped";

/// Those that are there only with the crawler or the maintainer.
const BACKGROUND: &str = "lru_crawler_running lru_crawler_starts lru_maintainer_juggles evicted_active \
    moves_to_cold moves_to_warm moves_within_lru direct_reclaims lru_bumps_dropped";

/// `stats settings` of a server with default options, but for `tcpport` and `inter`.
const SETTINGS: &str = "maxbytes 67108864,maxconns 1024,tcpport,udpport 0,inter,verbosity 0,oldest 0,\
    evictions on,domain_socket NULL,umask 700,shutdown_command no,growth_factor 1.25,chunk_size 48,num_threads 4,\
    num_threads_per_udp 4,stat_key_prefix :,detail_enabled no,reqs_per_event 20,cas_enabled yes,tcp_backlog 1024,\
    binding_protocol auto-negotiate,auth_enabled_sasl no,auth_enabled_ascii no,item_size_max 1048576,\
    maxconns_fast yes,hashpower_init 0,slab_reassign yes,slab_automove 1,slab_automove_ratio 0.80,\
    slab_automove_window 10,slab_chunk_max 524288,lru_crawler yes,lru_crawler_sleep 100,lru_crawler_tocrawl 0,\
    tail_repair_time 0,flush_enabled yes,dump_enabled yes,hash_algorithm murmur3,lru_maintainer_thread yes,\
    lru_segmented yes,hot_lru_pct 20,warm_lru_pct 40,hot_max_factor 0.20,warm_max_factor 2.00,temp_lru no,\
    temporary_ttl 61,idle_timeout 0,watcher_logbuf_size 262144,worker_logbuf_size 65536,read_buf_mem_limit 0,\
    track_sizes no,inline_ascii_response no,slab_automove_freeratio 0.010,\
    ssl_enabled no,ssl_chain_cert (null),ssl_key (null),ssl_verify_mode 0,ssl_keyformat 1,ssl_ciphers NULL,\
    ssl_ca_cert NULL,ssl_wbuf_size 16384,ssl_session_cache no,ssl_kernel_tls no,ssl_min_version tlsv1.2,num_napi_ids 0,memory_file (null),\
    client_flags_size 4";

const ITEMS: &str = "number number_hot number_warm number_cold age_hot age_warm age mem_requested evicted \
    evicted_nonzero evicted_time outofmemory tailrepairs reclaimed expired_unfetched evicted_unfetched \
    evicted_active crawler_reclaimed crawler_items_checked lrutail_reflocked moves_to_cold moves_to_warm \
    moves_within_lru direct_reclaims hits_to_hot hits_to_warm hits_to_cold hits_to_temp";

/// Those of [`ITEMS`] that are there only with the maintainer.
const ITEMS_BACKGROUND: &str = "number_hot number_warm number_cold age_hot age_warm evicted_active moves_to_cold \
    moves_to_warm moves_within_lru direct_reclaims hits_to_hot hits_to_warm hits_to_cold hits_to_temp";

const SLABS: &str = "chunk_size chunks_per_page total_pages total_chunks used_chunks free_chunks free_chunks_end \
    get_hits cmd_set delete_hits incr_hits decr_hits cas_hits cas_badval touch_hits";

/// memcached's item sizes and classes.
const SIZES: [&str; 2] = ["-o", "slab_accounting=memcached"];

fn words(text: &str) -> Vec<&str> {
    text.split_whitespace().collect()
}

fn names(stats: &[(String, String)]) -> Vec<&str> {
    stats.iter().map(|(name, _)| name.as_str()).collect()
}

fn without<'a>(all: &'a str, left_out: &str) -> Vec<&'a str> {
    let left_out = words(left_out);
    words(all).into_iter().filter(|word| !left_out.contains(word)).collect()
}

/// Asks until `name` of `stats <argument>` is `value`.
fn wait_for(conn: &mut Conn, argument: &str, name: &str, value: &str) {
    until(&format!("stats {argument}: {name} {value}"), || conn.stat(argument, name) == value);
}

fn set(conn: &mut Conn, key: &str, flags: u32, exptime: i32, value: &str) {
    let command = format!("set {key} {flags} {exptime} {}\r\n{value}\r\n", value.len());
    assert_eq!(conn.ask(command.as_bytes(), b"\r\n"), b"STORED\r\n", "set {key}");
}

/// A connection that watches.
fn watch(server: &Server, streams: &str) -> Conn {
    let mut conn = server.connect();
    assert_eq!(conn.line(&format!("watch {streams}")), "OK");
    conn
}

/// Waits for `n` lines and gives them without `ts=… gid=…`.
fn watched(conn: &mut Conn, n: usize) -> Vec<String> {
    let count = |got: &[u8]| got.iter().filter(|&&byte| byte == b'\n').count();
    let waited = conn.read_until(DEADLINE, |got| count(got) >= n);
    assert_eq!(waited, Waited::Done, "{}", show(&conn.got));
    // What is beyond may be the first part of a line.
    let end = conn.got.iter().enumerate().filter(|(_, byte)| **byte == b'\n').nth(n - 1).map_or(0, |(at, _)| at + 1);
    let text = String::from_utf8(conn.got.drain(..end).collect()).unwrap();
    text.lines().map(without_prefix).collect()
}

fn without_prefix(line: &str) -> String {
    let (ts, rest) = line.strip_prefix("ts=").and_then(|line| line.split_once(" gid=")).expect(line);
    let (sec, usec) = ts.split_once('.').expect(line);
    assert!(sec.parse::<u64>().is_ok() && usec.parse::<u32>().is_ok(), "{line}");
    let (gid, rest) = rest.split_once(' ').expect(line);
    assert!(gid.parse::<u64>().is_ok_and(|gid| gid > 0), "{line}");
    rest.to_owned()
}

/// File descriptors differ from run to run, and seconds may pass before a ttl is looked at.
fn without_fd(line: &str) -> String {
    let word = |word: &str| match word.strip_prefix("ttl=").map(str::parse::<u32>) {
        Some(Ok(ttl)) => format!("ttl={}", ttl.next_multiple_of(100)),
        _ => word.to_owned(),
    };
    line.split(' ').filter(|word| !word.starts_with("cfd=")).map(word).collect::<Vec<_>>().join(" ")
}

#[test]
fn stats_have_their_names_and_order() {
    let server = Server::start(&[]);
    assert_eq!(names(&server.connect().stats("")), words(STATS));
    assert_eq!(words(STATS).len(), 93);
    let server = Server::start(&["-o", "no_lru_crawler,no_lru_maintainer"]);
    let expected = without(STATS, BACKGROUND);
    assert_eq!(names(&server.connect().stats("")), expected);
    assert_eq!(expected.len(), 84);
    let server = Server::start(&["-o", "no_slab_reassign,no_maxconns_fast,idle_timeout=50"]);
    let stats = server.connect().stats("");
    let names = names(&stats);
    assert!(!names.iter().any(|name| name.starts_with("slab_reassign") || *name == "rejected_connections"));
    assert!(names.windows(2).any(|pair| pair == ["idle_kicks", "bytes_read"]));
}

#[test]
fn stats_count() {
    let server = Server::start(&SIZES);
    let mut conn = server.connect();
    set(&mut conn, "0123456789", 0, 0, &"x".repeat(100));
    conn.ask(b"get 0123456789 missing\r\n", b"END\r\n");
    assert_eq!(conn.line("delete missing"), "NOT_FOUND");
    assert_eq!(conn.line("touch 0123456789 0"), "TOUCHED");
    set(&mut conn, "n", 0, 0, "5");
    assert_eq!((conn.line("incr n 1"), conn.line("incr none 1")), ("6".to_owned(), "NOT_FOUND".to_owned()));
    assert_eq!((conn.line("decr n 1"), conn.line("decr none 1")), ("5".to_owned(), "NOT_FOUND".to_owned()));
    assert_eq!(conn.line("delete n"), "DELETED");
    for (name, value) in [
        ("cmd_get", "2"),
        ("get_hits", "1"),
        ("get_misses", "1"),
        ("cmd_set", "2"),
        ("cmd_touch", "1"),
        ("touch_hits", "1"),
        ("touch_misses", "0"),
        ("delete_hits", "1"),
        ("delete_misses", "1"),
        ("incr_hits", "1"),
        ("incr_misses", "1"),
        ("decr_hits", "1"),
        ("decr_misses", "1"),
        ("curr_items", "1"),
        ("total_items", "2"),
        ("bytes", "169"),
        ("limit_maxbytes", "67108864"),
        ("threads", "4"),
        ("reserved_fds", "20"),
        ("pointer_size", "64"),
        ("version", "1.6.45"),
        ("accepting_conns", "1"),
        ("hash_power_level", "16"),
    ] {
        assert_eq!(conn.stat("", name), value, "{name}");
    }
    assert_eq!(conn.stat("", "pid"), server.pid().to_string());
    assert_eq!(conn.ask(b"stats reset\r\n", b"\r\n"), b"RESET\r\n");
    for name in ["cmd_get", "get_hits", "cmd_set", "total_items", "total_connections", "bytes_written"] {
        let value: u64 = conn.stat("", name).parse().unwrap();
        // The bytes of these very questions count again.
        assert!(value == 0 || name.starts_with("bytes_") && value < 20_000, "{name} is {value}");
    }
    assert_eq!(conn.stat("", "curr_items"), "1");
    assert_eq!(conn.stat("slabs", "4:cmd_set"), "0");
}

#[test]
fn durations_are_measured() {
    let server = Server::start(&[]);
    let mut conn = server.connect();
    assert_eq!(conn.line("stats reset"), "RESET");
    set(&mut conn, "key", 0, 0, "value");
    let stats: BTreeMap<String, String> = conn.stats("twincache").into_iter().collect();
    let number = |name: &str| stats[name].parse::<u64>().unwrap();
    assert!(number("loop_turns_served") > 0);
    assert!(number("loop_turn_p50_us") <= number("loop_turn_p99_us"));
    assert!(number("inside_p50_us") <= number("inside_p99_us") && number("inside_p99_us") <= number("inside_p999_us"));
    assert!(number("longest_loop_turn_cpu_us") <= number("longest_loop_turn_us"));
    let holders = ["maintainer", "crawler", "mover", "ahead", "walk"];
    let longest = holders.map(|holder| number(&format!("longest_lock_hold_{holder}_us"))).into_iter().max();
    assert_eq!(longest, Some(number("longest_lock_hold_us")));
    assert!(number("longest_lock_hold_cpu_us") <= number("longest_lock_hold_us"));
}

#[test]
fn settings_have_their_names_and_values() {
    let server = Server::start(&[]);
    let settings = server.connect().stats("settings");
    let expected: Vec<&str> = SETTINGS.split(',').collect();
    assert_eq!(settings.len(), expected.len(), "{settings:?}");
    for ((name, value), expected) in settings.iter().zip(expected) {
        match expected.split_once(' ') {
            Some(pair) => assert_eq!((name.as_str(), value.as_str()), pair),
            None => assert_eq!(name, expected),
        }
    }
    let mut conn = server.connect();
    // As it was asked for: any free one.
    assert_eq!(conn.stat("settings", "tcpport"), "-1");
    assert_eq!(conn.stat("settings", "inter"), "127.0.0.1");
}

#[test]
fn settings_follow_commands_and_options() {
    let server = Server::start(&["-m", "128", "-M", "-F", "-A", "-D", "/", "-C", "-t", "2", "-R", "7", "-B", "ascii"]);
    let mut conn = server.connect();
    for command in [
        "cache_memlimit 64",
        "verbosity 2",
        "slabs automove 0",
        "slabs automove ratio 0.5",
        "slabs automove window 30",
        "slabs automove freeratio 0.025",
        "lru tune 10 25 0.1 3",
        "lru temp_ttl 9",
        "lru mode flat",
        "lru_crawler sleep 5",
        "lru_crawler tocrawl 6",
        "lru_crawler disable",
    ] {
        assert_eq!(conn.line(command), "OK", "{command}");
    }
    let settings: BTreeMap<String, String> = conn.stats("settings").into_iter().collect();
    let expected = "maxbytes 67108864,verbosity 2,evictions off,shutdown_command yes,num_threads 2,\
        stat_key_prefix /,detail_enabled yes,reqs_per_event 7,cas_enabled no,binding_protocol ascii,slab_automove 0,\
        slab_automove_ratio 0.50,slab_automove_window 30,slab_automove_freeratio 0.025,lru_crawler no,\
        lru_crawler_sleep 5,lru_crawler_tocrawl 6,flush_enabled no,lru_segmented no,hot_lru_pct 10,warm_lru_pct 25,\
        hot_max_factor 0.10,warm_max_factor 3.00,temp_lru yes,temporary_ttl 9";
    for pair in expected.split(',') {
        let (name, value) = pair.split_once(' ').unwrap();
        assert_eq!(settings[name], value, "{name}");
    }
    assert_eq!(conn.stat("", "limit_maxbytes"), "67108864");
}

#[test]
fn items_and_slabs_have_their_layout() {
    let server = Server::start(&SIZES);
    let mut conn = server.connect();
    assert!(conn.stats("items").is_empty());
    set(&mut conn, "0123456789", 0, 0, &"x".repeat(100));
    set(&mut conn, "k", 0, 0, &"x".repeat(1000));
    conn.ask(b"get k k\r\n", b"END\r\n");
    let items = conn.stats("items");
    let expected: Vec<String> =
        [4, 12].iter().flat_map(|class| words(ITEMS).into_iter().map(move |n| format!("items:{class}:{n}"))).collect();
    assert_eq!(names(&items), expected);
    assert_eq!(conn.stat("items", "items:4:number"), "1");
    assert_eq!(conn.stat("items", "items:4:mem_requested"), "169");
    let slabs = conn.stats("slabs");
    let mut expected: Vec<String> =
        [4, 12].iter().flat_map(|class| words(SLABS).into_iter().map(move |n| format!("{class}:{n}"))).collect();
    expected.extend(["active_slabs".to_owned(), "total_malloced".to_owned()]);
    assert_eq!(names(&slabs), expected);
    for (name, value) in [
        ("4:chunk_size", "192"),
        ("4:chunks_per_page", "5461"),
        ("4:total_pages", "1"),
        ("4:total_chunks", "5461"),
        ("4:used_chunks", "1"),
        ("4:free_chunks", "5460"),
        ("4:free_chunks_end", "0"),
        ("4:cmd_set", "1"),
        ("12:get_hits", "2"),
        ("active_slabs", "2"),
        ("total_malloced", "2097152"),
    ] {
        assert_eq!(conn.stat("slabs", name), value, "{name}");
    }
    assert_eq!(conn.line("delete k"), "DELETED");
    assert_eq!(names(&conn.stats("items")).len(), words(ITEMS).len(), "a class without items is not listed");
}

#[test]
fn items_without_the_maintainer() {
    let server = Server::start(&["-o", "slab_accounting=memcached,no_lru_maintainer"]);
    let mut conn = server.connect();
    set(&mut conn, "0123456789", 0, 0, &"x".repeat(100));
    let expected: Vec<String> =
        without(ITEMS, ITEMS_BACKGROUND).into_iter().map(|name| format!("items:4:{name}")).collect();
    assert_eq!(names(&conn.stats("items")), expected);
}

#[test]
fn items_show_temp_when_it_is_on() {
    let server = Server::start(&["-o", "temporary_ttl=60"]);
    let mut conn = server.connect();
    set(&mut conn, "k", 0, 59, "x");
    let items = conn.stats("items");
    assert!(items[4].0.ends_with(":number_temp") && items[4].1 == "1", "{items:?}");
}

#[test]
fn conns_are_listed() {
    let server = Server::start(&[]);
    let (mut idle, mut conn) = (server.connect(), server.connect());
    idle.line("version");
    idle.send(b"set k 0 0 10\r\nabc");
    let of = |conn: &mut Conn| -> Vec<Vec<(String, String)>> {
        let mut conns: BTreeMap<u32, Vec<(String, String)>> = BTreeMap::new();
        for (name, value) in conn.stats("conns") {
            let (fd, name) = name.split_once(':').unwrap();
            conns.entry(fd.parse().unwrap()).or_default().push((name.to_owned(), value));
        }
        conns.into_values().collect()
    };
    let listening = |conn: &[(String, String)]| names(conn) == ["addr", "state", "secs_since_last_cmd"];
    let conns = of(&mut conn);
    let listener = conns.iter().find(|conn| listening(conn)).expect("a listener");
    assert_eq!(listener[0].1, format!("tcp:127.0.0.1:{}", server.addr.port()));
    assert_eq!(listener[1].1, "conn_listening");
    let clients: Vec<_> = conns.iter().filter(|conn| !listening(conn)).collect();
    for client in &clients {
        assert_eq!(names(client), ["addr", "listen_addr", "state", "secs_since_last_cmd"]);
        assert!(client[0].1.starts_with("tcp:127.0.0.1:"), "{client:?}");
        assert_eq!(client[1].1, listener[0].1);
    }
    assert!(clients.iter().any(|client| client[2].1 == "conn_parse_cmd"));
    until("an upload shows as conn_nread", || {
        of(&mut conn).iter().any(|conn| conn.iter().any(|(_, value)| value == "conn_nread"))
    });
}

#[test]
fn sizes_are_tracked() {
    let server = Server::start(&["-o", "slab_accounting=memcached,track_sizes"]);
    let mut conn = server.connect();
    set(&mut conn, "foo", 0, 0, &"x".repeat(100));
    assert_eq!(conn.stats("sizes"), [("192".to_owned(), "1".to_owned())]);
    assert_eq!(conn.line("delete foo"), "DELETED");
    assert_eq!(conn.stats("sizes"), []);
}

#[test]
fn detail_counts_prefixes() {
    let server = Server::start(&["-D", "/"]);
    let mut conn = server.connect();
    set(&mut conn, "a/b", 0, 0, "x");
    conn.ask(b"get a/b a/c nodelimiter\r\n", b"END\r\n");
    assert_eq!(conn.line("delete a/b"), "DELETED");
    let dump = conn.ask(b"stats detail dump\r\n", b"END\r\n");
    assert_eq!(show(&dump), r"PREFIX a get 2 hit 1 set 1 del 1\r\nEND\r\n");
    assert_eq!(conn.line("stats detail off"), "OK");
    set(&mut conn, "a/b", 0, 0, "x");
    assert_eq!(conn.ask(b"stats detail dump\r\n", b"END\r\n"), dump);
}

#[test]
fn binary_stats_are_the_same() {
    let server = Server::start(&[]);
    let names = |key: &[u8]| -> Vec<String> {
        let mut conn = server.connect();
        conn.send(&Packet::new(0x10, key, b"").request());
        let mut names = Vec::new();
        loop {
            let waited = conn.read_until(DEADLINE, |got| Packet::reply(got).is_some());
            assert_eq!(waited, Waited::Done);
            let (packet, len) = Packet::reply(&conn.got).unwrap();
            conn.got.drain(..len);
            if packet.key.is_empty() {
                return names;
            }
            names.push(String::from_utf8(packet.key).unwrap());
        }
    };
    assert_eq!(names(b""), words(STATS));
    let settings: Vec<&str> = SETTINGS.split(',').map(|pair| pair.split(' ').next().unwrap()).collect();
    assert_eq!(names(b"settings"), settings);
}

#[test]
fn cachedump_lists_a_class() {
    let server = Server::start(&["-o", "slab_accounting=memcached,no_lru_maintainer"]);
    let mut conn = server.connect();
    set(&mut conn, "one", 0, 0, "x");
    set(&mut conn, "two", 0, 0, "xy");
    assert_eq!(conn.ask(b"ms AAEC 1 b\r\nx\r\n", b"\r\n"), b"HD\r\n");
    let dump = conn.ask(b"stats cachedump 1 0\r\n", b"END\r\n");
    assert_eq!(show(&dump), r"ITEM two [2 b; 0 s]\r\nITEM one [1 b; 0 s]\r\nEND\r\n");
    let dump = conn.ask(b"stats cachedump 1 1\r\n", b"END\r\n");
    assert_eq!(show(&dump), r"ITEM two [2 b; 0 s]\r\nEND\r\n");
    let time: i64 = conn.stat("", "time").parse().unwrap();
    set(&mut conn, "one", 0, 1000, "x");
    let dump = conn.ask(b"stats cachedump 1 1\r\n", b"END\r\n");
    let dump = String::from_utf8(dump).unwrap();
    let seconds = dump.strip_prefix("ITEM one [1 b; ").and_then(|rest| rest.strip_suffix(" s]\r\nEND\r\n"));
    let seconds: i64 = seconds.expect(&dump).parse().unwrap();
    assert!((1000..1000 + 60).contains(&(seconds - time)), "{seconds} is 1000 seconds from {time}");
}

/// Every line of a dump has the form that memcached's has, its trailing blank and lone line feed included.
#[test]
fn metadump_line() {
    let server = Server::start(&SIZES);
    let mut conn = server.connect();
    set(&mut conn, "dk%a", 5, 1000, "vv");
    set(&mut conn, "dk2", 0, 0, "x");
    set(&mut conn, "gone", 0, -1, "x");
    assert_eq!(conn.ask(b"ms AAECAw== 2 b\r\nhi\r\n", b"\r\n"), b"HD\r\n");
    conn.ask(b"get dk2\r\n", b"END\r\n");
    let time: i64 = conn.stat("", "time").parse().unwrap();
    for argument in ["all", "hash", "1", "1,2"] {
        let dump = conn.ask(format!("lru_crawler metadump {argument}\r\n").as_bytes(), b"END\r\n");
        let dump = String::from_utf8(dump).unwrap();
        let lines = dump.strip_prefix("OK\r\n").and_then(|dump| dump.strip_suffix("END\r\n")).expect(&dump);
        let mut lines: Vec<String> = lines.split_terminator('\n').map(|line| normal(line, time)).collect();
        lines.sort();
        let expected = [
            "key=%00%01%02%03 exp=-1 la=NOW cas=N fetch=no cls=1 size=65 flags=0 ",
            "key=dk%25a exp=NOW+1000 la=NOW cas=N fetch=no cls=1 size=69 flags=5 ",
            "key=dk2 exp=-1 la=NOW cas=N fetch=yes cls=1 size=63 flags=0 ",
        ];
        assert_eq!(lines, expected, "{argument}");
        let dump = conn.ask(format!("lru_crawler mgdump {argument}\r\n").as_bytes(), b"EN\r\n");
        let dump = String::from_utf8(dump).unwrap();
        let mut lines: Vec<&str> = dump.split_inclusive("\r\n").collect();
        assert_eq!((lines.remove(0), lines.pop()), ("OK\r\n", Some("EN\r\n")));
        lines.sort();
        assert_eq!(lines, ["mg AAECAw== b\r\n", "mg dk%a\r\n", "mg dk2\r\n"], "{argument}");
    }
    assert_eq!(conn.ask(b"lru_crawler metadump 2\r\n", b"END\r\n"), b"OK\r\nEND\r\n");
}

/// Replaces times near `time` and cas uniques.
fn normal(line: &str, time: i64) -> String {
    let near = |value: &str, base: i64| value.parse::<i64>().is_ok_and(|v| (v - base).abs() < 60);
    let word = |word: &str| match word.split_once('=') {
        Some(("cas", _)) => "cas=N".to_owned(),
        Some((name @ ("exp" | "la"), value)) if near(value, time) => format!("{name}=NOW"),
        Some((name @ ("exp" | "la"), value)) if near(value, time + 1000) => format!("{name}=NOW+1000"),
        _ => word.to_owned(),
    };
    line.split(' ').map(word).collect::<Vec<_>>().join(" ")
}

#[test]
fn a_large_dump_is_complete() {
    const KEYS: usize = 20_000;
    let (server, still) = (Server::start(&[]), Server::start(&["-o", "no_lru_maintainer"]));
    // The maintainer moves items between the lists of their class meanwhile.
    for (server, argument) in [(&server, "hash"), (&server, "all"), (&server, "1"), (&still, "all")] {
        let mut conn = server.connect();
        let sets: String = (0..KEYS).map(|n| format!("set key{n} 0 0 3 noreply\r\nabc\r\n")).collect();
        conn.send(sets.as_bytes());
        assert_eq!(conn.line("mn"), "MN");
        let dump = conn.ask(format!("lru_crawler mgdump {argument}\r\n").as_bytes(), b"\r\nEN\r\n");
        let dump = String::from_utf8(dump).unwrap();
        let mut keys: Vec<usize> =
            dump.lines().filter_map(|line| line.strip_prefix("mg key")).map(|n| n.parse().unwrap()).collect();
        keys.sort_unstable();
        assert!(keys.iter().copied().eq(0..KEYS), "{argument}: {} keys", keys.len());
        assert_eq!(conn.line("version"), "VERSION 1.6.45", "the connection goes on");
    }
}

#[test]
fn a_dump_can_be_abandoned() {
    let server = Server::start(&[]);
    let mut conn = server.connect();
    let sets: String = (0..20_000).map(|n| format!("set key{n} 0 0 3 noreply\r\nabc\r\n")).collect();
    conn.send(sets.as_bytes());
    assert_eq!(conn.line("mn"), "MN");
    let mut other = server.connect();
    other.send(b"lru_crawler metadump all\r\n");
    assert_eq!(other.read_until(DEADLINE, |got| got.len() > 100), Waited::Done);
    drop(other);
    wait_for(&mut conn, "", "curr_connections", "1");
    conn.ask(b"lru_crawler metadump hash\r\n", b"END\r\n");
}

#[test]
fn watch_fetchers_mutations_and_deletions() {
    let server = Server::start(&SIZES);
    let mut log = watch(&server, "fetchers mutations deletions");
    let mut conn = server.connect();
    set(&mut conn, "foo", 0, 100, "abc");
    conn.ask(b"get foo a,b\r\n", b"END\r\n");
    assert_eq!(conn.ask(b"add foo 0 0 1\r\nx\r\n", b"\r\n"), b"NOT_STORED\r\n");
    assert_eq!(conn.ask(b"append foo 0 0 1\r\nx\r\n", b"\r\n"), b"STORED\r\n");
    assert_eq!(conn.ask(b"cas foo 0 0 1 1\r\nx\r\n", b"\r\n"), b"EXISTS\r\n");
    assert_eq!(conn.ask(b"ms foo 2 T300\r\nhi\r\n", b"\r\n"), b"HD\r\n");
    assert_eq!(conn.line("md foo"), "HD");
    assert_eq!(conn.line("incr n 1"), "NOT_FOUND");
    assert_eq!(conn.line("ma n N0 J10"), "HD");
    assert_eq!(conn.line("ma n"), "HD");
    assert_eq!(conn.line("delete n"), "DELETED");
    let too_large = format!("set big 0 0 2000000\r\n{}\r\n", "x".repeat(2_000_000));
    assert!(conn.ask(too_large.as_bytes(), b"\r\n").starts_with(b"SERVER_ERROR"));
    let expected = [
        "type=item_get key=foo status=not_found clsid=0 size=0",
        "type=item_store key=foo status=stored cmd=set ttl=100 clsid=1 size=3",
        "type=item_get key=foo status=found clsid=1 size=3",
        "type=item_get key=a%2Cb status=not_found clsid=0 size=0",
        "type=item_get key=foo status=found clsid=1 size=3",
        "type=item_store key=foo status=not_stored cmd=add ttl=0 clsid=1 size=1",
        "type=item_get key=foo status=found clsid=1 size=3",
        "type=item_store key=foo status=stored cmd=append ttl=100 clsid=1 size=4",
        "type=item_get key=foo status=found clsid=1 size=4",
        "type=item_store key=foo status=exists cmd=cas ttl=0 clsid=1 size=1",
        "type=item_get key=foo status=found clsid=1 size=4",
        "type=item_store key=foo status=stored cmd=set ttl=300 clsid=1 size=2",
        "type=item_get key=foo status=found clsid=1 size=2",
        "type=deleted key=foo cmd=md clsid=1 size=2",
        "type=item_get key=n status=not_found clsid=0 size=0",
        "type=item_get key=n status=not_found clsid=0 size=0",
        "type=item_get key=n status=not_found clsid=0 size=0",
        "type=item_store key=n status=stored cmd=add ttl=0 clsid=1 size=2",
        "type=item_get key=n status=found clsid=1 size=2",
        "type=item_get key=n status=found clsid=1 size=2",
        "type=deleted key=n cmd=delete clsid=1 size=2",
        "type=item_store key=big status=too_large cmd=set ttl=0 clsid=0 size=0",
        "type=item_get key=big status=not_found clsid=0 size=0",
    ];
    let lines: Vec<String> = watched(&mut log, expected.len()).iter().map(|line| without_fd(line)).collect();
    assert_eq!(lines, expected);
}

#[test]
fn watch_tells_of_a_long_append_once() {
    let server = Server::start(&SIZES);
    let mut conn = server.connect();
    let value = "x".repeat(700_000);
    set(&mut conn, "foo", 0, 0, &value[..400_000]);
    let mut log = watch(&server, "fetchers mutations");
    assert_eq!(conn.line("append foo 0 0 1\r\nx"), "STORED");
    assert_eq!(conn.line(&format!("append foo 0 0 700000\r\n{value}")), "NOT_STORED", "it would be too large");
    set(&mut conn, "end", 0, 0, "x");
    let expected = [
        "type=item_get key=foo status=found size=400000",
        "type=item_store key=foo status=stored cmd=append ttl=0 size=400001",
        "type=item_get key=foo status=found size=400001",
        "type=item_store key=foo status=not_stored cmd=append ttl=0 size=700000",
        "type=item_get key=end status=not_found size=0",
        "type=item_store key=end status=stored cmd=set ttl=0 size=1",
    ];
    let without_class = |line: &str| {
        let line = without_fd(line);
        line.split(' ').filter(|word| !word.starts_with("clsid=")).collect::<Vec<_>>().join(" ")
    };
    let lines: Vec<String> = watched(&mut log, expected.len()).iter().map(|line| without_class(line)).collect();
    assert_eq!(lines, expected);
}

#[test]
fn watch_connevents() {
    let server = Server::start(&[]);
    let mut log = watch(&server, "connevents");
    server.connect().send(b"quit\r\n");
    let mut lines = watched(&mut log, 2);
    // Two threads wrote them, whose lines may come in any order.
    lines.sort();
    let fields = |line: &str| -> Vec<String> { line.split(' ').map(str::to_owned).collect() };
    let (close, new) = (fields(&lines[0]), fields(&lines[1]));
    assert_eq!(
        (new[0].as_str(), new[1].as_str(), new[3].as_str()),
        ("type=conn_new", "rip=127.0.0.1", "transport=tcp")
    );
    assert_eq!((close[0].as_str(), close[4].as_str()), ("type=conn_close", "reason=normal"));
    assert_eq!((&new[1..4], &new[4]), (&close[1..4], &close[5]));
}

#[test]
fn watch_evictions() {
    let server = Server::start(&["-m", "8", "-o", "slab_accounting=memcached"]);
    let mut log = watch(&server, "evictions");
    let mut conn = server.connect();
    let value = "x".repeat(10_000);
    let sets: String = (0..2000).map(|n| format!("set key,{n} 0 0 10000 noreply\r\n{value}\r\n")).collect();
    conn.send(sets.as_bytes());
    assert_eq!(conn.line("mn"), "MN");
    let line = &watched(&mut log, 1)[0];
    let words = words(line);
    assert_eq!(words.len(), 7, "{line}");
    assert!(words[0] == "type=eviction" && words[1].starts_with("key=key%2C"), "{line}");
    assert_eq!((words[2], words[3], words[5]), ("fetch=no", "ttl=-1", "clsid=22"), "{line}");
    assert!(words[4].starts_with("la=") && words[6].starts_with("size=100"), "{line}");
}

#[test]
fn watch_sysevents() {
    let server = Server::start(&[]);
    let mut log = watch(&server, "sysevents");
    set(&mut server.connect(), "k", 0, 0, "x");
    let line = &watched(&mut log, 1)[0];
    let fields: Vec<(&str, &str)> = words(line).into_iter().map(|word| word.split_once('=').expect(line)).collect();
    let names: Vec<&str> = fields.iter().map(|field| field.0).collect();
    let expected = "type crawler lru low_mark next_reclaims since_run next_run elapsed examined reclaimed";
    assert_eq!(names, words(expected));
    assert_eq!(fields[0].1, "lru_crawler");
    assert!(["hot", "warm", "cold", "temp"].contains(&fields[2].1), "{line}");
}

#[test]
fn a_crawl_reclaims_what_has_expired() {
    let server = Server::start(&["-o", "no_lru_maintainer"]);
    let mut conn = server.connect();
    set(&mut conn, "stays", 0, 0, "x");
    let sets: String = (0..100).map(|n| format!("set k{n} 0 -1 1 noreply\r\nx\r\n")).collect();
    conn.send(sets.as_bytes());
    assert_eq!(conn.line("mn"), "MN");
    assert_eq!(conn.line("lru_crawler crawl all"), "OK");
    wait_for(&mut conn, "", "curr_items", "1");
    let count = |conn: &mut Conn, name| conn.stat("", name).parse::<u32>().unwrap();
    assert!(count(&mut conn, "crawler_items_checked") > 0);
    // What a store reclaims by the way counts elsewhere.
    assert_eq!(count(&mut conn, "crawler_reclaimed") + count(&mut conn, "reclaimed"), 100);
    assert_eq!(count(&mut conn, "expired_unfetched"), 100);
    assert_eq!(conn.line("lru_crawler disable"), "OK");
    assert_eq!(conn.line("lru_crawler crawl all"), "CLIENT_ERROR lru crawler disabled");
    assert_eq!(conn.line("lru_crawler enable"), "OK");
}

#[test]
fn a_watcher_that_leaves_is_forgotten() {
    let server = Server::start(&[]);
    let mut conn = server.connect();
    let log = watch(&server, "");
    assert_eq!(conn.stat("", "log_watchers"), "1");
    assert_eq!(conn.stat("", "curr_connections"), "2");
    drop(log);
    wait_for(&mut conn, "", "log_watchers", "0");
    wait_for(&mut conn, "", "curr_connections", "1");
}

#[test]
fn twenty_watchers_and_no_more() {
    let server = Server::start(&[]);
    let logs: Vec<Conn> = (0..20).map(|_| watch(&server, "mutations")).collect();
    let mut conn = server.connect();
    assert_eq!(conn.line("watch mutations"), "WATCHER_TOO_MANY log watcher limit reached");
    assert_eq!(conn.line("version"), "VERSION 1.6.45");
    drop(logs);
    wait_for(&mut conn, "", "log_watchers", "0");
    assert_eq!(conn.line("watch mutations"), "OK");
}

#[test]
fn a_watcher_that_does_not_read_holds_nobody_up() {
    let server = Server::start(&["-o", "watcher_logbuf_size=4,worker_logbuf_size=4"]);
    let _log = watch(&server, "fetchers");
    let mut conn = server.connect();
    let key = "k".repeat(200);
    let gets = format!("get {key}\r\n").repeat(20_000);
    until("something is dropped", || {
        conn.send(gets.as_bytes());
        assert_eq!(conn.ask(b"mn\r\n", b"MN\r\n").len(), 20_000 * b"END\r\n".len() + b"MN\r\n".len());
        let mut count = |name| conn.stat("", name).parse::<u64>().unwrap();
        count("log_worker_dropped") + count("log_watcher_skipped") > 0
    });
}

#[test]
fn pages_move() {
    // Memory is full, so that class 4 cannot have a fresh page for the one it gives.
    let server = Server::start(&["-m", "4", "-o", "slab_accounting=memcached,slab_automove=0"]);
    let mut conn = server.connect();
    let value = "x".repeat(100);
    let sets: String = (0..20_000).map(|n| format!("set k{n:09} 0 0 100 noreply\r\n{value}\r\n")).collect();
    conn.send(sets.as_bytes());
    assert_eq!(conn.line("mn"), "MN");
    assert_eq!(conn.stat("slabs", "4:total_pages"), "4");
    assert_eq!(conn.line("slabs reassign 4 10"), "OK");
    wait_for(&mut conn, "", "slabs_moved", "1");
    assert_eq!(conn.stat("slabs", "4:total_pages"), "3");
    assert_eq!(conn.stat("slabs", "10:total_pages"), "1");
    assert_eq!(conn.stat("", "slab_reassign_running"), "0");
}

#[test]
fn pages_in_which_nothing_lies_are_moved_in_a_row() {
    let server = Server::start(&["-m", "16", "-o", "slab_accounting=memcached,slab_automove=0"]);
    let mut conn = server.connect();
    let value = "x".repeat(2000);
    let each = |make: &dyn Fn(usize) -> String| (0..3_000).map(make).collect::<String>();
    conn.send(each(&|n| format!("set k{n} 0 0 2000 noreply\r\n{value}\r\n")).as_bytes());
    conn.send(each(&|n| format!("delete k{n} noreply\r\n")).as_bytes());
    assert_eq!(conn.line("mn"), "MN");
    let slabs = conn.stats("slabs");
    let is_many =
        |(name, value): &&(String, String)| name.ends_with(":total_pages") && value.parse::<u32>().unwrap() > 4;
    let class = slabs.iter().find(is_many).unwrap().0.split(':').next().unwrap();
    // To another class, to the pool, and out of it.
    let moves =
        [format!("{class} 10"), format!("{class} 0"), format!("{class} 0"), "0 10".into(), format!("{class} 5")];
    conn.send(moves.map(|pages| format!("slabs reassign {pages}\r\n")).concat().as_bytes());
    conn.expect(&"OK\r\n".repeat(5));
    assert_eq!((conn.stat("slabs", "10:total_pages"), conn.number("", "slabs_moved")), ("2".into(), 5));
}

#[test]
fn shutdown_stops_the_server() {
    let mut server = Server::start(&["-A"]);
    let mut conn = server.connect();
    assert_eq!(conn.line("shutdown now"), "CLIENT_ERROR invalid shutdown mode");
    let _log = watch(&server, "fetchers");
    server.may_exit();
    conn.send(b"shutdown\r\n");
    assert_eq!(conn.read_until(DEADLINE, |_| false), Waited::Closed);
    assert!(conn.got.is_empty());
    assert!(server.wait().success());
}

/// Over the loopback nothing comes by a queue of a network card, so each goes to the next thread in turn.
#[test]
fn connections_without_a_napi_id_are_dealt_in_turn() {
    let server = Server::start(&["-N", "2", "-t", "3"]);
    let mut conn = server.connect();
    let others: Vec<_> = (0..5).map(|_| server.connect()).collect();
    until("all of them", || conn.number("", "round_robin_fallback") == 6);
    assert_eq!(conn.number("", "unexpected_napi_ids"), 0);
    assert_eq!(conn.stat("settings", "num_napi_ids"), "2");
    drop(others);
    assert_eq!(conn.line("stats reset"), "RESET");
    assert_eq!(conn.number("", "round_robin_fallback"), 0);
    server.connect();
    until("one more", || conn.number("", "round_robin_fallback") == 1);
}
