//! Which virtual address a service has, and which service an address.
//!
//! Every service that has a block or instances has one address, for as long as
//! it has either. The place is a function of the name: the first 28 bits of
//! SHA-256 of `namespace/name`, and when another service is there already, the
//! next place that is free. So a service that goes and comes again, or a mesh
//! that is set up anew without its state, in practice finds its old addresses,
//! which applications and their resolvers keep for longer than they should; two
//! names of one place are rare enough (one pair in 250 million) that the exception hurts
//! nobody. What is kept is the outcome, not the rule: an address never moves
//! because another service came or went.

use std::sync::Arc;

use mesh_model::{Key, Row, VirtualAddress};
use sha2::{Digest, Sha256};

use crate::apply::SERVER;
use crate::key::Virtual;
use crate::state::State;

impl State {
    /// The virtual address of a service; `None`: it has neither a block nor
    /// instances.
    pub fn virtual_of(&self, service: &Key) -> Option<VirtualAddress> {
        self.addresses.get(service).copied()
    }

    /// The service that has a virtual address.
    pub fn service_at(&self, address: VirtualAddress) -> Option<&Key> {
        self.virtuals
            .range(first_at(address)..)
            .take_while(|(key, _)| key.address == address)
            .map(|(key, _)| &key.service)
            .next()
    }

    /// Every virtual address, in their order.
    pub fn virtuals(&self) -> impl Iterator<Item = &Arc<Row<Virtual>>> {
        self.virtuals.rows()
    }

    /// The index of the last change of a service's address, as of a table.
    ///
    /// The memory of deletions is by address; but the address went when the
    /// last of block and instances did, and these are remembered by service.
    pub(crate) fn virtual_index(&self, service: &Key) -> u64 {
        match self.virtual_of(service) {
            Some(address) => self.virtuals.index_of(&Virtual {
                address,
                service: service.clone(),
            }),
            None => {
                let block = self.services.index_of(service);
                block.max(self.endpoints.index_of(service))
            }
        }
    }

    /// The index of the last change of who has an address, as of a table.
    pub(crate) fn address_index(&self, address: VirtualAddress) -> u64 {
        self.virtuals
            .index_from(&first_at(address), |key| key.address == address)
    }

    /// Whether a service has a block or instances.
    pub(crate) fn exists(&self, service: &Key) -> bool {
        self.services.get(service).is_some() || self.endpoints.get(service).is_some()
    }

    /// The address that a service gets that has none yet, of the first `count`
    /// addresses. `None`: every one of them is taken.
    pub(crate) fn place(&self, service: &Key, count: u32) -> Option<VirtualAddress> {
        let home = home(service, count)?;
        (home..count)
            .chain(0..home)
            .filter_map(VirtualAddress::nth)
            .find(|address| self.service_at(*address).is_none())
    }

    /// After a snapshot was read: what follows from the rows, and whether
    /// exactly the services that exist have an address, each its own.
    ///
    /// A snapshot without any is from before there were virtual addresses, and
    /// they are given out now, by name, as old as their services.
    pub(crate) fn derive_virtuals(&mut self) -> Result<(), String> {
        let services = self.service_list().into_iter().map(|one| one.key);
        if self.virtuals.is_blank() {
            for service in services.collect::<Vec<_>>() {
                let address = self.place(&service, VirtualAddress::COUNT);
                let address = address.ok_or("it has more services than there are addresses")?;
                let (index, at) = self.born(&service);
                self.addresses.insert(service.clone(), address);
                self.virtuals.load(Arc::new(Row {
                    value: Virtual { address, service },
                    owner: SERVER.to_owned(),
                    create_index: index,
                    modify_index: index,
                    created_at: at,
                    modified_at: at,
                }));
            }
            return Ok(());
        }
        let mut last = None;
        for row in self.virtuals.rows() {
            let Virtual { address, service } = &row.value;
            if last.replace(*address) == Some(*address) {
                return Err(format!("two services have the address {address}"));
            }
            if self.addresses.insert(service.clone(), *address).is_some() {
                return Err(format!("service {service} has two addresses"));
            }
        }
        match services.eq(self.addresses.keys().cloned()) {
            true => Ok(()),
            false => Err("the virtual addresses are not those of the services".to_owned()),
        }
    }

    /// When the older of a service's block and instances came: index and time.
    fn born(&self, service: &Key) -> (u64, u64) {
        let block = self.services.get(service);
        let block = block.map(|row| (row.create_index, row.created_at));
        let endpoints = self.endpoints.get(service);
        let endpoints = endpoints.map(|row| (row.create_index, row.created_at));
        block.into_iter().chain(endpoints).min().unwrap_or((0, 0))
    }
}

/// The least key of an address.
fn first_at(address: VirtualAddress) -> Virtual {
    Virtual {
        address,
        service: Key::new("", ""),
    }
}

/// The number of the address at which a service's search begins, below
/// `count`. Part of what is replicated: it may never change.
fn home(service: &Key, count: u32) -> Option<u32> {
    let digest = Sha256::digest(format!("{}/{}", service.namespace, service.name));
    let (first, _) = digest.split_first_chunk()?;
    (u32::from_be_bytes(*first) >> 4).checked_rem(count)
}
