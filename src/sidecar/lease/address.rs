//! The shard's address: where clients find the primary. It follows the lease, and never holds it up.
//!
//! ```text
//!   driver ── hold, settled, release ──> the wish ──> thread "address" ──> announcing: what, and when
//!                                                           |
//!                                                           +── floating: netlink and frames (--vip, --dev)
//!                                                           +── hooks: thread "hooks" (--on-promote, --on-demote)
//! ```
//!
//! The driver says what it wants, with each renewal of its lease if it likes, and goes on; the last word counts. The lock
//! around the wish is held for a few instructions, never across a system call that may wait. The address is on its
//! interface before the program of --on-promote runs, and the program of --on-demote is started before the address goes.
//!
//! A demotion is also told when the first word is [`Address::release`]: an earlier run may have been promoted.
//!
//! Not here: who is primary, and until when.

use super::announcing::{AddressStep, Announcing, Wish};
use super::floating::Floating;
use super::hooks::{HookCall, Hooks};
use crate::sidecar::options::{AddressOptions, SidecarExit};
use crate::sync::{lock, sound};
use crate::sys::cpu::time_since_boot;
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Exit code when the system refuses what is needed.
const EX_OSERR: u8 = 71;

const NOT_ADDED: &str = "cannot be added, is tried again";
const UNANNOUNCED: &str = "cannot be announced, is tried again";

/// The address. See the module's head.
pub struct Address {
    shared: Arc<AddressWishes>,
    thread: JoinHandle<()>,
}

struct AddressWishes {
    word: Mutex<AddressWord>,
    changed: Condvar,
}

/// What the driver has said, and what it may ask.
struct AddressWord {
    wish: Wish,
    is_ended: bool,
    /// What does not work, by what was tried.
    problems: BTreeMap<&'static str, String>,
}

/// Looks whether all is there that will be needed, and changes nothing.
pub(in crate::sidecar) fn check(options: &AddressOptions) -> Result<(), SidecarExit> {
    let floating = options.vip.as_ref().map(Floating::look).transpose();
    floating.map(drop).map_err(|line| SidecarExit::refuse(EX_OSERR, &line))
}

impl Address {
    /// Looks whether all that will be needed is there, removes the floating address if it was left over, and starts the
    /// threads, in the network namespace of this one.
    pub fn start(options: &AddressOptions, shard: &str, node: &str) -> Result<Address, SidecarExit> {
        let refuse = |line: &str| SidecarExit::refuse(EX_OSERR, line);
        let floating = options.vip.as_ref().map(Floating::open).transpose().map_err(|line| refuse(&line))?;
        let no_thread = |error: io::Error| refuse(&format!("cannot start a thread: {error}"));
        let hooks = Hooks::start(options, shard, node).map_err(no_thread)?;
        let word = Mutex::new(AddressWord { wish: Wish::Unknown, is_ended: false, problems: BTreeMap::new() });
        let shared = Arc::new(AddressWishes { word, changed: Condvar::new() });
        let name = options.vip.as_ref().map(|vip| format!("{vip} on {}", vip.interface)).unwrap_or_default();
        let address =
            AddressThread { name, floating, hooks, shared: Arc::clone(&shared), announcing: Announcing::new() };
        let thread = std::thread::Builder::new().name("address".into()).spawn(|| address.run()).map_err(no_thread)?;
        Ok(Address { shared, thread })
    }

    /// This node is the owner in this epoch until then, by the time since boot: the address shall be here. After `until`
    /// nothing more is announced, and some seconds later the kernel drops the address, unless this is said again with a
    /// later time. To be said with each renewal; it costs next to nothing.
    pub fn hold(&self, epoch: u64, until: Duration) {
        self.say(|wish| {
            let is_settled = matches!(*wish, Wish::Here { epoch: of, is_settled: true, .. } if of == epoch);
            *wish = Wish::Here { epoch, until, is_settled };
        });
    }

    /// Nobody else answers for the address any more: the old owner has let go, or there was none. Announcements become
    /// slow.
    pub fn settled(&self) {
        self.say(|wish| {
            if let Wish::Here { is_settled, .. } = wish {
                *is_settled = true;
            }
        });
    }

    /// This node is not the owner: the address shall not be here. May be said as often as one likes.
    pub fn release(&self) {
        self.say(|wish| *wish = Wish::Away);
    }

