//! Reads what the weekly report needs from the Parquet history, with DataFusion.
//!
//! Columns that a file does not have are null, so that history written by other versions of a view can be read.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use bongsu_schemas::history::{History, view_folder};
use chrono::{DateTime, Utc};
use datafusion::arrow::array::{Array, AsArray, RecordBatch};
use datafusion::arrow::datatypes::{DataType, Field, Int64Type, Schema, TimeUnit, TimestampMillisecondType};
use datafusion::functions_aggregate::expr_fn::{max, min, sum};
use datafusion::prelude::{DataFrame, Expr, ParquetReadOptions, SessionConfig, SessionContext, col, lit, when};
use datafusion::scalar::ScalarValue;
use object_store::ObjectStore;
use object_store::aws::AmazonS3Builder;
use object_store::local::LocalFileSystem;
use object_store::prefix::PrefixStore;
use url::Url;

use crate::weekly::counts::{Counts, GroupCounts, ServiceCounts};

const EXCEPTIONS: &str = "exceptions_1m";
const REQUESTS: &str = "requests_1m";
/// Column that a file has from its folder.
const DATE: &str = "date";

/// What is counted.
#[derive(Debug, Clone)]
pub(crate) struct Question<'a> {
    /// Bounds of the week's days: eight instants.
    pub(crate) days: [DateTime<Utc>; 8],
    /// Start of the week before.
    pub(crate) previous_start: DateTime<Utc>,
    /// Only this environment.
    pub(crate) environment: Option<&'a str>,
    /// Only this service.
    pub(crate) service: Option<&'a str>,
}

impl Question<'_> {
    fn start(&self) -> DateTime<Utc> {
        self.days[0]
    }
    fn end(&self) -> DateTime<Utc> {
        self.days[7]
    }
}

/// Counts exceptions and requests. A history that does not exist yet is an empty one.
pub(crate) async fn count(history: &History, question: &Question<'_>) -> anyhow::Result<Counts> {
    let Some(store) = open(&history.url).with_context(|| format!("opening history at `{}`", history.url))? else {
        return Ok(Counts::default());
    };
    let session = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(2));
    let base = Url::parse("history://windows/")?;
    session.register_object_store(&base, store);
    let reading = || format!("reading history at `{}`", history.url);
    let mut counts = Counts::default();
    let exceptions = view(&session, EXCEPTIONS, exceptions_schema(), None, question).await.with_context(reading)?;
    read_groups(exceptions.clone(), question, &mut counts).await.with_context(reading)?;
    read_days(exceptions, question, &mut counts).await.with_context(reading)?;
    // Requests are many, and only two weeks of them matter.
    let previous_start = Some(question.previous_start);
    let requests = view(&session, REQUESTS, requests_schema(), previous_start, question).await.with_context(reading)?;
    read_requests(requests, question, &mut counts).await.with_context(reading)?;
    Ok(counts)
}

/// The store of `url`; none where a local folder does not exist.
fn open(url: &str) -> anyhow::Result<Option<Arc<dyn ObjectStore>>> {
    if let Some(path) = url.strip_prefix("file:") {
        // `file:///abs`, `file:/abs` and `file:./relative` are all in use.
        let path = path.strip_prefix("//").unwrap_or(path);
        if !Path::new(path).is_dir() {
            return Ok(None);
        }
        return Ok(Some(Arc::new(LocalFileSystem::new_with_prefix(path)?)));
    }
    let parsed = Url::parse(url)?;
    anyhow::ensure!(parsed.scheme() == "s3", "the scheme `{}` is neither file nor s3", parsed.scheme());
    let bucket = parsed.host_str().context("the bucket is missing")?;
    let store = AmazonS3Builder::from_env().with_bucket_name(bucket).build()?;
    Ok(Some(Arc::new(PrefixStore::new(store, parsed.path().trim_matches('/')))))
}

