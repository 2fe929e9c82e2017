//! A search over random traces: whatever happens, in the end everything reaches everybody.
//!
//! Goal: after enough quiet rounds any two linked devices hold the same of every document that both
//! share, each sync says so, takes one round trip, and sends nothing.
//!
//! Method: three to five devices in a chain, a triangle or a star edit and sync over a network that
//! loses and repeats messages, and are killed between any two transactions. In some traces they are
//! restored, copied, narrowed in scope, or lose documents and add them again. One seed is one trace.
//!
//! `CATCHWORD_TRACES=100000 cargo test -p catchword-proto --test it search -- --nocapture` searches
//! longer, and `CATCHWORD_SEED=7` repeats one trace.

use std::time::Duration;

use catchword_proto::session::Log;
use catchword_proto::session::requester::Ending;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::report;

use super::store::Rules;
use super::world::{Tally, Trouble, World};

/// Traces of each kind where nothing else is said.
const TRACES: u64 = 1_000;

/// Bytes of a body, which with 80 of signature and path leaves room below 512.
const IDLE_BODY_BYTES_MAX: u64 = 200;

/// Rounds of syncs over every link, in both directions, until nothing may differ any more: a change
/// passes one link in a round at least, and what it releases goes the same way.
const ROUNDS_MAX: u64 = 12;

fn seeds() -> std::ops::Range<u64> {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    match number("CATCHWORD_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("CATCHWORD_TRACES").unwrap_or(TRACES),
    }
}

/// What a trace consists of.
#[derive(Debug, Clone, Copy)]
struct Plan {
    trouble: Trouble,
    blind: bool,
    watermark: bool,
}

fn world(seed: u64, plan: Plan) -> World {
    let mut random = ChaCha8Rng::seed_from_u64(seed ^ 0x5EED);
    let piece_max = *[1, 1, 2, 3, 1_000].choose(&mut random).unwrap();
    let parked_max = if plan.blind { 1_000 } else { *[1, 1, 1_000].choose(&mut random).unwrap() };
    let multiple = random.random_range(2..=3);
    let (blind, watermark) = (plan.blind, plan.watermark);
    let rules = Rules { multiple, piece_max, parked_max, blind, watermark };
    let count = random.random_range(3..=5);
    let links = match random.random_range(0..3) {
        0 => (1..count).map(|at| (at - 1, at)).collect(),
        1 => (1..count).map(|at| (0, at)).collect(),
        _ => vec![(0, 1), (1, 2), (2, 0)],
    };
    World::new(seed, rules, count.min(links.len() + 1), links)
}

fn run(seed: u64, plan: Plan) -> World {
    let mut world = world(seed, plan);
    let loss = *[0.0, 0.05, 0.3].choose(&mut world.random).unwrap();
    let steps = world.random.random_range(50..250);
    for _ in 0..steps {
        let at = world.random.random_range(0..world.devices.len());
        match world.random.random_range(0..100) {
            0..20 => {
                let document = world.random_document();
                let log = if world.random.random_bool(0.2) { Log::Events } else { Log::Changes };
                world.write(at, document, log);
            }
            20..30 => {
                let (one, other) = *world.links.choose(&mut world.random).unwrap();
                let (from, to) =
                    if world.random.random_bool(0.5) { (one, other) } else { (other, one) };
                world.start(from, to);
            }
            30..32 => world.kill(at),
            32..34 => world.wait(Duration::from_millis(1)),
            34..42 => trouble(&mut world, at, plan.trouble),
            _ => _ = world.step(loss),
        }
    }
    world.settle();
    world
}

fn trouble(world: &mut World, at: usize, trouble: Trouble) {
    if trouble == Trouble::None {
        return;
    }
    if trouble == Trouble::Forks && world.random.random_bool(0.3) {
        return roll_back(world, at);
    }
    let drawn = world.random.random();
    match world.random.random_range(0..14) {
        13 if trouble == Trouble::Honest => {
            let key = world.devices.choose(&mut world.random).unwrap().store.key;
            let store = &mut world.devices[at].store;
            if !store.lends_to.remove(&key) {
                store.lends_to.insert(key);
            }
            world.tally.lendings += 1;
            // It counts from the next connection on.
            world.stop(at);
        }
        13 => (),
        0 | 10 | 11 => {
            let backup = world.devices[at].store.back_up(&world.ledger);
            world.devices[at].backup = Some(backup);
        }
        1 => restore(world, at),
        2 => restore_elsewhere(world, at),
        3 => copy(world, at),
        4 | 5 => {
            let document = world.random_document();
            let key = world.devices.choose(&mut world.random).unwrap().store.key;
            let outside = world.devices[at].store.outside.entry(key).or_default();
            if !outside.remove(&document) {
                outside.insert(document);
            }
            world.changed(at);
        }
        6..=8 => {
            let document = world.random_document();
            let store = &mut world.devices[at].store;
            if !store.removed.remove(&document) {
                store.removed.insert(document);
            }
            world.changed(at);
        }
        9 => purge(world, at),
        _ => {
            if let Some(store) = world.devices[at].backup.clone() {
                // One backup, restored once more over the same folder.
                world.stop(at);
                world.devices[at].store.restore(&store, drawn);
                world.tally.restores += 1;
            }
        }
    }
}

/// The whole folder goes back, with its witness: nobody notices until a peer does.
fn roll_back(world: &mut World, at: usize) {
    let snapshot = world.devices[at].store.clone();
    if let Some(mut earlier) = world.devices[at].snapshot.replace(snapshot) {
        earlier.kill();
        world.stop(at);
        world.tally.rollbacks += 1;
        world.devices[at].store = earlier;
    }
}

