//! Attributes: only those whose key somebody asked for become values.

use std::borrow::Cow;

use super::super::{
    rows::Value,
    wire::{Fields, Wire, WireError},
};

/// The keys that are looked for. Each has a slot, the position of its value.
#[derive(Default)]
pub(super) struct Keys {
    /// By length in bytes: most keys of a span are told apart by that alone.
    by_len: Vec<Vec<(Box<[u8]>, usize)>>,
    len: usize,
}

impl Keys {
    pub(super) fn of(keys: &[&str]) -> Keys {
        let mut known = Keys::default();
        for key in keys {
            known.slot(key);
        }
        known
    }

    /// The slot of `key`, a new one if it is not known yet.
    pub(super) fn slot(&mut self, key: &str) -> usize {
        if let Some(slot) = self.find(key.as_bytes()) {
            return slot;
        }
        if self.by_len.len() <= key.len() {
            self.by_len.resize_with(key.len() + 1, Vec::new);
        }
        self.by_len[key.len()].push((key.as_bytes().into(), self.len));
        self.len += 1;
        self.len - 1
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    #[inline]
    fn find(&self, key: &[u8]) -> Option<usize> {
        let candidates = self.by_len.get(key.len())?;
        candidates.iter().find(|(known, _)| **known == *key).map(|(_, slot)| *slot)
    }

    /// Reads a `KeyValue` into its slot, if its key has one.
    #[inline]
    pub(super) fn read<'a>(&self, key_value: &'a [u8], values: &mut [Attribute<'a>]) -> Result<(), WireError> {
        let mut fields = Fields::new(key_value);
        let (mut slot, mut value) = (None, None);
        while let Some((number, field)) = fields.next()? {
            match (number, field) {
                (1, Wire::Bytes(key)) => {
                    slot = self.find(key);
                    if slot.is_none() {
                        return Ok(());
                    }
                }
                (2, Wire::Bytes(any_value)) => value = Some(any_value),
                _ => {}
            }
        }
        if let (Some(slot), Some(any_value)) = (slot, value) {
            values[slot] = Attribute::read(any_value)?;
        }
        Ok(())
    }
}

/// The value of an attribute.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) enum Attribute<'a> {
    /// Not there, or an array, a map or bytes, which have no text.
    #[default]
    Absent,
    Text(Cow<'a, str>),
    Boolean(bool),
    Integer(i64),
    Float(f64),
}

impl<'a> Attribute<'a> {
    /// Reads an `AnyValue`.
    fn read(any_value: &'a [u8]) -> Result<Attribute<'a>, WireError> {
        let mut fields = Fields::new(any_value);
        let mut attribute = Attribute::Absent;
        while let Some((number, field)) = fields.next()? {
            attribute = match (number, field) {
                (1, Wire::Bytes(bytes)) => Attribute::Text(text(bytes)),
                (2, Wire::Varint(value)) => Attribute::Boolean(value != 0),
                (3, Wire::Varint(value)) => Attribute::Integer(value as i64),
                (4, Wire::Fixed64(bits)) => Attribute::Float(f64::from_bits(bits)),
                _ => attribute,
            };
        }
        Ok(attribute)
    }

    /// The text, if it is one and not empty.
    pub(super) fn as_text(&self) -> Option<&str> {
        match self {
            Attribute::Text(text) if !text.is_empty() => Some(text),
            _ => None,
        }
    }

    /// The number, also from text, as some agents send status codes.
    pub(super) fn as_integer(&self) -> Option<i64> {
        match self {
            Attribute::Integer(value) => Some(*value),
            Attribute::Float(value) if value.fract() == 0.0 => Some(*value as i64),
            Attribute::Text(text) => text.parse().ok(),
            _ => None,
        }
    }

    pub(super) fn value(&self) -> Value<'_> {
        match self {
            Attribute::Absent => Value::Null,
            Attribute::Text(text) => Value::Text(text),
            Attribute::Boolean(value) => Value::Boolean(*value),
            Attribute::Integer(value) => Value::Integer(*value),
            Attribute::Float(value) => Value::Float(*value),
        }
    }
}

/// Text from the wire. Some exporters do not check their UTF-8; an event is worth more than one broken letter in it.
#[inline]
pub(super) fn text(bytes: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => String::from_utf8_lossy(bytes),
    }
}
