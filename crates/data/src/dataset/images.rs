//! The images of a data set in a few allocations: names in one text, so that a million of them take little more memory
//! than their bytes.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::dataset::columns::column::{Column, Texts};
use crate::features::table::FeatureTable;
use crate::images::location::ImageRef;
use crate::parquet::cells::ParquetColumn;

/// Where images are, in order. Equal locations can be found while the table grows ([`ImageIndex`]).
#[derive(Clone, Debug, Default)]
pub(crate) struct ImageTable {
    /// File names relative to a directory, and names of shard entries.
    names: Texts,
    /// [`Place`]s as numbers.
    places: Column<Packed>,
    /// Directories and shards.
    containers: Vec<Arc<Path>>,
    /// Paths that are not UTF-8.
    odd_paths: Vec<PathBuf>,
    /// Columns of parquet files.
    columns: Vec<Arc<ParquetColumn>>,
    /// Tables of features.
    tables: Vec<Arc<FeatureTable>>,
}

/// What the name of an image is relative to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Place {
    /// A file below the directory `containers[0]`.
    Below(u32),
    /// A regular entry of the shard `containers[shard]`.
    Entry { shard: u32, offset: u64, len: u64 },
    /// `odd_paths[0]`; the name is empty.
    Odd(u32),
    /// A row of `columns[column]`; the name is empty.
    Cell { column: u32, row: u64 },
    /// A row of `tables[table]`; the name is empty.
    Feature { table: u32, row: u64 },
}

/// A [`Place`] as numbers: two of its own, then the number of what it is in, shifted by [`KIND_BITS`], with its kind.
pub(crate) type Packed = [u64; 3];

const KIND_BITS: u32 = 3;

/// The kind of a [`Place::Entry`].
const ENTRY: u64 = 1;

impl Place {
    const fn packed(self) -> Packed {
        let (own, inside, kind) = match self {
            Self::Below(directory) => ([0, 0], directory, 0),
            Self::Entry { shard, offset, len } => ([offset, len], shard, ENTRY),
            Self::Odd(at) => ([0, 0], at, 2),
            Self::Cell { column, row } => ([row, 0], column, 3),
            Self::Feature { table, row } => ([row, 0], table, 4),
        };
        [own[0], own[1], (inside as u64) << KIND_BITS | kind]
    }

    const fn of([one, two, last]: Packed) -> Self {
        let inside = (last >> KIND_BITS) as u32;
        match last & ((1 << KIND_BITS) - 1) {
            0 => Self::Below(inside),
            ENTRY => Self::Entry { shard: inside, offset: one, len: two },
            2 => Self::Odd(inside),
            3 => Self::Cell { column: inside, row: one },
            _ => Self::Feature { table: inside, row: one },
        }
    }
}

impl ImageTable {
    /// Images in shards.
    pub(crate) fn of_shards(names: Texts, places: Column<Packed>, shards: Vec<Arc<Path>>) -> Self {
        Self { names, places, containers: shards, ..Self::default() }
    }

    /// Number of images.
    pub(crate) fn len(&self) -> usize {
        self.names.len()
    }

    /// The location of an image.
    ///
    /// # Panics
    /// If `image` is out of range.
    pub(crate) fn get(&self, image: usize) -> ImageRef {
        let name = self.names.get(image);
        match Place::of(self.places[image]) {
            Place::Below(directory) => ImageRef::File(self.containers[directory as usize].join(name)),
            Place::Odd(at) => ImageRef::File(self.odd_paths[at as usize].clone()),
            Place::Cell { column, row } => {
                ImageRef::ParquetCell { column: Arc::clone(&self.columns[column as usize]), row }
            }
            Place::Feature { table, row } => {
                ImageRef::FeatureRow { table: Arc::clone(&self.tables[table as usize]), row }
            }
            Place::Entry { shard, offset, len } => {
                let tar = Arc::clone(&self.containers[shard as usize]);
                ImageRef::TarEntry { tar, name: name.to_owned(), offset, len }
            }
        }
    }

