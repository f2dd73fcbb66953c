//! Captured Kafka records: the container `OKR1`, as `bongsu replay` reads it.
//!
//! The file is, with or without zstd around it (window up to 2^27), the four bytes `OKR1` and then records until the end, little
//! endian: `u32 length-of-rest, u16 n + topic, i32 partition, i64 offset, i64 timestamp-ms, u8 timestamp-type (0 create, 1
//! append), i32 n + key (-1: null), u16 header-count {u16 n + name, i32 n + value (-1: null)}, i32 n + value (-1: null)`.
//! One record at a time is in memory.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read},
    path::Path,
};

/// First bytes of a container.
const MAGIC: &[u8; 4] = b"OKR1";
/// First bytes of a zstd frame.
const ZSTD_MAGIC: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];
/// Longest back reference of the zstd frame, as a power of two: bounds the memory at 128 MiB.
const WINDOW_LOG_MAX: u32 = 27;
/// No record that Kafka takes comes near this.
const MAX_RECORD_BYTES: usize = 128 * 1024 * 1024;

/// A record of a capture.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CapturedRecord {
    /// Topic that it was captured from.
    pub topic: String,
    /// Partition that it stood in.
    pub partition: i32,
    /// Offset that it had.
    pub offset: i64,
    /// Its timestamp, epoch milliseconds.
    pub timestamp_ms: i64,
    /// Whether the broker set the timestamp.
    pub is_append_time: bool,
    /// Key, if it had one.
    pub key: Option<Vec<u8>>,
    /// Headers, in their order.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
    /// Value; `None` is Kafka's null.
    pub value: Option<Vec<u8>>,
}

/// What is wrong with a capture.
#[derive(Debug, thiserror::Error)]
pub enum OkrError {
    /// The file cannot be read or decompressed.
    #[error("cannot read the capture: {0}")]
    Read(#[from] io::Error),
    /// The file is something else.
    #[error("not a capture: it does not begin with `OKR1`")]
    NotOkr,
    /// The file breaks off or is damaged.
    #[error("record {index} of the capture {problem}")]
    BadRecord {
        /// Position of the record, from 0.
        index: u64,
        /// What is wrong with it.
        problem: &'static str,
    },
}

/// Iterates over the records of a capture. Ends after the first error.
pub struct OkrReader<'r> {
    input: Box<dyn Read + Send + 'r>,
    buffer: Vec<u8>,
    index: u64,
    is_done: bool,
}

impl OkrReader<'static> {
    /// Opens a file.
    ///
    /// # Errors
    /// Where it cannot be read, or is no capture.
    pub fn open(path: &Path) -> Result<OkrReader<'static>, OkrError> {
        OkrReader::new(BufReader::new(File::open(path)?))
    }
}

impl<'r> OkrReader<'r> {
    /// Reads from anything, compressed or not.
    ///
    /// # Errors
    /// Where it cannot be read, or is no capture.
    pub fn new(mut input: impl BufRead + Send + 'r) -> Result<OkrReader<'r>, OkrError> {
        let is_compressed = input.fill_buf()?.starts_with(ZSTD_MAGIC);
        let mut input: Box<dyn Read + Send + 'r> = if is_compressed {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(input)?;
            decoder.window_log_max(WINDOW_LOG_MAX)?;
            Box::new(BufReader::with_capacity(1 << 17, decoder))
        } else {
            Box::new(input)
        };
        let mut magic = [0; 4];
        match input.read_exact(&mut magic) {
            Ok(()) if &magic == MAGIC => Ok(OkrReader { input, buffer: Vec::new(), index: 0, is_done: false }),
            Ok(()) => Err(OkrError::NotOkr),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(OkrError::NotOkr),
            Err(error) => Err(error.into()),
        }
    }

    fn read(&mut self) -> Result<Option<CapturedRecord>, OkrError> {
        let mut length = Vec::with_capacity(4);
        (&mut self.input).take(4).read_to_end(&mut length)?;
        if length.is_empty() {
            return Ok(None);
        }
        let bad = |problem| OkrError::BadRecord { index: self.index, problem };
        let length = <[u8; 4]>::try_from(length).map_err(|_| bad("breaks off"))?;
        let length = usize::try_from(u32::from_le_bytes(length)).map_err(|_| bad("is too large"))?;
        if length > MAX_RECORD_BYTES {
            return Err(bad("is too large"));
        }
        self.buffer.clear();
        // `take` and not a buffer of that length: a damaged length does not make us allocate it.
        (&mut self.input).take(length as u64).read_to_end(&mut self.buffer)?;
        if self.buffer.len() < length {
            return Err(bad("breaks off"));
        }
        let record = Parts { rest: &self.buffer }.record().ok_or_else(|| bad("is damaged"))?;
        self.index += 1;
        Ok(Some(record))
    }
}

