//! How bad it was: the columns that a condition compares, and their highest or lowest values.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{BinaryOperator, Expr, Ident, visit_expressions};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::Parser;
use serde_json::{Map, Value};

/// The columns of a condition.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Extremes {
    columns: BTreeSet<String>,
    /// Those of them that are bad when they are low: the condition says `column < ...` and nowhere `column > ...`.
    lowest: BTreeSet<String>,
}

impl Extremes {
    /// The columns of `when`; none where there is no condition.
    pub(super) fn of_condition(when: &str) -> Extremes {
        let parsed = Parser::new(&GenericDialect {}).try_with_sql(when).and_then(|mut parser| parser.parse_expr());
        // A condition that is in force has been parsed before.
        let Ok(expr) = parsed else { return Extremes::default() };
        let (mut columns, mut small, mut large) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        let _: ControlFlow<()> = visit_expressions(&expr, |expr| {
            match expr {
                Expr::Identifier(name) => {
                    columns.insert(column(name));
                }
                Expr::BinaryOp { left, op, right } => {
                    let (less, more) = match op {
                        BinaryOperator::Lt | BinaryOperator::LtEq => (left, right),
                        BinaryOperator::Gt | BinaryOperator::GtEq => (right, left),
                        _ => return ControlFlow::Continue(()),
                    };
                    small.extend(as_column(less));
                    large.extend(as_column(more));
                }
                _ => {}
            }
            ControlFlow::Continue(())
        });
        Extremes { columns, lowest: small.difference(&large).cloned().collect() }
    }

    /// Keeps the worse of each of a window's values. What is no number is left out.
    pub(super) fn update(&self, peak: &mut Map<String, Value>, values: &Map<String, Value>) {
        for name in &self.columns {
            let Some((value, number)) = values.get(name).and_then(|value| Some((value, value.as_f64()?))) else {
                continue;
            };
            let is_worse = |known: f64| if self.lowest.contains(name) { number < known } else { number > known };
            if peak.get(name).and_then(Value::as_f64).is_none_or(is_worse) {
                peak.insert(name.clone(), value.clone());
            }
        }
    }
}

fn as_column(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Identifier(name) => Some(column(name)),
        _ => None,
    }
}

/// Names without quotes are in lower case, as DataFusion has them.
fn column(name: &Ident) -> String {
    if name.quote_style.is_some() { name.value.clone() } else { name.value.to_lowercase() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    /// Guarantees: the worst values are those that the condition means.
    #[test]
    fn the_worst_values_are_kept() {
        #[rustfmt::skip]
        let cases = [
            // condition                                     values, one after the other                                       worst
            ("requests >= 20 AND errors > $max * requests", json!([{ "requests": 30, "errors": 9 }, { "requests": 20, "errors": 20 }]), json!({ "requests": 30, "errors": 20 })),
            ("attempts < $min",                              json!([{ "attempts": 7 }, { "attempts": 3 }, { "attempts": 5 }]),  json!({ "attempts": 3 })),
            ("$min > attempts",                              json!([{ "attempts": 7 }, { "attempts": 3 }]),                     json!({ "attempts": 3 })),
            ("a > 1 AND a < 10",                             json!([{ "a": 2 }, { "a": 9 }]),                                   json!({ "a": 9 })),
            ("name = 'x' AND Value > 0.5 * \"limit\"",       json!([{ "name": "x", "value": 0.75, "limit": null }]),            json!({ "value": 0.75 })),
            ("",                                             json!([{ "a": 2 }]),                                               json!({})),
        ];
        for (when, windows, expected) in cases {
            let extremes = Extremes::of_condition(when);
            let mut peak = Map::new();
            for values in windows.as_array().unwrap() {
                extremes.update(&mut peak, values.as_object().unwrap());
            }
            assert_eq!(Value::from(peak), expected, "{when}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_text_is_no_panic(text in ".{0,80}") {
            Extremes::of_condition(&text);
        }
    }
}
