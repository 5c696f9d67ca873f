//! Damaged and hostile shards, made by hand: each is read in part or refused, nothing is written, and no image has the
//! bytes of another entry.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use dualenc_data::{Dataset, WebdatasetSource};
use tar::EntryType;

use crate::limits::{peak_memory, within};

const BLOCK: usize = 512;
const GIB: u64 = 1 << 30;

/// A shard as bytes.
#[derive(Clone, Default)]
struct Shard(Vec<u8>);

/// A header with any content in its fields. Its checksum is right.
fn header(name: &[u8], kind: u8, size: u64) -> [u8; BLOCK] {
    let mut header = tar::Header::new_ustar();
    header.as_old_mut().name[..name.len()].copy_from_slice(name);
    header.set_entry_type(EntryType::new(kind));
    header.set_mode(0o644);
    header.set_size(size);
    header.set_cksum();
    *header.as_bytes()
}

impl Shard {
    /// Adds raw bytes.
    fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// Adds content, padded to whole blocks.
    fn content(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self.0.resize(self.0.len().next_multiple_of(BLOCK), 0);
        self
    }

    fn entry(self, name: &[u8], kind: u8, bytes: &[u8]) -> Self {
        self.raw(&header(name, kind, bytes.len() as u64)).content(bytes)
    }

    /// An image with its key as its bytes, and its caption.
    fn sample(self, key: &str) -> Self {
        self.entry(format!("{key}.png").as_bytes(), b'0', key.as_bytes()).entry(
            format!("{key}.txt").as_bytes(),
            b'0',
            b"a cat",
        )
    }

    /// PAX records for the next entry.
    fn pax(self, records: &[u8]) -> Self {
        self.entry(b"pax", b'x', records)
    }

    fn end(self) -> Self {
        self.raw(&[0; 2 * BLOCK])
    }
}

/// A PAX record with its own length in front.
fn record(key: &str, value: &str) -> Vec<u8> {
    let rest = format!(" {key}={value}\n");
    let len = (1..).find(|len: &usize| len.to_string().len() + rest.len() == *len).unwrap();
    format!("{len}{rest}").into_bytes()
}

fn read(path: &Path, strict: bool) -> Result<Dataset, String> {
    WebdatasetSource { strict, ..WebdatasetSource::new(path) }.read().map_err(|error| error.to_string())
}

/// The names of a data set's images. Every image must hold the bytes of its own key.
fn names(dataset: &Dataset, path: &Path) -> Vec<String> {
    let start = format!("{}/", path.display());
    dataset
        .images()
        .map(|image| {
            let name = image.key().strip_prefix(&start).unwrap().to_owned();
            let (key, _) = name.rsplit_once('.').unwrap();
            assert_eq!(String::from_utf8_lossy(&image.read().unwrap()), key, "the bytes of another entry");
            name
        })
        .collect()
}

/// All files below a folder.
fn files(dir: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        }
        found.insert(path);
    }
    found
}

