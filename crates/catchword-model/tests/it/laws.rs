//! What a set of changes means does not depend on how it arrived: the three laws, and the table of
//! merge rules as devices would live through it.

use std::collections::{BTreeMap, BTreeSet};

use catchword_model::annotation::{AnnotationField, Creation, Kind, Row};
use catchword_model::change::past::Judgement;
use catchword_model::change::{Change, Object, OpId, Scalar};
use catchword_model::diff::merge_note;
use catchword_model::edit::Edit;
use catchword_model::history::History;
use catchword_model::id::{AnnotationId, BookId, ChangeHash, DeviceId, ShelfId};
use catchword_model::locator::Locator;
use catchword_model::merge::Field;
use catchword_model::meta::{tags, total};
use catchword_model::oracle::{Registers, registers};
use catchword_model::schema::{Container, DocumentKind, Pair, RecordKey, record_key};
use catchword_model::shelf::shelves;
use catchword_model::work::{Bonds, derived, pairs};
use proptest::prelude::*;
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use crate::support::arb_edit;
use crate::writer::{BOOK, Writer, deliver};

/// What three devices write in `steps` steps, hearing of each other now and then.
fn changes(seed: u64, steps: usize, kind: DocumentKind) -> Vec<Change> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut devices: Vec<Writer> = (1..4).map(|n| Writer::new(n, kind)).collect();
    let mut all = Vec::new();
    for step in 0..steps {
        let who = rng.random_range(0..3);
        if rng.random_range(0..3) == 0 {
            let other = devices[(who + 1) % 3].clone();
            devices[who].take_all(&other);
        }
        let device = &mut devices[who];
        let edit = arb_edit(&mut rng, kind, device.author.device);
        let again = |id: &AnnotationId| {
            let object = Object::Made(Container::Annotations.object());
            !device.history.field(object, &id.to_string()).is_empty()
        };
        if matches!(&edit, Edit::Annotate { id, .. } if again(id)) {
            continue;
        }
        all.extend(device.try_edit(step as u64, &[edit]));
    }
    all
}

/// Everything that must be equal on two devices.
fn state(history: &History) -> (Vec<ChangeHash>, u64, BTreeMap<(Object, String), Field>) {
    let held = history.fields().iter().filter(|(_, field)| !field.is_empty());
    let held = held.map(|(key, field)| (key.clone(), field.clone())).collect();
    (history.heads().to_vec(), history.max_op(), held)
}

fn arb_kind() -> impl Strategy<Value = DocumentKind> {
    prop_oneof![Just(DocumentKind::Book), Just(DocumentKind::Library)]
}

proptest! {
    #[test]
    fn any_order_with_any_repetition_means_the_same(
        seed in any::<u64>(), steps in 0..30_usize, kind in arb_kind(),
    ) {
        let id = kind.document(BOOK);
        let all = changes(seed, steps, kind);
        let mut shuffled: Vec<&Change> = all.iter().chain(&all).collect();
        shuffled.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));

        let (in_order, verdicts) = deliver(kind, id, &all.iter().collect::<Vec<_>>());
        let (out_of_order, _) = deliver(kind, id, &shuffled);
        prop_assert!(verdicts.values().all(|verdict| *verdict == Judgement::Admitted));
        prop_assert_eq!(state(&in_order), state(&out_of_order));
        prop_assert_eq!(in_order.changes().count(), all.len() + 1);
    }

    /// (a ∪ b) ∪ c, a ∪ (b ∪ c), and the same the other way round.
    #[test]
    fn any_grouping_means_the_same(
        seed in any::<u64>(), steps in 0..30_usize, kind in arb_kind(),
        cuts in (0..31_usize, 0..31_usize),
    ) {
        let id = kind.document(BOOK);
        let all: Vec<Change> = changes(seed, steps, kind);
        let cut = |at: usize| at % (all.len() + 1);
        let (low, high) = (cut(cuts.0).min(cut(cuts.1)), cut(cuts.0).max(cut(cuts.1)));
        let (a, b, c) = (&all[..low], &all[low..high], &all[high..]);
        let union = |groups: &[&[Change]]| {
            let flat: Vec<&Change> = groups.iter().copied().flatten().collect();
            deliver(kind, id, &flat).0
        };
        let merged = |one: &History, other: &History| {
            let flat: Vec<&Change> = one.changes().chain(other.changes()).collect();
            deliver(kind, id, &flat).0
        };

        let left = merged(&union(&[a, b]), &union(&[a, b, c]));
        let right = merged(&union(&[a]), &union(&[b, c, a]));
        prop_assert_eq!(state(&left), state(&right));
        prop_assert_eq!(state(&left), state(&union(&[c, b, a])));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn automerge_holds_the_same_registers(
        seed in any::<u64>(), steps in 0..40_usize, kind in arb_kind(),
    ) {
        let all = changes(seed, steps, kind);
        let id = kind.document(BOOK);
        let (history, _) = deliver(kind, id, &all.iter().collect::<Vec<_>>());
        let ours = Registers {
            heads: history.heads().to_vec(),
            fields: history
                .fields()
                .iter()
                .filter(|(_, field)| !field.is_empty())
                .filter_map(|((object, key), field)| {
                    Some(((kind.container(*object)?, key.clone()), field.clone()))
                })
                .collect(),
        };
        prop_assert_eq!(ours, registers(kind, all.iter().map(Change::bytes)).unwrap());
    }
}

