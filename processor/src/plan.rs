//! A view as two aggregations: DataFusion plans the SQL, and the plan is split at its aggregate.
//!
//! ```text
//! rows ─► filter, project ─► Partial │ partials topic │ PartialReduce* ─► Final ─► project ─► results
//!                   stage 1          │                │                  stage 2
//! ```
//!
//! The plans are kept with an empty leaf; each run puts its batches in the leaf's place, so that a run is always over bounded
//! input and DataFusion's metrics of one run go with it.

mod nulls;

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use anyhow::{Context, anyhow, bail};
use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, TimestampMillisecondArray};
use arrow::compute::concat_batches;
use arrow::datatypes::{Int64Type, Schema, SchemaRef, TimestampMillisecondType};
use async_trait::async_trait;
use bongsu_schemas::duration::Span;
use bongsu_schemas::key::stable_id;
use bongsu_schemas::tables::{Column, ColumnType, EVENT_TIME, schema_of};
use chrono_tz::Tz;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{ScalarValue, exec_err};
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::execution::TaskContext;
use datafusion::execution::context::{SessionConfig, SessionContext, SessionState};
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::logical_expr::{AggregateUDF, Expr, LogicalPlan, ScalarUDF, TableType};
use datafusion::optimizer::Optimizer;
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode};
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::physical_plan::{ChildrenPropertiesMode, ExecutionPlan, ReplaceChildrenOptions, collect};
use futures::executor::block_on;

use self::nulls::ErrorsToNull;
use crate::config::View;
use crate::evolution::Placement;
use crate::presence::is_presence;
use crate::quantile::{QuantileOfSketch, SketchAggregate};
use crate::sql::{EVENTS, FIRST_EVENT_TIME, HIDDEN_COLUMNS, PANE, ViewQuery, parse_view};
use crate::window::WindowSpec;

/// The columns of every table that views can read, by table name.
pub type Tables = BTreeMap<String, TableColumns>;

/// What can be read from a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableColumns {
    /// Its columns, `event_time` first.
    pub columns: Vec<Column>,
    /// Whether `attributes['...']` can be read too.
    pub has_attributes: bool,
}

/// A view, planned. Cloning shares the plans.
#[derive(Debug, Clone)]
pub struct ViewPlan {
    /// The view's name.
    pub name: String,
    /// Whether it only tells who sends anything: its windows are judged and not published.
    pub is_presence: bool,
    /// The table that it reads.
    pub table: String,
    /// Its windows.
    pub window: WindowSpec,
    /// The windows that are made of partials: its own, or those from which its own are rolled up.
    pub partial_window: WindowSpec,
    /// So many groups are kept apart in a window.
    pub max_groups: usize,
    /// How long late rows correct a closed window, in milliseconds; 0 for not at all.
    pub corrections_ms: i64,
    /// Changes when the partials of two plans cannot be merged.
    pub version: String,
    /// Where its partials go, and which windows are its own.
    pub placement: Placement,
    /// The table's columns that stage 1 needs, `event_time` first.
    pub input_columns: Vec<Column>,
    /// Partials: [`PANE`], the group keys, then the states of the aggregates.
    pub partial_schema: SchemaRef,
    /// How many of the columns after [`PANE`] in the partials are group keys.
    pub partial_keys: usize,
    /// Results: the view's columns, then the hidden ones; [`PANE`] is the start of the window.
    pub result_schema: SchemaRef,
    /// Which result columns are group keys, in the view's order.
    pub keys: Vec<usize>,
    /// The same in the order of their names, as keys of records have them.
    pub keys_by_name: Vec<usize>,
    /// Which result columns are values.
    pub values: Vec<usize>,
    /// Names of values that no further event can make smaller.
    pub growing: BTreeSet<String>,
    rows_schema: SchemaRef,
    partial: Arc<dyn ExecutionPlan>,
    reduce: Arc<dyn ExecutionPlan>,
    finish: Arc<dyn ExecutionPlan>,
    task: Arc<TaskContext>,
}

impl ViewPlan {
    /// Plans a view over the tables that sources fill; calendar windows that name no zone are those of `zone`. The error is for the
    /// author of the view.
    pub fn new(view: &View, tables: &Tables, zone: Tz) -> Result<ViewPlan, String> {
        let query = parse_view(&view.sql, zone)?;
        let table = tables.get(&query.table).ok_or_else(|| {
            let known = tables.keys().cloned().collect::<Vec<_>>().join(", ");
            format!("reads the table `{}`, which no source fills; there are: {known}", query.table)
        })?;
        let columns = columns_of(&query, table)?;
        block_on(plan(view, &query, &columns)).map_err(|error| readable(&error))
    }

