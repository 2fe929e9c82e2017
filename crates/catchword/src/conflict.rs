//! Where devices disagreed: who wrote what, which of it counts, and by which rule.
//!
//! A conflict is data, found in the rows; how it is put into words is the application's business. It
//! lasts until somebody writes the field again.

use catchword_model::annotation::{Created, Row};
use catchword_model::hlc::Hlc;
use catchword_model::id::{ActorId, AnnotationId, DeviceId};
use catchword_model::merge::{Field, Holder};
use catchword_model::meta::{Meta, meta};
use catchword_model::position::{Entry, place};
use catchword_model::schema::{Container, DELETED};
use serde_json::{Value, json};

use crate::book::{Book, WHOLE_BOOK};
use crate::error::ReadError;

/// Devices wrote different values without knowing of each other.
#[derive(Debug, Clone, PartialEq)]
pub struct Conflict {
    /// What it is about.
    pub subject: Subject,
    /// What each wrote: at least two, in the order of their stamps.
    pub sides: Vec<Side>,
    /// Which of the sides counts, by its place among them.
    pub winner: usize,
    /// Why.
    pub rule: Rule,
}

/// What devices disagree about.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Subject {
    /// Where the reader is.
    Place,
    /// What an annotation was when it was made: one import on two devices.
    Creation {
        /// Which annotation.
        id: AnnotationId,
    },
    /// A field of an annotation.
    Field {
        /// Which annotation.
        id: AnnotationId,
        /// Which field.
        field: String,
    },
    /// Whether an annotation is deleted.
    Deletion {
        /// Which annotation.
        id: AnnotationId,
    },
    /// What is known about the book.
    Metadata {
        /// Which field: title, authors, ….
        field: String,
    },
}

/// What one device wrote.
#[derive(Debug, Clone, PartialEq)]
pub struct Side {
    /// Who wrote it; `None` where the log names nobody.
    pub device: Option<DeviceId>,
    /// When, in the order of all devices.
    pub stamp: Hlc,
    /// When, by the clock of that device, in milliseconds since the Unix epoch.
    pub wall_ms: u64,
    /// What it wrote.
    pub value: Value,
}

/// Why a side counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Rule {
    /// It is the latest.
    Latest,
    /// It is the earliest.
    Oldest,
    /// It belongs to a later reading of the book.
    HigherPass,
    /// It was said by a person, the other by a file.
    HigherRank,
    /// Of an edit and a deletion that did not know of each other, the edit counts.
    EditKeeps,
}

impl Rule {
    /// Returns the rule as a word, for output.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Latest => "latest",
            Self::Oldest => "oldest",
            Self::HigherPass => "higher_pass",
            Self::HigherRank => "higher_rank",
            Self::EditKeeps => "edit_keeps",
        }
    }
}

impl Book {
    /// Returns where devices disagree about this book, and what counts: the place, metadata, then
    /// annotations in reading order.
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn conflicts(&self) -> Result<Vec<Conflict>, ReadError> {
        let store = &self.core().store;
        let document = self.id().document();
        let mut conflicts: Vec<Conflict> = Vec::new();
        conflicts.extend(place_conflict(&self.positions()?));

        let mut found: Vec<Found> = Vec::new();
        for (field, held) in store.fields(document, Container::Meta).map_err(ReadError::store)? {
            found.extend(metadata_conflict(field, &held));
        }
        let range = WHOLE_BOOK;
        let rows =
            store.rows(self.id(), range.start, range.end, |row| row_conflicts(&row, &mut found));
        rows.map_err(ReadError::store)?;
        for found in found {
            let mut sides = Vec::with_capacity(found.sides.len());
            for (actor, stamp, value) in found.sides {
                let device = store.writer(document, actor).map_err(ReadError::store)?;
                sides.push(Side { device, stamp, wall_ms: stamp.wall_ms(), value });
            }
            let (subject, winner, rule) = (found.subject, found.winner, found.rule);
            conflicts.push(Conflict { subject, sides, winner, rule });
        }
        Ok(conflicts)
    }
}

/// A conflict whose writers are not looked up yet.
struct Found {
    subject: Subject,
    sides: Vec<(ActorId, Hlc, Value)>,
    winner: usize,
    rule: Rule,
}

