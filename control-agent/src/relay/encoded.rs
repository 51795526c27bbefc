//! Events as bytes. An object is serialised once, when it comes from the store, whoever it then goes to.

use crate::{datastore::Entry, model::Kind};
use margay_api::control::v1::{WatchEvent, WatchRequest, watch_event::Type};
use prost::{
    Message as _,
    bytes::BufMut,
    encoding::{WireType, encode_key, encode_varint, encoded_len_varint},
};
use std::sync::Arc;
use tonic::{
    Status,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
};

/// Tags of `WatchEvent` and of `Object`.
const TYPE: u32 = 1;
const OBJECT: u32 = 2;
const JSON: u32 = 4;

/// The `object` of a [`WatchEvent`], as it is on the wire.
#[derive(Debug)]
pub(super) struct Encoded {
    /// For the order of changes.
    pub kind: Kind,
    /// All of it up to its JSON, which is the store's own.
    head: Box<[u8]>,
    json: Arc<str>,
}

impl Encoded {
    pub fn of(entry: &Entry) -> Arc<Self> {
        let version = if entry.version == 0 { String::new() } else { entry.version.to_string() };
        let key = &entry.key;
        let mut fields = Vec::new();
        for (tag, text) in [(1, key.kind.name()), (2, &key.namespace), (3, &key.name), (5, &version)] {
            if !text.is_empty() {
                encode_key(tag, WireType::LengthDelimited, &mut fields);
                encode_varint(text.len() as u64, &mut fields);
                fields.extend_from_slice(text.as_bytes());
            }
        }
        // The JSON last: what comes before it is all that is ours.
        encode_key(JSON, WireType::LengthDelimited, &mut fields);
        encode_varint(entry.json.len() as u64, &mut fields);
        let mut head = Vec::with_capacity(fields.len() + 8);
        encode_key(OBJECT, WireType::LengthDelimited, &mut head);
        encode_varint((fields.len() + entry.json.len()) as u64, &mut head);
        head.extend_from_slice(&fields);
        Arc::new(Self { kind: key.kind, head: head.into(), json: entry.json.clone() })
    }

    pub fn len(&self) -> usize {
        self.head.len() + self.json.len()
    }

    pub fn is_same(&self, other: &Self) -> bool {
        self.head == other.head && self.json == other.json
    }
}

/// One message of a stream.
#[derive(Clone, Debug)]
pub enum Frame {
    /// What happened to an object.
    Object(Change),
    /// All else.
    Event(Box<WatchEvent>),
}

/// What happened to one object.
#[derive(Clone, Debug)]
pub struct Change {
    pub(super) what: Type,
    pub(super) object: Arc<Encoded>,
}

impl Frame {
    /// A message without an object.
    pub(super) fn mark(what: Type, resume: String) -> Self {
        Self::Event(Box::new(WatchEvent { r#type: what.into(), resume, ..WatchEvent::default() }))
    }

    pub(super) fn write(&self, into: &mut impl BufMut) {
        match self {
            Self::Object(Change { what, object }) => {
                encode_key(TYPE, WireType::Varint, into);
                encode_varint(*what as u64, into);
                into.put_slice(&object.head);
                into.put_slice(object.json.as_bytes());
            }
            // A buffer that grows takes every message.
            Self::Event(event) => event.encode_raw(into),
        }
    }

    /// On the wire, without what gRPC adds.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Object(Change { what, object }) => 1 + encoded_len_varint(*what as u64) + object.len(),
            Self::Event(event) => event.encoded_len(),
        }
    }
}

/// gRPC's codec of `Control.Watch` where what is sent is [`Frame`]s.
#[derive(Debug, Default)]
pub struct Frames;

impl Codec for Frames {
    type Encode = Frame;
    type Decode = WatchRequest;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Frames {
    type Item = Frame;
    type Error = Status;

    fn encode(&mut self, frame: Frame, into: &mut EncodeBuf<'_>) -> Result<(), Status> {
        into.reserve(frame.bytes());
        frame.write(into);
        Ok(())
    }
}

impl Decoder for Frames {
    type Item = WatchRequest;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<WatchRequest>, Status> {
        WatchRequest::decode(from).map(Some).map_err(|error| Status::invalid_argument(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Key;
    use margay_api::control::v1::Object;

    #[test]
    fn is_the_message_that_the_protocol_has() {
        let key = Key::namespaced(Kind::NetworkPolicy, "shop", "web");
        let entry = Entry { key, json: r#"{"kind":"NetworkPolicy"}"#.repeat(40).into(), version: 300 };
        let object = Object {
            kind: "NetworkPolicy".into(),
            namespace: "shop".into(),
            name: "web".into(),
            json: entry.json.to_string(),
            resource_version: "300".into(),
        };
        let event =
            WatchEvent { r#type: Type::Modified.into(), object: Some(object), ..WatchEvent::default() };
        let frame = Frame::Object(Change { what: Type::Modified, object: Encoded::of(&entry) });
        let mut bytes = Vec::new();
        frame.write(&mut bytes);
        assert_eq!((WatchEvent::decode(&*bytes).unwrap(), frame.bytes()), (event, bytes.len()));

        let mark = Frame::mark(Type::Committed, "a-7".into());
        let mut bytes = Vec::new();
        mark.write(&mut bytes);
        assert_eq!(WatchEvent::decode(&*bytes).unwrap().resume, "a-7");
        assert_eq!(mark.bytes(), bytes.len());
    }
}
