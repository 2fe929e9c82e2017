//! Comparing the tables of the library with what was built again, in the order of their keys.

use std::cmp::Ordering;
use std::fmt::Write as _;

use catchword_model::change::Change;
use catchword_model::document::Document;
use catchword_model::exchange::Sum;
use catchword_model::hlc::Hlc;
use catchword_model::id::{Author, DeviceId};
use catchword_model::schema::DocumentKind;

use crate::check::{Check, DIFFERENCES_NAMED_MAX, Derived, FIRST_ID, Mismatch, Named};
use crate::doc::Doc;
use crate::error::{LoadError, load};
use crate::exchange::item_of;
use crate::log::{Found as Entry, Ordered, read_record};
use crate::rows::{decode_field, decode_row, id_key, row_id};
use crate::snapshot::Snapshot;

/// A key and a value, as bytes.
type Pair = (Vec<u8>, Vec<u8>);

impl Check<'_> {
    pub(super) fn compare(&mut self, named: &Named) -> Result<(), LoadError> {
        let Some(built) = self.rebuilt.disk()?.doc(named.number)? else { return Ok(()) };
        self.compare_document(named, &built);
        self.compare_rows(named, &built)?;
        self.compare_places(named)?;
        self.compare_fields(named, &built)?;
        self.compare_hashes(named)?;
        self.compare_chains(named, &built)?;
        match built.kind {
            DocumentKind::Notes => self.compare_journal(named),
            DocumentKind::Book | DocumentKind::Library => Ok(()),
        }
    }

    fn differs(&mut self, named: &Named, derived: Derived, mismatch: Mismatch, entry: String) {
        self.wrong.insert(named.number);
        self.note(Some(named.id), derived, mismatch, entry);
    }

    fn compare_document(&mut self, named: &Named, built: &Doc) {
        let derived = Derived::Documents;
        let Some(stored) = &named.stored else {
            self.differs(named, derived, Mismatch::Unreadable, String::new());
            return;
        };
        let aspects = [
            ("heads", stored.heads == built.heads),
            ("greatest operation", stored.max_op == built.max_op),
            ("writers", stored.writers == built.writers),
            ("upgrades", stored.upgrades == built.upgrades),
            ("summary", stored.summary == built.summary),
        ];
        for (aspect, _) in aspects.iter().filter(|(_, same)| !same) {
            self.differs(named, derived, Mismatch::Different, (*aspect).to_owned());
        }
    }

    fn compare_rows(&mut self, named: &Named, built: &Doc) -> Result<(), LoadError> {
        let number = named.number;
        let stored = |bytes: &Pair| {
            let doc = named.stored.as_ref()?;
            decode_row(doc, row_id(&bytes.0).ok()?, &bytes.1).ok()
        };
        let expected = |bytes: &Pair| decode_row(built, row_id(&bytes.0).ok()?, &bytes.1).ok();
        let ours = rows(self.disk, number)?;
        let theirs = rows(self.rebuilt.disk()?, number)?;
        let mut count = 0;
        let theirs = theirs.inspect(|_| count += 1);
        let found = merge(ours, theirs, |a, b| stored(a).is_some() && stored(a) == expected(b))?;
        self.report.annotations += count;
        self.differ(named, Derived::Annotations, found);
        Ok(())
    }

    fn compare_fields(&mut self, named: &Named, built: &Doc) -> Result<(), LoadError> {
        let number = named.number;
        let stored = |pair: &Pair| decode_field(named.stored.as_ref()?, &pair.1).ok();
        let expected = |pair: &Pair| decode_field(built, &pair.1).ok();
        let ours = fields(self.disk, number)?;
        let theirs = fields(self.rebuilt.disk()?, number)?;
        let found = merge(ours, theirs, |a, b| stored(a).is_some() && stored(a) == expected(b))?;
        self.differ(named, Derived::Fields, found);
        Ok(())
    }

    fn compare_places(&mut self, named: &Named) -> Result<(), LoadError> {
        let ours = places(self.disk, named.number)?;
        let theirs = places(self.rebuilt.disk()?, named.number)?;
        let found = merge(ours, theirs, |_, _| false)?;
        self.differ(named, Derived::Places, found);
        Ok(())
    }

    fn compare_hashes(&mut self, named: &Named) -> Result<(), LoadError> {
        let ours = hashes(self.disk, named.number)?;
        let theirs = hashes(self.rebuilt.disk()?, named.number)?;
        let found = merge(ours, theirs, |_, _| false)?;
        self.differ(named, Derived::Hashes, found);
        Ok(())
    }

    fn differ(&mut self, named: &Named, derived: Derived, found: Found) {
        for (mismatch, key) in found.first {
            self.differs(named, derived, mismatch, hex(&key));
        }
        self.report.differences += found.more;
    }

    /// A journal is what the notes document says when it is built from the log.
    fn compare_journal(&mut self, named: &Named) -> Result<(), LoadError> {
        let journal = self.journal(named)?;
        let stored = self.disk.texts.get(named.number).map_err(load)?;
        let stored = stored.map_or_else(String::new, |text| text.value().to_owned());
        match journal {
            None => {
                let (derived, mismatch) = (Derived::Journals, Mismatch::Unreadable);
                self.note(Some(named.id), derived, mismatch, String::new());
            }
            Some(journal) if journal != stored => {
                self.differs(named, Derived::Journals, Mismatch::Different, String::new());
            }
            Some(_) => (),
        }
        Ok(())
    }

    /// Builds a notes document from its log and returns its journal; `None` if it does not load.
    pub(super) fn journal(&self, named: &Named) -> Result<Option<String>, LoadError> {
        let mut changes = Vec::new();
        let mut log = Ordered::of(self.disk, named.number)?;
        while let Some(found) = log.next()? {
            match found {
                Entry::Change(logged) => changes.push(logged.change),
                Entry::Leftover(_) => (),
                Entry::Damaged(_, error) => return Err(error),
            }
        }
        let nobody = Author { device: DeviceId([0; 16]), n: 0 };
        let bytes = changes.iter().map(Change::bytes);
        let document = Document::load(DocumentKind::Notes, bytes, nobody, named.id);
        Ok(document.ok().map(|document| document.journal()))
    }

    /// Chains may be grouped into blocks; what they say of each change must be the same.
    fn compare_chains(&mut self, named: &Named, built: &Doc) -> Result<(), LoadError> {
        for (place, writer) in (0..).zip(&built.writers) {
            let last = writer.last.map_or(0, |last| last.seq);
            let mut next = 1;
            while next <= last {
                if let Some(count) = self.compare_chain(named.number, place, next)? {
                    next += count;
                } else {
                    let entry = format!("{} {next}", writer.actor);
                    self.differs(named, Derived::Chains, Mismatch::Different, entry);
                    next += 1;
                }
            }
            let after = (named.number, place, last + 1)..=(named.number, place, u32::MAX);
            if self.disk.chains.range(after).map_err(load)?.next().is_some() {
                let entry = format!("{} {}", writer.actor, last + 1);
                self.differs(named, Derived::Chains, Mismatch::Unexpected, entry);
            }
        }
        Ok(())
    }

    /// Compares the entry that begins at `first`, and returns how many changes it covers; `None` if
    /// there is none or it is wrong.
    fn compare_chain(
        &self,
        number: u32,
        writer: u16,
        first: u32,
    ) -> Result<Option<u32>, LoadError> {
        let stored = match self.disk.chain(number, writer, first..=first) {
            Ok(Some((_, chain))) if 0 < chain.count => chain,
            Ok(_) | Err(LoadError::Corrupt { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        let rebuilt = self.rebuilt.disk()?;
        for seq in first..first.saturating_add(stored.count) {
            let Some((_, chain)) = rebuilt.chain(number, writer, seq..=seq)? else {
                return Ok(None);
            };
            let same = chain.clock(seq) == stored.clock(seq)
                && (seq != first
                    || (chain.start_op, chain.clock_before)
                        == (stored.start_op, stored.clock_before))
                && (stored.count != 1 || chain.log == stored.log);
            if !same {
                return Ok(None);
            }
        }
        if 1 < stored.count && !self.is_block_of(number, stored.log, first, stored.count)? {
            return Ok(None);
        }
        Ok(Some(stored.count))
    }

    /// Returns whether the record holds these changes. Whose they are was verified by their hashes.
    fn is_block_of(
        &self,
        number: u32,
        log: u64,
        first: u32,
        count: u32,
    ) -> Result<bool, LoadError> {
        let Some(record) = self.disk.record(number, log)? else { return Ok(false) };
        let Ok(changes) = read_record(log, &record) else { return Ok(false) };
        let begins = changes.first().map(|(_, change)| change.seq);
        Ok(begins == Some(u64::from(first)) && changes.len() == count as usize)
    }

    /// Books are listed by when they were read last; those whose log is damaged as they say themselves.
    pub(super) fn compare_recent(&mut self) -> Result<(), LoadError> {
        let expected = self.recent()?;
        let mut stored = Vec::new();
        for found in self.disk.recent.range::<(u64, u32)>(..).map_err(load)? {
            let (key, ()) = found.map(|(key, _)| (key.value(), ())).map_err(load)?;
            stored.push(key);
        }
        let name = |(stamp, number): &(u64, u32)| format!("{stamp} {number}");
        for key in expected.iter().filter(|key| stored.binary_search(key).is_err()) {
            self.note(None, Derived::Recent, Mismatch::Missing, name(key));
        }
        for key in stored.iter().filter(|key| expected.binary_search(key).is_err()) {
            self.note(None, Derived::Recent, Mismatch::Unexpected, name(key));
        }
        Ok(())
    }

    /// Returns what the list of books by last reading must be.
    pub(super) fn recent(&self) -> Result<Vec<(u64, u32)>, LoadError> {
        let mut recent = Vec::new();
        let rebuilt = self.rebuilt.disk()?;
        for found in rebuilt.books.range::<u32>(..).map_err(load)? {
            let (number, bytes) = found.map_err(load)?;
            let number = number.value();
            let built = Doc::decode(number, bytes.value())?;
            let damaged = self.broken.contains(&number);
            let stored = damaged.then(|| self.disk.doc(number).ok().flatten()).flatten();
            let doc = stored.unwrap_or(built);
            if doc.kind == DocumentKind::Book {
                recent.push((Hlc::packed(doc.summary.last_read), number));
            }
        }
        recent.sort_unstable();
        Ok(recent)
    }

    /// The sum of all documents is that of the documents as they are stored: each is compared by itself.
    pub(super) fn compare_sum(&mut self) -> Result<(), LoadError> {
        let Some(kept) = self.disk.kept_sum()? else { return Ok(()) };
        let mut sum = Sum::default();
        for found in self.disk.books.range::<u32>(..).map_err(load)? {
            let (number, bytes) = found.map_err(load)?;
            // One that does not read is named already, and makes the sum another one.
            let Ok(doc) = Doc::decode(number.value(), bytes.value()) else { return Ok(()) };
            if let Some(item) = item_of(&doc) {
                sum.add(&item);
            }
        }
        if kept != sum {
            self.note(None, Derived::Documents, Mismatch::Different, "sum".to_owned());
        }
        Ok(())
    }

    pub(super) fn compare_next_number(&mut self) -> Result<(), LoadError> {
        let next = self.disk.meta_number(crate::meta::NEXT_SEQUENCE)?;
        if next <= self.last_sequence {
            let (derived, mismatch) = (Derived::NextNumber, Mismatch::Different);
            self.note(None, derived, mismatch, next.to_string());
        }
        Ok(())
    }
}

/// Where two tables differ: the first keys, and how many more there are.
#[derive(Default)]
struct Found {
    first: Vec<(Mismatch, Vec<u8>)>,
    more: u64,
}

impl Found {
    fn note(&mut self, mismatch: Mismatch, key: Option<Vec<u8>>) {
        match key {
            Some(key) if self.first.len() < DIFFERENCES_NAMED_MAX => {
                self.first.push((mismatch, key));
            }
            _ => self.more += 1,
        }
    }
}

/// Walks both sides in the order of their keys and returns where they differ.
///
/// Values whose bytes differ are the same if `same` says so.
fn merge(
    stored: impl Iterator<Item = Result<Pair, LoadError>>,
    built: impl Iterator<Item = Result<Pair, LoadError>>,
    same: impl Fn(&Pair, &Pair) -> bool,
) -> Result<Found, LoadError> {
    let mut found = Found::default();
    let (mut stored, mut built) = (stored, built);
    let (mut ours, mut theirs) = (stored.next().transpose()?, built.next().transpose()?);
    loop {
        let order = match (&ours, &theirs) {
            (None, None) => return Ok(found),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(a), Some(b)) => a.0.cmp(&b.0),
        };
        match order {
            Ordering::Less => {
                found.note(Mismatch::Unexpected, ours.map(|(key, _)| key));
                ours = stored.next().transpose()?;
            }
            Ordering::Greater => {
                found.note(Mismatch::Missing, theirs.map(|(key, _)| key));
                theirs = built.next().transpose()?;
            }
            Ordering::Equal => {
                if let (Some(a), Some(b)) = (&ours, &theirs)
                    && a.1 != b.1
                    && !same(a, b)
                {
                    found.note(Mismatch::Different, Some(a.0.clone()));
                }
                (ours, theirs) = (stored.next().transpose()?, built.next().transpose()?);
            }
        }
    }
}

fn rows(
    disk: &Snapshot,
    number: u32,
) -> Result<impl Iterator<Item = Result<Pair, LoadError>>, LoadError> {
    let (start, end) = (number.to_be_bytes(), number.saturating_add(1).to_be_bytes());
    let range = disk.rows.range(start.as_slice()..end.as_slice()).map_err(load)?;
    Ok(range.map(|found| {
        found.map(|(key, value)| (key.value().to_vec(), value.value().to_vec())).map_err(load)
    }))
}

fn fields(
    disk: &Snapshot,
    number: u32,
) -> Result<impl Iterator<Item = Result<Pair, LoadError>>, LoadError> {
    let (start, end) = (number.to_be_bytes(), number.saturating_add(1).to_be_bytes());
    let range = disk.fields.range(start.as_slice()..end.as_slice()).map_err(load)?;
    Ok(range.map(|found| {
        found.map(|(key, value)| (key.value().to_vec(), value.value().to_vec())).map_err(load)
    }))
}

fn places(
    disk: &Snapshot,
    number: u32,
) -> Result<impl Iterator<Item = Result<Pair, LoadError>>, LoadError> {
    let (start, end) = (id_key(number, FIRST_ID), id_key(number.saturating_add(1), FIRST_ID));
    let range = disk.ids.range::<&[u8; 20]>(&start..&end).map_err(load)?;
    Ok(range.map(|found| {
        found.map(|(key, value)| (key.value().to_vec(), value.value().to_vec())).map_err(load)
    }))
}

fn hashes(
    disk: &Snapshot,
    number: u32,
) -> Result<impl Iterator<Item = Result<Pair, LoadError>>, LoadError> {
    let range = (number, 0, 0, 0)..(number.saturating_add(1), 0, 0, 0);
    let range = disk.hashes.range(range).map_err(load)?;
    Ok(range.map(|found| {
        let (key, _) = found.map_err(load)?;
        let (_, prefix, writer, seq) = key.value();
        let mut bytes = prefix.to_be_bytes().to_vec();
        bytes.extend_from_slice(&writer.to_be_bytes());
        bytes.extend_from_slice(&seq.to_be_bytes());
        Ok((bytes, Vec::new()))
    }))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
