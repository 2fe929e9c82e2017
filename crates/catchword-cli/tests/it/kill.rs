//! T-CRASH-3: a process that is killed at any moment loses nothing it acknowledged, also while it syncs,
//! compacts, or opens a library of an earlier release. `CATCHWORD_KILLS` says how often.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use catchword_formats::sample::Builder;
use redb::{Database, TableDefinition};
use serde_json::Value;

use crate::devices::{pair, serve, state, sync, text};
use crate::support::{Shelf, catchword, command, stderr, stdout};

/// How often a process is killed, unless the environment says otherwise.
const KILLS: u32 = 200;
/// The newest table: a library without it is one of an earlier release.
const NEWEST: TableDefinition<'_, (&[u8; 32], &[u8; 32]), &[u8]> = TableDefinition::new("void-1");
/// After how many kills the library is looked at.
const LOOK_EVERY: u32 = 20;

/// A small generator of numbers, so that a run can be repeated.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// What may be in a register: the last acknowledged value, or one attempted since.
#[derive(Default, Debug)]
struct Allowed {
    acknowledged: Option<String>,
    attempted: Vec<String>,
}

impl Allowed {
    fn attempt(&mut self, value: &str, acknowledged: bool) {
        if acknowledged {
            self.attempted.clear();
            self.acknowledged = Some(value.to_owned());
        } else {
            self.attempted.push(value.to_owned());
        }
    }

    fn assert_holds(&self, found: Option<&str>, what: &str) {
        let acknowledged = self.acknowledged.as_deref();
        let attempted = self.attempted.iter().any(|value| Some(value.as_str()) == found);
        assert!(found == acknowledged || attempted, "{what}: {found:?} is there, not {self:?}");
    }
}

struct Story {
    /// The other device, which serves at the address.
    tablet: Shelf,
    tablets_device: String,
    address: String,
    data: PathBuf,
    files: PathBuf,
    book: String,
    device: String,
    numbers: Numbers,
    durations: BTreeMap<&'static str, Duration>,
    quotes: Vec<String>,
    annotations: BTreeMap<String, Allowed>,
    journal: Allowed,
    place: Allowed,
    reads: u64,
    books: Vec<String>,
    upgrades: u32,
    slowest_start: Duration,
    killed: u32,
    acknowledged: u32,
}

impl Story {
    fn run(&self, args: &[&str]) -> Value {
        let mut all = vec!["--json", "--data", self.data.to_str().expect("a path of this test")];
        all.extend(args);
        let output = catchword(&all);
        assert!(output.status.success(), "{args:?}: {}{}", stdout(&output), stderr(&output));
        serde_json::from_str(&stdout(&output)).expect("one JSON value")
    }

    /// Runs a command and kills it at some moment of its usual duration; returns what it printed.
    fn run_and_kill(&mut self, name: &'static str, args: &[String]) -> Option<Value> {
        let usual = self.durations.get(name).copied().unwrap_or(Duration::from_millis(40));
        let micros = u64::try_from(usual.as_micros()).expect("short");
        let delay = Duration::from_micros(self.numbers.below(micros * 5 / 4 + 1));
        let mut all = vec!["--json".to_owned(), "--data".to_owned()];
        all.push(self.data.to_str().expect("a path of this test").to_owned());
        all.extend(args.iter().cloned());
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        let mut child = command(&all)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the program was built");
        std::thread::sleep(delay);
        child.kill().expect("the process is ours");
        let mut printed = String::new();
        child.stdout.take().expect("piped").read_to_string(&mut printed).expect("output is UTF-8");
        child.wait().expect("the process is ours");
        self.killed += 1;
        let value = serde_json::from_str(&printed).ok();
        self.acknowledged += u32::from(value.is_some());
        value
    }

