//! What administrative lines are answered, and what they change.

use super::*;
use crate::testing::TestServer;

/// What becomes of the connection.
fn run(server: &TestServer, line: &str, out: &mut Output) -> Next {
    server.run_one(format!("{line}\r\n").as_bytes(), out).0
}

const BAD: &str = "CLIENT_ERROR bad command line format";

#[test]
fn dumps_at_a_time_are_few() {
    let server = TestServer::new(|_| {});
    let dump = || run(&server, "lru_crawler metadump all", &mut Output::default());
    let mut dumps: Vec<Next> = (0..4).map(|_| dump()).collect();
    assert!(dumps.iter().all(|next| matches!(next, Next::Dump(_))));
    server.check(&[("lru_crawler mgdump all", "BUSY currently processing crawler request")]);
    dumps.pop();
    assert!(matches!(dump(), Next::Dump(_)));
}

#[test]
fn flush_version_and_memlimit() {
    let server = TestServer::new(|_| {});
    server.check(&[
        ("flush_all", "OK"),
        ("flush_all noreply", ""),
        ("flush_all abc", "CLIENT_ERROR invalid exptime argument"),
        ("flush_all abc noreply", ""),
        ("flush_all 4294967296", "CLIENT_ERROR invalid exptime argument"),
        ("flush_all 0", "OK"),
        ("flush_all -5", "OK"),
        ("flush_all 0 noreply", ""),
        ("flush_all 100 200", "OK"),
        ("version", "VERSION 1.6.45"),
        ("version a b", "VERSION 1.6.45"),
        ("cache_memlimit", "ERROR"),
        ("cache_memlimit abc", "ERROR"),
        ("cache_memlimit 7", "MEMLIMIT_TOO_SMALL cannot set maxbytes to less than 8m"),
        ("cache_memlimit 8", "OK"),
        ("cache_memlimit 64 noreply", ""),
        ("cache_memlimit 1000000001", "MEMLIMIT_ADJUST_FAILED input value is megabytes not bytes"),
        ("refresh_certs", "Error TLS not enabled"),
        ("misbehave", "ERROR"),
    ]);
    assert_eq!(server.shared.stats.totals().flush_cmds, 9);
}

#[test]
fn verbosity_is_a_log_level() {
    let server = TestServer::new(|_| {});
    server.check(&[
        ("verbosity", BAD),
        ("verbosity abc", BAD),
        ("verbosity -1", BAD),
        ("verbosity 4294967296", BAD),
        ("verbosity noreply", ""),
        ("verbosity 100 0", "OK"),
    ]);
    assert_eq!(log::max_level(), log_level(2));
    assert!(server.ask("stats settings|").contains("STAT verbosity 2|"));
    server.check(&[("verbosity 0 noreply", "")]);
    assert_eq!(log::max_level(), log_level(0));
}

#[test]
fn compat_flush_past() {
    TestServer::new(|_| {}).check(&[
        ("set a 0 0 1|x|flush_all 2592001|get a", "STORED|OK|VALUE a 0 1|x|END"),
        ("flush_all -1|get a", "OK|END"),
    ]);
}

#[test]
fn compat_flush_walk() {
    let server = TestServer::new(|_| {});
    let flushed = |server: &TestServer| server.shared.stats.totals().get_flushed;
    server.check(&[("set a 0 0 1|x|flush_all|get a", "STORED|OK|END")]);
    assert_eq!(flushed(&server), 0);
    server.ask("set a 0 0 1|x|");
    server.shared.clock.advance(2);
    server.check(&[("flush_all|get a|get a", "OK|END|END")]);
    assert_eq!(flushed(&server), 1);
}

#[test]
fn what_takes_the_place_of_the_dead_reclaims_it() {
    let server = TestServer::new(|config| {
        (config.store.maintainer, config.store.tuning.segmented) = (false, false);
    });
    server.ask("set a 0 0 1|x|");
    server.shared.clock.advance(2);
    let reclaimed = |server: &TestServer| server.ask("stats items|").contains("items:1:reclaimed 1|");
    server.check(&[("flush_all", "OK")]);
    assert!(!reclaimed(&server));
    server.check(&[("set a 0 0 1|y", "STORED")]);
    assert!(reclaimed(&server), "{}", server.ask("stats items|"));
}