/// The windows of a view since `from` and before the end of the week, of the wanted environment and service.
async fn view(
    session: &SessionContext,
    name: &str,
    schema: Schema,
    from: Option<DateTime<Utc>>,
    question: &Question<'_>,
) -> anyhow::Result<DataFrame> {
    let options =
        ParquetReadOptions::default().schema(&schema).table_partition_cols(vec![(DATE.to_owned(), DataType::Utf8)]);
    let mut frame = session.read_parquet(format!("history://windows/{}/", view_folder(name)), options).await?;
    // Folders are left out by their date, before any file is opened.
    let date = |at: DateTime<Utc>| lit(at.date_naive().to_string());
    frame = frame.filter(col(DATE).lt_eq(date(question.end())))?;
    frame = frame.filter(col("window_start").lt(instant(question.end())))?;
    if let Some(from) = from {
        frame = frame.filter(col(DATE).gt_eq(date(from)).and(col("window_start").gt_eq(instant(from))))?;
    }
    if let Some(environment) = question.environment {
        frame = frame.filter(col("environment").eq(lit(environment)))?;
    }
    if let Some(service) = question.service {
        frame = frame.filter(col("service").eq(lit(service)))?;
    }
    Ok(frame)
}

fn time_field(name: &str) -> Field {
    Field::new(name, DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into())), true)
}

fn exceptions_schema() -> Schema {
    let text = ["service", "environment", "fingerprint", "type", "message", "first_frame"];
    let mut fields: Vec<_> = text.iter().map(|name| Field::new(*name, DataType::Utf8, true)).collect();
    fields.extend(["window_start", "first_seen", "last_seen"].map(time_field));
    fields.push(Field::new("exceptions", DataType::Int64, true));
    Schema::new(fields)
}

fn requests_schema() -> Schema {
    let text = ["service", "environment"].map(|name| Field::new(name, DataType::Utf8, true));
    let others = [time_field("window_start"), Field::new("requests", DataType::Int64, true)];
    Schema::new(text.into_iter().chain(others).collect::<Vec<_>>())
}

fn instant(at: DateTime<Utc>) -> Expr {
    lit(ScalarValue::TimestampMillisecond(Some(at.timestamp_millis()), Some("UTC".into())))
}

/// `value` where the window starts in `[from, to)`, else null.
fn during(from: DateTime<Utc>, to: DateTime<Utc>, value: Expr) -> anyhow::Result<Expr> {
    let inside = col("window_start").gt_eq(instant(from)).and(col("window_start").lt(instant(to)));
    Ok(when(inside, value).end()?)
}

async fn read_groups(exceptions: DataFrame, question: &Question<'_>, counts: &mut Counts) -> anyhow::Result<()> {
    let week = |value| during(question.start(), question.end(), value);
    let before = |value| during(DateTime::<Utc>::MIN_UTC.max(DateTime::UNIX_EPOCH), question.start(), value);
    let occurred = col("exceptions").gt(lit(0i64));
    let grouped = exceptions.filter(occurred)?.aggregate(
        vec![col("service"), col("fingerprint")],
        vec![
            min(col("type")).alias("a_type"),
            min(col("message")).alias("a_message"),
            min(col("first_frame")).alias("a_frame"),
            sum(week(col("exceptions"))?).alias("in_week"),
            sum(during(question.previous_start, question.start(), col("exceptions"))?).alias("in_previous"),
            max(before(col("window_start"))?).alias("last_before"),
            min(week(col("window_start"))?).alias("first_in_week"),
            min(col("first_seen")).alias("first"),
            max(col("last_seen")).alias("last"),
            min(col("window_start")).alias("first_window"),
            max(col("window_start")).alias("last_window"),
        ],
    )?;
    for batch in grouped.collect().await? {
        let columns = Columns::new(&batch);
        for row in 0..batch.num_rows() {
            let Some(first_window) = columns.time("first_window", row) else { continue };
            let last_window = columns.time("last_window", row).unwrap_or(first_window);
            counts.know_since(first_window);
            counts.groups.push(GroupCounts {
                service: columns.text("service", row).unwrap_or_default(),
                fingerprint: columns.text("fingerprint", row).unwrap_or_default(),
                exception_type: columns.text("a_type", row).unwrap_or_default(),
                message: columns.text("a_message", row).unwrap_or_default(),
                first_frame: columns.text("a_frame", row).filter(|frame| !frame.is_empty()),
                count: columns.count("in_week", row),
                previous_count: columns.count("in_previous", row),
                last_before: columns.time("last_before", row),
                first_in_week: columns.time("first_in_week", row),
                first_seen: columns.time("first", row).unwrap_or(first_window),
                last_seen: columns.time("last", row).unwrap_or(last_window),
            });
        }
    }
    Ok(())
}

