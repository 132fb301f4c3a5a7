//! Memory of a shard: address ranges that are reserved once and made usable bit by bit.
//!
//! ```text
//! Window   | page 0 | page 1 | page 2 | …            up to 32 GiB, never moved
//!            unused   chunks   chunks   not usable
//!          id of a chunk = its byte offset / 8       so 32 bits reach 32 GiB, and 0 can mean "none"
//!
//! Region<T>  | T | T | T | …                          the hash table's lines
//! ```
//!
//! A window can be a part of a file, which is then what outlives the process. The file's blocks are taken before its bytes
//! are made usable, so that a full disk is a refusal and not a signal.
//!
//! Invariants:
//! - (range) a `Map` owns its address range from `reserve` to `release`; bytes below `usable` are readable and
//!   writable and stay so. Every access is checked against `usable`.
//! - (plain) what is read out of the memory as a type is [`Plain`]: any bytes are a value of it.
//! - (lock) a `Window` or `Region` is owned by its shard, so `&` and `&mut` follow the shard's lock. The only
//!   access outside the lock is through a [`Piece`], which covers value bytes of one item: either a pinned one,
//!   whose value bytes nobody writes, or one being uploaded, whose value bytes nobody but the uploader touches.
//!   Chunk and item heads are never part of a `Piece`.
//!
//! Not here: what lies in a page, who may take one.
#![allow(unsafe_code)]

use super::layout::{Bucket, Chunk, ItemHeader, head_bytes};
use super::prefetcher::Prefetcher;
use super::work::LockWork;
use crate::store::ItemId;
use crate::sys::cpu;
use crate::sys::memory::take_blocks;
use std::fs::File;
use std::marker::PhantomData;
use std::ptr::NonNull;
use std::sync::Arc;

/// Bytes per step of an id.
pub(crate) const UNIT: usize = 8;

/// Bytes that 32-bit ids reach.
pub(crate) const WINDOW_MAX: usize = UNIT << 32;

/// Lengths are multiples of the system's page.
const SYSTEM_PAGE: usize = 4096;

/// Ranges begin on this boundary and are made usable in steps of it, so that huge pages fit.
pub(crate) const ALIGN: usize = 2 << 20;

/// Bytes of huge pages that a window has ready: pages for 0.1 s at 40 MB/s.
pub(crate) const WINDOW_AHEAD: usize = 2 * ALIGN;

/// The same of a hash table: for 28 ms at two million new items a second.
const REGION_AHEAD: usize = ALIGN / 4;

/// See [`Window::prefetch_lines`]: what lies beyond has been asked for by the CPU itself when it is needed.
const PREFETCH_MAX: usize = 448;

/// A type of which any bytes are a value.
///
/// # Safety
/// `repr(C)`, no padding, integers only.
pub(crate) unsafe trait Plain: Copy {}

// SAFETY: repr(C), integers only, 16 bytes without padding (asserted there).
unsafe impl Plain for Chunk {}
// SAFETY: repr(C), integers only, 24 bytes without padding (asserted there).
unsafe impl Plain for ItemHeader {}
// SAFETY: repr(C), integers only, 64 bytes without padding (asserted there).
unsafe impl Plain for Bucket {}

/// A part of a file that is the memory of a window.
#[derive(Clone, Debug)]
pub struct FilePart {
    /// The file; nobody else may change it.
    pub file: Arc<File>,
    /// Where the part begins, in multiples of [`ALIGN`].
    pub at: u64,
}

/// A reserved range.
#[derive(Debug)]
struct Map {
    reserved: NonNull<u8>,
    reserved_len: usize,
    base: NonNull<u8>,
    len: usize,
    file: Option<FilePart>,
    usable: usize,
    /// Bytes that are kept ready beyond those in use; 0 without huge pages.
    ahead: usize,
    /// Memory is there up to here, or was not had ahead of need.
    ready: usize,
    /// The bytes in use have come nearer to `ready` than that, and nobody was told.
    asks: bool,
    work: LockWork,
}

// SAFETY: (range) the memory belongs to this value alone, like a Box's.
unsafe impl Send for Map {}
// SAFETY: a shared Map only hands out addresses and lengths.
unsafe impl Sync for Map {}