    fn measure(&mut self) {
        let sample = self.sample(0);
        let commands: [(&'static str, Vec<String>); 6] = [
            ("annotate", words(&["annotate", &self.book, "--quote", "first", "--ppm", "5"])),
            ("read", words(&["read", &self.book, "--ppm", "10"])),
            ("journal", words(&["journal", &self.book, "--set", "begun"])),
            ("import", words(&["import", &sample])),
            ("compact", words(&["compact"])),
            ("edit", Vec::new()),
        ];
        for (name, args) in commands {
            let args = match args.as_slice() {
                [] => {
                    let id = self.annotations.keys().next().expect("the first one").clone();
                    words(&["edit", &self.book, &id, "--note", "first note"])
                }
                _ => args,
            };
            let args: Vec<&str> = args.iter().map(String::as_str).collect();
            let begin = Instant::now();
            let value = self.run(&args);
            self.durations.insert(name, begin.elapsed());
            match name {
                "annotate" => {
                    self.quotes.push("first".to_owned());
                    let id = value["id"].as_str().expect("an id").to_owned();
                    self.annotations.insert(id, Allowed::default());
                }
                "read" => {
                    self.reads += 1;
                    self.place.attempt("10", true);
                }
                "journal" => self.journal.attempt("begun", true),
                "import" => self.books.push("Sample 0".to_owned()),
                "edit" => {
                    let first = self.annotations.values_mut().next().expect("the first one");
                    first.attempt("first note", true);
                }
                _ => (),
            }
        }
    }

    fn sample(&self, n: u32) -> String {
        let path = self.files.join(format!("{n}.epub"));
        let book = Builder::new(&format!("Sample {n}"))
            .chapter("One", "It was the first of many mornings.")
            .build();
        std::fs::write(&path, book).expect("the folder is ours");
        path.to_str().expect("a path of this test").to_owned()
    }

    fn step(&mut self, n: u32) {
        match self.numbers.below(15) {
            12..14 => {
                let quote = format!("of the tablet {n}");
                self.tablet.json(&["annotate", &self.book, "--quote", &quote, "--ppm", "88"]);
                self.run_and_kill("sync", &words(&["sync", "--addr", &self.address.clone()]));
            }
            14 => {
                make_older(&self.data);
                self.upgrades += 1;
                self.run_and_kill("upgrade", &words(&["books"]));
            }
            0..3 => {
                let ppm = (n * 1_000).to_string();
                let args = words(&["read", &self.book, "--ppm", &ppm, "--seconds", "7"]);
                let acknowledged = self.run_and_kill("read", &args).is_some();
                self.reads += u64::from(acknowledged);
                self.place.attempt(&ppm, acknowledged);
            }
            3..6 => {
                let quote = format!("quote {n}");
                let args = words(&["annotate", &self.book, "--quote", &quote, "--ppm", "77"]);
                if let Some(value) = self.run_and_kill("annotate", &args) {
                    self.quotes.push(quote);
                    let id = value["id"].as_str().expect("an id").to_owned();
                    self.annotations.insert(id, Allowed::default());
                }
            }
            6..8 => {
                let which = self.numbers.below(self.annotations.len() as u64);
                let which = usize::try_from(which).expect("few");
                let id = self.annotations.keys().nth(which).expect("one of them").clone();
                let note = format!("note {n}");
                let args = words(&["edit", &self.book, &id, "--note", &note]);
                let acknowledged = self.run_and_kill("edit", &args).is_some();
                self.annotations.get_mut(&id).expect("known").attempt(&note, acknowledged);
            }
            8..10 => {
                let text = format!("line {n}\nand one more");
                let args = words(&["journal", &self.book, "--set", &text]);
                let acknowledged = self.run_and_kill("journal", &args).is_some();
                self.journal.attempt(&text, acknowledged);
            }
            10 => {
                let sample = self.sample(n);
                if self.run_and_kill("import", &words(&["import", &sample])).is_some() {
                    self.books.push(format!("Sample {n}"));
                }
            }
            _ => drop(self.run_and_kill("compact", &words(&["compact"]))),
        }
    }

    fn assert_everything_is_there(&mut self) {
        let begin = Instant::now();
        self.run(&["recent"]);
        self.slowest_start = self.slowest_start.max(begin.elapsed());
        let report = self.run(&["check"]);
        assert_eq!(report["clean"], true, "{report}");
        let show = self.run(&["show", &self.book]);
        let annotations = show["annotations"].as_array().expect("a list");
        for quote in &self.quotes {
            let found = annotations.iter().any(|shown| shown["quote"] == quote.as_str());
            assert!(found, "{quote} was acknowledged");
        }
        for shown in annotations {
            let known = [&self.device, &self.tablets_device];
            assert!(known.iter().any(|device| shown["device"] == **device), "a new generation");
            if let Some(allowed) = self.annotations.get(shown["id"].as_str().expect("an id")) {
                allowed.assert_holds(shown["note"].as_str(), "note");
            }
        }
        self.journal.assert_holds(show["journal"].as_str(), "journal");
        let ppm = show["place"]["ppm"].to_string();
        self.place.assert_holds(Some(&ppm), "place");
        assert_eq!(show["place"]["device"], self.device.as_str(), "still one generation");
        let events = show["events"]["count"].as_u64().expect("a number");
        assert!(self.reads <= events, "{} reads, {events} events", self.reads);
        let listed = self.run(&["books"]);
        for title in &self.books {
            let found = listed.as_array().expect("a list").iter().any(|b| b["title"] == *title);
            assert!(found, "{title} was acknowledged");
        }
    }
}

fn words(args: &[&str]) -> Vec<String> {
    args.iter().map(|arg| (*arg).to_owned()).collect()
}

/// Makes a closed library one of an earlier release.
fn make_older(data: &Path) {
    let library = Database::open(data.join("library")).expect("a library that is closed");
    let mut write = library.begin_write().expect("room");
    write.set_quick_repair(true);
    write.delete_table(NEWEST).expect("nothing is in it");
    write.commit().expect("room");
}

fn begin(phone: &Shelf) -> Story {
    let mut story = Story {
        tablet: Shelf::nothing(),
        tablets_device: String::new(),
        address: String::new(),
        data: phone.data(),
        files: phone.path().to_path_buf(),
        book: String::new(),
        device: String::new(),
        numbers: Numbers(20_260_101),
        durations: BTreeMap::new(),
        quotes: Vec::new(),
        annotations: BTreeMap::new(),
        journal: Allowed::default(),
        place: Allowed::default(),
        reads: 0,
        books: Vec::new(),
        upgrades: 0,
        slowest_start: Duration::ZERO,
        killed: 0,
        acknowledged: 0,
    };
    let init = |shelf: &Shelf| text(&shelf.json(&["init", "--name", "phone"])["device"]).to_owned();
    (story.device, story.tablets_device) = (init(phone), init(&story.tablet));
    let imported = story.run(&["import", &story.sample(1_000_000)]);
    story.book = imported[0]["book"].as_str().expect("a book").to_owned();
    story.measure();
    story
}

#[test]
fn t_crash_3_a_process_killed_at_any_moment_loses_nothing_it_acknowledged() {
    let kills = std::env::var("CATCHWORD_KILLS").ok().and_then(|text| text.parse().ok());
    let kills: u32 = kills.unwrap_or(KILLS);
    let phone = Shelf::nothing();
    let mut story = begin(&phone);
    pair(&phone, &story.tablet);
    let (serving, address) = serve(&story.tablet);
    story.address = address;
    story.durations.insert("sync", {
        let begin = Instant::now();
        sync(&phone, &story.address);
        begin.elapsed()
    });

    for n in 1..=kills {
        story.step(n);
        if n % LOOK_EVERY == 0 {
            story.assert_everything_is_there();
        }
    }

    // What was killed on the way arrives, both ways.
    assert_eq!(sync(&phone, &story.address)["in_sync"], true);
    assert_eq!(sync(&phone, &story.address)["in_sync"], true);
    serving.terminate();
    assert_eq!(state(&phone, &story.book), state(&story.tablet, &story.book));
    let (killed, acknowledged) = (story.killed, story.acknowledged);
    assert!(kills / 10 < acknowledged && acknowledged < killed, "kills fell before and after");
    eprintln!(
        "T-CRASH-3: {killed} kills, {acknowledged} after the acknowledgement, {} upgrades, \
         0 writes lost, 0 failed to open, slowest start {:?}",
        story.upgrades, story.slowest_start,
    );
}
