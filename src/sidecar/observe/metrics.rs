//! The text of `/metrics`.
//!
//! ```text
//!   memcached_…                                    the server, as the memcached exporter tells it (`server_metrics`)
//!   twincached_…                                   the server, beside that (`server_metrics`, `replication_metrics`)
//!   twincache_sidecar_…{peer="host:port"}          the copies that this process makes
//!   twincache_shard_…{shard,node}                  the shard, as this node's lease knows it
//!   twincache_certificate_…{file}                  the certificates that both use
//!   twincache_build_info, process_…, twincached_process_…   the two programs
//! ```
//!
//! Names follow Prometheus's rules: seconds and bytes, `_total` on what only goes up, one label for one thing. Those of
//! the exporter are kept letter for letter.
//!
//! Not here: how the text is written (`exposition`).

use super::exposition::{Exposition, MetricKind, MetricKind::Counter, MetricKind::Gauge, seconds};
use super::figures::{Figures, NamedFigures, PeerPhase};
use super::server_stats::{ServerStats, number, value};
use super::{process, replication_metrics, server_metrics};
use crate::sidecar::observe::lease_status::LeaseStatus;
use crate::tls::certificate_end;
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::time::Duration;

/// The media type of `/metrics`.
pub(crate) const MEDIA: &str = super::exposition::MEDIA;

/// A number as it is written.
type Shown = Cow<'static, str>;

/// A family with a sample for each peer.
struct PeerFamily {
    name: &'static str,
    kind: MetricKind,
    help: &'static str,
    value: fn(&Figures) -> Option<Shown>,
}

const fn of(
    name: &'static str,
    kind: MetricKind,
    help: &'static str,
    value: fn(&Figures) -> Option<Shown>,
) -> PeerFamily {
    PeerFamily { name, kind, help, value }
}

fn count(number: u64) -> Option<Shown> {
    Some(number.to_string().into())
}

fn flag(is_it: bool) -> Option<Shown> {
    Some(if is_it { "1" } else { "0" }.into())
}

fn ms(ms: i64) -> Option<Shown> {
    Some(seconds(ms).into())
}

fn time(duration: Duration) -> Option<Shown> {
    ms(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX))
}

/// A number that means something only while there is a stream.
fn now(figures: &Figures, number: u64) -> Option<Shown> {
    if matches!(figures.phase, PeerPhase::Attached(_)) { count(number) } else { None }
}

#[rustfmt::skip]
const PEERS: &[PeerFamily] = &[
    of("lag_changes", Gauge, "Changes of the server that the peer has not confirmed; absent without a stream.", |f| now(f, f.head.saturating_sub(f.confirmed))),
    of("in_flight_bytes", Gauge, "Bytes read from the server that the peer has not confirmed; absent without a stream.", |f| now(f, f.bytes_in_flight)),
    of("lag_seconds", Gauge, "For how long the peer has not had everything; absent when it never had.", |f| time(f.lag?)),
    of("server_lsn", Gauge, "The server's last lsn that is known; absent without a stream.", |f| now(f, f.head)),
    of("confirmed_lsn", Gauge, "The last lsn that the peer confirmed; absent without a stream.", |f| now(f, f.confirmed)),
    of("streams_total", Counter, "Streams begun.", |f| count(f.attached)),
    of("streams_continued_total", Counter, "Streams that went on where the last had ended.", |f| count(f.continued)),
    of("full_syncs_started_total", Counter, "Full syncs begun.", |f| count(f.walks_started)),
    of("full_syncs_finished_total", Counter, "Full syncs confirmed by the peer.", |f| count(f.walks_finished)),
    of("sync_items", Gauge, "Items that the full sync has sent, which goes on or was the last.", |f| count(f.sync.items)),
    of("sync_items_expected", Gauge, "Items that there were when it began.", |f| count(f.sync.expected)),
    of("sync_bytes", Gauge, "Bytes that it has sent, of items and changes.", |f| count(f.sync.bytes)),
    of("sync_seconds", Gauge, "For how long it has gone on, or how long it took.", |f| time(f.sync.took)),
    of("peer_feeds", Gauge, "1 when the peer feeds the server, and so is not fed.", |f| flag(f.is_upstream)),
    of("overtaken_total", Counter, "Times that the journal went past the peer.", |f| count(f.overtaken)),
    of("batches_total", Counter, "Batches read from the server.", |f| count(f.batches)),
    of("barriers_total", Counter, "Barriers that the peer answered.", |f| count(f.barriers)),
    of("received_bytes_total", Counter, "Bytes of changes read from the server.", |f| count(f.body_bytes)),
    of("sent_bytes_total", Counter, "Bytes written to the peer.", |f| count(f.sent_bytes)),
    of("peer_errors_total", Counter, "Changes that the peer answered with an error.", |f| count(f.errors)),
    of("refused_ranges", Gauge, "Ranges of keys of which the peer has refused something and lacks it still.", |f| count(f.lacking.unwrap_or(0))),
    of("breaks_total", Counter, "Times that a connection broke or could not be made.", |f| count(f.breaks)),
    of("refusals_total", Counter, "Times that the server or the peer refused.", |f| count(f.refusals)),
    of("peer_guarded", Gauge, "1 while the peer is left alone, because it holds more than the server.", |f| flag(f.is_guarded)),
    of("clock_offset_seconds", Gauge, "The peer's wall clock minus this machine's.", |f| ms(f.clock?.middle())),
    of("clock_is_off", Gauge, "1 when the peer's wall clock is off by more than is allowed.", |f| flag(f.clock_is_off)),
    of("server_clock_offset_seconds", Gauge, "The server's wall clock minus this machine's.", |f| ms(f.server_clock?.middle())),
    of("server_clock_is_off", Gauge, "1 when the server's wall clock is off by more than is allowed.", |f| flag(f.server_clock_is_off)),
    of("clock_jumps_total", Counter, "Times that the time by which the peer takes expiries has jumped.", |f| count(f.clock_jumps)),
];

