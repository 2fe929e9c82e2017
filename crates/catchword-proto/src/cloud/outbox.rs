//! Which documents are sent first.
//!
//! Positions before annotations before reading events; but every eighth place goes to a lower class, so
//! that nothing starves while somebody reads on and on.

/// One place in so many goes to a lower class.
pub const LOWER_EVERY: u64 = 8;

/// Orders what waits, by its class; 0 is the most urgent. Within a class the order is kept.
///
/// `turn` counts the places given so far; what is returned continues from there.
pub fn order<T>(waiting: impl IntoIterator<Item = (T, u8)>, turn: u64) -> Vec<T> {
    let mut classes: Vec<std::collections::VecDeque<T>> = Vec::new();
    for (item, class) in waiting {
        let class = usize::from(class);
        if classes.len() <= class {
            classes.resize_with(class + 1, std::collections::VecDeque::new);
        }
        if let Some(class) = classes.get_mut(class) {
            class.push_back(item);
        }
    }
    let mut ordered = Vec::new();
    let mut place = turn;
    loop {
        place += 1;
        let mut filled = classes.iter_mut().filter(|class| !class.is_empty());
        // The lower classes take turns among themselves, too: the lowest has one of their eight.
        let lower = place.is_multiple_of(LOWER_EVERY);
        let lowest = place.is_multiple_of(LOWER_EVERY * LOWER_EVERY);
        let first = filled.next();
        let second = if lower { filled.next() } else { None };
        let third = if lowest { filled.next() } else { None };
        match third.or(second).or(first).and_then(std::collections::VecDeque::pop_front) {
            Some(item) => ordered.push(item),
            None => return ordered,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn one_place_in_eight_goes_to_a_lower_class_and_one_in_64_to_the_lowest() {
        let waiting = (0..3_u8).flat_map(|class| (0..200).map(move |_| (class, class)));
        let ordered = order(waiting, 0);
        let first: Vec<u8> = ordered[..16].to_vec();
        assert_eq!(first, [0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1]);
        let mut counts = [0; 3];
        for class in &ordered[..64] {
            counts[usize::from(*class)] += 1;
        }
        assert_eq!(counts, [56, 7, 1]);
        assert_eq!(order([((), 0), ((), 1)], 7).len(), 2);
        assert_eq!(order([(0, 0), (1, 1)], 7), [1, 0], "the place before was the seventh");
    }

    proptest! {
        #[test]
        fn nothing_is_lost_and_a_class_keeps_its_order(classes in proptest::collection::vec(0..3_u8, 0..60), turn in 0..100_u64) {
            let waiting = classes.iter().copied().enumerate().map(|(n, class)| ((n, class), class));
            let ordered = order(waiting, turn);
            prop_assert_eq!(ordered.len(), classes.len());
            for class in 0..3 {
                let of_class = ordered.iter().filter(|it| it.1 == class).map(|it| it.0);
                prop_assert!(of_class.is_sorted());
            }
        }
    }
}
