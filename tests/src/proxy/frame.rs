//! Kafka's requests on the wire: a length, then api key, version and correlation id.
//!
//! Source: the Kafka protocol guide, "Common Request and Response Structure"; all integers are big-endian. A response
//! carries its length and the correlation id of its request, and a broker answers a connection in order.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt};

/// `Produce`.
pub const PRODUCE: i16 = 0;
/// `InitProducerId`.
pub const INIT_PRODUCER_ID: i16 = 22;
/// `AddPartitionsToTxn`.
pub const ADD_PARTITIONS_TO_TXN: i16 = 24;
/// `AddOffsetsToTxn`.
pub const ADD_OFFSETS_TO_TXN: i16 = 25;
/// `EndTxn`.
pub const END_TXN: i16 = 26;
/// `TxnOffsetCommit`.
pub const TXN_OFFSET_COMMIT: i16 = 28;

/// Longest frame in bytes, its length field apart: more than any broker takes by default (`socket.request.max.bytes`, 100 MiB).
pub const MAX_FRAME: usize = 128 * 1024 * 1024;

/// What the first bytes of a request say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Which request.
    pub api_key: i16,
    /// Its version.
    pub version: i16,
    /// The client's number for it.
    pub correlation_id: i32,
}

impl Head {
    /// Reads the head of a whole frame (with its length); `None` if it is too short to have one.
    #[must_use]
    pub fn of(frame: &[u8]) -> Option<Self> {
        let bytes = frame.get(4..12)?;
        Some(Self {
            api_key: i16::from_be_bytes([bytes[0], bytes[1]]),
            version: i16::from_be_bytes([bytes[2], bytes[3]]),
            correlation_id: i32::from_be_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]),
        })
    }
}

/// What the client calls itself (`client.id`), from a whole frame; empty if it does not say.
#[must_use]
pub fn client_id(frame: &[u8]) -> String {
    // A nullable string: its length in two bytes, negative for none.
    let length = frame.get(12..14).map(|bytes| i16::from_be_bytes([bytes[0], bytes[1]]));
    let length = length.and_then(|length| usize::try_from(length).ok()).unwrap_or(0);
    frame.get(14..14 + length).map_or_else(String::new, |name| String::from_utf8_lossy(name).into_owned())
}

/// Reads one frame, its length included; `None` at a clean end. Not cancel safe: a frame begun is lost.
///
/// # Errors
/// The connection failed or ended inside of a frame, or the length is negative or above [`MAX_FRAME`].
pub async fn read(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Vec<u8>>> {
    let mut length = [0; 4];
    if from.read(&mut length[..1]).await? == 0 {
        return Ok(None);
    }
    from.read_exact(&mut length[1..]).await?;
    let size = i32::from_be_bytes(length);
    let size = usize::try_from(size).ok().filter(|size| *size <= MAX_FRAME);
    let size = size.ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidData, format!("not a frame of Kafka's protocol: length {length:?}"))
    })?;
    // Grows with what really comes: a length is only a claim.
    let mut frame = length.to_vec();
    let got = from.take(size as u64).read_to_end(&mut frame).await?;
    if got < size {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(Some(frame))
}
