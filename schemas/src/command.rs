//! Commands of people, in `bongsu.commands`.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// What somebody asked for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "lowercase", deny_unknown_fields)]
pub enum Command {
    /// Mute alerts whose `window_end` lies in `[from, until)` and that the matcher fits.
    Silence {
        /// Chosen by who writes it; a later silence of the same id replaces it.
        id: String,
        /// `service`, `rule` or a group key, each with the value it must have.
        matcher: BTreeMap<String, String>,
        /// Event time, inclusive.
        from: DateTime<Utc>,
        /// Event time, exclusive.
        until: DateTime<Utc>,
        /// Who asked.
        by: String,
        /// Why.
        #[serde(default)]
        reason: String,
    },
    /// End a silence.
    Unsilence {
        /// The silence's id.
        id: String,
        /// Who asked.
        by: String,
    },
    /// Take an incident.
    Acknowledge {
        /// The incident's id.
        incident_id: String,
        /// Who asked.
        by: String,
    },
}
