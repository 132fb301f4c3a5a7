//! What the options come to, and what is refused with which words and exit code.

use super::*;
use crate::config::settings::{FLAGS, SUBOPTIONS};
use crate::store::Accounting;
use crate::testing::{Rng, seeds};

/// Parses words separated by blanks.
fn parse(line: &str) -> Result<Config, Exit> {
    Config::parse(line.split_whitespace().map(OsString::from))
}

fn good(line: &str) -> Config {
    parse(line).unwrap_or_else(|exit| panic!("{line}: {exit:?}"))
}

fn refused(line: &str) -> (i32, String) {
    let exit = parse(line).expect_err(line);
    (exit.code, exit.stderr)
}

fn assert_refused(cases: &[(&str, i32, &str)]) {
    for (line, code, message) in cases {
        assert_eq!(refused(line), (*code, format!("{message}\n")), "{line}");
    }
}

#[test]
fn nothing_given_is_the_default() {
    assert_eq!(format!("{:?}", good("")), format!("{:?}", Config::default()));
}

#[test]
fn letters_bundle_and_take_arguments() {
    let config = good("-vvA -p7 -s /a/b -Mv -t 2 --");
    assert_eq!((config.verbosity, config.shutdown_command, config.tcp_port), (3, true, Some(7)));
    assert_eq!((config.unix_socket.as_deref(), config.threads, config.store.threads), (Some("/a/b"), 2, 2));
    assert!(!config.store.evict);
    assert_eq!(good("-vp 8").tcp_port, Some(8));
    assert_eq!(good("-p -1").tcp_port, None);
    assert_eq!(good("-p 1 -p 2").tcp_port, Some(2));
}

#[test]
fn long_names_may_be_cut_short() {
    assert_eq!(good("--port=7").tcp_port, Some(7));
    assert_eq!(good("--por 7").tcp_port, Some(7));
    assert_eq!(good("--user --daemon").user.as_deref(), Some("--daemon"));
    assert_eq!(good("--verbose=3 --verb").verbosity, 2);
    assert_eq!(good("--listen ::1").listen.len(), 1);
    let ambiguous = "twincached: option '--list' is ambiguous; possibilities: '--listen' '--listen-backlog'\n\
                     Illegal argument \"?\"";
    assert_refused(&[
        ("--list ::1", 1, ambiguous),
        ("--nosuch", 1, "twincached: unrecognized option '--nosuch'\nIllegal argument \"?\""),
        ("--daemon=1", 1, "twincached: option '--daemon' doesn't allow an argument\nIllegal argument \"?\""),
        ("--port", 1, "twincached: option '--port' requires an argument\nIllegal argument \"?\""),
        ("-p", 1, "twincached: option requires an argument -- 'p'\nIllegal argument \"?\""),
        ("-q", 1, "twincached: invalid option -- 'q'\nIllegal argument \"?\""),
        ("-F=1", 1, "twincached: invalid option -- '='\nIllegal argument \"?\""),
    ]);
}

#[test]
fn compat_stray_arguments() {
    assert_eq!(good("11211").warnings, ["ignoring argument \"11211\": it is no option"]);
    let config = good("-v -- -A");
    assert!(!config.shutdown_command);
    assert_eq!(config.warnings.len(), 1);
}

#[test]
fn the_first_exit_wins() {
    assert_eq!(parse("-V -o bogus").expect_err("exits").code, 0);
    assert_eq!(parse("-o bogus -V").expect_err("exits").code, 1);
}

#[test]
fn compat_atoi() {
    let config = good("-m 256M -c 2k -t 2x -R 10. -n 50, -b 100b");
    assert_eq!((config.store.memory_limit, config.max_conns, config.threads), (256 << 20, 2, 2));
    assert_eq!((config.reqs_per_event, config.store.chunk_size, config.backlog), (10, 50, 100));
    assert_eq!(config.warnings.len(), 6);
    assert_eq!(config.warnings[0], "-m 256M is read as -m 256, as memcached reads it: \"M\" does nothing");
    assert!(good("-m 256").warnings.is_empty());
}

