//! What the processor says while it runs: each occurrence is a struct that emits its log line and its metric together.

use bongsu_ingest::decode::Reject;
use metrics::{counter, gauge, histogram};
use tracing::{debug, error, info, warn};

use crate::plan::ViewPlan;

/// Says it.
pub(crate) trait Emit {
    fn emit(self);
}

/// Counters exist from the start: one that begins with its first increment has not increased, to Prometheus.
pub(crate) fn register(views: &[ViewPlan]) {
    let plain = [
        "bongsu_epochs_split_total",
        "bongsu_partitions_paused_total",
        "bongsu_partials_expired_total",
        "bongsu_unknown_partials_total",
    ];
    plain.into_iter().for_each(|name| counter!(name).increment(0));
    for flow in ["stage1", "stage2", "history"] {
        let names =
            ["bongsu_flow_restarts_total", "bongsu_transactions_abandoned_total", "bongsu_records_repeated_total"];
        names.into_iter().for_each(|name| counter!(name, "flow" => flow).increment(0));
    }
    for view in views {
        let names = [
            "bongsu_events_late_total",
            "bongsu_windows_corrected_total",
            "bongsu_groups_overflowed_total",
            "bongsu_groups_poisoned_total",
            "bongsu_history_rows_skipped_total",
        ];
        names.into_iter().for_each(|name| counter!(name, "view" => view.name.clone()).increment(0));
    }
}

/// A flow ended with an error and will start again.
pub(crate) struct FlowFailed<'a> {
    pub(crate) flow: &'static str,
    pub(crate) error: &'a anyhow::Error,
}

impl Emit for FlowFailed<'_> {
    fn emit(self) {
        counter!("bongsu_flow_restarts_total", "flow" => self.flow).increment(1);
        error!(
            flow = self.flow,
            error = format!("{:#}", self.error),
            "flow failed, starting again from the last commit"
        );
    }
}

/// A transaction did not end in time, and its producer is left behind.
pub(crate) struct TransactionAbandoned {
    pub(crate) flow: &'static str,
    pub(crate) step: &'static str,
}

impl Emit for TransactionAbandoned {
    fn emit(self) {
        counter!("bongsu_transactions_abandoned_total", "flow" => self.flow).increment(1);
        warn!(flow = self.flow, step = self.step, "a transaction hangs in librdkafka, its producer is left behind");
    }
}

/// It is known which version of each view computes which windows.
pub(crate) struct ViewsAgreed {
    pub(crate) changed: usize,
    pub(crate) earlier: usize,
}

impl Emit for ViewsAgreed {
    fn emit(self) {
        let Self { changed, earlier } = self;
        info!(changed, earlier, "views begin, or change, with their next window");
    }
}

/// Partitions came or went.
pub(crate) struct PartitionsRebalanced<'a> {
    pub(crate) flow: &'static str,
    pub(crate) rebalanced: &'a crate::kafka::consumer::Rebalanced,
}

impl Emit for PartitionsRebalanced<'_> {
    fn emit(self) {
        counter!("bongsu_rebalances_total", "flow" => self.flow).increment(1);
        let (assigned, revoked) = (self.rebalanced.assigned.len(), self.rebalanced.revoked.len());
        info!(flow = self.flow, assigned, revoked, "partitions rebalanced");
    }
}

/// The number of partitions of a source topic became known, or changed.
pub(crate) struct SourceSeen<'a> {
    pub(crate) topic: &'a str,
    /// 0 if there is no such topic.
    pub(crate) partitions: i32,
}

impl Emit for SourceSeen<'_> {
    fn emit(self) {
        let Self { topic, partitions } = self;
        gauge!("bongsu_source_partitions", "topic" => topic.to_owned()).set(f64::from(partitions));
        if partitions == 0 {
            warn!(topic, "there is no such source topic; it is read once it exists");
        } else {
            info!(topic, partitions, "source topic found");
        }
    }
}

/// Stage 1 committed one epoch: in = accepted + rejected + filtered.
pub(crate) struct EpochAggregated {
    pub(crate) records: u64,
    pub(crate) events: u64,
    pub(crate) filtered: u64,
    pub(crate) rejected: u64,
    pub(crate) partial_rows: u64,
    pub(crate) transaction_secs: f64,
}

