//! How things stand: what is not in sync, why, since when, and what would help.

use std::collections::BTreeSet;
use std::fmt;

use catchword_model::id::{BookId, DeviceId, DocumentId};
use catchword_model::identity::Fingerprint;
use catchword_proto::trust::{Deactivation, PeerRecord, PeerState};
use catchword_store::{Evidence, Standing, Store};

use crate::error::EditError;
use crate::net::cloud::origin_of;
use crate::net::keeping::Shared;
use crate::net::trouble::{Trouble, Why, find};

/// How one thing stands.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Status {
    /// What it is about.
    pub subject: Subject,
    /// How it is.
    pub state: State,
    /// Why it is so; absent where there is nothing to be explained.
    pub reason: Option<Reason>,
    /// Since when, in milliseconds since the Unix epoch, where that is known.
    pub since_ms: Option<u64>,
}

/// What a status is about.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Subject {
    /// This device and its library.
    Library,
    /// A paired device.
    Peer {
        /// Its pinned certificate.
        peer: Fingerprint,
        /// What it is called.
        name: String,
    },
    /// An account in the cloud.
    Account {
        /// Where its server is.
        url: String,
        /// The name of the person there.
        user: String,
    },
    /// A device whose changes are here, paired or not.
    Device {
        /// Which device.
        device: DeviceId,
        /// What it is called; may be empty.
        name: String,
    },
    /// A book.
    Book {
        /// Which book.
        book: BookId,
        /// Its title; may be empty.
        title: String,
    },
}

/// How something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum State {
    /// Both have the same.
    InSync,
    /// It will be in sync by itself, as soon as devices meet.
    Waiting,
    /// It was tried, and failed; it is tried again.
    Failing,
    /// It is not exchanged.
    Excluded,
    /// Nothing happens until a person decides.
    Stopped,
    /// It works, and something about it should be known.
    Noted,
}

impl State {
    /// Returns the state as a word, for output.
    pub const fn name(self) -> &'static str {
        match self {
            Self::InSync => "in_sync",
            Self::Waiting => "waiting",
            Self::Failing => "failing",
            Self::Excluded => "excluded",
            Self::Stopped => "stopped",
            Self::Noted => "noted",
        }
    }
}

/// Why something is as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// No device is paired.
    NoPeers,
    /// Nothing here syncs unasked.
    NotServing,
    /// Devices near here are not found.
    NoDiscovery {
        /// What the system says.
        error: String,
    },
    /// The library went back in time, or is a copy, and goes on as a new device.
    NewGeneration(Evidence),
    /// The device has the code and was allowed, and has not confirmed yet.
    Unconfirmed,
    /// There was no sync with the device yet.
    NeverMet,
    /// The last sync failed.
    Failed {
        /// Why.
        error: String,
    },
    /// There is something that the device has not confirmed.
    Unsent {
        /// The name of the device; several, where it is about a book.
        peer: String,
        /// Changes and reading events.
        changes: u64,
    },
    /// The last comparison found a difference, or none was made since something was exchanged.
    NotCompared,
    /// Something came that builds on what did not come, or that nobody signed. It changes nothing.
    Incomplete {
        /// The name of the device that brought it.
        peer: String,
        /// Changes and reading events.
        changes: u64,
    },
    /// The device may not speak until a person decides.
    Deactivated(Deactivation),
    /// The clock of the device is off.
    ClockSkew {
        /// How far it is ahead, in milliseconds.
        by_ms: i64,
    },
    /// The device only gets books: nothing is taken from it.
    ReadOnly,
    /// The device only gives books: it takes nothing from this one.
    ReadOnlyThere,
    /// The book was removed from this device.
    RemovedHere,
    /// The device does not get it: it is not in its scope.
    OutsideScope {
        /// The name of the device.
        peer: String,
    },
    /// The device does not exchange it: it was removed there, is not in the scope of this one, or is
    /// stopped there.
    ExcludedThere {
        /// The name of the device.
        peer: String,
    },
    /// What the device sent of it was refused.
    Quarantined {
        /// The name of the device.
        peer: String,
        /// What was refused last, and why, in words.
        what: String,
        /// Until when it is not exchanged, in milliseconds since the Unix epoch.
        until_ms: u64,
    },
    /// A device wrote two histories: its folder was copied or restored.
    Forked {
        /// The name of the device that brought the second.
        peer: String,
        /// Whether it was this device that wrote them.
        own: bool,
    },
    /// The library signed out of the account.
    CloudSignedOut,
    /// The account does not believe this device any more.
    CloudSignInAgain,
    /// The account's server could not be spoken to, or failed.
    CloudUnreachable {
        /// Why.
        error: String,
    },
    /// The account lacks something.
    CloudUnsent {
        /// Changes and reading events.
        changes: u64,
    },
    /// The account has something that is not here.
    CloudUnread {
        /// Changes and reading events.
        records: u64,
    },
    /// The account was not asked since this process began.
    CloudNotAsked,
    /// The account's server does not take it.
    CloudRefused {
        /// Why, in words.
        why: String,
    },
    /// A place was written again as often as it may be, and another one still counts.
    CloudPlaceLeft,
}

