//! Every rule about what a received change may mean, broken by a change that is otherwise valid.

use catchword_model::annotation::AnnotationField;
use catchword_model::change::past::{Judgement, Refusal, judge};
use catchword_model::change::read::read;
use catchword_model::change::{Action, Change, Draft, Key, Object, OpId, Scalar};
use catchword_model::edit::Edit;
use catchword_model::genesis::genesis;
use catchword_model::history::History;
use catchword_model::id::{
    ActorId, AnnotationId, Author, BookId, ChangeHash, DeviceId, DocumentId,
};
use catchword_model::schema::{Container, DocumentKind};

use crate::writer::{
    BOOK, Writer, at_root, deliver, insert, notes_object, op, orders, put_text, upgrade,
};

const ID: AnnotationId = AnnotationId([1; 16]);

/// What happened to a book before anything was forged.
struct World {
    /// Knows everything; its next change is what gets forged.
    writer: Writer,
    kind: DocumentKind,
    changes: Vec<Change>,
}

impl World {
    /// Two devices annotate and tag; then one of them upgrades the document and writes there.
    fn book() -> Self {
        let mut first = Writer::new(1, DocumentKind::Book);
        let mut second = Writer::new(2, DocumentKind::Book);
        let add = Edit::AddTag { tag: "sea".to_owned() };
        let color = Edit::SetField { id: ID, field: AnnotationField::Color, value: "red".into() };
        let first_1 = first.edit(10, &[color, add]);
        second.take(&first_1);
        let second_1 = second.edit(20, &[Edit::RemoveTag { tag: "sea".to_owned() }]);
        let note = Edit::SetField { id: ID, field: AnnotationField::Note, value: "n".into() };
        let first_2 = first.edit(30, &[note]);
        let upgrade = upgrade(2, genesis(DocumentKind::Book), "moods").encode();
        second.take(&first_2);
        let mut changes = vec![first_1, second_1, first_2];
        second.take(&upgrade);
        changes.push(upgrade);
        Self { writer: second, kind: DocumentKind::Book, changes }
    }

    fn library() -> Self {
        let mut writer = Writer::new(2, DocumentKind::Library);
        let change = writer.edit(10, &[Edit::AddHold { book: BOOK }]);
        Self { writer, kind: DocumentKind::Library, changes: vec![change] }
    }

    /// A journal of two characters, a list and a mark.
    fn notes() -> Self {
        let mut writer = Writer::new(2, DocumentKind::Notes);
        let (journal, app) = (notes_object("journal"), notes_object("app"));
        let start = writer.history.max_op() + 1;
        let at = |n| OpId { counter: start + n, actor: writer.history.base(writer.author).actor };
        let mark = Action::Mark {
            name: Some("bold".to_owned()),
            value: Scalar::Boolean(true),
            expand: true,
        };
        let end = Action::Mark { name: None, value: Scalar::Null, expand: false };
        let change = writer.write(vec![
            insert(journal, Key::Head, put_text("a")),
            insert(journal, Key::Element(at(0)), put_text("b")),
            op(app, "list", Action::MakeList, &[]),
            insert(at(2), Key::Head, Action::Put(Scalar::Counter(3))),
            insert(journal, Key::Head, mark),
            insert(journal, Key::Element(at(1)), end),
            op(app, "map", Action::MakeMap, &[]),
        ]);
        Self { writer, kind: DocumentKind::Notes, changes: vec![change] }
    }

    fn id(&self) -> DocumentId {
        self.kind.document(BOOK)
    }

    /// The next change of the device that knows everything.
    fn next(&self) -> Draft {
        let field = self.field(Container::Annotations, &format!("{ID}/color"));
        self.writer.draft(vec![op(
            Container::Annotations.object(),
            &format!("{ID}/color"),
            put_text("blue"),
            &field,
        )])
    }

    fn field(&self, container: Container, key: &str) -> Vec<OpId> {
        let field = self.writer.history.field(Object::Made(container.object()), key);
        field.holders().iter().map(|holder| holder.op).collect()
    }

    /// The change of these operations, whatever they are.
    fn with(&self, ops: Vec<catchword_model::change::Op>) -> Draft {
        self.writer.draft(ops)
    }

