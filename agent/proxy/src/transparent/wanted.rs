//! What the application asked for.

use std::collections::HashMap;
use std::future::pending;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mesh_model::{Key, VirtualAddress};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

/// Wants at most. An application can ask for any name.
const MOST: usize = 512;
/// How long one is kept that nobody used.
const KEPT: Duration = Duration::from_secs(3600);
/// How long it is kept at least, when there is no room for another.
const SETTLED: Duration = Duration::from_secs(60);
/// How often it is looked for those.
const LOOK: Duration = Duration::from_secs(60);
/// How long a change waits for others.
const DEBOUNCE: Duration = Duration::from_millis(20);

/// What an application asked for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Want {
    /// A service, by its name.
    Service(Key),
    /// Whoever has this virtual address.
    Address(VirtualAddress),
}

/// What the application asked for within the last hour, or is connected to.
#[derive(Debug)]
pub(crate) struct Wanted {
    all: Mutex<HashMap<Want, Use>>,
    changed: watch::Sender<()>,
}

#[derive(Debug)]
struct Use {
    last: Instant,
    connections: usize,
}

impl Use {
    fn is_idle_for(&self, time: Duration, now: Instant) -> bool {
        self.connections == 0 && now.saturating_duration_since(self.last) >= time
    }
}

impl Default for Wanted {
    fn default() -> Self {
        Self {
            all: Mutex::default(),
            changed: watch::Sender::new(()),
        }
    }
}

impl Wanted {
    /// It is asked for. `false`: there is no room for it.
    pub(crate) fn ask(&self, want: Want) -> bool {
        self.touch(&mut self.lock(), want, 0)
    }

    /// A connection to a service's virtual address begins; while it lives what
    /// led to it stays wanted.
    pub(crate) fn hold(self: &Arc<Self>, service: &Key, address: VirtualAddress) -> Option<Held> {
        let mut all = self.lock();
        let by_name = Want::Service(service.clone());
        let want = match all.contains_key(&by_name) {
            true => by_name,
            // By an address that the application knows from before.
            false => Want::Address(address),
        };
        let held = Held {
            wanted: self.clone(),
            want: want.clone(),
        };
        self.touch(&mut all, want, 1).then_some(held)
    }

    fn touch(&self, all: &mut HashMap<Want, Use>, want: Want, connections: usize) -> bool {
        let now = Instant::now();
        if let Some(used) = all.get_mut(&want) {
            used.last = now;
            used.connections += connections;
            return true;
        }
        if all.len() >= MOST && !make_room(all, now) {
            return false;
        }
        let used = Use {
            last: now,
            connections,
        };
        all.insert(want, used);
        self.changed.send_replace(());
        true
    }

    /// All of them, in order.
    pub(crate) fn all(&self) -> Vec<Want> {
        let mut all: Vec<_> = self.lock().keys().cloned().collect();
        all.sort();
        all
    }

    /// Forgets all.
    pub(crate) fn clear(&self) {
        self.lock().clear();
    }

    /// Forgets what nobody used for long.
    fn forget_unused(&self) {
        let now = Instant::now();
        let mut all = self.lock();
        let before = all.len();
        all.retain(|_, used| !used.is_idle_for(KEPT, now));
        if all.len() != before {
            self.changed.send_replace(());
        }
    }

