//! What the schema cannot say of `webhooks`: secrets that have no place in a file, variables, and services that exist.

use bongsu_schemas::services::FALLBACK;

use super::mistake::{Findings, KeyPath, shown, suggestion};
use super::sections::Sections;

/// Checks each webhook. That names are unique has been checked.
pub(super) fn check(sections: &Sections, findings: &mut Findings) {
    let known: Vec<&str> = sections.services.0.keys().map(String::as_str).filter(|name| *name != FALLBACK).collect();
    for (index, webhook) in &sections.webhooks {
        let here = KeyPath::default().key("webhooks").index(*index);
        let at = |keys: Vec<&str>| keys.into_iter().fold(here.clone(), |path, key| path.key(key));
        for (keys, problem) in webhook.problems() {
            findings.add(&at(keys), problem);
        }
        for (keys, variable) in webhook.variables() {
            let path = at(keys);
            if !findings.knows(&path) && std::env::var_os(variable).is_none_or(|value| value.is_empty()) {
                findings.warn(&path, format!("the environment variable `{}` is not set here", shown(variable)));
            }
        }
        for (place, service) in webhook.services.iter().flatten().enumerate() {
            // A service needs no entry of its own. Where the name is nearly that of one, it was probably meant.
            let hint = suggestion(service, known.iter().copied());
            if !known.contains(&service.as_str()) && !hint.is_empty() {
                let text = format!("there is no entry services.\"{}\"{hint}", shown(service));
                findings.warn(&here.clone().key("services").index(place), text);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::from_text;

    /// Scenario: variables that are not set, and a service whose name is nearly that of an entry.
    /// Guarantees: warnings at their places; the file is good.
    #[test]
    fn warnings() {
        let text = "
kafka: { brokers: 'k:1' }
sources: [ { topic: requests, format: json, table: requests } ]
services: { order-api: { owner: { name: Order } }, '*': { owner: { name: Platform } } }
webhooks:
  - name: pager
    url: $BONGSU_TEST_NO_SUCH_URL
    secret_env: BONGSU_TEST_NO_SUCH_SECRET
    services: [order-api, oder-api, something-else]
    headers: { Authorization: $BONGSU_TEST_NO_SUCH_TOKEN }
";
        let config = from_text("bongsu.yaml", text, Path::new("/etc/bongsu")).unwrap();
        let not_set = |name: &str| format!("the environment variable `BONGSU_TEST_NO_SUCH_{name}` is not set here");
        let expected = [
            format!("bongsu.yaml:7:5: webhooks[0].url: warning: {}", not_set("URL")),
            format!("bongsu.yaml:8:5: webhooks[0].secret_env: warning: {}", not_set("SECRET")),
            "bongsu.yaml:9:27: webhooks[0].services[1]: warning: there is no entry services.\"oder-api\"; did you mean \
             `order-api`?"
                .to_owned(),
            format!("bongsu.yaml:10:16: webhooks[0].headers.Authorization: warning: {}", not_set("TOKEN")),
        ];
        assert_eq!(config.warnings, expected);
        assert_eq!(config.webhooks.len(), 1);
    }
}
