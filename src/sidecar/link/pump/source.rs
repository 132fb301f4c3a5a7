//! What the server says on its control socket, and what becomes of it.
//!
//! ```text
//!   greeting ─> meet ─> met ── guard ─> replica from ─> attach ─> continuing | walk ─> batch … walked … overtaken …
//!   batch, walked, caught-up ─> a barrier behind them that says what it will confirm: `Mark`
//! ```
//!
//! Not here: the states (`pump`), what the barriers confirm (`pump::peer`).

use super::{Action, Mark, Now, PROTOCOL, Pump, Resume, Stage, State, Trouble, UNTOLD, not_a_control_socket};
use super::{MARK_EVERY, MARKS_MAX};
use crate::sidecar::link::answers::{Ask, Expect};
use crate::sidecar::observe::figures::Phase;
use crate::sidecar::wire::{Met, Said};

impl Pump {
    pub(crate) fn hear(&mut self, said: Said, now: Now) {
        match (self.state, said) {
            (State::Greeting, Said::Greeting { version: PROTOCOL, run }) => {
                self.run = run;
                self.state = State::Meeting;
                self.actions.push_back(Action::OpenPeer);
            }
            (State::Greeting, Said::Greeting { version, .. }) => {
                let text = format!("the server's control socket speaks version {version}, this is for {PROTOCOL}");
                self.fail(Trouble::Refused(text), now);
            }
            (State::Weighing | State::Attached, Said::Met(met)) => self.weigh(met, now),
            (_, Said::Refused(reason)) => self.fail(Trouble::Refused(format!("the server refuses: {reason}")), now),
            (State::Attaching, Said::Continuing(lsn)) => self.attached(Stage::Clean, lsn, now),
            (State::Attaching | State::Attached, Said::Walk(lsn)) => self.begin_walk(lsn, now),
            (State::Attached, said) => self.hear_of_stream(said, now),
            (_, Said::Alive(_)) => {}
            (_, said) => self.fail(not_a_control_socket(&format!("{said:?} out of turn")), now),
        }
    }

    fn hear_of_stream(&mut self, said: Said, now: Now) {
        match said {
            Said::Batch { lsn, bytes } => {
                self.batch_lsn = lsn;
                self.figures.batches += 1;
                self.figures.body_bytes += bytes;
                self.figures.bytes_in_flight += bytes;
                self.know(lsn, now);
            }
            Said::BodyEnd => self.barrier(self.batch_lsn, false),
            Said::Alive(lsn) => {
                self.place_first_mark(lsn);
                self.know(lsn, now);
            }
            Said::Walked(lsn) => {
                self.stage = Stage::Clean;
                if !self.peer.is_stock {
                    self.ask(b"replica end\r\n".as_slice(), Expect::Line(Ask::End));
                }
                self.barrier(lsn, true);
            }
            Said::Overtaken { ranges, .. } => {
                self.figures.overtaken += 1;
                if self.stage == Stage::Clean {
                    log::info!("{}: overtaken by the journal, {ranges} ranges are copied again", self.name);
                    self.stage = Stage::Overtaken;
                    self.stream = Phase::Overtaken;
                }
            }
            Said::CaughtUp(lsn) => {
                if self.stage == Stage::Overtaken {
                    self.stage = Stage::Clean;
                }
                self.barrier(lsn, false);
            }
            other => self.fail(not_a_control_socket(&format!("{other:?} out of turn")), now),
        }
    }

    /// Asks the peer to confirm everything up to here.
    fn barrier(&mut self, lsn: u64, ends_walk: bool) {
        let (walks, bytes) = (self.figures.walks_started, self.figures.body_bytes);
        let mark = Mark { lsn, stage: self.stage, walks, bytes, ends_walk };
        self.ask(b"mn\r\n".as_slice(), Expect::Barrier(mark));
    }

    /// The server has come to this lsn.
    fn know(&mut self, lsn: u64, now: Now) {
        self.figures.head = self.figures.head.max(lsn);
        let is_new = match self.marks.back() {
            Some(&(known, at)) => known < lsn && now.at >= at + MARK_EVERY,
            None => self.figures.confirmed < lsn,
        };
        if is_new && self.marks.len() < MARKS_MAX {
            self.marks.push_back((lsn, now.at));
        }
    }

    /// What there is when the stream goes on came after the peer was last whole, not when it is heard of.
    fn place_first_mark(&mut self, head: u64) {
        if let Some(&(UNTOLD, at)) = self.marks.front() {
            self.marks.clear();
            if head > self.figures.confirmed {
                self.marks.push_back((head, at));
            }
        }
    }

    /// Before it attaches, and then now and then, because a server may get another upstream at any time.
    pub(crate) fn meet(&mut self) {
        if !std::mem::replace(&mut self.is_meeting, true) {
            self.to_server.extend_from_slice(format!("meet {} {}\r\n", self.name, self.peer.identity).as_bytes());
        }
    }

    fn weigh(&mut self, met: Met, now: Now) {
        self.is_meeting = false;
        let is_news = self.upstreams != met.upstreams;
        self.upstreams.clone_from(&met.upstreams);
        if self.state == State::Attached {
            return if is_news {
                self.ask_from(now)
            };
        }
        if let Some(objection) = self.guard.objection(&met, self.peer.items.unwrap_or(0), now.at) {
            return self.fail(Trouble::Guarded(objection), now);
        }
        if self.peer.is_stock {
            return self.attach(now);
        }
        self.ask_from(now);
        self.state = State::Announcing;
    }

    pub(crate) fn attach(&mut self, now: Now) {
        self.server_heard = now.at;
        let known = self.resume.as_ref().filter(|it| it.run == self.run && it.identity == self.peer.identity);
        let from = known.map_or("- -".to_owned(), |known| format!("{} {}", known.run, known.lsn));
        let cas = if self.peer.is_stock { "nocas" } else { "cas" };
        let line = format!("attach {} {} {from} {cas}\r\n", self.name, self.peer.identity);
        self.to_server.extend_from_slice(line.as_bytes());
        self.state = State::Attaching;
    }

    fn attached(&mut self, stage: Stage, lsn: u64, now: Now) {
        self.state = State::Attached;
        self.stage = stage;
        self.figures.attached += 1;
        self.figures.trouble.clear();
        self.figures.is_guarded = false;
        (self.figures.head, self.figures.confirmed, self.figures.bytes_in_flight) = (lsn, lsn, 0);
        self.marks.clear();
        if stage == Stage::Clean {
            self.marks.push_back((UNTOLD, self.whole_at.unwrap_or(now.at)));
            log::info!("{}: {}, goes on after lsn {lsn}", self.name, self.figures.kind);
            self.figures.continued += 1;
            self.stream = Phase::Streaming;
            self.resume = Some(Resume { run: self.run.clone(), identity: self.peer.identity.clone(), lsn });
        }
    }

    fn begin_walk(&mut self, lsn: u64, now: Now) {
        if self.state == State::Attaching {
            self.attached(Stage::Walking, lsn, now);
        }
        log::info!("{}: {}, full walk from lsn {lsn}", self.name, self.figures.kind);
        self.resume = None;
        self.stage = Stage::Walking;
        self.stream = Phase::Walking;
        self.figures.walks_started += 1;
        let begin: &[u8] = if self.peer.is_stock { b"flush_all\r\n" } else { b"replica begin\r\n" };
        self.ask(begin, Expect::Line(Ask::Begin));
    }
}