#[test]
fn compat_reassign_words() {
    TestServer::new(|_| {}).check(&[(
        "slabs reassign 1 1 x|slabs reassign 1 1|slabs automove 1 x",
        "ERROR|SAME src and dst class are identical|OK",
    )]);
}

#[test]
fn compat_crawler_words() {
    for words in ["crawl 1", "metadump all", "mgdump all", "tocrawl 5", "sleep 5", "enable", "disable"] {
        TestServer::new(|_| {}).check(&[(&format!("lru_crawler {words} x"), "ERROR")]);
    }
}

#[test]
fn slabs_replies() {
    let server = TestServer::new(|_| {});
    server.check(&[
        ("slabs", "ERROR"),
        ("slabs foo", "ERROR"),
        ("slabs foo noreply", ""),
        ("slabs reassign", "ERROR"),
        ("slabs reassign 1", "ERROR"),
        ("slabs reassign 1 2", "NOSPARE source class has no spare pages"),
        ("slabs re 1 2", "NOSPARE source class has no spare pages"),
        ("slabs reassign 1 1", "SAME src and dst class are identical"),
        ("slabs reassign 99 1", "BADCLASS invalid src or dst class id"),
        ("slabs reassign a b", BAD),
        ("slabs automove", "ERROR"),
        ("slabs automove 0", "OK"),
        ("slabs automove 3", "ERROR"),
        ("slabs automove abc", BAD),
        ("slabs automove ratio 0.5", "OK"),
        ("slabs automove ratio", "ERROR"),
        ("slabs automove ratio x", "ERROR"),
        ("slabs automove ratio nan", "ERROR"),
        ("slabs automove freeratio 0.02", "OK"),
        ("slabs automove window 20", "OK"),
        ("slabs automove window 2", "CLIENT_ERROR automove window too low or too high"),
        ("slabs automove window 2000", "CLIENT_ERROR automove window too low or too high"),
        ("slabs a 2", "OK"),
    ]);
    let tuning = server.shared.store.tuning();
    assert_eq!((tuning.automove, tuning.automove_window), (2, 20));
    assert_eq!((tuning.automove_ratio, tuning.automove_freeratio), (0.5, 0.02));
    TestServer::new(|config| config.store.slab_reassign = false)
        .check(&[("slabs reassign a b", "CLIENT_ERROR slab reassignment disabled")]);
}

#[test]
fn lru_replies() {
    let server = TestServer::new(|_| {});
    server.check(&[
        ("lru", "ERROR"),
        ("lru foo", "ERROR"),
        ("lru tune", "ERROR"),
        ("lru tune 1 2 3", "ERROR"),
        ("lru tune 50 50 0.1 2.0", "ERROR hot and warm pcts must not exceed 80"),
        ("lru tune 4294967295 81 1 1", "ERROR hot and warm pcts must not exceed 80"),
        ("lru tune 10 25 0 2.0", "ERROR hot/warm age factors must be greater than 0"),
        ("lru tune 10 25 nan 2.0", "ERROR"),
        ("lru tune 10 25 0.1 2.5", "OK"),
        ("lru mode foo", "ERROR"),
        ("lru mode flat", "OK"),
        ("lru temp_ttl a", "ERROR"),
        ("lru temp_ttl 60", "OK"),
    ]);
    let tuning = server.shared.store.tuning();
    assert_eq!((tuning.hot_pct, tuning.warm_pct, tuning.segmented), (10, 25, false));
    assert_eq!((tuning.hot_max_factor, tuning.warm_max_factor), (0.1, 2.5));
    assert_eq!(tuning.temporary_ttl, Some(60));
    server.check(&[("lru temp_ttl -1", "OK"), ("lru mode segmented", "OK")]);
    assert_eq!(server.shared.store.tuning().temporary_ttl, None);
    assert!(server.shared.store.tuning().segmented);
    TestServer::new(|config| config.store.maintainer = false).check(&[
        ("lru mode flat", "ERROR"),
        ("lru temp_ttl 5", "ERROR"),
        ("lru tune 10 25 0.1 2.0", "OK"),
    ]);
}

