//! Native events: a JSON object per record, or an array of them.
//!
//! The parser runs over the text once, borrows strings from it, and stops for the wanted and the required fields only.

use std::borrow::Cow;

use bongsu_schemas::{
    dead_letter::Reason,
    tables::{Column, ColumnType, EVENT_TIME, Presence},
};
use serde::{
    Deserializer as _,
    de::{DeserializeSeed, IgnoredAny, SeqAccess, Visitor},
};
use serde_json::Deserializer;

use super::{
    Events, Reject, Wanted,
    derived::{Derived, DerivedColumn, Reported},
    rows::{Rows, Value},
};
use crate::config::{Source, TableDef};

mod object;

use object::{Cell, ObjectSeed};

/// Decodes the events of one table.
pub(super) struct JsonDecoder {
    plan: Plan,
    /// `None` where no view reads the table; the events are checked and counted all the same.
    pub(super) rows: Option<Rows>,
    /// The cells of the last event, empty: kept for their memory.
    spare: Vec<Cell<'static>>,
}

/// What is looked for in an object, and where it goes.
struct Plan {
    /// Fields of the object; the event time is the first. An object's cells are in this order, then the attributes.
    fields: Vec<Field>,
    /// Wanted keys of the object `attributes`.
    attributes: Vec<Box<str>>,
    /// One for each wanted column.
    outputs: Vec<Output>,
    /// Where the fields stand that derived columns need.
    derived: Option<DerivedFrom>,
}

struct Field {
    name: Box<str>,
    kind: FieldKind,
    required: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FieldKind {
    /// Parsed into a value of that type.
    Value(ColumnType),
    /// Required, but read by no view: it must be there.
    Presence,
    /// The object of attributes.
    Attributes,
}

#[derive(Debug, Clone, Copy)]
enum Output {
    Cell(usize),
    Derived(DerivedColumn),
}

#[derive(Debug, Clone, Copy)]
struct DerivedFrom {
    service: usize,
    exception_type: usize,
    message: usize,
    stacktrace: usize,
    trace_id: usize,
}

impl JsonDecoder {
    pub(super) fn new(source: &Source, tables: &[TableDef], wanted: &Wanted) -> JsonDecoder {
        // A JSON source has exactly one table.
        let Some(table) = tables.first() else {
            return JsonDecoder { plan: Plan::empty(source), rows: None, spare: Vec::new() };
        };
        let columns = wanted.get(&table.name);
        let plan = Plan::new(source, table, columns.map_or(&[], Vec::as_slice));
        JsonDecoder { plan, rows: columns.map(|columns| Rows::new(&table.name, columns)), spare: Vec::new() }
    }

    pub(super) fn decode(&mut self, value: &[u8], events: &mut Events<'_>) -> Result<(), Reject> {
        let text = std::str::from_utf8(value).map_err(|error| {
            Reject::one(Reason::Malformed, format!("not UTF-8 after {} bytes", error.valid_up_to()))
        })?;
        if text.trim_ascii_start().starts_with('[') {
            return self.decode_array(text, events);
        }
        let mut cells = recycle(std::mem::take(&mut self.spare));
        let result = self.decode_object(text, &mut cells, events);
        cells.clear();
        self.spare = recycle(cells);
        result
    }

    fn decode_object<'a>(
        &mut self,
        text: &'a str,
        cells: &mut Vec<Cell<'a>>,
        events: &mut Events<'_>,
    ) -> Result<(), Reject> {
        let mut deserializer = Deserializer::from_str(text);
        let seed = ObjectSeed { plan: &self.plan, cells };
        let shape = seed.deserialize(&mut deserializer).and_then(|shape| deserializer.end().map(|()| shape));
        shape.map_err(malformed)?.map_err(not_an_object)?;
        take(&self.plan, self.rows.as_mut(), cells, events);
        Ok(())
    }

    /// An array is checked as a whole first: one that breaks off gives no rows, so that sending it again repeats none.
    fn decode_array(&mut self, text: &str, events: &mut Events<'_>) -> Result<(), Reject> {
        serde_json::from_str::<IgnoredAny>(text).map_err(malformed)?;
        let visitor = ArrayVisitor { plan: &self.plan, rows: self.rows.as_mut(), events };
        Deserializer::from_str(text).deserialize_seq(visitor).map_err(malformed)
    }
}

fn malformed(error: serde_json::Error) -> Reject {
    Reject::one(Reason::Malformed, format!("not JSON: {error}"))
}

fn not_an_object(found: &'static str) -> Reject {
    Reject::one(Reason::Malformed, format!("expected an object, or an array of objects, found {found}"))
}

/// The same memory for cells of another lifetime: the vector is empty, and collecting it in place keeps its allocation.
fn recycle<'b>(cells: Vec<Cell<'_>>) -> Vec<Cell<'b>> {
    debug_assert!(cells.is_empty());
    cells.into_iter().map_while(|_| None).collect()
}

struct ArrayVisitor<'p, 'e, 'r> {
    plan: &'p Plan,
    rows: Option<&'p mut Rows>,
    events: &'e mut Events<'r>,
}

impl<'de> Visitor<'de> for ArrayVisitor<'_, '_, '_> {
    type Value = ();

    fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("an array of objects")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut elements: A) -> Result<(), A::Error> {
        let mut cells = Vec::new();
        while let Some(shape) = elements.next_element_seed(ObjectSeed { plan: self.plan, cells: &mut cells })? {
            match shape {
                Ok(()) => take(self.plan, self.rows.as_deref_mut(), &cells, self.events),
                Err(found) => self.events.reject(not_an_object(found)),
            }
        }
        Ok(())
    }
}

