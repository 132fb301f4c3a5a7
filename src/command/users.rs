//! Who may log in, and with what password.
//!
//! ```text
//! -Y file                  user:password, up to 8 lines; read again when told (SIGHUP)
//! -S MEMCACHED_SASL_PWDB   user[@realm]:password[:anything], read again when told and when it has changed
//! ```
//!
//! A file that cannot be read again, or is wrong, leaves who was known. Passwords are compared in a time that does not
//! tell how much of them is right, and are never printed.
//!
//! Invariant: a server that was told to ask for passwords and knows nobody admits nobody.
//!
//! Not here: how clients say who they are (`auth`), when files are read again (`main`).

use crate::config::Config;
use crate::sync::lock;
use std::collections::HashMap;
use std::fs::{self, File};
use std::hint::black_box;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::SystemTime;

/// Lines of a `-Y` file that count, as in memcached.
const LINES_MAX: usize = 8;

/// Longest line of a `-Y` file, its end included, as in memcached.
const LINE_MAX: usize = 255;

/// Larger files of passwords are refused: no list of users is so long, and all of it is kept in memory.
const FILE_MAX: u64 = 1 << 20;

/// Where memcached looks for its SASL configuration where `SASL_CONF_PATH` does not say it.
const SASL_PLACES: [&str; 2] = ["/etc/sasl", "/etc/sasl2"];

/// The only SASL mechanism.
pub(super) const MECHANISM: &str = "PLAIN";

/// See the module's head.
#[derive(Debug, Default)]
pub struct Users {
    list: Mutex<KnownUsers>,
}

#[derive(Default)]
enum KnownUsers {
    /// Nobody.
    #[default]
    Empty,
    Text {
        file: PathBuf,
        /// A user may have several passwords.
        users: Vec<TextUser>,
    },
    Sasl {
        file: PathBuf,
        stamp: Stamp,
        /// What completes names without `@`.
        realm: String,
        /// Passwords, with what may follow them, by complete name.
        users: HashMap<Vec<u8>, Vec<u8>>,
    },
}

/// Says nothing of users and passwords.
impl std::fmt::Debug for KnownUsers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("KnownUsers")
    }
}

struct TextUser {
    name: Vec<u8>,
    password: Vec<u8>,
}

/// By what a changed file is known: when it was changed, its length, and which file it is.
type Stamp = Option<(SystemTime, u64, u64)>;

impl Users {
    /// Reads what the options ask for. The error is a line for the operator.
    pub fn load(&self, config: &Config) -> Result<(), String> {
        if let Some(file) = &config.auth_file {
            let users = read_text(Path::new(file))?;
            *lock(&self.list) = KnownUsers::Text { file: file.into(), users };
        }
        if config.sasl {
            check_mechanisms()?;
            let file: PathBuf = std::env::var_os("MEMCACHED_SASL_PWDB")
                .filter(|path| !path.is_empty())
                .ok_or(
                    "SASL (-S) needs passwords: set MEMCACHED_SASL_PWDB to a file with lines user:password. \
                 sasldb, saslauthd and other sources of libsasl are not built in.",
                )?
                .into();
            *lock(&self.list) = KnownUsers::read_sasl(file, host_name())?;
        }
        Ok(())
    }

    /// Reads the files again. On an error who was known stays known.
    pub fn reload(&self) -> Result<(), String> {
        // Files are read while nobody waits for the lock.
        let (file, realm) = match &*lock(&self.list) {
            KnownUsers::Empty => return Ok(()),
            KnownUsers::Text { file, .. } => (file.clone(), None),
            KnownUsers::Sasl { file, realm, .. } => (file.clone(), Some(realm.clone())),
        };
        let now = stamp(&file);
        let fresh = match realm {
            None => read_text(&file).map(|users| KnownUsers::Text { file, users }),
            Some(realm) => KnownUsers::read_sasl(file, realm),
        };
        let mut list = lock(&self.list);
        if let (Err(_), KnownUsers::Sasl { stamp: seen, .. }) = (&fresh, &mut *list) {
            // It is not complained of again each second.
            *seen = now;
        }
        *list = fresh?;
        Ok(())
    }

    /// Whether a file has changed that is followed without being told.
    pub fn has_changed(&self) -> bool {
        let (file, seen) = match &*lock(&self.list) {
            KnownUsers::Sasl { file, stamp, .. } => (file.clone(), *stamp),
            _ => return false,
        };
        stamp(&file) != seen
    }

    /// Whether this is a user of the `-Y` file.
    pub(super) fn admits_text(&self, name: &[u8], password: &[u8]) -> bool {
        let list = lock(&self.list);
        let KnownUsers::Text { users, .. } = &*list else { return false };
        // All are looked at, whoever it is.
        users.iter().fold(false, |found, user| found | (same(name, &user.name) & same(password, &user.password)))
    }

    /// Whether SASL's PLAIN admits a client that says this: `[authzid] NUL name NUL password`.
    // COMPAT(plain): blanks around the name do not count, and nobody may act as somebody else.
    pub(super) fn admits_plain(&self, said: &[u8]) -> bool {
        let mut parts = said.split(|&byte| byte == 0);
        let (Some(acts_as), Some(name), Some(password), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return false;
        };
        let list = lock(&self.list);
        let KnownUsers::Sasl { realm, users, .. } = &*list else { return false };
        let name = complete(name, realm);
        let acts_as_itself = acts_as.is_empty() || complete(acts_as, realm) == name;
        let entry = users.get(&name);
        // Somebody who is not known takes as long.
        let kept = entry.map_or(b"\n".as_slice(), Vec::as_slice);
        let is_right = starts_same(password, kept) && matches!(kept.get(password.len()), None | Some(b':'));
        entry.is_some() && acts_as_itself && !password.is_empty() && is_right
    }
}

