//! Reads `bongsu.alerts` on a thread of its own.
//!
//! The consumer group decides which reporter works; whoever is given the partitions reads them from the beginning, so that incidents
//! are formed anew, and is told which records were handled before by the committed offsets.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context;
use bongsu_schemas::health::Health;
use bongsu_schemas::kafka::Kafka;
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::types::RDKafkaRespErr;
use tokio::sync::mpsc;
use tracing::{info, warn};

use crate::kafka::{TIMEOUT, client_config};

/// Name of this part in `/readyz`.
pub(crate) const PART: &str = "reporter";
const POLL: Duration = Duration::from_millis(100);
/// After an error, how often the broker is asked whether it is back.
const PROBE: Duration = Duration::from_secs(2);

/// All that the thread can say.
#[derive(Debug)]
pub(crate) enum Feed {
    /// The partitions are ours; what follows is the topic from its beginning.
    Assigned,
    /// The next record of the topic.
    Record {
        partition: i32,
        offset: i64,
        payload: Vec<u8>,
        /// Handled before, by this process or another one: its offset is committed.
        handled: bool,
    },
    /// All records that were there are read.
    CaughtUp,
    /// The partitions are somebody else's now.
    Revoked,
}

/// The reading side of the thread.
pub(crate) struct AlertFeed {
    receiver: mpsc::Receiver<Feed>,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    /// Next offsets to commit. Held for a map operation only.
    to_commit: Mutex<BTreeMap<i32, i64>>,
}

impl AlertFeed {
    pub(crate) fn spawn(kafka: &Kafka, health: Health) -> anyhow::Result<AlertFeed> {
        let topic = kafka.topics().alerts();
        let mut config = client_config(kafka)?;
        config
            .set("group.id", kafka.group_of("reporter"))
            .set("enable.auto.commit", "false")
            .set("auto.offset.reset", "earliest")
            .set("isolation.level", "read_committed")
            // A dead reporter is followed by another one, or by itself, after this: the least that brokers allow by default.
            .set("session.timeout.ms", "6000")
            .set("heartbeat.interval.ms", "1500")
            .set("enable.partition.eof", "true")
            // The topic may be created after this process has started.
            .set("topic.metadata.refresh.interval.ms", "5000")
            .set("partition.assignment.strategy", "range")
            .set_log_level(RDKafkaLogLevel::Warning);
        let consumer: BaseConsumer<FromBeginning> =
            config.create_with_context(FromBeginning::default()).context("creating a Kafka consumer")?;
        consumer.subscribe(&[&topic])?;
        let (sender, receiver) = mpsc::channel(256);
        let shared = Arc::new(Shared::default());
        let reader = Reader { consumer, topic, sender, shared: Arc::clone(&shared), health, trouble: None };
        let thread = std::thread::Builder::new().name("alert-feed".to_owned()).spawn(move || reader.run())?;
        Ok(AlertFeed { receiver, shared, thread: Some(thread) })
    }

    /// The next message; none when the thread has ended.
    pub(crate) async fn next(&mut self) -> Option<Feed> {
        self.receiver.recv().await
    }

    /// The record is handled: a later reader need not publish what came of it again.
    pub(crate) fn handled(&self, partition: i32, offset: i64) {
        self.shared.to_commit().insert(partition, offset + 1);
    }

    /// Commits and leaves the group.
    pub(crate) async fn finish(mut self) {
        self.shared.stop.store(true, Ordering::Release);
        // Frees the thread if it waits for room.
        self.receiver.close();
        if let Some(thread) = self.thread.take() {
            let joined = tokio::task::spawn_blocking(move || thread.join());
            if !matches!(joined.await, Ok(Ok(()))) {
                warn!("the thread that reads alerts panicked");
            }
        }
    }
}

impl Drop for AlertFeed {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
    }
}

impl Shared {
    fn to_commit(&self) -> std::sync::MutexGuard<'_, BTreeMap<i32, i64>> {
        self.to_commit.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Starts assigned partitions from their beginning, and remembers that assignments changed.
#[derive(Default)]
struct FromBeginning {
    assignment: Mutex<Option<Change>>,
}

enum Change {
    Assigned(BTreeSet<i32>),
    Revoked,
}

impl ClientContext for FromBeginning {}

impl ConsumerContext for FromBeginning {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, error: RDKafkaRespErr, partitions: &mut TopicPartitionList) {
        let (change, outcome) = match error {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => {
                let ids = partitions.elements().iter().map(|element| element.partition()).collect();
                let from_beginning = partitions.set_all_offsets(Offset::Beginning);
                (Change::Assigned(ids), from_beginning.and_then(|()| consumer.assign(partitions)))
            }
            _ => (Change::Revoked, consumer.unassign()),
        };
        if let Err(error) = outcome {
            warn!(%error, "a change of partitions failed");
        }
        *self.assignment.lock().unwrap_or_else(PoisonError::into_inner) = Some(change);
    }
}

struct Reader {
    consumer: BaseConsumer<FromBeginning>,
    topic: String,
    sender: mpsc::Sender<Feed>,
    shared: Arc<Shared>,
    health: Health,
    trouble: Option<Trouble>,
}

/// An interruption.
struct Trouble {
    since: Instant,
    why: String,
}

