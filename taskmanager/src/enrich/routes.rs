//! Every way in which a record can miss its output or its body, and what becomes of the record then: one table.
//!
//! `docs/answers.md` shows the same table; a test holds the two together.

/// What becomes of the record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// An error event at once: asking again gives the same.
    ErrorEvent,
    /// Asked again as `enrich.retry` says, then an error event.
    Retry,
    /// Asked again as `enrich.not_found` says while the event is young, then an error event.
    RetryWhileYoung,
    /// Asked again in halves; a revision that it happens to alone is an error event.
    Split,
    /// Output, without a body.
    WithoutBody,
}

/// What it says about the endpoint, for the number of requests at once and the circuit breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// It works.
    Answers,
    /// It wants less.
    Overloaded,
    /// It did not answer, or something else did in its place.
    Fails,
    /// Nothing: no request was made, or the fault is ours.
    Nothing,
}

/// A row of the table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row {
    /// The error event's `error_type`.
    pub(crate) error_type: &'static str,
    pub(crate) route: Route,
    pub(crate) effect: Effect,
    /// What it is, for the documentation.
    #[cfg_attr(not(test), expect(dead_code, reason = "only the documentation's test reads it"))]
    pub(crate) what: &'static str,
}

macro_rules! kinds {
    ($($kind:ident: $error_type:literal, $route:ident, $effect:ident, $what:literal;)*) => {
        /// A way in which a record can miss its output or its body.
        #[allow(dead_code, reason = "no fault is made of `Hidden`: it is here since the table is whole")]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Kind {
            $(#[doc = $what] $kind),*
        }

        impl Kind {
            #[cfg(test)]
            pub(crate) const ALL: &[Self] = &[$(Self::$kind),*];

            /// The table.
            pub(crate) const fn row(self) -> Row {
                let (error_type, route, effect, what) = match self {
                    $(Self::$kind => ($error_type, Route::$route, Effect::$effect, $what)),*
                };
                Row { error_type, route, effect, what }
            }
        }
    };
}