impl Reason {
    /// Returns what a person can do about it, if anything, with the commands of this program.
    pub const fn remedy(&self) -> Option<&'static str> {
        Some(match self {
            Self::NoPeers => "`catchword pair --show` here, and what it prints on the other device",
            Self::NotServing => "`catchword serve` syncs unasked, `catchword sync` now",
            Self::NoDiscovery { .. } => "give an address: `catchword sync --addr HOST:PORT`",
            Self::Unconfirmed | Self::NeverMet | Self::Unsent { .. } | Self::NotCompared => {
                "`catchword sync`, with the other device on the same network"
            }
            Self::Failed { .. } => {
                "see that the other device runs `catchword serve` on the same network, or give its \
                 address: `catchword sync --addr HOST:PORT`"
            }
            Self::Incomplete { .. } => "sync with the device that wrote it",
            Self::Deactivated(why) => match why {
                Deactivation::FingerprintMismatch | Deactivation::UnknownToPeer => {
                    "`catchword pair --show` to pair again, or `catchword peers trust PEER` to go on \
                     trusting the certificate it was paired with"
                }
                Deactivation::Malformed => "look at that device, then `catchword peers trust PEER`",
                Deactivation::KeysNotRestored => "`catchword pair --show` to pair again",
            },
            Self::ClockSkew { .. } => "set the clock of that device right",
            Self::ReadOnly => {
                "to take what it writes as well, `catchword peers scope` without `--read-only`"
            }
            Self::ReadOnlyThere => {
                "what is written here reaches others; on that device: `catchword peers scope` without \
                 `--read-only`"
            }
            Self::RemovedHere => "import its file again to have it back",
            Self::OutsideScope { .. } => "`catchword peers scope PEER --book BOOK`, or `--all`",
            Self::ExcludedThere { .. } => {
                "on that device: import the book's file again, or widen its scope for this one"
            }
            Self::Quarantined { .. } => "it is tried again afterwards; see what that device runs",
            Self::Forked { .. } => "one folder was copied or restored: keep one of the two",
            Self::CloudSignedOut => "`catchword cloud login` with the same server and name goes on",
            Self::CloudSignInAgain => {
                "`catchword cloud login` with the same server and name; nothing is lost meanwhile"
            }
            Self::CloudUnreachable { .. } => {
                "see that the server runs and that this device is online; it is tried again by itself"
            }
            Self::CloudUnsent { .. } | Self::CloudUnread { .. } | Self::CloudNotAsked => {
                "`catchword cloud sync`, or `catchword serve`, which does it by itself"
            }
            Self::CloudRefused { .. } => "`catchword cloud login` again tries once more",
            Self::CloudPlaceLeft => "turn a page in it, on the device whose place should count",
            Self::NewGeneration(_) => return None,
        })
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoPeers => f.write_str("no device is paired with this one"),
            Self::NotServing => f.write_str("no daemon runs: nothing syncs unasked"),
            Self::NoDiscovery { error } => write!(f, "devices near here are not found: {error}"),
            Self::NewGeneration(evidence) => {
                write!(f, "it continues as a new device: {evidence}")
            }
            Self::Unconfirmed => f.write_str("it has not confirmed the pairing yet"),
            Self::NeverMet => f.write_str("there was no sync with it yet"),
            Self::Failed { error } => write!(f, "the last sync failed: {error}"),
            Self::Unsent { peer, changes } => {
                write!(f, "{peer} has not confirmed {changes} changes")
            }
            Self::NotCompared => {
                f.write_str("both have not been found equal since the last change")
            }
            Self::Incomplete { peer, changes } => {
                write!(
                    f,
                    "{changes} changes that {peer} brought wait for a signature, or for what they build on"
                )
            }
            Self::Deactivated(why) => PeerState::Deactivated(*why).fmt(f),
            Self::ClockSkew { by_ms } => {
                let (seconds, word) =
                    (by_ms.unsigned_abs() / 1_000, if *by_ms < 0 { "behind" } else { "ahead" });
                write!(f, "its clock is {seconds} s {word}")
            }
            Self::ReadOnly => f.write_str("it gets books, and nothing is taken from it"),
            Self::ReadOnlyThere => {
                f.write_str("it gives books, and takes nothing from this device")
            }
            Self::RemovedHere => f.write_str("it was removed from this device"),
            Self::OutsideScope { peer } => write!(f, "{peer} does not get it"),
            Self::ExcludedThere { peer } => write!(f, "{peer} does not exchange it"),
            Self::Quarantined { peer, what, .. } => {
                write!(f, "what {peer} sent was refused, and is left alone for a while: {what}")
            }
            Self::Forked { own: true, peer } => {
                write!(f, "this device wrote two histories; {peer} brought the other")
            }
            Self::Forked { own: false, peer } => {
                write!(f, "a device wrote two histories; {peer} brought the second")
            }
            Self::CloudSignedOut => f.write_str("this library signed out"),
            Self::CloudSignInAgain => f.write_str("it does not know this device any more"),
            Self::CloudUnreachable { error } => f.write_str(error),
            Self::CloudUnsent { changes } => write!(f, "it lacks {changes} changes"),
            Self::CloudUnread { records } => {
                write!(f, "it has {records} changes that are not here")
            }
            Self::CloudNotAsked => f.write_str("it was not asked yet"),
            Self::CloudRefused { why } => write!(f, "the account does not take it: {why}"),
            Self::CloudPlaceLeft => {
                f.write_str("its place was written again three times, and another one counts")
            }
        }
    }
}

