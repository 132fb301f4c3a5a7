//! The pump told step by step; thousands of schedules are in `sidecar::simulation`.

use super::*;

const fn at(ms: u64) -> Moment {
    Moment { at: Duration::from_millis(ms), unix_ms: 1_700_000_000_000, boot_ms: ms as i64 }
}

fn server_says(pump: &mut Pump, text: &str, now: Moment) {
    pump.server_room()[..text.len()].copy_from_slice(text.as_bytes());
    pump.server_read(text.len(), now);
}

/// What the peer says of itself: its clock showed 1,700,000,000 s when our machine had just booted, and has been set
/// forward by so many milliseconds since.
fn introduces_itself(pump: &mut Pump, ms: u64, set_forward: u64) {
    let told = 1_700_000_000_000 + ms + set_forward;
    pump.peer_read(format!("OK twin1 {told} 5\r\n").as_bytes(), at(ms));
}

/// Opens both sides at `ms` and returns what the server is asked 200 ms later.
fn attach(pump: &mut Pump, ms: u64) -> String {
    attach_to(pump, ms, 0)
}

/// The same, with a peer whose clock has been set forward.
fn attach_to(pump: &mut Pump, ms: u64, set_forward: u64) -> String {
    assert_eq!(pump.action(at(ms)), Some(Action::OpenServer));
    pump.server_opened(at(ms));
    server_says(pump, "twincache 1 run1 0\r\n", at(ms));
    assert_eq!(pump.action(at(ms)), Some(Action::OpenPeer));
    pump.peer_opened(at(ms));
    pump.peer_read(b"MN\r\nVERSION 1\r\n", at(ms));
    introduces_itself(pump, ms, set_forward);
    pump.peer_read(b"STAT pid 5\r\nSTAT time 1700000000\r\nSTAT curr_items 7\r\nEND\r\n", at(ms));
    assert_eq!(pump.action(at(ms + 200)), None);
    assert_eq!(pump.server_output(), b"meet peer:1 twin1\r\n");
    pump.server_wrote("meet peer:1 twin1\r\n".len());
    server_says(pump, "met 4 100 first\r\n", at(ms + 200));
    introduces_itself(pump, ms + 200, set_forward);
    let asked = server_hears(pump);
    let clock = format!("clock {}\r\n", 1_700_000_000_000 + set_forward);
    asked.strip_prefix(&clock).unwrap_or_else(|| panic!("{asked} does not begin with {clock}")).to_owned()
}

fn server_hears(pump: &mut Pump) -> String {
    let said = String::from_utf8(pump.server_output().to_vec()).unwrap();
    pump.server_wrote(said.len());
    said
}

