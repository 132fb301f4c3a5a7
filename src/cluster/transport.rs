//! One request to one endpoint, and what became of it.
//!
//! ```text
//!   call ── token? ──authenticate──┐
//!    |                             v
//!    +── pick endpoint ── POST ── answer ── 200: bytes
//!    |                      |        +───── else: what etcd says ── token too old: once more with a new one
//!    |                      +── not reached: Refused     +──────── Refused | Denied | Unknown
//!    +<── avoid it for a while ──── no answer: Unknown
//! ```
//!
//! Invariants: a call sends its request to one endpoint and, but for a token that etcd refused before it looked at the
//! request, once; an endpoint that fails is not asked again for [`AVOID`] as long as there is another; an answer is no
//! longer than [`ANSWER_MAX`].
//!
//! A call ends at its deadline, whatever it waits for: looking up the name (the thread that does that is left behind,
//! and ends when the system's resolver does; see `names`), connecting, TLS, sending, and an answer byte by byte. Not
//! bounded is the time on the CPU.
//!
//! Not here: what requests say, and what is believed of answers.

use super::error::EtcdError;
use super::names::Names;
use super::options::EtcdOptions;
use super::tls;
use super::wire::{AuthenticateAnswer, AuthenticateRequest, Failure};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io::ErrorKind;
use std::sync::Arc;
use std::time::{Duration, Instant};
use ureq::http::Response;
use ureq::unversioned::transport::DefaultConnector;
use ureq::{Agent, Body, Timeout};

/// Longest answer. Ours take a few KiB.
pub(super) const ANSWER_MAX: u64 = 4 << 20;

/// How long an endpoint that failed is not asked.
const AVOID: Duration = Duration::from_secs(3);

/// How old a stream gets. One that dribbles is noticed by that.
const STREAM_AGE: Duration = Duration::from_secs(60);

/// Connections to an endpoint that are kept for the next request: one for each thread that asks.
const IDLE_MAX: usize = 8;

/// Longest text of an error, without the endpoint.
const TEXT_MAX: usize = 200;

/// gRPC's codes, as etcd uses them.
mod code {
    pub(super) const INVALID_ARGUMENT: i32 = 3;
    pub(super) const NOT_FOUND: i32 = 5;
    pub(super) const PERMISSION_DENIED: i32 = 7;
    pub(super) const RESOURCE_EXHAUSTED: i32 = 8;
    pub(super) const FAILED_PRECONDITION: i32 = 9;
    pub(super) const OUT_OF_RANGE: i32 = 11;
    pub(super) const UNIMPLEMENTED: i32 = 12;
    pub(super) const UNAUTHENTICATED: i32 = 16;
}

/// Texts of etcd's that mean access, under whatever code.
const DENIALS: &[&str] = &[
    "user name is empty",
    "authentication failed",
    "permission denied",
    "invalid auth token",
    // With users and `--client-cert-auth`, the gateway takes no certificate that has one.
    "CommonName of client",
];

/// Texts that mean that a new token helps, or the first one.
const ASK_AGAIN: &[&str] =
    &["invalid auth token", "revision in the provided token is obsolete", "auth store is old", "user name is empty"];

/// The way to etcd. A clone shares the connections, and has its own token and its own opinion of the endpoints.
#[derive(Clone)]
pub(super) struct Transport {
    agent: Agent,
    endpoints: Arc<[String]>,
    /// Until when each endpoint is avoided.
    avoided: Vec<Option<Instant>>,
    current: usize,
    user: Option<Arc<EtcdUser>>,
    access: Access,
}

/// What is known of etcd's wish for a token.
#[derive(Clone, PartialEq, Eq)]
enum Access {
    /// Nothing, or the token is too old.
    NotAsked,
    /// It wants none.
    Open,
    Token(String),
}

/// Who we are to etcd. Has no Debug: a password is in it.
struct EtcdUser {
    name: String,
    password: String,
}

/// How long a request may take.
#[derive(Clone, Copy, Debug)]
pub(super) enum Patience {
    /// All of it.
    Until(Instant),
    /// Until the answer begins, and again between two pieces of it; all of it [`STREAM_AGE`] at most.
    Idle(Duration),
}

