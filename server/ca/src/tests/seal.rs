//! Envelopes and the key file.

use std::os::unix::fs::PermissionsExt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;

use super::sealing;
use crate::{SealError, Sealed, SealingKey};

#[test]
fn what_is_sealed_opens_with_the_same_key_purpose_and_name() {
    let key = sealing();
    let sealed = key.seal("root key", "r1", b"secret").unwrap();
    assert_eq!((sealed.version, sealed.key_id.as_str()), (1, key.id()));
    assert_eq!(&**key.open("root key", "r1", &sealed).unwrap(), b"secret");
    for (purpose, name) in [("root key", "r2"), ("leaf key", "r1"), ("root keyr", "1")] {
        let error = key.open(purpose, name, &sealed).unwrap_err();
        assert!(matches!(error, SealError::Damaged { .. }), "{error}");
    }
    let again = key.seal("root key", "r1", b"secret").unwrap();
    assert_ne!(again.nonce, sealed.nonce);
    assert_ne!(again.ciphertext, sealed.ciphertext);
}

#[test]
fn another_key_is_named_together_with_ours() {
    let (one, other) = (sealing(), sealing());
    let sealed = one.seal("root key", "r1", b"secret").unwrap();
    assert_eq!(
        other
            .open("root key", "r1", &sealed)
            .unwrap_err()
            .to_string(),
        format!(
            "root key r1 is sealed with key {}, but this server has key {}; give it the sealing \
             key file that the other servers have",
            one.id(),
            other.id()
        )
    );
    // One that lies about its key is found out all the same.
    let mut lying = sealed;
    lying.key_id = other.id().to_owned();
    assert!(matches!(
        other.open("root key", "r1", &lying),
        Err(SealError::Damaged { .. })
    ));
}

#[test]
fn an_envelope_of_a_later_version_is_not_guessed_at() {
    let key = sealing();
    let mut sealed = key.seal("p", "n", b"secret").unwrap();
    sealed.version = 2;
    let error = key.open("p", "n", &sealed).unwrap_err().to_string();
    assert!(error.contains("version 2"), "{error}");
}

#[test]
fn an_envelope_is_json_with_four_fields() {
    let sealed = sealing().seal("p", "n", b"secret").unwrap();
    let value = serde_json::to_value(&sealed).unwrap();
    let mut fields: Vec<_> = value.as_object().unwrap().keys().cloned().collect();
    fields.sort();
    assert_eq!(fields, ["ciphertext", "key_id", "nonce", "version"]);
    assert_eq!(serde_json::from_value::<Sealed>(value).unwrap(), sealed);
}

#[test]
fn a_key_file_is_made_once_and_for_its_owner_only() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sealing.key");
    let made = SealingKey::generate_file(&path).unwrap();
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.starts_with("# meshctl sealing key."));
    let read = SealingKey::from_file(&path).unwrap();
    assert_eq!(read.id(), made.id());
    assert_eq!(made.id().len(), 16);

    let error = SealingKey::generate_file(&path).unwrap_err().to_string();
    assert!(error.contains("exists"), "{error}");
    assert_eq!(
        std::fs::read_to_string(&path).unwrap(),
        text,
        "never replaced"
    );

    for mode in [0o640, 0o604, 0o620] {
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        let error = SealingKey::from_file(&path).unwrap_err().to_string();
        assert!(error.contains("chmod 600"), "{error}");
        assert!(error.contains(&format!("{mode:04o}")), "{error}");
    }
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o400)).unwrap();
    assert!(SealingKey::from_file(&path).is_ok(), "less is fine");
    let none = folder.path().join("none");
    assert!(matches!(
        SealingKey::from_file(&none),
        Err(SealError::File { .. })
    ));
}

#[test]
fn a_key_may_be_base64_or_hex() {
    let bytes: Vec<u8> = (1..=32).collect();
    let hex: String = bytes.iter().map(|b| format!("{b:02X}")).collect();
    let base64 = STANDARD.encode(&bytes);
    let parse = |text: &str| SealingKey::parse("f", text.as_bytes());
    let one = parse(&format!("# mine\n\n  {hex}  \n")).unwrap();
    let two = parse(&format!("{base64}\n")).unwrap();
    assert_eq!(one.id(), two.id());
    assert_eq!(format!("{one:?}"), format!("SealingKey({})", one.id()));

    for (text, reason) in [
        (String::new(), "no such line"),
        ("# only words\n".into(), "no such line"),
        (format!("{base64}\n{hex}\n"), "more than one"),
        ("xyz!".into(), "neither base64 nor hex"),
        ("g".repeat(64), "not hex"),
        (STANDARD.encode([1; 31]), "another length"),
        (STANDARD.encode([0; 32]), "all zeros"),
        ("A".repeat(5000), "too large"),
    ] {
        let error = parse(&text).unwrap_err().to_string();
        assert!(error.contains(reason), "{error}");
        assert!(error.len() < 300, "the text itself is never shown: {error}");
    }
}

proptest! {
    #[test]
    fn any_secret_comes_back(secret in prop::collection::vec(any::<u8>(), 0..300), purpose in "\\PC{0,9}", name in "\\PC{0,9}") {
        let key = sealing();
        let sealed = key.seal(&purpose, &name, &secret).unwrap();
        prop_assert_eq!(&**key.open(&purpose, &name, &sealed).unwrap(), secret.as_slice());
    }

    #[test]
    fn a_change_anywhere_is_seen(at in any::<usize>(), bit in 0u8..8, in_nonce in any::<bool>()) {
        let key = sealing();
        let mut sealed = key.seal("p", "n", b"a private key").unwrap();
        let field = if in_nonce { &mut sealed.nonce } else { &mut sealed.ciphertext };
        let mut bytes = STANDARD.decode(&*field).unwrap();
        let at = at % bytes.len();
        bytes[at] ^= 1 << bit;
        *field = STANDARD.encode(bytes);
        prop_assert!(matches!(key.open("p", "n", &sealed), Err(SealError::Damaged { .. })), "opened");
    }

    #[test]
    fn no_envelope_or_key_file_panics(nonce in "\\PC{0,30}", ciphertext in "[A-Za-z0-9+/=]{0,60}", file in prop::collection::vec(any::<u8>(), 0..200)) {
        let key = sealing();
        let sealed = Sealed { version: 1, key_id: key.id().to_owned(), nonce, ciphertext };
        prop_assert!(key.open("p", "n", &sealed).is_err());
        let _ = SealingKey::parse("f", &file);
    }
}
