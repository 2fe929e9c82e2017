//! Writing notes again: what each lost change did to the text and the data it saw is done to what there
//! is now.

use std::collections::BTreeMap;

use catchword_model::change::Change;
use catchword_model::diff::merge_note;
use catchword_model::document::{AppData, AppError, Document};
use catchword_model::id::ChangeHash;
use catchword_model::schema::DocumentKind;
use serde_json::Value;

use crate::Inner;
use crate::append::Acknowledged;
use crate::error::{AppendError, LoadError, corrupt};
use crate::exchange::forks::void::Voids;
use crate::exchange::pool::Body;
use crate::notes::edit_error;

impl Inner {
    /// Stages what these changes had done to the journal and to the application's data.
    pub(super) fn write_notes_again<'a>(
        &mut self,
        number: u32,
        lost: impl Iterator<Item = &'a Change>,
        voids: &Voids,
        now_ms: u64,
    ) -> Result<(), AppendError> {
        let (stage, disk) = self.parts()?;
        let (id, of) = (stage.doc(disk, number)?.id, stage.doc(disk, number)?.of);
        let author = self.author_in(id);
        let mut known: BTreeMap<ChangeHash, Change> = BTreeMap::new();
        known.extend(self.changes_of(number)?.into_iter().map(|change| (change.hash(), change)));
        known.extend(voids.all().filter_map(|void| match &void.body {
            Body::Change(change) => Some((change.hash(), change.as_ref().clone())),
            Body::Event(_) => None,
        }));
        let mut loaded = self.take_document(number)?;
        let document = &mut loaded.document;
        let mut changes = Vec::new();
        for change in lost {
            // Their past is fork-free, and each has its own.
            let past = past(&known, change);
            let seen = |with: bool| {
                let bytes = past.iter().filter(|before| with || before.hash() != change.hash());
                let seen =
                    Document::load(DocumentKind::Notes, bytes.map(|it| it.bytes()), author, id);
                seen.map_err(|_| unreadable())
            };
            let (before, after) = (seen(false)?, seen(true)?);
            let stamp = self.clock.tick(now_ms);
            let text = merge_note(&before.journal(), &after.journal(), &document.journal());
            changes.extend(document.set_journal(&text, stamp).map_err(edit_error)?);
            let (old, new) = (before.app(), after.app());
            let edit = |data: &mut AppData<'_, '_>| redo(data, &mut Vec::new(), &old, &new);
            changes.extend(document.edit_app(stamp, edit).map_err(edit_error)?.1);
        }
        let mut acknowledged = Acknowledged::default();
        self.stage_notes(of, number, changes, &loaded.document, &mut acknowledged)?;
        self.loaded = Some(loaded);
        Ok(())
    }
}

fn unreadable() -> LoadError {
    corrupt("a change that does not count does not load")
}

/// Returns a change with everything in its past, in causal order.
fn past<'a>(known: &'a BTreeMap<ChangeHash, Change>, change: &'a Change) -> Vec<&'a Change> {
    let mut found: BTreeMap<ChangeHash, &Change> = BTreeMap::new();
    let mut open = vec![change];
    while let Some(change) = open.pop() {
        if found.insert(change.hash(), change).is_none() {
            open.extend(change.dependencies.iter().filter_map(|hash| known.get(hash)));
        }
    }
    let mut past: Vec<&Change> = found.into_values().collect();
    past.sort_by_key(|change| (change.start_op, change.hash()));
    past
}

/// Does to the data at a path what makes `new` of `old`.
fn redo(
    data: &mut AppData<'_, '_>,
    path: &mut Vec<String>,
    old: &Value,
    new: &Value,
) -> Result<(), AppError> {
    let (Value::Object(old), Value::Object(new)) = (old, new) else { return Ok(()) };
    for (key, value) in new {
        let before = old.get(key);
        if before == Some(value) {
            continue;
        }
        path.push(key.clone());
        if let Some(before) = before.filter(|before| before.is_object() && value.is_object()) {
            redo(data, path, before, value)?;
        } else {
            let place: Vec<&str> = path.iter().map(String::as_str).collect();
            data.put(&place, value)?;
        }
        path.pop();
    }
    for key in old.keys().filter(|key| !new.contains_key(*key)) {
        path.push(key.clone());
        let place: Vec<&str> = path.iter().map(String::as_str).collect();
        data.delete(&place)?;
        path.pop();
    }
    Ok(())
}