#[test]
fn what_was_confirmed_before_a_walk_is_void_when_the_walk_is_under_way() {
    let mut pump = Pump::new("peer:1", None, OverwriteGuard::new(false), 1);
    assert_eq!(attach(&mut pump, 0), "attach peer:1 twin1 - - cas\r\n");
    server_says(&mut pump, "continuing run1 5\r\nbatch 6 0\r\nwalk run1 9\r\nbatch 9 0\r\nwalked 9\r\n", at(300));
    pump.peer_read(b"OK\r\nMN\r\nOK\r\nMN\r\n", at(301));
    assert_eq!(pump.server_output(), b"", "6, or 9 of the walk, says nothing now");
    pump.peer_gone("cut", at(302));
    assert_eq!((pump.action(at(303)), pump.action(at(303))), (Some(Action::CloseServer), Some(Action::ClosePeer)));
    assert_eq!(attach(&mut pump, 1000), "attach peer:1 twin1 - - cas\r\n");
    server_says(&mut pump, "walk run1 9\r\nwalked 9\r\n", at(1300));
    pump.peer_read(b"OK\r\nOK\r\nOK\r\nOK\r\nMN\r\n", at(1301));
    assert_eq!(pump.server_output(), b"ack 9\r\n");
}
#[test]
fn who_comes_back_is_behind_until_it_has_what_it_missed() {
    let mut pump = Pump::new("peer:1", None, OverwriteGuard::new(false), 1);
    attach(&mut pump, 0);
    server_says(&mut pump, "walk run1 9\r\nwalked 9\r\nalive 9 1\r\n", at(300));
    pump.peer_read(b"OK\r\nOK\r\nOK\r\nOK\r\nMN\r\n", at(301));
    let lag = |pump: &mut Pump, ms| pump.figures(at(ms)).lag.map(|lag| lag.as_secs());
    assert_eq!(lag(&mut pump, 302), Some(0));
    pump.peer_gone("cut", at(302));
    while pump.action(at(303)).is_some() {}
    assert_eq!(attach(&mut pump, 60_000), "attach peer:1 twin1 run1 9 cas\r\n");
    server_says(&mut pump, "continuing run1 9\r\n", at(60_310));
    assert_eq!(lag(&mut pump, 60_310), Some(60));
    server_says(&mut pump, "batch 10 0\r\nalive 50 1\r\nbatch 50 0\r\n", at(60_310));
    pump.peer_read(b"OK\r\nMN\r\n", at(60_320));
    assert_eq!(lag(&mut pump, 60_320), Some(60));
    pump.peer_read(b"MN\r\n", at(60_330));
    assert_eq!(lag(&mut pump, 60_330), Some(0));
    // Nothing was missed.
    pump.peer_gone("cut", at(60_340));
    while pump.action(at(60_341)).is_some() {}
    attach(&mut pump, 90_000);
    server_says(&mut pump, "continuing run1 50\r\nalive 50 1\r\n", at(90_310));
    assert_eq!(lag(&mut pump, 90_310), Some(0));
}

#[test]
fn what_was_sent_while_the_peers_clock_jumped_is_sent_again() {
    let mut pump = Pump::new("peer:1", None, OverwriteGuard::new(false), 1);
    attach(&mut pump, 0);
    server_says(&mut pump, "continuing run1 5\r\nbatch 6 0\r\n", at(300));
    pump.peer_read(b"OK\r\nMN\r\n", at(301));
    assert_eq!(server_hears(&mut pump), "ack 6\r\n");
    // A small change is only told, and what was confirmed before has the right time.
    assert_eq!(pump.action(at(1200)), None);
    introduces_itself(&mut pump, 1200, 300);
    assert_eq!(server_hears(&mut pump), "meet peer:1 twin1\r\nclock 1700000000300\r\n");
    server_says(&mut pump, "met 4 100 again\r\nbatch 7 0\r\n", at(1300));
    pump.peer_read(b"OK\r\nMN\r\n", at(1301));
    assert_eq!(pump.action(at(2200)), None);
    introduces_itself(&mut pump, 2200, 60_000);
    while pump.action(at(2200)).is_some() {}
    pump.peer_gone("ended", at(2200));
    while pump.action(at(2201)).is_some() {}
    assert!(pump.figures(at(2201)).trouble.contains("jumped by 59700 ms"));
    assert_eq!(attach_to(&mut pump, 4000, 60_000), "attach peer:1 twin1 run1 6 cas\r\n");
    // It jumps while nothing is open.
    server_says(&mut pump, "continuing run1 6\r\nbatch 9 0\r\n", at(4300));
    pump.peer_read(b"OK\r\nMN\r\n", at(4301));
    pump.peer_gone("cut", at(4302));
    while pump.action(at(4303)).is_some() {}
    assert_eq!(attach_to(&mut pump, 8000, 0), "attach peer:1 twin1 run1 6 cas\r\n");
}

#[test]
fn a_low_limit_does_not_let_a_copy_lapse() {
    let mut pump = Pump::new("peer:1", Some(1), OverwriteGuard::new(false), 1);
    attach(&mut pump, 0);
    server_says(&mut pump, "walk run1 9\r\nbatch 9 400000\r\n", at(300));
    server_says(&mut pump, &"x".repeat(400_000), at(300));
    let offered = |pump: &mut Pump, ms| pump.peer_output(at(ms)).iter().map(|slice| slice.len()).sum::<usize>();
    assert!((1..20_000).contains(&offered(&mut pump, 1000)), "a twentieth of a second at 125,000 bytes a second");
    // The peer has not answered `replica from` for 4 s: it stands behind the batch.
    assert!(offered(&mut pump, 4300) >= 400_000);
    assert!(pump.server_room().is_empty(), "more than a second ahead");
}

