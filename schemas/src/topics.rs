//! Bongsu's own topics: names and settings.

/// The topics of one installation; all names start with `kafka.topic_prefix`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topics {
    prefix: String,
}

/// What `bongsu topics --create` makes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicSpec {
    /// Full name.
    pub name: String,
    /// Number of partitions.
    pub partitions: i32,
    /// Topic settings, as Kafka spells them.
    pub settings: Vec<(&'static str, String)>,
}

/// Partitions of the topics that carry data; the ones that carry little have one.
pub const DATA_PARTITIONS: i32 = 4;

impl Topics {
    /// Topics whose names start with `prefix` and a dot.
    pub fn new(prefix: impl Into<String>) -> Topics {
        Topics { prefix: prefix.into() }
    }

    fn name(&self, rest: &str) -> String {
        format!("{}.{rest}", self.prefix)
    }

    /// Partial aggregates and watermark markers, from stage 1 to stage 2.
    pub fn partials(&self) -> String {
        self.name("partials")
    }
    /// Closed panes, from stage 2 to itself: long windows are made of them.
    pub fn panes(&self) -> String {
        self.name("panes")
    }
    /// States of rules, one partition for each partition of the partials.
    pub fn rule_states(&self) -> String {
        self.name("rule-states")
    }
    /// Which version of a view computes which windows.
    pub fn views(&self) -> String {
        self.name("views")
    }
    /// Results of views.
    pub fn windows(&self) -> String {
        self.name("windows")
    }
    /// Transitions of alerts.
    pub fn alerts(&self) -> String {
        self.name("alerts")
    }
    /// Incidents.
    pub fn incidents(&self) -> String {
        self.name("incidents")
    }
    /// Rows that came after their last window had closed.
    pub fn late(&self) -> String {
        self.name("late")
    }
    /// Records that could not be decoded.
    pub fn dead_letter(&self) -> String {
        self.name("dead-letter")
    }
    /// What the reporter has sent.
    pub fn notifications(&self) -> String {
        self.name("notifications")
    }
    /// Silences and acknowledgements.
    pub fn commands(&self) -> String {
        self.name("commands")
    }

    /// All topics with their settings.
    pub fn specs(&self) -> Vec<TopicSpec> {
        const DAY_MS: i64 = 24 * 60 * 60 * 1000;
        let keep = |days: i64| ("retention.ms", (days * DAY_MS).to_string());
        let large = ("max.message.bytes", (3 * 1024 * 1024).to_string());
        let compact = ("cleanup.policy", "compact".to_owned());
        let spec = |name: String, partitions, settings| TopicSpec { name, partitions, settings };
        vec![
            spec(self.partials(), DATA_PARTITIONS, vec![keep(2), large.clone()]),
            // Twice the longest window, so that an outage of a week loses nothing of it.
            spec(self.panes(), DATA_PARTITIONS, vec![keep(15), large.clone()]),
            spec(self.rule_states(), DATA_PARTITIONS, vec![compact.clone(), large.clone()]),
            spec(self.windows(), DATA_PARTITIONS, vec![keep(7), large.clone()]),
            spec(self.alerts(), 1, vec![keep(35), large.clone()]),
            spec(self.incidents(), 1, vec![keep(35), large.clone()]),
            spec(self.late(), 1, vec![keep(7), large.clone()]),
            spec(self.dead_letter(), 1, vec![keep(7), large]),
            spec(self.views(), 1, vec![compact.clone()]),
            spec(self.notifications(), 1, vec![compact.clone()]),
            spec(self.commands(), 1, vec![compact]),
        ]
    }
}
