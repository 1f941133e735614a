//! The local catalog: what is registered on this node, by whom, and on disk.
//!
//! Every change is on disk before it shows: after a crash the agent answers with what it had
//! acknowledged. Readers take a whole view and never wait for a writer; writers go one after the
//! other and block on the disk, so async callers come by [`tokio::task::spawn_blocking`].

mod entry;
mod files;
mod owner;
mod ports;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use mesh_model::instance::{host_port, set_sidecar_port};
use mesh_model::{CheckDefinition, CheckKind, Registration, Sidecar, Status};
use mesh_proto::servers::MAX_CATALOG;
use serde_json::Value;
use tokio::sync::watch;

pub(crate) use entry::{Entry, View};
pub(crate) use owner::Owner;

use crate::{AgentError, disk};

/// The most checks that are added to one instance one by one.
const MAX_EXTRA_CHECKS: usize = 64;

/// Why a registration or a change of one is refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CatalogError {
    #[error("{what} {id} was registered by {owner}; only its owner may change it")]
    Owner {
        what: &'static str,
        id: String,
        owner: Owner,
    },
    #[error("instance {id}: the id {taken} is in use already, by instance {by}")]
    Taken {
        id: String,
        taken: String,
        by: String,
    },
    #[error("instance {0} is not registered on this node")]
    NoInstance(String),
    #[error(
        "{0} instances are registered, and no more are allowed; raise limits.instances of the agent"
    )]
    TooMany(usize),
    #[error("instance {0}: has {MAX_EXTRA_CHECKS} added checks, and no more are allowed")]
    TooManyChecks(String),
    #[error(
        "instance {id}: with it this node's catalog has {bytes} bytes, more than the {MAX_CATALOG} \
         that servers take of one node; register fewer instances here, or with less meta, tags and checks"
    )]
    TooLarge { id: String, bytes: usize },
    #[error("instance {id}: no port from {} to {} is free for its sidecar; give it one", range.start(), range.end())]
    NoPort {
        id: String,
        range: RangeInclusive<u16>,
    },
    #[error("instance {id}: could not be written to disk: {source}")]
    Disk { id: String, source: io::Error },
}

impl CatalogError {
    /// Somebody else made what is to be changed.
    pub(crate) fn not_owner(entry: &Entry, what: &'static str) -> Self {
        Self::Owner {
            what,
            id: entry.registration.id.clone(),
            owner: entry.owner.clone(),
        }
    }
}

/// What the catalog fills in and how much it takes.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// Where sidecars listen that do not say; `None`: everywhere.
    pub(crate) bind: Option<IpAddr>,
    /// Ports for sidecars that have none.
    pub(crate) ports: RangeInclusive<u16>,
    /// The node's id and address, as its instances are told to the servers.
    pub(crate) node: String,
    pub(crate) address: String,
    /// Instances at once.
    pub(crate) limit: usize,
}

/// The local catalog.
#[derive(Debug)]
pub(crate) struct Catalog {
    folder: PathBuf,
    settings: Settings,
    /// Held while one writes.
    writing: Mutex<()>,
    view: watch::Sender<View>,
}

impl Catalog {
    /// Reads what stands on disk.
    pub(crate) fn open(data_dir: &Path, settings: Settings) -> Result<Self, AgentError> {
        let folder = data_dir.join("instances");
        disk::make_folder(&folder)?;
        let entries = disk::read_all::<Entry>(&folder)?;
        let entries = entries
            .into_iter()
            .map(|entry| (entry.registration.id.clone(), Arc::new(entry)))
            .collect();
        Ok(Self {
            folder,
            settings,
            writing: Mutex::new(()),
            view: watch::Sender::new(View(Arc::new(entries))),
        })
    }

    /// What is registered now.
    pub(crate) fn view(&self) -> View {
        self.view.borrow().clone()
    }

    /// What is registered, and word of each change.
    pub(crate) fn watch(&self) -> watch::Receiver<View> {
        self.view.subscribe()
    }

    /// Registers an instance, or registers it anew. With `replace_checks` those that were added
    /// one by one go. Blocks.
    pub(crate) fn register(
        &self,
        registration: Registration,
        body: Option<Value>,
        owner: Owner,
        replace_checks: bool,
    ) -> Result<(), CatalogError> {
        let _writing = self.writing();
        let mut entries = self.entries();
        let extra = entries
            .get(&registration.id)
            .filter(|_| !replace_checks)
            .map(|old| old.extra.clone())
            .unwrap_or_default();
        let entry = self.complete(&entries, registration, body, owner, extra)?;
        self.put(&mut entries, entry)?;
        self.publish(entries);
        Ok(())
    }

