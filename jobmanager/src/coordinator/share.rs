//! What the whole job may do at once, divided among the taskmanagers that work.

use weir_common::ids::{SlotId, TaskmanagerId};

use super::Coordinator;

impl Coordinator {
    /// This taskmanager's part of `total`; `None` for one without a slot. Whoever has a slot counts, also one that drains.
    ///
    /// The parts change as slots are leased and freed; each taskmanager learns its new part with its next heartbeat, so for
    /// that long the sum may be over `total`.
    #[must_use]
    pub fn share(&self, taskmanager: &TaskmanagerId, total: usize) -> Option<usize> {
        let (slot, _) = self.grant(taskmanager)?;
        let mut slots: Vec<SlotId> = self.taskmanagers.values().filter_map(|each| Some(each.lease.slot()?.0)).collect();
        slots.sort_unstable();
        let place = slots.iter().position(|each| *each == slot)?;
        Some(part(total, slots.len(), place))
    }
}

/// The part of who stands at `place` of `of`: parts differ by one at most, and nobody is left without any, even where
/// that makes more than `total`.
fn part(total: usize, of: usize, place: usize) -> usize {
    let rest = usize::from(place < total % of.max(1));
    (total / of.max(1) + rest).max(1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn parts_are_even() {
        let parts = |total, of| (0..of).map(|place| part(total, of, place)).collect::<Vec<_>>();
        assert_eq!(parts(64, 1), [64]);
        assert_eq!(parts(64, 3), [22, 21, 21]);
        assert_eq!(parts(2, 4), [1, 1, 1, 1], "who has none could not work");
    }

    proptest! {
        #[test]
        fn all_of_it_is_given_and_no_more(total in 1..1000_usize, of in 1..100_usize) {
            let parts: Vec<usize> = (0..of).map(|place| part(total, of, place)).collect();
            prop_assert_eq!(parts.iter().sum::<usize>(), total.max(of));
            prop_assert!(parts.iter().max().unwrap_or(&0) - parts.iter().min().unwrap_or(&0) <= 1);
        }
    }
}
