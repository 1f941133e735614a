//! Writing a snapshot.

use std::io::{self, Write};

use sha2::{Digest, Sha256};

use super::SNAPSHOT_FORMAT;
use super::line::{Header, Item, Line, Trailer};
use crate::apply::Piece;
use crate::state::State;
use crate::table::{Stored, Table};

impl State {
    /// Writes a snapshot of this, line by line; its length in bytes. Give it a
    /// writer with a buffer.
    pub fn write_snapshot(&self, to: impl Write) -> io::Result<u64> {
        let mut out = Lines {
            to,
            hash: Sha256::new(),
            lines: 0,
            bytes: 0,
        };
        out.line(&Line::Snapshot(Header {
            v: SNAPSHOT_FORMAT,
            level: self.level(),
            epoch: self.epoch.clone(),
            index: self.index,
            now: self.now,
        }))?;
        out.table(&self.cluster, Line::Cluster)?;
        out.table(&self.mesh, Line::Mesh)?;
        out.table(&self.services, Line::Service)?;
        out.table(&self.routes, Line::Route)?;
        out.table(&self.intentions, Line::Intention)?;
        out.table(&self.gateways, Line::Gateway)?;
        out.table(&self.config, Line::Config)?;
        out.table(&self.nodes, Line::Node)?;
        out.table(&self.instances, Line::Instance)?;
        out.table(&self.endpoints, Line::Endpoints)?;
        out.table(&self.virtuals, Line::Virtual)?;
        out.table(&self.ca, Line::Ca)?;
        out.table(&self.revocations, Line::Revocation)?;
        for leaf in self.leaves.values() {
            out.line(&Line::Leaf(leaf.clone()))?;
        }
        if let Some(staging) = &self.staging {
            let begun = std::iter::once(None);
            for text in begun.chain(staging.pieces.iter().cloned().map(Some)) {
                let restore = staging.id.clone();
                out.line(&Line::Staging(Piece { restore, text }))?;
            }
        }
        out.end()
    }

    /// A snapshot in memory.
    pub fn to_snapshot(&self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.write_snapshot(&mut bytes)?;
        Ok(bytes)
    }
}

struct Lines<W> {
    to: W,
    hash: Sha256,
    lines: u64,
    bytes: u64,
}

impl<W: Write> Lines<W> {
    fn table<T: Stored>(&mut self, table: &Table<T>, line: fn(Item<T>) -> Line) -> io::Result<()> {
        if table.floor() > 0 {
            self.line(&line(Item::Floor(table.floor())))?;
        }
        for row in table.rows() {
            self.line(&line(Item::Row(row.clone())))?;
        }
        for tombstone in table.tombstones() {
            self.line(&line(Item::Gone(tombstone.clone())))?;
        }
        Ok(())
    }

    fn line(&mut self, line: &Line) -> io::Result<()> {
        let mut text = serde_json::to_vec(line)?;
        text.push(b'\n');
        self.hash.update(&text);
        self.lines += 1;
        self.bytes += text.len() as u64;
        self.to.write_all(&text)
    }

    fn end(mut self) -> io::Result<u64> {
        let trailer = Trailer {
            lines: self.lines,
            sha256: format!("{:x}", self.hash.clone().finalize()),
        };
        self.line(&Line::End(trailer))?;
        self.to.flush()?;
        Ok(self.bytes)
    }
}
