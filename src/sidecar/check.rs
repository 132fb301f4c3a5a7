//! `--check`: whether a sidecar would start with these options, without starting one.
//!
//! ```text
//!   options > user > certificates > token > address of --http > files for etcd > interface of --vip
//! ```
//!
//! The steps are those of a start, in its order and as the same user; but each one is done whatever the others have found,
//! and each fault is a line. Nobody is connected to, and nothing is changed: a floating address that was left over stays.
//!
//! Not here: the steps themselves (`options`, `tls`, `cluster`, `lease::address`); becoming the user, which comes first.

use super::lease::address;
use super::options::{Options, SidecarExit};
use super::peer_login::PeerLogin;
use crate::cluster::Etcd;
use std::net::TcpListener;

/// Exit code when the system refuses what is needed.
const EX_OSERR: u8 = 71;

/// Looks for all that would keep a sidecar from starting, after what was found with its user. The exit code is that of a
/// start.
pub(super) fn check(options: &Options, user: Option<SidecarExit>) -> SidecarExit {
    let refuse = |line: String| SidecarExit::refuse(EX_OSERR, &line);
    let tls = options.peer_tls.as_ref().and_then(|files| files.check().err());
    let tls = tls.map(|line| SidecarExit::usage(&format!("--peer-tls: {line}")));
    let login = options.peer_login.as_ref().and_then(PeerLogin::check).map(|line| SidecarExit::usage(&line));
    let token = options.http.and(options.http_token().err());
    let http = options.http.and_then(|address| {
        let taken = TcpListener::bind(address).err();
        taken.map(|error| refuse(format!("--http {address}: {error}")))
    });
    let etcd = options.lease.as_ref().and_then(|lease| Etcd::new(&lease.cluster.etcd).err());
    let etcd = etcd.map(|error| refuse(error.to_string()));
    let vip = address::check(&options.address).err();
    let faults: Vec<SidecarExit> = [user, tls, login, token, http, etcd, vip].into_iter().flatten().collect();
    let lines: String = warnings(options).chain(faults.iter().map(|exit| exit.stderr.clone())).collect();
    match faults.first() {
        None => {
            SidecarExit { stderr: lines, ..SidecarExit::print("a sidecar would start with these options\n".into()) }
        }
        Some(first) => SidecarExit { code: first.code, stdout: String::new(), stderr: lines },
    }
}

/// What a start waits for.
fn warnings(options: &Options) -> impl Iterator<Item = String> {
    let is_absent = !options.server.exists();
    let server = options.server.display().to_string();
    is_absent.then(|| format!("warning: there is no {server}: is twincached up, with control_socket?\n")).into_iter()
}
