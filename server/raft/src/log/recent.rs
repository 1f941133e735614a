//! The newest entries, in memory: each is read again at once, to be applied and to
//! be sent to each follower.

use std::collections::VecDeque;

use crate::codec;
use crate::types::Entry;

/// The newest entries; no gaps.
#[derive(Default)]
pub(crate) struct Recent {
    entries: VecDeque<Entry>,
    bytes: usize,
    limit: usize,
}

impl Recent {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            limit,
            ..Self::default()
        }
    }

    fn first(&self) -> Option<u64> {
        self.entries.front().map(|e| e.log_id.index)
    }

    /// None if not all of `[start, end)` is here.
    pub(crate) fn read(&self, start: u64, end: u64, max_bytes: usize) -> Option<Vec<Entry>> {
        let from = usize::try_from(start.checked_sub(self.first()?)?).ok()?;
        let count = usize::try_from(end - start).ok()?;
        if from.checked_add(count)? > self.entries.len() {
            return None;
        }
        let mut out = Vec::new();
        let mut bytes = 0;
        for entry in self.entries.range(from..from + count) {
            bytes += codec::entry_bytes(entry);
            if bytes > max_bytes && !out.is_empty() {
                break;
            }
            out.push(entry.clone());
        }
        Some(out)
    }

    pub(crate) fn push(&mut self, entry: Entry) {
        let next = self.entries.back().map(|e| e.log_id.index + 1);
        if next.is_some_and(|next| next != entry.log_id.index) {
            self.clear();
        }
        self.bytes += codec::entry_bytes(&entry);
        self.entries.push_back(entry);
        while self.bytes > self.limit {
            let Some(old) = self.entries.pop_front() else {
                break;
            };
            self.bytes -= codec::entry_bytes(&old);
        }
    }

    pub(crate) fn truncate(&mut self, from: u64) {
        while self.entries.back().is_some_and(|e| e.log_id.index >= from) {
            if let Some(old) = self.entries.pop_back() {
                self.bytes -= codec::entry_bytes(&old);
            }
        }
    }

    pub(crate) fn purge(&mut self, upto: u64) {
        while self.first().is_some_and(|first| first <= upto) {
            if let Some(old) = self.entries.pop_front() {
                self.bytes -= codec::entry_bytes(&old);
            }
        }
    }

    fn clear(&mut self) {
        self.entries.clear();
        self.bytes = 0;
    }
}
