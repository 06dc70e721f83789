//! Columns that line up.

use super::paint::width;

#[derive(Debug, Default)]
pub struct Table {
    rows: Vec<Vec<String>>,
    indent: usize,
}

impl Table {
    #[must_use]
    pub fn indented(indent: usize) -> Self {
        Self { rows: Vec::new(), indent }
    }

    pub fn row<S: Into<String>>(&mut self, cells: impl IntoIterator<Item = S>) {
        self.rows.push(cells.into_iter().map(Into::into).collect());
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Lines without an end of line at the end. Two blanks between columns, none at the end of a line.
    #[must_use]
    pub fn render(&self) -> String {
        self.render_full().iter().map(|line| line.trim_end()).collect::<Vec<_>>().join("\n")
    }

    /// Each row with its last column filled up, so that more can stand beside it.
    #[must_use]
    pub fn render_full(&self) -> Vec<String> {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns)
            .map(|column| {
                self.rows.iter().filter_map(|row| row.get(column)).map(|cell| width(cell)).max().unwrap_or(0)
            })
            .collect();
        let line = |row: &Vec<String>| {
            let mut line = " ".repeat(self.indent);
            for (cell, wanted) in row.iter().zip(&widths) {
                line.push_str(cell);
                line.push_str(&" ".repeat(wanted - width(cell) + 2));
            }
            line.truncate(line.len().saturating_sub(2));
            line
        };
        self.rows.iter().map(line).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_whatever_their_colours() {
        let mut table = Table::indented(2);
        table.row(["api", "\x1b[32mready\x1b[0m", "x"]);
        table.row(["worker", "no", "y"]);
        table.row(["z"]);
        let expected = "  api     \x1b[32mready\x1b[0m  x\n  worker  no     y\n  z";
        assert_eq!(table.render(), expected);
        assert_eq!(Table::default().render(), "");
    }
}
