//! Base64 of binary keys in the meta protocol.
//!
//! The decoder skips foreign characters, as memcached's does: what counts is that a multiple of four
//! characters of the alphabet (padding included) remains, and at least one byte comes out.

use super::token::KEY_MAX;

/// Bytes that [`encode`] makes of the longest key.
pub const ENCODED_MAX: usize = KEY_MAX.div_ceil(3) * 4;

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// In [`DECODE`]: not of the alphabet.
const FOREIGN: u8 = 0xff;

/// In [`DECODE`]: `=`.
const PADDING: u8 = 0xfe;

const DECODE: [u8; 256] = decode_table();

/// Decodes a token into `buffer`; None when it is not base64, or too long for a key.
///
/// It is kept out of its callers, so that these stay small enough to be part of theirs: with it, each request cost 20
/// instructions more.
#[cold]
#[inline(never)]
pub fn decode<'b>(token: &[u8], buffer: &'b mut [u8; KEY_MAX]) -> Option<&'b [u8]> {
    let (mut group, mut in_group, mut padding, mut len) = (0u32, 0, 0, 0);
    for &byte in token {
        let value = DECODE[usize::from(byte)];
        if value == FOREIGN {
            continue;
        }
        if padding > 2 || (padding > 0 && in_group == 0) {
            break;
        }
        padding += usize::from(value == PADDING);
        group = group << 6 | u32::from(if value == PADDING { 0 } else { value });
        in_group = (in_group + 1) % 4;
        if in_group == 0 {
            let count = 3usize.checked_sub(padding).filter(|&n| n > 0)?;
            buffer.get_mut(len..len + count)?.copy_from_slice(&group.to_be_bytes()[1..][..count]);
            len += count;
            group = 0;
        }
    }
    let counted = token.iter().filter(|&&b| DECODE[usize::from(b)] != FOREIGN).count();
    (counted % 4 == 0 && len > 0).then(|| &buffer[..len])
}

/// Appends the base64 of `key` to `out`.
pub fn encode(key: &[u8], out: &mut Vec<u8>) {
    for chunk in key.chunks(3) {
        let group = chunk.iter().fold(0u32, |g, &b| g << 8 | u32::from(b)) << (8 * (3 - chunk.len()));
        for i in 0..4 {
            let digit = ALPHABET[(group >> (18 - 6 * i)) as usize & 63];
            out.push(if i > chunk.len() { b'=' } else { digit });
        }
    }
}

const fn decode_table() -> [u8; 256] {
    let mut table = [FOREIGN; 256];
    let mut i = 0;
    while i < ALPHABET.len() {
        table[ALPHABET[i] as usize] = i as u8;
        i += 1;
    }
    table[b'=' as usize] = PADDING;
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(token: &[u8]) -> Option<Vec<u8>> {
        decode(token, &mut [0; KEY_MAX]).map(<[u8]>::to_vec)
    }

    #[test]
    fn every_length_round_trips() {
        for len in 1..=186usize {
            let key: Vec<u8> = (0..len).map(|i| (i * 37 + len) as u8).collect();
            let mut text = Vec::new();
            encode(&key, &mut text);
            assert!(text.len() <= ENCODED_MAX);
            assert_eq!(decoded(&text), Some(key));
        }
    }

    #[test]
    fn what_is_not_base64() {
        assert_eq!(decoded(b"Zm9v!!!!"), Some(b"foo".to_vec()));
        for bad in [b"Zm9".as_slice(), b"====", b"", b"!!!!", b"a===", b"Zm9vY"] {
            assert_eq!(decoded(bad), None, "{}", bad.escape_ascii());
        }
        assert_eq!(decoded(&[b'A'; 250]), None);
        assert_eq!(decoded(&[b'A'; 248]).map(|k| k.len()), Some(186));
    }
}
