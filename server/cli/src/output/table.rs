//! Columns with two spaces between them and no lines: what a person reads and
//! `awk` can cut.

use comfy_table::ContentArrangement;
use comfy_table::presets::NOTHING;

use super::words::{WIDTH, wrapped};

/// A table.
#[derive(Debug)]
pub(crate) struct Table {
    head: Vec<String>,
    rows: Vec<Vec<String>>,
    verbose: bool,
}

impl Table {
    pub(crate) fn new(head: &[&str]) -> Self {
        Self {
            head: head.iter().map(|&name| name.to_owned()).collect(),
            rows: Vec::new(),
            verbose: false,
        }
    }

    /// As wide as it needs, with nothing shortened.
    pub(crate) fn verbose(mut self, verbose: bool) -> Self {
        self.verbose = verbose;
        self
    }

    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        // What came over the network must not steer the terminal.
        let plain = |cell: String| cell.replace(char::is_control, " ");
        self.rows.push(cells.into_iter().map(plain).collect());
    }

    /// The text, with a newline at the end of each line. The last column holds
    /// what may be long: where it is too narrow for that, the whole of it
    /// stands below its row.
    pub(crate) fn render(&self) -> String {
        let mut table = comfy_table::Table::new();
        table.load_style(NOTHING);
        table.set_content_arrangement(ContentArrangement::Disabled);
        table.set_header(&self.head);
        let last = self.head.len().saturating_sub(1);
        let room = self.room(last);
        let mut below = Vec::new();
        for row in &self.rows {
            let mut shown = row.clone();
            let long = shown.pop_if(|cell| cell.chars().count() > room);
            if long.is_some() {
                shown.push(String::new());
            }
            table.add_row(shown);
            below.push(long);
        }
        for column in table.column_iter_mut() {
            column.set_padding((0, 2));
        }
        let mut text = String::new();
        for (number, line) in table.lines().enumerate() {
            text.push_str(line.trim_end());
            text.push('\n');
            let row = number.checked_sub(1);
            if let Some(Some(long)) = row.and_then(|row| below.get(row)) {
                text.push_str(&wrapped(long, 4));
            }
        }
        text
    }

    /// How wide the last column may be.
    fn room(&self, last: usize) -> usize {
        if self.verbose {
            return usize::MAX;
        }
        let widest = |index: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(index));
            let widths = cells
                .chain(self.head.get(index))
                .map(|cell| cell.chars().count());
            widths.max().unwrap_or(0) + 2
        };
        WIDTH.saturating_sub((0..last).map(widest).sum())
    }
}

/// `Name:  value` lines, aligned; those without a value are left out.
pub(crate) fn fields(fields: &[(String, String)]) -> String {
    let shown = || fields.iter().filter(|(_, value)| !value.is_empty());
    let widest = shown().map(|(name, _)| name.chars().count()).max();
    let mut text = String::new();
    for (name, value) in shown() {
        let gap = widest.unwrap_or(0) - name.chars().count();
        let value = value.replace(char::is_control, " ");
        text.push_str(&format!("{name}:{:gap$}  {value}\n", ""));
    }
    text
}

/// `text`, at most `width` characters wide, cut in its middle: ids differ at
/// both ends.
pub(crate) fn shortened(text: &str, width: usize) -> String {
    let length = text.chars().count();
    if length <= width {
        return text.to_owned();
    }
    let keep = width.saturating_sub(1);
    let (head, tail) = (keep.div_ceil(2), keep / 2);
    let mut out: String = text.chars().take(head).collect();
    out.push('…');
    out.extend(text.chars().skip(length - tail));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_below_each_other() {
        let mut table = Table::new(&["NAME", "ACTION"]);
        table.row(["web".to_owned(), "allow".to_owned()]);
        table.row(["a-longer-name".to_owned(), "2 permissions".to_owned()]);
        assert_eq!(
            table.render(),
            "NAME           ACTION\nweb            allow\na-longer-name  2 permissions\n"
        );
    }

    #[test]
    fn what_is_too_long_stands_below() {
        let mut table = Table::new(&["NAME", "REASON"]);
        table.row(["web".to_owned(), "word ".repeat(40)]);
        table.row(["db".to_owned(), "short".to_owned()]);
        let text = table.render();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.first(), Some(&"NAME  REASON"));
        assert_eq!(lines.get(1), Some(&"web"));
        assert!(
            lines
                .get(2)
                .is_some_and(|line| line.starts_with("    word word"))
        );
        assert_eq!(lines.last(), Some(&"db    short"));
        assert!(
            lines.iter().all(|line| line.chars().count() <= WIDTH),
            "{text}"
        );
        let mut table = Table::new(&["NAME", "REASON"]).verbose(true);
        table.row(["web".to_owned(), "word ".repeat(40)]);
        assert_eq!(table.render().lines().count(), 2);
    }

    #[test]
    fn nothing_steers_the_terminal() {
        let mut table = Table::new(&["NAME"]);
        table.row(["a\u{1b}[2Jb\nc".to_owned()]);
        assert_eq!(table.render(), "NAME\na [2Jb c\n");
        let text = fields(&[("Name".to_owned(), "a\nb".to_owned())]);
        assert_eq!(text, "Name:  a b\n");
    }

    #[test]
    fn ids_are_cut_in_their_middle() {
        assert_eq!(shortened("short", 8), "short");
        assert_eq!(
            shortened("_nomad-task-5f3c-web-sidecar-proxy", 12),
            "_nomad…proxy"
        );
        assert_eq!(shortened("ééééééé", 3), "é…é");
    }
}
