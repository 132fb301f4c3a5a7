//! What a standby says of its copy, and how far both sides say a full sync has come.

use crate::common::{Server, Sidecar, signal, until};
use crate::pair::{Scratch, scratch, start_primary};
use crate::wire::Wire;

/// Items of the primary, and bytes of each: at the limited speed they take a minute.
const ITEMS: usize = 20_000;
const ITEM: usize = 1000;
const SLOWLY: u64 = 400_000;

/// A primary with items, and a server that is going to be its standby.
struct Fed {
    primary: Server,
    standby: Server,
    wire: Wire,
    socket: Scratch,
    own_socket: Scratch,
}

impl Fed {
    fn new() -> Fed {
        let (socket, own_socket) = (scratch("control"), scratch("own"));
        let options = ["-o", "journal_mem=8"];
        let (primary, standby) = (start_primary(&socket, &options), start_primary(&own_socket, &[]));
        let wire = Wire::to(standby.addr);
        let fed = Fed { primary, standby, wire, socket, own_socket };
        fed.write();
        fed
    }

    /// Writes every item.
    fn write(&self) {
        let (mut conn, value) = (self.primary.connect(), "v".repeat(ITEM));
        for i in 0..ITEMS {
            conn.send(format!("set key{i} 0 0 {ITEM} noreply\r\n{value}\r\n").as_bytes());
        }
        assert_eq!(conn.line("mn"), "MN");
    }

    fn feed(&self) -> Sidecar {
        Sidecar::start(&*self.socket, self.wire.addr, &["--http", "127.0.0.1:0"])
    }

    fn figure(&self, name: &str) -> String {
        self.standby.connect().find_stat("replication", name).unwrap_or_else(|| format!("no {name}"))
    }

    fn number(&self, name: &str) -> u64 {
        self.figure(name).parse().unwrap_or_else(|_| panic!("{name}: {}", self.figure(name)))
    }

    fn is(&self, copy: &str) -> bool {
        self.figure("copy") == copy
    }
}

#[test]
fn a_copy_whose_full_sync_was_broken_off_stays_partial_until_one_ends() {
    let mut fed = Fed::new();
    assert!(fed.is("none") && fed.figure("role") == "standalone");
    fed.wire.limit(SLOWLY);
    let sidecar = fed.feed();
    until("the standby to hear how much has come", || fed.is("partial") && fed.number("copy_items") > 0);
    assert_eq!((fed.figure("role"), fed.figure("epoch")), ("standby".into(), "0".into()));
    assert_eq!(fed.number("copy_items_expected"), ITEMS as u64);
    assert!(fed.number("copy_percent") < 100 && fed.figure("copy_from").starts_with("tcp:127.0.0.1:"));
    assert_eq!(fed.figure("copy_from_run"), fed.primary.connect().stat("replication", "run_id"));
    let health = sidecar.page("/health");
    assert!(health.contains(" %, ") && health.contains(&format!(" of {ITEMS} items, about ")), "{health}");
    let metrics = sidecar.page("/metrics");
    assert!(
        metrics.contains(&format!("twincache_sidecar_sync_items_expected{{peer=\"{}\"}} {ITEMS}\n", fed.wire.addr))
    );

    drop(sidecar);
    fed.wire.cut();
    assert!(fed.is("partial"), "the sidecar died in the middle");
    let sidecar = fed.feed();
    until("another sidecar to begin again", || fed.number("copy_syncs") == 2);
    assert!(fed.is("partial"));
    fed.wire.limit(0);
    until("it to end", || fed.is("whole"));
    assert_eq!((fed.number("copy_items"), fed.number("copy_percent")), (ITEMS as u64, 100));
    assert_eq!((fed.number("copy_syncs"), fed.number("copy_syncs_ended")), (2, 1));
    until("it to hear up to where it has everything", || {
        fed.figure("copy_lsn") == fed.primary.connect().stat("replication", "lsn")
    });
    let log = sidecar.says("full sync done at lsn ");
    assert!(log.contains(&format!(": {ITEMS} items, {} bytes in ", fed.number("copy_bytes"))), "{log}");
    let log = fed.standby.stderr();
    assert!(log.contains("a whole copy from tcp:127.0.0.1:") && log.contains(&format!(": {ITEMS} items, ")), "{log}");

    // The feeder's machine dies: what there is stays whole, and older with every second.
    fed.primary.may_exit();
    signal(fed.primary.pid(), "KILL");
    drop(sidecar);
    until("the last word to age", || fed.number("copy_silent_ms") > 1500);
    assert!(fed.is("whole"));
}

#[test]
fn the_sidecar_of_a_good_standby_is_green() {
    let fed = Fed::new();
    let feeder = fed.feed();
    let own = Sidecar::start(&*fed.own_socket, fed.primary.addr, &["--http", "127.0.0.1:0"]);
    until("the copy", || fed.is("whole"));
    let mut health = String::new();
    until("the standby's own sidecar to be green", || {
        health = own.page("/health");
        health.starts_with("HTTP/1.1 200 ")
    });
    let run = fed.primary.connect().stat("replication", "run_id");
    assert!(health.contains("the server is a standby, its copy is whole, fed by tcp:127.0.0.1:"), "{health}");
    assert!(health.contains(&run) && health.ends_with(": feeds this server\n"), "{health}");
    assert!(own.page("/metrics").contains("twincached_copy_state{state=\"whole\"} 1\n"));
    drop(feeder);
    until("it to be red when the feeder is gone", || own.page("/health").starts_with("HTTP/1.1 503 "));
}

#[test]
fn a_copy_that_was_overtaken_is_not_whole_until_it_has_caught_up() {
    let fed = Fed::new();
    let _sidecar = fed.feed();
    until("the copy", || fed.is("whole"));
    fed.wire.limit(SLOWLY);
    // How much is on its way before anything is lost depends on the system's buffers.
    until("the primary to lose changes", || {
        fed.write();
        fed.primary.connect().number("replication", "0:overtaken") > 0
    });
    // The word of it comes after all that; and to catch up takes some seconds more.
    fed.wire.limit(10 * SLOWLY);
    until("the standby to hear that changes were lost", || fed.is("overtaken"));
    assert_eq!(fed.number("copy_syncs"), 1);
    fed.wire.limit(0);
    until("what was lost to be sent again", || fed.is("whole"));
    assert_eq!((fed.number("copy_syncs"), fed.number("copy_syncs_ended")), (1, 1));
    until("it to hear up to where it has everything", || {
        fed.figure("copy_lsn") == fed.primary.connect().stat("replication", "lsn")
    });
}
