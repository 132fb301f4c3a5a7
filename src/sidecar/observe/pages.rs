//! Which page there is at which path, and who may see it.
//!
//! ```text
//!   /health                     everybody: alarms
//!   /primary, /standby          everybody, with a lease: balancers
//!   /, /status, /metrics        whoever has the token, if there is one
//! ```
//!
//! Not here: what the pages say (`health`, `metrics`, `page`), how they are served (`http`).

use super::figures::Figures;
use super::http::{HttpPage, HttpPages, HttpQuestion};
use super::monitor::{Monitor, ServerAnswer};
use super::standby::StandbyHealth;
use super::{health, metrics, page};
use crate::sidecar::observe::lease_status::{LeaseStatus, lag_of};
use std::sync::Arc;
use std::time::Duration;

/// What is shown, and to whom.
pub(crate) struct PageOptions {
    /// How far behind a healthy peer may be.
    pub max_lag: Duration,
    /// What guards the figures.
    pub token: Option<String>,
    /// Whether hot keys are shown by name.
    pub shows_keys: bool,
}

/// The pages.
pub(crate) fn pages(monitor: Arc<Monitor>, options: PageOptions) -> Arc<HttpPages> {
    Arc::new(move |asked: HttpQuestion<'_>| page(&monitor, &options, asked))
}

fn page(monitor: &Monitor, options: &PageOptions, asked: HttpQuestion<'_>) -> Option<HttpPage> {
    let lease = || monitor.lease();
    match asked.path {
        "/health" => return Some(judged(health(monitor, options.max_lag))),
        "/primary" => return lease().map(|lease| judged(lease.is_primary())),
        "/standby" => {
            return lease().map(|lease| match lag_of(asked.query) {
                Ok(most) => judged(lease.is_standby(most)),
                Err(()) => judged((false, "the query may be lag=<milliseconds>\n".to_owned())),
            });
        }
        "/" | "/status" | "/metrics" if !asked.may_see(options.token.as_deref()) => {
            let text = "a token is needed: Authorization: Bearer TOKEN, or ?token=TOKEN\n".to_owned();
            return Some(HttpPage { status: "403 Forbidden", media: "text/plain", text });
        }
        _ => {}
    }
    let (media, text) = match asked.path {
        "/" => ("text/html; charset=utf-8", page::PAGE.to_owned()),
        "/status" => ("application/json", page::status(monitor, asked.has("history"), options.shows_keys)),
        "/metrics" => {
            let (figures, server) = (monitor.figures(), monitor.server());
            let more = (monitor.certificates(), options.shows_keys);
            (metrics::MEDIA, metrics::metrics(&figures, lease().as_ref(), &server, more))
        }
        _ => return None,
    };
    Some(HttpPage { status: "200 OK", media, text })
}

fn health(monitor: &Monitor, max_lag: Duration) -> (bool, String) {
    let (figures, lease) = (monitor.figures(), monitor.lease());
    // Who feeds peers shows by them how it is.
    let is_well = |figures: &Figures| figures.phase.is_streaming() && !figures.is_upstream;
    let asks = figures.is_empty() || !figures.iter().all(|(_, figures)| is_well(figures));
    let answer: ServerAnswer = if asks { monitor.server() } else { Ok(Default::default()) };
    let line = lease.as_ref().map_or_else(String::new, LeaseStatus::line);
    let is_willing = lease.as_ref().is_none_or(|lease| lease.refusal.is_none());
    match answer {
        // Nobody else would tell.
        Err(why) if figures.is_empty() => (false, format!("the server does not answer: {why}\n{line}")),
        answer => {
            let rows = answer.unwrap_or_default().replication;
            let (is_good, text) = health::health(&figures, StandbyHealth::of(&rows).as_ref(), max_lag);
            let text = text + &health::writes(&rows) + &line;
            match is_good && !is_willing {
                true => (false, text.replacen("ok\n", "the server refuses to serve\n", 1)),
                false => (is_good, text),
            }
        }
    }
}

fn judged((is_good, text): (bool, String)) -> HttpPage {
    HttpPage { status: if is_good { "200 OK" } else { "503 Service Unavailable" }, media: "text/plain", text }
}
