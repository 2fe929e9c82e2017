//! Every write an application may ask for, as data; and the change it becomes, without a document.
//!
//! A change is built from what is stored beside the log: heads, counters, and the holders of the keys
//! it writes. It has the bytes that Automerge's own transaction would have made of the same writes,
//! with one exception: see [`build`].

use crate::annotation::{AnnotationField, Creation};
use crate::change::{Action, Change, Draft, Key, Object, Op, OpId, Scalar};
use crate::hlc::Hlc;
use crate::id::{ActorId, AnnotationId, Author, BookId, ChangeHash, DeviceId, ShelfId};
use crate::merge::{Field, Holder};
use crate::meta::{DeviceName, Meta};
use crate::position::{Furthest, Position};
use crate::schema::{
    self, Container, DELETED, DocumentKind, Pair, annotation_field, furthest_key, hold_key,
    member_key, total_key,
};

/// A write an application may ask for.
#[derive(Debug, Clone, PartialEq)]
pub enum Edit {
    /// Makes an annotation.
    Annotate {
        /// Its id.
        id: AnnotationId,
        /// What it is.
        creation: Box<Creation>,
    },
    /// Changes a field of an annotation.
    SetField {
        /// Which annotation.
        id: AnnotationId,
        /// Which field.
        field: AnnotationField,
        /// Its new value.
        value: String,
    },
    /// Deletes an annotation.
    Delete {
        /// Which annotation.
        id: AnnotationId,
    },
    /// Takes back the deletion of an annotation.
    Undelete {
        /// Which annotation.
        id: AnnotationId,
    },
    /// Puts a tag on the book. `tag` is in its one form: see [`schema::tag_key`].
    AddTag {
        /// The tag.
        tag: String,
    },
    /// Takes a tag off the book.
    RemoveTag {
        /// The tag.
        tag: String,
    },
    /// Says something about the book.
    SetMeta {
        /// Which field: title, authors, language, ….
        field: String,
        /// What it is, and who says so.
        meta: Meta,
    },
    /// Writes this device's own position.
    SetPosition(Position),
    /// Writes this device's own furthest point in a pass.
    SetFurthest {
        /// The pass.
        pass: u32,
        /// How far.
        furthest: Furthest,
    },
    /// Writes this device's own running total.
    SetTotal {
        /// Which total: seconds, turns, sessions, or `app.…`.
        name: String,
        /// Its new value.
        value: u64,
    },
    /// Withdraws a device's positions up to a stamp.
    Withdraw {
        /// Whose.
        device: DeviceId,
        /// Up to and including this stamp.
        mark: Hlc,
    },
    /// Names this device.
    NameDevice(DeviceName),
    /// Makes a shelf or names it anew.
    NameShelf {
        /// Which shelf.
        id: ShelfId,
        /// Its name.
        name: String,
    },
    /// Deletes a shelf. The books stay.
    DeleteShelf {
        /// Which shelf.
        id: ShelfId,
    },
    /// Puts a book on a shelf.
    AddMember {
        /// Which shelf.
        shelf: ShelfId,
        /// Which book.
        book: BookId,
    },
    /// Takes a book off a shelf.
    RemoveMember {
        /// Which shelf.
        shelf: ShelfId,
        /// Which book.
        book: BookId,
    },
    /// Records another name of a book.
    AddAlias {
        /// What kind of name: `pmd5`, `identifier`, `filename`, ….
        kind: String,
        /// The name.
        value: String,
        /// Which book.
        book: BookId,
    },
    /// Says that two books are one work, whatever was said before.
    Join(Pair),
    /// Takes back that two books are one work. Their identifiers may still say so.
    Unjoin(Pair),
    /// Says that two books are not one work, whatever their identifiers say.
    Apart(Pair),
    /// Records that this device has the file of a book.
    AddHold {
        /// Which book.
        book: BookId,
    },
    /// Records that this device no longer has the file of a book.
    RemoveHold {
        /// Which book.
        book: BookId,
    },
}