    /// What is decided about `change`, in whatever order it and the rest arrive.
    #[track_caller]
    fn judgement(&self, draft: Draft) -> Judgement {
        let change = draft.encode();
        let all: Vec<&Change> = self.changes.iter().chain([&change]).collect();
        let mut verdict = None;
        for order in orders(all.len()) {
            let order: Vec<&Change> = order.into_iter().map(|place| all[place]).collect();
            let (history, mut verdicts) = deliver(self.kind, self.id(), &order);
            let of_this = verdicts.remove(&change.hash()).unwrap();
            assert_eq!(history.change(change.hash()).is_some(), of_this == Judgement::Admitted);
            assert!(verdicts.values().all(|verdict| *verdict == Judgement::Admitted));
            assert_eq!(*verdict.get_or_insert(of_this.clone()), of_this, "order matters");
        }
        verdict.unwrap()
    }

    #[track_caller]
    fn assert_refused(&self, refusal: Refusal, draft: Draft) {
        assert_eq!(self.judgement(draft), Judgement::Refused(refusal));
    }

    #[track_caller]
    fn assert_admitted(&self, draft: Draft) {
        assert_eq!(self.judgement(draft), Judgement::Admitted);
    }
}

fn annotations() -> OpId {
    Container::Annotations.object()
}

#[test]
fn the_change_that_gets_forged_is_valid_as_it_is() {
    let world = World::book();
    assert_eq!(read(world.next().encode().bytes()).as_ref(), Ok(&world.next().encode()));
    world.assert_admitted(world.next());
}

#[test]
fn a_change_whose_past_is_not_there_waits_and_is_not_refused() {
    let world = World::book();
    let absent = ChangeHash([9; 32]);
    let mut draft = world.next();
    draft.dependencies.push(absent);
    assert_eq!(world.judgement(draft), Judgement::Missing(vec![absent]));
}

#[test]
fn a_change_that_builds_on_nothing_is_refused() {
    let world = World::book();
    let author = Author { device: DeviceId([9; 16]), n: 0 };
    let alone = Draft {
        actor: author.actor(world.id()),
        seq: 1,
        start_op: 1,
        dependencies: Vec::new(),
        author: Some(author),
        ..world.next()
    };
    world.assert_refused(Refusal::NoDependency, alone);
    world.assert_refused(Refusal::NoDependency, genesis(DocumentKind::Library).draft().clone());
}

#[test]
fn a_dependency_named_twice_is_refused() {
    let world = World::book();
    let mut draft = world.next();
    draft.dependencies.push(draft.dependencies[0]);
    world.assert_refused(Refusal::Dependencies, draft);
}

#[test]
fn a_change_that_does_not_follow_its_writers_change_before_is_refused() {
    let world = World::book();
    for seq in [1, 3, 4] {
        let author = (seq == 1).then_some(world.writer.author);
        world.assert_refused(Refusal::Sequence, Draft { seq, author, ..world.next() });
    }

    // The change before is in the past, but not named.
    let own = world.changes[1].hash();
    let mut other = Writer::new(3, DocumentKind::Book);
    other.take_all(&world.writer);
    let between = other.edit(40, &[Edit::AddTag { tag: "ship".to_owned() }]);
    let mut changes = world.changes.clone();
    changes.push(between.clone());
    let later = World { writer: world.writer.clone(), kind: world.kind, changes };
    let skips = Draft {
        dependencies: vec![between.hash()],
        start_op: between.max_op() + 1,
        ..world.next()
    };
    assert!(!skips.dependencies.contains(&own));
    later.assert_refused(Refusal::Sequence, skips.clone());
    let mut named = skips;
    named.dependencies.push(own);
    later.assert_admitted(named);
}

/// A fork shows without a second branch where one change has the other in its own past.
#[test]
fn a_number_that_is_taken_in_its_own_past_is_refused_whoever_keeps_the_changes() {
    let world = World::book();
    let mut writer = world.writer.clone();
    let again = Draft { seq: 1, author: Some(writer.author), ..world.next() };
    let second = writer.edit(50, &[Edit::AddTag { tag: "whale".to_owned() }]);
    let mut other = Writer::new(3, world.kind);
    other.take_all(&writer);
    let between = other.edit(60, &[Edit::AddTag { tag: "ship".to_owned() }]);
    let twice = Draft {
        seq: second.seq,
        dependencies: vec![world.changes[1].hash(), between.hash()],
        start_op: between.max_op() + 1,
        ..world.next()
    };
    for forged in [again, twice] {
        let forged = forged.encode();
        let Ok(judgement) = judge(&forged, world.kind, world.id(), &other.history);
        assert_eq!(judgement, Judgement::Refused(Refusal::Sequence));
    }
}

