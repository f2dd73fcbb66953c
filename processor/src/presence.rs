//! Who sends anything at all: a view of our own beside each one that a `no_data` rule watches.
//!
//! Silence is judged by service, or by series without the pod, since a pod that a deploy replaced is not missing. Groups of one service are
//! spread over the partitions of the partials by their whole key, so none of those could tell. A presence view has the same source and
//! condition as the watched view and only the keys by which silence is judged, so that each of its groups is in one partition. It is
//! neither published nor kept.

use chrono_tz::Tz;
use datafusion::sql::sqlparser::ast::{Expr, GroupByExpr, Ident, SelectItem, SetExpr, Statement};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::Parser;

use crate::config::{Config, NoDataPer, View};
use crate::sql::parse_view;

/// Keys that name an instance, which a deploy replaces.
const INSTANCES: [&str; 3] = ["pod", "container", "instance"];
/// Silence is judged at least this often.
const MAX_WINDOW_MS: i64 = 60_000;

/// Adds the presence views that the rules of a configuration need.
pub(crate) fn with_presence(mut config: Config) -> Config {
    for rule in &config.rules {
        let Some(no_data) = &rule.no_data else { continue };
        let name = name_of(&rule.on, no_data.per);
        let watched = config.views.iter().find(|view| view.name == rule.on);
        let sql = watched.and_then(|view| presence_sql(&view.sql, no_data.per, config.zone));
        if let Some((sql, watched)) = sql.zip(watched)
            && config.views.iter().all(|view| view.name != name)
        {
            let view = View { max_groups: watched.max_groups, ..View::new(&name, &sql) };
            config.views.push(view);
        }
    }
    config
}

/// Name of the presence view of a view. A configured view has no dot in its name.
pub(crate) fn name_of(view: &str, per: NoDataPer) -> String {
    match per {
        NoDataPer::Service => format!("{view}.service"),
        NoDataPer::Series => format!("{view}.series"),
    }
}

/// Whether this is the name of a presence view.
pub(crate) fn is_presence(view: &str) -> bool {
    view.contains('.')
}

/// None for a view that cannot be understood, which is a mistake of its own.
fn presence_sql(sql: &str, per: NoDataPer, zone: Tz) -> Option<String> {
    let window_ms = parse_view(sql, zone).ok()?.window.slide_ms().map_or(MAX_WINDOW_MS, |ms| ms.min(MAX_WINDOW_MS));
    let mut statements = Parser::parse_sql(&GenericDialect {}, sql).ok()?;
    let Some(Statement::Query(mut query)) = statements.pop() else { return None };
    let SetExpr::Select(select) = query.body.as_mut() else { return None };
    let GroupByExpr::Expressions(groups, _) = &mut select.group_by else { return None };
    let judged_by = |name: &str| match per {
        NoDataPer::Service => ["service", "environment"].contains(&name),
        NoDataPer::Series => !INSTANCES.contains(&name),
    };
    let is_group = |expr: &Expr| groups.contains(expr);
    let kept: Vec<SelectItem> = select
        .projection
        .drain(..)
        .filter(|item| match item {
            SelectItem::UnnamedExpr(expr @ Expr::Identifier(ident)) => is_group(expr) && judged_by(&lower(ident)),
            SelectItem::ExprWithAlias { expr, alias } => {
                // The alias may stand for the expression in GROUP BY.
                (is_group(expr) || is_group(&Expr::Identifier(alias.clone()))) && judged_by(&lower(alias))
            }
            _ => false,
        })
        .collect();
    let expression = |item: &SelectItem| match item {
        SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } => Some(expr.clone()),
        _ => None,
    };
    let parse = |sql: &str| Parser::new(&GenericDialect {}).try_with_sql(sql).ok()?.parse_expr().ok();
    *groups = vec![parse(&format!("tumble(interval '{window_ms} milliseconds')"))?];
    groups.extend(kept.iter().filter_map(expression));
    select.projection = kept;
    let count = SelectItem::ExprWithAlias { expr: parse("count(*)")?, alias: Ident::new("sent") };
    select.projection.push(count);
    Some(query.to_string())
}

fn lower(ident: &Ident) -> String {
    ident.value.to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guarantees: the source and its condition are those of the watched view; the keys are those by which silence is judged.
    #[test]
    fn presence_is_the_view_without_its_other_keys() {
        const REQUESTS: &str = "SELECT service, environment, route, count(*) AS n FROM requests WHERE status < 600
                                GROUP BY tumble(interval '1 minute'), service, environment, route";
        const PODS: &str = "SELECT service, pod, name, max(value) AS peak FROM metrics
                            GROUP BY hop(interval '10 seconds', interval '5 minutes'), service, pod, name";
        const EVENTS: &str = "SELECT service, attributes['environment'] AS environment, attributes['issuer'] AS issuer, count(*) AS n
                              FROM events GROUP BY tumble(interval '1 hour'), service, attributes['environment'], issuer";
        const ALL: &str = "SELECT count(*) AS n FROM events GROUP BY calendar('day')";
        #[rustfmt::skip]
        let cases = [
            (REQUESTS, NoDataPer::Service, "SELECT service, environment, count(*) AS sent FROM requests WHERE status < 600 \
                                            GROUP BY tumble(INTERVAL '60000 milliseconds'), service, environment"),
            (REQUESTS, NoDataPer::Series,  "SELECT service, environment, route, count(*) AS sent FROM requests WHERE status < 600 \
                                            GROUP BY tumble(INTERVAL '60000 milliseconds'), service, environment, route"),
            (PODS,     NoDataPer::Series,  "SELECT service, name, count(*) AS sent FROM metrics \
                                            GROUP BY tumble(INTERVAL '10000 milliseconds'), service, name"),
            (EVENTS,   NoDataPer::Service, "SELECT service, attributes['environment'] AS environment, count(*) AS sent FROM events \
                                            GROUP BY tumble(INTERVAL '60000 milliseconds'), service, attributes['environment']"),
            (EVENTS,   NoDataPer::Series,  "SELECT service, attributes['environment'] AS environment, attributes['issuer'] AS issuer, \
                                            count(*) AS sent FROM events GROUP BY tumble(INTERVAL '60000 milliseconds'), service, \
                                            attributes['environment'], attributes['issuer']"),
            (ALL,      NoDataPer::Service, "SELECT count(*) AS sent FROM events GROUP BY tumble(INTERVAL '60000 milliseconds')"),
        ];
        for (sql, per, expected) in cases {
            let presence = presence_sql(sql, per, Tz::UTC).unwrap();
            assert_eq!(presence, expected);
            assert!(parse_view(&presence, Tz::UTC).is_ok(), "{presence}");
        }
        assert_eq!(presence_sql("SELECT 1", NoDataPer::Service, Tz::UTC), None);
    }
}
