//! Says in the terminal what is happening, as it happens.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use bongsu_stand_ins::{MailStandIn, SlackMessage, SlackStandIn};
use tokio_util::sync::CancellationToken;

use super::outage;
use crate::config::printable;
use crate::output;

/// A wait that is renewed until something comes.
const LONG: Duration = Duration::from_secs(3600);

/// Tells the story until shutdown. Times are those since `started`.
pub(super) async fn run(
    started: Instant,
    victim: &'static str,
    slack: SlackStandIn,
    mail: MailStandIn,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let story =
        async { tokio::try_join!(outages(started, victim), slack_messages(started, &slack), mails(started, &mail)) };
    shutdown.run_until_cancelled(story).await.transpose()?;
    Ok(())
}

async fn outages(started: Instant, victim: &str) -> anyhow::Result<()> {
    loop {
        let change = outage::next_change(started.elapsed());
        tokio::time::sleep_until((started + change).into()).await;
        // Asked for the moment after the change: a timer may be early by less than a millisecond.
        if outage::is_on(change) {
            let text =
                format!("OUTAGE: four of five payments with {victim} fail from now on; nobody but the log knows");
            say(started, &text)?;
        } else {
            say(started, &format!("{victim} works again"))?;
        }
    }
}

async fn slack_messages(started: Instant, slack: &SlackStandIn) -> anyhow::Result<()> {
    let mut told: BTreeMap<String, u32> = BTreeMap::new();
    loop {
        let is_news = |message: &SlackMessage| told.get(&message.ts) != Some(&message.edits);
        let Ok(messages) = slack.wait_for(|messages| messages.iter().any(is_news), LONG).await else { continue };
        for message in messages.iter().filter(|message| is_news(message)) {
            let what = if told.contains_key(&message.ts) { "updated in" } else { "ALERT in" };
            say(started, &format!("{what} Slack #{}: {}", message.channel, unescaped(&message.text)))?;
        }
        // Only what the stand-in still has, which is bounded.
        told = messages.into_iter().map(|message| (message.ts, message.edits)).collect();
    }
}

async fn mails(started: Instant, mail: &MailStandIn) -> anyhow::Result<()> {
    let mut told = BTreeSet::new();
    loop {
        let waiting = mail.wait_for(|mails| mails.iter().any(|mail| !told.contains(&mail.number)), LONG).await;
        let Ok(mails) = waiting else { continue };
        for mail in mails.iter().filter(|mail| !told.contains(&mail.number)) {
            say(started, &format!("e-mail to {}: {}", mail.to.join(", "), mail.subject))?;
        }
        told = mails.into_iter().map(|mail| mail.number).collect();
    }
}

/// One line. What came from outside is made printable.
pub(super) fn say(started: Instant, text: &str) -> anyhow::Result<()> {
    output::print(&format!("{:>5.1} s  {}", started.elapsed().as_secs_f64(), printable(text)))?;
    Ok(())
}

/// Slack's escapes, for a terminal.
fn unescaped(text: &str) -> String {
    text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
}
