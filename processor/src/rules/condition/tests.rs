use arrow::array::{Int64Array, StringViewArray};
use bongsu_schemas::tables::Table;
use chrono_tz::Tz;
use serde_json::json;

use super::*;
use crate::config::View;
use crate::plan::TableColumns;

/// A view with one key and one value; no events are needed, since the rows are made by hand.
fn view() -> ViewPlan {
    let table = Table::Requests;
    let columns = TableColumns { columns: table.columns(), has_attributes: table.has_attributes() };
    let sql = "SELECT service, count(*) AS errors FROM requests GROUP BY tumble(interval '1 minute'), service";
    ViewPlan::new(&View::new("v", sql), &[(table.name().to_owned(), columns)].into(), Tz::UTC).unwrap()
}

fn rule(when: &str, clear: Option<&str>) -> Rule {
    let rule = json!({
        "name": "r", "on": "v", "when": when, "clear": clear, "params": { "max": 2, "none": 0, "text": "many", "on": true },
    });
    serde_json::from_value(rule).unwrap()
}

/// The services `7` with 3 errors and `shop` with none.
fn judge(when: &str, clear: Option<&str>) -> Judgement {
    let view = view();
    let conditions =
        Conditions::new(&rule(when, clear), when, &view).unwrap_or_else(|error| panic!("{when}: {error:?}"));
    let columns = view.result_schema.fields().iter().map(|field| -> ArrayRef {
        match field.name().as_str() {
            "service" => Arc::new(StringViewArray::from(vec!["7", "shop"])),
            "errors" => Arc::new(Int64Array::from(vec![3, 0])),
            _ => arrow::array::new_null_array(field.data_type(), 2),
        }
    });
    let nullable = view.result_schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true));
    let schema = Arc::new(Schema::new(nullable.collect::<Vec<_>>()));
    let results = RecordBatch::try_new(schema, columns.collect()).unwrap();
    let params = conditions.params_of("r", None, &GroupKey::new(), None, &Services::default());
    let judged = conditions.judge(&view, &results, (0, 60_000), &ParamsOfRows::same(params));
    judged.unwrap_or_else(|error| panic!("{when}: {error:#}"))
}

/// Guarantees: a condition that is null or cannot be computed is not met, and never an error.
#[test]
fn conditions_are_judged_row_by_row() {
    #[rustfmt::skip]
    let cases = [
        // when                                 met
        ("errors > $max",                       [true, false]),
        ("errors > $max AND $on",               [true, false]),
        ("errors % 3 = 0",                      [true, true]),
        ("6 / errors = 2",                      [true, false]),
        ("errors / $none > 0",                  [false, false]),
        ("errors / 0 > 0",                      [false, false]),
        ("service > 5",                         [true, false]),
        ("CAST(service AS BIGINT) = 7",         [true, false]),
        ("service::double > errors",            [true, false]),
        ("$text > 5",                           [false, false]),
        ("sqrt(errors - 1) > 1",                [true, false]),
        ("substr(service, 1, errors - 1) = '7'", [true, false]),
        ("nullif(errors, 0) IS NULL",           [false, true]),
        ("window_end - window_start = interval '1 minute'", [true, true]),
    ];
    for (when, met) in cases {
        let judged = judge(when, None);
        assert_eq!(judged.met, met, "{when}");
        assert_eq!(judged.clear, met.map(|met| !met), "{when}");
        let judged = judge("false", Some(when));
        assert_eq!(
            (judged.met.as_slice(), judged.clear.as_slice()),
            ([false, false].as_slice(), met.as_slice()),
            "{when}"
        );
    }
}

#[test]
fn what_is_no_condition_is_refused() {
    for when in ["errors", "errors + 1", "service || 'x'"] {
        let error = Conditions::new(&rule(when, None), when, &view()).unwrap_err();
        assert_eq!(error.key, "when", "{when}: {error:?}");
    }
}
