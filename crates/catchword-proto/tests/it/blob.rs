//! Fetching one file from devices that have it, have something else, are lost, or dawdle.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use catchword_model::identity::Fingerprint;
use catchword_proto::blob::fetch::{Event, Failure, Fetch, Input, Transmit, WINDOW_BYTES};
use catchword_proto::blob::{RANGE_BYTES_MAX, Range, encode_part};
use catchword_proto::request::Status;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use crate::report;

const RANGE: u64 = RANGE_BYTES_MAX as u64;

/// What a device does when it is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manner {
    Honest,
    Missing,
    /// It has other bytes from this place on.
    Damaged(u64),
    /// It says that the file is longer.
    Longer(u64),
    /// It is lost after so many answers.
    LostAfter(u32),
    /// It answers once: whether it has the file.
    Silent,
    /// It is too busy every second time.
    Busy,
    /// It answers with nonsense.
    Wild,
}

struct Device {
    manner: Manner,
    answers: u32,
}

struct World {
    fetch: Fetch,
    now: Instant,
    file: Vec<u8>,
    devices: BTreeMap<Fingerprint, Device>,
    asked: VecDeque<Transmit>,
    kept: Vec<u8>,
    barred: Vec<Fingerprint>,
    /// Bytes that devices sent.
    carried: u64,
    ended: Option<Result<(), Failure>>,
}

fn name(number: u8) -> Fingerprint {
    Fingerprint([number; 32])
}

fn index(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap()
}

fn file(size: u64) -> Vec<u8> {
    (0..size).map(|at| u8::try_from((at / 7 + at / RANGE) % 251).unwrap()).collect()
}

impl World {
    fn new(size: u64, kept: Vec<u8>, manners: &[Manner]) -> Self {
        let device = |manner: &Manner| Device { manner: *manner, answers: 0 };
        let devices = (1..).map(name).zip(manners.iter().map(device)).collect();
        let mut world = Self {
            fetch: Fetch::new(),
            now: crate::any_instant(),
            file: file(size),
            devices,
            asked: VecDeque::new(),
            kept,
            barred: Vec::new(),
            carried: 0,
            ended: None,
        };
        world.take(Input::Start { written: world.kept.len() as u64 });
        for source in world.devices.keys().copied().collect::<Vec<_>>() {
            world.take(Input::Joined(source));
        }
        world.take(Input::AllKnown);
        world
    }

    fn take(&mut self, input: Input) {
        self.fetch.handle_input(input, self.now);
        self.settle();
    }

    fn settle(&mut self) {
        while let Some(event) = self.fetch.poll_event() {
            match event {
                Event::Size(_) => (),
                Event::Write(bytes) => self.kept.extend(bytes),
                Event::Discard => self.kept.clear(),
                Event::Verify => {
                    let is_book = self.kept == self.file;
                    self.fetch.handle_input(Input::Verified(is_book), self.now);
                }
                Event::Barred(source) => self.barred.push(source),
                Event::Ended(ending) => {
                    assert_eq!(self.ended.replace(ending), None, "it ends once");
                }
            }
        }
        while let Some(transmit) = self.fetch.poll_transmit() {
            let written = self.kept.len() as u64;
            assert!(transmit.range.end() <= written + WINDOW_BYTES + RANGE, "{transmit:?}");
            self.asked.push_back(transmit);
        }
    }

    /// Answers the request at this place of those that are out. Returns whether there was an answer.
    fn answer(&mut self, at: usize) -> bool {
        let Some(Transmit { source, range }) = self.asked.get(at).copied() else { return false };
        let device = self.devices.get_mut(&source).unwrap();
        if device.manner == Manner::Silent && 0 < device.answers {
            return false;
        }
        self.asked.remove(at);
        device.answers += 1;
        let (status, body) = match device.manner {
            Manner::LostAfter(answers) if answers < device.answers => {
                self.take(Input::Lost(source));
                return true;
            }
            Manner::Missing => (Status::UNKNOWN_DOCUMENT, Vec::new()),
            Manner::Busy if device.answers % 2 == 1 => {
                (Status::SLOW_DOWN, 250_u32.to_be_bytes().to_vec())
            }
            Manner::Wild => (Status::OK, vec![0xff; 9]),
            manner @ (Manner::Honest
            | Manner::Damaged(_)
            | Manner::Longer(_)
            | Manner::LostAfter(_)
            | Manner::Silent
            | Manner::Busy) => (Status::OK, part(&self.file, manner, range)),
        };
        self.carried += body.len() as u64;
        self.take(Input::Answered { source, range, status, body });
        true
    }

