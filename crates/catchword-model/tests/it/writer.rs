//! Devices that write one document without Automerge, and the orders in which others hear of it.

use std::collections::BTreeMap;

use catchword_model::change::past::Judgement;
use catchword_model::change::{Action, Change, Draft, Key, Object, Op, OpId, Scalar};
use catchword_model::edit::{Edit, build};
use catchword_model::genesis::{SCHEMA_KEY, genesis};
use catchword_model::history::History;
use catchword_model::hlc::{Hlc, HlcClock};
use catchword_model::id::{ActorId, Author, BookId, ChangeHash, DeviceId, DocumentId};
use catchword_model::schema::{Container, DocumentKind};

pub(crate) const BOOK: BookId = BookId([7; 32]);

/// A device with its own copy of a document.
#[derive(Clone)]
pub(crate) struct Writer {
    pub(crate) author: Author,
    pub(crate) history: History,
    clock: HlcClock,
}

impl Writer {
    pub(crate) fn new(device: u8, kind: DocumentKind) -> Self {
        let author = Author { device: DeviceId([device; 16]), n: 0 };
        let history = History::new(kind, kind.document(BOOK));
        Self { author, history, clock: HlcClock::resume(Hlc::ZERO) }
    }

    /// Makes the change of these edits and takes it.
    pub(crate) fn edit(&mut self, now_ms: u64, edits: &[Edit]) -> Change {
        self.try_edit(now_ms, edits).expect("the edits change something")
    }

    /// Makes the change of these edits, if they change anything, and takes it.
    pub(crate) fn try_edit(&mut self, now_ms: u64, edits: &[Edit]) -> Option<Change> {
        let change = self.build(now_ms, edits)?;
        self.take(&change);
        Some(change)
    }

    /// Makes the change of these edits, if they change anything.
    pub(crate) fn build(&mut self, now_ms: u64, edits: &[Edit]) -> Option<Change> {
        let stamp = self.clock.tick(now_ms);
        let device = self.author.device;
        let writes: Vec<_> = edits.iter().flat_map(|edit| edit.writes(device, stamp)).collect();
        let history = &self.history;
        let held = |container: Container, key: &str| -> Result<_, std::convert::Infallible> {
            Ok(history.field(Object::Made(container.object()), key))
        };
        let Ok(change) = build(&history.base(self.author), stamp, &writes, held);
        change
    }

    /// Makes a change of these operations, as if they were edits, and takes it.
    pub(crate) fn write(&mut self, ops: Vec<Op>) -> Change {
        let change = self.draft(ops).encode();
        self.take(&change);
        change
    }

    /// Returns the next change of this device, if it did these operations.
    pub(crate) fn draft(&self, ops: Vec<Op>) -> Draft {
        let base = self.history.base(self.author);
        let mut dependencies = base.heads.clone();
        dependencies.extend(base.last.filter(|last| !base.heads.contains(last)));
        dependencies.sort_unstable();
        Draft {
            actor: base.actor,
            seq: base.seq,
            start_op: base.max_op + 1,
            time: 5 << 16,
            message: String::new(),
            dependencies,
            author: (base.seq == 1).then_some(self.author),
            ops,
        }
    }

    pub(crate) fn take(&mut self, change: &Change) {
        self.clock.observe(Hlc::of_change(change.time));
        assert_eq!(self.history.admit(change.clone()), Judgement::Admitted);
    }

    /// Takes everything another device has.
    pub(crate) fn take_all(&mut self, other: &Self) {
        let changes: Vec<Change> = other.history.changes().cloned().collect();
        for change in &changes {
            self.take(change);
        }
    }
}

/// Gives changes to a new device in this order, keeping back what waits for something.
///
/// Returns the device's history and the last verdict about each change.
pub(crate) fn deliver(
    kind: DocumentKind,
    id: DocumentId,
    changes: &[&Change],
) -> (History, BTreeMap<ChangeHash, Judgement>) {
    let mut history = History::new(kind, id);
    let mut verdicts = BTreeMap::new();
    let mut waiting: Vec<&Change> = Vec::new();
    for change in changes {
        waiting.push(change);
        loop {
            let before = waiting.len();
            waiting.retain(|change| {
                let judgement = history.admit((*change).clone());
                let waits = matches!(judgement, Judgement::Missing(_));
                verdicts.insert(change.hash(), judgement);
                waits
            });
            if waiting.len() == before {
                break;
            }
        }
    }
    (history, verdicts)
}

/// Returns every order of `0..count`.
pub(crate) fn orders(count: usize) -> Vec<Vec<usize>> {
    if count == 0 {
        return vec![Vec::new()];
    }
    let shorter = orders(count - 1);
    let insert = |order: &Vec<usize>, place: usize| {
        let mut order = order.clone();
        order.insert(place, count - 1);
        order
    };
    shorter.iter().flat_map(|order| (0..count).map(move |place| insert(order, place))).collect()
}

pub(crate) fn op(object: OpId, key: &str, action: Action, predecessors: &[OpId]) -> Op {
    Op {
        object: Object::Made(object),
        key: Key::Map(key.to_owned()),
        insert: false,
        action,
        predecessors: predecessors.to_vec(),
    }
}

pub(crate) fn at_root(key: &str, action: Action, predecessors: &[OpId]) -> Op {
    Op {
        object: Object::Root,
        ..op(OpId { counter: 1, actor: ActorId([0; 16]) }, key, action, predecessors)
    }
}

pub(crate) fn insert(object: OpId, after: Key, action: Action) -> Op {
    Op { key: after, insert: true, ..op(object, "", action, &[]) }
}

pub(crate) fn put_text(text: &str) -> Action {
    Action::Put(Scalar::Text(text.to_owned()))
}

/// Returns the upgrade to `schema` that makes one more map, on top of `below`.
pub(crate) fn upgrade(schema: u32, below: &Change, container: &str) -> Draft {
    let is_schema = |op: &Op| op.key == Key::Map(SCHEMA_KEY.to_owned());
    let (schema_op, _) = below.ops_with_ids().find(|(_, op)| is_schema(op)).unwrap();
    let version = Action::Put(Scalar::Int(i64::from(schema)));
    Draft {
        actor: ActorId::of_schema(schema),
        seq: 1,
        start_op: below.max_op() + 1,
        time: 0,
        message: String::new(),
        dependencies: vec![below.hash()],
        author: None,
        ops: vec![
            at_root(SCHEMA_KEY, version, &[schema_op]),
            at_root(container, Action::MakeMap, &[]),
        ],
    }
}

/// Returns the id of the object at the root of a notes document.
pub(crate) fn notes_object(name: &str) -> OpId {
    let made = genesis(DocumentKind::Notes);
    let named = |op: &Op| op.key == Key::Map(name.to_owned());
    made.ops_with_ids().find(|(_, op)| named(op)).unwrap().0
}