    /// Says the whole set whenever it has changed; for as long as it is polled.
    pub(crate) async fn keep(&self, say: impl Fn(Vec<Want>)) {
        let mut changed = self.changed.subscribe();
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut said = Vec::new();
        loop {
            let all = self.all();
            if all != said {
                say(all.clone());
                said = all;
            }
            tokio::select! {
                _ = look.tick() => self.forget_unused(),
                change = changed.changed() => match change {
                    Ok(()) => {
                        sleep(DEBOUNCE).await;
                        changed.mark_unchanged();
                    }
                    Err(_) => pending().await, // we have the sender
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Want, Use>> {
        // Nothing is left half done under this lock.
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes out the one that was used the longest ago, if that is some time.
fn make_room(all: &mut HashMap<Want, Use>, now: Instant) -> bool {
    let oldest = (all.iter())
        .filter(|(_, used)| used.is_idle_for(SETTLED, now))
        .min_by_key(|(_, used)| used.last)
        .map(|(want, _)| want.clone());
    oldest.is_some_and(|oldest| all.remove(&oldest).is_some())
}

/// A connection to what is wanted.
pub(crate) struct Held {
    wanted: Arc<Wanted>,
    want: Want,
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(used) = self.wanted.lock().get_mut(&self.want) {
            used.last = Instant::now();
            used.connections = used.connections.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use tokio::sync::mpsc;
    use tokio::time::timeout;

    use super::*;

    fn service(name: &str) -> Want {
        Want::Service(Key::of(name))
    }

    fn address() -> VirtualAddress {
        VirtualAddress::nth(7).unwrap()
    }

    /// What is said.
    fn kept(wanted: &Arc<Wanted>) -> mpsc::UnboundedReceiver<Vec<Want>> {
        let (say, said) = mpsc::unbounded_channel();
        let wanted = wanted.clone();
        tokio::spawn(async move {
            let say = |all| drop(say.send(all));
            wanted.keep(say).await;
        });
        said
    }

    #[tokio::test(start_paused = true)]
    async fn the_whole_set_is_said_when_it_changes() {
        let wanted = Arc::new(Wanted::default());
        let mut said = kept(&wanted);
        for name in ["web", "api", "web"] {
            assert!(wanted.ask(service(name)));
        }
        let first = said.recv().await.unwrap();
        assert_eq!(first, [service("api"), service("web")]);
        // Nothing new, nothing said.
        assert!(wanted.ask(service("api")));
        assert!(timeout(LOOK / 2, said.recv()).await.is_err());
        assert!(wanted.ask(Want::Address(address())));
        assert_eq!(said.recv().await.unwrap().len(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn what_nobody_uses_for_an_hour_is_forgotten() {
        let wanted = Arc::new(Wanted::default());
        let mut said = kept(&wanted);
        wanted.ask(service("api"));
        wanted.ask(service("web"));
        assert_eq!(said.recv().await.unwrap().len(), 2);
        sleep(KEPT / 2).await;
        wanted.ask(service("web"));
        let began = Instant::now();
        assert_eq!(said.recv().await.unwrap(), [service("web")]);
        let took = began.elapsed();
        assert!(
            took >= KEPT / 2 - LOOK && took <= KEPT / 2 + 2 * LOOK,
            "{took:?}"
        );
        // What was forgotten can be asked for again.
        wanted.ask(service("api"));
        assert_eq!(said.recv().await.unwrap().len(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_connected_to_is_not_forgotten() {
        let wanted = Arc::new(Wanted::default());
        wanted.ask(service("api"));
        let mut said = kept(&wanted);
        assert_eq!(said.recv().await.unwrap(), [service("api")]);
        let held = wanted.hold(&Key::of("api"), address()).unwrap();
        assert!(timeout(3 * KEPT, said.recv()).await.is_err());
        drop(held);
        assert!(timeout(KEPT - LOOK, said.recv()).await.is_err());
        assert_eq!(said.recv().await.unwrap(), []);
        // An address that is known from before is a want by itself.
        let _held = wanted.hold(&Key::of("api"), address());
        assert_eq!(said.recv().await.unwrap(), [Want::Address(address())]);
    }

    #[tokio::test(start_paused = true)]
    async fn there_is_room_for_so_many() {
        let wanted = Arc::new(Wanted::default());
        for index in 0..MOST {
            assert!(wanted.ask(service(&format!("s{index}"))));
            sleep(Duration::from_millis(1)).await;
        }
        assert!(!wanted.ask(service("one-more")));
        assert!(wanted.ask(service("s0")), "it is there already");
        sleep(SETTLED).await;
        assert!(wanted.ask(service("one-more")));
        let all = wanted.all();
        assert_eq!(all.len(), MOST);
        assert!(all.contains(&service("s0")) && !all.contains(&service("s1")));
    }
}
