//! Reading and writing the values of tables: numbers, texts and lists, one after the other.
//!
//! The disk is not our code: what does not read is damage, never a panic.

use crate::error::{LoadError, corrupt};

#[derive(Debug, Default)]
pub(crate) struct Writer(pub(crate) Vec<u8>);

impl Writer {
    pub(crate) fn with_capacity(bytes: usize) -> Self {
        Self(Vec::with_capacity(bytes))
    }

    pub(crate) fn byte(&mut self, byte: u8) -> &mut Self {
        self.0.push(byte);
        self
    }

    /// A number of one to ten bytes, seven bits each, least first.
    pub(crate) fn number(&mut self, mut value: u64) -> &mut Self {
        while 0x80 <= value {
            self.0.push((value & 0x7F) as u8 | 0x80);
            value >>= 7;
        }
        self.byte((value & 0x7F) as u8)
    }

    pub(crate) fn len(&mut self, len: usize) -> &mut Self {
        self.number(len as u64)
    }

    pub(crate) fn fixed(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }

    pub(crate) fn prefixed(&mut self, bytes: &[u8]) -> &mut Self {
        self.len(bytes.len()).fixed(bytes)
    }

    pub(crate) fn text(&mut self, text: &str) -> &mut Self {
        self.prefixed(text.as_bytes())
    }

    /// An optional text: 0, or its length plus one.
    pub(crate) fn optional(&mut self, text: Option<&str>) -> &mut Self {
        match text {
            None => self.byte(0),
            Some(text) => self.len(text.len() + 1).fixed(text.as_bytes()),
        }
    }
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn byte(&mut self) -> Result<u8, LoadError> {
        let (first, rest) = self.0.split_first().ok_or_else(cut_off)?;
        self.0 = rest;
        Ok(*first)
    }

    pub(crate) fn number(&mut self) -> Result<u64, LoadError> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7F) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(corrupt("a number has no end"))
    }

    pub(crate) fn small<T: TryFrom<u64>>(&mut self) -> Result<T, LoadError> {
        T::try_from(self.number()?).map_err(|_| corrupt("a number is out of range"))
    }

    pub(crate) fn fixed<const N: usize>(&mut self) -> Result<[u8; N], LoadError> {
        let (head, rest) = self.0.split_first_chunk().ok_or_else(cut_off)?;
        self.0 = rest;
        Ok(*head)
    }

    pub(crate) fn take(&mut self, len: usize) -> Result<&'a [u8], LoadError> {
        let (head, rest) = self.0.split_at_checked(len).ok_or_else(cut_off)?;
        self.0 = rest;
        Ok(head)
    }

    pub(crate) fn prefixed(&mut self) -> Result<&'a [u8], LoadError> {
        let len = self.small()?;
        self.take(len)
    }

    pub(crate) fn text(&mut self) -> Result<&'a str, LoadError> {
        std::str::from_utf8(self.prefixed()?).map_err(|_| corrupt("a text is not UTF-8"))
    }

    pub(crate) fn optional(&mut self) -> Result<Option<&'a str>, LoadError> {
        let len: usize = self.small()?;
        let Some(len) = len.checked_sub(1) else { return Ok(None) };
        let text = std::str::from_utf8(self.take(len)?);
        text.map(Some).map_err(|_| corrupt("a text is not UTF-8"))
    }

    /// The length of a list whose elements take at least a byte each.
    pub(crate) fn count(&mut self) -> Result<usize, LoadError> {
        let count: usize = self.small()?;
        if count <= self.0.len() { Ok(count) } else { Err(cut_off()) }
    }
}

fn cut_off() -> LoadError {
    corrupt("a value is cut off")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn values_round_trip(number in any::<u64>(), text in ".{0,40}", more in any::<Option<String>>()) {
            let mut writer = Writer::default();
            writer.number(number).text(&text).optional(more.as_deref()).fixed(&[1, 2]);
            let mut reader = Reader(&writer.0);
            prop_assert_eq!(reader.number().unwrap(), number);
            prop_assert_eq!(reader.text().unwrap(), text);
            prop_assert_eq!(reader.optional().unwrap(), more.as_deref());
            prop_assert_eq!(reader.fixed::<2>().unwrap(), [1, 2]);
            prop_assert!(reader.is_empty());
        }

        #[test]
        fn a_value_that_is_cut_off_is_damage_and_no_panic(bytes in any::<Vec<u8>>()) {
            let mut reader = Reader(&bytes);
            while reader.text().is_ok() && !reader.is_empty() {}
            let mut reader = Reader(&bytes);
            drop(reader.count().and_then(|_| reader.number()));
        }
    }
}
