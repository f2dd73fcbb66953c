//! `when` and `clear` as DataFusion expressions over a view's results. Parameters are columns, since each service may have its own.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Float64Array, RecordBatch, StringArray, TimestampMillisecondArray,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use bongsu_schemas::alert::AlertLevel;
use bongsu_schemas::key::GroupKey;
use bongsu_schemas::services::{ParamSetting, ParamValue, Services};
use bongsu_schemas::tables::event_time_type;
use datafusion::common::DFSchema;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::logical_expr::not;
use datafusion::physical_plan::PhysicalExpr;
use datafusion::physical_plan::expressions::{CastExpr, TryCastExpr};

use crate::config::Rule;
use crate::plan::{ViewPlan, condition_state, readable};
use crate::sql::parse_condition;

/// A rule's two conditions over one view.
#[derive(Debug, Clone)]
pub struct Conditions {
    when: Arc<dyn PhysicalExpr>,
    /// None where the rule gives no `clear`: not `when`.
    clear: Option<Arc<dyn PhysicalExpr>>,
    /// The view's columns, `window_start`, `window_end`, then `$name` for each parameter.
    schema: SchemaRef,
    params: BTreeMap<String, ParamSetting>,
    /// The conditions as written, for evidence.
    pub when_text: String,
    /// As written, or `(when) IS NOT TRUE`.
    pub clear_text: String,
}

/// What is wrong with a rule, and in which of its keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConditionError {
    /// `when`, `clear` or `params`.
    pub key: &'static str,
    /// For the author.
    pub problem: String,
}

/// A window's rows, judged.
#[derive(Debug)]
pub struct Judgement {
    /// `when`, null is false.
    pub met: Vec<bool>,
    /// `clear`, null is false; without one, whether `when` is not met, so that a null `when` ends an alert.
    pub clear: Vec<bool>,
}

impl Conditions {
    /// Compiles a rule that has `when`.
    pub fn new(rule: &Rule, when: &str, view: &ViewPlan) -> Result<Conditions, ConditionError> {
        let visible = view.keys.iter().chain(&view.values);
        let mut fields: Vec<Field> = visible.map(|column| view.result_schema.field(*column).clone()).collect();
        fields.push(Field::new("window_start", event_time_type(), false));
        fields.push(Field::new("window_end", event_time_type(), false));
        let param_type = |setting: &ParamSetting| match setting.values().first() {
            Some(ParamValue::Boolean(_)) => DataType::Boolean,
            Some(ParamValue::Text(_)) => DataType::Utf8,
            Some(ParamValue::Number(_)) | None => DataType::Float64,
        };
        fields.extend(rule.params.iter().map(|(name, value)| Field::new(format!("${name}"), param_type(value), true)));
        let schema = Arc::new(Schema::new(fields));

        let when_expr = compile(when, "when", &schema, &rule.params)?;
        let clear = rule.clear.as_deref().map(|clear| compile(clear, "clear", &schema, &rule.params));
        Ok(Conditions {
            when: when_expr,
            clear: clear.transpose()?,
            schema,
            params: rule.params.clone(),
            when_text: when.to_owned(),
            clear_text: rule.clear.clone().unwrap_or_else(|| format!("({when}) IS NOT TRUE")),
        })
    }

    /// The parameters that apply to a series at a level: see [`Services::param_of`]; where nobody sets one, the rule's own.
    pub fn params_of(
        &self,
        rule: &str,
        service: Option<&str>,
        key: &GroupKey,
        level: Option<AlertLevel>,
        services: &Services,
    ) -> Params {
        let param = |(name, default): (&String, &ParamSetting)| {
            let set = services.param_of(service, key, level, (rule, name));
            Some((name.clone(), set.or_else(|| default.at(level))?.clone()))
        };
        self.params.iter().filter_map(param).collect()
    }

    /// Judges all rows of a window.
    pub fn judge(
        &self,
        view: &ViewPlan,
        results: &RecordBatch,
        window_ms: (i64, i64),
        params: &ParamsOfRows,
    ) -> anyhow::Result<Judgement> {
        let rows = results.num_rows();
        let mut columns: Vec<ArrayRef> =
            view.keys.iter().chain(&view.values).map(|column| results.column(*column).clone()).collect();
        for time_ms in [window_ms.0, window_ms.1] {
            columns.push(Arc::new(TimestampMillisecondArray::from_value(time_ms, rows).with_timezone("UTC")));
        }
        let param_fields = &self.schema.fields()[columns.len()..];
        columns.extend(self.params.keys().zip(param_fields).map(|(name, field)| params.column(name, field, rows)));
        let batch = RecordBatch::try_new(self.schema.clone(), columns)?;
        let met = truths(&self.when, &batch);
        let clear = match &self.clear {
            Some(clear) => truths(clear, &batch),
            None => met.iter().map(|met| !met).collect(),
        };
        Ok(Judgement { met, clear })
    }
}

