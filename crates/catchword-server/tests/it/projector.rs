//! Plain rows in PostgreSQL: what they show is what devices show, whatever happens to whoever makes them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use catchword_model::annotation::{Annotation, AnnotationField, Row};
use catchword_model::change::{Change, Object};
use catchword_model::edit::Edit;
use catchword_model::exchange::DocumentName;
use catchword_model::history::History;
use catchword_model::hlc::Hlc;
use catchword_model::id::{AnnotationId, BookId};
use catchword_model::meta::{Meta, Rank, meta};
use catchword_model::position::Intent;
use catchword_model::schema::{Container, DocumentKind, RecordKey, record_key};
use catchword_proto::cloud::api::{AccountId, Verdict};
use catchword_server::ledger::{PostgresLedger, Projected};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use tokio_postgres::{Client, NoTls};

use crate::cluster;
use crate::conformance::{Ledgers, receipt};
use crate::devices::{Device, book, doc, stamp};
use crate::postgres::{block_on, fresh};

/// What a row of `annotations` shows.
type Shown = (String, Option<String>, Option<String>, bool, bool, i64, Vec<u8>, String);

/// A database, a ledger on it, and somebody who may see every row.
struct World {
    url: String,
    ledgers: Ledgers,
    reader: Client,
}

impl World {
    async fn new(url: String) -> Self {
        let ledgers = Ledgers::new(PostgresLedger::open(&url, 6).await.unwrap());
        let (reader, connection) = tokio_postgres::connect(&url, NoTls).await.unwrap();
        tokio::spawn(connection);
        Self { url, ledgers, reader }
    }

    async fn projector(&self) -> PostgresLedger {
        PostgresLedger::open(&self.url, 6).await.unwrap()
    }

    async fn annotations(&self, account: AccountId) -> BTreeMap<(BookId, String), Shown> {
        let sql = "SELECT book, annotation_id, kind, quote, note, color, deleted, \
                   edited_while_deleted, stamp, sort_key, conflicts::text \
                   FROM catchword.annotations WHERE account_id = $1 AND kind IS NOT NULL";
        let rows = self.reader.query(sql, &[&&account.0[..]]).await.unwrap();
        let read = |row: &tokio_postgres::Row| {
            let text: String = row.get::<_, String>(3);
            let shown = (
                text,
                row.get(4),
                row.get(5),
                row.get(6),
                row.get(7),
                row.get(8),
                row.get(9),
                row.get(10),
            );
            ((BookId(row.get::<_, &[u8]>(0).try_into().unwrap()), row.get(1)), shown)
        };
        rows.iter().map(read).collect()
    }

    /// Returns title, position and furthest point of each book.
    async fn places(
        &self,
        account: AccountId,
    ) -> BTreeMap<BookId, (Option<String>, Option<i32>, Option<i64>, Option<i32>)> {
        let sql = "SELECT book, title, ppm, stamp, furthest_ppm FROM catchword.places \
                   WHERE account_id = $1";
        let rows = self.reader.query(sql, &[&&account.0[..]]).await.unwrap();
        let read = |row: &tokio_postgres::Row| {
            let book = BookId(row.get::<_, &[u8]>(0).try_into().unwrap());
            (book, (row.get(1), row.get(2), row.get(3), row.get(4)))
        };
        rows.iter().map(read).collect()
    }

