//! Numbers that look random and are the same each time.

use crate::request::GROUPS;
use crate::workload::PARTITIONS;

/// Xorshift64*.
pub(crate) struct Random(u64);

impl Random {
    /// `seed` must not be zero.
    pub(crate) fn new(seed: u64) -> Random {
        Random(seed)
    }

    pub(crate) fn bits(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        (self.bits() >> 33) % bound
    }

    /// At least 0, less than 1.
    pub(crate) fn fraction(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Of a source topic.
    pub(crate) fn partition(&mut self) -> i32 {
        self.below(PARTITIONS as u64) as i32
    }
}

/// Groups by popularity: the n-th most popular is chosen with a probability proportional to 1/n.
pub(crate) struct Zipf {
    cumulated: Vec<f64>,
}

impl Zipf {
    pub(crate) fn new() -> Zipf {
        let weights = (1..=GROUPS).scan(0.0, |sum, rank| {
            *sum += 1.0 / rank as f64;
            Some(*sum)
        });
        Zipf { cumulated: weights.collect() }
    }

    pub(crate) fn group(&self, fraction: f64) -> usize {
        // Has no factor in common with the number of groups: spreads popular ones over services and routes.
        const STRIDE: usize = 2659;
        let total = self.cumulated[GROUPS - 1];
        let rank = self.cumulated.partition_point(|sum| *sum <= fraction * total).min(GROUPS - 1);
        rank * STRIDE % GROUPS
    }
}
