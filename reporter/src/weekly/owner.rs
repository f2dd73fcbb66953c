//! A report's part for one owner. Pure.

use std::collections::BTreeMap;

use bongsu_schemas::key::stable_id;
use bongsu_schemas::services::{Owner, Services};

use super::model::{GroupState, ServiceReport, WeeklyReport};
use super::week::Week;

/// One owner's services in a week.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct OwnerReport<'a> {
    pub(crate) week: Week,
    /// Nobody where neither a service nor `"*"` has an owner.
    pub(crate) owner: Option<&'a Owner>,
    pub(crate) services: Vec<&'a ServiceReport>,
}

/// One report for every owner that has a service in it.
pub(crate) fn by_owner<'a>(report: &'a WeeklyReport, services: &'a Services) -> Vec<OwnerReport<'a>> {
    let mut owners: BTreeMap<_, OwnerReport<'_>> = BTreeMap::new();
    for service in &report.services {
        let owner = services.owner_of(Some(&service.service)).map(|found| found.owner);
        // Who is the same to the mail and the digest gets one, however alerts of the services are routed.
        let recipient = owner.map(|owner| (&owner.name, owner.channels(), &owner.email));
        let part =
            owners.entry(recipient).or_insert_with(|| OwnerReport { week: report.week, owner, services: Vec::new() });
        part.services.push(service);
    }
    owners.into_values().collect()
}

impl OwnerReport<'_> {
    /// The owner's name, for people.
    pub(crate) fn name(&self) -> &str {
        self.owner.map_or("nobody", Owner::display_name)
    }

    /// Text that tells owners apart and stays the same from week to week.
    pub(crate) fn identity(&self) -> String {
        let Some(owner) = self.owner else { return stable_id(["nobody"]) };
        let name = owner.name.as_deref().unwrap_or_default();
        let (first, others) =
            owner.channels().split_first().map_or(("", &[][..]), |(first, others)| (first.as_str(), others));
        stable_id([name, first].into_iter().chain(others.iter().chain(&owner.email).map(String::as_str)))
    }

    /// A name for files: letters and digits of the owner's name, and what tells apart owners whose names differ in other characters.
    pub(crate) fn file_stem(&self) -> String {
        let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
        let name: String = self.name().chars().map(plain).take(60).collect();
        let name = name.trim_matches('-');
        format!("{}-{}{}{}", self.week, name, if name.is_empty() { "" } else { "-" }, &self.identity()[..8])
    }

    /// Whether there is anything to tell.
    pub(crate) fn has_news(&self) -> bool {
        self.services.iter().any(|service| service.has_news())
    }

    /// Exceptions of all its services.
    pub(crate) fn total(&self) -> u64 {
        self.services.iter().map(|service| service.total).sum()
    }

    /// Groups in one state, of all its services.
    pub(crate) fn groups_in(&self, state: GroupState) -> usize {
        self.services.iter().map(|service| service.groups_in(state)).sum()
    }
}

impl ServiceReport {
    /// Whether it threw anything in this week or the one before.
    pub(crate) fn has_news(&self) -> bool {
        self.total > 0 || self.previous_total > 0
    }

    /// Groups in one state.
    pub(crate) fn groups_in(&self, state: GroupState) -> usize {
        self.groups.iter().filter(|group| group.state == state).count()
    }
}