/// Judges the cells of one event, and appends its row.
fn take(plan: &Plan, rows: Option<&mut Rows>, cells: &[Cell<'_>], events: &mut Events<'_>) {
    let event_time_ms = match plan.check(cells).and_then(|time_ms| events.check_time(time_ms).map(|()| time_ms)) {
        Ok(event_time_ms) => event_time_ms,
        Err(reject) => return events.reject(reject),
    };
    let Some(rows) = rows else { return events.accept(event_time_ms, 0) };
    let derived = plan.derived.map(|from| Derived::of(&from.reported(cells, events.next_index()), &events.record));
    rows.push(|column| match (plan.outputs[column], &derived) {
        (Output::Cell(cell), _) => cells[cell].value(),
        (Output::Derived(column), Some(derived)) => derived.value(column),
        (Output::Derived(_), None) => Value::Null,
    });
    events.accept(event_time_ms, 1);
}

impl Plan {
    fn empty(source: &Source) -> Plan {
        let time = Field { name: source.time_field().into(), kind: FieldKind::Value(ColumnType::Time), required: true };
        Plan { fields: vec![time], attributes: Vec::new(), outputs: Vec::new(), derived: None }
    }

    fn new(source: &Source, table: &TableDef, wanted: &[Column]) -> Plan {
        let mut plan = Plan::empty(source);
        let is_derived = |column: &Column| DerivedColumn::of(column).is_some();
        let derives = wanted.iter().any(is_derived);
        for column in &table.columns {
            let needed_to_derive =
                matches!(column.name.as_str(), "service" | "type" | "message" | "stacktrace" | "trace_id");
            let kind = match column.presence {
                Presence::Derived => continue,
                _ if column.name == EVENT_TIME => continue,
                _ if wanted.contains(column) || derives && needed_to_derive => FieldKind::Value(column.column_type),
                Presence::Required => FieldKind::Presence,
                Presence::Optional => continue,
            };
            let required = column.presence == Presence::Required;
            plan.fields.push(Field { name: column.name.as_str().into(), kind, required });
        }
        plan.attributes = wanted.iter().filter_map(Column::attribute_key).map(Box::from).collect();
        if !plan.attributes.is_empty() {
            plan.fields.push(Field { name: "attributes".into(), kind: FieldKind::Attributes, required: false });
        }
        plan.outputs = wanted.iter().map(|column| plan.output(column)).collect();
        plan.derived = derives.then(|| DerivedFrom {
            service: plan.field("service"),
            exception_type: plan.field("type"),
            message: plan.field("message"),
            stacktrace: plan.field("stacktrace"),
            trace_id: plan.field("trace_id"),
        });
        plan
    }

    fn output(&self, column: &Column) -> Output {
        if let Some(derived) = DerivedColumn::of(column) {
            return Output::Derived(derived);
        }
        if let Some(key) = column.attribute_key() {
            let position = self.attributes.iter().position(|attribute| **attribute == *key).unwrap_or_default();
            return Output::Cell(self.fields.len() + position);
        }
        Output::Cell(if column.name == EVENT_TIME { 0 } else { self.field(&column.name) })
    }

    fn field(&self, name: &str) -> usize {
        self.fields.iter().position(|field| *field.name == *name).unwrap_or_default()
    }

    fn cells(&self) -> usize {
        self.fields.len() + self.attributes.len()
    }

    /// The event time, if all fields are as they must be.
    fn check(&self, cells: &[Cell<'_>]) -> Result<i64, Reject> {
        for (field, cell) in self.fields.iter().zip(cells) {
            match cell {
                Cell::Missing if field.required => {
                    let detail = format!("field `{}` is missing", field.name);
                    return Err(Reject::one(Reason::MissingField, detail));
                }
                Cell::Wrong(found) => return Err(field.wrong(found)),
                _ => {}
            }
        }
        match cells.first() {
            Some(Cell::Integer(event_time_ms)) => Ok(*event_time_ms),
            _ => Err(Reject::one(Reason::BadTime, "there is no event time")),
        }
    }
}

impl Field {
    fn wrong(&self, found: &str) -> Reject {
        let (reason, expected) = match self.kind {
            FieldKind::Value(ColumnType::Time) => (Reason::BadTime, "epoch milliseconds or RFC 3339"),
            FieldKind::Value(ColumnType::Text) => (Reason::WrongType, "a string"),
            FieldKind::Value(ColumnType::Integer) => (Reason::WrongType, "an integer"),
            FieldKind::Value(ColumnType::Float) => (Reason::WrongType, "a number"),
            FieldKind::Value(ColumnType::Boolean) => (Reason::WrongType, "true or false"),
            FieldKind::Attributes => (Reason::WrongType, "an object"),
            FieldKind::Presence => (Reason::WrongType, "a value"),
        };
        Reject::one(reason, format!("field `{}` must be {expected}, found {found}", self.name))
    }
}

impl DerivedFrom {
    fn reported<'c>(&self, cells: &'c [Cell<'_>], index: u32) -> Reported<'c> {
        let text = |cell: usize| match &cells[cell] {
            Cell::Text(text) => Some(Cow::as_ref(text)),
            _ => None,
        };
        Reported {
            service: text(self.service).unwrap_or_default(),
            exception_type: text(self.exception_type).unwrap_or_default(),
            message: text(self.message),
            stacktrace: text(self.stacktrace),
            trace_id: text(self.trace_id),
            index,
        }
    }
}