/// The place is disputed by entries of other devices that its writer had not seen.
fn place_conflict(entries: &[Entry]) -> Option<Conflict> {
    let winner = place(entries)?;
    let disputes = |entry: &&Entry| {
        entry.device != winner.device
            && entry.stands()
            && winner.position.seen < entry.stamp()
            && (entry.position.ppm, entry.position.pass)
                != (winner.position.ppm, winner.position.pass)
    };
    let mut sides: Vec<&Entry> = entries.iter().filter(disputes).collect();
    if sides.is_empty() {
        return None;
    }
    let later_pass = sides.iter().all(|entry| entry.position.pass < winner.position.pass);
    sides.push(winner);
    sides.sort_by_key(|entry| entry.order);
    Some(Conflict {
        subject: Subject::Place,
        winner: sides.iter().position(|entry| std::ptr::eq(*entry, winner))?,
        sides: sides.into_iter().map(place_side).collect(),
        rule: if later_pass { Rule::HigherPass } else { Rule::Latest },
    })
}

fn place_side(entry: &Entry) -> Side {
    let position = &entry.position;
    Side {
        device: Some(entry.device),
        stamp: entry.stamp(),
        wall_ms: position.wall_ms,
        value: json!({
            "ppm": position.ppm,
            "pass": position.pass,
            "intent": position.intent.name(),
        }),
    }
}

fn metadata_conflict(field: String, held: &Field) -> Option<Found> {
    let counts = meta(held)?;
    let mut holders: Vec<(&Holder, Meta)> = held
        .holders()
        .iter()
        .filter_map(|holder| Some((holder, Meta::from_json(holder.value.as_text()?)?)))
        .collect();
    if holders.iter().all(|(_, meta)| meta.value == counts.value) {
        return None;
    }
    holders.sort_by_key(|(holder, _)| holder.order());
    let winner = holders.iter().rposition(|(_, meta)| *meta == counts)?;
    let beaten = holders.iter().filter(|(_, meta)| meta.rank == counts.rank).count();
    Some(Found {
        subject: Subject::Metadata { field },
        sides: holders.iter().map(|(h, meta)| (h.op.actor, h.stamp, meta.value.clone())).collect(),
        winner,
        rule: if beaten < 2 { Rule::HigherRank } else { Rule::Latest },
    })
}

fn row_conflicts(row: &Row, found: &mut Vec<Found>) {
    let Some(annotation) = row.annotation() else { return };
    for name in &annotation.conflicts {
        let conflict = match (name.as_str(), row.fields.get(name)) {
            ("created", _) => creation_conflict(row),
            (DELETED, Some(field)) => deletion_conflict(row.id, field),
            (_, Some(field)) => field_conflict(row.id, name, field),
            (_, None) => None,
        };
        found.extend(conflict);
    }
}

fn creation_conflict(row: &Row) -> Option<Found> {
    let (counts, _) = row.creation()?;
    let mut shown: Vec<&Created> =
        row.created.iter().filter(|created| created.creation.is_ok()).collect();
    shown.sort_by_key(|created| (created.stamp, created.op.counter, created.op.actor));
    let side = |created: &&Created| {
        let creation = created.creation.as_ref().ok()?;
        let value = json!({
            "kind": creation.kind.name(),
            "quote": creation.quote,
            "note": creation.note,
        });
        Some((created.op.actor, created.stamp, value))
    };
    Some(Found {
        subject: Subject::Creation { id: row.id },
        winner: shown.iter().position(|created| created.op == counts.op)?,
        sides: shown.iter().filter_map(side).collect(),
        rule: Rule::Oldest,
    })
}

fn field_conflict(id: AnnotationId, name: &str, field: &Field) -> Option<Found> {
    let holders = in_order(field);
    let value = |holder: &&Holder| holder.value.as_text().map_or(Value::Null, Value::from);
    let sides = holders.iter().map(|holder| (holder.op.actor, holder.stamp, value(holder)));
    Some(Found {
        subject: Subject::Field { id, field: name.to_owned() },
        winner: holders.len().checked_sub(1)?,
        sides: sides.collect(),
        rule: Rule::Latest,
    })
}