/// Partitions not yet read to their end, and the offsets that were committed when they were assigned.
#[derive(Default)]
struct Progress {
    unfinished: BTreeSet<i32>,
    committed: BTreeMap<i32, i64>,
    caught_up: bool,
}

impl Reader {
    fn run(mut self) {
        self.health.not_ready(PART, "waiting for the partitions of the alerts");
        let mut progress = Progress::default();
        let mut next_probe = Instant::now() + PROBE;
        // An error of sending means that nobody listens any more.
        while !self.shared.stop.load(Ordering::Acquire) {
            let polled = self.consumer.poll(POLL).map(|polled| polled.map(|message| message.detach()));
            let change = self.consumer.context().assignment.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(change) = change
                && self.on_change(change, &mut progress).is_err()
            {
                break;
            }
            let feed = match polled {
                None => None,
                Some(Ok(message)) => {
                    let (partition, offset) = (message.partition(), message.offset());
                    let handled = progress.committed.get(&partition).is_some_and(|next| offset < *next);
                    let payload = message.payload().unwrap_or_default().to_vec();
                    Some(Feed::Record { partition, offset, payload, handled })
                }
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    progress.unfinished.remove(&partition);
                    let first_time =
                        progress.unfinished.is_empty() && !std::mem::replace(&mut progress.caught_up, true);
                    first_time.then_some(Feed::CaughtUp)
                }
                Some(Err(error)) => {
                    self.on_error(&error);
                    None
                }
            };
            if let Some(feed) = feed
                && self.sender.blocking_send(feed).is_err()
            {
                break;
            }
            self.commit(CommitMode::Async);
            if self.trouble.is_some() && Instant::now() >= next_probe {
                self.probe(progress.caught_up);
                next_probe = Instant::now() + PROBE;
            }
        }
        self.commit(CommitMode::Sync);
        self.consumer.unsubscribe();
    }

    fn on_change(&mut self, change: Change, progress: &mut Progress) -> Result<(), mpsc::error::SendError<Feed>> {
        self.shared.to_commit().clear();
        *progress = Progress::default();
        match change {
            Change::Assigned(partitions) if !partitions.is_empty() => {
                info!(topic = self.topic, ?partitions, "reading alerts from the beginning");
                progress.committed = self.committed();
                progress.unfinished = partitions;
                self.sender.blocking_send(Feed::Assigned)
            }
            // Another reporter of the group works, and this one stands by.
            Change::Assigned(_) => {
                self.health.ready(PART);
                self.sender.blocking_send(Feed::Revoked)
            }
            Change::Revoked => self.sender.blocking_send(Feed::Revoked),
        }
    }

    fn committed(&mut self) -> BTreeMap<i32, i64> {
        let asked = self.consumer.committed(TIMEOUT);
        let list = match asked {
            Ok(list) => list,
            Err(error) => {
                // Incidents are published again then, with the same ids and sequences.
                self.on_error(&error);
                return BTreeMap::new();
            }
        };
        let offset = |element: &rdkafka::topic_partition_list::TopicPartitionListElem<'_>| match element.offset() {
            Offset::Offset(offset) => Some((element.partition(), offset)),
            _ => None,
        };
        list.elements().iter().filter_map(offset).collect()
    }

    fn commit(&mut self, mode: CommitMode) {
        let to_commit = std::mem::take(&mut *self.shared.to_commit());
        if to_commit.is_empty() {
            return;
        }
        let mut list = TopicPartitionList::new();
        let added: Result<(), KafkaError> = to_commit.iter().try_for_each(|(partition, next)| {
            list.add_partition_offset(&self.topic, *partition, Offset::Offset(*next))
        });
        if let Err(error) = added.and_then(|()| self.consumer.commit(&list, mode)) {
            self.on_error(&error);
        }
    }

    fn on_error(&mut self, error: &KafkaError) {
        let why = match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::UnknownTopicOrPartition) => format!("there is no topic `{}`", self.topic),
            _ => error.to_string(),
        };
        // One broker of several may be away, or an idle connection closed: the probe tells whether that is an outage.
        let connection = [RDKafkaErrorCode::BrokerTransportFailure, RDKafkaErrorCode::Resolve];
        if !error.rdkafka_error_code().is_some_and(|code| connection.contains(&code)) {
            self.health.not_ready(PART, &why);
        }
        if self.trouble.is_none() {
            warn!(error = why, "reading alerts is interrupted");
        }
        let since = self.trouble.as_ref().map_or_else(Instant::now, |trouble| trouble.since);
        self.trouble = Some(Trouble { since, why });
    }

    /// Asks whether the broker answers and has the topic.
    fn probe(&mut self, caught_up: bool) {
        let Some(trouble) = &self.trouble else { return };
        let metadata = self.consumer.fetch_metadata(Some(&self.topic), Duration::from_secs(1));
        let has_topic = |metadata: rdkafka::metadata::Metadata| {
            metadata.topics().first().is_some_and(|topic| topic.error().is_none() && !topic.partitions().is_empty())
        };
        if !metadata.is_ok_and(has_topic) {
            self.health.not_ready(PART, &trouble.why);
            return;
        }
        info!(interrupted_secs = trouble.since.elapsed().as_secs(), "reading alerts goes on");
        self.trouble = None;
        if caught_up {
            self.health.ready(PART);
        }
    }
}
