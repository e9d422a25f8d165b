//! Keys that sign logs, as they stand in files: Ed25519, in the PEM forms that OpenSSL and others read and write.
//!
//! Main process, host's view. A private key is read after the box's init was forked, so that no copy of it is left in
//! there, and a file that others can read is refused. Nothing here says which key a run uses.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::text;

/// What comes before the 32 bytes of a private key in PKCS#8 version 1, as RFC 8410 has it.
const PRIVATE: [u8; 16] = *b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20";
/// What comes before the 32 bytes of a public key in its SubjectPublicKeyInfo, as RFC 8410 has it.
const PUBLIC: [u8; 12] = *b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00";
/// How many bytes a key has.
const KEY: usize = 32;
/// The name of the algorithm before a public key's digits.
const SCHEME: &str = "ed25519:";
/// More than any file has that holds a key.
const MOST: u64 = 64 * 1024;

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // the fields are the path, line and mode in the message
pub enum KeyError {
    /// The file could not be read.
    #[error("cannot read the key {}", shown(path))]
    Read { path: PathBuf, source: io::Error },
    /// No regular file.
    #[error("{}: a key is a regular file", shown(path))]
    NotAFile { path: PathBuf },
    /// Others can read the private key.
    #[error("{}: others can read this private key (mode {mode:03o}): chmod 600 it, or make another", shown(path))]
    Open { path: PathBuf, mode: u32 },
    /// The file holds no such key.
    #[error("{} line {line}: {why}", shown(path))]
    Wrong { path: PathBuf, line: usize, why: Wrong },
    /// A file could not be made.
    #[error("cannot make the key {}", shown(path))]
    Make { path: PathBuf, source: io::Error },
    /// The system gives no random numbers.
    #[error("cannot make a key: the system gives no random numbers")]
    Random,
    /// Neither a key nor the name of a file.
    #[error("`{}` is neither a public key, {SCHEME} and 64 hexadecimal digits, nor a file", text::printable(name))]
    NoSuch { name: String },
}

fn shown(path: &Path) -> String {
    text::printable(&path.to_string_lossy())
}

/// What is wrong with the content of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wrong {
    /// Nothing in it begins as a key does.
    NoKey,
    /// A key begins and does not end.
    NoEnd,
    /// A line of it is not base64.
    NotBase64,
    /// A public key, where a private one is needed.
    Public,
    /// A key behind a password.
    Encrypted,
    /// A key in OpenSSH's own form.
    OpenSsh,
    /// Another kind of key.
    Other,
    /// It says to be an Ed25519 key, and its bytes are none.
    Damaged,
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const MAKE: &str = "`agentbox log key FILE` makes one that fits";
        match self {
            Self::NoKey => write!(f, "no key begins here: a PEM file is expected; {MAKE}"),
            Self::NoEnd => write!(f, "the key that begins here has no end: the file was cut off; restore it"),
            Self::NotBase64 => {
                write!(f, "not base64, as the lines of a PEM file are: the file was damaged; restore it")
            }
            Self::Public => write!(f, "a public key, which cannot sign: name the file of the private one"),
            Self::Encrypted => write!(f, "the key is encrypted, and agentbox asks for no password; {MAKE}"),
            Self::OpenSsh => write!(f, "a key in OpenSSH's own form, which is not read; {MAKE}"),
            Self::Other => write!(f, "not an Ed25519 key; {MAKE}"),
            Self::Damaged => write!(f, "the key that begins here is damaged: restore the file"),
        }
    }
}

/// A public key: what a signature is checked with, and the name of the key that made it.
///
/// As text it is `ed25519:` and 64 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PublicKey([u8; KEY]);

impl PublicKey {
    /// Takes `text` if it has the form of a key.
    pub fn parse(text: &str) -> Option<Self> {
        unhex(text.strip_prefix(SCHEME)?).map(Self)
    }

    /// Takes what a person names: the key itself, or a file that holds it, as PEM or as text. A private key's file will
    /// do: the public key follows from it.
    pub fn named(name: &str) -> Result<Self, KeyError> {
        if let Some(key) = Self::parse(name.trim()) {
            return Ok(key);
        }
        let path = Path::new(name);
        if name.starts_with(SCHEME) || fs::symlink_metadata(path).is_err_and(|e| e.kind() == io::ErrorKind::NotFound) {
            return Err(KeyError::NoSuch { name: name.into() });
        }
        let (content, _) = read(path)?;
        if let Some(key) = Self::parse(content.trim()) {
            return Ok(key);
        }
        let wrong = |(line, why)| KeyError::Wrong { path: path.into(), line, why };
        let pem = Pem::of(&content).map_err(wrong)?;
        let key = match pem.label {
            "PUBLIC KEY" => pem.public(),
            _ => pem.pair().map(|pair| public(&pair)),
        };
        key.map_err(|why| wrong((pem.line, why)))
    }

