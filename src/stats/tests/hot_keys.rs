//! Hot keys against exact counts.

use super::*;
use crate::testing::{Rng, seeds_from};

/// Operations of a second, and of a batch: a key with 1 % of ten seconds is sampled 390 times, give or take 20, so that
/// 20 % are four times what chance does.
const RATE: usize = 250_000;
const BATCH: usize = 16;

/// Keys are numbers below this.
const KEYS: usize = 1_000_000;

/// Workers that share the load, and exact counts beside them.
struct Load {
    samplers: Vec<Arc<KeySampler>>,
    exact: Vec<u64>,
    total: u64,
    rng: Rng,
}

impl Load {
    fn new(workers: usize, seed: u64) -> Load {
        let mut rng = Rng(seed);
        let sampler = |_| {
            let sampler = KeySampler::default();
            sampler.start(rng.next());
            Arc::new(sampler)
        };
        Load { samplers: (0..workers).map(sampler).collect(), exact: vec![0; KEYS], total: 0, rng }
    }

    /// A second in which keys come as `draw` says.
    fn second(&mut self, now: u32, draw: impl Fn(&mut Rng) -> u64) {
        for _ in 0..RATE / BATCH {
            let worker = self.rng.below(self.samplers.len());
            let keys: [u64; BATCH] = std::array::from_fn(|_| draw(&mut self.rng));
            keys.iter().for_each(|&key| self.exact[key as usize] += 1);
            self.total += BATCH as u64;
            let sampler = &self.samplers[worker];
            if let Some(at) = sampler.due(BATCH) {
                let key = keys[at].to_string();
                let written = (keys[at] % 2 == 1).then_some(100);
                let sample = SampledKey { key: key.as_bytes(), hash: keys[at], written };
                sampler.note(&sample, now);
            }
        }
    }

    fn told(&self, now: u32) -> HotKeys {
        merge(&self.samplers, now)
    }

    /// Every key with at least 1 % is told, and told to within 20 %.
    fn check(&self, now: u32) {
        let told = self.told(now);
        assert!(
            (told.operations as f64 / self.total as f64 - 1.0).abs() < 0.02,
            "{} of {}",
            told.operations,
            self.total
        );
        assert!(told.keys.is_sorted_by(|a, b| a.all() >= b.all()));
        let mut hot = 0;
        for (key, &count) in self.exact.iter().enumerate().filter(|(_, count)| **count * 100 >= self.total) {
            let name = key.to_string();
            let found = told.keys.iter().find(|found| *found.key == *name.as_bytes());
            let found = found.unwrap_or_else(|| panic!("{name} came {count} times of {}", self.total));
            let off = found.all() as f64 / count as f64 - 1.0;
            assert!(off.abs() < 0.2, "{name} came {count} times, and {} were told", found.all());
            assert_eq!(found.operations[usize::from(key % 2 == 0)], 0);
            assert!(found.written.abs_diff(found.operations[1] * 100) <= 50, "{found:?}");
            hot += 1;
        }
        assert!(hot > 0, "there is a hot one");
    }
}

/// By Zipf's law with the exponent 1, whose sums are logarithms.
fn zipf(rng: &mut Rng) -> u64 {
    (KEYS as f64).powf(rng.unit()) as u64
}

#[test]
fn zipf_is_told() {
    for seed in seeds_from(1, 2) {
        for workers in [1, 3] {
            let mut load = Load::new(workers, seed);
            (100..110).for_each(|now| load.second(now, zipf));
            load.check(109);
        }
    }
}

#[test]
fn a_flash_crowd_is_told() {
    for seed in seeds_from(1, 2) {
        let mut load = Load::new(2, seed);
        // Keys without a favourite, and then one of them has a third of all for two seconds.
        (100..106).for_each(|now| load.second(now, |rng| rng.below(KEYS as u64)));
        (106..108).for_each(|now| load.second(now, |rng| if rng.one_in(3) { 7 } else { rng.below(KEYS as u64) }));
        load.check(107);
        assert_eq!(*load.told(107).keys[0].key, *b"7");
    }
}

#[test]
fn what_is_old_is_forgotten() {
    let mut load = Load::new(1, 1);
    load.second(100, |_| 5);
    load.second(130, |_| 6);
    let keys = |now| load.told(now).keys.iter().map(|found| found.key.to_vec()).collect::<Vec<_>>();
    assert_eq!(keys(159).len(), 2);
    assert_eq!(keys(160), [b"6"]);
    assert_eq!((keys(190).len(), load.told(190).operations), (0, 0));
    (131..400).for_each(|now| load.samplers[0].note(&SampledKey { key: b"k", hash: 0, written: None }, now));
    let past = lock(&load.samplers[0].seconds).as_ref().unwrap().past.len();
    assert!(past <= SECONDS as usize, "{past}");
}

#[test]
fn one_of_64_is_sampled_in_batches_of_any_size() {
    let mut rng = Rng(1);
    let sampler = KeySampler::default();
    assert_eq!((0..1000).find_map(|_| sampler.due(1 << 20)), None, "it has not been started");
    sampler.start(3);
    for batch in [1, 16] {
        let (mut operations, mut samples, mut places) = (0, 0, vec![0; batch]);
        while operations < 640_000 {
            let len = rng.below(batch + 1);
            operations += len;
            if let Some(at) = sampler.due(len) {
                assert!(at < len);
                places[at] += 1;
                samples += 1;
            }
        }
        assert!((9_800..10_200).contains(&samples), "{samples}");
        assert!(places.iter().all(|&times| times > 0), "{places:?}");
    }
}

#[test]
fn a_reader_is_not_waited_for_and_a_second_is_merged_once() {
    let (maker, sampler) = (HotKeysMaker::default(), Arc::new(KeySampler::default()));
    maker.add(sampler.clone());
    let sample = SampledKey { key: b"k", hash: 0, written: None };
    let reader = lock(&sampler.seconds);
    sampler.note(&sample, 5);
    drop(reader);
    assert_eq!(*maker.make(5), HotKeys::default());
    sampler.note(&sample, 5);
    assert_eq!(*maker.make(5), HotKeys::default());
    let told = maker.make(6);
    assert_eq!((told.operations, &*told.keys[0].key, told.keys[0].operations), (64, &b"k"[..], [64, 0]));
}