async fn read_days(exceptions: DataFrame, question: &Question<'_>, counts: &mut Counts) -> anyhow::Result<()> {
    let name = |day: usize| format!("day_{day}");
    let mut days = Vec::new();
    for day in 0..7 {
        let value = during(question.days[day], question.days[day + 1], col("exceptions"))?;
        days.push(sum(value).alias(name(day)));
    }
    let week = exceptions.filter(col("window_start").gt_eq(instant(question.start())))?;
    for batch in week.aggregate(vec![col("service")], days)?.collect().await? {
        let columns = Columns::new(&batch);
        for row in 0..batch.num_rows() {
            let service = counts.service(columns.text("service", row).unwrap_or_default());
            service.days = std::array::from_fn(|day| columns.count(&name(day), row));
        }
    }
    Ok(())
}

async fn read_requests(requests: DataFrame, question: &Question<'_>, counts: &mut Counts) -> anyhow::Result<()> {
    let in_week = during(question.start(), question.end(), col("requests"))?;
    let sums = vec![sum(in_week).alias("in_week"), min(col("window_start")).alias("first_window")];
    for batch in requests.aggregate(vec![col("service")], sums)?.collect().await? {
        let columns = Columns::new(&batch);
        for row in 0..batch.num_rows() {
            if let Some(first_window) = columns.time("first_window", row) {
                counts.know_since(first_window);
            }
            let in_week = columns.count("in_week", row);
            if in_week > 0 {
                counts.service(columns.text("service", row).unwrap_or_default()).requests = Some(in_week);
            }
        }
    }
    Ok(())
}

/// The columns of a result, read by name.
struct Columns<'a> {
    batch: &'a RecordBatch,
    positions: BTreeMap<&'a str, usize>,
}

impl<'a> Columns<'a> {
    fn new(batch: &'a RecordBatch) -> Columns<'a> {
        let names = batch.schema_ref().fields().iter().enumerate();
        Columns { batch, positions: names.map(|(position, field)| (field.name().as_str(), position)).collect() }
    }

    fn column(&self, name: &str) -> Option<&'a Arc<dyn Array>> {
        self.positions.get(name).map(|position| self.batch.column(*position))
    }

    fn text(&self, name: &str, row: usize) -> Option<String> {
        let column = self.column(name).filter(|column| column.is_valid(row))?;
        // Aggregates over text may come back as views.
        let viewed = || Some(column.as_string_view_opt()?.value(row).to_owned());
        column.as_string_opt::<i32>().map(|texts| texts.value(row).to_owned()).or_else(viewed)
    }

    fn count(&self, name: &str, row: usize) -> u64 {
        let value = |column: &Arc<dyn Array>| Some(column.as_primitive_opt::<Int64Type>()?.value(row));
        let valid = self.column(name).filter(|column| column.is_valid(row));
        valid.and_then(value).and_then(|count| u64::try_from(count).ok()).unwrap_or(0)
    }

    fn time(&self, name: &str, row: usize) -> Option<DateTime<Utc>> {
        let column = self.column(name).filter(|column| column.is_valid(row))?;
        DateTime::from_timestamp_millis(column.as_primitive_opt::<TimestampMillisecondType>()?.value(row))
    }
}

impl Counts {
    /// The counts of a service, which are empty at first.
    fn service(&mut self, name: String) -> &mut ServiceCounts {
        self.services.entry(name).or_default()
    }
}
