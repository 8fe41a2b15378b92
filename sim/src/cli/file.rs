//! Writes a file whole or not at all: who reads it while it is written, or after a crash, sees the old
//! content or the new one.

use std::path::{Path, PathBuf};
use std::{fs, io};

use crate::report;

use super::Usage;

/// Whether a file can be written, for whoever works for long before there is something to write.
pub fn check(path: &Path) -> Result<(), Usage> {
    if is_special(path) {
        return Ok(());
    }
    let draft = draft(path);
    let written = fs::write(&draft, []).and_then(|()| fs::remove_file(&draft));
    written.map_err(|error| refused(path, &error))
}

/// Writes a file. What is no ordinary file, such as a pipe, is written to as it is.
pub fn write(path: &Path, content: &[u8]) -> Result<(), Usage> {
    let written = if is_special(path) {
        fs::write(path, content)
    } else {
        let draft = draft(path);
        fs::write(&draft, content).and_then(|()| fs::rename(&draft, path))
    };
    written.map_err(|error| refused(path, &error))
}

fn is_special(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| !metadata.is_file())
}

/// What is renamed to the file once it is whole.
fn draft(path: &Path) -> PathBuf {
    let mut draft = path.as_os_str().to_owned();
    draft.push(".part");
    PathBuf::from(draft)
}

fn refused(path: &Path, error: &io::Error) -> Usage {
    let name = report::one_line(&path.to_string_lossy());
    Usage(format!("{name} cannot be written: {error}; name a file in another directory"))
}
