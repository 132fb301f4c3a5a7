//! The names of the keys in etcd.
//!
//! ```text
//!   /twincache/<cluster>/shards/<shard>         ShardRecord
//!                       /nodes/<shard>/<node>   NodeRecord
//!                       /requests/<shard>       RequestRecord
//!                       /answers/<shard>        AnswerRecord
//!                       /pause/<shard>          anything
//!                       /topology               TopologyRecord
//! ```
//!
//! A name is 1 to 63 of `-.a-zA-Z0-9`, so it holds no slash: no cluster's or shard's keys lie under another's. A
//! prefix ends with a slash for the same reason.

/// Longest name of a cluster, a shard or a node: a label of DNS is no longer, either.
pub const NAME_MAX: usize = 63;

/// Whether this is the name of a cluster, a shard or a node.
pub fn is_name(text: &str) -> bool {
    let is_one = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.';
    (1..=NAME_MAX).contains(&text.len()) && text.bytes().all(is_one)
}

/// The keys of one cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterKeys {
    root: String,
}

impl ClusterKeys {
    /// The keys of the cluster of that name, for which [`is_name`] holds, as for all names below.
    pub fn new(cluster: &str) -> ClusterKeys {
        debug_assert!(is_name(cluster), "{cluster}");
        ClusterKeys { root: format!("/twincache/{cluster}/") }
    }

    /// Before every key of the cluster.
    pub fn all(&self) -> &str {
        &self.root
    }

    /// Who owns a shard.
    pub fn shard(&self, shard: &str) -> String {
        self.under("shards", shard)
    }

    /// Before every shard's name.
    pub fn shards(&self) -> String {
        format!("{}shards/", self.root)
    }

    /// How a node of a shard is.
    pub fn node(&self, shard: &str, node: &str) -> String {
        debug_assert!(is_name(node), "{node}");
        format!("{}{node}", self.nodes_of(shard))
    }

    /// Before the names of a shard's nodes.
    pub fn nodes_of(&self, shard: &str) -> String {
        format!("{}/", self.under("nodes", shard))
    }

    /// Before `<shard>/<node>` of every node.
    pub fn nodes(&self) -> String {
        format!("{}nodes/", self.root)
    }

    /// What a shard is asked to do.
    pub fn request(&self, shard: &str) -> String {
        self.under("requests", shard)
    }

    /// What became of that.
    pub fn answer(&self, shard: &str) -> String {
        self.under("answers", shard)
    }

    /// Exists while a shard takes no decisions by itself.
    pub fn pause(&self, shard: &str) -> String {
        self.under("pause", shard)
    }

    /// Before every paused shard's name.
    pub fn pauses(&self) -> String {
        format!("{}pause/", self.root)
    }

    /// Where clients find the shards.
    pub fn topology(&self) -> String {
        format!("{}topology", self.root)
    }

    fn under(&self, folder: &str, shard: &str) -> String {
        debug_assert!(is_name(shard), "{shard}");
        format!("{}{folder}/{shard}", self.root)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_no_slash_and_an_end() {
        let long = "n".repeat(NAME_MAX);
        assert!(["a", "A-b.9", ".", &long].iter().all(|name| is_name(name)));
        let long = "n".repeat(NAME_MAX + 1);
        assert!(!["", "a/b", "a b", "\u{e4}", "a_b", "a\n", &long].iter().any(|name| is_name(name)));
    }

    #[test]
    fn keys_stand_under_their_cluster() {
        let keys = ClusterKeys::new("c");
        assert_eq!(keys.shard("s"), "/twincache/c/shards/s");
        assert_eq!(keys.node("s", "n"), "/twincache/c/nodes/s/n");
        assert!(keys.node("s", "n").starts_with(&keys.nodes_of("s")) && keys.nodes_of("s").starts_with(&keys.nodes()));
        assert!(keys.shard("s").starts_with(&keys.shards()) && keys.pause("s").starts_with(&keys.pauses()));
        assert_eq!(
            (keys.request("s"), keys.answer("s")),
            ("/twincache/c/requests/s".into(), "/twincache/c/answers/s".into())
        );
        assert_eq!(keys.topology(), "/twincache/c/topology");
    }
}
