//! One transaction after the other: outputs and the offsets of their input become visible together (P1).

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use bongsu_schemas::kafka::Kafka;
use rdkafka::TopicPartitionList;
use rdkafka::consumer::ConsumerGroupMetadata;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use super::{REQUEST_TIMEOUT, client_config};
use crate::kill_point::kill_point;

/// Between two looks at delivery reports: short against the milliseconds that a commit takes.
const SERVE_PAUSE: Duration = Duration::from_micros(200);

/// A record to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Outgoing {
    pub(crate) topic: Arc<str>,
    /// The partition, where it matters; else Kafka's partitioner chooses by the key.
    pub(crate) partition: Option<i32>,
    pub(crate) key: Option<Vec<u8>>,
    /// Null deletes the key from a compacted topic.
    pub(crate) value: Option<Vec<u8>>,
    pub(crate) headers: Vec<(String, Option<Vec<u8>>)>,
}

/// A header with a text value.
pub(crate) fn header(name: &str, value: &str) -> (String, Option<Vec<u8>>) {
    (name.to_owned(), Some(value.as_bytes().to_vec()))
}

impl Outgoing {
    pub(crate) fn keyed(topic: &Arc<str>, key: String, value: Vec<u8>) -> Outgoing {
        Outgoing {
            topic: topic.clone(),
            partition: None,
            key: Some(key.into_bytes()),
            value: Some(value),
            headers: Vec::new(),
        }
    }
}

/// A call that waits for brokers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    SendOffsets,
    Commit,
    Abort,
}

impl Step {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Step::SendOffsets => "adding offsets to the transaction",
            Step::Commit => "committing it",
            Step::Abort => "aborting it",
        }
    }
}

/// The producer of one stage.
pub(crate) struct Transactions {
    flow: &'static str,
    producer: BaseProducer,
}

impl Transactions {
    /// Takes over the transactions of `flow` in the process `instance`: one that its last owner left open is aborted, and that owner is
    /// fenced.
    pub(crate) fn open(kafka: &Kafka, flow: &'static str, instance: &str) -> anyhow::Result<Transactions> {
        let producer: BaseProducer = client_config(kafka)?
            .set("transactional.id", format!("{}.{instance}", kafka.group_of(flow)))
            .set("transaction.timeout.ms", "15000")
            .set("compression.type", "lz4")
            // Records of a transaction are there all at once; waiting for more would only delay the commit.
            .set("linger.ms", "0")
            .set("message.max.bytes", "3000000")
            .set("queue.buffering.max.kbytes", "65536")
            .create()
            .context("cannot create a producer")?;
        producer.init_transactions(Duration::from_secs(30)).context("cannot take over the transactional id")?;
        Ok(Transactions { flow, producer })
    }

    /// Writes `records` and `offsets` in one transaction. After an error nothing of it is visible, and the owner starts again
    /// from what was committed before.
    ///
    /// `reached` is told before each call that waits for brokers.
    pub(crate) fn commit(
        &self,
        records: &[Outgoing],
        offsets: &TopicPartitionList,
        group: &ConsumerGroupMetadata,
        reached: impl Fn(Step),
    ) -> anyhow::Result<()> {
        self.producer.begin_transaction().context("cannot begin a transaction")?;
        kill_point(self.flow, "begun");
        let result = self.write(records).and_then(|()| {
            kill_point(self.flow, "records-sent");
            reached(Step::SendOffsets);
            self.producer
                .send_offsets_to_transaction(offsets, group, REQUEST_TIMEOUT)
                .context("cannot add offsets to the transaction")?;
            kill_point(self.flow, "offsets-sent");
            reached(Step::Commit);
            self.producer.commit_transaction(REQUEST_TIMEOUT).context("cannot commit the transaction")?;
            kill_point(self.flow, "committed");
            Ok(())
        });
        if result.is_err() {
            reached(Step::Abort);
            if let Err(error) = self.producer.abort_transaction(REQUEST_TIMEOUT) {
                // Whoever takes over the transactional id aborts it.
                tracing::warn!(%error, "cannot abort the transaction");
            }
        }
        result
    }

    /// Writes records in a transaction without any offsets.
    pub(crate) fn commit_alone(&self, records: &[Outgoing]) -> anyhow::Result<()> {
        self.producer.begin_transaction().context("cannot begin a transaction")?;
        self.write(records)?;
        self.producer.commit_transaction(REQUEST_TIMEOUT).context("cannot commit the transaction")
    }

    fn write(&self, records: &[Outgoing]) -> anyhow::Result<()> {
        for record in records {
            self.enqueue(record)?;
        }
        kill_point(self.flow, "records-queued");
        // `flush`, and the flush inside `commit_transaction`, wait in slices of 100 ms; an empty queue makes both return at once.
        let mut progress = Progress::new(self.producer.in_flight_count());
        while self.producer.in_flight_count() > 0 {
            self.serve();
            progress.check(self.producer.in_flight_count())?;
        }
        Ok(())
    }

    /// Serves delivery reports. `poll` with a timeout of a millisecond would spin for it: librdkafka is asked in whole milliseconds, and
    /// what is left of one is none.
    fn serve(&self) {
        self.producer.poll(Duration::ZERO);
        std::thread::sleep(SERVE_PAUSE);
    }

    fn enqueue(&self, outgoing: &Outgoing) -> anyhow::Result<()> {
        let mut record = BaseRecord::<[u8], [u8]>::to(outgoing.topic.as_ref());
        if let Some(partition) = outgoing.partition {
            record = record.partition(partition);
        }
        if let Some(key) = &outgoing.key {
            record = record.key(key);
        }
        if let Some(value) = &outgoing.value {
            record = record.payload(value);
        }
        if !outgoing.headers.is_empty() {
            let headers = OwnedHeaders::new_with_capacity(outgoing.headers.len());
            let insert = |headers: OwnedHeaders, (key, value): &(String, Option<Vec<u8>>)| {
                headers.insert(Header { key, value: value.as_ref() })
            };
            record = record.headers(outgoing.headers.iter().fold(headers, insert));
        }
        let mut progress = Progress::new(self.producer.in_flight_count());
        loop {
            match self.producer.send(record) {
                Ok(()) => return Ok(()),
                // Backpressure: the stage does not read on until the brokers have taken this.
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    record = back;
                    self.serve();
                    progress.check(self.producer.in_flight_count())?;
                }
                Err((error, _)) => return Err(error).with_context(|| format!("cannot write to `{}`", outgoing.topic)),
            }
        }
    }
}

/// Patience with the brokers: it ends only when they take nothing at all, however much there is to take.
struct Progress {
    in_flight: i32,
    since: Instant,
}

impl Progress {
    fn new(in_flight: i32) -> Progress {
        Progress { in_flight, since: Instant::now() }
    }

    fn check(&mut self, in_flight: i32) -> anyhow::Result<()> {
        if in_flight < self.in_flight {
            *self = Progress::new(in_flight);
        } else if self.since.elapsed() > REQUEST_TIMEOUT {
            bail!("the brokers took none of a transaction's records for {REQUEST_TIMEOUT:?}");
        }
        Ok(())
    }
}
