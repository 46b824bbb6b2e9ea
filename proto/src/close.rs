//! Why a stream ended or a frame was refused: numbers and words that clients act on.

use std::fmt;

/// Why the gateway ended a connection. The number is on the wire and in metrics, so it is
/// append-only: never reused, never renumbered (pinned by a snapshot test).
///
/// Source: RFC 6455 section 7.4.2 leaves 4000–4999 to applications. 4000–4499 say "come back by
/// yourself", 4500–4999 "do not come back unchanged" (decision 0002).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum CloseReason {
    /// This node is draining. Reconnect elsewhere after the time of the `goaway` frame.
    Draining = 4000,
    /// The client read nothing for too long while a frame was waiting for it.
    Stalled = 4001,
    /// Nothing was subscribed for too long.
    Idle = 4002,
    /// The node holds as much for slow readers as it may. Resume with the cursor.
    Overloaded = 4003,
    /// No first frame, or no credentials, in the time for a handshake.
    HandshakeTimeout = 4004,
    /// The credentials are missing, unknown or revoked. Renew them first.
    Unauthorized = 4500,
    /// The WebSocket framing broke RFC 6455.
    ProtocolError = 4501,
    /// A frame was larger than 64 KiB.
    FrameTooLarge = 4502,
    /// A frame was not JSON of a known type with the fields of that type.
    MalformedFrame = 4503,
    /// The client sent more frames than are read, for too long.
    InputRate = 4504,
}

/// Every reason, in the order of its number.
pub const CLOSE_REASONS: [CloseReason; 10] = [
    CloseReason::Draining,
    CloseReason::Stalled,
    CloseReason::Idle,
    CloseReason::Overloaded,
    CloseReason::HandshakeTimeout,
    CloseReason::Unauthorized,
    CloseReason::ProtocolError,
    CloseReason::FrameTooLarge,
    CloseReason::MalformedFrame,
    CloseReason::InputRate,
];

impl CloseReason {
    /// The number on the wire.
    pub const fn code(self) -> u16 {
        self as u16
    }

    /// Whether a client may reconnect without changing anything.
    pub const fn is_retryable(self) -> bool {
        self.code() < 4500
    }

    /// The word in the close frame and in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Draining => "draining",
            Self::Stalled => "stalled",
            Self::Idle => "idle",
            Self::Overloaded => "overloaded",
            Self::HandshakeTimeout => "handshake_timeout",
            Self::Unauthorized => "unauthorized",
            Self::ProtocolError => "protocol_error",
            Self::FrameTooLarge => "frame_too_large",
            Self::MalformedFrame => "malformed_frame",
            Self::InputRate => "input_rate",
        }
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

macro_rules! error_codes {
    ($($(#[$doc:meta])* $variant:ident = $text:literal,)*) => {
        /// The stable word in an `error` frame and in `reasonCodes` of a problem document.
        /// Append-only, like [`CloseReason`].
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
        pub enum ErrorCode {
            $($(#[$doc])* #[serde(rename = $text)] $variant,)*
        }

        impl ErrorCode {
            /// Every code, in the order they were added.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The word on the wire.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }
    };
}

error_codes! {
    /// Not JSON, or a field has the wrong type or is out of bounds. The connection closes.
    MalformedFrame = "frame.malformed",
    /// The `type` is not one a client may send. The connection closes.
    UnknownType = "frame.unknown_type",
    /// Larger than 64 KiB. The connection closes.
    FrameTooLarge = "frame.too_large",
    /// The WebSocket framing is wrong. The connection closes.
    ProtocolError = "frame.protocol",
    /// No subscription has this number on this connection.
    UnknownSubscription = "subscription.unknown",
    /// The number is in use on this connection.
    DuplicateSubscription = "subscription.duplicate",
    /// More subscriptions than one connection may have.
    TooManySubscriptions = "subscription.limit",
    /// Too many patterns, or a pattern that is not a key or a prefix.
    BadFilter = "subscription.filter",
    /// The channel does not exist, or is not this tenant's.
    UnknownChannel = "channel.unknown",
    /// The channel exists but could not be loaded now. Try again.
    ChannelUnavailable = "channel.unavailable",
    /// The cursor is ahead of everything that was ever published. Subscribe without it.
    CursorFromFuture = "cursor.future",
    /// The credentials are missing, unknown or revoked. The connection closes.
    Unauthorized = "auth.unauthorized",
    /// The credentials do not cover this.
    Forbidden = "auth.forbidden",
    /// No credentials or no subscription in time. The connection closes.
    HandshakeTimeout = "handshake.timeout",
    /// A limit of the tenant or of the node. Come back after the stated time.
    LimitExceeded = "limit.exceeded",
    /// The client read nothing for too long. The connection closes.
    Stalled = "connection.stalled",
    /// Nothing was subscribed for too long. The connection closes.
    Idle = "connection.idle",
    /// The node holds as much for slow readers as it may. The connection closes.
    Overloaded = "node.overloaded",
    /// The credentials have ended. The connection closes.
    Expired = "auth.expired",
    /// The tenant is suspended. The connection closes.
    TenantSuspended = "tenant.suspended",
}

impl ErrorCode {
    /// The reason a connection closes with, if this error ends it.
    pub const fn closes(self) -> Option<CloseReason> {
        match self {
            Self::MalformedFrame | Self::UnknownType => Some(CloseReason::MalformedFrame),
            Self::FrameTooLarge => Some(CloseReason::FrameTooLarge),
            Self::ProtocolError => Some(CloseReason::ProtocolError),
            Self::Unauthorized | Self::Expired | Self::TenantSuspended => {
                Some(CloseReason::Unauthorized)
            }
            Self::HandshakeTimeout => Some(CloseReason::HandshakeTimeout),
            Self::Stalled => Some(CloseReason::Stalled),
            Self::Idle => Some(CloseReason::Idle),
            Self::Overloaded => Some(CloseReason::Overloaded),
            Self::UnknownSubscription
            | Self::DuplicateSubscription
            | Self::TooManySubscriptions
            | Self::BadFilter
            | Self::UnknownChannel
            | Self::ChannelUnavailable
            | Self::CursorFromFuture
            | Self::Forbidden
            | Self::LimitExceeded => None,
        }
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn close_reasons_are_append_only() {
        let table: Vec<String> = CLOSE_REASONS
            .iter()
            .map(|reason| {
                let retry = if reason.is_retryable() {
                    "come back"
                } else {
                    "change first"
                };
                format!("{} {reason}: {retry}", reason.code())
            })
            .collect();
        insta::assert_snapshot!(table.join("\n"), @r"
        4000 draining: come back
        4001 stalled: come back
        4002 idle: come back
        4003 overloaded: come back
        4004 handshake_timeout: come back
        4500 unauthorized: change first
        4501 protocol_error: change first
        4502 frame_too_large: change first
        4503 malformed_frame: change first
        4504 input_rate: change first
        ");
    }

    #[test]
    fn error_codes_are_append_only() {
        let words: Vec<&str> = ErrorCode::ALL.iter().map(|code| code.as_str()).collect();
        insta::assert_snapshot!(words.join("\n"), @r"
        frame.malformed
        frame.unknown_type
        frame.too_large
        frame.protocol
        subscription.unknown
        subscription.duplicate
        subscription.limit
        subscription.filter
        channel.unknown
        channel.unavailable
        cursor.future
        auth.unauthorized
        auth.forbidden
        handshake.timeout
        limit.exceeded
        connection.stalled
        connection.idle
        node.overloaded
        auth.expired
        tenant.suspended
        ");
    }
}
