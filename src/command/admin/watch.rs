//! What the store did without a client asking, and which keys are hot, as `watch` lines.
//!
//! Not here: which thread asks, and what becomes of the lines (`watch.rs`).

use super::insight;
use crate::clock::Clock;
use crate::stats::hot_keys::HotKeysMaker;
use crate::store::{Event, EventMask, Store};
use crate::watch::{LineSource, Streams, Uri};
use std::sync::Arc;

/// Lines of `hotkeys`, once a second.
pub struct HotKeysLines {
    hot_keys: Arc<HotKeysMaker>,
    clock: Arc<Clock>,
    /// The second of the last ones.
    told: u32,
}

impl HotKeysLines {
    /// Of these keys, by this clock.
    pub fn new(hot_keys: Arc<HotKeysMaker>, clock: Arc<Clock>) -> HotKeysLines {
        HotKeysLines { hot_keys, clock, told: 0 }
    }

    fn next(&mut self, store: &Store) -> Vec<(Streams, String)> {
        let now = self.clock.now();
        if std::mem::replace(&mut self.told, now) == now {
            return Vec::new();
        }
        insight::lines(&self.hot_keys.make(now), store)
    }
}

/// Lines of `evictions` and `sysevents`, taken from `store`, and of `hotkeys`.
pub fn source(store: Arc<Store>, mut hot_keys: HotKeysLines) -> LineSource {
    let mut mask = EventMask::default();
    Box::new(move |streams| {
        let wanted = EventMask {
            evictions: streams.intersects(Streams::EVICTIONS),
            system: streams.intersects(Streams::SYSEVENTS),
        };
        let kept = if mask == EventMask::default() { Vec::new() } else { store.take_events() };
        if mask != wanted {
            store.keep_events(wanted);
            mask = wanted;
        }
        let mut lines: Vec<_> = kept.iter().map(line).collect();
        if streams.intersects(Streams::HOTKEYS) {
            lines.extend(hot_keys.next(&store));
        }
        lines
    })
}

fn line(event: &Event) -> (Streams, String) {
    match event {
        Event::Evict { key, fetched, ttl, last_access_age, class, size } => {
            let (key, fetched) = (Uri(key), if *fetched { "yes" } else { "no" });
            let line = format!(
                "type=eviction key={key} fetch={fetched} ttl={ttl} la={last_access_age} clsid={class} size={size}"
            );
            (Streams::EVICTIONS, line)
        }
        Event::Crawled { .. } => (Streams::SYSEVENTS, crawled(event)),
        Event::SlabMove { src, dst, ok } => {
            let state = if *ok { "ok" } else { "fail" };
            (Streams::SYSEVENTS, format!("type=slab_move src={src} dst={dst} state={state}"))
        }
    }
}

fn crawled(event: &Event) -> String {
    let Event::Crawled { class, lru, low_mark, next_reclaims, since_run, next_run, elapsed, examined, reclaimed } =
        event
    else {
        unreachable!("only called for a crawl");
    };
    let lru = ["hot", "warm", "cold", "temp"].get(usize::from(*lru)).unwrap_or(&"cold");
    format!(
        "type=lru_crawler crawler={class} lru={lru} low_mark={low_mark} next_reclaims={next_reclaims} \
         since_run={since_run} next_run={next_run} elapsed={elapsed} examined={examined} reclaimed={reclaimed}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        let evict =
            Event::Evict { key: b"a b".into(), fetched: true, ttl: -1, last_access_age: 5, class: 3, size: 169 };
        assert_eq!(line(&evict).1, "type=eviction key=a%20b fetch=yes ttl=-1 la=5 clsid=3 size=169");
        let moved = Event::SlabMove { src: 1, dst: 0, ok: false };
        assert_eq!(line(&moved), (Streams::SYSEVENTS, "type=slab_move src=1 dst=0 state=fail".to_string()));
        let crawled = Event::Crawled {
            class: 1,
            lru: 0,
            low_mark: 1,
            next_reclaims: 0,
            since_run: 1,
            next_run: 65,
            elapsed: 0,
            examined: 0,
            reclaimed: 0,
        };
        let expected = "type=lru_crawler crawler=1 lru=hot low_mark=1 next_reclaims=0 since_run=1 next_run=65 \
                        elapsed=0 examined=0 reclaimed=0";
        assert_eq!(line(&crawled), (Streams::SYSEVENTS, expected.to_string()));
    }
}
