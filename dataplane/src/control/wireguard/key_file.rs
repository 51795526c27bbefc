//! The file with this node's private key, as `wg genkey` writes one: 32 bytes in base64, and a line feed.

use crate::wireguard::{Random, Secret};
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// Where the key is.
#[derive(Clone, Debug)]
pub struct KeyFile(PathBuf);

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// It cannot be read or made.
    #[error("{path}: {error}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// Somebody else may have read it.
    #[error("{path} may be read by others than its owner (mode {mode:03o}): take a new key, and chmod 600")]
    Open {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// No key is in it.
    #[error(
        "{path} is no private key: give 32 bytes in base64, as wg genkey prints them, or remove the file"
    )]
    NoKey {
        /// The file.
        path: PathBuf,
    },
}

/// Longer than a key in base64, with some white space.
const LONGEST: usize = 64;

impl KeyFile {
    /// At this path.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// The key. The first time, it is made.
    pub fn key(&self, random: &mut impl Random) -> Result<Secret, KeyFileError> {
        match File::open(&self.0) {
            Ok(file) => self.read(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.make(random),
            Err(error) => Err(self.failed(error)),
        }
    }

    /// Puts another key in the place of what is there.
    pub fn replace(&self, random: &mut impl Random) -> Result<Secret, KeyFileError> {
        self.make(random)
    }

    fn read(&self, mut file: File) -> Result<Secret, KeyFileError> {
        let mode = file.metadata().map_err(|error| self.failed(error))?.mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(KeyFileError::Open { path: self.0.clone(), mode });
        }
        let mut text = Zeroizing::new([0; LONGEST]);
        let mut len = 0;
        while len < LONGEST {
            match file.read(&mut text[len..]).map_err(|error| self.failed(error))? {
                0 => break,
                more => len += more,
            }
        }
        decode(text[..len].trim_ascii()).ok_or_else(|| KeyFileError::NoKey { path: self.0.clone() })
    }

    /// Makes the file whole or not at all: by another name first.
    fn make(&self, random: &mut impl Random) -> Result<Secret, KeyFileError> {
        let mut key = Secret::default();
        random.fill(&mut *key);
        // As Curve25519 has it, and `wg genkey`.
        key[0] &= 0xf8;
        key[31] = key[31] & 0x7f | 0x40;
        let folder = self.0.parent().unwrap_or_else(|| Path::new(""));
        let mut draft = self.0.clone().into_os_string();
        draft.push(".new");
        let write = || {
            std::fs::create_dir_all(folder)?;
            if let Err(error) = std::fs::remove_file(&draft)
                && error.kind() != io::ErrorKind::NotFound
            {
                return Err(error);
            }
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
            file.write_all(&encode(&key)[..])?;
            file.sync_all()?;
            std::fs::rename(&draft, &self.0)?;
            File::open(folder)?.sync_all()
        };
        write().map_err(|error| self.failed(error))?;
        tracing::info!(path = %self.0.display(), "made WireGuard's private key");
        Ok(key)
    }

    fn failed(&self, error: io::Error) -> KeyFileError {
        KeyFileError::Io { path: self.0.clone(), error }
    }
}

/// The kernel's random numbers.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemRandom;

impl Random for SystemRandom {
    fn fill(&mut self, bytes: &mut [u8]) {
        aws_lc_rs::rand::fill(bytes).expect("the kernel has random numbers");
    }
}

const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// In base64 (RFC 4648 §4), with a line feed. A library would leave copies of the key behind.
fn encode(key: &Secret) -> Zeroizing<[u8; 45]> {
    let mut text = Zeroizing::new([b'\n'; 45]);
    for (four, three) in text.chunks_exact_mut(4).zip(key.chunks(3)) {
        let at = |n: usize| u32::from(three.get(n).copied().unwrap_or(0));
        let bits = at(0) << 16 | at(1) << 8 | at(2);
        for (n, digit) in four.iter_mut().enumerate() {
            *digit = match n <= three.len() {
                true => DIGITS[(bits >> (18 - 6 * n)) as usize & 63],
                false => b'=',
            };
        }
    }
    text
}

fn decode(text: &[u8]) -> Option<Secret> {
    let mut key = Secret::default();
    let digits = text.strip_suffix(b"=").filter(|digits| digits.len() == 43)?;
    let mut bits = 0u32;
    for (n, digit) in digits.iter().enumerate() {
        bits = bits << 6 | DIGITS.iter().position(|known| known == digit)? as u32;
        if n % 4 == 3 {
            key[n / 4 * 3..][..3].copy_from_slice(&bits.to_be_bytes()[1..]);
            bits = 0;
        }
    }
    // Two bytes in three digits, whose last two bits say nothing.
    key[30..].copy_from_slice(&(bits >> 2).to_be_bytes()[2..]);
    (bits & 3 == 0).then_some(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    struct Counting(u8);

    impl Random for Counting {
        fn fill(&mut self, bytes: &mut [u8]) {
            bytes.fill_with(|| {
                self.0 = self.0.wrapping_mul(31).wrapping_add(7);
                self.0
            });
        }
    }

    #[test]
    fn a_key_is_made_once_and_nobody_else_may_read_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deeper/wireguard.key");
        let file = KeyFile::new(&path);
        let key = file.key(&mut Counting(1)).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(file.key(&mut Counting(2)).unwrap(), key, "the same for ever");
        let next = file.replace(&mut Counting(4)).unwrap();
        assert_ne!(next, key);
        assert_eq!(file.key(&mut Counting(2)).unwrap(), next);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(file.key(&mut Counting(3)), Err(KeyFileError::Open { mode: 0o640, .. })));
    }

    #[test]
    fn keys_are_written_as_wireguards_tools_do() {
        // Of RFC 7748 §6.1, in base64 by another program.
        let text = b"dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=";
        let key = decode(text).unwrap();
        assert_eq!((key[0], key[30], key[31]), (0x77, 0x2c, 0x2a));
        assert_eq!(encode(&key)[..], [&text[..], b"\n"].concat());
        for wrong in [&text[..43], b"", b"dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LC!=", &[b'A'; 44]] {
            assert!(decode(wrong).is_none());
        }
        let mut loose = *text;
        loose[42] = b'p';
        assert!(decode(&loose).is_none(), "bits that say nothing are zero");
        for seed in 0..50 {
            let mut key = Secret::default();
            Counting(seed).fill(&mut *key);
            assert_eq!(decode(encode(&key).trim_ascii()), Some(key));
        }
    }

    #[test]
    fn what_is_no_key_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        std::fs::write(&path, "secret").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        let error = KeyFile::new(&path).key(&mut Counting(1)).unwrap_err();
        assert!(matches!(error, KeyFileError::NoKey { .. }) && error.to_string().contains("wg genkey"));
        assert_eq!(std::fs::read(&path).unwrap(), b"secret");
    }
}
