//! Which conditions can only become true while a window is open: they need not wait for its end.
//!
//! A count grows with each event, and so does a maximum; group keys, parameters and numbers stay as they are. A comparison of something
//! that grows against something that stays, and any AND and OR of such, never becomes false again within the window. Everything else is
//! left to the closed window: a sum, whose summands may be negative; a ratio; an average; NOT.

use std::collections::BTreeSet;

use datafusion::sql::sqlparser::ast::{BinaryOperator, Expr, Ident, UnaryOperator, Value};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::Parser;

use crate::config::Rule;
use crate::plan::ViewPlan;

/// Whether an alert of this rule may fire within an open window. One window must be enough, and it must be a single pane that partials
/// are merged into.
pub fn fires_early(rule: &Rule, when: &str, view: &ViewPlan) -> bool {
    let one_is_enough = rule.for_windows.unwrap_or_default().needed == 1;
    if !one_is_enough || !view.window.is_tumbling() || view.is_rolled_up() {
        return false;
    }
    let name = |column: &usize| view.result_schema.field(*column).name().clone();
    let columns = Columns { keys: view.keys.iter().map(name).collect(), growing: view.growing.clone() };
    let parsed = Parser::new(&GenericDialect {}).try_with_sql(when).and_then(|mut parser| parser.parse_expr());
    parsed.is_ok_and(|expr| columns.stays_true(&expr))
}

struct Columns {
    keys: BTreeSet<String>,
    growing: BTreeSet<String>,
}

impl Columns {
    fn stays_true(&self, condition: &Expr) -> bool {
        match condition {
            Expr::Nested(inner) => self.stays_true(inner),
            Expr::BinaryOp { left, op: BinaryOperator::And | BinaryOperator::Or, right } => {
                self.stays_true(left) && self.stays_true(right)
            }
            Expr::BinaryOp { left, op: BinaryOperator::Gt | BinaryOperator::GtEq, right } => {
                self.grows(left) && self.stays(right) || self.stays(condition)
            }
            Expr::BinaryOp { left, op: BinaryOperator::Lt | BinaryOperator::LtEq, right } => {
                self.stays(left) && self.grows(right) || self.stays(condition)
            }
            other => self.stays(other),
        }
    }

    /// Not smaller after another event; what stays does not count.
    fn grows(&self, expr: &Expr) -> bool {
        match expr {
            Expr::Nested(inner) => self.grows(inner),
            Expr::Identifier(ident) => self.growing.contains(&name_of(ident)),
            Expr::BinaryOp { left, op: BinaryOperator::Plus, right } => {
                let is_either = |expr| self.grows(expr) || self.stays(expr);
                (self.grows(left) || self.grows(right)) && is_either(left) && is_either(right)
            }
            Expr::BinaryOp { left, op: BinaryOperator::Multiply, right } => {
                self.grows(left) && is_positive(right) || is_positive(left) && self.grows(right)
            }
            _ => false,
        }
    }

    /// The same whatever comes.
    fn stays(&self, expr: &Expr) -> bool {
        match expr {
            Expr::Nested(inner) | Expr::IsNull(inner) | Expr::IsNotNull(inner) => self.stays(inner),
            Expr::Value(_) => true,
            Expr::Identifier(ident) => self.keys.contains(&name_of(ident)),
            Expr::UnaryOp { op: UnaryOperator::Minus | UnaryOperator::Plus | UnaryOperator::Not, expr } => {
                self.stays(expr)
            }
            Expr::BinaryOp { left, right, .. } => self.stays(left) && self.stays(right),
            Expr::InList { expr, list, .. } => self.stays(expr) && list.iter().all(|item| self.stays(item)),
            Expr::Like { expr, pattern, .. } => self.stays(expr) && self.stays(pattern),
            _ => false,
        }
    }
}

/// As DataFusion resolves it: in small letters unless it is quoted.
fn name_of(ident: &Ident) -> String {
    if ident.quote_style.is_some() { ident.value.clone() } else { ident.value.to_lowercase() }
}

fn is_positive(expr: &Expr) -> bool {
    let Expr::Value(value) = expr else { return false };
    matches!(&value.value, Value::Number(number, _) if number.parse().is_ok_and(|number: f64| number > 0.0))
}

#[cfg(test)]
mod tests {
    use bongsu_schemas::tables::Table;
    use chrono_tz::Tz;
    use serde_json::json;

    use super::*;
    use crate::config::View;
    use crate::plan::{TableColumns, Tables};

    fn is_early(window: &str, when: &str, for_windows: &str) -> bool {
        let columns = |table: Table| TableColumns { columns: table.columns(), has_attributes: table.has_attributes() };
        let tables: Tables = Table::ALL.into_iter().map(|table| (table.name().to_owned(), columns(table))).collect();
        let sql = format!(
            "SELECT service, route, count(*) AS requests, COUNT(DISTINCT trace_id) FILTER (WHERE status >= 500) AS traces,
                    max(duration_ms) AS slowest, sum(db_rows) AS db_rows, avg(duration_ms) AS mean, count(*) - 5 AS fewer
             FROM requests GROUP BY {window}, service, route"
        );
        let view = ViewPlan::new(&View::new("requests_1m", &sql), &tables, Tz::UTC).unwrap();
        let rule = json!({ "name": "r", "on": "requests_1m", "when": when, "for": for_windows });
        fires_early(&serde_json::from_value(rule).unwrap(), when, &view)
    }

    /// Guarantees: only what cannot become false again is told before the window has closed.
    #[test]
    fn conditions_that_can_only_become_true() {
        #[rustfmt::skip]
        let cases = [
            ("requests > 100",                                                true),
            ("requests >= $min AND traces > 3",                               true),
            ("100 < requests OR (slowest > $max_ms)",                         true),
            ("REQUESTS > 1 AND service = 'orders' AND route <> '/health'",    true),
            ("service LIKE 'pay%' AND 2 * requests + traces > $min",          true),
            ("route IN ('/a', '/b') AND requests > $min * 2",                 true),
            ("requests < 5",                                                  false),
            ("requests = 7",                                                  false),
            ("NOT requests > 7",                                              false),
            ("db_rows > 5",                                                   false),
            ("mean > 5",                                                      false),
            ("fewer > 5",                                                     false),
            ("requests >= 20 AND traces > $max * requests",                   false),
            ("requests - traces > 5",                                         false),
            ("requests * $factor > 5",                                        false),
            ("requests > 5 AND mean > 5",                                     false),
        ];
        for (when, expected) in cases {
            assert_eq!(is_early("tumble(interval '1 minute')", when, "1"), expected, "{when}");
        }
        assert!(is_early("tumble(interval '1 minute')", "requests > 1", "1 of 3"));
        assert!(!is_early("tumble(interval '1 minute')", "requests > 1", "2 of 3"));
        assert!(!is_early("hop(interval '10 seconds', interval '1 minute')", "requests > 1", "1"));
        assert!(!is_early("tumble(interval '1 hour')", "requests > 1", "1"), "its window is made of closed panes");
    }
}
