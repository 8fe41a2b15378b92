//! Numbers, durations, colours and aligned columns.

use std::fmt::Write as _;

/// Digits in groups of three: `1,234,567`.
pub fn thousands(number: u128) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A time span of so many seconds, in the units a person would use.
pub fn duration(seconds: f64) -> String {
    if seconds > 0.0 && seconds < 1e-3 {
        return "under 1 ms".to_string();
    }
    if seconds < 1.0 {
        return format!("{:.0} ms", seconds * 1e3);
    }
    if seconds < 60.0 {
        return format!("{seconds:.1} s");
    }
    let whole = seconds.round() as u64;
    match whole {
        0..3_600 => format!("{} min {} s", whole / 60, whole % 60),
        3_600..86_400 => format!("{} h {} min", whole / 3_600, whole % 3_600 / 60),
        _ => format!("{} d {} h", thousands(u128::from(whole / 86_400)), whole % 86_400 / 3_600),
    }
}

/// The text on one line and without control characters, which could otherwise reach a terminal
/// from a file or from a panic.
pub fn one_line(text: &str) -> String {
    let words: Vec<&str> = text.split(|c: char| c.is_control()).map(str::trim).collect();
    words.into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
}

/// A word that a POSIX shell takes as it is, quoted if it must be.
pub(super) fn shell_word(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+=:@%,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_string();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

/// Puts colours around words, or leaves them plain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Paint {
    colours: bool,
}

impl Paint {
    /// For a terminal.
    pub fn coloured() -> Paint {
        Paint { colours: true }
    }

    /// For files, pipes, and people who set `NO_COLOR`.
    pub fn plain() -> Paint {
        Paint { colours: false }
    }

    /// For headings and what to look at first.
    pub fn bold(self, text: &str) -> String {
        self.wrap("1", text)
    }

    /// For what failed.
    pub fn red(self, text: &str) -> String {
        self.wrap("31", text)
    }

    /// For what passed.
    pub fn green(self, text: &str) -> String {
        self.wrap("32", text)
    }

    /// For what could not be decided, and what was never reached.
    pub fn yellow(self, text: &str) -> String {
        self.wrap("33", text)
    }

    fn wrap(self, code: &str, text: &str) -> String {
        if self.colours { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_string() }
    }
}

/// Rows whose names and numbers line up across all blocks.
#[derive(Debug, Default)]
pub struct Table {
    lines: Vec<Line>,
    in_block: bool,
}

#[derive(Debug)]
enum Line {
    Heading(String),
    Row { indent: usize, name: String, number: String, note: String },
    Words { indent: usize, name: String, words: String },
    Never(Vec<String>),
}

impl Table {
    /// A name, a number, and what to say about it.
    pub fn row(&mut self, name: &str, number: u64, note: &str) {
        self.lines.push(Line::Row {
            indent: self.indent(),
            name: name.to_string(),
            number: thousands(number.into()),
            note: note.to_string(),
        });
    }

    /// A name and words.
    pub fn words(&mut self, name: &str, words: &str) {
        let (name, words) = (name.to_string(), words.to_string());
        self.lines.push(Line::Words { indent: self.indent(), name, words });
    }

    /// Begins a block; the rows after it are indented.
    pub fn heading(&mut self, heading: &str) {
        self.in_block = true;
        self.lines.push(Line::Heading(heading.to_string()));
    }

    /// What should have been in the block and was not; nothing if that is empty.
    pub fn never(&mut self, names: &[&str]) {
        if !names.is_empty() {
            self.lines.push(Line::Never(names.iter().map(ToString::to_string).collect()));
        }
    }

