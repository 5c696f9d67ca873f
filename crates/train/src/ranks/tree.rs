//! The order in which parts are added up. Floating-point sums depend on it, so it depends on nothing but the number of
//! parts.

use std::ops::Range;

/// The sum of `leaf(at)` for all `at` in `range`, which is not empty: the first half, with the odd one, plus the second
/// half, each summed in the same way. Leaves are asked for in order, and at most log2 of their number wait for a sum.
///
/// [`Share::of`](dualenc_data::Share::of) gives each of 2, 4, 8... ranks a branch of this tree.
///
/// # Errors
/// Those of `leaf` and `add`.
pub(crate) fn sum_in_tree<T, E>(
    range: Range<usize>,
    leaf: &mut impl FnMut(usize) -> Result<T, E>,
    add: &mut impl FnMut(T, T) -> Result<T, E>,
) -> Result<T, E> {
    if range.len() <= 1 {
        return leaf(range.start);
    }
    let middle = range.start + range.len().div_ceil(2);
    let first = sum_in_tree(range.start..middle, leaf, add)?;
    let second = sum_in_tree(middle..range.end, leaf, add)?;
    add(first, second)
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use dualenc_data::Share;

    use super::*;

    /// The sum with its brackets.
    fn written(range: Range<usize>, leaf: &mut impl FnMut(usize) -> String) -> String {
        let mut leaf = |at| Ok::<_, Infallible>(leaf(at));
        sum_in_tree(range, &mut leaf, &mut |first, second| Ok(format!("({first}+{second})"))).unwrap()
    }

    #[test]
    fn halves_are_added() {
        assert_eq!(written(0..1, &mut |at| at.to_string()), "0");
        assert_eq!(written(2..7, &mut |at| at.to_string()), "(((2+3)+4)+(5+6))");
    }

    #[test]
    fn ranks_change_no_bracket() {
        for ranks in [1, 2, 4, 8] {
            for parts in ranks..40 {
                let mut of_rank = |rank| written(Share { rank, ranks }.of(parts), &mut |part| part.to_string());
                let found = written(0..ranks, &mut of_rank);
                assert_eq!(found, written(0..parts, &mut |part| part.to_string()), "{ranks} ranks, {parts} parts");
            }
        }
    }
}
