//! What the load is made of: random numbers, keys by popularity, and what belongs to a key.
//!
//! ```text
//! key number ── mix ──> length of the key, length of the value, time to live
//! ```
//!
//! Everything about an item follows from its number, so that an answer can be checked and that every server gets
//! the same items.
//!
//! Not here: requests and connections (`load`).

#[path = "../tests/common/rng.rs"]
mod rng;

pub use rng::Rng;

use rng::{mix, to_unit};

/// Most bytes of a key, as memcached has it.
const KEY_MAX: usize = 250;

/// Bounds of [`Sizes::Spread`].
const SPREAD: (usize, usize) = (20, 1500);
/// Mean of the exponential behind [`Sizes::Spread`]: cut at its bounds, the values have a mean of 230 bytes.
const SPREAD_MEAN: f64 = 212.0;

/// Items with a time to live, one in so many, and the bounds of that time in seconds.
const MORTAL_ONE_IN: u64 = 10;
const MORTAL_SECONDS: (u64, u64) = (5, 60);

/// Lengths of values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sizes {
    Fixed(usize),
    /// Evenly from the first to the last.
    Range(usize, usize),
    /// 20 bytes and an exponential on top, cut at 1500: a mean of 230 bytes, half of them below 167.
    Spread,
}

impl Sizes {
    /// The longest.
    pub fn max(self) -> usize {
        match self {
            Sizes::Fixed(len) | Sizes::Range(_, len) => len,
            Sizes::Spread => SPREAD.1,
        }
    }

    fn of(self, key: u64) -> usize {
        match self {
            Sizes::Fixed(len) => len,
            Sizes::Range(least, most) => least + (mix(key) as usize) % (most - least + 1),
            Sizes::Spread => spread(to_unit(mix(key ^ 0x5123_7654_0fed_cba9))),
        }
    }
}

/// The inverse of the cut exponential's distribution.
fn spread(unit: f64) -> usize {
    let reach = (SPREAD.1 - SPREAD.0) as f64;
    let cut = 1.0 - (-reach / SPREAD_MEAN).exp();
    SPREAD.0 + (-(1.0 - unit * cut).ln() * SPREAD_MEAN).min(reach) as usize
}

/// A run of items.
#[derive(Clone, Copy, Debug)]
pub struct Items {
    /// Number of the first.
    pub first: u64,
    pub count: u64,
    /// Shortest and longest key, at least as long as the largest number has digits.
    pub key_length: (usize, usize),
    pub sizes: Sizes,
    /// Whether one in ten lives 5 to 60 seconds only.
    pub mortal: bool,
}

impl Items {
    /// `count` items with keys of 20 bytes and values of `len`.
    pub fn plain(count: u64, len: usize) -> Items {
        Items { first: 0, count, key_length: (20, 20), sizes: Sizes::Fixed(len), mortal: false }
    }

    /// `count` items with keys of 20 to 44 bytes and values of 20 to 1500, 230 on average.
    pub fn spread(count: u64) -> Items {
        Items { first: 0, count, key_length: (20, 44), sizes: Sizes::Spread, mortal: false }
    }

    pub fn value_len(&self, key: u64) -> usize {
        self.sizes.of(key)
    }

    pub fn key_len(&self, key: u64) -> usize {
        let (least, most) = self.key_length;
        if least == most { least } else { least + (mix(key ^ 0x0f1e_2d3c_4b5a_6978) as usize) % (most - least + 1) }
    }

    /// Seconds, 0 for ever.
    pub fn ttl(&self, key: u64) -> u64 {
        if !self.mortal {
            return 0;
        }
        let word = mix(key ^ 0x7777_1234_89ab_cdef);
        let (least, most) = MORTAL_SECONDS;
        if word.is_multiple_of(MORTAL_ONE_IN) { least + (word >> 32) % (most - least + 1) } else { 0 }
    }

    /// Appends the key: its number, zeros in front.
    pub fn push_key(&self, out: &mut Vec<u8>, key: u64) {
        let mut digits = [b'0'; KEY_MAX];
        let (mut at, mut rest) = (KEY_MAX, key);
        while rest > 0 {
            at -= 1;
            digits[at] = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
        out.extend_from_slice(&digits[KEY_MAX - self.key_len(key)..]);
    }
}

/// Zipf's law by rejection-inversion (Hörmann and Derflinger, 1996): constant time and memory.
#[derive(Clone, Debug)]
pub struct Zipf {
    count: f64,
    exponent: f64,
    h_first: f64,
    h_last: f64,
    s: f64,
}

impl Zipf {
    /// Of `count` ranks, with an exponent above 0.
    pub fn new(count: u64, exponent: f64) -> Zipf {
        let mut zipf = Zipf { count: count as f64, exponent, h_first: 0.0, h_last: 0.0, s: 0.0 };
        zipf.h_first = zipf.integral(1.5) - 1.0;
        zipf.h_last = zipf.integral(zipf.count + 0.5);
        zipf.s = 2.0 - zipf.inverse(zipf.integral(2.5) - 2f64.powf(-exponent));
        zipf
    }

    /// A rank from 0 on, the most popular first.
    pub fn draw(&self, rng: &mut Rng) -> u64 {
        loop {
            let u = self.h_last + rng.unit() * (self.h_first - self.h_last);
            let x = self.inverse(u);
            let rank = x.round().clamp(1.0, self.count);
            if rank - x <= self.s || u >= self.integral(rank + 0.5) - rank.powf(-self.exponent) {
                return rank as u64 - 1;
            }
        }
    }

    fn integral(&self, x: f64) -> f64 {
        let power = 1.0 - self.exponent;
        if power.abs() < 1e-9 { x.ln() } else { (x.powf(power) - 1.0) / power }
    }

    fn inverse(&self, y: f64) -> f64 {
        let power = 1.0 - self.exponent;
        if power.abs() < 1e-9 { y.exp() } else { (y * power + 1.0).powf(1.0 / power) }
    }
}