    /// The text, ending in a newline.
    pub fn render(&self, paint: Paint) -> String {
        let (mut names, mut numbers) = (0, 0);
        for line in &self.lines {
            if let Line::Row { indent, name, number, .. } = line {
                names = names.max(indent + name.len());
                numbers = numbers.max(number.len());
            } else if let Line::Words { indent, name, .. } = line {
                names = names.max(indent + name.len());
            }
        }
        let mut text = String::new();
        for (index, line) in self.lines.iter().enumerate() {
            match line {
                Line::Heading(heading) => {
                    let gap = if index == 0 { "" } else { "\n" };
                    writeln!(text, "{gap}{}", paint.bold(heading)).expect("a string takes all");
                    // A block without a row would look like a mistake of the printer.
                    if !matches!(self.lines.get(index + 1), Some(Line::Row { .. })) {
                        text.push_str("  none\n");
                    }
                }
                Line::Row { indent, name, number, note } => {
                    let row = format!("{:indent$}{name}", "");
                    let row = format!("{row:names$}  {number:>numbers$}  {note}");
                    writeln!(text, "{}", row.trim_end()).expect("a string takes all");
                }
                Line::Words { indent, name, words } => {
                    let row = format!("{:indent$}{name}", "");
                    writeln!(text, "{row:names$}  {words}").expect("a string takes all");
                }
                Line::Never(names) => text.push_str(&wrapped("  never: ", names, paint)),
            }
        }
        text
    }

    fn indent(&self) -> usize {
        if self.in_block { 2 } else { 0 }
    }
}

/// Names separated by commas, in lines of at most 100 columns, those after the first indented as
/// far as the names of the first.
pub(super) fn wrapped(start: &str, names: &[String], paint: Paint) -> String {
    const COLUMNS: usize = 100;
    let mut lines = vec![String::new()];
    for (index, name) in names.iter().enumerate() {
        let comma = if index + 1 < names.len() { "," } else { "" };
        let line = lines.last_mut().expect("there is always a line");
        if line.is_empty() {
            write!(line, "{name}{comma}").expect("a string takes all");
        } else if start.len() + line.len() + 1 + name.len() + comma.len() <= COLUMNS {
            write!(line, " {name}{comma}").expect("a string takes all");
        } else {
            lines.push(format!("{name}{comma}"));
        }
    }
    let mut text = String::new();
    for (index, line) in lines.iter().enumerate() {
        let lead = if index == 0 { paint.yellow(start) } else { " ".repeat(start.len()) };
        writeln!(text, "{lead}{line}").expect("a string takes all");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped() {
        for (number, text) in [
            (0, "0"),
            (999, "999"),
            (1_000, "1,000"),
            (123_456, "123,456"),
            (1_234_567, "1,234,567"),
        ] {
            assert_eq!(thousands(number), text);
        }
    }

    #[test]
    fn durations_use_the_units_of_people() {
        for (seconds, text) in [
            (0.0, "0 ms"),
            (4e-6, "under 1 ms"),
            (0.0123, "12 ms"),
            (1.0, "1.0 s"),
            (59.94, "59.9 s"),
            (60.0, "1 min 0 s"),
            (3_599.7, "1 h 0 min"),
            (12_300.0, "3 h 25 min"),
            (200_000.0, "2 d 7 h"),
        ] {
            assert_eq!(duration(seconds), text);
        }
    }

    #[test]
    fn control_characters_do_not_get_through() {
        assert_eq!(one_line("left: 1\n  right: 2\u{1b}[2J"), "left: 1 right: 2 [2J");
    }

    #[test]
    fn shell_words() {
        assert_eq!(shell_word("scenarios/a-b_1.toml"), "scenarios/a-b_1.toml");
        assert_eq!(shell_word("a b"), "'a b'");
        assert_eq!(shell_word("$(x)'"), "'$(x)'\\'''");
        assert_eq!(shell_word(""), "''");
    }

    #[test]
    fn long_lists_are_wrapped_and_keep_every_name() {
        let names: Vec<String> = (0..40).map(|n| format!("waypoint-{n}")).collect();
        let text = wrapped("  never: ", &names, Paint::plain());
        assert!(text.lines().count() > 1);
        assert!(text.lines().all(|line| line.len() <= 100), "{text}");
        let joined: String = text.replace("  never: ", "").split_whitespace().collect();
        assert_eq!(joined, names.join(","));
    }
}