#[test]
fn bad_numbers() {
    assert_refused(&[
        ("-p 70000", 64, "ERROR: Invalid port number 70000."),
        ("-p -2", 64, "ERROR: Invalid port number -2."),
        ("-p 11211x", 64, "ERROR: Invalid port number 11211x."),
        ("-m m", 64, "-m needs a whole number of megabytes, at most 1000000000, not \"m\""),
        ("-m -5m", 64, "-m needs a whole number of megabytes, at most 1000000000, not \"-5m\""),
        ("-m 1g", 64, "Cannot set item size limit higher than 1/2 of memory max."),
        (
            "-m 99999999999999999999",
            64,
            "-m needs a whole number of megabytes, at most 1000000000, not \"99999999999999999999\"",
        ),
        ("-a 999", 64, "-a needs an access mode in octal, 0 to 777, not \"999\""),
        ("-a 1777", 64, "-a needs an access mode in octal, 0 to 777, not \"1777\""),
        ("-c 0", 1, "Maximum connections must be greater than 0"),
        ("-c 0k", 1, "Maximum connections must be greater than 0"),
        ("-t 0", 1, "Number of threads must be greater than 0"),
        ("-t 1025", 1, "Number of threads must be at most 1024"),
        ("-R 0", 1, "Number of requests per event must be greater than 0"),
        ("-b x", 64, "-b needs a whole number, not \"x\""),
        ("-f 1", 1, "Factor must be greater than 1"),
        ("-f nan", 1, "Factor must be greater than 1"),
        ("-f inf", 1, "Factor must be greater than 1"),
        ("-n 0", 1, "Chunk size must be greater than 0"),
        ("-n 524289", 64, "-n (chunk_size: 524289) cannot be larger than slab_chunk_max (bytes: 524288)"),
        ("-B x", 64, "Invalid value for binding protocol: x\n -- should be one of auto, binary, or ascii"),
        ("-I 1x", 64, "-I needs a number of bytes, or one with k or m, not \"1x\""),
        ("-I k", 64, "-I needs a number of bytes, or one with k or m, not \"k\""),
    ]);
    assert_eq!(Config::parse(["-D", ""].map(OsString::from)).expect_err("-D").stderr, "No delimiter specified\n");
}

#[test]
fn many_threads_are_warned_of() {
    assert!(good("-t 64").warnings.is_empty());
    assert_eq!(good("-t 65").warnings.len(), 1);
}

#[test]
fn the_item_size_fits_memory_and_chunks() {
    assert_eq!(good("-I 512k").store.item_size_max, 512 << 10);
    assert_eq!(good("-I 2M -o no_chunked_items").store.slab_chunk_max, 512 << 10);
    assert_eq!(good("-I 1024m -m 2048").store.item_size_max, 1 << 30);
    assert_eq!(good("-I 128k -o slab_chunk_max=16").store.slab_chunk_max, 16 << 10);
    assert_refused(&[
        ("-m 0", 64, "Cannot set item size limit higher than 1/2 of memory max."),
        ("-m 1", 64, "Cannot set item size limit higher than 1/2 of memory max."),
        ("-I 600m", 64, "Cannot set item size limit higher than 1/2 of memory max."),
        ("-I 1025m -m 4000", 64, "Cannot set item size limit higher than a gigabyte."),
        ("-I 1023", 64, "Item max size cannot be less than 1024 bytes."),
        ("-I 1500k", 64, "-I (item_size_max: 1536000) must be evenly divisible by slab_chunk_max (bytes: 524288)"),
        ("-I 128k", 64, "slab_chunk_max (bytes: 524288) cannot be larger than -I (item_size_max 131072)"),
        ("-o no_modern -I 512k", 64, "slab_chunk_max (bytes: 1048576) cannot be larger than -I (item_size_max 524288)"),
        (
            "-I 3m -o slab_chunk_max=768",
            64,
            "slab_chunk_max (bytes: 786432) must divide evenly into 1048576 (slab_page_size)",
        ),
    ]);
}

#[test]
fn suboptions_are_a_list() {
    let config = good("-o modern,idle_timeout=5 -o no_lru_crawler,");
    assert_eq!((config.idle_timeout, config.store.crawler), (5, false));
    assert!(Config::parse(["-o", ""].map(OsString::from)).is_ok());
    assert_refused(&[
        ("-o bogus", 1, "Illegal suboption \"bogus\""),
        ("-o bogus=3", 1, "Illegal suboption \"bogus=3\""),
        ("-o ,modern", 1, "Illegal suboption \"\""),
        ("-o modern,,modern", 1, "Illegal suboption \"\""),
        ("-o ext_path=/a:1m", 1, "Illegal suboption \"ext_path=/a:1m\""),
        ("-o proxy_config=/a", 1, "Illegal suboption \"proxy_config=/a\""),
        ("-o hashpower", 1, "Missing numeric argument for hashpower"),
        ("-o lru_crawler_tocrawl", 1, "Missing lru_crawler_tocrawl value"),
        ("-o slab_sizes", 1, "Missing slab_sizes argument"),
        ("-o ssl_key", 1, "Missing ssl_key argument"),
        ("-o ssl_verify_mode=4", 1, "Invalid ssl_verify_mode. Use help to see valid options."),
        ("-o ssl_verify_mode=x", 1, "could not parse argument to ssl_verify_mode"),
        ("-o ssl_min_version=4", 1, "Invalid ssl_min_version. Use help to see valid options."),
        ("-Z -s /a", 64, "ERROR: You cannot enable SSL without a TCP port."),
        ("-Z -p 0", 64, "ERROR: You cannot enable SSL without a TCP port."),
        ("-Z -l mtls:h", 64, "mtls: needs -o ssl_ca_cert=FILE: whose certificates would be good?"),
    ]);
}