    /// Aggregates decoded rows of the view's table, by pane and group.
    pub fn partial(&self, rows: &RecordBatch) -> anyhow::Result<RecordBatch> {
        let columns = self.rows_schema.fields().iter().map(|field| {
            if field.name() == PANE {
                return self.panes(rows);
            }
            rows.column_by_name(field.name()).cloned().with_context(|| format!("decoded rows lack `{}`", field.name()))
        });
        let rows = RecordBatch::try_new(self.rows_schema.clone(), columns.collect::<anyhow::Result<_>>()?)?;
        self.run(&self.partial, &self.rows_schema, vec![rows])
    }

    /// Merges partials of any panes into fewer rows.
    pub fn reduce(&self, partials: Vec<RecordBatch>) -> anyhow::Result<RecordBatch> {
        self.run(&self.reduce, &self.partial_schema, partials)
    }

    /// The results of one window from the partials of its panes.
    pub fn finish(&self, window_start_ms: i64, partials: &[RecordBatch]) -> anyhow::Result<RecordBatch> {
        let partials =
            partials.iter().map(|rows| self.in_pane(window_start_ms, rows)).collect::<anyhow::Result<_>>()?;
        self.run(&self.finish, &self.partial_schema, partials)
    }

    /// The same partials as of the pane that starts at `pane_start_ms`, so that they can be merged with others of it.
    pub fn in_pane(&self, pane_start_ms: i64, rows: &RecordBatch) -> anyhow::Result<RecordBatch> {
        let start = TimestampMillisecondArray::from_value(pane_start_ms, rows.num_rows()).with_timezone("UTC");
        let mut columns = rows.columns().to_vec();
        columns[0] = Arc::new(start);
        Ok(RecordBatch::try_new(self.partial_schema.clone(), columns)?)
    }

    /// The same plan as a version of the view.
    pub(crate) fn placed(self, version: String, placement: Placement) -> ViewPlan {
        ViewPlan { version, placement, ..self }
    }

    /// Whether its windows are made of closed panes instead of partials.
    pub fn is_rolled_up(&self) -> bool {
        self.partial_window != self.window
    }

    fn panes(&self, rows: &RecordBatch) -> anyhow::Result<ArrayRef> {
        let event_times = rows.column_by_name(EVENT_TIME).context("decoded rows lack the event time")?;
        let event_times = event_times.as_primitive::<TimestampMillisecondType>();
        let panes: TimestampMillisecondArray = event_times.unary(|time_ms| self.partial_window.pane_start(time_ms));
        Ok(Arc::new(panes.with_timezone("UTC")))
    }

    fn run(
        &self,
        plan: &Arc<dyn ExecutionPlan>,
        schema: &SchemaRef,
        batches: Vec<RecordBatch>,
    ) -> anyhow::Result<RecordBatch> {
        let leaf: Arc<dyn ExecutionPlan> = MemorySourceConfig::try_new_exec(&[batches], schema.clone(), None)?;
        let plan = with_leaf(plan, &leaf)?;
        // What panics on some rows must not take the others with it: callers go on with fewer rows.
        let run = AssertUnwindSafe(|| block_on(collect(plan.clone(), self.task.clone())));
        let results = catch_unwind(run).unwrap_or_else(|_| exec_err!("the aggregation panicked, which is a bug"));
        let results = results.with_context(|| format!("while the view `{}` was computed", self.name))?;
        Ok(concat_batches(&plan.schema(), &results)?)
    }
}

/// A copy of the plan with `leaf` where it has its only leaf.
fn with_leaf(
    plan: &Arc<dyn ExecutionPlan>,
    leaf: &Arc<dyn ExecutionPlan>,
) -> datafusion::common::Result<Arc<dyn ExecutionPlan>> {
    let replace = |node: Arc<dyn ExecutionPlan>| {
        Ok(if node.children().is_empty() { Transformed::yes(leaf.clone()) } else { Transformed::no(node) })
    };
    Ok(plan.clone().transform_up(replace)?.data)
}

fn columns_of(query: &ViewQuery, table: &TableColumns) -> Result<Vec<Column>, String> {
    let mut columns = table.columns.clone();
    if !table.has_attributes && !query.attributes.is_empty() {
        return Err(format!("reads attributes, but the table `{}` has none", query.table));
    }
    columns.extend(query.attributes.iter().map(|key| Column::attribute(key)));
    Ok(columns)
}

