//! Lines whose end has not come, and how long they may be.
//!
//! Not here: their bytes (`buffer`).

/// A line that takes more memory than this is counted as long, see [`LineFate::of`].
pub(crate) const LONG_LINE: usize = 64 << 10;

/// memcached's bound on a line without its end.
pub(super) const LINE_MAX: usize = 2048;

/// Spaces skipped before the command word of a line that is longer.
const LEADING_SPACES_MAX: usize = 100;

/// Bound on a get or gets line, which memcached does not bound: 60,000 of the longest keys. What lines of many clients
/// take together is bounded by `worker/budget`.
pub(crate) const GET_LINE_MAX: usize = 16 << 20;

/// memcached's answer when a get line finds no memory to grow.
pub(crate) const LINE_TOO_LONG: &[u8] = b"SERVER_ERROR out of memory reading request\r\n";

/// What becomes of a line whose end has not come.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum LineFate {
    /// The rest is waited for.
    Wait,
    /// It is answered [`LINE_TOO_LONG`], and the connection is closed.
    Refuse,
    /// The connection is closed.
    Close,
}

impl LineFate {
    /// Of this one. `is_tight` says that connections hold so much that a line may not become longer than [`LONG_LINE`].
    // COMPAT(long_line): beyond 2048 bytes only get and gets may go on, after at most 100 spaces.
    pub(crate) fn of(line: &[u8], is_tight: bool) -> LineFate {
        if line.len() <= LINE_MAX {
            return LineFate::Wait;
        }
        let word = line.iter().position(|&b| b != b' ').unwrap_or(line.len());
        let is_get = line[word..].starts_with(b"get ") || line[word..].starts_with(b"gets ");
        match is_get && word <= LEADING_SPACES_MAX {
            true if line.len() > GET_LINE_MAX => LineFate::Refuse,
            true if line.len() > LONG_LINE && is_tight => LineFate::Refuse,
            true => LineFate::Wait,
            false => LineFate::Close,
        }
    }
}
