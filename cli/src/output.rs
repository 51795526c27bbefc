//! What a command prints: tables for people, JSON and YAML for programs.

use std::{
    env,
    io::{self, IsTerminal as _, Write},
};

use clap::ValueEnum;
use serde::Serialize;
use serde_json::Value;

/// The formats of everything that is not a resource.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people; may change from version to version.
    #[default]
    Table,
    /// The table with everything in it.
    Wide,
    /// For programs; fields may be added, none is taken away.
    Json,
    /// The same as YAML.
    Yaml,
    /// The same as JSON, one record a line.
    Jsonl,
}

/// When to use colour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ColorWhen {
    /// On a terminal, unless NO_COLOR is set.
    #[default]
    Auto,
    /// Also into a file or a pipe.
    Always,
    /// Not at all.
    Never,
}

/// The meaning of a colour. Never the only carrier of that meaning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tone {
    /// Nothing to say.
    #[default]
    Plain,
    /// Good: green.
    Good,
    /// Degraded: yellow.
    Warn,
    /// Denied, dropped or failing: red.
    Bad,
}

/// Standard output, and whether it takes colour.
pub struct Output {
    writer: Box<dyn Write>,
    paint: bool,
    terminal: bool,
}

/// Something that a command shows.
pub trait View: Serialize {
    /// The field whose elements are the records of `-o jsonl`. None: the whole is one record.
    const RECORDS: Option<&'static str> = None;

    /// Prints it for people; `wide` shows all there is.
    fn text(&self, out: &mut Output, wide: bool) -> io::Result<()>;
}

impl Output {
    /// The process's standard output.
    pub fn stdout(color: ColorWhen) -> Self {
        let terminal = io::stdout().is_terminal();
        let set = |name| env::var_os(name).is_some_and(|value| !value.is_empty());
        let paint = wants_color(color, terminal, set("NO_COLOR"), set("CLICOLOR_FORCE"));
        Self { writer: Box::new(io::BufWriter::new(io::stdout())), paint, terminal }
    }

    /// Whether a person is looking.
    pub fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// Shows a view.
    pub fn show<V: View>(&mut self, view: &V, format: Format) -> io::Result<()> {
        match format {
            Format::Table => view.text(self, false),
            Format::Wide => view.text(self, true),
            Format::Json => self.json(view),
            Format::Yaml => self.yaml(view),
            Format::Jsonl => {
                let mut whole = serde_json::to_value(view).map_err(io::Error::from)?;
                match V::RECORDS.and_then(|field| whole.get_mut(field)).map(Value::take) {
                    Some(Value::Array(records)) => {
                        records.iter().try_for_each(|record| writeln!(self, "{record}"))
                    }
                    _ => writeln!(self, "{whole}"),
                }
            }
        }
    }

    /// Prints one JSON document, indented.
    pub fn json(&mut self, value: &impl Serialize) -> io::Result<()> {
        serde_json::to_writer_pretty(&mut *self, value)?;
        writeln!(self)
    }

    /// Prints one YAML document.
    pub fn yaml(&mut self, value: &impl Serialize) -> io::Result<()> {
        serde_yaml_ng::to_writer(self, value).map_err(io::Error::other)
    }

    /// The text in the colour of its tone, where colour is wanted.
    pub fn paint(&self, text: &str, tone: Tone) -> String {
        let sgr = match tone {
            _ if !self.paint => return text.to_owned(),
            Tone::Plain => return text.to_owned(),
            Tone::Good => "32",
            Tone::Warn => "33",
            Tone::Bad => "31",
        };
        format!("\x1b[{sgr}m{text}\x1b[0m")
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.writer.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

fn wants_color(when: ColorWhen, terminal: bool, no_color: bool, forced: bool) -> bool {
    match when {
        ColorWhen::Always => true,
        ColorWhen::Never => false,
        ColorWhen::Auto => !no_color && (forced || terminal),
    }
}

/// Columns without borders, as kubectl prints them. Numbers are flush right.
#[derive(Clone, Debug, Default)]
pub struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<Cell>>,
}

#[derive(Clone, Debug)]
struct Column {
    title: String,
    right: bool,
    width: usize,
}

/// One field of a row.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cell {
    text: String,
    tone: Tone,
}

impl Cell {
    /// A cell in a colour.
    pub fn toned(text: impl Into<String>, tone: Tone) -> Self {
        Self { text: text.into(), tone }
    }
}

impl<T: ToString> From<T> for Cell {
    fn from(value: T) -> Self {
        Self { text: value.to_string(), tone: Tone::Plain }
    }
}

