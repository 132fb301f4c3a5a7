//! Who may feed this server and be fed by it, and what a source may still write.

use super::rig::{TestStore, attach_as, put, rig, tiny};
use crate::journal::acks::LastLsn;
use crate::journal::{Attach, AttachError, READERS_MAX};
use crate::store::Subscription;
use crate::store::role::UPSTREAM;
use crate::store::{
    AllocError, ChangeSource, Duty, EPOCH_MAX, ItemSpec, KeyError, Miss, Part, Relation, RoleError, RoleOrder,
    SourceError, StoreConfig, Update,
};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Who was fed by a server may be older than that: it does not feed it back when it hears of it no more.
#[test]
fn what_came_from_a_peer_is_told_until_it_goes_the_other_way() {
    let (rig, now) = rig();
    let relation = |now| rig.store.meet("a", "0000000000000abc", now).map(|(relation, _)| relation);
    rig.store.announce(&[0xabc, 0xdef], None, now).unwrap();
    let later = now + 100 * UPSTREAM;
    assert_eq!((relation(now), relation(later)), (Err(AttachError::Upstream), Ok(Relation::Source)));
    drop(rig.store.attach(&attach_as("a", "0000000000000abc"), later).unwrap());
    assert_eq!(relation(later), Ok(Relation::Copy));
}

#[test]
fn a_circle_of_several_is_found_from_either_side() {
    let (rig, now) = rig();
    let (store, own) = (&rig.store, rig.store.journal().run_id());
    assert_eq!(store.announce(&[0xabc, own], None, now).map(drop), Err(SourceError::Circle));
    store.announce(&[0xabc, 0xdef], None, now).unwrap();
    assert_eq!(store.meet("a", "0000000000000123", now), Ok((Relation::Stranger, vec![0xabc, 0xdef])));
    assert_eq!(store.meet("a", "0000000000000def", now), Err(AttachError::Upstream));
    let _feed = store.attach(&attach_as("a", "0000000000000123"), now).unwrap();
    assert_eq!(store.announce(&[0xabc, 0x123], None, now).map(drop), Err(SourceError::Circle));
}

#[test]
fn who_may_attach() {
    let (rig, now) = rig();
    let (store, own) = (&rig.store, format!("{:016x}", rig.store.journal().run_id()));
    assert_eq!(store.attach(&attach_as("a", &own), now).unwrap_err(), AttachError::Itself);
    assert_eq!(store.announce(&[store.journal().run_id()], None, now).map(drop), Err(SourceError::Itself));
    store.announce(&[0xabc], None, now).unwrap();
    assert_eq!(store.attach(&attach_as("a", "0000000000000abc"), now).unwrap_err(), AttachError::Upstream);
    let later = now + UPSTREAM;
    let feed = store.attach(&attach_as("a", "0000000000000abc"), later).unwrap();
    assert_eq!(store.announce(&[0xabc], None, later).map(drop), Err(SourceError::Circle));
    drop(feed);
    store.announce(&[0xabc], None, later).unwrap();
    let names: Vec<String> = (0..READERS_MAX).map(|i| format!("name{i}")).collect();
    let _feeds: Vec<Subscription> =
        names.iter().map(|name| store.attach(&attach_as(name, "peer"), now).unwrap()).collect();
    assert_eq!(store.attach(&attach_as("more", "peer"), now).unwrap_err(), AttachError::TooMany);
    assert!(store.attach(&attach_as("name3", "peer"), now).is_ok());
}

/// Stores an item that a source has sent. False if it was refused.
fn set_by(rig: &TestStore, source: &Arc<ChangeSource>, key: &str) -> bool {
    let (hash, last_lsn) = (rig.store.hash(key.as_bytes()), LastLsn::default());
    let mut shard = rig.store.lock_for(hash, &last_lsn, Some(source));
    let Ok(new) = shard.create(&spec(key), &[Part::Bytes(b"value")]) else { return false };
    put(&mut shard, key.as_bytes(), hash, new, None);
    true
}

fn spec(key: &str) -> ItemSpec<'_> {
    ItemSpec { key: key.as_bytes(), key_is_binary: false, client_flags: 0, expires_at: 0 }
}

