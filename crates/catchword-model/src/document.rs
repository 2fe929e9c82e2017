//! The Automerge document of a book, of its notes or of the library, built when it is needed.
//!
//! Registers are written and read without a document. It is built for the journal and the
//! application's own data (which live in the notes document), for export and as the oracle.
//!
//! # Invariants
//!
//! 1. The document holds exactly the changes it was given and has made: heads are compared, since
//!    automerge answers `Ok` when it has thrown part of its input away.
//! 2. An edit or a received change that fails leaves the document as it was.
//! 3. What a document makes, the strict reader reads.
//!
//! # What is not here
//!
//! Judging received changes ([`crate::change::past`]) comes before applying them. A deadline: run
//! [`Document::apply`] where it can be waited for.

mod app;

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};

use automerge::transaction::{CommitOptions, Transactable, Transaction};
use automerge::{Automerge, AutomergeError, ROOT, ReadDoc};

pub use app::{AppData, AppError, DEPTH_MAX};

use crate::change::Change;
use crate::change::read::{OPS_MAX, ReadError, read};
use crate::diff::{Splice, splices};
use crate::genesis::{APP, JOURNAL, genesis};
use crate::hlc::Hlc;
use crate::id::{Author, ChangeHash, DocumentId};
use crate::schema::DocumentKind;

/// Operations of a notes document that is edited. One character is one operation.
pub const DOCUMENT_OPS_MAX: u64 = 2_000_000;
/// Size of a notes document that is edited, saved, in bytes.
pub const DOCUMENT_BYTES_MAX: usize = 32 << 20;

/// A document could not be built, or does not take these changes. Nothing has changed.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The bytes of a change are none.
    #[error("bytes are not a change")]
    Read(#[source] ReadError),
    /// Automerge refused the changes, or stopped over them.
    #[error("automerge refuses the changes")]
    Refused,
    /// Something the changes build on is not there, or automerge took a part of them only.
    #[error("something the changes build on is missing")]
    Incomplete,
    /// The document does not load again once saved.
    #[error("document does not survive being saved")]
    NotProven,
}

/// An edit of a document was not made. Nothing has changed.
#[derive(Debug, thiserror::Error)]
pub enum EditError {
    /// It is not the notes document of a book.
    #[error("document has no journal and no application data")]
    NotNotes,
    /// The document, or this edit of it, would become larger than allowed.
    #[error("document would become larger than allowed")]
    TooLarge,
    /// The application's edit failed.
    #[error("edit of the application's data failed")]
    App(#[source] AppError),
    /// Automerge could not carry it out.
    #[error("automerge could not carry out the edit")]
    Failed,
}

/// An Automerge document with the device that writes in it.
pub struct Document {
    kind: DocumentKind,
    inner: Automerge,
    size: Size,
}

/// How much the changes of a document are.
#[derive(Debug, Clone, Copy, Default)]
struct Size {
    ops: u64,
    bytes: usize,
}

impl Size {
    fn add(&mut self, change: &Change) {
        self.ops += change.ops.len() as u64;
        self.bytes += change.bytes().len();
    }
}

impl Document {
    /// Builds the document of these changes, in causal order; its genesis may be left out.
    ///
    /// `author` is who will write, in the document `id`.
    ///
    /// # Errors
    ///
    /// [`LoadError`]; there is no document then.
    pub fn load<'a>(
        kind: DocumentKind,
        changes: impl IntoIterator<Item = &'a [u8]>,
        author: Author,
        id: DocumentId,
    ) -> Result<Self, LoadError> {
        let mut log = genesis(kind).bytes().to_vec();
        let mut heads = Heads::default();
        heads.take(genesis(kind), |_| false)?;
        let mut size = Size::default();
        size.add(genesis(kind));
        for bytes in changes {
            let change = read(bytes).map_err(LoadError::Read)?;
            if heads.take(&change, |_| false)? {
                size.add(&change);
                log.extend_from_slice(change.bytes());
            }
        }
        // The author first: setting one draws a new actor.
        let load = || -> Result<Automerge, AutomergeError> {
            let mut inner = Automerge::load(&log)?
                .with_author(Some(automerge::Author::from(author.to_bytes().to_vec())));
            inner.set_actor(automerge::ActorId::from(author.actor(id).0.to_vec()));
            Ok(inner)
        };
        let inner = caught(load).ok_or(LoadError::Refused)?;
        let document = Self { kind, inner, size };
        if document.heads() == heads.sorted() { Ok(document) } else { Err(LoadError::Incomplete) }
    }

    /// Returns what the document is about.
    pub fn kind(&self) -> DocumentKind {
        self.kind
    }

    /// Returns the heads, ascending.
    pub fn heads(&self) -> Vec<ChangeHash> {
        let mut heads: Vec<_> =
            self.inner.get_heads().iter().map(|hash| ChangeHash(hash.0)).collect();
        heads.sort_unstable();
        heads
    }

    /// Returns the changes, in causal order.
    pub fn history(&self) -> Vec<Change> {
        // Invariant 3: nothing is in the document that was not read, or made here and read.
        self.inner
            .get_changes(&[])
            .iter()
            .filter_map(|change| read(change.raw_bytes()).ok())
            .collect()
    }

