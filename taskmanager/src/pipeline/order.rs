//! Puts results back into the order in which their records were read.

use std::collections::{HashMap, VecDeque};

use weir_common::{config::Order, split::KeyHash};

/// Holds results of one split until everything before them in their order is done. Work itself is never serialised:
/// records of one key may be fetched at once, their results leave as they were read.
///
/// Keys are told apart by their hash: two that share one wait for each other, which is harmless.
#[derive(Debug)]
pub struct OrderGate<R> {
    order: Order,
    lanes: HashMap<KeyHash, VecDeque<(i64, Option<R>)>>,
}

/// The one lane of `order: partition`.
const WHOLE: KeyHash = KeyHash(0);

impl<R> OrderGate<R> {
    /// An empty gate.
    #[must_use]
    pub fn new(order: Order) -> Self {
        Self { order, lanes: HashMap::new() }
    }

    /// A record was taken in. Offsets of one split come in ascending order.
    pub fn admit(&mut self, key: KeyHash, offset: i64) {
        if let Some(lane) = self.lane_of(key) {
            self.lanes.entry(lane).or_default().push_back((offset, None));
        }
    }

    /// A record's work is done: appends to `released` what may leave now, in order.
    pub fn complete(&mut self, key: KeyHash, offset: i64, result: R, released: &mut Vec<R>) {
        let Some(lane_of) = self.lane_of(key) else {
            released.push(result);
            return;
        };
        let Some(lane) = self.lanes.get_mut(&lane_of) else { return };
        if let Ok(index) = lane.binary_search_by_key(&offset, |(offset, _)| *offset) {
            lane[index].1 = Some(result);
        }
        while let Some((_, Some(_))) = lane.front() {
            released.extend(lane.pop_front().and_then(|(_, result)| result));
        }
        if lane.is_empty() {
            self.lanes.remove(&lane_of);
        }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.lanes.clear();
    }

    fn lane_of(&self, key: KeyHash) -> Option<KeyHash> {
        match self.order {
            Order::Key => Some(key),
            Order::Partition => Some(WHOLE),
            Order::None => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Admits `keys[offset]` for each offset, completes them in `order`, returns what was released after each.
    fn run(order: Order, keys: &[u32], completions: &[usize]) -> Vec<Vec<i64>> {
        let mut gate = OrderGate::new(order);
        for (offset, key) in keys.iter().enumerate() {
            gate.admit(KeyHash(*key), offset as i64);
        }
        let step = |index: &usize| {
            let mut released = Vec::new();
            gate.complete(KeyHash(keys[*index]), *index as i64, *index as i64, &mut released);
            released
        };
        let released = completions.iter().map(step).collect();
        assert!(completions.len() < keys.len() || gate.lanes.is_empty());
        released
    }

    #[test]
    fn results_leave_in_their_order() {
        let keys = [7, 7, 9, 7];
        type Row = (Order, &'static [usize], &'static [&'static [i64]]);
        let table: [Row; 4] = [
            (Order::Key, &[1, 2, 0, 3], &[&[], &[2], &[0, 1], &[3]]),
            (Order::Key, &[3, 1, 0], &[&[], &[], &[0, 1, 3]]),
            (Order::Partition, &[2, 1, 0, 3], &[&[], &[], &[0, 1, 2], &[3]]),
            (Order::None, &[3, 1, 0, 2], &[&[3], &[1], &[0], &[2]]),
        ];
        for (order, completions, expected) in table {
            assert_eq!(run(order, &keys, completions), expected, "{order:?} {completions:?}");
        }
    }

    proptest! {
        #[test]
        fn every_result_leaves_once_and_each_key_as_read(
            keys in prop::collection::vec(0..4u32, 1..40),
            seed in any::<u64>(),
        ) {
            let mut completions: Vec<usize> = (0..keys.len()).collect();
            completions.sort_by_key(|index| (*index as u64 + 1).wrapping_mul(seed | 1) >> 7);
            let released: Vec<i64> = run(Order::Key, &keys, &completions).into_iter().flatten().collect();
            let mut all = released.clone();
            all.sort_unstable();
            prop_assert_eq!(all, (0..keys.len() as i64).collect::<Vec<_>>());
            for key in 0..4 {
                let of_key: Vec<i64> =
                    released.iter().copied().filter(|offset| keys[*offset as usize] == key).collect();
                prop_assert!(of_key.is_sorted());
            }
        }
    }
}