/// Values of a rule's parameters by name.
pub type Params = BTreeMap<String, ParamValue>;

/// The parameters of a window's rows. Most rows have the same.
#[derive(Debug, Clone)]
pub struct ParamsOfRows {
    /// Different ones, at least one.
    pub distinct: Vec<Params>,
    /// Which of them each row has; the first one where absent.
    pub of_row: Option<Vec<usize>>,
}

impl ParamsOfRows {
    /// All rows have these.
    pub fn same(params: Params) -> ParamsOfRows {
        ParamsOfRows { distinct: vec![params], of_row: None }
    }

    fn column(&self, name: &str, field: &Field, rows: usize) -> ArrayRef {
        let of = |params: &Params| params.get(name).cloned();
        let values: Vec<Option<ParamValue>> = self.distinct.iter().map(of).collect();
        let index = |row| self.of_row.as_ref().map_or(0, |of_row| of_row[row]);
        let value_of = |row| values.get(index(row)).and_then(Option::as_ref);
        // Types have been checked when the configuration was read.
        match field.data_type() {
            DataType::Boolean => Arc::new(BooleanArray::from_iter((0..rows).map(|row| match value_of(row) {
                Some(ParamValue::Boolean(truth)) => Some(*truth),
                _ => None,
            }))),
            DataType::Utf8 => Arc::new(StringArray::from_iter((0..rows).map(|row| match value_of(row) {
                Some(ParamValue::Text(text)) => Some(text.as_str()),
                _ => None,
            }))),
            _ => Arc::new(Float64Array::from_iter((0..rows).map(|row| match value_of(row) {
                Some(ParamValue::Number(number)) => Some(*number),
                _ => None,
            }))),
        }
    }
}

fn compile(
    sql: &str,
    key: &'static str,
    schema: &SchemaRef,
    params: &BTreeMap<String, ParamSetting>,
) -> Result<Arc<dyn PhysicalExpr>, ConditionError> {
    let fault = |problem: String| ConditionError { key, problem };
    let (sql, used) = parse_condition(sql).map_err(fault)?;
    let unknown: BTreeSet<_> = used.iter().filter(|name| !params.contains_key(*name)).collect();
    if let Some(name) = unknown.first() {
        return Err(fault(format!("uses `${name}`, which is not among the rule's `params`")));
    }
    let state = condition_state();
    let df_schema = DFSchema::try_from(schema.as_ref().clone()).map_err(|error| fault(readable(&error.into())))?;
    let expr = state.create_logical_expr(&sql, &df_schema).map_err(|error| fault(readable(&error.into())))?;
    // NOT of NOT is the expression itself, but makes the planner insist on a condition.
    let expr =
        state.create_physical_expr(not(not(expr)), &df_schema).map_err(|error| fault(readable(&error.into())))?;
    let expr = expr.transform_up(try_cast).data().map_err(|error| fault(readable(&error.into())))?;
    match expr.data_type(schema) {
        Ok(DataType::Boolean) => Ok(expr),
        Ok(other) => Err(fault(format!("must be true or false, not {other}"))),
        Err(error) => Err(fault(readable(&error.into()))),
    }
}

/// As in views, also for the casts that DataFusion adds: a value that cannot be converted is null, not an error.
fn try_cast(expr: Arc<dyn PhysicalExpr>) -> datafusion::common::Result<Transformed<Arc<dyn PhysicalExpr>>> {
    Ok(match expr.downcast_ref::<CastExpr>() {
        Some(cast) => Transformed::yes(Arc::new(TryCastExpr::new(cast.expr().clone(), cast.cast_type().clone()))),
        None => Transformed::no(expr),
    })
}

/// Null is false, and so is a row that cannot be judged: no value of an event can fail the rules of a partition.
fn truths(expr: &Arc<dyn PhysicalExpr>, batch: &RecordBatch) -> Vec<bool> {
    let evaluate = |batch: &RecordBatch| -> datafusion::common::Result<Vec<bool>> {
        let array = expr.evaluate(batch)?.into_array(batch.num_rows())?;
        let truths = array.as_boolean();
        Ok((0..truths.len()).map(|row| truths.is_valid(row) && truths.value(row)).collect())
    };
    evaluate(batch).unwrap_or_else(|_| {
        let truth = |row| evaluate(&batch.slice(row, 1)).is_ok_and(|truth| truth == [true]);
        (0..batch.num_rows()).map(truth).collect()
    })
}

#[cfg(test)]
mod tests;
