//! For tests, of this crate and of others: a disk that loses power, and a network
//! that can be cut.

use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use redb::StorageBackend;

use crate::config::Peer;
use crate::node::RaftNode;
use crate::transport::{Request, Transport, TransportError};

const SECTOR: usize = 512;

/// A disk in memory that knows which writes were synced. Clones are the same disk.
#[derive(Debug, Clone, Default)]
pub struct PowerLoss(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    disk: Mutex<Disk>,
    goes_on: Condvar,
}

/// Until it is dropped, syncs of the disk wait.
#[must_use = "the disk goes on when this is dropped"]
#[derive(Debug)]
pub struct Stall(PowerLoss);

impl Drop for Stall {
    fn drop(&mut self) {
        self.0.disk().stalled = false;
        self.0.0.goes_on.notify_all();
    }
}

#[derive(Debug, Default)]
struct Disk {
    durable: Vec<u8>,
    live: Vec<u8>,
    /// Since the last sync, in order, no more than a sector each.
    unsynced: Vec<Unsynced>,
    syncs: u64,
    cut_at: Option<u64>,
    full_at: Option<u64>,
    stalled: bool,
    off: bool,
}

#[derive(Debug, Clone)]
enum Unsynced {
    Write(usize, Vec<u8>),
    Length(usize),
}

impl PowerLoss {
    /// A disk, empty, with power.
    pub fn new() -> Self {
        Self::default()
    }

    /// Power goes at the `n`-th sync from now (1 is the next): that sync and all
    /// after it fail.
    pub fn cut_at_sync(&self, n: u64) {
        let mut disk = self.disk();
        disk.cut_at = Some(disk.syncs + n);
    }

    /// From now on the disk does not grow beyond `bytes`.
    pub fn full_at(&self, bytes: u64) {
        self.disk().full_at = Some(bytes);
    }

    /// From now on syncs wait, as those of a disk that is busy, until what this gives
    /// is dropped.
    pub fn stall(&self) -> Stall {
        self.disk().stalled = true;
        Stall(self.clone())
    }

    /// How many syncs there were.
    pub fn syncs(&self) -> u64 {
        self.disk().syncs
    }

    /// What is on it.
    pub fn bytes(&self) -> Vec<u8> {
        self.disk().live.clone()
    }

    /// A disk with these bytes on it.
    pub fn with_bytes(bytes: Vec<u8>) -> Self {
        let disk = Disk {
            durable: bytes.clone(),
            live: bytes,
            ..Disk::default()
        };
        Self(Arc::new(Shared {
            disk: Mutex::new(disk),
            goes_on: Condvar::new(),
        }))
    }

    /// What is found when power is back: all that was synced, and of what was not,
    /// nothing (`None`), or what chance (from this seed) let through, sector by
    /// sector.
    pub fn after_power_loss(&self, chance: Option<u64>) -> Self {
        let disk = self.disk();
        let mut bytes = disk.durable.clone();
        if let Some(mut seed) = chance {
            for change in &disk.unsynced {
                if random(&mut seed).is_multiple_of(2) {
                    change.apply(&mut bytes);
                }
            }
        }
        Self::with_bytes(bytes)
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.0.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Disk {
    fn powered(&self) -> io::Result<()> {
        if self.off {
            return Err(io::Error::other("the power is off"));
        }
        Ok(())
    }

    fn grow(&self, to: u64) -> io::Result<()> {
        self.powered()?;
        if to > self.live.len() as u64 && self.full_at.is_some_and(|full| to > full) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }

    fn change(&mut self, change: Unsynced) {
        change.apply(&mut self.live);
        self.unsynced.push(change);
    }
}

impl Unsynced {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Length(length) => bytes.resize(*length, 0),
            Self::Write(at, data) => {
                let end = at + data.len();
                if bytes.len() < end {
                    bytes.resize(end, 0);
                }
                if let Some(place) = bytes.get_mut(*at..end) {
                    place.copy_from_slice(data);
                }
            }
        }
    }
}

