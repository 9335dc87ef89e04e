//! Changes to JSON texts: of bytes, of values, of structure. Knows as little of JSON as it takes.

use std::ops::Range;

use rand::{Rng, RngExt, seq::IndexedRandom};

/// Values that parsers and readers stumble over.
const VALUES: [&str; 40] = [
    "null",
    "true",
    "0",
    "-0",
    "-0.0",
    "1",
    "-1",
    "1.0",
    "1.5",
    "1e2",
    "1E+2",
    "9007199254740993",
    "9223372036854775807",
    "9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "-9223372036854775809",
    "1e308",
    "1e400",
    "-1e400",
    "1e-400",
    "123456789012345678901234567890",
    "01",
    "+1",
    ".5",
    "1.",
    "NaN",
    "Infinity",
    r#""""#,
    r#""x""#,
    r#""canary""#,
    r#""delete""#,
    r#""2026-03-17T02:11:05Z""#,
    r#""\u0000""#,
    r#""\ud83c\udf3b""#,
    "[]",
    "{}",
    "[[[]]]",
    r#"{"a":{"b":[1]}}"#,
    r#"["x",7,null]"#,
];

/// Pieces for the inside of strings.
const PIECES: [&str; 14] = [
    r"\ud800",
    r"\udc00\ud800",
    r"\u0000",
    r"\u00e9",
    r"\x",
    r"\",
    "\0",
    "\u{7f}",
    "é",
    "🌊",
    "\r\n",
    "\u{feff}",
    "../",
    ":80",
];

/// A text of the corpus with one to four changes, mostly one: what is broken in two places hides one behind the other.
pub(crate) fn mutated(rng: &mut impl Rng, corpus: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = corpus.choose(rng).expect("a corpus").clone();
    let changes = *[1, 1, 1, 1, 2, 2, 3, 4].choose(rng).expect("some");
    for _ in 0..changes {
        change(rng, &mut bytes, corpus);
    }
    bytes
}

