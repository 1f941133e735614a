//! For fuzzing: a certificate that Vault gave back is refused, or is what was asked for.
//!
//! Most of a certificate is out of a fuzzer's reach behind the signature. So the bytes are taken
//! twice: as the text that came, and as the inner part of a certificate (RFC 5280, section 4.1:
//! TBSCertificate), which the CA of this module signs whatever it says, as a Vault would whose role
//! somebody has changed.

use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use mesh_tls::SpiffeId;
use rcgen::SigningKey as _;
use x509_parser::extensions::GeneralName;

use crate::authority::{IssuedLeaf, LeafRequest};
use crate::builtin::{INTERMEDIATE_KEY, create};
use crate::key::CaKey;
use crate::seal::SealingKey;
use crate::state::CaConfig;
use crate::vault::judge::{CLOCKS, Judge};
use crate::x509;

/// When it is: 2026-01-01, by which the corpus' certificates are dated.
pub(crate) const NOW: Duration = Duration::from_secs(1_767_225_600);
/// How long the leaf was to live.
pub(crate) const TTL: Duration = Duration::from_secs(24 * 3600);
/// What was asked for beside the identity.
pub(crate) const DNS_NAME: &str = "shop.example.com";
/// A request for the key that the corpus' certificates have. Nobody has its private part any more.
const REQUEST: &[u8] = include_bytes!("../corpus/vault_leaf_request.der");
/// ecdsa-with-SHA256 (RFC 5758, section 3.2).
const ECDSA_SHA256: &[u8] = &[
    0x30, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02,
];

/// What was asked, and who answers.
pub(crate) struct Field {
    pub(crate) request: LeafRequest,
    pub(crate) key: CaKey,
    judge: Judge,
}

/// Made once, since its keys are new each time.
pub(crate) fn field() -> Option<&'static Field> {
    static FIELD: OnceLock<Option<Field>> = OnceLock::new();
    FIELD.get_or_init(make).as_ref()
}

fn make() -> Option<Field> {
    let domain = "fuzz.mesh".parse().ok()?;
    let sealing = SealingKey::generate().ok()?;
    let state = create(&domain, "dc1", CaConfig::default(), &sealing, now()).ok()?;
    let entry = state.intermediate.as_ref()?;
    let key = entry.key.as_ref()?;
    let key = sealing.open(INTERMEDIATE_KEY, &entry.id, key).ok()?;
    let id = SpiffeId::new(&domain, "default", "dc1", "web").ok()?;
    Some(Field {
        request: LeafRequest::from_csr(REQUEST, id, TTL)
            .ok()?
            .for_dns_names(vec![DNS_NAME.to_owned()]),
        key: CaKey::from_pkcs8("intermediate", &key).ok()?,
        judge: Judge {
            trust: state.trust().ok()?,
            chain: entry.chain().ok()?,
        },
    })
}

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + NOW
}

/// The target: see the module.
///
/// # Panics
/// When what was taken is not what was asked for: that is the bug it looks for.
pub fn vault_leaf(data: &[u8]) {
    let Some(field) = field() else { return };
    let _ = field.judge(&String::from_utf8_lossy(data));
    let _ = field.judge_signed(data);
}

impl Field {
    /// Judges a text, and looks at what was taken by other ways than the judge does.
    pub(crate) fn judge(&self, pem: &str) -> Result<IssuedLeaf, String> {
        let issued = self.judge.judge(&self.request, pem, now())?;
        let Some((leaf, above)) = issued.chain.split_first() else {
            panic!("no chain");
        };
        assert_eq!(above, self.judge.chain);
        let read = x509_parser::parse_x509_certificate(leaf);
        let Ok(([], leaf)) = read else {
            panic!("not one whole certificate");
        };
        assert_eq!(leaf.public_key().raw, self.request.public_key());
        assert!(!leaf.is_ca(), "a CA");
        let validity = leaf.validity();
        let (from, to) = (
            validity.not_before.timestamp(),
            validity.not_after.timestamp(),
        );
        let seconds = |time: Duration| i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
        assert!(
            from <= seconds(NOW) && seconds(NOW) <= to,
            "out of its time"
        );
        assert!(to <= seconds(NOW + TTL + CLOCKS), "lives too long");
        assert_eq!(Ok(issued.not_after), u64::try_from(to));
        let names = leaf.subject_alternative_name().ok().flatten();
        let names = names.map_or(Vec::new(), |names| names.value.general_names.clone());
        for name in &names {
            match name {
                GeneralName::URI(uri) => assert_eq!(*uri, self.request.id().as_str()),
                GeneralName::DNSName(name) => assert_eq!(*name, DNS_NAME),
                other => panic!("another kind of name: {other:?}"),
            }
        }
        assert!(names.len() >= 2, "a name that was asked for is not there");
        let Ok(Some(usage)) = leaf.key_usage() else {
            panic!("no key usage");
        };
        let usage = usage.value;
        assert!(usage.digital_signature() && !usage.key_cert_sign() && !usage.crl_sign());
        if let Ok(Some(usage)) = leaf.extended_key_usage() {
            assert!(usage.value.client_auth && usage.value.server_auth);
        }
        Ok(issued)
    }

    /// The same of what this CA signs: `inner` is a TBSCertificate, in DER.
    pub(crate) fn judge_signed(&self, inner: &[u8]) -> Result<IssuedLeaf, String> {
        let signature = self.key.sign(inner).map_err(|error| error.to_string())?;
        let bits = tagged(0x03, &[&[0], signature.as_slice()].concat());
        let whole = tagged(0x30, &[inner, ECDSA_SHA256, &bits].concat());
        self.judge(&x509::certificate_pem(&whole))
    }
}

/// A DER value.
fn tagged(tag: u8, value: &[u8]) -> Vec<u8> {
    let length = u32::try_from(value.len()).unwrap_or(u32::MAX).to_be_bytes();
    let mut out = vec![tag];
    match length {
        [0, 0, 0, short] if short < 0x80 => out.push(short),
        [0, 0, 0, one] => out.extend([0x81, one]),
        [0, 0, rest @ ..] => out.extend([[0x82].as_slice(), &rest].concat()),
        all => out.extend([[0x84].as_slice(), &all].concat()),
    }
    out.extend(value);
    out
}
