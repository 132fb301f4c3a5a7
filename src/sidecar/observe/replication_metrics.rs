//! The server's side of the copies as metrics: the rows of `stats replication`.
//!
//! ```text
//!   twincached_role{role=…}, twincached_copy_state{state=…}    1 for the one that it is, else 0
//!   twincached_replication_…                                   its journal, and replies that wait
//!   twincached_copy_…                                          the copy that it holds, when it is fed
//!   twincached_consumer_…{consumer="name"}                     who gets its changes: rows `<number>:<figure>`
//! ```
//!
//! Not here: what the sidecar itself knows of its peers (`metrics`).

use super::exposition::{Exposition, MetricKind, MetricKind::Counter, MetricKind::Gauge, seconds};
use super::server_stats::{number, value};
use crate::sidecar::server_socket::StatRows;

/// A family: its name, what it is, its help, and the row that it comes from. A row in milliseconds becomes seconds.
type Row = (&'static str, MetricKind, &'static str, &'static str);

#[rustfmt::skip]
const SERVER: &[Row] = &[
    ("twincached_epoch", Gauge, "Number of the ownership that the server knows of.", "epoch"),
    ("twincached_replication_journal_on", Gauge, "1 while changes are written to the journal.", "journal_on"),
    ("twincached_replication_lsn", Gauge, "Number of the server's last change.", "lsn"),
    ("twincached_replication_journal_first_lsn", Gauge, "The oldest change that the journal still has.", "journal_first_lsn"),
    ("twincached_replication_journal_bytes", Gauge, "Bytes that the journal holds.", "journal_bytes"),
    ("twincached_replication_journal_limit_bytes", Gauge, "Bytes that the journal may hold.", "journal_limit"),
    ("twincached_replication_full_syncs_started_total", Counter, "Full syncs that the server began to send.", "walks_started"),
    ("twincached_replication_full_syncs_finished_total", Counter, "Full syncs that consumers have confirmed.", "walks_finished"),
    ("twincached_replication_replicas_ack", Gauge, "Copies that must confirm a change before its reply is sent.", "replicas_ack"),
    ("twincached_replication_replicas_missing", Gauge, "Copies that must confirm and are not there; above 0, changes are refused.", "replicas_missing"),
    ("twincached_replication_degraded", Gauge, "1 while replies are sent without confirmation, because copies are missing.", "degraded"),
    ("twincached_replication_replies_waiting", Gauge, "Replies that wait for a copy to confirm.", "replies_waiting"),
    ("twincached_replication_replies_held_total", Counter, "Replies that have waited for a copy.", "replies_held"),
    ("twincached_replication_replies_timed_out_total", Counter, "Replies that became an error because no copy confirmed in time.", "replies_timed_out"),
    ("twincached_replication_replies_refused_total", Counter, "Replies that became an error because a copy refused the change.", "replies_refused"),
    ("twincached_replication_consumers", Gauge, "Consumers that get the server's changes.", "consumers"),
    ("twincached_copy_lsn", Gauge, "The last change of its feeder that the server's copy has.", "copy_lsn"),
    ("twincached_copy_silent_seconds", Gauge, "Seconds since the server's feeder has said something.", "copy_silent_ms"),
    ("twincached_copy_items", Gauge, "Items of the full sync that have come.", "copy_items"),
    ("twincached_copy_items_expected", Gauge, "Items that the full sync has in all.", "copy_items_expected"),
    ("twincached_copy_received_bytes", Gauge, "Bytes of the full sync that have come.", "copy_bytes"),
    ("twincached_copy_syncs_started_total", Counter, "Full syncs that have begun to come.", "copy_syncs"),
    ("twincached_copy_syncs_finished_total", Counter, "Full syncs that have come whole.", "copy_syncs_ended"),
];

#[rustfmt::skip]
const CONSUMER: &[Row] = &[
    ("twincached_consumer_read_lsn", Gauge, "The last change that was read for the consumer.", "read_lsn"),
    ("twincached_consumer_acked_lsn", Gauge, "The last change that the consumer has confirmed.", "acked_lsn"),
    ("twincached_consumer_lag_changes", Gauge, "Changes that the consumer has not confirmed.", "lag_lsn"),
    ("twincached_consumer_lag_bytes", Gauge, "Bytes of the journal that the consumer has not confirmed.", "lag_bytes"),
    ("twincached_consumer_lag_seconds", Gauge, "For how long the consumer has not had everything.", "lag_ms"),
    ("twincached_consumer_ranges_to_sync", Gauge, "Ranges of keys that are still to be sent in full.", "ranges_to_walk"),
    ("twincached_consumer_ranges_refused", Gauge, "Ranges of keys of which the consumer has refused something.", "ranges_refused"),
    ("twincached_consumer_full_syncs_started_total", Counter, "Full syncs begun for the consumer.", "walks_started"),
    ("twincached_consumer_full_syncs_finished_total", Counter, "Full syncs that the consumer has confirmed.", "walks_finished"),
    ("twincached_consumer_overtaken_total", Counter, "Times that the journal went past the consumer.", "overtaken"),
    ("twincached_consumer_changes_lost_total", Counter, "Changes that left the journal before the consumer had them; their keys are sent again.", "changes_lost"),
    ("twincached_consumer_refusals_total", Counter, "Changes that the consumer has refused.", "refusals"),
];

const ROLES: [&str; 5] = ["standalone", "waiting", "standby", "candidate", "primary"];
const COPIES: [&str; 4] = ["none", "partial", "whole", "overtaken"];
const CONSUMER_STATES: [&str; 3] = ["walking", "streaming", "overtaken"];

/// Adds what the rows say.
pub(super) fn add(rows: &StatRows, text: &mut Exposition) {
    if let Some(role) = value(rows, "role") {
        text.family("twincached_role", Gauge, "1 for the role that the server has, else 0.");
        ROLES.iter().for_each(|one| text.sample(&[("role", one)], u8::from(*one == role)));
    }
    if let Some(copy) = value(rows, "copy") {
        text.family("twincached_copy_state", Gauge, "1 for what the server's copy is, else 0.");
        COPIES.iter().for_each(|one| text.sample(&[("state", one)], u8::from(*one == copy)));
    }
    if let Some(run) = value(rows, "run_id") {
        text.family("twincached_run_info", Gauge, "Always 1; the label names this start of the server.");
        text.sample(&[("run_id", run)], 1);
    }
    for (name, kind, help, row) in SERVER {
        if let Some(sample) = sample(rows, row) {
            text.single(name, *kind, help, sample);
        }
    }
    add_consumers(rows, text);
}

fn add_consumers(rows: &StatRows, text: &mut Exposition) {
    let named = |number: u32| value(rows, &format!("{number}:name")).map(|name| (number, name));
    let names: Vec<(u32, &str)> = (0..).map_while(named).collect();
    text.family("twincached_consumer_state", Gauge, "1 for the state that the consumer is in, else 0.");
    for (number, name) in &names {
        let is = value(rows, &format!("{number}:state")).unwrap_or_default();
        for state in CONSUMER_STATES {
            text.sample(&[("consumer", name), ("state", state)], u8::from(state == is));
        }
    }
    for (family, kind, help, row) in CONSUMER {
        text.family(family, *kind, help);
        for (number, name) in &names {
            if let Some(sample) = sample(rows, &format!("{number}:{row}")) {
                text.sample(&[("consumer", name)], sample);
            }
        }
    }
}

/// The number of a row; one of milliseconds in seconds.
fn sample(rows: &StatRows, row: &str) -> Option<String> {
    let number = number(rows, row)?;
    Some(if row.ends_with("_ms") { seconds(i64::try_from(number).unwrap_or(i64::MAX)) } else { number.to_string() })
}
