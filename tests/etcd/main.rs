//! The client of etcd against a real one, where it is installed, and against servers that are none.
//!
//! ```text
//!   Etcd ──HTTP──> etcd (killed, frozen, three of them)
//!        ├─HTTP──> etcd with passwords, with TLS            access
//!        └─HTTP──> a socket that answers what no etcd would  hostile
//! ```

mod access;
#[path = "../common/mod.rs"]
mod common;
mod hostile;

use common::{EtcdServer, wait_for};
use std::time::{Duration, Instant};
use twincache::cluster::options::EtcdOptions;
use twincache::cluster::{Also, Etcd, EtcdError, Snapshot, Swap, Versioned, WatchEnd, WatchEvent};

/// For what is certain to be answered.
const LONG: Duration = Duration::from_secs(20);

fn value(snapshot: Snapshot) -> Option<Vec<u8>> {
    snapshot.value.map(|value| value.bytes)
}

fn won(swap: Swap) -> i64 {
    match swap {
        Swap::Won(revision) => revision,
        Swap::Lost(there) => panic!("lost to {there:?}"),
    }
}

#[test]
fn values_are_put_got_listed_and_deleted() {
    let Some(server) = EtcdServer::start(&[]) else { return };
    let mut etcd = server.client();
    let absent = etcd.get("/a/1", LONG).unwrap();
    assert_eq!((absent.mod_revision(), &absent.value), (0, &None));
    let bytes: Vec<u8> = (0..=255).collect();
    let revision = etcd.put("/a/1", &bytes, LONG).unwrap();
    assert!(revision > absent.revision);
    let there = Versioned { bytes, mod_revision: revision, version: 1 };
    assert_eq!(etcd.get("/a/1", LONG).unwrap(), Snapshot { revision, value: Some(there) });
    for key in ["/a/3", "/a", "/b/1", "/a/2", "/a0"] {
        etcd.put(key, b"", LONG).unwrap();
    }
    let list = etcd.list("/a/", LONG).unwrap();
    let keys: Vec<&str> = list.items.iter().map(|(key, _)| key.as_str()).collect();
    assert_eq!((keys, list.revision), (vec!["/a/1", "/a/2", "/a/3"], revision + 5));
    assert_eq!(etcd.delete("/a/1", LONG).unwrap(), revision + 6);
    assert_eq!(value(etcd.get("/a/1", LONG).unwrap()), None);
    assert_eq!(etcd.list("/none/", LONG).unwrap().items, []);
}

#[test]
fn of_two_swaps_one_wins() {
    let Some(server) = EtcdServer::start(&[]) else { return };
    let (mut one, mut other) = (server.client(), server.client());
    let first = won(one.swap("k", 0, b"1", LONG).unwrap());
    let Swap::Lost(there) = other.swap("k", 0, b"2", LONG).unwrap() else { panic!("both have won") };
    assert_eq!((there.mod_revision(), value(there)), (first, Some(b"1".to_vec())));
    let second = won(other.swap("k", first, b"2", LONG).unwrap());
    assert_eq!(other.get("k", LONG).unwrap().mod_revision(), second);
    other.delete("k", LONG).unwrap();
    let lost = one.swap("k", second, b"3", LONG).unwrap();
    assert!(matches!(lost, Swap::Lost(Snapshot { value: None, .. })), "{lost:?}");
}

#[test]
fn a_swap_takes_other_keys_along_or_does_nothing() {
    let Some(server) = EtcdServer::start(&[]) else { return };
    let mut etcd = server.client();
    let request = etcd.put("request", b"go", LONG).unwrap();
    let take = [Also::Delete("request", request), Also::Put("answer", b"gone")];
    let shard = won(etcd.swap_with("shard", 0, b"1", &take, LONG).unwrap());
    assert_eq!(value(etcd.get("request", LONG).unwrap()), None);
    assert_eq!(etcd.get("answer", LONG).unwrap().mod_revision(), shard);
    let other = etcd.put("request", b"another", LONG).unwrap();
    let lost = etcd.swap_with("shard", shard, b"2", &take, LONG).unwrap();
    assert_eq!(lost, Swap::Lost(etcd.get("shard", LONG).unwrap()), "the request is another one");
    assert_eq!(etcd.get("request", LONG).unwrap().mod_revision(), other);
    assert_eq!(value(etcd.get("shard", LONG).unwrap()), Some(b"1".to_vec()));
}

