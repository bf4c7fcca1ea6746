//! Protocol buffers, written by hand: the few kinds of field that the trackers' messages have.

/// A message that is being written.
#[derive(Default)]
pub(crate) struct Message(Vec<u8>);

impl Message {
    /// A zero is what an absent field means, and is not written.
    pub(crate) fn varint(self, field: u32, value: u64) -> Self {
        if value == 0 { self } else { self.tag(field, 0).raw_varint(value) }
    }

    pub(crate) fn double(self, field: u32, value: f64) -> Self {
        self.tag(field, 1).raw(&value.to_le_bytes())
    }

    pub(crate) fn float(self, field: u32, value: f32) -> Self {
        self.tag(field, 5).raw(&value.to_le_bytes())
    }

    pub(crate) fn bytes(self, field: u32, value: &[u8]) -> Self {
        self.tag(field, 2).raw_varint(value.len() as u64).raw(value)
    }

    pub(crate) fn text(self, field: u32, value: &str) -> Self {
        self.bytes(field, value.as_bytes())
    }

    pub(crate) fn message(self, field: u32, value: Self) -> Self {
        self.bytes(field, &value.0)
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    fn tag(self, field: u32, wire_type: u32) -> Self {
        self.raw_varint(u64::from(field << 3 | wire_type))
    }

    fn raw_varint(mut self, mut value: u64) -> Self {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
        self
    }

    fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples of the encoding's documentation: 150 as a varint, "testing", and a message within a message.
    #[test]
    fn documented_examples() {
        assert_eq!(Message::default().varint(1, 150).into_bytes(), [0x08, 0x96, 0x01]);
        assert_eq!(Message::default().text(2, "testing").into_bytes(), *b"\x12\x07testing");
        let inner = Message::default().varint(1, 150);
        assert_eq!(Message::default().message(3, inner).into_bytes(), [0x1a, 0x03, 0x08, 0x96, 0x01]);
    }
}
