//! Lines of other servers, as they come and as they should not.

use super::*;
use crate::ctl::key_list::wanted;

#[test]
fn lines_of_the_list() {
    let read = |line: &str| wanted(line.as_bytes()).map(|wanted| (wanted.key, wanted.expires_at));
    let old = "key=fo%20o%0d%0A%00 exp=-1 la=1 cas=2 fetch=no cls=1 size=66";
    assert_eq!(read(old), Some((b"fo o\r\n\0".to_vec(), 0)));
    assert_eq!(
        read("key=a exp=1795896264 la=1 cas=2 fetch=no cls=1 size=42 flags=7 "),
        Some((b"a".to_vec(), 1795896264))
    );
    let long = format!("key={} exp=1", "k".repeat(251));
    for bad in ["", "ERROR", "key= exp=1", "key=a", "key=%2 exp=1", "key=%zz exp=1", "key=a exp=x", &long] {
        assert_eq!(read(bad), None, "{bad}");
    }
}

#[test]
fn nothing_lives_longer_for_having_been_dumped() {
    let now = 1_800_000_000;
    let expiry = |left, listed, now: i64| expiry(left, listed, &(now..=now));
    assert_eq!(expiry(-1, 0, now), Expiry::NEVER);
    assert_eq!(expiry(100, now + 101, now), Expiry::at(now + 101, now), "the list is exact");
    assert_eq!(expiry(100, now + 99, now), Expiry::at(now + 100, now), "it was touched since it was listed");
    assert_eq!(expiry(100, now + 5000, now), Expiry::at(now + 100, now));
    assert_eq!(expiry(i64::MAX, 0, now), Expiry::at(i64::MAX, now));
}

#[test]
fn a_slow_dump_shortens_no_life() {
    let (asked, read) = (1_800_000_000, 1_800_000_060);
    let expiry = |left, listed| super::expiry(left, listed, &(asked..=read));
    assert_eq!(expiry(100, asked + 130), Expiry::at(asked + 130, asked), "it was answered after half a minute");
    assert_eq!(expiry(100, asked + 99), Expiry::at(asked + 100, asked), "it was touched");
    assert_eq!(expiry(100, read + 104), Expiry::at(asked + 100, asked), "it was touched");
}

#[test]
fn answers_with_values() {
    let wanted = ListedKey { key: b"k".to_vec(), expires_at: 0 };
    let read = |line: &str| DumpedItem::parse(line.as_bytes(), &wanted, 1_800_000_000..=1_800_000_000);
    let found = read("VA 3 f7 t-1 c9 W X b").expect("a hit");
    assert_eq!((found.len, found.client_flags, found.cas), (3, 7, Some(9)));
    assert!(found.is_stale && found.is_win && found.is_binary && !found.is_renewed);
    for bad in ["", "VA", "VA x", "VA 3 fx", "VA 3 t1.5", "VA -1", "SERVER_ERROR not primary"] {
        assert!(read(bad).is_none(), "{bad}");
    }
}
