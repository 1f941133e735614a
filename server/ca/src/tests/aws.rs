//! A CA in AWS, played by one of our own that answers as AWS does, or as it must not.

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use mesh_tls::LeafKey;
use rcgen::{CertificateSigningRequestParams, Issuer};

use super::{DAY, fixed, request, sealing, unix};
use crate::aws::scripted::{Pca, Trouble};
use crate::aws::{Described, Wish};
use crate::key::{CaKey, KeyType};
use crate::x509::{self, Validity};
use crate::{
    AWS_PCA, Authority, AwsPca, AwsPlace, AwsState, BuiltIn, CaConfig, CaState, SealingKey,
    create_in_aws, renew_in_aws, renewal_due,
};

const ARN: &str = "arn:aws:acm-pca:eu-central-1:111122223333:certificate-authority/one";

/// How it answers.
#[derive(Clone, Debug, Default)]
struct Script {
    status: Option<&'static str>,
    /// So often a certificate is not signed yet.
    pending: usize,
    refuses: Option<Trouble>,
    /// What it signs is no CA's; lives a day longer.
    no_ca: bool,
    longer: bool,
    /// The requests that it took.
    issued: Vec<Wish>,
    asked: usize,
}

struct Played {
    root: Issuer<'static, CaKey>,
    pem: String,
    script: Mutex<Script>,
}

impl Played {
    fn new(life: Duration) -> Arc<Self> {
        let key = CaKey::generate(KeyType::EcP384).unwrap();
        let validity = Validity::new(unix(SystemTime::now()), 3600, life.as_secs(), u64::MAX);
        let made = x509::authority("Example root", None, Some(1), validity).unwrap();
        let made = made.self_signed(&key).unwrap();
        Arc::new(Self {
            root: Issuer::from_ca_cert_der(made.der(), key).unwrap(),
            pem: made.pem(),
            script: Mutex::default(),
        })
    }

    fn with(&self, change: impl FnOnce(&mut Script)) -> Script {
        let mut script = self.script.lock().unwrap();
        change(&mut script);
        script.clone()
    }
}

#[async_trait]
impl Pca for Arc<Played> {
    async fn describe(&self, _: &str) -> Result<Described, Trouble> {
        let script = self.with(|script| script.asked += 1);
        match script.refuses {
            Some(trouble) => Err(trouble),
            None => Ok(Described {
                status: script.status.unwrap_or("ACTIVE").to_owned(),
                signing_algorithm: "SHA384WITHECDSA".to_owned(),
            }),
        }
    }

    async fn chain(&self, _: &str) -> Result<String, Trouble> {
        Ok(format!("{}\n\n", self.pem))
    }

    async fn issue(&self, _: &str, wish: &Wish) -> Result<String, Trouble> {
        let script = self.with(|script| script.issued.push(wish.clone()));
        Ok(format!("{ARN}/certificate/{}", script.issued.len()))
    }

    async fn certificate(&self, _: &str, of: &str) -> Result<Option<String>, Trouble> {
        let mut ready = true;
        let script = self.with(|script| {
            ready = script.pending == 0;
            script.pending = script.pending.saturating_sub(1);
        });
        if !ready {
            return Ok(None);
        }
        let number: usize = of.rsplit('/').next().unwrap().parse().unwrap();
        let wish = &script.issued[number - 1];
        let csr = CertificateSigningRequestParams::from_pem(&wish.csr).unwrap();
        let validity = Validity {
            not_before: unix(SystemTime::now()) - 3600,
            not_after: wish.not_after + if script.longer { 86_400 } else { 0 },
        };
        let mut params = x509::authority("", None, Some(0), validity).unwrap();
        params.distinguished_name = csr.params.distinguished_name.clone();
        params.subject_alt_names = csr.params.subject_alt_names.clone();
        if script.no_ca {
            params.is_ca = rcgen::IsCa::ExplicitNoCa;
        }
        let signed = params.signed_by(&csr.public_key, &self.root).unwrap();
        Ok(Some(signed.pem()))
    }
}

fn settings() -> CaConfig {
    CaConfig {
        aws_pca: Some(AwsPlace {
            existing_arn: ARN.to_owned(),
        }),
        ..CaConfig::default()
    }
}

async fn made(aws: &AwsPca, sealing: &SealingKey) -> Result<CaState, String> {
    let (domain, now) = ("test.mesh".parse().unwrap(), SystemTime::now());
    let made = create_in_aws(aws, &domain, "dc1", settings(), sealing, now).await;
    made.map_err(|error| error.to_string())
}

#[tokio::test]
async fn the_servers_sign_with_an_intermediate_of_aws() {
    let (played, sealing) = (Played::new(DAY * 3650), sealing());
    played.with(|script| script.pending = 2);
    let aws = AwsPca::with(Some(Box::new(played.clone())));
    let state = made(&aws, &sealing).await.unwrap();
    assert_eq!(state.provider, AWS_PCA);
    assert_eq!(state.roots[0].pem.trim(), played.pem.trim());
    assert!(state.root_key.is_none());
    let again: CaState = serde_json::from_value(serde_json::to_value(&state).unwrap()).unwrap();
    assert_eq!(again, state);
    let wish = &played.with(|_| ()).issued[0];
    assert_eq!(wish.signing_algorithm, "SHA384WITHECDSA");
    assert_eq!(wish.token.len(), 32);
    // Any server signs; AWS is not asked, and a peer takes it.
    let now = SystemTime::now();
    let open = BuiltIn::open(&state, &sealing, fixed(now)).unwrap();
    let key = LeafKey::generate().unwrap();
    let leaf = open.sign_leaf(&request(&key, "web", DAY)).await.unwrap();
    assert!(state.trust().unwrap().verify(&leaf.chain, now).is_ok());
    assert_eq!(renewal_due(&state, now), None);
    let late = now + DAY * 300;
    assert!(renewal_due(&state, late).is_some());
    let renewed = renew_in_aws(&aws, &state, &sealing, now).await.unwrap();
    assert_eq!(renewed.roots, state.roots);
    assert_ne!(renewed.intermediate, state.intermediate);
    assert_eq!(played.with(|_| ()).issued.len(), 2);
}