#[test]
fn operations_not_numbered_from_their_past_are_refused() {
    let world = World::book();
    let right = world.next().start_op;
    for start_op in [right - 1, right + 1, 1, 1 << 31] {
        world.assert_refused(Refusal::StartOp, Draft { start_op, ..world.next() });
    }
}

#[test]
fn a_change_without_operations_or_with_too_many_is_refused() {
    let world = World::book();
    world.assert_refused(Refusal::OpCount, world.with(Vec::new()));
    let write = |n: u32| op(Container::Tags.object(), &n.to_string(), put_text(""), &[]);
    let draft = world.with((0..50_001).map(write).collect());
    assert_eq!(read(draft.clone().encode().bytes()).err(), Some(crate::reader::TOO_LARGE));
    let mut history = world.writer.history.clone();
    assert_eq!(history.admit(draft.encode()), Judgement::Refused(Refusal::OpCount));
    let draft = world.with((0..50_000).map(write).collect());
    assert_eq!(history.admit(draft.encode()), Judgement::Admitted);
}

#[test]
fn a_writer_says_who_it_is_once_and_truly() {
    let world = World::book();
    let (device, book) = (DeviceId([3; 16]), world.id());
    let author = Author { device, n: 0 };
    let newcomer =
        |actor: ActorId, author: Option<Author>| Draft { actor, author, seq: 1, ..world.next() };
    world.assert_admitted(newcomer(author.actor(book), Some(author)));
    for wrong in [
        newcomer(author.actor(book), None),
        newcomer(author.actor(book), Some(Author { device, n: 1 })),
        newcomer(author.actor(book), Some(Author { device: DeviceId([4; 16]), n: 0 })),
        newcomer(author.actor(BookId([8; 32]).document()), Some(author)),
        newcomer(ActorId::of_schema(9), None),
        Draft { author: Some(world.writer.author), ..world.next() },
    ] {
        world.assert_refused(Refusal::Author, wrong);
    }
}

#[test]
fn a_message_is_refused() {
    let world = World::book();
    world.assert_refused(Refusal::Message, Draft { message: "hi".to_owned(), ..world.next() });
}

#[test]
fn an_upgrade_has_exactly_one_form() {
    let world = World::book();
    let proper = || upgrade(3, &world.changes[3], "weather");
    world.assert_admitted(proper());

    let with = |change: &dyn Fn(&mut Draft)| {
        let mut draft = proper();
        change(&mut draft);
        draft
    };
    let schema_op = world.changes[3].ops_with_ids().next().unwrap().0;
    let made = |draft: &mut Draft, action| draft.ops[1].action = action;
    for wrong in [
        with(&|draft| draft.time = 1),
        with(&|draft| draft.seq = 2),
        with(&|draft| draft.start_op += 1),
        with(&|draft| draft.author = Some(world.writer.author)),
        with(&|draft| draft.dependencies.push(world.changes[0].hash())),
        with(&|draft| draft.dependencies = vec![genesis(DocumentKind::Book).hash()]),
        with(&|draft| draft.ops[0].predecessors.clear()),
        with(&|draft| draft.ops[1].key = Key::Map("moods".to_owned())),
        with(&|draft| draft.ops[1].key = Key::Map("annotations".to_owned())),
        with(&|draft| draft.ops[1].key = Key::Map("schema".to_owned())),
        with(&|draft| draft.ops[1].predecessors = vec![schema_op]),
        with(&|draft| draft.ops[1].object = Object::Made(annotations())),
        with(&|draft| made(draft, Action::MakeList)),
        with(&|draft| made(draft, Action::MakeText)),
        with(&|draft| made(draft, Action::MakeTable)),
        with(&|draft| made(draft, Action::Delete)),
        with(&|draft| made(draft, put_text("more"))),
        with(&|draft| draft.ops.push(draft.ops[1].clone())),
        with(&|draft| draft.ops.push(draft.ops[0].clone())),
        upgrade(4, &world.changes[3], "weather"),
        upgrade(3, genesis(DocumentKind::Book), "weather"),
    ] {
        world.assert_refused(Refusal::Upgrade, wrong);
    }
    // Who is not the actor of the schema does not upgrade, but writes outside the containers.
    let own = Draft { ops: proper().ops, ..world.next() };
    world.assert_refused(Refusal::Object, own);
}

