//! Frames: any bytes are a message or an error, and a message survives the wire.

use bytes::Bytes;

use stormkv::wire::Message;

/// What goes around kind and body, with the right length and checksum.
pub fn framed(content: &[u8]) -> Bytes {
    let mut frame = (content.len() as u32).to_le_bytes().to_vec();
    frame.extend(crc32fast::hash(content).to_le_bytes());
    frame.extend(content);
    frame.into()
}

/// The bytes are decoded as they are, and once more as kind and body of a frame, because no fuzzer
/// guesses a checksum.
pub fn check(data: &[u8]) {
    check_frame(&Bytes::copy_from_slice(data));
    check_frame(&framed(data));
}

fn check_frame(frame: &Bytes) {
    let message = match Message::decode(frame) {
        Ok(message) => message,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return;
        }
    };
    let again = message.encode();
    let sent = Message::decode(&again).expect("what is written can be read");
    match (&message, &sent) {
        // Protobuf tells a part that was never there from one that was overwritten, but only in
        // memory. Once sent, nothing changes any more.
        (Message::Raft(read), Message::Raft(sent)) => {
            assert_eq!(
                (read.kind(), read.from(), read.to()),
                (sent.kind(), sent.from(), sent.to())
            );
            assert_eq!((read.term(), read.log_term()), (sent.term(), sent.log_term()));
            assert_eq!((read.index(), read.commit()), (sent.index(), sent.commit()));
            assert_eq!(read.reject(), sent.reject());
            assert!(read.entries().eq(sent.entries()));
        }
        _ => assert_eq!(message, sent, "it changed on the wire"),
    }
    assert_eq!(Message::decode(&sent.encode()), Ok(sent), "it changed on the wire");
    assert!(Message::decode(&again.slice(..again.len() - 1)).is_err(), "a part is no message");
    assert!(!message.kind().name().is_empty());
    if let Message::Raft(raft) = &message {
        assert_eq!(raft.entries().count(), raft.entry_count());
    }
}
