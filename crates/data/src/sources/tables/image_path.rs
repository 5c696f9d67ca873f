//! The file that a path in a table means. Most tables are right as they are: the first images are looked for, and only
//! if one is absent, or a path looks odd, all are.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use unicode_normalization_alignments::UnicodeNormalization;

use crate::dataset::builder::DatasetBuilder;
use crate::files::is_absent;
use crate::sources::tables::path_tail::{MAX_ENTRIES, Tail, folders_in};
use crate::sources::tables::path_text::{file_url, is_drive, not_local, shown};

/// Images that are looked for before paths are trusted.
const PROBES: usize = 100;

/// Absent images for which a name in other letter case, or another folder, is looked for: each lists folders.
const EXPLAINED: usize = 3;

/// How a path had to be read to be found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Reading {
    FileUrl,
    Quotes,
    Home,
    Backslash,
    Number,
    Parent,
    UnicodeForm,
}

/// Finds the images of one table.
#[derive(Debug)]
pub(crate) struct ImagePaths {
    root: PathBuf,
    /// Images that are still looked for in any case.
    probes: usize,
    /// Whether an image was absent: from then on, all are looked for.
    is_looking: bool,
    /// Whether an image that was looked for is where it is written.
    is_there: bool,
    /// Whether every path of the table ends in `#` and a caption number.
    pub(crate) has_numbers: bool,
    /// Number of paths that were read otherwise than written, and the first.
    readings: BTreeMap<Reading, (u64, String)>,
    absent: usize,
    /// A path, and what is there in other letter case.
    other_case: Option<(String, PathBuf)>,
    /// A folder that has the first absent image.
    other_root: Option<PathBuf>,
    /// The first absent image, and the end of its path that is there.
    tail: Option<(String, Tail)>,
    /// Number of paths with a Windows drive.
    drives: usize,
    /// The last path as written, and its file: captions of one image mostly follow each other.
    last: (String, PathBuf),
    /// Number of times that the disk was asked for a file.
    looks: u64,
}

