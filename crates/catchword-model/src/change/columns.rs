//! The run-length coded columns of a change, and the numbers they are made of.
//!
//! Decoding never expands more than the caller allows, however few bytes claim it: a few hundred
//! bytes can stand for millions of rows. It accepts more spellings than encoding produces; the
//! reader compares the bytes encoded again, so that one change has one spelling.
//!
//! # Source
//!
//! Automerge's binary format, as written by automerge 0.12: LEB128 numbers; a run is a positive
//! count and a value, a literal run a negative count and as many values, a run of nulls a zero and
//! a count; booleans are counts that alternate, false first; deltas are runs of differences.

use super::read::ReadError;

/// The part of the input that has not been read yet.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Input<'a>(pub(crate) &'a [u8]);

impl<'a> Input<'a> {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn take(&mut self, len: usize) -> Result<&'a [u8], ReadError> {
        let (head, rest) = self.0.split_at_checked(len).ok_or(ReadError::Truncated)?;
        self.0 = rest;
        Ok(head)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], ReadError> {
        let (head, rest) = self.0.split_first_chunk().ok_or(ReadError::Truncated)?;
        self.0 = rest;
        Ok(*head)
    }

    fn byte(&mut self) -> Result<u8, ReadError> {
        let (first, rest) = self.0.split_first().ok_or(ReadError::Truncated)?;
        self.0 = rest;
        Ok(*first)
    }

    pub(crate) fn unsigned(&mut self) -> Result<u64, ReadError> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7F);
            if shift == 63 && 1 < bits {
                break;
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(ReadError::Number)
    }

    pub(crate) fn signed(&mut self) -> Result<i64, ReadError> {
        let mut value = 0_i64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            if shift == 63 && byte != 0 && byte != 0x7F {
                break;
            }
            value |= i64::from(byte & 0x7F) << shift;
            if byte < 0x80 {
                if shift < 57 && byte & 0x40 != 0 {
                    value |= -1_i64 << (shift + 7);
                }
                return Ok(value);
            }
        }
        Err(ReadError::Number)
    }

    /// Reads a length that something in the same buffer must have.
    pub(crate) fn len(&mut self) -> Result<usize, ReadError> {
        let len = usize::try_from(self.unsigned()?).map_err(|_| ReadError::Number)?;
        if len <= self.0.len() { Ok(len) } else { Err(ReadError::Truncated) }
    }

    pub(crate) fn prefixed(&mut self) -> Result<&'a [u8], ReadError> {
        let len = self.len()?;
        self.take(len)
    }
}

pub(crate) fn write_unsigned(out: &mut Vec<u8>, mut value: u64) {
    loop {
        let byte = (value & 0x7F) as u8;
        value >>= 7;
        if value == 0 {
            out.push(byte);
            return;
        }
        out.push(byte | 0x80);
    }
}

pub(crate) fn write_len(out: &mut Vec<u8>, len: usize) {
    write_unsigned(out, len as u64);
}

pub(crate) fn write_signed(out: &mut Vec<u8>, mut value: i64) {
    loop {
        let byte = (value.cast_unsigned() & 0x7F) as u8;
        value >>= 7;
        let done = (value == 0 && byte & 0x40 == 0) || (value == -1 && byte & 0x40 != 0);
        if done {
            out.push(byte);
            return;
        }
        out.push(byte | 0x80);
    }
}

pub(crate) fn write_prefixed(out: &mut Vec<u8>, bytes: &[u8]) {
    write_len(out, bytes.len());
    out.extend_from_slice(bytes);
}

/// A value of a run-length coded column.
pub(crate) trait Cell<'a>: Copy + PartialEq {
    fn write(self, out: &mut Vec<u8>);
    fn read(input: &mut Input<'a>) -> Result<Self, ReadError>;
}

impl<'a> Cell<'a> for u64 {
    fn write(self, out: &mut Vec<u8>) {
        write_unsigned(out, self);
    }

    fn read(input: &mut Input<'a>) -> Result<Self, ReadError> {
        input.unsigned()
    }
}

impl<'a> Cell<'a> for i64 {
    fn write(self, out: &mut Vec<u8>) {
        write_signed(out, self);
    }

    fn read(input: &mut Input<'a>) -> Result<Self, ReadError> {
        input.signed()
    }
}

impl<'a> Cell<'a> for &'a str {
    fn write(self, out: &mut Vec<u8>) {
        write_prefixed(out, self.as_bytes());
    }

    fn read(input: &mut Input<'a>) -> Result<Self, ReadError> {
        std::str::from_utf8(input.prefixed()?).map_err(|_| ReadError::Text)
    }
}

/// Appends a column of runs. A column of nulls alone is empty.
pub(crate) fn write_runs<'a, T, R>(out: &mut Vec<u8>, rows: R)
where
    T: Cell<'a>,
    R: Iterator<Item = Option<T>> + Clone,
{
    if rows.clone().all(|row| row.is_none()) {
        return;
    }
    let mut rest = rows;
    // The values since `literal` of which no two neighbours are equal.
    let (mut literal, mut waiting) = (rest.clone(), 0);
    loop {
        let mut ahead = rest.clone();
        let Some(first) = ahead.next() else { break };
        let more = ahead.clone().take_while(|row| *row == first).count();
        if let (Some(_), 0) = (&first, more) {
            waiting += 1;
            rest = ahead;
            continue;
        }
        write_literal(out, literal, waiting);
        if let Some(value) = first {
            write_signed(out, (more + 1).cast_signed() as i64);
            value.write(out);
        } else {
            write_signed(out, 0);
            write_len(out, more + 1);
        }
        rest = ahead;
        if let Some(last) = more.checked_sub(1) {
            rest.nth(last);
        }
        (literal, waiting) = (rest.clone(), 0);
    }
    write_literal(out, literal, waiting);
}

