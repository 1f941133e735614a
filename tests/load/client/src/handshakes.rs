//! What a handshake between two sidecars costs, by how the key is agreed on.
//!
//! In memory and in one thread: no socket, no scheduler, and each side's time by the thread's own
//! clock, which counts what it ran and not what others took. The configurations are those of a
//! sidecar, the chains those of a server's own CA; TLS 1.3, certificates of both sides, nothing
//! resumed. Every handshake is looked at: one that was made otherwise is an error, no figure.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use mesh_ca::{Authority, BuiltIn, CaConfig, LeafRequest, SealingKey};
use mesh_model::TlsPolicy;
use mesh_tls::{Credential, Handshakes, LeafKey, MeshTls, SpiffeId};
use nix::time::{ClockId, clock_gettime};
use rustls::{
    ClientConfig, ClientConnection, CommonState, HandshakeKind, NamedGroup, ProtocolVersion,
    ServerConfig, ServerConnection,
};
use rustls_pki_types::ServerName;
use serde_json::{Value, json};

use crate::{Failure, Options};

const DOMAIN: &str = "load.mesh";
/// What others are compared with.
const PLAIN: &str = "X25519";
/// What a mesh without a `tls` block does: all that it may, the best first.
const DEFAULT: &str = "default";
/// What is measured unless told otherwise.
const EXCHANGES: &str = "X25519,X25519MLKEM768,P-256,default";
/// Messages of one handshake that go back and forth at most.
const TURNS: usize = 16;

/// `-exchanges A,B -rounds 5 -seconds 0.5`: each exchange for so long in each round.
pub(crate) fn run(options: &Options) -> Result<Value, Failure> {
    let rounds = options.number("rounds", 5)?.clamp(1, 1000);
    let each = match options.text("seconds") {
        Some(_) => options.seconds()?,
        None => Duration::from_millis(500),
    };
    let names = options.text("exchanges").unwrap_or(EXCHANGES);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let sides = runtime.block_on(Sides::new())?;
    let cases: Vec<Case> = names
        .split(',')
        .map(|name| sides.case(name))
        .collect::<Result<_, _>>()?;
    for case in &cases {
        // The first of each finds cold caches.
        case.sample(each / 10)?;
    }
    let mut samples: Vec<Vec<Sample>> = vec![Vec::new(); cases.len()];
    for round in 0..rounds {
        // Who begins changes, so that none has always the same one before it.
        for turn in 0..cases.len() {
            let at = (turn + round) % cases.len();
            let (Some(case), Some(taken)) = (cases.get(at), samples.get_mut(at)) else {
                continue;
            };
            taken.push(case.sample(each)?);
        }
    }
    let plain = cases.iter().position(|case| case.name == PLAIN);
    let plain = plain.and_then(|at| samples.get(at).cloned());
    let told = cases.iter().zip(&samples);
    let told: Vec<Value> = told
        .map(|(case, samples)| case.told(samples, plain.as_deref()))
        .collect();
    Ok(json!({ "rounds": rounds, "seconds": each.as_secs_f64(), "exchanges": told }))
}

/// The caller's and the called sidecar's certificates, and whom each believes.
struct Sides {
    client: MeshTls,
    server: MeshTls,
    called: SpiffeId,
}

impl Sides {
    async fn new() -> Result<Self, Failure> {
        let (domain, sealing, now) = (DOMAIN.parse()?, SealingKey::generate()?, SystemTime::now());
        let state = mesh_ca::create(&domain, "dc1", CaConfig::default(), &sealing, now)?;
        let ca = BuiltIn::open(&state, &sealing, Arc::new(SystemTime::now))?;
        let called = SpiffeId::new(&domain, "default", "dc1", "called")?;
        let side = async |id: SpiffeId| {
            let key = LeafKey::generate()?;
            let request = LeafRequest::from_csr(&key.csr()?, id, state.config.leaf_ttl())?;
            let leaf = ca.sign_leaf(&request).await?;
            let credential = Credential::from_leaf_key(leaf.chain, &key)?;
            Ok::<_, Failure>(MeshTls::new(credential, state.trust()?)?)
        };
        Ok(Self {
            client: side(SpiffeId::new(&domain, "default", "dc1", "caller")?).await?,
            server: side(called.clone()).await?,
            called,
        })
    }

    /// The configurations that both sides have under a policy with this exchange alone.
    fn case(&self, name: &str) -> Result<Case, Failure> {
        let policy = TlsPolicy::default();
        let suites = policy.suites().iter().map(|suite| suite.as_str());
        let exchanges: Vec<&str> = match name {
            DEFAULT => policy.exchanges().iter().map(|one| one.as_str()).collect(),
            one => vec![one],
        };
        let best = exchanges.first().copied().unwrap_or_default().to_owned();
        let handshakes = Handshakes::new(suites, exchanges)?;
        self.client.swap_handshakes(handshakes.clone());
        self.server.swap_handshakes(handshakes);
        Ok(Case {
            name: name.to_owned(),
            group: group(&best)?,
            client: self.client.client_config(&self.called, &[b"h2"]),
            server: self.server.server_config(&[b"h2"]),
            host: format!("called.default.dc1.internal.{DOMAIN}").try_into()?,
        })
    }
}

