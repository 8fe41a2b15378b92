//! Version, revision and sources of this build, by which campaigns and failures name the code that ran.

/// The version of this build.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The git revision of this build, or of the package that it is built from, `-dirty` if the sources
/// differed from it; `unknown` without git.
pub const REVISION: &str = env!("STORMKV_REVISION");

/// Version and revision, as `--version` and every failure print them.
pub const BUILD: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("STORMKV_REVISION"), ")");

/// A hash of all sources of this build. It tells builds apart that have no revision of their own:
/// those from sources with changes, and those without git.
pub const SOURCES: &str = env!("STORMKV_SOURCES");
