//! Lines of a `text/event-stream` to the data of its events (HTML standard, 9.2.6). Names and numbers of events are passed over.

/// The event under way.
#[derive(Default)]
pub(crate) struct Events {
    data: Vec<u8>,
}

impl Events {
    /// Takes a line, its end included, and returns the data of the event that it completes. `[DONE]`, by which OpenAI's streams say
    /// that nothing follows, is no event.
    pub(crate) fn line(&mut self, line: &[u8]) -> Option<Vec<u8>> {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() {
            let data = std::mem::take(&mut self.data);
            return (!data.is_empty() && data != b"[DONE]").then_some(data);
        }
        // An older llama-server names an error's line so.
        let value = [b"data:".as_slice(), b"error:"].into_iter().find_map(|name| line.strip_prefix(name))?;
        if !self.data.is_empty() {
            self.data.push(b'\n');
        }
        self.data.extend_from_slice(value.strip_prefix(b" ").unwrap_or(value));
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_read_from_their_lines() {
        let check = |text: &str, expect: &[&str]| {
            let mut events = Events::default();
            let found = text.split_inclusive('\n').filter_map(|line| events.line(line.as_bytes()));
            let found: Vec<String> = found.map(|data| String::from_utf8(data).expect("text")).collect();
            assert_eq!(found, expect, "{text:?}");
        };
        check("data: {\"a\":1}\n\ndata:{}\r\n\r\n", &["{\"a\":1}", "{}"]);
        check(": ping\n\nevent: x\nid: 4\ndata: [\ndata: 1]\n\n", &["[\n1]"]);
        check("error: {\"error\": 1}\n\n", &["{\"error\": 1}"]);
        check("data: [DONE]\n\n", &[]);
        check("data: cut", &[]);
    }
}