impl Map {
    fn new(len: usize, file: Option<FilePart>) -> std::io::Result<Map> {
        let len = len.next_multiple_of(SYSTEM_PAGE);
        let reserved_len = len + ALIGN;
        let reserved = reserve(reserved_len)?;
        let skip = reserved.as_ptr().align_offset(ALIGN);
        // SAFETY: `skip` < ALIGN, so this is inside the reserved range.
        let base = unsafe { reserved.add(skip) };
        let (usable, ahead, ready, asks, work) = (0, 0, 0, false, LockWork::default());
        let map = Map { reserved, reserved_len, base, len, file, usable, ahead, ready, asks, work };
        if let Some(part) = &map.file {
            map_file(base, len, &part.file, part.at)?;
        }
        Ok(map)
    }

    /// Makes bytes up to `end` usable; false when the system has no memory or the range ends before.
    fn extend(&mut self, end: usize) -> bool {
        if end <= self.usable {
            return true;
        }
        let stepped = end.next_multiple_of(ALIGN).min(self.len);
        if end > self.len || !self.stretch(self.usable, stepped).commit() {
            return false;
        }
        self.usable = stepped;
        true
    }

    fn stretch(&self, start: usize, end: usize) -> Stretch {
        let file = self.file.as_ref().map(|part| FilePart { at: part.at + start as u64, ..part.clone() });
        Stretch { at: self.at(start), len: end - start, file }
    }

    #[inline]
    fn at(&self, offset: usize) -> NonNull<u8> {
        debug_assert!(offset <= self.len);
        // SAFETY: (range) callers have checked the offset against `usable` or `len`.
        unsafe { self.base.add(offset) }
    }

    #[inline]
    fn check(&self, offset: usize, len: usize) {
        self.work.bytes(len);
        if offset > self.usable || len > self.usable - offset {
            corrupt(offset, len);
        }
    }

    /// [`Map::check`] for the head of a chunk. Neither number comes near overflow, so that one comparison does.
    #[inline]
    fn check_head(&self, id: ItemId, len: usize) {
        self.work.look();
        if offset(id) + len > self.usable {
            corrupt(offset(id), len);
        }
    }

    /// Asks for huge pages from `start` on, and for so many bytes of them ahead of need.
    fn prefer_huge_pages(&mut self, start: usize, ahead: usize) {
        if start < self.len {
            huge(self.at(start), self.len - start);
            (self.ready, self.ahead, self.asks) = (start, ahead, start == 0);
        }
    }

    /// Notes that bytes up to `end` are in use.
    #[inline]
    fn use_up_to(&mut self, end: usize) {
        self.asks |= self.ahead > 0 && end + self.ahead > self.ready;
    }

    fn next_stretch(&self, used: usize) -> Option<Stretch> {
        // What the worker has come to first needs nobody any more.
        let start = self.ready.max(used / ALIGN * ALIGN);
        let end = (start + ALIGN).min(self.len);
        let wanted = self.ahead > 0 && used + self.ahead > self.ready && start < end;
        wanted.then(|| self.stretch(start, end))
    }

    /// Takes back what [`Map::next_stretch`] gave, with its memory if `done`. False when it is another map's.
    fn adopt(&mut self, stretch: &Stretch, done: bool) -> bool {
        let start = (stretch.at.as_ptr() as usize).wrapping_sub(self.base.as_ptr() as usize);
        if start >= self.len {
            return false;
        }
        if !done {
            // The system cannot do it, or has no memory: not again.
            self.ahead = 0;
            return true;
        }
        self.ready = start + stretch.len;
        if start <= self.usable {
            self.usable = self.usable.max(self.ready);
        }
        true
    }

    fn discard(&mut self, offset: usize, len: usize) {
        self.check(offset, len);
        if offset.is_multiple_of(SYSTEM_PAGE) && len.is_multiple_of(SYSTEM_PAGE) {
            discard(self.at(offset), len);
        }
    }
}

#[cold]
#[inline(never)]
fn corrupt(offset: usize, len: usize) -> ! {
    panic!("a corrupt id or length: {offset}+{len}");
}

impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: (range) this is the whole reservation, and its owner is going away.
        unsafe { release(self.reserved, self.reserved_len) };
    }
}

/// The chunks' memory of one shard.
#[derive(Debug)]
pub struct Window {
    map: Map,
    /// Bytes below the end of the last page that was taken.
    used: usize,
    /// Where an item's key begins, from its chunk's begin.
    pub key_at: usize,
}

impl Window {
    /// Reserves `len` bytes, at most [`WINDOW_MAX`], for items with a cas unique or without; of this file if there is one.
    pub fn new(len: usize, file: Option<FilePart>, has_cas: bool) -> std::io::Result<Window> {
        assert!(len <= WINDOW_MAX, "ids reach 32 GiB");
        Ok(Window { map: Map::new(len, file)?, used: 0, key_at: head_bytes(has_cas) })
    }

