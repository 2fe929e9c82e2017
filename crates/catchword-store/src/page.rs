//! How redb lays out a file: the header, and the pages of a tree with the checksums of their children.
//!
//! ```text
//! header   magic (9 bytes), flags (1), 2 unused, page size (4), header pages of a region (4),
//!          data pages of a region (4), …; at 64 and at 192 a slot: version (1), is there a root (1),
//!          is there a system root (1), 5 unused, root (32), system root (32), 32 unused,
//!          transaction (8), …; at 112 of it the checksum of what is before
//! root     page number (8), checksum (16), length (8)
//! branch   2 (1), unused (1), keys (2), unused (4), the children's checksums (16 each), their page
//!          numbers (8 each), where keys end (4 each, unless they are of one width), keys
//! leaf     1 (1), unused (1), pairs (2), where keys end, where values end (4 each, unless they are of
//!          one width), keys, values
//! table    3 (1), length (8), is there a root (1), root (32), are keys of one width (1), which (4),
//!          are values (1), which (4), …
//! ```
//!
//! Numbers are little-endian. A checksum is XXH3 of the page up to its last value or key. The root of the
//! file is a tree from names to tables. Source: redb, `docs/design.md` and format version 3.
//!
//! Every reader returns `None` where bytes are not that: what is read here may be anything.

use twox_hash::XxHash3_128;

/// Length of the smallest page, and of what the header is in, in bytes.
pub(crate) const PAGE_BYTES: u64 = 4_096;
/// Bytes of the header that say something.
pub(crate) const HEADER_BYTES: usize = 320;

const MAGIC: &[u8; 9] = b"redb\x1A\x0A\xA9\x0D\x0A";
/// The only version of the format that is understood here.
const FORMAT: u8 = 3;
const SLOTS: [usize; 2] = [64, 192];
const SLOT_CHECKSUM_AT: usize = 112;
const LEAF: u8 = 1;
const BRANCH: u8 = 2;
const PLAIN_TABLE: u8 = 3;
const PRIMARY: u8 = 1;
const UNCLEAN: u8 = 2;
const TWO_PHASE: u8 = 4;
/// Largest order of a page: 2^20 times the smallest.
const ORDER_MAX: u64 = 20;

pub(crate) type Checksum = u128;

pub(crate) fn checksum(bytes: &[u8]) -> Checksum {
    XxHash3_128::oneshot(bytes)
}

/// Where a page is, and what it must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Root {
    pub(crate) page: PageNumber,
    pub(crate) checksum: Checksum,
}

/// A page as redb names it: its order, its region and its place there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PageNumber(u64);

/// What the pages of a tree hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tree {
    /// Length of every key, in bytes, if they have one.
    pub(crate) key: Option<u32>,
    /// Length of every value, in bytes, if they have one.
    pub(crate) value: Option<u32>,
    /// Whether the values are tables.
    pub(crate) of_tables: bool,
}

impl Tree {
    /// The tree from names to tables.
    pub(crate) const TABLES: Self = Self { key: None, value: None, of_tables: true };
}

/// How page numbers become places in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Geometry {
    header_pages: u64,
    data_pages: u64,
}

impl Geometry {
    /// Returns where a page begins in the file and how long it is, in bytes.
    pub(crate) fn place(self, page: PageNumber) -> Option<(u64, u64)> {
        let order = page.0 >> 59;
        let index = page.0 & (0xF_FFFF >> order.min(ORDER_MAX));
        let region = (page.0 >> 20) & 0xF_FFFF;
        let bytes = PAGE_BYTES << order.min(ORDER_MAX);
        let begin = region.checked_mul(self.header_pages + self.data_pages)?;
        let begin = begin.checked_add(1 + self.header_pages)?.checked_mul(PAGE_BYTES)?;
        let begin = begin.checked_add(index.checked_mul(bytes)?)?;
        (order <= ORDER_MAX).then_some((begin, bytes))
    }
}

/// One of the two commits that a header names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Slot {
    pub(crate) tables: Option<Root>,
    /// Tables of redb's own.
    pub(crate) system: Option<Root>,
    pub(crate) transaction: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) geometry: Geometry,
    /// Whether the file was not closed.
    pub(crate) is_unclean: bool,
    /// Whether everything the primary names was on the disk before it became the primary.
    pub(crate) is_two_phase: bool,
    /// The commit that counts. Absent if it does not match its own checksum.
    pub(crate) primary: Option<Slot>,
    pub(crate) secondary: Option<Slot>,
}

impl Header {
    /// Reads a header of the format that is understood here.
    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        let is_ours = bytes.get(..9)? == MAGIC
            && u64::from(number(bytes, 12)?) == PAGE_BYTES
            && SLOTS.iter().all(|at| bytes.get(*at) == Some(&FORMAT));
        if is_ours { Self::guess(bytes) } else { None }
    }

    /// Reads a header of which any byte may be wrong.
    pub(crate) fn guess(bytes: &[u8]) -> Option<Self> {
        let flags = *bytes.get(9)?;
        let geometry = Geometry {
            header_pages: u64::from(number(bytes, 16)?),
            data_pages: u64::from(number(bytes, 20)?),
        };
        let [first, second] = SLOTS.map(|at| bytes.get(at..at + 128).and_then(read_slot));
        let (primary, secondary) =
            if flags & PRIMARY == 0 { (first, second) } else { (second, first) };
        let (is_unclean, is_two_phase) = (flags & UNCLEAN != 0, flags & TWO_PHASE != 0);
        Some(Self { geometry, is_unclean, is_two_phase, primary, secondary })
    }
}

