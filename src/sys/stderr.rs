//! Writing to stderr without waiting for whoever reads it, and no more than fits into a line of a terminal there.

use super::check;
use std::io;
use std::time::Duration;

/// What a pipe takes for certain, if it takes anything.
const AT_ONCE: usize = 4096;

/// Writes to stderr as far as it takes something within `patience`. False: not everything was written. Allocates nothing.
/// Call it from one thread at a time: two might be told of the same room.
pub fn write(mut bytes: &[u8], patience: Duration) -> bool {
    while !bytes.is_empty() {
        let piece = &bytes[..bytes.len().min(AT_ONCE)];
        let written = has_room(patience).and_then(|()| write_some(piece));
        match written {
            Ok(n) if n > 0 => bytes = &bytes[n..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            _ => return false,
        }
    }
    true
}

/// As much of a text as fits into a line of the terminal at stderr, and leaves its last column free: there some terminals
/// go on to the next line, and that could not be taken away again. All of it, if that is no terminal or tells no width.
pub fn fitting(text: &str) -> &str {
    columns().map_or(text, |columns| first(text, columns - 1))
}

/// The width of the terminal at stderr.
fn columns() -> Option<usize> {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the size outlives the call.
    let found = unsafe { libc::ioctl(libc::STDERR_FILENO, libc::TIOCGWINSZ, &raw mut size) };
    (found == 0 && size.ws_col > 0).then(|| size.ws_col.into())
}

fn first(text: &str, characters: usize) -> &str {
    text.char_indices().nth(characters).map_or(text, |(end, _)| &text[..end])
}

fn has_room(patience: Duration) -> io::Result<()> {
    let mut stderr = libc::pollfd { fd: libc::STDERR_FILENO, events: libc::POLLOUT, revents: 0 };
    // SAFETY: one entry, which outlives the call.
    let ready = unsafe { libc::poll(&raw mut stderr, 1, patience.as_millis() as libc::c_int) };
    check(ready)?;
    if stderr.revents & libc::POLLOUT != 0 { Ok(()) } else { Err(io::ErrorKind::WouldBlock.into()) }
}

fn write_some(bytes: &[u8]) -> io::Result<usize> {
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: the bytes outlive the call.
    let mut n = unsafe { libc::send(libc::STDERR_FILENO, bytes.as_ptr().cast(), bytes.len(), flags) };
    if n == -1 && io::Error::last_os_error().raw_os_error() == Some(libc::ENOTSOCK) {
        // SAFETY: as above.
        n = unsafe { libc::write(libc::STDERR_FILENO, bytes.as_ptr().cast(), bytes.len()) };
    }
    usize::try_from(n).map_err(|_| io::Error::last_os_error())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_cut_between_characters() {
        let cut = [0, 1, 2, 3, 9].map(|most| first("aé€", most));
        assert_eq!(cut, ["", "a", "aé", "aé€", "aé€"]);
    }
}