#[test]
fn of_each_run_the_newest_source_writes() {
    let (rig, now) = rig();
    let announce = |run_id, before| rig.store.announce(&[run_id], before, now);
    let [old, other] = [0xab, 0xac].map(|run_id| announce(run_id, None).unwrap());
    assert!(Arc::ptr_eq(&old, &announce(0xab, Some(&old)).unwrap()), "it says so every second");
    assert!(set_by(&rig, &old, "a") && set_by(&rig, &other, "a"));
    let new = announce(0xab, None).unwrap();
    assert!(!set_by(&rig, &old, "a") && set_by(&rig, &other, "a") && set_by(&rig, &new, "a"));
    assert_eq!(
        announce(0xab, Some(&old)).unwrap_err(),
        SourceError::Replaced,
        "it does not come back by what was late"
    );
    assert_eq!(announce(0xad, Some(&old)).unwrap_err(), SourceError::Replaced);
    // Who has gone is not replaced, and one that brings another run's changes now leaves the first to others.
    drop(new);
    let moved = announce(0xab, Some(&other)).unwrap();
    assert!(set_by(&rig, &moved, "a"));
    let newest = announce(0xac, None).unwrap();
    assert!(set_by(&rig, &moved, "a") && set_by(&rig, &newest, "a"));
}

#[test]
fn a_replaced_source_finds_nothing_and_makes_nothing() {
    let (rig, now) = rig();
    let store = &rig.store;
    let old = store.announce(&[0xab], None, now).unwrap();
    assert!(set_by(&rig, &old, "key"));
    store.begin_refresh(Some(&old), 0);
    assert!(set_by(&rig, &old, "key"));
    let hash = store.hash(b"key");
    let mut upload = store.upload(hash, &spec("key"), 5).unwrap();
    upload.room().unwrap().copy_from_slice(b"large");
    upload.filled(5);
    let _new = store.announce(&[0xab], None, now).unwrap();
    let last_lsn = LastLsn::default();
    let mut shard = store.lock_for(hash, &last_lsn, Some(&old));
    assert_eq!(shard.find(b"key", hash), Err(Miss::NotFound));
    assert_eq!(shard.create(&spec("key"), &[]), Err(AllocError::NoMemory));
    assert_eq!(shard.rewrite(&spec("key"), hash, b"other", None), None);
    assert_eq!(shard.finish(upload), Err(AllocError::NoMemory));
    drop(shard);
    assert!(!store.end_refresh(Some(&old)));
    store.begin_refresh(Some(&old), 0);
    // More than one second can tell apart: then flush_all unlinks the items.
    (0..20).for_each(|_| assert_eq!(store.flush_all(0, Some(&old)), None));
    assert_eq!(rig.get("key"), Some(b"value".to_vec()));
    assert!(store.end_refresh(None), "the one that the old source began goes on");
    assert_eq!(rig.get("key"), Some(b"value".to_vec()));
    store.check().unwrap();
}

fn managed() -> TestStore {
    TestStore::new(StoreConfig { managed: true, ..tiny() })
}

const LATE: u64 = u64::MAX - 1;

/// Each order after those before it, what comes of it, and whether clients are refused then.
#[test]
fn which_role_may_follow_on_which() {
    let rig = managed();
    let candidate = |epoch| RoleOrder::Candidate { epoch };
    let table = [
        (RoleOrder::Waiting, Ok(Duty::Waiting), true),
        (candidate(1), Ok(Duty::Candidate { epoch: 1 }), true),
        (primary(1), Ok(Duty::Primary { epoch: 1, deadline_ms: LATE }), false),
        (candidate(2), Err(RoleError::Primary), false),
        (RoleOrder::Waiting, Ok(Duty::Waiting), true),
        (primary(1), Ok(Duty::Primary { epoch: 1, deadline_ms: LATE }), false),
        (standby(0), Err(RoleError::Old(1)), false),
        (standby(2), Ok(Duty::Standby { epoch: 2 }), true),
        (primary(1), Err(RoleError::Old(2)), true),
        (primary(2), Err(RoleError::Taken), true),
        (candidate(2), Err(RoleError::Taken), true),
        (candidate(3), Ok(Duty::Candidate { epoch: 3 }), true),
        (standby(2), Ok(Duty::Standby { epoch: 2 }), true),
        (RoleOrder::Waiting, Ok(Duty::Waiting), true),
        (primary(2), Err(RoleError::Taken), true),
        (primary(EPOCH_MAX + 1), Err(RoleError::TooHigh), true),
        (primary(4), Ok(Duty::Primary { epoch: 4, deadline_ms: LATE }), false),
        (primary(3), Err(RoleError::Old(4)), false),
    ];
    for (number, (order, result, is_barred)) in table.into_iter().enumerate() {
        let before = rig.store.role_view().duty;
        assert_eq!(rig.store.set_role(order).map(|()| rig.store.role_view().duty), result, "{number}: {order:?}");
        assert_eq!(rig.store.role_view().duty, result.unwrap_or(before));
        assert_eq!(rig.store.bars_clients(), is_barred, "{number}: {order:?}");
    }
}

