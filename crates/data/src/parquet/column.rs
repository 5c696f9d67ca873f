//! The rows of one column, in order, with one page in memory at a time.

use std::sync::Arc;

use crate::parquet::bits::Hybrid;
use crate::parquet::file::{Fault, ParquetFile};
use crate::parquet::footer::Chunk;
use crate::parquet::page::{Page, PageHeader, PageKind, read_header, read_page};
use crate::parquet::schema::Leaf;
use crate::parquet::thrift::Parsed;
use crate::parquet::values::{Dictionary, Place, Value, Values, needs_dictionary};

/// Reads the chunk of one column.
pub(crate) struct Column<'a> {
    file: &'a ParquetFile,
    leaf: &'a Leaf,
    codec: i64,
    /// Position of the next page.
    at: u64,
    end: u64,
    dictionary: Option<Arc<Dictionary>>,
    open: Option<OpenPage>,
}

/// The rest of a data page.
pub(crate) struct OpenPage {
    page: Page,
    rep: Hybrid,
    def: Hybrid,
    values: Values,
    left: u64,
    /// The repetition level of the next value, if it was read.
    next_rep: Option<u64>,
}

impl OpenPage {
    /// The values behind a header.
    pub(crate) fn new(
        page: Page,
        header: &PageHeader,
        leaf: &Leaf,
        dictionary: Option<Arc<Dictionary>>,
    ) -> Parsed<Self> {
        let width = |most: u8| u8::BITS - most.leading_zeros();
        let rep = Hybrid::new(page.rep.start, page.rep.end, width(leaf.max_rep))?;
        let def = Hybrid::new(page.def.start, page.def.end, width(leaf.max_def))?;
        let kind = (leaf.physical, header.values);
        let values = Values::new(&page.bytes, page.values.clone(), header.encoding, kind, dictionary)?;
        Ok(Self { page, rep, def, values, left: header.values, next_rep: None })
    }

    /// Whether the next value starts a row.
    fn starts_row(&mut self, leaf: &Leaf) -> Parsed<bool> {
        if leaf.max_rep == 0 {
            return Ok(true);
        }
        let level = match self.next_rep {
            Some(level) => level,
            None => self.rep.next(&self.page.bytes)?,
        };
        self.next_rep = Some(level);
        Ok(level == 0)
    }

    /// Passes the next value to `each`: null if it is, or if there is none.
    fn next(&mut self, leaf: &Leaf, each: &mut dyn FnMut(Value<'_>)) -> Parsed<()> {
        match self.next_place(leaf)? {
            Some(Some(place)) => each(self.values.value(&place, &self.page.bytes)?),
            Some(None) => each(Value::Null),
            None => {}
        }
        Ok(())
    }

    /// Where the next value is; the inner `None` if it is null, the outer one behind the last value.
    #[expect(clippy::option_option, reason = "both are different, as documented")]
    pub(crate) fn next_place(&mut self, leaf: &Leaf) -> Parsed<Option<Option<Place>>> {
        let Some(left) = self.left.checked_sub(1) else { return Ok(None) };
        self.starts_row(leaf)?;
        (self.next_rep, self.left) = (None, left);
        let is_there = leaf.max_def == 0 || self.def.next(&self.page.bytes)? == u64::from(leaf.max_def);
        if is_there { self.values.next(&self.page.bytes).map(|place| Some(Some(place))) } else { Ok(Some(None)) }
    }

    /// The value at [`Place::Built`].
    pub(crate) fn built(&self) -> &[u8] {
        self.values.built()
    }

    /// The bytes of the page.
    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.page.bytes
    }
}

impl<'a> Column<'a> {
    pub(crate) fn new(file: &'a ParquetFile, leaf: &'a Leaf, chunk: &Chunk) -> Self {
        let end = chunk.start + chunk.len;
        Self { file, leaf, codec: chunk.codec, at: chunk.start, end, dictionary: None, open: None }
    }

    /// Passes the values of the next row to `each`: one, or those of a list. An empty list has a null.
    ///
    /// # Errors
    /// Also if there is no row left.
    pub(crate) fn next_row(&mut self, each: &mut dyn FnMut(Value<'_>)) -> Result<(), Fault> {
        let mut is_first = true;
        loop {
            if !self.has_page()? {
                if is_first {
                    let reason = format!("column `{}` has fewer rows than the file says", self.leaf.path.join("."));
                    return Err(Fault::Malformed(reason));
                }
                return Ok(());
            }
            // `has_page` has just found it.
            let Some(open) = &mut self.open else { continue };
            let starts_row = open.starts_row(self.leaf)?;
            if starts_row && !is_first {
                return Ok(());
            }
            open.next(self.leaf, each)?;
            is_first = false;
            if self.leaf.max_rep == 0 {
                return Ok(());
            }
        }
    }

    /// Opens the next page with values, if the current one has none left.
    fn has_page(&mut self) -> Result<bool, Fault> {
        while self.open.as_ref().is_none_or(|open| open.left == 0) {
            self.open = None;
            if self.at >= self.end {
                return Ok(false);
            }
            let header = read_header(self.file, self.at, self.end)?;
            let at = self.at;
            self.at += header.len + header.packed;
            if header.kind == PageKind::Other {
                continue;
            }
            let page = read_page(self.file, at, &header, self.codec, self.leaf)?;
            if header.kind == PageKind::Dictionary {
                self.dictionary = Some(Arc::new(Dictionary::new(page.bytes, header.values, self.leaf.physical)?));
                continue;
            }
            let dictionary = self.dictionary.clone().filter(|_| needs_dictionary(header.encoding));
            self.open = Some(OpenPage::new(page, &header, self.leaf, dictionary)?);
        }
        Ok(true)
    }
}
