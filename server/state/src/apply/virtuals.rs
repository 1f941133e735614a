//! Virtual addresses come and go with their services.

use std::collections::BTreeSet;

use mesh_model::Key;

use super::{Draft, SERVER};
use crate::key::{RowKey, Virtual};
use crate::outcome::Refusal;

impl Draft {
    /// Gives an address to each touched service that exists and has none, and
    /// takes that of each that exists no more. At the end, so that a service
    /// whose last instance goes and another comes keeps what it had. Those that
    /// go come first, so that what they leave is free at once.
    pub(super) fn settle_virtuals(&mut self, count: u32) -> Result<(), Refusal> {
        let touched: BTreeSet<Key> = self
            .touched
            .iter()
            .filter_map(|row| match row {
                RowKey::Service(key) | RowKey::Endpoints(key) => Some(key.clone()),
                _ => None,
            })
            .collect();
        let (there, gone): (Vec<Key>, Vec<Key>) = touched
            .into_iter()
            .partition(|service| self.state.exists(service));
        for service in gone {
            if let Some(address) = self.state.addresses.remove(&service) {
                self.delete::<Virtual>(&Virtual { address, service });
            }
        }
        for service in there {
            if self.state.virtual_of(&service).is_some() {
                continue;
            }
            let address = self.state.place(&service, count).ok_or_else(|| {
                let key = RowKey::Service(service.clone());
                Refusal::invalid(
                    key,
                    "every virtual address is taken; delete services that nobody needs",
                )
            })?;
            self.state.addresses.insert(service.clone(), address);
            self.put(Virtual { address, service }, SERVER);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::{BTreeMap, BTreeSet};

    use mesh_model::{
        Action, Entry, EntryKey, Instance, Node, NodeState, Service, VirtualAddress, Weights,
    };
    use proptest::prelude::*;

    use super::*;
    use crate::command::{Command, Op};
    use crate::state::State;

    /// So many services want so many addresses.
    const NAMES: usize = 6;
    const COUNT: u32 = 4;

    /// A service's block is written or deleted, or its instance comes or goes;
    /// several blocks at once.
    #[derive(Clone, Debug)]
    enum Ask {
        Blocks(BTreeMap<usize, bool>),
        Instance(usize, bool),
    }

    fn asks() -> impl Strategy<Value = Ask> {
        prop_oneof![
            prop::collection::btree_map(0..NAMES, any::<bool>(), 1..4).prop_map(Ask::Blocks),
            (0..NAMES, any::<bool>()).prop_map(|(name, comes)| Ask::Instance(name, comes)),
        ]
    }

    fn key(number: usize) -> Key {
        Key::of(format!("s{number}"))
    }

    fn command(state: &State, ask: &Ask) -> Command {
        let stream = state.node("n1").map_or(0, |row| row.value.stream);
        let node = "n1".to_owned();
        match ask {
            Ask::Blocks(blocks) => Command::Transaction {
                ops: blocks
                    .iter()
                    .filter_map(|(number, comes)| {
                        let (key, cas) = (key(*number), None);
                        let there = state.service(&key).is_some();
                        match comes {
                            true => Some(Op::Put {
                                entry: Entry::Service(Service::named(&key)),
                                cas,
                            }),
                            false => there.then_some(Op::Delete {
                                key: EntryKey::Service(key),
                                cas,
                            }),
                        }
                    })
                    .collect(),
                owner: "cli".into(),
                force: false,
            },
            Ask::Instance(number, true) => Command::PutInstance {
                instance: Instance {
                    namespace: key(*number).namespace,
                    service: key(*number).name,
                    id: format!("i{number}"),
                    node: node.clone(),
                    address: "10.0.0.1".into(),
                    port: 80,
                    tags: Vec::new(),
                    meta: Default::default(),
                    weights: Weights::default(),
                    proxy: None,
                    gateway: None,
                    checks: Default::default(),
                },
                node,
                stream,
            },
            Ask::Instance(number, false) => Command::RemoveInstance {
                node,
                stream,
                id: format!("i{number}"),
            },
        }
    }

    fn run(state: &State, command: &Command) -> Result<State, Refusal> {
        let mut draft = Draft::of(state, 1);
        draft.run(command)?;
        Ok(draft.finish(COUNT)?.0)
    }

    fn begin() -> State {
        let bootstrap = Command::Bootstrap {
            cluster_id: "c".into(),
            trust_domain: "c.mesh".into(),
            datacenter: "dc1".into(),
            epoch: "e".into(),
            default_intention: Action::Deny,
        };
        let node = Node {
            id: "n1".into(),
            name: "n1".into(),
            address: "10.0.0.1".into(),
            version: String::new(),
            meta: Default::default(),
            state: NodeState::Alive,
            stream: 0,
        };
        let state = run(&State::new(), &bootstrap).unwrap();
        run(&state, &Command::RegisterNode { node }).unwrap()
    }

    /// Whether a service has a block or its instance once this was done.
    fn exists_after(state: &State, ask: &Ask, number: usize) -> bool {
        let block = state.service(&key(number)).is_some();
        let instance = state.instance("n1", &format!("i{number}")).is_some();
        match ask {
            Ask::Blocks(asked) => *asked.get(&number).unwrap_or(&block) || instance,
            Ask::Instance(of, comes) if *of == number => block || *comes,
            Ask::Instance(..) => block || instance,
        }
    }

    /// The addresses that should be: the naive way, over what there was.
    fn expected(
        before: &BTreeMap<Key, VirtualAddress>,
        services: &BTreeSet<Key>,
    ) -> Option<BTreeMap<Key, VirtualAddress>> {
        let mut all = before.clone();
        all.retain(|service, _| services.contains(service));
        for service in services {
            if all.contains_key(service) {
                continue;
            }
            let home = State::new().place(service, COUNT).unwrap();
            let places: Vec<_> = (0..COUNT).filter_map(VirtualAddress::nth).collect();
            let at = places.iter().position(|place| *place == home).unwrap();
            let free = places.iter().cycle().skip(at).take(places.len());
            let free = free
                .into_iter()
                .find(|place| !all.values().any(|a| a == *place));
            all.insert(service.clone(), *free?);
        }
        Some(all)
    }

    proptest! {
        /// In a range that is too small, where places collide all the time.
        #[test]
        fn an_address_is_ones_own_and_stays(asks in prop::collection::vec(asks(), 1..30)) {
            let mut state = begin();
            let mut addresses = BTreeMap::new();
            for ask in &asks {
                let command = command(&state, ask);
                let wanted: BTreeSet<Key> = (0..NAMES)
                    .filter(|number| exists_after(&state, ask, *number))
                    .map(key)
                    .collect();
                match (run(&state, &command), expected(&addresses, &wanted)) {
                    (Ok(next), Some(after)) => (state, addresses) = (next, after),
                    (Err(refusal), None) => {
                        let said = refusal.to_string();
                        prop_assert!(said.contains("every virtual address is taken"), "{}", said);
                        prop_assert!(wanted.len() > COUNT as usize);
                    }
                    (got, expected) => prop_assert!(false, "{:?}: {:?}, {:?}", command, got, expected),
                }
                let got: BTreeMap<_, _> = (0..NAMES)
                    .filter_map(|number| Some((key(number), state.virtual_of(&key(number))?)))
                    .collect();
                prop_assert_eq!(&got, &addresses);
                prop_assert_eq!(state.virtuals().count(), addresses.len());
                for (service, address) in &addresses {
                    prop_assert_eq!(state.service_at(*address), Some(service));
                }
                let bytes = state.to_snapshot().unwrap();
                prop_assert!(State::read_snapshot(bytes.as_slice()).unwrap() == state);
            }
        }
    }

    #[test]
    fn without_any_address_nothing_is_placed() {
        assert_eq!(State::new().place(&key(0), 0), None);
        assert!(State::new().place(&key(0), 1).is_some());
    }
}
