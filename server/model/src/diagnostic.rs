//! What is wrong with a file, and where: `file:line:column: message`.
//!
//! A file is read to its end and everything wrong with it is said at once: an
//! operator who fixes one mistake in order to see the next one gives up.

use std::cell::{Cell, RefCell};
use std::fmt;

use serde::Serialize;

/// Most mistakes that are listed for one file.
const MOST: usize = 100;

/// How much of a line is kept, in characters.
const LONGEST_LINE: usize = 10_000;

/// Widest part of a line that [`Diagnostic::excerpt`] shows, in characters.
const WIDEST: usize = 120;

/// One mistake in a file.
///
/// Displays as `file:line:column: message`, with the hint on a second line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// The file's name, as the reader was given it.
    pub file: String,
    /// The line, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
    /// What is wrong, as a path: `route web: rule canary: …`.
    pub message: String,
    /// What to write in its place.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// The line itself.
    #[serde(skip)]
    text: String,
}

impl Diagnostic {
    /// A mistake at a place of the file whose whole text is `text`.
    pub fn new(place: Place, message: impl Into<String>, text: &str) -> Self {
        let Place { file, line, column } = place;
        let source = Source::new(&file, text);
        let line_text = source.line(line).chars().take(LONGEST_LINE).collect();
        Self {
            file,
            line,
            column,
            message: message.into(),
            hint: None,
            text: line_text,
        }
    }

    /// The mistake with its line and a caret below the place, for a terminal.
    /// No newline at the end.
    pub fn excerpt(&self) -> String {
        let number = self.line.to_string();
        let gutter = " ".repeat(number.len());
        let skip = match self.column > WIDEST * 3 / 4 {
            true => self.column - WIDEST / 2,
            false => 0,
        };
        let shown: String = self.text.chars().skip(skip).take(WIDEST).collect();
        let before: String = shown
            .chars()
            .take(self.column.saturating_sub(1 + skip))
            .map(|c| if c == '\t' { '\t' } else { ' ' })
            .collect();
        let mut out = format!(
            "{}:{}:{}: {}\n{gutter} |\n{number} | {shown}\n{gutter} | {before}^",
            self.file, self.line, self.column, self.message
        );
        if let Some(hint) = &self.hint {
            out.push_str(&format!("\n{gutter} = hint: {hint}"));
        }
        out
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            file,
            line,
            column,
            message,
            ..
        } = self;
        write!(f, "{file}:{line}:{column}: {message}")?;
        match &self.hint {
            Some(hint) => write!(f, "\n  hint: {hint}"),
            None => Ok(()),
        }
    }
}

/// Everything that is wrong, in the order of the files and of their lines;
/// never empty in an `Err`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Diagnostics(Vec<Diagnostic>);

impl Diagnostics {
    /// Each of them.
    pub fn iter(&self) -> std::slice::Iter<'_, Diagnostic> {
        self.0.iter()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All of them with their lines, for a terminal.
    pub fn excerpts(&self) -> String {
        let all: Vec<String> = self.iter().map(Diagnostic::excerpt).collect();
        all.join("\n\n")
    }

    /// These and those.
    pub fn extend(&mut self, more: Self) {
        self.0.extend(more.0);
    }
}

impl FromIterator<Diagnostic> for Diagnostics {
    fn from_iter<T: IntoIterator<Item = Diagnostic>>(all: T) -> Self {
        Self(all.into_iter().collect())
    }
}

impl IntoIterator for Diagnostics {
    type Item = Diagnostic;
    type IntoIter = std::vec::IntoIter<Diagnostic>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<'a> IntoIterator for &'a Diagnostics {
    type Item = &'a Diagnostic;
    type IntoIter = std::slice::Iter<'a, Diagnostic>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, one) in self.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            one.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for Diagnostics {}

/// A place in a file. Displays as `file:line:column`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The file's name.
    pub file: String,
    /// The line, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

/// A value and the place where it was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Located<T> {
    /// The value.
    pub value: T,
    /// The file's name.
    pub file: String,
    /// The line, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
    /// The places of its parts (rules, destinations, permissions), each with
    /// the path by which messages name it: `route web: rule canary: to v1`.
    #[serde(skip)]
    pub parts: Vec<(String, Place)>,
}

impl<T> Located<T> {
    /// Where it begins.
    pub fn place(&self) -> Place {
        Place {
            file: self.file.clone(),
            line: self.line,
            column: self.column,
        }
    }

