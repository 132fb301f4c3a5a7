//! The journal's rules that a model of a copy does not show: who may attach, what is confirmed, when it is off, and
//! what several threads make of it.

use super::*;
use crate::journal::readers::SAMPLES;
use crate::store::tests::copy::{Copy, known};
use crate::store::tests::rig::{TestStore, attach_as, put, rig, tiny};
use crate::store::{Hash, ItemSpec, Part, Store, StoreConfig, Subscription, Update};
use std::collections::BTreeMap;

/// Reads and acknowledges all there is.
fn drain(feed: &mut Subscription) -> Vec<(RecordKind, Vec<u8>)> {
    let (mut all, mut bytes) = (Vec::new(), Vec::new());
    while feed.next(1000, &mut bytes) != Update::Idle {
        all.extend(records(&bytes).map(|record| (record.kind, record.key.to_vec())));
    }
    feed.acknowledge(feed.lsn());
    all
}

#[test]
fn off_until_somebody_attaches_and_off_again_a_while_after() {
    let (rig, now) = rig();
    let journal = rig.store.journal();
    rig.set("key", b"value", 0);
    assert!(!journal.enabled() && journal.lsn() == 0 && journal.status(now).bytes == 0);
    let mut feed = rig.store.attach(&attach_as("a", "peer"), now).unwrap();
    drain(&mut feed);
    drop(feed);
    let gone = Instant::now();
    journal.tick(gone + GRACE / 2);
    assert!(journal.enabled());
    journal.tick(gone + GRACE);
    assert!(!journal.enabled() && rig.set("key", b"value", 0));
    // What was complete then is not now.
    assert!(rig.store.attach(&attach_as("a", "peer"), now).unwrap().began_with_full_sync());
}

/// Also when the journal has been off since.
#[test]
fn who_was_attached_before_is_met_again() {
    let (rig, now) = rig();
    let journal = rig.store.journal();
    let meet = |name: &str, identity: &str| journal.knows(name, identity, &[]);
    assert_eq!(meet("a", "0000000000000abc"), Ok(false));
    let feeds = [("a", "0000000000000abc"), ("b", "mc-1-17000000000")];
    let feeds = feeds.map(|(name, identity)| rig.store.attach(&attach_as(name, identity), now).unwrap());
    assert_eq!(meet("other", "0000000000000abc"), Err(AttachError::Twice));
    drop(feeds);
    for _ in 0..2 {
        assert_eq!((meet("a", "0000000000000abc"), meet("other", "0000000000000abc")), (Ok(true), Ok(true)));
        assert_eq!((meet("b", "mc-1-17000000000"), meet("other", "mc-1-17000000000")), (Ok(true), Ok(false)));
        journal.tick(Instant::now() + GRACE);
        assert!(!journal.enabled());
    }
}

#[test]
fn the_newer_of_two_with_one_name_goes_on() {
    let (rig, now) = rig();
    let mut old = rig.store.attach(&attach_as("a", "peer"), now).unwrap();
    drain(&mut old);
    rig.set("key", b"value", 0);
    let mut new = rig.store.attach(&attach_as("a", "peer"), now).unwrap();
    assert!(!new.began_with_full_sync());
    assert_eq!(old.next(1000, &mut Vec::new()), Update::Detached);
    drop(old);
    assert_eq!(drain(&mut new), [(RecordKind::Set, b"key".to_vec())]);
    assert!(rig.store.attach(&attach_as("a", "another peer"), now).unwrap().began_with_full_sync());
}