    /// Returns the bytes of a document that any Automerge program loads.
    pub fn save(&self) -> Vec<u8> {
        self.inner.save()
    }

    /// Returns the journal; empty where there is none.
    pub fn journal(&self) -> String {
        let journal = root_object(&self.inner, JOURNAL);
        journal.and_then(|journal| self.inner.text(&journal).ok()).unwrap_or_default()
    }

    /// Makes `text` the journal, by the difference to what it is, and returns the changes made.
    ///
    /// Usually that is one change, none if the text is the same, and several where more than
    /// [`OPS_MAX`] characters differ. All carry `stamp`.
    ///
    /// # Errors
    ///
    /// [`EditError`]; the journal is as it was.
    pub fn set_journal(&mut self, text: &str, stamp: Hlc) -> Result<Vec<Change>, EditError> {
        let Some(journal) = root_object(&self.inner, JOURNAL) else {
            return Err(EditError::NotNotes);
        };
        let differences = splices(&self.journal(), text);
        let characters =
            differences.iter().map(|splice| splice.delete + splice.insert.chars().count());
        self.require_room(characters.sum())?;
        let mut copy = self.inner.clone();
        let mut changes = Vec::new();
        for batch in batches(differences) {
            let edit = |transaction: &mut Transaction<'_>| -> Result<(), AutomergeError> {
                for splice in &batch {
                    let delete = splice.delete.cast_signed();
                    transaction.splice_text(&journal, splice.at, delete, &splice.insert)?;
                }
                Ok(())
            };
            changes.extend(commit(&mut copy, stamp, edit, |_| EditError::Failed)?.1);
        }
        self.adopt(copy, &changes)?;
        Ok(changes)
    }

    /// Returns the application's own data as JSON; `null` where there is none.
    ///
    /// Of several values that devices wrote without knowing of each other, the one is shown that
    /// Automerge chooses.
    pub fn app(&self) -> serde_json::Value {
        let root = root_object(&self.inner, APP);
        root.map_or(serde_json::Value::Null, |root| app::object(&self.inner, &root, 0))
    }

    /// Lets the application edit its own data, and returns the change made, if anything changed.
    ///
    /// # Errors
    ///
    /// [`EditError`], also when `edit` itself fails; the data is as it was.
    pub fn edit_app<T>(
        &mut self,
        stamp: Hlc,
        edit: impl FnOnce(&mut AppData<'_, '_>) -> Result<T, AppError>,
    ) -> Result<(T, Option<Change>), EditError> {
        let Some(root) = root_object(&self.inner, APP) else { return Err(EditError::NotNotes) };
        let mut copy = self.inner.clone();
        let edit = |transaction: &mut Transaction<'_>| edit(&mut AppData::new(transaction, root));
        let (answer, change) = commit(&mut copy, stamp, edit, EditError::App)?;
        self.require_room(change.as_ref().map_or(0, |change| change.ops.len()))?;
        self.adopt(copy, change.as_slice())?;
        Ok((answer, change))
    }

    /// Takes received changes, in causal order, and proves that the document survives them.
    ///
    /// They have been judged before. They are applied to a copy, one at a time (a batch costs memory
    /// in proportion to changes and document); the copy is saved, loaded again and read through, and
    /// only then takes the place of the document. Changes it has already change nothing.
    ///
    /// # Errors
    ///
    /// [`LoadError`]; the document is as it was.
    pub fn apply(&mut self, changes: &[&[u8]]) -> Result<(), LoadError> {
        let mut heads = Heads::of(&self.inner);
        let known = |hash: ChangeHash| {
            self.inner.get_change_by_hash(&automerge::ChangeHash(hash.0)).is_some()
        };
        let mut new = Vec::with_capacity(changes.len());
        let mut size = self.size;
        for bytes in changes {
            let change = read(bytes).map_err(LoadError::Read)?;
            if !known(change.hash()) && heads.take(&change, known)? {
                size.add(&change);
                new.push(change);
            }
        }
        let apply = || -> Result<Automerge, AutomergeError> {
            let mut copy = self.inner.clone();
            for change in &new {
                let change = automerge::Change::from_bytes(change.bytes().to_vec())?;
                copy.apply_changes([change])?;
            }
            Ok(copy)
        };
        let copy = caught(apply).ok_or(LoadError::Refused)?;
        let expected = heads.sorted();
        if Heads::of(&copy).sorted() != expected {
            return Err(LoadError::Incomplete);
        }
        let proven = caught(|| prove(&copy)).ok_or(LoadError::NotProven)?;
        if proven != expected {
            return Err(LoadError::NotProven);
        }
        self.inner = copy;
        self.size = size;
        Ok(())
    }

    /// Returns the automerge document, for the oracle.
    pub(crate) fn inner(&self) -> &Automerge {
        &self.inner
    }

    fn require_room(&self, ops: usize) -> Result<(), EditError> {
        let fits = self.size.ops.saturating_add(ops as u64) <= DOCUMENT_OPS_MAX;
        if fits { Ok(()) } else { Err(EditError::TooLarge) }
    }

    /// Puts an edited copy in the place of the document.
    fn adopt(&mut self, copy: Automerge, changes: &[Change]) -> Result<(), EditError> {
        let mut size = self.size;
        for change in changes {
            size.add(change);
        }
        // A saved document is smaller than its changes are, and costs much to save: it is weighed
        // only where the changes are too large.
        if DOCUMENT_BYTES_MAX < size.bytes && DOCUMENT_BYTES_MAX < copy.save().len() {
            return Err(EditError::TooLarge);
        }
        self.inner = copy;
        self.size = size;
        Ok(())
    }
}

