//! The model's numbers for one installation, beside what the simulation counted.

use bongsu_processor::plan::ViewPlan;

use crate::model::{
    Buckets, Installation, Model, PANE_SECS, PartitionModel, Popularity, RowSize, distinct_of_one, harmonic,
    marks_that_fit, open_panes, open_panes_on_a_backlog,
};
use crate::simulation::{self, Simulation};

/// A line of the page's table.
#[derive(Debug)]
pub(crate) enum Line {
    Heading(&'static str),
    Value { what: &'static str, model: f64, counted: Option<f64> },
}

/// `pane_secs`: so much of a pane is simulated in stage 2.
pub(crate) fn compare(installation: Installation, view: &ViewPlan, buckets: &Buckets, pane_secs: f64) -> Vec<Line> {
    let simulation = Simulation::new(installation, view);
    let row = RowSize::new(view, simulation.names(), &simulation.one_row());
    let model = Model::new(installation, buckets, &row);
    let mut lines = given(installation);
    lines.extend(stage_1(&model, &simulation));
    lines.extend(topic(&model));
    lines.extend(stage_2(&model, &simulation, pane_secs));
    lines.extend(together(&model, view));
    lines
}

fn given(installation: Installation) -> Vec<Line> {
    vec![
        Line::Heading("given"),
        of_model("events a second", f64::from(installation.events_per_sec)),
        of_model("workers", f64::from(installation.workers)),
        of_model("groups", installation.groups() as f64),
        of_model("partitions of the sources", f64::from(installation.source_partitions)),
        of_model("partitions of the partials", f64::from(installation.partials_partitions)),
        of_model("partitions of the panes", f64::from(installation.panes_partitions)),
    ]
}

fn stage_1(model: &Model<'_>, simulation: &Simulation<'_>) -> Vec<Line> {
    let installation = model.installation;
    let events = installation.events_in_epoch();
    let counted = simulation.worker();
    let full_epoch = Installation { epoch_wait_secs: f64::INFINITY, ..installation };
    let full_epochs = [11, 12, 13, 14].map(|seed| simulation.full_epoch(seed).num_rows() as f64);
    vec![
        Line::Heading("stage 1, one worker"),
        of_model("events a second", installation.events_per_sec_and_worker()),
        of_model("epochs a second", 1.0 / installation.epoch_secs()),
        of_model("events in an epoch", events),
        both("rows of partials in an epoch", model.rows_in_epoch(), counted.rows),
        both("the same for each event", model.rows_in_epoch() / events, counted.rows / events),
        both("records of them", model.records_in_epoch(), counted.records),
        both("KB of them", model.bytes_in_epoch() / 1e3, counted.bytes / 1e3),
        of_model("bytes of each beside its rows", model.row.frame_bytes),
        both("bytes of a marker", installation.marker_bytes(), counted.marker_bytes),
        both(
            "rows of partials in a full epoch (100,000 events of one pane)",
            model.popularity.distinct(full_epoch.events_in_epoch()),
            full_epochs.iter().sum::<f64>() / full_epochs.len() as f64,
        ),
    ]
}

fn topic(model: &Model<'_>) -> Vec<Line> {
    let transactions_per_sec = model.installation.epochs_per_sec();
    // One in each partition that a transaction has touched; the last is for the offsets.
    let control_records = transactions_per_sec * f64::from(model.installation.partials_partitions + 1);
    vec![
        Line::Heading("the partials, all workers"),
        of_model("rows a second", model.rows_per_sec()),
        of_model("records of rows a second", model.records_per_sec()),
        of_model("markers a second", model.markers_per_sec()),
        of_model("MB a second", model.bytes_per_sec() / 1e6),
        of_model("transactions a second", transactions_per_sec),
        of_model("control records a second, Kafka's own", control_records),
    ]
}

fn stage_2(model: &Model<'_>, simulation: &Simulation<'_>, pane_secs: f64) -> Vec<Line> {
    let busiest = Busiest::of(model, simulation);
    let share_of = |group: &usize| busiest.share_of(*group);
    let popularity = Popularity::of(busiest.groups.iter().map(share_of));
    let share: f64 = busiest.groups.iter().map(share_of).sum();
    let counted = simulation.partition(busiest.number, busiest.groups.clone(), share, pane_secs);
    let log = simulation.log();
    let partition = PartitionModel { model, popularity };
    let merging = partition.merging_in(pane_secs);
    // A buffer that grew has up to as much to spare as it holds.
    let allocated = counted.allocated_bytes / counted.pane_bytes;
    assert!((0.9..2.2).contains(&allocated), "a merged pane takes {allocated} times its bytes on the wire");
    let records_per_sec = partition.records_per_sec() + partition.markers_per_sec();
    vec![
        Line::Heading("stage 2, the busiest partition of the partials"),
        both("rows a second", partition.rows_per_sec(), counted.rows / pane_secs),
        both("records a second, markers included", records_per_sec, (counted.records + counted.markers) / pane_secs),
        of_model("seconds of a pane that were simulated", pane_secs),
        both(
            "rows a second that merging reads in these",
            merging.rows_read / pane_secs,
            counted.merging.rows_read / pane_secs,
        ),
        both("records that wait to be merged, at most", merging.most_waiting, counted.merging.most_waiting),
        both("groups of the pane after these", partition.groups_after(pane_secs), counted.groups),
        both("KB of the pane, merged", partition.pane_bytes_after(pane_secs) / 1e3, counted.pane_bytes / 1e3),
        of_model("rows a second that merging reads, whole pane", partition.merging_in(PANE_SECS).rows_read / PANE_SECS),
        of_model("groups of the whole pane", partition.groups_after(PANE_SECS)),
        both("panes open at once, at most", open_panes(), log.open_panes),
        of_model("MB of these, unmerged records included", partition.memory_bytes() / 1e6),
        both("records that a restart reads again, at most", partition.records_read_again(), log.records_read_again),
        of_model("MB of these", partition.bytes_read_again() / 1e6),
        of_model("least `max_groups` that keeps all groups apart, in any partition", busiest.least_max_groups),
    ]
}

fn together(model: &Model<'_>, view: &ViewPlan) -> Vec<Line> {
    let panes_on_a_backlog = simulation::open_panes_on_a_backlog(view);
    vec![
        Line::Heading("stage 2, all partitions"),
        of_model("windows a minute", model.windows_per_pane()),
        of_model("markers a second in the panes", model.markers_of_panes_per_sec()),
        both("panes open at once on a backlog, at most", open_panes_on_a_backlog(), panes_on_a_backlog),
        both("source partitions whose marks fit a commit", marks_that_fit(), simulation::marks_that_fit()),
    ]
}

/// The partition that gets most rows, for it holds more of the popular groups than others.
struct Busiest {
    number: i32,
    groups: Vec<usize>,
    harmonic: f64,
    /// Each partition has its part of the limit, and some partition has most groups.
    least_max_groups: f64,
}

impl Busiest {
    fn of(model: &Model<'_>, simulation: &Simulation<'_>) -> Busiest {
        let partitions = simulation.partitions_of_groups();
        let events = model.installation.events_in_epoch();
        let harmonic = harmonic(partitions.len());
        let count = model.installation.partials_partitions as usize;
        let (mut rows, mut groups_of) = (vec![0.0; count], vec![0_usize; count]);
        for (group, partition) in partitions.iter().enumerate() {
            rows[*partition as usize] += distinct_of_one(share(group, harmonic), events);
            groups_of[*partition as usize] += 1;
        }
        let (number, _) = rows.iter().enumerate().max_by(|(_, a), (_, b)| f64::total_cmp(a, b)).unwrap();
        let groups = (0..partitions.len()).filter(|group| partitions[*group] as usize == number).collect();
        let least_max_groups = (groups_of.iter().max().unwrap() * count) as f64;
        Busiest { number: number as i32, groups, harmonic, least_max_groups }
    }

    fn share_of(&self, group: usize) -> f64 {
        share(group, self.harmonic)
    }
}

/// What part of all events is of a group, after Zipf's law.
fn share(group: usize, harmonic: f64) -> f64 {
    1.0 / (group as f64 + 1.0) / harmonic
}

fn of_model(what: &'static str, model: f64) -> Line {
    Line::Value { what, model, counted: None }
}

fn both(what: &'static str, model: f64, counted: f64) -> Line {
    Line::Value { what, model, counted: Some(counted) }
}