#[test]
fn goes_on_from_what_is_known_here_and_there() {
    let (rig, now) = rig();
    let run_id = Some(rig.store.journal().run_id());
    drain(&mut rig.store.attach(&attach_as("a", "peer"), now).unwrap());
    let lsn = rig.store.journal().lsn();
    (0..5).for_each(|i| assert!(rig.set(&format!("key{i}"), b"value", 0)));
    for (name, given, begins) in [
        ("a", Some(lsn - 1), Some(lsn - 1)),
        ("b", Some(lsn + 2), Some(lsn + 2)),
        ("c", Some(lsn + 6), None),
        ("d", None, None),
    ] {
        let feed = rig.store.attach(&Attach { run_id, lsn: given, ..attach_as(name, "peer") }, now).unwrap();
        assert_eq!((!feed.began_with_full_sync()).then_some(feed.lsn()), begins, "{name}");
    }
    let other = Attach { run_id: Some(1), lsn: Some(lsn), ..attach_as("e", "peer") };
    assert!(rig.store.attach(&other, now).unwrap().began_with_full_sync());
    // It has not acknowledged the walk that began: whatever it believes, it begins again.
    let wrong = Attach { run_id, lsn: Some(lsn), ..attach_as("d", "peer") };
    assert!(rig.store.attach(&wrong, now).unwrap().began_with_full_sync());
}

/// While it was away the peer was the owner, and this server got its changes: the peer has those as well, although this
/// server has never sent them.
#[test]
fn goes_on_from_what_it_got_elsewhere() {
    let (rig, now) = rig();
    let run_id = Some(rig.store.journal().run_id());
    let mut feed = rig.store.attach(&attach_as("a", "peer"), now).unwrap();
    drain(&mut feed);
    feed.acknowledge(feed.lsn());
    drop(feed);
    (0..5).for_each(|i| assert!(rig.set(&format!("key{i}"), b"value", 0)));
    let lsn = rig.store.journal().lsn();
    let feed = rig.store.attach(&Attach { run_id, lsn: Some(lsn), ..attach_as("a", "peer") }, now).unwrap();
    assert_eq!((feed.began_with_full_sync(), feed.lsn()), (false, lsn));
}

/// Items were dropped here without a record, or another owner may have fed the peer: what it confirmed before counts no
/// more, also if it went after that and before it heard of it. What the lease says of it counts in the next tenure.
#[test]
fn who_comes_back_begins_anew_after_what_no_record_tells() {
    let another_tenure = |journal: &Journal| {
        journal.note_tenure(false);
        journal.note_tenure(true);
    };
    for (what, heir_begins) in [(&Journal::sync_again as &dyn Fn(&Journal), true), (&another_tenure, false)] {
        for is_there in [false, true] {
            let (rig, now) = rig();
            let journal = rig.store.journal();
            let mut feed = Some(rig.store.attach(&attach_as("a", "peer"), now).unwrap());
            drain(feed.as_mut().unwrap());
            rig.set("key", b"value", 0);
            drain(feed.as_mut().unwrap());
            feed = feed.filter(|_| is_there);
            what(journal);
            drop(feed);
            assert!(rig.store.attach(&attach_as("a", "peer"), now).unwrap().began_with_full_sync(), "{is_there}");
        }
        let (rig, now) = rig();
        let journal = rig.store.journal();
        drain(&mut rig.store.attach(&attach_as("a", "peer"), now).unwrap());
        what(journal);
        let heir = Attach { run_id: Some(journal.run_id()), lsn: Some(journal.lsn()), ..attach_as("a", "peer") };
        assert_eq!(rig.store.attach(&heir, now).unwrap().began_with_full_sync(), heir_begins);
    }
}

/// A switchover: who is fed goes on until it has confirmed the last change, and an heir may be there before the new owner.
#[test]
fn who_is_attached_goes_on_between_two_tenures() {
    let (rig, now) = rig();
    let journal = rig.store.journal();
    let mut feed = rig.store.attach(&attach_as("a", "peer"), now).unwrap();
    drain(&mut feed);
    rig.set("key", b"value", 0);
    journal.note_tenure(false);
    assert_eq!(drain(&mut feed), [(RecordKind::Set, b"key".to_vec())]);
    assert_eq!((journal.status(now).consumers[0].complete, feed.lsn()), (journal.lsn(), journal.lsn()));
    let heir = Attach { run_id: Some(journal.run_id()), lsn: Some(journal.lsn()), ..attach_as("b", "heir") };
    let mut heir = rig.store.attach(&heir, now).unwrap();
    assert!(!heir.began_with_full_sync());
    journal.note_tenure(true);
    rig.set("other", b"value", 0);
    assert_eq!(drain(&mut heir), [(RecordKind::Set, b"other".to_vec())]);
    assert_eq!(feed.next(1000, &mut Vec::new()), Update::Notice(Notice::FullSync));
}