/// Two devices that have the same document and write in it without hearing of each other.
struct Two {
    kind: DocumentKind,
    one: Writer,
    other: Writer,
}

impl Two {
    fn after(kind: DocumentKind, before: &[Edit]) -> Self {
        let mut one = Writer::new(1, kind);
        let mut other = Writer::new(2, kind);
        if !before.is_empty() {
            let change = one.edit(10, before);
            other.take(&change);
        }
        Self { kind, one, other }
    }

    /// Lets both write at once, and returns what both have afterwards.
    fn meet(mut self, one: &[Edit], other: &[Edit]) -> Merged {
        if !one.is_empty() {
            self.one.edit(20, one);
        }
        if !other.is_empty() {
            self.other.edit(30, other);
        }
        let (mut here, mut there) = (self.one.clone(), self.other.clone());
        here.take_all(&self.other);
        there.take_all(&self.one);
        assert_eq!(state(&here.history), state(&there.history));
        Merged { kind: self.kind, history: here.history }
    }
}

struct Merged {
    kind: DocumentKind,
    history: History,
}

impl Merged {
    fn fields(&self, container: Container) -> impl Iterator<Item = (&str, &Field)> {
        let fields = self.history.fields().iter();
        fields.filter_map(move |((object, key), field)| {
            (self.kind.container(*object) == Some(container)).then_some((key.as_str(), field))
        })
    }

    fn tags(&self) -> Vec<String> {
        tags(self.fields(Container::Tags)).into_iter().collect()
    }

    fn row(&self, id: AnnotationId) -> Row {
        let mut row = Row::new(id);
        for (key, field) in self.fields(Container::Annotations) {
            match record_key::<AnnotationId>(key) {
                Some(RecordKey::Record(of)) if of == id => {
                    field.holders().iter().cloned().for_each(|holder| row.put_created(holder));
                }
                Some(RecordKey::Field(of, name)) if of == id => {
                    row.fields.insert(name.to_owned(), field.clone());
                }
                Some(_) | None => (),
            }
        }
        row
    }

    fn works(&self) -> Vec<Vec<u8>> {
        let works = self.bonds().works([]).into_values();
        works.map(|work| work.iter().map(|book| book.0[0]).collect()).collect()
    }

    fn bonds(&self) -> Bonds {
        Bonds {
            joins: pairs(self.fields(Container::Joins)),
            apart: pairs(self.fields(Container::Apart)),
            derived: derived(self.fields(Container::Aliases)),
        }
    }
}

const ID: AnnotationId = AnnotationId([1; 16]);

fn annotate() -> Edit {
    let creation = Creation {
        kind: Kind::Highlight,
        locator: Locator::new().with_total_ppm(7),
        quote: "Call me Ishmael.".to_owned(),
        color: None,
        note: Some("who is he".to_owned()),
        created_by: DeviceId([1; 16]).to_string(),
        source: None,
        unknown: String::new(),
    };
    Edit::Annotate { id: ID, creation: Box::new(creation) }
}

fn set(field: AnnotationField, value: &str) -> Edit {
    Edit::SetField { id: ID, field, value: value.to_owned() }
}

fn add(tag: &str) -> Edit {
    Edit::AddTag { tag: tag.to_owned() }
}

fn remove(tag: &str) -> Edit {
    Edit::RemoveTag { tag: tag.to_owned() }
}