#[test]
fn lru_crawler_replies() {
    let server = TestServer::new(|_| {});
    server.check(&[
        ("lru_crawler", "ERROR"),
        ("lru_crawler foo", "ERROR"),
        ("lru_crawler s 5", "OK"),
        ("lru_crawler sleep 1000001", "CLIENT_ERROR sleep must be one second or less"),
        ("lru_crawler sleep x", BAD),
        ("lru_crawler sleep 7 noreply", ""),
        ("lru_crawler tocrawl 9", "OK"),
        ("lru_crawler tocrawl x", BAD),
        ("lru_crawler crawl", "ERROR"),
        ("lru_crawler crawl 99", "BADCLASS invalid class id"),
        ("lru_crawler crawl foo", "BADCLASS invalid class id"),
        ("lru_crawler metadump", "ERROR"),
        ("lru_crawler metadump 99", "BADCLASS invalid class id"),
        ("lru_crawler enable", "ERROR failed to start lru crawler thread"),
        ("lru_crawler disable", "OK"),
        ("lru_crawler disable", "OK"),
        ("lru_crawler crawl all", "CLIENT_ERROR lru crawler disabled"),
        ("lru_crawler metadump 99", "CLIENT_ERROR lru crawler disabled"),
        ("lru_crawler enable", "OK"),
    ]);
    let tuning = server.shared.store.tuning();
    assert_eq!((tuning.crawler_sleep_us, tuning.crawler_tocrawl), (7, 9));
}

#[test]
fn what_may_be_forbidden() {
    let server = TestServer::new(|config| {
        (config.flush_enabled, config.dump_enabled, config.watch_enabled) = (false, false, false);
    });
    server.check(&[
        ("flush_all", "CLIENT_ERROR flush_all not allowed"),
        ("stats cachedump", "CLIENT_ERROR stats cachedump not allowed"),
        ("stats detail", "CLIENT_ERROR stats detail not allowed"),
        ("lru_crawler metadump all", "ERROR metadump not allowed"),
        ("lru_crawler mgdump all", "ERROR key dump not allowed"),
        ("watch fetchers", "CLIENT_ERROR watch commands not allowed"),
    ]);
    assert_eq!(server.shared.stats.totals().flush_cmds, 1);
}

#[test]
fn shutdown_noreply() {
    let off = TestServer::new(|_| {});
    off.check(&[("shutdown", "SERVER_ERROR: shutdown not enabled"), ("shutdown noreply", "")]);
    let on = TestServer::new(|config| config.shutdown_command = true);
    on.check(&[("shutdown foo", "CLIENT_ERROR invalid shutdown mode")]);
    let mut out = Output::default();
    assert!(matches!(run(&on, "shutdown noreply", &mut out), Next::Continue));
    assert!(matches!(run(&on, "shutdown", &mut out), Next::Shutdown { graceful: false }));
    assert!(matches!(run(&on, "shutdown graceful", &mut out), Next::Shutdown { graceful: true }));
    assert!(out.is_empty());
}

#[test]
fn watch_takes_streams() {
    let server = TestServer::new(|_| {});
    let cases = [
        ("watch", Streams::FETCHERS),
        ("watch f m", Streams::FETCHERS.with(Streams::MUTATIONS)),
        ("watch evictions connevents", Streams::EVICTIONS.with(Streams::CONNEVENTS)),
        ("watch deletions sysevents rawcmds", Streams::DELETIONS.with(Streams::SYSEVENTS)),
        ("watch proxyreqs proxyevents proxyuser", Streams(0)),
    ];
    for (line, streams) in cases {
        let mut out = Output::default();
        assert!(matches!(run(&server, line, &mut out), Next::Watch(s) if s == streams), "{line}");
        assert!(out.is_empty());
    }
    server.check(&[("watch foo", "ERROR"), ("watch fetchers foo", "ERROR"), ("watch fetchers noreply", "ERROR")]);
}

