//! Large values, while others wait.

use super::connection::TestConnection;
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
    let mut rig = TestConnection::on(unread);
    rig.ask(&b"get small\r\n".repeat(100));
    assert_eq!(rig.pipe().unsent_max, None, "for small replies");
}
