//! What a disk may hold after a loss of power.
//!
//! The model is as unkind as POSIX allows, and where file systems differ it takes the worst:
//!
//! - What was changed before a sync of the same file or directory began, and the sync returned, is
//!   there. Everything else may be there or not, whatever its order.
//! - Data is kept or lost by sectors of 512 bytes. Where a lost sector lies beyond the end of the
//!   durable file, the file ends before it or has zeros there.
//! - Names are kept or lost one by one, also those of files that were synced themselves. Only the
//!   changes of one file's name stay in order, so that no file has two names.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::record::{Base, ROOT};
use super::{Event, FileId, Recorder};

/// Bytes that a device writes as a whole.
const SECTOR: u64 = 512;

/// What happened below the root of a [`Recorder`].
pub(in crate::tcp) struct Record {
    base: Base,
    events: Vec<Event>,
}

impl Record {
    /// The record up to now.
    pub(in crate::tcp) fn of(recorder: &Recorder) -> Record {
        let (base, events) = recorder.take();
        Record { base, events }
    }

    /// The events.
    pub(in crate::tcp) fn events(&self) -> &[Event] {
        &self.events
    }
}

/// Which of the changes that no sync covers are there.
#[derive(Clone, Copy, Debug)]
pub(in crate::tcp) enum Survivors {
    /// None.
    Nothing,
    /// All of them.
    Everything,
    /// Those before the event with this number; a write that is this event is torn.
    Before(usize),
    /// Each name and each sector with these chances, in percent.
    Some { names: u32, sectors: u32 },
}

/// A moment in a record, and what of it is on the disk.
#[derive(Clone, Copy, Debug)]
pub(in crate::tcp) struct Crash {
    /// The events that have happened.
    pub(in crate::tcp) events: usize,
    pub(in crate::tcp) survivors: Survivors,
    /// For what is decided by chance.
    pub(in crate::tcp) seed: u64,
}

impl Crash {
    fn keeps_name(&self, event: usize, draws: &mut StdRng) -> bool {
        match self.survivors {
            Survivors::Nothing => false,
            Survivors::Everything => true,
            Survivors::Before(end) => event < end,
            Survivors::Some { names, .. } => draws.gen_range(0..100) < names,
        }
    }

    fn keeps_sector(&self, event: usize, draws: &mut StdRng) -> bool {
        match self.survivors {
            Survivors::Nothing => false,
            Survivors::Everything => true,
            Survivors::Before(end) => event < end || (event == end && draws.gen_bool(0.5)),
            Survivors::Some { sectors, .. } => draws.gen_range(0..100) < sectors,
        }
    }
}

/// The files after a loss of power.
#[derive(Debug, Default)]
pub(in crate::tcp) struct Image {
    /// Paths from the root; a directory has no content.
    files: BTreeMap<PathBuf, Option<Vec<u8>>>,
}

/// A file's content: what is durable, and what was changed since.
#[derive(Default)]
struct Content<'a> {
    durable: Vec<u8>,
    pending: Vec<(usize, &'a Event)>,
}

/// The entries of all directories.
type Names = BTreeMap<(FileId, String), FileId>;

impl Image {
    /// The files as they are after `crash`.
    pub(in crate::tcp) fn after(record: &Record, crash: Crash) -> Image {
        let mut contents: BTreeMap<FileId, Content<'_>> = BTreeMap::new();
        for (file, durable) in &record.base.contents {
            contents.insert(*file, Content { durable: durable.clone(), pending: Vec::new() });
        }
        let base = record.base.entries.iter().cloned();
        let mut names: Names = base.map(|(parent, name, file)| ((parent, name), file)).collect();
        let mut renamed: Vec<(usize, &Event)> = Vec::new();
        for (number, event) in record.events[..crash.events].iter().enumerate() {
            match event {
                Event::Write { file, .. } | Event::SetLen { file, .. } => {
                    contents.entry(*file).or_default().pending.push((number, event));
                }
                Event::SyncBegins => {}
                Event::SyncEnds { file, since } => {
                    if let Some(content) = contents.get_mut(file) {
                        content.settle(*since);
                    }
                    renamed.retain(|(number, event)| {
                        let durable = number < since && parent(event) == *file;
                        if durable {
                            apply_name(&mut names, event);
                        }
                        !durable
                    });
                }
                _ => renamed.push((number, event)),
            }
        }
        let mut draws = StdRng::seed_from_u64(crash.seed);
        let mut lost = BTreeSet::new();
        for (number, event) in renamed {
            if lost.contains(&subject(event)) || !crash.keeps_name(number, &mut draws) {
                lost.insert(subject(event));
            } else {
                apply_name(&mut names, event);
            }
        }
        let mut image = Image::default();
        image.add(ROOT, Path::new(""), &names, &mut |file| {
            contents.remove(&file).unwrap_or_default().survive(crash, &mut draws)
        });
        image
    }