impl ImagePaths {
    /// Paths are relative to `root`.
    pub(crate) fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            probes: PROBES,
            is_looking: false,
            is_there: false,
            has_numbers: false,
            readings: BTreeMap::new(),
            absent: 0,
            other_case: None,
            other_root: None,
            tail: None,
            drives: 0,
            last: (String::new(), root.to_owned()),
            looks: 0,
        }
    }

    /// The folder that paths are relative to.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Whether paths were read without quotes that are around them.
    pub(crate) fn has_quotes(&self) -> bool {
        self.readings.contains_key(&Reading::Quotes)
    }

    /// The file that `written` means; as written if there is none. The error says why it cannot be a local path.
    pub(crate) fn find(&mut self, written: &str) -> Result<PathBuf, String> {
        if self.last.0 == written && !written.is_empty() {
            return Ok(self.last.1.clone());
        }
        let path = self.find_anew(written)?;
        self.last = (written.to_owned(), path.clone());
        Ok(path)
    }

    fn find_anew(&mut self, written: &str) -> Result<PathBuf, String> {
        let url = file_url(written);
        let text = match &url {
            Some(path) => {
                self.count(Reading::FileUrl, written);
                path.as_str()
            }
            None => match not_local(written) {
                Some(reason) => return Err(self.explain_remote(reason, written)),
                None => written,
            },
        };
        if text.contains('\0') {
            return Err("the image path holds a NUL character".to_owned());
        }
        let text = match without_number(text) {
            Some(stem) if self.has_numbers && !self.exists(&below(&self.root, text)) => {
                self.count(Reading::Number, written);
                stem
            }
            _ => text,
        };
        let path = below(&self.root, text);
        if self.probes == 0 && !self.is_looking && !is_odd(text) {
            return Ok(path);
        }
        self.probes = self.probes.saturating_sub(1);
        if self.exists(&path) {
            self.is_there = true;
            return Ok(path);
        }
        self.is_looking = true;
        for (candidate, readings) in candidates(text) {
            let file = below(&self.root, &candidate);
            if self.exists(&file) {
                readings.into_iter().for_each(|reading| self.count(reading, written));
                return Ok(file);
            }
        }
        self.explain(text);
        Ok(path)
    }

    fn count(&mut self, reading: Reading, written: &str) {
        self.readings.entry(reading).or_insert_with(|| (0, shown(written))).0 += 1;
    }

    fn exists(&mut self, path: &Path) -> bool {
        self.looks += 1;
        // A file that the system does not show is there: whoever reads it tells why not.
        std::fs::metadata(path).map_or_else(|error| !is_absent(&error), |metadata| !metadata.is_dir())
    }

    /// Looks for what the user may have meant by the first absent paths.
    fn explain(&mut self, text: &str) {
        self.absent += 1;
        if self.absent > EXPLAINED {
            return;
        }
        if self.other_case.is_none() {
            self.other_case = in_other_case(&self.root, text).map(|path| (shown(text), path));
        }
        if let Some(root) = &self.other_root {
            self.other_root = root.join(text).is_file().then(|| root.clone());
        }
        if self.absent == 1 && self.other_case.is_none() && !self.is_there {
            let parent = self.root.parent().map(Path::to_owned);
            let mut folders = folders_in(&self.root);
            folders.extend(parent.iter().cloned());
            folders.extend(parent.iter().flat_map(|parent| folders_in(parent)));
            self.other_root = folders.into_iter().find(|folder| folder.join(text).is_file());
        }
        if self.tail.is_none() && self.other_root.is_none() && self.other_case.is_none() && !self.is_there {
            self.tail = Tail::find(&self.root, text).map(|tail| (shown(text), tail));
        }
    }

    /// Why a path is not local; with what is here, if it is that of another machine.
    fn explain_remote(&mut self, reason: String, written: &str) -> String {
        if !is_drive(written) {
            return reason;
        }
        self.drives += 1;
        match Tail::find(&self.root, written).filter(|_| self.drives == 1) {
            Some(tail) => format!("{reason}: {}", tail.advice(&self.root)),
            None => reason,
        }
    }

    /// Tells what was read otherwise than written in the table `file`.
    pub(crate) fn tell(&self, file: &str, builder: &mut DatasetBuilder) {
        for (reading, (count, first)) in &self.readings {
            let paths = if *count == 1 { "1 image path".to_owned() } else { format!("{count} image paths") };
            let text = match reading {
                Reading::FileUrl => {
                    builder.note(format!("`{file}`: {paths} with `file://`, such as `{first}`"));
                    continue;
                }
                Reading::Number => {
                    builder
                        .note(format!("`{file}`: {paths} with a caption number that is left off, such as `{first}`"));
                    continue;
                }
                Reading::Quotes => format!("{paths} are read without the quotes around them, such as `{first}`"),
                Reading::Home => format!("`~` is read as the home directory in {paths}, such as `{first}`"),
                Reading::Backslash => format!("`\\` is read as `/` in {paths}, such as `{first}`"),
                Reading::Parent => format!(
                    "a folder with `..` behind it is left off, though it is not there, in {paths}, such as `{first}`"
                ),
                Reading::UnicodeForm => {
                    format!("{paths} name files whose names are in another Unicode form, such as `{first}`")
                }
            };
            builder.warn(format!("`{file}`: {text}"));
        }
        if let Some((written, path)) = &self.other_case {
            builder.warn(format!(
                "`{file}`: `{written}` is not there, but `{}` is: upper and lower case differ; correct the table or \
                 rename the file",
                path.display()
            ));
        }
        if let Some((written, tail)) = self.tail.as_ref().filter(|_| !self.is_there) {
            builder.warn(format!("`{file}`: `{written}` is not there; {}", tail.advice(&self.root)));
        }
        if let Some(root) = self.other_root.as_ref().filter(|_| !self.is_there) {
            builder.warn(format!(
                "`{file}`: its images are not below `{}`, but below `{}`: set `root` to that folder",
                self.root.display(),
                root.display()
            ));
        }
    }
}

