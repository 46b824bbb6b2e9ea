//! Every bound of the contract, in one place, each with where it comes from.

/// Longest tenant id. Source: arbitrary, because 64 bytes hold a UUID with a prefix.
pub const TENANT_ID_BYTES_MAX: usize = 64;
/// Longest environment name. Source: arbitrary, because names are for people.
pub const ENVIRONMENT_BYTES_MAX: usize = 64;
/// Longest config set name. Source: arbitrary, because names are for people.
pub const SET_BYTES_MAX: usize = 128;
/// Longest app name. Source: arbitrary, because names are for people.
pub const APP_BYTES_MAX: usize = 128;
/// Longest key. Source: arbitrary, because a path of eight 31-byte segments fits.
pub const KEY_BYTES_MAX: usize = 256;
/// Longest event id. Source: arbitrary, because a ULID has 26 bytes and a UUID 36.
pub const EVENT_ID_BYTES_MAX: usize = 64;
/// Longest version label. Source: arbitrary, because `v2025.08.24-14` has 14 bytes.
pub const VERSION_BYTES_MAX: usize = 64;
/// Longest trace id that is carried. Source: W3C Trace Context, `traceparent` has 55 bytes.
pub const TRACE_BYTES_MAX: usize = 64;
/// Longest signature text. Source: a detached EdDSA JWS with a short header has under 250 bytes.
pub const SIGNATURE_BYTES_MAX: usize = 512;
/// Largest number that survives JSON in every language. Source: RFC 8259 section 6 (2^53 - 1).
pub const JSON_INTEGER_MAX: u64 = (1 << 53) - 1;
/// Patterns in one key filter. Source: ledger Q-30.
pub const FILTER_PATTERNS_MAX: usize = 64;
/// Largest client frame. Source: arbitrary, because a subscribe with 64 full patterns has 18 KiB.
pub const CLIENT_FRAME_BYTES_MAX: usize = 64 * 1024;
/// Largest server frame a client must accept. Source: ledger Q-20, the largest snapshot is 5 MB.
pub const SERVER_FRAME_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Where a snapshot is cut into chunks. Source: arbitrary, because it is one round of a socket
/// buffer, and small enough that a client can show progress.
pub const SNAPSHOT_CHUNK_BYTES: usize = 64 * 1024;
/// Largest delta an event carries inline. Source: the design, section 4.
pub const INLINE_DELTA_BYTES_MAX: usize = 64 * 1024;
/// Largest envelope that is decoded. Source: the inline delta, its escaping and its head.
pub const ENVELOPE_BYTES_MAX: usize = 256 * 1024;
/// Largest snapshot document that is decoded. Source: 5 MB of values and 25,000 keys with their
/// revisions (ledger 2.14), and as much again for tombstones.
pub const SNAPSHOT_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Keys in one channel. Source: ledger 2.14, keys per namespace of the largest edition.
pub const CHANNEL_KEYS_MAX: usize = 25_000;
/// Scopes of one principal. Source: arbitrary, because there are six kinds of scope.
pub const SCOPES_MAX: usize = 32;
