//! From a view's SQL to a query that DataFusion can plan: the window call becomes the column `__pane`, `attributes['k']` the
//! column `attributes.k`, `quantile(x, q)` a quantile of a shared sketch, and a divisor of zero null. Pure; works on the syntax
//! tree only.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use bongsu_schemas::tables::EVENT_TIME;
use chrono_tz::Tz;
use datafusion::sql::sqlparser::ast::{
    AccessExpr, BinaryOperator, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, GroupByExpr, Ident,
    ObjectName, Query, Select, SelectItem, SetExpr, Statement, Subscript, TableFactor, Value, VisitMut,
};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::Parser;

use crate::quantile::{QUANTILE_OF, SKETCH};
use crate::window::{Calendar, CalendarUnit, WindowSpec};

/// Column with the start of a row's pane.
pub const PANE: &str = "__pane";
/// Column with the earliest event time of a group's window.
pub const FIRST_EVENT_TIME: &str = "__first_event_time";
/// Column with the number of events of a group's window.
pub const EVENTS: &str = "__events";
/// How many columns follow the view's own: [`PANE`], [`FIRST_EVENT_TIME`] and [`EVENTS`].
pub const HIDDEN_COLUMNS: usize = 3;

/// A view's SQL, understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ViewQuery {
    /// The table that it reads.
    pub table: String,
    /// Its window.
    pub window: WindowSpec,
    /// Attributes that it reads, without the prefix.
    pub attributes: BTreeSet<String>,
    /// Columns that no further event can make smaller: counts and maxima.
    pub growing: BTreeSet<String>,
    /// What DataFusion plans: the view's columns, then the hidden ones.
    pub sql: String,
}

/// Understands a view's SQL; calendar windows that name no zone are those of `zone`. The error is for people.
pub fn parse_view(sql: &str, zone: Tz) -> Result<ViewQuery, String> {
    let mut statements = Parser::parse_sql(&GenericDialect {}, sql).map_err(|error| plain(&error.to_string()))?;
    let statement = statements.pop().filter(|_| statements.is_empty()).ok_or("must be exactly one SELECT")?;
    let Statement::Query(mut query) = statement else { return Err("must be a SELECT".to_owned()) };
    refuse_clauses_of_query(&query)?;
    let SetExpr::Select(select) = query.body.as_mut() else {
        return Err("must be one SELECT; UNION, VALUES and the like cannot be windowed".to_owned());
    };
    let table = table_of(select)?;
    let window = take_window(select, zone)?;
    refuse_clauses_of_select(select)?;
    let growing = growing_columns(select);
    let attributes = rewrite_expressions(select.as_mut())?;
    select.projection.push(SelectItem::UnnamedExpr(Expr::Identifier(Ident::new(PANE))));
    select.projection.push(hidden(&format!("min({EVENT_TIME})"), FIRST_EVENT_TIME)?);
    select.projection.push(hidden("count(*)", EVENTS)?);
    Ok(ViewQuery { table, window, attributes, growing, sql: query.to_string() })
}

/// Understands a condition: `$name` becomes the column `"$name"`. Gives the SQL and the names of the parameters.
pub fn parse_condition(sql: &str) -> Result<(String, BTreeSet<String>), String> {
    let parser = Parser::new(&GenericDialect {}).try_with_sql(sql);
    let mut parser = parser.map_err(|error| plain(&error.to_string()))?;
    let mut expr = parser.parse_expr().map_err(|error| plain(&error.to_string()))?;
    let rest = parser.peek_token();
    if rest.token != datafusion::sql::sqlparser::tokenizer::Token::EOF {
        return Err(format!("has something after its end: `{rest}`"));
    }
    let mut params = BTreeSet::new();
    let flow = visit_expressions(&mut expr, &mut |expr| {
        if let Expr::Value(value) = expr
            && let Value::Placeholder(placeholder) = &value.value
        {
            params.insert(placeholder.trim_start_matches('$').to_owned());
            *expr = Expr::Identifier(Ident::with_quote('"', placeholder.clone()));
        }
        null_for_zero_divisor(expr)
    });
    match flow {
        ControlFlow::Break(problem) => Err(problem),
        ControlFlow::Continue(()) => Ok((expr.to_string(), params)),
    }
}

fn plain(error: &str) -> String {
    error.trim_start_matches("sql parser error: ").to_owned()
}