#[test]
fn suboptions_check_their_values() {
    let too_high = "Initial hashtable multiplier of 33 is too high\n\
                    Choose a value based on \"STAT hash_power_level\" from a running instance";
    assert_refused(&[
        ("-o hashpower=11", 1, "Initial hashtable multiplier of 11 is too low"),
        ("-o hashpower=33", 1, too_high),
        ("-o hashpower=x", 1, "could not parse argument to hashpower"),
        ("-o tail_repair_time=9", 1, "Cannot set tail_repair_time to less than 10 seconds"),
        ("-o hash_algorithm=md5", 1, "Unknown hash_algorithm option (jenkins, murmur3, xxh3)"),
        ("-o slab_accounting=x", 1, "Unknown slab_accounting option (native, memcached)"),
        ("-o lru_crawler_sleep=1000001", 1, "LRU crawler sleep must be between 0 and 1 second"),
        ("-o lru_crawler_sleep=-1", 1, "LRU crawler sleep must be between 0 and 1 second"),
        ("-o lru_crawler_tocrawl=x", 1, "lru_crawler_tocrawl takes a numeric 32bit value"),
        ("-o hot_lru_pct=0", 1, "hot_lru_pct must be > 1 and < 80"),
        ("-o warm_lru_pct=80", 1, "warm_lru_pct must be > 1 and < 80"),
        ("-o hot_max_factor=0", 1, "hot_max_factor must be > 0"),
        ("-o slab_automove=3", 1, "slab_automove must be between 0 and 2"),
        ("-o slab_automove_ratio=1.5", 1, "slab_automove_ratio must be > 0 and < 1"),
        ("-o slab_automove_window=2", 1, "slab_automove_window must be > 2"),
        ("-o slab_automove_window=1801", 1, "slab_automove_window must be at most 1800"),
        ("-o slab_chunk_max=0", 1, "slab_chunk_max must be 1 to 1024 kilobytes"),
        ("-o watcher_logbuf_size=99999999999999999", 1, "could not parse argument to watcher_logbuf_size"),
        ("-o control_socket", 1, "Missing control_socket argument"),
        ("-o control_socket=", 1, "Missing control_socket argument"),
        ("-o journal_mem=7", 1, "journal_mem must be 8 to 65536 megabytes"),
        ("-o journal_mem=65537", 1, "journal_mem must be 8 to 65536 megabytes"),
        ("-o journal_mem=64m", 1, "could not parse argument to journal_mem"),
        ("-o replicas_ack=6", 1, "replicas_ack must be 0 to 5"),
        ("-o replicas_ack=-1", 1, "could not parse argument to replicas_ack"),
        ("-o ack_timeout=0", 1, "ack_timeout must be 1 to 3600000 milliseconds"),
        ("-o ack_timeout=3600001", 1, "ack_timeout must be 1 to 3600000 milliseconds"),
        ("-o read_buf_mem_limit=x", 1, "could not parse argument to read_buf_mem_limit"),
    ]);
    assert_eq!(good("-o slab_automove").store.tuning.automove, 1);
    assert_eq!(good("-o slab_automove=2,no_slab_automove").store.tuning.automove, 0);
    assert_eq!(good("-o slab_accounting=memcached").store.accounting, Accounting::Memcached);
    assert_eq!(good("-o worker_logbuf_size=2").worker_logbuf_size, 2048);
    assert_eq!(good("-o resp_obj_mem_limit=2").warnings.len(), 1);
}

#[test]
fn compat_automove_ratio_of_one() {
    assert_eq!(good("-o slab_automove_ratio=1").store.tuning.automove_ratio, 1.0);
}