impl Emit for EpochAggregated {
    fn emit(self) {
        counter!("bongsu_records_in_total").increment(self.records);
        counter!("bongsu_events_in_total").increment(self.events);
        counter!("bongsu_events_filtered_total").increment(self.filtered);
        counter!("bongsu_events_rejected_total").increment(self.rejected);
        counter!("bongsu_partial_rows_total").increment(self.partial_rows);
        histogram!("bongsu_transaction_seconds", "flow" => "stage1").record(self.transaction_secs);
        debug!(records = self.records, events = self.events, partial_rows = self.partial_rows, "epoch aggregated");
    }
}

/// A view cannot be computed with some record of an epoch.
pub(crate) struct EpochPoisoned<'a> {
    pub(crate) records: u64,
    pub(crate) error: &'a anyhow::Error,
}

impl Emit for EpochPoisoned<'_> {
    fn emit(self) {
        counter!("bongsu_epochs_split_total").increment(1);
        let error = format!("{:#}", self.error);
        warn!(records = self.records, error, "a view cannot be computed with some of these records, trying fewer");
    }
}

/// Partitions wait, since they are too far ahead of others.
pub(crate) struct PartitionsPaused {
    pub(crate) partitions: u64,
    pub(crate) limit_ms: i64,
}

impl Emit for PartitionsPaused {
    fn emit(self) {
        counter!("bongsu_partitions_paused_total").increment(self.partitions);
        debug!(partitions = self.partitions, limit_ms = self.limit_ms, "partitions are ahead of others and wait");
    }
}

/// A record came a second time and is skipped. librdkafka pauses all partitions while some are revoked, and afterwards reads on from what
/// it believes the application has seen; a record that is on its way to the application at that moment comes again.
pub(crate) struct RecordRepeated {
    pub(crate) flow: &'static str,
}

impl Emit for RecordRepeated {
    fn emit(self) {
        counter!("bongsu_records_repeated_total", "flow" => self.flow).increment(1);
        debug!(flow = self.flow, "a record came a second time and is skipped");
    }
}

/// How far the watermark of a source partition is behind the clock.
pub(crate) struct WatermarkDelay<'a> {
    pub(crate) topic: &'a str,
    pub(crate) partition: i32,
    pub(crate) watermark_ms: Option<i64>,
    pub(crate) now_ms: i64,
}

impl Emit for WatermarkDelay<'_> {
    fn emit(self) {
        let Self { topic, partition, watermark_ms, now_ms } = self;
        if let Some(watermark_ms) = watermark_ms {
            let delay_secs = (now_ms - watermark_ms) as f64 / 1000.0;
            let labels = [("topic", topic.to_owned()), ("partition", partition.to_string())];
            gauge!("bongsu_watermark_delay_seconds", &labels).set(delay_secs);
        }
    }
}

/// How many records of a partition wait to be read.
pub(crate) struct Lag<'a> {
    pub(crate) flow: &'static str,
    pub(crate) topic: &'a str,
    pub(crate) partition: i32,
    pub(crate) records: i64,
}

impl Emit for Lag<'_> {
    fn emit(self) {
        let Self { flow, topic, partition, records } = self;
        let labels = [("flow", flow.to_owned()), ("topic", topic.to_owned()), ("partition", partition.to_string())];
        gauge!("bongsu_lag_records", &labels).set(records as f64);
    }
}

/// A record cannot be used. One dead letter for a record, however many of its events are wrong: it holds the whole record.
pub(crate) struct DeadLettered<'a> {
    pub(crate) topic: &'a str,
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    pub(crate) reject: &'a Reject,
}

impl Emit for DeadLettered<'_> {
    fn emit(self) {
        let Self { topic, partition, offset, reject } = self;
        let reason = reject.reason.name();
        counter!("bongsu_dead_letters_total", "topic" => topic.to_owned(), "reason" => reason).increment(1);
        debug!(topic, partition, offset, reason, detail = reject.detail, "record goes to the dead letters");
    }
}

/// Rows of a view came after their last window had closed.
pub(crate) struct LateRows<'a> {
    pub(crate) view: &'a str,
    pub(crate) events: u64,
    pub(crate) pane_start_ms: i64,
    pub(crate) closed_ms: i64,
}

impl Emit for LateRows<'_> {
    fn emit(self) {
        counter!("bongsu_events_late_total", "view" => self.view.to_owned()).increment(self.events);
        let Self { view, events, pane_start_ms, closed_ms } = self;
        debug!(view, events, pane_start_ms, closed_ms, "late events published to the late topic");
    }
}