    /// What is done under the shard's lock.
    #[inline(always)]
    pub fn work(&self) -> &LockWork {
        &self.map.work
    }

    /// Bytes that could be made usable.
    pub fn capacity(&self) -> usize {
        self.map.len
    }

    /// Makes the bytes below `end` usable.
    pub fn extend(&mut self, end: usize) -> bool {
        if end > self.used && self.map.extend(end) {
            self.used = end;
            self.map.use_up_to(end);
        }
        end <= self.used
    }

    /// Asks for huge pages behind the window, but for its begin: a cache that nobody uses takes none.
    pub fn prefer_huge_pages(&mut self) {
        self.map.prefer_huge_pages(ALIGN, WINDOW_AHEAD);
    }

    /// Whether it will soon need memory and [`Window::asked`] was not called.
    #[inline]
    pub fn asks(&self) -> bool {
        self.map.asks
    }

    /// See [`Window::asks`].
    pub fn asked(&mut self) {
        self.map.asks = false;
    }

    /// What to make ready next; nothing before the first page was taken.
    pub fn next_stretch(&self) -> Option<Stretch> {
        if self.used == 0 { None } else { self.map.next_stretch(self.used) }
    }

    /// See [`Map::adopt`].
    pub fn adopt(&mut self, stretch: &Stretch, done: bool) -> bool {
        self.map.adopt(stretch, done)
    }

    /// Whether who needs the bytes below `end` has nobody to wait for: their memory is there, or none will be got ahead.
    pub fn is_ready(&self, end: usize) -> bool {
        end <= self.map.ready.max(self.used) || end > self.capacity() || self.next_stretch().is_none()
    }

    /// Whether its bytes are a file's.
    pub fn is_in_file(&self) -> bool {
        self.map.file.is_some()
    }

    /// How far memory is ready.
    #[cfg(test)]
    pub fn ready(&self) -> usize {
        self.map.ready
    }

    /// Takes memory for the bytes from `offset` on, now.
    pub fn touch(&mut self, offset: usize, len: usize) {
        for at in (offset..offset + len).step_by(SYSTEM_PAGE) {
            self.bytes_mut(at, 1)[0] = 0;
        }
    }

    /// Gives the memory of a range back to the system; it reads as zero from then on.
    pub fn discard(&mut self, offset: usize, len: usize) {
        self.map.discard(offset, len);
    }

    /// The first 16 bytes of any chunk.
    #[inline]
    pub fn chunk(&self, id: ItemId) -> &Chunk {
        self.map.check_head(id, size_of::<Chunk>());
        // SAFETY: (range) checked, 8-aligned as UNIT is; (plain); (lock) `&self`.
        unsafe { self.map.at(offset(id)).cast().as_ref() }
    }

    /// The first 16 bytes of any chunk, to change.
    #[inline]
    pub fn chunk_mut(&mut self, id: ItemId) -> &mut Chunk {
        self.map.check_head(id, size_of::<Chunk>());
        // SAFETY: (range) checked, 8-aligned; (plain); (lock) `&mut self`, and no Piece covers a head.
        unsafe { self.map.at(offset(id)).cast().as_mut() }
    }

    /// The head of an item.
    #[inline]
    pub fn header(&self, id: ItemId) -> &ItemHeader {
        self.map.check_head(id, size_of::<ItemHeader>());
        // SAFETY: (range) checked, 8-aligned; (plain); (lock) `&self`.
        unsafe { self.map.at(offset(id)).cast().as_ref() }
    }

    /// The head of an item, to change.
    #[inline]
    pub fn header_mut(&mut self, id: ItemId) -> &mut ItemHeader {
        self.map.check_head(id, size_of::<ItemHeader>());
        // SAFETY: (range) checked, 8-aligned; (plain); (lock) `&mut self`, and no Piece covers a head.
        unsafe { self.map.at(offset(id)).cast().as_mut() }
    }

    /// Bytes from `offset` on.
    #[inline]
    pub fn bytes(&self, offset: usize, len: usize) -> &[u8] {
        self.map.check(offset, len);
        // SAFETY: (range) checked; (plain) bytes; (lock) `&self`.
        unsafe { std::slice::from_raw_parts(self.map.at(offset).as_ptr(), len) }
    }

