//! Numbers and words of a line, good and bad.

use super::*;

#[test]
fn cuts_at_spaces_only() {
    let tokens = Tokens::new(b"set  a\tb \0 noreply  ");
    assert_eq!(tokens.as_slice(), [b"set".as_slice(), b"a\tb", b"\0", b"noreply"]);
    assert!(tokens.ends_with_noreply());
    assert_eq!(tokens.get(4), None);
    let long = vec![b"x".as_slice(); 40].join(&b' ');
    assert_eq!(Tokens::new(&long).as_slice().len(), TOKENS_MAX);
    assert_eq!(words(&long).count(), 40);
}

#[test]
fn words_end_at_spaces_and_control_characters() {
    let mut random = 1_u64;
    for case in 0..20_000 {
        let text: Vec<u8> = (0..case % 27)
            .map(|_| {
                random = random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
                [b' ', b'!', 0, 0x1f, 0x7f, 0x80, 0xa0, 0xff, b'a', b'b', b'c', b'd', b'e', b'f', b'g', b'h']
                    [if random >> 40 & 7 == 0 { random >> 60 } else { 4 + (random >> 60) % 12 } as usize]
            })
            .collect();
        let expected = text.iter().position(|&byte| byte <= b' ').unwrap_or(text.len());
        assert_eq!(word_len(&text), expected, "{}", text.escape_ascii());
        let words = text.split(|&byte| byte == b' ').filter(|word| !word.is_empty());
        assert!(words.eq(super::words(&text)), "{}", text.escape_ascii());
    }
}

#[test]
fn strict_numbers() {
    assert_eq!(strict_u32(b"4294967295"), Some(u32::MAX));
    assert_eq!(strict_u32(b"00000000007"), Some(7));
    for bad in [b"".as_slice(), b"+5", b" 5", b"-1", b"5 ", b"4294967296", b"000000000007", b"abc"] {
        assert_eq!(strict_u32(bad), None, "{:?}", bad.escape_ascii().to_string());
    }
    assert_eq!(strict_u64(b"18446744073709551615"), Some(u64::MAX));
    assert_eq!(strict_u64(b"18446744073709551616"), None);
    assert_eq!(strict_i32(b"-2147483648"), Some(i32::MIN));
    assert_eq!(strict_i32(b"2147483648"), None);
    assert_eq!(strict_i64(b"-9223372036854775808"), Some(i64::MIN));
    for bad in [b"-".as_slice(), b"", b"--1", b"+1"] {
        assert_eq!(strict_i64(bad), None);
    }
}

#[test]
fn compat_c_flags() {
    assert_eq!(c_flags(b"4294967295"), Some(u32::MAX));
    assert_eq!(c_flags(b"4294967296"), Some(0));
    assert_eq!(c_flags(b"+7"), Some(7));
    assert_eq!(c_flags(b"\t7"), Some(7));
    assert_eq!(c_flags(b"-18446744073709551615"), Some(1));
    for bad in [b"-1".as_slice(), b"abc", b"", b"7a", b"99999999999999999999", b"-", b"+"] {
        assert_eq!(c_flags(bad), None);
    }
}

#[test]
fn compat_c_exptime() {
    assert_eq!(c_exptime(b"2147483648"), Some(i32::MIN));
    assert_eq!(c_exptime(b"4294967296"), Some(0));
    assert_eq!(c_exptime(b"-1"), Some(-1));
    assert_eq!(c_exptime(b"-9223372036854775808"), Some(0));
    assert_eq!(c_exptime(b"9223372036854775808"), None);
}

#[test]
fn decimals() {
    for number in [0, 7, 10, 99, 12345678909, u64::MAX] {
        assert_eq!(decimal(number, &mut [0; DIGITS_MAX]), number.to_string().as_bytes());
    }
}

#[test]
fn stored_numbers() {
    assert_eq!(stored_number(b" 10 "), Some(10));
    assert_eq!(stored_number(b"10 abc"), Some(10));
    assert_eq!(stored_number(b"+5"), Some(5));
    assert_eq!(stored_number(b"18446744073709551615"), Some(u64::MAX));
    for bad in [b"".as_slice(), b" ", b"-1", b"1.5", b"abc", b"18446744073709551616", b"10a"] {
        assert_eq!(stored_number(bad), None);
    }
}
