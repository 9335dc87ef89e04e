//! `meta.domain` comes from the input: it names a wiki, and must never name anything else.

use std::{fmt, str::FromStr};

/// A plain host name in lower case: no port, path, user or address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Domain(String);

impl Domain {
    /// The name.
    #[must_use]
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether a name server may be asked for it: at least two labels, and no IPv4 address.
    #[must_use]
    pub(crate) fn is_public_name(&self) -> bool {
        let last = self.0.rsplit('.').next().unwrap_or_default();
        last.len() < self.0.len() && !last.bytes().all(|byte| byte.is_ascii_digit())
    }
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Domain {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.is_empty() || text.len() > 253 {
            return Err("a host name has 1 to 253 characters");
        }
        for label in text.split('.') {
            if label.is_empty() || label.len() > 63 {
                return Err("not a host name: labels have 1 to 63 characters");
            }
            if !label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
                return Err("not a host name: only letters, digits, `-` and `.` are");
            }
            if label.starts_with('-') || label.ends_with('-') {
                return Err("not a host name: a label starts or ends with `-`");
            }
        }
        Ok(Self(text.to_ascii_lowercase()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_host_names_pass() {
        for good in
            ["en.wikipedia.org", "EN.Wikipedia.org", "localhost", "xn--80ak6aa92e.com", "zh-min-nan.wikipedia.org"]
        {
            assert_eq!(good.parse::<Domain>().map(|domain| domain.0), Ok(good.to_ascii_lowercase()));
        }
        let long = "a.".repeat(150);
        for bad in [
            "",
            ".",
            "a..b",
            "a.b.",
            "a:80",
            "a/b",
            "a?b",
            "a#b",
            "user@a",
            "a b",
            "a\r\nX: y",
            "a\0",
            "[::1]",
            "-a",
            "a-.b",
            "a_b",
            "ä.org",
            "%61.org",
            "{domain}",
            long.as_str(),
        ] {
            assert!(bad.parse::<Domain>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn addresses_and_single_labels_are_not_public() {
        for (name, public) in [("en.wikipedia.org", true), ("localhost", false), ("127.0.0.1", false), ("1.2", false)] {
            assert_eq!(name.parse::<Domain>().map(|domain| domain.is_public_name()), Ok(public), "{name}");
        }
    }
}