impl Transport {
    /// The file of the password and those of certificates are read here.
    pub(super) fn new(options: &EtcdOptions) -> Result<Transport, String> {
        if options.endpoints.is_empty() {
            return Err("--etcd: an endpoint is needed".into());
        }
        let config = Agent::config_builder()
            .tls_config(tls::config(options)?)
            .http_status_as_error(false)
            // A request goes where the options say, and nowhere else.
            .max_redirects(0)
            .proxy(None)
            .max_idle_connections(IDLE_MAX * options.endpoints.len())
            .max_idle_connections_per_host(IDLE_MAX)
            .user_agent(concat!("twincache/", env!("CARGO_PKG_VERSION")))
            .build();
        Ok(Transport {
            agent: Agent::with_parts(config, DefaultConnector::default(), Names::new()),
            endpoints: options.endpoints.clone().into(),
            avoided: vec![None; options.endpoints.len()],
            current: 0,
            user: options.user.as_ref().map(|(name, file)| EtcdUser::read(name, file).map(Arc::new)).transpose()?,
            access: Access::NotAsked,
        })
    }

    /// Sends a request and gives the answer.
    pub(super) fn call<T: DeserializeOwned>(
        &mut self,
        path: &str,
        request: &impl Serialize,
        timeout: Duration,
    ) -> Result<T, EtcdError> {
        let until = Instant::now() + timeout;
        let mut response = self.open(path, request, Patience::Until(until))?;
        let bytes = self.body(&mut response)?;
        let answer = serde_json::from_slice(&bytes);
        answer.map_err(|error| self.failed(EtcdError::Malformed, &format!("not etcd's answer: {error}")))
    }

    /// Sends a request; gives the answer's beginning, which says that etcd does it.
    pub(super) fn open(
        &mut self,
        path: &str,
        request: &impl Serialize,
        patience: Patience,
    ) -> Result<Response<Body>, EtcdError> {
        let request = serde_json::to_vec(request).expect("requests have no maps with odd keys");
        let had_access = self.access != Access::NotAsked;
        self.authenticate(patience)?;
        match self.ask(path, &request, patience) {
            Err(EtcdError::Denied(why)) if had_access && ASK_AGAIN.iter().any(|text| why.contains(text)) => {
                self.access = Access::NotAsked;
                self.authenticate(patience)?;
                self.ask(path, &request, patience)
            }
            other => other,
        }
    }

    /// Gets a token if one is needed and there is none.
    fn authenticate(&mut self, patience: Patience) -> Result<(), EtcdError> {
        let user = self.user.clone().filter(|_| self.access == Access::NotAsked);
        let Some(user) = user else { return Ok(()) };
        let request = AuthenticateRequest { name: &user.name, password: &user.password };
        let request = serde_json::to_vec(&request).expect("two strings");
        let mut response = match self.ask("/v3/auth/authenticate", &request, patience) {
            // As etcd's own client does: the password is for the time when it is asked for.
            Err(EtcdError::Refused(why)) if why.contains("authentication is not enabled") => {
                self.access = Access::Open;
                return Ok(());
            }
            // The request that was to come has certainly not been sent.
            Err(error) if error.may_be_applied() => return Err(EtcdError::Refused(error.to_string())),
            other => other?,
        };
        let refuse = |error: EtcdError| EtcdError::Refused(error.to_string());
        let bytes = self.body(&mut response).map_err(refuse)?;
        let answer: Result<AuthenticateAnswer, _> = serde_json::from_slice(&bytes);
        let is_header = |token: &String| !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
        match answer.map(|answer| answer.token).ok().filter(is_header) {
            Some(token) => self.access = Access::Token(token),
            None => return Err(self.failed(EtcdError::Refused, "no token in etcd's answer")),
        }
        Ok(())
    }

    fn ask(&mut self, path: &str, request: &[u8], patience: Patience) -> Result<Response<Body>, EtcdError> {
        self.current = self.pick();
        let request = match self.post(path, patience) {
            Some(builder) => builder.send(request),
            None => return Err(EtcdError::Refused(self.named("no time is left"))),
        };
        let mut response = request.map_err(|error| self.broken(&error))?;
        if response.status().as_u16() == 200 {
            self.avoided[self.current] = None;
            return Ok(response);
        }
        let status = response.status().as_u16();
        let bytes = self.body(&mut response)?;
        Err(self.said_no(&Failure::of(status, &bytes)))
    }

