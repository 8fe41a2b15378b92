//! Choices, out of the bytes that a fuzzer provides.

/// The rest of the bytes. When they are used up, every number is 0.
pub struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Input(bytes)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn byte(&mut self) -> u8 {
        match self.0.split_first() {
            Some((first, rest)) => {
                self.0 = rest;
                *first
            }
            None => 0,
        }
    }

    pub fn flag(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    pub fn u16(&mut self) -> u16 {
        u16::from_le_bytes([self.byte(), self.byte()])
    }

    pub fn u64(&mut self) -> u64 {
        u64::from_le_bytes(std::array::from_fn(|_| self.byte()))
    }

    /// Below or equal to `max`.
    pub fn up_to(&mut self, max: usize) -> usize {
        usize::from(self.u16()) % (max + 1)
    }

    /// A number that is most often close to one of `near`, and sometimes any number.
    pub fn near(&mut self, near: &[u64]) -> u64 {
        let choice = self.byte();
        if choice == u8::MAX {
            return self.u64();
        }
        if choice == u8::MAX - 1 {
            return u64::MAX - u64::from(self.byte() & 3);
        }
        // The low bits say how far off, the others which.
        let delta = u64::from(choice & 7);
        let base = near[usize::from(choice >> 3) % near.len()];
        if delta < 6 { base.wrapping_add(delta) } else { base.wrapping_sub(delta - 5) }
    }

    /// So many bytes, or what is left.
    pub fn bytes(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// A few bytes.
    pub fn some(&mut self) -> &'a [u8] {
        let len = usize::from(self.byte());
        self.bytes(len)
    }

    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }
}
