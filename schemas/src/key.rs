//! Group keys and the ids derived from them.

use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

/// The values of a view's group keys other than the window, by column name. Ordered by name, so that equal keys have equal text.
pub type GroupKey = Map<String, Value>;

/// What stands for the names of groups that a view does not keep apart, past its limit.
pub const OTHER: &str = "__other__";

/// The text of a group key: a JSON object without spaces, names in ascending order. The Kafka key of windows and alerts.
pub fn key_text(key: &GroupKey) -> String {
    // A map with string keys and JSON values always serialises.
    serde_json::to_string(key).unwrap_or_default()
}

/// A 32-digit hexadecimal id: the first 128 bits of SHA-256 over the parts, each preceded by its length, so that no two lists
/// of parts run into one another.
pub fn stable_id<'a>(parts: impl IntoIterator<Item = &'a str>) -> String {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update((part.len() as u64).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    hasher.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_tell_apart_where_parts_end() {
        assert_ne!(stable_id(["ab", "c"]), stable_id(["a", "bc"]));
        assert_eq!(stable_id(["a"]).len(), 32);
    }
}