async fn plan(view: &View, query: &ViewQuery, columns: &[Column]) -> anyhow::Result<ViewPlan> {
    let session = session();
    let mut with_pane = columns.to_vec();
    with_pane.push(Column::required(PANE, ColumnType::Time));
    session.register_table(query.table.as_str(), Arc::new(PlannedTable { schema: schema_of(&with_pane) }))?;
    let state = session.state();
    let logical = state.create_logical_plan(&query.sql).await?;
    let (keys, values) = keys_and_values(&logical)?;
    let physical = state.create_physical_plan(&logical).await?;

    let aggregate = innermost_aggregate(&physical).context("has no aggregate, such as count(*)")?;
    let rows_schema = leaf_schema(aggregate.input());
    let again = |mode, input: Arc<dyn ExecutionPlan>| {
        let group_by = match mode {
            AggregateMode::Partial => aggregate.group_expr().clone(),
            _ => aggregate.group_expr().as_final(),
        };
        let filters = match mode {
            AggregateMode::Partial => aggregate.filter_expr().to_vec(),
            _ => vec![None; aggregate.aggr_expr().len()],
        };
        AggregateExec::try_new(mode, group_by, aggregate.aggr_expr().to_vec(), filters, input, aggregate.input_schema())
    };
    let partial = Arc::new(again(AggregateMode::Partial, aggregate.input().clone())?);
    let partial_schema = partial.schema();
    let partials_leaf: Arc<dyn ExecutionPlan> = Arc::new(EmptyExec::new(partial_schema.clone()));
    let reduce = Arc::new(again(AggregateMode::PartialReduce, partials_leaf.clone())?);
    let last = Arc::new(again(AggregateMode::Final, partials_leaf)?);
    let finish = above_aggregate(&physical, last)?;

    let wanted = |column: &&Column| column.name == EVENT_TIME || rows_schema.field_with_name(&column.name).is_ok();
    // Which groups are `__other__` depends on the limit, and which panes are still there on the corrections.
    let corrections_ms = view.corrections.map_or(0, Span::millis);
    let limits = format!("{} {corrections_ms}", view.max_groups);
    let version =
        stable_id([query.sql.as_str(), &format!("{:?}", query.window), &format!("{partial_schema:?}"), &limits]);
    let result_schema = finish.schema();
    let mut keys_by_name = keys.clone();
    keys_by_name.sort_by_key(|key| result_schema.field(*key).name());
    Ok(ViewPlan {
        name: view.name.clone(),
        is_presence: is_presence(&view.name),
        table: query.table.clone(),
        window: query.window,
        partial_window: query.window.rolled_up_from().unwrap_or(query.window),
        max_groups: usize::try_from(view.max_groups)?,
        corrections_ms,
        version: version[..16].to_owned(),
        placement: Placement::only(1, 1),
        input_columns: columns.iter().filter(wanted).cloned().collect(),
        partial_keys: aggregate.group_expr().expr().len() - 1,
        result_schema,
        partial_schema,
        keys,
        keys_by_name,
        values,
        growing: query.growing.clone(),
        rows_schema,
        partial,
        reduce,
        finish,
        task: state.task_ctx(),
    })
}

/// One thread, no physical optimiser: the plan must keep the shape that is split here.
fn session() -> SessionContext {
    let config = SessionConfig::new()
        .with_target_partitions(1)
        // Rows that stage 1 did not aggregate would still be correct, but would flood the partials topic.
        .set("datafusion.execution.skip_partial_aggregation_probe_ratio_threshold", &ScalarValue::Float64(Some(2.0)));
    // That rule turns count(DISTINCT x) into two aggregates, which cannot be split into two stages.
    let rules =
        Optimizer::new().rules.into_iter().filter(|rule| rule.name() != "single_distinct_aggregation_to_group_by");
    let state = SessionStateBuilder::new()
        .with_config(config)
        .with_default_features()
        .with_optimizer_rules(rules.collect())
        .with_optimizer_rule(Arc::new(ErrorsToNull))
        .with_physical_optimizer_rules(Vec::new())
        .build();
    let session = SessionContext::new_with_state(state);
    session.register_udaf(AggregateUDF::from(SketchAggregate::default()));
    session.register_udf(ScalarUDF::from(QuantileOfSketch::default()));
    session
}

/// The state in which conditions over a view's results are planned.
pub(crate) fn condition_state() -> SessionState {
    session().state()
}

