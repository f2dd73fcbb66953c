//! Why something could not be delivered. Three variants, because there are three reactions.

use std::time::Duration;

/// Why a message was not accepted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DeliveryError {
    /// Wait that long, then send it again.
    #[error("too many messages, asked to wait {retry_after:?}")]
    RateLimited {
        /// What was asked for.
        retry_after: Duration,
    },
    /// Nobody knows whether it arrived: look, then send it again.
    #[error("unreachable: {reason}")]
    Unreachable {
        /// What went wrong.
        reason: String,
    },
    /// It will be refused again until a person changes something.
    #[error("refused: {reason}")]
    Refused {
        /// The other side's words.
        reason: String,
    },
}
