//! Single images of a column, in any order. The positions of pages are read once. A page is unpacked when one of its
//! images is first asked for, and the last pages are kept. From then on it is known where each of its images is: of a
//! page without compression or in snappy, the bytes of one image are read alone.

use std::hash::{Hash, Hasher};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, OnceLock};

use crate::error::{DataError, ImageError};
use crate::images::disk::MAX_ENCODED_BYTES;
use crate::panics::catch_quietly;
use crate::parquet::codec::{SNAPPY, UNCOMPRESSED};
use crate::parquet::column::OpenPage;
use crate::parquet::file::{Fault, ParquetFile};
use crate::parquet::footer::Footer;
use crate::parquet::page::{MAX_PAGE_IMAGES, PageKind, read_header, read_page};
use crate::parquet::page_cache::PageCache;
use crate::parquet::partial::{starts, unpack_part};
use crate::parquet::schema::Leaf;
use crate::parquet::values::{Dictionary, Place, Value, needs_dictionary};

/// Bytes of pages that are kept or being read, of all files together. A page of the `datasets` library has 100 images:
/// about 10 MB, or 50 MB of photographs.
const CACHE_BYTES: u64 = 256 << 20;

static PAGES: LazyLock<PageCache<Kept>> = LazyLock::new(|| PageCache::new(CACHE_BYTES));

/// Number of columns that were indexed: their numbers tell their pages apart in [`PAGES`].
static COLUMNS: AtomicU64 = AtomicU64::new(0);

/// A page in [`PAGES`].
#[derive(Debug)]
enum Kept {
    Dictionary(Arc<Dictionary>),
    Data(Cells),
}

/// The images of a page.
#[derive(Debug)]
struct Cells {
    page: Vec<u8>,
    dictionary: Option<Arc<Dictionary>>,
    /// One per row.
    cells: Vec<Cell>,
}

/// Where the images of a page are in the file. Takes 12 bytes for an image, and 8 for each 64 KiB.
#[derive(Debug)]
struct Map {
    cells: Box<[Cell]>,
    bytes: MappedBytes,
}

#[derive(Debug)]
enum MappedBytes {
    /// The position of the page's first byte, for pages that are not packed.
    At(u64),
    /// `starts` of the snappy data at position `at`, which unpacks to what is behind the first `before` bytes.
    Snappy { at: u64, before: usize, starts: Box<[(u32, u32)]> },
}

#[derive(Clone, Copy, Debug)]
enum Cell {
    Null,
    /// Start and end in the page.
    Page(u32, u32),
    /// An entry of the dictionary.
    Entry(u32),
}

/// The image column of a parquet file: where its pages are. Equal if the path and the column are.
#[derive(Debug)]
pub struct ParquetColumn {
    file: ParquetFile,
    leaf: Leaf,
    number: u64,
    pages: Vec<DataPage>,
}

/// Where a page is.
#[derive(Debug)]
struct DataPage {
    first_row: u64,
    at: u64,
    end: u64,
    /// Position and bytes in memory of the dictionary page, if the values refer to one.
    dictionary: Option<(u64, u64)>,
    codec: i64,
    /// Bytes in memory.
    size: u64,
    /// Set when the page was first unpacked, unless its images cannot be read alone.
    map: OnceLock<Map>,
}

impl PartialEq for ParquetColumn {
    fn eq(&self, other: &Self) -> bool {
        self.file.path() == other.file.path() && self.leaf.path == other.leaf.path
    }
}

impl Eq for ParquetColumn {}

impl Hash for ParquetColumn {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.file.path().hash(state);
        self.leaf.path.hash(state);
    }
}

impl ParquetColumn {
    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// Length of the file in bytes when it was opened.
    pub(crate) fn file_len(&self) -> u64 {
        self.file.len()
    }

    /// Number of pages, and the mean of their sizes in memory in bytes.
    pub(crate) fn page_sizes(&self) -> (usize, u64) {
        let total: u64 = self.pages.iter().map(|page| page.size).sum();
        (self.pages.len(), total / (self.pages.len() as u64).max(1))
    }