/// What reading a shard gives: the names of its images, the number of entries left out, or an error.
enum Expected {
    Images(&'static [&'static str], usize),
    /// Damage: part of the message. The images before the damage are used unless `strict`.
    Damage(&'static str, &'static [&'static str]),
}

#[test]
fn hostile_shards_are_contained() {
    use Expected::{Damage, Images};
    let one = || Shard::default().sample("one");
    let two: &[&str] = &["one.png", "two.png"];
    let root = tempfile::tempdir().unwrap();
    let secret = root.path().join("secret.png");
    std::fs::write(&secret, b"secret").unwrap();
    let absolute = root.path().join("absolute").display().to_string();
    let absolute_name: &'static [&'static str] = vec![&*format!("{absolute}.png").leak()].leak();
    let smuggled = Shard::default().sample("smuggled");
    let mut bad_sum = header(b"two.png", b'0', 3);
    bad_sum[0] ^= 1;
    let mut not_octal = header(b"two.png", b'0', 3);
    not_octal[124..136].copy_from_slice(b"zzzzzzzzzzz\0");
    let link = |kind| {
        let mut header = tar::Header::new_ustar();
        header.as_old_mut().name[..8].copy_from_slice(b"link.png");
        header.set_entry_type(kind);
        header.set_link_name(&secret).unwrap();
        header.set_size(0);
        header.set_cksum();
        *header.as_bytes()
    };
    let sum = |mut header: [u8; BLOCK]| {
        header[148..156].fill(b' ');
        let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        header
    };
    let mut negative = header(b"two.png", b'0', 3);
    negative[124..136].fill(255);
    let mut huge = header(b"two.png", b'0', 3);
    huge[124..136].copy_from_slice(&[128, 0, 0, 0, 127, 255, 255, 255, 255, 255, 255, 255]);
    let far_past = "goes past the end of the file";

    let cases: Vec<(&str, Shard, Expected)> = vec![
        ("intact", one().sample("two").end(), Images(two, 0)),
        ("padded", one().sample("two").end().raw(&[0; 20 * BLOCK]), Images(two, 0)),
        // Its last entries may be missing.
        ("no end blocks", one().sample("two"), Images(two, 1)),
        (
            "zeros inside",
            one().raw(&[0; BLOCK]).sample("two").end(),
            Damage("bytes follow the end of the", &["one.png"]),
        ),
        ("two archives in one", one().end().sample("two").end(), Damage("damaged at byte 2048", &["one.png"])),
        (
            "cut in a header",
            one().raw(&header(b"two.png", b'0', 3)[..300]),
            Damage("damaged at byte 2048", &["one.png"]),
        ),
        ("cut in a content", one().raw(&header(b"two.png", b'0', 700)).raw(b"two"), Damage(far_past, &["one.png"])),
        ("garbage", one().raw(&[0xA5; 3 * BLOCK]), Damage("damaged at byte 2048", &["one.png"])),
        ("wrong checksum", one().raw(&bad_sum).content(b"two").end(), Damage("checksum mismatch", &["one.png"])),
        ("size is no number", one().raw(&sum(not_octal)).content(b"two"), Damage("damaged at byte 2048", &["one.png"])),
        ("size is negative", one().raw(&sum(negative)).content(b"two"), Damage("damaged at byte 2048", &["one.png"])),
        ("size overflows", one().raw(&sum(huge)).content(b"two"), Damage("damaged at byte 2048", &["one.png"])),
        (
            "size of 8 GiB",
            one().raw(&header(b"two.png", b'0', 8 * GIB - 1)).content(b"two"),
            Damage(far_past, &["one.png"]),
        ),
        ("parent folder", one().sample("../../up/two").end(), Images(&["one.png", "../../up/two.png"], 0)),
        ("absolute path", Shard::default().sample(&absolute).end(), Images(absolute_name, 0)),
        (
            "parent folder in PAX",
            one().pax(&record("path", "../up.png")).entry(b"x", b'0', b"../up").end(),
            Images(&["one.png"], 1),
        ),
        (
            "symbolic link",
            one().raw(&link(EntryType::Symlink)).entry(b"link.txt", b'0', b"a").end(),
            Images(&["one.png"], 2),
        ),
        ("hard link", one().raw(&link(EntryType::Link)).entry(b"link.txt", b'0', b"a").end(), Images(&["one.png"], 2)),
        ("character device", one().entry(b"two.png", b'3', b"").end(), Images(&["one.png"], 1)),
        ("block device", one().entry(b"two.png", b'4', b"").end(), Images(&["one.png"], 1)),
        ("pipe", one().entry(b"two.png", b'6', b"").end(), Images(&["one.png"], 1)),
        ("unknown kind", one().entry(b"two.png", b'Z', b"two").end(), Images(&["one.png"], 1)),
        ("folder with content", one().entry(b"two.png", b'5', b"two").sample("two").end(), Images(two, 0)),
        ("duplicate image", one().sample("two").entry(b"two.jpg", b'0', b"other").end(), Images(two, 1)),
        ("duplicate sample", one().sample("two").sample("two").end(), Images(two, 2)),
        ("name is not UTF-8", one().entry(b"t\xffo.png", b'0', b"x").sample("two").end(), Images(two, 1)),
        (
            "caption is not UTF-8",
            one().entry(b"two.png", b'0', b"two").entry(b"two.txt", b'0', b"\xff").end(),
            Images(&["one.png"], 1),
        ),
        ("no name", one().entry(b"", b'0', b"x").sample("two").end(), Images(two, 1)),
        (
            // The header says 0 bytes and PAX says more: a reader of the header alone finds the entries inside.
            "PAX size hides entries",
            one()
                .pax(&record("size", &smuggled.0.len().to_string()))
                .raw(&header(b"two.bin", b'0', 0))
                .content(&smuggled.0)
                .sample("two")
                .end(),
            Images(two, 0),
        ),
        (
            "PAX size of 0",
            one().pax(&record("size", "0")).raw(&header(b"two.bin", b'0', 2 * BLOCK as u64)).sample("two").end(),
            Images(two, 0),
        ),
        (
            "PAX size past the end",
            one().pax(&record("size", "99999999")).raw(&header(b"two.png", b'0', 3)).content(b"two").end(),
            Damage(far_past, &["one.png"]),
        ),
        (
            "PAX size overflows",
            one().pax(&record("size", &u64::MAX.to_string())).raw(&header(b"two.png", b'0', 3)).content(b"two"),
            Damage("damaged at byte 2048", &["one.png"]),
        ),
        (
            "PAX before nothing",
            one().pax(&record("path", "two.png")).end(),
            Damage("damaged at byte 2048", &["one.png"]),
        ),
        (
            "long name before nothing",
            one().entry(b"././@LongLink", b'L', b"two.png\0").end(),
            Damage("damaged at byte 2048", &["one.png"]),
        ),
    ];
    assert!(cases.len() >= 20);
    for (number, (what, shard, expected)) in cases.into_iter().enumerate() {
        let path = root.path().join(format!("shards/{number}.tar"));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &shard.0).unwrap();
        let before = files(root.path());
        let shown = |result: &Result<Dataset, String>| match result {
            Ok(dataset) => format!("{:?}, left out: {:?}", names(dataset, &path), dataset.skipped),
            Err(error) => error.clone(),
        };
        let (strict, lax) = (read(&path, true), read(&path, false));
        let found = format!("{what}: {}\nnot strict: {}", shown(&strict), shown(&lax));
        match expected {
            Images(images, left_out) => {
                for dataset in [strict, lax] {
                    let dataset = dataset.unwrap_or_else(|_| panic!("{found}"));
                    assert_eq!(
                        (names(&dataset, &path), dataset.skipped.count),
                        (images.iter().map(|it| (*it).to_owned()).collect(), left_out),
                        "{found}"
                    );
                }
            }
            Damage(message, images) => {
                assert!(
                    strict.is_err_and(|error| error.contains(message) && error.contains(&format!("{number}.tar"))),
                    "{found}"
                );
                let dataset = lax.unwrap_or_else(|_| panic!("{found}"));
                assert_eq!(
                    (names(&dataset, &path), dataset.skipped.count),
                    (images.iter().map(|it| (*it).to_owned()).collect(), 1),
                    "{found}"
                );
            }
        }
        assert_eq!(files(root.path()), before, "{what}: reading wrote files");
    }
    assert!(!Path::new(&format!("{absolute}.png")).exists());
    assert_eq!(std::fs::read(secret).unwrap(), b"secret");
}