fn refuse_clauses_of_query(query: &Query) -> Result<(), String> {
    if query.with.is_some() {
        return Err("cannot have WITH".to_owned());
    }
    if query.order_by.is_some() || query.limit_clause.is_some() || query.fetch.is_some() {
        return Err("cannot have ORDER BY or LIMIT: a window's groups are published in no order".to_owned());
    }
    Ok(())
}

fn refuse_clauses_of_select(select: &Select) -> Result<(), String> {
    if select.having.is_some() {
        return Err("cannot have HAVING; put the condition into a rule's `when`".to_owned());
    }
    if select.distinct.is_some() || select.qualify.is_some() || !select.lateral_views.is_empty() {
        return Err("cannot have DISTINCT, QUALIFY or LATERAL VIEW".to_owned());
    }
    Ok(())
}

fn table_of(select: &Select) -> Result<String, String> {
    let [from] = select.from.as_slice() else { return Err("must read FROM exactly one table".to_owned()) };
    if !from.joins.is_empty() {
        return Err("cannot JOIN; a view reads one table".to_owned());
    }
    match &from.relation {
        TableFactor::Table { name, args: None, alias: None, .. } => Ok(last_part(name)),
        _ => Err("must read FROM a table by its plain name, without alias or subquery".to_owned()),
    }
}

fn last_part(name: &ObjectName) -> String {
    name.0.last().and_then(|part| part.as_ident()).map(|ident| ident.value.to_lowercase()).unwrap_or_default()
}

/// Replaces the window call among the group keys by the pane column, put first.
fn take_window(select: &mut Select, zone: Tz) -> Result<WindowSpec, String> {
    const NEEDED: &str = "needs `GROUP BY tumble(interval '1 minute'), ...`, `hop(interval '10 seconds', interval '1 minute')` or \
                          `calendar('day')`";
    let GroupByExpr::Expressions(keys, modifiers) = &mut select.group_by else {
        return Err(format!("{NEEDED}; GROUP BY ALL is not supported"));
    };
    if !modifiers.is_empty() {
        return Err("cannot have ROLLUP, CUBE or TOTALS".to_owned());
    }
    let mut window = None;
    let mut others = Vec::new();
    for key in keys.drain(..) {
        match window_of(&key, zone)? {
            Some(_) if window.is_some() => return Err("has two windows; one is needed".to_owned()),
            Some(spec) => window = Some(spec),
            None => others.push(key),
        }
    }
    keys.push(Expr::Identifier(Ident::new(PANE)));
    keys.append(&mut others);
    window.ok_or_else(|| NEEDED.to_owned())
}

fn window_of(key: &Expr, zone: Tz) -> Result<Option<WindowSpec>, String> {
    let Expr::Function(function) = key else { return Ok(None) };
    let intervals = || arguments(function).into_iter().map(interval_ms).collect::<Result<Vec<_>, _>>();
    match last_part(&function.name).as_str() {
        "tumble" => match intervals()?.as_slice() {
            [size_ms] => WindowSpec::new(*size_ms, *size_ms).map(Some),
            _ => Err("`tumble` takes one interval, its size".to_owned()),
        },
        "hop" => match intervals()?.as_slice() {
            [slide_ms, size_ms] => WindowSpec::new(*size_ms, *slide_ms).map(Some),
            _ => Err("`hop` takes two intervals, its slide and its size".to_owned()),
        },
        "calendar" => calendar(&arguments(function), zone).map(|calendar| Some(WindowSpec::calendar(calendar))),
        _ => Ok(None),
    }
}

/// `calendar('day')`, or `calendar('week', 'Asia/Seoul')`.
fn calendar(arguments: &[&Expr], zone: Tz) -> Result<Calendar, String> {
    const NEEDED: &str =
        "`calendar` takes 'day' or 'week', and a time zone such as 'Asia/Seoul' if it is not that of `time.zone`";
    let texts: Option<Vec<_>> = arguments.iter().map(|argument| text_of(argument)).collect();
    let (unit, zone) = match texts.as_deref() {
        Some([unit]) => (*unit, zone),
        Some([unit, zone]) => (*unit, zone.parse().map_err(|_| format!("`{zone}` is no IANA time zone; {NEEDED}"))?),
        _ => return Err(NEEDED.to_owned()),
    };
    let unit = [CalendarUnit::Day, CalendarUnit::Week].into_iter().find(|known| known.name() == unit);
    Ok(Calendar { unit: unit.ok_or(NEEDED)?, zone })
}