#[test]
fn what_a_newer_schema_made_takes_any_register_in_its_past() {
    let world = World::book();
    let upgrade = &world.changes[3];
    let moods = upgrade.ops_with_ids().nth(1).unwrap().0;
    let write = op(moods, "any key at all", put_text("calm"), &[]);
    world.assert_admitted(world.with(vec![write.clone()]));

    let mut unaware = world.with(vec![write.clone()]);
    unaware.dependencies.retain(|hash| *hash != upgrade.hash());
    unaware.start_op = world.changes.iter().map(Change::max_op).max().unwrap() + 1;
    world.assert_refused(Refusal::Object, unaware);

    let counter = op(moods, "n", Action::Put(Scalar::Counter(1)), &[]);
    world.assert_refused(Refusal::Action, world.with(vec![counter]));
    let nothing = op(moods, "n", Action::Delete, &[]);
    world.assert_refused(Refusal::Action, world.with(vec![nothing]));
    let mut draft = world.with(vec![write]);
    let written = OpId { counter: draft.start_op, actor: draft.actor };
    draft.ops.push(op(moods, "any key at all", Action::Delete, &[written]));
    world.assert_admitted(draft);
}

#[test]
fn writing_outside_the_containers_is_refused() {
    let world = World::book();
    let color = world.field(Container::Annotations, &format!("{ID}/color"))[0];
    let mut foreign = Container::Devices.object();
    foreign.counter += 50;
    for ops in [
        vec![at_root("mine", put_text(""), &[])],
        vec![at_root("mine", Action::MakeMap, &[])],
        vec![op(color, "a", put_text(""), &[])],
        vec![op(OpId { counter: 1, actor: ActorId::of_schema(1) }, "a", put_text(""), &[])],
        vec![op(foreign, "a", put_text(""), &[])],
        vec![op(OpId { counter: 3, actor: ActorId([8; 16]) }, "a", put_text(""), &[])],
    ] {
        world.assert_refused(Refusal::Object, world.with(ops));
    }
    let notes = World::notes();
    for ops in [
        vec![at_root("mine", put_text(""), &[])],
        vec![at_root("journal", Action::MakeText, &[notes_object("journal")])],
    ] {
        notes.assert_refused(Refusal::Object, notes.with(ops));
    }
}

#[test]
fn what_a_container_does_not_allow_is_refused() {
    let world = World::book();
    let key = format!("{ID}/color");
    let held = world.field(Container::Annotations, &key);
    let write = |action| world.with(vec![op(annotations(), &key, action, &held)]);
    for action in [
        Action::Put(Scalar::Counter(1)),
        Action::Delete,
        Action::MakeMap,
        Action::MakeList,
        Action::MakeText,
        Action::MakeTable,
        Action::Increment(Scalar::Int(1)),
        Action::Mark { name: None, value: Scalar::Null, expand: false },
    ] {
        world.assert_refused(Refusal::Action, write(action));
    }
    world.assert_refused(
        Refusal::Action,
        world.with(vec![insert(annotations(), Key::Head, put_text(""))]),
    );
    let mut inserted = write(put_text(""));
    inserted.ops[0].insert = true;
    world.assert_refused(Refusal::Action, inserted);
    let nothing = op(Container::Tags.object(), "none", Action::Delete, &[]);
    world.assert_refused(Refusal::Action, world.with(vec![nothing]));
}

