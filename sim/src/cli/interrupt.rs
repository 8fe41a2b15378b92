//! Ctrl-C ends a campaign early, with a report of what was found until then.
//!
//! A signal only sets a flag, on whatever thread it arrives; the campaign looks at it between two
//! seeds. No run sees it. A second signal ends the program at once, as the first one does when no
//! campaign is under way: whoever presses Ctrl-C twice does not want to wait.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

/// Whether the user has asked for the end.
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Watches for Ctrl-C and SIGTERM from now on.
    ///
    /// # Errors
    /// If the system does not allow it.
    pub fn watch() -> io::Result<Interrupt> {
        let asked = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            // First, because it looks at the flag that the second one sets.
            flag::register_conditional_default(signal, Arc::clone(&asked))?;
            flag::register(signal, Arc::clone(&asked))?;
        }
        Ok(Interrupt(asked))
    }

    /// Whether the user has asked for the end.
    pub fn is_asked(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl Drop for Interrupt {
    /// From now on the first signal ends the program.
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