/// Takes all that goes to the peer, and answers none of it.
fn swallow(pump: &mut Pump, ms: u64) -> usize {
    let taken = pump.peer_output(at(ms)).iter().map(|slice| slice.len()).sum();
    pump.peer_wrote(taken, at(ms));
    taken
}

/// A proxy does so whose other end is gone.
#[test]
fn a_peer_that_reads_and_never_answers_is_given_up() {
    let mut pump = Pump::new("peer:1", None, OverwriteGuard::new(false), 1);
    attach(&mut pump, 0);
    swallow(&mut pump, 300);
    server_says(&mut pump, "continuing run1 5\r\n", at(300));
    let mut given_up = None;
    for (lsn, ms) in (300..30_000).step_by(10).enumerate() {
        if let Some(Action::CloseServer) = pump.action(at(ms)) {
            given_up = Some(ms);
            break;
        }
        server_says(&mut pump, &format!("batch {} 0\r\n", lsn + 6), at(ms));
        swallow(&mut pump, ms);
    }
    assert!(given_up.is_some_and(|ms| (15_300..15_400).contains(&ms)), "{given_up:?}");
    assert_eq!(pump.figures(at(16_000)).trouble, "the peer does not answer");
}

#[test]
fn a_large_item_may_take_long() {
    let mut pump = Pump::new("peer:1", None, OverwriteGuard::new(false), 1);
    attach(&mut pump, 0);
    swallow(&mut pump, 300);
    server_says(&mut pump, "continuing run1 5\r\nbatch 6 3000000\r\n", at(300));
    pump.peer_read(b"OK\r\n", at(300));
    for ms in (300..60_300).step_by(2000) {
        server_says(&mut pump, &"x".repeat(100_000), at(ms));
        assert!(swallow(&mut pump, ms) > 0);
        assert_eq!(pump.action(at(ms + 1900)), None);
    }
    pump.peer_read(b"MN\r\n", at(60_300));
    assert_eq!([server_hears(&mut pump), server_hears(&mut pump)], ["meet peer:1 twin1\r\n", "ack 6\r\n"]);
}

#[test]
fn a_peer_that_owes_much_is_sent_no_more() {
    let mut pump = Pump::new("peer:1", None, OverwriteGuard::new(false), 1);
    attach(&mut pump, 0);
    server_says(&mut pump, "continuing run1 5\r\n", at(300));
    let mut lsn = 5;
    while !pump.server_room().is_empty() {
        lsn += 1;
        server_says(&mut pump, &format!("batch {lsn} 0\r\n"), at(300));
        swallow(&mut pump, 300);
    }
    assert!((16_000..17_000).contains(&lsn), "{lsn}");
    pump.peer_read(b"OK\r\nMN\r\n", at(301));
    assert!(!pump.server_room().is_empty());
}

#[test]
fn a_server_that_says_nothing_hangs() {
    let mut pump = Pump::new("peer:1", None, OverwriteGuard::new(false), 1);
    attach(&mut pump, 0);
    server_says(&mut pump, "continuing run1 5\r\nalive 5 1\r\n", at(300));
    pump.peer_read(b"OK\r\n", at(300));
    let mut closed = None;
    for ms in (310..9000).step_by(10) {
        match pump.action(at(ms)) {
            Some(Action::CloseServer) => closed = closed.or(Some(ms)),
            _ if closed.is_some() => break,
            _ => {}
        }
        // What goes to the peer, each second, is no word of the server.
        if swallow(&mut pump, ms) > 0 {
            introduces_itself(&mut pump, ms, 0);
            pump.peer_read(b"OK\r\n", at(ms));
        }
        let silent = pump.figures(at(ms)).server_silent;
        assert_eq!(silent.is_some(), ms >= 800 && closed.is_none(), "{silent:?} at {ms}");
    }
    assert!(closed.is_some_and(|ms| (5300..5400).contains(&ms)), "{closed:?}");
    assert_eq!(pump.figures(at(9000)).trouble, "the server hangs: it says nothing on its control socket");
}
