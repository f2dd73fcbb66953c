//! A new configuration for a running process: by SIGHUP, or when the file changes.
//!
//! A good one is taken, a bad one is refused with all its mistakes in the log, and the old one goes on. The file is looked at, rather than
//! watched: what Kubernetes does to a mounted ConfigMap, and editors to a file, is too various for notifications.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::config::{Config, load, printable};

/// How often the file is looked at. It is taken when it has been the same for two looks: somebody may be writing it.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Says why a configuration cannot be run by this process.
pub(crate) type Check = Box<dyn Fn(&Config) -> anyhow::Result<()> + Send>;

/// Looks at a configuration file.
pub(crate) struct Watch {
    path: PathBuf,
    /// Whether a configuration can be run here.
    check: Check,
    hangup: Signal,
    /// What the running configuration was read from.
    taken: Option<Vec<u8>>,
    /// What was refused, so that it is complained about once.
    refused: Option<Vec<u8>>,
    /// What was there at the last look.
    looked_at: Option<Vec<u8>>,
}

impl Watch {
    /// Watches a file from which the running configuration is about to be read.
    pub(crate) fn new(path: &Path, check: Check) -> anyhow::Result<Watch> {
        let hangup = signal(SignalKind::hangup()).context("while listening for SIGHUP")?;
        let taken = std::fs::read(path).ok();
        Ok(Watch { path: path.to_owned(), check, hangup, looked_at: taken.clone(), taken, refused: None })
    }

    /// The next good configuration. Can be dropped at any time.
    pub(crate) async fn next(&mut self) -> Config {
        loop {
            let is_asked = tokio::select! {
                asked = self.hangup.recv() => asked.is_some(),
                () = tokio::time::sleep(LOOK_EVERY) => false,
            };
            if let Some(config) = self.look(is_asked) {
                return config;
            }
        }
    }

    fn look(&mut self, is_asked: bool) -> Option<Config> {
        let content = match std::fs::read(&self.path) {
            Ok(content) => content,
            Err(error) => {
                if is_asked {
                    tracing::error!(path = %self.path.display(), %error, "the configuration cannot be read; the old one goes on");
                }
                return None;
            }
        };
        let is_settled = self.looked_at.replace(content.clone()).as_ref() == Some(&content);
        if self.taken.as_ref() == Some(&content) {
            if is_asked {
                tracing::info!(path = %self.path.display(), "SIGHUP: the configuration has not changed");
            }
            self.refused = None;
            return None;
        }
        if !is_asked && (!is_settled || self.refused.as_ref() == Some(&content)) {
            return None;
        }
        let read = load(&self.path).map_err(|mistakes| mistakes.to_string());
        let read = read.and_then(|config| match (self.check)(&config) {
            Ok(()) => Ok(config),
            Err(error) => Err(format!("{error:#}; the environment is that of the start")),
        });
        match read {
            Ok(config) => {
                metrics::counter!("bongsu_config_reloads_total", "outcome" => "taken").increment(1);
                tracing::info!(path = %self.path.display(), "a new configuration is taken");
                (self.taken, self.refused) = (Some(content), None);
                Some(config)
            }
            Err(mistakes) => {
                metrics::counter!("bongsu_config_reloads_total", "outcome" => "refused").increment(1);
                for mistake in mistakes.lines() {
                    tracing::error!(mistake = %printable(mistake), "the new configuration is refused; the old one goes on");
                }
                self.refused = Some(content);
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str =
        "kafka: { brokers: 'localhost:9092' }\nsources: [ { topic: r, format: json, table: requests } ]\n";

    /// Scenario: a file is written in two steps, broken, put back, removed, and changed for good.
    /// Guarantees: a good new configuration is taken once it stays the same, or when asked for; a bad one never.
    #[tokio::test]
    async fn a_good_file_is_taken_and_a_bad_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bongsu.yaml");
        let write = |text: &str| std::fs::write(&path, text).unwrap();
        write(GOOD);
        let is_possible = |config: &Config| match config.zone {
            chrono_tz::Asia::Tokyo => Err(anyhow::anyhow!("a variable is not set")),
            _ => Ok(()),
        };
        let mut watch = Watch::new(&path, Box::new(is_possible)).unwrap();
        assert!(watch.look(false).is_none() && watch.look(true).is_none(), "nothing has changed");

        write(&format!("{GOOD}time: {{ zone: Asia/Seoul }}\n"));
        assert!(watch.look(false).is_none(), "it may be half written");
        assert_eq!(watch.look(false).map(|config| config.zone), Some(chrono_tz::Asia::Seoul));
        assert!(watch.look(false).is_none());

        write("kafka: {}\n");
        for is_asked in [false, false, true] {
            assert!(watch.look(is_asked).is_none(), "it is wrong");
        }
        write(&format!("{GOOD}time: {{ zone: Asia/Tokyo }}\n"));
        assert!(watch.look(true).is_none(), "it cannot be run here");
        std::fs::remove_file(&path).unwrap();
        assert!(watch.look(true).is_none());

        write(GOOD);
        assert_eq!(watch.look(true).map(|config| config.zone), Some(chrono_tz::UTC), "asked for, it is not waited");
    }
}