/// Closed windows were published again, with late rows in them.
pub(crate) struct WindowsCorrected<'a> {
    pub(crate) view: &'a str,
    pub(crate) windows: u64,
}

impl Emit for WindowsCorrected<'_> {
    fn emit(self) {
        counter!("bongsu_windows_corrected_total", "view" => self.view.to_owned()).increment(self.windows);
        debug!(view = self.view, windows = self.windows, "closed windows corrected");
    }
}

/// A pane has no room for more groups: further ones are counted as `__other__`.
pub(crate) struct GroupsOverflowed<'a> {
    pub(crate) view: &'a str,
    pub(crate) groups: u64,
    pub(crate) limit: usize,
}

impl Emit for GroupsOverflowed<'_> {
    fn emit(self) {
        let Self { view, groups, limit } = self;
        counter!("bongsu_groups_overflowed_total", "view" => view.to_owned()).increment(groups);
        debug!(view, groups, limit, "groups past the view's limit are counted as __other__");
    }
}

/// The results of groups cannot be computed.
pub(crate) struct PoisonedGroups<'a> {
    pub(crate) view: &'a str,
    pub(crate) groups: u64,
}

impl Emit for PoisonedGroups<'_> {
    fn emit(self) {
        counter!("bongsu_groups_poisoned_total", "view" => self.view.to_owned()).increment(self.groups);
        error!(view = self.view, groups = self.groups, "results of groups cannot be computed; see the dead letters");
    }
}

/// Kafka has deleted records of which open windows were made: the retention is shorter than the outage.
pub(crate) struct PartialsExpired<'a> {
    pub(crate) topic: &'a str,
    pub(crate) partition: i32,
    pub(crate) records: i64,
}

impl Emit for PartialsExpired<'_> {
    fn emit(self) {
        let Self { topic, partition, records } = self;
        counter!("bongsu_partials_expired_total").increment(records.unsigned_abs());
        error!(topic, partition, records, "records of open windows have expired; their results are incomplete");
    }
}

/// Partials of a view, or a version of it, that is not configured.
pub(crate) struct UnknownPartials<'a> {
    pub(crate) view: &'a str,
    pub(crate) offset: i64,
}

impl Emit for UnknownPartials<'_> {
    fn emit(self) {
        counter!("bongsu_unknown_partials_total").increment(1);
        warn!(
            view = self.view,
            offset = self.offset,
            "partials of a view that this configuration does not have are skipped"
        );
    }
}

/// Stage 2 committed: results, and how much it keeps.
pub(crate) struct WindowsCommitted {
    pub(crate) windows: u64,
    pub(crate) alerts: u64,
    pub(crate) open_panes: usize,
    pub(crate) open_rows: usize,
    pub(crate) active_series: usize,
    pub(crate) closed_ms: Option<i64>,
    pub(crate) transaction_secs: f64,
}

impl Emit for WindowsCommitted {
    fn emit(self) {
        counter!("bongsu_windows_total").increment(self.windows);
        counter!("bongsu_alert_transitions_total").increment(self.alerts);
        gauge!("bongsu_open_panes").set(self.open_panes as f64);
        gauge!("bongsu_open_rows").set(self.open_rows as f64);
        gauge!("bongsu_active_series").set(self.active_series as f64);
        if let Some(closed_ms) = self.closed_ms {
            gauge!("bongsu_closed_watermark_seconds").set(closed_ms as f64 / 1000.0);
        }
        histogram!("bongsu_transaction_seconds", "flow" => "stage2").record(self.transaction_secs);
        debug!(windows = self.windows, alerts = self.alerts, "windows committed");
    }
}

/// Windows do not fit the view's columns, and are in no file.
pub(crate) struct HistorySkipped<'a> {
    pub(crate) view: &'a str,
    pub(crate) rows: usize,
}

impl Emit for HistorySkipped<'_> {
    fn emit(self) {
        counter!("bongsu_history_rows_skipped_total", "view" => self.view.to_owned()).increment(self.rows as u64);
        warn!(view = self.view, rows = self.rows, "windows that do not fit the view's columns are left out of history");
    }
}

/// A file of history was written.
pub(crate) struct HistoryWritten<'a> {
    pub(crate) path: &'a str,
    pub(crate) rows: usize,
}

impl Emit for HistoryWritten<'_> {
    fn emit(self) {
        counter!("bongsu_history_rows_total").increment(self.rows as u64);
        debug!(path = self.path, rows = self.rows, "history written");
    }
}
