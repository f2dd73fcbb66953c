//! Whether the parts of this process can do their work; `/readyz` shows it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// A shared list of parts and their states. Cloning shares it.
#[derive(Debug, Clone, Default)]
pub struct Health {
    // Held for a map operation only, never across an await.
    parts: Arc<Mutex<BTreeMap<&'static str, Result<(), String>>>>,
}

impl Health {
    /// The part does its work.
    pub fn ready(&self, part: &'static str) {
        self.set(part, Ok(()));
    }

    /// The part cannot work at the moment, and why.
    pub fn not_ready(&self, part: &'static str, why: impl Into<String>) {
        self.set(part, Err(why.into()));
    }

    fn set(&self, part: &'static str, state: Result<(), String>) {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner).insert(part, state);
    }

    /// All parts and their states. Ready as a whole means: at least one part, and none that is not ready.
    pub fn snapshot(&self) -> BTreeMap<&'static str, Result<(), String>> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