/// Over the folder, which keeps keys and pairings; or into an empty one, with a new key.
fn restore(world: &mut World, at: usize) {
    let Some(backup) = world.devices[at].backup.clone() else { return };
    let drawn = world.random.random();
    world.stop(at);
    world.tally.restores += 1;
    if world.random.random_bool(0.5) {
        world.devices[at].store.restore(&backup, drawn);
    } else {
        let key = world.new_key();
        world.devices[at].store.restore_without_keys(&backup, key);
    }
}

/// A backup of one device becomes another one, beside it.
fn restore_elsewhere(world: &mut World, at: usize) {
    let Some(backup) = world.devices[at].backup.clone() else { return };
    if 5 <= world.devices.len() {
        return;
    }
    let key = world.new_key();
    let mut store = backup.clone();
    store.restore_without_keys(&backup, key);
    let new = world.add(store);
    world.links.push((at, new));
    world.tally.restores += 1;
}

/// A copied folder keeps its key: both talk to the same peers, and not to each other.
fn copy(world: &mut World, at: usize) {
    let neighbour = world.links.iter().find_map(|(one, other)| {
        (*one == at).then_some(*other).or_else(|| (*other == at).then_some(*one))
    });
    let Some(neighbour) = neighbour.filter(|_| world.devices.len() < 5) else { return };
    let drawn = world.random.random();
    let mut store = world.devices[at].store.clone();
    store.kill();
    store.renew_copy(drawn);
    let new = world.add(store);
    world.links.push((neighbour, new));
    world.tally.copies += 1;
}

/// Only what another device has, whole, may be forgotten.
fn purge(world: &mut World, at: usize) {
    let document = world.random_document();
    let store = &world.devices[at].store;
    let others = world.devices.iter().enumerate().filter(|(other, _)| *other != at);
    let kept = others
        .map(|(_, other)| &other.store)
        .any(|other| store.is_within(other, document) && !other.removed.contains(&document));
    if kept && store.removed.contains(&document) && store.open.is_none() {
        world.devices[at].store.purge(&world.ledger, document);
        world.tally.purges += 1;
        world.changed(at);
    }
}

/// Syncs every link in both directions until nothing differs. Returns how many rounds that took.
fn quieten(world: &mut World) -> Option<u64> {
    for round in 0..=ROUNDS_MAX {
        if world.differing().is_empty() {
            return Some(round);
        }
        for (one, other) in world.links.clone() {
            world.sync(one, other);
            world.sync(other, one);
        }
    }
    None
}

fn search(name: &str, plan: Plan) -> Tally {
    let mut sum = Tally::default();
    for seed in seeds() {
        let again = format!("CATCHWORD_SEED={seed} cargo test -p catchword-proto {name}");
        let mut world = run(seed, plan);
        let copied = 0 < world.tally.copies && 0 < world.tally.restores;
        if plan.trouble != Trouble::Forks && !copied {
            assert_eq!(world.tally.forks, 0, "nobody went back without notice\n{again}");
        }
        let rounds = quieten(&mut world);
        let Some(rounds) = rounds else {
            panic!("seed {seed}: something never arrives: {:?}\n{again}", world.differing());
        };
        world.tally.rounds_max = rounds;
        if !plan.blind {
            rest(&mut world, &again);
        }
        sum.add(&world.tally);
    }
    report(&format!("{name}: {} traces: {sum:?}", seeds().count()));
    sum
}

/// Once everything has arrived, a sync is one round trip, says nothing and claims to be in sync.
fn rest(world: &mut World, again: &str) {
    for (one, other) in world.links.clone() {
        // Lists are exchanged, and what is parked for nothing is dropped.
        world.sync(one, other);
    }
    for (one, other) in world.links.clone() {
        world.sync(one, other);
        let (ending, report) = world.sync(one, other);
        assert_eq!(ending, Ending::InSync, "{one} -> {other}: {report:?}\n{again}");
        assert_eq!(report.round_trips, 1, "{one} -> {other}: {report:?}\n{again}");
        assert_eq!((report.changes_sent, report.changes_received), (0, 0), "{again}");
        let bytes = report.bytes_sent.max(report.bytes_received);
        assert!(bytes <= IDLE_BODY_BYTES_MAX, "{bytes} bytes while idle\n{again}");
    }
}

#[test]
fn search_everything_reaches_everybody_whatever_happens() {
    let plan = Plan { trouble: Trouble::Honest, blind: false, watermark: false };
    search("search_everything_reaches_everybody_whatever_happens", plan);
}

#[test]
fn search_forks_are_found_and_kept_apart() {
    let plan = Plan { trouble: Trouble::Forks, blind: false, watermark: false };
    let tally = search("search_forks_are_found_and_kept_apart", plan);
    assert!(seeds().count() < 100 || 0 < tally.forks, "no fork in any trace");
}

#[test]
fn search_marks_alone_suffice_without_restores() {
    let plan = Plan { trouble: Trouble::None, blind: true, watermark: false };
    let tally = search("search_marks_alone_suffice_without_restores", plan);
    assert_eq!(tally.mends, 0, "no vector was exchanged");
}

#[test]
fn search_marks_that_are_times_lose_changes() {
    let plan = Plan { trouble: Trouble::None, blind: true, watermark: true };
    let seeds: Vec<u64> = seeds().take(200).collect();
    let lossy = seeds.iter().filter(|seed| quieten(&mut run(**seed, plan)).is_none()).count();
    report(&format!("search_marks_that_are_times_lose_changes: {lossy} of {}", seeds.len()));
    assert!(seeds.len() < 100 || 10 < lossy, "only {lossy} traces lost something");
}
