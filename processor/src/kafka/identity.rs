//! A name for this process that it has again after a crash.
//!
//! Static group membership and transactional ids need one: the restarted process takes its partitions back without waiting for a
//! session to expire, and `init_transactions` ends at once the transaction that the crash left open, which would otherwise hide
//! all later records from committed readers until it times out.
//!
//! The name is `BONGSU_INSTANCE` if that is set, else the host's name and the lowest free slot on it. A slot is a locked file; the
//! lock goes with the process, however that ends.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::PathBuf;

use anyhow::{Context, bail};
use bongsu_schemas::kafka::Kafka;
use bongsu_schemas::key::stable_id;

/// The most processes of one installation on one host.
const MAX_SLOTS: u32 = 256;

/// Holds the name for as long as it lives.
#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) name: String,
    _lock: Option<File>,
}

impl Identity {
    pub(crate) fn acquire(kafka: &Kafka) -> anyhow::Result<Identity> {
        if let Ok(name) = std::env::var("BONGSU_INSTANCE") {
            return Ok(Identity { name, _lock: None });
        }
        let installation = stable_id([kafka.brokers.as_str(), &kafka.group, &kafka.topic_prefix]);
        let folder = lock_folder();
        std::fs::create_dir_all(&folder)
            .with_context(|| format!("cannot create `{}` for lock files", folder.display()))?;
        for slot in 0..MAX_SLOTS {
            let path = folder.join(format!("{}-{slot}.lock", &installation[..16]));
            let file = OpenOptions::new().create(true).append(true).open(&path);
            let file = file.with_context(|| format!("cannot open the lock file `{}`", path.display()))?;
            match file.try_lock() {
                Ok(()) => return Ok(Identity { name: format!("{}-{slot}", host_name()), _lock: Some(file) }),
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(error)) => bail!("cannot lock `{}`: {error}", path.display()),
            }
        }
        bail!("{MAX_SLOTS} processes of this installation run on this host already; set BONGSU_INSTANCE")
    }
}

fn lock_folder() -> PathBuf {
    std::env::var_os("XDG_RUNTIME_DIR").map_or_else(std::env::temp_dir, PathBuf::from).join("bongsu")
}

fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok().or_else(|| std::env::var("HOSTNAME").ok());
    name.map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()).unwrap_or_else(|| "localhost".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_identities_at_a_time_differ_and_a_freed_one_is_taken_again() {
        let unique = format!("test-{}", std::process::id());
        let kafka: Kafka = serde_json::from_value(serde_json::json!({ "brokers": "b", "group": unique })).unwrap();
        let first = Identity::acquire(&kafka).unwrap();
        let second = Identity::acquire(&kafka).unwrap();
        assert_ne!(first.name, second.name);
        let name = first.name.clone();
        drop(first);
        assert_eq!(Identity::acquire(&kafka).unwrap().name, name);
    }
}