    /// Finds the pages of leaf number `leaf`, by their headers. Also returns how many rows of each row group are null;
    /// `None` where only the values can tell.
    pub(crate) fn index(
        file: &ParquetFile,
        footer: &Footer,
        leaf_number: usize,
    ) -> Result<(Self, Vec<Option<u64>>), Fault> {
        let leaf = &footer.schema.leaves[leaf_number];
        let (mut pages, mut nulls, mut first_row) = (Vec::new(), Vec::new(), 0);
        for group in &footer.groups {
            let chunk = &group.chunks[leaf_number];
            let (mut at, end) = (chunk.start, chunk.start + chunk.len);
            let (mut dictionary, mut rows, mut known_nulls) = (None, 0, Some(0));
            while at < end && rows < group.rows {
                let header = read_header(file, at, end)?;
                let next = at + header.len + header.packed;
                match header.kind {
                    PageKind::Dictionary => dictionary = Some((at, header.unpacked())),
                    PageKind::Data if header.values > MAX_PAGE_IMAGES => {
                        let reason =
                            format!("a page has {} images, over the limit of {MAX_PAGE_IMAGES}", header.values);
                        return Err(Fault::Malformed(reason));
                    }
                    PageKind::Data => {
                        pages.push(DataPage {
                            first_row: first_row + rows,
                            at,
                            end: next,
                            dictionary: dictionary.filter(|_| needs_dictionary(header.encoding)),
                            codec: chunk.codec,
                            size: header.unpacked() + header.values * size_of::<Cell>() as u64,
                            map: OnceLock::new(),
                        });
                        rows += header.values;
                        let of_page = header.version_2.map(|it| it.nulls);
                        known_nulls = known_nulls.zip(of_page).map(|(sum, nulls)| sum + nulls);
                    }
                    PageKind::Other => {}
                }
                at = next;
            }
            if rows != group.rows {
                let name = leaf.path.join(".");
                let reason = format!("column `{name}` has {rows} values for {} rows", group.rows);
                return Err(Fault::Malformed(reason));
            }
            first_row += rows;
            let is_required = leaf.max_def == 0;
            nulls.push(if is_required { Some(0) } else { chunk.nulls.or(known_nulls) });
        }
        let number = COLUMNS.fetch_add(1, Ordering::Relaxed);
        Ok((Self { file: file.clone(), leaf: leaf.clone(), number, pages }, nulls))
    }

    /// The encoded image of a row, 0-based.
    ///
    /// # Errors
    /// [`DataError::Read`] if the system cannot read the file. The inner error is a bad image: null, larger than
    /// 256 MiB, or in a damaged page.
    pub(crate) fn read(&self, row: u64) -> Result<Result<Vec<u8>, ImageError>, DataError> {
        let read = catch_quietly(|| self.cell(row)).unwrap_or_else(|panic| Err(Fault::Malformed(panic.to_string())));
        match read {
            Err(Fault::Malformed(reason)) => Ok(Err(ImageError::Damaged { format: "parquet page", reason })),
            other => other.map_err(|fault| fault.at(self.file.path())),
        }
    }

    fn cell(&self, row: u64) -> Result<Result<Vec<u8>, ImageError>, Fault> {
        let outside = || Fault::Malformed(format!("no row {row}"));
        let number = self.pages.partition_point(|page| page.first_row <= row).checked_sub(1).ok_or_else(outside)?;
        let page = &self.pages[number];
        let index = usize::try_from(row - page.first_row).unwrap_or(usize::MAX);
        let kept = match PAGES.kept((self.number, page.at)) {
            Some(kept) => kept,
            None => match page.map.get().map_or(Ok(None), |map| self.part(map, index))? {
                Some(bytes) => return Ok(check(bytes)),
                None => self.page(page)?,
            },
        };
        let Kept::Data(cells) = kept.as_ref() else { return Err(outside()) };
        let bytes = match *cells.cells.get(index).ok_or_else(outside)? {
            Cell::Null => return Ok(Err(ImageError::Empty)),
            Cell::Page(start, end) => cells.page.get(start as usize..end as usize),
            Cell::Entry(entry) => match cells.dictionary.as_ref().and_then(|it| it.get(entry as usize)) {
                Some(Value::Bytes(bytes)) => Some(bytes),
                _ => None,
            },
        };
        let bytes = bytes.ok_or_else(outside)?;
        Ok(check(bytes.to_vec()))
    }

