//! Stand-ins for the services that Bongsu writes to, with their real rules: for the demo and for tests.
//!
//! - [`slack`]: Slack's Web API as far as a bot that posts messages sees it;
//! - [`mail`]: an SMTP server that keeps what it receives;
//! - [`webhook`]: a receiver of POSTs, Alertmanager's among them, that keeps what it receives.
//!
//! All listen on loopback, hold a bounded number of messages and fail on demand; the first two show what they have on a small page.

pub mod mail;
mod page;
mod shared;
pub mod slack;
pub mod webhook;

pub use mail::{Mail, MailFault, MailStandIn};
pub use slack::{Fault, SlackMessage, SlackOptions, SlackStandIn};
pub use webhook::{WebhookCall, WebhookFault, WebhookStandIn};
