use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::partials::MarkerEntry;

const PARTITIONS: i32 = 3;
const LATENESS_MS: i64 = 300;
const DISORDER_MS: i64 = 200;

/// The committed log, as a reader of committed records sees it.
#[derive(Debug, Clone)]
enum Record {
    Rows(i64, Vec<u32>),
    Marker(Marker),
}

fn marker(partition: i32, watermark_ms: i64) -> Record {
    let marks = vec![MarkerEntry("t".to_owned(), partition, Some(watermark_ms), None)];
    Record::Marker(Marker { topics: [("t".to_owned(), PARTITIONS)].into(), marks })
}

/// Stage 1 over `events` of (source partition, step in time, disorder), with some workers that restart and forget.
fn log_of(spec: WindowSpec, events: &[(i32, i64, i64, bool)]) -> Vec<Record> {
    let mut log = Vec::new();
    let (mut time_ms, mut highest_ms) = ([0_i64; PARTITIONS as usize], [NEVER_MS; PARTITIONS as usize]);
    for (id, (partition, step_ms, disorder_ms, restarts)) in events.iter().enumerate() {
        let p = *partition as usize;
        if *restarts {
            highest_ms[p] = NEVER_MS;
        }
        time_ms[p] += step_ms;
        let event_time_ms = (time_ms[p] - disorder_ms).max(0);
        highest_ms[p] = highest_ms[p].max(event_time_ms);
        log.push(Record::Rows(spec.pane_start(event_time_ms), vec![id as u32]));
        log.push(marker(*partition, highest_ms[p] - DISORDER_MS));
    }
    log.extend((0..PARTITIONS).map(|partition| marker(partition, 1_000_000_000)));
    log
}

/// Windows as they closed, corrections, and late rows.
#[derive(Debug, Default, PartialEq)]
struct Outputs {
    windows: Vec<(EndedWindow, Vec<u32>)>,
    corrections: Vec<(EndedWindow, Vec<u32>)>,
    late: Vec<u32>,
}

impl Outputs {
    fn append(&mut self, other: Outputs) {
        self.windows.extend(other.windows);
        self.corrections.extend(other.corrections);
        self.late.extend(other.late);
    }

    /// What the reader who goes by the latest word knows in the end.
    fn latest(&self) -> BTreeMap<EndedWindow, Vec<u32>> {
        self.windows.iter().chain(&self.corrections).cloned().collect()
    }
}

fn ids_of(state: &OpenWindows<Vec<u32>>, window: EndedWindow) -> (EndedWindow, Vec<u32>) {
    let mut ids: Vec<u32> = state.rows_of(&window).into_iter().flatten().copied().collect();
    ids.sort_unstable();
    (window, ids)
}

fn correct(state: &mut OpenWindows<Vec<u32>>, outputs: &mut Outputs) {
    let corrected = state.take_corrected();
    outputs.corrections.extend(corrected.into_iter().map(|window| ids_of(state, window)));
}