    /// Adds an image. A file below `root` is stored relative to it.
    pub(crate) fn push(&mut self, image: &ImageRef, root: &Path) {
        let mut text = "";
        let place = match image {
            ImageRef::File(path) => {
                let (directory, name) =
                    path.strip_prefix(root).map_or((Path::new(""), path.as_path()), |it| (root, it));
                match name.to_str() {
                    Some(name) => {
                        text = name;
                        Place::Below(self.container(directory))
                    }
                    None => {
                        self.odd_paths.push(path.clone());
                        Place::Odd(self.odd_paths.len() as u32 - 1)
                    }
                }
            }
            ImageRef::TarEntry { tar, name, offset, len } => {
                text = name;
                Place::Entry { shard: self.container(tar), offset: *offset, len: *len }
            }
            ImageRef::ParquetCell { column, row } => {
                let known = self.columns.iter().rposition(|known| Arc::ptr_eq(known, column));
                let at = known.unwrap_or_else(|| {
                    self.columns.push(Arc::clone(column));
                    self.columns.len() - 1
                });
                Place::Cell { column: at as u32, row: *row }
            }
            ImageRef::FeatureRow { table, row } => {
                Place::Feature { table: number_of(&mut self.tables, table), row: *row }
            }
        };
        self.places.push(place.packed());
        self.names.push(text);
    }

    /// The place of an image in a shard, with the number of the shard replaced; `None`: it is elsewhere.
    pub(crate) fn in_shard(&self, image: usize, number: impl FnOnce(&Arc<Path>) -> u32) -> Option<Packed> {
        let Place::Entry { shard, offset, len } = Place::of(self.places[image]) else { return None };
        Some(Place::Entry { shard: number(&self.containers[shard as usize]), offset, len }.packed())
    }

    /// Reserves memory for `more` images, but not for their names.
    pub(crate) fn reserve(&mut self, more: usize) {
        self.names.ends.reserve(more);
        self.places.reserve(more);
    }

    /// Releases memory that was reserved for more images.
    pub(crate) fn shrink(&mut self) {
        self.names.shrink();
        self.places.shrink();
    }

    /// The number of a directory or shard. Successive images mostly share the last one.
    fn container(&mut self, path: &Path) -> u32 {
        let known = self.containers.iter().rposition(|known| known.as_os_str() == path.as_os_str());
        let at = known.unwrap_or_else(|| {
            self.containers.push(Arc::from(path));
            self.containers.len() - 1
        });
        at as u32
    }
}

/// The number of a table, which is added if it is new.
pub(crate) fn number_of(tables: &mut Vec<Arc<FeatureTable>>, table: &Arc<FeatureTable>) -> u32 {
    let known = tables.iter().rposition(|known| Arc::ptr_eq(known, table));
    let at = known.unwrap_or_else(|| {
        tables.push(Arc::clone(table));
        tables.len() - 1
    });
    at as u32
}

/// Finds images of a table by their locations, in 12 to 24 bytes an image, and 4 bytes for each row of a table of
/// features, used or not.
#[derive(Debug, Default)]
pub(crate) struct ImageIndex {
    /// By the hash of its location; images that share a hash follow at the next free numbers.
    by_hash: HashMap<u64, u32>,
    hasher: RandomState,
    /// The image of each row of a table of features, [`NO_IMAGE`] without one.
    by_row: Vec<(Arc<FeatureTable>, Vec<u32>)>,
}

/// Where an image is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Slot {
    /// A key of `by_hash`.
    Hash(u64),
    /// A row of the table `by_row[table]`.
    Row { table: usize, row: u64 },
}

/// Stands for no image: numbers of images are smaller.
const NO_IMAGE: u32 = u32::MAX;

impl ImageIndex {
    /// The image at `location`, if the table has it; else the slot for [`ImageIndex::insert`].
    pub(crate) fn find(&mut self, table: &ImageTable, location: &ImageRef) -> Result<usize, Slot> {
        if let ImageRef::FeatureRow { table: features, row } = location {
            return self.find_row(features, *row);
        }
        let mut slot = self.hasher.hash_one(location);
        while let Some(&image) = self.by_hash.get(&slot) {
            if table.get(image as usize) == *location {
                return Ok(image as usize);
            }
            slot = slot.wrapping_add(1);
        }
        Err(Slot::Hash(slot))
    }

    fn find_row(&mut self, features: &Arc<FeatureTable>, row: u64) -> Result<usize, Slot> {
        let known = self.by_row.iter().position(|(table, _)| table == features);
        let at = known.unwrap_or_else(|| {
            self.by_row.push((Arc::clone(features), vec![NO_IMAGE; features.num_rows() as usize]));
            self.by_row.len() - 1
        });
        match self.by_row[at].1.get(row as usize) {
            Some(&image) if image != NO_IMAGE => Ok(image as usize),
            _ => Err(Slot::Row { table: at, row }),
        }
    }