fn deletion_conflict(id: AnnotationId, field: &Field) -> Option<Found> {
    let holders = in_order(field);
    let deleted = |holder: &Holder| holder.value.as_int().is_some_and(|stamp| 0 < stamp);
    let word = |holder: &Holder| if deleted(holder) { "deleted" } else { "kept" };
    Some(Found {
        subject: Subject::Deletion { id },
        winner: holders.iter().rposition(|holder| !deleted(holder))?,
        sides: holders.iter().map(|h| (h.op.actor, h.stamp, Value::from(word(h)))).collect(),
        rule: Rule::EditKeeps,
    })
}

fn in_order(field: &Field) -> Vec<&Holder> {
    let mut holders: Vec<&Holder> = field.holders().iter().collect();
    holders.sort_by_key(|holder| holder.order());
    holders
}

#[cfg(test)]
mod tests {
    use catchword_store::Received;
    use tempfile::TempDir;

    use super::*;
    use crate::annotating::{AnnotationEdit, NewAnnotation};
    use crate::config::Config;
    use crate::library::Library;
    use catchword_model::locator::Locator;

    /// A conflict with the names of its devices, without its times.
    type Plain = (Subject, Vec<(&'static str, Value)>, usize, Rule);

    const HOUR_MS: i64 = 3_600_000;

    /// Two devices with one book; the clock of the second is an hour ahead.
    fn two_devices() -> (TempDir, Book, Book) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("lamp.epub");
        std::fs::write(&file, catchword_formats::sample::all().remove(0).bytes).unwrap();
        let [phone, tablet] = [("phone", 0), ("tablet", HOUR_MS)].map(|(name, offset_ms)| {
            let config = Config::default().with_device_name(name).with_clock_offset_ms(offset_ms);
            let library = Library::create(folder.path().join(name), config).unwrap();
            library.import(&file).unwrap().book
        });
        exchange(&phone, &tablet);
        (folder, phone, tablet)
    }

    /// Gives each device what the other one has of the book.
    fn exchange(one: &Book, other: &Book) {
        for (from, to) in [(one, other), (other, one)] {
            let document = from.id().document();
            let mut received = Vec::new();
            let take = |change: catchword_model::change::Change| {
                received.push(Received { document, bytes: change.into_bytes() });
            };
            from.core().store.changes(document, take).unwrap();
            let report = to.core().store.receive(&received).unwrap();
            assert_eq!(report.rejected, []);
        }
    }

    fn read(book: &Book, ppm: u32) {
        let mut session = book.session("test").unwrap();
        session.restored();
        session.turned(Locator::new().with_total_ppm(ppm)).unwrap();
        session.close().unwrap();
    }

    /// What both devices find, which is the same: the values by device, the winner, the rule.
    fn found(phone: &Book, tablet: &Book) -> Vec<Plain> {
        let conflicts = phone.conflicts().unwrap();
        assert_eq!(conflicts, tablet.conflicts().unwrap());
        let name = |device: Option<DeviceId>| match device {
            Some(id) if id == phone.library().device() => "phone",
            Some(id) if id == tablet.library().device() => "tablet",
            _ => "nobody",
        };
        let plain = |conflict: Conflict| {
            let sides = conflict.sides.into_iter().map(|side| (name(side.device), side.value));
            (conflict.subject, sides.collect(), conflict.winner, conflict.rule)
        };
        conflicts.into_iter().map(plain).collect()
    }

    #[test]
    fn two_places_that_did_not_know_of_each_other_are_told_with_the_later_one_as_winner() {
        let (_folder, phone, tablet) = two_devices();
        read(&phone, 600_000);
        read(&tablet, 400_000);
        exchange(&phone, &tablet);

        let place = |ppm: u32| json!({ "ppm": ppm, "pass": 1, "intent": "advance" });
        let sides = vec![("phone", place(600_000)), ("tablet", place(400_000))];
        assert_eq!(found(&phone, &tablet), [(Subject::Place, sides, 1, Rule::Latest)]);

        // Who has seen both and reads on has decided.
        read(&phone, 610_000);
        exchange(&phone, &tablet);
        assert_eq!(found(&phone, &tablet), []);
        assert_eq!(tablet.place().unwrap().unwrap().position.ppm, 610_000);
    }

    #[test]
    fn a_later_reading_of_the_book_counts_before_a_later_stamp() {
        let (_folder, phone, tablet) = two_devices();
        let mut session = phone.session("test").unwrap();
        session.restored();
        session.restarted(Locator::new().with_total_ppm(10)).unwrap();
        session.close().unwrap();
        read(&tablet, 400_000);
        exchange(&phone, &tablet);

        let found = found(&phone, &tablet);
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].2, found[0].3), (0, Rule::HigherPass));
        assert_eq!(phone.place().unwrap().unwrap().position.ppm, 10);
    }

    #[test]
    fn a_note_written_on_two_devices_is_told_until_somebody_writes_it_again() {
        let (_folder, phone, tablet) = two_devices();
        let id = phone.annotate(NewAnnotation::highlight("a")).unwrap().id;
        exchange(&phone, &tablet);
        phone.edit(id, &AnnotationEdit::new().note("of the phone")).unwrap();
        tablet.edit(id, &AnnotationEdit::new().note("of the tablet")).unwrap();
        exchange(&phone, &tablet);

        let subject = Subject::Field { id, field: "note".to_owned() };
        let sides = vec![("phone", json!("of the phone")), ("tablet", json!("of the tablet"))];
        assert_eq!(found(&phone, &tablet), [(subject, sides, 1, Rule::Latest)]);

        phone.edit(id, &AnnotationEdit::new().note("of both")).unwrap();
        exchange(&phone, &tablet);
        assert_eq!(found(&phone, &tablet), []);
    }

    #[test]
    fn an_edit_keeps_what_was_deleted_elsewhere() {
        let (_folder, phone, tablet) = two_devices();
        let id = phone.annotate(NewAnnotation::highlight("a")).unwrap().id;
        exchange(&phone, &tablet);
        phone.edit(id, &AnnotationEdit::new().color("red")).unwrap();
        tablet.delete(id).unwrap();
        exchange(&phone, &tablet);

        let sides = vec![("phone", json!("kept")), ("tablet", json!("deleted"))];
        let expected = [(Subject::Deletion { id }, sides, 0, Rule::EditKeeps)];
        assert_eq!(found(&phone, &tablet), expected);
        assert!(!tablet.annotation(id).unwrap().unwrap().deleted);
    }

    #[test]
    fn two_titles_by_persons_are_told_with_the_later_one_as_winner() {
        let (_folder, phone, tablet) = two_devices();
        phone.set_title("The Lamp").unwrap();
        tablet.set_title("Skerry Point").unwrap();
        exchange(&phone, &tablet);

        let sides = vec![("phone", json!("The Lamp")), ("tablet", json!("Skerry Point"))];
        let subject = Subject::Metadata { field: "title".to_owned() };
        assert_eq!(found(&phone, &tablet), [(subject, sides, 1, Rule::Latest)]);
        assert_eq!(phone.title().unwrap(), "Skerry Point");
    }

    #[test]
    fn what_a_person_said_counts_before_a_later_word_of_a_file() {
        use catchword_model::change::{OpId, Scalar};
        use catchword_model::meta::Rank;

        let holder = |actor: u8, stamp, title: &str, rank| Holder {
            op: OpId { counter: 1, actor: ActorId([actor; 16]) },
            stamp: Hlc::from_packed(stamp).unwrap(),
            value: Scalar::Text(Meta { value: title.into(), rank }.to_json()),
        };
        let held = Field::from_holders(vec![
            holder(1, 10, "The Lamp", Rank::User),
            holder(2, 20, "lamp_v2", Rank::File),
        ]);
        let found = metadata_conflict("title".to_owned(), &held).unwrap();
        assert_eq!((found.winner, found.rule), (0, Rule::HigherRank));
        let sides: Vec<&Value> = found.sides.iter().map(|(_, _, value)| value).collect();
        assert_eq!(sides, [&json!("The Lamp"), &json!("lamp_v2")]);
    }

    #[test]
    fn what_both_wrote_alike_is_no_conflict() {
        let (_folder, phone, tablet) = two_devices();
        let id = phone.annotate(NewAnnotation::highlight("a")).unwrap().id;
        exchange(&phone, &tablet);
        for book in [&phone, &tablet] {
            book.edit(id, &AnnotationEdit::new().note("the same")).unwrap();
            book.set_title("The same").unwrap();
        }
        exchange(&phone, &tablet);
        assert_eq!(found(&phone, &tablet), []);
    }
}