    fn add(
        &mut self,
        directory: FileId,
        at: &Path,
        names: &Names,
        content: &mut impl FnMut(FileId) -> Vec<u8>,
    ) {
        let below = names.iter().filter(|((parent, _), _)| *parent == directory);
        for ((_, name), file) in below {
            let path = at.join(name);
            if file.is_directory() {
                self.files.insert(path.clone(), None);
                self.add(*file, &path, names, content);
            } else {
                self.files.insert(path, Some(content(*file)));
            }
        }
    }

    /// Reads the files that are below `root`.
    pub(in crate::tcp) fn read(root: &Path) -> io::Result<Image> {
        let mut image = Image::default();
        let mut directories = vec![PathBuf::new()];
        while let Some(directory) = directories.pop() {
            for entry in fs::read_dir(root.join(&directory))? {
                let entry = entry?;
                let path = directory.join(entry.file_name());
                if entry.file_type()?.is_dir() {
                    image.files.insert(path.clone(), None);
                    directories.push(path);
                } else {
                    image.files.insert(path, Some(fs::read(entry.path())?));
                }
            }
        }
        Ok(image)
    }

    /// Writes the files below `root`, which is empty.
    pub(in crate::tcp) fn write(&self, root: &Path) -> io::Result<()> {
        for (path, content) in &self.files {
            match content {
                None => fs::DirBuilder::new().mode(0o700).create(root.join(path))?,
                Some(content) => fs::write(root.join(path), content)?,
            }
        }
        Ok(())
    }

    /// The first path at which they differ.
    pub(in crate::tcp) fn difference(&self, other: &Image) -> Option<PathBuf> {
        let paths: BTreeSet<_> = self.files.keys().chain(other.files.keys()).collect();
        paths.into_iter().find(|path| self.files.get(*path) != other.files.get(*path)).cloned()
    }
}

impl Content<'_> {
    /// What was changed before this event is durable.
    fn settle(&mut self, since: usize) {
        let durable = self.pending.iter().take_while(|(number, _)| *number < since).count();
        for (_, event) in self.pending.drain(..durable) {
            match event {
                Event::Write { offset, data, .. } => put(&mut self.durable, *offset, data),
                Event::SetLen { len, .. } => self.durable.resize(*len as usize, 0),
                _ => unreachable!("it changes no content"),
            }
        }
    }

    fn survive(self, crash: Crash, draws: &mut StdRng) -> Vec<u8> {
        let mut content = self.durable;
        for (number, event) in self.pending {
            match event {
                Event::Write { offset, data, .. } => {
                    let mut at = 0;
                    while at < data.len() {
                        let offset = offset + at as u64;
                        let room = (SECTOR - offset % SECTOR) as usize;
                        let piece = &data[at..data.len().min(at + room)];
                        let end = offset as usize + piece.len();
                        if crash.keeps_sector(number, draws) {
                            put(&mut content, offset, piece);
                        } else if end > content.len() && crash.keeps_name(number, draws) {
                            content.resize(end, 0);
                        }
                        at += piece.len();
                    }
                }
                Event::SetLen { len, .. } if crash.keeps_name(number, draws) => {
                    content.resize(*len as usize, 0);
                }
                _ => {}
            }
        }
        content
    }
}

fn put(content: &mut Vec<u8>, offset: u64, data: &[u8]) {
    let (at, end) = (offset as usize, offset as usize + data.len());
    content.resize(content.len().max(end), 0);
    content[at..end].copy_from_slice(data);
}

fn apply_name(names: &mut Names, event: &Event) {
    let mut vacate = |parent: FileId, name: &String, file: FileId| {
        // Another file may have the name by now.
        let key = (parent, name.clone());
        if names.get(&key) == Some(&file) {
            names.remove(&key);
        }
    };
    match event {
        Event::MakeDirectory { parent, name, made: file }
        | Event::Create { parent, name, file } => {
            names.insert((*parent, name.clone()), *file);
        }
        Event::Rename { parent, file, from, to } => {
            vacate(*parent, from, *file);
            names.insert((*parent, to.clone()), *file);
        }
        Event::Remove { parent, file, name } => vacate(*parent, name, *file),
        _ => unreachable!("it changes no name"),
    }
}

/// The directory whose entries an event changes.
fn parent(event: &Event) -> FileId {
    match event {
        Event::MakeDirectory { parent, .. }
        | Event::Create { parent, .. }
        | Event::Rename { parent, .. }
        | Event::Remove { parent, .. } => *parent,
        _ => unreachable!("it changes no name"),
    }
}

