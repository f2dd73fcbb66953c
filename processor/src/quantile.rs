//! `quantile(x, q)` in SQL: an aggregate that collects a [`sketch`](crate::sketch) of `x`, and a scalar function that reads one
//! quantile from it. The planner rewrites the one call into the two, so that several quantiles of one column share one sketch.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, BinaryBuilder, BooleanArray, Float64Array};
use arrow::datatypes::{DataType, Field, FieldRef, Float64Type};
use datafusion::common::{Result, ScalarValue, exec_err};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{
    Accumulator, AggregateUDFImpl, ColumnarValue, EmitTo, GroupsAccumulator, ScalarFunctionArgs, ScalarUDFImpl,
    Signature, Volatility,
};

use crate::sketch;

/// Name of the aggregate function.
pub const SKETCH: &str = "quantile_sketch";
/// Name of the scalar function.
pub const QUANTILE_OF: &str = "quantile_of_sketch";

/// `quantile_sketch(x)`: the sketch of a group's values; nulls and NaN are left out.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct SketchAggregate {
    signature: Signature,
}

impl Default for SketchAggregate {
    fn default() -> SketchAggregate {
        SketchAggregate { signature: Signature::exact(vec![DataType::Float64], Volatility::Immutable) }
    }
}

impl AggregateUDFImpl for SketchAggregate {
    fn name(&self) -> &str {
        SKETCH
    }
    fn signature(&self) -> &Signature {
        &self.signature
    }
    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Binary)
    }
    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        Ok(vec![Arc::new(Field::new(format!("{}[sketch]", args.name), DataType::Binary, true))])
    }
    fn accumulator(&self, _: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(SketchAccumulator::default()))
    }
    fn groups_accumulator_supported(&self, _: AccumulatorArgs) -> bool {
        true
    }
    fn create_groups_accumulator(&self, _: AccumulatorArgs) -> Result<Box<dyn GroupsAccumulator>> {
        Ok(Box::new(SketchGroups::default()))
    }
}

/// Sketches of many groups. Values are kept as (group, bucket) pairs and counted when the state is asked for: a batch has few
/// values in each group, and sorting pairs costs less than a table of buckets for each group.
#[derive(Debug, Default)]
struct SketchGroups {
    /// `group << 32 | bucket`, one for each value.
    values: Vec<u64>,
    /// The same with counts, from merged states; in no order.
    counted: Vec<(u64, u64)>,
    groups: usize,
}

/// So many pairs are kept before equal ones are added up; bounds memory when many states are merged.
const COMPACT_AT: usize = 1 << 20;

impl SketchGroups {
    fn compact(&mut self) {
        self.counted.extend(self.values.drain(..).map(|pair| (pair, 1)));
        self.counted.sort_unstable_by_key(|(pair, _)| *pair);
        self.counted.dedup_by(|later, earlier| {
            let same = later.0 == earlier.0;
            if same {
                earlier.1 = earlier.1.saturating_add(later.1);
            }
            same
        });
    }

    fn emit(&mut self, emit_to: EmitTo) -> BinaryArray {
        self.compact();
        let count = match emit_to {
            EmitTo::All => self.groups,
            EmitTo::First(count) => count.min(self.groups),
        };
        let emitted = self.counted.partition_point(|(pair, _)| (pair >> 32) < count as u64);
        let mut rest = self.counted.split_off(emitted);
        for (pair, _) in &mut rest {
            *pair -= (count as u64) << 32;
        }
        let mut sketches = BinaryBuilder::with_capacity(count, emitted * 3);
        let mut bytes = Vec::new();
        let mut pairs = self.counted.as_slice();
        for group in 0..count as u64 {
            let end = pairs.partition_point(|(pair, _)| (pair >> 32) <= group);
            let (own, others) = pairs.split_at(end);
            bytes.clear();
            sketch::encode(own.iter().map(|(pair, count)| (*pair as u32, *count)), &mut bytes);
            sketches.append_value(&bytes);
            pairs = others;
        }
        self.counted = rest;
        self.groups -= count;
        sketches.finish()
    }
}

