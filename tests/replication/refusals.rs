//! What must be refused, and in which words.

use crate::common::Server;
use crate::pair::{Sidecar, scratch, start_primary};
use std::os::unix::fs::PermissionsExt;

#[test]
fn a_peer_that_is_the_server_itself() {
    let socket = scratch("control");
    let primary = start_primary(&socket, &[]);
    Sidecar::start(&socket, primary.addr, &[]).wait_for("itself");
}

#[test]
fn two_that_replicate_to_each_other() {
    let (one, two) = (scratch("control"), scratch("control"));
    let (first, second) = (start_primary(&one, &[]), start_primary(&two, &[]));
    let mut there = Sidecar::start(&one, second.addr, &[]);
    there.wait_for(&second.addr.to_string());
    std::thread::sleep(std::time::Duration::from_millis(500));
    Sidecar::start(&two, first.addr, &[]).wait_for("circle");
}

#[test]
fn a_peer_that_speaks_no_meta_protocol() {
    let socket = scratch("control");
    let _primary = start_primary(&socket, &[]);
    let Some(binary_only) = Server::reference(&["-B", "binary"]) else { return };
    Sidecar::start(&socket, binary_only.addr, &[]).wait_for("text port");
}

#[test]
fn a_socket_that_others_can_open() {
    let socket = scratch("control");
    let primary = start_primary(&socket, &[]);
    assert_eq!(std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
    std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(0o666)).unwrap();
    Sidecar::start(&socket, primary.addr, &[]).wait_for("chmod 600");
}

#[test]
fn a_socket_that_is_not_there() {
    let nowhere = scratch("nowhere");
    Sidecar::start(&nowhere, "127.0.0.1:1".parse().unwrap(), &[]).wait_for(nowhere.to_str().unwrap());
}
