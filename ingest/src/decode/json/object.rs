//! One JSON object, into cells.

use std::{borrow::Cow, fmt};

use bongsu_schemas::tables::ColumnType;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::{super::rows::Value, FieldKind, Plan};
use crate::decode::time;

/// What was found for one field.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Cell<'a> {
    /// Absent or null.
    Missing,
    /// There, and nobody reads it.
    Present,
    /// Owned only where the JSON text has escapes in it.
    Text(Cow<'a, str>),
    /// Also a time.
    Integer(i64),
    Float(f64),
    Boolean(bool),
    /// Not of the column's type; what it is instead.
    Wrong(&'static str),
}

impl Cell<'_> {
    #[inline]
    pub(super) fn value(&self) -> Value<'_> {
        match self {
            Cell::Text(text) => Value::Text(text),
            Cell::Integer(value) => Value::Integer(*value),
            Cell::Float(value) => Value::Float(*value),
            Cell::Boolean(value) => Value::Boolean(*value),
            Cell::Missing | Cell::Present | Cell::Wrong(_) => Value::Null,
        }
    }
}

/// Fills the cells from an object; the error is what was found instead of one.
pub(super) struct ObjectSeed<'p, 'c, 'de> {
    pub(super) plan: &'p Plan,
    pub(super) cells: &'c mut Vec<Cell<'de>>,
}

impl<'de> DeserializeSeed<'de> for ObjectSeed<'_, '_, 'de> {
    type Value = Result<(), &'static str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        self.cells.clear();
        self.cells.resize(self.plan.cells(), Cell::Missing);
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for ObjectSeed<'_, '_, 'de> {
    type Value = Result<(), &'static str>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let fields = &self.plan.fields;
        while let Some(found) = map.next_key_seed(Name(|name: &str| fields.iter().position(|f| *f.name == *name)))? {
            let Some(index) = found else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            match fields[index].kind {
                FieldKind::Value(column_type) => self.cells[index] = map.next_value_seed(OfType(column_type))?,
                FieldKind::Presence => self.cells[index] = map.next_value_seed(IsPresent)?,
                FieldKind::Attributes => {
                    let (own, attributes) = self.cells.split_at_mut(fields.len());
                    own[index] = map.next_value_seed(Attributes { keys: &self.plan.attributes, cells: attributes })?;
                }
            }
        }
        Ok(Ok(()))
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(Err("null"))
    }
    fn visit_bool<E: Error>(self, _: bool) -> Result<Self::Value, E> {
        Ok(Err("a boolean"))
    }
    fn visit_i64<E: Error>(self, _: i64) -> Result<Self::Value, E> {
        Ok(Err("a number"))
    }
    fn visit_u64<E: Error>(self, _: u64) -> Result<Self::Value, E> {
        Ok(Err("a number"))
    }
    fn visit_f64<E: Error>(self, _: f64) -> Result<Self::Value, E> {
        Ok(Err("a number"))
    }
    fn visit_str<E: Error>(self, _: &str) -> Result<Self::Value, E> {
        Ok(Err("a string"))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Self::Value, A::Error> {
        drain_seq(seq)?;
        Ok(Err("an array"))
    }
}

/// Looks a key up without keeping it.
struct Name<F>(F);

impl<'de, F: FnOnce(&str) -> Option<usize>> DeserializeSeed<'de> for Name<F> {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Option<usize>, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<F: FnOnce(&str) -> Option<usize>> Visitor<'_> for Name<F> {
    type Value = Option<usize>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a name")
    }

    #[inline]
    fn visit_str<E: Error>(self, name: &str) -> Result<Option<usize>, E> {
        Ok((self.0)(name))
    }
}

/// A value for a column of that type.
struct OfType(ColumnType);

impl<'de> DeserializeSeed<'de> for OfType {
    type Value = Cell<'de>;

    #[inline]
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Cell<'de>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl OfType {
    fn text<'de>(&self, text: Cow<'de, str>) -> Cell<'de> {
        match self.0 {
            ColumnType::Text => Cell::Text(text),
            ColumnType::Time => time::parse(&text).map_or(Cell::Wrong("another text"), Cell::Integer),
            _ => Cell::Wrong("a string"),
        }
    }
}

