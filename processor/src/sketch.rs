//! A mergeable sketch of a distribution with a relative error of at most 1 %: logarithmic buckets, after DDSketch (Masson, Rim
//! and Lee, VLDB 2019). The bucket of a value is a polynomial of its bits (their cubically interpolated mapping), so that every
//! machine computes the same bucket and merging is exact in any order.
//!
//! On the wire a sketch is a list of (bucket, count) in ascending order of values: varints of the distance to the previous
//! bucket and of the count. No bytes at all is the empty sketch.

/// The error of a quantile, relative to the value.
pub const RELATIVE_ERROR: f64 = 0.01;

// Coefficients of the cubic through which log2(1 + s) is interpolated; its slope is nowhere less than that of 10/7 * ln(1 + s).
const A: f64 = 6.0 / 35.0;
const B: f64 = -3.0 / 5.0;
const C: f64 = 10.0 / 7.0;
/// Buckets per unit of the interpolated logarithm: `7 / 10 / ln((1 + e) / (1 - e))` with e = 1 %.
const MULTIPLIER: f64 = 0.7 / 0.020_000_666_706_669_4;

/// Bucket of zero. Positive values have greater buckets, negative ones smaller, so that buckets sort as values do.
pub const ZERO: u32 = 1 << 31;
/// Added to the bucket of a magnitude, so that the smallest magnitude has a positive one.
const SHIFT: i64 = 40_000;

/// The bucket of a value; none for NaN. Infinities go to the outermost buckets, subnormal numbers to zero.
pub fn bucket(value: f64) -> Option<u32> {
    if value.is_nan() {
        return None;
    }
    let magnitude = value.abs().min(f64::MAX);
    if magnitude < f64::MIN_POSITIVE {
        return Some(ZERO);
    }
    let distance = (magnitude_bucket(magnitude) + SHIFT) as u32;
    Some(if value > 0.0 { ZERO + distance } else { ZERO - distance })
}

fn magnitude_bucket(magnitude: f64) -> i64 {
    let bits = magnitude.to_bits();
    let exponent = ((bits >> 52) & 0x7ff) as i64 - 1023;
    let s = f64::from_bits((bits & ((1 << 52) - 1)) | (1023 << 52)) - 1.0;
    ((exponent as f64 + ((A * s + B) * s + C) * s) * MULTIPLIER).floor() as i64
}

/// The value that stands for a bucket: within [`RELATIVE_ERROR`] of every value in it.
pub fn representative(bucket: u32) -> f64 {
    if bucket == ZERO {
        return 0.0;
    }
    let distance = i64::from(bucket.abs_diff(ZERO)) - SHIFT;
    let (lower, upper) = (lower_bound(distance), lower_bound(distance + 1).min(f64::MAX));
    // 2 l u / (l + u), without overflow.
    let middle = lower * (2.0 / (1.0 + lower / upper));
    if bucket > ZERO { middle } else { -middle }
}

/// Where a bucket of magnitudes begins: the inverse of the interpolated logarithm, by bisection.
fn lower_bound(magnitude_bucket: i64) -> f64 {
    let logarithm = magnitude_bucket as f64 / MULTIPLIER;
    let exponent = logarithm.floor().clamp(-1022.0, 1023.0);
    let fraction = logarithm - exponent;
    let (mut low, mut high) = (0.0_f64, 1.0_f64);
    for _ in 0..52 {
        let s = (low + high) / 2.0;
        if ((A * s + B) * s + C) * s < fraction { low = s } else { high = s }
    }
    (1.0 + low) * exponent.exp2()
}

/// Appends the wire form of buckets in ascending order, each once, with counts.
pub fn encode(buckets: impl Iterator<Item = (u32, u64)>, out: &mut Vec<u8>) {
    let mut previous = 0;
    for (bucket, count) in buckets {
        write_varint(u64::from(bucket - previous), out);
        write_varint(count, out);
        previous = bucket;
    }
}

/// The buckets and counts of a sketch on the wire, in ascending order. Ends early where the bytes are not a sketch.
pub fn decode(mut bytes: &[u8]) -> impl Iterator<Item = (u32, u64)> {
    let mut previous = 0_u32;
    std::iter::from_fn(move || {
        let distance = read_varint(&mut bytes)?;
        let count = read_varint(&mut bytes)?;
        previous = previous.checked_add(u32::try_from(distance).ok()?)?;
        Some((previous, count))
    })
}

/// The value below which a share `q` (0 to 1) of the values lie; none for an empty sketch. The rank is `q * (n - 1)`, rounded
/// down, so that 0 and 1 are the smallest and the largest value.
pub fn quantile(sketch: &[u8], q: f64) -> Option<f64> {
    let total: u64 = decode(sketch).map(|(_, count)| count).fold(0, u64::saturating_add);
    if total == 0 {
        return None;
    }
    let rank = (q.clamp(0.0, 1.0) * (total - 1) as f64) as u64;
    let mut below = 0_u64;
    decode(sketch)
        .find(|(_, count)| {
            below = below.saturating_add(*count);
            below > rank
        })
        .map(|(bucket, _)| representative(bucket))
}

fn write_varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn read_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use proptest::prelude::*;

    fn sketch_of(values: &[f64]) -> Vec<u8> {
        let mut buckets = BTreeMap::new();
        for bucket in values.iter().filter_map(|value| bucket(*value)) {
            *buckets.entry(bucket).or_insert(0) += 1;
        }
        let mut out = Vec::new();
        encode(buckets.into_iter(), &mut out);
        out
    }

    #[test]
    fn odd_values_have_a_place() {
        assert_eq!(bucket(f64::NAN), None);
        assert_eq!(bucket(0.0), Some(ZERO));
        assert_eq!(bucket(-0.0), Some(ZERO));
        assert!(bucket(f64::INFINITY) >= bucket(f64::MAX));
        assert!(bucket(f64::NEG_INFINITY) < bucket(-1.0));
        assert!(representative(bucket(f64::INFINITY).unwrap()).is_finite());
        assert_eq!(quantile(&[], 0.5), None);
    }

    proptest! {
        /// Guarantees: every quantile is within 1 % of the exact one.
        #[test]
        fn quantiles_are_within_one_percent(values in prop::collection::vec(prop_oneof![1e-3..1e7f64, -1e5..-1e-3f64, Just(0.0)], 1..300), q in 0.0..=1.0f64) {
            let mut sorted = values.clone();
            sorted.sort_by(f64::total_cmp);
            let exact = sorted[(q * (sorted.len() - 1) as f64) as usize];
            let estimate = quantile(&sketch_of(&values), q).unwrap();
            prop_assert!((estimate - exact).abs() <= RELATIVE_ERROR * exact.abs() * (1.0 + 1e-9), "{estimate} for {exact}");
        }

        #[test]
        fn every_magnitude_is_within_one_percent_of_its_bucket(exponent in -1000.0..1000.0f64) {
            let value = exponent.exp2();
            let estimate = representative(bucket(value).unwrap());
            prop_assert!((estimate - value).abs() <= RELATIVE_ERROR * value * (1.0 + 1e-9));
        }

        #[test]
        fn buckets_sort_as_values_do(a in any::<f64>(), b in any::<f64>()) {
            if let (Some(bucket_a), Some(bucket_b)) = (bucket(a), bucket(b)) && a < b {
                prop_assert!(bucket_a <= bucket_b);
            }
        }

        #[test]
        fn arbitrary_bytes_are_no_danger(bytes in prop::collection::vec(any::<u8>(), 0..200), q in 0.0..=1.0f64) {
            let _ = quantile(&bytes, q);
        }
    }
}