#[tokio::test]
async fn it_ends_no_later_than_what_is_above_it() {
    let (played, sealing) = (Played::new(DAY * 30), sealing());
    let aws = AwsPca::with(Some(Box::new(played.clone())));
    let state = made(&aws, &sealing).await.unwrap();
    let intermediate = state.intermediate.unwrap();
    assert!(intermediate.not_after <= state.roots[0].not_after);
}

#[tokio::test(start_paused = true)]
async fn what_was_asked_for_is_waited_for_and_not_asked_for_again() {
    let (played, sealing) = (Played::new(DAY * 3650), sealing());
    let aws = AwsPca::with(Some(Box::new(played.clone())));
    played.with(|script| script.pending = 10_000);
    let error = made(&aws, &sealing).await.unwrap_err();
    assert!(error.contains("certificate/1 is not signed yet"), "{error}");
    played.with(|script| script.pending = 1);
    made(&aws, &sealing).await.unwrap();
    assert_eq!(played.with(|_| ()).issued.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_is_of_no_use_is_refused_and_no_other_is_paid_for_at_once() {
    type Wrong = fn(&mut Script);
    let wrongs: [(Wrong, &str); 2] = [
        (|script| script.no_ca = true, "not the certificate of a CA"),
        (|script| script.longer = true, "lives longer than was asked"),
    ];
    for (wrong, words) in wrongs {
        let (played, sealing) = (Played::new(DAY * 3650), sealing());
        let aws = AwsPca::with(Some(Box::new(played.clone())));
        played.with(wrong);
        for _ in 0..3 {
            let error = made(&aws, &sealing).await.unwrap_err();
            assert!(error.contains(words), "{error}");
        }
        assert_eq!(played.with(|_| ()).issued.len(), 1);
        played.with(|script| (script.no_ca, script.longer) = (false, false));
        tokio::time::advance(Duration::from_secs(3601)).await;
        made(&aws, &sealing).await.unwrap();
        assert_eq!(played.with(|_| ()).issued.len(), 2);
    }
}

#[tokio::test]
async fn a_ca_that_is_not_active_and_a_build_without_aws_are_said() {
    let (played, sealing) = (Played::new(DAY * 3650), sealing());
    let aws = AwsPca::with(Some(Box::new(played.clone())));
    played.with(|script| script.status = Some("DISABLED"));
    let error = made(&aws, &sealing).await.unwrap_err();
    assert!(
        error.contains("certificate-authority/one is DISABLED"),
        "{error}"
    );
    played.with(|script| {
        script.refuses = Some(Trouble::Denied("403 AccessDeniedException: no".to_owned()));
    });
    let error = made(&aws, &sealing).await.unwrap_err();
    assert!(error.contains("AccessDeniedException: no"), "{error}");
    assert!(played.with(|_| ()).issued.is_empty());

    let without = AwsPca::with(None);
    let error = made(&without, &sealing).await.unwrap_err();
    assert!(error.contains("`--features aws`"), "{error}");
    // It signs all the same with what there is.
    played.with(|script| *script = Script::default());
    let state = made(&aws, &sealing).await.unwrap();
    BuiltIn::open(&state, &sealing, fixed(SystemTime::now())).unwrap();
}

#[tokio::test(start_paused = true)]
async fn how_it_does_is_looked_at_and_it_recovers() {
    let played = Played::new(DAY * 3650);
    let aws = Arc::new(AwsPca::with(Some(Box::new(played.clone()))));
    let keeping = aws.clone();
    let kept = tokio::spawn(async move { keeping.keep(|| Some(ARN.to_owned())).await });
    let seen = async |wanted: AwsState| {
        for _ in 0..1000 {
            if let Some(health) = aws.health().filter(|health| health.state == wanted) {
                return health;
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        panic!("it never was {wanted:?}");
    };
    seen(AwsState::Ok).await;
    for (trouble, state) in [
        (Trouble::Limited("slower".into()), AwsState::Throttled),
        (Trouble::Denied("no".into()), AwsState::Denied),
        (Trouble::Unavailable("away".into()), AwsState::Down),
    ] {
        played.with(|script| script.refuses = Some(trouble.clone()));
        assert!(seen(state).await.reason.is_some());
        played.with(|script| script.refuses = None);
        seen(AwsState::Ok).await;
    }
    played.with(|script| script.status = Some("EXPIRED"));
    let health = seen(AwsState::Unusable).await;
    assert!(health.reason.unwrap().contains("EXPIRED"));
    assert!(health.failures.denied > 0 && health.failures.limited > 0);
    kept.abort();
}