fn change(rng: &mut impl Rng, bytes: &mut Vec<u8>, corpus: &[Vec<u8>]) {
    match rng.random_range(0..36) {
        0 => at_byte(rng, bytes, |rng, byte| *byte = rng.random()),
        1 => at_byte(rng, bytes, |rng, byte| *byte ^= 1 << rng.random_range(0..8)),
        2 => {
            let piece: Vec<u8> = (0..rng.random_range(1..8)).map(|_| rng.random()).collect();
            insert(rng, bytes, &piece);
        }
        3 => {
            let piece = *PIECES.choose(rng).expect("some");
            insert(rng, bytes, piece.as_bytes());
        }
        4 => {
            let range = some_range(rng, bytes.len(), 32);
            drop(bytes.drain(range));
        }
        5 => bytes.truncate(rng.random_range(0..=bytes.len())),
        6 => {
            let range = some_range(rng, bytes.len(), 200);
            let piece = bytes[range].to_vec();
            insert(rng, bytes, &piece);
        }
        7 => {
            let other = corpus.choose(rng).expect("a corpus");
            let range = some_range(rng, other.len(), 200);
            insert(rng, bytes, &other[range]);
        }
        8 => {
            let (prefix, suffix) =
                (["\u{feff}", " ", "\0"].choose(rng), ["\0", " x", "}", "\n", "\u{feff}"].choose(rng));
            bytes.splice(0..0, prefix.expect("some").bytes());
            bytes.extend(suffix.expect("some").bytes());
        }
        9..12 => at_field(rng, bytes, |rng, bytes, field| {
            // The field once more, with the same or another value.
            let value = if rng.random() { bytes[field.value.clone()].to_vec() } else { some_value(rng) };
            let copy = [b",", &bytes[field.name.clone()], b":", &value].concat();
            bytes.splice(field.value.end..field.value.end, copy);
        }),
        12..14 => at_field(rng, bytes, |rng, bytes, field| {
            let levels = *[1, 5, 126, 127, 128, 5_000].choose(rng).expect("some");
            let (open, close) = if rng.random() { ("[", "]") } else { (r#"{"a":"#, "}") };
            let close = if rng.random_ratio(1, 8) { String::new() } else { close.repeat(levels) };
            bytes.splice(field.value.end..field.value.end, close.bytes());
            bytes.splice(field.value.start..field.value.start, open.repeat(levels).bytes());
        }),
        14 => at_field(rng, bytes, |_, bytes, field| drop(bytes.drain(field.name.start..field.value.end))),
        15 => at_field(rng, bytes, |rng, bytes, field| {
            let new = [b"\"new\":", &some_value(rng)[..], b","].concat();
            bytes.splice(field.name.start..field.name.start, new);
        }),
        16 => at_field(rng, bytes, |rng, bytes, field| {
            // Another form of the same name.
            let at = rng.random_range(field.name.start + 1..field.name.end.max(field.name.start + 2));
            if bytes[at].is_ascii_alphanumeric() {
                let escaped = format!("\\u{:04x}", bytes[at]);
                bytes.splice(at..=at, escaped.bytes());
            }
        }),
        _ => at_field(rng, bytes, |rng, bytes, field| drop(bytes.splice(field.value, some_value(rng)))),
    }
}

fn some_value(rng: &mut impl Rng) -> Vec<u8> {
    if rng.random_ratio(1, 10) {
        let digits = rng.random_range(1..400);
        return (0..digits).map(|_| b'1' + rng.random_range(0..9)).collect();
    }
    VALUES.choose(rng).expect("some").as_bytes().to_vec()
}

fn at_byte<R: Rng>(rng: &mut R, bytes: &mut [u8], change: impl Fn(&mut R, &mut u8)) {
    if !bytes.is_empty() {
        let at = rng.random_range(0..bytes.len());
        change(rng, &mut bytes[at]);
    }
}

fn insert(rng: &mut impl Rng, bytes: &mut Vec<u8>, piece: &[u8]) {
    let at = rng.random_range(0..=bytes.len());
    bytes.splice(at..at, piece.iter().copied());
}

fn some_range(rng: &mut impl Rng, len: usize, longest: usize) -> Range<usize> {
    let start = rng.random_range(0..=len);
    start..start + rng.random_range(0..=longest.min(len - start))
}

/// Where name and value of a field are, quotes included.
pub(crate) struct Field {
    pub(crate) name: Range<usize>,
    pub(crate) value: Range<usize>,
}

fn at_field<R: Rng>(rng: &mut R, bytes: &mut Vec<u8>, change: impl Fn(&mut R, &mut Vec<u8>, Field)) {
    let mut fields = fields(bytes);
    if !fields.is_empty() {
        let at = rng.random_range(0..fields.len());
        change(rng, bytes, fields.swap_remove(at));
    }
}

/// All fields at all levels.
pub(crate) fn fields(bytes: &[u8]) -> Vec<Field> {
    let mut fields = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        if bytes[at] != b'"' {
            at += 1;
            continue;
        }
        let name = at..value_end(bytes, at);
        at = name.end;
        let colon = skip_blanks(bytes, at);
        if bytes.get(colon) == Some(&b':') {
            let start = skip_blanks(bytes, colon + 1);
            fields.push(Field { name, value: start..value_end(bytes, start) });
        }
    }
    fields
}

/// The first byte from `at` on that is no blank.
pub(crate) fn skip_blanks(bytes: &[u8], at: usize) -> usize {
    let rest = bytes.get(at..).unwrap_or_default();
    at + rest.iter().take_while(|byte| byte.is_ascii_whitespace()).count()
}

/// Behind the value that begins at `at`.
pub(crate) fn value_end(bytes: &[u8], at: usize) -> usize {
    let (mut depth, mut in_string, mut escaped) = (0usize, false, false);
    for (offset, byte) in bytes.get(at..).unwrap_or_default().iter().enumerate() {
        if in_string {
            (in_string, escaped) = (escaped || *byte != b'"', !escaped && *byte == b'\\');
            if !in_string && depth == 0 {
                return at + offset + 1;
            }
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b'{' | b'[' => depth += 1,
            b'}' | b']' if depth > 1 => depth -= 1,
            b'}' | b']' if depth == 1 => return at + offset + 1,
            b',' | b'}' | b']' | b' ' | b'\t' | b'\r' | b'\n' if depth == 0 => return at + offset,
            _ => {}
        }
    }
    bytes.len()
}
