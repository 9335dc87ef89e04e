//! What goes wrong on the way to a wiki.

use axum::http::StatusCode;
use serde_json::json;

use super::api::Answer;

/// One kind of trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// 429 from the edge, with `Retry-After`.
    TooManyRequests,
    /// 503 from a proxy, not JSON.
    Unavailable,
    /// Replicas lag: HTTP 200 and the API's error, with `Retry-After`.
    Maxlag,
    /// An exception inside MediaWiki: HTTP 200 and the API's error.
    Internal,
    /// The connection breaks before the answer is complete.
    Reset,
}

impl Fault {
    const ALL: [Self; 5] = [Self::TooManyRequests, Self::Unavailable, Self::Maxlag, Self::Internal, Self::Reset];

    /// The fault of a request for a number drawn from `[0, 1)`: all kinds alike, together in `rate` of the requests.
    #[must_use]
    pub fn draw(rate: f64, number: f64) -> Option<Self> {
        if number >= rate {
            return None;
        }
        Self::ALL.get((number / rate * Self::ALL.len() as f64) as usize).copied()
    }

    /// What the client gets instead of its answer; `None`: nothing whole.
    #[must_use]
    pub fn answer(self) -> Option<Answer> {
        Some(match self {
            Self::TooManyRequests => {
                Answer::proxy(StatusCode::TOO_MANY_REQUESTS, "<!DOCTYPE html><title>Too many requests</title>")
                    .retry_after(1)
            }
            Self::Unavailable => {
                Answer::proxy(StatusCode::SERVICE_UNAVAILABLE, "upstream connect error or disconnect/reset before headers")
            }
            Self::Maxlag => Answer::api_error(
                "maxlag",
                json!({ "info": "Waiting for db1999: 7.3 seconds lagged.", "host": "db1999", "lag": 7.3, "type": "db" }),
            )
            .retry_after(5),
            Self::Internal => Answer::api_error(
                "internal_api_error_DBQueryError",
                json!({
                    "info": "[f00dfeed] Caught exception of type Wikimedia\\Rdbms\\DBQueryError",
                    "errorclass": "Wikimedia\\Rdbms\\DBQueryError",
                }),
            ),
            Self::Reset => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_kinds_share_the_rate() {
        assert_eq!(Fault::draw(0.0, 0.0), None);
        assert_eq!(Fault::draw(0.1, 0.1), None);
        let drawn: Vec<_> =
            (0..5).map(|i| Fault::draw(0.1, 0.001 + 0.02 * f64::from(i)).expect("below the rate")).collect();
        assert_eq!(drawn, Fault::ALL);
        assert_eq!(Fault::draw(1.0, 0.999_999), Some(Fault::Reset));
    }
}
