//! The metrics of admission.

use super::PORTS;
use super::catalogue::Text;
use crate::admission::{AdmissionFigures, LIMITS, RATE_LABELS};
use crate::memory::MemoryFigures;

/// Who was refused, and what is remembered to decide it.
pub(super) fn render(text: &mut Text, figures: &AdmissionFigures) {
    let name = "ecs_admission_refused_total";
    text.head("counter", name, "Refusals, by limit.");
    for (limit, count) in LIMITS.iter().zip(figures.limited) {
        text.value(name, "limit", limit.as_str(), count);
    }
    for (kind, name, help, value) in [
        (
            "gauge",
            "ecs_sockets",
            "Sockets that are open.",
            figures.sockets,
        ),
        (
            "gauge",
            "ecs_handshakes",
            "Sockets without a whole head yet.",
            figures.handshakes,
        ),
        (
            "gauge",
            "ecs_unproven_sockets",
            "Sockets that have shown no good key yet.",
            figures.unproven,
        ),
        (
            "gauge",
            "ecs_forwards",
            "Requests that are passed on to the control plane.",
            figures.forwards,
        ),
        (
            "gauge",
            "ecs_forward_bytes",
            "Bytes of bodies on their way to and from the control plane.",
            figures.forward_bytes,
        ),
        (
            "gauge",
            "ecs_refused_sockets",
            "Refused sockets that are heard out.",
            figures.refused,
        ),
        (
            "counter",
            "ecs_refused_unheard_total",
            "Refused sockets closed without an answer.",
            figures.refused_unheard,
        ),
    ] {
        text.head(kind, name, help);
        text.value(name, "", "", value);
    }
    let name = "ecs_rate_keys";
    text.head("gauge", name, "Keys whose rate is remembered.");
    for (label, count) in RATE_LABELS.iter().zip(figures.rate_keys) {
        text.value(name, "rate", label, count);
    }
    let name = "ecs_rate_shared_total";
    text.head(
        "counter",
        name,
        "Checks of newcomers without room of their own.",
    );
    for (label, count) in RATE_LABELS.iter().zip(figures.rate_shared) {
        text.value(name, "rate", label, count);
    }
}

/// The memory budget.
pub(super) fn render_memory(text: &mut Text, figures: MemoryFigures) {
    for (name, help, value) in [
        ("ecs_memory_bytes", "Resident memory.", figures.used),
        (
            "ecs_memory_max_bytes",
            "The memory budget; 0 is none.",
            figures.max,
        ),
        (
            "ecs_memory_exceeded",
            "Whether new connections are refused for memory.",
            u64::from(figures.is_exceeded),
        ),
    ] {
        text.head("gauge", name, help);
        text.value(name, "", "", value);
    }
}

/// The ports for machines of one's own.
pub(super) fn render_ports(text: &mut Text, ports: [[u64; 2]; PORTS.len()]) {
    for (at, (kind, name, help)) in [
        ("gauge", "ecs_port_connections", "Connections of a port."),
        (
            "counter",
            "ecs_port_refused_total",
            "Connections a full port closed.",
        ),
    ]
    .into_iter()
    .enumerate()
    {
        text.head(kind, name, help);
        for (port, figures) in PORTS.iter().zip(ports) {
            text.value(name, "port", port, figures[at]);
        }
    }
}
