//! The signature of a webhook's POST. Pure.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// The value of `X-Bongsu-Signature`: `v1=` and the hexadecimal HMAC-SHA256 of [`signed_text`].
pub(crate) fn signature(secret: &str, timestamp_secs: i64, body: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("HMAC takes keys of any length");
    mac.update(signed_text(timestamp_secs, body).as_bytes());
    let hex: String = mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("v1={hex}")
}

/// What is signed: the version, so that another one cannot be passed off as this one; the time, so that an old POST can be refused;
/// the body. Neither of the first two can hold a colon, so no two POSTs have the same text.
fn signed_text(timestamp_secs: i64, body: &str) -> String {
    format!("v1:{timestamp_secs}:{body}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sha2::Digest;

    use super::*;

    /// RFC 2104, by hand.
    fn hmac_sha256(key: &[u8], text: &[u8]) -> String {
        let mut block = [0u8; 64];
        if key.len() > block.len() {
            block[..32].copy_from_slice(&Sha256::digest(key));
        } else {
            block[..key.len()].copy_from_slice(key);
        }
        let padded = |with: u8| block.map(|byte| byte ^ with);
        let inner = Sha256::new().chain_update(padded(0x36)).chain_update(text).finalize();
        let outer = Sha256::new().chain_update(padded(0x5c)).chain_update(inner).finalize();
        outer.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Scenario: a POST whose signature Python's `hmac` has computed.
    /// Guarantees: receivers in other languages come to the same.
    #[test]
    fn as_python_computes_it() {
        let expected = "v1=8ecb72cb37e5956df959b64907c49779aff1ac45628b66aba026b08bfe9bb5f5";
        assert_eq!(signature("s3cret", 1_795_003_200, r#"{"version":1}"#), expected);
    }

    proptest! {
        /// Guarantees: HMAC-SHA256 as RFC 2104 has it, for keys on both sides of the block's length.
        #[test]
        fn signatures_are_hmac_sha256(secret in ".{0,100}", timestamp_secs in any::<i64>(), body in ".{0,200}") {
            let text = format!("v1:{timestamp_secs}:{body}");
            let expected = format!("v1={}", hmac_sha256(secret.as_bytes(), text.as_bytes()));
            prop_assert_eq!(signature(&secret, timestamp_secs, &body), expected);
        }

        /// Guarantees: what is signed is read back as what was sent: nothing can move from the body to the time or back.
        #[test]
        fn what_is_signed_is_unambiguous(timestamp_secs in any::<i64>(), body in "[:v0-9a-z]{0,40}") {
            let text = signed_text(timestamp_secs, &body);
            let parts: Vec<&str> = text.splitn(3, ':').collect();
            prop_assert_eq!(parts, ["v1", &timestamp_secs.to_string(), body.as_str()]);
        }
    }
}