impl GroupsAccumulator for SketchGroups {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        opt_filter: Option<&BooleanArray>,
        total_num_groups: usize,
    ) -> Result<()> {
        self.groups = total_num_groups;
        let values = values[0].as_primitive::<Float64Type>();
        let taken = |row: usize| {
            values.is_valid(row) && opt_filter.is_none_or(|filter| filter.is_valid(row) && filter.value(row))
        };
        let everything = values.null_count() == 0 && opt_filter.is_none();
        for (row, (group, value)) in group_indices.iter().zip(values.values()).enumerate() {
            if (everything || taken(row))
                && let Some(bucket) = sketch::bucket(*value)
            {
                self.values.push((*group as u64) << 32 | u64::from(bucket));
            }
        }
        if self.values.len() > COMPACT_AT {
            self.compact();
        }
        Ok(())
    }

    fn merge_batch(&mut self, states: &[ArrayRef], group_indices: &[usize], total_num_groups: usize) -> Result<()> {
        self.groups = total_num_groups;
        let sketches = states[0].as_binary::<i32>();
        for (sketch, group) in sketches.iter().zip(group_indices) {
            let pairs = sketch::decode(sketch.unwrap_or_default());
            self.counted.extend(pairs.map(|(bucket, count)| ((*group as u64) << 32 | u64::from(bucket), count)));
        }
        if self.counted.len() > COMPACT_AT {
            self.compact();
        }
        Ok(())
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        Ok(Arc::new(self.emit(emit_to)))
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        Ok(vec![Arc::new(self.emit(emit_to))])
    }

    fn convert_to_state(&self, values: &[ArrayRef], opt_filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        let rows = values[0].len();
        let mut one_per_row = SketchGroups::default();
        one_per_row.update_batch(values, &(0..rows).collect::<Vec<_>>(), opt_filter, rows)?;
        one_per_row.state(EmitTo::All)
    }

    fn size(&self) -> usize {
        self.values.capacity() * size_of::<u64>() + self.counted.capacity() * size_of::<(u64, u64)>()
    }
}

/// The same for one group.
#[derive(Debug, Default)]
struct SketchAccumulator(SketchGroups);

impl Accumulator for SketchAccumulator {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.0.update_batch(values, &vec![0; values[0].len()], None, 1)
    }
    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.0.merge_batch(states, &vec![0; states[0].len()], 1)
    }
    fn evaluate(&mut self) -> Result<ScalarValue> {
        self.0.groups = 1;
        let sketch = self.0.emit(EmitTo::All);
        Ok(ScalarValue::Binary(Some(sketch.value(0).to_vec())))
    }
    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![self.evaluate()?])
    }
    fn size(&self) -> usize {
        size_of::<Self>() + self.0.size()
    }
}

/// `quantile_of_sketch(sketch, q)`: null for an empty sketch.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct QuantileOfSketch {
    signature: Signature,
}

impl Default for QuantileOfSketch {
    fn default() -> QuantileOfSketch {
        let arguments = vec![DataType::Binary, DataType::Float64];
        QuantileOfSketch { signature: Signature::exact(arguments, Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for QuantileOfSketch {
    fn name(&self) -> &str {
        QUANTILE_OF
    }
    fn signature(&self) -> &Signature {
        &self.signature
    }
    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Float64)
    }
    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let ColumnarValue::Scalar(ScalarValue::Float64(Some(q))) = args.args[1] else {
            return exec_err!("the second argument of quantile must be a number");
        };
        let sketches = args.args[0].to_array(args.number_rows)?;
        let quantiles: Float64Array =
            sketches.as_binary::<i32>().iter().map(|bytes| sketch::quantile(bytes.unwrap_or_default(), q)).collect();
        Ok(ColumnarValue::Array(Arc::new(quantiles)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn float_array(values: &[f64]) -> ArrayRef {
        Arc::new(Float64Array::from(values.to_vec()))
    }

    fn one_pass(values: &[f64], groups: &[usize], total: usize) -> BinaryArray {
        let mut accumulator = SketchGroups::default();
        accumulator.update_batch(&[float_array(values)], groups, None, total).unwrap();
        accumulator.emit(EmitTo::All)
    }

    proptest! {
        /// Scenario: rows are split over workers, merged in any order, and emitted in two parts.
        /// Guarantees: the same bytes as in one pass.
        #[test]
        fn merging_is_exact(
            rows in prop::collection::vec((0usize..5, -100.0..1e6f64), 1..200), split in any::<prop::sample::Index>(), first in 0usize..5,
        ) {
            let (groups, values): (Vec<_>, Vec<_>) = rows.iter().copied().unzip();
            let split = split.index(rows.len());
            let parts = [one_pass(&values[..split], &groups[..split], 5), one_pass(&values[split..], &groups[split..], 5)];
            let mut merged = SketchGroups::default();
            for part in parts.iter().rev() {
                merged.merge_batch(&[Arc::new(part.clone())], &[0, 1, 2, 3, 4], 5).unwrap();
            }
            let head = merged.emit(EmitTo::First(first));
            let tail = merged.emit(EmitTo::All);
            let joined: Vec<_> = head.iter().chain(tail.iter()).map(|bytes| bytes.unwrap().to_vec()).collect();
            let expected: Vec<_> = one_pass(&values, &groups, 5).iter().map(|bytes| bytes.unwrap().to_vec()).collect();
            prop_assert_eq!(joined, expected);
        }
    }
}