#[test]
fn keys_may_be_deleted_in_tags_and_in_the_library_but_not_in_its_app() {
    for (container, may) in Container::BOOK
        .into_iter()
        .chain(Container::LIBRARY)
        .map(|container| (container, matches!(container, Container::Tags) || is_set(container)))
    {
        let mut writer = Writer::new(2, container.kind());
        let device = writer.author.device;
        let forms = [device.to_string(), format!("{device}/1"), format!("x/{device}")];
        let own = |form: &&String| container.owner(form).is_none_or(|owner| owner == Some(device));
        let key = forms.iter().find(own).unwrap().clone();
        let put = op(container.object(), &key, put_text("x"), &[]);
        let written = writer.write(vec![put]).ops_with_ids().next().unwrap().0;
        let delete = writer.draft(vec![op(container.object(), &key, Action::Delete, &[written])]);
        let allowed = writer.history.admit(delete.encode()) == Judgement::Admitted;
        assert_eq!(allowed, may, "{container:?}");
    }
}

fn is_set(container: Container) -> bool {
    container.kind() == DocumentKind::Library && container != Container::App
}

#[test]
fn what_names_another_device_is_refused() {
    let world = World::book();
    let (own, other) = (DeviceId([2; 16]), DeviceId([1; 16]));
    let write = |container: Container, key: String| {
        world.with(vec![op(container.object(), &key, put_text("{}"), &[])])
    };
    for (container, own, other) in [
        (Container::Positions, own.to_string(), other.to_string()),
        (Container::Positions, own.to_string(), "phone".to_owned()),
        (Container::Positions, own.to_string(), own.to_string().to_uppercase() + "A"),
        (Container::Furthest, format!("{own}/1"), format!("{other}/1")),
        (Container::Totals, format!("a/b/{own}"), format!("{own}/{other}")),
    ] {
        world.assert_admitted(write(container, own));
        world.assert_refused(Refusal::Owner, write(container, other));
    }
    // Anybody may withdraw anybody's positions: the value says up to when.
    world.assert_admitted(write(Container::Withdrawn, other.to_string()));

    let library = World::library();
    let write = |container: Container, key: String| {
        library.with(vec![op(container.object(), &key, put_text("{}"), &[])])
    };
    for (container, own, other) in [
        (Container::Devices, own.to_string(), other.to_string()),
        (Container::Holds, format!("{}/{own}", BookId([3; 32])), format!("{BOOK}/{other}")),
    ] {
        library.assert_admitted(write(container, own));
        library.assert_refused(Refusal::Owner, write(container, other));
    }
}

#[test]
fn an_annotation_is_created_and_never_replaced() {
    let world = World::book();
    let mut draft = world.with(vec![op(annotations(), &ID.to_string(), put_text("{}"), &[])]);
    world.assert_admitted(draft.clone());
    let created = OpId { counter: draft.start_op, actor: draft.actor };
    draft.ops.push(op(annotations(), &ID.to_string(), put_text("{ }"), &[created]));
    world.assert_refused(Refusal::Immutable, draft);
}

#[test]
fn superseding_what_it_cannot_have_seen_is_refused() {
    let world = World::book();
    let (color, note) = (format!("{ID}/color"), format!("{ID}/note"));
    let held = world.field(Container::Annotations, &color)[0];
    let of_note = world.field(Container::Annotations, &note)[0];
    let deletion = world.changes[1].ops_with_ids().next().unwrap().0;
    let unknown = OpId { counter: held.counter, actor: ActorId([8; 16]) };
    let own = |n: u64| OpId { counter: world.next().start_op + n, actor: world.next().actor };
    let put = |predecessors: &[OpId]| op(annotations(), &color, put_text("blue"), predecessors);
    let tag = |predecessors: &[OpId]| {
        op(Container::Tags.object(), "sea", Action::Put(Scalar::Int(7)), predecessors)
    };
    world.assert_admitted(world.with(vec![put(&[held]), put(&[held, own(0)])]));
    for ops in [
        vec![put(&[of_note])],
        vec![put(&[unknown])],
        vec![put(&[held, held])],
        vec![op(Container::Tags.object(), &color, put_text(""), &[held])],
        vec![tag(&[deletion])],
        vec![put(&[own(0)])],
        vec![put(&[own(1)]), put(&[own(0)])],
        vec![put(&[held]), put(&[held])],
        vec![put(&[held]), put(&[held, own(0)]), put(&[held, own(0)])],
    ] {
        world.assert_refused(Refusal::Predecessor, world.with(ops));
    }
    let mut descending = world.with(vec![put(&[held]), put(&[held, own(0)])]);
    descending.ops[1].predecessors.reverse();
    world.assert_refused(Refusal::Predecessor, descending);

    // Written, but by a change that this one does not build on.
    let later = world.changes[2].ops_with_ids().next().unwrap().0;
    let only_own = |key: &str, predecessors: &[OpId]| Draft {
        dependencies: vec![world.changes[1].hash()],
        start_op: world.changes[1].max_op() + 1,
        ..world.with(vec![op(annotations(), key, put_text("x"), predecessors)])
    };
    assert_eq!(later, of_note);
    world.assert_admitted(only_own(&note, &[]));
    world.assert_refused(Refusal::Predecessor, only_own(&note, &[of_note]));
}

