//! Lines whose end has not come, and how long they may be.
//!
//! Not here: their bytes (`buffer`).

/// A line that takes more memory than this is counted as long, see [`LineFate::of`].
pub(crate) const LONG_LINE: usize = 64 << 10;

/// memcached's bound on a line without its end.
const LINE_MAX: usize = 2048;

/// Spaces skipped before the command word of a line that is longer.
const LEADING_SPACES_MAX: usize = 100;

/// Bound on a get or gets line, which memcached does not bound: 60,000 of the longest keys, and still little
/// enough that many clients must conspire to make it matter.
pub(crate) const GET_LINE_MAX: usize = 16 << 20;

/// Bound on the memory of a worker's long lines together, beside [`GET_LINE_MAX`] for each: four of the longest.
const GET_LINES_MAX: usize = 4 * GET_LINE_MAX;

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
    /// Of this one, while the worker's other connections hold `long_lines` bytes of lines longer than [`LONG_LINE`].
    // COMPAT(long_line): beyond 2048 bytes only get and gets may go on, after at most 100 spaces.
    pub(crate) fn of(line: &[u8], long_lines: usize) -> LineFate {
        if line.len() <= LINE_MAX {
            return LineFate::Wait;
        }
        let word = line.iter().position(|&b| b != b' ').unwrap_or(line.len());
        let is_get = line[word..].starts_with(b"get ") || line[word..].starts_with(b"gets ");
        match is_get && word <= LEADING_SPACES_MAX {
            true if line.len() > GET_LINE_MAX => LineFate::Refuse,
            true if line.len() > LONG_LINE && long_lines > GET_LINES_MAX => LineFate::Refuse,
            true => LineFate::Wait,
            false => LineFate::Close,
        }
    }
}
