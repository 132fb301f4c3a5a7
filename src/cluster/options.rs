//! The options by which programs find etcd and their cluster in it.
//!
//! One table gives the parser's rows, `--help` and the man pages' rows. Each mistake is one line that names the option.
//!
//! Not here: what the files contain, which `tls` and `transport` read when the client is made.

use super::keys;
use std::path::PathBuf;
use ureq::http::Uri;

/// The cluster, unless `--cluster` says otherwise.
const CLUSTER: &str = "default";

/// The most endpoints; a cluster of etcd has at most seven members.
const ENDPOINTS_MAX: usize = 16;

/// etcd's port for clients.
const PORT: u16 = 2379;

/// One option. Each has an argument.
#[derive(Debug)]
pub struct ClusterOption {
    /// Its name.
    pub name: &'static str,
    /// The name of its argument.
    pub argument: &'static str,
    /// What `--help` says.
    pub help: &'static str,
}

/// Every option.
pub const OPTIONS: &[ClusterOption] = &[
    row("etcd", "<url>[,<url>]", "etcd's endpoints, as in http://10.0.0.1:2379"),
    row("etcd-user", "<name>", "user of etcd; its password is in --etcd-password-file"),
    row("etcd-password-file", "<file>", "file whose first line is the password of --etcd-user"),
    row("etcd-ca", "<file>", "certificates (PEM) of the CAs that etcd's certificate may come from"),
    row("etcd-cert", "<file>", "certificate (PEM) to show to etcd"),
    row("etcd-key", "<file>", "private key (PEM) of --etcd-cert"),
    row("cluster", "<name>", "name of the cluster in etcd (default: default)"),
];

const fn row(name: &'static str, argument: &'static str, help: &'static str) -> ClusterOption {
    ClusterOption { name, argument, help }
}

/// Where etcd is, and how to be let in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EtcdOptions {
    /// The endpoints, `http://host:port` or `https://host:port`; not empty.
    pub endpoints: Vec<String>,
    /// The user's name, and the file with the password.
    pub user: Option<(String, PathBuf)>,
    /// The CAs' certificates.
    pub ca: Option<PathBuf>,
    /// The client's certificate; there is a key then, too.
    pub cert: Option<PathBuf>,
    /// Its key.
    pub key: Option<PathBuf>,
}

/// What the options say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterOptions {
    /// Where etcd is.
    pub etcd: EtcdOptions,
    /// The name of the cluster.
    pub cluster: String,
}

/// Adds the rows to a parser.
pub fn add_to(parser: &mut getopts::Options) {
    for row in OPTIONS {
        parser.optopt("", row.name, row.help, row.argument);
    }
}

impl ClusterOptions {
    /// Reads what the parser has found; None without `--etcd`.
    pub fn read(found: &getopts::Matches) -> Result<Option<ClusterOptions>, String> {
        let Some(urls) = found.opt_str("etcd") else {
            let other = OPTIONS.iter().find(|row| found.opt_present(row.name));
            return other.map_or(Ok(None), |row| Err(format!("--{}: --etcd is needed, too", row.name)));
        };
        let file = |name: &str| found.opt_str(name).map(PathBuf::from);
        let etcd = EtcdOptions {
            endpoints: endpoints(&urls)?,
            user: user(found.opt_str("etcd-user"), file("etcd-password-file"))?,
            ca: file("etcd-ca"),
            cert: file("etcd-cert"),
            key: file("etcd-key"),
        };
        check_files(&etcd)?;
        let cluster = found.opt_str("cluster").unwrap_or_else(|| CLUSTER.to_owned());
        check_name("cluster", &cluster)?;
        Ok(Some(ClusterOptions { etcd, cluster }))
    }
}

/// Whether the argument of an option is the name of a cluster, a shard or a node.
pub fn check_name(option: &str, name: &str) -> Result<(), String> {
    let mistake = || format!("--{option} {name:?}: a name has 1 to {} of -.a-zA-Z0-9", keys::NAME_MAX);
    if keys::is_name(name) { Ok(()) } else { Err(mistake()) }
}

fn endpoints(urls: &str) -> Result<Vec<String>, String> {
    let found: Vec<String> = urls.split(',').map(|url| endpoint(url.trim())).collect::<Result<_, _>>()?;
    if found.len() > ENDPOINTS_MAX {
        return Err(format!("--etcd: more than {ENDPOINTS_MAX} endpoints"));
    }
    if let Some((_, twice)) = found.iter().enumerate().find(|(at, url)| found[..*at].contains(url)) {
        return Err(format!("--etcd {twice} is given twice"));
    }
    Ok(found)
}

