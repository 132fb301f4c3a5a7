//! The text of `/metrics`.
//!
//! ```text
//!   twincache_sidecar_…{peer="host:port"}      what this process knows
//!   twincached_replication_…                   the figures of `stats replication` of the server
//!   twincached_replication_consumer_…{consumer="name"}   the rows of one consumer there: `<number>:<figure>`
//! ```
//!
//! The format is Prometheus's text, version 0.0.4: HELP and TYPE once per name, then all its samples.

use super::figures::{Figures, NamedFigures, PeerPhase};
use std::collections::BTreeMap;
use std::fmt::Write;

/// The media type of `/metrics`.
pub(crate) const MEDIA: &str = "text/plain; version=0.0.4; charset=utf-8";

struct Metric {
    name: &'static str,
    kind: &'static str,
    help: &'static str,
    value: fn(&Figures) -> Option<i64>,
}

const fn gauge(name: &'static str, help: &'static str, value: fn(&Figures) -> Option<i64>) -> Metric {
    Metric { name, kind: "gauge", help, value }
}

const fn counter(name: &'static str, help: &'static str, value: fn(&Figures) -> Option<i64>) -> Metric {
    Metric { name, kind: "counter", help, value }
}

fn count(number: u64) -> Option<i64> {
    Some(i64::try_from(number).unwrap_or(i64::MAX))
}

/// A number that means something only while there is a stream.
fn now(figures: &Figures, number: u64) -> Option<i64> {
    if matches!(figures.phase, PeerPhase::Attached(_)) { count(number) } else { None }
}

#[rustfmt::skip]
const METRICS: &[Metric] = &[
    gauge("lag_lsn", "Changes of the server that the peer has not confirmed; absent without a stream.", |f| now(f, f.head.saturating_sub(f.confirmed))),
    gauge("in_flight_bytes", "Bytes read from the server that the peer has not confirmed; absent without a stream.", |f| now(f, f.bytes_in_flight)),
    gauge("lag_ms", "For how long the peer has not had everything, in milliseconds; absent when it never had.", |f| count(f.lag?.as_millis() as u64)),
    gauge("server_lsn", "The server's last lsn that is known; absent without a stream.", |f| now(f, f.head)),
    gauge("confirmed_lsn", "The last lsn that the peer confirmed; absent without a stream.", |f| now(f, f.confirmed)),
    counter("streams_total", "Streams begun.", |f| count(f.attached)),
    counter("streams_continued_total", "Streams that went on where the last had ended.", |f| count(f.continued)),
    counter("walks_started_total", "Full syncs begun.", |f| count(f.walks_started)),
    counter("walks_finished_total", "Full syncs confirmed by the peer.", |f| count(f.walks_finished)),
    gauge("sync_items", "Items that the full sync has sent, which goes on or was the last.", |f| count(f.sync.items)),
    gauge("sync_items_expected", "Items that there were when it began.", |f| count(f.sync.expected)),
    gauge("sync_bytes", "Bytes that it has sent, of items and changes.", |f| count(f.sync.bytes)),
    gauge("sync_ms", "For how many milliseconds it has gone on, or how long it took.", |f| count(f.sync.took.as_millis() as u64)),
    gauge("peer_feeds", "1 when the peer feeds the server, and so is not fed.", |f| Some(f.is_upstream.into())),
    counter("overtaken_total", "Times that the journal went past the peer.", |f| count(f.overtaken)),
    counter("batches_total", "Batches read from the server.", |f| count(f.batches)),
    counter("barriers_total", "Barriers that the peer answered.", |f| count(f.barriers)),
    counter("received_bytes_total", "Bytes of changes read from the server.", |f| count(f.body_bytes)),
    counter("sent_bytes_total", "Bytes written to the peer.", |f| count(f.sent_bytes)),
    counter("peer_errors_total", "Changes that the peer answered with an error.", |f| count(f.errors)),
    gauge("refused_ranges", "Ranges of keys of which the peer has refused something and lacks it still.", |f| Some(f.lacking.unwrap_or(0) as i64)),
    counter("breaks_total", "Times that a connection broke or could not be made.", |f| count(f.breaks)),
    counter("refusals_total", "Times that the server or the peer refused.", |f| count(f.refusals)),
    gauge("peer_guarded", "1 while the peer is left alone, because it holds more than the server.", |f| {
        Some(f.is_guarded.into())
    }),
    gauge("clock_offset_ms", "The peer's wall clock minus this machine's, in milliseconds.", |f| f.clock.map(|bounds| bounds.middle())),
    gauge("clock_is_off", "1 when the peer's wall clock is off by more than is allowed.", |f| Some(f.clock_is_off.into())),
    gauge("server_clock_offset_ms", "The server's wall clock minus this machine's, in milliseconds.", |f| f.server_clock.map(|bounds| bounds.middle())),
    gauge("server_clock_is_off", "1 when the server's wall clock is off by more than is allowed.", |f| Some(f.server_clock_is_off.into())),
    counter("clock_jumps_total", "Times that the time by which the peer takes expiries has jumped.", |f| count(f.clock_jumps)),
];

