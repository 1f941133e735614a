//! Reading a snapshot: all of it, or an error.

use std::io::{BufRead, BufReader, Read};
use std::sync::Arc;

use imbl::OrdMap;
use mesh_model::Key;
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::line::{Header, Item, Line, Trailer};
use super::{MAX_LINE, SNAPSHOT_FORMAT, SnapshotError, Summary};
use crate::apply::{Piece, Staging};
use crate::command::LEVEL;
use crate::key::InstanceKey;
use crate::state::{MAX_NUMBER, State};
use crate::table::{Stored, Table};

impl State {
    /// Reads a snapshot and checks that it is whole and consistent.
    pub fn read_snapshot(from: impl Read) -> Result<Self, SnapshotError> {
        Self::read_snapshot_up_to(from, LEVEL)
    }

    /// The same, as one that speaks up to `level`.
    pub fn read_snapshot_up_to(from: impl Read, level: u32) -> Result<Self, SnapshotError> {
        let mut lines = Lines::open(from, level)?;
        let mut state = Self {
            epoch: lines.header.epoch.clone(),
            index: lines.header.index,
            now: lines.header.now,
            ..Self::default()
        };
        while let Some((line, _)) = lines.next()? {
            state.take(line).map_err(|message| lines.refuse(message))?;
        }
        state.derive().map_err(SnapshotError::Damaged)?;
        Ok(state)
    }

    fn take(&mut self, line: Line) -> Result<(), String> {
        let last = (self.index, self.now);
        match line {
            Line::Cluster(item) => load(&mut self.cluster, item, last),
            Line::Mesh(item) => load(&mut self.mesh, item, last),
            Line::Service(item) => load(&mut self.services, item, last),
            Line::Route(item) => load(&mut self.routes, item, last),
            Line::Intention(item) => load(&mut self.intentions, item, last),
            Line::Gateway(item) => load(&mut self.gateways, item, last),
            Line::Config(item) => load(&mut self.config, item, last),
            Line::Node(item) => load(&mut self.nodes, item, last),
            Line::Instance(item) => load(&mut self.instances, item, last),
            Line::Endpoints(item) => load(&mut self.endpoints, item, last),
            Line::Virtual(item) => load(&mut self.virtuals, item, last),
            Line::Ca(item) => load(&mut self.ca, item, last),
            Line::Revocation(item) => load(&mut self.revocations, item, last),
            Line::Leaf(leaf) => match self.leaves.insert(leaf.place(), leaf) {
                None => Ok(()),
                Some(_) => Err("its key stands there twice".to_owned()),
            },
            Line::Staging(piece) => self.take_piece(piece),
            line @ (Line::Snapshot(_) | Line::End(_)) => {
                line.table().map(|_| ()).map_err(str::to_owned)
            }
        }
    }

    fn take_piece(&mut self, piece: Piece) -> Result<(), String> {
        match (&mut self.staging, piece.text) {
            (None, None) => self.staging = Some(Arc::new(Staging::new(&piece.restore))),
            (Some(staging), Some(text)) if staging.id == piece.restore => {
                Arc::make_mut(staging).push(text)?;
            }
            _ => return Err("a piece of a restore that has not begun".to_owned()),
        }
        Ok(())
    }

    /// What follows from the rows; and whether the rows follow from each other.
    fn derive(&mut self) -> Result<(), String> {
        let mut counts: OrdMap<Key, u64> = OrdMap::new();
        for row in self.instances.rows() {
            let instance = &row.value;
            let key = InstanceKey {
                node: instance.node.clone(),
                id: instance.id.clone(),
            };
            if self.node(&instance.node).is_none() {
                return Err(format!("instance {}/{} is on no node", key.node, key.id));
            }
            *counts.entry(instance.key()).or_insert(0) += 1;
            self.by_service.insert((instance.key(), key));
        }
        let registered = self.endpoints.rows().map(|row| &row.value);
        if !counts
            .iter()
            .eq(registered.map(|value| (&value.service, &value.instances)))
        {
            return Err("the endpoints are not those of the instances".to_owned());
        }
        for row in self.config.rows() {
            let entry = &row.value;
            for claimed in &entry.rows {
                self.claims.insert((claimed.clone(), entry.key.clone()));
            }
        }
        self.derive_virtuals()
    }
}

/// `index` and `now`: the snapshot's, above which nothing in it is.
fn load<T: Stored>(
    table: &mut Table<T>,
    item: Item<T>,
    (index, now): (u64, u64),
) -> Result<(), String> {
    let within = |last: u64| match last <= index {
        true => Ok(()),
        false => Err(format!("index {last} is above the snapshot's, {index}")),
    };
    let fresh = match item {
        Item::Row(row) => {
            within(row.modify_index)?;
            if row.modified_at > now {
                let at = row.modified_at;
                return Err(format!("time {at} is after the snapshot's, {now}"));
            }
            if row.create_index > row.modify_index || row.created_at > row.modified_at {
                return Err("it was changed before it was made".to_owned());
            }
            table.load(row)
        }
        Item::Gone(tombstone) => {
            within(tombstone.index)?;
            table.load_tombstone(Arc::unwrap_or_clone(tombstone))
        }
        Item::Floor(floor) => {
            within(floor)?;
            table.raise_floor(floor);
            true
        }
    };
    match fresh {
        true => Ok(()),
        false => Err("its key stands there twice".to_owned()),
    }
}

/// What a snapshot is, read to its end and checked against its trailer. It
/// shows no row.
pub fn inspect(from: impl Read) -> Result<Summary, SnapshotError> {
    inspect_up_to(from, LEVEL)
}

