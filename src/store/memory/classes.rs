//! Slab classes: which sizes chunks have.
//!
//! Not here: the chunks (`slab`), the sizes of items (`sizing`).

use super::layout::CAS_BYTES;
use crate::store::{Accounting, StoreConfig};

/// Class numbers are below this; 0 is the page pool.
pub(crate) const CLASSES: usize = 128;

/// memcached has at most 63 classes. So have we where an option asks for some, and where there is no table for the sizes:
/// all but the largest have a size that is chosen.
const SIZES_MAX: usize = 62;

/// Sizes up to this are looked up in an array of one byte per 8 bytes.
const SMALL_MAX: usize = 8192;

/// The smallest class.
const CHUNK_MIN: usize = 48;

/// Sizes up to this are chosen for items with a cas unique, and are less without one (`-C`): steps are longer than a cas
/// unique from 136 bytes on, so that values of some lengths would gain nothing. Larger ones stay where they hold as many
/// items as memcached's, whose sizes are the same with `-C`.
const WITH_CAS_MAX: u32 = 512;

/// memcached's steps.
const FACTOR: f64 = 1.25;

/// Chunk sizes where the largest chunk is about 13,800 bytes ([`StoreConfig::fitted`]). Found by dynamic programming over all
/// ways to cut half a megabyte into chunks: these waste least of values of all lengths (on a scale of doublings) and of
/// the load of `bench memory` (keys of 32 bytes and values of 230 on average), among those that hold at least as many
/// items as memcached at each length of a value. Where there are [`MANY_PAGES`], the load weighs thrice as much as the
/// lengths, and 0.871 of 128 MB is keys and values of it; it was 0.855 with 63 classes. A class of one or two pages has too
/// many or too few for its load, so that more classes hit no more where there are fewer pages.
const FITTED: [u32; 111] = [
    48, 56, 64, 72, 80, 88, 96, 104, 112, 120, 128, 136, 144, 152, 160, 168, 176, 184, 192, 200, 208, 216, 224, 232,
    240, 248, 256, 264, 272, 280, 288, 296, 304, 312, 320, 328, 336, 344, 352, 360, 368, 376, 384, 392, 400, 408, 416,
    424, 432, 440, 448, 456, 464, 472, 480, 496, 512, 528, 544, 560, 576, 592, 608, 624, 640, 656, 672, 688, 704, 728,
    752, 776, 800, 824, 848, 872, 896, 928, 960, 992, 1032, 1072, 1120, 1168, 1224, 1288, 1368, 1456, 1560, 1696, 1856,
    2064, 2296, 2568, 2880, 3216, 3536, 3640, 4064, 4552, 5088, 5696, 6392, 7080, 7936, 8880, 9528, 10_280, 11_152,
    12_192, 13_440,
];

/// The same for fewer pages, the lengths and the load weighed alike, in steps of at least 16 bytes and 4 % from 136 to 1700: each
/// class that is left when sizes change keeps a page, and with finer steps bench replay's calc hit 0.703 and not 0.706 with
/// 64 MB. Of that, 0.881 is held on average of 40 lengths; with 63 classes it was 0.878. First pages of all 74 are more than
/// half of it, so that uploads are lent less.
const FITTED_FEW: [u32; 73] = [
    48, 56, 64, 72, 80, 88, 96, 104, 112, 120, 128, 136, 152, 168, 184, 200, 216, 232, 248, 264, 280, 296, 312, 328,
    344, 360, 376, 392, 408, 432, 456, 480, 504, 528, 552, 576, 600, 624, 656, 688, 720, 752, 792, 840, 888, 944, 1008,
    1072, 1160, 1248, 1344, 1456, 1576, 1832, 2056, 2296, 2568, 2880, 3216, 3536, 3640, 4064, 4552, 5088, 5696, 6392,
    7080, 7936, 8880, 9888, 11_152, 12_192, 13_440,
];

/// Largest chunks up to this go with those.
const FITTED_FOR: usize = 16 << 10;

/// Native steps beside these: finely up to [`FINE_MAX`], where most items are; beyond it ever coarser, by [`COARSER`] more for each
/// doubling. These give 63 classes. With keys of 32 bytes and values of 230 on average (`bench memory`), 0.862 of the
/// memory is keys and values; it is 0.838 with steps of 8 % up to 1 KiB and of 25 % beyond.
const FINE_FACTOR: f64 = 1.055;
const FINE_MAX: usize = 1400;
const COARSE_FACTOR: f64 = 1.2;
const COARSER: f64 = 0.045;

/// Least native step, in bytes. Every class takes a page: steps of 8 would cost more pages that are hardly used than
/// they save in chunks.
const STEP_MIN: usize = 16;

/// Pages a shard must be able to have for the native steps: about two for each class.
const FINE_PAGES: u64 = 128;