impl StorageBackend for PowerLoss {
    fn len(&self) -> io::Result<u64> {
        let disk = self.disk();
        disk.powered()?;
        Ok(disk.live.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let disk = self.disk();
        disk.powered()?;
        let at = usize::try_from(offset).map_err(io::Error::other)?;
        let from = disk.live.get(at..at + out.len());
        out.copy_from_slice(from.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut disk = self.disk();
        disk.grow(len)?;
        let len = usize::try_from(len).map_err(io::Error::other)?;
        disk.change(Unsynced::Length(len));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let waiting = self.0.goes_on.wait_while(self.disk(), |disk| disk.stalled);
        let mut disk = waiting.unwrap_or_else(PoisonError::into_inner);
        disk.powered()?;
        disk.syncs += 1;
        if disk.cut_at.is_some_and(|at| disk.syncs >= at) {
            disk.off = true;
            return disk.powered();
        }
        for change in std::mem::take(&mut disk.unsynced) {
            change.apply(&mut disk.durable);
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut disk = self.disk();
        disk.grow(offset + data.len() as u64)?;
        let mut at = usize::try_from(offset).map_err(io::Error::other)?;
        let mut rest = data;
        while !rest.is_empty() {
            let (sector, more) = rest.split_at(rest.len().min(SECTOR - at % SECTOR));
            disk.change(Unsynced::Write(at, sector.to_vec()));
            at += sector.len();
            rest = more;
        }
        Ok(())
    }
}

/// splitmix64.
fn random(seed: &mut u64) -> u64 {
    *seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *seed;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A network within one process: nodes are found by their address. Clones are the
/// same network.
#[derive(Clone, Default)]
pub struct MemNetwork(Arc<Mutex<Links>>);

#[derive(Default)]
struct Links {
    nodes: HashMap<String, RaftNode>,
    cut_off: HashSet<u64>,
    /// Answers of these are lost, though they act.
    mute: HashSet<u64>,
    slow: Option<Slow>,
}

/// Requests of more than `bytes` take `delay`.
struct Slow {
    bytes: usize,
    delay: Duration,
    seen: usize,
}

impl MemNetwork {
    /// A network without nodes.
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes a node reachable.
    pub fn attach(&self, node: &RaftNode) {
        let addr = node.inner.config.me.addr.clone();
        self.links().nodes.insert(addr, node.clone());
    }

    /// Makes it unreachable, as a process that ended.
    pub fn detach(&self, node: &RaftNode) {
        self.links().nodes.remove(&node.inner.config.me.addr);
    }

    /// Cuts a node off from all others, or brings it back.
    pub fn cut_off(&self, id: u64, yes: bool) {
        let mut links = self.links();
        if yes {
            links.cut_off.insert(id);
        } else {
            links.cut_off.remove(&id);
        }
    }

    /// Loses the answers of a node to requests that are not about consensus.
    pub fn mute(&self, id: u64, yes: bool) {
        let mut links = self.links();
        if yes {
            links.mute.insert(id);
        } else {
            links.mute.remove(&id);
        }
    }

    /// Makes requests of more than `bytes` take `delay`, as a slow line does.
    pub fn slow(&self, bytes: usize, delay: Duration) {
        self.links().slow = Some(Slow {
            bytes,
            delay,
            seen: 0,
        });
    }

    /// How many requests were slow.
    pub fn slowed(&self) -> usize {
        self.links().slow.as_ref().map_or(0, |slow| slow.seen)
    }

    fn delay(&self, request: &Request) -> Duration {
        match &mut self.links().slow {
            Some(slow) if request.0.payload.len() > slow.bytes => {
                slow.seen += 1;
                slow.delay
            }
            _ => Duration::ZERO,
        }
    }

    fn links(&self) -> MutexGuard<'_, Links> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, from: u64, peer: &Peer) -> Result<RaftNode, TransportError> {
        let links = self.links();
        let node = links.nodes.get(&peer.addr);
        let node = node.ok_or_else(|| TransportError::NotSent(format!("nobody is at {peer}")))?;
        let to = node.inner.config.me.id;
        if links.cut_off.contains(&from) || links.cut_off.contains(&to) {
            return Err(TransportError::NotSent("cut off".to_owned()));
        }
        Ok(node.clone())
    }
}

#[async_trait]
impl Transport for MemNetwork {
    async fn call(
        &self,
        peer: &Peer,
        request: Request,
        timeout: Duration,
    ) -> Result<Bytes, TransportError> {
        let (from, lane) = (request.from(), request.lane());
        let node = self.find(from, peer)?;
        let delay = self.delay(&request);
        let answer = async {
            if !delay.is_zero() {
                tokio::time::sleep(delay).await;
            }
            node.handle(request).await
        };
        let answered = tokio::time::timeout(timeout, answer).await;
        let lost = |e: &str| TransportError::Lost(e.to_owned());
        self.find(from, peer).map_err(|_| lost("cut off"))?;
        let mute = self.links().mute.contains(&node.inner.config.me.id);
        if mute && lane == crate::Lane::Service {
            return Err(lost("the answer went astray"));
        }
        match answered {
            Ok(Ok(reply)) => Ok(reply),
            Ok(Err(refusal)) => Err(TransportError::Refused(refusal.0)),
            Err(_) => Err(lost("nothing in time")),
        }
    }
}
