//! Whatever order histories come in: the same counts at the end.

use std::collections::BTreeMap;

use super::*;
use catchword_model::change::{Change, Object};
use catchword_model::event::ReadingEvent;
use catchword_model::history::History;
use catchword_model::id::DeviceId;
use catchword_model::locator::Locator;
use catchword_model::position::{
    Entry as Standing, Furthest, Intent, entries, furthest, highest_pass, place,
};
use catchword_model::schema::{Container, DocumentKind, parse_furthest};
use rand::seq::SliceRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

/// Something that was written, with a statement of its own.
#[derive(Clone)]
struct Item {
    change: Option<Change>,
    event: Option<ReadingEvent>,
    statement: WireStatement,
}

impl Item {
    fn hash(&self) -> [u8; 32] {
        self.statement.hash
    }

    fn number(&self) -> (bool, catchword_model::id::ActorId, u64) {
        (self.change.is_some(), self.statement.actor, self.statement.number)
    }

    fn builds_on(&self) -> Vec<[u8; 32]> {
        let of_change = self.change.iter().flat_map(|change| &change.dependencies);
        of_change.map(|hash| hash.0).chain(self.event.map(|event| event.before.0)).collect()
    }
}

/// What happened to devices and copies of them.
#[derive(Default)]
struct Story {
    devices: Vec<Device>,
    written: Vec<Item>,
    copies: u32,
}

impl Story {
    fn of(rng: &mut ChaCha8Rng) -> Self {
        let mut story = Self { devices: (1..=3).map(Device::new).collect(), ..Self::default() };
        for step in 0..rng.random_range(10..40) {
            let who = rng.random_range(0..story.devices.len());
            match rng.random_range(0..10) {
                0 if story.devices.len() < 6 => {
                    let copy = story.devices[who].clone();
                    story.devices.push(copy);
                    story.copies += 1;
                }
                1 | 2 => story.meet(rng, who),
                _ => story.write(rng, who, step),
            }
        }
        story
    }

    fn write(&mut self, rng: &mut ChaCha8Rng, who: usize, step: u64) {
        let device = &mut self.devices[who];
        // Copies write at the same time, and something else.
        let at = stamp(step * 10 + who as u64);
        let ppm = rng.random_range(1..1_000_000);
        let text = format!("{step} of {who}");
        let change = match rng.random_range(0..6) {
            0 => {
                let event =
                    device.read_for(book(1), u32::try_from(step * 10 + who as u64).unwrap());
                let statement = device.sign_event(&event);
                self.written.push(Item { change: None, event: Some(event), statement });
                return;
            }
            1 | 2 => {
                let intents = [Intent::Advance, Intent::Rewind, Intent::Jump, Intent::Restart];
                let intent = intents[rng.random_range(0..4)];
                device.turn(doc(1), at, (intent, rng.random_range(1..3), ppm))
            }
            3 => {
                let furthest = Furthest { locator: Locator::new(), ppm };
                let pass = rng.random_range(1..3);
                device.write_at(doc(1), at, &[Edit::SetFurthest { pass, furthest }])
            }
            4 => device.write(doc(1), &[titled(&text)]),
            _ => device.annotate(doc(1), &text),
        };
        let statement = device.sign_change(doc(1), &change);
        self.written.push(Item { change: Some(change), event: None, statement });
    }

    /// Gives what a device has to another one, up to where that knows another history.
    fn meet(&mut self, rng: &mut ChaCha8Rng, from: usize) {
        let to = rng.random_range(0..self.devices.len());
        let changes: Vec<Change> =
            self.devices[from].history(doc(1)).changes().skip(1).cloned().collect();
        for change in changes {
            self.devices[to].history(doc(1)).admit(change);
        }
    }

    /// What is void, from the definition alone.
    fn void(&self) -> BTreeSet<[u8; 32]> {
        let numbers: BTreeMap<_, _> =
            self.written.iter().map(|item| (item.hash(), item.number())).collect();
        let before = |item: &Item| {
            let (kind, actor, number) = item.number();
            let own = |hash: &&[u8; 32]| numbers.get(*hash) == Some(&(kind, actor, number - 1));
            item.builds_on().iter().find(own).copied()
        };
        let loses = |item: &Item| {
            self.written.iter().any(|other| {
                other.number() == item.number()
                    && before(other) == before(item)
                    && other.hash() < item.hash()
            })
        };
        let mut void: BTreeSet<[u8; 32]> = BTreeSet::new();
        // Each stands behind what it builds on.
        for item in &self.written {
            if loses(item) || item.builds_on().iter().any(|hash| void.contains(hash)) {
                void.insert(item.hash());
            }
        }
        void
    }

    /// Cuts what was written into entries, in some order. Not every order can be taken at once.
    fn cut(&self, rng: &mut ChaCha8Rng) -> Vec<Vec<Item>> {
        let pieces = rng.random_range(1..=self.written.len());
        let mut cut = vec![Vec::new(); pieces];
        for item in &self.written {
            cut[rng.random_range(0..pieces)].push(item.clone());
        }
        cut.retain(|piece| !piece.is_empty());
        cut.shuffle(rng);
        cut
    }
}

fn entry_of(items: &[Item]) -> Entry {
    let changes = items.iter().filter_map(|item| item.change.as_ref());
    let events = items.iter().filter_map(|item| item.event.as_ref());
    keyed(Entry {
        replay: true,
        statements: items.iter().map(|item| item.statement.clone()).collect(),
        changes: changes.map(|change| Blob(change.bytes().to_vec())).collect(),
        events: events.map(|event| Blob(event.encode())).collect(),
        ..Device::new(9).entry_of(doc(1), 0, &[], &[])
    })
}