/// Pages with which classes are many.
const MANY_PAGES: u64 = 256;

/// The chunk size of every class.
#[derive(Debug)]
pub struct Classes {
    sizes: Vec<u32>,
    per_page: Vec<u32>,
    small: Vec<u8>,
}

impl Classes {
    /// The classes that the configuration asks for.
    pub fn new(config: &StoreConfig, shards: usize) -> Classes {
        let sizes = match config.accounting {
            _ if !config.slab_sizes.is_empty() => given(config),
            Accounting::Memcached => {
                stepped(48 + config.chunk_size, config, SIZES_MAX, |_| config.growth_factor.unwrap_or(FACTOR))
            }
            Accounting::Native => native(config, shards),
        };
        let sizes = with_last(sizes, config.slab_chunk_max);
        let per_page = sizes.iter().map(|&size| (config.page_size / size.max(1) as usize) as u32).collect();
        let mut classes = Classes { sizes, per_page, small: Vec::new() };
        classes.small = (0..=SMALL_MAX / 8).map(|eighths| classes.search(eighths * 8)).collect();
        classes
    }

    /// The highest class.
    #[inline]
    pub fn largest(&self) -> u8 {
        (self.sizes.len() - 1) as u8
    }

    /// Bytes of a chunk.
    #[inline]
    pub fn size(&self, class: u8) -> usize {
        self.sizes[usize::from(class)] as usize
    }

    /// Chunks of a page.
    pub fn per_page(&self, class: u8) -> u32 {
        self.per_page[usize::from(class)]
    }

    /// The smallest class whose chunks hold `size` bytes; `size` is at most the largest chunk.
    #[inline]
    pub fn of(&self, size: usize) -> u8 {
        if size <= SMALL_MAX { self.small[size.div_ceil(8)] } else { self.search(size) }
    }

    fn search(&self, size: usize) -> u8 {
        let at = 1 + self.sizes[1..].partition_point(|&chunk| (chunk as usize) < size);
        at.min(self.sizes.len() - 1) as u8
    }
}

fn given(config: &StoreConfig) -> Vec<u32> {
    config.slab_sizes.iter().take(CLASSES - 2).map(|&size| size.next_multiple_of(8) as u32).collect()
}

fn native(config: &StoreConfig, shards: usize) -> Vec<u32> {
    let first = config.chunk_size.max(CHUNK_MIN);
    let missing = if config.cas_enabled { 0 } else { CAS_BYTES as u32 };
    let without = |size: &mut u32| *size -= if *size <= WITH_CAS_MAX { missing } else { 0 };
    if let Some(factor) = config.growth_factor {
        let mut sizes = stepped(first, config, SIZES_MAX, |_| factor);
        sizes.iter_mut().for_each(without);
        return sizes;
    }
    let pages = config.memory_limit / shards as u64 / config.page_size as u64;
    let is_fine = pages >= FINE_PAGES;
    let is_fitted = is_fine && config.slab_chunk_max <= FITTED_FOR;
    let mut sizes = if is_fitted {
        let fitted = if pages >= MANY_PAGES { &FITTED[..] } else { &FITTED_FEW[..] };
        let larger = fitted.iter().copied().filter(|&size| size as usize > first);
        std::iter::once(first.next_multiple_of(8) as u32).chain(larger).collect()
    } else {
        stepped(first, config, usize::MAX, if is_fine { native_factor } else { |_| FACTOR })
    };
    sizes.retain(|&size| (size as usize) < config.slab_chunk_max);
    sizes.iter_mut().for_each(without);
    for size in &mut sizes {
        let per_page = config.page_size as u32 / *size;
        *size = (config.page_size as u32 / per_page) & !7;
    }
    sizes.dedup();
    sizes.retain(|&size| (size as usize) < config.slab_chunk_max);
    thin(&mut sizes, if is_fitted { CLASSES - 2 } else { SIZES_MAX });
    sizes
}

/// Leaves out the sizes whose items lose least in the next larger ones, while there are too many. Were it the largest
/// ones instead, every item of 350 to 512 KiB would take a page with `slab_chunk_max=1024`.
fn thin(sizes: &mut Vec<u32>, most: usize) {
    while sizes.len() > most {
        let gap = |at: usize| f64::from(sizes[at + 1]) / f64::from(sizes[at - 1]);
        let least = (1..sizes.len() - 1).min_by(|&a, &b| gap(a).total_cmp(&gap(b)));
        sizes.remove(least.expect("more than two"));
    }
}

fn native_factor(size: usize) -> f64 {
    let factor = match size {
        ..FINE_MAX => FINE_FACTOR,
        _ => COARSE_FACTOR + COARSER * (size as f64 / FINE_MAX as f64).log2(),
    };
    factor.max((size + STEP_MIN) as f64 / size as f64)
}