    async fn wait_for(&self, account: AccountId, feed: u64) {
        let sql = "SELECT feed FROM catchword.projections WHERE account_id = $1";
        for _ in 0..400 {
            let row = self.reader.query_opt(sql, &[&&account.0[..]]).await.unwrap();
            if row.is_some_and(|row| row.get::<_, i64>(0) == i64::try_from(feed).unwrap()) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("the projector does not come to {feed}");
    }
}

fn rows_of(history: &History) -> BTreeMap<AnnotationId, Row> {
    let mut rows: BTreeMap<AnnotationId, Row> = BTreeMap::new();
    for ((object, key), field) in history.fields() {
        if *object != Object::Made(Container::Annotations.object()) {
            continue;
        }
        match record_key::<AnnotationId>(key) {
            Some(RecordKey::Record(id)) => {
                let row = rows.entry(id).or_insert_with(|| Row::new(id));
                field.holders().iter().cloned().for_each(|holder| row.put_created(holder));
            }
            Some(RecordKey::Field(id, name)) => {
                let row = rows.entry(id).or_insert_with(|| Row::new(id));
                row.fields.insert(name.to_owned(), field.clone());
            }
            None => (),
        }
    }
    rows
}

fn as_shown(shown: Annotation) -> Shown {
    let conflicts = format!("{:?}", shown.conflicts);
    let stamp = i64::try_from(shown.stamp.packed()).unwrap();
    let key = shown.locator.sort_key().as_bytes().to_vec();
    let flags = (shown.deleted, shown.edited_while_deleted);
    (shown.quote, shown.note, shown.color, flags.0, flags.1, stamp, key, conflicts)
}

/// Writes something at random.
fn write(rng: &mut ChaCha8Rng, device: &mut Device, of: DocumentName, step: u64) {
    let ids: Vec<_> = rows_of(device.history(of)).into_keys().collect();
    let at = stamp(step * 10);
    if ids.is_empty() || rng.random_bool(0.3) {
        device.annotate(of, &step.to_string());
        return;
    }
    let id = ids[rng.random_range(0..ids.len())];
    let field = |field, value: &str| Edit::SetField { id, field, value: value.to_owned() };
    let edit = match rng.random_range(0..8) {
        0 => field(AnnotationField::Color, ["red", "blue"][rng.random_range(0..2)]),
        1 => field(AnnotationField::Note, &format!("note {step}")),
        2 => field(AnnotationField::Locator, &format!("{{\"total_ppm\":{}}}", step * 7)),
        3 | 4 => Edit::Delete { id },
        5 => Edit::Undelete { id },
        6 => {
            let rank = [Rank::File, Rank::User][rng.random_range(0..2)];
            let meta = Meta { value: format!("title {step}").into(), rank };
            Edit::SetMeta { field: "title".to_owned(), meta }
        }
        _ => {
            let intents = [Intent::Advance, Intent::Rewind, Intent::Jump, Intent::Restart];
            let intent = intents[rng.random_range(0..4)];
            let ppm = rng.random_range(1..1_000_000);
            device.try_turn(of, at, (intent, rng.random_range(1..3), ppm));
            return;
        }
    };
    device.try_write(of, &[edit]);
}

/// What happens on the way to the same rows.
struct Story {
    device: Vec<Device>,
    known: Vec<BTreeSet<[u8; 32]>>,
    withdrawn: u32,
}

impl Story {
    fn new() -> Self {
        let known = vec![BTreeSet::new(); 2];
        Self { device: (1..=3).map(Device::new).collect(), known, withdrawn: 0 }
    }

    /// Some device writes or meets another, or tells the server.
    async fn go_on(&mut self, rng: &mut ChaCha8Rng, anna: &Ledgers, step: u64) {
        let (who, whom) = (rng.random_range(0..3), rng.random_range(0..3));
        let number = rng.random_range(0..2_u8);
        let of = doc(number);
        write(rng, &mut self.device[who], of, step);
        if who != whom && rng.random_bool(0.3) {
            let mut from = self.device[who].clone();
            from.give(of, &mut self.device[whom]);
        }
        if rng.random_bool(0.5) {
            self.push(anna, who, number).await;
        }
    }

    async fn push(&mut self, anna: &Ledgers, who: usize, number: u8) {
        let known = &mut self.known[usize::from(number)];
        let entry = self.device[who].entry(doc(number), known, 0);
        if entry.changes.is_empty() {
            return;
        }
        let outcome = anna.push_one(&entry).await;
        let receipt = receipt(&outcome);
        let withdrawn = receipt.verdicts.iter().filter(|verdict| **verdict == Verdict::Withdrawn);
        self.withdrawn += u32::try_from(withdrawn.count()).unwrap();
        let changes = self.device[who].history(doc(number)).changes();
        known.extend(changes.map(|change| change.hash().0));
    }

    async fn push_all(&mut self, anna: &Ledgers) {
        for (who, number) in [(0, 0), (1, 0), (2, 0), (0, 1), (1, 1), (2, 1)] {
            self.push(anna, who, number).await;
        }
    }

