//! What cannot be computed is null: a value of an event must not be able to fail a view, and with it the partition.
//!
//! The rule runs last, so that it also sees the casts which DataFusion adds by itself, such as those to compare a text with a
//! number. Divisors of zero are seen to in [`crate::sql`].

use std::sync::Arc;

use arrow::array::{ArrayRef, new_null_array};
use arrow::compute::concat;
use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::{
    Cast, ColumnarValue, Expr, LogicalPlan, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    TryCast,
};
use datafusion::optimizer::optimizer::ApplyOrder;
use datafusion::optimizer::{OptimizerConfig, OptimizerRule};

/// Makes every `CAST` a `TRY_CAST` and every function [`OrNull`].
#[derive(Debug)]
pub(super) struct ErrorsToNull;

impl OptimizerRule for ErrorsToNull {
    fn name(&self) -> &str {
        "errors_to_null"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::BottomUp)
    }

    fn rewrite(&self, plan: LogicalPlan, _: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        let names = NamePreserver::new(&plan);
        let plan = plan.map_expressions(|expr| {
            let name = names.save(&expr);
            Ok(expr.transform_up(error_to_null)?.update_data(|expr| name.restore(expr)))
        })?;
        if plan.transformed { plan.map_data(LogicalPlan::recompute_schema) } else { Ok(plan) }
    }
}

fn error_to_null(expr: Expr) -> Result<Transformed<Expr>> {
    Ok(match expr {
        Expr::Cast(Cast { expr, field }) => Transformed::yes(Expr::TryCast(TryCast { expr, field })),
        Expr::ScalarFunction(ScalarFunction { func, args })
            if !func.inner().is::<OrNull>() && !func.short_circuits() =>
        {
            let func = Arc::new(ScalarUDF::from(OrNull { inner: func }));
            Transformed::yes(Expr::ScalarFunction(ScalarFunction { func, args }))
        }
        other => Transformed::no(other),
    })
}

/// A function whose result is null for the rows for which it fails.
#[derive(Debug, PartialEq, Eq, Hash)]
struct OrNull {
    inner: Arc<ScalarUDF>,
}

impl ScalarUDFImpl for OrNull {
    fn name(&self) -> &str {
        self.inner.name()
    }
    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        self.inner.schema_name(args)
    }
    fn signature(&self) -> &Signature {
        self.inner.signature()
    }
    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        self.inner.coerce_types(arg_types)
    }
    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        self.inner.return_type(arg_types)
    }
    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        let field = self.inner.return_field_from_args(args)?;
        Ok(Arc::new(field.as_ref().clone().with_nullable(true)))
    }
    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        self.inner.invoke_with_args(args.clone()).or_else(|_| self.row_by_row(&args))
    }
}

impl OrNull {
    fn row_by_row(&self, args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
        if args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_))) {
            return Ok(ColumnarValue::Scalar(ScalarValue::try_from(args.return_type())?));
        }
        let value = |row: usize| -> ArrayRef {
            let value = self.inner.invoke_with_args(one_row(args, row)).and_then(|value| value.into_array(1));
            value.unwrap_or_else(|_| new_null_array(args.return_type(), 1))
        };
        let values: Vec<ArrayRef> = (0..args.number_rows).map(value).collect();
        let values: Vec<_> = values.iter().map(AsRef::as_ref).collect();
        Ok(ColumnarValue::Array(concat(&values)?))
    }
}