/// Of 100 bytes, so that a segment has a thousand.
fn set_many(rig: &TestStore, count: usize) {
    (0..count).for_each(|i| assert!(rig.set(&format!("key{}", i % 50), &[7; 100], 0)));
}

#[test]
fn what_nobody_needs_makes_room_at_once() {
    let (rig, now) = rig();
    let bytes = || rig.store.journal().status(now).bytes;
    let (many, warm) = (5000, 300_000);
    let mut feed = rig.store.attach(&attach_as("a", "peer"), now).unwrap();
    let mut reads = |acknowledges: bool| {
        for _ in 0..many / 100 {
            set_many(&rig, 100);
            while feed.next(1000, &mut Vec::new()) != Update::Idle {}
            if acknowledges {
                feed.acknowledge(feed.lsn());
            }
        }
    };
    reads(true);
    assert!(bytes() < warm, "{} with one that keeps up", bytes());
    reads(false);
    let unconfirmed = bytes();
    assert!(unconfirmed > many as u64 * 140, "{unconfirmed} with one that might come back");
    drop(feed);
    let mut feed = rig.store.attach(&attach_as("a", "peer"), now).unwrap();
    assert!(!feed.began_with_full_sync());
    assert!(drain(&mut feed).len() >= many);
    set_many(&rig, many);
    assert!(bytes() > many as u64 * 140, "{} with one that has not read", bytes());
    drain(&mut feed);
    drop(feed);
    let gone = rig.store.journal().lsn();
    set_many(&rig, many);
    let mut other = rig.store.attach(&attach_as("b", "peer"), now).unwrap();
    drain(&mut other);
    set_many(&rig, many);
    drain(&mut other);
    let mut back = rig.store.attach(&attach_as("a", "peer"), now).unwrap();
    assert!(!back.began_with_full_sync() && back.lsn() == gone);
    drain(&mut back);
    set_many(&rig, many);
    drain(&mut other);
    drain(&mut back);
    set_many(&rig, 2000);
    assert!(bytes() < warm + 2000 * 152, "{} when all have come near", bytes());
}

#[test]
fn who_stays_away_keeps_no_more_than_there_is_room_for() {
    let config = StoreConfig { journal_bytes: 600_000, ..tiny() };
    let (rig, now) = (TestStore::new(config), Instant::now());
    let mut feed = rig.store.attach(&attach_as("a", "peer"), now).unwrap();
    drain(&mut feed);
    let mut away = rig.store.attach(&attach_as("b", "peer"), now).unwrap();
    drain(&mut away);
    drop(away);
    let bytes = || rig.store.journal().status(now).bytes;
    for round in 0..10 {
        set_many(&rig, 1000);
        drain(&mut feed);
        assert!(bytes() <= 600_000);
        assert_eq!(bytes() > 400_000, round == 2 || round == 3, "{} in round {round}", bytes());
    }
    assert!(rig.store.attach(&attach_as("b", "peer"), now).unwrap().began_with_full_sync());
    assert_eq!(rig.store.journal().status(now).consumers[0].counts.lost, 0);
}

#[test]
fn confirmed_is_what_as_many_as_required_have() {
    let (rig, now) = rig();
    let (store, acks) = (&rig.store, rig.store.journal().acks());
    store.journal().set_required(2, now);
    assert!(store.journal().enabled() && acks.replicated_lsn() == 0);
    let mut a = store.attach(&attach_as("a", "peer"), now).unwrap();
    let mut b = store.attach(&attach_as("b", "peer"), now).unwrap();
    drain(&mut a);
    rig.set("key", b"value", 0);
    drain(&mut b);
    assert_eq!(acks.replicated_lsn(), a.lsn(), "less than b has");
    drain(&mut a);
    drain(&mut b);
    assert_eq!((acks.replicated_lsn(), a.lsn()), (store.journal().lsn(), b.lsn()));
    store.journal().set_required(0, now);
    assert!(!acks.holds());
}

