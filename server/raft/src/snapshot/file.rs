//! The snapshot file, version 1:
//!
//! ```text
//! "MESHSNAP"  version u32  header length u32  header (JSON)  body ...
//! body length u64  sha256 of everything before it
//! ```
//!
//! Numbers are big-endian. The length stands behind the body, because the body is
//! written as a stream.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::SnapshotInfo;
use crate::disk::DiskHeader;
use crate::error::SnapshotError;
use crate::machine::SnapshotSource;
use crate::types::{LogId, SnapshotMeta, StoredMembership};

const MAGIC: &[u8; 8] = b"MESHSNAP";
const VERSION: u32 = 1;
const TRAILER: u64 = 8 + 32;
/// A header is some hundred bytes for each server.
const HEADER_LIMIT: u32 = 1 << 20;

/// What stands before the body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "DiskHeader", into = "DiskHeader")]
pub(crate) struct Header {
    pub(crate) id: String,
    pub(crate) last: Option<LogId>,
    pub(crate) membership: StoredMembership,
    pub(crate) machine_format: u32,
}

impl Header {
    pub(crate) fn meta(&self) -> SnapshotMeta {
        SnapshotMeta {
            last_log_id: self.last,
            last_membership: self.membership.clone(),
            snapshot_id: self.id.clone(),
        }
    }
}

/// Writes a whole file and makes it durable, under its present name.
pub(crate) fn write(file: &File, header: &Header, body: &dyn SnapshotSource) -> io::Result<()> {
    let sum = Summing {
        inner: file,
        sum: Sha256::new(),
        bytes: 0,
    };
    let mut out = BufWriter::with_capacity(1 << 18, sum);
    let json = serde_json::to_vec(header)?;
    let length = u32::try_from(json.len()).map_err(io::Error::other)?;
    out.write_all(MAGIC)?;
    out.write_all(&VERSION.to_be_bytes())?;
    out.write_all(&length.to_be_bytes())?;
    out.write_all(&json)?;
    out.flush()?;
    let before = out.get_ref().bytes;
    body.write_to(&mut out)?;
    out.flush()?;
    let length = out.get_ref().bytes - before;
    out.write_all(&length.to_be_bytes())?;
    out.flush()?;
    let sum = out.get_ref().sum.clone().finalize();
    out.get_mut().inner.write_all(&sum)?;
    drop(out);
    file.sync_all()
}

/// Reads a file from its begin to its end and checks all that can be checked. What
/// it returns has its cursor at the body.
pub(crate) fn verify(path: &Path, mut file: File) -> Result<(Header, Body), SnapshotError> {
    let io = |e: io::Error| SnapshotError::Io {
        file: path.to_owned(),
        reason: e.to_string(),
    };
    let corrupt = |reason: &str| SnapshotError::Corrupt {
        file: path.to_owned(),
        reason: reason.to_owned(),
    };
    let cut_off = || corrupt("it is cut off");

    let total = file.seek(SeekFrom::End(0)).map_err(io)?;
    file.seek(SeekFrom::Start(0)).map_err(io)?;
    let mut input = BufReader::with_capacity(1 << 18, file);
    let mut start = [0; 16];
    input.read_exact(&mut start).map_err(|_| cut_off())?;
    let (magic, rest) = start.split_at(8);
    if magic != MAGIC {
        return Err(corrupt("it is not a snapshot of this program"));
    }
    let (version, length) = rest.split_at(4);
    let version = u32_of(version);
    if version != VERSION {
        return Err(SnapshotError::Version {
            file: path.to_owned(),
            found: version,
            known: VERSION,
        });
    }
    let header_length = u32_of(length);
    let body_at = 16 + u64::from(header_length);
    let Some(body_length) = total.checked_sub(body_at + TRAILER) else {
        return Err(cut_off());
    };
    if header_length > HEADER_LIMIT {
        return Err(corrupt("its header is too long"));
    }

    // The sum first: until it is right, no byte of the file means anything.
    let mut sum = Sha256::new();
    sum.update(start);
    let mut left = total - 16 - 32;
    let mut json = Vec::new();
    let mut length = [0; 8];
    let mut buffer = vec![0; 1 << 16];
    while left > 0 {
        let want = usize::try_from(left)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        let piece = buffer.get_mut(..want).unwrap_or_default();
        input.read_exact(piece).map_err(|_| cut_off())?;
        sum.update(&*piece);
        let missing = (header_length as usize).saturating_sub(json.len());
        json.extend_from_slice(piece.get(..missing.min(want)).unwrap_or_default());
        left -= want as u64;
    }
    let mut found = [0; 32];
    input.read_exact(&mut found).map_err(|_| cut_off())?;
    if found != *sum.finalize() {
        return Err(corrupt(
            "its checksum does not match: it is cut off or damaged",
        ));
    }
    let mut file = input.into_inner();
    file.seek(SeekFrom::Start(body_at + body_length))
        .map_err(io)?;
    file.read_exact(&mut length).map_err(io)?;
    if u64::from_be_bytes(length) != body_length {
        return Err(corrupt("its length does not match"));
    }
    let header: Header =
        serde_json::from_slice(&json).map_err(|e| corrupt(&format!("its header: {e}")))?;
    file.seek(SeekFrom::Start(body_at)).map_err(io)?;
    Ok((
        header,
        Body {
            bytes: body_length,
            input: BufReader::with_capacity(1 << 18, file).take(body_length),
        },
    ))
}

/// Reads a snapshot file as a whole, and says what it is.
///
/// # Errors
/// [`SnapshotError`], naming the file.
pub fn inspect(path: &Path) -> Result<SnapshotInfo, SnapshotError> {
    let io = |e: io::Error| SnapshotError::Io {
        file: path.to_owned(),
        reason: e.to_string(),
    };
    let file = File::open(path).map_err(io)?;
    let bytes = file.metadata().map_err(io)?.len();
    let (header, body) = verify(path, file)?;
    Ok(info(path, &header, bytes, body.bytes))
}

pub(crate) fn info(path: &Path, header: &Header, bytes: u64, body_bytes: u64) -> SnapshotInfo {
    SnapshotInfo {
        file: path.to_owned(),
        index: header.last.map_or(0, |id| id.index),
        term: header.last.map_or(0, |id| id.leader_id.term),
        machine_format: header.machine_format,
        bytes,
        body_bytes,
    }
}

/// The body of a file that was verified.
pub(crate) struct Body {
    pub(crate) bytes: u64,
    input: io::Take<BufReader<File>>,
}

impl Read for Body {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.input.read(buf)
    }
}

struct Summing<W> {
    inner: W,
    sum: Sha256,
    bytes: u64,
}

impl<W: Write> Write for Summing<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let n = self.inner.write(buf)?;
        self.sum.update(buf.get(..n).unwrap_or_default());
        self.bytes += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

fn u32_of(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0, |n, b| n << 8 | u32::from(*b))
}