/// etcd that was restored gives revisions out again, with other values.
#[test]
fn a_swap_may_depend_on_the_value() {
    let Some(server) = EtcdServer::start(&[]) else { return };
    let mut etcd = server.client();
    let first = etcd.put("k", b"1", LONG).unwrap();
    let mut swap = |value: &[u8]| etcd.swap_with("k", first, b"2", &[Also::If("k", value)], LONG).unwrap();
    assert!(matches!(swap(b"another"), Swap::Lost(there) if there.mod_revision() == first));
    won(swap(b"1"));
}

#[test]
fn a_request_is_taken_with_its_answer_or_left() {
    let Some(server) = EtcdServer::start(&[]) else { return };
    let mut etcd = server.client();
    let old = etcd.put("request", b"1", LONG).unwrap();
    let new = etcd.put("request", b"2", LONG).unwrap();
    let answer = [Also::Put("answer", b"done")];
    let Swap::Lost(there) = etcd.take("request", old, &answer, LONG).unwrap() else { panic!("the newer is gone") };
    assert_eq!((there.mod_revision(), value(etcd.get("answer", LONG).unwrap())), (new, None));
    let taken = won(etcd.take("request", new, &answer, LONG).unwrap());
    assert_eq!(value(etcd.get("request", LONG).unwrap()), None);
    assert_eq!(etcd.get("answer", LONG).unwrap().mod_revision(), taken);
}

/// Watches until so many changes were told: key, revision and whether it was put.
fn changes(etcd: &mut Etcd, prefix: &str, from: i64, number: usize) -> Vec<(String, i64, bool)> {
    let mut told = Vec::new();
    let end = etcd.watch(prefix, from, LONG, |event| {
        if let WatchEvent::Changed { key, revision, value } = event {
            told.push((key, revision, value.is_some()));
        }
        told.len() < number
    });
    assert_eq!(end, Ok(WatchEnd::Stopped));
    told
}

#[test]
fn a_watch_tells_what_was_and_what_comes() {
    let Some(server) = EtcdServer::start(&[]) else { return };
    let mut etcd = server.client();
    let first = etcd.put("/a/1", b"x", LONG).unwrap();
    etcd.put("/b/1", b"x", LONG).unwrap();
    etcd.delete("/a/1", LONG).unwrap();
    let watcher = std::thread::spawn({
        let mut etcd = etcd.clone();
        move || changes(&mut etcd, "/a/", first, 4)
    });
    etcd.swap_with("/a/2", 0, b"y", &[Also::Put("/a/3", b"z")], LONG).unwrap();
    let told = watcher.join().unwrap();
    let expected = [("/a/1", 0, true), ("/a/1", 2, false), ("/a/2", 3, true), ("/a/3", 3, true)];
    assert_eq!(told, expected.map(|(key, later, is_put)| (key.to_owned(), first + later, is_put)));
}

/// Runs this with more and more patience for as long as it fails: an etcd that has to wait for the processor is late, and is
/// rightly taken for one that is gone.
fn patiently<T>(first: Duration, mut run: impl FnMut(Duration) -> Result<T, EtcdError>) -> Result<T, EtcdError> {
    let mut patience = first;
    loop {
        match run(patience) {
            Err(error) if patience < LONG => println!("in {patience:?}: {error}"),
            outcome => return outcome,
        }
        patience *= 3;
    }
}

#[test]
fn silence_is_told_from_the_end() {
    let Some(mut server) = EtcdServer::start(&[]) else { return };
    let (mut etcd, mut other) = (server.client(), server.client());
    let from = etcd.put("/a/1", b"x", LONG).unwrap();
    let idle = Duration::from_millis(300);
    let told = patiently(idle, |idle| {
        let (from, mut opened) = (other.put("/a/1", b"x", LONG)?, 0);
        let stopped = etcd.watch("/a/", from + 1, idle, |event| {
            opened += u32::from(event == WatchEvent::UpTo(from));
            if opened == 3 {
                other.put("/a/2", b"y", LONG).unwrap();
            }
            opened <= 3 && matches!(event, WatchEvent::UpTo(_))
        });
        Ok((stopped?, opened))
    });
    assert_eq!(told, Ok((WatchEnd::Stopped, 3)), "opened anew from where it was");
    server.freeze();
    let began = Instant::now();
    let error = etcd.watch("/a/", from, idle, |_| true).unwrap_err();
    assert!(matches!(error, EtcdError::Unknown(_)) && began.elapsed() < LONG, "{error:?}");
    server.thaw();
    let error = etcd.watch("/a/", from + 1, LONG, |event| {
        if matches!(event, WatchEvent::UpTo(_)) {
            server.kill();
        }
        true
    });
    assert!(matches!(error, Err(EtcdError::Unknown(_))), "{error:?}");
}

