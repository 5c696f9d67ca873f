//! Where the sums of a tile go.

use crate::cpu::uninit::Uninit;

/// What is added to a product.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Plus<'a> {
    Nothing,
    /// A value for each column, such as a bias.
    Row(&'a [f32]),
}

/// The memory of a product.
pub(crate) enum Memory<'a> {
    /// Is written for the first time.
    Fresh(&'a mut Uninit, Plus<'a>),
    /// Is added to.
    Filled(&'a mut [f32]),
    /// Some columns of each row, which are written for the first time.
    FreshColumns(Vec<&'a mut Uninit>, Plus<'a>),
    /// Some columns of each row, which are added to.
    FilledColumns(Vec<&'a mut [f32]>),
}

/// What a panel computes of a product.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    /// Index of its first value in the memory.
    pub start: usize,
    /// Distance between the starts of two rows.
    pub stride: usize,
    /// Index of its first column in the product.
    pub first: usize,
    /// Number of columns.
    pub count: usize,
}

/// Values that are added at once: a vector of AVX2. Arrays tell the compiler that what it reads and what it writes lie
/// apart; it added one value at a time otherwise.
const PART: usize = 8;

#[inline(always)]
fn both(a: &[f32; PART], b: &[f32; PART]) -> [f32; PART] {
    std::array::from_fn(|n| a[n] + b[n])
}

impl Memory<'_> {
    /// Columns of rows that have been written, to add to. Other memory stays as it is.
    ///
    /// # Safety
    ///
    /// All of the columns must have been written.
    #[expect(unsafe_code, reason = "only the caller knows what has been written")]
    pub unsafe fn written(self) -> Self {
        match self {
            Self::FreshColumns(rows, _) => {
                // SAFETY: the caller has written all of these columns.
                Self::FilledColumns(rows.into_iter().map(|row| unsafe { row.assume_init_mut() }).collect())
            }
            other => other,
        }
    }

    /// Takes the sums of some columns of a row; `column` is the first, counted in the place. Those of columns after the
    /// last are left out.
    #[inline(always)]
    pub fn store(&mut self, place: Place, row: usize, column: usize, sums: &[f32]) {
        let Place { start, stride, first, count } = place;
        let first = first + column;
        let at = start + row * stride + column;
        // In two branches, so that the compiler knows the length of whole vectors.
        if column + sums.len() <= count {
            self.store_at(at, row, column, first, sums);
        } else {
            self.store_at(at, row, column, first, &sums[..count.saturating_sub(column)]);
        }
    }

    #[inline(always)]
    fn store_at(&mut self, at: usize, row: usize, column: usize, first: usize, sums: &[f32]) {
        match self {
            Self::Filled(values) => add(&mut values[at..][..sums.len()], sums),
            Self::FilledColumns(rows) => add(&mut rows[row][column..][..sums.len()], sums),
            Self::Fresh(slots, plus) => write(&mut slots[at..][..sums.len()], sums, *plus, first),
            Self::FreshColumns(rows, plus) => write(&mut rows[row][column..][..sums.len()], sums, *plus, first),
        }
    }
}

/// Adds `sums`.
#[inline(always)]
fn add(values: &mut [f32], sums: &[f32]) {
    let (values, last) = values.as_chunks_mut::<PART>();
    let (sums, rest) = sums.as_chunks::<PART>();
    values.iter_mut().zip(sums).for_each(|(values, sums)| *values = both(values, sums));
    last.iter_mut().zip(rest).for_each(|(value, sum)| *value += sum);
}

/// Writes `sums` and what is added to them; `first` is their first column in the product.
#[inline(always)]
fn write(slots: &mut Uninit, sums: &[f32], plus: Plus<'_>, first: usize) {
    match plus {
        Plus::Nothing => _ = slots.write_copy_of_slice(sums),
        Plus::Row(plus) if first + sums.len() <= plus.len() => {
            let (slots, last) = slots.as_chunks_mut::<PART>();
            let (plus, added) = plus[first..][..sums.len()].as_chunks::<PART>();
            let (sums, rest) = sums.as_chunks::<PART>();
            for ((slots, sums), plus) in slots.iter_mut().zip(sums).zip(plus) {
                slots.write_copy_of_slice(&both(sums, plus));
            }
            last.iter_mut().zip(rest).zip(added).for_each(|((slot, sum), plus)| _ = slot.write(sum + plus));
        }
        Plus::Row(plus) => {
            let plus = plus.get(first..).unwrap_or_default();
            for (n, (slot, sum)) in slots.iter_mut().zip(sums).enumerate() {
                slot.write(plus.get(n).map_or(*sum, |plus| sum + plus));
            }
        }
    }
}