fn is_taken(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Accepted(_) | Outcome::Rebased(_) | Outcome::Conflict(_))
}

/// Pushes everything, each piece until it is taken.
async fn push_all(anna: &Ledgers, rng: &mut ChaCha8Rng, story: &Story) {
    let mut left = story.cut(rng);
    let mut refusals = 0;
    while !left.is_empty() {
        let count = rng.random_range(1..=left.len().min(3));
        let batch: Vec<Vec<Item>> = left.drain(..count).collect();
        let entries: Vec<Entry> = batch.iter().map(|items| entry_of(items)).collect();
        let answered = anna.push(&entries).await;
        for (items, answer) in batch.into_iter().zip(answered.answers) {
            let taken = is_taken(&answer.outcome);
            assert!(taken || matches!(answer.outcome, Outcome::Incomplete { .. }), "{answer:?}");
            if !taken {
                refusals += 1;
                left.push(items);
            }
        }
        // Pieces may lack something of each other.
        if 60 < refusals && !left.is_empty() {
            left = vec![story.written.clone()];
            refusals = 0;
        }
    }
}

/// Returns whether each thing in the feed counts, after checking that it reads as one feed.
async fn counting(anna: &Ledgers) -> BTreeMap<[u8; 32], bool> {
    let mut counts = BTreeMap::new();
    let mut versions = 0;
    for (index, record) in anna.feed().await.into_iter().enumerate() {
        assert_eq!(record.number, index as u64 + 1);
        match record.record {
            Record::Change { bytes, verdict } => {
                versions += 1;
                assert_eq!(record.version, versions);
                let change = catchword_model::change::read::read(&bytes.0).unwrap();
                counts.insert(change.hash().0, verdict != Verdict::Void);
            }
            Record::Event { bytes } => {
                counts.insert(ReadingEvent::decode(&bytes.0).unwrap().hash().0, true);
            }
            Record::Void { hash } => {
                assert!(counts.insert(hash.0, false).is_some(), "it is in the feed before");
            }
        }
    }
    counts
}

/// The place and the furthest point that a device computes of what counts.
fn shown(story: &Story, void: &BTreeSet<[u8; 32]>) -> (Option<(DeviceId, u32)>, Option<u32>) {
    let mut history = History::new(DocumentKind::Book, doc(1).id());
    let counting = story.written.iter().filter(|item| !void.contains(&item.hash()));
    for change in counting.filter_map(|item| item.change.clone()) {
        let judged = history.admit(change);
        assert_eq!(judged, catchword_model::change::past::Judgement::Admitted);
    }
    let of = |container: Container| {
        let object = Object::Made(container.object());
        history.fields().iter().filter(move |((of, _), _)| *of == object)
    };
    let none = catchword_model::merge::Field::default();
    let standing: Vec<Standing> = of(Container::Positions)
        .flat_map(|((_, key), field)| entries(key.parse().unwrap(), field, &none))
        .collect();
    let pass = highest_pass(&standing);
    let points = of(Container::Furthest)
        .filter(|((_, key), _)| parse_furthest(key).is_some_and(|(_, of)| of == pass))
        .map(|((_, key), field)| (key.as_str(), field));
    let point = furthest(pass, points).map(|furthest| furthest.ppm);
    (place(&standing).map(|entry| (entry.device, entry.position.ppm)), point)
}

async fn tell(ledgers: &Ledgers, seed: u64) -> (u32, usize) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let story = Story::of(&mut rng);
    if story.written.is_empty() {
        return (0, 0);
    }
    let void = story.void();
    let expected: BTreeMap<_, _> =
        story.written.iter().map(|item| (item.hash(), !void.contains(&item.hash()))).collect();
    for order in 0..3 {
        let anna = ledgers.account(&format!("story {seed}, order {order}")).await;
        push_all(&anna, &mut rng, &story).await;

        assert_eq!(counting(&anna).await, expected, "seed {seed}, order {order}");
        let found = anna.ledger.book(anna.account, book(1)).await.unwrap().unwrap();
        let place = found.place.map(|place| (place.device, place.ppm));
        assert_eq!((place, found.furthest_ppm), shown(&story, &void), "seed {seed}, order {order}");
        let events = story.written.iter().filter(|item| item.event.is_some());
        let events = events.filter(|item| !void.contains(&item.hash())).count() as u64;
        assert_eq!(found.events, events);

        let end = anna.end().await;
        let outcome = anna.push_one(&entry_of(&story.written)).await;
        let changes = story.written.iter().filter(|item| item.change.is_some());
        let again: Vec<bool> = changes.map(|item| expected[&item.hash()]).collect();
        let verdicts = receipt(&outcome).verdicts.iter().map(|it| *it != Verdict::Void);
        assert!(verdicts.eq(again), "seed {seed}, order {order}");
        assert_eq!(anna.end().await, end);
    }
    (story.copies, void.len())
}

pub(crate) async fn stories(ledgers: Ledgers, seeds: std::ops::Range<u64>) {
    let (mut copies, mut void, mut forked) = (0, 0, 0);
    let told = seeds.end - seeds.start;
    for seed in seeds {
        let (of_story, lost) = tell(&ledgers, seed).await;
        copies += of_story;
        void += lost;
        forked += u64::from(0 < lost);
    }
    eprintln!("{told} stories with {copies} copies, {forked} of them forked, {void} void records");
    assert!(told / 3 < forked, "forks happen");
}

pub(crate) async fn in_whatever_order_histories_come_the_same_counts(ledgers: Ledgers) {
    stories(ledgers, 0..12).await;
}
