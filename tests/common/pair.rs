//! A pair of real nodes, with a lease in a real etcd.

use super::{EtcdServer, Folder, Server, Sidecar, wait_for};
use serde_json::Value;

/// A server and its sidecar, which shows them over HTTP.
pub struct PairNode {
    pub sidecar: Sidecar,
    pub server: Server,
    /// Of the control socket.
    _folder: Folder,
}

impl PairNode {
    /// The shard `s` of the cluster `c` in good health: its primary, and a standby in sync.
    pub fn start_two(etcd: &EtcdServer) -> [PairNode; 2] {
        let [one, other] = ["a", "b"].map(|name| PairNode::start(etcd, name));
        let has_standby = |node: &PairNode| {
            let shard = &node.status()["shard"];
            shard["is_primary"] == true && shard["in_sync"].as_array().is_some_and(|nodes| nodes.len() == 1)
        };
        let is_first = wait_for("a pair in sync", || [&one, &other].into_iter().position(has_standby)) == 0;
        if is_first { [one, other] } else { [other, one] }
    }

    fn start(etcd: &EtcdServer, name: &str) -> PairNode {
        let folder = Folder::new();
        let socket = folder.file("control");
        let server = Server::start(&["-m", "64", "-t", "2", "-o", &format!("managed,control_socket={socket}")]);
        let advertised = server.addr.to_string();
        let words = ["--etcd", &etcd.url, "--cluster", "c", "--shard", "s", "--node", name, "--advertise", &advertised];
        let more = ["--lease-ms", "2000", "--bootstrap-wait", "1000", "--http", "127.0.0.1:0"];
        PairNode { sidecar: Sidecar::start_alone(&socket, &[&words[..], &more].concat()), server, _folder: folder }
    }

    /// The JSON of its status page.
    pub fn status(&self) -> Value {
        let page = self.sidecar.page("/status");
        let (_, status) = page.split_once("\r\n\r\n").expect("a head");
        serde_json::from_str(status).expect("JSON")
    }
}
