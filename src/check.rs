//! `--check`: whether a server would start with these options, without starting one.
//!
//! ```text
//!   options > key and certificates > memory > open files, user > file of items > passwords > addresses > -c
//! ```
//!
//! The steps are those of a start, in its order, as the same user; but each one is done whatever the others have found, and
//! each fault is a line. Nothing is kept, and nothing of a running server is touched: its addresses are in use.
//!
//! Not here: the steps themselves (`config`, `process`, `net`, `tls`, `store`, `command`).

use crate::command::Users;
use crate::config::{Config, Exit};
use crate::net;
use crate::process;
use crate::store::Store;
use crate::tls::ServerTls;
use std::path::Path;

/// Looks for all that would keep a server from starting. The exit code is that of a start.
pub fn check(config: &Config) -> Exit {
    let mut faults = Vec::new();
    if config.tls.enabled {
        faults.extend(ServerTls::new(&config.tls).err().map(Exit::usage));
    }
    faults.extend(process::check_rights(config));
    let file = Store::check_file(&config.store);
    faults.extend(file.as_ref().err().map(|line| Exit::refuse(1, line.clone())));
    faults.extend(Users::default().load(config).err().map(|line| Exit::refuse(1, line)));
    faults.extend(net::check_addresses(config).into_iter().map(|error| Exit::refuse(error.exit_code, error.message)));
    let warnings = config.warnings.iter().cloned().chain(process::memory_warning(config)).chain(pidfile(config));
    let warnings: String = warnings.chain(file.into_iter().flatten()).map(|line| line + "\n").collect();
    match faults.first().map(|exit| exit.code) {
        None => Exit { code: 0, stdout: "a server would start with these options\n".into(), stderr: warnings },
        Some(code) => {
            let lines: String = faults.iter().map(|exit| exit.stderr.as_str()).collect();
            Exit { code, stdout: String::new(), stderr: warnings + &lines }
        }
    }
}

/// A start goes without the file of -P where it has to.
fn pidfile(config: &Config) -> Option<String> {
    let path = config.pidfile.as_ref()?;
    let folder = Path::new(path).parent().filter(|folder| !folder.as_os_str().is_empty())?;
    (!folder.is_dir()).then(|| format!("-P {path}: there is no such folder"))
}