    /// Takes an instance away, or a sidecar from its instance. What is not there is as good as
    /// taken away. Blocks.
    pub(crate) fn deregister(&self, id: &str, by: &Owner) -> Result<(), CatalogError> {
        let _writing = self.writing();
        let mut entries = self.entries();
        if let Some(entry) = entries.get(id).cloned() {
            may_remove(&entry, "instance", by)?;
            self.remove(&mut entries, id)?;
            self.publish(entries);
            return Ok(());
        }
        let view = View(Arc::new(entries.clone()));
        if let Some((entry, _)) = view.sidecar(id) {
            may_remove(entry, "instance", by)?;
            let mut entry = Entry::clone(entry);
            entry.registration.sidecar = None;
            self.put(&mut entries, entry)?;
            self.publish(entries);
        }
        Ok(())
    }

    /// Adds a check to an instance. Blocks.
    pub(crate) fn add_check(
        &self,
        instance: &str,
        check: CheckDefinition,
        by: &Owner,
    ) -> Result<(), CatalogError> {
        let _writing = self.writing();
        let mut entries = self.entries();
        let view = View(Arc::new(entries.clone()));
        // A check may be the sidecar's: it then belongs to its instance.
        let entry = view
            .instance(instance)
            .or_else(|| view.sidecar(instance).map(|(entry, _)| entry))
            .ok_or_else(|| CatalogError::NoInstance(instance.to_owned()))?;
        if !entry.owner.may_be_replaced_by(by) {
            return Err(CatalogError::not_owner(entry, "instance"));
        }
        if let Some((other, _)) = view.check(&check.id)
            && other.registration.id != entry.registration.id
        {
            return Err(CatalogError::Taken {
                id: entry.registration.id.clone(),
                taken: check.id,
                by: other.registration.id.clone(),
            });
        }
        let mut entry = Entry::clone(entry);
        entry.extra.retain(|other| other.id != check.id);
        if entry.extra.len() >= MAX_EXTRA_CHECKS {
            return Err(CatalogError::TooManyChecks(entry.registration.id));
        }
        // One that the registration has, of its own or its sidecar's, is replaced where it stands.
        let registration = &mut entry.registration;
        let sidecar = registration
            .sidecar
            .iter_mut()
            .flat_map(|it| &mut it.checks);
        let mut own = registration.checks.iter_mut().chain(sidecar);
        match own.find(|other| other.id == check.id) {
            Some(place) => *place = check,
            None => entry.extra.push(check),
        }
        self.fits(&entries, &entry)?;
        self.put(&mut entries, entry)?;
        self.publish(entries);
        Ok(())
    }

    /// Takes a check away; one that is not there is as good as taken away. Blocks.
    pub(crate) fn remove_check(&self, id: &str, by: &Owner) -> Result<(), CatalogError> {
        let _writing = self.writing();
        let mut entries = self.entries();
        let view = View(Arc::new(entries.clone()));
        let Some((entry, _)) = view.check(id) else {
            return Ok(());
        };
        may_remove(entry, "check", by)?;
        let mut entry = Entry::clone(entry);
        entry.extra.retain(|check| check.id != id);
        entry.registration.checks.retain(|check| check.id != id);
        if let Some(sidecar) = &mut entry.registration.sidecar {
            sidecar.checks.retain(|check| check.id != id);
        }
        self.put(&mut entries, entry)?;
        self.publish(entries);
        Ok(())
    }

    /// Reads the instance files and makes the catalog's part of them what they say. A mistake
    /// anywhere changes nothing. Says how many instances they have. Blocks.
    pub(crate) fn load_files(&self, folder: &Path) -> Result<usize, AgentError> {
        let wanted = files::read(folder)?;
        let refused = |e: CatalogError| AgentError::Instance(e.to_string());
        let _writing = self.writing();
        let before = self.entries();
        let mut entries = before.clone();
        let ids: BTreeSet<&str> = wanted.iter().map(|(_, it)| it.id.as_str()).collect();
        entries.retain(|id, entry| {
            !matches!(entry.owner, Owner::File(_)) || ids.contains(id.as_str())
        });
        let count = wanted.len();
        for (path, registration) in wanted {
            let known = before.get(&registration.id);
            let extra = known.map(|old| old.extra.clone()).unwrap_or_default();
            let entry = self
                .complete(&entries, registration, None, Owner::File(path), extra)
                .map_err(refused)?;
            entries.insert(entry.registration.id.clone(), Arc::new(entry));
        }
        // All is well: only now is anything written.
        for (id, entry) in &entries {
            if before.get(id) != Some(entry) {
                self.store(entry).map_err(refused)?;
            }
        }
        for id in before.keys().filter(|id| !entries.contains_key(*id)) {
            disk::remove(&self.path(id)).map_err(AgentError::disk(self.path(id)))?;
        }
        self.publish(entries);
        Ok(count)
    }