impl Table {
    /// A table with these titles; one that starts with `>` heads a column of numbers.
    pub fn new<'a>(titles: impl IntoIterator<Item = &'a str>) -> Self {
        let column = |title: &'a str| {
            let right = title.starts_with('>');
            let title = title.trim_start_matches('>').to_owned();
            Column { width: title.chars().count(), title, right }
        };
        Self { columns: titles.into_iter().map(column).collect(), rows: Vec::new() }
    }

    /// Adds a row: as many cells as there are titles.
    pub fn row(&mut self, cells: Vec<Cell>) {
        debug_assert_eq!(cells.len(), self.columns.len(), "a cell for each title");
        for (column, cell) in self.columns.iter_mut().zip(&cells) {
            column.width = column.width.max(cell.text.chars().count());
        }
        self.rows.push(cells);
    }

    /// Whether it has no rows.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Prints titles and rows.
    pub fn print(&mut self, out: &mut Output) -> io::Result<()> {
        let titles = self.columns.iter().map(|column| Cell::from(&column.title)).collect::<Vec<_>>();
        self.line(out, &titles)?;
        self.print_rows(out)
    }

    /// Prints the rows alone and forgets them: what follows keeps the widths.
    pub fn print_rows(&mut self, out: &mut Output) -> io::Result<()> {
        for row in std::mem::take(&mut self.rows) {
            self.line(out, &row)?;
        }
        Ok(())
    }

    fn line(&self, out: &mut Output, cells: &[Cell]) -> io::Result<()> {
        let last = cells.len().saturating_sub(1);
        for (index, (column, cell)) in self.columns.iter().zip(cells).enumerate() {
            // An empty cell would shift what `awk` sees.
            let text = if cell.text.is_empty() { "-" } else { &cell.text };
            let padding = " ".repeat(column.width.saturating_sub(text.chars().count()));
            let painted = out.paint(text, cell.tone);
            match (column.right, index == last) {
                (true, _) => write!(out, "{padding}{painted}")?,
                (false, true) => write!(out, "{painted}")?,
                (false, false) => write!(out, "{painted}{padding}")?,
            }
            write!(out, "{}", if index == last { "\n" } else { "   " })?;
        }
        Ok(())
    }
}

/// A line on standard error while something takes its time; gone when dropped. Nothing depends
/// on its being seen.
pub struct Progress {
    shown: bool,
}

impl Progress {
    /// Shows the line if standard error is a terminal.
    pub fn start(what: &str) -> Self {
        let shown = io::stderr().is_terminal();
        if shown {
            let _ = write!(io::stderr(), "{what}...");
        }
        Self { shown }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.shown {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, rc::Rc};

    use super::*;

    #[derive(Clone, Default)]
    struct Sink(Rc<RefCell<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.borrow_mut().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn printed(paint: bool, print: impl FnOnce(&mut Output) -> io::Result<()>) -> String {
        let sink = Sink::default();
        let mut out = Output { writer: Box::new(sink.clone()), paint, terminal: false };
        print(&mut out).unwrap();
        String::from_utf8(sink.0.take()).unwrap()
    }

    fn sample() -> Table {
        let mut table = Table::new(["NAME", ">COUNT", "STATE"]);
        table.row(vec!["web".into(), 12345678.into(), Cell::toned("up", Tone::Good)]);
        table.row(vec!["übergroß".into(), 1.into(), "".into()]);
        table
    }

    #[test]
    fn columns_line_up_and_no_line_ends_in_blanks() {
        assert_eq!(
            printed(false, |out| sample().print(out)),
            "NAME          COUNT   STATE\n\
             web        12345678   up\n\
             übergroß          1   -\n"
        );
    }

    #[test]
    fn colour_does_not_shift_columns() {
        let plain = printed(false, |out| sample().print(out));
        let painted = printed(true, |out| sample().print(out));
        assert_ne!(painted, plain);
        assert_eq!(painted.replace("\x1b[32m", "").replace("\x1b[0m", ""), plain);
    }

    #[test]
    fn rows_that_follow_keep_the_widths() {
        let text = printed(false, |out| {
            let mut table = sample();
            table.print(out)?;
            table.row(vec!["b".into(), 2.into(), "down".into()]);
            table.print_rows(out)
        });
        assert_eq!(text.lines().last(), Some("b                 2   down"));
    }

    #[test]
    fn colour_is_decided_by_flag_then_environment_then_terminal() {
        assert!(wants_color(ColorWhen::Always, false, true, false));
        assert!(!wants_color(ColorWhen::Never, true, false, true));
        assert!(wants_color(ColorWhen::Auto, true, false, false));
        assert!(!wants_color(ColorWhen::Auto, true, true, true));
        assert!(wants_color(ColorWhen::Auto, false, false, true));
        assert!(!wants_color(ColorWhen::Auto, false, false, false));
    }

    #[derive(Serialize)]
    struct Herd {
        cats: Vec<u8>,
    }

    impl View for Herd {
        const RECORDS: Option<&'static str> = Some("cats");

        fn text(&self, out: &mut Output, wide: bool) -> io::Result<()> {
            writeln!(out, "{} cats, wide: {wide}", self.cats.len())
        }
    }

    #[test]
    fn a_view_has_five_formats() {
        let herd = Herd { cats: vec![1, 2] };
        let show = |format| printed(false, |out| out.show(&herd, format));
        assert_eq!(show(Format::Table), "2 cats, wide: false\n");
        assert_eq!(show(Format::Wide), "2 cats, wide: true\n");
        assert_eq!(show(Format::Json), "{\n  \"cats\": [\n    1,\n    2\n  ]\n}\n");
        assert_eq!(show(Format::Yaml), "cats:\n- 1\n- 2\n");
        assert_eq!(show(Format::Jsonl), "1\n2\n");
    }
}