impl Iterator for OkrReader<'_> {
    type Item = Result<CapturedRecord, OkrError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_done {
            return None;
        }
        let next = self.read().transpose();
        self.is_done = !matches!(next, Some(Ok(_)));
        next
    }
}

/// The parts of one record.
struct Parts<'a> {
    rest: &'a [u8],
}

impl Parts<'_> {
    fn record(&mut self) -> Option<CapturedRecord> {
        let topic = self.name()?;
        let partition = i32::from_le_bytes(self.array()?);
        let offset = i64::from_le_bytes(self.array()?);
        let timestamp_ms = i64::from_le_bytes(self.array()?);
        let [timestamp_type] = self.array()?;
        let key = self.nullable()?;
        let header_count = u16::from_le_bytes(self.array()?);
        let headers = (0..header_count).map(|_| Some((self.name()?, self.nullable()?))).collect::<Option<_>>()?;
        let value = self.nullable()?;
        let is_append_time = timestamp_type == 1;
        self.rest.is_empty().then_some(CapturedRecord {
            topic,
            partition,
            offset,
            timestamp_ms,
            is_append_time,
            key,
            headers,
            value,
        })
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.rest.split_first_chunk::<N>()?;
        self.rest = rest;
        Some(*head)
    }

    fn bytes(&mut self, length: usize) -> Option<&[u8]> {
        let (head, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        Some(head)
    }

    fn name(&mut self) -> Option<String> {
        let length = u16::from_le_bytes(self.array()?);
        String::from_utf8(self.bytes(usize::from(length))?.to_vec()).ok()
    }

    fn nullable(&mut self) -> Option<Option<Vec<u8>>> {
        match i32::from_le_bytes(self.array()?) {
            -1 => Some(None),
            length => Some(Some(self.bytes(usize::try_from(length).ok()?)?.to_vec())),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn write(records: &[CapturedRecord]) -> Vec<u8> {
        let name = |bytes: &mut Vec<u8>, name: &str| {
            bytes.extend((name.len() as u16).to_le_bytes());
            bytes.extend(name.as_bytes());
        };
        let nullable = |bytes: &mut Vec<u8>, value: &Option<Vec<u8>>| match value {
            None => bytes.extend((-1i32).to_le_bytes()),
            Some(value) => {
                bytes.extend((value.len() as i32).to_le_bytes());
                bytes.extend(value);
            }
        };
        let mut file = MAGIC.to_vec();
        for record in records {
            let mut bytes = Vec::new();
            name(&mut bytes, &record.topic);
            bytes.extend(record.partition.to_le_bytes());
            bytes.extend(record.offset.to_le_bytes());
            bytes.extend(record.timestamp_ms.to_le_bytes());
            bytes.push(u8::from(record.is_append_time));
            nullable(&mut bytes, &record.key);
            bytes.extend((record.headers.len() as u16).to_le_bytes());
            for (header, value) in &record.headers {
                name(&mut bytes, header);
                nullable(&mut bytes, value);
            }
            nullable(&mut bytes, &record.value);
            file.extend((bytes.len() as u32).to_le_bytes());
            file.extend(bytes);
        }
        file
    }

    fn samples() -> Vec<CapturedRecord> {
        let full = CapturedRecord {
            topic: "otlp_spans".into(),
            partition: 3,
            offset: 12,
            timestamp_ms: 1_795_420_557_000,
            is_append_time: true,
            key: Some(b"k".to_vec()),
            headers: vec![("a".into(), Some(b"1".to_vec())), ("b".into(), None)],
            value: Some(vec![7; 1000]),
        };
        vec![full, CapturedRecord { topic: "t".into(), ..CapturedRecord::default() }]
    }

    #[test]
    fn records_are_read_back_compressed_or_not() {
        let plain = write(&samples());
        let compressed = zstd::encode_all(plain.as_slice(), 3).unwrap();
        for bytes in [plain, compressed] {
            let read: Vec<_> = OkrReader::new(bytes.as_slice()).unwrap().map(Result::unwrap).collect();
            assert_eq!(read, samples());
        }
    }

    #[test]
    fn damage_is_told() {
        let mut bytes = write(&samples());
        bytes.pop();
        let last = OkrReader::new(bytes.as_slice()).unwrap().last().unwrap();
        assert_eq!(last.unwrap_err().to_string(), "record 1 of the capture breaks off");
        for bytes in [&b"PAR1...."[..], b"", b"OK"] {
            assert!(matches!(OkrReader::new(bytes), Err(OkrError::NotOkr)));
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_end(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let file = [MAGIC.as_slice(), &bytes].concat();
            let read = OkrReader::new(file.as_slice()).unwrap().count();
            prop_assert!(read <= bytes.len());
        }
    }
}