    /// Bytes from `offset` on, to change.
    #[inline]
    pub fn bytes_mut(&mut self, offset: usize, len: usize) -> &mut [u8] {
        self.map.check(offset, len);
        // SAFETY: (range) checked; (plain) bytes; (lock) `&mut self`, and the store writes no lent bytes.
        unsafe { std::slice::from_raw_parts_mut(self.map.at(offset).as_ptr(), len) }
    }

    /// Copies `len` bytes inside the window; the two ranges do not overlap.
    pub fn copy(&mut self, from: usize, to: usize, len: usize) {
        self.map.check(from, len);
        self.map.check(to, len);
        assert!(from + len <= to || to + len <= from, "a copy onto itself");
        // SAFETY: (range) both checked, and apart; (lock) `&mut self`.
        unsafe { std::ptr::copy_nonoverlapping(self.map.at(from).as_ptr(), self.map.at(to).as_ptr(), len) }
    }

    /// Lends value bytes to be used outside the lock, see (lock).
    pub fn lend(&self, offset: usize, len: usize) -> Piece {
        self.map.check(offset, len);
        Piece { at: self.map.at(offset), len }
    }

    /// Hints the CPU to fetch an item's head, key and the begin of its value.
    #[inline]
    pub fn prefetch(&self, id: ItemId) {
        let at = self.map.base.as_ptr().wrapping_add(offset(id));
        cpu::prefetch(at);
        cpu::prefetch(at.wrapping_add(64));
    }

    /// Hints the CPU to fetch a chunk's head.
    #[inline]
    pub fn prefetch_head(&self, id: ItemId) {
        cpu::prefetch(self.map.base.as_ptr().wrapping_add(offset(id)));
    }

    /// Hints the CPU to fetch the lines of a chunk of `len` bytes, or the first of them: what follows, the CPU fetches
    /// by itself.
    #[inline]
    pub fn prefetch_lines(&self, id: ItemId, len: usize) {
        let at = self.map.base.as_ptr().wrapping_add(offset(id));
        let len = len.min(PREFETCH_MAX);
        (0..len).step_by(64).for_each(|line| cpu::prefetch(at.wrapping_add(line)));
        // Where a chunk does not begin with a line, it may end in one more.
        cpu::prefetch(at.wrapping_add(len).wrapping_sub(1));
    }
}

/// The byte offset of a chunk.
#[inline]
pub(crate) const fn offset(id: ItemId) -> usize {
    id.0 as usize * UNIT
}

/// Bytes of a chunk that are used outside the shard's lock. Its holder keeps the store alive and the item
/// pinned (then it only reads) or in upload (then it is the only one to read or write).
#[derive(Debug)]
pub struct Piece {
    at: NonNull<u8>,
    len: usize,
}

// SAFETY: (lock) the holder's right to the bytes does not depend on the thread.
unsafe impl Send for Piece {}
// SAFETY: shared access only reads.
unsafe impl Sync for Piece {}

impl Piece {
    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: (range) checked by `lend`, and the store is kept alive; (lock) nobody writes.
        unsafe { std::slice::from_raw_parts(self.at.as_ptr(), self.len) }
    }

    /// The bytes, to be filled.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: (range) as above; (lock) an uploader is the only one to touch them.
        unsafe { std::slice::from_raw_parts_mut(self.at.as_ptr(), self.len) }
    }
}

/// A part of a map whose memory is got ahead of need, outside the shard's lock. Its holder keeps the store alive.
#[derive(Debug)]
pub struct Stretch {
    at: NonNull<u8>,
    len: usize,
    file: Option<FilePart>,
}

impl Stretch {
    fn commit(&self) -> bool {
        let has_blocks = self.file.as_ref().is_none_or(|part| take_blocks(&part.file, part.at, self.len).is_ok());
        has_blocks && commit(self.at, self.len)
    }

    /// Makes it readable and writable, and gets its memory. What is written there already stays. False when the system
    /// refuses; where the kernel ends a process for which it has no memory, that is not known before.
    pub fn populate(&self) -> bool {
        self.commit() && if self.file.is_some() { populate(self.at, self.len) } else { touch(self.at, self.len) }
    }
}

/// A growing array at a fixed address.
#[derive(Debug)]
pub(crate) struct Region<T> {
    map: Map,
    len: usize,
    of: PhantomData<T>,
}

impl<T: Plain> Region<T> {
    /// Reserves room for `max` elements and makes none usable.
    pub(crate) fn new(max: usize) -> std::io::Result<Region<T>> {
        Ok(Region { map: Map::new(max * size_of::<T>(), None)?, len: 0, of: PhantomData })
    }