    /// Reads the bytes of one image alone; `None` if that is not possible.
    fn part(&self, map: &Map, index: usize) -> Result<Option<Vec<u8>>, Fault> {
        let Some(Cell::Page(start, end)) = map.cells.get(index).copied() else { return Ok(None) };
        if u64::from(end.saturating_sub(start)) > MAX_ENCODED_BYTES {
            return Ok(None);
        }
        match &map.bytes {
            MappedBytes::At(at) => self.file.read(at + u64::from(start), u64::from(end - start)).map(Some),
            MappedBytes::Snappy { at, before, starts } => {
                let (start, end) = (start as usize, end as usize);
                let (Some(from), Some(to)) = (start.checked_sub(*before), end.checked_sub(*before)) else {
                    return Ok(None);
                };
                let first = starts.partition_point(|start| start.0 as usize <= from).checked_sub(1);
                let last = starts.partition_point(|start| (start.0 as usize) < to);
                let (Some(first), Some(last)) = (first.and_then(|at| starts.get(at)), starts.get(last)) else {
                    return Ok(None);
                };
                let packed = self.file.read(at + u64::from(first.1), u64::from(last.1.saturating_sub(first.1)))?;
                let skipped = from - first.0 as usize;
                let bytes = unpack_part(&packed, to - first.0 as usize);
                Ok(bytes.map(|bytes| bytes[skipped..].to_vec()))
            }
        }
    }

    /// Notes where the images of a page are that has been unpacked.
    fn map(&self, page: &DataPage, header_len: u64, not_packed: usize, cells: &[Cell]) -> Result<(), Fault> {
        let body = page.at + header_len;
        let bytes = match page.codec {
            _ if body.saturating_add(not_packed as u64) == page.end => MappedBytes::At(body),
            SNAPPY => {
                let at = body + not_packed as u64;
                let packed = self.file.read(at, page.end.saturating_sub(at))?;
                let Some(starts) = starts(&packed) else { return Ok(()) };
                MappedBytes::Snappy { at, before: not_packed, starts: starts.into() }
            }
            _ => return Ok(()),
        };
        // Another thread may have done the same.
        let _ = page.map.set(Map { cells: cells.into(), bytes });
        Ok(())
    }

    /// A whole page.
    fn page(&self, page: &DataPage) -> Result<Arc<Kept>, Fault> {
        // Before the page itself waits for room, since it holds that room until it is read.
        let dictionary = match page.dictionary {
            None => None,
            Some((at, size)) => {
                let kept = PAGES.get((self.number, at), size, page.at - at, || {
                    let header = read_header(&self.file, at, page.at)?;
                    let bytes = read_page(&self.file, at, &header, page.codec, &self.leaf)?.bytes;
                    Ok(Kept::Dictionary(Arc::new(Dictionary::new(bytes, header.values, self.leaf.physical)?)))
                })?;
                match kept.as_ref() {
                    Kept::Dictionary(dictionary) => Some(Arc::clone(dictionary)),
                    Kept::Data(_) => return Err(Fault::Malformed("a dictionary is not where it was".to_owned())),
                }
            }
        };
        let packed = if page.codec == UNCOMPRESSED { 0 } else { page.end - page.at };
        PAGES.get((self.number, page.at), page.size, packed, || {
            let header = read_header(&self.file, page.at, page.end)?;
            let read = read_page(&self.file, page.at, &header, page.codec, &self.leaf)?;
            let not_packed = read.not_packed;
            let mut open = OpenPage::new(read, &header, &self.leaf, dictionary.clone())?;
            let (mut cells, mut built) = (Vec::new(), Vec::new());
            while let Some(place) = open.next_place(&self.leaf)? {
                cells.push(match place {
                    None => Cell::Null,
                    Some(Place::Page(range)) => Cell::Page(range.start as u32, range.end as u32),
                    Some(Place::Entry(entry)) => Cell::Entry(entry as u32),
                    Some(Place::Built) => {
                        let start = built.len() as u32;
                        built.extend_from_slice(open.built());
                        if built.len() as u64 > MAX_ENCODED_BYTES {
                            return Err(Fault::Malformed("a page of images is too large".to_owned()));
                        }
                        Cell::Page(start, built.len() as u32)
                    }
                    Some(Place::Int(_)) => return Err(Fault::Malformed("an image is a number".to_owned())),
                });
            }
            let page_bytes = if built.is_empty() {
                if dictionary.is_none() && page.map.get().is_none() {
                    self.map(page, header.len, not_packed, &cells)?;
                }
                open.into_bytes()
            } else {
                built
            };
            Ok(Kept::Data(Cells { page: page_bytes, dictionary: dictionary.clone(), cells }))
        })
    }
}