impl<'de> Visitor<'de> for OfType {
    type Value = Cell<'de>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.0.name())
    }

    fn visit_unit<E: Error>(self) -> Result<Cell<'de>, E> {
        Ok(Cell::Missing)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Cell<'de>, E> {
        Ok(if self.0 == ColumnType::Boolean { Cell::Boolean(value) } else { Cell::Wrong("a boolean") })
    }

    #[inline]
    fn visit_i64<E: Error>(self, value: i64) -> Result<Cell<'de>, E> {
        Ok(match self.0 {
            ColumnType::Integer | ColumnType::Time => Cell::Integer(value),
            ColumnType::Float => Cell::Float(value as f64),
            _ => Cell::Wrong("a number"),
        })
    }

    #[inline]
    fn visit_u64<E: Error>(self, value: u64) -> Result<Cell<'de>, E> {
        match (self.0, i64::try_from(value)) {
            (_, Ok(value)) => self.visit_i64(value),
            (ColumnType::Float, Err(_)) => Ok(Cell::Float(value as f64)),
            (_, Err(_)) => Ok(Cell::Wrong("a number of more than 63 bits")),
        }
    }

    #[inline]
    fn visit_f64<E: Error>(self, value: f64) -> Result<Cell<'de>, E> {
        // Beyond 2^63, and for fractions, an integer column has no place for the number.
        let limit = 2f64.powi(63);
        let is_integer = value.fract() == 0.0 && (-limit..limit).contains(&value);
        Ok(match self.0 {
            ColumnType::Float => Cell::Float(value),
            ColumnType::Integer | ColumnType::Time if is_integer => Cell::Integer(value as i64),
            ColumnType::Integer | ColumnType::Time => Cell::Wrong("a number with a fraction, or too large"),
            _ => Cell::Wrong("a number"),
        })
    }

    #[inline]
    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Cell<'de>, E> {
        Ok(self.text(Cow::Borrowed(text)))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Cell<'de>, E> {
        Ok(self.text(Cow::Owned(text.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Cell<'de>, A::Error> {
        drain_seq(seq)?;
        Ok(Cell::Wrong("an array"))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Cell<'de>, A::Error> {
        drain_map(map)?;
        Ok(Cell::Wrong("an object"))
    }
}

/// Anything but null.
struct IsPresent;

impl<'de> DeserializeSeed<'de> for IsPresent {
    type Value = Cell<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Cell<'de>, D::Error> {
        deserializer.deserialize_option(self)
    }
}

impl<'de> Visitor<'de> for IsPresent {
    type Value = Cell<'de>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a value")
    }
    fn visit_none<E: Error>(self) -> Result<Cell<'de>, E> {
        Ok(Cell::Missing)
    }
    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Cell<'de>, D::Error> {
        deserializer.deserialize_ignored_any(IgnoredAny)?;
        Ok(Cell::Present)
    }
}

/// The wanted keys of the object `attributes`.
struct Attributes<'p, 'c, 'de> {
    keys: &'p [Box<str>],
    cells: &'c mut [Cell<'de>],
}

impl<'de> DeserializeSeed<'de> for Attributes<'_, '_, 'de> {
    type Value = Cell<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Cell<'de>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Attributes<'_, '_, 'de> {
    type Value = Cell<'de>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Cell<'de>, A::Error> {
        while let Some(found) = map.next_key_seed(Name(|name: &str| self.keys.iter().position(|key| **key == *name)))? {
            match found {
                Some(index) => self.cells[index] = map.next_value_seed(Scalar)?,
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(Cell::Present)
    }

    fn visit_unit<E: Error>(self) -> Result<Cell<'de>, E> {
        Ok(Cell::Missing)
    }
    fn visit_bool<E: Error>(self, _: bool) -> Result<Cell<'de>, E> {
        Ok(Cell::Wrong("a boolean"))
    }
    fn visit_i64<E: Error>(self, _: i64) -> Result<Cell<'de>, E> {
        Ok(Cell::Wrong("a number"))
    }
    fn visit_u64<E: Error>(self, _: u64) -> Result<Cell<'de>, E> {
        Ok(Cell::Wrong("a number"))
    }
    fn visit_f64<E: Error>(self, _: f64) -> Result<Cell<'de>, E> {
        Ok(Cell::Wrong("a number"))
    }
    fn visit_str<E: Error>(self, _: &str) -> Result<Cell<'de>, E> {
        Ok(Cell::Wrong("a string"))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Cell<'de>, A::Error> {
        drain_seq(seq)?;
        Ok(Cell::Wrong("an array"))
    }
}

/// An attribute: any scalar; objects and arrays have no text and count as absent.
struct Scalar;

impl<'de> DeserializeSeed<'de> for Scalar {
    type Value = Cell<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Cell<'de>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Scalar {
    type Value = Cell<'de>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a scalar")
    }
    fn visit_unit<E: Error>(self) -> Result<Cell<'de>, E> {
        Ok(Cell::Missing)
    }
    fn visit_bool<E: Error>(self, value: bool) -> Result<Cell<'de>, E> {
        Ok(Cell::Boolean(value))
    }
    fn visit_i64<E: Error>(self, value: i64) -> Result<Cell<'de>, E> {
        Ok(Cell::Integer(value))
    }
    fn visit_u64<E: Error>(self, value: u64) -> Result<Cell<'de>, E> {
        Ok(i64::try_from(value).map_or_else(|_| Cell::Text(Cow::Owned(value.to_string())), Cell::Integer))
    }
    fn visit_f64<E: Error>(self, value: f64) -> Result<Cell<'de>, E> {
        Ok(Cell::Float(value))
    }
    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Cell<'de>, E> {
        Ok(Cell::Text(Cow::Borrowed(text)))
    }
    fn visit_str<E: Error>(self, text: &str) -> Result<Cell<'de>, E> {
        Ok(Cell::Text(Cow::Owned(text.to_owned())))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Cell<'de>, A::Error> {
        drain_seq(seq)?;
        Ok(Cell::Missing)
    }
    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Cell<'de>, A::Error> {
        drain_map(map)?;
        Ok(Cell::Missing)
    }
}

fn drain_seq<'de, A: SeqAccess<'de>>(mut seq: A) -> Result<(), A::Error> {
    while seq.next_element::<IgnoredAny>()?.is_some() {}
    Ok(())
}

fn drain_map<'de, A: MapAccess<'de>>(mut map: A) -> Result<(), A::Error> {
    while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
    Ok(())
}