/// Which of the view's columns are group keys and which are values.
fn keys_and_values(logical: &LogicalPlan) -> anyhow::Result<(Vec<usize>, Vec<usize>)> {
    let LogicalPlan::Projection(projection) = logical else { bail!("must be a plain SELECT with GROUP BY") };
    let LogicalPlan::Aggregate(aggregate) = projection.input.as_ref() else {
        bail!("must be a plain SELECT with GROUP BY")
    };
    let group_key = |expr: &Expr| match expr.clone().unalias() {
        Expr::Column(column) => {
            let index = aggregate.schema.maybe_index_of_column(&column)?;
            (index < aggregate.group_expr.len()).then_some(index)
        }
        _ => None,
    };
    let visible = projection.expr.len() - HIDDEN_COLUMNS;
    let (mut keys, mut values, mut selected) = (Vec::new(), Vec::new(), vec![false; aggregate.group_expr.len()]);
    for (index, expr) in projection.expr[..visible].iter().enumerate() {
        let name = projection.schema.field(index).name();
        if ["window_start", "window_end"].contains(&name.as_str()) || name.starts_with("__") {
            bail!("cannot name a column `{name}`; every result has window_start and window_end anyway");
        }
        match group_key(expr) {
            Some(group) => {
                selected[group] = true;
                keys.push(index);
            }
            None => values.push(index),
        }
    }
    let forgotten = (1..selected.len()).find(|group| !selected[*group]);
    if let Some(group) = forgotten {
        let key = aggregate.group_expr[group].schema_name();
        bail!("groups by `{key}` but does not select it, so that its results could not be told apart");
    }
    Ok((keys, values))
}

fn innermost_aggregate(plan: &Arc<dyn ExecutionPlan>) -> Option<AggregateExec> {
    let below = plan.children().into_iter().find_map(innermost_aggregate);
    below.or_else(|| plan.downcast_ref::<AggregateExec>().cloned())
}

fn leaf_schema(plan: &Arc<dyn ExecutionPlan>) -> SchemaRef {
    plan.children().first().map_or_else(|| plan.schema(), |child| leaf_schema(child))
}

/// What the plan does above its aggregates, on top of `last`.
fn above_aggregate(plan: &Arc<dyn ExecutionPlan>, last: Arc<AggregateExec>) -> anyhow::Result<Arc<dyn ExecutionPlan>> {
    if plan.downcast_ref::<AggregateExec>().is_some() {
        return Ok(last);
    }
    let child = plan.children().first().copied().cloned().ok_or_else(|| anyhow!("has no aggregate"))?;
    let child = above_aggregate(&child, last)?;
    Ok(plan.clone().replace_children(vec![child], ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))?)
}

/// DataFusion's message without its stack of wrappers.
pub(crate) fn readable(error: &anyhow::Error) -> String {
    let text = error.root_cause().to_string();
    let text = text.lines().next().unwrap_or_default();
    let prefixes =
        ["Error during planning: ", "Schema error: ", "Execution error: ", "SQL error: ", "type_coercion\ncaused by\n"];
    prefixes.iter().fold(text, |text, prefix| text.trim_start_matches(prefix)).trim_end().to_owned()
}

/// A table during planning: columns and no rows, and nothing known about how many rows there will be.
#[derive(Debug)]
struct PlannedTable {
    schema: SchemaRef,
}

#[async_trait]
impl TableProvider for PlannedTable {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }
    fn table_type(&self) -> TableType {
        TableType::Base
    }
    async fn scan(
        &self,
        _: &dyn Session,
        projection: Option<&Vec<usize>>,
        _: &[Expr],
        _: Option<usize>,
    ) -> datafusion::common::Result<Arc<dyn ExecutionPlan>> {
        let schema: Schema = match projection {
            Some(columns) => self.schema.project(columns)?,
            None => self.schema.as_ref().clone(),
        };
        Ok(Arc::new(EmptyExec::new(Arc::new(schema))))
    }
}

/// The earliest event of a result's window, epoch milliseconds.
pub(crate) fn first_event_time(results: &RecordBatch, row: usize) -> Option<i64> {
    let column = results.column_by_name(FIRST_EVENT_TIME)?.as_primitive_opt::<TimestampMillisecondType>()?;
    column.is_valid(row).then(|| column.value(row))
}

/// How many events the results stand for.
pub(crate) fn events(results: &RecordBatch) -> u64 {
    let counts = results.column_by_name(EVENTS).and_then(|column| column.as_primitive_opt::<Int64Type>());
    counts.and_then(arrow::compute::sum).unwrap_or(0).max(0) as u64
}

#[cfg(test)]
mod tests;