    /// Takes away what instance files registered, for an agent that has none any more: nobody else
    /// may. Blocks.
    pub(crate) fn forget_files(&self) -> Result<(), AgentError> {
        let _writing = self.writing();
        let mut entries = self.entries();
        let files = |entry: &Arc<Entry>| matches!(entry.owner, Owner::File(_));
        for id in self.entries().into_values().filter(files) {
            let id = &id.registration.id;
            disk::remove(&self.path(id)).map_err(AgentError::disk(self.path(id)))?;
            entries.remove(id);
            tracing::info!(
                instance = id,
                "gone, since there is no instance_dir any more"
            );
        }
        self.publish(entries);
        Ok(())
    }

    /// Whether anything is registered from instance files.
    pub(crate) fn has_files(&self) -> bool {
        let view = self.view();
        view.iter()
            .any(|entry| matches!(entry.owner, Owner::File(_)))
    }

    /// Checks a registration against the others, and fills in its sidecar's port.
    fn complete(
        &self,
        entries: &BTreeMap<String, Arc<Entry>>,
        mut registration: Registration,
        body: Option<Value>,
        owner: Owner,
        mut extra: Vec<CheckDefinition>,
    ) -> Result<Entry, CatalogError> {
        let known = entries.get(&registration.id);
        match known {
            Some(known) if !known.owner.may_be_replaced_by(&owner) => {
                return Err(CatalogError::not_owner(known, "instance"));
            }
            None if entries.len() >= self.settings.limit => {
                return Err(CatalogError::TooMany(self.settings.limit));
            }
            _ => {}
        }
        if let (Some(sidecar), Some(bind)) = (&mut registration.sidecar, self.settings.bind) {
            bind_at(sidecar, bind);
        }
        let mut picked = false;
        if let Some(sidecar) = &mut registration.sidecar
            && registration.gateway.is_none()
            && sidecar.port == 0
        {
            let before = known
                .filter(|known| known.picked)
                .and_then(|known| known.registration.sidecar.as_ref());
            let port = match before {
                Some(before) => before.port,
                None => self.free_port(entries, &registration.id)?,
            };
            set_sidecar_port(sidecar, port);
            picked = true;
        }
        let sidecar = registration.sidecar.iter().flat_map(|it| &it.checks);
        let ids: BTreeSet<&str> = registration
            .checks
            .iter()
            .chain(sidecar)
            .map(|it| it.id.as_str())
            .collect();
        extra.retain(|extra| !ids.contains(extra.id.as_str()));
        let entry = Entry {
            registration,
            owner,
            body,
            picked,
            extra,
        };
        unique(entries, &entry)?;
        self.fits(entries, &entry)?;
        Ok(entry)
    }

    /// Whether all instances together, this one with them, can be told to a server. A stream that
    /// begins with more than it takes would end, and begin again, for good.
    fn fits(
        &self,
        entries: &BTreeMap<String, Arc<Entry>>,
        entry: &Entry,
    ) -> Result<(), CatalogError> {
        let id = &entry.registration.id;
        if entries.get(id).is_some_and(|known| **known == *entry) {
            return Ok(());
        }
        let others = entries.values().map(|it| &**it);
        let all = others.filter(|it| it.registration.id != *id).chain([entry]);
        let bytes = all.map(|it| self.bytes(it)).fold(0, usize::saturating_add);
        match bytes <= MAX_CATALOG {
            true => Ok(()),
            false => Err(CatalogError::TooLarge {
                id: id.clone(),
                bytes,
            }),
        }
    }

    /// What an instance takes in a catalog, with the longest of states.
    fn bytes(&self, entry: &Entry) -> usize {
        let (node, address) = (&self.settings.node, &self.settings.address);
        let instance = entry.instance(node, address, |_| Status::Critical);
        serde_json::to_vec(&instance).map_or(usize::MAX, |json| json.len() + 1)
    }

