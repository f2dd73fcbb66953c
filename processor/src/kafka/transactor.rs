//! Transactions on a thread of their own, which can be left behind.
//!
//! `rd_kafka_send_offsets_to_transaction` heeds no time-out while it looks for the coordinator of the group, and may look for ever when
//! that broker has gone (librdkafka issues 5456 and 5511). Nothing can call it back. So the flow waits for as long as the call may take,
//! and then goes on with a new producer: taking over the transactional id fences the one that hangs, whatever becomes of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use anyhow::{Context, anyhow, bail};
use bongsu_schemas::kafka::Kafka;
use rdkafka::TopicPartitionList;
use rdkafka::consumer::ConsumerGroupMetadata;

use super::REQUEST_TIMEOUT;
use super::transaction::{Outgoing, Step, Transactions};
use crate::events::{Emit, TransactionAbandoned};

/// So many producers may hang at a time; each keeps its threads and buffers. A process with more is better started anew.
const MAX_HANGING: usize = 8;

/// Producers of this process that were left behind and still hang.
static HANGING: AtomicUsize = AtomicUsize::new(0);

/// Too many of them: only a new process can help.
#[derive(Debug, thiserror::Error)]
#[error("{MAX_HANGING} transactions of this process hang in librdkafka; start it again")]
pub(crate) struct Hanging;

/// What one transaction is made of.
struct Epoch {
    records: Vec<Outgoing>,
    offsets: TopicPartitionList,
    group: ConsumerGroupMetadata,
}

/// What the thread says of the epoch in hand.
enum Told {
    /// A call that may hang comes next, or another one.
    Reached(Step),
    Finished(anyhow::Result<()>),
}

/// The flow's end of the thread. Dropping it ends the thread, unless that hangs.
pub(crate) struct Transactor {
    flow: &'static str,
    epochs: SyncSender<Epoch>,
    told: Receiver<Told>,
    is_left_behind: Arc<AtomicBool>,
}

/// Takes a producer that was left behind off the count when its thread ends, however that comes about.
struct Counted(Arc<AtomicBool>);

impl Drop for Counted {
    fn drop(&mut self) {
        if self.0.load(Ordering::Relaxed) {
            HANGING.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Transactor {
    /// See [`Transactions::open`].
    pub(crate) fn open(kafka: &Kafka, flow: &'static str, instance: &str) -> anyhow::Result<Transactor> {
        if HANGING.load(Ordering::Relaxed) >= MAX_HANGING {
            bail!(Hanging);
        }
        let transactions = Transactions::open(kafka, flow, instance)?;
        let (epochs, received) = sync_channel::<Epoch>(1);
        let (tell, told) = sync_channel(4);
        let is_left_behind = Arc::new(AtomicBool::new(false));
        let counted = Counted(is_left_behind.clone());
        let work = move || {
            let _counted = counted;
            while let Ok(Epoch { records, offsets, group }) = received.recv() {
                // Nobody listens once the flow has gone on; then the next epoch does not come either.
                let reached = |step| drop(tell.send(Told::Reached(step)));
                let outcome = transactions.commit(&records, &offsets, &group, reached);
                if tell.send(Told::Finished(outcome)).is_err() {
                    break;
                }
            }
        };
        thread::Builder::new().name(format!("bongsu-{flow}-tx")).spawn(work).context("cannot start a thread")?;
        Ok(Transactor { flow, epochs, told, is_left_behind })
    }

    /// Writes `records` and `offsets` in one transaction. After an error nothing of it is visible once the transactional id is taken over
    /// again, and the owner starts again from what was committed before.
    pub(crate) fn commit(
        &self,
        records: Vec<Outgoing>,
        offsets: TopicPartitionList,
        group: ConsumerGroupMetadata,
    ) -> anyhow::Result<()> {
        let gone = || anyhow!("the thread of the transactions of {} panicked, which is a bug", self.flow);
        self.epochs.send(Epoch { records, offsets, group }).map_err(|_| gone())?;
        // Writing never hangs, and watches its own progress.
        let mut told = self.told.recv().map_err(|_| gone())?;
        loop {
            match told {
                Told::Finished(outcome) => return outcome,
                Told::Reached(step) => {
                    told = self.told.recv_timeout(REQUEST_TIMEOUT * 2).map_err(|_| self.leave_behind(step))?;
                }
            }
        }
    }

    fn leave_behind(&self, step: Step) -> anyhow::Error {
        TransactionAbandoned { flow: self.flow, step: step.name() }.emit();
        HANGING.fetch_add(1, Ordering::Relaxed);
        self.is_left_behind.store(true, Ordering::Relaxed);
        anyhow!("the brokers did not answer, and librdkafka waits for ever ({})", step.name())
    }
}