kinds! {
    // No answer, or a part of one.
    ConnectionFailed: "ConnectionFailed", Retry, Fails, "no connection: refused, unreachable, no such name";
    TlsFailed: "TlsFailed", Retry, Fails, "no TLS: unknown CA, wrong name or date, a port that speaks plain HTTP";
    ConnectionLost: "ConnectionFailed", Retry, Fails, "connection closed or reset before the answer was complete, or what came is no HTTP; fewer bytes than `Content-Length`";
    Timeout: "Timeout", Retry, Fails, "not complete within `enrich.request_timeout`: no answer, headers alone, a body that drips";
    Interrupted: "Interrupted", Retry, Nothing, "the request was cut off by a fault of Weir's own";
    // HTTP statuses other than 2xx; their bodies are not read.
    TooManyRequests: "RateLimited", Retry, Overloaded, "HTTP 429";
    Unavailable: "ServerError", Retry, Overloaded, "HTTP 503";
    ServerError: "ServerError", Retry, Fails, "HTTP 500 and above, but 503";
    TryAgain: "UnexpectedStatus", Retry, Answers, "HTTP 408, 425";
    RequestTooLarge: "UnexpectedStatus", Split, Answers, "HTTP 413, 414, 431";
    UnexpectedStatus: "UnexpectedStatus", ErrorEvent, Answers, "any other HTTP status: 1xx, redirects (never followed), 401, 403, 404, other 4xx";
    // 2xx, but no answer of the API.
    AnswerTooLarge: "ContentTooLarge", Split, Answers, "over 32 MiB, counted decompressed and while it arrives: a compression bomb, a flood";
    BadEncoding: "UnreadableAnswer", Retry, Fails, "does not decompress";
    NotJson: "UnreadableAnswer", Retry, Fails, "no JSON object: empty, HTML, cut, with a byte order mark, more bytes than `Content-Length`, nested over 127 levels where it is read";
    OtherShape: "UnreadableAnswer", Retry, Answers, "JSON of another shape than documented, or going on for ever";
    // The API's own errors, mostly with HTTP 200.
    MaxLag: "MaxLag", Retry, Overloaded, "error `maxlag`";
    ApiRateLimited: "RateLimited", Retry, Overloaded, "error `ratelimited`";
    ReadDenied: "ReadApiDenied", ErrorEvent, Answers, "errors `readapidenied`, `permissiondenied`";
    TooManyValues: "ApiError", Split, Answers, "error `toomanyvalues`";
    UnknownModel: "UnknownContentModel", Split, Answers, "error `internal_api_error_MWUnknownContentModelException`: the wiki has no code any more for the content model of a revision, and fails for all that are asked for with it";
    PageDenied: "ReadApiDenied", Split, Answers, "error `accessdenied`: a page that not everybody may read, on a wiki that everybody may";
    OtherApiError: "ApiError", Retry, Answers, "any other error: `internal_api_error_…`, `readonly`, unknown ones";
    // One revision in an answer that is fine otherwise.
    BadRevision: "BadRevision", RetryWhileYoung, Answers, "the revision is in `badrevids`: replica lag, or deleted";
    LeftOut: "UnreadableAnswer", Retry, Answers, "the answer leaves the revision out; revisions that nobody asked for are ignored";
    Twice: "UnreadableAnswer", Retry, Answers, "the answer has the revision, or a slot of it, twice";
    LoneTooLarge: "ContentTooLarge", ErrorEvent, Answers, "the API never gets past the revision: over its own cap for an answer";
    SlotsMissing: "SlotsMissing", ErrorEvent, Answers, "`slotsmissing`: the wiki has lost them";
    SlotMissing: "SlotMissing", ErrorEvent, Answers, "slot `missing`, or a slot of the event is not there";
    TextMissing: "TextMissing", ErrorEvent, Answers, "`textmissing`, or an empty text that has a size, as MediaWiki shows one that is marked as lost: the wiki has lost it";
    BadContentFormat: "BadContentFormat", ErrorEvent, Answers, "`badcontentformat`";
    NoContent: "NoContent", ErrorEvent, Answers, "no slots, or a slot without content and without any of these marks";
    BadContent: "BadContent", ErrorEvent, Answers, "content that is no valid Unicode text (half a surrogate pair)";
    Hidden: "", WithoutBody, Answers, "`texthidden`, of the revision or of a slot";
    // The record itself.
    MalformedInput: "MalformedInput", ErrorEvent, Nothing, "no JSON object: tombstone, empty, not UTF-8, cut, nested over 127 levels, a number over 1e308, over 2 MiB, over 10,000 values, a field twice in one object";
    InvalidInput: "InvalidInput", ErrorEvent, Nothing, "a field that enrichment needs is missing, of another type or out of range; `meta.domain` is no host name; does not conform to the sink's schema";
    UnknownFields: "UnknownFields", ErrorEvent, Nothing, "fields that the sink's schema does not know, with `enrich.unknown_fields: error`";
    InvalidOutput: "InvalidOutput", ErrorEvent, Nothing, "with the API's content in it the event does not conform to the sink's schema";
    Oversized: "Oversized", ErrorEvent, Nothing, "the output is larger than producer, topic or broker take, the least of them";
}

#[cfg(test)]
mod tests {
    use super::*;

    fn documented(kind: Kind) -> String {
        let Row { error_type, route, effect, what } = kind.row();
        let error_type = if error_type.is_empty() { "none".to_owned() } else { format!("`{error_type}`") };
        let route = match route {
            Route::ErrorEvent => "error event",
            Route::Retry => "retry",
            Route::RetryWhileYoung => "retry while young",
            Route::Split => "split",
            Route::WithoutBody => "without body",
        };
        let effect = match effect {
            Effect::Answers => "answers",
            Effect::Overloaded => "overloaded",
            Effect::Fails => "fails",
            Effect::Nothing => "nothing",
        };
        format!("| {what} | {error_type} | {route} | {effect} |")
    }

    #[test]
    fn the_documentation_shows_this_table() {
        let document = include_str!("../../../docs/answers.md");
        let shown: Vec<&str> = document.lines().filter(|line| line.starts_with("| ") && line.ends_with(" |")).collect();
        let rows = |line: &&&str| line.split(" | ").count() == 4 && !line.contains("| error_type |");
        let shown: Vec<&str> = shown.iter().filter(rows).copied().collect();
        let wanted: Vec<String> = Kind::ALL.iter().copied().map(documented).collect();
        assert_eq!(shown, wanted, "docs/answers.md should have:\n{}", wanted.join("\n"));
    }

    #[test]
    fn what_has_an_error_type_ends_as_an_error_event() {
        for kind in Kind::ALL {
            let row = kind.row();
            assert_eq!(row.error_type.is_empty(), row.route == Route::WithoutBody, "{kind:?}");
            // Only what the endpoint may get over is asked for again.
            let of_the_endpoint = matches!(row.effect, Effect::Overloaded | Effect::Fails);
            assert!(!of_the_endpoint || row.route == Route::Retry, "{kind:?}");
        }
    }
}