/// The file whose name an event changes.
fn subject(event: &Event) -> FileId {
    match event {
        Event::MakeDirectory { made: file, .. }
        | Event::Create { file, .. }
        | Event::Rename { file, .. }
        | Event::Remove { file, .. } => *file,
        _ => unreachable!("it changes no name"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tcp::fs::{DirBuilder, File, OpenOptions, remove_file, rename};
    use crate::tcp::scratch::Scratch;
    use std::io::Write;

    fn crash(record: &Record, survivors: Survivors, seed: u64) -> Image {
        Image::after(record, Crash { events: record.events.len(), survivors, seed })
    }

    fn create(path: &Path, data: &[u8]) -> File {
        let mut file = OpenOptions::new().write(true).create(true).open(path).unwrap();
        file.write_all(data).unwrap();
        file
    }

    fn content(image: &Image, path: &str) -> Option<Vec<u8>> {
        image.files.get(Path::new(path)).cloned().flatten()
    }

    /// A root with the directory `d`, whose name is durable, and its recorder.
    fn root() -> (Scratch, PathBuf, std::sync::Arc<Recorder>) {
        let scratch = Scratch::new();
        fs::create_dir(scratch.path()).unwrap();
        let root = fs::canonicalize(scratch.path()).unwrap();
        let recorder = Recorder::start(&root, None, None).unwrap();
        DirBuilder::new().create(root.join("d")).unwrap();
        File::open(&root).unwrap().sync_all().unwrap();
        (scratch, root.join("d"), recorder)
    }

    #[test]
    fn name_without_directory_sync_may_be_lost() {
        let (_scratch, d, recorder) = root();
        create(&d.join("a"), b"1234").sync_all().unwrap();
        let record = Record::of(&recorder);
        assert_eq!(content(&crash(&record, Survivors::Nothing, 0), "d/a"), None);
        let kept = crash(&record, Survivors::Some { names: 100, sectors: 0 }, 0);
        assert_eq!(content(&kept, "d/a"), Some(b"1234".to_vec()));
    }

    #[test]
    fn data_without_sync_may_be_lost_by_sectors() {
        let (_scratch, d, recorder) = root();
        let file = create(&d.join("a"), &[1; 2048]);
        File::open(&d).unwrap().sync_all().unwrap();
        let record = Record::of(&recorder);
        assert_eq!(content(&crash(&record, Survivors::Nothing, 0), "d/a"), Some(vec![]));
        let torn = |seed| {
            let image = crash(&record, Survivors::Some { names: 100, sectors: 50 }, seed);
            content(&image, "d/a").unwrap().chunks(512).map(|sector| sector[0]).collect::<Vec<_>>()
        };
        let all: BTreeSet<_> = (0..200).map(torn).collect();
        assert_eq!(all.len(), 16, "any subset of four sectors");
        file.sync_data().unwrap();
        let record = Record::of(&recorder);
        let image = crash(&record, Survivors::Nothing, 0);
        assert_eq!(content(&image, "d/a"), Some(vec![1; 2048]));
    }

    #[test]
    fn sync_covers_only_what_came_before_it() {
        let (_scratch, d, recorder) = root();
        let mut file = create(&d.join("a"), b"12");
        file.sync_all().unwrap();
        File::open(&d).unwrap().sync_all().unwrap();
        file.write_all(b"34").unwrap();
        rename(d.join("a"), d.join("b")).unwrap();
        let record = Record::of(&recorder);
        let image = crash(&record, Survivors::Nothing, 0);
        assert_eq!(content(&image, "d/a"), Some(b"12".to_vec()));
        let began =
            record.events.iter().rposition(|e| matches!(e, Event::SyncEnds { .. })).unwrap();
        let crash = Crash { events: began, survivors: Survivors::Nothing, seed: 0 };
        assert_eq!(content(&Image::after(&record, crash), "d/a"), None, "it has not returned");
    }

    #[test]
    fn no_file_ever_has_two_names() {
        let (_scratch, d, recorder) = root();
        create(&d.join("a"), b"1");
        for (from, to) in [("a", "b"), ("b", "c"), ("c", "d"), ("d", "a")] {
            rename(d.join(from), d.join(to)).unwrap();
        }
        create(&d.join("b"), b"2");
        remove_file(d.join("b")).unwrap();
        let record = Record::of(&recorder);
        for seed in 0..100 {
            let image = crash(&record, Survivors::Some { names: 80, sectors: 100 }, seed);
            let ones = image.files.values().filter(|found| **found == Some(b"1".to_vec())).count();
            assert!(ones <= 1, "{image:?}");
        }
    }

    #[test]
    fn everything_is_what_the_real_files_are() {
        let (_scratch, d, recorder) = root();
        let file = create(&d.join("a"), &[7; 3000]);
        file.set_len(1000).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, &[8; 100], 2000).unwrap();
        rename(d.join("a"), d.join("b")).unwrap();
        create(&d.join("a"), b"new");
        let image = crash(&Record::of(&recorder), Survivors::Everything, 0);
        let real = Image::read(d.parent().unwrap()).unwrap();
        assert_eq!(image.difference(&real), None);
        let scratch = Scratch::new();
        fs::create_dir(scratch.path()).unwrap();
        image.write(scratch.path()).unwrap();
        assert_eq!(Image::read(scratch.path()).unwrap().difference(&real), None);
    }
}
