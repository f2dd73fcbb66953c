//! A small generator of random numbers (SplitMix64), whose sequence for a seed never changes with a library's version.

/// Random numbers of a seed.
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Random {
        Random(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// In `[0, 1)`.
    pub(super) fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// In `[0, bound)`; 0 where `bound` is 0.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        (self.unit() * bound as f64) as u64
    }

    pub(super) fn chance(&mut self, probability: f64) -> bool {
        self.unit() < probability
    }

    /// A position, each as likely as its weight says.
    pub(super) fn weighted(&mut self, weights: impl ExactSizeIterator<Item = f64>) -> usize {
        let last = weights.len().saturating_sub(1);
        let mut left = self.unit();
        for (position, weight) in weights.enumerate() {
            left -= weight;
            if left < 0.0 {
                return position;
            }
        }
        last
    }

    /// How often something happens that happens `mean` times on average.
    pub(super) fn poisson(&mut self, mean: f64) -> u64 {
        if mean > 100.0 {
            // The sum of many is as good as normal, and far quicker.
            return (mean + mean.sqrt() * self.normal()).round().max(0.0) as u64;
        }
        let limit = (-mean).exp();
        let (mut count, mut product) = (0, self.unit());
        while product > limit {
            count += 1;
            product *= self.unit();
        }
        count
    }

    pub(super) fn log_normal(&mut self, median: f64, sigma: f64) -> f64 {
        median * (sigma * self.normal()).exp()
    }

    fn normal(&mut self) -> f64 {
        // 1 - unit is never 0, whose logarithm is none.
        (-2.0 * (1.0 - self.unit()).ln()).sqrt() * (std::f64::consts::TAU * self.unit()).cos()
    }

    /// So many hexadecimal digits.
    pub(super) fn hex(&mut self, digits: usize) -> String {
        let mut text = String::with_capacity(digits + 16);
        while text.len() < digits {
            text.push_str(&format!("{:016x}", self.next()));
        }
        text.truncate(digits);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_are_what_they_should_be() {
        let mut random = Random::new(1);
        let mut mean =
            |draw: &mut dyn FnMut(&mut Random) -> f64| (0..20_000).map(|_| draw(&mut random)).sum::<f64>() / 20_000.0;
        let cases = [
            ("unit", mean(&mut |random| random.unit()), 0.5),
            ("poisson of few", mean(&mut |random| random.poisson(3.0) as f64), 3.0),
            ("poisson of many", mean(&mut |random| random.poisson(500.0) as f64), 500.0),
            ("weighted", mean(&mut |random| random.weighted([0.25, 0.75].into_iter()) as f64), 0.75),
            ("normal", mean(&mut |random| random.normal() + 1.0), 1.0),
        ];
        for (name, found, expected) in cases {
            assert!((found / expected - 1.0).abs() < 0.05, "{name}: {found}");
        }
        assert_eq!(random.hex(32).len(), 32);
    }
}