/// The bytes, unless they are too many.
fn check(bytes: Vec<u8>) -> Result<Vec<u8>, ImageError> {
    let found = bytes.len() as u64;
    if found > MAX_ENCODED_BYTES {
        return Err(ImageError::FileTooLarge { found, limit: MAX_ENCODED_BYTES });
    }
    Ok(bytes)
}

#[cfg(all(test, feature = "parquet"))]
mod tests {
    use super::*;
    use crate::images::disk::tests::{EACCES, EIO, faults_left, plan_faults};
    use crate::parquet::footer::read_footer;

    #[test]
    fn parts_equal_pages() {
        let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/goldens/parquet"));
        for (name, leaf, mapped_at_least) in [
            ("plain_none_2", 1, 40),
            ("plain_snappy_2", 1, 40),
            ("fallback", 1, 10),
            ("datasets", 0, 12),
            ("plain_zstd_1", 1, 0),
        ] {
            let file = ParquetFile::open(&folder.join(name).with_extension("parquet")).unwrap();
            let footer = read_footer(&file).unwrap();
            let (column, _) = ParquetColumn::index(&file, &footer, leaf).unwrap();
            let mut mapped = 0;
            for page in &column.pages {
                let rows = page.first_row
                    ..column
                        .pages
                        .iter()
                        .map(|it| it.first_row)
                        .find(|row| *row > page.first_row)
                        .unwrap_or(footer.groups.iter().map(|group| group.rows).sum());
                for row in rows {
                    let whole = column.read(row).unwrap().unwrap();
                    let Some(map) = page.map.get() else { continue };
                    if let Some(part) = column.part(map, (row - page.first_row) as usize).unwrap() {
                        assert!(part == whole, "{name}, row {row}");
                        mapped += 1;
                    }
                }
            }
            assert!(if mapped_at_least > 0 { mapped >= mapped_at_least } else { mapped == 0 }, "{name}: {mapped}");
        }
    }

    #[test]
    fn passing_errors_are_retried() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("d.parquet");
        let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/goldens/parquet/required.parquet");
        std::fs::copy(golden, &path).unwrap();
        let file = ParquetFile::open(&path).unwrap();
        let footer = read_footer(&file).unwrap();
        let (column, nulls) = ParquetColumn::index(&file, &footer, 0).unwrap();
        assert_eq!(nulls, [Some(0); 3]);
        assert!(column.pages.len() > 3, "{}", column.pages.len());
        plan_faults(&path, [EIO, EIO, 0, EIO]);
        let image = column.read(39).unwrap().unwrap();
        assert_eq!(faults_left(&path), 0);
        plan_faults(&path, [EACCES]);
        assert_eq!(column.read(39).unwrap().unwrap(), image, "the page was kept");
        assert!(matches!(column.read(0).unwrap_err(), DataError::Read { .. }));
        assert!(column.read(0).unwrap().is_ok(), "an error is not kept");
        let error = column.read(40).unwrap().unwrap_err().to_string();
        assert!(error.contains("damaged parquet page: no row 40"), "{error}");
        // A file that became shorter.
        std::fs::write(&path, b"PAR1").unwrap();
        let error = column.read(20).unwrap_err().to_string();
        assert!(error.contains("it has changed since it was indexed"), "{error}");
    }
}
