//! Decodes the messages of a listing one file at a time.
//!
//! A message holds up to 10,000 files, about 12 MB. Decoded at once it takes several times that; kept as it came and
//! decoded on demand, a listing of any length costs one message.

use crate::{Error, wire::file::FileInfo};
use bytes::{Buf, Bytes};
use prost::{
    DecodeError, Message,
    encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field},
};
use std::{fmt::Display, marker::PhantomData};
use tonic::{
    Status,
    codec::{Codec, DecodeBuf, Decoder},
};
use tonic_prost::ProstEncoder;

/// Field number of `ListStatusPResponse.fileInfos`.
const FILE_INFOS: u32 = 1;

/// A `ListStatusPResponse` as it came.
#[derive(Debug, Default)]
pub(crate) struct Batch(Bytes);

impl Batch {
    pub(crate) fn new(message: Bytes) -> Batch {
        Batch(message)
    }

    /// Takes the next file out of the message. After an error the message is empty.
    pub(crate) fn next(&mut self) -> Result<Option<FileInfo>, Error> {
        while self.0.has_remaining() {
            let (number, wire_type) = self.take(decode_key)?;
            if number != FILE_INFOS || wire_type != WireType::LengthDelimited {
                self.take(|bytes| skip_field(wire_type, number, bytes, DecodeContext::default()))?;
                continue;
            }
            let length = self.take(decode_varint)?;
            let length = usize::try_from(length).ok().filter(|length| *length <= self.0.len());
            let Some(length) = length else {
                self.0.clear();
                return Err(undecodable("it is longer than its message"));
            };
            let file = self.0.split_to(length);
            return self.take(|_| FileInfo::decode(file)).map(Some);
        }
        Ok(None)
    }

    fn take<T>(&mut self, decode: impl FnOnce(&mut Bytes) -> Result<T, DecodeError>) -> Result<T, Error> {
        decode(&mut self.0).map_err(|error| {
            self.0.clear();
            undecodable(error)
        })
    }
}

fn undecodable(why: impl Display) -> Error {
    Error::Protocol { message: format!("undecodable file in a listing: {why}") }
}

/// Sends a prost message, receives [`Batch`]es.
#[derive(Debug)]
pub(crate) struct ListingCodec<Request>(PhantomData<Request>);

impl<Request> Default for ListingCodec<Request> {
    fn default() -> Self {
        ListingCodec(PhantomData)
    }
}

impl<Request: Message + 'static> Codec for ListingCodec<Request> {
    type Encode = Request;
    type Decode = Batch;
    type Encoder = ProstEncoder<Request>;
    type Decoder = BatchDecoder;

    fn encoder(&mut self) -> Self::Encoder {
        ProstEncoder::default()
    }

    fn decoder(&mut self) -> BatchDecoder {
        BatchDecoder
    }
}

#[derive(Debug)]
pub(crate) struct BatchDecoder;

impl Decoder for BatchDecoder {
    type Item = Batch;
    type Error = Status;

    fn decode(&mut self, source: &mut DecodeBuf<'_>) -> Result<Option<Batch>, Status> {
        // No copy: the bytes are split off tonic's buffer.
        Ok(Some(Batch::new(source.copy_to_bytes(source.remaining()))))
    }
}

#[cfg(test)]
mod tests;