/// The text of `/metrics`; `server` is what the server says of itself, or why it could not be asked.
pub(crate) fn metrics(
    peers: &[NamedFigures],
    lease: Option<&LeaseStatus>,
    server: &Result<ServerStats, String>,
    (certificates, shows_keys): (&[String], bool),
) -> String {
    let mut text = Exposition::default();
    text.family("twincache_build_info", Gauge, "Always 1; the label is the sidecar's version.");
    text.sample(&[("version", env!("CARGO_PKG_VERSION"))], 1);
    text.single("twincached_up", Gauge, "1 when the server's control socket answers.", u8::from(server.is_ok()));
    server_metrics::add(server, &mut text);
    if let Ok(stats) = server {
        server_metrics::add_hot_keys(&stats.hot_keys, shows_keys, &mut text);
        replication_metrics::add(&stats.replication, &mut text);
        if let Some(pid) = number(&stats.general, "pid") {
            process::add(&pid.to_string(), "twincached_process", &mut text);
        }
    }
    add_peers(peers, &mut text);
    lease.iter().for_each(|lease| add_lease(lease, &mut text));
    add_certificates(certificates, server.as_ref().ok(), &mut text);
    process::add("self", "process", &mut text);
    text.into_text()
}

/// The certificates of the sidecar and that of the server. One that this process may not read is left out.
fn add_certificates(own: &[String], server: Option<&ServerStats>, text: &mut Exposition) {
    let chain = server.and_then(|stats| value(&stats.settings, "ssl_chain_cert"));
    let files: BTreeSet<&str> = own.iter().map(String::as_str).chain(chain).collect();
    text.family(
        "twincache_certificate_end_time_seconds",
        Gauge,
        "When the first certificate in the file ends, in Unix seconds.",
    );
    for file in files {
        if let Some(end) = certificate_end(file) {
            text.sample(&[("file", file)], end);
        }
    }
}

fn add_peers(peers: &[NamedFigures], text: &mut Exposition) {
    text.family("twincache_sidecar_peer_state", Gauge, "1 for the state that the peer is in, else 0.");
    for (name, figures) in peers {
        for phase in PeerPhase::ALL {
            text.sample(&[("peer", name), ("state", phase.name())], u8::from(figures.phase == phase));
        }
    }
    text.family("twincache_sidecar_peer_info", Gauge, "Always 1; the label is what the peer is.");
    for (name, figures) in peers {
        text.sample(&[("peer", name), ("kind", &figures.kind)], 1);
    }
    for family in PEERS {
        text.family(&format!("twincache_sidecar_{}", family.name), family.kind, family.help);
        for (name, figures) in peers {
            if let Some(value) = (family.value)(figures) {
                text.sample(&[("peer", name)], value);
            }
        }
    }
}

fn add_lease(lease: &LeaseStatus, text: &mut Exposition) {
    let LeaseStatus { shard, node, epoch, owner, members, is_member, .. } = lease;
    let mut add = |name: &str, help: &str, value: Option<Shown>| {
        let Some(value) = value else { return };
        text.family(&format!("twincache_shard_{name}"), Gauge, help);
        text.sample(&[("shard", shard), ("node", node)], value);
    };
    add("primary", "1 while this node's server may answer clients.", flag(lease.is_primary().0));
    add(
        "in_sync",
        "1 while this node is the owner, or may take over.",
        flag(*is_member || (!owner.is_empty() && owner == node)),
    );
    add("has_owner", "1 while a node owns the shard, as far as etcd has told.", flag(!owner.is_empty()));
    add("etcd_up", "1 while etcd answers this node; without it nobody takes over.", flag(lease.no_etcd.is_none()));
    add("epoch", "Number of the ownership; each takeover adds one or more.", count(*epoch));
    // The owner is not among those that may take over from it.
    let others = members.iter().filter(|member| *member != owner).count();
    add("members", "Nodes that are in sync, with the owner.", count((others + usize::from(!owner.is_empty())) as u64));
    add("lag_seconds", "How far this node is behind its owner, as that says.", lease.lag_now().and_then(time));
}

#[cfg(test)]
#[path = "tests/metrics.rs"]
mod tests;