/// The path `text` of a table, below the folder `root`. Below the folder without a name, where the program runs,
/// `./a.png` is `a.png`: paths are compared by their components, and `.` is one at the start of a path, and only there.
pub(crate) fn below(root: &Path, text: &str) -> PathBuf {
    let path = Path::new(text);
    if root.as_os_str().is_empty() { path.strip_prefix(".").unwrap_or(path).to_owned() } else { root.join(path) }
}

/// Whether a path has something that [`candidates`] changes.
fn is_odd(text: &str) -> bool {
    text.contains('\\')
        || text.contains("..")
        || text.starts_with(['"', '\'', '~'])
        || without_number(text).is_some()
        || !text.is_ascii() && (nfc(text) != text || nfd(text) != text)
}

/// Other readings of a path, and what is changed in each.
fn candidates(text: &str) -> Vec<(String, Vec<Reading>)> {
    let mut all = vec![(text.to_owned(), Vec::new())];
    let mut extend = |reading: Reading, change: &dyn Fn(&str) -> Option<String>| {
        for at in 0..all.len() {
            let (known, readings) = &all[at];
            if let Some(changed) = change(known).filter(|changed| changed != known) {
                let readings = readings.iter().copied().chain([reading]).collect();
                all.push((changed, readings));
            }
        }
    };
    extend(Reading::Quotes, &|text| {
        let inner = ['"', '\''].iter().find_map(|quote| text.strip_prefix(*quote)?.strip_suffix(*quote));
        inner.map(|inner| inner.trim().to_owned())
    });
    extend(Reading::Home, &|text| {
        let home = std::env::home_dir()?;
        Some(home.join(text.strip_prefix("~/")?).to_str()?.to_owned())
    });
    extend(Reading::Backslash, &|text| Some(text.replace('\\', "/")));
    extend(Reading::Number, &|text| without_number(text).map(str::to_owned));
    extend(Reading::Parent, &|text| without_parents(Path::new(text)).to_str().map(str::to_owned));
    extend(Reading::UnicodeForm, &|text| (!text.is_ascii()).then(|| nfc(text)));
    extend(Reading::UnicodeForm, &|text| (!text.is_ascii()).then(|| nfd(text)));
    all.remove(0);
    all
}

/// `a.jpg` of `a.jpg#2`, as Flickr8k's `Flickr8k.token.txt` numbers the captions of an image.
pub(crate) fn without_number(text: &str) -> Option<&str> {
    let (stem, number) = text.rsplit_once('#')?;
    let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    (is_number && !stem.is_empty()).then_some(stem)
}

/// A path without `.`, and without `..` where a folder is before it.
pub(crate) fn without_parents(path: &Path) -> PathBuf {
    let mut short = PathBuf::new();
    for component in path.components() {
        let is_folder = matches!(short.components().next_back(), Some(Component::Normal(_)));
        match component {
            Component::CurDir => {}
            Component::ParentDir if is_folder => {
                short.pop();
            }
            other => short.push(other),
        }
    }
    short
}

fn nfc(text: &str) -> String {
    UnicodeNormalization::nfc(text).map(|(character, _)| character).collect()
}

fn nfd(text: &str) -> String {
    UnicodeNormalization::nfd(text).map(|(character, _)| character).collect()
}

