//! Who gets which split: a pure function of splits, taskmanagers and the assignment as it is.

use std::collections::BTreeMap;

use weir_common::{
    ids::TaskmanagerId,
    split::{SplitId, TopicPartition},
};

/// Every split's owner: balanced within one in each partition and over all, as few splits moved as that allows, the same
/// answer when asked again. Empty without taskmanagers.
///
/// `current` may name owners that are not among `members`; their splits are handed out.
pub(super) fn plan<'a>(
    splits: impl Iterator<Item = &'a SplitId>,
    members: &[&'a TaskmanagerId],
    current: &BTreeMap<&'a SplitId, &'a TaskmanagerId>,
) -> BTreeMap<&'a SplitId, &'a TaskmanagerId> {
    if members.is_empty() {
        return BTreeMap::new();
    }
    let index: BTreeMap<&TaskmanagerId, usize> = members.iter().enumerate().map(|(at, member)| (*member, at)).collect();
    let mut partitions: BTreeMap<TopicPartition, Vec<&SplitId>> = BTreeMap::new();
    for split in splits {
        partitions.entry(split.topic_partition()).or_default().push(split);
    }
    let mut extras = vec![0; members.len()];
    let mut planned = BTreeMap::new();
    for splits in partitions.values() {
        let owner = |split: &&SplitId| current.get(*split).and_then(|owner| index.get(*owner)).copied();
        let quotas = quotas(splits.len(), splits.iter().filter_map(owner), &mut extras);
        hand_out(splits, owner, quotas, |split, member| {
            planned.insert(split, members[member]);
        });
    }
    planned
}

/// How many splits of one partition each member has: its even share, and one more for those who have had the fewest of
/// such, among them first those who hold more than the share already.
fn quotas(splits: usize, owners: impl Iterator<Item = usize>, extras: &mut [usize]) -> Vec<usize> {
    let share = splits / extras.len();
    let mut held = vec![0; extras.len()];
    for owner in owners {
        held[owner] += 1;
    }
    let mut order: Vec<usize> = (0..extras.len()).collect();
    order.sort_by_key(|member| (extras[*member], held[*member] <= share, *member));
    let mut quotas = vec![share; extras.len()];
    for member in &order[..splits % extras.len()] {
        quotas[*member] += 1;
        extras[*member] += 1;
    }
    quotas
}

/// Owners keep what fits their quota; the rest goes to whoever has room, neighbours together.
fn hand_out<'a>(
    splits: &[&'a SplitId],
    owner: impl Fn(&&'a SplitId) -> Option<usize>,
    mut room: Vec<usize>,
    mut give: impl FnMut(&'a SplitId, usize),
) {
    let mut homeless = Vec::new();
    for split in splits {
        match owner(split) {
            Some(member) if room[member] > 0 => {
                room[member] -= 1;
                give(split, member);
            }
            _ => homeless.push(*split),
        }
    }
    let mut member = 0;
    for split in homeless {
        while room[member] == 0 {
            member += 1;
        }
        room[member] -= 1;
        give(split, member);
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, sync::Arc};

    use proptest::prelude::*;

    use super::*;

    fn splits(partitions: i32, per_partition: u32) -> Vec<SplitId> {
        let topic: Arc<str> = Arc::from("topic");
        (0..partitions)
            .flat_map(|partition| (0..per_partition).map(move |index| (partition, index)))
            .map(|(partition, index)| SplitId { topic: Arc::clone(&topic), partition, index })
            .collect()
    }

    fn names(count: usize) -> Vec<TaskmanagerId> {
        (0..count).map(|number| TaskmanagerId(format!("tm-{number:04}"))).collect()
    }

    fn spread(counts: impl Iterator<Item = usize>) -> usize {
        let counts: Vec<usize> = counts.collect();
        counts.iter().max().unwrap_or(&0) - counts.iter().min().unwrap_or(&0)
    }

    fn assert_balanced(planned: &BTreeMap<&SplitId, &TaskmanagerId>, members: &[&TaskmanagerId]) {
        let partitions: BTreeSet<i32> = planned.keys().map(|split| split.partition).collect();
        let of = |member: &TaskmanagerId, partition: Option<i32>| {
            let mine = planned.iter().filter(|(split, owner)| {
                **owner == member && partition.is_none_or(|partition| split.partition == partition)
            });
            mine.count()
        };
        assert!(spread(members.iter().map(|member| of(member, None))) <= 1, "{planned:?}");
        for partition in partitions {
            assert!(spread(members.iter().map(|member| of(member, Some(partition)))) <= 1, "{planned:?}");
        }
    }

    #[test]
    fn two_taskmanagers_share_one_partition_and_four_halves_of_two() {
        let names = names(2);
        let members: Vec<_> = names.iter().collect();
        for partitions in [1, 2] {
            let splits = splits(partitions, 2);
            let planned = plan(splits.iter(), &members, &BTreeMap::new());
            assert_eq!(planned.len(), splits.len());
            assert_balanced(&planned, &members);
        }
    }

    #[test]
    fn one_more_taskmanager_takes_its_share_and_nothing_else_moves() {
        let names = names(3);
        let splits = splits(1, 12);
        let two = plan(splits.iter(), &[&names[0], &names[1]], &BTreeMap::new());
        let three = plan(splits.iter(), &[&names[0], &names[1], &names[2]], &two);
        let moved = splits.iter().filter(|split| two[split] != three[split]).count();
        assert_eq!(moved, 4);
    }

    proptest! {
        #[test]
        fn balanced_stable_and_nearly_still(
            (partitions, per_partition) in (1..6i32, 1..14u32),
            present in prop::collection::vec(prop::bool::weighted(0.7), 1..12),
            present_after in prop::collection::vec(prop::bool::weighted(0.7), 12),
        ) {
            let splits = splits(partitions, per_partition);
            let names = names(present.len());
            let chosen = |which: &[bool]| -> Vec<&TaskmanagerId> {
                names.iter().zip(which).filter(|(_, present)| **present).map(|(name, _)| name).collect()
            };
            let (before, after) = (chosen(&present), chosen(&present_after));
            let first = plan(splits.iter(), &before, &BTreeMap::new());
            let second = plan(splits.iter(), &after, &first);
            prop_assert_eq!(second.len(), if after.is_empty() { 0 } else { splits.len() });
            assert_balanced(&second, &after);
            prop_assert_eq!(&plan(splits.iter(), &after, &second), &second);
            if before == after {
                prop_assert_eq!(first, second);
            }
        }
    }

    #[test]
    fn a_thousand_taskmanagers_and_ten_thousand_splits_are_balanced() {
        let names = names(1000);
        let members: Vec<_> = names.iter().collect();
        let splits = splits(834, 12);
        let planned = plan(splits.iter(), &members, &BTreeMap::new());
        let mut totals: BTreeMap<&TaskmanagerId, usize> = BTreeMap::new();
        for owner in planned.values() {
            *totals.entry(owner).or_default() += 1;
        }
        assert_eq!(spread(totals.values().copied()), 1);
    }
}