fn one_row(args: &ScalarFunctionArgs, row: usize) -> ScalarFunctionArgs {
    let arg = |arg: &ColumnarValue| match arg {
        ColumnarValue::Array(array) => ColumnarValue::Array(array.slice(row, 1)),
        scalar => scalar.clone(),
    };
    ScalarFunctionArgs { args: args.args.iter().map(arg).collect(), number_rows: 1, ..args.clone() }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Float64Array, RecordBatch, StringViewArray, TimestampMillisecondArray};
    use bongsu_schemas::tables::{EVENT_TIME, Table, schema_of};
    use chrono_tz::Tz;
    use serde_json::{Value, json};

    use crate::config::View;
    use crate::plan::{TableColumns, ViewPlan};
    use crate::results::value;

    /// Scenario: two events; the attribute `x` of the first is no number, the attribute `zero` of both is 0.
    /// Guarantees: what cannot be computed is null, and neither stage fails.
    #[test]
    fn no_value_can_fail_a_view() {
        #[rustfmt::skip]
        let cases = [
            // column                                               result
            ("sum(CAST(attributes['x'] AS BIGINT))",                json!(7)),
            ("sum(attributes['x']::double)",                        json!(7.0)),
            ("sum(arrow_cast(attributes['x'], 'Int64'))",           json!(7)),
            ("quantile(attributes['x'], 1) > 6",                    json!(true)),
            ("count(*) FILTER (WHERE attributes['x'] > 5)",         json!(1)),
            ("count(*) FILTER (WHERE attributes['x'] IN (7, 8))",   json!(1)),
            ("max(CAST(attributes['x'] AS TIMESTAMP))",             Value::Null),
            ("count(*) / (count(*) - 2)",                           Value::Null),
            ("count(*) % (count(*) - 2)",                           Value::Null),
            ("count(*) / 0",                                        Value::Null),
            ("sum(amount / attributes['zero']::double)",            Value::Null),
            ("sum(7 / attributes['zero']::bigint)",                 Value::Null),
            ("count(*) FILTER (WHERE 1 / attributes['zero']::bigint > 0)", json!(0)),
            ("min(to_timestamp(attributes['x']))",                  Value::Null),
            ("max(sqrt(2 - amount))",                               json!(1.0)),
            ("max(abs(-9223372036854775807 - amount::bigint / 3))", json!(9_223_372_036_854_775_807_i64)),
            ("max(substr(attributes['x'], 1, 2 - amount::bigint))", json!("1")),
            ("count(*) FILTER (WHERE chr(amount::bigint - 3) = 'x')", json!(0)),
            ("round(sqrt(0 - sum(amount)), 1)",                     Value::Null),
            ("count(*) / count(*)",                                 json!(1)),
            ("5 / count(*)",                                        json!(2)),
            ("5.0 / count(*)",                                      json!(2.5)),
            ("sum(amount) / 2",                                     json!(2.0)),
            ("sum(amount) % 3",                                     json!(1.0)),
        ];
        for (column, expected) in cases {
            let plan = view(column).unwrap_or_else(|problem| panic!("{column}: {problem}"));
            let partial = plan.partial(&events(&plan)).unwrap_or_else(|error| panic!("{column}: {error:#}"));
            let results = plan.finish(0, &[partial]).unwrap_or_else(|error| panic!("{column}: {error:#}"));
            assert_eq!(value(results.column(1), 0), expected, "{column}");
        }
    }

    #[test]
    fn what_can_never_be_computed_is_refused() {
        for (column, expected) in
            [("sum(amount / attributes['zero'])", "numeric"), ("max(CAST('x' AS BIGINT))", "Cannot cast string 'x'")]
        {
            let problem = view(column).unwrap_err();
            assert!(problem.contains(expected), "{column}: {problem}");
        }
    }

    fn view(column: &str) -> Result<ViewPlan, String> {
        let sql = format!("SELECT event, {column} AS result FROM events GROUP BY tumble(interval '1 minute'), event");
        let table = Table::Events;
        let columns = TableColumns { columns: table.columns(), has_attributes: table.has_attributes() };
        ViewPlan::new(&View::new("v", &sql), &[(table.name().to_owned(), columns)].into(), Tz::UTC)
    }

    fn events(plan: &ViewPlan) -> RecordBatch {
        let column = |name: &str| -> ArrayRef {
            match name {
                EVENT_TIME => Arc::new(TimestampMillisecondArray::from(vec![1, 2]).with_timezone("UTC")),
                "event" => Arc::new(StringViewArray::from(vec!["payment", "payment"])),
                "amount" => Arc::new(Float64Array::from(vec![1.0, 3.0])),
                "attributes.x" => Arc::new(StringViewArray::from(vec!["12 apples", "7"])),
                "attributes.zero" => Arc::new(StringViewArray::from(vec!["0", "0"])),
                other => panic!("the plan wants {other}"),
            }
        };
        let columns = plan.input_columns.iter().map(|wanted| column(&wanted.name)).collect();
        RecordBatch::try_new(schema_of(&plan.input_columns), columns).unwrap()
    }
}
