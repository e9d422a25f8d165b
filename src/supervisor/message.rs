//! What `sendmsg` is given: an address, data in pieces, and control data. Read once, bounded, and checked.

use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;

use super::send::MOST;
use super::target::Target;
use crate::net::twin::Kind;

/// The largest address the kernel takes: `struct sockaddr_storage`.
const MOST_ADDRESS: u64 = 128;
/// `UIO_MAXIOV`.
const MOST_PIECES: u64 = 1024;
/// More control data than any message has use for: all the descriptors that one can carry, and some.
const MOST_CONTROL: u64 = 16 * 1024;

/// A message as the caller has it in its memory.
#[derive(Debug)]
pub struct Message {
    /// The address, if it names one.
    pub address: Option<Vec<u8>>,
    /// The data: of a long one the beginning, as much as is sent at once.
    pub data: Vec<u8>,
    /// Control data as it stands there.
    pub control: Vec<u8>,
}

impl Message {
    /// Reads a `struct msghdr`.
    pub fn read(target: Target, at: u64) -> Result<Self, Errno> {
        let [name, name_length, pieces, count, control, control_length, _flags] = target.words::<7>(at)?;
        // An `int`, with padding behind it.
        let name_length = name_length & 0xffff_ffff;
        if name_length > MOST_ADDRESS {
            return Err(Errno::EINVAL);
        }
        let address = match name {
            0 => None,
            _ if name_length == 0 => None,
            name => Some(target.bytes(name, name_length as usize)?),
        };
        if count > MOST_PIECES {
            return Err(Errno::EMSGSIZE);
        }
        if control_length > MOST_CONTROL {
            return Err(Errno::ENOBUFS);
        }
        let control = if control == 0 { Vec::new() } else { target.bytes(control, control_length as usize)? };
        Ok(Self { address, data: data(target, pieces, count)?, control })
    }
}

fn data(target: Target, pieces: u64, count: u64) -> Result<Vec<u8>, Errno> {
    let pieces = target.bytes(pieces, count as usize * 16)?;
    let mut data = Vec::new();
    for piece in pieces.chunks_exact(16) {
        let (base, length) = (word(&piece[..8]), word(&piece[8..]));
        let room = (MOST - data.len()) as u64;
        data.extend(target.bytes(base, length.min(room) as usize)?);
    }
    Ok(data)
}

fn word(bytes: &[u8]) -> u64 {
    bytes.first_chunk().map_or(0, |bytes| u64::from_ne_bytes(*bytes))
}

/// Control data that the worker may send on the caller's behalf.
#[derive(Debug, Default)]
pub struct Control {
    bytes: Vec<u8>,
    /// What descriptors in it stand for here.
    files: Vec<OwnedFd>,
}

/// `struct cmsghdr`: length, level, type; data follow, each message begins at a multiple of eight.
const HEADER: usize = 16;

impl Control {
    /// Checks what the caller has, for a socket of this kind.
    ///
    /// The caller's descriptors become copies of the worker's, which stand for the same files. Of what a datagram can be
    /// given, only that passes which leaves its destination alone: a list of hosts to pass through does not.
    pub fn take(target: Target, kind: Kind, bytes: &[u8]) -> Result<Self, Errno> {
        let mut control = Self { bytes: bytes.to_vec(), files: Vec::new() };
        let mut at = 0;
        while let Some(header) = bytes.get(at..at + HEADER) {
            let length = word(&header[..8]) as usize;
            let end = at.checked_add(length).filter(|end| length >= HEADER && *end <= bytes.len());
            let end = end.ok_or(Errno::EINVAL)?;
            let int = |from: usize| header[from..].first_chunk().map_or(0, |bytes| i32::from_ne_bytes(*bytes));
            match (kind.family, int(8), int(12)) {
                (libc::AF_UNIX, libc::SOL_SOCKET, libc::SCM_RIGHTS) => control.translate(target, at + HEADER, end)?,
                // The kernel would take the worker for the sender: what the caller says of itself would be refused, and what
                // it says of the worker believed.
                (_, libc::SOL_SOCKET, libc::SCM_CREDENTIALS) => return Err(Errno::EPERM),
                (libc::AF_INET | libc::AF_INET6, level, name)
                    if kind.kind == libc::SOCK_DGRAM && !HARMLESS.contains(&(level, name)) =>
                {
                    return Err(Errno::EINVAL);
                }
                _ => {}
            }
            at = end.next_multiple_of(8);
        }
        Ok(control)
    }

    fn translate(&mut self, target: Target, from: usize, to: usize) -> Result<(), Errno> {
        for number in self.bytes[from..to].chunks_exact_mut(4) {
            let asked = number.first_chunk().map_or(-1, |bytes| i32::from_ne_bytes(*bytes));
            let copy = target.copy_descriptor(asked)?;
            number.copy_from_slice(&copy.as_raw_fd().to_ne_bytes());
            self.files.push(copy);
        }
        Ok(())
    }

    /// As the kernel is given it.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// What a datagram may be told about the way it is sent: level and type.
const HARMLESS: [(i32, i32); 8] = [
    (libc::IPPROTO_IP, libc::IP_PKTINFO),
    (libc::IPPROTO_IP, libc::IP_TOS),
    (libc::IPPROTO_IP, libc::IP_TTL),
    (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO),
    (libc::IPPROTO_IPV6, libc::IPV6_TCLASS),
    (libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT),
    (libc::IPPROTO_IPV6, libc::IPV6_DONTFRAG),
    (libc::SOL_UDP, libc::UDP_SEGMENT),
];