    /// Remembers image number `image` in a slot that [`ImageIndex::find`] returned.
    pub(crate) fn insert(&mut self, slot: Slot, image: usize) {
        match slot {
            Slot::Hash(hash) => _ = self.by_hash.insert(hash, image as u32),
            Slot::Row { table, row } => {
                let (images, row) = (&mut self.by_row[table].1, row as usize);
                // Equal tables may have been opened before and after their file grew.
                images.resize(images.len().max(row + 1), NO_IMAGE);
                images[row] = image as u32;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::features::table::FeatureColumn;

    #[test]
    fn locations_come_back() {
        let tar: Arc<Path> = Arc::from(Path::new("/data/s.tar"));
        let mut locations = vec![
            ImageRef::File("/data/a.png".into()),
            ImageRef::File("/data/sub/b.png".into()),
            ImageRef::File("/elsewhere/c.png".into()),
            ImageRef::File("relative.png".into()),
            ImageRef::TarEntry { tar: Arc::clone(&tar), name: "x/0.jpg".to_owned(), offset: 512, len: 7 },
            ImageRef::TarEntry { tar, name: "x/0.jpg".to_owned(), offset: 2048, len: 7 },
        ];
        #[cfg(unix)]
        {
            use std::os::unix::ffi::OsStrExt;
            locations.push(ImageRef::File(Path::new("/data").join(std::ffi::OsStr::from_bytes(b"caf\xe9.png"))));
        }
        let (mut table, mut index) = (ImageTable::default(), ImageIndex::default());
        for (number, location) in locations.iter().enumerate() {
            let slot = index.find(&table, location).unwrap_err();
            table.push(location, Path::new("/data"));
            index.insert(slot, number);
        }
        table.shrink();
        for (number, location) in locations.iter().enumerate() {
            assert_eq!(table.get(number), *location);
            assert_eq!(index.find(&table, location), Ok(number));
        }
        assert_eq!(table.len(), locations.len());
        assert_eq!(index.find(&table, &ImageRef::File("/data//sub/./b.png".into())), Ok(1), "paths, not texts");
        assert!(index.find(&table, &ImageRef::File("/data/b.png".into())).is_err());
    }

    /// A table of `rows` rows of one value.
    fn features(path: &Path, rows: usize) -> Arc<FeatureTable> {
        let header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, 1), }}");
        let header = format!("{header:<117}\n");
        let mut bytes = b"\x93NUMPY\x01\x00\x76\x00".to_vec();
        bytes.extend_from_slice(header.as_bytes());
        (0..rows).for_each(|row| bytes.extend_from_slice(&(row as f32 + 1.0).to_le_bytes()));
        std::fs::write(path, bytes).unwrap();
        Arc::new(FeatureTable::open(&[path.to_owned()], FeatureColumn { name: None, parquet: "" }).unwrap())
    }

    #[test]
    fn rows_of_features_are_found_by_number() {
        let dir = tempfile::tempdir().unwrap();
        let [one, other] = ["one.npy", "other.npy"].map(|name| features(&dir.path().join(name), 3));
        let row = |table: &Arc<FeatureTable>, row| ImageRef::FeatureRow { table: Arc::clone(table), row };
        let (mut table, mut index) = (ImageTable::default(), ImageIndex::default());
        let mut add = |location: &ImageRef| {
            let slot = index.find(&table, location).err()?;
            index.insert(slot, table.len());
            table.push(location, Path::new(""));
            Some(table.len() - 1)
        };
        assert_eq!([row(&one, 2), row(&other, 2), row(&one, 0)].each_ref().map(&mut add), [0, 1, 2].map(Some));
        assert_eq!([row(&one, 2), row(&other, 2), row(&one, 0)].each_ref().map(&mut add), [None; 3]);
        // The same file, which has grown.
        let grown = features(&dir.path().join("one.npy"), 9);
        assert_eq!([row(&grown, 2), row(&grown, 8)].each_ref().map(&mut add), [None, Some(3)]);
        assert_eq!([3, 0].map(|image| table.get(image)), [row(&one, 8), row(&one, 2)]);
    }
}
