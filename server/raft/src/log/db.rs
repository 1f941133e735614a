//! The log's one redb file: what is in it, how it is opened and read, and how a
//! group of changes becomes one commit. Everything here blocks.

use std::any::Any;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use redb::{Database, DatabaseError, Durability, ReadableDatabase, ReadableTable};
use redb::{ReadableTableMetadata, StorageBackend, TableDefinition};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::record::{self, RecordError};
use crate::disk::{DiskLogId, DiskVote};
use crate::error::LogError;
use crate::folder::{make_dir, sync_dir};
use crate::types::{Entry, LogId, Vote};

const LOG: TableDefinition<u64, &[u8]> = TableDefinition::new("log");
const META: TableDefinition<&str, &[u8]> = TableDefinition::new("meta");

/// Where redb keeps its bytes. Tests put one in front that loses power.
pub type LogBackend = Box<dyn StorageBackend>;

/// What a log holds beside its entries.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct LogMeta {
    pub(crate) vote: Option<Vote>,
    pub(crate) committed: Option<LogId>,
    pub(crate) purged: Option<LogId>,
    /// The last entry, or where the log was purged up to.
    pub(crate) last: Option<LogId>,
}

/// One change.
#[derive(Debug)]
pub(crate) enum Change {
    Append(Vec<Entry>),
    Vote(Vote),
    Committed(Option<LogId>),
    /// Away with this entry and all that follow.
    Truncate(u64),
    /// Away with this entry and all before.
    Purge(LogId),
}

/// The open file.
pub(crate) struct LogDb {
    db: Database,
    file: PathBuf,
}

impl LogDb {
    /// Opens `dir/log.redb`, or makes it if this folder was never in use.
    pub(crate) fn open(dir: &Path, node: u64) -> Result<(Self, LogMeta), LogError> {
        let file = dir.join("log.redb");
        let io = |e: std::io::Error| LogError::Io {
            file: file.clone(),
            reason: e.to_string(),
        };
        make_dir(dir).map_err(io)?;
        // redb makes a new log of a file that is missing or empty, and the node
        // would vote a second time in a term. The marker says that there was one.
        let marker = dir.join("node.json");
        let marked = match fs::read(&marker) {
            Ok(bytes) => Some(parse_marker(&marker, &bytes)?.node),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => None,
            Err(e) => return Err(io(e)),
        };
        let empty = fs::metadata(&file).map_or(true, |m| m.len() == 0);
        if let Some(found) = marked {
            if empty {
                return Err(LogError::Missing { file, node: found });
            }
            check_node(&file, found, node)?;
        }
        // Power may go while a new file is made; it gets its name when it is whole.
        let new = dir.join("log.new");
        let path = if empty { &new } else { &file };
        if empty && new.exists() {
            fs::remove_file(&new).map_err(io)?;
        }
        let opened = guarded(&file, || {
            Database::builder()
                .create(path)
                .map_err(|e| open_error(&file, e))
        })?;
        let this = Self::set_up(opened, file.clone(), node)?;
        if empty {
            fs::rename(&new, &file).map_err(io)?;
        }
        if marked.is_none() {
            let text = serde_json::to_vec(&Marker { version: 1, node }).unwrap_or_default();
            // Makes the folder durable too, with the log's name in it.
            write_durably(&marker, &text).map_err(io)?;
        }
        Ok(this)
    }

    /// Opens a log on `backend`; `file` is only a name for errors.
    pub(crate) fn open_backend(
        backend: LogBackend,
        file: PathBuf,
        node: u64,
    ) -> Result<(Self, LogMeta), LogError> {
        let opened = guarded(&file, || {
            Database::builder()
                .create_with_backend(Boxed(backend))
                .map_err(|e| open_error(&file, e))
        })?;
        Self::set_up(opened, file, node)
    }

    fn set_up(db: Database, file: PathBuf, node: u64) -> Result<(Self, LogMeta), LogError> {
        let this = Self { db, file };
        let meta = guarded(&this.file, || {
            if this.read_meta::<u64>("node")?.is_none() {
                this.commit_with(|txn| {
                    txn.open_table(LOG)?;
                    let mut meta = txn.open_table(META)?;
                    put(&mut meta, "node", &node)
                })?;
            }
            let found = this.read_meta::<u64>("node")?.unwrap_or(node);
            check_node(&this.file, found, node)?;
            this.load()
        })?;
        Ok((this, meta))
    }

