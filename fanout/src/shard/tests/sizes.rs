//! What one connection and one subscription cost, pinned.

use std::mem::size_of;

use crate::limits::Gcra;
use crate::schedule::Tenant;
use crate::shard::{ChannelSlot, Conn, SubRef};
use crate::view::Entry;

/// A connection with one subscription costs a `Conn` (with the `SubRef` in it) and an `Entry`, and
/// eight bytes on the wheel.
#[test]
#[cfg(target_arch = "x86_64")]
fn the_sizes_of_hot_types_are_known() {
    let sizes = [
        ("Conn", size_of::<Conn>()),
        ("SubRef", size_of::<SubRef>()),
        ("Entry", size_of::<Entry>()),
        ("Tenant", size_of::<Tenant>()),
        ("ChannelSlot", size_of::<ChannelSlot>()),
        ("Gcra", size_of::<Gcra>()),
    ];
    let text: Vec<String> = sizes
        .iter()
        .map(|(name, size)| format!("{name} {size}"))
        .collect();
    insta::assert_snapshot!(text.join("\n"), @r"
    Conn 56
    SubRef 12
    Entry 32
    Tenant 152
    ChannelSlot 512
    Gcra 8
    ");
}