/// The file that differs from `text` below `root` in upper and lower case only.
fn in_other_case(root: &Path, text: &str) -> Option<PathBuf> {
    let mut found = root.to_owned();
    for component in Path::new(text).components() {
        let next = found.join(component);
        if !matches!(component, Component::Normal(_)) || next.exists() {
            found = next;
            continue;
        }
        let wanted = component.as_os_str().to_str()?.to_lowercase();
        let mut entries = std::fs::read_dir(&found).ok()?.flatten().take(MAX_ENTRIES);
        found = entries.find(|entry| entry.file_name().to_string_lossy().to_lowercase() == wanted)?.path();
    }
    (found != root.join(text) && found.is_file()).then_some(found)
}

#[cfg(test)]
mod tests {
    use std::fs::{create_dir_all, write};

    use super::*;

    /// A folder with files of these names, and a finder in it.
    fn folder(names: &[&str]) -> (tempfile::TempDir, ImagePaths) {
        let dir = tempfile::tempdir().unwrap();
        for name in names {
            let path = dir.path().join(name);
            create_dir_all(path.parent().unwrap()).unwrap();
            write(path, b"x").unwrap();
        }
        let paths = ImagePaths::new(dir.path());
        (dir, paths)
    }

    /// What the finder tells, without the folder.
    fn told(dir: &Path, paths: &ImagePaths) -> Vec<String> {
        let mut builder = DatasetBuilder::new(dir);
        paths.tell("d.csv", &mut builder);
        let dataset = builder.build();
        let texts = dataset.notes.iter().chain(&dataset.warnings);
        texts.map(|text| text.replace(&dir.display().to_string(), "DIR")).collect()
    }

    #[test]
    fn healthy_tables_cost_few_looks() {
        let names: Vec<String> = (0..200).map(|at| format!("{at}.png")).collect();
        let (dir, mut paths) = folder(&names.iter().map(String::as_str).collect::<Vec<_>>());
        for at in 0..100_000 {
            let name = format!("{}.png", at % 200);
            assert_eq!(paths.find(&name).unwrap(), dir.path().join(name));
        }
        assert_eq!(paths.looks, PROBES as u64);
        assert!(told(dir.path(), &paths).is_empty());
    }

    #[test]
    fn other_readings_are_found() {
        let (dir, mut paths) = folder(&["sub/a.png", "sub/caf\u{e9}.png", "nfd/cafe\u{301}.png", "b.png"]);
        let at = |name: &str| dir.path().join(name);
        for (written, file) in [
            ("sub\\a.png", "sub/a.png"),
            ("sub/a.png#3", "sub/a.png"),
            ("\"b.png\"", "b.png"),
            ("'sub\\a.png'", "sub/a.png"),
            ("sub/cafe\u{301}.png", "sub/caf\u{e9}.png"),
            ("nfd\\caf\u{e9}.png", "nfd/cafe\u{301}.png"),
            ("./b.png", "b.png"),
            ("b.png", "b.png"),
        ] {
            assert_eq!(paths.find(written).unwrap(), at(file), "{written}");
        }
        let url = format!("file://{}", at("b.png").display());
        assert_eq!(paths.find(&url).unwrap(), at("b.png"));
        assert_eq!(paths.find(at("b.png").to_str().unwrap()).unwrap(), at("b.png"));
        let told = told(dir.path(), &paths);
        let backslash = "`d.csv`: `\\` is read as `/` in 3 image paths, such as `sub\\a.png`";
        assert!(told.contains(&backslash.to_owned()), "{told:?}");
        let form =
            "`d.csv`: 2 image paths name files whose names are in another Unicode form, such as `sub/cafe\u{301}.png`";
        assert!(told.contains(&form.to_owned()), "{told:?}");
        assert_eq!(told.len(), 5, "{told:?}");
    }

    #[test]
    fn dots_at_the_start_are_left_off_in_every_folder() {
        for root in ["", ".", "d", "/d"] {
            let mut paths = ImagePaths::new(Path::new(root));
            let plain = paths.find("none/a.png").unwrap();
            for written in ["./none/a.png", "././none/a.png", "none/./a.png"] {
                assert_eq!(paths.find(written).unwrap(), plain, "`{root}`: {written}");
            }
        }
        assert_eq!(ImagePaths::new(Path::new("")).find("../a.png").unwrap(), Path::new("../a.png"));
    }