/// Writes a shard with a hole of `hole` bytes after `before`, which takes no space on the disk.
fn write_sparse(path: &Path, before: &Shard, hole: u64, after: &Shard) {
    let mut file = File::create(path).unwrap();
    file.write_all(&before.0).unwrap();
    file.seek(SeekFrom::Current(hole as i64)).unwrap();
    file.write_all(&after.0).unwrap();
}

#[test]
fn entries_beyond_4_gib_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.tar");
    let before = Shard::default().sample("one").raw(&header(b"large.bin", b'0', 5 * GIB));
    write_sparse(&path, &before, 5 * GIB, &Shard::default().sample("two").end());
    let ((found, skipped), peak) = peak_memory(|| {
        let dataset = read(&path, true).unwrap();
        (names(&dataset, &path), dataset.skipped.count)
    });
    assert_eq!((found, skipped), (vec!["one.png".to_owned(), "two.png".to_owned()], 0));
    assert!(peak < 1 << 20, "took {peak} bytes of memory");
}

#[test]
fn large_entries_take_no_memory() {
    // Each claims a gigabyte, and has it as a hole.
    for (what, name, kind, images, left_out) in [
        ("image", "two.png", b'0', vec!["one.png", "three.png"], 1),
        ("caption", "two.txt", b'0', vec!["one.png", "three.png"], 1),
        ("long name", "././@LongLink", b'L', vec!["one.png"], 1),
        ("long link", "././@LongLink", b'K', vec!["one.png"], 1),
        ("PAX records", "pax", b'x', vec!["one.png"], 1),
        ("global PAX records", "pax", b'g', vec!["one.png", "three.png"], 0),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.tar");
        let before = Shard::default().sample("one").raw(&header(name.as_bytes(), kind, GIB));
        write_sparse(&path, &before, GIB, &Shard::default().sample("three").end());
        let shard = path.clone();
        let (result, peak) = within(std::time::Duration::from_secs(60), move || peak_memory(|| read(&shard, false)));
        let dataset = result.unwrap();
        assert_eq!(
            (names(&dataset, &path), dataset.skipped.count),
            (images.into_iter().map(str::to_owned).collect(), left_out),
            "{what}: {:?}",
            dataset.skipped
        );
        assert!(peak < 32 << 20, "{what} took {peak} bytes of memory");
    }
}

#[test]
fn hole_at_the_end_is_damage() {
    // What an interrupted copy leaves of a file that was given its whole length first.
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.tar");
    write_sparse(&path, &Shard::default().sample("one"), 0, &Shard::default());
    File::options().write(true).open(&path).unwrap().set_len(GIB).unwrap();
    let (message, peak) = peak_memory(|| read(&path, true).map(|dataset| names(&dataset, &path)).unwrap_err());
    assert!(message.contains("is damaged at byte 2048: 1073739776 bytes follow the end"), "{message}");
    assert!(peak < 1 << 20, "took {peak} bytes of memory");
    assert_eq!(names(&read(&path, false).unwrap(), &path), ["one.png"]);
}