fn text_of(expr: &Expr) -> Option<&str> {
    let Expr::Value(value) = expr else { return None };
    match &value.value {
        Value::SingleQuotedString(text) => Some(text),
        _ => None,
    }
}

fn arguments(function: &Function) -> Vec<&Expr> {
    let FunctionArguments::List(list) = &function.args else { return Vec::new() };
    let expression = |argument| match argument {
        &FunctionArg::Unnamed(FunctionArgExpr::Expr(ref expr)) => Some(expr),
        _ => None,
    };
    list.args.iter().filter_map(expression).collect()
}

/// Milliseconds of `interval '90 seconds'` or `interval '1' minute`.
fn interval_ms(expr: &Expr) -> Result<i64, String> {
    let bad = || format!("`{expr}` is not an interval such as interval '1 minute'");
    let Expr::Interval(interval) = expr else { return Err(bad()) };
    let text = text_of(&interval.value).ok_or_else(bad)?;
    let unit = interval.leading_field.as_ref().map(|unit| unit.to_string()).unwrap_or_default();
    let text = format!("{text} {unit}");
    let words: Vec<_> = text.split_whitespace().collect();
    if words.is_empty() || words.len() % 2 != 0 {
        return Err(bad());
    }
    let part = |pair: &[&str]| {
        let number: i64 = pair[0].parse().ok().filter(|number| (1..=1_000_000_000).contains(number))?;
        let unit_ms = match pair[1].to_lowercase().trim_end_matches('s') {
            "millisecond" => 1,
            "second" => 1_000,
            "minute" => 60_000,
            "hour" => 3_600_000,
            "day" => 86_400_000,
            "week" => 604_800_000,
            _ => return None,
        };
        number.checked_mul(unit_ms)
    };
    words.chunks(2).map(part).sum::<Option<i64>>().ok_or_else(bad)
}

fn growing_columns(select: &Select) -> BTreeSet<String> {
    let grows =
        |function: &Function| matches!(last_part(&function.name).as_str(), "count" | "max") && function.over.is_none();
    let column = |item: &SelectItem| match item {
        SelectItem::ExprWithAlias { expr: Expr::Function(function), alias } if grows(function) => {
            let quoted = alias.quote_style.is_some();
            Some(if quoted { alias.value.clone() } else { alias.value.to_lowercase() })
        }
        _ => None,
    };
    select.projection.iter().filter_map(column).collect()
}

/// Rewrites attributes, quantiles and divisors; gives the attributes that were read.
fn rewrite_expressions(select: &mut (impl VisitMut + ?Sized)) -> Result<BTreeSet<String>, String> {
    let mut attributes = BTreeSet::new();
    let flow = visit_expressions(select, &mut |expr| {
        if let Some(key) = attribute_key(expr) {
            *expr = Expr::Identifier(Ident::with_quote('"', format!("attributes.{key}")));
            attributes.insert(key);
        } else if let Expr::Function(function) = expr
            && last_part(&function.name) == "quantile"
        {
            match quantile_of_sketch(function) {
                Ok(rewritten) => *expr = rewritten,
                Err(problem) => return ControlFlow::Break(problem),
            }
        }
        null_for_zero_divisor(expr)
    });
    match flow {
        ControlFlow::Break(problem) => Err(problem),
        ControlFlow::Continue(()) => Ok(attributes),
    }
}

fn visit_expressions<E>(
    node: &mut (impl VisitMut + ?Sized),
    visit: &mut impl FnMut(&mut Expr) -> ControlFlow<E>,
) -> ControlFlow<E> {
    struct Visitor<'a, F>(&'a mut F);
    impl<E, F: FnMut(&mut Expr) -> ControlFlow<E>> datafusion::sql::sqlparser::ast::VisitorMut for Visitor<'_, F> {
        type Break = E;
        fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<E> {
            (self.0)(expr)
        }
    }
    node.visit(&mut Visitor(visit))
}

