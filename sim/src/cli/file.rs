//! Writes a file whole or not at all: who reads it while it is written, or after a crash, sees the old
//! content or the new one.

use std::fs;
use std::path::{Path, PathBuf};

use stormkv_sim::report;

use super::Usage;

/// Writes a file. What is no ordinary file, such as a pipe, is written to as it is.
pub fn write(path: &Path, content: &[u8]) -> Result<(), Usage> {
    let special = fs::metadata(path).is_ok_and(|metadata| !metadata.is_file());
    let written = if special {
        fs::write(path, content)
    } else {
        let mut draft = path.as_os_str().to_owned();
        draft.push(".part");
        let draft = PathBuf::from(draft);
        fs::write(&draft, content).and_then(|()| fs::rename(&draft, path))
    };
    written.map_err(|error| {
        let name = report::one_line(&path.to_string_lossy());
        Usage(format!("{name} cannot be written: {error}; name a file in another directory"))
    })
}
