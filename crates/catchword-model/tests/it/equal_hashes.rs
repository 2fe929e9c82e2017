//! Every register change has the hash that automerge's own transaction gives it.

use catchword_model::change::read::read;
use catchword_model::change::{Object, Scalar};
use catchword_model::edit::{Edit, Write};
use catchword_model::hlc::Hlc;
use catchword_model::schema::{Container, DocumentKind};
use rand::RngExt;

use crate::support::Twins;

/// How many changes are compared.
const CHANGES_MIN: u32 = 100_000;

#[test]
fn a_change_built_without_a_document_has_the_hash_automerge_gives_it() {
    let mut compared = 0;
    let mut seed = 0;
    while compared < CHANGES_MIN {
        let kind = [DocumentKind::Book, DocumentKind::Library][usize::from(seed % 4 == 3)];
        let mut twins = Twins::new(seed, 3, kind);
        for _ in 0..120 {
            let who = twins.rng.random_range(0..3);
            if twins.rng.random_range(0..5) == 0 {
                twins.merge((who + 1) % 3, who);
            }
            let Some(change) = twins.edit(who) else { continue };
            assert_eq!(read(change.bytes()).as_ref(), Ok(&change));
            compared += 1;
        }
        for from in 0..3 {
            twins.merge(from, (from + 1) % 3);
            twins.devices[(from + 1) % 3].assert_same();
        }
        seed += 1;
    }
    eprintln!("{compared} changes of {seed} histories have the hash automerge gives them");
}

#[test]
fn the_reader_takes_what_automerge_deflates() {
    let mut twins = Twins::new(1, 1, DocumentKind::Book);
    let mut deflated = 0;
    for _ in 0..200 {
        let Some(change) = twins.edit(0) else { continue };
        let mut theirs = automerge::Change::from_bytes(change.bytes().to_vec()).unwrap();
        let bytes = theirs.bytes().into_owned();
        deflated += usize::from(bytes != change.bytes());
        assert_eq!(read(&bytes), Ok(change));
    }
    assert!(20 < deflated, "{deflated} changes were large enough to be deflated");
}

/// Automerge settles a conflict in favour of the value that wins already by deleting the others.
/// Keys of annotations cannot be deleted, so the value is put again, naming all of them.
#[test]
fn settling_a_conflict_for_the_winner_supersedes_every_side() {
    let mut twins = Twins::new(3, 2, DocumentKind::Book);
    let id = catchword_model::id::AnnotationId([1; 16]);
    let field = catchword_model::annotation::AnnotationField::Color;
    for who in 0..2 {
        let twin = &mut twins.devices[who];
        let value = ["red", "blue"][who].to_owned();
        let stamp = Hlc::new(1_000 + who as u64, 0).unwrap();
        let writes = Edit::SetField { id, field, value }.writes(twin.author.device, stamp);
        let change = twin.build(stamp, &writes).unwrap();
        twin.take(vec![change]);
    }
    twins.merge(0, 1);
    let twin = &mut twins.devices[1];
    let object = Object::Made(Container::Annotations.object());
    let key = format!("{id}/color");
    let before = twin.history.field(object, &key);
    let winner = before.holders().last().unwrap().value.clone();
    assert!(before.is_conflict());

    let write =
        Write { container: Container::Annotations, key: key.clone(), value: Some(winner.clone()) };
    assert!(twin.settles_a_conflict(&write));
    let change = twin.build(Hlc::new(2_000, 0).unwrap(), &[write]).unwrap();
    twin.take(vec![change]);

    let after = twin.history.field(object, &key);
    assert_eq!(after.holders().len(), 1);
    assert_eq!(after.latest().unwrap().value, winner);
    assert!(matches!(winner, Scalar::Text(_)));
    twin.assert_same();
}
