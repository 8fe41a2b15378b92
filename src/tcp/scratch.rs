//! Temporary directories for tests.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// A path in the system's temporary directory that nobody else uses. Whatever is there in the end
/// is removed.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    /// Reserves a path, and leaves it to the test to create something there.
    pub(crate) fn new() -> Scratch {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("stormkv-test-{}-{count}", std::process::id());
        let path = std::env::temp_dir().join(name);
        // Left behind by a process of the same id that was killed.
        let _ = fs::remove_dir_all(&path);
        Scratch(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
