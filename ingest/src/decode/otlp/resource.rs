//! Who speaks: service, environment, pod and container.

use std::borrow::Cow;

use super::{
    super::wire::{Fields, Wire, WireError},
    RESOURCE,
    attributes::{Attribute, Keys},
    each,
};

/// OpenTelemetry's own name for a service without one.
const UNKNOWN_SERVICE: &str = "unknown_service";

const SERVICE: usize = 0;
const ENVIRONMENT: usize = 1;
const ENVIRONMENT_OLD: usize = 2;
const POD: usize = 3;
const CONTAINER: usize = 4;
/// Slots of the workloads that pods belong to.
const WORKLOADS: std::ops::Range<usize> = 5..9;

/// The resource attributes that are looked for.
pub(super) struct ResourceKeys {
    pub(super) keys: Keys,
}

impl ResourceKeys {
    pub(super) fn new() -> ResourceKeys {
        let keys = Keys::of(&[
            "service.name",
            "deployment.environment.name",
            "deployment.environment",
            "k8s.pod.name",
            "k8s.container.name",
            "k8s.deployment.name",
            "k8s.statefulset.name",
            "k8s.daemonset.name",
            "k8s.cronjob.name",
        ]);
        ResourceKeys { keys }
    }
}

/// A resource.
pub(super) struct Resource<'a> {
    pub(super) attributes: Vec<Attribute<'a>>,
}

impl<'a> Resource<'a> {
    /// The resource of a resource entry.
    pub(super) fn read(entry: &'a [u8], keys: &ResourceKeys) -> Result<Resource<'a>, WireError> {
        let mut attributes = vec![Attribute::Absent; keys.keys.len()];
        each(entry, RESOURCE, |resource| {
            let mut fields = Fields::new(resource);
            while let Some((number, value)) = fields.next()? {
                if let (1, Wire::Bytes(key_value)) = (number, value) {
                    keys.keys.read(key_value, &mut attributes)?;
                }
            }
            Ok(())
        })?;
        if attributes[SERVICE].as_text().is_none() {
            attributes[SERVICE] = Attribute::Text(service_of_pod(&attributes));
        }
        Ok(Resource { attributes })
    }

    /// `service.name`; for Kubernetes' own metrics, which have none, the workload's name, else the pod's name without what
    /// Kubernetes appends; else `unknown_service`. Never empty.
    pub(super) fn service(&self) -> &str {
        self.attributes[SERVICE].as_text().unwrap_or(UNKNOWN_SERVICE)
    }

    pub(super) fn environment(&self) -> Option<&str> {
        self.attributes[ENVIRONMENT].as_text().or(self.attributes[ENVIRONMENT_OLD].as_text())
    }

    pub(super) fn pod(&self) -> Option<&str> {
        self.attributes[POD].as_text()
    }

    pub(super) fn container(&self) -> Option<&str> {
        self.attributes[CONTAINER].as_text()
    }
}

fn service_of_pod<'a>(attributes: &[Attribute<'a>]) -> Cow<'a, str> {
    let workload = attributes[WORKLOADS].iter().find_map(Attribute::as_text);
    let name = workload.or_else(|| attributes[POD].as_text().map(without_generated_suffix));
    Cow::Owned(name.unwrap_or(UNKNOWN_SERVICE).to_owned())
}

/// `order-api-7d9f8b6c5-x2x4z` (Deployment), `kafka-0` (StatefulSet) and `agent-x2x4z` (DaemonSet) without their suffixes.
fn without_generated_suffix(pod: &str) -> &str {
    // Kubernetes' alphabet for random names leaves out vowels and what looks like them.
    let is_random = |part: &str| part.bytes().all(|byte| b"bcdfghjklmnpqrstvwxz2456789".contains(&byte));
    let Some((rest, last)) = pod.rsplit_once('-') else { return pod };
    if !last.is_empty() && last.bytes().all(|byte| byte.is_ascii_digit()) {
        return rest;
    }
    if last.len() != 5 || !is_random(last) {
        return pod;
    }
    match rest.rsplit_once('-') {
        Some((name, hash)) if (6..=10).contains(&hash.len()) && is_random(hash) => name,
        _ => rest,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_names_without_what_kubernetes_appends() {
        #[rustfmt::skip]
        let cases = [
            ("order-api-7d9f8b6c5-x2x4z", "order-api"),
            ("agent-x2x4z",               "agent"),
            ("kafka-0",                   "kafka"),
            ("payment-service",           "payment-service"),
            ("plain",                     "plain"),
            ("",                          ""),
        ];
        for (pod, expected) in cases {
            assert_eq!(without_generated_suffix(pod), expected, "{pod}");
        }
    }
}