#[test]
fn all_members_count_and_nobody_else() {
    let (rig, now) = rig();
    let (store, acks) = (&rig.store, rig.store.journal().acks());
    let head = || store.journal().lsn();
    assert_eq!(store.journal().set_members(1, &[], now), head());
    let mut a = store.attach(&attach_as("a", "peer"), now).unwrap();
    let mut b = store.attach(&attach_as("b", "peer"), now).unwrap();
    rig.set("key", b"value", 0);
    (0..2).for_each(|_| [&mut a, &mut b].into_iter().for_each(|feed| _ = drain(feed)));
    assert_eq!(acks.replicated_lsn(), 0, "one is required, and none is a member");
    assert_eq!(store.journal().set_members(1, &["a", "c"], now), head());
    assert_eq!(acks.replicated_lsn(), 0, "c is not there");
    store.journal().set_members(1, &["a", "b"], now);
    assert_eq!(acks.replicated_lsn(), head());
    rig.set("key", b"other", 0);
    drain(&mut a);
    assert!(acks.replicated_lsn() < head(), "b does not have it");
    store.journal().set_members(1, &["a"], now);
    assert_eq!(acks.replicated_lsn(), head(), "b does not count any more");
    store.journal().set_members(0, &["a", "b"], now);
    assert!(!acks.holds());
}

#[test]
fn an_acknowledgement_in_a_walk_confirms_nothing() {
    let (rig, now) = rig();
    rig.store.journal().set_required(1, now);
    (0..200).for_each(|i| assert!(rig.set(&format!("key{i}"), b"value", 0)));
    let mut feed = rig.store.attach(&attach_as("a", "peer"), now).unwrap();
    let mut bytes = Vec::new();
    while feed.next(1000, &mut bytes) != Update::Notice(Notice::Synced) {
        feed.acknowledge(feed.lsn());
        assert_eq!(rig.store.journal().acks().replicated_lsn(), 0);
    }
    feed.acknowledge(feed.lsn());
    assert_eq!(rig.store.journal().acks().replicated_lsn(), 0, "nothing came after the end of the walk");
    assert!(drain(&mut feed).is_empty());
    assert_eq!(rig.store.journal().acks().replicated_lsn(), rig.store.journal().lsn());
}

#[test]
fn read_hits_take_their_share() {
    let (rig, now) = rig();
    let mut feed = rig.store.attach(&attach_as("a", "peer"), now).unwrap();
    drain(&mut feed);
    (0..300).for_each(|i| assert!(rig.set(&format!("key{i}"), &[7; 100], 0)));
    let changes = rig.store.journal().status(now).bytes;
    (0..100).for_each(|_| (0..300).for_each(|i| _ = rig.get(&format!("key{i}"))));
    let bytes = rig.store.journal().status(now).bytes - changes;
    assert!(0 < bytes && bytes * HIT_SHARE <= changes + changes / 50, "{bytes} for {changes}");
    let hits = drain(&mut feed).iter().filter(|(kind, _)| *kind == RecordKind::Hit).count() as u64;
    assert!(hits * 40 == bytes, "{hits} in {bytes}");
    rig.store.journal().tick(now);
    rig.store.journal().tick(now + Duration::from_secs(1));
    (0..1000).for_each(|_| (0..300).for_each(|i| _ = rig.get(&format!("key{i}"))));
    let hits = drain(&mut feed).len() as u64;
    assert!(hits > 0 && hits * 40 <= HIT_FLOOR + HIT_FLOOR / 50, "{hits} without changes");
}

#[test]
fn the_lag_is_told_in_records_bytes_and_time() {
    let (rig, now) = rig();
    let feed = rig.store.attach(&attach_as("a", "peer"), now).unwrap();
    let journal = rig.store.journal();
    journal.tick(now);
    rig.set("key", b"value", 0);
    for seconds in 1..4 * SAMPLES as u64 {
        journal.tick(now + Duration::from_secs(seconds));
    }
    let status = journal.status(now + Duration::from_secs(4 * SAMPLES as u64));
    let consumer = &status.consumers[0];
    assert_eq!((consumer.state, consumer.lag_bytes), (ReaderState::Syncing, status.bytes));
    let seconds = consumer.lag_ms / 1000;
    assert!(seconds > 4 * SAMPLES as u64 * 9 / 10 && consumer.lag > 0, "{seconds}");
    drop(feed);
}

