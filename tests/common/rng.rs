//! Random numbers that a seed replays: for the tests inside the crate, for the programs' tests, and for the load
//! generator.
#![allow(dead_code, reason = "each program uses its own part of this file")]

/// splitmix64: small, the same everywhere, and every seed gives another sequence.
#[derive(Clone, Debug)]
pub struct Rng(pub u64);

impl Rng {
    /// The next number.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// A number below `n`; 0 if there is none.
    pub fn below<N: TryInto<u64> + TryFrom<u64>>(&mut self, n: N) -> N {
        let n = n.try_into().ok().expect("not negative").max(1);
        N::try_from(self.next() % n).ok().expect("less than n")
    }

    /// A number from 0 to 1, without 1.
    pub fn unit(&mut self) -> f64 {
        to_unit(self.next())
    }

    /// True once in `n` times.
    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// One of these.
    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    /// Bytes that tell a piece in its wrong place or from another call, in most cases.
    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        let first = self.next() as u8;
        (0..len).map(|i| first.wrapping_add((i % 251) as u8)).collect()
    }
}

/// Spreads the bits of a number over the whole of it.
pub fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A number from 0 to 1, without 1, of 64 random bits.
pub fn to_unit(word: u64) -> f64 {
    (word >> 11) as f64 / (1u64 << 53) as f64
}
