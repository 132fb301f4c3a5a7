//! The file with options, as a shell would read it.
//!
//! ```text
//!   # comment
//!   TWINCACHE_ETCD=https://10.0.0.1:2379,https://10.0.0.2:2379
//!   TWINCACHE_ETCD_CA="/etc/ssl/etcd ca.pem"
//! ```
//!
//! The name of a variable is that of its option in capitals, after `TWINCACHE_`. Nothing is expanded.
//!
//! Invariant: a line that is not understood is a mistake and not left out: what it says might matter.

use crate::cluster::options::OPTIONS;
use std::collections::BTreeMap;
use std::io::ErrorKind;

/// The file, unless the command line names another.
pub(super) const FILE: &str = "/etc/default/twincachectl";

/// What the variables of the options begin with.
const PREFIX: &str = "TWINCACHE_";

/// The variables of the file.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Defaults(BTreeMap<String, String>);

/// The variable of an option.
pub(super) fn variable(option: &str) -> String {
    format!("{PREFIX}{}", option.to_uppercase().replace('-', "_"))
}

impl Defaults {
    /// Reads this file, which must be there, or the usual one if it is there.
    pub(super) fn read(file: Option<&str>) -> Result<Defaults, String> {
        let path = file.unwrap_or(FILE);
        match std::fs::read_to_string(path) {
            Ok(text) => Defaults::parse(&text).map_err(|(line, why)| format!("{path}, line {line}: {why}")),
            Err(error) if file.is_none() && error.kind() == ErrorKind::NotFound => Ok(Defaults::default()),
            Err(error) => Err(format!("{path}: {error}")),
        }
    }

    /// The value of a variable.
    pub(super) fn get(&self, name: &str) -> Option<String> {
        self.0.get(name).cloned()
    }

    fn parse(text: &str) -> Result<Defaults, (usize, String)> {
        let mut found = BTreeMap::new();
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (name, value) = assignment(line).map_err(|why| (number, why))?;
            if name.starts_with(PREFIX) && !OPTIONS.iter().any(|row| variable(row.name) == name) {
                let names: Vec<String> = OPTIONS.iter().map(|row| variable(row.name)).collect();
                return Err((number, format!("what is {name}? There are {}", names.join(", "))));
            }
            found.insert(name.to_owned(), value);
        }
        Ok(Defaults(found))
    }
}

fn assignment(line: &str) -> Result<(&str, String), String> {
    let line = line.strip_prefix("export ").unwrap_or(line).trim_start();
    let is_name = |name: &str| !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    match line.split_once('=') {
        Some((name, value)) if is_name(name) => Ok((name, value_of(value)?)),
        _ => Err("NAME=value is needed".to_owned()),
    }
}

/// A value without its quotes, and without the comment after it.
fn value_of(text: &str) -> Result<String, String> {
    let quote = text.chars().next().filter(|first| "'\"".contains(*first));
    let (value, rest) = match quote {
        Some(quote) => text[1..].split_once(quote).ok_or("a quote has no end")?,
        None => text.split_at(text.find(char::is_whitespace).unwrap_or(text.len())),
    };
    let rest_is_fine = rest.trim_start().is_empty() || rest.trim_start().starts_with('#') && rest.starts_with(' ');
    let is_plain = !value.contains(['$', '`', '\\']) && (quote.is_some() || !value.contains(['\'', '"']));
    match rest_is_fine && (is_plain || quote == Some('\'')) {
        true => Ok(value.to_owned()),
        false => Err("one value is needed, in quotes if it has blanks; $, ` and \\ are not expanded".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_file() {
        let text = "# etcd\n\nTWINCACHE_ETCD=http://a,http://b # two\n export TWINCACHE_ETCD_CA=\"/a b/c#d\"\n\
            TWINCACHE_ETCD_USER='$x'\nTWINCACHE_CLUSTER=\nPATH=/bin\n";
        let found = Defaults::parse(text).unwrap();
        let get = |name: &str| found.get(&variable(name));
        assert_eq!(get("etcd").as_deref(), Some("http://a,http://b"));
        assert_eq!(get("etcd-ca").as_deref(), Some("/a b/c#d"));
        assert_eq!(get("etcd-user").as_deref(), Some("$x"));
        assert_eq!((get("cluster").as_deref(), get("etcd-key")), (Some(""), None));
    }

    #[test]
    fn mistakes_are_named() {
        let table = [
            ("\nnonsense", 2, "NAME=value"),
            ("=x", 1, "NAME=value"),
            ("TWINCACHE_CLUSTER=a b", 1, "one value"),
            ("TWINCACHE_CLUSTER=\"a", 1, "no end"),
            ("TWINCACHE_CLUSTER=\"a\"b", 1, "one value"),
            ("TWINCACHE_CLUSTER=$HOST", 1, "not expanded"),
            ("TWINCACHE_CLUSTER=\"$HOST\"", 1, "not expanded"),
            ("TWINCACHE_CLUSTER=a\"b\"", 1, "one value"),
            ("TWINCACHE_ETDC=http://a", 1, "what is TWINCACHE_ETDC? There are TWINCACHE_ETCD,"),
        ];
        for (text, number, part) in table {
            let (line, why) = Defaults::parse(text).expect_err(text);
            assert!(line == number && why.contains(part), "{text}: {line}: {why}");
        }
        let error = Defaults::read(Some("/nonexistent/file")).unwrap_err();
        assert!(error.starts_with("/nonexistent/file: "), "{error}");
    }
}