/// Runs what may panic inside automerge; `None` if it did, or failed.
fn caught<T>(run: impl FnOnce() -> Result<T, AutomergeError>) -> Option<T> {
    catch_unwind(AssertUnwindSafe(run)).ok()?.ok()
}

/// Saves, loads and reads through a document, and returns the heads it has afterwards.
fn prove(document: &Automerge) -> Result<Vec<ChangeHash>, AutomergeError> {
    let loaded = Automerge::load(&document.save())?;
    let changes = loaded.get_changes(&[]).len();
    if changes != document.get_changes(&[]).len() {
        return Ok(Vec::new());
    }
    loaded.hydrate(None);
    Ok(Heads::of(&loaded).sorted())
}

/// Commits an edit of a copy, and reads what it made.
fn commit<T, E>(
    copy: &mut Automerge,
    stamp: Hlc,
    edit: impl FnOnce(&mut Transaction<'_>) -> Result<T, E>,
    failed: impl FnOnce(E) -> EditError,
) -> Result<(T, Option<Change>), EditError> {
    let run = || {
        let mut transaction = copy.transaction();
        let answer = match edit(&mut transaction) {
            Ok(answer) => answer,
            Err(error) => return Err(failed(error)),
        };
        let options = CommitOptions::default().with_time(stamp.to_time());
        let (hash, _) = transaction.commit_with(options);
        let Some(hash) = hash else { return Ok((answer, None)) };
        let change = copy.get_change_by_hash(&hash).ok_or(EditError::Failed)?;
        match read(change.raw_bytes()) {
            Ok(change) => Ok((answer, Some(change))),
            Err(ReadError::TooLarge) => Err(EditError::TooLarge),
            Err(_) => Err(EditError::Failed),
        }
    };
    catch_unwind(AssertUnwindSafe(run)).unwrap_or(Err(EditError::Failed))
}

/// Cuts splices, from the last to the first, into batches of at most [`OPS_MAX`] characters.
///
/// Cut so, every place stays right: a splice changes nothing before itself.
fn batches(splices: Vec<Splice>) -> Vec<Vec<Splice>> {
    let mut out = vec![Vec::new()];
    let mut room = OPS_MAX;
    let mut push = |splice: Splice| {
        let ops = splice.delete + splice.insert.chars().count();
        if room < ops {
            out.push(Vec::new());
            room = OPS_MAX;
        }
        room -= ops;
        if let Some(batch) = out.last_mut() {
            batch.push(splice);
        }
    };
    for splice in splices.into_iter().rev() {
        let mut delete = splice.delete;
        while OPS_MAX < delete {
            delete -= OPS_MAX;
            push(Splice { at: splice.at + delete, delete: OPS_MAX, insert: String::new() });
        }
        if 0 < delete {
            push(Splice { at: splice.at, delete, insert: String::new() });
        }
        let insert: Vec<char> = splice.insert.chars().collect();
        for (piece, at) in insert.chunks(OPS_MAX).zip((splice.at..).step_by(OPS_MAX)) {
            push(Splice { at, delete: 0, insert: piece.iter().collect() });
        }
    }
    out
}

/// Finds an object that the genesis of a notes document made.
fn root_object(document: &Automerge, name: &str) -> Option<automerge::ObjId> {
    let (value, object) = document.get(ROOT, name).ok()??;
    value.is_object().then_some(object)
}

/// What a set of changes ends with: those that nothing builds on.
#[derive(Default)]
struct Heads {
    heads: BTreeSet<ChangeHash>,
    known: BTreeSet<ChangeHash>,
}

impl Heads {
    fn of(document: &Automerge) -> Self {
        let heads: BTreeSet<_> =
            document.get_heads().iter().map(|hash| ChangeHash(hash.0)).collect();
        Self { known: heads.clone(), heads }
    }

    /// Takes a change in causal order, and returns whether it is new.
    ///
    /// `known` says which changes are there besides those that were taken.
    fn take(
        &mut self,
        change: &Change,
        known: impl Fn(ChangeHash) -> bool,
    ) -> Result<bool, LoadError> {
        if self.known.contains(&change.hash()) {
            return Ok(false);
        }
        for dependency in &change.dependencies {
            if !self.known.contains(dependency) && !known(*dependency) {
                return Err(LoadError::Incomplete);
            }
            self.heads.remove(dependency);
        }
        self.known.insert(change.hash());
        self.heads.insert(change.hash());
        Ok(true)
    }

    fn sorted(&self) -> Vec<ChangeHash> {
        self.heads.iter().copied().collect()
    }
}
