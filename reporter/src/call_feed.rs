//! Follows `bongsu.windows` on a thread of its own, for who calls whom: windows of any view whose key has `service` and `peer_service`.
//!
//! Most windows are of other views: they are told apart by a search for the name of the key, before anything is parsed. A call is passed
//! on a few times an hour only, which is enough to remember it for a day.

use std::collections::HashMap;
use std::net::IpAddr;
use std::thread::JoinHandle;

use bongsu_schemas::kafka::Kafka;
use bongsu_schemas::key::OTHER;
use bongsu_schemas::window::WindowRecord;
use chrono::{DateTime, TimeDelta, Utc};
use rdkafka::message::Message;
use serde_json::Value;
use tokio::sync::mpsc;

use crate::follower::{Followed, Follower, StartAt};

/// What is read at the start. Services call each other all the time; an hour has seen nearly all that matters.
const BACK: TimeDelta = TimeDelta::minutes(60);
/// A call is told again when it was last told so long ago, event time.
const TELL_AGAIN: TimeDelta = TimeDelta::minutes(10);
/// Calls told together.
const BATCH: usize = 256;
/// Calls remembered as told. Past it they are told once more.
const MAX_TOLD: usize = 50_000;
const NEEDLE: &[u8] = b"\"peer_service\"";

/// All that the thread can say.
#[derive(Debug)]
pub(crate) enum Heard {
    Calls(Vec<Call>),
    /// What was there at the start is told.
    CaughtUp,
}

/// One service called another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) caller: String,
    pub(crate) callee: String,
    /// Event time: end of the window.
    pub(crate) at: DateTime<Utc>,
}

/// Follows the topic from an hour ago; the thread ends when the receiver is dropped.
pub(crate) fn follow(kafka: &Kafka) -> anyhow::Result<(mpsc::Receiver<Heard>, JoinHandle<()>)> {
    let follower = Follower::new(kafka, "calls", vec![(kafka.topics().windows(), StartAt::TimeBack(BACK))])?;
    let (sender, receiver) = mpsc::channel(16);
    let follow = move || {
        let mut news = News::default();
        let mut caught_up = false;
        let is_over = || sender.is_closed();
        // An error of sending means that nobody listens any more, which ends the thread.
        let tell = |heard: Heard| drop(sender.blocking_send(heard));
        follower.run(is_over, |followed| match followed {
            Followed::Record(message) => {
                let Some(call) = message.payload().and_then(call) else { return };
                // While the past is read, many together; afterwards each at once, for there are few.
                if news.add(call) && (caught_up || news.untold.len() >= BATCH) {
                    tell(Heard::Calls(std::mem::take(&mut news.untold)));
                }
            }
            Followed::CaughtUp => {
                caught_up = true;
                tell(Heard::Calls(std::mem::take(&mut news.untold)));
                tell(Heard::CaughtUp);
            }
        });
    };
    Ok((receiver, std::thread::Builder::new().name("calls".to_owned()).spawn(follow)?))
}

/// Calls that are to be told, and when each was told last.
#[derive(Debug, Default)]
struct News {
    untold: Vec<Call>,
    told: HashMap<(String, String), DateTime<Utc>>,
}

impl News {
    /// False if it was told a short while ago.
    fn add(&mut self, call: Call) -> bool {
        let pair = (call.caller.clone(), call.callee.clone());
        if self.told.get(&pair).is_some_and(|told| call.at < *told + TELL_AGAIN) {
            return false;
        }
        if self.told.len() >= MAX_TOLD {
            self.told.clear();
        }
        self.told.insert(pair, call.at);
        self.untold.push(call);
        true
    }
}

/// The call that a window tells of, if it does.
fn call(payload: &[u8]) -> Option<Call> {
    if !payload.windows(NEEDLE.len()).any(|part| part == NEEDLE) {
        return None;
    }
    let window: WindowRecord = serde_json::from_slice(payload).ok()?;
    let name = |key: &str| window.key.get(key).and_then(Value::as_str).filter(|name| is_service(name));
    let (caller, callee) = (name("service")?.to_owned(), name("peer_service")?.to_owned());
    Some(Call { caller, callee, at: window.window_end })
}

/// An address is no name that a service has, and there may be thousands of them.
fn is_service(name: &str) -> bool {
    !name.is_empty() && name != OTHER && name.parse::<IpAddr>().is_err()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: windows of several views, some with odd keys, and what is no window.
    /// Guarantees: a call is what has both names, whichever the view, and nothing else.
    #[test]
    fn calls_are_found_in_windows() {
        let window = |view: &str, key: &str| {
            format!(
                r#"{{"view":"{view}","window_start":"2026-11-16T12:00:00Z","window_end":"2026-11-16T12:01:00Z",
                    "key":{key},"values":{{"calls":3}},"final":true}}"#
            )
        };
        #[rustfmt::skip]
        let cases = [
            // name                    record                                                                        caller and callee
            ("a call",                 window("calls_1m", r#"{"peer_service":"payment","service":"order"}"#),        Some(("order", "payment"))),
            ("of another view",        window("mine", r#"{"a":1,"peer_service":"payment","service":"order"}"#),      Some(("order", "payment"))),
            ("no callee",              window("requests_1m", r#"{"route":"/","service":"order"}"#),                  None),
            ("the name as a value",    window("x", r#"{"name":"peer_service","service":"order"}"#),                  None),
            ("null",                   window("calls_1m", r#"{"peer_service":null,"service":"order"}"#),             None),
            ("a number",               window("calls_1m", r#"{"peer_service":5,"service":"order"}"#),                None),
            ("an address",             window("calls_1m", r#"{"peer_service":"10.0.0.7","service":"order"}"#),       None),
            ("an address of IPv6",     window("calls_1m", r#"{"peer_service":"::1","service":"order"}"#),            None),
            ("groups past the limit",  window("calls_1m", r#"{"peer_service":"__other__","service":"order"}"#),      None),
            ("no JSON",                r#""peer_service" and more"#.to_owned(),                                      None),
            ("nothing",                String::new(),                                                                None),
        ];
        for (name, record, expected) in cases {
            let found = call(record.as_bytes()).map(|call| (call.caller, call.callee));
            let expected = expected.map(|(caller, callee): (&str, &str)| (caller.to_owned(), callee.to_owned()));
            assert_eq!(found, expected, "{name}");
        }
    }

    /// Scenario: a call in every minute of an hour, more calls than are remembered.
    /// Guarantees: it is told six times, and memory is bounded.
    #[test]
    fn a_call_is_not_told_every_minute() {
        let at = |minute: i64| DateTime::from_timestamp(60 * minute, 0).unwrap();
        let call = |callee: usize, minute| Call { caller: "a".to_owned(), callee: callee.to_string(), at: at(minute) };
        let mut news = News::default();
        assert_eq!((0..60).filter(|minute| news.add(call(0, *minute))).count(), 6);
        for callee in 0..MAX_TOLD + 10 {
            news.add(call(callee, 60));
        }
        assert!(news.told.len() <= MAX_TOLD);
    }
}
