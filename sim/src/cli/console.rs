//! Standard output and standard error, without the panics of `println!`.
//!
//! A reader that goes away (`cargo sim replay --trace | head`) is no error: what follows is dropped
//! in silence, and the exit code still tells the verdict. Any other failure to write (a full disk)
//! is remembered, and reported at the end: output that got lost must not look like success.

use std::cell::RefCell;
use std::io::{self, BufWriter, ErrorKind, IsTerminal, Write};
use std::rc::Rc;

use crate::report::Paint;
use clap::builder::StyledStr;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::Exit;

/// How often a line about progress is drawn at most, per second.
const REDRAWS_PER_S: u8 = 8;

/// Where a command prints.
pub struct Console {
    /// Results.
    pub out: Stream,
    /// Progress, errors, and with `--json` whatever is not the object.
    pub err: Stream,
    /// Whether `out` is a terminal that wants colours.
    pub colours: bool,
    /// Whether `err` is.
    pub err_colours: bool,
    /// Whether `err` is a terminal: a progress bar makes sense.
    pub err_terminal: bool,
}

impl Console {
    /// The streams of this process. Colours need a terminal, and no `NO_COLOR` (no-color.org).
    pub fn of_process() -> Console {
        let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|value| value == "dumb");
        let wanted = !set("NO_COLOR") && !dumb;
        let err_terminal = io::stderr().is_terminal();
        Console {
            out: Stream::new(BufWriter::new(io::stdout())),
            err: Stream::new(io::stderr()),
            colours: wanted && io::stdout().is_terminal(),
            err_colours: wanted && err_terminal,
            err_terminal,
        }
    }

    /// The colours for `out`.
    pub fn paint(&self) -> Paint {
        if self.colours { Paint::coloured() } else { Paint::plain() }
    }

    /// The colours for `err`.
    pub fn err_paint(&self) -> Paint {
        if self.err_colours { Paint::coloured() } else { Paint::plain() }
    }

    /// A line about progress on standard error if that is a terminal; otherwise one that draws
    /// nothing.
    pub fn progress_line(&self) -> ProgressBar {
        if !self.err_terminal {
            return ProgressBar::hidden();
        }
        let style = ProgressStyle::with_template("{spinner} {msg}").expect("the template is ours");
        let target = ProgressDrawTarget::stderr_with_hz(REDRAWS_PER_S);
        ProgressBar::with_draw_target(None, target).with_style(style)
    }

    /// Prints one JSON object on standard output.
    pub fn print_json(&self, object: &impl serde::Serialize) {
        let text = serde_json::to_string(object).expect("our objects have string keys");
        self.out.print(&format!("{text}\n"));
    }

    /// Flushes, and turns lost output into an internal error.
    pub fn finish(&self, exit: Exit) -> Exit {
        self.out.flush();
        let Some(error) = self.out.take_error() else { return exit };
        self.err.print(&format!(
            "error: standard output could not be written: {error}; free the disk or redirect it\n"
        ));
        Exit::Internal
    }

    /// What clap rendered, with or without colours.
    pub fn styled(&self, text: &StyledStr, colours: bool) -> String {
        if colours { text.ansi().to_string() } else { text.to_string() }
    }
}

/// A shared handle to one stream. Writing never fails; see the module for what happens instead.
#[derive(Clone)]
pub struct Stream(Rc<RefCell<Sink>>);

struct Sink {
    inner: Box<dyn Write>,
    /// Set at the first failure; nothing is written any more.
    closed: bool,
    /// That failure, unless the reader just went away.
    error: Option<io::Error>,
}

impl Stream {
    /// Wraps a writer.
    pub fn new(inner: impl Write + 'static) -> Stream {
        let inner = Box::new(inner);
        Stream(Rc::new(RefCell::new(Sink { inner, closed: false, error: None })))
    }

    /// Writes the text.
    pub fn print(&self, text: &str) {
        self.attempt(|inner| inner.write_all(text.as_bytes()));
    }

    /// Writes bytes.
    pub fn write(&self, bytes: &[u8]) {
        self.attempt(|inner| inner.write_all(bytes));
    }

    /// Writes the text and a newline.
    pub fn print_line(&self, text: &str) {
        self.attempt(|inner| {
            inner.write_all(text.as_bytes())?;
            inner.write_all(b"\n")
        });
    }

    /// Hands on what is buffered.
    pub fn flush(&self) {
        self.attempt(|inner| inner.flush());
    }

    fn attempt(&self, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) {
        let mut sink = self.0.borrow_mut();
        if sink.closed {
            return;
        }
        if let Err(error) = write(&mut *sink.inner) {
            sink.closed = true;
            sink.error = (error.kind() != ErrorKind::BrokenPipe).then_some(error);
        }
    }

    fn take_error(&self) -> Option<io::Error> {
        self.0.borrow_mut().error.take()
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A writer whose text a test can read afterwards.
    #[derive(Clone, Default)]
    pub struct Kept(Rc<RefCell<Vec<u8>>>);

    impl Kept {
        pub fn text(&self) -> String {
            String::from_utf8(self.0.borrow().clone()).unwrap()
        }
    }

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.borrow_mut().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// A console without a terminal, and what was printed on it.
    pub fn captured() -> (Console, Kept, Kept) {
        let (out, err) = (Kept::default(), Kept::default());
        let console = Console {
            out: Stream::new(out.clone()),
            err: Stream::new(err.clone()),
            colours: false,
            err_colours: false,
            err_terminal: false,
        };
        (console, out, err)
    }

    struct Broken(ErrorKind);

    impl Write for Broken {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_that_goes_away_changes_nothing() {
        let (mut console, _, err) = captured();
        console.out = Stream::new(Broken(ErrorKind::BrokenPipe));
        console.out.print("the first line breaks the pipe\n");
        console.out.print_line("the second is dropped");
        assert_eq!(console.finish(Exit::Violation), Exit::Violation);
        assert_eq!(err.text(), "");
    }

    #[test]
    fn lost_output_is_an_error() {
        let (mut console, _, err) = captured();
        console.out = Stream::new(Broken(ErrorKind::StorageFull));
        console.out.print("does not fit\n");
        assert_eq!(console.finish(Exit::Clean), Exit::Internal);
        assert!(err.text().starts_with("error: standard output could not be written: "));
    }
}