    fn free_port(
        &self,
        entries: &BTreeMap<String, Arc<Entry>>,
        id: &str,
    ) -> Result<u16, CatalogError> {
        let sidecars = entries.values();
        let taken = sidecars
            .filter_map(|entry| Some(entry.registration.sidecar.as_ref()?.port))
            .collect();
        let bind = self.settings.bind.unwrap_or(Ipv4Addr::UNSPECIFIED.into());
        let ports = &self.settings.ports;
        ports::pick(id, bind, ports, &taken).ok_or_else(|| CatalogError::NoPort {
            id: id.to_owned(),
            range: ports.clone(),
        })
    }

    fn put(
        &self,
        entries: &mut BTreeMap<String, Arc<Entry>>,
        entry: Entry,
    ) -> Result<(), CatalogError> {
        let id = entry.registration.id.clone();
        // Nomad may send the same again and again: no need to write it.
        if entries.get(&id).is_none_or(|known| **known != entry) {
            self.store(&entry)?;
            entries.insert(id, Arc::new(entry));
        }
        Ok(())
    }

    fn store(&self, entry: &Entry) -> Result<(), CatalogError> {
        let id = &entry.registration.id;
        serde_json::to_vec(entry)
            .map_err(io::Error::from)
            .and_then(|bytes| disk::write(&self.path(id), &bytes))
            .map_err(|source| CatalogError::Disk {
                id: id.clone(),
                source,
            })
    }

    fn remove(
        &self,
        entries: &mut BTreeMap<String, Arc<Entry>>,
        id: &str,
    ) -> Result<(), CatalogError> {
        disk::remove(&self.path(id)).map_err(|source| CatalogError::Disk {
            id: id.to_owned(),
            source,
        })?;
        entries.remove(id);
        Ok(())
    }

    fn path(&self, id: &str) -> PathBuf {
        self.folder.join(disk::file_name(id))
    }

    fn entries(&self) -> BTreeMap<String, Arc<Entry>> {
        BTreeMap::clone(&self.view.borrow().0)
    }

    fn publish(&self, entries: BTreeMap<String, Arc<Entry>>) {
        self.view.send_if_modified(|view| {
            let changed = *view.0 != entries;
            if changed {
                *view = View(Arc::new(entries));
            }
            changed
        });
    }

    fn writing(&self) -> std::sync::MutexGuard<'_, ()> {
        // What it guards is made whole before it shows, so a poisoned lock is as good.
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where a sidecar listens that does not say. A check of its own port that goes to 127.0.0.1, as
/// the default one does, goes there too.
fn bind_at(sidecar: &mut Sidecar, bind: IpAddr) {
    if sidecar.proxy.bind_address.is_some() {
        return;
    }
    sidecar.proxy.bind_address = Some(bind.to_string());
    if bind.is_unspecified() {
        return;
    }
    let default = format!("127.0.0.1:{}", sidecar.port);
    for check in &mut sidecar.checks {
        if let CheckKind::Tcp { address } = &mut check.kind
            && *address == default
        {
            *address = host_port(&bind.to_string(), sidecar.port);
        }
    }
}

/// The ids of instances, sidecars and checks are each unique on the node.
fn unique(entries: &BTreeMap<String, Arc<Entry>>, entry: &Entry) -> Result<(), CatalogError> {
    let registration = &entry.registration;
    let taken = |taken: &str, by: &Entry| CatalogError::Taken {
        id: registration.id.clone(),
        taken: taken.to_owned(),
        by: by.registration.id.clone(),
    };
    let mut own = BTreeSet::new();
    for (_, check) in entry.checks() {
        if !own.insert(check.id.as_str()) {
            return Err(taken(&check.id, entry));
        }
    }
    let sidecar = registration.sidecar.as_ref().map(|it| it.id.as_str());
    for other in entries
        .values()
        .filter(|it| it.registration.id != registration.id)
    {
        let others = other.registration.sidecar.as_ref().map(|it| it.id.as_str());
        if others == Some(registration.id.as_str()) {
            return Err(taken(&registration.id, other));
        }
        if let Some(id) = sidecar
            && (id == other.registration.id || others == Some(id))
        {
            return Err(taken(id, other));
        }
        if let Some((_, check)) = other.checks().find(|(_, it)| own.contains(it.id.as_str())) {
            return Err(taken(&check.id, other));
        }
    }
    Ok(())
}

fn may_remove(entry: &Entry, what: &'static str, by: &Owner) -> Result<(), CatalogError> {
    match entry.owner.may_be_removed_by(by) {
        true => Ok(()),
        false => Err(CatalogError::not_owner(entry, what)),
    }
}

#[cfg(test)]
mod tests;
