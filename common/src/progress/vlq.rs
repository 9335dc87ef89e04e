//! Unsigned numbers as base-64 digits of five bits and a continuation bit: one character up to 31, two up to 1023.
//! ASCII, since Kafka's offset metadata is not binary-safe.

const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// Characters that [`push`] writes for `value`.
pub(super) fn len(value: u64) -> usize {
    let bits = 64 - (value | 1).leading_zeros() as usize;
    bits.div_ceil(5)
}

/// Appends `value`, least significant digit first.
pub(super) fn push(out: &mut String, mut value: u64) {
    loop {
        let low = (value & 31) as usize;
        value >>= 5;
        let more = if value == 0 { 0 } else { 32 };
        out.push(char::from(DIGITS[low | more]));
        if value == 0 {
            return;
        }
    }
}

/// Takes one number off the front; `None` at the end, on a foreign character or beyond 64 bits.
pub(super) fn take(input: &mut &str) -> Option<u64> {
    let mut value = 0u64;
    for (index, byte) in input.bytes().enumerate() {
        let digit = DIGITS.iter().position(|known| *known == byte)? as u64;
        let part = digit & 31;
        let shift = 5 * index as u32;
        if shift > 60 || (part << shift) >> shift != part {
            return None;
        }
        value |= part << shift;
        if digit & 32 == 0 {
            *input = &input[index + 1..];
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_pushed_is_taken(values in prop::collection::vec(any::<u64>(), 0..20)) {
            let mut text = String::new();
            for value in &values {
                push(&mut text, *value);
            }
            prop_assert_eq!(text.len(), values.iter().map(|value| len(*value)).sum::<usize>());
            let mut rest = text.as_str();
            for value in &values {
                prop_assert_eq!(take(&mut rest), Some(*value));
            }
            prop_assert_eq!(take(&mut rest), None);
        }

        #[test]
        fn any_text_is_read_without_panic(text in "\\PC*") {
            let mut rest = text.as_str();
            while take(&mut rest).is_some() {}
        }
    }
}