    /// Where that begins of which a message speaks: the part whose path the
    /// message begins with, or else the whole.
    pub fn place_of(&self, message: &str) -> Place {
        let speaks_of = |path: &str| {
            let rest = message.strip_prefix(path);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(':'))
        };
        let parts = self.parts.iter().filter(|(path, _)| speaks_of(path));
        // Of two parts with one path the first.
        let found = parts.rev().max_by_key(|(path, _)| path.len());
        found.map_or_else(|| self.place(), |(_, place)| place.clone())
    }
}

/// A file's text, and the places in it.
#[derive(Debug)]
pub(crate) struct Source<'a> {
    file: &'a str,
    pub(crate) text: &'a str,
    starts: Vec<usize>,
}

impl<'a> Source<'a> {
    pub(crate) fn new(file: &'a str, text: &'a str) -> Self {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let starts = std::iter::once(0)
            .chain(text.match_indices('\n').map(|(at, _)| at + 1))
            .collect();
        Self { file, text, starts }
    }

    /// Line and column, from 1, of the byte at `at`.
    pub(crate) fn place(&self, at: usize) -> (usize, usize) {
        let line = self.starts.partition_point(|start| *start <= at).max(1);
        let start = self.starts.get(line - 1).copied().unwrap_or(0);
        let before = self.text.get(start..at).unwrap_or_default();
        (line, before.chars().count() + 1)
    }

    /// The place as people write it.
    pub(crate) fn named(&self, at: usize) -> String {
        let (line, column) = self.place(at);
        format!("{}:{line}:{column}", self.file)
    }

    pub(crate) fn locate<T>(&self, at: usize, value: T) -> Located<T> {
        let (line, column) = self.place(at);
        Located {
            value,
            file: self.file.to_owned(),
            line,
            column,
            parts: Vec::new(),
        }
    }

    fn line(&self, line: usize) -> &'a str {
        let start = self.starts.get(line - 1).copied().unwrap_or(0);
        let rest = self.text.get(start..).unwrap_or_default();
        rest.lines().next().unwrap_or_default()
    }
}

/// One reading of one file, and what was found wrong so far.
#[derive(Debug)]
pub(crate) struct Context<'a> {
    pub(crate) source: Source<'a>,
    found: RefCell<Vec<Diagnostic>>,
    more: Cell<usize>,
    /// Where the parts of an entry begin, as they are read.
    marks: RefCell<Vec<(String, usize)>>,
}

impl<'a> Context<'a> {
    pub(crate) fn new(file: &'a str, text: &'a str) -> Self {
        Self {
            source: Source::new(file, text),
            found: RefCell::default(),
            more: Cell::new(0),
            marks: RefCell::default(),
        }
    }

    /// The part of an entry that messages name by `path` begins at `at`.
    pub(crate) fn mark(&self, at: usize, path: String) {
        self.marks.borrow_mut().push((path, at));
    }

    /// What was read, at its place, with what was marked since the last time;
    /// `path` is what messages begin with, before the path of a part.
    pub(crate) fn locate<T>(&self, at: usize, path: &str, value: T) -> Located<T> {
        let place = |at| {
            let (line, column) = self.source.place(at);
            let file = self.source.file.to_owned();
            Place { file, line, column }
        };
        let marks = std::mem::take(&mut *self.marks.borrow_mut());
        let part = |(part, at)| (format!("{path}{part}"), place(at));
        Located {
            parts: marks.into_iter().map(part).collect(),
            ..self.source.locate(at, value)
        }
    }