#[test]
fn who_sleeps_is_woken_once_by_who_appended() {
    let (rig, now) = rig();
    let _feed = rig.store.attach(&attach_as("a", "peer"), now).unwrap();
    let (journal, woken) = (rig.store.journal(), Arc::new(AtomicU64::new(0)));
    let count = woken.clone();
    journal.set_waker(move || _ = count.fetch_add(1, Ordering::Relaxed));
    journal.nudge();
    let calls = |set: bool, idle: bool| {
        if idle {
            journal.set_idle();
        }
        if set {
            rig.set("key", b"value", 0);
            journal.nudge();
        }
        woken.load(Ordering::Relaxed)
    };
    assert_eq!([calls(true, false), calls(false, true), calls(true, false), calls(true, false)], [0, 0, 1, 1]);
    assert_eq!(calls(true, true), 2);
}

/// Sets, deletes and flushes from several threads while another reads: the copy is the store in the end.
#[test]
fn threads_and_a_reader() {
    let config = StoreConfig { shards: Some(2), memory_limit: 4 << 20, journal_bytes: 50_000, ..tiny() };
    let store = Store::new(config, Arc::new(Clock::new())).unwrap();
    let writers = AtomicU64::new(4);
    let mut copy = Copy::default();
    std::thread::scope(|scope| {
        for seed in 1..=4 {
            let (store, writers) = (&store, &writers);
            scope.spawn(move || {
                write(store, seed);
                writers.fetch_sub(1, Ordering::Release);
            });
        }
        let mut feed = store.attach(&attach_as("a", "peer"), Instant::now()).unwrap();
        while writers.load(Ordering::Acquire) > 0 {
            copy_on(&store, &mut feed, &mut copy);
        }
        while copy_on(&store, &mut feed, &mut copy) {}
    });
    store.check().unwrap();
    let mut live = BTreeMap::new();
    let mut dump = store.dump(crate::store::ClassSet::ALL).unwrap();
    while dump.next(&mut |item| _ = live.insert(item.key().to_vec(), known(item))) {}
    assert_eq!(store.class_stats().iter().map(|class| class.counters.evicted).sum::<u64>(), 0);
    assert!(copy.items == live, "{} copied, {} live", copy.items.len(), live.len());
}

fn write(store: &Arc<Store>, seed: u64) {
    let mut rng = crate::testing::Rng(seed * 104_729);
    for _ in 0..6000 {
        let key = format!("key{}", rng.below(150)).into_bytes();
        let hash = store.hash(&key);
        match rng.below(300) {
            0 => _ = store.flush_all(0, None),
            1..60 => delete(store, &key, hash),
            _ => {
                let value = rng.bytes(100);
                let spec = ItemSpec { key: &key, key_is_binary: false, client_flags: 0, expires_at: 0 };
                let mut locked = store.lock(hash);
                if locked.rewrite(&spec, hash, &value, None).is_none() {
                    let new = locked.create(&spec, &[Part::Bytes(&value)]).unwrap();
                    put(&mut locked, &key, hash, new, None);
                }
            }
        }
    }
}

fn delete(store: &Arc<Store>, key: &[u8], hash: Hash) {
    let mut locked = store.lock(hash);
    if let Ok(id) = locked.find(key, hash) {
        locked.unlink(id, hash);
    }
}

/// Applies what comes next. False when nothing came.
fn copy_on(store: &Arc<Store>, feed: &mut Subscription, copy: &mut Copy) -> bool {
    let mut bytes = Vec::new();
    match feed.next(3000, &mut bytes) {
        Update::Idle => return false,
        Update::Notice(Notice::FullSync) => copy.begin_full_sync(),
        Update::Notice(Notice::Synced) => copy.end_full_sync(),
        _ => {}
    }
    records(&bytes).for_each(|record| copy.apply(&record, store));
    feed.acknowledge(feed.lsn());
    true
}
