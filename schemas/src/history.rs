//! Where closed windows are kept as Parquet: the `history` section, and the layout of the files.
//!
//! `<url>/windows/view=<view>/date=<YYYY-MM-DD>/p<partition>-<first offset>.parquet`: the date is that of `window_start` in UTC;
//! partition and offset are those of `bongsu.windows`. A file's columns are `window_start`, `window_end` (timestamps, UTC), the
//! view's group keys and its values. The Parquet key-value metadata `bongsu.next_offset` tells where the next file starts.

use chrono::NaiveDate;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::duration::Span;

/// Key of the Parquet metadata that holds the offset after the file's last record.
pub const NEXT_OFFSET_METADATA: &str = "bongsu.next_offset";

/// Where history is, and for how long.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct History {
    /// `file:` and a path (relative to the configuration file), or `s3://bucket/prefix`. Credentials come from the environment.
    #[serde(default = "default_url")]
    pub url: String,
    /// How long history is kept.
    #[serde(default = "default_keep")]
    pub keep: Span,
    /// How long closed windows wait at the most before they are written to a file.
    #[serde(default = "default_flush")]
    pub flush: Span,
}

fn default_url() -> String {
    "file:./history".to_owned()
}
fn default_keep() -> Span {
    Span::from_secs(35 * 24 * 3600)
}
fn default_flush() -> Span {
    Span::from_secs(30)
}

impl Default for History {
    fn default() -> History {
        History { url: default_url(), keep: default_keep(), flush: default_flush() }
    }
}

/// The folder of a view, relative to `history.url`.
pub fn view_folder(view: &str) -> String {
    format!("windows/view={view}")
}

/// The folder of a view's windows that start on `date` (UTC).
pub fn date_folder(view: &str, date: NaiveDate) -> String {
    format!("{}/date={date}", view_folder(view))
}

/// The name of the file whose first record is `first_offset` of a partition of `bongsu.windows`.
pub fn file_name(partition: i32, first_offset: i64) -> String {
    // As many digits as an offset can have, so that names sort as offsets do.
    format!("p{partition}-{first_offset:019}.parquet")
}
