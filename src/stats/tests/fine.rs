//! Histograms to two significant digits, against the crate of that name.

use super::*;
use crate::testing::{Rng, seeds};
use hdrhistogram::Histogram as Hdr;

fn told(histograms: &[&FineHistogram]) -> KindLatency {
    let mut sums = FineSums::default();
    histograms.iter().for_each(|histogram| sums.add(histogram));
    sums.told("get", histograms.iter().map(|histogram| histogram.longest()).max().unwrap())
}

/// What the crate of that name says, with two significant digits as well.
#[test]
fn quantiles_are_those_of_hdrhistogram() {
    for seed in seeds(5) {
        let mut rng = Rng(seed);
        let (a, b) = (FineHistogram::default(), FineHistogram::default());
        let mut hdr = Hdr::<u64>::new(2).unwrap();
        for _ in 0..20_000 {
            // From 1 us to 1 s, as likely in each power of two.
            let ns = (1000_u64 << rng.below(20)) + rng.below(1000) as u64;
            let ns = ns + rng.below(ns as usize) as u64;
            (if rng.below(2) == 0 { &a } else { &b }).note_nanos(ns, 3);
            hdr.record_n(ns, 3).unwrap();
        }
        let told = told(&[&a, &b]);
        assert_eq!(told.count(), 60_000);
        for share in [0.0, 0.01, 0.5, 0.9, 0.99, 0.999, 1.0] {
            let (found, truth) = (told.quantile(share).as_nanos() as f64, hdr.value_at_quantile(share) as f64);
            // Each of them is within 0.8 %.
            assert!((found / truth - 1.0).abs() < 0.017, "{share}: {found} and not {truth}");
        }
        assert!((told.sum().as_nanos() as f64 / 60_000.0 / hdr.mean() - 1.0).abs() < 0.01);
    }
}

/// Nine of them are a worker's.
#[test]
fn memory_is_bounded() {
    assert!(9 * (size_of::<FineHistogram>() + 4 * BUCKETS) < 64 << 10);
}

#[test]
fn a_full_count_is_moved() {
    let histogram = FineHistogram::default();
    (0..6).for_each(|_| histogram.note_nanos(10_000, FULL - 1));
    let before = told(&[&histogram]);
    assert_eq!((before.count(), before.buckets.len()), (6 * u64::from(FULL - 1), 1));
    let mut baseline = FineSums::default();
    baseline.add(&histogram);
    histogram.note_nanos(10_000, 7);
    let mut sums = FineSums::default();
    sums.add(&histogram);
    sums.subtract(&baseline);
    assert_eq!(sums.told("get", Duration::ZERO).count(), 7);
}

#[test]
fn buckets_stand_side_by_side() {
    let buckets = FineSums(vec![1; BUCKETS]).told("get", Duration::ZERO).buckets;
    assert!(buckets.windows(2).all(|pair| pair[0].below == pair[1].from));
    let last = buckets[BUCKETS - 1];
    assert_eq!((buckets[0].from, last.below, last.from), (0, 1 << 34, 127 << 27));
}
