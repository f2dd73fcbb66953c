//! Rows that wait to be written, by chain; and how far each chain's files reach.

use std::collections::BTreeMap;

use chrono::NaiveDate;

/// A view, a day of `window_start` (UTC), a partition of `bongsu.windows`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Chain {
    pub(crate) partition: i32,
    pub(crate) view: String,
    pub(crate) date: NaiveDate,
}

/// The offset of a record of `bongsu.windows`, and its value as it is there: a fraction of what its parsed form would take.
pub(crate) type Row = (i64, Vec<u8>);

/// What became of a file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Put {
    /// It is there now.
    Created,
    /// Somebody else wrote a file of that name, which ends at this offset.
    Exists { next_offset: i64 },
}

/// Where the files are.
pub(crate) trait Store {
    /// Where the chain's last file ends; none if it has no file.
    fn end_of(&self, chain: &Chain) -> anyhow::Result<Option<i64>>;
    /// Creates the file whose rows these are, in ascending order of offsets, unless there is one of that name.
    fn put(&self, chain: &Chain, rows: &[Row]) -> anyhow::Result<Put>;
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Chains {
    rows: BTreeMap<Chain, Vec<Row>>,
    buffered_bytes: usize,
    /// Where the files of a chain end, as far as this process knows.
    ends: BTreeMap<Chain, i64>,
}

impl Chains {
    /// A row waits.
    pub(crate) fn push(&mut self, chain: Chain, row: Row) {
        self.buffered_bytes += row.1.len();
        self.rows.entry(chain).or_default().push(row);
    }

    /// Size of the rows that wait.
    pub(crate) fn buffered_bytes(&self) -> usize {
        self.buffered_bytes
    }

    /// The partition came or went: neither its rows nor what is known of its files are ours.
    pub(crate) fn forget(&mut self, partition: i32) {
        self.rows.retain(|chain, _| chain.partition != partition);
        self.ends.retain(|chain, _| chain.partition != partition);
        self.buffered_bytes = self.rows.values().map(|rows| bytes_of(rows)).sum();
    }

    /// Writes all rows that wait and are in no file yet (H1).
    pub(crate) fn flush(&mut self, store: &impl Store) -> anyhow::Result<()> {
        while let Some((chain, mut rows)) = self.rows.pop_first() {
            self.buffered_bytes -= bytes_of(&rows);
            let mut end = match self.ends.get(&chain) {
                Some(end) => *end,
                None => store.end_of(&chain)?.unwrap_or(0),
            };
            loop {
                rows.retain(|(offset, _)| *offset >= end);
                let Some((last_offset, _)) = rows.last() else { break };
                match store.put(&chain, &rows)? {
                    Put::Created => {
                        end = last_offset + 1;
                        break;
                    }
                    Put::Exists { next_offset } => end = next_offset,
                }
            }
            self.ends.insert(chain, end);
        }
        Ok(())
    }
}

fn bytes_of(rows: &[Row]) -> usize {
    rows.iter().map(|(_, record)| record.len()).sum()
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use proptest::prelude::*;

    use super::*;

    /// Files in memory: first offset and rows' offsets. Fails after so many puts.
    #[derive(Default)]
    struct Memory {
        files: RefCell<BTreeMap<(Chain, i64), Vec<i64>>>,
        puts_left: RefCell<usize>,
    }

    impl Store for Memory {
        fn end_of(&self, chain: &Chain) -> anyhow::Result<Option<i64>> {
            let files = self.files.borrow();
            Ok(files
                .iter()
                .filter(|((of, _), _)| of == chain)
                .filter_map(|(_, rows)| rows.last())
                .max()
                .map(|last| last + 1))
        }
        fn put(&self, chain: &Chain, rows: &[Row]) -> anyhow::Result<Put> {
            let mut left = self.puts_left.borrow_mut();
            anyhow::ensure!(*left > 0, "crash");
            *left -= 1;
            let name = (chain.clone(), rows[0].0);
            if let Some(existing) = self.files.borrow().get(&name) {
                return Ok(Put::Exists { next_offset: existing.last().unwrap() + 1 });
            }
            self.files.borrow_mut().insert(name, rows.iter().map(|(offset, _)| *offset).collect());
            Ok(Put::Created)
        }
    }

    fn chain(view: u8) -> Chain {
        Chain { partition: 0, view: format!("v{view}"), date: NaiveDate::default() }
    }

    proptest! {
        /// Scenario: writers crash in the middle of flushes, before the offset is committed, and a zombie writes beside them.
        /// Guarantees: H1; every record is in exactly one file.
        #[test]
        fn every_record_is_in_one_file(
            views in prop::collection::vec(0u8..3, 1..60),
            runs in prop::collection::vec((0usize..6, 1usize..20, any::<bool>()), 0..12),
        ) {
            let store = Memory::default();
            let mut committed = 0;
            let mut write = |puts: usize, batch: usize, commits: bool| {
                *store.puts_left.borrow_mut() = puts;
                let mut chains = Chains::default();
                let mut at = committed;
                while at < views.len() {
                    let until = (at + batch).min(views.len());
                    for (offset, view) in views.iter().enumerate().take(until).skip(at) {
                        chains.push(chain(*view), (offset as i64, Vec::new()));
                    }
                    if chains.flush(&store).is_err() {
                        return;
                    }
                    at = until;
                    if commits {
                        committed = at;
                    }
                }
            };
            for (puts, batch, commits) in runs {
                write(puts, batch, commits);
            }
            write(1_000, 7, true);
            let mut offsets: Vec<_> = store.files.borrow().values().flatten().copied().collect();
            offsets.sort_unstable();
            prop_assert_eq!(offsets, (0..views.len() as i64).collect::<Vec<_>>());
        }
    }
}