#[test]
fn compat_delimiter_of_one_byte() {
    let config = good("-D ab");
    assert_eq!((config.prefix_delimiter, config.detail_enabled), (b'a', true));
}

#[test]
fn values_are_checked_against_each_other() {
    assert_refused(&[
        ("-o temporary_ttl=5,no_lru_maintainer", 64, "temporary_ttl requires lru_maintainer to be enabled"),
        ("-o hot_lru_pct=50,warm_lru_pct=40", 64, "hot_lru_pct + warm_lru_pct cannot be more than 80% combined"),
        ("-o slab_sizes=10-20", 64, "slab size 10 is out of valid range"),
        ("-o slab_sizes=100-x", 64, "slab size x is out of valid range"),
        ("-o slab_sizes=100-524289", 64, "slab size 524289 is out of valid range"),
        ("-o slab_sizes=100-100", 64, "slab size 100 cannot be lower than or equal to a previous class size"),
        ("-o slab_sizes=100-108", 64, "slab size 108 must be at least 8 bytes larger than previous class"),
    ]);
    assert_eq!(good("-o slab_sizes=100-200-1000").store.slab_sizes, [100, 200, 1000]);
    let sizes = |n: usize| (1..=n).map(|i| (i * 100).to_string()).collect::<Vec<_>>().join("-");
    assert_eq!(good(&format!("-o slab_sizes={}", sizes(62))).store.slab_sizes.len(), 62);
    assert_refused(&[(&format!("-o slab_sizes={}", sizes(63)), 64, "too many slab classes specified")]);
}

#[test]
fn replication_needs_its_socket() {
    assert_refused(&[
        ("-o replicas_ack=1", 64, "replicas_ack needs control_socket: nobody could acknowledge anything"),
        ("-s /run/a -o control_socket=/run/a", 64, "control_socket and -s cannot be the same socket"),
        (
            "-o managed,control_socket=/run/a -e /b",
            64,
            "managed and -e exclude each other: others may have changed what a server kept while it was away",
        ),
    ]);
    for words in ["-o ack_timeout=50", "-o ack_degrade"] {
        assert_eq!(good(words).warnings.len(), 1, "{words}");
    }
    let config = good("-o control_socket=/run/a,replicas_ack=2,ack_timeout=50,ack_degrade,journal_mem=8");
    assert_eq!((config.control_socket.as_deref(), config.store.journal_bytes), (Some("/run/a"), 8 << 20));
    assert_eq!((config.replicas_ack, config.ack_timeout.as_millis(), config.ack_degrade), (2, 50, true));
    assert_eq!(good("").store.journal_bytes, 64 << 20);
}

#[test]
fn no_modern_undoes_what_came_after_1_4() {
    let config = good("-o no_modern");
    assert!(!config.maxconns_fast && !config.store.slab_reassign && !config.store.maintainer);
    assert!(!config.store.crawler && !config.store.tuning.segmented);
    assert_eq!((config.store.tuning.automove, config.store.slab_chunk_max), (0, 1 << 20));
    assert_eq!(config.hash_algorithm.name(), "jenkins");
    assert!(good("-o no_modern,slab_reassign").store.slab_reassign);
    assert!(!good("-o slab_reassign,no_modern").store.slab_reassign);
}

#[test]
fn what_is_not_built_in_says_so() {
    assert_refused(&[
        ("-N 99", 64, "Number of napi_ids(99) cannot be greater than number of threads(4)"),
        ("-N 0", 1, "Maximum number of NAPI IDs must be greater than 0"),
    ]);
    assert_eq!((good("-N 4").napi_ids, good("").napi_ids), (4, 0));
    assert_eq!(good("-U 0").tcp_port, Some(11211));
}

#[test]
fn each_way_to_log_in_has_its_own_protocol() {
    let (no_text, no_binary) = (
        "ERROR: You cannot allow the ASCII protocol while using SASL.",
        "ERROR: You cannot allow the BINARY protocol while using ascii authentication tokens.",
    );
    assert_refused(&[
        ("-S -B ascii", 64, no_text),
        ("-S -B auto", 64, no_text),
        ("-S -l proto[ascii]:127.0.0.1:7,127.0.0.1", 64, no_text),
        ("-Y /a -B binary", 64, no_binary),
        ("-Y /a -B auto", 64, no_binary),
        ("-Y /a -l proto[negotiating]:127.0.0.1", 64, no_binary),
        ("-S -Y /a", 64, no_binary),
    ]);
    for (words, binding, sasl, text) in [
        ("-S", Binding::Binary, "yes", "no"),
        ("-S -B binary -l proto[binary]:127.0.0.1", Binding::Binary, "yes", "no"),
        ("-Y /a", Binding::Ascii, "no", "/a"),
        ("-l proto[ascii]:127.0.0.1 -B ascii -Y /a", Binding::Ascii, "no", "/a"),
    ] {
        let config = good(words);
        let stats: std::collections::HashMap<_, _> = config.stats().into_iter().collect();
        let shown = (stats["auth_enabled_sasl"].as_str(), stats["auth_enabled_ascii"].as_str());
        assert_eq!((config.binding, shown, config.wants_login()), (binding, (sasl, text), true), "{words}");
    }
    assert!(!good("").wants_login());
}