#[test]
fn a_tag_added_beside_its_removal_stays() {
    let two = Two::after(DocumentKind::Book, &[add("sea")]);
    assert_eq!(two.meet(&[remove("sea")], &[add("sea")]).tags(), ["sea"]);
    let two = Two::after(DocumentKind::Book, &[add("sea")]);
    assert_eq!(two.meet(&[remove("sea")], &[add("ship")]).tags(), ["ship"]);
    let two = Two::after(DocumentKind::Book, &[]);
    assert_eq!(two.meet(&[add("sea")], &[add("sea")]).tags(), ["sea"]);
}

/// Automerge drops a put of the value that holds the key. Were a tag `true`, adding it again would
/// write nothing, and the removal beside it would win.
#[test]
fn adding_a_tag_that_is_there_writes_it_again() {
    let mut two = Two::after(DocumentKind::Book, &[add("sea")]);
    let change = two.other.try_edit(30, &[add("sea")]).expect("it is written again");
    let object = Object::Made(Container::Tags.object());
    let held: Vec<Scalar> =
        two.one.history.field(object, "sea").holders().iter().map(|h| h.value.clone()).collect();
    assert_eq!(change.ops[0].predecessors.len(), 1);
    assert_ne!(change.ops[0].action, catchword_model::change::Action::Put(held[0].clone()));
}

#[test]
fn an_edit_beside_a_deletion_keeps_the_annotation_and_says_so() {
    let two = Two::after(DocumentKind::Book, &[annotate()]);
    let merged = two.meet(&[Edit::Delete { id: ID }], &[set(AnnotationField::Note, "n")]);
    let shown = merged.row(ID).annotation().unwrap();
    assert!(!shown.deleted && shown.edited_while_deleted);
    assert_eq!(shown.conflicts, ["deleted"]);

    let two = Two::after(DocumentKind::Book, &[annotate(), set(AnnotationField::Note, "n")]);
    let shown = two.meet(&[Edit::Delete { id: ID }], &[]).row(ID).annotation().unwrap();
    assert!(shown.deleted && !shown.edited_while_deleted);

    let two = Two::after(DocumentKind::Book, &[annotate(), Edit::Delete { id: ID }]);
    let merged = two.meet(&[Edit::Undelete { id: ID }], &[Edit::Delete { id: ID }]);
    assert!(!merged.row(ID).annotation().unwrap().deleted);
}

#[test]
fn of_a_field_written_twice_at_once_the_latest_counts_until_somebody_edits_again() {
    let two = Two::after(DocumentKind::Book, &[annotate()]);
    let edits = [set(AnnotationField::Note, "a fool"), set(AnnotationField::Note, "a sailor")];
    let merged = two.meet(&edits[..1], &edits[1..]);
    let row = merged.row(ID);
    let shown = row.annotation().unwrap();
    assert_eq!(shown.note.as_deref(), Some("a sailor"));
    assert_eq!(shown.conflicts, ["note"]);
    let sides: BTreeSet<&str> = row
        .field(AnnotationField::Note)
        .unwrap()
        .holders()
        .iter()
        .filter_map(|holder| holder.value.as_text())
        .collect();
    assert_eq!(sides, BTreeSet::from(["a fool", "a sailor"]));

    let mut third = Writer::new(3, DocumentKind::Book);
    for change in merged.history.changes() {
        third.take(change);
    }
    let note = merge_note("who is he", "who is he really", "ah: who is he");
    assert_eq!(note, "ah: who is he really");
    third.edit(40, &[set(AnnotationField::Note, &note)]);
    let settled = Merged { kind: DocumentKind::Book, history: third.history };
    let shown = settled.row(ID).annotation().unwrap();
    assert_eq!((shown.note.as_deref(), shown.conflicts.len()), (Some(note.as_str()), 0));
}

#[test]
fn a_colour_and_a_note_written_at_once_both_arrive() {
    let two = Two::after(DocumentKind::Book, &[annotate()]);
    let color = set(AnnotationField::Color, "red");
    let shown = two.meet(&[color], &[set(AnnotationField::Note, "n")]).row(ID).annotation();
    let shown = shown.unwrap();
    assert_eq!((shown.color.as_deref(), shown.note.as_deref()), (Some("red"), Some("n")));
    assert_eq!(shown.conflicts, Vec::<String>::new());
}

#[test]
fn the_same_import_on_two_devices_is_one_annotation() {
    let two = Two::after(DocumentKind::Book, &[]);
    let row = two.meet(&[annotate()], &[annotate()]).row(ID);
    assert_eq!(row.created.len(), 2);
    assert_eq!(row.annotation().unwrap().conflicts, Vec::<String>::new());
}