    /// As much of it as tells keys apart for the eye.
    pub fn short(&self) -> String {
        format!("{SCHEME}{}…", text::hex(&self.0[..6]))
    }

    /// Writes it as a PEM file, for other tools.
    pub fn pem(&self) -> String {
        pem("PUBLIC KEY", &[&PUBLIC[..], &self.0].concat())
    }

    /// Whether the holder of this key has signed `bytes`.
    pub fn has_signed(&self, bytes: &[u8], signature: &Signature) -> bool {
        UnparsedPublicKey::new(&ED25519, &self.0).verify(bytes, &signature.0).is_ok()
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}", text::hex(&self.0))
    }
}

impl Serialize for PublicKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PublicKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom("not a public key: ed25519: and 64 digits"))
    }
}

/// A signature; as text 128 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signature([u8; 64]);

impl Serialize for Signature {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&text::hex(&self.0))
    }
}

impl<'de> Deserialize<'de> for Signature {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        unhex(&text).map(Self).ok_or_else(|| serde::de::Error::custom("not a signature: 128 hexadecimal digits"))
    }
}

fn unhex<const N: usize>(digits: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    let (pairs, rest) = digits.as_bytes().as_chunks::<2>();
    if pairs.len() != N || !rest.is_empty() {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(pairs) {
        let [high, low] = pair.map(|digit| char::from(digit).to_digit(16));
        *byte = u8::try_from(high? * 16 + low?).ok()?;
    }
    Some(bytes)
}

/// The file of the key that signs every run of a user who has made it, in agentbox's state directory.
pub fn standard(state: &Path) -> PathBuf {
    state.join("log.key")
}

/// A key that signs.
#[derive(Debug)]
pub struct SigningKey {
    pair: Ed25519KeyPair,
    public: PublicKey,
}

impl SigningKey {
    /// Reads the private key in the file at `path`, which this user alone may read.
    pub fn read(path: &Path) -> Result<Self, KeyError> {
        let (content, mode) = read(path)?;
        if mode & 0o077 != 0 {
            return Err(KeyError::Open { path: path.into(), mode: mode & 0o777 });
        }
        let wrong = |(line, why)| KeyError::Wrong { path: path.into(), line, why };
        let pem = Pem::of(&content).map_err(wrong)?;
        pem.pair().map(Self::of).map_err(|why| wrong((pem.line, why)))
    }

    /// Reads the key that a user has made for every run, if there is one.
    pub fn standard(state: &Path) -> Result<Option<Self>, KeyError> {
        let path = standard(state);
        match path.symlink_metadata() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            _ => Self::read(&path).map(Some),
        }
    }

    /// Makes a key and the file at `path`, for this user alone; a file that is there is left alone.
    pub fn make(path: &Path) -> Result<Self, KeyError> {
        let mut seed = [0; KEY];
        SystemRandom::new().fill(&mut seed).map_err(|_| KeyError::Random)?;
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed).map_err(|_| KeyError::Random)?;
        let failed = |source| KeyError::Make { path: path.into(), source };
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
        let written = file.write_all(pem("PRIVATE KEY", &[&PRIVATE[..], &seed].concat()).as_bytes());
        if let Err(source) = written.and_then(|()| file.sync_all()) {
            // Half a key would stop every run from now on.
            let _ = fs::remove_file(path);
            return Err(failed(source));
        }
        Ok(Self::of(pair))
    }

    fn of(pair: Ed25519KeyPair) -> Self {
        let public = public(&pair);
        Self { pair, public }
    }

    /// The key that its signatures are checked with.
    pub fn public(&self) -> PublicKey {
        self.public
    }

    /// Signs.
    pub fn sign(&self, bytes: &[u8]) -> Signature {
        let mut signature = [0; 64];
        signature.copy_from_slice(self.pair.sign(bytes).as_ref());
        Signature(signature)
    }
}

fn public(pair: &Ed25519KeyPair) -> PublicKey {
    let mut key = [0; KEY];
    key.copy_from_slice(pair.public_key().as_ref());
    PublicKey(key)
}