/// At most `most` sizes from `size` on, each the one before times `factor`, in whole numbers and rounded up to 8.
fn stepped(mut size: usize, config: &StoreConfig, most: usize, factor: impl Fn(usize) -> f64) -> Vec<u32> {
    let mut sizes = Vec::new();
    while sizes.len() < most && (size as f64) < config.slab_chunk_max as f64 / factor(size) {
        size = size.next_multiple_of(8);
        sizes.push(size as u32);
        size = (size as f64 * factor(size)) as usize;
    }
    sizes
}

/// Class 0 in front, the largest chunk at the end.
fn with_last(sizes: Vec<u32>, last: usize) -> Vec<u32> {
    let mut all = vec![0];
    all.extend(sizes);
    all.push(last as u32);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sizes(config: StoreConfig) -> Vec<u32> {
        let config = StoreConfig { accounting: Accounting::Memcached, ..config };
        Classes::new(&config, 1).sizes[1..].to_vec()
    }

    #[test]
    fn memcached_classes() {
        let default = sizes(StoreConfig::default());
        let expected = [
            96, 120, 152, 192, 240, 304, 384, 480, 600, 752, 944, 1184, 1480, 1856, 2320, 2904, 3632, 4544, 5680, 7104,
            8880, 11104, 13880, 17352, 21696, 27120, 33904, 42384, 52984, 66232, 82792, 103496, 129376, 161720, 202152,
            252696, 315872, 394840, 524288,
        ];
        assert_eq!(default, expected);

        let fine = sizes(StoreConfig { growth_factor: Some(1.08), ..StoreConfig::default() });
        assert_eq!(fine.len(), 63);
        assert_eq!(fine[..6], [96, 104, 112, 120, 136, 152]);
        assert_eq!(fine[58..], [10944, 11824, 12776, 13800, 524_288]);

        let small = sizes(StoreConfig { chunk_size: 8, ..StoreConfig::default() });
        assert_eq!(small.len(), 41);
        assert_eq!(small[..5], [56, 72, 96, 120, 152]);

        let chunk_max = sizes(StoreConfig { slab_chunk_max: 16 << 10, ..StoreConfig::default() });
        assert_eq!((chunk_max.len(), chunk_max[21], chunk_max[22]), (23, 11104, 16384));

        let whole = sizes(StoreConfig { slab_chunk_max: 1 << 20, ..StoreConfig::default() });
        assert_eq!(whole.len(), 42);
        assert_eq!(whole[38..], [493_552, 616_944, 771_184, 1_048_576]);

        let doubled = StoreConfig { growth_factor: Some(2.0), slab_chunk_max: 64 << 10, ..StoreConfig::default() };
        assert_eq!(sizes(doubled), [96, 192, 384, 768, 1536, 3072, 6144, 12288, 24576, 65536]);

        let given = sizes(StoreConfig { slab_sizes: vec![100, 200, 1000, 524_288], ..StoreConfig::default() });
        assert_eq!(given, [104, 200, 1000, 524_288, 524_288]);
    }

    #[test]
    fn native_classes_fit_pages() {
        for limit in [64 << 20, 1 << 30] {
            let classes = Classes::new(&StoreConfig { memory_limit: limit, ..StoreConfig::default() }, 1);
            assert!(usize::from(classes.largest()) < CLASSES);
            assert_eq!(classes.size(1), 48);
            assert_eq!(classes.size(classes.largest()), 512 << 10);
            for class in 2..=classes.largest() {
                assert!(classes.size(class) > classes.size(class - 1) && classes.size(class).is_multiple_of(8));
            }
        }
    }

    #[test]
    fn native_classes_reach_the_largest_chunk_in_steps() {
        for (slab_chunk_max, chunk_size) in [512 << 10, 1 << 20].into_iter().flat_map(|max| [(max, 48), (max, 56)]) {
            let config = StoreConfig { memory_limit: 1 << 30, slab_chunk_max, chunk_size, ..StoreConfig::default() };
            let classes = Classes::new(&config, 1);
            assert!(usize::from(classes.largest()) < CLASSES && classes.size(1) == chunk_size);
            let last = classes.size(classes.largest() - 1);
            assert!(last >= slab_chunk_max / 2, "chunks of {last} bytes, then of {slab_chunk_max}");
        }
    }

    #[test]
    fn the_class_of_a_size() {
        let classes = Classes::new(&StoreConfig { accounting: Accounting::Memcached, ..StoreConfig::default() }, 1);
        for (size, class) in [(1, 1), (96, 1), (97, 2), (169, 4), (8880, 21), (8881, 22), (524_288, 39)] {
            assert_eq!(classes.of(size), class, "{size}");
        }
    }
}

#[cfg(test)]
#[path = "tests/fit.rs"]
mod fit_tests;
