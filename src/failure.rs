//! Why a command failed, and the exit code that says so: decided here and nowhere else.

use crate::config::Mistakes;

/// The ways in which a command can fail.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// Mistakes in a configuration; each has its own line.
    #[error(transparent)]
    Config(#[from] Mistakes),
    /// Something else that the user gave is wrong: a file, a topic.
    #[error("error: {0:#}")]
    Input(anyhow::Error),
    /// The command cannot be used like that.
    #[error("error: {0}")]
    Usage(String),
    /// It could not be done.
    #[error("error: {0:#}")]
    Runtime(#[from] anyhow::Error),
}

impl Failure {
    /// 1: the user's input; 2: usage, as clap has it; 3: at run time.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Failure::Config(_) | Failure::Input(_) => 1,
            Failure::Usage(_) => 2,
            Failure::Runtime(_) => 3,
        }
    }
}
