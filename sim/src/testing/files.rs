//! Where a test finds its files and where it leaves some.
//!
//! Nothing here is known when this crate is compiled: the folders are those of the package under
//! test, which cargo and nextest name in the environment of its executables.

use std::env;
use std::path::{Path, PathBuf};

use super::source::Source;
use crate::plan::Plan;

/// The folder of the target directory that the plans of failing seeds are saved in.
const FAILURES: &str = "stormkv-failures";

/// A path as the user of a test wrote it: a relative one begins at the root of the package.
pub(super) fn in_package(path: &Path) -> PathBuf {
    match env::var_os("CARGO_MANIFEST_DIR") {
        Some(root) => Path::new(&root).join(path),
        // Started by hand.
        None => path.to_path_buf(),
    }
}

/// The path to print: from the root of the workspace, where commands are typed, if it is below it.
pub(super) fn shown(path: &Path) -> String {
    let package = in_package(Path::new(""));
    let root = package.ancestors().find(|folder| folder.join("Cargo.lock").exists());
    root.and_then(|root| path.strip_prefix(root).ok()).unwrap_or(path).display().to_string()
}

/// The folder for the plans of failing seeds.
///
/// `CARGO_TARGET_TMPDIR` would be the place, but cargo sets it for the compiler of a test and not for
/// its process. A target directory is marked by the file `CACHEDIR.TAG`.
pub(super) fn failures() -> PathBuf {
    let executable = env::current_exe().unwrap_or_default();
    let target = executable.ancestors().skip(1).find(|folder| folder.join("CACHEDIR.TAG").exists());
    // Executables that were moved to another machine have no target directory around them.
    target.or(executable.parent()).map_or_else(env::temp_dir, Path::to_path_buf).join(FAILURES)
}

/// All scenario files below the folder, in the order of their paths.
///
/// # Errors
/// If a folder cannot be listed.
pub(super) fn scenarios_below(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let refused = |error| format!("{} cannot be listed: {error}", shown(folder));
    let mut paths = std::fs::read_dir(folder)
        .map_err(refused)?
        .map(|entry| Ok(entry.map_err(refused)?.path()))
        .collect::<Result<Vec<PathBuf>, String>>()?;
    // The order of a directory differs between file systems.
    paths.sort();
    let mut found = Vec::new();
    for path in paths {
        if path.is_dir() {
            found.extend(scenarios_below(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "toml") {
            found.push(path);
        }
    }
    Ok(found)
}

/// Reads a scenario file. An error names the path that is printed elsewhere.
pub(super) fn load(source: &Source, path: &Path) -> Result<Plan, String> {
    let file = shown(path);
    let text = std::fs::read_to_string(path).map_err(|error| {
        format!("{file}: cannot read the scenario: {error}; check that it is text")
    })?;
    source.parse(&file, &text)
}

/// An empty folder for one test.
#[cfg(test)]
pub(super) fn scratch(name: &str) -> PathBuf {
    let folder = failures().join("tests-of-testing").join(name);
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).expect("the target directory can be written");
    folder
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_saved_in_the_target_directory() {
        let folder = failures();
        assert!(folder.ends_with(FAILURES), "{}", folder.display());
        assert!(folder.with_file_name("CACHEDIR.TAG").exists(), "{}", folder.display());
    }

    #[test]
    fn paths_begin_at_the_workspace() {
        let package = Path::new(env!("CARGO_MANIFEST_DIR"));
        assert_eq!(shown(&package.join("src/lib.rs")), "sim/src/lib.rs");
        assert_eq!(shown(Path::new("/elsewhere/x.toml")), "/elsewhere/x.toml");
    }

    #[test]
    fn scenarios_are_listed_in_order_at_any_depth() {
        let folder = scratch("listed");
        std::fs::create_dir(folder.join("b")).unwrap();
        for name in ["c.toml", "a.toml", "b/d.toml", "b/notes.md"] {
            std::fs::write(folder.join(name), "").unwrap();
        }
        let found = scenarios_below(&folder).unwrap();
        let names: Vec<_> = found.iter().map(|path| path.strip_prefix(&folder).unwrap()).collect();
        assert_eq!(names, ["a.toml", "b/d.toml", "c.toml"].map(Path::new));
        let missing = folder.join("missing");
        let error = scenarios_below(&missing).unwrap_err();
        assert!(error.starts_with(&format!("{} cannot be listed", shown(&missing))), "{error}");
        let error = load(&Source::of::<crate::kv::KeyValue>(), &found[0]).unwrap_err();
        assert!(error.starts_with(&format!("{}:1: ", shown(&found[0]))), "{error}");
    }
}