    /// This node has handed over to another one, and its server sends clients away: the address goes a moment later.
    pub fn leave(&self) {
        self.say(|wish| *wish = Wish::Leaving);
    }

    /// Why the address is not where it should be, if that is so.
    pub fn problem(&self) -> Option<String> {
        lock(&self.shared.word).problems.values().next().cloned()
    }

    /// At the end of the program: lets go of the address if it was held, and waits so long for that and for the
    /// operator's programs. False if they have not ended by then.
    pub fn close(self, longest: Duration) -> bool {
        let end = Instant::now() + longest;
        let mut word = lock(&self.shared.word);
        word.is_ended = true;
        if word.wish != Wish::Unknown {
            word.wish = Wish::Away;
        }
        drop(word);
        self.shared.changed.notify_one();
        while !self.thread.is_finished() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(1));
        }
        self.thread.is_finished()
    }

    fn say(&self, change: impl FnOnce(&mut Wish)) {
        change(&mut lock(&self.shared.word).wish);
        self.shared.changed.notify_one();
    }
}

/// Does what is to be done, in a thread of its own.
struct AddressThread {
    /// The floating address and its interface, for the log.
    name: String,
    floating: Option<Floating>,
    hooks: Hooks,
    shared: Arc<AddressWishes>,
    announcing: Announcing,
}

impl AddressThread {
    fn run(mut self) {
        let mut wish = Wish::Unknown;
        while let Some(next) = self.wait(wish) {
            wish = next;
            self.follow(wish);
        }
        self.hooks.end();
        while !self.hooks.is_finished() {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// The next wish, at once if it is another one than the last; else when something is due. None after the last one.
    fn wait(&self, last: Wish) -> Option<Wish> {
        let mut word = lock(&self.shared.word);
        loop {
            let now = time_since_boot();
            let due = self.announcing.due(now).map(|due| due.saturating_sub(now));
            if word.wish != last || due == Some(Duration::ZERO) {
                return Some(word.wish);
            }
            if word.is_ended {
                return None;
            }
            word = match due {
                Some(due) => sound(self.shared.changed.wait_timeout(word, due)).0,
                None => sound(self.shared.changed.wait(word)),
            };
        }
    }

    fn follow(&mut self, wish: Wish) {
        self.announcing.follow(wish, time_since_boot());
        // The clock is read before each step: whoever was frozen meanwhile does nothing that is too late.
        while let Some(step) = self.announcing.next(time_since_boot()) {
            match step {
                AddressStep::Renew(keep) => self.renew(keep),
                AddressStep::Announce => self.announce(),
                AddressStep::Remove => self.remove(),
                AddressStep::Promote(epoch) => self.hooks.tell(HookCall::Promote(epoch)),
                AddressStep::Demote(epoch) => self.hooks.tell(HookCall::Demote(epoch)),
            }
        }
    }

    fn renew(&mut self, keep: Duration) {
        let Some(floating) = &mut self.floating else { return self.announcing.renewed(true, false, time_since_boot()) };
        let renewed = floating.renew(keep);
        let is_new = renewed.as_ref().is_ok_and(|is_new| *is_new);
        self.announcing.renewed(renewed.is_ok(), is_new, time_since_boot());
        if is_new {
            log::info!("{}: here now", self.name);
        }
        self.note(NOT_ADDED, renewed.err());
    }

    fn announce(&self) {
        let is_late = || self.announcing.is_late(time_since_boot());
        let announced = self.floating.as_ref().map(|floating| floating.announce(is_late));
        self.note(UNANNOUNCED, announced.and_then(Result::err));
    }

    fn remove(&mut self) {
        let Some(removed) = self.floating.as_mut().map(Floating::remove) else { return };
        if removed.is_ok() {
            log::info!("{}: given back", self.name);
            // What has gone is neither to be added nor to be announced.
            self.note(NOT_ADDED, None);
            self.note(UNANNOUNCED, None);
        }
        self.note("cannot be removed", removed.err());
    }

    /// Remembers what does not work, and says it once.
    fn note(&self, what: &'static str, error: Option<io::Error>) {
        let mut word = lock(&self.shared.word);
        let Some(error) = error else { return drop(word.problems.remove(what)) };
        let text = format!("{}: {what}: {error}", self.name);
        let old = word.problems.insert(what, text.clone());
        drop(word);
        if old.as_ref() != Some(&text) {
            log::error!("{text}");
        }
    }
}
