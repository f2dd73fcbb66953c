//! Files that a configuration names.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// The bytes of a file, at most one more than `limit`: enough to see that it is too long.
pub(super) fn read_bounded(path: &Path, limit: usize) -> Result<Vec<u8>, String> {
    let cannot = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => "does not exist".to_owned(),
        std::io::ErrorKind::IsADirectory => "is a folder".to_owned(),
        _ => format!("cannot be read: {error}"),
    };
    let mut bytes = Vec::new();
    File::open(path).map_err(cannot)?.take(limit as u64 + 1).read_to_end(&mut bytes).map_err(cannot)?;
    Ok(bytes)
}

/// `history.url` with a relative path made absolute, or what is wrong with it.
pub(super) fn resolve_history(url: &str, folder: &Path) -> Result<String, String> {
    if let Some(rest) = url.strip_prefix("s3://") {
        return match rest.split('/').next() {
            Some(bucket) if !bucket.is_empty() => Ok(url.to_owned()),
            _ => Err(format!("names no bucket: `{url}`; write s3://bucket/prefix")),
        };
    }
    let Some(path) = url.strip_prefix("file:") else {
        return Err(format!("is `{url}`; write file:./history for a folder or s3://bucket/prefix"));
    };
    let path = path.strip_prefix("//").unwrap_or(path);
    if path.is_empty() {
        return Err("names no folder; write file:./history".to_owned());
    }
    let absolute: PathBuf =
        std::path::absolute(folder.join(path)).map_err(|error| format!("cannot be made absolute: {error}"))?;
    // `.` inside a path means nothing; `..` is left to the file system, since links may change what it means.
    let tidy: PathBuf = absolute.components().collect();
    match tidy.to_str() {
        Some(text) => Ok(format!("file://{}", encode(text))),
        None => Err("leads to a folder whose name is not UTF-8".to_owned()),
    }
}

/// Characters that would end a URL's path or begin an escape are escaped themselves.
fn encode(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for byte in path.bytes() {
        match byte {
            b'%'
            | b'?'
            | b'#'
            | b' '
            | b'"'
            | b'<'
            | b'>'
            | b'\\'
            | b'^'
            | b'`'
            | b'{'
            | b'|'
            | b'}'
            | 0..=31
            | 127.. => {
                out.push_str(&format!("%{byte:02X}"));
            }
            byte => out.push(char::from(byte)),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn history_is_relative_to_the_file() {
        let folder = Path::new("/etc/bongsu");
        #[rustfmt::skip]
        let cases = [
            ("file:./history",       Ok("file:///etc/bongsu/history")),
            ("file:history",         Ok("file:///etc/bongsu/history")),
            ("file:/var/lib/bongsu", Ok("file:///var/lib/bongsu")),
            ("file:///var/lib/b c",  Ok("file:///var/lib/b%20c")),
            ("s3://bucket/prefix",   Ok("s3://bucket/prefix")),
        ];
        for (url, expected) in cases {
            assert_eq!(resolve_history(url, folder).as_deref(), expected.map_err(|error: &String| error), "{url}");
        }
        for url in ["history", "s3://", "file:", "http://x"] {
            assert!(resolve_history(url, folder).is_err(), "{url}");
        }
    }
}