    /// Lets time pass until somebody may be asked again, or a silent device is given up.
    fn wait(&mut self) {
        if let Some(deadline) = self.fetch.poll_timeout() {
            self.now = deadline;
            self.fetch.handle_timeout(self.now);
            return self.settle();
        }
        self.now += Duration::from_secs(120);
        let silent = self.asked.pop_front().expect("somebody is asked, or it has ended").source;
        self.asked.retain(|transmit| transmit.source != silent);
        self.take(Input::Lost(silent));
    }

    fn run(&mut self, mut pick: impl FnMut(usize) -> usize) -> Result<(), Failure> {
        for _ in 0..10_000 {
            if let Some(ending) = self.ended {
                return ending;
            }
            let at = pick(self.asked.len());
            if !self.answer(at) && !(0..self.asked.len()).any(|at| self.answer(at)) {
                self.wait();
            }
        }
        panic!("it goes on for ever");
    }

    fn run_in_order(&mut self) -> Result<(), Failure> {
        self.run(|_| 0)
    }
}

fn part(file: &[u8], manner: Manner, range: Range) -> Vec<u8> {
    let mut bytes = file.to_vec();
    match manner {
        Manner::Damaged(at) => bytes.iter_mut().skip(index(at)).for_each(|byte| *byte ^= 0x55),
        Manner::Longer(by) => bytes.resize(bytes.len() + index(by), 9),
        Manner::Honest
        | Manner::Missing
        | Manner::LostAfter(_)
        | Manner::Silent
        | Manner::Busy
        | Manner::Wild => (),
    }
    let size = bytes.len() as u64;
    let from = index(range.offset).min(bytes.len());
    encode_part(size, &bytes[from..][..range.within(size)])
}

#[test]
fn one_device_is_asked_for_every_byte_once() {
    for size in [0, 1, RANGE - 1, RANGE, RANGE + 1, 20 * RANGE + 77] {
        let mut world = World::new(size, Vec::new(), &[Manner::Honest]);
        assert_eq!(world.run_in_order(), Ok(()), "{size} bytes");
        assert_eq!(world.kept, world.file);
        // Each answer says the size in 8 bytes, and the first one is about one byte.
        let answers = u64::from(world.devices[&name(1)].answers);
        assert_eq!(answers, 1 + size.div_ceil(RANGE));
        assert_eq!(world.carried, size + size.min(1) + 8 * answers);
    }
}

#[test]
fn what_is_there_is_not_asked_for_again() {
    let size = 4 * RANGE;
    let kept = file(size)[..index(3 * RANGE + 5)].to_vec();
    let mut world = World::new(size, kept, &[Manner::Honest]);
    assert_eq!(world.run_in_order(), Ok(()));
    assert_eq!(world.kept, world.file);
    assert_eq!(world.carried, RANGE - 5 + 1 + 16);

    let mut whole = World::new(size, file(size), &[Manner::Honest]);
    assert_eq!((whole.run_in_order(), whole.carried), (Ok(()), 9));
}

#[test]
fn a_beginning_that_was_wrong_is_fetched_again_and_nobody_is_blamed() {
    let size = 2 * RANGE;
    for wrong in [RANGE, size, 3 * RANGE].map(|bytes| vec![7; index(bytes)]) {
        let mut world = World::new(size, wrong, &[Manner::Honest]);
        assert_eq!(world.run_in_order(), Ok(()));
        assert_eq!((&world.kept, world.barred.len()), (&world.file, 0));
    }
}

#[test]
fn several_devices_share_the_work() {
    let mut world = World::new(12 * RANGE, Vec::new(), &[Manner::Honest; 3]);
    assert_eq!(world.run_in_order(), Ok(()));
    for (source, device) in &world.devices {
        assert!(3 <= device.answers, "{source} answered {} times", device.answers);
    }
    // At the end the last ranges are asked for twice.
    assert!(world.carried < 16 * RANGE, "{} bytes", world.carried);
}

