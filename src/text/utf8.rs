//! Whole characters from pieces that may end in the middle of one.

/// Collects the bytes of token pieces and hands out only whole UTF-8 characters.
///
/// Bytes that can never become a character are handed out as U+FFFD as soon as that is known.
#[derive(Clone, Debug, Default)]
pub struct Utf8Stream {
    /// The start of a character that is not complete: at most 3 bytes between calls.
    pending: Vec<u8>,
}

impl Utf8Stream {
    pub fn new() -> Utf8Stream {
        Utf8Stream::default()
    }

    /// Takes the bytes of a piece and appends to `out` every character they complete.
    pub fn push(&mut self, bytes: &[u8], out: &mut String) {
        self.pending.extend_from_slice(bytes);
        let mut rest = &self.pending[..];
        loop {
            match std::str::from_utf8(rest) {
                Ok(text) => {
                    out.push_str(text);
                    rest = &[];
                    break;
                }
                Err(error) => {
                    let (whole, broken) = rest.split_at(error.valid_up_to());
                    // The bytes before the error are valid: nothing is replaced here.
                    out.push_str(&String::from_utf8_lossy(whole));
                    rest = broken;
                    match error.error_len() {
                        Some(length) => {
                            out.push(char::REPLACEMENT_CHARACTER);
                            rest = &rest[length..];
                        }
                        None => break,
                    }
                }
            }
        }
        let done = self.pending.len() - rest.len();
        self.pending.drain(..done);
    }

    /// Ends the stream: a character that was never completed is appended to `out` as U+FFFD. The stream is as new.
    pub fn finish(&mut self, out: &mut String) {
        if !self.pending.is_empty() {
            out.push(char::REPLACEMENT_CHARACTER);
            self.pending.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(pieces: &[&[u8]]) -> (Vec<String>, String) {
        let mut stream = Utf8Stream::new();
        let mut parts = Vec::new();
        for piece in pieces {
            let mut out = String::new();
            stream.push(piece, &mut out);
            parts.push(out);
        }
        let mut rest = String::new();
        stream.finish(&mut rest);
        (parts, rest)
    }

    #[test]
    fn a_character_is_held_until_its_last_byte() {
        let fox = "🦊".as_bytes();
        let (parts, rest) = stream(&[b"a", &fox[..1], &fox[1..3], &[fox[3], b'b'], b""]);
        assert_eq!(parts, ["a", "", "", "🦊b", ""]);
        assert_eq!(rest, "");
    }

    #[test]
    fn what_is_left_at_the_end_is_one_replacement_character() {
        let (parts, rest) = stream(&[b"x\xf0\x9f\xa6"]);
        assert_eq!(parts, ["x"]);
        assert_eq!(rest, "\u{fffd}");
    }

    #[test]
    fn bytes_that_are_no_character_are_replaced_as_a_lossy_conversion_does() {
        let bytes = b"\xff\x80a\xe2\x82b\xed\xa0\x80\xf0\x9f\xa6\x8a\xc3";
        for cut in 0..=bytes.len() {
            let (parts, rest) = stream(&[&bytes[..cut], &bytes[cut..]]);
            assert_eq!(parts.concat() + &rest, String::from_utf8_lossy(bytes), "cut at {cut}");
        }
    }
}