#[test]
fn a_total_is_the_sum_over_devices() {
    let total_of = |value| Edit::SetTotal { name: "seconds".to_owned(), value };
    let two = Two::after(DocumentKind::Book, &[total_of(5)]);
    let merged = two.meet(&[total_of(60)], &[total_of(7)]);
    assert_eq!(total("seconds", merged.fields(Container::Totals)), 67);
    assert_eq!(total("turns", merged.fields(Container::Totals)), 0);
}

#[test]
fn a_shelf_has_the_newest_name_and_the_union_of_its_books() {
    let id = ShelfId([1; 16]);
    let books = [BookId([1; 32]), BookId([2; 32]), BookId([3; 32])];
    let name = |name: &str| Edit::NameShelf { id, name: name.to_owned() };
    let put = |book| Edit::AddMember { shelf: id, book };
    let take = |book| Edit::RemoveMember { shelf: id, book };
    let before = [name("sea"), put(books[0]), put(books[1])];
    let two = Two::after(DocumentKind::Library, &before);

    let merged = two.meet(
        &[name("ships"), take(books[0]), take(books[1])],
        &[name("whales"), put(books[1]), put(books[2]), Edit::DeleteShelf { id }],
    );
    let shown = shelves(merged.fields(Container::Shelves), merged.fields(Container::Members));
    let shelf = &shown[&id];
    assert_eq!(shelf.name, "whales");
    assert!(shelf.name_conflict && shelf.edited_while_deleted && !shelf.deleted);
    assert_eq!(shelf.books, BTreeSet::from([books[1], books[2]]));

    let two = Two::after(DocumentKind::Library, &before);
    let merged = two.meet(&[Edit::DeleteShelf { id }], &[]);
    let shown = shelves(merged.fields(Container::Shelves), merged.fields(Container::Members));
    assert!(shown[&id].deleted && !shown[&id].name_conflict);
    assert_eq!(shown[&id].books.len(), 2);
}

#[test]
fn works_are_joined_and_split_and_a_join_made_beside_its_removal_stays() {
    let pair = |a, b| Pair::new(BookId([a; 32]), BookId([b; 32])).unwrap();
    let alias = |n| Edit::AddAlias {
        kind: "identifier".to_owned(),
        value: "urn:isbn:9780142437247".to_owned(),
        book: BookId([n; 32]),
    };
    let joined = [Edit::Join(pair(1, 2)), Edit::Join(pair(2, 3)), alias(2), alias(4)];
    let two = || Two::after(DocumentKind::Library, &joined);
    assert_eq!(two().meet(&[], &[]).works(), [[1, 2, 3, 4]]);

    let split = two().meet(&[], &[]).bonds().split(BookId([2; 32]));
    assert_eq!(two().meet(&split, &[]).works(), [vec![1, 3, 4], vec![2]]);
    // A person on another device joins the book again at once: that counts.
    let again = two().meet(&split, &[Edit::Join(pair(2, 3))]);
    assert_eq!(again.works(), [[1, 2, 3, 4]]);
    // And once somebody has seen the split, joining takes it back.
    let mut seen = split.clone();
    seen.push(Edit::Join(pair(2, 4)));
    let merged = two().meet(&seen, &[]);
    assert_eq!(merged.works(), [[1, 2, 3, 4]]);
    assert!(!merged.bonds().apart.contains(&pair(2, 4)));
    assert_eq!(two().meet(&[Edit::Unjoin(pair(1, 2))], &[]).works(), [vec![2, 3, 4]]);
}

#[test]
fn of_a_fork_the_first_branch_is_kept_and_the_other_named() {
    let mut writer = Writer::new(1, DocumentKind::Book);
    let mut clone = writer.clone();
    let (here, there) = (writer.edit(10, &[add("a")]), clone.edit(10, &[add("b")]));
    assert_eq!(writer.history.rival(&there), Some(here.hash()));
    assert_eq!(writer.history.rival(&here), None);
    let before = state(&writer.history);
    assert!(matches!(writer.history.admit(there), Judgement::Refused(_)));
    assert_eq!(state(&writer.history), before);
    let first = OpId { counter: here.start_op, actor: here.actor };
    let object = Object::Made(Container::Tags.object());
    assert_eq!(writer.history.field(object, "a").holders()[0].op, first);
}