/// The same, as one that speaks up to `level`.
pub fn inspect_up_to(from: impl Read, level: u32) -> Result<Summary, SnapshotError> {
    let mut lines = Lines::open(from, level)?;
    let mut summary = Summary {
        format: lines.header.v,
        level: lines.header.level,
        epoch: lines.header.epoch.clone(),
        index: lines.header.index,
        now: lines.header.now,
        ..Summary::default()
    };
    while let Some((line, bytes)) = lines.next()? {
        let table = line.table().map_err(|message| lines.refuse(message))?;
        if let Line::Cluster(Item::Row(row)) = &line {
            summary.cluster_id.clone_from(&row.value.cluster_id);
            summary.trust_domain.clone_from(&row.value.trust_domain);
        }
        let (row, tombstone) = line.counts();
        let table = summary.tables.entry(table.to_owned()).or_default();
        table.rows += u64::from(row);
        table.tombstones += u64::from(tombstone);
        table.bytes += bytes;
    }
    summary.bytes = lines.bytes;
    summary.sha256 = lines.sha256;
    Ok(summary)
}

/// The lines of a snapshot, between its header and its trailer.
struct Lines<R> {
    from: BufReader<R>,
    header: Header,
    hash: Sha256,
    /// How many were read.
    count: u64,
    bytes: u64,
    /// The trailer's, once it was read and found right.
    sha256: String,
}

impl<R: Read> Lines<R> {
    fn open(from: R, level: u32) -> Result<Self, SnapshotError> {
        let mut lines = Self {
            from: BufReader::with_capacity(64 << 10, from),
            header: Header {
                v: SNAPSHOT_FORMAT,
                level: LEVEL,
                epoch: String::new(),
                index: 0,
                now: 0,
            },
            hash: Sha256::new(),
            count: 0,
            bytes: 0,
            sha256: String::new(),
        };
        let text = lines
            .text()?
            .ok_or_else(|| SnapshotError::NotSnapshot("it is empty".to_owned()))?;
        lines.hash.update(&text);
        lines.header = header(&text, level)?;
        Ok(lines)
    }

    /// The next line with its length; `None` after the trailer.
    fn next(&mut self) -> Result<Option<(Line, u64)>, SnapshotError> {
        let Some(text) = self.text()? else {
            return Err(SnapshotError::Truncated(self.count));
        };
        // A line without its end was cut off, whatever it says.
        if text.last() != Some(&b'\n') {
            return Err(SnapshotError::Truncated(self.count - 1));
        }
        let line: Line =
            serde_json::from_slice(&text).map_err(|error| self.refuse(error.to_string()))?;
        if let Line::End(trailer) = line {
            self.end(trailer)?;
            return Ok(None);
        }
        self.hash.update(&text);
        Ok(Some((line, text.len() as u64)))
    }

    fn end(&mut self, trailer: Trailer) -> Result<(), SnapshotError> {
        let lines = self.count - 1;
        if trailer.lines != lines {
            return Err(SnapshotError::Damaged(format!(
                "it has {lines} lines, and its trailer says {}",
                trailer.lines
            )));
        }
        let sha256 = format!("{:x}", self.hash.clone().finalize());
        if trailer.sha256 != sha256 {
            return Err(SnapshotError::Damaged(format!(
                "its SHA-256 is {sha256}, and its trailer says {}",
                trailer.sha256
            )));
        }
        if self.text()?.is_some() {
            return Err(SnapshotError::Damaged(
                "it goes on after its trailer".to_owned(),
            ));
        }
        self.sha256 = sha256;
        Ok(())
    }

    /// The next line's bytes with its end; `None` at the end of the file.
    fn text(&mut self) -> Result<Option<Vec<u8>>, SnapshotError> {
        let mut text = Vec::new();
        let limit = MAX_LINE as u64 + 1;
        let length = (&mut self.from).take(limit).read_until(b'\n', &mut text)?;
        if length == 0 {
            return Ok(None);
        }
        self.count += 1;
        self.bytes += length as u64;
        if length > MAX_LINE {
            return Err(self.refuse(format!("it is longer than {MAX_LINE} bytes")));
        }
        Ok(Some(text))
    }

    fn refuse(&self, message: impl Into<String>) -> SnapshotError {
        SnapshotError::Line {
            line: self.count,
            message: message.into(),
        }
    }
}

fn header(text: &[u8], level: u32) -> Result<Header, SnapshotError> {
    #[derive(Deserialize)]
    struct Probe {
        snapshot: Format,
    }
    #[derive(Deserialize)]
    struct Format {
        v: u32,
    }
    let not = |e: serde_json::Error| SnapshotError::NotSnapshot(e.to_string());
    // The version first: a newer header may have fields that we do not know.
    let probe: Probe = serde_json::from_slice(text).map_err(not)?;
    match probe.snapshot.v {
        0 => return Err(SnapshotError::NotSnapshot("its version is 0".to_owned())),
        1..=SNAPSHOT_FORMAT => {}
        newer => return Err(SnapshotError::Newer(newer)),
    }
    let Line::Snapshot(header) = serde_json::from_slice(text).map_err(not)? else {
        return Err(SnapshotError::NotSnapshot("it has no header".to_owned()));
    };
    if header.level > level {
        let needs = header.level;
        return Err(SnapshotError::Level { needs, level });
    }
    if header.index > MAX_NUMBER || header.now > MAX_NUMBER {
        return Err(SnapshotError::NotSnapshot(
            "its index or time is absurd".to_owned(),
        ));
    }
    Ok(header)
}