    fn load(&self) -> Result<LogMeta, LogError> {
        let purged = self.read_meta::<DiskLogId>("purged")?.map(LogId::from);
        let txn = self.db.begin_read().map_err(|e| self.io(e))?;
        let table = txn.open_table(LOG).map_err(|e| self.io(e))?;
        let first = table.first().map_err(|e| self.io(e))?;
        let last = table.last().map_err(|e| self.io(e))?;
        let mut last_id = purged;
        if let (Some((first, _)), Some((last, record))) = (first, last) {
            let (first, last) = (first.value(), last.value());
            let count = table.len().map_err(|e| self.io(e))?;
            let expected = purged.map_or(0, |id| id.index + 1);
            if first != expected && purged.is_some() {
                return Err(self.corrupt("the file", format!("entry {expected} is missing")));
            }
            if last - first + 1 != count {
                let reason = format!("of entries {first} to {last} only {count} are there");
                return Err(self.corrupt("the file", reason));
            }
            last_id = Some(self.decode(last, record.value())?.log_id);
        }
        Ok(LogMeta {
            vote: self.read_meta::<DiskVote>("vote")?.map(Vote::from),
            committed: self.read_meta::<DiskLogId>("committed")?.map(LogId::from),
            purged,
            last: last_id,
        })
    }

    /// The entries of `[start, end)` that are there, until their records have more
    /// than `max_bytes` together (but at least one).
    pub(crate) fn read(
        &self,
        start: u64,
        end: u64,
        max_bytes: usize,
    ) -> Result<Vec<Entry>, LogError> {
        guarded(&self.file, || {
            let txn = self.db.begin_read().map_err(|e| self.io(e))?;
            let table = txn.open_table(LOG).map_err(|e| self.io(e))?;
            let mut out = Vec::new();
            let mut bytes = 0;
            for row in table.range(start..end).map_err(|e| self.io(e))? {
                let (index, record) = row.map_err(|e| self.io(e))?;
                let record = record.value();
                bytes += record.len();
                if bytes > max_bytes && !out.is_empty() {
                    break;
                }
                out.push(self.decode(index.value(), record)?);
            }
            Ok(out)
        })
    }

    /// Makes all of `changes` durable at once, in order.
    pub(crate) fn commit<'a>(
        &self,
        changes: impl Iterator<Item = &'a Change>,
    ) -> Result<(), LogError> {
        guarded(&self.file, || {
            self.commit_with(|txn| {
                let mut log = txn.open_table(LOG)?;
                let mut meta = txn.open_table(META)?;
                for change in changes {
                    match change {
                        Change::Append(entries) => {
                            for entry in entries {
                                let record = record::encode(entry);
                                log.insert(entry.log_id.index, record.as_slice())?;
                            }
                        }
                        Change::Vote(vote) => put(&mut meta, "vote", &DiskVote::from(*vote))?,
                        Change::Committed(id) => {
                            put(&mut meta, "committed", &id.map(DiskLogId::from))?;
                        }
                        Change::Truncate(from) => log.retain_in(*from.., |_, _| false)?,
                        Change::Purge(id) => {
                            log.retain_in(..=id.index, |_, _| false)?;
                            put(&mut meta, "purged", &DiskLogId::from(*id))?;
                        }
                    }
                }
                Ok(())
            })
        })
    }

    fn commit_with(
        &self,
        fill: impl FnOnce(&redb::WriteTransaction) -> Result<(), redb::Error>,
    ) -> Result<(), LogError> {
        let run = || -> Result<(), redb::Error> {
            let mut txn = self.db.begin_write()?;
            txn.set_durability(Durability::Immediate)?;
            fill(&txn)?;
            txn.commit()?;
            Ok(())
        };
        run().map_err(|e| self.io(e))
    }

    fn read_meta<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, LogError> {
        let txn = self.db.begin_read().map_err(|e| self.io(e))?;
        let table = match txn.open_table(META) {
            Ok(table) => table,
            Err(redb::TableError::TableDoesNotExist(_)) => return Ok(None),
            Err(e) => return Err(self.io(e)),
        };
        let Some(row) = table.get(key).map_err(|e| self.io(e))? else {
            return Ok(None);
        };
        match row.value().split_first() {
            Some((&record::VERSION, json)) => serde_json::from_slice::<Option<T>>(json)
                .map_err(|e| self.corrupt(key, e.to_string())),
            Some((&found, _)) => Err(self.version(key, found)),
            None => Err(self.corrupt(key, "it is empty".to_owned())),
        }
    }

    fn decode(&self, index: u64, record: &[u8]) -> Result<Entry, LogError> {
        record::decode(index, Bytes::copy_from_slice(record)).map_err(|e| {
            let place = format!("entry {index}");
            match e {
                RecordError::Version(found) => self.version(&place, found),
                other => self.corrupt(&place, other.to_string()),
            }
        })
    }

    fn io(&self, e: impl Into<redb::Error>) -> LogError {
        redb_error(&self.file, e.into())
    }

    fn corrupt(&self, place: &str, reason: String) -> LogError {
        LogError::Corrupt {
            file: self.file.clone(),
            place: place.to_owned(),
            reason,
        }
    }

    fn version(&self, place: &str, found: u8) -> LogError {
        LogError::Version {
            file: self.file.clone(),
            place: place.to_owned(),
            found,
            known: record::VERSION,
        }
    }
}