#[test]
fn udp() {
    let ports = |words: &str| {
        let config = good(words);
        (config.tcp_port, config.udp_port)
    };
    assert_eq!(ports(""), (Some(11211), Some(0)));
    assert_eq!(
        (ports("-U 7"), ports("-U 7 -p 8"), ports("-p 0 -U 7")),
        ((Some(7), Some(7)), (Some(8), Some(7)), (Some(0), Some(7)))
    );
    assert_eq!((ports("-U -1"), ports("-U 0 -p 5")), ((None, None), (Some(5), Some(0))));
    assert_refused(&[
        ("-U 70000", 64, "ERROR: Invalid port number 70000."),
        ("-S -U 7", 64, "ERROR: Cannot enable UDP while using binary SASL authentication."),
        ("-Y /a -U 7", 64, "Cannot use UDP with ascii authentication enabled (-U 0 to disable)"),
        (
            "-U 7 -Z -o ssl_chain_cert=/a,ssl_key=/b,ssl_ca_cert=/c,ssl_verify_mode=2",
            64,
            "UDP (-U) has no TLS: it would be open to clients without a certificate. Leave -U out, or let those in over \
             TLS, too (ssl_verify_mode=0 or 1, no mtls:).",
        ),
        (
            "-U 7 -l mtls:127.0.0.1:5 -Z -o ssl_chain_cert=/a,ssl_key=/b,ssl_ca_cert=/c",
            64,
            "UDP (-U) has no TLS: it would be open to clients without a certificate. Leave -U out, or let those in over \
             TLS, too (ssl_verify_mode=0 or 1, no mtls:).",
        ),
        (
            "-U 7 -o managed,control_socket=/a",
            64,
            "managed and UDP (-U) exclude each other: clients must know who is primary",
        ),
    ]);
}

#[test]
fn relaxed_privileges_are_for_test_builds() {
    let built_in = cfg!(feature = "debug-commands");
    match parse("-o relaxed_privileges") {
        Ok(_) => assert!(built_in),
        Err(exit) => {
            assert!(!built_in);
            assert_eq!((exit.code, exit.stderr.as_str()), (1, "Illegal suboption \"relaxed_privileges\"\n"));
        }
    }
}

#[test]
fn addresses() {
    let config = good("-l 127.0.0.1,[::1]:7;::1 -l proto[bin]:tag[a]:*:0 -l tag_b_:h:8");
    let expected = [
        ("127.0.0.1", None, None),
        ("::1", Some(7), None),
        ("::1", None, None),
        ("*", Some(0), Some(Binding::Binary)),
        ("h", Some(8), None),
    ];
    let of = |(host, port, binding): (&str, _, _)| ListenAddr { host: host.to_owned(), port, binding, tls: None };
    assert_eq!(config.listen, expected.map(of));
    let text = "127.0.0.1,[::1]:7;::1,proto[bin]:tag[a]:*:0,tag_b_:h:8";
    assert_eq!((config.listen_text.as_deref(), config.threads_per_udp()), (Some(text), 1));
    assert_eq!(good("-l 127.0.0.1").threads_per_udp(), 4);
}

#[test]
fn addresses_say_how_tls_is_used() {
    let config = good("-Z -o ssl_ca_cert=/ca -l notls:a,btls:b:1,mtls:proto[asc]:c,d");
    let tls = [Some(ListenTls::Plain), Some(ListenTls::NoCerts), Some(ListenTls::Certs), None];
    assert_eq!(config.listen.iter().map(|address| address.tls).collect::<Vec<_>>(), tls);
    assert_eq!((config.listen[1].port, config.listen[2].binding), (Some(1), Some(Binding::Ascii)));
}