/// `x / y` as `x / nullif(+y, 0)`, likewise `%`: a divisor of zero gives null, not an error for the whole batch. The plus has
/// the planner refuse a text, which `nullif` alone would read as an integer.
fn null_for_zero_divisor(expr: &mut Expr) -> ControlFlow<String> {
    if let Expr::BinaryOp { op: BinaryOperator::Divide | BinaryOperator::Modulo, right, .. } = expr
        && !is_nonzero_number(right)
    {
        match parse_expression(&format!("nullif(+{right}, 0)")) {
            Ok(divisor) => **right = divisor,
            Err(problem) => return ControlFlow::Break(problem),
        }
    }
    ControlFlow::Continue(())
}

fn is_nonzero_number(expr: &Expr) -> bool {
    let Expr::Value(value) = expr else { return false };
    matches!(&value.value, Value::Number(number, _) if number.parse().is_ok_and(|number: f64| number != 0.0))
}

fn attribute_key(expr: &Expr) -> Option<String> {
    let Expr::CompoundFieldAccess { root, access_chain } = expr else { return None };
    let Expr::Identifier(name) = root.as_ref() else { return None };
    let [AccessExpr::Subscript(Subscript::Index { index: Expr::Value(value) })] = access_chain.as_slice() else {
        return None;
    };
    match &value.value {
        Value::SingleQuotedString(key) if name.value.eq_ignore_ascii_case("attributes") => Some(key.clone()),
        _ => None,
    }
}

/// `quantile(x, q) FILTER (...)` as `quantile_of_sketch(quantile_sketch(x) FILTER (...), q)`.
fn quantile_of_sketch(function: &Function) -> Result<Expr, String> {
    let filter = function.filter.as_ref().map(|filter| format!(" FILTER (WHERE {filter})")).unwrap_or_default();
    let args = arguments(function);
    let [x, q] = args.as_slice() else { return Err("`quantile` takes a column and a number from 0 to 1".to_owned()) };
    match q.to_string().parse::<f64>() {
        Ok(number) if (0.0..=1.0).contains(&number) => {
            let sql = format!("{QUANTILE_OF}({SKETCH}(CAST({x} AS DOUBLE)){filter}, CAST({q} AS DOUBLE))");
            parse_expression(&sql)
        }
        _ => Err(format!("`quantile` needs a number from 0 to 1, not `{q}`")),
    }
}

fn hidden(sql: &str, name: &str) -> Result<SelectItem, String> {
    Ok(SelectItem::ExprWithAlias { expr: parse_expression(sql)?, alias: Ident::new(name) })
}