    /// Something is wrong at the byte `at`.
    pub(crate) fn report(&self, at: usize, message: impl Into<String>, hint: Option<String>) {
        let mut found = self.found.borrow_mut();
        if found.len() >= MOST {
            self.more.set(self.more.get() + 1);
            return;
        }
        let (line, column) = self.source.place(at);
        let text = self.source.line(line);
        found.push(Diagnostic {
            file: self.source.file.to_owned(),
            line,
            column,
            message: message.into(),
            hint,
            text: text.chars().take(LONGEST_LINE).collect(),
        });
    }

    /// Whether no more mistakes will be listed, so that looking for hints is
    /// wasted work.
    pub(crate) fn is_full(&self) -> bool {
        self.found.borrow().len() >= MOST
    }

    /// How much was reported so far.
    pub(crate) fn count(&self) -> usize {
        self.found.borrow().len() + self.more.get()
    }

    /// What came of reading the item at `at`, where `before` was reported
    /// before. Nothing is ever left out in silence: a lost deny would be an
    /// allow.
    pub(crate) fn not_lost<T>(&self, at: usize, before: usize, read: Option<T>) -> Option<T> {
        if read.is_none() && self.count() == before {
            self.report(at, "this cannot be read", None);
        }
        read
    }

    /// `value` if nothing was wrong.
    pub(crate) fn finish<T>(self, value: T) -> Result<T, Diagnostics> {
        let mut found = self.found.into_inner();
        if found.is_empty() {
            return Ok(value);
        }
        found.sort_by_key(|one| (one.line, one.column));
        if let (more @ 1.., Some(last)) = (self.more.get(), found.last_mut()) {
            last.hint = Some(format!("{more} more mistakes are not shown"));
        }
        Err(Diagnostics(found))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn places_are_lines_and_characters() {
        let source = Source::new("f", "a\n\u{e9}b\n");
        assert_eq!(source.place(0), (1, 1));
        assert_eq!(source.place(2), (2, 1));
        assert_eq!(source.place(4), (2, 2));
        assert_eq!(source.place(6), (3, 1));
        assert_eq!(source.place(600), (3, 1));
    }

    #[test]
    fn an_excerpt_points_at_the_place() {
        let context = Context::new("a.hcl", "mesh {\n\tx = 1\n}\n");
        context.report(8, "mesh: unknown key `x`", Some("remove it".into()));
        let found = context.finish(()).unwrap_err();
        assert_eq!(
            found.excerpts(),
            "a.hcl:2:2: mesh: unknown key `x`\n  |\n2 | \tx = 1\n  | \t^\n  = hint: remove it"
        );
    }

    #[test]
    fn a_message_is_placed_at_the_part_that_it_names() {
        let place = |line| Place {
            file: "a.hcl".into(),
            line,
            column: 1,
        };
        let located = Located {
            value: (),
            file: "a.hcl".into(),
            line: 1,
            column: 1,
            parts: vec![
                ("route web: rule a".into(), place(2)),
                ("route web: rule a: to v1".into(), place(3)),
                ("route web: rule a: to v1".into(), place(4)),
                ("route web: rule ab".into(), place(5)),
            ],
        };
        for (message, line) in [
            ("route web: 300 rules", 1),
            ("route web: rule a: weights sum to 90, not 100", 2),
            ("route web: rule a: to v1: stands twice", 3),
            ("route web: rule a: to v10: stands twice", 2),
            ("route web: rule ab: is never reached", 5),
            ("route web: rule abc: is never reached", 1),
        ] {
            assert_eq!(located.place_of(message), place(line), "{message}");
        }
    }

    #[test]
    fn a_long_line_is_cut_around_the_place() {
        let text = "x".repeat(5000);
        let context = Context::new("a", &text);
        context.report(2000, "here", None);
        let found = context.finish(()).unwrap_err();
        assert!(found.excerpts().len() < 400);
    }

    #[test]
    fn a_flood_is_cut() {
        let context = Context::new("a", "x");
        for _ in 0..1000 {
            context.report(0, "no", None);
        }
        let found = context.finish(()).unwrap_err();
        assert_eq!(found.len(), MOST);
        assert!(found.to_string().contains("900 more"));
    }
}