fn write_literal<'a, T, R>(out: &mut Vec<u8>, literal: R, len: usize)
where
    T: Cell<'a>,
    R: Iterator<Item = Option<T>>,
{
    if 0 < len {
        write_signed(out, -(len.cast_signed() as i64));
        literal.take(len).flatten().for_each(|value| value.write(out));
    }
}

/// Reads a column of runs of at most `rows_max` rows.
pub(crate) fn read_runs<'a, T: Cell<'a>>(
    column: &'a [u8],
    rows_max: usize,
) -> Result<Vec<Option<T>>, ReadError> {
    let mut input = Input(column);
    let mut rows = Vec::new();
    while !input.is_empty() {
        let count = input.signed()?;
        let len = match count {
            0 => input.unsigned()?,
            _ => count.unsigned_abs(),
        };
        let len = usize::try_from(len).map_err(|_| ReadError::TooLarge)?;
        if len == 0 {
            return Err(ReadError::Column);
        }
        if rows_max.saturating_sub(rows.len()) < len {
            return Err(ReadError::TooLarge);
        }
        match count {
            0 => rows.resize(rows.len() + len, None),
            1.. => {
                let value = T::read(&mut input)?;
                rows.resize(rows.len() + len, Some(value));
            }
            _ => {
                for _ in 0..len {
                    rows.push(Some(T::read(&mut input)?));
                }
            }
        }
    }
    Ok(rows)
}

/// Appends a column of differences, each to the value before it that was not null.
pub(crate) fn write_deltas(out: &mut Vec<u8>, rows: impl Iterator<Item = Option<i64>> + Clone) {
    if rows.clone().all(|row| row.is_none()) {
        return;
    }
    let mut before = 0_i64;
    let mut delta = |value: i64| {
        let delta = value.saturating_sub(before);
        before = value;
        delta
    };
    let deltas: Vec<Option<i64>> = rows.map(|row| row.map(&mut delta)).collect();
    write_runs(out, deltas.iter().copied());
}

pub(crate) fn read_deltas(column: &[u8], rows_max: usize) -> Result<Vec<Option<i64>>, ReadError> {
    let mut before = 0_i64;
    let mut rows = read_runs::<i64>(column, rows_max)?;
    for value in rows.iter_mut().flatten() {
        before = before.checked_add(*value).ok_or(ReadError::Number)?;
        *value = before;
    }
    Ok(rows)
}

pub(crate) fn write_booleans(out: &mut Vec<u8>, rows: impl Iterator<Item = bool>) {
    let mut last = false;
    let mut count = 0;
    for row in rows {
        if row != last {
            write_len(out, count);
            last = row;
            count = 0;
        }
        count += 1;
    }
    if 0 < count {
        write_len(out, count);
    }
}

pub(crate) fn read_booleans(column: &[u8], rows_max: usize) -> Result<Vec<bool>, ReadError> {
    let mut input = Input(column);
    let mut rows = Vec::new();
    let mut value = false;
    while !input.is_empty() {
        let len = usize::try_from(input.unsigned()?).map_err(|_| ReadError::TooLarge)?;
        if rows_max.saturating_sub(rows.len()) < len {
            return Err(ReadError::TooLarge);
        }
        rows.resize(rows.len() + len, value);
        value = !value;
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_run_longer_than_allowed_is_refused_before_it_is_expanded() {
        let mut column = Vec::new();
        write_signed(&mut column, i64::MAX);
        write_unsigned(&mut column, 1);
        assert_eq!(read_runs::<u64>(&column, 50_000), Err(ReadError::TooLarge));
    }

    #[test]
    fn numbers_that_do_not_fit_are_refused() {
        assert_eq!(Input(&[0xFF; 11]).unsigned(), Err(ReadError::Number));
        assert_eq!(Input(&[0xFF; 11]).signed(), Err(ReadError::Number));
        assert_eq!(Input(&[0x80]).unsigned(), Err(ReadError::Truncated));
    }

    proptest! {
        #[test]
        fn numbers_round_trip(unsigned in any::<u64>(), signed in any::<i64>()) {
            let mut out = Vec::new();
            write_unsigned(&mut out, unsigned);
            write_signed(&mut out, signed);
            let mut input = Input(&out);
            prop_assert_eq!(input.unsigned(), Ok(unsigned));
            prop_assert_eq!(input.signed(), Ok(signed));
            prop_assert!(input.is_empty());
        }

        #[test]
        fn columns_round_trip(
            numbers in proptest::collection::vec(proptest::option::of(0..4_u64), 0..40),
            deltas in proptest::collection::vec(proptest::option::of(-3..3_i64), 0..40),
            booleans in proptest::collection::vec(any::<bool>(), 0..40),
        ) {
            let mut out = Vec::new();
            write_runs(&mut out, numbers.iter().copied());
            let read = read_runs::<u64>(&out, 40).unwrap();
            prop_assert!(read == numbers || (out.is_empty() && numbers.iter().all(Option::is_none)));

            out.clear();
            write_deltas(&mut out, deltas.iter().copied());
            let read = read_deltas(&out, 40).unwrap();
            prop_assert!(read == deltas || (out.is_empty() && deltas.iter().all(Option::is_none)));

            out.clear();
            write_booleans(&mut out, booleans.iter().copied());
            prop_assert_eq!(read_booleans(&out, 40).unwrap(), booleans);
        }
    }
}