    /// Makes the first `len` elements usable; new ones are zero. False when there is no memory.
    pub(crate) fn extend(&mut self, len: usize) -> bool {
        if len > self.map.len / size_of::<T>() || !self.map.extend(len * size_of::<T>()) {
            return false;
        }
        self.len = len.max(self.len);
        self.map.use_up_to(self.len * size_of::<T>());
        true
    }

    /// Whether there is memory for `len` elements; those that are new are not usable yet.
    #[inline]
    pub(crate) fn reserve(&mut self, len: usize) -> bool {
        len * size_of::<T>() <= self.map.usable || self.reserve_more(len)
    }

    #[cold]
    fn reserve_more(&mut self, len: usize) -> bool {
        len <= self.map.len / size_of::<T>() && self.map.extend(len * size_of::<T>())
    }

    /// Asks for huge pages behind the whole region.
    pub(crate) fn prefer_huge_pages(&mut self) {
        self.map.prefer_huge_pages(0, REGION_AHEAD);
    }

    /// As [`Window::asks`].
    #[inline]
    pub(crate) fn asks(&self) -> bool {
        self.map.asks
    }

    /// As [`Window::asked`].
    pub(crate) fn asked(&mut self) {
        self.map.asks = false;
    }

    /// As [`Window::next_stretch`].
    pub(crate) fn next_stretch(&self) -> Option<Stretch> {
        self.map.next_stretch(self.len * size_of::<T>())
    }

    /// As [`Window::adopt`].
    pub(crate) fn adopt(&mut self, stretch: &Stretch, done: bool) -> bool {
        self.map.adopt(stretch, done)
    }

    /// Elements usable.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The element.
    #[inline]
    pub(crate) fn get(&self, index: usize) -> &T {
        assert!(index < self.len);
        // SAFETY: (range) `len` elements are usable, bases are aligned to ALIGN; (plain); (lock) `&self`.
        unsafe { self.map.base.cast::<T>().add(index).as_ref() }
    }

    /// The element, to change.
    #[inline]
    pub(crate) fn get_mut(&mut self, index: usize) -> &mut T {
        assert!(index < self.len);
        // SAFETY: (range) as above; (plain); (lock) `&mut self`.
        unsafe { self.map.base.cast::<T>().add(index).as_mut() }
    }

    /// Hints the CPU to fetch an element.
    pub(crate) fn prefetch(&self, index: usize) {
        cpu::prefetch(self.map.base.as_ptr().wrapping_add(index * size_of::<T>()));
    }

    /// What [`Prefetcher`] needs; good while the region lives.
    pub(crate) fn prefetcher(&self) -> Prefetcher {
        Prefetcher::new(self.map.base.as_ptr())
    }
}

mod system {
    use super::NonNull;
    use crate::sys::memory;
    pub(super) use memory::{release, reserve};

    pub(super) fn map_file(base: NonNull<u8>, len: usize, file: &std::fs::File, at: u64) -> std::io::Result<()> {
        // SAFETY: (range) called with a whole Map that nobody has used yet.
        unsafe { memory::map_file(base, len, file, at) }
    }

    pub(super) fn commit(base: NonNull<u8>, len: usize) -> bool {
        // SAFETY: (range) called with parts of a Map, in multiples of SYSTEM_PAGE.
        unsafe { memory::commit(base, len) }.is_ok()
    }

    pub(super) fn discard(base: NonNull<u8>, len: usize) {
        // SAFETY: (range) as above; (lock) called with `&mut Map` on a page without items.
        unsafe { memory::discard(base, len) }
    }

    pub(super) fn huge(base: NonNull<u8>, len: usize) {
        // SAFETY: (range) as above.
        unsafe { memory::prefer_huge_pages(base, len) }
    }

    pub(super) fn populate(base: NonNull<u8>, len: usize) -> bool {
        // SAFETY: (range) as above, and committed.
        unsafe { memory::populate(base, len) }.is_ok()
    }

    pub(super) fn touch(base: NonNull<u8>, len: usize) -> bool {
        // SAFETY: (range) as above; it may be in use, and no byte changes.
        unsafe { memory::touch(base, len) }.is_ok()
    }
}

use system::{commit, discard, huge, map_file, populate, release, reserve, touch};

#[cfg(test)]
#[path = "tests/arena.rs"]
mod tests;
