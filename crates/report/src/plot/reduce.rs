//! Fewer points that look the same, and smooth lines.

/// Points of a line: one every pixel of a plot that is 350 wide.
const MOST_POINTS: usize = 350;

/// Points from which on a line has a smooth one.
const SMOOTHED_FROM: usize = 80;

/// The lowest and highest point of each of some stretches, in order, so that every peak stays.
pub(crate) fn outline(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    if points.len() <= MOST_POINTS {
        return points.to_vec();
    }
    let stretch = points.len().div_ceil(MOST_POINTS / 2);
    let mut kept = Vec::with_capacity(MOST_POINTS + 2);
    for points in points.chunks(stretch) {
        let by_height = |a: &&(f64, f64), b: &&(f64, f64)| a.1.total_cmp(&b.1);
        let (Some(low), Some(high)) = (points.iter().min_by(by_height), points.iter().max_by(by_height)) else {
            continue;
        };
        let (first, second) = if low.0 <= high.0 { (low, high) } else { (high, low) };
        kept.push(*first);
        if first != second {
            kept.push(*second);
        }
    }
    kept
}

/// Every nth of some items so that no more than `most` are left, the first and the last among them.
pub(crate) fn evenly<T: Clone>(items: &[T], most: usize) -> Vec<T> {
    if items.len() <= most || most < 2 {
        return items.to_vec();
    }
    let place = |at: usize| (at as f64 * (items.len() - 1) as f64 / (most - 1) as f64).round() as usize;
    (0..most).filter_map(|at| items.get(place(at)).cloned()).collect()
}

/// The number of points that a smooth line takes the mean of; `None` if the line has too few points for one.
pub(crate) fn window(points: usize) -> Option<usize> {
    (points >= SMOOTHED_FROM).then(|| (points / 40).max(5) | 1)
}

/// Centred means over `window` points; at the ends, over those that there are.
pub(crate) fn smooth(points: &[(f64, f64)], window: usize) -> Vec<(f64, f64)> {
    let sums: Vec<f64> = std::iter::once(0.0)
        .chain(points.iter().scan(0.0, |sum, (_, y)| {
            *sum += y;
            Some(*sum)
        }))
        .collect();
    let mean = |(place, (x, _)): (usize, &(f64, f64))| {
        let half = window / 2;
        let (first, end) = (place.saturating_sub(half), (place + half + 1).min(points.len()));
        (*x, (sums[end] - sums[first]) / (end - first) as f64)
    };
    points.iter().enumerate().map(mean).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wave(number: usize) -> Vec<(f64, f64)> {
        (0..number).map(|at| (at as f64, (at as f64 / 9.0).sin())).collect()
    }

    #[test]
    fn peaks_stay() {
        let mut points = wave(10_000);
        points[7_777].1 = 50.0;
        let kept = outline(&points);
        assert!(kept.len() <= MOST_POINTS + 2 && kept.contains(&(7_777.0, 50.0)));
        assert!(kept.windows(2).all(|pair| pair[0].0 < pair[1].0));
        assert_eq!(outline(&points[..100]), points[..100]);
    }

    #[test]
    fn first_and_last_stay() {
        let kept = evenly(&wave(1_000), 40);
        assert_eq!((kept.len(), kept[0].0, kept[39].0), (40, 0.0, 999.0));
        assert!(evenly::<u8>(&[], 40).is_empty());
    }

    #[test]
    fn smoothing_takes_means() {
        let points = [(0.0, 1.0), (1.0, 2.0), (2.0, 6.0), (3.0, 4.0)];
        assert_eq!(smooth(&points, 3), [(0.0, 1.5), (1.0, 3.0), (2.0, 4.0), (3.0, 5.0)]);
        assert!(smooth(&[], 5).is_empty());
        assert_eq!((window(10), window(1_000)), (None, Some(25)));
    }
}
