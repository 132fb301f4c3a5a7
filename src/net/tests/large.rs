//! Large values, while others wait.

use super::connection::TestConnection;
use crate::net::conn::turn::{After, LARGE, Quota, SLICE, TURN_BYTES};
use crate::store::Accounting;
use crate::testing;
use std::sync::atomic::Ordering;

/// A connection whose client does not read, and a value of 100,000 bytes.
fn rig() -> TestConnection {
    let mut rig = TestConnection::new(|_| {});
    let set = [b"set large 0 0 100000\r\n".as_slice(), &[b'v'; 100_000], b"\r\n"].concat();
    assert_eq!(rig.ask(&set), "STORED\r\n");
    rig.pipe().room = 0;
    rig
}

#[test]
fn what_the_kernel_takes_is_bounded_where_many_do_not_read() {
    let mut rig = rig();
    let unread = rig.shared.clone();
    for (others, bound) in [(10, None), (1000, Some(128 << 10))] {
        unread.stats.held_outputs.store(others, Ordering::Relaxed);
        rig.send(b"get small\r\nget large\r\n");
        rig.settle();
        assert_eq!(rig.pipe().unsent_max, bound, "with {others} others");
        rig.take(usize::MAX / 2);
        rig.settle();
        assert_eq!(rig.replies().len(), b"END\r\nVALUE large 0 100000\r\n\r\nEND\r\n".len() + 100_000);
        rig.pipe().room = 0;
    }
    unread.stats.held_outputs.store(10, Ordering::Relaxed);
    rig.send(b"get large\r\n");
    rig.settle();
    rig.take(usize::MAX / 2);
    rig.settle();
    assert_eq!(rig.pipe().unsent_max, Some(0), "who reads again, and few do not");
    unread.stats.held_outputs.store(1000, Ordering::Relaxed);
    let mut rig = TestConnection::on(unread);
    rig.ask(&b"get small\r\n".repeat(100));
    assert_eq!(rig.pipe().unsent_max, None, "for small replies");
}

/// Turns until nothing moves any more, of which each moves `most` bytes at most. How many there were.
fn slices(rig: &mut TestConnection, most: usize) -> usize {
    rig.quota = Quota::new(&rig.shared.config, 0).with_slice(most);
    let moved = |rig: &mut TestConnection| rig.counters.bytes_read.get() + rig.counters.bytes_written.get();
    let (mut turns, mut before, mut after) = (0, moved(rig), After::Large);
    while after == After::Large {
        after = rig.turn();
        let now = moved(rig);
        assert!(now - before <= most as u64 + 100, "{} bytes in one turn", now - before);
        (turns, before) = (turns + 1, now);
    }
    turns
}

#[test]
fn a_large_reply_gets_in_line_and_leaves_in_slices() {
    let mut rig = rig();
    rig.pipe().room = usize::MAX / 2;
    rig.send(b"get small\r\nget large\r\nget small\r\n");
    rig.quota = Quota::new(&rig.shared.config, 0).with_room(LARGE);
    assert_eq!(rig.turn(), After::Large);
    assert!(rig.replies().is_empty(), "replies leave in order");
    assert_eq!(rig.turn(), After::Large, "until it is its turn");
    assert!(rig.replies().len() <= LARGE);
    assert!(slices(&mut rig, 20_000) >= 4);
    let replies = rig.counters.bytes_written.get() as usize - b"STORED\r\n".len();
    assert_eq!(replies, b"END\r\nVALUE large 0 100000\r\n\r\nEND\r\nEND\r\n".len() + 100_000);
}

#[test]
fn the_pieces_of_a_value_that_is_not_read_count_as_held() {
    let mut rig = TestConnection::new(|config| config.store.slab_chunk_max = 16 << 10);
    let set = [b"set large 0 0 1000000\r\n".as_slice(), &[b'v'; 1_000_000], b"\r\n"].concat();
    assert_eq!(rig.ask(&set), "STORED\r\n");
    rig.pipe().room = 0;
    rig.send(b"get large\r\n");
    rig.settle();
    let pieces = 1_000_000 / (16 << 10);
    assert!(rig.connection.memory() > pieces * 2 * size_of::<usize>(), "{} bytes", rig.connection.memory());
    rig.take(usize::MAX / 2);
    rig.settle();
    assert_eq!(rig.connection.memory(), 0);
}

/// What waits in line is held by the server, and who holds most is closed when that is too much.
#[test]
fn nobody_gets_in_line_where_memory_is_short() {
    let mut rig = rig();
    rig.pipe().room = usize::MAX / 2;
    rig.is_tight = true;
    rig.send(b"get large\r\n");
    rig.quota = Quota::new(&rig.shared.config, 0).with_room(LARGE);
    assert_eq!(rig.turn(), After::Large);
    assert_eq!(rig.replies().len(), LARGE, "the kernel is offered what a slice has");
}

#[test]
fn copied_replies_get_in_line_when_they_are_many() {
    let mut rig = TestConnection::new(|_| {});
    rig.ask(&[b"set copied 0 0 15000\r\n".as_slice(), &[b'v'; 15_000], b"\r\n"].concat());
    rig.send(&b"get copied\r\n".repeat(100));
    rig.quota = Quota::new(&rig.shared.config, 0).with_room(LARGE);
    assert_eq!(rig.turn(), After::Large);
    slices(&mut rig, 256 << 10);
    assert_eq!(rig.replies().len(), 100 * (b"VALUE copied 0 15000\r\n\r\nEND\r\n".len() + 15_000));
}

