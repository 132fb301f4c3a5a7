//! Addresses of endpoints, looked up without making a call wait that has a connection.
//!
//! ```text
//!   an address in the URL ──────────────────────────> that
//!   a name, never found ──> a thread looks it up, the call waits for it until its deadline
//!   a name, found before ─> what was found; older than FRESH: a thread looks it up for the next call
//! ```
//!
//! ureq asks for the addresses before it takes a connection that is open, so a name server that hangs would end
//! renewals that do not need it.
//!
//! Invariant: at most one thread looks up a name.

use crate::sync::{lock, sound};
use std::collections::HashMap;
use std::fmt;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};
use ureq::Error;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

/// How long what was found is not looked up again. A name that moves is found where it is after its old address has
/// failed once.
const FRESH: Duration = Duration::from_secs(10);

/// Most addresses of a name that are tried.
const ADDRESSES_MAX: usize = 8;

/// What looks up a host and a port.
type Lookup = fn(&str) -> Vec<SocketAddr>;

/// The names of the endpoints, and what was found.
pub(super) struct Names {
    shared: Arc<SharedNames>,
    lookup: Lookup,
}

#[derive(Default)]
struct SharedNames {
    known: Mutex<HashMap<String, KnownName>>,
    /// A lookup has ended.
    ended: Condvar,
}

/// One host and port.
#[derive(Clone, Default)]
struct KnownName {
    /// What was found last; empty until something was.
    addresses: Vec<SocketAddr>,
    /// When it was looked up last.
    at: Option<Instant>,
    is_looking: bool,
}

impl Names {
    pub(super) fn new() -> Names {
        Names::with(|name| name.to_socket_addrs().map(|found| found.take(ADDRESSES_MAX).collect()).unwrap_or_default())
    }

    fn with(lookup: Lookup) -> Names {
        Names { shared: Arc::default(), lookup }
    }

    /// The addresses of `host:port`, waiting only if none are known; empty: there is no such name; None: the time is
    /// over.
    fn find(&self, name: &str, patience: Duration) -> Option<Vec<SocketAddr>> {
        let end = Instant::now().checked_add(patience);
        let mut known = lock(&self.shared.known);
        if !known.contains_key(name) {
            known.insert(name.to_owned(), KnownName::default());
        }
        let entry = known.get_mut(name)?;
        let is_fresh = !entry.addresses.is_empty() && entry.at.is_some_and(|at| at.elapsed() < FRESH);
        if !is_fresh && !entry.is_looking {
            entry.is_looking = true;
            self.look_up(name);
        }
        loop {
            let entry = known.get(name)?;
            if !entry.addresses.is_empty() || !entry.is_looking {
                return Some(entry.addresses.clone());
            }
            let left = end.map_or(FRESH, |end| end.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                return None;
            }
            known = sound(self.shared.ended.wait_timeout(known, left)).0;
        }
    }

    fn look_up(&self, name: &str) {
        let (shared, lookup, name) = (Arc::clone(&self.shared), self.lookup, name.to_owned());
        std::thread::spawn(move || {
            let found = lookup(&name);
            let mut known = lock(&shared.known);
            let entry = known.entry(name).or_default();
            entry.is_looking = false;
            entry.at = Some(Instant::now());
            // A name that is not found now keeps its addresses: they may be right.
            if !found.is_empty() {
                entry.addresses = found;
            }
            shared.ended.notify_all();
        });
    }
}

impl Resolver for Names {
    fn resolve(&self, uri: &Uri, _: &Config, timeout: NextTimeout) -> Result<ResolvedSocketAddrs, Error> {
        // Each endpoint has its port in its URL.
        let name = uri.authority().ok_or(Error::HostNotFound)?.as_str();
        let found = match name.parse() {
            Ok(address) => vec![address],
            Err(_) => self.find(name, *timeout.after).ok_or(Error::Timeout(timeout.reason))?,
        };
        let mut addresses = self.empty();
        found.into_iter().for_each(|address| addresses.push(address));
        if addresses.is_empty() { Err(Error::HostNotFound) } else { Ok(addresses) }
    }
}

impl fmt::Debug for Names {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Names")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    fn address() -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], 2379))
    }

    /// Makes what is known of a name old.
    fn age(names: &Names, name: &str) {
        lock(&names.shared.known).get_mut(name).unwrap().at = None;
    }

    #[test]
    fn what_was_found_is_not_waited_for_again() {
        // The second lookup never ends while the test runs.
        static LOOKUPS: Mutex<u32> = Mutex::new(0);
        let names = Names::with(|_| {
            let number = std::mem::replace(&mut *lock(&LOOKUPS), 1);
            if number > 0 {
                std::thread::sleep(LONG);
            }
            vec![address()]
        });
        assert_eq!(names.find("etcd:2379", LONG), Some(vec![address()]));
        age(&names, "etcd:2379");
        for _ in 0..3 {
            assert_eq!(names.find("etcd:2379", Duration::ZERO), Some(vec![address()]));
        }
        assert_eq!(names.find("other:2379", Duration::from_millis(10)), None, "the time is over");
    }

    #[test]
    fn a_name_that_is_gone_keeps_its_addresses() {
        let mut names = Names::with(|_| vec![address()]);
        assert_eq!(names.find("etcd:2379", LONG), Some(vec![address()]));
        names.lookup = |_| Vec::new();
        age(&names, "etcd:2379");
        assert_eq!(names.find("etcd:2379", LONG), Some(vec![address()]));
        assert_eq!(names.find("none:2379", LONG), Some(Vec::new()), "there is no such name");
    }

    #[test]
    fn an_address_is_its_own() {
        let names = Names::with(|name| panic!("{name} is an address"));
        for (url, expected) in [("http://10.0.0.1:2379/v3", "10.0.0.1:2379"), ("https://[::1]:5/v3", "[::1]:5")] {
            let found = names.resolve(&url.parse().unwrap(), &Config::default(), NextTimeout::default()).unwrap();
            assert_eq!(found[..], [expected.parse().unwrap()]);
        }
    }
}