#[derive(Serialize, Deserialize)]
struct Marker {
    version: u32,
    node: u64,
}

fn parse_marker(file: &Path, bytes: &[u8]) -> Result<Marker, LogError> {
    serde_json::from_slice(bytes).map_err(|e| LogError::Corrupt {
        file: file.to_owned(),
        place: "the file".to_owned(),
        reason: e.to_string(),
    })
}

fn check_node(file: &Path, found: u64, expected: u64) -> Result<(), LogError> {
    if found == expected {
        return Ok(());
    }
    Err(LogError::OtherNode {
        file: file.to_owned(),
        found,
        expected,
    })
}

fn put<T: Serialize>(
    table: &mut redb::Table<&str, &[u8]>,
    key: &str,
    value: &T,
) -> Result<(), redb::Error> {
    let mut bytes = vec![record::VERSION];
    serde_json::to_writer(&mut bytes, value)
        .map_err(|e| redb::Error::Io(std::io::Error::other(e)))?;
    table.insert(key, bytes.as_slice())?;
    Ok(())
}

/// redb holds what it reads for its own and may panic when it is not. A log that
/// somebody else wrote must not take the process down.
fn guarded<T>(file: &Path, f: impl FnOnce() -> Result<T, LogError>) -> Result<T, LogError> {
    catch_unwind(AssertUnwindSafe(f)).unwrap_or_else(|panic| {
        Err(LogError::Corrupt {
            file: file.to_owned(),
            place: "the file".to_owned(),
            reason: panic_text(&*panic),
        })
    })
}

pub(crate) fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|s| (*s).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "it cannot be read".to_owned())
}

fn open_error(file: &Path, e: DatabaseError) -> LogError {
    match e {
        DatabaseError::DatabaseAlreadyOpen => LogError::InUse {
            file: file.to_owned(),
        },
        other => redb_error(file, other.into()),
    }
}

fn redb_error(file: &Path, e: redb::Error) -> LogError {
    let file = file.to_owned();
    match e {
        redb::Error::Io(e) if e.kind() == std::io::ErrorKind::InvalidData => LogError::Corrupt {
            file,
            place: "the file".to_owned(),
            reason: e.to_string(),
        },
        redb::Error::Corrupted(reason) => LogError::Corrupt {
            file,
            place: "the file".to_owned(),
            reason,
        },
        other => LogError::Io {
            file,
            reason: other.to_string(),
        },
    }
}

/// Writes a whole file so that after a crash it is there as a whole, or not at all.
pub(crate) fn write_durably(file: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let temp = file.with_extension("tmp");
    fs::write(&temp, bytes)?;
    fs::File::open(&temp)?.sync_all()?;
    fs::rename(&temp, file)?;
    sync_dir(file.parent().unwrap_or(Path::new(".")))
}

/// redb takes a backend by value, not in a box.
#[derive(Debug)]
struct Boxed(LogBackend);

impl StorageBackend for Boxed {
    fn len(&self) -> std::io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> std::io::Result<()> {
        self.0.read(offset, out)
    }

    fn set_len(&self, len: u64) -> std::io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> std::io::Result<()> {
        self.0.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> std::io::Result<()> {
        self.0.write(offset, data)
    }

    fn close(&self) -> std::io::Result<()> {
        self.0.close()
    }
}
