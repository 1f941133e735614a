//! Consensus: openraft's log store, snapshots, network; no openraft type leaves it
