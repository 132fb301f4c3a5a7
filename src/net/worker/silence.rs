//! What a worker does when its server is no primary any more.
//!
//! Not here: when that is (`store::role`), what is not sent before the worker learns of it (`voice`).

use super::Worker;
use super::client::Client;
use crate::net::conn::turn::{After, CloseReason};
use crate::net::voice::Voice;

impl Worker {
    /// Closes the connections of all clients, and says nothing to them: what they have asked for was answered by a
    /// primary, which this server is no more.
    #[cold]
    pub(super) fn fall_silent(&mut self) {
        self.voice.iter().for_each(Voice::renew);
        let is_client = |client: &Client| !client.connection.session().other_end().is_feeder();
        let keys: Vec<usize> =
            self.clients.iter().filter(|(_, client)| is_client(client)).map(|(key, _)| key).collect();
        for key in keys {
            self.follow(key, After::Close(CloseReason::Normal));
        }
    }
}
