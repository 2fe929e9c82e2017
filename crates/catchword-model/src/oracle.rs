//! Reading a document out with automerge itself: the oracle for tests, `check` and tools.
//!
//! The registers of a book or of the library, read out of the Automerge document of the same
//! changes, in the types that rows are made of. Whatever is derived without a document must equal
//! this. It costs a document: nothing that an application waits for calls it.

use std::collections::BTreeMap;

use automerge::{ObjId, ROOT, ReadDoc, ScalarValue};

use crate::change::{Change, OpId, Scalar};
use crate::document::{Document, LoadError};
use crate::hlc::Hlc;
use crate::id::{ActorId, Author, ChangeHash, DeviceId, DocumentId};
use crate::merge::{Field, Holder};
use crate::schema::{Container, DocumentKind};

/// What automerge says a document holds.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Registers {
    /// The heads, ascending.
    pub heads: Vec<ChangeHash>,
    /// Every register that something holds, with what holds it.
    pub fields: BTreeMap<(Container, String), Field>,
}

/// Reads out the document of these changes, in causal order; its genesis may be left out.
///
/// # Errors
///
/// [`LoadError`] if automerge does not take them.
pub fn registers<'a>(
    kind: DocumentKind,
    changes: impl IntoIterator<Item = &'a [u8]>,
) -> Result<Registers, LoadError> {
    // Nobody writes in it.
    let nobody = Author { device: DeviceId([0; 16]), n: 0 };
    let document = Document::load(kind, changes, nobody, DocumentId([0; 32]))?;
    Ok(read_out(&document))
}

/// Reads out a document that has been loaded.
pub fn read_out(document: &Document) -> Registers {
    let stamps = Stamps::of(&document.history());
    let inner = document.inner();
    let mut fields = BTreeMap::new();
    for container in document.kind().containers() {
        let Ok(Some((_, object))) = inner.get(ROOT, container.name()) else { continue };
        for key in inner.keys(&object) {
            let holders = inner.get_all(&object, key.as_str()).unwrap_or_default();
            let holders = holders.iter().filter_map(|(value, id)| {
                let op = op_id(id)?;
                let value = scalar(value.as_scalar()?)?;
                Some(Holder { op, stamp: stamps.of_op(op), value })
            });
            fields.insert((*container, key), Field::from_holders(holders.collect()));
        }
    }
    Registers { heads: document.heads(), fields }
}

/// The stamp of every change, by actor and first operation.
struct Stamps(BTreeMap<(ActorId, u64), Hlc>);

impl Stamps {
    fn of(changes: &[Change]) -> Self {
        let stamp =
            |change: &Change| ((change.actor, change.start_op), Hlc::of_change(change.time));
        Self(changes.iter().map(stamp).collect())
    }

    fn of_op(&self, op: OpId) -> Hlc {
        let before = self.0.range((op.actor, 0)..=(op.actor, op.counter));
        before.last().map_or(Hlc::ZERO, |(_, stamp)| *stamp)
    }
}

fn op_id(id: &ObjId) -> Option<OpId> {
    let ObjId::Id(counter, actor, _) = id else { return None };
    Some(OpId { counter: *counter, actor: ActorId::from_slice(actor.to_bytes()).ok()? })
}

fn scalar(value: &ScalarValue) -> Option<Scalar> {
    match value {
        ScalarValue::Null => Some(Scalar::Null),
        ScalarValue::Boolean(value) => Some(Scalar::Boolean(*value)),
        ScalarValue::Uint(value) => Some(Scalar::Uint(*value)),
        ScalarValue::Int(value) => Some(Scalar::Int(*value)),
        ScalarValue::F64(value) => Some(Scalar::F64(*value)),
        ScalarValue::Str(text) => Some(Scalar::Text(text.to_string())),
        ScalarValue::Bytes(bytes) => Some(Scalar::Bytes(bytes.clone())),
        ScalarValue::Counter(value) => Some(Scalar::Counter(value.into())),
        ScalarValue::Timestamp(value) => Some(Scalar::Timestamp(*value)),
        ScalarValue::Unknown { .. } => None,
    }
}