#[test]
fn a_predecessor_that_holds_nothing_any_more_is_admitted_and_changes_nothing() {
    let world = World::book();
    let added = world.changes[0]
        .ops_with_ids()
        .find(|(_, op)| op.object == Object::Made(Container::Tags.object()));
    let (added, _) = added.unwrap();
    assert_eq!(world.field(Container::Tags, "sea"), []);
    let again = world.with(vec![op(Container::Tags.object(), "sea", put_text("x"), &[added])]);
    world.assert_admitted(again.clone());

    let mut history: History = world.writer.history.clone();
    history.admit(again.encode());
    let field = history.field(Object::Made(Container::Tags.object()), "sea");
    assert_eq!(field.holders().len(), 1);
}

#[test]
fn notes_take_what_automerge_can_carry_out() {
    let world = World::notes();
    let (journal, app) = (notes_object("journal"), notes_object("app"));
    let first = world.changes[0].ops_with_ids().next().unwrap().0;
    let at = |n| OpId { counter: first.counter + n, ..first };
    let (a, list, counter, map) = (at(0), at(2), at(3), at(6));
    let on = |element: OpId, action: Action, predecessors: &[OpId]| {
        let mut op = insert(journal, Key::Element(element), action);
        op.insert = false;
        op.predecessors = predecessors.to_vec();
        op
    };
    let in_list = |mut op: catchword_model::change::Op| {
        op.object = Object::Made(list);
        op
    };
    let increment = || Action::Increment(Scalar::Int(2));
    let mark = || Action::Mark { name: None, value: Scalar::Null, expand: false };
    for ops in [
        vec![insert(journal, Key::Element(a), put_text("c"))],
        vec![on(a, Action::Delete, &[a])],
        vec![in_list(on(counter, increment(), &[counter]))],
        vec![op(map, "k", Action::MakeText, &[])],
        vec![op(app, "map", Action::Delete, &[map])],
    ] {
        world.assert_admitted(world.with(ops));
    }
    let next = OpId { counter: world.writer.history.max_op() + 1, ..first };
    for (refusal, ops) in [
        (Refusal::Action, vec![op(journal, "k", put_text("c"), &[])]),
        (Refusal::Action, vec![op(list, "k", put_text("c"), &[])]),
        (Refusal::Action, vec![insert(app, Key::Head, put_text("c"))]),
        (Refusal::Action, vec![insert(app, Key::Map("k".to_owned()), put_text("c"))]),
        (Refusal::Action, vec![insert(app, Key::Element(a), put_text("c"))]),
        (Refusal::Action, vec![on(a, Action::Delete, &[])]),
        (Refusal::Action, vec![on(a, mark(), &[a])]),
        (Refusal::Action, vec![in_list(insert(journal, Key::Head, mark()))]),
        (Refusal::Action, vec![insert(journal, Key::Head, Action::Delete)]),
        (Refusal::Action, vec![op(app, "table", Action::MakeTable, &[])]),
        (Refusal::Action, vec![in_list(on(counter, increment(), &[]))]),
        (Refusal::Object, vec![insert(journal, Key::Element(counter), put_text("c"))]),
        (Refusal::Object, vec![insert(journal, Key::Element(at(40)), put_text("c"))]),
        (Refusal::Object, vec![insert(journal, Key::Element(next), put_text("c"))]),
        (Refusal::Object, vec![on(list, put_text("c"), &[])]),
        (Refusal::Object, vec![op(a, "k", put_text("c"), &[])]),
        (Refusal::Object, vec![op(next, "k", Action::MakeMap, &[])]),
        (Refusal::Predecessor, vec![on(a, put_text("c"), &[at(1)])]),
    ] {
        world.assert_refused(refusal, world.with(ops));
    }
}