    #[test]
    fn late_odd_paths_are_found() {
        let (dir, mut paths) = folder(&["sub/a.png", "b.png"]);
        for at in 0..1000 {
            paths.find(["b.png", "sub/a.png"][at % 2]).unwrap();
        }
        assert_eq!(paths.find("sub\\a.png").unwrap(), dir.path().join("sub/a.png"));
    }

    #[test]
    fn files_win_over_other_readings() {
        let (dir, mut paths) = folder(&["a\\b.png", "a/b.png", "c.png#1", "c.png"]);
        for name in ["a\\b.png", "c.png#1"] {
            assert_eq!(paths.find(name).unwrap(), dir.path().join(name));
        }
        assert!(told(dir.path(), &paths).is_empty());
    }

    #[test]
    fn absent_images_stay_as_written() {
        let (dir, mut paths) = folder(&["Images/Cat.PNG"]);
        assert_eq!(paths.find("images\\none.png").unwrap(), dir.path().join("images\\none.png"));
        assert_eq!(paths.find("images/cat.png").unwrap(), dir.path().join("images/cat.png"));
        let expected = "`d.csv`: `images/cat.png` is not there, but `DIR/Images/Cat.PNG` is: upper and lower case \
                        differ; correct the table or rename the file";
        assert_eq!(told(dir.path(), &paths), [expected]);
        assert!(paths.find("a\0b").unwrap_err().contains("NUL"));
    }

    #[test]
    fn other_roots_are_named() {
        let (dir, mut paths) = folder(&["flickr30k_images/1.jpg", "x/y.txt"]);
        paths.find("1.jpg").unwrap();
        let expected = "`d.csv`: its images are not below `DIR`, but below `DIR/flickr30k_images`: set `root` to \
                        that folder";
        assert_eq!(told(dir.path(), &paths), [expected]);
    }

    #[test]
    fn parents_of_absent_folders_are_left_off() {
        let (dir, mut paths) = folder(&["a.png", "sub/b.png"]);
        assert_eq!(paths.find("none\\..\\a.png").unwrap(), dir.path().join("a.png"));
        assert_eq!(paths.find("sub/../a.png").unwrap(), dir.path().join("sub/../a.png"), "it is there");
        assert!(told(dir.path(), &paths).iter().any(|text| text.contains("a folder with `..` behind it is left off")));
        assert_eq!(without_parents(Path::new("../a/./b/../../c.png")), Path::new("../c.png"));
    }

    #[test]
    fn paths_of_other_machines_name_the_fix() {
        let (dir, mut paths) = folder(&["images/1.jpg"]);
        let reason = paths.find("C:\\data\\images\\1.jpg").unwrap_err();
        let expected = format!(
            "`images/1.jpg` is there below `{}`: remove `C:\\data\\` from the paths, such as with `sed \
             's|C:\\\\data\\\\||'`",
            dir.path().display()
        );
        assert!(reason.ends_with(&expected), "{reason}");
        assert!(!paths.find("C:\\data\\images\\1.jpg").unwrap_err().contains("sed"), "said once");
        for (written, head, set) in [
            ("/home/x/images/1.jpg", "/home/x/", false),
            ("data/images/1.jpg", "data/", false),
            ("/mnt/1.jpg", "/mnt/", true),
        ] {
            let mut paths = ImagePaths::new(dir.path());
            assert_eq!(paths.find(written).unwrap(), dir.path().join(written));
            let told = told(dir.path(), &paths).join("\n");
            assert!(
                told.contains(&format!("remove `{head}` from the paths, such as with `sed 's|{head}||'`")),
                "{told}"
            );
            assert_eq!(told.contains("set `root` to that folder"), set, "{told}");
        }
    }
}
