//! Writes the wire format of protocol buffers, as much of it as a trace needs.
//!
//! A message is a row of fields. Each begins with its number and how it is encoded; see
//! <https://protobuf.dev/programming-guides/encoding/>. The one library that is at hand reads the same
//! format in the tests.

const VARINT: u64 = 0;
const FIXED_64: u64 = 1;
const BYTES: u64 = 2;

/// A message as it is written.
#[derive(Default)]
pub struct Message(Vec<u8>);

impl Message {
    /// The bytes so far.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// A field of type uint64, int64 (not below 0), bool or enum.
    pub fn number(&mut self, field: u64, value: u64) -> &mut Message {
        self.varint(field << 3 | VARINT);
        self.varint(value);
        self
    }

    /// A field of type fixed64.
    pub fn fixed(&mut self, field: u64, value: u64) -> &mut Message {
        self.varint(field << 3 | FIXED_64);
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    /// A field of type string.
    pub fn text(&mut self, field: u64, value: &str) -> &mut Message {
        self.length_delimited(field, value.as_bytes())
    }

    /// A field that is a message.
    pub fn message(&mut self, field: u64, value: &Message) -> &mut Message {
        self.length_delimited(field, &value.0)
    }

    fn length_delimited(&mut self, field: u64, bytes: &[u8]) -> &mut Message {
        self.varint(field << 3 | BYTES);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
        self
    }

    /// Seven bits a byte, the lowest first; the highest bit says that there is more.
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }
}

#[cfg(test)]
mod tests {
    use protobuf::CodedInputStream;
    use protobuf::wire_format::WireType;

    use super::*;

    #[test]
    fn what_is_written_is_what_a_library_reads() {
        for value in [0, 1, 127, 128, 300, 1 << 35, u64::MAX] {
            let mut inner = Message::default();
            inner.text(2, "n1 -> n2, é").fixed(47, value);
            let mut message = Message::default();
            message.number(8, value).message(60, &inner);
            let mut stream = CodedInputStream::from_bytes(message.bytes());
            assert_eq!(stream.read_tag_unpack().unwrap(), (8, WireType::WireTypeVarint));
            assert_eq!(stream.read_uint64().unwrap(), value);
            assert_eq!(stream.read_tag_unpack().unwrap(), (60, WireType::WireTypeLengthDelimited));
            let bytes = stream.read_bytes().unwrap();
            assert!(stream.eof().unwrap());
            let mut stream = CodedInputStream::from_bytes(&bytes);
            assert_eq!(stream.read_tag_unpack().unwrap(), (2, WireType::WireTypeLengthDelimited));
            assert_eq!(stream.read_string().unwrap(), "n1 -> n2, é");
            assert_eq!(stream.read_tag_unpack().unwrap(), (47, WireType::WireTypeFixed64));
            assert_eq!(stream.read_fixed64().unwrap(), value);
            assert!(stream.eof().unwrap());
        }
    }
}
