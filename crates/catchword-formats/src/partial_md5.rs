//! The partial MD5: the identity of a book file that e-reader programs share.

use std::io::{self, ErrorKind, Read, Seek, SeekFrom};

use md5::{Digest, Md5};

/// Where the samples begin, in bytes.
const SAMPLE_OFFSETS: [u64; 12] = [
    0,
    1 << 10,
    1 << 12,
    1 << 14,
    1 << 16,
    1 << 18,
    1 << 20,
    1 << 22,
    1 << 24,
    1 << 26,
    1 << 28,
    1 << 30,
];

/// Length of a sample, in bytes; the last one may be shorter.
const SAMPLE_BYTES: u64 = 1024;

/// Returns the partial MD5 of a file: the MD5 over up to twelve samples of 1,024 bytes.
///
/// It is an alias, never an identity: files that differ between the samples share it, and any
/// change of the metadata gives another one.
///
/// # Errors
///
/// Whatever `source` fails with.
///
/// # Source
///
/// KOReader's document hash, which writes the offsets as 1024 shifted left by 2 i for i from -1 to
/// 10; the first is 0, because a shift by -2 is masked. A short last sample is hashed at its true
/// length.
pub fn partial_md5<R: Read + Seek>(mut source: R) -> io::Result<[u8; 16]> {
    let mut hash = Md5::new();
    let mut sample = Vec::new();
    for offset in SAMPLE_OFFSETS {
        source.seek(SeekFrom::Start(offset))?;
        sample.clear();
        read_sample(&mut source, &mut sample)?;
        if sample.is_empty() {
            break;
        }
        hash.update(&sample);
    }
    Ok(hash.finalize().into())
}

fn read_sample<R: Read>(source: &mut R, sample: &mut Vec<u8>) -> io::Result<()> {
    match source.take(SAMPLE_BYTES).read_to_end(sample) {
        Ok(_) => Ok(()),
        // Some sources say so when asked to read past their end.
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use data_encoding::HEXLOWER;

    use super::*;

    #[test]
    fn an_empty_file_has_the_hash_of_nothing() {
        let hash = partial_md5(Cursor::new(Vec::new())).unwrap();
        assert_eq!(HEXLOWER.encode(&hash), "d41d8cd98f00b204e9800998ecf8427e");
    }

    #[test]
    fn only_the_samples_count() {
        let mut bytes = vec![7_u8; 5_000];
        let before = partial_md5(Cursor::new(&bytes)).unwrap();

        bytes[3_000] = 8;
        assert_eq!(partial_md5(Cursor::new(&bytes)).unwrap(), before);

        bytes[4_999] = 8;
        assert_ne!(partial_md5(Cursor::new(&bytes)).unwrap(), before);
    }
}