/// Appends copy a value under the lock, and so does a number that is as long: others come first, and it counts once.
#[test]
fn what_is_copied_within_the_store_gets_in_line() {
    let value = [b"1".as_slice(), &[b' '; 99_999]].concat();
    let stored = [b"set number 0 0 100000\r\n".as_slice(), &value, b"\r\n"].concat();
    let appended = testing::packet(0x0e, &[], b"number", b"5", 0, 0);
    let by_one = [1_u64.to_be_bytes().as_slice(), &[0; 12]].concat();
    let added = testing::packet(0x05, &by_one, b"number", b"", 0, 0);
    let requests: [(&[u8], usize); 7] = [
        (b"append number 0 0 1\r\n5\r\n", b"STORED\r\n".len()),
        (b"prepend number 0 0 1\r\n5\r\n", b"STORED\r\n".len()),
        (b"ms number 1 MA\r\n5\r\n", b"HD\r\n".len()),
        (b"incr number 1\r\n", b"2\r\n".len()),
        (b"ma number v\r\n", b"VA 1\r\n2\r\n".len()),
        (&appended, 24),
        (&added, 32),
    ];
    for (request, len) in requests {
        let mut rig = TestConnection::new(|config| config.store.accounting = Accounting::Memcached);
        assert_eq!(rig.ask(&stored), "STORED\r\n");
        let mut rig = TestConnection::on(rig.shared.clone());
        let what = request.escape_ascii().to_string();
        rig.send(request);
        rig.quota = Quota::new(&rig.shared.config, 0).with_room(LARGE);
        assert_eq!(rig.turn(), After::Large, "{what}");
        let counted = |rig: &TestConnection| {
            let mut sum = 0;
            rig.counters.commands.get().each(|_, count| sum += count);
            sum
        };
        assert_eq!((rig.replies().len(), counted(&rig)), (0, 0), "{what}");
        rig.quota = Quota::new(&rig.shared.config, 0).with_slice(TURN_BYTES);
        rig.take(usize::MAX / 2);
        rig.settle();
        assert_eq!((rig.replies().len(), counted(&rig)), (len, 1), "{what}");
    }
}

/// One that came in its chunks cannot be run again; but it does not wait for those who copy for long.
#[test]
fn an_uploaded_append_gets_in_line_and_waits_for_no_copies() {
    let mut rig = rig();
    rig.pipe().room = usize::MAX / 2;
    rig.send(&[b"append large 0 0 20000\r\n".as_slice(), &[b'w'; 19_990]].concat());
    rig.settle();
    assert_eq!(rig.connection.session().upload_missing(), 10);
    let place = rig.shared.store.copy_place();
    assert!(place.is_first());
    rig.send(b"wwwwwwwwww\r\n");
    rig.quota = Quota::new(&rig.shared.config, 0).with_room(LARGE);
    assert_eq!(rig.turn(), After::Large);
    assert!(rig.replies().is_empty());
    rig.quota = Quota::new(&rig.shared.config, 0).with_slice(SLICE);
    rig.settle();
    assert_eq!(rig.replies(), b"STORED\r\n");
    drop(place);
    assert_eq!(rig.ask(b"get large\r\n").len(), b"VALUE large 0 120000\r\n\r\nEND\r\n".len() + 120_000);
}

#[test]
fn a_large_value_gets_in_line_and_comes_in_slices() {
    let mut rig = rig();
    rig.pipe().room = usize::MAX / 2;
    rig.send(&[b"get small\r\nset other 0 0 200000\r\n".as_slice(), &[b'v'; 200_000], b"\r\n"].concat());
    rig.quota = Quota::new(&rig.shared.config, 0).with_room(LARGE);
    assert_eq!(rig.turn(), After::Large);
    assert_eq!(rig.connection.session().upload_missing(), 0, "no memory is taken before it is its turn");
    assert_eq!(rig.replies(), b"END\r\n", "who waits for a small reply has it");
    assert!(slices(&mut rig, 70_000) >= 2);
    assert_eq!(rig.replies(), b"STORED\r\n");
}

/// Turns until it waits for its client. How often it has waited for memory.
fn turns_with_memory(rig: &mut TestConnection) -> usize {
    let mut waits = 0;
    loop {
        match rig.turn() {
            After::WaitForMemory => {
                let (ready, used) = rig.shared.store.get_memory();
                assert!(ready > used, "{used} bytes are used and {ready} ready");
                waits += 1;
            }
            After::Again | After::Large => {}
            after => {
                assert_eq!(after, After::Wait);
                return waits;
            }
        }
    }
}

#[test]
fn a_large_value_waits_until_its_memory_is_ready() {
    for is_served in [true, false] {
        let mut rig = TestConnection::new(|config| {
            (config.store.memory_limit, config.store.shards, config.store.item_size_max) =
                (256 << 20, Some(1), 32 << 20);
        });
        rig.pipe().room = usize::MAX / 2;
        rig.shared.store.serve_memory(is_served);
        // In one chunk, in two, and in more than are taken at a time.
        for (i, (len, times)) in [(400_000, 20), (1_000_000, 10), (20_000_000, 1)].into_iter().enumerate() {
            let value: Vec<u8> = (0..len).map(|at: u32| (at / 7) as u8).collect();
            let mut waits = 0;
            for n in 0..times {
                rig.send(&[format!("set key{i}-{n} 0 0 {len}\r\n").as_bytes(), &value, b"\r\n"].concat());
                waits += turns_with_memory(&mut rig);
                assert_eq!(rig.replies(), b"STORED\r\n");
            }
            assert_eq!(waits > 0, is_served, "{len} bytes: {waits} waits");
            rig.send(format!("get key{i}-0\r\n").as_bytes());
            turns_with_memory(&mut rig);
            let reply = rig.replies();
            assert!(reply.windows(len as usize).any(|window| window == value), "{len} bytes are not what was set");
        }
    }
}
