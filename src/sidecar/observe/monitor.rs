//! Looks at everything again and again, for the pages: one thread, and one question to the server a second at most,
//! however many look at the pages.
//!
//! Not here: what is kept of it (`history`), how it is shown (`page`, `metrics`).

use super::figures::NamedFigures;
use super::history::{History, STEP};
use super::server_stats::{ServerStats, number, value};
use crate::sidecar::observe::lease_status::LeaseStatus;
use crate::sync::lock;
use crate::sys::cpu::time_since_boot;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How often states are compared with those before.
const LOOK: Duration = Duration::from_secs(1);

/// What the server said is good for so long.
const FRESH: Duration = Duration::from_millis(900);

/// What the server says of itself, or why it could not be asked.
pub(crate) type ServerAnswer = Result<ServerStats, String>;

/// Where the figures come from.
pub(crate) struct Sources {
    /// The server's control socket.
    pub server: PathBuf,
    /// The copies that are made.
    pub figures: Box<dyn Fn() -> Vec<NamedFigures> + Send + Sync>,
    /// The lease, if there is one.
    pub lease: Box<dyn Fn() -> Option<LeaseStatus> + Send + Sync>,
    /// Files of the certificates that the sidecar uses.
    pub certificates: Vec<String>,
}

/// See the module's head.
pub(crate) struct Monitor {
    sources: Sources,
    history: Mutex<History>,
    /// What the server said last, and when.
    answer: Mutex<Option<(Duration, ServerAnswer)>>,
}

impl Monitor {
    /// Looks from now on.
    pub(crate) fn start(sources: Sources) -> std::io::Result<Arc<Monitor>> {
        let monitor = Arc::new(Monitor { sources, history: Mutex::default(), answer: Mutex::default() });
        let looks = Arc::clone(&monitor);
        std::thread::Builder::new().name("monitor".into()).spawn(move || looks.run())?;
        Ok(monitor)
    }

    /// What the server says of itself, a moment ago at most.
    pub(crate) fn server(&self) -> ServerAnswer {
        // Who comes meanwhile waits for the same answer.
        let mut answer = lock(&self.answer);
        if let Some((at, known)) = &*answer
            && time_since_boot().saturating_sub(*at) < FRESH
        {
            return known.clone();
        }
        let asked = ServerStats::ask(&self.sources.server);
        *answer = Some((time_since_boot(), asked.clone()));
        asked
    }

    /// The copies that are made.
    pub(crate) fn figures(&self) -> Vec<NamedFigures> {
        (self.sources.figures)()
    }

    /// The lease.
    pub(crate) fn lease(&self) -> Option<LeaseStatus> {
        (self.sources.lease)()
    }

    /// Files of the certificates that the sidecar uses.
    pub(super) fn certificates(&self) -> &[String] {
        &self.sources.certificates
    }

    pub(super) fn history(&self) -> MutexGuard<'_, History> {
        lock(&self.history)
    }

    fn run(&self) {
        let (mut states, mut due) = (BTreeMap::new(), time_since_boot());
        loop {
            let (server, figures) = (self.server(), self.figures());
            self.tell_changes(&mut states, self.states(&server, &figures));
            let now = time_since_boot();
            if now >= due {
                due = now + STEP;
                let lag = worst_lag(&server, &figures);
                self.history().add(unix_seconds(), now, server.as_ref().ok(), lag);
            }
            std::thread::sleep(LOOK);
        }
    }

    /// A sentence about each thing that has a state.
    fn states(&self, server: &ServerAnswer, figures: &[NamedFigures]) -> BTreeMap<String, String> {
        let mut states = BTreeMap::new();
        let server = match server {
            Ok(stats) => {
                let role = value(&stats.replication, "role").unwrap_or("standalone");
                let run = value(&stats.replication, "run_id").unwrap_or_default();
                format!("the server answers: {role}, run {run}")
            }
            Err(why) => format!("the server does not answer: {why}"),
        };
        states.insert("server".to_owned(), server);
        for (name, figures) in figures {
            let of = if figures.is_upstream { "feeds this server" } else { figures.phase.name() };
            states.insert(format!("copy {name}"), format!("copy {name}: {of}"));
        }
        // A lease that is nobody's yet has nothing to tell.
        if let Some(lease) = self.lease().filter(|lease| !lease.shard.is_empty()) {
            states.insert("shard".to_owned(), lease.line().trim_end().to_owned());
        }
        states
    }

    /// Tells what is not as it was.
    fn tell_changes(&self, before: &mut BTreeMap<String, String>, now: BTreeMap<String, String>) {
        let at = unix_seconds();
        let mut history = self.history();
        for (_, text) in now.iter().filter(|(name, text)| before.get(*name) != Some(*text)) {
            history.tell(at, text);
        }
        for name in before.keys().filter(|name| !now.contains_key(*name)) {
            history.tell(at, &format!("{name}: gone"));
        }
        *before = now;
    }
}

/// How far behind the worst of the copies is, or the server's own.
fn worst_lag(server: &ServerAnswer, figures: &[NamedFigures]) -> Option<u64> {
    let own = server.as_ref().ok().and_then(|stats| number(&stats.replication, "copy_silent_ms"));
    let made = figures.iter().filter(|(_, figures)| !figures.is_upstream);
    made.filter_map(|(_, figures)| Some(figures.lag?.as_millis() as u64)).max().or(own)
}

/// The wall clock.
pub(super) fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
