//! Sorting by one routine for all orders.
//!
//! The standard library's routines are compiled anew for each type and each order, 10 KB of code each time. What is sorted
//! once for a model, or is short, is therefore sorted as numbers, by an order that is called.

use std::cmp::Ordering;

/// Sorts numbers. Equal ones come in any order.
#[inline(never)]
pub(crate) fn sort(numbers: &mut [u32], order: &mut dyn FnMut(u32, u32) -> Ordering) {
    numbers.sort_unstable_by(|&a, &b| order(a, b));
}

/// Sorts indices, which are in ascending order, by what they stand for. Equal ones stay as they are. The only memory taken
/// is theirs.
#[inline(never)]
pub(crate) fn sort_indices(indices: &mut [usize], order: &mut dyn FnMut(usize, usize) -> Ordering) {
    indices.sort_unstable_by(|&a, &b| order(a, b).then(a.cmp(&b)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_sorted_by_the_order_given() {
        let mut numbers = Vec::from_iter((0..1000u32).map(|i| i * 7919 % 1009));
        sort(&mut numbers, &mut |a, b| b.cmp(&a));
        assert!(numbers.is_sorted_by(|a, b| a > b));
    }

    #[test]
    fn indices_of_equals_stay_as_they_are() {
        let mut indices = Vec::from_iter(0..1000);
        sort_indices(&mut indices, &mut |a, b| (a % 7).cmp(&(b % 7)));
        assert!(indices.is_sorted_by_key(|i| (i % 7, *i)));
    }
}