/// Reads a file, bounded; gives its content and its mode.
fn read(path: &Path) -> Result<(String, u32), KeyError> {
    let failed = |source| KeyError::Read { path: path.into(), source };
    // A FIFO must not keep us waiting before it is known to be one.
    let mut options = OpenOptions::new();
    let file = options.read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path).map_err(failed)?;
    let facts = file.metadata().map_err(failed)?;
    if !facts.is_file() {
        return Err(KeyError::NotAFile { path: path.into() });
    }
    let mut content = Vec::new();
    file.take(MOST).read_to_end(&mut content).map_err(failed)?;
    Ok((String::from_utf8_lossy(&content).into_owned(), facts.permissions().mode()))
}

/// The first thing in a PEM file that begins as a key does.
struct Pem<'a> {
    label: &'a str,
    /// The line it begins on.
    line: usize,
    bytes: Vec<u8>,
}

impl<'a> Pem<'a> {
    /// Says on which line what is wrong. RFC 7468 lets text stand before it.
    fn of(content: &'a str) -> Result<Self, (usize, Wrong)> {
        let mut lines = content.lines().zip(1..).map(|(text, line)| (line, text.trim()));
        let begins = |text: &'a str| text.strip_prefix("-----BEGIN ")?.strip_suffix("-----");
        let begun = lines.find_map(|(line, text)| Some((line, begins(text)?)));
        let (line, label) = begun.filter(|(_, label)| label.ends_with("KEY")).ok_or((1, Wrong::NoKey))?;
        let kind = match label {
            "PRIVATE KEY" | "PUBLIC KEY" => None,
            "ENCRYPTED PRIVATE KEY" => Some(Wrong::Encrypted),
            "OPENSSH PRIVATE KEY" => Some(Wrong::OpenSsh),
            _ => Some(Wrong::Other),
        };
        if let Some(wrong) = kind {
            return Err((line, wrong));
        }
        let mut bytes = Vec::new();
        for (number, text) in lines {
            if text.strip_prefix("-----END ").and_then(|end| end.strip_suffix("-----")) == Some(label) {
                return Ok(Self { label, line, bytes });
            }
            BASE64.decode_vec(text, &mut bytes).map_err(|_| (number, Wrong::NotBase64))?;
        }
        Err((line, Wrong::NoEnd))
    }

    fn public(&self) -> Result<PublicKey, Wrong> {
        let key = self.bytes.strip_prefix(&PUBLIC).ok_or(Wrong::Other)?;
        key.try_into().map(PublicKey).map_err(|_| Wrong::Damaged)
    }

    fn pair(&self) -> Result<Ed25519KeyPair, Wrong> {
        if self.label == "PUBLIC KEY" {
            return Err(Wrong::Public);
        }
        // Without the public key, as OpenSSL writes it, or with it.
        Ed25519KeyPair::from_pkcs8_maybe_unchecked(&self.bytes).map_err(|rejected| {
            match rejected.to_string().as_str() {
                "WrongAlgorithm" => Wrong::Other,
                _ => Wrong::Damaged,
            }
        })
    }
}