#[test]
fn nothing_may_stand_before_a_stream() {
    let server = TestServer::new(|_| {});
    for (line, word) in
        [("watch foo", "watch"), ("lru_crawler metadump 99", "metadump"), ("lru_crawler mgdump all", "mgdump")]
    {
        let mut out = Output::default();
        out.push(b"MN\r\n");
        assert!(matches!(run(&server, line, &mut out), Next::Continue));
        let expected = format!("MN\r\nERROR cannot pipeline other commands before {word}\r\n");
        assert_eq!(String::from_utf8(out.bytes).unwrap(), expected);
    }
}

#[test]
fn extstore_is_only_checked() {
    TestServer::new(|_| {}).check(&[
        ("extstore item_size 100", "OK"),
        ("extstore item_size x", "ERROR"),
        ("extstore max_frag 0.5", "OK"),
        ("extstore foo 1", "ERROR"),
        ("extstore", "ERROR"),
        ("extstore item_age", "ERROR"),
        ("extstore free_memchunks 1 2", "OK"),
        ("extstore free_memchunks 1", "ERROR"),
    ]);
}

#[test]
fn stats_arguments() {
    let server = TestServer::new(|_| {});
    server.check(&[
        ("stats foo", "ERROR"),
        ("stats item", "ERROR"),
        ("stats proxy", "ERROR"),
        ("stats noreply", "ERROR"),
        ("stats sizes_enable", "ERROR"),
        ("stats reset", "RESET"),
        ("stats res", "RESET"),
        ("stats reset noreply", "RESET"),
        ("stats sizes", "STAT sizes_status disabled|END"),
        ("stats items", "END"),
        ("stats e", "END"),
        ("stats detail", "CLIENT_ERROR usage: stats detail on|off|dump"),
        ("stats detail o", "CLIENT_ERROR usage: stats detail on|off|dump"),
        ("stats detail on", "OK"),
        ("stats cachedump", "CLIENT_ERROR bad command line"),
        ("stats cachedump 1", "CLIENT_ERROR bad command line"),
        ("stats cachedump 1 0", "END"),
        ("stats c 74 0", "END"),
        ("stats c 75 0", "CLIENT_ERROR Illegal slab id"),
        ("stats cachedump abc 0", BAD),
    ]);
    assert!(server.ask("stats s|").starts_with("STAT maxbytes 67108864|STAT maxconns 1024|"));
    assert!(server.shared.stats.prefixes.enabled());
    server.shared.stats.prefixes.count(b"a:b", crate::stats::PrefixEvent::Set);
    server.check(&[("stats d dump", "PREFIX a get 0 hit 0 set 1 del 0|END"), ("stats detail off", "OK")]);
    assert!(!server.shared.stats.prefixes.enabled());
}

#[test]
fn durations_are_told_and_reset() {
    let server = TestServer::new(|_| {});
    let mut timer = server.shared.stats.event_loops.timer();
    timer.begin(true, false);
    timer.count(3);
    timer.end();
    let told = server.ask("stats twincache|");
    assert!(told.starts_with("STAT loop_turns_served 3|STAT loop_turn_p50_us "), "{told}");
    assert!(told.contains("|STAT longest_lock_hold_cpu_us "), "{told}");
    server.check(&[("stats reset", "RESET")]);
    let told = server.ask("stats twincache|");
    assert!(told.starts_with("STAT loop_turns_served 0|"), "{told}");
    assert!(told.contains("STAT longest_loop_turn_us 0|"), "{told}");
}

#[cfg(feature = "debug-commands")]
#[test]
fn debug_commands() {
    let server = TestServer::new(|_| {});
    let now = server.shared.clock.now();
    server.check(&[
        ("debugtime p", "OK"),
        ("debugtime 100", "OK"),
        ("debugtime", "ERROR"),
        ("debugtime x", "ERROR"),
        ("debugitem", "ERROR"),
        ("debugitem foo k", "ERROR"),
        ("debugitem ref k", "MISS"),
        ("debugitem unref k", "MISS"),
    ]);
    assert_eq!(server.shared.clock.now(), now + 100);
    server.check(&[("debugtime r", "OK")]);
}

#[cfg(not(feature = "debug-commands"))]
#[test]
fn debug_commands_are_unknown() {
    TestServer::new(|_| {}).check(&[("debugtime p", "ERROR"), ("debugitem lock k", "ERROR")]);
}
