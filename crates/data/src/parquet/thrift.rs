//! The compact protocol of Thrift, in which the footers and page headers of parquet are written:
//! <https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md>.

/// A value, or what is malformed.
pub(crate) type Parsed<T> = Result<T, String>;

pub(crate) const TRUE: u8 = 1;
pub(crate) const FALSE: u8 = 2;
const BYTE: u8 = 3;
const I16: u8 = 4;
pub(crate) const I32: u8 = 5;
pub(crate) const I64: u8 = 6;
const DOUBLE: u8 = 7;
pub(crate) const BINARY: u8 = 8;
pub(crate) const LIST: u8 = 9;
const SET: u8 = 10;
const MAP: u8 = 11;
pub(crate) const STRUCT: u8 = 12;

/// Deepest nesting of structures and lists; parquet's own have 7.
const MAX_DEPTH: u32 = 32;

/// Reads values one after the other.
pub(crate) struct Thrift<'a> {
    bytes: &'a [u8],
    at: usize,
    depth: u32,
}

impl<'a> Thrift<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0, depth: 0 }
    }

    /// Number of bytes read.
    pub(crate) fn position(&self) -> usize {
        self.at
    }

    fn byte(&mut self) -> Parsed<u8> {
        let byte = *self.bytes.get(self.at).ok_or("a structure ends early")?;
        self.at += 1;
        Ok(byte)
    }

    fn unsigned(&mut self) -> Parsed<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err("a number has more than 64 bits".to_owned())
    }

    /// An integer of any size.
    pub(crate) fn int(&mut self) -> Parsed<i64> {
        self.unsigned().map(unzigzag)
    }

    /// An integer that must not be negative.
    pub(crate) fn size(&mut self) -> Parsed<u64> {
        let value = self.int()?;
        u64::try_from(value).map_err(|_| format!("a size is {value}"))
    }

    pub(crate) fn binary(&mut self) -> Parsed<&'a [u8]> {
        let len = usize::try_from(self.unsigned()?).unwrap_or(usize::MAX);
        let end = self.at.checked_add(len).filter(|end| *end <= self.bytes.len()).ok_or("a text ends early")?;
        let bytes = &self.bytes[self.at..end];
        self.at = end;
        Ok(bytes)
    }

    pub(crate) fn text(&mut self) -> Parsed<&'a str> {
        std::str::from_utf8(self.binary()?).map_err(|_| "a name is not UTF-8".to_owned())
    }

    /// Reads the fields of a structure. `each` gets the number and the type of a field, reads its value and returns
    /// true; a field for which it returns false is passed over.
    pub(crate) fn fields(&mut self, mut each: impl FnMut(&mut Self, i64, u8) -> Parsed<bool>) -> Parsed<()> {
        self.enter()?;
        let mut id = 0;
        loop {
            let byte = self.byte()?;
            if byte == 0 {
                break;
            }
            id = match byte >> 4 {
                0 => self.int()?,
                delta => i64::wrapping_add(id, i64::from(delta)),
            };
            if !each(self, id, byte & 15)? {
                self.skip(byte & 15)?;
            }
        }
        self.depth -= 1;
        Ok(())
    }

    /// Reads a list with entries of type `kind`.
    pub(crate) fn list(&mut self, kind: u8, mut each: impl FnMut(&mut Self) -> Parsed<()>) -> Parsed<()> {
        let (len, found) = self.list_header()?;
        if found != kind && len > 0 {
            return Err(format!("a list holds entries of type {found}; expected {kind}"));
        }
        self.enter()?;
        for _ in 0..len {
            each(self)?;
        }
        self.depth -= 1;
        Ok(())
    }

    fn enter(&mut self) -> Parsed<()> {
        self.depth += 1;
        if self.depth > MAX_DEPTH { Err("structures are nested too deeply".to_owned()) } else { Ok(()) }
    }

    fn list_header(&mut self) -> Parsed<(u64, u8)> {
        let byte = self.byte()?;
        let len = if byte >> 4 == 15 { self.unsigned()? } else { u64::from(byte >> 4) };
        Ok((len, byte & 15))
    }

    fn skip(&mut self, kind: u8) -> Parsed<()> {
        match kind {
            TRUE | FALSE => {}
            BYTE => _ = self.byte()?,
            I16 | I32 | I64 => _ = self.unsigned()?,
            DOUBLE => (0..8).try_for_each(|_| self.byte().map(drop))?,
            BINARY => _ = self.binary()?,
            LIST | SET => {
                let (len, kind) = self.list_header()?;
                self.enter()?;
                (0..len).try_for_each(|_| self.skip_entry(kind))?;
                self.depth -= 1;
            }
            MAP => {
                let len = self.unsigned()?;
                let kinds = if len > 0 { self.byte()? } else { 0 };
                self.enter()?;
                for _ in 0..len {
                    self.skip_entry(kinds >> 4)?;
                    self.skip_entry(kinds & 15)?;
                }
                self.depth -= 1;
            }
            STRUCT => self.fields(|_, _, _| Ok(false))?,
            other => return Err(format!("a field has the type {other}, which Thrift does not have")),
        }
        Ok(())
    }

    /// Entries of lists and maps: unlike a field, a truth value takes a byte.
    fn skip_entry(&mut self, kind: u8) -> Parsed<()> {
        if matches!(kind, TRUE | FALSE) { self.byte().map(drop) } else { self.skip(kind) }
    }
}

/// 0, -1, 1, -2 are written as 0, 1, 2, 3.
pub(crate) fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_fields_are_passed_over() {
        // 1: i32 = -3; 2: true; 3: list of 2 structures; 20: map of text to i64; 21: "x"; end.
        let bytes = [0x15, 5, 0x11, 0x19, 0x2c, 0x18, 1, b'a', 0, 0, 0x0b, 40, 1, 0x86, 1, b'k', 2, 0x18, 1, b'x', 0];
        let mut thrift = Thrift::new(&bytes);
        let (mut number, mut text) = (0, "");
        let read = thrift.fields(|it, id, kind| {
            match (id, kind) {
                (1, I32) => number = it.int()?,
                (21, BINARY) => text = it.text()?,
                _ => return Ok(false),
            }
            Ok(true)
        });
        read.unwrap();
        assert_eq!((number, text, thrift.position()), (-3, "x", bytes.len()));
        assert_eq!([0, 1, 2, 3, u64::MAX].map(unzigzag), [0, -1, 1, -2, i64::MIN]);
    }

    #[test]
    fn nesting_has_a_limit() {
        for nested in [[0x19; 100_000], [0x1c; 100_000]] {
            let error = Thrift::new(&nested).fields(|_, _, _| Ok(false)).unwrap_err();
            assert_eq!(error, "structures are nested too deeply");
        }
        let error = Thrift::new(&[0x19, 0xfc, 0xff, 0xff, 0xff, 0x0f]).fields(|_, _, _| Ok(false)).unwrap_err();
        assert_eq!(error, "a structure ends early");
    }
}