fn pem(label: &str, bytes: &[u8]) -> String {
    // Both kinds of key are shorter than one line of a PEM file.
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", BASE64.encode(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first test vector of RFC 8032, section 7.1: a key, its public half, and its signature of nothing.
    const SEED: &str = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60";
    const PUBLIC_HALF: &str = "ed25519:d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
    const OF_NOTHING: &str = "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd\
                              25bf5f0595bbe24655141438e7a100b";

    fn file(dir: &Path, content: &str, mode: u32) -> PathBuf {
        let path = dir.join("a.key");
        let _ = fs::remove_file(&path);
        OpenOptions::new().write(true).create_new(true).mode(mode).open(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        // Root may write to what nobody may.
        OpenOptions::new().write(true).open(&path).unwrap().write_all(content.as_bytes()).unwrap();
        path
    }

    fn private() -> String {
        let seed: [u8; KEY] = unhex(SEED).unwrap();
        pem("PRIVATE KEY", &[&PRIVATE[..], &seed].concat())
    }

    #[test]
    fn a_key_from_a_file_signs_as_the_standard_says() {
        let dir = tempfile::tempdir().unwrap();
        let key = SigningKey::read(&file(dir.path(), &private(), 0o600)).unwrap();
        assert_eq!(key.public().to_string(), PUBLIC_HALF);
        let signature = key.sign(b"");
        assert_eq!(serde_json::to_value(signature).unwrap(), OF_NOTHING);
        assert!(key.public().has_signed(b"", &signature) && !key.public().has_signed(b"x", &signature));
    }

    #[test]
    fn a_key_that_is_made_is_read_back_and_is_for_its_user_alone() {
        let dir = tempfile::tempdir().unwrap();
        assert!(SigningKey::standard(dir.path()).unwrap().is_none());
        let path = standard(dir.path());
        let made = SigningKey::make(&path).unwrap().public();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(SigningKey::standard(dir.path()).unwrap().unwrap().public(), made);
        assert!(matches!(SigningKey::make(&path), Err(KeyError::Make { .. })), "it is not replaced");
        assert_ne!(SigningKey::make(&dir.path().join("other")).unwrap().public(), made);
    }

    #[test]
    fn a_public_key_is_known_in_each_form_that_people_have_it_in() {
        let dir = tempfile::tempdir().unwrap();
        let key = PublicKey::parse(PUBLIC_HALF).unwrap();
        let in_file = |content: &str| PublicKey::named(file(dir.path(), content, 0o644).to_str().unwrap()).unwrap();
        assert_eq!(PublicKey::named(PUBLIC_HALF).unwrap(), key);
        assert_eq!(in_file(&key.pem()), key);
        assert_eq!(in_file(&format!("{PUBLIC_HALF}\n")), key);
        assert_eq!(in_file(&format!("the key of the build machine\n{}", key.pem())), key);
        assert_eq!(in_file(&private()), key);
        assert_eq!(serde_json::from_value::<PublicKey>(PUBLIC_HALF.into()).unwrap(), key);
        for bad in ["", "ed25519:", &PUBLIC_HALF[..71], &PUBLIC_HALF.replace("d75a", "d75g"), &PUBLIC_HALF[8..]] {
            assert!(PublicKey::parse(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn what_is_no_key_is_said_with_its_file_line_and_remedy() {
        let dir = tempfile::tempdir().unwrap();
        let (whole, public) = (private(), PublicKey::parse(PUBLIC_HALF).unwrap().pem());
        let rsa = pem(
            "PRIVATE KEY",
            b"\x30\x15\x02\x01\x00\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01\x05\x00\x04\x01\x00",
        );
        let damaged = pem("PRIVATE KEY", &PRIVATE);
        for (content, line, why) in [
            ("", 1, Wrong::NoKey),
            ("\u{1b}[2J\0\u{fffd}", 1, Wrong::NoKey),
            ("-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n", 1, Wrong::NoKey),
            (&whole.replace("-----END PRIVATE KEY-----", ""), 1, Wrong::NoEnd),
            (&format!("mine\n{}", whole.replace("MC4C", "MC4?")), 3, Wrong::NotBase64),
            (&whole.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY"), 1, Wrong::Encrypted),
            (&whole.replace("PRIVATE KEY", "OPENSSH PRIVATE KEY"), 1, Wrong::OpenSsh),
            (&whole.replace("PRIVATE KEY", "EC PRIVATE KEY"), 1, Wrong::Other),
            (&rsa, 1, Wrong::Other),
            (&damaged, 1, Wrong::Damaged),
            (&public, 1, Wrong::Public),
        ] {
            let path = file(dir.path(), content, 0o600);
            let error = SigningKey::read(&path).unwrap_err();
            let KeyError::Wrong { line: at, why: said, .. } = &error else { panic!("{content}: {error}") };
            assert_eq!((*at, *said), (line, why), "{content}");
            assert!(error.to_string().starts_with(&format!("{} line {line}: ", path.display())), "{error}");
            assert!(!error.to_string().contains('\u{1b}'));
            assert_eq!(PublicKey::named(path.to_str().unwrap()).is_ok(), why == Wrong::Public, "{content}");
        }
        let error = SigningKey::read(&file(dir.path(), &whole, 0o640)).unwrap_err();
        assert!(error.to_string().contains("(mode 640): chmod 600 it"), "{error}");
        assert!(matches!(SigningKey::read(dir.path()), Err(KeyError::NotAFile { .. })));
        assert!(matches!(SigningKey::read(&dir.path().join("none")), Err(KeyError::Read { .. })));
        for none in ["ed25519:12", "no-such-file"] {
            assert!(matches!(PublicKey::named(none), Err(KeyError::NoSuch { .. })), "{none}");
        }
        nix::unistd::mkfifo(&dir.path().join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(matches!(SigningKey::read(&dir.path().join("pipe")), Err(KeyError::NotAFile { .. })), "nobody waits");
    }
}
