//! The disk of a node as a test can fill and stop it: the model of `tests/slow-disk`, preloaded.
//!
//! The library stands between the process and the C library, so it works on Linux only. There a
//! linker that Rust uses is a C compiler, too.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A library that models disks, compiled.
pub struct DiskModel(PathBuf);

impl DiskModel {
    /// Compiles the model into `folder`; `None` where it does not work.
    pub fn compile(folder: &Path) -> Option<DiskModel> {
        if !cfg!(all(target_os = "linux", target_env = "gnu")) {
            return None;
        }
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/slow-disk/slow_disk.c");
        let library = folder.join("slow_disk.so");
        let mut compiler = Command::new("cc");
        compiler.args(["-shared", "-fPIC", "-O2", "-pthread", "-o"]).arg(&library).arg(source);
        let status = compiler.status().unwrap_or_else(|error| panic!("cc is needed: {error}"));
        assert!(status.success(), "{compiler:?}: {status}");
        Some(DiskModel(library))
    }
}

/// The modelled disk of one node.
pub struct Disk {
    library: PathBuf,
    data: PathBuf,
    control: PathBuf,
}

impl Disk {
    /// A disk without limits below the directory `data`, controlled by files in `control`.
    pub fn new(model: &DiskModel, data: &Path, control: PathBuf) -> Disk {
        // The library resolves the name of the directory at start, so it must exist by then.
        for directory in [data, &control] {
            fs::create_dir_all(directory).expect("a directory of the disk model");
        }
        Disk { library: model.0.clone(), data: data.to_owned(), control }
    }

    /// Variables of the process whose disk this is. A sync takes no time of its own.
    pub fn variables(&self) -> [(&'static str, PathBuf); 4] {
        [
            ("LD_PRELOAD", self.library.clone()),
            ("SLOW_DISK_DIR", self.data.clone()),
            ("SLOW_DISK_CONTROL", self.control.clone()),
            ("SLOW_DISK_LATENCY_US", "0".into()),
        ]
    }

    /// Leaves so many bytes free, as if something else filled the disk.
    pub fn leave(&self, bytes: u64) {
        let files = fs::read_dir(&self.data).expect("the data directory").flatten();
        let used: u64 = files.filter_map(|file| Some(file.metadata().ok()?.len())).sum();
        self.set("capacity", &(used + bytes).to_string());
    }

    /// Removes the limit.
    pub fn free(&self) {
        let _ = fs::remove_file(self.control.join("capacity"));
    }

    /// Lets operations on files that change something block, or go on.
    pub fn hang(&self, hangs: bool) {
        if hangs {
            self.set("hang", "");
        } else {
            let _ = fs::remove_file(self.control.join("hang"));
        }
    }

    /// Replaces a control file in one step: the model may read it at any time.
    fn set(&self, name: &str, value: &str) {
        let fresh = self.control.join("fresh");
        fs::write(&fresh, value).expect("a control file");
        fs::rename(fresh, self.control.join(name)).expect("a control file");
    }
}
