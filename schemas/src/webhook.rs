//! What a webhook with `format: bongsu` is sent: the body of one POST.

use serde::Serialize;

use crate::alert::AlertRecord;
use crate::incident::IncidentRecord;

/// Version of the body's form. Fields may be added to it; it grows when one changes its meaning or goes.
pub const VERSION: u32 = 1;

/// The state of an incident after a change, as one receiver is told of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct WebhookBody<'a> {
    /// See [`VERSION`].
    pub version: u32,
    /// The same for all changes of one incident, and however often one of them is sent; also in the headers.
    pub notification_id: &'a str,
    /// The incident as a whole. Its `sequence` grows with each change.
    pub incident: &'a IncidentRecord,
    /// The alerts that the receiver asked for, in the order in which they fired: of each its latest record.
    pub alerts: Vec<&'a AlertRecord>,
    /// Where to read on.
    pub links: Links,
}

/// Where to read on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Links {
    /// The incident on the page; null without `dashboard.public_url`.
    pub dashboard: Option<String>,
}