/// Each demotion begins a term, and a new epoch of the same owner is one, too.
#[test]
fn a_term_ends_where_another_server_may_have_been_primary() {
    let rig = managed();
    let primary = |epoch, deadline_ms| {
        rig.store.set_role(RoleOrder::Primary { epoch, deadline_ms, drops_all: false }).unwrap();
    };
    primary(1, LATE);
    let term = rig.store.term();
    assert!(rig.store.may_answer(term));
    primary(1, LATE + 1);
    assert!(rig.store.may_answer(term));
    primary(2, LATE);
    assert!(!rig.store.may_answer(term) && rig.store.may_answer(rig.store.term()));
    let term = rig.store.term();
    rig.store.set_role(RoleOrder::Waiting).unwrap();
    assert!(!rig.store.may_answer(term));
    let term = rig.store.term();
    primary(2, 1);
    assert!(!rig.store.may_answer(term), "it is too late");
    primary(2, LATE);
    assert!(rig.store.may_answer(term));
}

fn standby(epoch: u64) -> RoleOrder<'static> {
    RoleOrder::Standby { epoch, secret: "secret" }
}

fn primary(epoch: u64) -> RoleOrder<'static> {
    RoleOrder::Primary { epoch, deadline_ms: LATE, drops_all: false }
}

/// Who has shown the key of an epoch, and says that it brings the changes of a run.
fn feeder(rig: &TestStore, epoch: u64, now: Instant) -> Arc<ChangeSource> {
    let keyed = rig.store.let_feed(epoch, "secret").unwrap();
    rig.store.announce(&[0xab], Some(&keyed), now).unwrap()
}

#[test]
fn only_who_knows_the_key_of_the_epoch_feeds_a_standby() {
    let (rig, now) = (managed(), Instant::now());
    let key = |epoch, secret| rig.store.let_feed(epoch, secret).map(drop);
    let announce = |source: Option<&Arc<ChangeSource>>| rig.store.announce(&[0xab], source, now).map(drop);
    assert_eq!((key(0, "secret"), announce(None)), (Err(KeyError::NoStandby), Err(SourceError::NoStandby)));
    rig.store.set_role(standby(3)).unwrap();
    assert_eq!(announce(None), Err(SourceError::NoKey));
    for (epoch, secret) in [(3, "secreT"), (3, "secret1"), (3, ""), (4, "guess")] {
        assert_eq!(key(epoch, secret), Err(KeyError::WrongSecret), "{secret}");
    }
    assert_eq!(key(2, "secret"), Err(KeyError::Old(3)));
    assert_eq!(key(EPOCH_MAX + 1, "secret"), Err(KeyError::TooHigh));
    let old = feeder(&rig, 3, now);
    assert!(set_by(&rig, &old, "a"));
    rig.store.set_role(RoleOrder::Candidate { epoch: 5 }).unwrap();
    assert!(set_by(&rig, &old, "a"), "the owner of the epoch may go on");
    // The next owner is here before this server was told of it.
    let new = feeder(&rig, 4, now);
    assert!(!set_by(&rig, &old, "a") && set_by(&rig, &new, "a"));
    assert_eq!(announce(Some(&old)), Err(SourceError::Replaced));
    assert_eq!(rig.store.set_role(standby(3)), Err(RoleError::Old(4)));
    assert_eq!(rig.store.role_view().duty, Duty::Candidate { epoch: 5 });
    let newest = feeder(&rig, 5, now);
    assert_eq!(rig.store.role_view().duty, Duty::Standby { epoch: 5 });
    rig.store.set_role(standby(5)).unwrap();
    assert!(!set_by(&rig, &new, "a") && set_by(&rig, &newest, "a"));
    rig.store.set_role(standby(6)).unwrap();
    assert!(!set_by(&rig, &newest, "a"));
    let unmanaged = TestStore::new(tiny());
    assert_eq!(unmanaged.store.let_feed(1, "secret").map(drop), Err(KeyError::Unmanaged));
}

