//! Envelopes for private keys, and the key that opens them.
//!
//! State is replicated, logged and saved in snapshots that travel; a private key in it must be
//! worth nothing to whoever finds one. So each stands in an envelope (AES-256-GCM) whose key is a
//! file that the operator gives to each server and that no part of the system ever copies.
//!
//! An envelope says which key it needs, by an id. What it is for and whose it is are bound to it
//! as associated data, so that one cannot be put in the place of another.

use std::fmt;
use std::io::{Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::{digest, rand};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::keyring::{SealedWith, Wrapped};

/// The version of the envelope that is written: AES-256-GCM, 96-bit random nonce.
const VERSION: u32 = 1;
const KEY_LEN: usize = 32;
/// The largest sealing key file that is read, in bytes.
const MAX_FILE: u64 = 4096;
const HEADER: &str = "\
# meshctl sealing key. It opens the private keys of the mesh's CA that stand in the servers'
# state. Give every server the same file, keep it secret (mode 0600), and keep a copy in a safe
# place: without it the CA cannot be restored from a snapshot.
";

/// Why something could not be sealed or opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SealError {
    /// The key file could not be read or made.
    #[error("sealing key file {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// Others than its owner may read the key file.
    #[error(
        "sealing key file {}: its mode is {mode:04o}, so others can read it; run: chmod 600 {}",
        path.display(), path.display()
    )]
    Mode {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The key file does not hold a key.
    #[error(
        "sealing key {what}: it must have one line (besides those that begin with #) with \
         32 bytes as base64 or hex; {reason}"
    )]
    Format {
        /// Where it came from.
        what: String,
        /// What is there instead; never the text itself.
        reason: &'static str,
    },
    /// Another sealing key is needed.
    #[error(
        "{what} is sealed with key {needed}, but this server has key {have}; give it the \
         sealing key file that the other servers have"
    )]
    WrongKey {
        /// What was to be opened.
        what: String,
        /// The id of the key that it needs.
        needed: String,
        /// The id of the key that we have.
        have: String,
    },
    /// Vault has not opened the key yet.
    #[error(
        "the CA's keys are sealed with a key that Vault's transit engine opens ({place}), and it \
         has not: {reason}; it is asked again"
    )]
    Closed {
        /// The engine's mount and key.
        place: String,
        /// What Vault said, or what kept us from asking.
        reason: String,
    },
    /// The envelope is of a newer kind.
    #[error("{what} is in an envelope of version {version}, newer than this program knows")]
    Version {
        /// What was to be opened.
        what: String,
        /// The envelope's version.
        version: u32,
    },
    /// The envelope was changed, or belongs to something else.
    #[error("{what}: the envelope is damaged or belongs to something else; nothing was opened")]
    Damaged {
        /// What was to be opened.
        what: String,
    },
    /// The crypto library failed.
    #[error("sealing failed in the crypto library")]
    Crypto,
}

/// A private key in its envelope.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sealed {
    /// The envelope's version; 1.
    pub version: u32,
    /// The sealing key that opens it: see [`SealingKey::id`].
    pub key_id: String,
    /// Base64.
    pub nonce: String,
    /// Base64; the tag is its last 16 bytes.
    pub ciphertext: String,
}

/// The key that opens envelopes. It wipes itself, and only its id prints.
pub struct SealingKey {
    bytes: Zeroizing<[u8; KEY_LEN]>,
    id: String,
    /// How it stands in the state, where Vault opens it.
    wrapped: Option<Wrapped>,
}

impl SealingKey {
    /// A new key in memory only, for `meshctl dev` without a folder.
    ///
    /// # Errors
    /// When the operating system gives no randomness.
    pub fn generate() -> Result<Self, SealError> {
        let mut bytes = Zeroizing::new([0; KEY_LEN]);
        rand::fill(bytes.as_mut_slice()).map_err(|_| SealError::Crypto)?;
        Ok(Self::new(bytes))
    }