    fn post(&self, path: &str, patience: Patience) -> Option<ureq::RequestBuilder<ureq::typestate::WithBody>> {
        let config = self.agent.post(format!("{}{path}", self.endpoints[self.current])).config();
        let config = match patience {
            Patience::Until(end) => {
                let left = end.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())?;
                // A little less for what comes before the request, so that it is known that it was not sent.
                let before = Some(left * 9 / 10);
                config.timeout_global(Some(left)).timeout_resolve(before).timeout_connect(before)
            }
            Patience::Idle(idle) => config
                .timeout_resolve(Some(idle))
                .timeout_connect(Some(idle))
                .timeout_send_request(Some(idle))
                .timeout_send_body(Some(idle))
                .timeout_recv_response(Some(idle))
                .timeout_recv_body(Some(STREAM_AGE))
                .timeout_per_read(Some(idle)),
        };
        let builder = config.build().header("content-type", "application/json");
        // etcd then ends a watch at a member that has lost the others, instead of saying nothing for ever.
        let builder = builder.header("grpc-metadata-hasleader", "true");
        Some(match &self.access {
            Access::Token(token) => builder.header("authorization", token),
            Access::NotAsked | Access::Open => builder,
        })
    }

    fn body(&mut self, response: &mut Response<Body>) -> Result<Vec<u8>, EtcdError> {
        let read = response.body_mut().with_config().limit(ANSWER_MAX).read_to_vec();
        read.map_err(|error| self.broken(&error))
    }

    /// The current endpoint, or the next that is not avoided, or the one that is avoided least.
    fn pick(&self) -> usize {
        let now = Instant::now();
        let number = self.endpoints.len();
        let order = (0..number).map(|step| (self.current + step) % number);
        order.min_by_key(|&at| self.avoided[at].filter(|until| *until > now)).unwrap_or(0)
    }

    /// There was no answer, or none that ends.
    fn broken(&mut self, error: &ureq::Error) -> EtcdError {
        let kind: fn(String) -> EtcdError = if was_never_sent(error) {
            EtcdError::Refused
        } else if matches!(error, ureq::Error::Io(_) | ureq::Error::Timeout(_) | ureq::Error::Rustls(_)) {
            EtcdError::Unknown
        } else {
            EtcdError::Malformed
        };
        self.failed(kind, &error.to_string())
    }

    /// The answer is no.
    pub(super) fn said_no(&mut self, failure: &Failure) -> EtcdError {
        let why = failure.text();
        if DENIALS.iter().any(|denial| why.contains(denial)) {
            return EtcdError::Denied(self.named(why));
        }
        match failure.code() {
            Some(code::PERMISSION_DENIED | code::UNAUTHENTICATED) => EtcdError::Denied(self.named(why)),
            Some(code::INVALID_ARGUMENT | code::NOT_FOUND | code::FAILED_PRECONDITION | code::OUT_OF_RANGE) => {
                EtcdError::Refused(self.named(why))
            }
            Some(code::RESOURCE_EXHAUSTED | code::UNIMPLEMENTED) => self.failed(EtcdError::Refused, why),
            None if failure.is_ours => self.failed(EtcdError::Refused, why),
            // Among them are `etcdserver: request timed out` and `no leader`.
            _ => self.failed(EtcdError::Unknown, why),
        }
    }

    /// An error after which another endpoint is asked.
    pub(super) fn failed(&mut self, kind: fn(String) -> EtcdError, why: &str) -> EtcdError {
        self.avoided[self.current] = Some(Instant::now() + AVOID);
        kind(self.named(why))
    }

    /// One line that is not long: parts of it may come from whoever answered.
    fn named(&self, why: &str) -> String {
        let why: String = why.chars().filter(|c| !c.is_control()).take(TEXT_MAX).collect();
        format!("{}: {why}", self.endpoints[self.current])
    }
}

/// Whether the connection was not there yet. What cannot be told apart counts as sent.
fn was_never_sent(error: &ureq::Error) -> bool {
    match error {
        ureq::Error::HostNotFound | ureq::Error::ConnectionFailed | ureq::Error::BadUri(_) => true,
        ureq::Error::Timeout(phase) => matches!(phase, Timeout::Resolve | Timeout::Connect),
        ureq::Error::Io(error) => error.kind() == ErrorKind::ConnectionRefused || is_about_certificate(error),
        _ => false,
    }
}

/// Whether it is the server's certificate that we do not take: TLS has not begun then.
fn is_about_certificate(error: &std::io::Error) -> bool {
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref());
    matches!(cause, Some(rustls::Error::InvalidCertificate(_)))
}

impl EtcdUser {
    fn read(name: &str, file: &std::path::Path) -> Result<EtcdUser, String> {
        let text = String::from_utf8(tls::read("--etcd-password-file", file)?);
        let password = text.ok().and_then(|text| text.lines().next().map(str::to_owned));
        let password = password.filter(|password| !password.is_empty());
        let password =
            password.ok_or_else(|| format!("--etcd-password-file {}: a line of UTF-8 is needed", file.display()))?;
        Ok(EtcdUser { name: name.to_owned(), password })
    }
}