#[test]
fn bad_addresses() {
    let cases = [
        ("notls:127.0.0.1", "'notls' option is valid only when SSL is enabled"),
        ("tag[toolongtag]:127.0.0.1", "Listener tags must be between 1 and 8 characters: \"toolongtag\""),
        ("tag[]:127.0.0.1", "Listener tags must be between 1 and 8 characters: \"\""),
        ("proto[proxy]:127.0.0.1", "Server not built with proxy: \"proto[proxy\""),
        ("proto[]:127.0.0.1", "Invalid protocol spec: \"proto[]:127.0.0.1\""),
        ("proto[x]:127.0.0.1", "Invalid protocol spec: \"proto[x\""),
        ("127.0.0.1:abc", "Invalid port number: \"abc\""),
        ("127.0.0.1:70000", "Invalid port number: \"70000\""),
        ("[::1", "Invalid IPV6 address: \"[::1\""),
        ("[::1]7", "Invalid IPV6 address: \"[::1]7\""),
        (":7", "No host in \":7\""),
    ];
    for (address, line) in cases {
        let (code, text) = refused(&format!("-l {address}"));
        assert_eq!((code, text), (71, format!("{line}\nfailed to listen on one of interface(s) {address}\n")));
    }
    assert_eq!(refused("-l ,").0, 64);
}

#[test]
fn lines_of_stats_settings_are_in_memcacheds_order() {
    let lines = Config::default().stats();
    let names: Vec<&str> = lines.iter().map(|(name, _)| *name).collect();
    // Some of each part of memcached's list; tests compare the whole list with memcached's.
    let places = ["maxbytes", "verbosity", "evictions", "hashpower_init", "temporary_ttl", "client_flags_size"];
    assert_eq!(places.map(|name| names.iter().position(|known| *known == name)), [0, 5, 6, 24, 44, 65].map(Some));
    assert_eq!(lines.len(), 66);
    let mut numbers: Vec<u8> = settings::STATS.iter().map(|row| row.number).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=67).filter(|number| *number != 7).collect::<Vec<u8>>());
}

#[test]
fn help_claims_only_what_is_built_in() {
    let help = parse("-h").expect_err("exits").stdout.to_lowercase();
    for word in ["ext_path", "proxy_config", "drop_privileges"] {
        assert!(!help.contains(word), "{word}");
    }
    assert!(help.contains("enable-sasl") && help.contains("auth-file"));
    assert!(help.starts_with("memcached 1.6.45\n") && help.contains("unix-socket"));
    let wide: Vec<&str> = help.lines().filter(|line| line.len() > 80).collect();
    assert!(wide.is_empty(), "{wide:?}");
    assert!(help.contains("buffers (default: 0, 32 mb)"), "what net/worker/budget.rs takes for 0");
}

#[test]
fn version_is_one_line_that_scripts_can_cut() {
    let exit = parse("--version").expect_err("exits");
    assert_eq!((exit.code, exit.stdout.as_str()), (0, "memcached 1.6.45\n"));
    assert!(parse("-i").expect_err("exits").stdout.contains("MIT License"));
}

#[test]
fn no_words_make_it_panic() {
    let names = FLAGS.iter().map(|opt| format!("--{}", opt.name));
    let letters = FLAGS.iter().filter_map(|opt| opt.letter).map(|letter| format!("-{letter}"));
    let extended = SUBOPTIONS.iter().map(|opt| format!("{}=", opt.name));
    let values = [
        "",
        "0",
        "-1",
        "1",
        "9",
        "64",
        "1024k",
        "18446744073709551616",
        "-9223372036854775808",
        "1e400",
        "nan",
        "é",
        "=",
        ",",
        "-",
        "--",
        ":",
        "[",
        "]:",
        "proto[a]:",
        "tag[é]:",
        "100-200",
        "k",
        "\0",
    ];
    let words: Vec<String> =
        names.chain(letters).chain(extended).chain(values.map(str::to_owned)).chain(["-o".to_owned()]).collect();
    let mut rng = Rng(seeds(1).next().expect("a seed"));
    let mut good = 0;
    for _ in 0..20_000 {
        let args: Vec<OsString> = (0..rng.below(5))
            .map(|_| (0..1 + rng.below(3)).map(|_| words[rng.below(words.len())].as_str()).collect())
            .map(|word: String| word.into())
            .collect();
        match Config::parse(args) {
            Ok(_) => good += 1,
            Err(exit) => assert!(exit.code == 0 || exit.stderr.ends_with('\n')),
        }
    }
    assert!(good > 100, "hardly any good line among them: {good}");
}
