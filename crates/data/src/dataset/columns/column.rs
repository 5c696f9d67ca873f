//! A column of numbers, and one of texts.

use std::ops::{Deref, Range};

use bytemuck::Pod;

use crate::dataset::columns::mapped_file::MappedFile;

/// Numbers in a row: in memory, or in a file of whole numbers in the byte order of the machine.
#[derive(Clone, Debug)]
pub(crate) struct Column<T> {
    /// Empty if there is a file.
    owned: Vec<T>,
    file: Option<MappedFile>,
}

impl<T> Default for Column<T> {
    fn default() -> Self {
        Self { owned: Vec::new(), file: None }
    }
}

impl<T: Pod> Column<T> {
    /// The column in `file`, if it has `len` numbers.
    ///
    /// # Errors
    /// How many bytes it has, and how many it should have.
    pub(crate) fn mapped(file: MappedFile, len: usize) -> Result<Self, String> {
        let (found, expected) = (file.bytes().len(), len.saturating_mul(size_of::<T>()));
        if found != expected {
            return Err(format!("it has {found} bytes; expected {expected}"));
        }
        Ok(Self { owned: Vec::new(), file: Some(file) })
    }

    /// Adds a number. A column in a file is copied to memory first.
    pub(crate) fn push(&mut self, value: T) {
        self.to_mut().push(value);
    }

    /// Adds numbers. A column in a file is copied to memory first.
    pub(crate) fn extend_from_slice(&mut self, values: &[T]) {
        self.to_mut().extend_from_slice(values);
    }

    /// Releases memory that was reserved for more numbers.
    pub(crate) fn shrink(&mut self) {
        self.owned.shrink_to_fit();
    }

    /// Reserves memory for `more` numbers, of no use for a column in a file.
    pub(crate) fn reserve(&mut self, more: usize) {
        self.owned.reserve(more);
    }

    fn to_mut(&mut self) -> &mut Vec<T> {
        if let Some(file) = &self.file {
            self.owned = numbers(file).to_vec();
            self.file = None;
        }
        &mut self.owned
    }
}

impl<T: Pod> From<Vec<T>> for Column<T> {
    fn from(owned: Vec<T>) -> Self {
        Self { owned, file: None }
    }
}

impl<T: Pod> Deref for Column<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        self.file.as_ref().map_or(&self.owned, numbers)
    }
}

fn numbers<T: Pod>(file: &MappedFile) -> &[T] {
    match file.bytes() {
        // No bytes have no place in memory.
        [] => &[],
        // The length was checked, and mapped files start at a page.
        bytes => bytemuck::cast_slice(bytes),
    }
}

/// Texts one after the other; text `i` ends at byte `ends[i]`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Texts {
    pub(crate) bytes: Column<u8>,
    pub(crate) ends: Column<u64>,
}

impl Texts {
    /// Number of texts.
    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    pub(crate) fn push(&mut self, text: &str) {
        self.bytes.extend_from_slice(text.as_bytes());
        self.ends.push(self.bytes.len() as u64);
    }

    /// # Panics
    /// If `number` is out of range, or if another program has changed the file that the texts are in.
    pub(crate) fn get(&self, number: usize) -> &str {
        let Range { start, end } = self.range(number);
        let text = self.bytes.get(start as usize..end as usize).map(std::str::from_utf8);
        // Checked when the file was opened.
        text.and_then(Result::ok).unwrap_or_else(|| panic!("text {number} of the data index was changed while in use"))
    }

    pub(crate) fn shrink(&mut self) {
        self.bytes.shrink();
        self.ends.shrink();
    }

    fn range(&self, number: usize) -> Range<u64> {
        let start = if number == 0 { 0 } else { self.ends[number - 1] };
        start..self.ends[number]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_in_files_are_those_in_memory() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("numbers");
        for numbers in [vec![], vec![[1u64, 2, 3]], (0..5000).map(|it| [it, it * it, u64::MAX - it]).collect()] {
            std::fs::write(&path, bytemuck::cast_slice(&numbers)).unwrap();
            let open = || MappedFile::open(&path).unwrap();
            let mut column: Column<[u64; 3]> = Column::mapped(open(), numbers.len()).unwrap();
            assert_eq!(*column, numbers);
            let error = Column::<[u64; 3]>::mapped(open(), numbers.len() + 1).unwrap_err();
            assert_eq!(error, format!("it has {} bytes; expected {}", numbers.len() * 24, numbers.len() * 24 + 24));
            column.push([7; 3]);
            assert_eq!(*column, [numbers, vec![[7; 3]]].concat());
        }
    }

    #[test]
    fn texts_come_back() {
        let mut texts = Texts::default();
        ["a", "", "犬", "the end"].into_iter().for_each(|text| texts.push(text));
        texts.shrink();
        assert_eq!((0..texts.len()).map(|at| texts.get(at)).collect::<Vec<_>>(), ["a", "", "犬", "the end"]);
    }
}
