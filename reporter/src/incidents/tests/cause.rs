use super::*;

fn issuer_failing(minute: i64) -> AlertRecord {
    let mut record = with_keys(fires("issuer-failing", "payment", minute), &[("issuer", "hana")]);
    record.severity = 5;
    record.summary = "hana: 80 % of payments fail".to_owned();
    record
}

fn orders_failing(minute: i64) -> AlertRecord {
    let explained_by = vec!["issuer-failing".to_owned()];
    AlertRecord { explained_by, severity: 5, ..fires("orders-failing", "order", minute) }
}

/// Scenario: a card issuer is down, so that orders fall; either is noticed first, and they call nobody that is known.
/// Guarantees: one incident that names the issuer, in which the fall of the orders is marked as explained.
#[test]
fn an_explained_alert_joins_what_explains_it() {
    let (issuer, orders) = (issuer_failing(3), orders_failing(2));
    for records in [[issuer.clone(), orders.clone()], [orders.clone(), issuer.clone()]] {
        let incidents = folded(Correlator::default(), &records);
        let [incident] = &incidents[..] else { panic!("{incidents:#?}") };
        assert_eq!(incident.record.services, ["payment", "order"]);
        assert_eq!(incident.record.title, "hana: 80 % of payments fail (and 1 more in order)");
        let explained: Vec<_> =
            incident.alerts.iter().map(|alert| (alert.firing.rule.as_str(), alert.explained_by.clone())).collect();
        assert!(explained.contains(&("orders-failing", Some(issuer.alert_id.clone()))), "{explained:?}");
        assert!(explained.contains(&("issuer-failing", None)), "{explained:?}");
        let line = "order: orders-failing fires: orders-failing summary (explained by issuer-failing)";
        assert_eq!(incident.record.timeline[0].text, line);
    }
}

/// Scenario: what could explain an alert ended some minutes ago, or is of another environment, or is no explanation.
/// Guarantees: five minutes, the same environment where both name one, and only the rules that are named.
#[test]
fn an_explanation_must_fit() {
    let issuer = issuer_failing(2);
    let in_environment = |record: AlertRecord, environment: &str| with_keys(record, &[("environment", environment)]);
    let other = AlertRecord { explained_by: vec!["other".to_owned()], ..orders_failing(3) };
    #[rustfmt::skip]
    let cases = [
        ("it fires",              vec![issuer.clone(), orders_failing(9)],                                                        1),
        ("four minutes ago",      vec![issuer.clone(), ends(&issuer, 5), orders_failing(9)],                                      1),
        ("five minutes ago",      vec![issuer.clone(), ends(&issuer, 5), orders_failing(10)],                                     2),
        ("environments differ",   vec![in_environment(issuer.clone(), "a"), in_environment(orders_failing(3), "b")],              2),
        ("environments agree",    vec![in_environment(issuer.clone(), "a"), in_environment(orders_failing(3), "a")],              1),
        ("one has none",          vec![issuer.clone(), in_environment(orders_failing(3), "a")],                                   1),
        ("another rule",          vec![issuer.clone(), other],                                                                    2),
    ];
    for (name, records, expected) in cases {
        assert_eq!(folded(Correlator::default(), &records).len(), expected, "{name}");
    }
}

/// Scenario: the issuer recovers, and orders go on failing, which a later record says.
/// Guarantees: an explanation that has ended for five minutes is none; what still fires has the title.
#[test]
fn what_outlasts_its_explanation_is_a_cause_itself() {
    let (issuer, orders) = (issuer_failing(2), orders_failing(3));
    let mut records = vec![issuer.clone(), orders.clone(), ends(&issuer, 6)];
    let of_orders = |records: &[AlertRecord]| {
        let incidents = folded(Correlator::default(), records);
        incidents[0].alerts.iter().find(|alert| alert.firing.rule == "orders-failing").cloned().unwrap()
    };
    assert!(of_orders(&records).explained_by.is_some());
    records.push(goes_on(&orders, 10, 2));
    assert!(of_orders(&records).explained_by.is_some());
    records.push(goes_on(&orders, 11, 3));
    assert!(of_orders(&records).explained_by.is_none());
}

/// Scenario: rules that explain each other, in a circle of two and of three.
/// Guarantees: one alert is always left unexplained, so that somebody is told.
#[test]
fn a_circle_of_explanations_leaves_one() {
    for circle in [2, 3] {
        let of = |number: i64| AlertRecord {
            explained_by: vec![format!("r{}", (number + 1) % circle)],
            ..fires(&format!("r{number}"), &format!("s{number}"), 1 + number)
        };
        let records: Vec<AlertRecord> = (0..circle).map(of).collect();
        let incidents = folded(Correlator::default(), &records);
        let unexplained: usize = incidents
            .iter()
            .map(|incident| incident.alerts.iter().filter(|alert| alert.explained_by.is_none()).count())
            .sum();
        assert_eq!(unexplained, 1, "{incidents:#?}");
    }
}
