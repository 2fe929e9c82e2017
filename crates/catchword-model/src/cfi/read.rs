//! The grammar of a CFI: text in, pieces out, or the place where it goes wrong.

use super::{
    Assertion, CfiError, Decimal, Ends, FRACTION_DIGITS_MAX, Offset, Parameter, Piece, SPECIAL,
    Spot,
};

/// Reads from the front of what is left.
pub(super) struct Reader<'a> {
    rest: &'a str,
    length: usize,
}

impl<'a> Reader<'a> {
    /// Begins at the first byte inside the wrapping.
    pub(super) fn new(bare: &'a str) -> Self {
        Self { rest: bare, length: bare.len() }
    }

    /// Reads the path: of a point all there is, of a range what both ends share.
    pub(super) fn path(&mut self) -> Result<Vec<Piece>, CfiError> {
        if !self.rest.starts_with('/') {
            return Err(self.malformed("a step"));
        }
        self.local_path()
    }

    /// Reads what follows the path: the two parts of a range, or nothing.
    pub(super) fn range(&mut self, parent: &[Piece]) -> Result<Option<Ends>, CfiError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        self.ends(parent).map(Some)
    }

    fn at(&self) -> usize {
        self.length.saturating_sub(self.rest.len())
    }

    fn malformed(&self, expected: &'static str) -> CfiError {
        CfiError::Malformed { at: self.at(), expected }
    }

    fn eat(&mut self, wanted: char) -> bool {
        let after = self.rest.strip_prefix(wanted);
        self.rest = after.unwrap_or(self.rest);
        after.is_some()
    }

    fn take_char(&mut self) -> Option<char> {
        let mut chars = self.rest.chars();
        let first = chars.next();
        self.rest = chars.as_str();
        first
    }

    fn take_digits(&mut self) -> &'a str {
        let rest = self.rest.trim_start_matches(|c: char| c.is_ascii_digit());
        let digits = self.rest.strip_suffix(rest).unwrap_or_default();
        self.rest = rest;
        digits
    }

    /// Reads the two parts of a range, up to the end of the text.
    fn ends(&mut self, parent: &[Piece]) -> Result<Ends, CfiError> {
        if matches!(parent.last(), Some(Piece::Offset { .. })) {
            return Err(self.malformed("the end, after an offset"));
        }
        if !self.eat(',') {
            return Err(self.malformed("a step, an offset or a range"));
        }
        let start = self.local_path()?;
        if !self.eat(',') {
            return Err(self.malformed("the second part of the range"));
        }
        let end = self.local_path()?;
        if end.is_empty() {
            return Err(self.malformed("the end of the range"));
        }
        if !self.rest.is_empty() {
            return Err(self.malformed("nothing after the range"));
        }
        Ok(Ends { start, end })
    }

    fn local_path(&mut self) -> Result<Vec<Piece>, CfiError> {
        let mut pieces = Vec::new();
        loop {
            if self.eat('/') {
                let number = self.integer()?;
                pieces.push(Piece::Step { number, assertion: self.assertion()? });
            } else if self.eat('!') {
                pieces.push(Piece::Indirection);
            } else {
                break;
            }
        }
        if let Some(offset) = self.offset()? {
            pieces.push(Piece::Offset { offset, assertion: self.assertion()? });
        }
        Ok(pieces)
    }

    fn offset(&mut self) -> Result<Option<Offset>, CfiError> {
        if self.eat(':') {
            return Ok(Some(Offset::Character(self.integer()?)));
        }
        let seconds = if self.eat('~') { Some(self.decimal()?) } else { None };
        let spot = if self.eat('@') { Some(self.spot()?) } else { None };
        let found = seconds.is_some() || spot.is_some();
        Ok(found.then_some(Offset::Media { seconds, spot }))
    }

    fn spot(&mut self) -> Result<Spot, CfiError> {
        let x = self.decimal()?;
        if !self.eat(':') {
            return Err(self.malformed("a colon between the two numbers"));
        }
        Ok(Spot { y: self.decimal()?, x })
    }

    fn integer(&mut self) -> Result<u32, CfiError> {
        let digits = self.take_digits();
        if digits.is_empty() {
            return Err(self.malformed("a digit"));
        }
        if digits != "0" && digits.starts_with('0') {
            return Err(self.malformed("a number without leading zero"));
        }
        digits.parse().map_err(|_| CfiError::NumberOutOfRange { at: self.at() })
    }

    fn decimal(&mut self) -> Result<Decimal, CfiError> {
        let whole = self.integer()?;
        if !self.eat('.') {
            return Ok(Decimal { whole, fraction: 0 });
        }
        let digits = self.take_digits();
        if digits.is_empty() || digits.ends_with('0') {
            return Err(self.malformed("a fraction that does not end in zero"));
        }
        if FRACTION_DIGITS_MAX < digits.len() {
            return Err(CfiError::NumberOutOfRange { at: self.at() });
        }
        let fraction = format!("{digits:0<FRACTION_DIGITS_MAX$}")
            .parse()
            .map_err(|_| CfiError::NumberOutOfRange { at: self.at() })?;
        Ok(Decimal { whole, fraction })
    }

    fn assertion(&mut self) -> Result<Option<Assertion>, CfiError> {
        if !self.eat('[') {
            return Ok(None);
        }
        let mut values = self.values()?;
        if values.iter().eq([""]) {
            values.clear();
        }
        let mut parameters = Vec::new();
        while self.eat(';') {
            parameters.push(self.parameter()?);
        }
        if !self.eat(']') {
            return Err(self.malformed("a closing bracket"));
        }
        if values.is_empty() && parameters.is_empty() {
            return Err(self.malformed("brackets with something in them"));
        }
        Ok(Some(Assertion { values, parameters }))
    }

    fn parameter(&mut self) -> Result<Parameter, CfiError> {
        let name = self.value()?;
        if name.is_empty() || !self.eat('=') {
            return Err(self.malformed("a parameter's name and an equals sign"));
        }
        let values = self.values()?;
        if values.iter().eq([""]) {
            return Err(self.malformed("a parameter's value"));
        }
        Ok(Parameter { name, values })
    }

    /// Reads values with commas between them: one at least, which may be empty.
    fn values(&mut self) -> Result<Vec<String>, CfiError> {
        let mut values = vec![self.value()?];
        while self.eat(',') {
            values.push(self.value()?);
        }
        Ok(values)
    }

    fn value(&mut self) -> Result<String, CfiError> {
        let mut value = String::new();
        loop {
            if self.eat('^') {
                if !self.rest.starts_with(SPECIAL) {
                    return Err(self.malformed("a special character after ^"));
                }
                value.extend(self.take_char());
            } else if self.rest.is_empty() || self.rest.starts_with(SPECIAL) {
                return Ok(value);
            } else {
                value.extend(self.take_char());
            }
        }
    }
}
