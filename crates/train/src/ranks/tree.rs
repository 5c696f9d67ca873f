//! The order in which parts are added up. Floating-point sums depend on it, so it depends on nothing but the number of
//! parts.

use std::ops::Range;

/// Halvings of a step's parts, below which they are added one after the other: 8 branches, one for each of the most
/// ranks that compute the same bits. More would keep more sums in memory.
const HALVINGS: u32 = 3;

/// Halvings of the parts of each of `ranks`.
pub(crate) fn halvings_of_share(ranks: usize) -> u32 {
    HALVINGS.saturating_sub(ranks.max(1).ilog2())
}

/// The sum of `leaf(at)` for all `at` in `range`, which is not empty: the first half, with the odd one, plus the second
/// half, each summed in the same way; after `halvings` halvings, the sum in order. Leaves are asked for in order, and
/// at most one sum a halving waits for another.
///
/// [`Share::of`](dualenc_data::Share::of) gives each of 2, 4 or 8 ranks a branch of this tree.
///
/// # Errors
/// Those of `leaf` and `add`.
pub(crate) fn sum_in_tree<T, E>(
    range: Range<usize>,
    halvings: u32,
    leaf: &mut impl FnMut(usize) -> Result<T, E>,
    add: &mut impl FnMut(T, T) -> Result<T, E>,
) -> Result<T, E> {
    if range.len() <= 1 || halvings == 0 {
        let mut sum = leaf(range.start)?;
        for at in range.start + 1..range.end {
            sum = add(sum, leaf(at)?)?;
        }
        return Ok(sum);
    }
    let [first, second] = halves(range);
    let first = sum_in_tree(first, halvings - 1, leaf, add)?;
    let second = sum_in_tree(second, halvings - 1, leaf, add)?;
    add(first, second)
}

/// As [`sum_in_tree`], where `branch(range)` is the sum of what is not halved any more.
///
/// # Errors
/// Those of `branch` and `add`.
pub(crate) fn sum_of_branches<T, E>(
    range: Range<usize>,
    halvings: u32,
    branch: &mut impl FnMut(Range<usize>) -> Result<T, E>,
    add: &mut impl FnMut(T, T) -> Result<T, E>,
) -> Result<T, E> {
    if range.len() <= 1 || halvings == 0 {
        return branch(range);
    }
    let [first, second] = halves(range);
    let first = sum_of_branches(first, halvings - 1, branch, add)?;
    let second = sum_of_branches(second, halvings - 1, branch, add)?;
    add(first, second)
}

fn halves(Range { start, end }: Range<usize>) -> [Range<usize>; 2] {
    let middle = start + (end - start).div_ceil(2);
    [start..middle, middle..end]
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use dualenc_data::Share;

    use super::*;

    /// The sum with its brackets.
    fn written(range: Range<usize>, halvings: u32, leaf: &mut impl FnMut(usize) -> String) -> String {
        let mut leaf = |at| Ok::<_, Infallible>(leaf(at));
        sum_in_tree(range, halvings, &mut leaf, &mut |first, second| Ok(format!("({first}+{second})"))).unwrap()
    }

    #[test]
    fn halves_are_added() {
        assert_eq!(written(0..1, 3, &mut |at| at.to_string()), "0");
        assert_eq!(written(2..7, 3, &mut |at| at.to_string()), "(((2+3)+4)+(5+6))");
        assert_eq!(written(2..7, 0, &mut |at| at.to_string()), "((((2+3)+4)+5)+6)");
        assert_eq!(written(0..8, 1, &mut |at| at.to_string()), "((((0+1)+2)+3)+(((4+5)+6)+7))");
    }

    #[test]
    fn ranks_change_no_bracket() {
        for ranks in [1, 2, 4, 8] {
            for parts in ranks..40 {
                let halvings = halvings_of_share(ranks);
                let mut of_rank =
                    |rank| written(Share { rank, ranks }.of(parts), halvings, &mut |part| part.to_string());
                let found = written(0..ranks, HALVINGS, &mut of_rank);
                let expected = written(0..parts, halvings_of_share(1), &mut |part| part.to_string());
                assert_eq!(found, expected, "{ranks} ranks, {parts} parts");
            }
        }
    }
}
