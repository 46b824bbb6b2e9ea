use super::*;
use crate::config::{self, Command};

fn admission(options: &[&str]) -> Admission {
    let args = ["freshet", "serve"].iter().chain(options);
    let args = args.map(std::ffi::OsString::from);
    let Command::Serve(config) = config::from_args(args, |_| None).unwrap() else {
        panic!("serve was asked for")
    };
    Admission::new(&config, Clock::start())
}

fn principal(tenant: &str) -> Principal {
    Principal {
        key_id: "k".to_owned(),
        tenant: TenantId::new(tenant).unwrap(),
        edition: Edition::Free,
        scopes: Vec::new(),
    }
}

fn client(last: u8) -> ClientKey {
    ClientKey::from(std::net::IpAddr::from([127, 0, 0, last]))
}

#[test]
fn a_tenant_at_its_limit_leaves_room_for_others_and_gets_its_place_back() {
    let admission = admission(&["--connections-per-tenant-max", "2"]);
    let (a, b) = (principal("a"), principal("b"));
    let held = [
        admission.admit_stream(&a).unwrap(),
        admission.admit_stream(&a).unwrap(),
    ];
    let refused = admission.admit_stream(&a).unwrap_err();
    assert_eq!(refused.limit, Limit::TenantConnections);
    assert!(admission.admit_stream(&b).is_ok());
    drop(held);
    assert!(admission.admit_stream(&a).is_ok());
}

#[test]
fn a_full_node_lets_a_socket_in_when_another_goes() {
    let admission = admission(&["--connections-max", "1"]);
    let held = admission.admit_socket(client(1)).unwrap();
    let refused = admission.admit_socket(client(2)).unwrap_err();
    assert_eq!(
        (refused.limit, refused.limit.status()),
        (Limit::NodeConnections, 503)
    );
    drop(held);
    assert_eq!(admission.sockets(), 0);
    assert!(admission.admit_socket(client(2)).is_ok());
}

#[test]
fn handshakes_have_a_cap_of_their_own_which_the_connections_behind_them_do_not_use_up() {
    let admission = admission(&["--handshakes-max", "1"]);
    let Entry {
        place, handshake, ..
    } = admission.admit_socket(client(1)).unwrap();
    let refused = admission.admit_socket(client(2)).unwrap_err();
    assert_eq!(refused.limit, Limit::Handshakes);
    drop(handshake);
    assert!(admission.admit_socket(client(2)).is_ok());
    drop(place);
}

#[test]
fn an_address_over_its_rate_leaves_what_all_share_to_others() {
    let admission = admission(&[
        "--connect-rate-max",
        "60",
        "--connect-rate-per-client-max",
        "20",
    ]);
    let come = |last, times| -> Vec<LimitError> {
        (0..times)
            .filter_map(|_| admission.admit_socket(client(last)).err())
            .collect()
    };
    let refused = come(1, 1_000);
    assert!(refused.len() >= 900, "{} were refused", refused.len());
    assert!(
        refused
            .iter()
            .all(|error| error.limit == Limit::ClientConnects)
    );
    assert!(come(2, 10).is_empty(), "the flood was not counted for all");
    let refused = (3..100).flat_map(|last| come(last, 10));
    assert!(
        refused
            .into_iter()
            .any(|error| error.limit == Limit::NodeConnects)
    );
}

/// The defaults must not slow a fleet behind one address that comes back at once.
#[test]
fn ten_thousand_of_one_address_and_tenant_are_let_in_at_once_by_default() {
    let admission = admission(&[]);
    let tenant = Principal {
        edition: Edition::Enterprise,
        ..principal("a")
    };
    let mut held = Vec::new();
    for _ in 0..10_000 {
        held.push(admission.admit_socket(client(1)).unwrap().place);
        held.push(admission.admit_stream(&tenant).unwrap());
    }
    assert_eq!(admission.figures().limited, [0; LIMITS.len()]);
}

#[test]
fn a_tenants_connects_are_limited_apart_from_its_connections() {
    let admission = admission(&["--connect-rate-per-tenant-max", "5"]);
    let (a, b) = (principal("a"), principal("b"));
    let refused: Vec<LimitError> = (0..1_000)
        .filter_map(|_| admission.admit_stream(&a).err())
        .collect();
    assert!(refused.len() >= 900, "{} were refused", refused.len());
    let limits = |error: &LimitError| (error.limit, error.limit.status());
    assert_eq!(limits(&refused[0]), (Limit::TenantConnects, 429));
    assert!(admission.admit_stream(&b).is_ok());
}

#[test]
fn those_who_are_refused_together_come_back_apart() {
    let admission = admission(&["--connections-max", "1"]);
    let _held = admission.admit_socket(client(1)).unwrap();
    let mut seconds = [0; 16];
    for _ in 0..1_000 {
        let refused = admission.admit_socket(client(2)).unwrap_err();
        seconds[usize::try_from(refused.retry_after.as_secs() + 1).unwrap()] += 1;
    }
    assert_eq!(seconds[..6], [0; 6], "never sooner than the least");
    let spread = &seconds[6..];
    assert!(
        spread.iter().all(|count| (90..=110).contains(count)),
        "{seconds:?}"
    );
}

#[test]
fn wrong_keys_slow_their_own_address() {
    let admission = admission(&["--key-failures-per-client-max", "1"]);
    for _ in 0..10 {
        assert_eq!(admission.admit_unknown_key(client(1)), Ok(()));
        admission.count_key_failure(client(1));
    }
    let refused = admission.admit_unknown_key(client(1)).unwrap_err();
    assert_eq!(
        (refused.limit, refused.limit.status()),
        (Limit::KeyFailures, 429)
    );
    assert_eq!(admission.admit_unknown_key(client(2)), Ok(()));
}