#[test]
fn who_is_primary_takes_no_changes() {
    let (rig, now) = (managed(), Instant::now());
    rig.store.set_role(standby(1)).unwrap();
    let (source, keyed) = (feeder(&rig, 1, now), rig.store.let_feed(1, "secret").unwrap());
    rig.store.begin_refresh(Some(&source), 1);
    assert!(set_by(&rig, &source, "a") && set_by(&rig, &keyed, "a"));
    rig.store.set_role(primary(2)).unwrap();
    assert!(!set_by(&rig, &source, "a") && !set_by(&rig, &keyed, "a"));
    assert!(!rig.store.end_refresh(Some(&source)));
    assert_eq!(rig.store.announce(&[0xab], Some(&source), now).map(drop), Err(SourceError::Replaced));
    assert_eq!(rig.store.announce(&[0xab], None, now).map(drop), Err(SourceError::NoStandby));
    assert_eq!(rig.store.let_feed(3, "secret").map(drop), Err(KeyError::NoStandby));
    // It feeds at once whom it was fed by, and may be fed by it later.
    let feed = rig.store.attach(&attach_as("a", "00000000000000ab"), now).unwrap();
    rig.store.set_role(standby(3)).unwrap();
    assert!(!set_by(&rig, &source, "a"));
    assert!(set_by(&rig, &feeder(&rig, 3, now), "a"));
    drop(feed);
}

/// Between two tenures another owner may have fed the peer. It does not matter that the peer is of the same run.
#[test]
fn another_tenure_begins_with_full_syncs() {
    let (rig, now) = (managed(), Instant::now());
    let begins = || {
        let mut feed = rig.store.attach(&attach_as("a", "00000000000000ab"), now).unwrap();
        let begins = feed.began_with_full_sync();
        while feed.next(1000, &mut Vec::new()) != Update::Idle {}
        feed.acknowledge(feed.lsn());
        begins
    };
    rig.store.set_role(standby(1)).unwrap();
    rig.store.set_role(primary(2)).unwrap();
    assert_eq!([begins(), begins()], [true, false]);
    rig.store.set_role(primary(3)).unwrap();
    assert!(!begins(), "it goes on in a later epoch, and was the owner all the time");
    rig.store.set_role(standby(4)).unwrap();
    rig.store.set_role(RoleOrder::Candidate { epoch: 5 }).unwrap();
    rig.store.set_role(primary(5)).unwrap();
    assert_eq!([begins(), begins()], [true, false]);
}

#[test]
fn a_promise_excludes_being_a_candidate_and_the_other_way_round() {
    let rig = managed();
    let (short, long) = (Duration::from_millis(30), Duration::from_secs(3600));
    assert_eq!(rig.store.promise(1, "secret", long), Err(KeyError::NoStandby));
    rig.store.set_role(standby(1)).unwrap();
    assert_eq!(rig.store.promise(1, "guess", long), Err(KeyError::WrongSecret));
    rig.store.set_role(RoleOrder::Candidate { epoch: 2 }).unwrap();
    assert_eq!(rig.store.promise(1, "secret", long), Err(KeyError::Candidate));
    rig.store.set_role(standby(1)).unwrap();
    rig.store.promise(1, "secret", long).unwrap();
    rig.store.promise(1, "secret", short).unwrap();
    std::thread::sleep(short);
    for order in [RoleOrder::Candidate { epoch: 2 }, primary(2)] {
        assert_eq!(rig.store.set_role(order), Err(RoleError::Promised(1)), "the longer one counts");
    }
    assert_eq!(rig.store.set_role(standby(2)), Ok(()));
    rig.store.promise(2, "secret", short).unwrap();
    std::thread::sleep(short);
    assert_eq!(rig.store.set_role(primary(3)), Ok(()), "it is over");
}