fn read_slot(bytes: &[u8]) -> Option<Slot> {
    let (covered, sum) = bytes.split_at_checked(SLOT_CHECKSUM_AT)?;
    if checksum(covered) != Checksum::from_le_bytes(sum.try_into().ok()?) {
        return None;
    }
    let root = |flag: usize, at: usize| match bytes.get(flag) {
        Some(0) | None => None,
        Some(_) => read_root(bytes, at),
    };
    let transaction = u64::from_le_bytes(*bytes.get(104..)?.first_chunk()?);
    Some(Slot { tables: root(1, 8), system: root(2, 40), transaction })
}

fn read_root(bytes: &[u8], at: usize) -> Option<Root> {
    let bytes = bytes.get(at..at + 24)?;
    let page = PageNumber(u64::from_le_bytes(*bytes.first_chunk()?));
    Some(Root { page, checksum: Checksum::from_le_bytes(*bytes.last_chunk()?) })
}

/// A page of a tree, with offsets that lie in it.
#[derive(Debug)]
pub(crate) struct Page<'a> {
    bytes: &'a [u8],
    tree: Tree,
    is_leaf: bool,
    /// Pairs of a leaf, keys of a branch.
    count: usize,
}

impl<'a> Page<'a> {
    /// Reads a page, if it has the checksum.
    pub(crate) fn read(bytes: &'a [u8], tree: Tree, expected: Checksum) -> Option<Self> {
        let is_leaf = match *bytes.first()? {
            LEAF => true,
            BRANCH => false,
            _ => return None,
        };
        let count = usize::from(u16::from_le_bytes(*bytes.get(2..)?.first_chunk()?));
        let page = Self { bytes, tree, is_leaf, count };
        let last = count.checked_sub(1)?;
        let end = if is_leaf { page.value_end(last)? } else { page.key_end(last)? };
        (checksum(bytes.get(..end)?) == expected).then_some(page)
    }

    /// Returns the children of a branch with the trees they belong to, and of a leaf of tables the roots.
    pub(crate) fn roots(&self) -> Vec<(Root, Tree)> {
        if !self.is_leaf {
            let children = self.children().into_iter();
            return children.map(|child| (child, self.tree)).collect();
        }
        if !self.tree.of_tables {
            return Vec::new();
        }
        self.pairs().filter_map(|(_, table)| read_table(table)).collect()
    }

    pub(crate) fn children(&self) -> Vec<Root> {
        if self.is_leaf {
            return Vec::new();
        }
        let child = |n: usize| {
            let checksum = self.bytes.get(8 + 16 * n..)?.first_chunk()?;
            let page = self.bytes.get(8 + 16 * (self.count + 1) + 8 * n..)?.first_chunk()?;
            let page = PageNumber(u64::from_le_bytes(*page));
            Some(Root { page, checksum: Checksum::from_le_bytes(*checksum) })
        };
        (0..=self.count).map_while(child).collect()
    }

    /// Returns the keys and values of a leaf.
    pub(crate) fn pairs(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        let count = if self.is_leaf { self.count } else { 0 };
        let (mut key_begins, mut value_begins) =
            (Some(self.keys_begin()), self.key_end(self.count - 1));
        (0..count).map_while(move |n| {
            let (key_ends, value_ends) = (self.key_end(n)?, self.value_end(n)?);
            let key = self.bytes.get(key_begins?..key_ends)?;
            let value = self.bytes.get(value_begins?..value_ends)?;
            (key_begins, value_begins) = (Some(key_ends), Some(value_ends));
            Some((key, value))
        })
    }

    /// Where offsets begin.
    fn offsets_begin(&self) -> usize {
        if self.is_leaf { 4 } else { 8 + 24 * (self.count + 1) }
    }

    fn keys_begin(&self) -> usize {
        let keys = usize::from(self.tree.key.is_none());
        let values = usize::from(self.is_leaf && self.tree.value.is_none());
        self.offsets_begin() + 4 * self.count * (keys + values)
    }

    fn key_end(&self, n: usize) -> Option<usize> {
        match self.tree.key {
            Some(width) => self.keys_begin().checked_add(width as usize * (n + 1)),
            None => Some(number(self.bytes, self.offsets_begin() + 4 * n)? as usize),
        }
    }

    fn value_end(&self, n: usize) -> Option<usize> {
        let keys = if self.tree.key.is_none() { 4 * self.count } else { 0 };
        match self.tree.value {
            Some(width) => {
                self.key_end(self.count.checked_sub(1)?)?.checked_add(width as usize * (n + 1))
            }
            None => Some(number(self.bytes, self.offsets_begin() + keys + 4 * n)? as usize),
        }
    }
}

/// Reads what a table is, if anything is in it.
pub(crate) fn read_table(bytes: &[u8]) -> Option<(Root, Tree)> {
    if *bytes.first()? != PLAIN_TABLE || *bytes.get(9)? == 0 {
        return None;
    }
    let width = |at: usize| match bytes.get(at)? {
        0 => Some(None),
        _ => number(bytes, at + 1).map(Some),
    };
    let tree = Tree { key: width(42)?, value: width(47)?, of_tables: false };
    Some((read_root(bytes, 10)?, tree))
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}