#[test]
fn without_memory_nobody_new_comes_in() {
    let admission = admission(&[]);
    let _held = admission.admit_socket(client(1)).unwrap();
    admission.set_out_of_memory(true);
    let refused = admission.admit_socket(client(1)).unwrap_err();
    assert_eq!(
        (refused.limit, refused.limit.status()),
        (Limit::Memory, 503)
    );
    admission.set_out_of_memory(false);
    assert!(admission.admit_socket(client(1)).is_ok());
    assert_eq!(admission.figures().limited[Limit::Memory as usize], 1);
}

#[test]
fn reads_above_the_edition_are_told_when_to_come_back() {
    let admission = admission(&[]);
    let (a, b) = (principal("a"), principal("b"));
    let refused = (0..1_000)
        .filter(|_| admission.admit_read(&a).is_err())
        .count();
    assert!(refused >= 800, "{refused} of 1,000 were refused");
    assert!(admission.admit_read(&b).is_ok());
}

#[test]
fn more_refused_sockets_than_may_be_heard_out_are_counted() {
    let admission = admission(&[]);
    let held: Vec<_> = (0..REFUSED_MAX)
        .map(|_| admission.admit_refused().unwrap())
        .collect();
    assert!(admission.admit_refused().is_none());
    let figures = admission.figures();
    assert_eq!((figures.refused, figures.refused_unheard), (1_024, 1));
    drop(held);
    assert!(admission.admit_refused().is_some());
}

#[test]
fn sockets_without_a_good_key_are_bounded_for_each_client() {
    let admission = admission(&["--unproven-per-client-max", "2"]);
    let mut held = [(); 2].map(|()| admission.admit_socket(client(1)).unwrap());
    let refused = admission.admit_socket(client(1)).unwrap_err();
    let limits = (refused.limit, refused.limit.status());
    assert_eq!(limits, (Limit::ClientUnproven, 429));
    assert!(admission.admit_socket(client(2)).is_ok());
    assert_eq!(admission.figures().unproven, 2);
    // A good key, while the socket stays.
    held[0].unproven = None;
    assert!(admission.admit_socket(client(1)).is_ok());
}

#[test]
fn behind_a_proxy_a_client_is_charged_when_it_is_known() {
    let admission = admission(&["--connect-rate-per-client-max", "1"]);
    let mut behind = [(); 3].map(|()| admission.admit_socket(None).unwrap());
    assert_eq!(admission.figures().unproven, 0);
    behind[0].unproven = Some(admission.admit_client(client(1)).unwrap());
    let refused = admission.admit_client(client(1)).unwrap_err();
    assert_eq!(refused.limit, Limit::ClientConnects);
    behind[1].unproven = Some(admission.admit_client(client(2)).unwrap());
    assert_eq!(admission.figures().unproven, 2);
}

#[test]
fn a_read_that_waits_holds_a_place_among_its_tenants_streams() {
    let admission = admission(&["--connections-per-tenant-max", "2"]);
    let (a, b) = (principal("a"), principal("b"));
    let _stream = admission.admit_stream(&a).unwrap();
    let wait = admission.admit_wait(&a).unwrap();
    let refused = admission.admit_wait(&a).unwrap_err();
    assert_eq!(refused.limit, Limit::TenantConnections);
    assert!(admission.admit_wait(&b).is_ok());
    drop(wait);
    assert!(admission.admit_stream(&a).is_ok());
}

#[test]
fn one_tenants_requests_to_the_control_plane_leave_room_for_another() {
    let admission = admission(&[]);
    // Of an edition whose rate is above what may be under way.
    let large = |name| Principal {
        edition: Edition::Enterprise,
        ..principal(name)
    };
    let (a, b) = (large("a"), large("b"));
    let mut held = Vec::new();
    let refused = loop {
        match admission.admit_forward(&a, client(1), Asks::Write) {
            Ok(forward) => held.push(forward),
            Err(refused) => break refused,
        }
    };
    assert_eq!(refused.limit, Limit::Forwards);
    assert_eq!(admission.figures().forwards, held.len() as u64);
    assert!(admission.admit_forward(&b, client(2), Asks::Write).is_ok());
    held.pop();
    assert!(admission.admit_forward(&a, client(1), Asks::Write).is_ok());
}

#[test]
fn bodies_are_charged_to_their_tenant_until_they_are_let_go() {
    let admission = admission(&[]);
    let step = 8 * 1024 * 1024;
    let forward = |name: &str, number| {
        let admitted = admission.admit_forward(&principal(name), client(number), Asks::Write);
        admitted.unwrap().charge
    };
    let (mut first, mut second) = (forward("a", 1), forward("a", 2));
    while first.grow(step) {}
    assert!(!second.grow(step), "another client of the tenant");
    assert!(forward("b", 3).grow(step), "another tenant");
    let held = admission.figures().forward_bytes;
    assert_eq!(
        held % step as u64,
        0,
        "a charge that failed charged nothing"
    );
    drop(first);
    assert_eq!(admission.figures().forward_bytes, 0);
    assert!(second.grow(step));
}

#[test]
fn questions_to_the_store_are_fewer_than_writes() {
    let admission = admission(&[]);
    let a = principal("a");
    let within = |kind| {
        let tries = 0..10_000;
        let admitted = tries.filter(|_| admission.admit_forward(&a, client(1), kind).is_ok());
        admitted.count()
    };
    let reads = within(Asks::Read);
    let burst = a.edition.limits().reads_per_second as usize;
    assert!((burst..2 * burst).contains(&reads), "{reads}");
    assert!(within(Asks::Write) > 2 * reads);
}