/// Stage 2 over the log: commits now and then, crashes now and then and starts again from what was committed.
fn run(windows: ViewWindows, log: &[Record], decisions: &mut impl Iterator<Item = u8>, crashes: bool) -> Outputs {
    let mut outputs = Outputs::default();
    let mut committed = Progress::default();
    let restore = |progress: &Progress| OpenWindows::restore(vec![windows], LATENESS_MS, progress.clone());
    let mut state = restore(&committed);
    let (mut offset, mut new) = (0, Outputs::default());
    loop {
        // Calm once the decisions are used up, so that every run ends.
        let decision = decisions.next().unwrap_or(100);
        if crashes && decision < 8 {
            state = restore(&committed);
            offset = committed.low_water_offset as usize;
            new = Outputs::default();
        }
        match log.get(offset) {
            Some(Record::Rows(pane_start_ms, ids)) => {
                new.late.extend(state.rows(offset as i64, (0, *pane_start_ms), ids.clone()).into_iter().flatten())
            }
            Some(Record::Marker(marker)) => {
                correct(&mut state, &mut new);
                let ended = state.marker(offset as i64, marker);
                new.windows.extend(ended.into_iter().map(|window| ids_of(&state, window)));
                state.forget_closed();
            }
            None => {}
        }
        let finished = offset >= log.len();
        if !finished {
            state.advance_past(offset as i64);
            offset += 1;
        }
        if (finished || decision > 200)
            && let Some(progress) = state.progress()
        {
            correct(&mut state, &mut new);
            outputs.append(std::mem::take(&mut new));
            committed = progress;
        }
        if finished {
            return outputs;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Scenario: a log with late rows and restarted workers; stage 2 crashes at random points.
    /// Guarantees: P1 and P3. Windows and late rows equal those of the run without crashes, and every row is in each of its
    /// windows that were open, or late, exactly once.
    #[test]
    fn a_run_with_crashes_equals_its_run_without(
        hops in 1i64..4,
        events in prop::collection::vec((0..PARTITIONS, 0i64..250, prop_oneof![8 => 0i64..200, 1 => 200i64..3_000], prop::bool::weighted(0.1)), 1..120),
        decisions in prop::collection::vec(any::<u8>(), 600),
    ) {
        let spec = WindowSpec::new(1_000 * hops, 1_000).unwrap();
        let log = log_of(spec, &events);
        let windows = ViewWindows { spec, corrections_ms: 0 };
        let calm = run(windows, &log, &mut std::iter::repeat(255), false);
        let stormy = run(windows, &log, &mut decisions.into_iter(), true);
        prop_assert_eq!(&calm, &stormy);
        let Outputs { windows, late, .. } = calm;
        let ends: BTreeSet<_> = windows.iter().map(|(window, _)| window.end_ms).collect();
        prop_assert_eq!(ends.len(), windows.len(), "a window closed twice");
        let counted: Vec<u32> = windows.iter().flat_map(|(_, ids)| ids.clone()).collect();
        for id in 0..events.len() as u32 {
            let times = counted.iter().filter(|counted| **counted == id).count();
            let late_times = late.iter().filter(|late| **late == id).count();
            prop_assert!(late_times <= 1);
            prop_assert!((times >= 1) != (late_times == 1), "row {} is in {} windows and {} times late", id, times, late_times);
            if hops == 1 {
                prop_assert_eq!(times + late_times, 1);
            }
        }
    }

    /// Scenario: the same with a view whose windows can be corrected.
    /// Guarantees: P4. However often it crashes, the latest word on each window is the same, and it holds every row that was not later
    /// than the corrections allow; windows themselves close as they would without corrections.
    #[test]
    fn corrections_tell_the_same_in_the_end(
        hops in 1i64..4,
        corrections_ms in 1i64..4_000,
        events in prop::collection::vec((0..PARTITIONS, 0i64..250, prop_oneof![4 => 0i64..200, 1 => 200i64..3_000], prop::bool::weighted(0.1)), 1..120),
        decisions in prop::collection::vec(any::<u8>(), 600),
    ) {
        let spec = WindowSpec::new(1_000 * hops, 1_000).unwrap();
        let log = log_of(spec, &events);
        let plain = run(ViewWindows { spec, corrections_ms: 0 }, &log, &mut std::iter::repeat(255), false);
        let windows = ViewWindows { spec, corrections_ms };
        let calm = run(windows, &log, &mut std::iter::repeat(255), false);
        let stormy = run(windows, &log, &mut decisions.into_iter(), true);
        prop_assert_eq!(&calm.windows, &plain.windows);
        prop_assert_eq!(&calm.late, &plain.late);
        prop_assert_eq!((&calm.windows, &calm.late), (&stormy.windows, &stormy.late));
        prop_assert_eq!(calm.latest(), stormy.latest());
        for (window, ids) in &calm.corrections {
            let before: BTreeSet<_> = calm.windows.iter().filter(|(closed, _)| closed == window).flat_map(|(_, ids)| ids).collect();
            prop_assert!(before.len() < ids.len() && before.iter().all(|id| ids.contains(id)), "a correction takes nothing away");
        }
        let all_corrected = run(ViewWindows { spec, corrections_ms: 1 << 40 }, &log, &mut std::iter::repeat(255), false);
        let corrected: BTreeSet<_> = all_corrected.corrections.iter().flat_map(|(_, ids)| ids).collect();
        prop_assert!(all_corrected.late.iter().all(|id| corrected.contains(id)));
    }
}
