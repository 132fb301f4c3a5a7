//! The links of a shard's owner: one to each of the other nodes, as long as this one owns the shard.
//!
//! ```text
//!   owner in this epoch, nodes with their addresses ──> follow ──> a link for each, with the shard's key
//!   another epoch, another address, not the owner    ──>          the link is stopped
//! ```
//!
//! Not here: the streams themselves (`link`), who is in sync (`members`).

use super::members::Peer;
use crate::cluster::record::{NodeRecord, PeerRecord};
use crate::sidecar::link::{FeederKey, Link, LinkTarget, LinkThread, PeerFigures};
use crate::sidecar::observe::figures::NamedFigures;
use crate::sidecar::options::Options;
use crate::sync::lock;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A link to a node.
struct Feed {
    figures: Arc<PeerFigures>,
    key: FeederKey,
    thread: LinkThread,
}

/// The figures of the links that run, for the pages.
pub(in crate::sidecar) type SharedPeers = Arc<Mutex<Vec<Arc<PeerFigures>>>>;

/// See the module's head.
pub(super) struct Feeds {
    options: Options,
    feeds: BTreeMap<String, Feed>,
    shown: SharedPeers,
}

impl Feeds {
    /// None yet; those that run are always found in `shown`, too.
    pub(super) fn new(options: &Options, shown: SharedPeers) -> Feeds {
        Feeds { options: options.clone(), feeds: BTreeMap::new(), shown }
    }

    /// Starts and stops links, so that all these nodes are fed with this key; None: nobody is.
    pub(super) fn follow(&mut self, key: Option<&FeederKey>, nodes: &BTreeMap<String, NodeRecord>, me: &str) {
        let is_right = |name: &String, feed: &mut Feed| {
            let address = nodes.get(name).map(|record| record.advertise.as_str());
            Some(&feed.key) == key && address == Some(&feed.figures.address)
        };
        let before = self.feeds.len();
        self.feeds.retain(|name, feed| {
            let is_right = is_right(name, feed);
            if !is_right {
                feed.thread.stop();
            }
            is_right
        });
        let mut has_changed = before != self.feeds.len();
        for (name, record) in key.iter().flat_map(|_| nodes) {
            let (Some(key), false) = (key, self.feeds.contains_key(name) || name == me) else { continue };
            match self.start(name, &record.advertise, key) {
                Ok(feed) => {
                    self.feeds.insert(name.clone(), feed);
                    has_changed = true;
                }
                Err(error) => log::error!("cannot feed {name}: {error}"),
            }
        }
        if has_changed {
            *lock(&self.shown) = self.feeds.values().map(|feed| Arc::clone(&feed.figures)).collect();
        }
    }

    fn start(&self, name: &str, address: &str, key: &FeederKey) -> std::io::Result<Feed> {
        let figures = Arc::new(PeerFigures::new(name, address));
        let target = LinkTarget { figures: Arc::clone(&figures), key: Some(key.clone()) };
        let thread = LinkThread::start(Link::new(&self.options, target)?)?;
        Ok(Feed { figures, key: key.clone(), thread })
    }

    /// The nodes that are fed, as members or those that may become members. A node that has not had everything for
    /// longer than `max_lag` is late.
    pub(super) fn peers(&self, max_lag: Duration) -> Vec<Peer> {
        self.figures()
            .into_iter()
            .map(|(node, figures)| Peer {
                node,
                is_streaming: figures.phase.is_streaming(),
                is_late: figures.lag.is_none_or(|lag| lag > max_lag),
                confirmed: figures.confirmed,
                lacks: figures.lacking != Some(0),
                run: figures.identity,
            })
            .collect()
    }

    /// The same for people.
    pub(super) fn records(&self) -> Vec<PeerRecord> {
        self.figures()
            .into_iter()
            .map(|(node, figures)| PeerRecord {
                node,
                state: figures.phase.name().to_owned(),
                lag_ms: figures.lag.map_or(u64::MAX, |lag| lag.as_millis() as u64),
                lag_bytes: figures.bytes_in_flight,
                sync_percent: figures.is_syncing().then(|| figures.sync.percent()),
            })
            .collect()
    }

    fn figures(&self) -> Vec<NamedFigures> {
        self.feeds.iter().map(|(name, feed)| (name.clone(), feed.figures.figures())).collect()
    }
}