/// A claim without data is won: what was there goes at once, and only once. Who is a candidate keeps everything, and goes
/// on to be fed.
#[test]
fn what_is_held_is_dropped_when_the_epoch_begins() {
    let (rig, now) = (managed(), Instant::now());
    let bare = |epoch| RoleOrder::Primary { epoch, deadline_ms: LATE, drops_all: true };
    rig.store.set_role(standby(1)).unwrap();
    let source = feeder(&rig, 1, now);
    rig.store.set_role(RoleOrder::Candidate { epoch: 3 }).unwrap();
    assert!(set_by(&rig, &source, "a"));
    for (order, error) in [(bare(0), RoleError::Old(1)), (bare(1), RoleError::Taken)] {
        assert_eq!(rig.store.set_role(order), Err(error));
        assert_eq!(rig.store.items(), 1);
    }
    rig.store.set_role(bare(3)).unwrap();
    assert!(!set_by(&rig, &source, "b"));
    assert_eq!((rig.store.items(), rig.store.bars_clients()), (0, false));
    // It is told so again until it is known that it was; another server was heard of, and it goes on in a higher epoch.
    assert!(rig.set("a", b"value", 0));
    for order in [bare(3), bare(4), RoleOrder::Waiting, bare(4), primary(4)] {
        rig.store.set_role(order).unwrap();
        assert_eq!(rig.store.items(), 1, "{order:?}");
    }
    rig.store.set_role(standby(5)).unwrap();
    assert_eq!(rig.store.set_role(bare(4)), Err(RoleError::Old(5)));
    assert_eq!(rig.store.items(), 1);
    rig.store.set_role(bare(6)).unwrap();
    assert_eq!(rig.store.items(), 0);
}

/// The shard was handed over to a server that has never fed anybody: the others have all that it has, and go on from there.
#[test]
fn a_successor_journals_before_it_serves() {
    let (rig, now) = (managed(), Instant::now());
    rig.store.set_role(standby(1)).unwrap();
    assert!(set_by(&rig, &feeder(&rig, 1, now), "a"));
    let lsn = rig.store.hold_changes(0);
    rig.store.set_role(primary(2)).unwrap();
    assert!(rig.set("b", b"value", 0));
    let run_id = Some(rig.store.journal().run_id());
    let feed = Attach { run_id, lsn: Some(lsn), ..attach_as("a", "00000000000000ab") };
    assert!(!rig.store.attach(&feed, now).unwrap().began_with_full_sync());
}

/// What the old owner gave out and never sent is given to nothing else.
#[test]
fn cas_uniques_do_not_repeat_across_owners() {
    let rig = managed();
    let give = |key: &str| {
        assert!(rig.set(key, b"value", 0));
        let hash = rig.store.hash(key.as_bytes());
        let mut locked = rig.store.lock(hash);
        let id = locked.find(key.as_bytes(), hash).unwrap();
        locked.item(id).cas()
    };
    rig.store.set_role(primary(1)).unwrap();
    assert_eq!(give("a"), (1 << 48) + 1);
    rig.store.set_role(RoleOrder::Waiting).unwrap();
    rig.store.set_role(primary(1)).unwrap();
    assert_eq!(give("a"), (1 << 48) + 2);
    rig.store.set_role(standby(2)).unwrap();
    let source = feeder(&rig, 2, Instant::now());
    // The second is one that a client of the owner has named.
    for cas in [(2 << 48) + 77, (3 << 48) + 5] {
        let (hash, lsn) = (rig.store.hash(b"b"), LastLsn::default());
        let mut locked = rig.store.lock_for(hash, &lsn, Some(&source));
        let id = locked.create(&spec("b"), &[]).unwrap();
        put(&mut locked, b"b", hash, id, Some(cas));
    }
    assert_eq!(rig.store.core.next_cas(), (2 << 48) + 78);
    rig.store.set_role(primary(3)).unwrap();
    assert_eq!(give("a"), (3 << 48) + 1);
    rig.store.set_role(primary(EPOCH_MAX)).unwrap();
    assert_eq!(give("a"), (EPOCH_MAX << 48) + 1);
}
