//! Protobuf's wire format, read without copying and without generated structs.
//!
//! A million spans per second leave no time for allocating each attribute of each span; what no view reads is stepped over here
//! by its length.

/// The fields of one message, in the order of the bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fields<'a> {
    rest: &'a [u8],
}

/// The value of one field.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Wire<'a> {
    Varint(u64),
    Fixed64(u64),
    /// A string, bytes, an embedded message or packed numbers.
    Bytes(&'a [u8]),
    Fixed32(u32),
}

/// What is wrong with the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum WireError {
    #[error("ends in the middle of a field")]
    Truncated,
    #[error("has a number of more than 64 bits")]
    LongVarint,
    #[error("has an impossible field number")]
    BadFieldNumber,
    #[error("has wire type {0}, which OpenTelemetry does not use")]
    BadWireType(u8),
}

impl<'a> Fields<'a> {
    pub(crate) fn new(message: &'a [u8]) -> Fields<'a> {
        Fields { rest: message }
    }

    /// The next field's number and value; `None` at the end of the message.
    #[inline]
    pub(crate) fn next(&mut self) -> Result<Option<(u32, Wire<'a>)>, WireError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        // 29 bits of field number, 3 of wire type.
        let number = u32::try_from(tag >> 3).ok().filter(|number| (1..1 << 29).contains(number));
        let number = number.ok_or(WireError::BadFieldNumber)?;
        let value = match (tag & 7) as u8 {
            0 => Wire::Varint(self.varint()?),
            1 => Wire::Fixed64(u64::from_le_bytes(self.array()?)),
            2 => Wire::Bytes(self.bytes()?),
            5 => Wire::Fixed32(u32::from_le_bytes(self.array()?)),
            other => return Err(WireError::BadWireType(other)),
        };
        Ok(Some((number, value)))
    }

    #[inline]
    fn varint(&mut self) -> Result<u64, WireError> {
        match self.rest {
            [byte, rest @ ..] if *byte < 0x80 => {
                self.rest = rest;
                Ok(u64::from(*byte))
            }
            _ => self.long_varint(),
        }
    }

    fn long_varint(&mut self) -> Result<u64, WireError> {
        let mut value = 0u64;
        for (index, byte) in self.rest.iter().take(10).enumerate() {
            let bits = u64::from(byte & 0x7f);
            if index == 9 && bits > 1 {
                return Err(WireError::LongVarint);
            }
            value |= bits << (7 * index);
            if byte & 0x80 == 0 {
                self.rest = &self.rest[index + 1..];
                return Ok(value);
            }
        }
        Err(if self.rest.len() < 10 { WireError::Truncated } else { WireError::LongVarint })
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let (head, rest) = self.rest.split_first_chunk::<N>().ok_or(WireError::Truncated)?;
        self.rest = rest;
        Ok(*head)
    }

    #[inline]
    fn bytes(&mut self) -> Result<&'a [u8], WireError> {
        let len = usize::try_from(self.varint()?).map_err(|_| WireError::Truncated)?;
        let (head, rest) = self.rest.split_at_checked(len).ok_or(WireError::Truncated)?;
        self.rest = rest;
        Ok(head)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::encoding::{WireType, encode_key, encode_varint};

    use super::*;

    #[derive(Debug, Clone)]
    enum Owned {
        Varint(u64),
        Fixed64(u64),
        Bytes(Vec<u8>),
        Fixed32(u32),
    }

    fn any_value() -> impl Strategy<Value = Owned> {
        prop_oneof![
            any::<u64>().prop_map(Owned::Varint),
            (0u64..300).prop_map(Owned::Varint),
            any::<u64>().prop_map(Owned::Fixed64),
            any::<u32>().prop_map(Owned::Fixed32),
            proptest::collection::vec(any::<u8>(), 0..300).prop_map(Owned::Bytes),
        ]
    }

    proptest! {
        /// Guarantees: what prost writes is read back, field by field.
        #[test]
        fn reads_what_prost_writes(fields in proptest::collection::vec((1u32..1 << 29, any_value()), 0..20)) {
            let mut bytes = Vec::new();
            for (number, value) in &fields {
                match value {
                    Owned::Varint(value) => {
                        encode_key(*number, WireType::Varint, &mut bytes);
                        encode_varint(*value, &mut bytes);
                    }
                    Owned::Fixed64(value) => prost::encoding::fixed64::encode(*number, value, &mut bytes),
                    Owned::Fixed32(value) => prost::encoding::fixed32::encode(*number, value, &mut bytes),
                    Owned::Bytes(value) => prost::encoding::bytes::encode(*number, value, &mut bytes),
                }
            }
            let mut reader = Fields::new(&bytes);
            for (number, value) in &fields {
                let expected = match value {
                    Owned::Varint(value) => Wire::Varint(*value),
                    Owned::Fixed64(value) => Wire::Fixed64(*value),
                    Owned::Fixed32(value) => Wire::Fixed32(*value),
                    Owned::Bytes(value) => Wire::Bytes(value),
                };
                prop_assert_eq!(reader.next(), Ok(Some((*number, expected))));
            }
            prop_assert_eq!(reader.next(), Ok(None));
        }

        /// Guarantees: any bytes come to an end, without a panic.
        #[test]
        fn arbitrary_bytes_end(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut reader = Fields::new(&bytes);
            let mut steps = 0;
            while let Ok(Some(_)) = reader.next() {
                steps += 1;
            }
            prop_assert!(steps <= bytes.len());
        }
    }
}
