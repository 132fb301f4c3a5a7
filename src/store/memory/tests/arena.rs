//! Windows and regions: growth, bounds, and what is forgotten.

use super::*;

#[test]
fn a_window_grows_and_forgets() {
    let mut window = Window::new(1 << 20, None, true).unwrap();
    assert!(window.extend(8192));
    assert!(!window.extend((1 << 20) + 1));
    window.bytes_mut(4096, 4).copy_from_slice(b"abcd");
    window.copy(4096, 100, 4);
    assert_eq!(window.bytes(100, 4), b"abcd");
    window.header_mut(ItemId(1024 / 8)).expires_at = 7;
    assert_eq!(window.header(ItemId(1024 / 8)).expires_at, 7);
    window.discard(4096, 4096);
    assert_eq!(window.bytes(4096, 4), [0; 4]);
    assert_eq!(window.lend(100, 4).bytes(), b"abcd");
}

#[test]
#[should_panic(expected = "corrupt")]
fn an_id_outside_stops_the_process() {
    let mut window = Window::new(1 << 20, None, true).unwrap();
    assert!(window.extend(4096));
    window.header(ItemId((1 << 20) / 8 - 1));
}

#[test]
fn an_item_has_a_cas_between_header_and_key_or_no_place_for_one() {
    for (has_cas, key_at) in [(true, 32), (false, 24)] {
        let mut window = Window::new(1 << 20, None, has_cas).unwrap();
        assert!(window.extend(8192));
        let id = ItemId(4096 / 8);
        window.bytes_mut(4096, 40).fill(0xee);
        *window.header_mut(id) = ItemHeader::default();
        window.set_cas(id, 7);
        assert_eq!((window.key_at, window.cas(id)), (key_at, if has_cas { 7 } else { 0 }));
        assert_eq!(window.bytes(4096 + key_at, 40 - key_at), &[0xee; 16][..40 - key_at]);
        let chunk = Chunk { key_len: 5, state: super::super::layout::state::CLIENT_FLAGS, ..Chunk::default() };
        assert_eq!(window.value_at(&chunk), key_at + 9);
    }
}

#[test]
fn a_region_is_zero_at_first() {
    let mut region: Region<Chunk> = Region::new(1024).unwrap();
    assert!(region.extend(10));
    assert_eq!(region.get(9).next, ItemId::NONE);
    region.get_mut(9).next = ItemId(3);
    assert!(region.extend(1024));
    assert!(!region.extend(1025));
    assert_eq!(region.get(9).next, ItemId(3));
    assert_eq!(region.len(), 1024);
}

#[test]
fn nobody_waits_for_memory_that_will_not_be_got() {
    let capacity = 6 * ALIGN + ALIGN / 2;
    for page in [ALIGN / 2, ALIGN, 4 * ALIGN] {
        let mut window = Window::new(capacity, None, true).unwrap();
        window.prefer_huge_pages();
        let mut waits = 0;
        for end in (page..=capacity + page).step_by(page) {
            while !window.is_ready(end) {
                waits += 1;
                let stretch = window.next_stretch().expect("what is waited for is got");
                assert!(window.adopt(&stretch, stretch.populate()));
            }
            assert_eq!(window.extend(end), end <= capacity);
        }
        assert!(waits > 0 || page > ALIGN, "pages of {page} bytes");
        assert!(window.is_ready(usize::MAX), "beyond the end");
    }
}