/// A write of one register.
#[derive(Debug, Clone, PartialEq)]
pub struct Write {
    /// The container.
    pub container: Container,
    /// The key in it.
    pub key: String,
    /// The new value, or `None` to delete the key.
    pub value: Option<Scalar>,
}

impl Edit {
    /// Returns the kind of document this edit belongs to.
    pub const fn kind(&self) -> DocumentKind {
        match self {
            Self::Annotate { .. }
            | Self::SetField { .. }
            | Self::Delete { .. }
            | Self::Undelete { .. }
            | Self::AddTag { .. }
            | Self::RemoveTag { .. }
            | Self::SetMeta { .. }
            | Self::SetPosition(_)
            | Self::SetFurthest { .. }
            | Self::SetTotal { .. }
            | Self::Withdraw { .. } => DocumentKind::Book,
            Self::NameDevice(_)
            | Self::NameShelf { .. }
            | Self::DeleteShelf { .. }
            | Self::AddMember { .. }
            | Self::RemoveMember { .. }
            | Self::AddAlias { .. }
            | Self::Join(_)
            | Self::Unjoin(_)
            | Self::Apart(_)
            | Self::AddHold { .. }
            | Self::RemoveHold { .. } => DocumentKind::Library,
        }
    }

    /// Returns the registers this edit writes, in order.
    ///
    /// `device` is this device; `stamp` is that of the change the edit becomes part of. Values that
    /// may be written again carry the stamp, since Automerge drops a write that repeats a value.
    pub fn writes(&self, device: DeviceId, stamp: Hlc) -> Vec<Write> {
        use Container as C;

        let put = |container, key: String, value| Write { container, key, value: Some(value) };
        let delete = |container, key: String| Write { container, key, value: None };
        let text = |text: &str| Scalar::Text(text.to_owned());
        let now = Scalar::Int(stamp.to_time());
        let kept = Scalar::Int(-stamp.to_time());
        let deleted = |id: &AnnotationId| annotation_field(*id, DELETED);
        match self {
            Self::Annotate { id, creation } => {
                vec![put(C::Annotations, id.to_string(), Scalar::Text(creation.to_json()))]
            }
            Self::SetField { id, field, value } => vec![
                put(C::Annotations, annotation_field(*id, field.name()), text(value)),
                put(C::Annotations, deleted(id), kept),
            ],
            Self::Delete { id } => vec![put(C::Annotations, deleted(id), now)],
            Self::Undelete { id } => vec![put(C::Annotations, deleted(id), kept)],
            Self::AddTag { tag } => vec![put(C::Tags, tag.clone(), now)],
            Self::RemoveTag { tag } => vec![delete(C::Tags, tag.clone())],
            Self::SetMeta { field, meta } => {
                vec![put(C::Meta, field.clone(), Scalar::Text(meta.to_json()))]
            }
            Self::SetPosition(position) => {
                vec![put(C::Positions, device.to_string(), Scalar::Text(position.to_json()))]
            }
            Self::SetFurthest { pass, furthest } => {
                let value = Scalar::Text(furthest.to_json());
                vec![put(C::Furthest, furthest_key(device, *pass), value)]
            }
            Self::SetTotal { name, value } => {
                let value = Scalar::Int(i64::try_from(*value).unwrap_or(i64::MAX));
                vec![put(C::Totals, total_key(name, device), value)]
            }
            Self::Withdraw { device, mark } => {
                vec![put(C::Withdrawn, device.to_string(), Scalar::Int(mark.to_time()))]
            }
            Self::NameDevice(name) => {
                vec![put(C::Devices, device.to_string(), Scalar::Text(name.to_json()))]
            }
            Self::NameShelf { id, name } => vec![
                put(C::Shelves, id.to_string(), text(name)),
                put(C::Shelves, schema::shelf_deleted(*id), kept),
            ],
            Self::DeleteShelf { id } => vec![put(C::Shelves, schema::shelf_deleted(*id), now)],
            Self::AddMember { shelf, book } => {
                vec![put(C::Members, member_key(*shelf, *book), now)]
            }
            Self::RemoveMember { shelf, book } => {
                vec![delete(C::Members, member_key(*shelf, *book))]
            }
            Self::AddAlias { kind, value, book } => {
                vec![put(C::Aliases, schema::alias_key(kind, value, *book), now)]
            }
            Self::Join(pair) => vec![put(C::Joins, pair.key(), now), delete(C::Apart, pair.key())],
            Self::Unjoin(pair) => vec![delete(C::Joins, pair.key())],
            Self::Apart(pair) => vec![delete(C::Joins, pair.key()), put(C::Apart, pair.key(), now)],
            Self::AddHold { book } => vec![put(C::Holds, hold_key(*book, device), now)],
            Self::RemoveHold { book } => vec![delete(C::Holds, hold_key(*book, device))],
        }
    }
}