/// The text of `/metrics`; `server` is what `stats replication` says, or why it could not be asked.
pub(crate) fn metrics(peers: &[NamedFigures], server: &Result<Vec<(String, String)>, String>) -> String {
    let mut text = String::with_capacity(8 << 10);
    head(&mut text, "twincache_sidecar_peer_state", "gauge", "1 for the state that the peer is in, else 0.");
    for (name, figures) in peers {
        for phase in PeerPhase::ALL {
            let is_it = u8::from(figures.phase == phase);
            let labels = format!("peer=\"{}\",state=\"{}\"", escaped(name), phase.name());
            let _ = writeln!(text, "twincache_sidecar_peer_state{{{labels}}} {is_it}");
        }
    }
    head(&mut text, "twincache_sidecar_peer_info", "gauge", "What the peer is.");
    for (name, figures) in peers {
        let (name, kind) = (escaped(name), escaped(&figures.kind));
        let _ = writeln!(text, "twincache_sidecar_peer_info{{peer=\"{name}\",kind=\"{kind}\"}} 1");
    }
    for metric in METRICS {
        let family = format!("twincache_sidecar_{}", metric.name);
        head(&mut text, &family, metric.kind, metric.help);
        for (name, figures) in peers {
            if let Some(value) = (metric.value)(figures) {
                let _ = writeln!(text, "{family}{{peer=\"{}\"}} {value}", escaped(name));
            }
        }
    }
    head(&mut text, "twincached_up", "gauge", "1 when the server's control socket answers.");
    let _ = writeln!(text, "twincached_up {}", u8::from(server.is_ok()));
    add_server(&mut text, server.as_deref().unwrap_or_default());
    text
}

/// Adds the server's own figures, whichever it has: numbers become gauges, words become labels.
fn add_server(text: &mut String, stats: &[(String, String)]) {
    let mut families: BTreeMap<String, Vec<(String, &str)>> = BTreeMap::new();
    for (name, value) in stats {
        let (mut labels, mut family) = (Vec::new(), format!("twincached_replication_{}", sanitized(name)));
        if let Some((number, figure)) = name.split_once(':') {
            if figure == "name" {
                continue;
            }
            let consumer = stats.iter().find(|(name, _)| name.strip_prefix(number) == Some(":name"));
            labels.push(format!("consumer=\"{}\"", escaped(consumer.map_or(number, |(_, name)| name))));
            family = format!("twincached_replication_consumer_{}", sanitized(figure));
        }
        let mut sample = value.as_str();
        if !is_number(value) {
            family.push_str("_info");
            labels.push(format!("value=\"{}\"", escaped(value)));
            sample = "1";
        }
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        families.entry(family).or_default().push((labels, sample));
    }
    for (family, samples) in families {
        head(text, &family, "gauge", "From `stats replication` of the server.");
        for (labels, value) in samples {
            let _ = writeln!(text, "{family}{labels} {value}");
        }
    }
}

/// Whether this is certainly a number: sixteen digits may be a run id.
fn is_number(text: &str) -> bool {
    text.len() != 16 && text.parse::<i64>().is_ok()
}

fn head(text: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn sanitized(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect()
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sidecar::observe::figures::Stage;
    use std::collections::BTreeSet;
    use std::time::Duration;

    fn streaming() -> Figures {
        let (phase, lag) = (PeerPhase::Attached(Stage::Clean), Some(Duration::ZERO));
        Figures { phase, lag, head: 9, confirmed: 7, kind: "twincached".into(), ..Figures::default() }
    }

    /// Checks the form: HELP and TYPE before the samples of a name, no name and no sample twice.
    fn check(text: &str) {
        let (mut families, mut samples, mut family) = (BTreeSet::new(), BTreeSet::new(), "");
        let mut lines = text.lines();
        while let Some(line) = lines.next() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                family = rest.split_once(' ').expect("a help text").0;
                assert!(families.insert(family), "{family} twice");
                let kind = lines.next().and_then(|line| line.strip_prefix(&format!("# TYPE {family} ")));
                assert!(matches!(kind, Some("gauge" | "counter")), "{family}: {kind:?}");
                assert!(family.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_'), "{family}");
                continue;
            }
            let (series, value) = line.rsplit_once(' ').expect("a value");
            let name = series.split('{').next().unwrap();
            assert!(name == family && value.parse::<f64>().is_ok() && samples.insert(series), "{line}");
            assert!(series == name || (series.ends_with("\"}") && series.contains("=\"")), "{line}");
        }
    }

    #[test]
    fn the_format_is_prometheus() {
        let peers = [("a:1".to_owned(), streaming()), ("b\"\\:2".to_owned(), Figures::default())];
        let stats = [
            ("run_id", "0011223344556677"),
            ("lsn", "12"),
            ("0:name", "a:1"),
            ("0:lag_bytes", "5"),
            ("1:name", "b:2"),
            ("1:lag_bytes", "6"),
            ("1:state", "walking"),
        ];
        let stats = stats.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        let text = metrics(&peers, &Ok(stats));
        check(&text);
        for line in [
            "twincache_sidecar_lag_lsn{peer=\"a:1\"} 2\n",
            "twincache_sidecar_peer_state{peer=\"a:1\",state=\"streaming\"} 1\n",
            "twincache_sidecar_peer_info{peer=\"b\\\"\\\\:2\",kind=\"\"} 1\n",
            "twincached_up 1\n",
            "twincached_replication_lsn 12\n",
            "twincached_replication_consumer_lag_bytes{consumer=\"b:2\"} 6\n",
            "twincached_replication_consumer_state_info{consumer=\"b:2\",value=\"walking\"} 1\n",
            "twincached_replication_run_id_info{value=\"0011223344556677\"} 1\n",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
        let text = metrics(&peers, &Err("no".into()));
        check(&text);
        assert!(text.contains("twincached_up 0\n"));
    }
}