#[test]
fn a_device_that_dawdles_holds_nobody_up() {
    let mut world = World::new(9 * RANGE, Vec::new(), &[Manner::Silent, Manner::Honest]);
    let before = world.now;
    assert_eq!(world.run_in_order(), Ok(()));
    assert_eq!((&world.kept, world.now), (&world.file, before), "nobody waited");
}

#[test]
fn one_damaged_copy_is_barred_and_the_file_comes_from_elsewhere() {
    let manners = [Manner::Damaged(RANGE), Manner::Honest];
    let mut world = World::new(4 * RANGE, Vec::new(), &manners);
    assert_eq!(world.run_in_order(), Ok(()));
    assert_eq!((&world.kept, &world.barred), (&world.file, &vec![name(1)]));

    let mut alone = World::new(4 * RANGE, Vec::new(), &[Manner::Damaged(0)]);
    assert_eq!(alone.run_in_order(), Err(Failure::Corrupt));
    assert_eq!((alone.kept.len(), &alone.barred), (0, &vec![name(1)]));
}

#[test]
fn an_end_says_why() {
    let ending = |manners: &[Manner]| World::new(RANGE, Vec::new(), manners).run_in_order();
    assert_eq!(ending(&[]), Err(Failure::NoSource));
    assert_eq!(ending(&[Manner::Missing, Manner::Missing]), Err(Failure::Nowhere));
    assert_eq!(ending(&[Manner::Missing, Manner::LostAfter(1)]), Err(Failure::Lost));
    assert_eq!(ending(&[Manner::Wild]), Err(Failure::Lost));
    assert_eq!(ending(&[Manner::Busy]), Ok(()));
}

#[test]
fn what_came_before_the_connection_broke_is_kept() {
    let mut world = World::new(8 * RANGE, Vec::new(), &[Manner::LostAfter(4)]);
    assert_eq!(world.run_in_order(), Err(Failure::Lost));
    assert_eq!(world.kept, world.file[..index(3 * RANGE)]);
}

#[test]
fn whoever_else_is_there_one_honest_device_is_enough() {
    let others = [
        Manner::Missing,
        Manner::Damaged(0),
        Manner::Damaged(RANGE + 3),
        Manner::Longer(1),
        Manner::Longer(2 * RANGE),
        Manner::LostAfter(1),
        Manner::LostAfter(3),
        Manner::Silent,
        Manner::Busy,
        Manner::Wild,
        Manner::Honest,
    ];
    let (mut most, mut barred) = (0, 0);
    for seed in 0..300 {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let size = random.random_range(0..4 * RANGE);
        let count = random.random_range(0..4);
        let mut manners: Vec<_> =
            (0..count).map(|_| *others.choose(&mut random).unwrap()).collect();
        manners.insert(random.random_range(0..=manners.len()), Manner::Honest);
        let kept = match random.random_range(0..4) {
            0 => file(size)[..index(random.random_range(0..=size))].to_vec(),
            1 => vec![3; index(random.random_range(0..5 * RANGE))],
            _ => Vec::new(),
        };
        let mut world = World::new(size, kept, &manners);
        let ended = world.run(|out| random.random_range(0..out.max(1)));
        assert_eq!(ended, Ok(()), "seed {seed}: {manners:?}");
        assert_eq!(world.kept, world.file, "seed {seed}: {manners:?}");
        for source in &world.barred {
            let manner = world.devices[source].manner;
            let is_wrong = matches!(manner, Manner::Damaged(_) | Manner::Longer(_));
            assert!(is_wrong, "seed {seed}: an honest device was barred");
        }
        barred += world.barred.len();
        most = most.max(world.carried / size.max(RANGE));
        // Once together, and once from each.
        assert!(world.carried <= (size + 9 * RANGE) * (2 + manners.len() as u64), "seed {seed}");
    }
    assert!(20 < barred, "the search meets damaged copies: {barred}");
    report(&format!("fetch: 300 searches, {barred} copies barred, at most {most} times the file"));
}