    /// A new key in a new file, which only its owner can read.
    ///
    /// # Errors
    /// When the file is there already (it is never replaced) or cannot be written.
    pub fn generate_file(path: &Path) -> Result<Self, SealError> {
        let error = |source| SealError::File {
            path: path.to_owned(),
            source,
        };
        let key = Self::generate()?;
        let line = Zeroizing::new(STANDARD.encode(key.bytes.as_slice()));
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
            .map_err(error)?;
        file.write_all(HEADER.as_bytes()).map_err(error)?;
        file.write_all(line.as_bytes()).map_err(error)?;
        file.write_all(b"\n").map_err(error)?;
        // What it sealed is lost without it: it must survive a power cut as well as they do.
        file.sync_all().map_err(error)?;
        let folder = match path.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        std::fs::File::open(folder)
            .and_then(|folder| folder.sync_all())
            .map_err(error)?;
        Ok(key)
    }

    /// Reads a key file.
    ///
    /// # Errors
    /// When it cannot be read, others than its owner can read it, or it does not hold a key.
    pub fn from_file(path: &Path) -> Result<Self, SealError> {
        let error = |source| SealError::File {
            path: path.to_owned(),
            source,
        };
        let file = std::fs::File::open(path).map_err(error)?;
        // Of the open file, not of the path: the two may differ a moment later.
        let mode = file.metadata().map_err(error)?.permissions().mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(SealError::Mode {
                path: path.to_owned(),
                mode,
            });
        }
        let mut text = Zeroizing::new(Vec::with_capacity(MAX_FILE as usize + 1));
        file.take(MAX_FILE + 1)
            .read_to_end(&mut text)
            .map_err(error)?;
        Self::parse(&path.display().to_string(), &text)
    }

    /// Reads a key file's text. `what` names it in errors.
    ///
    /// # Errors
    /// When it does not hold exactly one key.
    pub fn parse(what: &str, text: &[u8]) -> Result<Self, SealError> {
        let error = |reason| SealError::Format {
            what: what.to_owned(),
            reason,
        };
        if text.len() as u64 > MAX_FILE {
            return Err(error("it is too large"));
        }
        let text = std::str::from_utf8(text).map_err(|_| error("it is not text"))?;
        let mut lines = text
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty() && !line.starts_with('#'));
        let line = lines.next().ok_or_else(|| error("there is no such line"))?;
        if lines.next().is_some() {
            return Err(error("there is more than one such line"));
        }
        let mut bytes = Zeroizing::new([0; KEY_LEN]);
        if line.len() == KEY_LEN * 2 {
            hex(line, &mut bytes).ok_or_else(|| error("it is not hex"))?;
        } else {
            let decoded = Zeroizing::new(
                STANDARD
                    .decode(line)
                    .map_err(|_| error("it is neither base64 nor hex"))?,
            );
            let right: &[u8; KEY_LEN] = decoded
                .as_slice()
                .try_into()
                .map_err(|_| error("it has another length"))?;
            bytes.copy_from_slice(right);
        }
        if bytes.iter().all(|b| *b == 0) {
            return Err(error("it is all zeros"));
        }
        Ok(Self::new(bytes))
    }

    fn new(bytes: Zeroizing<[u8; KEY_LEN]>) -> Self {
        let hash = digest::digest(&digest::SHA256, bytes.as_slice());
        let id = hash.as_ref().iter().take(8).map(|b| format!("{b:02x}"));
        Self {
            id: id.collect(),
            bytes,
            wrapped: None,
        }
    }

    /// A data key that Vault has opened.
    pub(crate) fn of_vault(bytes: &[u8], wrapped: Wrapped) -> Option<Self> {
        let right: &[u8; KEY_LEN] = bytes.try_into().ok()?;
        let mut bytes = Zeroizing::new([0; KEY_LEN]);
        bytes.copy_from_slice(right);
        Some(Self {
            wrapped: Some(wrapped),
            ..Self::new(bytes)
        })
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        self.bytes.as_slice()
    }

    /// What a state says that is sealed with it.
    #[must_use]
    pub fn sealed_with(&self) -> SealedWith {
        SealedWith {
            id: self.id.clone(),
            transit: self.wrapped.clone(),
        }
    }

    /// Which key it is: the first 8 bytes of its SHA-256, in hex. Tells nothing of the key.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Puts a secret into an envelope. The purpose (`intermediate key`) and the name (which one)
    /// must be given again to open it.
    ///
    /// # Errors
    /// When the crypto library fails.
    pub fn seal(&self, purpose: &str, name: &str, secret: &[u8]) -> Result<Sealed, SealError> {
        let key = self.key()?;
        // Encrypted in place, so the plain copy is gone; room for the tag, so it does not move.
        let mut text = Zeroizing::new(Vec::with_capacity(secret.len() + AES_256_GCM.tag_len()));
        text.extend_from_slice(secret);
        let nonce = key
            .seal_in_place_append_tag(aad(purpose, name), &mut *text)
            .map_err(|_| SealError::Crypto)?;
        Ok(Sealed {
            version: VERSION,
            key_id: self.id.clone(),
            nonce: STANDARD.encode(nonce.as_ref()),
            ciphertext: STANDARD.encode(&*text),
        })
    }

    /// Takes the secret out of an envelope that was sealed for this purpose and name.
    ///
    /// # Errors
    /// When it needs another key (both ids are named), is of a newer version, was changed, or was
    /// sealed for something else.
    pub fn open(
        &self,
        purpose: &str,
        name: &str,
        sealed: &Sealed,
    ) -> Result<Zeroizing<Vec<u8>>, SealError> {
        let what = || format!("{purpose} {name}");
        let damaged = || SealError::Damaged { what: what() };
        if sealed.version != VERSION {
            return Err(SealError::Version {
                what: what(),
                version: sealed.version,
            });
        }
        if sealed.key_id != self.id {
            return Err(SealError::WrongKey {
                what: what(),
                needed: sealed.key_id.chars().take(64).collect(),
                have: self.id.clone(),
            });
        }
        let nonce = STANDARD.decode(&sealed.nonce).map_err(|_| damaged())?;
        let nonce: [u8; NONCE_LEN] = nonce.try_into().map_err(|_| damaged())?;
        let mut text = Zeroizing::new(STANDARD.decode(&sealed.ciphertext).map_err(|_| damaged())?);
        let length = self
            .key()?
            .open_in_place(
                Nonce::assume_unique_for_key(nonce),
                aad(purpose, name),
                &mut text,
            )
            .map_err(|_| damaged())?
            .len();
        text.truncate(length);
        Ok(text)
    }

    fn key(&self) -> Result<RandomizedNonceKey, SealError> {
        RandomizedNonceKey::new(&AES_256_GCM, self.bytes.as_slice()).map_err(|_| SealError::Crypto)
    }
}

impl fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SealingKey({})", self.id)
    }
}

/// Lengths stand before the parts, so that no two pairs are the same bytes.
fn aad(purpose: &str, name: &str) -> Aad<Vec<u8>> {
    let mut bytes = b"meshctl sealed v1\0".to_vec();
    for part in [purpose, name] {
        bytes.extend((part.len() as u64).to_be_bytes());
        bytes.extend(part.as_bytes());
    }
    Aad::from(bytes)
}

fn hex(text: &str, out: &mut [u8; KEY_LEN]) -> Option<()> {
    for (pair, byte) in text.as_bytes().chunks(2).zip(out) {
        let [high, low] = pair else { return None };
        let digit = |c: u8| char::from(c).to_digit(16);
        *byte = u8::try_from(digit(*high)? << 4 | digit(*low)?).ok()?;
    }
    Some(())
}
