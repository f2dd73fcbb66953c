//! Who is told about an alert, and why.

use std::fmt;

use bongsu_schemas::services::{FALLBACK, Owner, Services};

/// The severity from which owners with `alert_email: true` get an e-mail beside the Slack message.
pub const EMAIL_SEVERITY: u8 = 5;

/// Where an alert goes. Its `Display` explains it, line by line, as `bongsu route` prints it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route<'a> {
    /// The service that was asked about; none for a view without a service.
    pub service: Option<&'a str>,
    /// 1 to 5 fires.
    pub severity: u8,
    /// Who is told; nobody if neither the service nor `"*"` has an owner.
    pub owner: Option<&'a Owner>,
    /// Entry of `services` that decided.
    pub entry: Option<&'a str>,
    /// Slack channel.
    pub channel: Option<&'a str>,
    /// Addresses that get the alert by e-mail.
    pub email: &'a [String],
}

/// Decides where alerts of `service` with `severity` go.
pub fn route<'a>(services: &'a Services, service: Option<&'a str>, severity: u8) -> Route<'a> {
    let ownership = services.owner_of(service);
    let owner = ownership.map(|ownership| ownership.owner);
    let wants_email = |owner: &&Owner| owner.alert_email && severity >= EMAIL_SEVERITY;
    Route {
        service,
        severity,
        owner,
        entry: ownership.map(|ownership| ownership.entry),
        channel: owner.and_then(|owner| owner.slack.as_deref()),
        email: owner.filter(wants_email).map_or(&[], |owner| owner.email.as_slice()),
    }
}

impl fmt::Display for Route<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let service = self.service.unwrap_or("(no service)");
        writeln!(f, "service  {service}")?;
        writeln!(f, "severity {}", self.severity)?;
        let (Some(owner), Some(entry)) = (self.owner, self.entry) else {
            writeln!(f, "owner    nobody")?;
            return write!(f, "because  neither services.\"{service}\" nor services.\"{FALLBACK}\" has an owner");
        };
        writeln!(f, "owner    {}", owner.display_name())?;
        writeln!(f, "slack    {}", self.channel.unwrap_or("(none)"))?;
        let email = if self.email.is_empty() { "(none)".to_owned() } else { self.email.join(", ") };
        writeln!(f, "email    {email}")?;
        if entry == FALLBACK && self.service != Some(FALLBACK) {
            write!(f, "because  services.\"{service}\" has no owner, so services.\"{FALLBACK}\" decides")?;
        } else {
            write!(f, "because  services.\"{entry}\" has this owner")?;
        }
        match (owner.alert_email, self.email.is_empty()) {
            (true, true) if self.severity < EMAIL_SEVERITY => {
                write!(f, "; alerts go by e-mail from severity {EMAIL_SEVERITY}")
            }
            (false, _) if self.severity >= EMAIL_SEVERITY => write!(f, "; no e-mail because alert_email is not true"),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use bongsu_schemas::services::Service;

    use super::*;

    fn services() -> Services {
        let owner = |name: &str, alert_email| Owner {
            name: Some(name.to_owned()),
            slack: Some(format!("#{name}")),
            email: vec![format!("{name}@example.com")],
            alert_email,
        };
        let service = |owner| Service { owner, ..Service::default() };
        Services(BTreeMap::from([
            ("order-api".to_owned(), service(Some(owner("order", false)))),
            ("pay-api".to_owned(), service(Some(owner("pay", true)))),
            ("bare".to_owned(), service(None)),
            ("*".to_owned(), service(Some(owner("platform", false)))),
        ]))
    }

    /// Scenario: own owner, no own owner, unknown service, no service at all; severities around the e-mail's.
    /// Guarantees: nobody else's channel is named, and the fallback gets what nobody owns.
    #[test]
    fn routes() {
        let services = services();
        #[rustfmt::skip]
        let cases = [
            (Some("order-api"), 5, "#order",    "order-api", 0),
            (Some("pay-api"),   4, "#pay",      "pay-api",   0),
            (Some("pay-api"),   5, "#pay",      "pay-api",   1),
            (Some("bare"),      5, "#platform", "*",         0),
            (Some("unknown"),   1, "#platform", "*",         0),
            (None,              1, "#platform", "*",         0),
        ];
        for (service, severity, channel, entry, emails) in cases {
            let route = route(&services, service, severity);
            let got = (route.channel, route.entry, route.email.len());
            assert_eq!(got, (Some(channel), Some(entry), emails), "{service:?} {severity}");
        }
        let nobody = Services::default();
        assert_eq!(route(&nobody, Some("x"), 3).channel, None);
    }

    /// Scenario: what `bongsu route` prints.
    /// Guarantees: it says who, where and why.
    #[test]
    fn explanations() {
        let services = services();
        let texts = [(Some("order-api"), 4), (Some("unknown"), 4), (Some("order-api"), 5), (Some("pay-api"), 4)];
        let texts = texts.map(|(service, severity)| route(&services, service, severity).to_string());
        insta::assert_snapshot!(texts.join("\n\n"));
    }
}