/// A URL with its port and without anything behind that.
fn endpoint(url: &str) -> Result<String, String> {
    let bad = |why: &str| format!("--etcd {url:?}: {why}, as in http://10.0.0.1:2379");
    let parsed: Uri = url.parse().map_err(|_| bad("not a URL"))?;
    let scheme = parsed.scheme_str().filter(|scheme| ["http", "https"].contains(scheme));
    let scheme = scheme.ok_or_else(|| bad("http:// or https:// is needed"))?;
    let authority = parsed.authority().ok_or_else(|| bad("a host is needed"))?;
    if authority.as_str().contains('@') {
        return Err("--etcd: a user belongs into --etcd-user, and a password into --etcd-password-file".into());
    }
    if authority.host().is_empty() {
        return Err(bad("a host is needed"));
    }
    if parsed.path() != "/" || parsed.query().is_some() {
        return Err(bad("nothing may stand behind the port"));
    }
    let port = match authority.as_str().strip_prefix(authority.host()) {
        Some("") => PORT,
        _ => authority.port_u16().filter(|&port| port > 0).ok_or_else(|| bad("a port is a number from 1 to 65535"))?,
    };
    Ok(format!("{scheme}://{}:{port}", authority.host()))
}

fn user(name: Option<String>, file: Option<PathBuf>) -> Result<Option<(String, PathBuf)>, String> {
    match (name, file) {
        (Some(name), Some(_)) if name.is_empty() => Err("--etcd-user: a name is needed".into()),
        (Some(name), Some(file)) => Ok(Some((name, file))),
        (None, None) => Ok(None),
        (Some(_), None) => Err("--etcd-user: --etcd-password-file is needed, too".into()),
        (None, Some(_)) => Err("--etcd-password-file: --etcd-user is needed, too".into()),
    }
}

fn check_files(etcd: &EtcdOptions) -> Result<(), String> {
    let is_secure = etcd.endpoints.iter().any(|url| url.starts_with("https:"));
    match (&etcd.ca, &etcd.cert, &etcd.key) {
        (None, ..) if is_secure => Err("--etcd https://…: --etcd-ca is needed, too".into()),
        (Some(_), ..) if !is_secure => Err("--etcd-ca: no https:// endpoint in --etcd".into()),
        (_, Some(_), None) => Err("--etcd-cert: --etcd-key is needed, too".into()),
        (_, None, Some(_)) => Err("--etcd-key: --etcd-cert is needed, too".into()),
        (_, Some(_), Some(_)) if !is_secure => Err("--etcd-cert: no https:// endpoint in --etcd".into()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Option<ClusterOptions>, String> {
        let mut parser = getopts::Options::new();
        add_to(&mut parser);
        ClusterOptions::read(&parser.parse(line.split(' ').filter(|word| !word.is_empty())).unwrap())
    }

    #[test]
    fn a_whole_command_line() {
        let line = "--etcd https://a,https://[::1]:5 --etcd-user u --etcd-password-file p --etcd-ca c --etcd-cert d --etcd-key k --cluster C";
        let etcd = EtcdOptions {
            endpoints: vec!["https://a:2379".into(), "https://[::1]:5".into()],
            user: Some(("u".into(), "p".into())),
            ca: Some("c".into()),
            cert: Some("d".into()),
            key: Some("k".into()),
        };
        assert_eq!(read(line), Ok(Some(ClusterOptions { etcd, cluster: "C".into() })));
        assert_eq!(read(""), Ok(None));
        assert_eq!(read("--etcd http://a:1/").unwrap().unwrap().cluster, "default");
    }

    #[test]
    fn mistakes_are_named() {
        let many = (1..=17).map(|port| format!("http://a:{port}")).collect::<Vec<_>>().join(",");
        let table = [
            ("--cluster c", "--cluster: --etcd is needed"),
            ("--etcd a:2379", "http:// or https:// is needed, as in http://10.0.0.1:2379"),
            ("--etcd a", "is needed"),
            ("--etcd ftp://a", "http:// or https://"),
            ("--etcd http://", "not a URL"),
            ("--etcd http://a,", "not a URL"),
            ("--etcd http://a:0", "a port is a number"),
            ("--etcd http://a:65536", "as in"),
            ("--etcd http://a:", "a port is a number"),
            ("--etcd http://a/v3", "nothing may stand behind"),
            ("--etcd http://a?b", "nothing may stand behind"),
            ("--etcd http://u:p@a", "--etcd-password-file"),
            ("--etcd http://a,http://a:2379", "http://a:2379 is given twice"),
            (&format!("--etcd {many}"), "more than 16"),
            ("--etcd https://a", "--etcd-ca is needed"),
            ("--etcd http://a --etcd-ca f", "no https://"),
            ("--etcd https://a --etcd-ca f --etcd-cert c", "--etcd-key is needed"),
            ("--etcd https://a --etcd-ca f --etcd-key c", "--etcd-cert is needed"),
            ("--etcd http://a --etcd-cert f --etcd-key c", "no https://"),
            ("--etcd http://a --etcd-user u", "--etcd-password-file is needed"),
            ("--etcd http://a --etcd-password-file u", "--etcd-user is needed"),
            ("--etcd http://a --cluster a/b", "--cluster \"a/b\": a name has 1 to 63 of"),
        ];
        for (line, part) in table {
            let error = read(line).expect_err(line);
            assert!(error.contains(part) && error.lines().count() == 1, "{line}: {error}");
        }
    }
}
