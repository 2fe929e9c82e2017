//! The fixed first change that every document starts from, and the form of later upgrades.
//!
//! Automerge maps created independently on two devices are two maps, and after a merge one of them
//! cannot be seen. So all devices hold the same first change, which makes every container.

use std::collections::BTreeSet;
use std::sync::OnceLock;

use crate::change::{Action, Change, Draft, Key, Object, Op, OpId, Scalar};
use crate::id::ActorId;
use crate::schema::DocumentKind;

/// The key at the root that names the schema.
pub const SCHEMA_KEY: &str = "schema";
/// The container of a notes document that holds the journal.
pub const JOURNAL: &str = "journal";
/// The container of a notes document that holds the application's own data.
pub const APP: &str = "app";

/// Returns the first change of every document of this kind. Its bytes are frozen.
pub fn genesis(kind: DocumentKind) -> &'static Change {
    static BOOK: OnceLock<Change> = OnceLock::new();
    static NOTES: OnceLock<Change> = OnceLock::new();
    static LIBRARY: OnceLock<Change> = OnceLock::new();
    let cell = match kind {
        DocumentKind::Book => &BOOK,
        DocumentKind::Notes => &NOTES,
        DocumentKind::Library => &LIBRARY,
    };
    cell.get_or_init(|| make(kind))
}

fn make(kind: DocumentKind) -> Change {
    let at_root = |key: &str, action| Op {
        object: Object::Root,
        key: Key::Map(key.to_owned()),
        insert: false,
        action,
        predecessors: Vec::new(),
    };
    let mut ops = vec![at_root(SCHEMA_KEY, Action::Put(Scalar::Int(1)))];
    match kind {
        DocumentKind::Notes => {
            ops.push(at_root(JOURNAL, Action::MakeText));
            ops.push(at_root(APP, Action::MakeMap));
        }
        DocumentKind::Book | DocumentKind::Library => {
            let maps = kind.containers().iter();
            ops.extend(maps.map(|container| at_root(container.name(), Action::MakeMap)));
        }
    }
    let draft = Draft {
        actor: ActorId::of_schema(1),
        seq: 1,
        start_op: 1,
        time: 0,
        message: String::new(),
        dependencies: Vec::new(),
        author: None,
        ops,
    };
    draft.encode()
}

/// Returns the schema that `change` upgrades its document to, if it claims to be an upgrade.
///
/// The claim is the actor, which only the change that writes that schema may have. Whether the
/// change has the form of an upgrade is [`is_upgrade`]'s to say.
pub fn claimed_upgrade(change: &Draft) -> Option<u32> {
    let schema = change.ops.iter().find_map(schema_written)?;
    (2 <= schema && change.actor == ActorId::of_schema(schema)).then_some(schema)
}

fn schema_written(op: &Op) -> Option<u32> {
    match (&op.object, &op.key, &op.action) {
        (Object::Root, Key::Map(key), Action::Put(Scalar::Int(n))) if key == SCHEMA_KEY => {
            u32::try_from(*n).ok()
        }
        _ => None,
    }
}

/// Returns whether `change` has the form of the upgrade to `schema` on top of `below`.
///
/// `below` is the change it depends on: the genesis, or the upgrade before. An upgrade is written
/// by the actor of its schema, at time 0, directly on `below`, and does nothing but make new
/// containers at the root and write the schema in place of the one before. Which containers a
/// newer release makes is not known here; that they are new is checked against `taken`. All are
/// maps, so that every release can judge what is written there: any register may be written or
/// deleted, and a newer release gives such writes a meaning without ever refusing one.
pub fn is_upgrade(change: &Draft, schema: u32, below: &Below, taken: &[String]) -> bool {
    let actor = change.actor == ActorId::of_schema(schema) && change.author.is_none();
    let head = change.seq == 1 && change.time == 0 && change.message.is_empty();
    let place = change.dependencies == [below.hash] && change.start_op == below.max_op + 1;
    let mut seen: BTreeSet<&str> = taken.iter().map(String::as_str).collect();
    let mut written = 0;
    let ops = change.ops.iter().all(|op| {
        let (Object::Root, Key::Map(key), false) = (&op.object, &op.key, op.insert) else {
            return false;
        };
        match &op.action {
            Action::MakeMap => seen.insert(key) && op.predecessors.is_empty(),
            Action::Put(Scalar::Int(n)) => {
                written += 1;
                key == SCHEMA_KEY && *n == i64::from(schema) && op.predecessors == [below.schema_op]
            }
            Action::Put(_)
            | Action::MakeList
            | Action::MakeText
            | Action::MakeTable
            | Action::Delete
            | Action::Increment(_)
            | Action::Mark { .. } => false,
        }
    });
    actor && head && place && ops && written == 1
}

/// What an upgrade builds on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Below {
    /// The genesis, or the upgrade before.
    pub hash: crate::id::ChangeHash,
    /// Its last operation.
    pub max_op: u64,
    /// The operation that wrote the schema.
    pub schema_op: OpId,
}

#[cfg(test)]
mod tests {
    use automerge::{ROOT, ReadDoc};

    use super::*;

    #[test]
    fn the_first_changes_are_frozen() {
        let hashes = [DocumentKind::Book, DocumentKind::Notes, DocumentKind::Library]
            .map(|kind| genesis(kind).hash().to_string());
        let frozen = [
            "3506ac8d787cc7b1984c7038b7ad59a9184b73da1a89906dfcfe96da4732da36",
            "afdc535d07e9ee57d97a5b954ce4dc0f2ace90eedc1561dc17d386a4f6257f4a",
            "a45dafbb7bae75f8a59aca156bce2bcdece2dbfcd3033095c4db82590c2495a7",
        ];
        assert_eq!(hashes, frozen);
    }

    #[test]
    fn automerge_reads_every_container() {
        for kind in [DocumentKind::Book, DocumentKind::Notes, DocumentKind::Library] {
            let mut doc = automerge::Automerge::new();
            let bytes = genesis(kind).bytes();
            doc.load_incremental(bytes).unwrap();
            assert_eq!(doc.get_heads()[0].0, genesis(kind).hash().0);
            for container in kind.containers() {
                let (_, id) = doc.get(ROOT, container.name()).unwrap().unwrap();
                let automerge::ObjId::Id(counter, actor, _) = id else { panic!("a map") };
                assert_eq!(counter, container.object().counter);
                assert_eq!(actor.to_bytes(), container.object().actor.0);
            }
        }
    }
}