impl KnownUsers {
    fn read_sasl(file: PathBuf, realm: String) -> Result<KnownUsers, String> {
        // A change in between shows in the next look.
        let stamp = stamp(&file);
        let users = read_sasl(&file, &realm)?;
        Ok(KnownUsers::Sasl { file, stamp, realm, users })
    }
}

/// A name with its realm.
fn complete(name: &[u8], realm: &str) -> Vec<u8> {
    let name = name.trim_ascii();
    match name.contains(&b'@') || realm.is_empty() {
        true => name.to_vec(),
        false => [name, b"@", realm.as_bytes()].concat(),
    }
}

/// Compares in a time that depends on the length of `given` alone.
fn same(given: &[u8], kept: &[u8]) -> bool {
    starts_same(given, kept) & (given.len() == kept.len())
}

/// Whether `kept` starts with `given`, in a time that depends on the length of `given` alone.
fn starts_same(given: &[u8], kept: &[u8]) -> bool {
    let mut differs = given.len() > kept.len();
    for (i, byte) in given.iter().enumerate() {
        let other = if kept.is_empty() { 0 } else { kept[i % kept.len()] };
        differs = black_box(differs | (*byte != other));
    }
    !differs
}

/// A `-Y` file.
// COMPAT(authfile): lines after the eighth do not count, and are not even read.
fn read_text(path: &Path) -> Result<Vec<TextUser>, String> {
    let shown = path.display();
    let text = read(path)
        .map_err(|error| format!("Could not open authfile [{shown}] for reading, error {}", reason(&error)))?;
    let lines = text.split_inclusive(|&byte| byte == b'\n').take(LINES_MAX);
    lines
        .map(|line| parse_user(line).ok_or(()))
        .collect::<Result<_, ()>>()
        .map_err(|()| format!("Authfile [{shown}] has a malformed entry. Should be 'user:password'"))
}

fn parse_user(line: &[u8]) -> Option<TextUser> {
    let line = if line.len() > LINE_MAX { return None } else { without_end(line) };
    let colon = line.iter().position(|&byte| byte == b':')?;
    Some(TextUser { name: line[..colon].into(), password: line[colon + 1..].into() })
}

/// A file of `MEMCACHED_SASL_PWDB`. Of lines for the same name the first counts.
fn read_sasl(path: &Path, realm: &str) -> Result<HashMap<Vec<u8>, Vec<u8>>, String> {
    let text = read(path).map_err(|error| {
        let reason = reason(&error);
        format!("cannot read the passwords in {} (MEMCACHED_SASL_PWDB): {reason}", path.display())
    })?;
    let mut users = HashMap::new();
    for line in text.split(|&byte| byte == b'\n') {
        let line = without_end(line);
        if let Some(colon) = line.iter().position(|&byte| byte == b':') {
            users.entry(complete(&line[..colon], realm)).or_insert_with(|| line[colon + 1..].to_vec());
        }
    }
    Ok(users)
}

fn without_end(line: &[u8]) -> &[u8] {
    let end = line.iter().position(|byte| matches!(byte, b'\r' | b'\n' | 0)).unwrap_or(line.len());
    &line[..end]
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(FILE_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_MAX {
        return Err(io::Error::other(format!("it is larger than {FILE_MAX} bytes")));
    }
    Ok(bytes)
}

/// The system's own words, without the number that Rust adds.
fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error ").next().unwrap_or_default().to_owned()
}

fn stamp(path: &Path) -> Stamp {
    use std::os::unix::fs::MetadataExt;
    let about = fs::metadata(path).ok()?;
    Some((about.modified().ok()?, about.len(), about.ino()))
}

/// The realm of names without one, as in memcached.
fn host_name() -> String {
    fs::read_to_string("/proc/sys/kernel/hostname").map_or_else(|_| String::new(), |name| name.trim().to_owned())
}

/// Looks whether the SASL configuration, if there is one, allows the mechanism that is built in.
fn check_mechanisms() -> Result<(), String> {
    let Some((path, text)) = sasl_configuration() else { return Ok(()) };
    let of_line = |line: &str| {
        let (name, value) = line.split_once(':')?;
        (name.trim() == "mech_list").then(|| value.to_owned())
    };
    let Some(list) = text.lines().find_map(of_line) else { return Ok(()) };
    if list.split_whitespace().any(|word| word.eq_ignore_ascii_case(MECHANISM)) {
        return Ok(());
    }
    Err(format!("{}: mech_list does not name {MECHANISM}, the only SASL mechanism that is built in", path.display()))
}

/// The first `memcached.conf` where SASL's is looked for.
fn sasl_configuration() -> Option<(PathBuf, String)> {
    let given = std::env::var("SASL_CONF_PATH").unwrap_or_default();
    let given = given.split(':').filter(|place| !place.is_empty());
    let places: Vec<&Path> = given.map(Path::new).chain(SASL_PLACES.map(Path::new)).collect();
    places.into_iter().find_map(|place| {
        let path = if place.is_dir() { place.join("memcached.conf") } else { place.to_path_buf() };
        fs::read_to_string(&path).ok().map(|text| (path, text))
    })
}

#[cfg(test)]
#[path = "tests/users.rs"]
mod tests;
