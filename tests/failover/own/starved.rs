//! A round is tried again for a gap, and for nothing else.

use crate::starved::unless_starved;
use std::time::Duration;

#[test]
fn only_a_gap_excuses_a_round() {
    let mut rounds = 0;
    let mut third = || {
        rounds += 1;
        (rounds % 3 == 0).then_some(()).ok_or("not yet".to_owned())
    };
    // Any gap does.
    unless_starved(Duration::ZERO, &mut third);
    assert_eq!(rounds, 3);
    let never = || Err("as a program does that is wrong".to_owned());
    for excuse in [Duration::MAX, Duration::ZERO] {
        assert!(std::panic::catch_unwind(|| unless_starved(excuse, never)).is_err());
    }
}