#[test]
fn a_watch_of_what_was_forgotten_says_so() {
    let Some(server) = EtcdServer::start(&["--auto-compaction-mode=revision", "--auto-compaction-retention=1"]) else {
        return;
    };
    let mut etcd = server.client();
    let from = etcd.put("/a/1", b"x", LONG).unwrap();
    etcd.put("/a/1", b"y", LONG).unwrap();
    let revision = etcd.put("/a/1", b"z", LONG).unwrap();
    compact(&server.url, revision);
    let told = etcd.watch("/a/", from, LONG, |event| event == WatchEvent::UpTo(from - 1));
    assert_eq!(told, Ok(WatchEnd::Compacted));
}

/// Makes etcd forget what was before a revision. The client has no use for that.
fn compact(url: &str, revision: i64) {
    let answer = ureq::post(format!("{url}/v3/kv/compaction")).send(format!("{{\"revision\":\"{revision}\"}}"));
    assert_eq!(answer.expect("an answer").status(), 200);
}

#[test]
fn a_killed_etcd_comes_back_with_what_it_had() {
    let Some(mut server) = EtcdServer::start(&[]) else { return };
    let mut etcd = server.client();
    let revision = etcd.put("k", b"kept", LONG).unwrap();
    server.kill();
    let error = etcd.swap("k", revision, b"lost", LONG).unwrap_err();
    // The connection was there and is not: what it was used for is not known.
    assert!(matches!(error, EtcdError::Refused(_) | EtcdError::Unknown(_)), "{error:?}");
    let error = etcd.swap("k", revision, b"lost", LONG).unwrap_err();
    assert!(matches!(error, EtcdError::Refused(_)), "nobody listens: {error:?}");
    server.restart();
    let there = wait_for("etcd to answer", || etcd.get("k", LONG).ok());
    assert_eq!((there.mod_revision(), value(there)), (revision, Some(b"kept".to_vec())));
}

#[test]
fn what_a_frozen_etcd_does_is_not_known() {
    let Some(server) = EtcdServer::start(&[]) else { return };
    let mut etcd = server.client();
    let revision = etcd.put("k", b"1", LONG).unwrap();
    server.freeze();
    let timeout = Duration::from_millis(300);
    for _ in 0..2 {
        let began = Instant::now();
        let error = etcd.swap("k", revision, b"2", timeout).unwrap_err();
        let took = began.elapsed();
        assert!(matches!(error, EtcdError::Unknown(_)), "{error:?}");
        assert!(took >= timeout - Duration::from_millis(1) && took < LONG, "{took:?}");
    }
    server.thaw();
    let there = wait_for("etcd to answer", || etcd.get("k", LONG).ok());
    assert!([Some(b"1".to_vec()), Some(b"2".to_vec())].contains(&value(there)), "the swap came through, or did not");
}

#[test]
fn of_three_endpoints_one_may_be_dead() {
    let Some(mut servers) = EtcdServer::start_three() else { return };
    let endpoints = servers.iter().map(|server| server.url.clone()).collect();
    let mut etcd = Etcd::new(&EtcdOptions { endpoints, ..EtcdOptions::default() }).unwrap();
    let revision = wait_for("a leader", || etcd.put("k", b"1", LONG).ok());
    servers[0].kill();
    let mut errors = Vec::new();
    let there = wait_for("another member", || etcd.get("k", LONG).map_err(|error| errors.push(error)).ok());
    assert_eq!(there.mod_revision(), revision);
    // The connection that broke, and then, at most, a majority that chooses its leader anew.
    assert!(errors.len() <= 3 && errors[0].to_string().contains(&servers[0].url), "{errors:?}");
    let revision = wait_for("a leader", || etcd.put("k", b"1", LONG).ok());
    (0..20).for_each(|_| assert_eq!(etcd.get("k", LONG).unwrap().mod_revision(), revision, "the dead one is avoided"));

    // A member that is left alone says so to those who watch, and knows of no write whether it will be applied.
    let mut last = servers[1].client();
    servers[2].kill();
    let ended = last.watch("/a/", 1, LONG, |_| true);
    assert!(matches!(&ended, Err(EtcdError::Unknown(why)) if why.contains("no leader")), "{ended:?}");
    let put = last.put("k", b"2", Duration::from_millis(300));
    assert!(matches!(put, Err(EtcdError::Unknown(_))), "{put:?}");
}
