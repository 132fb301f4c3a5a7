//! A server inside the test's own process, whose insides the test sees and moves.

use super::{Conn, until};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use twincache::clock::Clock;
use twincache::command::Shared;
use twincache::config::{AddressRange, Config, ListenAddr};
use twincache::net::{Server, StartError};
use twincache::store::Store;

/// A server and what it shares; the server is dropped, and so stopped, first.
pub struct Running {
    pub server: Server,
    pub shared: Arc<Shared>,
}

impl Running {
    /// Two workers, 64 MiB and a free port of 127.0.0.1, unless this changes it.
    pub fn start(change: impl FnOnce(&mut Config)) -> Running {
        Running::try_start(change).expect("the server starts")
    }

    /// As [`Running::start`]; that it cannot is an answer.
    pub fn try_start(change: impl FnOnce(&mut Config)) -> Result<Running, StartError> {
        let listen = vec![address("127.0.0.1", None)];
        let standby = vec![AddressRange::ALL];
        let mut config = Config { tcp_port: None, listen, threads: 2, standby, ..Config::default() };
        config.store.memory_limit = 64 << 20;
        change(&mut config);
        let clock = Arc::new(Clock::new());
        let store = Store::new(config.store.clone(), clock.clone()).expect("a store");
        let shared = Arc::new(Shared::new(config, clock, store));
        let server = Server::start(shared.clone())?;
        Ok(Running { server, shared })
    }

    pub fn address(&self) -> SocketAddr {
        self.server.addresses()[0]
    }

    pub fn connect(&self) -> Conn {
        Conn::to(self.address())
    }

    /// Waits until this many connections are open, listening ones included.
    pub fn await_open(&self, wanted: u64) {
        let open = || self.shared.stats.curr_conns.load(Ordering::Relaxed);
        until("the count of open connections", || open() == wanted);
    }
}

/// Where to listen.
pub fn address(host: &str, port: Option<u16>) -> ListenAddr {
    ListenAddr { host: host.into(), port, binding: None, tls: None }
}
