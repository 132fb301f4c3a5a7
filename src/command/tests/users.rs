//! Files of passwords, and who is admitted.

use super::*;
use std::sync::atomic::{AtomicU32, Ordering};

/// A file with this text, for as long as it is kept.
struct Passwords(PathBuf);

impl Passwords {
    fn new(text: &[u8]) -> Passwords {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("twincache-users-{}-{number}", std::process::id()));
        fs::write(&path, text).expect("a file");
        Passwords(path)
    }
}

impl Drop for Passwords {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn text_users(file: &Passwords) -> Result<Users, String> {
    let users = Users::default();
    users.load(&Config { auth_file: Some(file.0.display().to_string()), ..Config::default() }).map(|()| users)
}

fn sasl_users(text: &[u8]) -> Users {
    let file = Passwords::new(text);
    let users = read_sasl(&file.0, "host").expect("passwords");
    Users { list: Mutex::new(KnownUsers::Sasl { file: file.0.clone(), stamp: None, realm: "host".into(), users }) }
}

#[test]
fn a_text_file() {
    let users = text_users(&Passwords::new(b"user:pass\r\nuser2:pa ss:x\nuser:other\nempty:\n:nobody")).unwrap();
    let admits = |name: &str, password: &str| users.admits_text(name.as_bytes(), password.as_bytes());
    assert!(admits("user", "pass") && admits("user", "other") && admits("user2", "pa ss:x") && admits("empty", ""));
    assert!(!admits("user", "pas") && !admits("user", "passs") && !admits("user", "") && !admits("use", "pass"));
    assert!(!admits("", "") && admits("", "nobody") && !admits("user3", "pass") && !admits("user2", "pa ss"));
    assert!(!users.admits_plain(b"\0user\0pass") && !Users::default().admits_text(b"", b""));
}

#[test]
fn wrong_text_files() {
    for text in ["nocolon", "a:b\n\nc:d\n", "a:b\nlate", &format!("a:{}\n", "x".repeat(LINE_MAX - 2))] {
        let error = text_users(&Passwords::new(text.as_bytes())).unwrap_err();
        assert!(error.ends_with("has a malformed entry. Should be 'user:password'"), "{error}");
    }
    assert!(text_users(&Passwords::new(b"")).is_ok());
    let longest = format!("a:{}\n", "x".repeat(LINE_MAX - 3));
    assert!(text_users(&Passwords::new(longest.as_bytes())).is_ok());
    let error = text_users(&Passwords::new(&vec![b'x'; FILE_MAX as usize + 1])).unwrap_err();
    assert!(error.ends_with("it is larger than 1048576 bytes"), "{error}");
}

#[test]
fn compat_authfile() {
    let nine: String = (1..=9).map(|i| format!("u{i}:p\n")).collect();
    let users = text_users(&Passwords::new((nine + "malformed").as_bytes())).unwrap();
    assert!(users.admits_text(b"u8", b"p") && !users.admits_text(b"u9", b"p"));
}

#[test]
fn a_file_that_turns_bad_changes_nothing() {
    let file = Passwords::new(b"a:1\n");
    let users = text_users(&file).unwrap();
    fs::write(&file.0, "broken").unwrap();
    assert!(users.reload().is_err() && users.admits_text(b"a", b"1"));
    fs::write(&file.0, "b:2").unwrap();
    assert!(users.reload().is_ok() && users.admits_text(b"b", b"2") && !users.admits_text(b"a", b"1"));
}

#[test]
fn compat_plain() {
    let users = sasl_users(b"alice:one:::\nbob@host:two\r\nbob:three\nbob@other:four\nnocolon\n:five\ncarl:");
    let admits = |said: &str| users.admits_plain(said.replace('|', "\0").as_bytes());
    for said in ["|alice|one", "|alice@host|one", "| alice |one", "alice|alice|one", "alice@host|alice|one"] {
        assert!(admits(said), "{said}");
    }
    assert!(admits("|bob|two") && !admits("|bob|three") && admits("|bob@other|four") && !admits("|bob@other|two"));
    for said in ["", "|", "||", "|alice", "|alice|", "|alice|on", "|alice|onee", "|alice|one|", "alice|one", "|x|one"] {
        assert!(!admits(said), "{said}");
    }
    assert!(!admits("bob|alice|one") && !admits("|alice@other|one") && !admits("|carl|") && !admits("|nocolon|"));
}

#[test]
fn what_is_printed_holds_no_password() {
    assert!(!format!("{:?}", sasl_users(b"alice:secret")).contains("secret"));
}

#[test]
fn a_changed_file_is_noticed() {
    let file = Passwords::new(b"a:1\n");
    let list =
        KnownUsers::Sasl { file: file.0.clone(), stamp: stamp(&file.0), realm: String::new(), users: HashMap::new() };
    let users = Users { list: Mutex::new(list) };
    assert!(!users.has_changed());
    fs::write(&file.0, "a:1\nb:2\n").unwrap();
    assert!(users.has_changed());
    users.reload().unwrap();
    assert!(!users.has_changed() && users.admits_plain(b"\0b\x002"));
}
