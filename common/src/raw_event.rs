//! What an error event says of its `raw_event`: written by taskmanagers, read by who wants the input back.

/// Beside a raw event with bytes that have no text.
pub const REPLACED_NOTE: &str = " (raw_event: bytes that are not UTF-8 are shown as U+FFFD)";

const CUT_NOTE: (&str, &str) = (" (raw_event cut to fit the topic; the input has ", " bytes)");

/// Beside a raw event that was cut, of an input of so many bytes.
#[must_use]
pub fn cut_note(input_bytes: usize) -> String {
    let (begin, end) = CUT_NOTE;
    format!("{begin}{input_bytes}{end}")
}

/// How much of the input a raw event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RawEvent {
    /// All of it, as it came.
    Whole,
    /// Only its beginning.
    Cut,
    /// Bytes that are not UTF-8 were replaced.
    Replaced,
}

impl RawEvent {
    /// By the event's message.
    #[must_use]
    pub fn of_message(message: &str) -> Self {
        let (begin, end) = CUT_NOTE;
        let is_cut = message
            .strip_suffix(end)
            .and_then(|rest| rest.rsplit_once(begin))
            .is_some_and(|(_, bytes)| !bytes.is_empty() && bytes.bytes().all(|byte| byte.is_ascii_digit()));
        match is_cut {
            true => Self::Cut,
            false if message.ends_with(REPLACED_NOTE) => Self::Replaced,
            false => Self::Whole,
        }
    }

    /// `WHOLE`, `CUT` or `REPLACED`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Whole => "WHOLE",
            Self::Cut => "CUT",
            Self::Replaced => "REPLACED",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_are_read_back() {
        let of = |notes: &[&str]| RawEvent::of_message(&format!("went wrong{}", notes.concat()));
        assert_eq!(of(&[]), RawEvent::Whole);
        assert_eq!(of(&[REPLACED_NOTE]), RawEvent::Replaced);
        assert_eq!(of(&[&cut_note(17)]), RawEvent::Cut);
        assert_eq!(of(&[REPLACED_NOTE, &cut_note(17)]), RawEvent::Cut);
        assert_eq!(of(&[" (raw_event cut to fit the topic; the input has many bytes)"]), RawEvent::Whole);
    }
}
