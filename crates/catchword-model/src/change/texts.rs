//! Where the texts in a change stand: keys and values are most of it, and alike from change to change.

use std::ops::Range;

use super::columns::Input;
use super::read::ReadError;
use super::spec;

/// Returns where the texts of keys and the values stand in what follows the stamp in the body of a
/// change. Nowhere, if that does not begin as a change does.
///
/// Only what comes before the columns is looked at: with both parts cut out, the answer is the same.
pub fn texts(rest: &[u8]) -> [Range<usize>; 2] {
    let [keys, values] = find(rest).unwrap_or_default();
    if keys.end <= values.start { [keys, values] } else { [0..0, 0..0] }
}

fn find(rest: &[u8]) -> Result<[Range<usize>; 2], ReadError> {
    let mut input = Input(rest);
    let _message = input.prefixed()?;
    for _ in 0..input.len()? {
        let _actor = input.prefixed()?;
    }
    let mut columns = Vec::new();
    for _ in 0..input.len()? {
        let (column, len) = (input.unsigned()?, input.unsigned()?);
        columns.push((column, usize::try_from(len).map_err(|_| ReadError::Number)?));
    }
    let mut at = rest.len() - input.0.len();
    let [mut keys, mut values] = [at..at, at..at];
    for (column, len) in columns {
        let end = at.checked_add(len).ok_or(ReadError::Number)?;
        match column {
            spec::KEY_TEXT => keys = at..end,
            spec::VALUE => values = at..end,
            _ => (),
        }
        at = end;
    }
    // What has no column stands where the other one does.
    if values.end < keys.end && values.is_empty() {
        values = keys.end..keys.end;
    }
    Ok([keys, values])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::{Action, Draft, Key, Object, Op, OpId, Scalar};
    use crate::id::ActorId;
    use crate::schema::Container;

    fn op(key: Key, action: Action) -> Op {
        let predecessors = vec![OpId { counter: 5, actor: ActorId([2; 16]) }];
        let object = Object::Made(Container::Tags.object());
        Op { object, key, insert: false, action, predecessors }
    }

    /// What follows the stamp of a change with these operations.
    fn rest(ops: Vec<Op>) -> Vec<u8> {
        let (actor, message) = (ActorId([1; 16]), "a message".to_owned());
        let (dependencies, author) = (Vec::new(), None);
        let draft =
            Draft { actor, seq: 1, start_op: 9, time: 0, message, dependencies, author, ops };
        // No dependencies; the actor; one byte each for number, counter and stamp.
        draft.encode().body()[1 + 17 + 3..].to_vec()
    }

    #[test]
    fn keys_and_values_are_found_with_and_without_them() {
        let text = |text: &str| Action::Put(Scalar::Text(text.to_owned()));
        let key = |text: &str| Key::Map(text.to_owned());
        let element = Key::Element(OpId { counter: 3, actor: ActorId([1; 16]) });
        let cases = [
            (vec![op(key("sea"), text("blue")), op(key("sky"), text("grey"))], "sea", "bluegrey"),
            (vec![op(key("sea"), Action::Delete)], "sea", ""),
            (vec![op(element, text("x"))], "", "x"),
        ];
        for (ops, in_keys, in_values) in cases {
            let rest = rest(ops);
            let [keys, values] = texts(&rest);
            let found = |range: &Range<usize>| String::from_utf8_lossy(&rest[range.clone()]);
            assert!(found(&keys).contains(in_keys), "{keys:?}");
            assert_eq!(found(&values), in_values);
            assert!(keys.end <= values.start && values.end <= rest.len());
            // What is left says the same.
            let left = [&rest[..keys.start], &rest[keys.end..values.start], &rest[values.end..]];
            assert_eq!(texts(&left.concat()), [keys, values]);
        }
    }

    #[test]
    fn what_is_no_change_has_none() {
        for bytes in [&[][..], &[9], &[0, 0, 1, 0x15], &[0, 0, 0xFF, 0xFF, 0x7F]] {
            assert_eq!(texts(bytes), [0..0, 0..0]);
        }
        // Values before keys, and a length beyond all numbers.
        assert_eq!(texts(&[0, 0, 2, 0x57, 1, 0x15, 1]), [0..0, 0..0]);
        let endless = [&[0, 0, 1, 0x15][..], &[0xFF; 9], &[1]].concat();
        assert_eq!(texts(&endless), [0..0, 0..0]);
    }
}
