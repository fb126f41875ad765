//! Server-sent events out of a stream of bytes. Pure.

/// Longest line that is taken; what is longer is no event of this server.
const LINE: usize = 1 << 20;

/// One event.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sent {
    /// Its id.
    pub id: Option<String>,
    /// Its type.
    pub event: Option<String>,
    /// Its data.
    pub data: String,
}

/// Puts events together.
#[derive(Debug, Default)]
pub struct Parser {
    line: Vec<u8>,
    next: Sent,
    has_data: bool,
    was_cr: bool,
}

impl Parser {
    /// The events that these bytes complete.
    pub fn feed(&mut self, bytes: &[u8]) -> Vec<Sent> {
        let mut events = Vec::new();
        for byte in bytes {
            let was_cr = std::mem::replace(&mut self.was_cr, *byte == b'\r');
            match byte {
                // The second half of a line's end.
                b'\n' if was_cr => {}
                b'\n' | b'\r' => events.extend(self.end_of_line()),
                _ if self.line.len() < LINE => self.line.push(*byte),
                _ => {}
            }
        }
        events
    }

    fn end_of_line(&mut self) -> Option<Sent> {
        let line = std::mem::take(&mut self.line);
        if line.is_empty() {
            let event = std::mem::take(&mut self.next);
            // An id alone says how far one has heard.
            return (std::mem::take(&mut self.has_data) || event.id.is_some()).then_some(event);
        }
        let line = String::from_utf8_lossy(&line);
        let (field, value) = line.split_once(':').unwrap_or((&line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "id" => self.next.id = Some(value.to_owned()),
            "event" => self.next.event = Some(value.to_owned()),
            "data" => {
                if self.has_data {
                    self.next.data.push('\n');
                }
                self.has_data = true;
                if self.next.data.len() < LINE {
                    self.next.data.push_str(value);
                }
            }
            // A comment, or something newer.
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_whole_however_the_bytes_come() {
        let text = b": hello\n\nid: 7\nevent: failed\ndata: {\"a\":\ndata: 1}\n\nretry: 1\n\nid: 8\r\ndata:x\r\n\r\nid: 9\n";
        for size in 1..text.len() {
            let mut parser = Parser::default();
            let events: Vec<_> = text.chunks(size).flat_map(|part| parser.feed(part)).collect();
            let wanted = [
                Sent { id: Some("7".into()), event: Some("failed".into()), data: "{\"a\":\n1}".into() },
                Sent { id: Some("8".into()), event: None, data: "x".into() },
            ];
            assert_eq!(events, wanted, "in parts of {size}");
        }
    }
}