fn parse_expression(sql: &str) -> Result<Expr, String> {
    let parser = Parser::new(&GenericDialect {}).try_with_sql(sql);
    parser.and_then(|mut parser| parser.parse_expr()).map_err(|error| plain(&error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn windows_attributes_and_quantiles_are_understood() {
        let query = parse_view(
            "SELECT attributes['issuer'] AS issuer, count(*) FILTER (WHERE outcome = 'failure') AS failures, quantile(amount, 0.5) AS p50
             FROM events WHERE event = 'payment' GROUP BY hop(interval '10 seconds', interval '1' minute), attributes['issuer']",
            Tz::UTC,
        )
        .unwrap();
        assert_eq!(query.window, WindowSpec::new(60_000, 10_000).unwrap());
        assert_eq!(query.attributes, BTreeSet::from(["issuer".to_owned()]));
        assert_eq!(
            query.sql,
            "SELECT \"attributes.issuer\" AS issuer, count(*) FILTER (WHERE outcome = 'failure') AS failures, \
             quantile_of_sketch(quantile_sketch(CAST(amount AS DOUBLE)), CAST(0.5 AS DOUBLE)) AS p50, __pane, \
             min(event_time) AS __first_event_time, count(*) AS __events FROM events WHERE event = 'payment' \
             GROUP BY __pane, \"attributes.issuer\""
        );
    }

    #[test]
    fn calendar_windows_are_in_the_zone_that_they_name_or_in_the_usual_one() {
        let window = |call: &str| {
            let sql = format!("SELECT service FROM requests GROUP BY {call}, service");
            parse_view(&sql, Tz::Asia__Seoul).unwrap().window
        };
        let expected = |unit, zone| WindowSpec::calendar(Calendar { unit, zone });
        assert_eq!(window("calendar('day')"), expected(CalendarUnit::Day, Tz::Asia__Seoul));
        assert_eq!(window("calendar('week', 'Europe/Berlin')"), expected(CalendarUnit::Week, Tz::Europe__Berlin));
    }

    #[test]
    fn what_cannot_be_windowed_is_refused_with_a_reason() {
        #[rustfmt::skip]
        let cases = [
            ("SELECT 1; SELECT 2", "exactly one SELECT"),
            ("DELETE FROM requests", "must be a SELECT"),
            ("SELECT service FROM requests GROUP BY service", "tumble"),
            ("SELECT service FROM requests GROUP BY tumble(interval '1 parsec'), service", "is not an interval"),
            ("SELECT service FROM requests GROUP BY tumble(60), service", "is not an interval"),
            ("SELECT service FROM requests GROUP BY tumble(interval '1 minute'), hop(interval '1 second', interval '1 minute')", "two windows"),
            ("SELECT service FROM requests GROUP BY hop(interval '7 seconds', interval '1 minute'), service", "multiple of its slide"),
            ("SELECT count(*) FROM requests GROUP BY calendar('month')", "takes 'day' or 'week'"),
            ("SELECT count(*) FROM requests GROUP BY calendar('day', 'Asia/Soul')", "`Asia/Soul` is no IANA time zone"),
            ("SELECT count(*) FROM requests GROUP BY tumble(interval '8 days')", "at most seven days"),
            ("SELECT count(*) FROM a JOIN b ON a.x = b.x GROUP BY tumble(interval '1 minute')", "cannot JOIN"),
            ("SELECT count(*) FROM requests GROUP BY tumble(interval '1 minute') HAVING count(*) > 1", "HAVING"),
            ("SELECT count(*) FROM requests GROUP BY tumble(interval '1 minute') ORDER BY 1", "ORDER BY"),
            ("SELECT quantile(duration_ms, 95) FROM requests GROUP BY tumble(interval '1 minute')", "from 0 to 1"),
            ("SELECT (", "Expected"),
        ];
        for (sql, expected) in cases {
            let problem = parse_view(sql, Tz::UTC).unwrap_err();
            assert!(problem.contains(expected), "{sql}: {problem}");
        }
    }

    #[test]
    fn divisors_of_zero_become_null() {
        #[rustfmt::skip]
        let cases = [
            ("a / b",                       "a / nullif(+b, 0)"),
            ("a % b",                       "a % nullif(+b, 0)"),
            ("a / (b - 1)",                 "a / nullif(+(b - 1), 0)"),
            ("a / b / c",                   "a / nullif(+b, 0) / nullif(+c, 0)"),
            ("a / (b / c)",                 "a / nullif(+(b / nullif(+c, 0)), 0)"),
            ("a / $max > 1",                "a / nullif(+\"$max\", 0) > 1"),
            ("a / -b",                      "a / nullif(+-b, 0)"),
            ("a / 100",                     "a / 100"),
            ("a / 0.5",                     "a / 0.5"),
            ("a / 0",                       "a / nullif(+0, 0)"),
            ("a / 0.0",                     "a / nullif(+0.0, 0)"),
            ("a * b - c",                   "a * b - c"),
            ("round(a / count(b))",         "round(a / nullif(+count(b), 0))"),
        ];
        for (sql, expected) in cases {
            assert_eq!(parse_condition(sql).unwrap().0, expected, "{sql}");
        }
        let query = parse_view(
            "SELECT sum(a / attributes['b']::double) / count(*) AS x FROM events GROUP BY tumble(interval '1 minute')",
            Tz::UTC,
        );
        let sql = query.unwrap().sql;
        let expected = "SELECT sum(a / nullif(+\"attributes.b\"::DOUBLE, 0)) / nullif(+count(*), 0) AS x, ";
        assert!(sql.to_lowercase().starts_with(&expected.to_lowercase()), "{sql}");
    }

    #[test]
    fn parameters_of_conditions_become_columns() {
        let (sql, params) = parse_condition("requests >= $min AND errors > $max * requests").unwrap();
        assert_eq!(sql, "requests >= \"$min\" AND errors > \"$max\" * requests");
        assert_eq!(params, BTreeSet::from(["max".to_owned(), "min".to_owned()]));
        assert!(parse_condition("a > 1 b").unwrap_err().contains("after its end"));
    }

    proptest! {
        #[test]
        fn arbitrary_text_is_refused_not_a_panic(text in ".{0,80}") {
            let _ = parse_view(&text, Tz::UTC);
            let _ = parse_condition(&text);
        }
    }
}
