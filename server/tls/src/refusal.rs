//! What of a refused certificate rustls has no place for.
//!
//! Where rustls has an error of its own for a refusal, the other side gets the right alert by it
//! (`certificate_expired`, `unknown_ca`), and our words are lost. They are kept beside, on the thread
//! that made the handshake, for whoever asks in the same turn.

use std::cell::RefCell;
use std::error::Error;

use rustls_pki_types::CertificateDer;

use crate::error::{explain, find_rustls};
use crate::trust::{VerifyError, only_uri};

/// The longest name that is told; it is a stranger's.
const LONGEST: usize = 256;

thread_local! {
    static LAST: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Keeps why a certificate was refused, and who it says it is.
pub(crate) fn keep(error: &VerifyError, leaf: &CertificateDer<'_>) {
    let told = match only_uri(leaf) {
        // It stands in the reason.
        Ok(_) if matches!(error, VerifyError::WrongIdentity { .. }) => error.to_string(),
        Ok(claimed) => {
            let claimed: String = claimed.chars().take(LONGEST).collect();
            format!("{error} (it says it is {claimed})")
        }
        Err(_) => error.to_string(),
    };
    LAST.with_borrow_mut(|last| *last = Some(told));
}

/// As [`explain`], with the identity that a refused certificate claims. To be called as soon as a
/// handshake has failed, on the same thread and before anything is awaited: another handshake
/// may fail there next.
#[must_use]
pub fn explain_here(error: &(dyn Error + 'static)) -> String {
    let last = LAST.take();
    match (find_rustls(error), last) {
        (Some(rustls::Error::InvalidCertificate(_)), Some(told)) => told,
        _ => explain(error),
    }
}