/// Where in a document's history a new change stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Base {
    /// Who writes.
    pub author: Author,
    /// The actor of that author in this document.
    pub actor: ActorId,
    /// The number of the change among the actor's, from 1.
    pub seq: u64,
    /// The greatest operation counter in the document.
    pub max_op: u64,
    /// The heads of the document.
    pub heads: Vec<ChangeHash>,
    /// The actor's own last change, if it has one.
    pub last: Option<ChangeHash>,
}

/// Builds the change that makes these writes, or `None` if they change nothing.
///
/// `held` returns what holds a register now; it is asked once for each write.
///
/// As in Automerge, a write of the value that alone holds the register is dropped, and so is the
/// deletion of a key that nothing holds. Where several hold it and the write repeats the value of
/// the last of them, Automerge would delete the others instead; here the value is put again, naming
/// all of them, since keys of most containers cannot be deleted and a concurrent delete would win.
///
/// # Errors
///
/// Whatever `held` returns. Nothing has been written.
pub fn build<E>(
    base: &Base,
    stamp: Hlc,
    writes: &[Write],
    mut held: impl FnMut(Container, &str) -> Result<Field, E>,
) -> Result<Option<Change>, E> {
    let mut ops: Vec<Op> = Vec::with_capacity(writes.len());
    // What this change itself has written so far: the operation, and whether it was a value.
    let mut own: Vec<(&Write, Option<Holder>)> = Vec::new();
    for write in writes {
        let earlier = own
            .iter()
            .rev()
            .find(|(before, _)| (before.container, &before.key) == (write.container, &write.key));
        let field = match earlier {
            Some((_, Some(holder))) => Field::from_holders(vec![holder.clone()]),
            Some((_, None)) => Field::default(),
            None => held(write.container, &write.key)?,
        };
        let unchanged = match (field.holders(), &write.value) {
            ([], None) => true,
            ([only], Some(value)) => only.value == *value,
            _ => false,
        };
        if unchanged {
            continue;
        }
        let op = OpId { counter: base.max_op + 1 + ops.len() as u64, actor: base.actor };
        own.push((write, write.value.clone().map(|value| Holder { op, stamp, value })));
        ops.push(Op {
            object: Object::Made(write.container.object()),
            key: Key::Map(write.key.clone()),
            insert: false,
            action: write.value.clone().map_or(Action::Delete, Action::Put),
            predecessors: field.holders().iter().map(|holder| holder.op).collect(),
        });
    }
    Ok((!ops.is_empty()).then(|| draft(base, stamp, ops).encode()))
}

fn draft(base: &Base, stamp: Hlc, ops: Vec<Op>) -> Draft {
    let mut dependencies = base.heads.clone();
    dependencies.extend(base.last.filter(|last| !base.heads.contains(last)));
    Draft {
        actor: base.actor,
        seq: base.seq,
        start_op: base.max_op + 1,
        time: stamp.to_time(),
        message: String::new(),
        dependencies,
        author: (base.seq == 1).then_some(base.author),
        ops,
    }
}