/// Says how everything stands, or what concerns one book.
pub(crate) fn status(shared: &Shared, book: Option<BookId>) -> Result<Vec<Status>, EditError> {
    let mut report = Report { shared, book, lines: Vec::new() };
    if book.is_none() {
        report.library();
    }
    for trouble in find(report.store(), shared.now_ms()).map_err(EditError::load)? {
        report.trouble(trouble)?;
    }
    report.removed()?;
    for record in shared.peers.records() {
        report.peer(&record)?;
    }
    Ok(report.lines)
}

struct Report<'a> {
    shared: &'a Shared,
    /// The one book that is asked about.
    book: Option<BookId>,
    lines: Vec<Status>,
}

impl Report<'_> {
    fn store(&self) -> &Store {
        &self.shared.library.core().store
    }

    fn add(&mut self, subject: Subject, state: State, reason: Reason, since_ms: Option<u64>) {
        self.lines.push(Status { subject, state, reason: Some(reason), since_ms });
    }

    fn library(&mut self) {
        let shared = self.shared;
        if let Some(evidence) = shared.library.opened().new_generation {
            self.add(Subject::Library, State::Noted, Reason::NewGeneration(evidence), None);
        }
        if shared.peers.records().iter().all(|record| record.state == PeerState::Revoked) {
            self.add(Subject::Library, State::Noted, Reason::NoPeers, None);
        } else if !shared.lasting {
            self.add(Subject::Library, State::Noted, Reason::NotServing, None);
        }
        let error = shared.discovery_error().as_ref().map(ToString::to_string);
        if let Some(error) = error {
            self.add(Subject::Library, State::Noted, Reason::NoDiscovery { error }, None);
        }
    }

    /// Says what does not count of what peers brought.
    fn trouble(&mut self, trouble: Trouble) -> Result<(), EditError> {
        if !self.is_meant(trouble.book) {
            return Ok(());
        }
        let peer = self.name_of(trouble.peer);
        let (subject, state, reason) = match trouble.why {
            Why::Refused { what, until_ms, .. } => {
                let reason = Reason::Quarantined { peer, what, until_ms };
                (self.subject(trouble.book)?, State::Stopped, reason)
            }
            Why::Forked { own, .. } => {
                (self.subject(trouble.book)?, State::Stopped, Reason::Forked { peer, own })
            }
            Why::Waiting { count } => {
                let reason = Reason::Incomplete { peer, changes: count };
                (self.subject(trouble.book)?, State::Waiting, reason)
            }
            Why::Ahead { device, by_ms } => {
                let names = self.store().devices().map_err(EditError::load)?;
                let name = names.get(&device).map(|named| named.name.clone()).unwrap_or_default();
                let by_ms = i64::try_from(by_ms).unwrap_or(i64::MAX);
                let reason = Reason::ClockSkew { by_ms };
                (Subject::Device { device, name }, State::Noted, reason)
            }
        };
        self.add(subject, state, reason, Some(trouble.since_ms));
        Ok(())
    }

    fn name_of(&self, peer: Fingerprint) -> String {
        let account = self.store().cloud_account().ok().flatten();
        if account.is_some_and(|account| origin_of(&account.login).peer == peer) {
            return "the account".to_owned();
        }
        let name = self.shared.peers.find(peer).map(|record| record.name).unwrap_or_default();
        if name.is_empty() { "that device".to_owned() } else { name }
    }

    fn removed(&mut self) -> Result<(), EditError> {
        let removed = self.store().removed().map_err(EditError::load)?;
        for (book, since_ms) in removed {
            if self.is_meant(Some(book)) {
                let subject = self.subject(Some(book))?;
                self.add(subject, State::Excluded, Reason::RemovedHere, Some(since_ms));
            }
        }
        Ok(())
    }

    fn is_meant(&self, book: Option<BookId>) -> bool {
        self.book.is_none() || self.book == book
    }

    fn subject(&self, book: Option<BookId>) -> Result<Subject, EditError> {
        let Some(book) = book else { return Ok(Subject::Library) };
        let summary = self.store().book(book).map_err(EditError::load)?;
        let title = summary.map(|summary| summary.title).unwrap_or_default();
        Ok(Subject::Book { book, title })
    }

    fn peer(&mut self, record: &PeerRecord) -> Result<(), EditError> {
        let name = &self.name_of(record.fingerprint);
        let subject = Subject::Peer { peer: record.fingerprint, name: record.name.clone() };
        match record.state {
            PeerState::Revoked => return Ok(()),
            PeerState::Deactivated(why) => {
                let reason = Reason::Deactivated(why);
                self.add(subject, State::Stopped, reason, Some(record.since_ms));
                return Ok(());
            }
            PeerState::Provisional => {
                let since_ms = Some(record.since_ms);
                self.add(subject, State::Waiting, Reason::Unconfirmed, since_ms);
                return Ok(());
            }
            PeerState::Active => (),
        }
        let Some(met) = self.met(record)? else {
            let outcome = self.failure(record.fingerprint);
            let (state, reason, since_ms) =
                outcome.unwrap_or((State::Waiting, Reason::NeverMet, record.since_ms));
            self.add(subject, state, reason, Some(since_ms));
            return Ok(());
        };
        self.books(name, &met)?;
        if record.skew_ms != 0 {
            let reason = Reason::ClockSkew { by_ms: record.skew_ms };
            self.add(subject.clone(), State::Noted, reason, record.last_ok_ms);
        }
        for (is_so, reason) in
            [(record.is_read_only, Reason::ReadOnly), (met.refuses, Reason::ReadOnlyThere)]
        {
            if is_so {
                self.add(subject.clone(), State::Noted, reason, None);
            }
        }
        self.agreement(record, subject, name, &met);
        Ok(())
    }

    /// Says whether the peer is in sync, of everything that both exchange or of the book.
    fn agreement(&mut self, record: &PeerRecord, subject: Subject, name: &str, met: &Met) {
        let since_ms = record.last_ok_ms;
        let of_book = self.book.map(BookId::document);
        let meant = |document: &DocumentId| of_book.is_none_or(|book| book == *document);
        let is_excluded = of_book.is_some_and(|book| {
            met.standing.excluded_here.contains(&book)
                || met.standing.excluded_there.contains(&book)
        });
        if is_excluded {
            return;
        }
        let unsent = met.standing.unsent.iter().filter(|(document, _)| meant(document));
        let changes: u64 = unsent.map(|(_, changes)| changes).sum();
        if let Some((state, reason, since_ms)) = self.failure(record.fingerprint) {
            self.add(subject, state, reason, Some(since_ms));
        } else if 0 < changes {
            let reason = Reason::Unsent { peer: name.to_owned(), changes };
            self.add(subject, State::Waiting, reason, since_ms);
        } else if met.agreed {
            self.lines.push(Status { subject, state: State::InSync, reason: None, since_ms });
        } else {
            self.add(subject, State::Waiting, Reason::NotCompared, since_ms);
        }
    }

    fn failure(&self, peer: Fingerprint) -> Option<(State, Reason, u64)> {
        let outcome = self.shared.meetings.outcome(peer)?;
        let error = outcome.failure?;
        Some((State::Failing, Reason::Failed { error }, outcome.since_ms))
    }

    /// Lists the books that are not exchanged with a peer, or that it does not have yet.
    fn books(&mut self, name: &str, met: &Met) -> Result<(), EditError> {
        let peer = || name.to_owned();
        let standing = &met.standing;
        let mut told = BTreeSet::new();
        for summary in self.store().books().map_err(EditError::load)? {
            let (book, document) = (summary.book, summary.book.document());
            if !self.is_meant(Some(book)) || !told.insert(book) {
                continue;
            }
            let subject = Subject::Book { book, title: summary.title };
            if met.outside.contains(&book) {
                self.add(subject, State::Excluded, Reason::OutsideScope { peer: peer() }, None);
            } else if standing.excluded_there.contains(&document) {
                self.add(subject, State::Excluded, Reason::ExcludedThere { peer: peer() }, None);
            } else if let Some(changes) = standing.unsent.get(&document) {
                let reason = Reason::Unsent { peer: peer(), changes: *changes };
                self.add(subject, State::Waiting, reason, None);
            }
        }
        Ok(())
    }

    /// Looks up what is known of a peer since it was met last.
    fn met(&self, record: &PeerRecord) -> Result<Option<Met>, EditError> {
        let store = self.store();
        let generation = store.peer_generation(record.fingerprint).map_err(EditError::load)?;
        let (Some(generation), Ok(Some(secret))) =
            (generation, self.shared.peers.secret(record.fingerprint))
        else {
            return Ok(None);
        };
        let ledger = self.shared.ledger(record, &secret);
        ledger.met(generation).map(Some)
    }
}

/// What is known of a peer since it was met last.
pub(crate) struct Met {
    pub(crate) standing: Standing,
    /// Books that are not in its scope.
    pub(crate) outside: BTreeSet<BookId>,
    pub(crate) agreed: bool,
    /// Whether it takes nothing from this device.
    pub(crate) refuses: bool,
}