/// What TLS calls an exchange of the policy.
fn group(name: &str) -> Result<NamedGroup, Failure> {
    Ok(match name {
        "X25519" => NamedGroup::X25519,
        "X25519MLKEM768" => NamedGroup::X25519MLKEM768,
        "SecP256r1MLKEM768" => NamedGroup::secp256r1MLKEM768,
        "P-256" => NamedGroup::secp256r1,
        "P-384" => NamedGroup::secp384r1,
        _ => return Err(format!("-exchanges: {name} is none that is known here").into()),
    })
}

/// One policy on both sides.
struct Case {
    name: String,
    /// What must come of it.
    group: NamedGroup,
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
    host: ServerName<'static>,
}

/// What handshakes cost, all of a sample together.
#[derive(Clone, Default)]
struct Sample {
    count: u32,
    wall: Duration,
    client: Duration,
    server: Duration,
    /// Bytes from the caller, and to it.
    up: usize,
    down: usize,
}

impl Case {
    fn sample(&self, long: Duration) -> Result<Sample, Failure> {
        let mut sample = Sample::default();
        let begin = Instant::now();
        while sample.count == 0 || begin.elapsed() < long {
            self.handshake(&mut sample)?;
        }
        sample.wall = begin.elapsed();
        Ok(sample)
    }

    fn handshake(&self, sample: &mut Sample) -> Result<(), Failure> {
        let mut bytes = Vec::with_capacity(8 * 1024);
        let (mut clock, mut turns) = (Clock::start()?, 0);
        let mut client = ClientConnection::new(self.client.clone(), self.host.clone())?;
        clock.lap(&mut sample.client)?;
        let mut server = ServerConnection::new(self.server.clone())?;
        clock.lap(&mut sample.server)?;
        while (client.wants_write() || server.wants_write()) && turns < TURNS {
            turns += 1;
            bytes.clear();
            while client.wants_write() {
                client.write_tls(&mut bytes)?;
            }
            sample.up += bytes.len();
            clock.lap(&mut sample.client)?;
            let mut rest = bytes.as_slice();
            while !rest.is_empty() {
                server.read_tls(&mut rest)?;
                server.process_new_packets()?;
            }
            bytes.clear();
            while server.wants_write() {
                server.write_tls(&mut bytes)?;
            }
            sample.down += bytes.len();
            clock.lap(&mut sample.server)?;
            let mut rest = bytes.as_slice();
            while !rest.is_empty() {
                client.read_tls(&mut rest)?;
                client.process_new_packets()?;
            }
            clock.lap(&mut sample.client)?;
        }
        sample.count += 1;
        let sides: [&CommonState; 2] = [&client, &server];
        for side in sides {
            let group = side.negotiated_key_exchange_group().map(|it| it.name());
            let whole = !side.is_handshaking()
                && side.handshake_kind() == Some(HandshakeKind::Full)
                && side.protocol_version() == Some(ProtocolVersion::TLSv1_3)
                && side
                    .peer_certificates()
                    .is_some_and(|chain| chain.len() == 2)
                && group == Some(self.group);
            if !whole {
                return Err(format!(
                    "{}: not a whole handshake of TLS 1.3 with both chains and {:?}: {:?}, {:?}, {group:?}",
                    self.name,
                    self.group,
                    side.handshake_kind(),
                    side.protocol_version(),
                )
                .into());
            }
        }
        Ok(())
    }

    fn told(&self, samples: &[Sample], plain: Option<&[Sample]>) -> Value {
        let us =
            |time: Duration, sample: &Sample| time.as_secs_f64() * 1e6 / f64::from(sample.count);
        let cpu = |sample: &Sample| us(sample.client + sample.server, sample);
        let of = |figure: &dyn Fn(&Sample) -> f64| spread(samples.iter().map(figure));
        let ratio = plain.map(|plain| {
            let pairs = samples.iter().zip(plain);
            spread(pairs.map(|(one, plain)| cpu(one) / cpu(plain)))
        });
        let wire = |bytes: &dyn Fn(&Sample) -> usize| {
            let sample = samples.first();
            // The same in each but for a byte or two of a signature's length.
            sample.map(|it| bytes(it) / (it.count as usize))
        };
        json!({
            "name": self.name,
            "handshakes": samples.iter().map(|it| u64::from(it.count)).sum::<u64>(),
            "per_second": of(&|it| f64::from(it.count) / it.wall.as_secs_f64()),
            "client_us": of(&|it| us(it.client, it)),
            "server_us": of(&|it| us(it.server, it)),
            "cpu_us": of(&cpu),
            "ratio": ratio,
            "bytes_up": wire(&|it| it.up),
            "bytes_down": wire(&|it| it.down),
        })
    }
}

/// What this thread has run, in laps.
struct Clock(Duration);

impl Clock {
    fn start() -> Result<Self, Failure> {
        Ok(Self(Self::now()?))
    }

    fn lap(&mut self, to: &mut Duration) -> Result<(), Failure> {
        let now = Self::now()?;
        *to += now.saturating_sub(self.0);
        self.0 = now;
        Ok(())
    }

    fn now() -> Result<Duration, Failure> {
        Ok(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?.into())
    }
}

/// Median and range.
pub(crate) fn spread(values: impl Iterator<Item = f64>) -> Value {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    let at = |index: usize| values.get(index).copied();
    let median = match values.len() % 2 {
        0 => at(middle.wrapping_sub(1))
            .zip(at(middle))
            .map(|(a, b)| (a + b) / 2.0),
        _ => at(middle),
    };
    json!({ "median": median, "min": at(0), "max": at(values.len().wrapping_sub(1)) })
}