    /// Everything of a book that any device has.
    fn merged(&mut self, number: u8) -> History {
        let all = self.device.iter_mut().flat_map(|device| {
            device.history(doc(number)).changes().skip(1).cloned().collect::<Vec<_>>()
        });
        let mut left: Vec<Change> = all.collect();
        let mut merged = History::new(DocumentKind::Book, doc(number).id());
        while let Some(ready) = left.iter().position(|change| {
            change.dependencies.iter().all(|hash| merged.change(*hash).is_some())
        }) {
            merged.admit(left.remove(ready));
        }
        assert!(left.is_empty());
        merged
    }

    /// Holds the rows against what the model reads from the same changes.
    async fn check(&mut self, world: &World, anna: &Ledgers) -> [usize; 4] {
        let rows = world.annotations(anna.account).await;
        let places = world.places(anna.account).await;
        let mut expected = BTreeMap::new();
        for number in 0..2 {
            let merged = self.merged(number);
            let shown = rows_of(&merged).into_values().filter_map(|row| row.annotation());
            expected
                .extend(shown.map(|shown| ((book(number), shown.id.to_string()), as_shown(shown))));
            let title = merged.field(Object::Made(Container::Meta.object()), "title");
            let title = meta(&title).map(|meta| meta.value.as_str().unwrap().to_owned());
            let of_ledger = anna.ledger.book(anna.account, book(number)).await.unwrap().unwrap();
            let place = of_ledger.place;
            let ppm = place.as_ref().map(|place| i32::try_from(place.ppm).unwrap());
            let at = place.as_ref().map(|place| i64::try_from(place.stamp).unwrap());
            assert_eq!(places[&book(number)], (title, ppm, at, None));
        }
        assert_eq!(rows, expected);
        let count = |is: fn(&Shown) -> bool| rows.values().filter(|row| is(row)).count();
        [rows.len(), count(|row| row.3), count(|row| row.4), count(|row| row.7 != "[]")]
    }
}

async fn project_to_the_end(projector: &PostgresLedger, account: AccountId, end: u64) {
    for _ in 0..10_000 {
        if projector.project(account, 500).await.unwrap() == Projected::UpTo(end) {
            return;
        }
    }
    panic!("the projector does not come to {end}");
}

#[test]
fn plain_rows_show_what_devices_show() {
    let Some(cluster) = cluster::shared() else { return };
    let url = fresh(cluster);
    block_on(async {
        let world = World::new(url).await;
        let projector = world.projector().await;
        let (mut tally, mut withdrawn) = ([0; 4], 0);
        for seed in 0..12 {
            let anna = world.ledgers.account(&format!("anna {seed}")).await;
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            let mut story = Story::new();
            for step in 1..80 {
                story.go_on(&mut rng, &anna, step).await;
                if rng.random_bool(0.2) {
                    let records = rng.random_range(1..20);
                    projector.project(anna.account, records).await.unwrap();
                }
            }
            story.push_all(&anna).await;
            project_to_the_end(&projector, anna.account, anna.end().await).await;
            let counts = story.check(&world, &anna).await;
            tally.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
            withdrawn += story.withdrawn;

            // Made again from nothing, they are the same.
            let before = world.annotations(anna.account).await;
            let forget = "DELETE FROM catchword.projections WHERE account_id = $1";
            world.reader.execute(forget, &[&&anna.account.0[..]]).await.unwrap();
            projector.project(anna.account, 1).await.unwrap();
            assert!(world.annotations(anna.account).await.len() < before.len());
            project_to_the_end(&projector, anna.account, anna.end().await).await;
            assert_eq!(world.annotations(anna.account).await, before);
            story.check(&world, &anna).await;
        }
        eprintln!(
            "plain rows: annotations, deleted, edited while deleted, with conflicts: {tally:?}; \
             {withdrawn} positions withdrawn"
        );
        assert!(tally.iter().all(|count| 5 < *count) && 5 < withdrawn, "each happens");
    });
}

/// A device and its copy write different things. Whoever comes first is shown; then whoever counts.
#[test]
fn what_became_void_is_gone_from_the_plain_rows() {
    let Some(cluster) = cluster::shared() else { return };
    let url = fresh(cluster);
    block_on(async {
        let world = World::new(url).await;
        let projector = world.projector().await;
        let mut gone = 0;
        for seed in 0..8 {
            let anna = world.ledgers.account(&format!("copies {seed}")).await;
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            let mut phone = Device::new(1);
            phone.annotate(doc(0), "common");
            (1..8).for_each(|step| write(&mut rng, &mut phone, doc(0), step));
            let common = phone.history(doc(0)).changes().count();
            let mut copy = phone.clone();
            phone.annotate(doc(0), "of the phone");
            copy.annotate(doc(0), "of the copy");
            for device in [&mut phone, &mut copy] {
                (10..20).for_each(|step| write(&mut rng, device, doc(0), step));
            }
            let hash = |device: &mut Device| {
                device.history(doc(0)).changes().nth(common).map(Change::hash)
            };
            let (mut winner, mut loser) =
                if hash(&mut phone) < hash(&mut copy) { (phone, copy) } else { (copy, phone) };
            // A book beside it stays as it is.
            loser.annotate(doc(1), "beside");

            let entries = [0, 1].map(|of| loser.entry(doc(of), &BTreeSet::new(), 0));
            anna.push(&entries).await;
            let records = rng.random_range(1..30);
            projector.project(anna.account, records).await.unwrap();
            let before = world.annotations(anna.account).await;
            anna.push(&[winner.entry(doc(0), &BTreeSet::new(), 0)]).await;
            if rng.random_bool(0.5) {
                projector.project(anna.account, rng.random_range(1..30)).await.unwrap();
            }
            project_to_the_end(&projector, anna.account, anna.end().await).await;

            let rows = world.annotations(anna.account).await;
            let mut expected = BTreeMap::new();
            for (number, device) in [(0, &mut winner), (1, &mut loser)] {
                let rows = rows_of(device.history(doc(number)));
                let shown = rows.into_values().filter_map(|row| row.annotation());
                expected.extend(
                    shown.map(|shown| ((book(number), shown.id.to_string()), as_shown(shown))),
                );
            }
            assert_eq!(rows, expected, "seed {seed}");
            gone += before.keys().filter(|key| !rows.contains_key(key)).count();
            let title = winner.history(doc(0));
            let title = meta(&title.field(Object::Made(Container::Meta.object()), "title"));
            let title = title.map(|meta| meta.value.as_str().unwrap().to_owned());
            let of_ledger = anna.ledger.book(anna.account, book(0)).await.unwrap().unwrap();
            let ppm = of_ledger.place.map(|place| i32::try_from(place.ppm).unwrap());
            let shown = world.places(anna.account).await[&book(0)].clone();
            assert_eq!((shown.0, shown.1), (title, ppm), "seed {seed}");

            // Made again from nothing, they are the same.
            let forget = "DELETE FROM catchword.projections WHERE account_id = $1";
            world.reader.execute(forget, &[&&anna.account.0[..]]).await.unwrap();
            project_to_the_end(&projector, anna.account, anna.end().await).await;
            assert_eq!(world.annotations(anna.account).await, rows);
        }
        eprintln!("plain rows: {gone} annotations are gone with the histories that do not count");
        assert!(5 < gone, "each happens");
    });
}

#[test]
fn a_projector_that_is_cut_off_anywhere_goes_on_where_it_was() {
    let Some(cluster) = cluster::shared() else { return };
    let url = fresh(cluster);
    block_on(async {
        let world = World::new(url).await;
        let anna = world.ledgers.account("anna").await;
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        let mut story = Story::new();
        let (mut cut, mut elsewhere) = (0, 0);
        for step in 1..120 {
            story.go_on(&mut rng, &anna, step).await;
            if step % 10 != 0 {
                continue;
            }
            // Two at once, each cut off after some time: what a killed process leaves.
            let (one, other) = (world.projector().await, world.projector().await);
            let patience = Duration::from_micros(rng.random_range(200..6_000));
            let (one, other) = tokio::join!(
                tokio::time::timeout(patience, one.project(anna.account, 7)),
                tokio::time::timeout(patience * 2, other.project(anna.account, 7)),
            );
            for outcome in [one, other] {
                cut += u32::from(outcome.is_err());
                elsewhere += u32::from(matches!(outcome, Ok(Ok(Projected::Elsewhere))));
            }
        }
        story.push_all(&anna).await;
        let end = anna.end().await;
        let projectors =
            [world.projector().await, world.projector().await, world.projector().await];
        let run = async |projector: &PostgresLedger| {
            project_to_the_end(projector, anna.account, end).await;
        };
        tokio::join!(run(&projectors[0]), run(&projectors[1]), run(&projectors[2]));
        eprintln!("plain rows: {cut} steps cut off, {elsewhere} left to another process");
        assert!(0 < cut, "some are cut off");
        story.check(&world, &anna).await;
    });
}

#[test]
fn the_projector_follows_the_feed_and_finds_what_it_missed() {
    let Some(cluster) = cluster::shared() else { return };
    let url = fresh(cluster);
    block_on(async {
        let world = World::new(url).await;
        let (anna, bert) =
            (world.ledgers.account("anna").await, world.ledgers.account("bert").await);
        let mut phone = Device::new(1);
        phone.annotate(doc(1), "before");
        let entry = phone.entry(doc(1), &BTreeSet::new(), 0);
        anna.push(std::slice::from_ref(&entry)).await;
        bert.push(std::slice::from_ref(&entry)).await;

        // What was there before it started; then what another process takes.
        let projector = world.projector().await.with_projector();
        world.wait_for(anna.account, 1).await;
        world.wait_for(bert.account, 1).await;
        let known = BTreeSet::from([phone.history(doc(1)).changes().last().unwrap().hash().0]);
        phone.annotate(doc(1), "after");
        anna.push(&[phone.entry(doc(1), &known, 1)]).await;
        world.wait_for(anna.account, 2).await;
        assert_eq!(world.annotations(anna.account).await.len(), 2);
        assert_eq!(world.annotations(bert.account).await.len(), 1);
        drop(projector);

        // What the documentation says how to ask.
        let sql = include_str!("../../../../docs/CLOUD.md").split("```sql\n").nth(1).unwrap();
        let [highlights, places] =
            sql.split("```").next().unwrap().split("\n\n").collect::<Vec<_>>()[..]
        else {
            panic!("two statements: {sql}");
        };
        let (account, of) = (&anna.account.0[..], &book(1).0[..]);
        let highlights = highlights.trim_end().trim_end_matches(';');
        let rows = world.reader.query(highlights, &[&account, &of]).await.unwrap();
        let quotes: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        assert_eq!(BTreeSet::from_iter(quotes), BTreeSet::from(["before".into(), "after".into()]));
        let places = places.trim_end().trim_end_matches(';');
        let rows = world.reader.query(places, &[&account]).await;
        assert_eq!(rows.unwrap().len(), 1);
    });
}

#[test]
fn a_text_that_postgres_cannot_hold_is_shown_without_what_it_cannot() {
    let Some(cluster) = cluster::shared() else { return };
    let url = fresh(cluster);
    block_on(async {
        let world = World::new(url).await;
        let anna = world.ledgers.account("anna").await;
        let mut phone = Device::new(1);
        phone.annotate(doc(1), "a\0b");
        let id = *rows_of(phone.history(doc(1))).keys().next().unwrap();
        let value = "\0".to_owned();
        phone.write(doc(1), &[Edit::SetField { id, field: AnnotationField::Note, value }]);
        phone.turn(doc(1), Hlc::LAST, (Intent::Jump, 1, 5));
        anna.push(&[phone.entry(doc(1), &BTreeSet::new(), 0)]).await;
        let projector = world.projector().await;
        assert_eq!(projector.project(anna.account, 500).await.unwrap(), Projected::UpTo(3));
        let rows = world.annotations(anna.account).await;
        let row = rows.values().next().unwrap();
        assert_eq!((row.0.as_str(), row.1.as_deref()), ("a\u{fffd}b", Some("\u{fffd}")));
    });
}
